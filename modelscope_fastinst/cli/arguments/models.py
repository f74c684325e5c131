"""What can be typed after the commands about model folders."""
from __future__ import annotations

import argparse

from modelscope_fastinst.cli.arguments.options import DEFAULT_MODEL, add_device, add_revision, command, names


def add_info(commands) -> None:
    parser = command(commands, 'info', 'info',
                     'say what a model or a configuration is, and which versions are installed')
    parser.add_argument('model', nargs='?', metavar='MODEL_OR_CONFIG',
                        help='model folder, configuration.json, ModelScope model id, or the name of a published model '
                             f'such as fastinst_d3_r50 ({DEFAULT_MODEL})')
    add_revision(parser)


def add_convert(commands) -> None:
    parser = command(commands, 'convert', 'convert', 'make a model folder from weights of another origin, or back')
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
    listed = parser.add_mutually_exclusive_group()
    listed.add_argument('--classes', type=names, metavar='A,B', help='names of the classes, if they are not known')
    listed.add_argument('--classes-file', metavar='FILE', help='the same from a text file, one name a line')
    parser.add_argument('--task', choices=('instance', 'semantic', 'panoptic'),
                        help='what the weights were trained for, if their files do not say')
    parser.add_argument('--things', type=names, metavar='A,B', help='for --task panoptic: which classes are things')
    parser.add_argument('--to', choices=('fastinst', 'stock'), default='fastinst',
                        help="stock: the layout that ModelScope's own FastInst reads (default: %(default)s)")
    parser.add_argument('--verbose', action='store_true', help='print what became of every entry')
    parser.add_argument('--overwrite', action='store_true', help='replace the model folder if there is one')
    add_revision(parser)
    add_device(parser)


def add_publish(commands) -> None:
    parser = command(commands, 'publish', 'publish', "put a model folder on ModelScope's hub, with a model card")
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
    card.add_argument('--example', metavar='IMAGE',
                      help='a picture for visitors to try; goes along, without its EXIF, and the card shows it beside '
                           'what the model finds in it')
    card.add_argument('--widget', action='store_true',
                      help="turn on the box on the model's page in which visitors try a picture; the hub runs the "
                           'model for it on machines of its own (default: described in the card, but off)')
    card.add_argument('--metrics', metavar='FILE',
                      help='what "evaluate --record FILE" wrote (default: evaluation.json in the folder, if there)')
    hub = parser.add_argument_group('the hub')
    hub.add_argument('--visibility', choices=('private', 'public'),
                     help='who can see a new model (default: private); an existing one stays as it is')
    hub.add_argument('--revision', metavar='BRANCH', help='branch of the model to write to (default: master)')
    hub.add_argument('--message', metavar='TEXT', help='of the commit')
    hub.add_argument('--token', help='access token; safer in MODELSCOPE_API_TOKEN, where no list of processes shows it')
    hub.add_argument('--endpoint', metavar='URL', help="address of another hub (default: ModelScope's)")
    add_device(parser)
