"""``demo``: the embedded model on a drawn microscope image, with no network and no file."""
from __future__ import annotations

import argparse
from pathlib import Path

from modelscope_fastinst.cli.predict import check_font, write_picture


def demo(args: argparse.Namespace) -> int:
    """Draws an image, segments it and writes both pictures."""
    from modelscope_fastinst.data.microscope import draw_nuclei
    from modelscope_fastinst.plugin.build import build_segmenter
    from modelscope_fastinst.visualize import draw_instances
    check_font(args.font)
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    scene = draw_nuclei(seed=args.seed)
    segment = build_segmenter(None, args.device, verbose=args.debug)
    found = segment(scene.image[:, :, ::-1], mask_format='rle')
    drawn, outlined = output / 'nuclei.png', output / 'nuclei_outlined.png'
    write_picture(drawn, scene.image)
    write_picture(outlined, draw_instances(scene.image, found['scores'], found['labels'], found['masks'],
                                           found['boxes'], scale=2, font=args.font))
    print(f'a drawn microscope image with {len(scene.masks)} nuclei: {drawn}')
    print(f'the embedded model found {len(found["labels"])} nuclei: {outlined}')
    return 0
