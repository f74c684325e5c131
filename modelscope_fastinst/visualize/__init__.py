"""Pictures of results: instances, panoptic and semantic maps over their image."""
from modelscope_fastinst.visualize.colors import class_colors, instance_colors, palette
from modelscope_fastinst.visualize.instances import COLOR_BY, draw_instances
from modelscope_fastinst.visualize.maps import draw_panoptic, draw_semantic
from modelscope_fastinst.visualize.result import draw_result
from modelscope_fastinst.visualize.sheet import side_by_side

__all__ = ['COLOR_BY', 'class_colors', 'draw_instances', 'draw_panoptic', 'draw_result', 'draw_semantic',
           'instance_colors', 'palette', 'side_by_side']
