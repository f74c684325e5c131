"""What can be typed after ``train`` and ``evaluate``."""
from __future__ import annotations

from modelscope_fastinst.cli.arguments.data import add_format, add_label_numbers, add_skip_bad, add_split_fraction
from modelscope_fastinst.cli.arguments.options import (
    DEFAULT_MODEL,
    add_device,
    add_revision,
    command,
    names,
    tasks,
    unit_interval,
)
from modelscope_fastinst.structures import TASKS


def add_train(commands) -> None:
    parser = command(commands, 'train', 'train', 'train a model, or fine-tune one on other classes')
    parser.add_argument('--config', metavar='FILE_OR_NAME',
                        help='configuration.json with the recipe, or the name of a published model such as '
                             'fastinst_d3_r50 (default: of the model)')
    parser.add_argument('--model', metavar='DIR_OR_ID',
                        help='model folder or ModelScope model id to start from, or "embedded": the small model of '
                             'this package (default: ImageNet weights if the configuration names some, else random)')
    add_revision(parser)
    parser.add_argument('--backbone', metavar='FILE',
                        help='ImageNet weights for the backbone of a training without --model: a .pth, .safetensors or '
                             '.pkl file, a name such as ResNet50_Weights.IMAGENET1K_V1, or an https URL whose file '
                             'name carries its hash; none: random weights (default: as the configuration says)')
    data = parser.add_argument_group(
        'data', 'Default: what the dataset section of the configuration names.')
    data.add_argument('--data', metavar='ROOT',
                      help='folder of annotated images: COCO, YOLO, LabelMe, Pascal VOC, or a folder of masks an '
                           'image; with --task panoptic or semantic COCO panoptic, ADE20K, Cityscapes, or label PNGs')
    add_format(data)
    data.add_argument('--task', choices=tuple(TASKS),
                      help='what the model is to learn (default: what the configuration says, else instance)')
    add_split_fraction(data, 'where ROOT has no validation split, the share of its images to set aside as one '
                              '(default: 0.2; 0: train on all, without evaluation)')
    add_label_numbers(data)
    data.add_argument('--train-annotations', metavar='JSON', help='COCO file, instead of --data')
    data.add_argument('--train-images', metavar='DIR')
    data.add_argument('--val-annotations', metavar='JSON', help='to evaluate during the training')
    data.add_argument('--val-images', metavar='DIR')
    data.add_argument('--classes', type=names, metavar='A,B',
                      help='train these classes only; of label PNGs the names of all, where no classes.txt has them')
    add_skip_bad(data)
    parser.add_argument('--work-dir', default='work_dir', metavar='DIR',
                        help='where checkpoints and the finished model go (default: %(default)s)')
    parser.add_argument('--resume', nargs='?', const='latest', metavar='CHECKPOINT',
                        help='continue from a checkpoint (without a name: the latest in the work folder, if any)')
    parser.add_argument('--set', action='append', default=[], dest='settings', metavar='KEY=VALUE',
                        help='change a setting of the configuration, as in --set train.max_epochs=3; may be repeated')
    add_device(parser)


def add_evaluate(commands) -> None:
    parser = command(commands, 'evaluate', 'evaluate',
                     'measure a model: COCO average precision, panoptic quality, mean IoU')
    parser.add_argument('--model', metavar='DIR_OR_ID', help=f'model folder or ModelScope model id ({DEFAULT_MODEL})')
    add_revision(parser)
    parser.add_argument('--data', metavar='ROOT',
                        help='annotated pictures: COCO, YOLO-seg, LabelMe, Pascal VOC, or one mask file an object; for '
                             'a panoptic or semantic model COCO panoptic, ADE20K, Cityscapes, or label PNGs')
    parser.add_argument('--split', default='val',
                        help='which split of that folder, or "all" of one without splits (default: %(default)s)')
    parser.add_argument('--format', metavar='NAME', help='of the folder (default: what it looks like)')
    parser.add_argument('--val-fraction', type=unit_interval, metavar='F',
                        help='where the folder has no validation split, the share that "train" set aside as one')
    parser.add_argument('--split-seed', type=int, default=0, metavar='N', help='with it, as for "train"')
    add_label_numbers(parser)
    add_skip_bad(parser)
    parser.add_argument('--annotations', metavar='JSON', help='COCO file, instead of --data')
    parser.add_argument('--images', metavar='DIR', help='folder of the pictures that the COCO file names')
    parser.add_argument('--task', type=tasks, metavar='A,B',
                        help='what to measure: instance (AP), semantic (mIoU), panoptic (PQ), several as far '
                             'as the model allows it (default: as its configuration says, else what it is trained for)')
    parser.add_argument('--boundary', action='store_true', help='boundary AP of instances as well')
    parser.add_argument('--json', action='store_true', help='print the measures as JSON')
    parser.add_argument('--record', nargs='?', const='', metavar='FILE',
                        help='write the measures to a file, for the model card (without a name: evaluation.json in '
                             'the model folder)')
    parser.add_argument('--set', action='append', default=[], dest='settings', metavar='KEY=VALUE',
                        help='change a setting of the configuration, as in --set preprocessor.min_size=512')
    parser.add_argument('--report', metavar='DIR',
                        help='write curves, the confusion matrix and the worst images to a folder')
    parser.add_argument('--write-thresholds', action='store_true',
                        help="write each class's best score threshold (by F1) into the model folder's configuration, "
                             'as the default of predictions')
    parser.add_argument('--engine', choices=('pycocotools', 'faster-coco-eval'),
                        help='what matches instances and objects: the same numbers, the second in less time')
    parser.add_argument('--tta', nargs='?', const='1', metavar='SCALES',
                        help='test-time augmentation: mirrored as well, at these factors or short sides, as in '
                             '0.75,1,1.25 (without a list: mirrored only)')
    add_device(parser)
