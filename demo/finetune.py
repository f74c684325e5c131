"""Fine-tunes the embedded model on COCO annotations; one image in five is kept to measure it on."""
import json
import random
import sys
from pathlib import Path

from modelscope.trainers import build_trainer

import modelscope_fastinst

WORK_DIR = Path('work_dir')


def split(annotation_file: str) -> tuple[str, str]:
    """Writes the annotations of the images to train on and of those to measure on."""
    content = json.loads(Path(annotation_file).read_text('utf-8'))
    images = sorted(content['images'], key=lambda image: image['id'])
    random.Random(0).shuffle(images)
    kept = max(len(images) // 5, 1)
    names = []
    WORK_DIR.mkdir(exist_ok=True)
    for name, part in (('train', images[kept:]), ('val', images[:kept])):
        ids = {image['id'] for image in part}
        annotations = [item for item in content['annotations'] if item['image_id'] in ids]
        file = WORK_DIR / f'{name}.json'
        file.write_text(json.dumps({**content, 'images': part, 'annotations': annotations}), 'utf-8')
        names.append(str(file))
    return names[0], names[1]


def recipe(cfg):
    """What is other than in the embedded model's own recipe."""
    cfg.train.max_epochs = 120
    cfg.postprocessor.score_thr = 0.5  # the embedded model's threshold is chosen for its own scores
    return cfg


if __name__ == '__main__':
    annotation_file, image_dir = sys.argv[1:]
    train_file, val_file = split(annotation_file)
    trainer = build_trainer('fastinst-trainer', default_args={
        'model': modelscope_fastinst.default_model(), 'work_dir': str(WORK_DIR), 'cfg_modify_fn': recipe,
        'train_dataset': {'annotation_file': train_file, 'image_dir': image_dir},
        'eval_dataset': {'annotation_file': val_file, 'image_dir': image_dir}})
    trainer.train()
    print(trainer.evaluate())
