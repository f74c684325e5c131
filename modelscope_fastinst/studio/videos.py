"""A visitor's video, segmented and drawn."""
from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelscope_fastinst.studio.drawing import Look
from modelscope_fastinst.studio.messages import Refused
from modelscope_fastinst.studio.options import check_work, checked_options, whole
from modelscope_fastinst.studio.turns import Told
from modelscope_fastinst.studio.uploads import check_video

if TYPE_CHECKING:
    from modelscope_fastinst.studio.models import LoadedModel
    from modelscope_fastinst.studio.service import Service

logger = logging.getLogger(__name__)

UPLOAD, RENDERED = 'upload', 'segmented.mp4'
OPTIONS = ('score_thr', 'min_size', 'max_instances', 'classes', 'task', 'tile')
_LEAST_FREQUENT = 1000   # of segmented frames


def render_video(service: Service, path: str | os.PathLike, model: str | None, options: Mapping[str, Any],
                 look: Look | None, progress: Callable[[Any], None] | None, every: Any,
                 stop: threading.Event | None, waiting: Told | None) -> Path:
    """See ``service.Service.render_video``."""
    limits = service.limits
    chosen = service.store.get(model, waiting)
    _, checked = checked_options(chosen, limits, **{name: options.get(name) for name in OPTIONS})
    every = whole('every', every, 1, _LEAST_FREQUENT)
    facts = service.check_video(path)
    check_work(chosen, limits, (facts.height, facts.width), checked)
    with service.video_turns.turn(waiting):
        name = service.visits.new()
        folder = service.visits.path(name)
        try:
            upload = _under_a_name_of_ours(path, folder / UPLOAD)
            check_video(upload, limits)   # which nobody can change any more
            work = _Work(service, chosen, name, stop)
            _render(upload, folder / RENDERED, work, every, checked, look, progress)
            upload.unlink()
        except BaseException:
            service.visits.remove(name)
            raise
    return folder / RENDERED


def _render(upload: Path, output: Path, work: _Work, every: int, options: Mapping[str, Any], look: Look | None,
            progress: Callable[[Any], None] | None) -> None:
    from modelscope_fastinst import video
    limits = work.service.limits

    def report(state: Any) -> None:
        work.look_around()
        if progress is not None:
            progress(state)

    drawn = {'classes': work.model.classes, **(Look() if look is None else look).options()}
    try:
        video.render(upload, output, work.segment, every=every, options=dict(options), look=drawn, progress=report,
                     stop=work.ended, max_frames=limits.video_frames, max_seconds=limits.video_seconds,
                     max_pixels=limits.video_pixels)
    except video.VideoError as error:
        logger.info('a video was refused: %s', error)
        raise Refused('video_damaged') from None
    if work.too_long:
        raise Refused('video_took_too_long', minutes=limits.video_minutes)
    if work.service.closing.is_set() or not output.is_file():
        raise Refused('stopped')


class _Work:
    """The work at one video: asks the network in turn with all other visitors, and knows when to end.

    Attributes:
        ended: set when it is to end.
        too_long: whether that is because it took too long.
    """

    def __init__(self, service: Service, model: LoadedModel, visit: str, stop: threading.Event | None) -> None:
        self.service, self.model, self.visit, self.stop = service, model, visit, stop
        self.ended, self.too_long = threading.Event(), False
        self._end = time.monotonic() + 60 * service.limits.video_minutes

    def look_around(self) -> None:
        """Sets ``ended`` if it is time."""
        self.service.visits.path(self.visit)   # still in use
        if time.monotonic() > self._end:
            self.too_long = True
        if self.too_long or self.service.closing.is_set() or self.stop is not None and self.stop.is_set():
            self.ended.set()

    def segment(self, frames: list, **options: Any) -> list:
        """As the pipeline; a picture that came meanwhile goes first."""
        self.look_around()
        limits = self.service.limits
        for frame in frames:
            height, width = frame.shape[:2]
            if height * width > limits.video_pixels:   # a video may change its size on its way
                raise Refused('video_frame_too_large', width=width, height=height, limit=limits.video_pixels)
        with self.service.inference_turns.turn(patient=True):
            return self.model.segment(frames, **options)


def _under_a_name_of_ours(path: str | os.PathLike, target: Path) -> Path:
    """The upload in the visit's folder, so that no tool ever sees the name that its sender gave it."""
    shutil.copyfile(path, target)
    return target
