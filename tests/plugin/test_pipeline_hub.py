"""A model of a hub by its id: ``pipeline('image-segmentation', model='damo/...')``, against a hub on the loopback."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from modelscope.models import Model
from modelscope.pipelines import pipeline
from modelscope.preprocessors import Preprocessor
from modelscope.trainers import build_trainer
from PIL import Image

import modelscope_fastinst  # noqa: F401
from modelscope_fastinst.cli import main
from modelscope_fastinst.plugin.hub import HubError, model_directory
from tests.plugin.hub_client import client_of
from tests.plugin.loopback_hub import serve
from tests.plugin.model_folders import assert_same, scene, write_stock_folder
from tests.plugin.trainer_runs import shapes

MODEL = 'damo/cv_resnet50_fast-instance-segmentation_coco'
OWN_MODEL = 'somebody/nuclei'   # a name that does not say what it is
OPTIONS = {'device': 'cpu', 'mask_format': 'rle', 'min_size': 128, 'max_size': 160, 'score_thr': 0.2}

PROGRAM = '''
import json, sys
{}
segment = pipeline('image-segmentation', model=sys.argv[1], **json.loads(sys.argv[3]))
print(json.dumps([type(segment).__module__, segment(sys.argv[2])]))
'''
OURS_FIRST = 'import modelscope_fastinst\nfrom modelscope.pipelines import pipeline'
MODELSCOPE_FIRST = 'from modelscope.pipelines import pipeline\nimport modelscope_fastinst'


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """What lies behind the hub: the published model in its stock form, golden weights in it, under two ids."""
    root = tmp_path_factory.mktemp('models')
    write_stock_folder(root / MODEL)
    write_stock_folder(root / OWN_MODEL)
    return root


@pytest.fixture(scope='module')
def expected(root):
    """What the folder behind the ids finds in the golden scene."""
    return pipeline('image-segmentation', model=str(root / MODEL), **OPTIONS)(scene())


@pytest.fixture
def hub(root, tmp_path):
    with serve(root) as hub, client_of(hub, tmp_path / 'cache'):
        yield hub


def test_a_fresh_process_downloads_and_the_next_runs_with_the_hub_switched_off(root, expected, tmp_path):
    image = str(tmp_path / 'image.png')
    Image.fromarray(scene()[:, :, ::-1].copy()).save(image)

    def run(imports, hub):
        done = subprocess.run([sys.executable, '-c', PROGRAM.format(imports), MODEL, image, json.dumps(OPTIONS)],
                              text=True, capture_output=True, env={**os.environ, **hub.environment(tmp_path / 'cache')})
        assert done.returncode == 0, done.stderr
        module, result = json.loads(done.stdout.splitlines()[-1])
        assert module == 'modelscope_fastinst.plugin.pipeline'
        assert len(result['scores']) > 3 and result['labels'] == expected['labels']
        assert result['scores'] == pytest.approx(expected['scores'], abs=1e-4)

    with serve(root) as hub:
        run(MODELSCOPE_FIRST, hub)
        assert any('pytorch_model.pt' in request for request in hub.requests)
    run(OURS_FIRST, hub)   # nobody listens there any more


@pytest.mark.parametrize('model', [pytest.param(MODEL, id='published'), pytest.param(OWN_MODEL, id='of a user')])
def test_the_second_pipeline_asks_the_hub_nothing(hub, expected, model):
    assert_same(pipeline('image-segmentation', model=model, **OPTIONS)(scene()), expected)
    folder = model_directory(model)   # complete: the pipeline's download was verified
    hub.requests.clear()
    segment = pipeline('image-segmentation', model=model, **OPTIONS)
    assert_same(segment(scene()), expected)
    assert segment.model.model_dir == folder
    assert hub.requests == []


def test_a_model_and_a_preprocessor_from_an_id_ask_nothing_either(hub):
    model_directory(MODEL)
    hub.requests.clear()
    assert type(Model.from_pretrained(MODEL)).__module__ == 'modelscope_fastinst.plugin.model'
    preprocessor = Preprocessor.from_pretrained(MODEL, type='fastinst-preprocessor')   # the stock file names none
    assert type(preprocessor).__module__ == 'modelscope_fastinst.plugin.preprocessor'
    assert hub.requests == []


def test_a_model_from_an_id_that_is_not_in_the_cache(hub):
    assert type(Model.from_pretrained(MODEL)).__module__ == 'modelscope_fastinst.plugin.model'
    hub.requests.clear()
    model_directory(MODEL)
    assert hub.requests == []


def test_a_pinned_revision_is_that_one_and_the_second_time_without_the_hub(hub, root):
    things = [f'thing {number}' for number in range(10)]
    write_stock_folder(root / f'{MODEL}@v1.0', classes=things)
    model_directory(MODEL)   # another revision in the cache does not matter
    for _ in range(2):
        segment = pipeline('image-segmentation', model=MODEL, model_revision='v1.0', **OPTIONS)
        assert segment.model.model_dir == model_directory(MODEL, 'v1.0')
        found = segment(scene())
        assert found['labels'] and set(found['labels']) <= set(things)
        asked, hub.requests[:] = list(hub.requests), []
    assert asked == []


def test_a_published_model_that_is_not_in_the_cache_says_so_at_once_without_network(root, tmp_path):
    with serve(root) as hub, client_of(hub, tmp_path / 'cache'):
        pass
    with client_of(hub, tmp_path / 'cache'), pytest.raises(HubError, match='run "modelscope download --model damo/'):
        pipeline('image-segmentation', model=MODEL, **OPTIONS)


def test_a_download_that_was_cut_is_no_model_for_the_pipeline(hub, expected, monkeypatch):
    import modelscope_hub._download
    monkeypatch.setattr(modelscope_hub._download, 'DOWNLOAD_RETRY_TIMES', 0)
    hub.faults['pytorch_model.pt'] = 'cut'
    for _ in range(2):
        with pytest.raises(HubError, match='could not be downloaded .* start again'):
            pipeline('image-segmentation', model=OWN_MODEL, **OPTIONS)
    hub.faults.clear()
    assert_same(pipeline('image-segmentation', model=OWN_MODEL, **OPTIONS)(scene()), expected)


def test_predict_and_info_take_an_id(hub, tmp_path, capsys):
    image = tmp_path / 'image.png'
    Image.fromarray(scene()[:, :, ::-1].copy()).save(image)
    predict = ['predict', str(image), '--model', MODEL, '--device', 'cpu', '--output', str(tmp_path / 'out'),
               '--min-size', '128', '--max-size', '160']
    assert main(predict) == 0
    assert (tmp_path / 'out' / 'image.png').is_file()
    hub.requests.clear()
    assert main(predict) == main(['info', MODEL]) == 0
    assert hub.requests == []
    assert 'pytorch_model.pt' in capsys.readouterr().out


@pytest.mark.parametrize('command', [
    pytest.param(['predict', 'image.png'], id='predict'),
    pytest.param(['evaluate', '--data', '.', '--split', 'all'], id='evaluate'),
    pytest.param(['train', '--data', '.'], id='train'),
    pytest.param(['info'], id='info'),
])
def test_every_command_takes_an_id_and_its_revision(hub, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(scene()).save('image.png')
    Path('data.json').write_text('{"images": [], "annotations": [], "categories": []}', 'utf-8')
    model = [MODEL] if command == ['info'] else ['--model', MODEL]
    assert main([*command, *model, '--revision', 'v9']) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith(f"error: {MODEL}: the hub {hub.address} has no revision 'v9' of it; it has master")


@pytest.mark.parametrize('model, message', [
    pytest.param([], 'goes with a model id of the form owner/name; no model is given', id='embedded model'),
    pytest.param(['--model', '.'], 'goes with a model id of the form owner/name; . is a folder or not of', id='folder'),
])
def test_only_an_id_has_revisions(tmp_path, monkeypatch, capsys, model, message):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(scene()).save('image.png')
    assert main(['predict', 'image.png', '--revision', 'v9', *model]) == 1
    assert message in capsys.readouterr().err


def test_a_trainer_starts_from_an_id_and_the_next_asks_nothing(hub, tmp_path):
    def build(**arguments):
        return build_trainer('fastinst-trainer', default_args={
            **arguments, 'model': MODEL, 'train_dataset': shapes(2), 'work_dir': str(tmp_path / 'work'),
            'device': 'cpu', 'max_epochs': 1, 'cfg_options': {
                'train': {'dataloader': {'batch_size_per_gpu': 2, 'workers_per_gpu': 0},
                          'optimizer': {'type': 'AdamW', 'lr': 1e-4}},
                'preprocessor.train': {'min_sizes': [64], 'max_size': 64}}})

    assert build().model_dir == model_directory(MODEL)
    hub.requests.clear()
    trainer = build()
    trainer.train()
    assert hub.requests == []
    assert trainer.model_dir == model_directory(MODEL)
    assert (tmp_path / 'work' / 'output' / 'model.safetensors').is_file()

    hub.requests.clear()
    with pytest.raises(HubError, match="has no revision 'v9'"):
        build(model_revision='v9')
