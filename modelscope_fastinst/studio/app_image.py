"""The tab for pictures: its controls, and what happens when they are used."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from modelscope_fastinst.studio import app_controls
from modelscope_fastinst.studio.app_controls import Choice, Inference
from modelscope_fastinst.studio.app_image_events import ImageEvents
from modelscope_fastinst.studio.app_language import label
from modelscope_fastinst.studio.app_models import ModelRow, defaults
from modelscope_fastinst.studio.app_uploads import uploaded_path
from modelscope_fastinst.studio.service import Service

# A download is prepared when it is asked for; the browser then takes it from where the server put it.
SAVE = '''(file) => {
  if (!file || !file.url) return;
  const link = document.createElement('a');
  link.href = file.url; link.download = file.orig_name || 'download';
  document.body.appendChild(link); link.click(); link.remove();
}'''


@dataclass(frozen=True)
class ImageTab:
    """What of the tab the choice of a model has to do with.

    Attributes:
        controls: those that follow the model.
        found: what was found.
        facts: what is said of it.
        after: has the picture segmented anew after an event that says, in a state, whether the model is ready.
    """
    controls: tuple[Choice, Inference]
    found: gr.State
    facts: gr.HTML
    after: Callable[[Any, gr.State], None]


def image_tab(service: Service, models: ModelRow) -> ImageTab:
    """Lays the tab out and connects it."""
    model = service.store.get()
    score, min_size, largest = defaults(service, model)
    with gr.Row(elem_classes='tab'):
        with gr.Column(scale=4, min_width=300):
            picture = picture_input()
            run = gr.Button(label('run'), variant='primary', elem_id='run')
            gr.Examples([[str(path)] for path in service.examples()], [picture], label=label('examples'),
                        examples_per_page=8, elem_id='examples', api_visibility='private')
            with gr.Column(elem_classes='settings'):
                with gr.Group():
                    choice = app_controls.choice(service.limits, model.classes, score, 'image', model.tasks[0])
                with gr.Accordion(label('look'), open=False):
                    drawing = app_controls.drawing('image')
                with gr.Accordion(label('network'), open=False):
                    inference = app_controls.inference(service.limits, min_size, largest, model.tasks, 'image')
        with gr.Column(scale=7, min_width=320):
            facts = gr.HTML('', elem_id='facts', padding=False)
            result = gr.Image(label=label('result'), show_label=False, interactive=False, format='png', height=480,
                              buttons=['fullscreen'], elem_id='result_picture', alt_text=label('result_alt'))
            with gr.Row(elem_classes='downloads'):
                downloads = {name: gr.Button(label(f'download_{name}'), size='sm', interactive=False,
                                             elem_id=f'download_{name}') for name in ('overlay', 'json', 'masks')}
                again = gr.Button(label('all_again'), size='sm', visible=False, elem_id='show_all')
            table = gr.Dataframe(label=label('table'), show_label=True, interactive=False, wrap=True, max_height=360,
                                 datatype=['number', 'str', 'number', 'number', 'str'], column_count=5, buttons=[],
                                 column_widths=['11%', '27%', '16%', '18%', '28%'], type='array', visible=False,
                                 elem_id='instances')
    events = ImageEvents(service)
    found = gr.State(None, time_to_live=service.limits.visit_seconds, delete_callback=events.forget)
    shown, chosen = gr.State(None, time_to_live=service.limits.visit_seconds), gr.State(None)
    said = gr.State(None)   # by the controls, when the picture was segmented
    saved = gr.File(visible=False)
    wanted = [*choice.inputs, *drawing.inputs]
    outputs = [found, shown, chosen, result, facts, table, again, *downloads.values(), said]
    other = outputs[1:-1]
    network = {'concurrency_id': 'network', 'concurrency_limit': service.limits.queue + service.limits.parallel + 4,
               'api_visibility': 'private', 'show_progress_on': result}
    again_inputs = [found, picture, models.model, *inference.inputs, *wanted]
    segmented = [
        picture.change(events.segment, again_inputs, outputs, trigger_mode='always_last', **network),
        run.click(events.segment, again_inputs, outputs, scroll_to_output=True, **network),
        *(event(events.segment, again_inputs, outputs, trigger_mode='always_last', **network)
          for event in (inference.min_size.release, inference.task.input, inference.tile.input))]
    quick = {'concurrency_id': 'drawing', 'concurrency_limit': service.limits.queue + 4, 'api_visibility': 'private',
             'show_progress': 'hidden'}
    for control in choice.inputs:
        control.change(events.choose, [found, *wanted, facts], other, trigger_mode='always_last', **quick)
    for control in drawing.inputs:
        control.change(events.draw, [shown, chosen, *drawing.inputs, facts], [result, facts],
                       trigger_mode='always_last', **quick)
    for event in segmented:
        event.success(events.catch_up, [said, found, *wanted], other, **quick)
    inference.task.input(app_controls.useful, inference.task, [choice.score, choice.most], **quick)
    picked = [chosen, result, facts, table, again]
    table.select(events.pick_row, [shown, *drawing.inputs], picked, **quick)
    result.select(events.pick_point, [shown, *drawing.inputs], picked, **quick)
    again.click(events.pick_none, [shown, *drawing.inputs], picked, **quick)
    for name, button in downloads.items():
        button.click(getattr(events, f'save_{name}'), [shown, *drawing.inputs], [saved, facts], concurrency_id='saving',
                     concurrency_limit=2, api_visibility='private', show_progress_on=button).success(
            None, saved, None, js=SAVE, api_visibility='private')

    def after(event: Any, ready: gr.State) -> None:
        event.success(events.segment_anew, [ready, *again_inputs], outputs, **network).success(
            events.catch_up, [said, found, *wanted], other, **quick)

    return ImageTab((choice, inference), found, facts, after)


def picture_input() -> gr.Image:
    """Upload, camera and clipboard. The file goes to the service as it came: Gradio would decode it first, and fall
    over what the service refuses."""
    picture = gr.Image(type='filepath', sources=['upload', 'webcam', 'clipboard'], label=label('picture'), height=300,
                       placeholder=label('picture_drop'), alt_text=label('picture_alt'), buttons=[], elem_id='picture',
                       webcam_options=gr.WebcamOptions(mirror=False))
    picture.preprocess = uploaded_path
    return picture

