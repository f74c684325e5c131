"""Everything that the pages ask for: pictures and videos in, instances, overlays, tables and files out.

Any number of visitors share it. Nothing of it knows of pages; it raises nothing but `Refused`.
"""
from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modelscope_fastinst.studio.downloads import Downloads, write_downloads
from modelscope_fastinst.studio.drawing import Look, draw
from modelscope_fastinst.studio.examples import example_pictures
from modelscope_fastinst.studio.limits import Limits
from modelscope_fastinst.studio.messages import Refused, guarded
from modelscope_fastinst.studio.models import LoadedModel, ModelStore
from modelscope_fastinst.studio.narrowing import Asked, narrowed
from modelscope_fastinst.studio.options import check_work, checked_options
from modelscope_fastinst.studio.segmentation import PICTURE_FILE, Segmentation, compact, instance_at, rows
from modelscope_fastinst.studio.turns import Told, Turns
from modelscope_fastinst.studio.uploads import VideoFacts, check_video, read_picture
from modelscope_fastinst.studio.visits import Visits


class Service:
    """What a studio does.

    Args:
        store: the models.
        limits: of what is taken and done at once; None for the store's.
        folder: where results lie while they are kept; None for a new one among the temporary files, which ``close``
            removes.

    Attributes:
        folder: that folder. Only what lies in it is ever given to a visitor.
        visits: the results' folders in it.
        inference_turns, hand_turns, video_turns: whose turn it is to use the network; to read, draw and pack; and to
            have a video worked at.
        closing: set when the studio closes.
    """

    def __init__(self, store: ModelStore, limits: Limits | None = None, folder: str | Path | None = None) -> None:
        self.store = store
        self.limits = store.limits if limits is None else limits
        self._own_folder = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix='fastinst-studio-') if folder is None else folder).resolve()
        self.visits = Visits(self.folder, self.limits.visit_seconds, self.limits.visits, self.limits.visit_bytes)
        self.inference_turns = Turns(self.limits.parallel, self.limits.queue, self.limits.wait_seconds)
        self.hand_turns = Turns(self.limits.hands, self.limits.queue, self.limits.wait_seconds)
        self.video_turns = Turns(self.limits.videos, self.limits.queue, self.limits.wait_seconds)
        self._runs: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._runs_lock = threading.Lock()
        self.closing = threading.Event()
        # Also when nobody comes any more: a visitor's picture does not stay for the night.
        self._cleaner = threading.Thread(target=self._clean, name='studio-cleaner', daemon=True)
        self._cleaner.start()

    @guarded
    def segment(self, image: Any, model: str | None = None, *, score_thr: float | None = None,
                min_size: int | None = None, max_instances: int | None = None, classes: Sequence[str] | None = None,
                task: str | None = None, tile: int | str | None = None,
                waiting: Told | None = None) -> Segmentation:
        """Segments a visitor's picture.

        Args:
            image: path of the upload, its bytes, or an RGB array; see ``uploads.read_picture``.
            model: one of ``store.choices``; None for the default.
            score_thr, min_size, max_instances: as of ``pipeline()``; None for the model's own. What the task has no use
                for is left out.
            classes: names of the classes to look for; None or none for all.
            task: one of the model's ``tasks``; None for the first.
            tile: as of ``pipeline()``: for pictures far larger than what the network sees.
            waiting: called with how many visitors are before this one, while it waits.

        Raises:
            Refused: see ``messages.CODES``.
        """
        start = time.perf_counter()
        if self.closing.is_set():
            raise Refused('stopped')
        chosen = self.store.get(model, waiting)
        task, options = checked_options(chosen, self.limits, score_thr=score_thr, min_size=min_size,
                                        max_instances=max_instances, classes=classes, task=task, tile=tile)
        with self.hand_turns.turn(waiting):
            reading = time.perf_counter()
            picture = read_picture(image, self.limits)
            size = picture.shape[:2]
            check_work(chosen, self.limits, size, options)
            visit = self.visits.new()
            try:
                np.save(self.visits.path(visit) / PICTURE_FILE, picture)
            except BaseException:
                self.visits.remove(visit)
                raise
            read = time.perf_counter() - reading
        # The picture comes from the disk again when it is its turn: twenty that wait take no memory.
        del picture
        segmentation = Segmentation(self.folder / visit, size, {'labels': [], 'masks': []}, chosen.name, chosen.classes,
                                    task, options, {'read': read}, None, _shown_name(image))
        try:
            done = self._inferred(segmentation, chosen, waiting)
        except BaseException:
            self.forget(segmentation)
            raise
        done.seconds['wait'] = max(0.0, time.perf_counter() - start - sum(done.seconds.values()))
        return done

    @guarded
    def warm(self) -> None:
        """Goes once all the way that a visitor's picture goes, so that the first one finds everything loaded."""
        found = self.segment(os.fspath(self.examples()[0]))
        try:
            self.draw(found)
            self.rows(found)
        finally:
            self.forget(found)

    @guarded
    def filtered(self, segmentation: Segmentation, *, score_thr: float | None = None, max_instances: int | None = None,
                 classes: Sequence[str] | None = None, task: str | None = None,
                 waiting: Told | None = None) -> Segmentation:
        """The same picture with other thresholds, classes or another task of the same model: equal to what
        ``segment`` gives, and without a new inference as long as the network's output is kept.

        Args:
            score_thr, max_instances, classes: in the place of the former ones; None for the model's own, or all.
            task: None for the one it has.

        Raises:
            Refused: 'expired' after the result was removed, and as ``segment``.
        """
        chosen = self.store.get(segmentation.model, waiting)
        before = segmentation.options
        task, options = checked_options(chosen, self.limits, score_thr=score_thr, min_size=before.get('min_size'),
                                        max_instances=max_instances, classes=classes, task=task or segmentation.task,
                                        tile=before.get('tile'))
        if options == before and task == segmentation.task:
            return segmentation
        asked = replace(segmentation, task=task, options=options, seconds=dict(segmentation.seconds))
        self.visits.path(segmentation.folder.name)
        found = self._narrowed(segmentation, asked, chosen)
        if found is not None:
            return replace(asked, result=found)
        run = self._run_of(segmentation)
        if run is None or 'tile' in options:
            return self._inferred(asked, chosen, waiting)
        from modelscope_fastinst.plugin.stages import result_of
        with self.hand_turns.turn(waiting):
            start = time.perf_counter()
            result = compact(result_of(chosen.segment, run, mask_format='rle', **options))
            asked.seconds['postprocess'] = time.perf_counter() - start
        return replace(asked, result=result)

    @guarded
    def draw(self, segmentation: Segmentation, look: Look | None = None, highlight: int | None = None,
             longest: int | None = None) -> np.ndarray:
        """The overlay, uint8 RGB; see ``drawing.draw``. How long it took is in the segmentation's ``seconds``."""
        with self.hand_turns.turn():
            self._touch(segmentation)
            start = time.perf_counter()
            drawn = draw(segmentation, look, highlight, longest)
            segmentation.seconds['draw'] = time.perf_counter() - start
            return drawn

    @guarded
    def rows(self, segmentation: Segmentation) -> list[list]:
        """The table; see ``segmentation.rows``."""
        return rows(segmentation)

    @guarded
    def instance_at(self, segmentation: Segmentation, x: float, y: float) -> int | None:
        """Index of the instance at a pixel of the picture; see ``segmentation.instance_at``."""
        return instance_at(segmentation, x, y)

    @guarded
    def downloads(self, segmentation: Segmentation, look: Look | None = None) -> Downloads:
        """The files to take away; see ``downloads.write_downloads``."""
        with self.hand_turns.turn():
            self._touch(segmentation)
            return write_downloads(segmentation, look)

    @guarded
    def check_video(self, path: str | os.PathLike) -> VideoFacts:
        """What an uploaded video is; see ``uploads.check_video``."""
        with self.hand_turns.turn():
            return check_video(path, self.limits)

    @guarded
    def render_video(self, path: str | os.PathLike, model: str | None = None,
                     options: Mapping[str, Any] | None = None, look: Look | None = None,
                     progress: Callable[[Any], None] | None = None, *, every: int = 1,
                     stop: threading.Event | None = None, waiting: Told | None = None) -> Path:
        """A video with what was found in its frames, as MP4 in a folder of its own.

        Args:
            path: of the upload.
            options: of ``segment``, by name: ``score_thr``, ``min_size``, ``max_instances``, ``classes``.
            progress: see ``video.render``.
            every: only each so many-th frame is segmented.
            stop: set it to end early; what was done by then is returned.

        Raises:
            Refused: see ``messages.CODES``.
        """
        from modelscope_fastinst.studio.videos import render_video
        return render_video(self, path, model, options or {}, look, progress, every, stop, waiting)

    @guarded
    def examples(self, model: str | None = None) -> list[Path]:
        """Drawn pictures that a model knows something of, as PNG files in the service's folder."""
        return example_pictures(self.folder / 'examples', self.store.get(model).classes)

    @property
    def waiting(self) -> int:
        """How many visitors wait for the network now."""
        return self.inference_turns.waiting

    def forget(self, segmentation: Segmentation) -> None:
        """Removes a result's files, when a visitor is done with it."""
        self.visits.remove(segmentation.folder.name)
        self._drop_runs({segmentation.folder.name})

    def close(self) -> None:
        """Removes all results, and the folder if it is the service's own. Videos that are worked at are stopped."""
        self.closing.set()
        self.visits.clear()
        with self._runs_lock:
            self._runs.clear()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _inferred(self, segmentation: Segmentation, model: LoadedModel, waiting: Told | None) -> Segmentation:
        """The segmentation with the result of a new inference for its options."""
        from modelscope_fastinst.plugin.stages import can_be_staged, result_of, run_network
        options = segmentation.options
        with self.inference_turns.turn(waiting):
            self._touch(segmentation)
            start = time.perf_counter()
            bgr = segmentation.image[:, :, ::-1]
            read = time.perf_counter() - start
            start = time.perf_counter()
            if 'tile' in options or not can_be_staged(model.segment):
                more = {'tile_progress': self._between_tiles} if 'tile' in options else {}
                result, run = model.segment(bgr, mask_format='rle', **options, **more), None
                seconds = {'whole': time.perf_counter() - start}
            else:
                run = run_network(model.segment, bgr, mask_format='rle', **options)
                start = time.perf_counter()
                result = result_of(model.segment, run, mask_format='rle', **options)
                seconds = {**run.seconds, 'postprocess': time.perf_counter() - start}
        if run is not None:
            self._keep_run(segmentation, run)
        read += segmentation.seconds.get('read', 0.0)
        return replace(segmentation, result=compact(result), seconds={'read': read, **seconds},
                       input_size=None if run is None else run.input_size)

    def _narrowed(self, segmentation: Segmentation, asked: Segmentation, model: LoadedModel) -> dict | None:
        if asked.task != segmentation.task:
            return None
        before, after = (Asked.of(one.options, one.task, one.classes, getattr(model.segment, 'postprocessor', None))
                         for one in (segmentation, asked))
        return None if before is None or after is None else narrowed(segmentation, before, after)

    def _between_tiles(self, done: int, of: int) -> None:
        """A picture of many tiles lets the others' pictures go first, and does not keep a studio from closing."""
        if self.closing.is_set():
            raise Refused('stopped')
        if done < of:
            self.inference_turns.give_way()

    def _touch(self, segmentation: Segmentation) -> None:
        self.visits.path(segmentation.folder.name)

    def _keep_run(self, segmentation: Segmentation, run: Any) -> None:
        """Keeps a network's output, and drops the longest unused ones beyond the limit."""
        with self._runs_lock:
            self._runs[(segmentation.folder.name, segmentation.model)] = run
            while self._runs and sum(one.nbytes for one in self._runs.values()) > self.limits.kept_bytes:
                self._runs.popitem(last=False)

    def _run_of(self, segmentation: Segmentation) -> Any:
        key = (segmentation.folder.name, segmentation.model)
        with self._runs_lock:
            if key in self._runs:
                self._runs.move_to_end(key)
            return self._runs.get(key)

    def _drop_runs(self, visits: set[str]) -> None:
        with self._runs_lock:
            for key in [key for key in self._runs if key[0] in visits]:
                del self._runs[key]

    def _clean(self) -> None:
        while not self.closing.wait(min(60.0, max(0.05, self.limits.visit_seconds / 4))):
            self.visits.clean()
            # Of all that are gone, also of those that went while the network was at work.
            with self._runs_lock:
                names = {key[0] for key in self._runs}
            self._drop_runs({name for name in names if not self.visits.holds(name)})


def _shown_name(image: Any) -> str:
    """An upload's own name, for its JSON file: without folders and control characters, and not too long."""
    if not isinstance(image, (str, os.PathLike)):
        return ''
    name = os.fspath(image).replace('\\', '/').rpartition('/')[2]
    return ''.join(letter for letter in name if letter.isprintable())[-200:]
