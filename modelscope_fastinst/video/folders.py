"""Folders of frames, and cameras: what is no video file and gives frames all the same."""
from __future__ import annotations

import re
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from modelscope_fastinst.video.frames import Broken, Facts, Raw, VideoError

_PICTURES = frozenset({'.bmp', '.jpeg', '.jpg', '.jp2', '.png', '.ppm', '.pgm', '.tif', '.tiff', '.webp'})
DEFAULT_FPS = 25.0


class FrameFolder:
    """The pictures of a folder, in the order of the numbers in their names, as frames of a video.

    Args:
        folder: its path.
        fps: how many make a second.
        max_pixels: refuse pictures of more pixels.

    Raises:
        VideoError: a folder without pictures.
    """

    def __init__(self, folder: Path, fps: float | None = None, max_pixels: int | None = None) -> None:
        self.name = str(folder)
        self._files = sorted((file for file in folder.iterdir() if file.suffix.lower() in _PICTURES
                              and not file.name.startswith('.') and file.is_file()), key=natural_key)
        if not self._files:
            raise VideoError(f'{folder}: no pictures in this folder (of the kinds {", ".join(sorted(_PICTURES))})')
        self._rate = Fraction(fps or DEFAULT_FPS).limit_denominator(1001)
        self._max_pixels = max_pixels
        count = len(self._files)
        self.facts = Facts(self.name, 'folder', 0, 0, float(self._rate), count, float(count / self._rate),
                           time_base=1 / self._rate)

    def items(self) -> Iterator[Raw]:
        """The pictures; one that cannot be read raises an error when it is asked for."""
        for index, file in enumerate(self._files):
            yield Raw(index, float(index / self._rate), lambda file=file: self._read(file))

    def _read(self, file: Path) -> np.ndarray:
        from modelscope_fastinst.data.image import image_size, read_image
        if self._max_pixels is not None:
            height, width = image_size(file)[0]
            if height * width > self._max_pixels:
                raise VideoError(f'{file}: {width} x {height} pixels; at most {self._max_pixels} pixels are taken')
        return read_image(file)

    def close(self) -> None:
        """Nothing is open between two pictures."""


def natural_key(path: Path) -> tuple[list, str]:
    """Sorts 'frame2' before 'frame10', as people do."""
    parts = re.split(r'(\d+)', path.name.casefold())
    return [(int(part), '') if place % 2 else (-1, part) for place, part in enumerate(parts)], path.name


class Camera:
    """A camera by number (0, 1, ...) or device (/dev/video0), through OpenCV.

    Time stamps are those of the clock, for cameras give none that can be relied on.

    Raises:
        VideoError: no such camera, or another program has it.
    """

    def __init__(self, number: int | str) -> None:
        import cv2
        self.name = f'camera {number}'
        # OpenCV would talk in between; OpenCV 5 has it here, some builds of 4 have it nowhere.
        log = getattr(getattr(cv2, 'utils', None), 'logging', None)
        previous = log.setLogLevel(0) if log is not None else None
        try:
            self._capture = cv2.VideoCapture(number)
        finally:
            if log is not None:
                log.setLogLevel(previous)
        if not self._capture.isOpened():
            self._capture.release()
            raise VideoError(f'{self.name}: cannot be opened; is it there, and does no other program use it?')
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.facts = Facts(self.name, 'camera', 0, 0, fps if 1 <= fps <= 1000 else None, live=True)

    def items(self) -> Iterator[Raw | Broken]:
        """What the camera sees, until it is unplugged."""
        start, index, now = None, 0, -1.0
        while True:
            there, image = self._capture.read()
            if not there:
                break
            start = time.monotonic() if start is None else start
            now = max(time.monotonic() - start, now + 0.001)
            yield Raw(index, now if index else 0.0, lambda image=image: np.ascontiguousarray(image[:, :, ::-1]))
            index += 1
        yield Broken(index, max(now, 0.0), 'the camera gives no more frames')

    def close(self) -> None:
        """Gives the camera back."""
        self._capture.release()
