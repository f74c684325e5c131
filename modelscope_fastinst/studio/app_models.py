"""The choice of a model, and what the controls of the tabs do when it changes."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from modelscope_fastinst.studio.app_controls import Choice, Inference, class_choices, has_use_for, task_choices
from modelscope_fastinst.studio.app_facts import model_line, refused
from modelscope_fastinst.studio.app_language import label, language_of
from modelscope_fastinst.studio.messages import Refused
from modelscope_fastinst.studio.models import LoadedModel
from modelscope_fastinst.studio.segmentation import Segmentation
from modelscope_fastinst.studio.service import Service

EMBEDDED = 'embedded'


@dataclass(frozen=True)
class ModelRow:
    """The choice of a model.

    Attributes:
        model: its name.
        facts: what is known about it.
    """
    model: gr.Dropdown
    facts: gr.HTML

    def connect(self, service: Service, pages: gr.Blocks, tabs: Sequence[tuple[Choice, Inference]],
                found: gr.State, told: gr.HTML) -> tuple[Any, gr.State]:
        """Makes the controls of the tabs follow the model: classes, tasks, and what holds by default.

        Args:
            found: what the former model found; forgotten, so that no control asks for other thresholds of it.
            told: what is said of that.

        Returns:
            The event of a change, to go on from, and whether the model is ready then.
        """
        ready = gr.State(False)
        controls = [control for choice, inference in tabs
                    for control in (choice.score, choice.most, choice.classes, inference.min_size, inference.task)]

        def changed(name: str, before: Segmentation | None, request: gr.Request) -> list[Any]:
            """Loads the model and says what it finds; one that will not do leaves the controls as they are."""
            language = language_of(request)
            try:
                model = service.store.get(name)
            except Refused as error:
                return [refused(language, error), gr.skip(), gr.skip(), False, *[gr.skip()] * len(controls)]
            if before is not None:
                service.forget(before)
            score, min_size, largest = defaults(service, model)
            task = model.tasks[0]
            line = model_line(language, shown_name(language, model.name), model.classes)
            return [line, None, '', True, *(update for _, inference in tabs for update in (
                gr.update(value=score, visible=has_use_for(task, 'score_thr')),
                gr.update(visible=has_use_for(task, 'max_instances')), class_choices(model.classes),
                gr.update(value=min_size, maximum=largest),
                gr.update(choices=task_choices(model.tasks), value=task,
                          visible=inference.whole and len(model.tasks) > 1)))]

        def loaded(name: str, request: gr.Request) -> str:
            """The line about the model when the page opens."""
            language = language_of(request)
            try:
                model = service.store.get(name)
            except Refused as error:
                return refused(language, error)
            return model_line(language, shown_name(language, model.name), model.classes)

        pages.load(loaded, self.model, self.facts, api_visibility='private', show_progress='hidden')
        return self.model.change(changed, [self.model, found], [self.facts, found, told, ready, *controls],
                                 concurrency_id='model', concurrency_limit=service.limits.queue + 1,
                                 api_visibility='private', show_progress_on=self.facts), ready


def model_row(service: Service) -> ModelRow:
    """The choice, with the default model chosen; something else can be typed where the operator allows it."""
    store = service.store
    # One that cannot be changed is not asked for; what it is stands beside it.
    several = store.any_model or len(store.choices) > 1
    with gr.Row(equal_height=True):
        model = gr.Dropdown([(label('embedded') if name == EMBEDDED else name, name) for name in store.choices],
                            value=store.default, allow_custom_value=store.any_model, filterable=store.any_model,
                            label=label('model'), info=label('model_any') if store.any_model else None,
                            interactive=True, visible=several, scale=2, elem_id='model')
        facts = gr.HTML('', scale=3, elem_id='model_facts', padding=False)
    return ModelRow(model, facts)


def shown_name(language: str, name: str) -> str:
    """What a model is called on the page."""
    from modelscope_fastinst.studio.texts import answer
    return answer(language, 'embedded') if name == EMBEDDED else name


def defaults(service: Service, model: LoadedModel) -> tuple[float, int, int]:
    """The score and the short side that the controls begin with for a model, and the largest short side that makes a
    difference: a side is never longer than the model's longest."""
    least, most = service.limits.short_side
    score, min_size = model.defaults.get('score_thr', 0.5), model.defaults.get('min_size', 640)
    min_size = int(min(max(min_size, least), most))
    return round(float(score), 2), min_size, max(min_size, int(min(model.defaults.get('max_size', most), most)))
