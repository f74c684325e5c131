"""Results of a video as text: JSON lines, one a segmented frame."""
from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from modelscope_fastinst.video.frames import Frame, VideoError


class RecordWriter:
    """Writes a line for each segmented frame; what is there is whole lines, whenever the writing ends.

    Args:
        path: is overwritten.

    Raises:
        VideoError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open('wb', buffering=0)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, frame: Frame) -> None:
        """Adds a frame, if it was segmented itself; raises VideoError where that fails, as on a full disk."""
        if not frame.fresh or frame.result is None:
            return
        # In one piece, so that a kill does not leave half a line but in the worst case.
        line = memoryview((json.dumps(as_record(frame), ensure_ascii=False) + '\n').encode())
        begin = self._file.tell() if self._file.seekable() else None
        try:
            while line:   # a disk that is nearly full takes a part
                line = line[self._file.write(line):]
        except OSError as error:
            if begin is not None:
                with suppress(OSError):   # the error that is raised says more
                    self._file.truncate(begin)
            raise self._failed(error) from error

    def close(self) -> None:
        self._file.close()

    def _failed(self, error: OSError) -> VideoError:
        return VideoError(f'{self._path}: cannot be written ({error.strerror})')


def as_record(frame: Frame) -> dict[str, Any]:
    """What is known of a frame: ``frame`` (its number, from 0), ``time`` in seconds, ``height``, ``width``, and
    ``instances`` (``segments`` of a panoptic map, ``classes`` of a semantic one), each a dict of ``score``, ``label``,
    ``box`` (xyxy in pixels), ``mask`` (COCO RLE) and, of what is tracked, ``track``."""
    found = frame.result
    entries = [{'score': float(score), 'label': label, 'box': [float(side) for side in box], 'mask': _plain(mask)}
               for score, label, box, mask in zip(found['scores'], found['labels'], found['boxes'], found['masks'],
                                                  strict=True)]
    for entry, track in zip(entries, frame.ids, strict=False):
        entry['track'] = track
    for entry, segment in zip(entries, found.get('segments', ()), strict=False):
        entry |= {'id': segment['id'], 'isthing': segment['isthing'], 'area': segment['area']}
    name = 'segments' if 'id_map' in found else 'classes' if 'label_map' in found else 'instances'
    return {'frame': frame.index, 'time': round(frame.time, 6), 'height': frame.image.shape[0],
            'width': frame.image.shape[1], name: entries}


def _plain(mask: Any) -> dict[str, Any]:
    if not isinstance(mask, Mapping):   # of a callable that does not mind mask_format
        from modelscope_fastinst.results.rle import encode
        mask = encode(mask[None])[0]
    counts = mask['counts']
    return {'size': [int(side) for side in mask['size']],
            'counts': counts.decode('ascii') if isinstance(counts, bytes) else counts}
