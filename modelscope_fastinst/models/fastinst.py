"""The names under which FastInst (He et al., CVPR 2023, arXiv 2303.08594) is built: the network of ``models.build``."""
from __future__ import annotations

from .build import build_network as build_fastinst
from .network import SegmentationNetwork as FastInst

__all__ = ['FastInst', 'build_fastinst']
