"""The studio's pages, and the server that shows them."""
from __future__ import annotations

import atexit
import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault('GRADIO_ANALYTICS_ENABLED', 'False')   # read by Gradio while it is imported

import gradio as gr
from starlette.middleware import Middleware

from modelscope_fastinst.studio.addresses import free_port, is_loopback
from modelscope_fastinst.studio.app_image import image_tab
from modelscope_fastinst.studio.app_language import EarlyScript, i18n, label
from modelscope_fastinst.studio.app_models import model_row
from modelscope_fastinst.studio.app_style import CSS, theme
from modelscope_fastinst.studio.app_video import video_tab
from modelscope_fastinst.studio.guard import Guard, GuardLimits
from modelscope_fastinst.studio.limits import Limits
from modelscope_fastinst.studio.messages import Refused
from modelscope_fastinst.studio.models import ModelStore
from modelscope_fastinst.studio.service import Service
from modelscope_fastinst.studio.texts import refusal

_CACHE_SECONDS = 3600   # how long Gradio keeps what was uploaded and shown
_PAGES = 10   # for each result that is kept, so many open pages are remembered, 0.1 MB each


def build_app(service: Service) -> gr.Blocks:
    """The pages: a tab for pictures and one for videos, over the choice of a model.

    Args:
        service: does what the pages ask for, and says within which limits. Its default model gets loaded, if it is not:
            the controls follow it.
    """
    with gr.Blocks(title='FastInst Studio', analytics_enabled=False,
                   delete_cache=(_CACHE_SECONDS // 6, _CACHE_SECONDS)) as pages:
        with gr.Row(elem_id='head'):
            gr.Markdown(label('head'), container=False, elem_classes='about')
            gr.Markdown(label('links'), elem_classes='links', container=False)
        models = model_row(service)
        with gr.Tabs():
            with gr.Tab(label('tab_image'), id='image'):
                image = image_tab(service, models)
            with gr.Tab(label('tab_video'), id='video'):
                video = video_tab(service, models)
        image.after(*models.connect(service, pages, (image.controls, video), image.found,
                                    image.facts))
    # The service says no sooner, in the visitor's language; this is what holds for everything together.
    pages.queue(max_size=4 * (service.limits.queue + service.limits.parallel), default_concurrency_limit=4,
                api_open=False)
    return pages


class Server:
    """A studio that listens. Leaving a ``with`` closes it.

    Attributes:
        address: where a browser finds it, 'http://127.0.0.1:7860/'.
        pages: the Gradio application.
        service: what is behind it.
    """

    def __init__(self, pages: gr.Blocks, service: Service, address: str) -> None:
        self.pages, self.service, self.address = pages, service, address
        self._closed = threading.Event()

    def wait(self) -> None:
        """Returns when the server was closed."""
        while not self._closed.wait(0.5):   # a wait without an end would not hear Ctrl-C on Windows
            continue

    def close(self) -> None:
        """Stops listening, and removes what visitors left."""
        if not self._closed.is_set():
            self._closed.set()
            self.pages.close(verbose=False)
            self.service.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def launch(models: Sequence[str] = (), *, any_model: bool = False, host: str = '127.0.0.1', port: int | None = None,
           device: str | None = None, limits: Limits | None = None, browser: bool = False) -> Server:
    """Loads the first model, runs it once, and opens the port.

    Nothing is fetched from or sent to anywhere: no fonts, no usage data, no public link.

    Args:
        models: folders and ids that visitors may choose from, the first loaded at the start; none for the embedded one.
        any_model: visitors may type any other as well.
        host: address to listen on.
        port: None for the first free one from 7860 on, 0 for any.
        device: as ``pipeline()`` takes it; None for the GPU if there is one.
        limits: what a visitor may ask for.
        browser: open a window of the browser.

    Raises:
        ValueError: ``any_model`` on an address that other machines can reach; a model that cannot be loaded.
        OSError: the port is taken.
    """
    if any_model and not is_loopback(host):
        raise ValueError(f'any_model with host {host!r}: visitors from elsewhere could make this machine load any '
                         'folder; name the models instead')
    limits = limits or Limits()
    _keep_uploads_apart()
    store = ModelStore(models[0] if models else None, device=device, allowed=tuple(models), any_model=any_model,
                       limits=limits)
    try:
        store.warm()
    except Refused as error:
        # What a visitor is told leaves out what is wrong with a folder; whoever starts the studio may know.
        reason = refusal('en', error.code, error.values) if error.__cause__ is None else str(error.__cause__)
        raise ValueError(f'{models[0] if models else "the embedded model"}: {reason}') from error
    service = Service(store, limits)
    try:
        service.warm()
        pages = build_app(service)
        _, address, _ = pages.launch(
            server_name=host, server_port=free_port(host) if port == 0 else port, inbrowser=browser, share=False,
            prevent_thread_lock=True, quiet=True, show_error=False, footer_links=[], run_history=False,
            enable_monitoring=False, mcp_server=False, ssr_mode=False, pwa=False, strict_cors=True,
            max_file_size=max(limits.upload_bytes, limits.video_bytes), state_session_capacity=_PAGES * limits.visits,
            max_threads=40 + limits.queue, i18n=i18n(), theme=theme(), css=CSS,
            app_kwargs={'docs_url': None, 'redoc_url': None, 'openapi_url': None,
                        'middleware': [_guard(limits, pages), Middleware(EarlyScript)]})
    except Refused as error:
        service.close()
        raise ValueError(f'{store.default}: {refusal("en", error.code, error.values)}') from error
    except BaseException:
        service.close()
        raise
    return Server(pages, service, address)


def _guard(limits: Limits, pages: gr.Blocks) -> Any:
    """What stands before Gradio; see `studio.guard`."""
    from gradio.utils import get_upload_folder
    most = GuardLimits(upload_bytes=max(limits.upload_bytes, limits.video_bytes), folder_bytes=limits.visit_bytes)
    return Middleware(Guard, folder=Path(get_upload_folder()), limits=most,
                      events=frozenset(pages.fns))


def _keep_uploads_apart() -> None:
    """Has Gradio keep uploads in a folder of this process, which goes with it, rather than in one that all share."""
    if 'GRADIO_TEMP_DIR' not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix='fastinst-uploads-', ignore_cleanup_errors=True)
        os.environ['GRADIO_TEMP_DIR'] = folder.name
        atexit.register(folder.cleanup)
