"""Fine-tunes the embedded model on a folder of labelled pictures; one in five is kept to measure it on.

The folder may be COCO's, YOLO's, LabelMe's, Pascal VOC's or one with a mask file an object.
"""
import sys

from modelscope.trainers import build_trainer

import modelscope_fastinst


def recipe(cfg):
    """What is other than in the embedded model's own recipe: the data are few, so they come more often."""
    cfg.train.max_epochs = 120
    return cfg


if __name__ == '__main__':
    folder, = sys.argv[1:]
    trainer = build_trainer('fastinst-trainer', default_args={
        'model': modelscope_fastinst.default_model(), 'work_dir': 'work_dir', 'cfg_modify_fn': recipe,
        'train_dataset': {'root': folder, 'split': 'train', 'val_fraction': 0.2},
        'eval_dataset': {'root': folder, 'split': 'val', 'val_fraction': 0.2}})
    trainer.train()
    print(trainer.evaluate())
