"""What happens in the tab for pictures: functions of the controls' values, which return what the page then shows."""
from __future__ import annotations

from typing import Any

import gradio as gr

from modelscope_fastinst.studio.app_facts import facts, found, refused, shows_result, table
from modelscope_fastinst.studio.app_language import language_of
from modelscope_fastinst.studio.drawing import Look, scale_of
from modelscope_fastinst.studio.messages import Refused
from modelscope_fastinst.studio.segmentation import Segmentation
from modelscope_fastinst.studio.service import Service
from modelscope_fastinst.studio.texts import answer

LONGEST_SHOWN = 1600   # pixels of the picture on the page; downloads have the picture's own size


class ImageEvents:
    """The handlers of the tab.

    A page's state is four values: what was found, what of it is shown, which of that stands out, and what the controls
    said when it was found. They are small: the service keeps pictures on the disk. A page that shows a result and has
    no state was open for so long, or so many others were, that the server has forgotten it.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    def segment(self, before: Segmentation | None, picture: str | None, model: str, min_size: float, task: str,
                tile: bool, score: float, most: float, classes: list[str], color_by: str, opacity: float,
                parts: list[str], request: gr.Request) -> list[Any]:
        """Everything from the beginning: a new picture, another model, another size."""
        if picture is None:
            self.forget(before)
            return [*self._nothing(''), None]
        language = language_of(request)
        wanted = [score, most, classes, color_by, opacity, parts]
        try:
            result = self.service.segment(picture, model, score_thr=score, min_size=int(min_size),
                                          max_instances=int(most), classes=classes or None, task=task,
                                          tile='auto' if tile else None)
            return [result, *self._shown(language, result, look(color_by, opacity, parts)), wanted]
        except Refused as error:
            return [*self._nothing(refused(language, error)), wanted]
        finally:   # until then the page shows it, and asks for other thresholds of it
            self.forget(before)

    def segment_anew(self, ready: bool, request: gr.Request, *values: Any) -> list[Any]:
        """``segment`` for another model, if it could be loaded; else what the former one found stays."""
        return self.segment(*values, request) if ready else [gr.skip()] * 11

    def catch_up(self, wanted: list[Any] | None, everything: Segmentation | None, score: float, most: float,
                 classes: list[str], color_by: str, opacity: float, parts: list[str], request: gr.Request) -> list[Any]:
        """What the controls say now, if they were moved while the picture was segmented."""
        if wanted is None or wanted == [score, most, classes, color_by, opacity, parts]:
            return [gr.skip()] * 9
        return self.choose(everything, score, most, classes, color_by, opacity, parts, request)

    def choose(self, everything: Segmentation | None, score: float, most: float, classes: list[str], color_by: str,
               opacity: float, parts: list[str], request: gr.Request, told: str | None = None) -> list[Any]:
        """Other thresholds for what was found; the network does not run."""
        language = language_of(request)
        if everything is None:
            return self._nothing(self._gone(language))[1:] if shows_result(told) else [gr.skip()] * 9
        try:
            some = self.service.filtered(everything, score_thr=score, max_instances=int(most), classes=classes or None)
            return self._shown(language, some, look(color_by, opacity, parts))
        except Refused as error:
            return self._nothing(refused(language, error))[1:]

    def draw(self, shown: Segmentation | None, chosen: int | None, color_by: str, opacity: float, parts: list[str],
             request: gr.Request, told: str | None = None) -> list[Any]:
        """The same instances in another look."""
        if shown is None:
            return [gr.skip(), self._gone(language_of(request)) if shows_result(told) else gr.skip()]
        try:
            return [self.service.draw(shown, look(color_by, opacity, parts), chosen, LONGEST_SHOWN), gr.skip()]
        except Refused as error:
            return [gr.skip(), refused(language_of(request), error)]

    def pick_row(self, shown: Segmentation | None, color_by: str, opacity: float, parts: list[str],
                 event: gr.SelectData, request: gr.Request) -> list[Any]:
        """The instance of a row stands out; its number tells which, for a visitor may have sorted the table."""
        if not event.row_value:
            return [gr.skip()] * 5
        return self._picked(shown, int(event.row_value[0]) - 1, look(color_by, opacity, parts), request)

    def pick_point(self, shown: Segmentation | None, color_by: str, opacity: float, parts: list[str],
                   event: gr.SelectData, request: gr.Request) -> list[Any]:
        """The instance at a point of the picture stands out; where there is none, all of them again."""
        if shown is None:
            return self._picked(None, None, Look(), request)
        scale = scale_of(shown, LONGEST_SHOWN)
        x, y = event.index
        return self._picked(shown, self.service.instance_at(shown, x / scale, y / scale),
                            look(color_by, opacity, parts), request)

    def pick_none(self, shown: Segmentation | None, color_by: str, opacity: float, parts: list[str],
                  request: gr.Request) -> list[Any]:
        """All of them again."""
        return self._picked(shown, None, look(color_by, opacity, parts), request)

    def save_overlay(self, shown: Segmentation | None, color_by: str, opacity: float, parts: list[str],
                     request: gr.Request) -> list[Any]:
        """The overlay as PNG."""
        return self._saved('overlay', shown, look(color_by, opacity, parts), request)

    def save_json(self, shown: Segmentation | None, color_by: str, opacity: float, parts: list[str],
                  request: gr.Request) -> list[Any]:
        """What is shown, as a COCO file."""
        return self._saved('json', shown, look(color_by, opacity, parts), request)

    def save_masks(self, shown: Segmentation | None, color_by: str, opacity: float, parts: list[str],
                   request: gr.Request) -> list[Any]:
        """A zip of a PNG a mask."""
        return self._saved('masks', shown, look(color_by, opacity, parts), request)

    def forget(self, found: Segmentation | None) -> None:
        """Removes the files of a result that no page shows any more."""
        if found is not None:
            self.service.forget(found)

    def _saved(self, name: str, shown: Segmentation | None, look: Look, request: gr.Request) -> list[Any]:
        if shown is None:
            return [None, self._gone(language_of(request))]
        try:
            return [str(getattr(self.service.downloads(shown, look), name)), gr.skip()]
        except Refused as error:
            return [None, refused(language_of(request), error)]

    def _picked(self, shown: Segmentation | None, index: int | None, look: Look, request: gr.Request) -> list[Any]:
        language = language_of(request)
        if shown is None:
            return [gr.skip(), gr.skip(), self._gone(language), gr.skip(), gr.skip()]
        rows = self.service.rows(shown)
        if index is not None and not 0 <= index < len(rows):
            index = None
        try:
            picture = self.service.draw(shown, look, index, LONGEST_SHOWN)
        except Refused as error:
            return [gr.skip(), gr.skip(), refused(language, error), gr.skip(), gr.skip()]
        chosen = '' if index is None else answer(language, 'selected', number=rows[index][0], label=rows[index][1],
                                                 score=rows[index][2], area=f'{rows[index][3]:,}')
        text = facts(language, found(language, len(shown), shown.size), shown.seconds, chosen)
        return [index, picture, text, table(language, rows, index), gr.update(visible=index is not None)]

    def _shown(self, language: str, some: Segmentation, look: Look) -> list[Any]:
        picture = self.service.draw(some, look, None, LONGEST_SHOWN)
        text = facts(language, found(language, len(some), some.size), some.seconds)
        ready = gr.update(interactive=True)
        rows = gr.update(value=table(language, self.service.rows(some)), visible=len(some) > 0)
        return [some, None, picture, text, rows, gr.update(visible=False), ready, ready, ready]

    def _gone(self, language: str) -> str:
        return refused(language, Refused('expired'))

    def _nothing(self, text: str) -> list[Any]:
        off = gr.update(interactive=False)
        return [None, None, None, None, text, gr.update(visible=False), gr.update(visible=False), off, off, off]


def look(color_by: str, opacity: float, parts: list[str]) -> Look:
    """How a visitor wants results drawn."""
    return Look(color_by=color_by, opacity=float(opacity), outline='outline' in parts, tags='tags' in parts,
                boxes_drawn='boxes' in parts)
