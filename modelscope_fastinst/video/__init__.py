"""Videos, folders of frames and cameras: in, segmented, drawn, out; see ``stream``, ``render`` and ``tracking``."""
