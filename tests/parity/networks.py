"""Networks of ``transformers`` with random weights, saved as its users save them: the reference of the parity tests."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

STAGES = ['stage1', 'stage2', 'stage3', 'stage4']
CLASSES = ['ant', 'bee', 'cat', 'dog', 'elk']
TINY = {'hidden_dim': 32, 'feature_size': 32, 'mask_feature_size': 24, 'num_attention_heads': 4, 'encoder_layers': 2,
        'decoder_layers': 5, 'dim_feedforward': 48, 'encoder_feedforward_dim': 40, 'num_queries': 11,
        'train_num_points': 200}


def swin(**changes: Any) -> Any:
    from transformers import SwinConfig
    return SwinConfig(**{'embed_dim': 12, 'depths': [2, 2, 2, 2], 'num_heads': [1, 2, 4, 8], 'window_size': 7,
                         'drop_path_rate': 0.0, 'out_features': STAGES, **changes})


def resnet(**changes: Any) -> Any:
    from transformers import ResNetConfig
    return ResNetConfig(**{'embedding_size': 8, 'hidden_sizes': [16, 32, 64, 128], 'depths': [3, 4, 6, 3],
                           'layer_type': 'bottleneck', 'out_features': STAGES, **changes})


def basic_resnet() -> Any:
    return resnet(depths=[2, 2, 2, 2], layer_type='basic')


BACKBONES = {'swin': swin, 'resnet': resnet, 'basic resnet': basic_resnet}


def network(backbone: Any = None, classes: list[str] | None = None, seed: int = 0, **changes: Any) -> Any:
    """A ``Mask2FormerForUniversalSegmentation`` whose every tensor is random, in evaluation mode."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation
    classes = CLASSES if classes is None else classes
    config = Mask2FormerConfig(backbone_config=swin() if backbone is None else backbone,
                               id2label=dict(enumerate(classes)), label2id={name: i for i, name in enumerate(classes)},
                               output_auxiliary_logits=True, **{**TINY, **changes})
    torch.manual_seed(seed)
    model = Mask2FormerForUniversalSegmentation(config)
    # Up to transformers 5.20 a list, whose projections were neither saved nor moved.
    module = model.model.transformer_module
    module.input_projections = torch.nn.ModuleList(module.input_projections)
    with torch.no_grad():
        for parameter in model.parameters():   # zeros and ones of an initialisation would hide exchanged tensors
            parameter.add_(torch.randn_like(parameter) * 0.05)
        for name, buffer in model.named_buffers():
            if name.endswith('running_mean'):
                buffer.normal_(std=0.1)
            elif name.endswith('running_var'):
                buffer.uniform_(0.5, 2.0)
    return model.eval()


def folder_of(model: Any, folder: Path, **preprocessor: Any) -> Path:
    """The folder that ``save_pretrained`` makes of a network, with the image processor's file."""
    from transformers.models.mask2former.image_processing_mask2former import Mask2FormerImageProcessor
    model.save_pretrained(folder)
    Mask2FormerImageProcessor(**preprocessor).save_pretrained(folder)
    return folder


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A random RGB image with something large in it, uint8."""
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[height // 4:height // 2, width // 3:] //= 4
    return image


def varied(model: Any, pixels: torch.Tensor, sure: float = 4.0, contrast: float = 300.0) -> Any:
    """The same network with heads that tell its queries and this picture's pixels apart; random ones hardly do."""
    with torch.inference_mode():
        features = model.model.pixel_level_module(pixels).decoder_last_hidden_state
    with torch.no_grad():
        projection = model.model.pixel_level_module.decoder.mask_projection
        projection.bias -= features.mean((0, 2, 3))
        projection.weight *= contrast
        projection.bias *= contrast
        embed = model.model.transformer_module.decoder.mask_predictor.mask_embedder
        seen: list[torch.Tensor] = []
        with embed.register_forward_hook(lambda module, given, result: seen.append(result)):
            logits = model(pixel_values=pixels).class_queries_logits
        last = [module for module in embed.modules() if isinstance(module, torch.nn.Linear)][-1]
        last.bias -= seen[-1].flatten(0, -2).mean(0)
        # which moves what the queries attend to, hence the logits
        logits = model(pixel_values=pixels).class_queries_logits
        spread = logits.std((0, 1))
        model.class_predictor.bias -= logits.mean((0, 1))
        for tensor in (model.class_predictor.weight, model.class_predictor.bias):
            tensor *= (sure / spread).view(-1, *[1] * (tensor.ndim - 1))
        model.class_predictor.bias[-1] -= 2 * sure
    return model
