"""Panoptic and semantic ground truth, which comes as maps: pictures whose pixels say what they belong to."""
from __future__ import annotations

from .dataset import SegmentationMaps
from .objects import objects_of, read_objects
from .panoptic_json import read_panoptic
from .reading import MAP_FORMATS, find_tree, find_trees, published_tree, read_maps, task_of_folder, what_is_there
from .semantic_png import read_label_folder
from .source import MapSource

__all__ = ['MAP_FORMATS', 'MapSource', 'SegmentationMaps', 'find_tree', 'find_trees', 'objects_of',
           'published_tree', 'read_label_folder', 'read_maps', 'read_objects', 'read_panoptic', 'task_of_folder',
           'what_is_there']
