"""Data sets as labelling tools write them -> COCO content, from which ``data/coco.py`` makes samples."""
from __future__ import annotations

from .reading import FORMATS, find_splits, looking_once, read_source, recognise
from .source import Source
from .tables import table_source
from .writing import write_coco

__all__ = ['FORMATS', 'Source', 'find_splits', 'looking_once', 'read_source', 'recognise', 'table_source', 'write_coco']
