"""FastInst for ModelScope: ``import modelscope_fastinst``, then ``pipeline('image-segmentation', model=...)``.

Importing the package redirects a few names of ModelScope's index to this one and does nothing more; networks, image
libraries and data sets are imported when they are used.
"""
from __future__ import annotations

from pathlib import Path

from modelscope_fastinst.plugin.registry import activate, deactivate
from modelscope_fastinst.version import __version__

__all__ = ['__version__', 'activate', 'deactivate', 'default_model']


def default_model() -> str:
    """The folder of the embedded model, to be given to ``pipeline()`` or to the trainer; needs no network.

    Raises:
        FileNotFoundError: this installation holds no embedded model.
    """
    folder = Path(__file__).resolve().parent / 'assets' / 'default'
    if not (folder / 'configuration.json').is_file():
        raise FileNotFoundError(f'{folder}: the embedded model is missing; install the package again')
    return str(folder)


activate()
