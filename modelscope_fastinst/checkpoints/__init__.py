"""Reading and writing weights.

Keys are the published ones everywhere. Pickled files are read with ``weights_only=True``: no code in them is run.
"""
from __future__ import annotations

from .loading import load_for_finetuning, load_weights
from .reading import CheckpointError, find_weights, read_state_dict
from .writing import save_weights

__all__ = ['CheckpointError', 'find_weights', 'load_for_finetuning', 'load_weights', 'read_state_dict', 'save_weights']
