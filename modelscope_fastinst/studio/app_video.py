"""The tab for videos: its controls, and what happens when they are used."""
from __future__ import annotations

import gradio as gr

from modelscope_fastinst.studio import app_controls
from modelscope_fastinst.studio.app_controls import Choice, Inference
from modelscope_fastinst.studio.app_language import label
from modelscope_fastinst.studio.app_models import ModelRow, defaults
from modelscope_fastinst.studio.app_uploads import uploaded_path
from modelscope_fastinst.studio.app_video_events import VideoEvents
from modelscope_fastinst.studio.service import Service

MOST_EVERY = 30


def video_tab(service: Service, models: ModelRow) -> tuple[Choice, Inference]:
    """Lays the tab out and connects it; returns the controls that follow the model."""
    model = service.store.get()
    score, min_size, largest = defaults(service, model)
    limits = service.limits
    with gr.Row(elem_classes='tab'):
        with gr.Column(scale=4, min_width=300):
            # include_audio and format would have Gradio call ffmpeg; the file goes to the service as it came
            video = gr.Video(label=label('video'), sources=['upload', 'webcam'], height=300, buttons=[],
                             elem_id='video', webcam_options=gr.WebcamOptions(mirror=False))
            video.preprocess = uploaded_path
            every = gr.Slider(1, MOST_EVERY, value=1, step=1, label=label('every'), info=label('every_info'),
                              elem_id='every')
            with gr.Row():
                run = gr.Button(label('video_run'), variant='primary', elem_id='video_run', scale=3)
                stop = gr.Button(label('video_stop'), variant='stop', elem_id='video_stop', scale=1, min_width=90)
            with gr.Column(elem_classes='settings'):
                with gr.Group():
                    choice = app_controls.choice(limits, model.classes, score, 'video', model.tasks[0], at_once=False)
                with gr.Accordion(label('look'), open=False):
                    drawing = app_controls.drawing('video')
                with gr.Accordion(label('network'), open=False):
                    inference = app_controls.inference(limits, min_size, largest, model.tasks, 'video', whole=False)
        with gr.Column(scale=7, min_width=320):
            facts = gr.HTML('', elem_id='video_facts', padding=False)
            result = gr.Video(label=label('video_result'), show_label=False, interactive=False, height=480,
                              elem_id='video_result', autoplay=True, loop=True, buttons=[])
            download = gr.DownloadButton(label('video_download'), visible=False, elem_id='video_download', size='sm')
            gr.Markdown(label('video_note'), elem_classes='hint', container=False)
    events = VideoEvents(service)
    working = run.click(
        events.render, [video, models.model, every, inference.min_size, *choice.inputs, *drawing.inputs],
        [result, facts, download], concurrency_id='video', concurrency_limit=limits.videos + limits.queue,
        api_visibility='private', show_progress='hidden')
    stop.click(events.stop, None, None, api_visibility='private', queue=False, show_progress='hidden')
    video.clear(events.clear, None, [result, facts, download], api_visibility='private', show_progress='hidden',
                cancels=[working])
    return choice, inference

