"""The folders in which the pages are read: what their commands name, drawn or made small."""
from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import modelscope_fastinst
from modelscope_fastinst.data.label_sets import COCO_PANOPTIC
from modelscope_fastinst.data.microscope import draw_nuclei
from modelscope_fastinst.data.shapes import ShapesDataset
from modelscope_fastinst.data.slide import draw_slide
from tests.data.formats.tool_files import Picture, labelme_content
from tests.data.maps.trees import scenes, write_coco
from tests.plugin.model_folders import write_map_folder, write_stock_folder

PUBLISHED = 'damo/cv_resnet50_fast-instance-segmentation_coco'   # on the loopback hub: a small one of random weights


def write_photographs(folder: Path, count: int = 24) -> None:
    """Drawn shapes as JPEGs, outlined as a person would in LabelMe."""
    shapes = ShapesDataset(count, (96, 128), num_classes=2, seed=3, objects=(2, 4), radius=(0.15, 0.25))
    for index in range(count):
        image, labels, masks = shapes.draw(index)
        write_labelled(folder / f'IMG_{index + 1:04d}.jpg', image, [shapes.classes[label] for label in labels], masks)


def write_labelled(file: Path, image: np.ndarray, names: Sequence[str], masks: np.ndarray) -> None:
    """A picture, and LabelMe's file beside it."""
    file.parent.mkdir(exist_ok=True)
    picture = Picture(file.name, image)
    for name, mask in zip(names, masks, strict=True):
        contours, _ = cv2.findContours(mask.astype('uint8'), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        outline = max(contours, key=len).reshape(-1, 2) + 0.5
        if len(outline) >= 3:
            picture.objects.append((name, outline.ravel().tolist()))
    Image.fromarray(image).save(file, quality=90)
    file.with_suffix('.json').write_text(json.dumps(labelme_content(picture)), 'utf-8')


def write_hub(folder: Path) -> None:
    write_stock_folder(folder.joinpath(*PUBLISHED.split('/')))


def prepare_readme(folder: Path) -> None:
    write_photographs(folder / 'photos')


def prepare_inference(folder: Path) -> None:
    write_pictures(folder)
    write_panoptic_model(folder / 'my_panoptic_model')
    places = [(y, x, 16) for y in range(40, 440, 80) for x in range(40, 640, 80)]
    Image.fromarray(draw_slide(448, 640, places).image).save(folder / 'slide.png')
    write_video(folder / 'cells.mp4')


def write_video(file: Path, frames: int = 12) -> None:
    """A view that moves over drawn nuclei, 25 frames a second."""
    import av
    image = draw_nuclei(192, 300, 14, seed=1).image
    with av.open(str(file), 'w') as container:
        stream = container.add_stream('mpeg4', rate=25)
        stream.width, stream.height, stream.pix_fmt = 256, 192, 'yuv420p'
        for number in range(frames):
            view = np.ascontiguousarray(image[:, 3 * number:3 * number + 256])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format='rgb24')))
        container.mux(stream.encode())


def write_panoptic_model(folder: Path) -> None:
    """Random weights that name what is seen in a street."""
    write_map_folder(folder, 'panoptic')
    file = folder / 'configuration.json'
    configuration = json.loads(file.read_text('utf-8'))
    names = ['person', 'car', 'dog', 'bus', 'road', 'sky', 'tree', 'grass', 'wall', 'water']
    configuration['model'] |= {'classes': names, 'things': names[:4]}
    file.write_text(json.dumps(configuration), 'utf-8')


def prepare_models(folder: Path) -> None:
    """Weight files as two groups of authors write theirs, with random numbers."""
    import pickle

    import torch

    from modelscope_fastinst import zoo
    from modelscope_fastinst.models.build import build_network
    from tests.golden_cases import load
    from tests.parity.networks import folder_of, network
    write_pictures(folder)
    torch.save({'model': load('d1_r50_eval').weights(), '__author__': 'x'}, folder / 'model_final.pth')
    section = zoo.configuration('mask2former_coco_panoptic_r50')['model']
    torch.manual_seed(0)
    weights = build_network(section).state_dict()
    (folder / 'model_final_94dc52.pkl').write_bytes(pickle.dumps({'__author__': 'third_party', 'model': {
        name: tensor.numpy() for name, tensor in weights.items() if not name.endswith('num_batches_tracked')}}))
    folder_of(network(classes=list(COCO_PANOPTIC.names)), folder / 'mask2former-swin-tiny-coco-panoptic',
              size={'shortest_edge': 96, 'longest_edge': 128})


def prepare_fine_tune(folder: Path) -> None:
    write_photographs(folder / 'photos')
    for split, names, seed in (('train', ('1', '2'), 0), ('val', ('3', '4'), 5)):
        pictures = scenes(COCO_PANOPTIC, names, ('person', 'kite'), ('sea', 'sand'), seed=seed)
        write_coco(folder / 'coco_panoptic', pictures, COCO_PANOPTIC, split)


def prepare_publishing(folder: Path) -> None:
    """A finished model and the data that it is measured on."""
    for seed in range(2):
        drawn = draw_nuclei(192, 256, 10, seed)
        write_labelled(folder / 'my_data' / f'{seed}.jpg', drawn.image, ['nucleus'] * len(drawn.masks), drawn.masks)
    write_pictures(folder)
    (folder / 'my_model').mkdir()
    for name in ('configuration.json', 'model.safetensors'):
        shutil.copy(Path(modelscope_fastinst.default_model()) / name, folder / 'my_model' / name)


def write_pictures(folder: Path) -> None:
    Image.fromarray(draw_nuclei(240, 320, 12).image).save(folder / 'cells.png')
    Image.fromarray(ShapesDataset(1, (96, 128), seed=5).draw(0)[0]).save(folder / 'street.jpg')


PREPARED = {'README.md': prepare_readme, 'docs/inference.md': prepare_inference, 'docs/models.md': prepare_models,
            'docs/fine-tune.md': prepare_fine_tune, 'docs/publishing.md': prepare_publishing}
