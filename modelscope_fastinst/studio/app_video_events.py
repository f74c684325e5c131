"""What happens in the tab for videos: functions of the controls' values, which return what the page then shows."""
from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from modelscope_fastinst.studio.app_facts import facts, refused
from modelscope_fastinst.studio.app_image_events import look
from modelscope_fastinst.studio.app_language import language_of
from modelscope_fastinst.studio.messages import Refused, as_refusal
from modelscope_fastinst.studio.service import Service
from modelscope_fastinst.studio.texts import answer

_TELL_SECONDS = 0.3   # how often the page hears how far the work is


class VideoEvents:
    """The handlers of the tab. One video a page is worked at; its page can stop it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._stops: dict[str, threading.Event] = {}

    def render(self, video: str | None, model: str, every: float, min_size: float, score: float, most: float,
               classes: list[str], color_by: str, opacity: float, parts: list[str],
               request: gr.Request) -> Iterator[list[Any]]:
        """The video with what was found in its frames; until then, how far it is."""
        language = language_of(request)
        hidden = gr.update(visible=False)
        told: queue.Queue[Any] = queue.Queue()
        stop = threading.Event()
        page = request.session_hash or ''
        self._stops.setdefault(page, stop)
        if self._stops[page] is not stop:   # a second click
            self._stops[page].set()
            self._stops[page] = stop

        reports: list[Any] = []   # the latest, alone

        def report(progress: Any) -> None:
            reports[:] = [progress]
            told.put(progress)

        def work() -> None:
            options = {'score_thr': float(score), 'min_size': int(min_size), 'max_instances': int(most),
                       'classes': classes or None}
            try:
                told.put(self.service.render_video(video, model, options, look(color_by, opacity, parts), report,
                                                   every=int(every), stop=stop, waiting=told.put))
            except Exception as error:
                told.put(as_refusal(error, 'video'))

        start = time.perf_counter()
        threading.Thread(target=work, name='studio-video', daemon=True).start()
        try:
            yield [None, _line(language, None), hidden]
            while True:
                news = _latest(told)
                if isinstance(news, Refused):
                    yield [None, refused(language, news), hidden]
                    return
                if isinstance(news, Path):
                    seconds, done = time.perf_counter() - start, reports[0].done if reports else 0
                    text = answer(language, 'video_done', frames=done, seconds=f'{seconds:.1f}',
                                  speed=f'{done / seconds:.1f}')
                    yield [str(news), facts(language, text), gr.update(value=str(news), visible=True)]
                    return
                yield [gr.skip(), _line(language, news), gr.skip()]
        finally:   # also when the visitor has left
            stop.set()
            if self._stops.get(page) is stop:
                del self._stops[page]

    def stop(self, request: gr.Request) -> None:
        """Ends the work early; what was done by then is shown."""
        stop = self._stops.get(request.session_hash or '')
        if stop is not None:
            stop.set()

    def clear(self) -> list[Any]:
        """An empty tab."""
        return [None, '', gr.update(visible=False)]


def _latest(told: queue.Queue[Any]) -> Any:
    """The last news of a while; a result is never passed over."""
    news = told.get()
    end = time.monotonic() + _TELL_SECONDS
    while not isinstance(news, (Path, Refused)):
        try:
            news = told.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
    return news


def _line(language: str, news: Any) -> str:
    """How far it is, as HTML: a bar and a sentence."""
    if news is None or isinstance(news, int):
        text = answer(language, 'video_begins') if not news else answer(language, 'video_waits', count=news)
        return f'<div class="facts"><progress></progress> {escape(text)}</div>'
    if news.total and news.left is not None:
        text = answer(language, 'video_progress', done=news.done, total=news.total, speed=f'{news.fps:.1f}',
                      left=f'{news.left:.0f}')
        return (f'<div class="facts"><progress value="{news.done}" max="{news.total}"></progress> '
                f'{escape(text)}</div>')
    text = answer(language, 'video_progress_open', done=news.done, speed=f'{news.fps:.1f}')
    return f'<div class="facts"><progress></progress> {escape(text)}</div>'
