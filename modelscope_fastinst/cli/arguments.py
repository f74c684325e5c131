"""What can be typed: the commands and their options. Imports nothing to speak of but argparse."""
from __future__ import annotations

import argparse
from typing import Any

from modelscope_fastinst.structures import TASKS
from modelscope_fastinst.version import __version__

_DEFAULT_MODEL = 'default: the embedded model, which finds cell nuclei'


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``modelscope-fastinst``."""
    parser = argparse.ArgumentParser(
        prog='modelscope-fastinst', description='Instance segmentation with FastInst through ModelScope.')
    parser.add_argument('--version', action='version', version=f'modelscope-fastinst {__version__}')
    add_commands(parser)
    return parser


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Adds the commands to a parser; ``modelscope fastinst`` brings one of its own."""
    commands = parser.add_subparsers(dest='fastinst_command', metavar='COMMAND', required=True)
    _add_predict(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_demo(commands)
    _add_info(commands)
    _add_convert(commands)
    _add_publish(commands)
    _add_data(commands)


def _command(commands, name: str, module: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + '.')
    parser.add_argument('--debug', action='store_true', help='show the library log and the traceback of an error')
    parser.set_defaults(function=f'modelscope_fastinst.cli.{module}:{name}')
    return parser


def _add_predict(commands) -> None:
    parser = _command(commands, 'predict', 'predict', 'outline the objects in pictures, or map all of their pixels')
    parser.add_argument('images', nargs='+', metavar='IMAGE_OR_FOLDER', help='picture files, or folders of them')
    parser.add_argument('--model', metavar='DIR_OR_ID', help=f'model folder or ModelScope model id ({_DEFAULT_MODEL})')
    _add_revision(parser)
    parser.add_argument('--output', default='fastinst_out', metavar='DIR',
                        help='where the outlined pictures go (default: %(default)s)')
    parser.add_argument('--json', action='store_true',
                        help='beside each picture, a JSON file with scores, labels, boxes and COCO RLE masks')
    parser.add_argument('--task', choices=('instance', 'semantic', 'panoptic'),
                        help='what to find, if the model can (default: what it was trained for); semantic and panoptic '
                             'maps are written as PNG files too, with a JSON file beside their folder')
    _add_choice(parser)
    parser.add_argument('--color-by', choices=('instance', 'class'), default='instance',
                        help='of instances: give every instance or every class its colour (default: %(default)s)')
    parser.add_argument('--scale', type=_magnification, default=1.0, metavar='X',
                        help='enlarge the outlined pictures this many times; small ones gain from 2 or 3')
    _add_font(parser)
    _add_device(parser)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('which instances', 'Defaults are those of the model.')
    group.add_argument('--score-thr', type=_unit_interval, metavar='S',
                       help='leave out instances and segments below this score, 0..1')
    group.add_argument('--max-instances', type=_count, metavar='N', help='at most this many of a picture, the best')
    group.add_argument('--classes', type=_names, metavar='A,B', help='only these classes')
    group.add_argument('--min-size', type=_count, metavar='PX', help='short side of the input of the network')
    group.add_argument('--max-size', type=_count, metavar='PX', help='longest long side of it')
    group.add_argument('--object-mask-threshold', type=_unit_interval, metavar='S',
                       help='panoptic: queries that are less sure of their class take no part, 0..1')
    group.add_argument('--overlap-threshold', type=_unit_interval, metavar='S',
                       help='panoptic: drop segments that keep less than this share of their mask, 0..1')


def _add_train(commands) -> None:
    parser = _command(commands, 'train', 'train', 'train a model, or fine-tune one on other classes')
    parser.add_argument('--config', metavar='FILE_OR_NAME',
                        help='configuration.json with the recipe, or the name of a published model such as '
                             'fastinst_d3_r50 (default: of the model)')
    parser.add_argument('--model', metavar='DIR_OR_ID',
                        help='model folder or ModelScope model id to start from, or "embedded": the small model of '
                             'this package (default: ImageNet weights if the configuration names some, else random)')
    _add_revision(parser)
    parser.add_argument('--backbone', metavar='FILE',
                        help='ImageNet weights for the backbone of a training without --model: a .pth, .safetensors or '
                             '.pkl file, a name such as ResNet50_Weights.IMAGENET1K_V1, or an https URL whose file '
                             'name carries its hash; none: random weights (default: as the configuration says)')
    data = parser.add_argument_group(
        'data', 'Default: what the dataset section of the configuration names.')
    data.add_argument('--data', metavar='ROOT',
                      help='folder of annotated images: COCO, YOLO, LabelMe, Pascal VOC, or a folder of masks an '
                           'image; with --task panoptic or semantic COCO panoptic, ADE20K, Cityscapes, or label PNGs')
    _add_format(data)
    data.add_argument('--task', choices=tuple(TASKS),
                      help='what the model is to learn (default: what the configuration says, else instance)')
    _add_split_fraction(data, 'where ROOT has no validation split, the share of its images to set aside as one '
                              '(default: 0.2; 0: train on all, without evaluation)')
    _add_label_numbers(data)
    data.add_argument('--train-annotations', metavar='JSON', help='COCO file, instead of --data')
    data.add_argument('--train-images', metavar='DIR')
    data.add_argument('--val-annotations', metavar='JSON', help='to evaluate during the training')
    data.add_argument('--val-images', metavar='DIR')
    data.add_argument('--classes', type=_names, metavar='A,B',
                      help='train these classes only; of label PNGs the names of all, where no classes.txt has them')
    _add_skip_bad(data)
    parser.add_argument('--work-dir', default='work_dir', metavar='DIR',
                        help='where checkpoints and the finished model go (default: %(default)s)')
    parser.add_argument('--resume', nargs='?', const='latest', metavar='CHECKPOINT',
                        help='continue from a checkpoint (without a name: the latest in the work folder, if any)')
    parser.add_argument('--set', action='append', default=[], dest='settings', metavar='KEY=VALUE',
                        help='change a setting of the configuration, as in --set train.max_epochs=3; may be repeated')
    _add_device(parser)


def _add_evaluate(commands) -> None:
    parser = _command(commands, 'evaluate', 'evaluate',
                      'measure a model: COCO average precision, panoptic quality, mean IoU')
    parser.add_argument('--model', metavar='DIR_OR_ID', help=f'model folder or ModelScope model id ({_DEFAULT_MODEL})')
    _add_revision(parser)
    parser.add_argument('--data', metavar='ROOT',
                        help='annotated pictures: COCO, YOLO-seg, LabelMe, Pascal VOC, or one mask file an object; for '
                             'a panoptic or semantic model COCO panoptic, ADE20K, Cityscapes, or label PNGs')
    parser.add_argument('--split', default='val',
                        help='which split of that folder, or "all" of one without splits (default: %(default)s)')
    parser.add_argument('--format', metavar='NAME', help='of the folder (default: what it looks like)')
    parser.add_argument('--val-fraction', type=_unit_interval, metavar='F',
                        help='where the folder has no validation split, the share that "train" set aside as one')
    parser.add_argument('--split-seed', type=int, default=0, metavar='N', help='with it, as for "train"')
    _add_label_numbers(parser)
    _add_skip_bad(parser)
    parser.add_argument('--annotations', metavar='JSON', help='COCO file, instead of --data')
    parser.add_argument('--images', metavar='DIR', help='folder of the pictures that the COCO file names')
    parser.add_argument('--task', type=_tasks, metavar='A,B',
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
    _add_device(parser)


def _add_demo(commands) -> None:
    parser = _command(commands, 'demo', 'demo',
                      'outline the nuclei in a drawn microscope image; needs no file, no network')
    parser.add_argument('--output', default='fastinst_demo', metavar='DIR',
                        help='where the pictures go (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='another number draws another image')
    _add_font(parser)
    _add_device(parser)


def _add_info(commands) -> None:
    parser = _command(commands, 'info', 'info',
                      'say what a model or a configuration is, and which versions are installed')
    parser.add_argument('model', nargs='?', metavar='MODEL_OR_CONFIG',
                        help='model folder, configuration.json, ModelScope model id, or the name of a published model '
                             f'such as fastinst_d3_r50 ({_DEFAULT_MODEL})')
    _add_revision(parser)


def _add_convert(commands) -> None:
    parser = _command(commands, 'convert', 'convert', 'make a model folder from weights of another origin, or back')
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = '''\
Make a model folder from weights of another origin.

Reads weights of FastInst (the authors' .pth files, ModelScope's own model, bare state dicts), of
Mask2Former (the authors' .pkl files, Hugging Face's folders), and ImageNet backbones (torchvision's
ResNets, timm's resnet50d, detectron2's .pkl). What a file is follows from what is in it; nothing
in it is run. Every entry is accounted for, and the folder is run once before it appears.

  modelscope-fastinst convert model_final.pth my_model
  modelscope-fastinst convert my_model for_modelscope --to stock'''
    parser.add_argument('source', metavar='SOURCE', help='weight file, model folder, or ModelScope model id')
    parser.add_argument('target', metavar='TARGET_FOLDER', help='the model folder to make')
    parser.add_argument('--config', metavar='FILE_OR_NAME',
                        help='configuration.json, or the name of a published model such as fastinst_d3_r50 (default: '
                             'of the model folder, or the published model that the weights fit)')
    names = parser.add_mutually_exclusive_group()
    names.add_argument('--classes', type=_names, metavar='A,B', help='names of the classes, if they are not known')
    names.add_argument('--classes-file', metavar='FILE', help='the same from a text file, one name a line')
    parser.add_argument('--task', choices=('instance', 'semantic', 'panoptic'),
                        help='what the weights were trained for, if their files do not say')
    parser.add_argument('--things', type=_names, metavar='A,B', help='for --task panoptic: which classes are things')
    parser.add_argument('--to', choices=('fastinst', 'stock'), default='fastinst',
                        help="stock: the layout that ModelScope's own FastInst reads (default: %(default)s)")
    parser.add_argument('--verbose', action='store_true', help='print what became of every entry')
    parser.add_argument('--overwrite', action='store_true', help='replace the model folder if there is one')
    _add_revision(parser)
    _add_device(parser)


def _add_publish(commands) -> None:
    parser = _command(commands, 'publish', 'publish', "put a model folder on ModelScope's hub, with a model card")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = """\
Put a model folder on ModelScope's hub, so that everybody can name it by its id.

The folder is loaded and run once first. Its README.md is completed into the card that the hub
shows; what you wrote in it stays. Only the files of the model are uploaded, all of them or
none. An access token of the hub is needed: in the environment (MODELSCOPE_API_TOKEN), or
stored by "modelscope login".

  modelscope-fastinst evaluate --model work_dir/output --data my_data --record
  modelscope-fastinst publish work_dir/output --id my-name/nuclei \\
      --license "Apache License 2.0" --example cells.png --dry-run
  modelscope-fastinst publish work_dir/output --id my-name/nuclei \\
      --license "Apache License 2.0" --example cells.png"""
    parser.add_argument('folder', metavar='FOLDER', help='the model folder')
    parser.add_argument('--id', required=True, metavar='OWNER/NAME', help='the id of the model on the hub')
    parser.add_argument('--dry-run', action='store_true',
                        help='check the folder and show what would be uploaded; nothing is sent or written')
    card = parser.add_argument_group('the card')
    card.add_argument('--license', metavar='NAME',
                      help='licence of the weights, as in "Apache License 2.0" (default: what the card says)')
    card.add_argument('--base-model', metavar='OWNER/NAME', help='the model from which this one was fine-tuned')
    card.add_argument('--example', metavar='IMAGE', help='a picture for visitors to try; goes along, without its EXIF')
    card.add_argument('--metrics', metavar='FILE',
                      help='what "evaluate --record FILE" wrote (default: evaluation.json in the folder, if there)')
    hub = parser.add_argument_group('the hub')
    hub.add_argument('--visibility', choices=('private', 'public'),
                     help='who can see a new model (default: private); an existing one stays as it is')
    hub.add_argument('--revision', metavar='BRANCH', help='branch of the model to write to (default: master)')
    hub.add_argument('--message', metavar='TEXT', help='of the commit')
    hub.add_argument('--token', help='access token; safer in MODELSCOPE_API_TOKEN, where no list of processes shows it')
    hub.add_argument('--endpoint', metavar='URL', help="address of another hub (default: ModelScope's)")
    _add_device(parser)


def _add_data(commands) -> None:
    text = 'look for mistakes in a data set, or convert it to COCO'
    group = commands.add_parser('data', help=text, description=text[0].upper() + text[1:] + '.')
    actions = group.add_subparsers(dest='data_command', metavar='ACTION', required=True)
    _add_data_check(actions)
    _add_data_convert(actions)


def _add_data_check(actions) -> None:
    parser = _command(actions, 'check', 'data', 'say what is in a data set and what is wrong with it, and draw samples')
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = """\
Say what is in a data set and what is wrong with it, and draw samples.

Every image is decoded once. Nothing of the data set is changed. The exit status is 1 if there
are errors: what would stop a training, or make the measured AP wrong.

  modelscope-fastinst data check my_data
  modelscope-fastinst data check my_data --config fastinst_d3_r50 --json findings.json --strict"""
    parser.add_argument('root', nargs='?', metavar='ROOT', help='folder of the data set')
    _add_format(parser)
    parser.add_argument('--task', choices=tuple(TASKS),
                        help='what the data are for (default: instance where ROOT holds outlines of objects, else what '
                             'its maps are good for)')
    parser.add_argument('--train-annotations', metavar='JSON', help='COCO file, instead of ROOT')
    parser.add_argument('--train-images', metavar='DIR')
    parser.add_argument('--val-annotations', metavar='JSON')
    parser.add_argument('--val-images', metavar='DIR')
    _add_split_fraction(parser)
    parser.add_argument('--classes', type=_names, metavar='A,B', help='only these classes')
    _add_label_numbers(parser)
    model = parser.add_argument_group('the model that is to be trained', 'Default: 100 queries, 640 to 853 pixels.')
    source = model.add_mutually_exclusive_group()
    source.add_argument('--config', metavar='FILE_OR_NAME',
                        help='configuration.json, or the name of a published model such as fastinst_d3_r50')
    source.add_argument('--model', metavar='DIR_OR_ID', help='model folder or ModelScope model id')
    _add_revision(model)
    model.add_argument('--num-queries', type=_count, metavar='N', help='objects in an image that it can find')
    model.add_argument('--min-size', type=_count, metavar='PX', help='short side of its input')
    model.add_argument('--max-size', type=_count, metavar='PX', help='longest long side of it')
    shown = parser.add_argument_group('what is written')
    shown.add_argument('--output', default='fastinst_check', metavar='DIR',
                       help='where the sheets of samples go (default: %(default)s)')
    shown.add_argument('--samples', type=_whole, default=24, metavar='N',
                       help='images on a sheet, more where it takes them to show every class; 0: no sheets (default: '
                            '%(default)s)')
    shown.add_argument('--seed', type=int, default=0, help='another number draws other samples')
    shown.add_argument('--json', metavar='FILE', help='write everything that was found as JSON')
    shown.add_argument('--strict', action='store_true', help='exit status 1 for warnings too')
    _add_font(shown)


def _add_data_convert(actions) -> None:
    parser = _command(actions, 'convert', 'data', 'write a data set of any known format as COCO')
    parser.add_argument('root', metavar='ROOT', help='folder of the data set')
    parser.add_argument('target', metavar='TARGET_FOLDER', help='the folder to make')
    _add_format(parser)
    parser.add_argument('--split', metavar='NAME', help='only this split (default: all that there are)')
    _add_split_fraction(parser)
    parser.add_argument('--classes', type=_names, metavar='A,B', help='only these classes, in this order')
    _add_skip_bad(parser)
    parser.add_argument('--link', action='store_true', help='hard-link the images where the disk can, to save space')
    parser.add_argument('--overwrite', action='store_true', help='replace the folder, if it is a converted data set')


def _add_skip_bad(parser) -> None:
    parser.add_argument('--skip-bad', action='store_true',
                        help='leave out what cannot be used, and say so; without it, such items are an error')


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--format', choices=('coco', 'yolo', 'labelme', 'voc', 'object-masks', 'ade20k', 'cityscapes',
                                             'coco-panoptic', 'semantic-png'),
                        help='of the data set (default: what it looks like)')


def _add_label_numbers(parser) -> None:
    parser.add_argument('--label-offset', type=_whole, metavar='N',
                        help='of label PNGs, the number of the first class; smaller ones are void (default: 0)')
    parser.add_argument('--void-label', type=_whole, metavar='N',
                        help='of label PNGs, the number of pixels without a class (default: 255)')


def _add_split_fraction(parser: argparse.ArgumentParser, text: str = (
        'take this share of the images for validation, if the data have no validation split')) -> None:
    parser.add_argument('--val-fraction', type=_unit_interval, metavar='F', help=text)
    parser.add_argument('--split-seed', type=int, default=0, metavar='N', help='another number splits differently')


def _add_revision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--revision', metavar='NAME',
                        help='branch, tag or commit of a ModelScope model id (default: master)')


def _add_font(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--font', metavar='FILE',
                        help='TrueType font of the labels; the built-in one draws ASCII only, so names of classes in '
                             'Chinese, for instance, need another')


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--device', help='cpu, gpu, cuda:1, ... (default: the GPU if there is one)')


def _tasks(text: str) -> list[str]:
    tasks = _names(text)
    for task in tasks:
        if task not in TASKS:
            raise argparse.ArgumentTypeError(f'{task!r} is none of {", ".join(TASKS)}')
    return tasks


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(',')]
    if not all(names):
        raise argparse.ArgumentTypeError(f'{text!r}: class names, separated by commas')
    return names


def _number(text: str, kind: type, low: float, high: float, wanted: str) -> Any:
    try:
        number = kind(text)
    except ValueError:
        number = float('nan')
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f'{text!r}: {wanted}')
    return number


def _count(text: str) -> int:
    return _number(text, int, 1, float('inf'), 'a whole number, at least 1')


def _whole(text: str) -> int:
    return _number(text, int, 0, float('inf'), 'a whole number, at least 0')


def _magnification(text: str) -> float:
    return _number(text, float, 0.1, 16, 'a number between 0.1 and 16')


def _unit_interval(text: str) -> float:
    return _number(text, float, 0, 1, 'a number between 0 and 1')
