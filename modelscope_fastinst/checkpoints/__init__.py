"""Reading and writing weights.

Keys are the published ones everywhere. Nothing in a file is ever run: pickles are read by restricted unpicklers.
"""
from __future__ import annotations

from .conversion import Conversion, load_backbone
from .loading import load_for_finetuning, load_weights
from .reading import CheckpointError, find_weights, read_state_dict
from .writing import save_weights

__all__ = ['CheckpointError', 'Conversion', 'find_weights', 'load_backbone', 'load_for_finetuning', 'load_weights',
           'read_state_dict', 'save_weights']
