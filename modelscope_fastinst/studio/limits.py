"""What a visitor of the studio may ask for."""
from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """How much is taken from a visitor, and how much is done at once for all of them.

    Attributes:
        upload_bytes: the largest picture file.
        video_bytes: the largest video file.
        pixels: of a picture (height times width), judged before it is decoded. Pillow's own limit of about 180 million
            holds besides.
        side: the longest side of a picture, in pixels.
        video_seconds: of a video; what is longer is refused.
        video_frames: of a video; no more than these are segmented.
        video_pixels: of a frame of a video.
        video_minutes: how long one video may be worked at.
        network_pixels: of the picture at the size at which the network sees it: what a short side may blow it up to.
        tiles: into how many a picture may be cut.
        short_side: the least and the most that a visitor may choose for the network's short side, in pixels.
        instances: the most that a visitor may ask for.
        queue: how many may wait for one thing (inference, a model, a video); whoever comes then is turned away.
        parallel: how many pictures the network works at once.
        hands: how many pictures are read, drawn or packed at once.
        videos: how many videos are worked at once.
        models: how many models are kept loaded, the default one included.
        wait_seconds: how long somebody waits for a turn at most.
        visits: how many results are kept, the latest.
        visit_seconds: how long a result is kept after it was last used.
        visit_bytes: how much disk the kept results take together; the oldest go first.
        kept_bytes: memory for network outputs, from which other thresholds are answered without a new inference.

    Raises:
        ValueError: a limit that is no positive number; names it.
    """
    upload_bytes: int = 20_000_000
    video_bytes: int = 200_000_000
    pixels: int = 50_000_000
    side: int = 30_000
    video_seconds: float = 60
    video_frames: int = 1800
    video_pixels: int = 9_000_000
    video_minutes: float = 30
    network_pixels: int = 4_000_000
    tiles: int = 400
    short_side: tuple[int, int] = (64, 1600)
    instances: int = 1000
    queue: int = 20
    parallel: int = 1
    hands: int = 2
    videos: int = 1
    models: int = 2
    wait_seconds: float = 600
    visits: int = 200
    visit_seconds: float = 3600
    visit_bytes: int = 4_000_000_000
    kept_bytes: int = 256_000_000

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            least = 0 if one.name in ('queue', 'kept_bytes') else 1e-9
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, bool) or not isinstance(number, (int, float)) or not number >= least:
                    raise ValueError(f'{one.name} is {value!r}; a limit must be a positive number')
