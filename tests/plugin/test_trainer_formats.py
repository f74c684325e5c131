"""A training runs on data of every format, as the labelling tool left it."""
from __future__ import annotations

import json
import math

import pytest

from modelscope_fastinst.cli import main
from modelscope_fastinst.data.formats import table_source
from modelscope_fastinst.plugin.dataset import FastInstDataset
from modelscope_fastinst.plugin.trainer_keys import ConfigurationError
from tests.data.formats.tool_files import (
    mask_pictures,
    polygon_pictures,
    write_coco_file,
    write_labelme,
    write_object_masks,
    write_voc,
    write_yolo,
)

from .test_dataset import table
from .trainer_runs import log_lines, trainer_for, write_configuration

TWO_STEPS = {'train.max_epochs': None, 'train.max_iters': 2, 'train.lr_scheduler.options.warmup.warmup_iters': 1}


def assert_trained(folder, classes):
    losses = [record['loss'] for record in log_lines(folder)]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    configuration = json.loads((folder / 'work' / 'output' / 'configuration.json').read_text('utf-8'))
    assert configuration['model']['classes'] == classes


@pytest.mark.parametrize('write, draw', [
    pytest.param(write_coco_file, polygon_pictures, id='coco'),
    pytest.param(write_yolo, polygon_pictures, id='yolo'),
    pytest.param(write_labelme, polygon_pictures, id='labelme'),
    pytest.param(write_voc, mask_pictures, id='voc'),
    pytest.param(write_object_masks, mask_pictures, id='object-masks'),
])
def test_a_training_from_a_folder(tmp_path, write, draw):
    write(tmp_path / 'data', draw(5))
    options = {'root': str(tmp_path / 'data'), 'val_fraction': 0.2}
    trainer = trainer_for(tmp_path, TWO_STEPS, train_dataset=options, eval_dataset=options)
    trainer.train()
    assert_trained(tmp_path, ['fig', 'nut'])
    assert len(trainer.train_dataset) == 4 and len(trainer.eval_dataset) == 1


def test_a_training_from_the_section_of_the_configuration(tmp_path):
    write_labelme(tmp_path / 'data', polygon_pictures(4))
    section = {'root': str(tmp_path / 'data'), 'format': 'labelme', 'val_fraction': 0.25, 'split_seed': 1}
    trainer = trainer_for(tmp_path, {**TWO_STEPS, 'dataset.train': section, 'dataset.val': section}, train_dataset=None)
    trainer.train()
    assert_trained(tmp_path, ['fig', 'nut'])
    assert len(trainer.train_dataset) == 3 and len(trainer.eval_dataset) == 1


def test_a_training_from_a_table(tmp_path):
    """With worker processes, to which the table goes."""
    assert table_source(table(4)).open_image is not None
    trainer_for(tmp_path, {**TWO_STEPS, 'train.dataloader.workers_per_gpu': 1}, train_dataset=table(4),
                eval_dataset={'table': table(2)}).train()
    assert_trained(tmp_path, ['ellipse', 'rectangle'])


def arguments(tmp_path, *more):
    config = write_configuration(tmp_path, {**TWO_STEPS, 'evaluation.period': {'interval': 1}})
    return ['train', '--config', config, '--data', str(tmp_path / 'data'), '--work-dir', str(tmp_path / 'work'),
            '--device', 'cpu', *more]


def test_the_command_line_sets_images_aside_and_says_so(tmp_path, capsys):
    write_labelme(tmp_path / 'data', polygon_pictures(5))
    assert main(arguments(tmp_path)) == 0
    said = (f'{tmp_path / "data"} has no validation split: 0.2 of the images are set aside for it, chosen by '
            '--split-seed 0; --val-fraction changes that, --val-fraction 0 trains on all of them')
    assert said in capsys.readouterr().out.splitlines()
    assert_trained(tmp_path, ['fig', 'nut'])
    assert len(log_lines(tmp_path, 'eval')) == 1


@pytest.mark.parametrize('splits, more, said', [
    pytest.param(['train', 'val'], ['--val-fraction', '0.5'], '--val-fraction 0.5 is not used', id='splits of its own'),
    pytest.param(['train'], ['--val-fraction', '0'], 'no evaluation during the training', id='no validation wanted'),
    pytest.param([None], ['--format', 'labelme', '--val-fraction', '0.4'], '0.4 of the images are set aside',
                 id='another share'),
])
def test_choices_of_the_command_line(tmp_path, capsys, splits, more, said):
    from modelscope_fastinst.cli.arguments import build_parser
    from modelscope_fastinst.cli.train import _data
    for number, split in enumerate(splits):
        write_labelme(tmp_path / 'data', polygon_pictures(2, seed=number), split)
    training, validation = _data(build_parser().parse_args(arguments(tmp_path, *more)), None, {})
    assert said in capsys.readouterr().out
    root = str(tmp_path / 'data')
    assert training['root'] == root and training['split'] == 'train'
    if said.startswith('no evaluation'):
        assert validation is None and 'val_fraction' not in training
    elif splits == [None]:
        assert training | {'split': 'val'} == validation == {
            'root': root, 'split': 'val', 'format': 'labelme', 'val_fraction': 0.4, 'split_seed': 0}
    else:
        assert validation == {'root': root, 'split': 'val'}


@pytest.mark.parametrize('more, message', [
    pytest.param(['--val-fraction', '1'], '--val-fraction 1 leaves no image to train on', id='all of it'),
    pytest.param(['--format', 'voc'], 'no folder SegmentationObject', id='another format'),
])
def test_wrong_choices_of_the_command_line(tmp_path, capsys, more, message):
    write_labelme(tmp_path / 'data', polygon_pictures(2))
    assert main(arguments(tmp_path, *more)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'work').exists()


def evaluated(root, classes, **options):
    return FastInstDataset(mode='eval', root=str(root), classes=classes, **options)


def test_evaluation_data_of_other_classes_are_refused(tmp_path):
    write_labelme(tmp_path, polygon_pictures(2))
    message = r"objects are of \['fig', 'nut'\], none of the classes of the model, \['cat'\]"
    with pytest.raises(ConfigurationError, match=message):
        evaluated(tmp_path, ['cat'])


def test_evaluation_data_may_lack_classes_and_have_further_ones(tmp_path, caplog):
    write_labelme(tmp_path, polygon_pictures(2))
    data = evaluated(tmp_path, ['cat', 'nut'])
    assert data.classes == ['cat', 'nut']
    assert {one['category_id'] for sample in data for one in sample.annotations} == {1}
    assert "objects of ['fig'] do not count" in caplog.text


@pytest.mark.parametrize('words, message', [
    pytest.param([], 'has no validation split: --val-fraction 0.2 measures on the images that "train" sets aside, '
                     '--split all on all of them', id='undivided data'),
    pytest.param(['--split', 'all'], 'none of the classes of the model', id='all of it'),
])
def test_which_images_are_measured_is_said(tmp_path, capsys, words, message):
    write_labelme(tmp_path / 'data', polygon_pictures(2))
    assert main(['evaluate', '--data', str(tmp_path / 'data'), *words]) == 1
    assert message in capsys.readouterr().err


def test_all_of_divided_data_is_refused(tmp_path, capsys):
    for split in ('train', 'val'):
        write_coco_file(tmp_path / 'data', polygon_pictures(2), split)
    assert main(['evaluate', '--data', str(tmp_path / 'data'), '--split', 'all']) == 1
    assert 'has the splits train, val; name one of them' in capsys.readouterr().err
