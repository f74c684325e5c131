"""A process that renders a video, for tests that kill it or watch its memory.

``python work.py INPUT OUTPUT DELAY KEEP``: DELAY seconds of "inference" a frame; KEEP 1 keeps every frame, as a mistake
would. It prints the number of frames that are done and its peak memory in MiB after each frame.
"""
from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from modelscope_fastinst import video
from modelscope_fastinst.results.rle import encode


def main(source: str, output: str, delay: float, keep: bool) -> None:
    kept = []

    def segment(images: list[np.ndarray], batch_size: int, mask_format: str) -> list[dict]:
        time.sleep(delay * len(images))
        if keep:
            kept.extend(image.copy() for image in images)
        masks = [image[:, :, 1] > 130 for image in images]
        return [{'scores': [0.9], 'labels': ['disc'], 'masks': encode(mask[None]), 'boxes': [[0, 0, 1, 1]]}
                for mask in masks]

    def told(progress: video.Progress) -> None:
        print(progress.done, peak(), flush=True)

    done = video.render(source, output, segment, progress=told, look={'tags': False})
    print('done', done.frames, done.seconds, flush=True)


def peak() -> int:
    """MiB; 0 where there is no telling. (What `resource` says begins with the memory of the parent process.)"""
    status = Path('/proc/self/status')
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith('VmHWM')), 0)


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4] == '1')
