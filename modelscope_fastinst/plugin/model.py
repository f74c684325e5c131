"""The network as a ModelScope model: what ``Model.from_pretrained(folder)`` builds from a ``configuration.json``."""
from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from modelscope.models.base import TorchModel
from modelscope.models.builder import MODELS
from torch import Tensor

from modelscope_fastinst.checkpoints import load_weights
from modelscope_fastinst.checkpoints.writing import weights_content, write_together
from modelscope_fastinst.models.build import build_network
from modelscope_fastinst.objective.criterion import build_criterion
from modelscope_fastinst.plugin.configuration import (
    CONFIGURATION_FILE,
    LOADER_KEYS,
    configuration_content,
    plain,
)
from modelscope_fastinst.plugin.registry import TASK
from modelscope_fastinst.structures import TASKS, NetworkOutput, Target

WEIGHTS_FILE = 'model.safetensors'


@MODELS.register_module(TASK, module_name='fastinst', force=True)
class FastInstModel(TorchModel):
    """A network (FastInst, Mask2Former or what lies between) with its objective, in ModelScope's manner.

    State-dict keys are the network's, hence the published ones (``backbone.*``, ``sem_seg_head.*``); the objective has
    no weights that are saved.

    Args:
        model_dir: folder with the weights (``model.safetensors``, or else ``pytorch_model.pt`` or ``.bin``).
        backbone, encoder, decoder: sections of the configuration, see ``models.build.build_network``. Not mutated.
        classes: names of the classes, in the order of the class logits.
        task: what it is trained for: 'instance', 'semantic' or 'panoptic'. The weights of a panoptic model answer all
            three (``structures.TASKS``).
        things: names of the classes that are things; for a panoptic model, and only there.
        pretrained: True loads the weights of ``model_dir`` and fails where there are none; False starts from random
            weights. None, the default, loads if there is a ``model_dir``: random weights must be asked for.
        criterion: settings of the training objective, see ``objective.criterion.build_criterion``.

    Attributes:
        architecture: ``model.type``, see ``models.build.ARCHITECTURES``; ModelScope keeps it from the constructor.
        thing_classes: indices of the classes that are things: all for 'instance', none for 'semantic'.

    Raises:
        ValueError: ``classes`` is missing or does not fit ``decoder.num_classes``; unknown or missing settings.
        CheckpointError: the weights are missing, broken, or do not fit the network.
    """

    architecture = 'fastinst'

    def __init__(self, model_dir: str | None = None, *args: Any, backbone: Mapping[str, Any] | None = None,
                 encoder: Mapping[str, Any] | None = None, decoder: Mapping[str, Any] | None = None,
                 classes: Sequence[str] | None = None, pretrained: bool | None = None,
                 criterion: Mapping[str, Any] | None = None, task: str = 'instance',
                 things: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(model_dir, *args, **kwargs)
        where = f'{model_dir}: model' if model_dir else 'model'
        unknown = sorted(set(kwargs) - LOADER_KEYS - {'type'})
        if unknown:
            raise ValueError(f'{where}: unknown settings {unknown}; known are backbone, classes, criterion, decoder, '
                             'encoder, pretrained, task, things')
        if kwargs.get('type', self.architecture) != self.architecture:
            raise ValueError(f'{where}.type is {kwargs["type"]!r}; {type(self).__name__} is "{self.architecture}"')
        self.classes = _checked_classes(classes, decoder or {}, where)
        sections = {name: plain(section) for name, section in
                    (('backbone', backbone), ('encoder', encoder), ('decoder', decoder)) if section is not None}
        if 'decoder' in sections:
            sections['decoder']['num_classes'] = len(self.classes)
        self.task, self.thing_classes = task, _checked_things(task, things, self.classes, where)
        self._settings = {'type': self.architecture, 'classes': self.classes, **sections}
        if task != 'instance':
            self._settings['task'] = task
        if things is not None:
            self._settings['things'] = list(things)
        if criterion is not None:
            self._settings['criterion'] = plain(criterion)
        self.network = build_network({'type': self.architecture, **sections})
        self.criterion = build_criterion(plain(criterion) if criterion is not None else None, len(self.classes),
                                         proposals=self.network.sem_seg_head.predictor.proposes_queries)
        self.optimized_for_inference = False
        self.weights_loaded = False
        if pretrained or (pretrained is None and model_dir):
            if not model_dir:
                raise ValueError(f'{where}: pretrained is true, but there is no model_dir to load weights from')
            load_weights(self.network, model_dir)
            self.weights_loaded = True

    @property
    def size_divisor(self) -> int:
        """Images are padded to a canvas whose height and width are multiples of it."""
        return self.network.size_divisor

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return next(self.network.parameters()).device

    def forward(self, images: list[Tensor] | Tensor, targets: list[Target] | None = None,
                **_: Any) -> NetworkOutput | dict[str, Any]:
        """Runs the network; in training mode the objective as well.

        Args:
            images: list of ``[3, H, W]`` tensors of any sizes or one ``[B, 3, H, W]``, uint8 or float, RGB, 0..255.
            targets: in training mode the ground truth, one entry an image, masks at the images' sizes.

        Returns:
            In evaluation mode the network's output. In training mode ``loss``, a scalar to backpropagate, and
            ``log_vars``, the weighted losses as floats: the two names that ModelScope's trainer reads.

        Raises:
            ValueError: training mode without targets.
        """
        device = self.device
        images = (images.to(device, non_blocking=True) if isinstance(images, Tensor)
                  else [image.to(device, non_blocking=True) for image in images])
        if not self.training:
            return self.network(images)
        if targets is None:
            raise ValueError('training mode needs targets; call eval() for inference')
        targets = [target.to(device, non_blocking=True) for target in targets]
        losses = self.criterion(self.network(images, targets=targets, match=self.criterion.match), targets)
        total = torch.stack(list(losses.values())).sum()
        # One transfer for all of them: every .item() would wait for the device.
        values = torch.stack([total, *losses.values()]).detach().float().tolist()
        return {'loss': total, 'log_vars': dict(zip(['loss', *losses], values, strict=True))}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The network's weights under the published names.

        Raises:
            RuntimeError: the model was optimised for inference, its weights are no longer the published ones.
        """
        if self.optimized_for_inference:
            raise RuntimeError('this model was optimised for inference and its weights cannot be saved or read; '
                               'build the pipeline with optimize=False, or load the model with Model.from_pretrained')
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads weights with the published names, as ``torch.nn.Module.load_state_dict`` does."""
        if self.optimized_for_inference:
            raise RuntimeError('this model was optimised for inference and takes no weights; load the model with '
                               'Model.from_pretrained')
        return self.network.load_state_dict(state_dict, strict=strict, assign=assign)

    def optimized(self) -> FastInstModel:
        """A copy for inference only, with batch norms folded into convolutions; this model stays as it is.

        The logits may differ from this model's by rounding (at most 1e-2).
        """
        from modelscope_fastinst.models.optimize import optimize_for_inference
        if self.optimized_for_inference:
            return self
        model = copy.copy(self)
        model._modules = dict(self._modules)
        model.network = optimize_for_inference(self.network)
        model.optimized_for_inference = True
        return model.eval()

    def save_pretrained(self, target_folder: str | os.PathLike, save_checkpoint_names: str | list[str] | None = None,
                        save_function: Any = None, config: Mapping[str, Any] | None = None,
                        save_config_function: Any = None, **kwargs: Any) -> None:
        """Writes a folder that ``pipeline()`` loads: ``model.safetensors`` and ``configuration.json``.

        Each file appears at once or not at all, and the weights are never beside the configuration of another model: a
        process that is killed leaves a folder that loads, or, where there was another model before, one without
        configuration. ModelScope's other arguments are accepted and not used: which file is
        written and how is the same for every caller, and nothing else of the model's old folder is copied.

        Args:
            target_folder: made if it is missing.
            config: the whole configuration; default the one the model was loaded with.
        """
        folder = os.fspath(target_folder)
        if os.path.isfile(folder):
            raise ValueError(f'{folder}: is a file; save_pretrained needs a folder')
        os.makedirs(folder, exist_ok=True)
        config = config if config is not None else getattr(self, 'cfg', None)
        self.state_dict()   # refuses a model whose weights are no longer the published ones
        weights = weights_content(self.network)
        configuration = configuration_content(plain(config or {}), self._settings)
        weights_file, file = Path(folder, WEIGHTS_FILE), Path(folder, CONFIGURATION_FILE)
        write_together({weights_file: lambda stream: stream.write(weights),
                        file: lambda stream: stream.write(configuration)},
                       withdraw=None if _same_model(file, configuration) else file, needed=len(weights))


@MODELS.register_module(TASK, module_name='mask2former', force=True)
class Mask2FormerModel(FastInstModel):
    """The same with Mask2Former's pixel decoder and transformer decoder where the sections do not name others."""

    architecture = 'mask2former'


def _same_model(file: Path, configuration: bytes) -> bool:
    """Whether a configuration file, if it is there, describes the network that this configuration describes."""
    try:
        there = json.loads(file.read_bytes())
    except (OSError, ValueError):   # none, or none that anybody could load
        return False
    return isinstance(there, dict) and there.get('model') == json.loads(configuration)['model']


def _checked_classes(classes: Any, decoder: Mapping[str, Any], where: str) -> list[str]:
    """The class names as a list, after checking that they fit ``decoder.num_classes``."""
    number = decoder.get('num_classes')
    if isinstance(classes, str) or not isinstance(classes, Sequence) or not classes:
        raise ValueError(f'{where}.classes: needs the list of class names, one for each of decoder.num_classes '
                         f'({number if number is not None else "not set"}); got {classes!r}')
    names = [str(name) for name in classes]
    if number is not None and number != len(names):
        raise ValueError(f'{where}: {len(names)} classes, but decoder.num_classes is {number}; they must agree')
    return names


def _checked_things(task: str, things: Any, classes: Sequence[str], where: str) -> frozenset[int]:
    """Indices of the thing classes, after checking ``model.task`` and ``model.things``."""
    if task not in TASKS:
        raise ValueError(f'{where}.task is {task!r}; it must be one of {", ".join(TASKS)}')
    if task != 'panoptic':
        if things is not None:
            raise ValueError(f'{where}.things goes with {where}.task "panoptic"; the task is "{task}"')
        return frozenset(range(len(classes)) if task == 'instance' else ())
    if isinstance(things, str) or not isinstance(things, Sequence):
        raise ValueError(f'{where}.things: a panoptic model needs the list of the names of its thing classes; got '
                         f'{things!r}')
    unknown = [name for name in things if name not in classes]
    if unknown:
        raise ValueError(f'{where}.things names {unknown}, which are not among {where}.classes')
    return frozenset(index for index, name in enumerate(classes) if name in set(things))
