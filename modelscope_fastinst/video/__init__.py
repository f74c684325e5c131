"""Videos, folders of frames and cameras: segmented frame by frame, tracked, drawn and written.

``segment`` gives a frame's result after the other to a program, ``render`` writes a video of them; ``read`` only reads,
``probe`` says what a source is before anything is done with it, ``Tracker`` tells which object is which from frame to
frame. Files are read and written through PyAV (``pip install "modelscope-fastinst[video]"``).
"""
from modelscope_fastinst.video.frames import Broken, Facts, Frame, Progress, Summary, VideoError
from modelscope_fastinst.video.rendering import render
from modelscope_fastinst.video.sources import probe
from modelscope_fastinst.video.streaming import read, segment
from modelscope_fastinst.video.tracking import Tracker

__all__ = ['Broken', 'Facts', 'Frame', 'Progress', 'Summary', 'Tracker', 'VideoError', 'probe', 'read', 'render',
           'segment']
