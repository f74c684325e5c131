"""The preprocessor: anything that shows an image -> a `Sample` at the size at which the network is to see it."""
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from modelscope.preprocessors.base import Preprocessor
from modelscope.preprocessors.builder import PREPROCESSORS, build_preprocessor
from modelscope.utils.constant import ModeKeys

from modelscope_fastinst.data.augment import InferenceTransform, TrainTransform
from modelscope_fastinst.data.image import ImageError, read_image
from modelscope_fastinst.data.input_size import build_inference_transform
from modelscope_fastinst.plugin.configuration import LOADER_KEYS, plain
from modelscope_fastinst.structures import Sample

DOWNLOAD_TIMEOUT = 30   # seconds without an answer
DOWNLOAD_LIMIT = 1 << 30   # bytes


@PREPROCESSORS.register_module('cv', module_name='fastinst-preprocessor', force=True)
class FastInstPreprocessor(Preprocessor):
    """Reads and resizes images for inference and evaluation, augments samples for training.

    Its section of the configuration is
    ``{"type": "fastinst-preprocessor", "min_size": 640, "max_size": 853, "train": {...}}``, where ``train`` holds the
    arguments of ``data.augment.TrainTransform``, or a section of its own with another registered preprocessor's type.
    ModelScope's form ``{"train": {"type": ..., ...}, "val": {"type": ..., ...}}`` works as well; the arguments of
    ``TrainTransform`` then stand in the ``train`` section itself.

    Args:
        model_dir: not used; ModelScope gives it to every preprocessor.
        mode: 'train' augments; 'eval' and 'inference' resize.
        min_size, max_size: short and longest long side of the network's input in pixels.
        multiple_of, size: see ``data.input_size.StretchTransform``, which resizes where one of them is given.
        train: arguments of the augmentation; default the recipe's.
        **kwargs: arguments of the augmentation, in place of ``train``.

    Raises:
        ValueError: an unknown setting, or one out of range.
    """

    def __init__(self, model_dir: str | None = None, mode: str = ModeKeys.INFERENCE, min_size: int = 640,
                 max_size: int | None = 853, train: Mapping[str, Any] | None = None,
                 multiple_of: int | None = None, size: Any = None, **kwargs: Any) -> None:
        super().__init__(mode)
        self.min_size, self.max_size, self.multiple_of = min_size, max_size, multiple_of
        self.resize = build_inference_transform(min_size, max_size, multiple_of, plain(size))
        augmentation = {key: plain(value) for key, value in kwargs.items() if key not in LOADER_KEYS}
        if augmentation and train is not None:
            raise ValueError(f'preprocessor: unknown settings {sorted(augmentation)}; '
                             'known are min_size, max_size, multiple_of, size, train')
        # In ModelScope's form the train section holds max_size for the augmentation.
        in_place = {'max_size': max_size, **augmentation} if augmentation else {}
        self.augment = _train_transform(plain(train) if train is not None else in_place, model_dir)

    def __call__(self, data: Any, min_size: int | None = None, max_size: int | None = None) -> Sample:
        """Prepares one image.

        Args:
            data: a `Sample` of a data set, or an image: path, http(s) URL, file content as bytes, PIL image, or array
                (``H x W``, ``H x W x 3`` in BGR order or ``H x W x 4`` in BGRA order, as in ModelScope and OpenCV).
            min_size, max_size: in place of the configured ones, which None leaves; not in training mode.

        Returns:
            The sample with image and, where there is one, target at the network's input size.

        Raises:
            ImageError: the image cannot be read; names the file.
            ValueError: training mode with something that is no `Sample`, or a size that is not positive.
        """
        if self.mode == ModeKeys.TRAIN:
            if not isinstance(data, Sample):
                raise ValueError(f'in training mode the preprocessor takes a Sample of a data set, '
                                 f'got {type(data).__name__}')
            return self.augment(data)
        resize = self.inference_transform(min_size, max_size)
        return resize(data if isinstance(data, Sample) else load_sample(data))

    def inference_transform(self, min_size: int | None = None, max_size: int | None = None) -> InferenceTransform:
        """The resize with these sizes, or with the configured ones where they are None.

        Raises:
            ValueError: a size that is no whole number of pixels; names it.
        """
        if min_size is None and max_size is None:
            return self.resize
        return build_inference_transform(self.min_size if min_size is None else min_size,
                                         self.max_size if max_size is None else max_size, self.multiple_of)


def _train_transform(settings: dict[str, Any], model_dir: str | None) -> Any:
    """The augmentation a ``train`` section describes: ours, or another registered preprocessor."""
    kind = settings.pop('type', 'fastinst-preprocessor')
    if kind != 'fastinst-preprocessor':
        from modelscope.utils.config import ConfigDict
        return build_preprocessor(ConfigDict({**settings, 'type': kind, 'model_dir': model_dir,
                                              'mode': ModeKeys.TRAIN}), 'cv')
    try:
        return TrainTransform(**{key: value for key, value in settings.items() if key not in LOADER_KEYS})
    except TypeError as error:
        raise ValueError(f'preprocessor.train: {error}') from error


def load_sample(source: Any) -> Sample:
    """An image of any of the accepted forms as a `Sample` at its own size.

    Raises:
        ImageError: it cannot be read; names the file.
    """
    name = ''
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        if is_url(name):
            source = _download(name)
    array = read_image(source, name=name or None)
    # Torch takes over only memory that can be written to; an array of the caller's or of PIL's may not be.
    image = torch.from_numpy(array if array.flags.writeable else array.copy()).permute(2, 0, 1)
    return Sample(image=image, file_name=name, original_size=(image.shape[1], image.shape[2]))


def is_url(name: str) -> bool:
    """Whether a name is an http(s) URL, in capitals or not."""
    return name.lower().startswith(('http://', 'https://'))


def _download(url: str) -> bytes:
    """The content behind an http(s) URL. ModelScope's own download waits for ever, so it is not used."""
    from http.client import HTTPException, IncompleteRead
    from urllib.error import URLError
    from urllib.parse import quote
    from urllib.request import Request, urlopen
    try:
        # As a browser does: blanks and what is not ASCII are escaped, and what is escaped stays as it is.
        address = quote(url, safe='%:/?#[]@!$&\'()*+,;=~')
        # The scheme was checked by the caller, and urllib follows redirects to no local file.
        request = Request(address, headers={'User-Agent': 'modelscope-fastinst'})
        with urlopen(request, timeout=DOWNLOAD_TIMEOUT) as answer:
            content = answer.read(DOWNLOAD_LIMIT + 1)
            if len(content) <= DOWNLOAD_LIMIT and answer.length:   # read() with a limit does not mind
                raise IncompleteRead(content, answer.length)
    except (URLError, HTTPException, OSError, ValueError) as error:
        raise ImageError(f'{url}: cannot be downloaded: {error}') from error
    if len(content) > DOWNLOAD_LIMIT:
        raise ImageError(f'{url}: larger than {DOWNLOAD_LIMIT} bytes')
    return content
