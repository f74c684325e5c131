"""Which file a page may mean: one that a visitor has uploaded, or that Gradio has put beside the uploads."""
from __future__ import annotations

import os
from typing import Any

from gradio.utils import get_upload_folder


def uploaded_path(payload: Any) -> str | None:
    """What a component for files hands to the service: the path of the upload, as it came.

    A request says by its path which upload is meant. Gradio looks at that only where the request calls the path a file
    (its ``meta``), and leaves out the rest: without this, a path of any picture on this machine would do.

    Returns:
        None where there is no file; an empty path, which is no picture and no video, for any other file of the machine.
    """
    path = getattr(payload, 'path', None)
    if path is None:
        return None
    try:
        real, home = os.path.realpath(path), os.path.realpath(get_upload_folder())
        return path if os.path.commonpath((real, home)) == home and real != home else ''
    except ValueError:   # a zero byte, another drive
        return ''
