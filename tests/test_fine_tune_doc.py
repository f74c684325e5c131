"""docs/fine-tune.md: what it says to type is typed, in its order, on a folder of LabelMe files."""
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from PIL import Image

from modelscope_fastinst.data.shapes import ShapesDataset
from tests.data.formats.tool_files import Picture, labelme_content
from tests.plugin.loopback_hub import serve
from tests.plugin.loopback_uploads import TOKEN, UploadHandler, commits

ROOT = Path(__file__).resolve().parents[1]
DOC = ROOT / 'docs' / 'fine-tune.md'


def blocks() -> list[tuple[str, str]]:
    """(language, text) of what the page shows as code."""
    return re.findall(r'^```(\w+)\n(.*?)^```$', DOC.read_text('utf-8'), re.MULTILINE | re.DOTALL)


def write_photographs(folder: Path, count: int = 24) -> None:
    """Drawn shapes as JPEGs, outlined as a person would in LabelMe."""
    folder.mkdir()
    shapes = ShapesDataset(count, (96, 128), num_classes=2, seed=3, objects=(2, 4), radius=(0.15, 0.25))
    for index in range(count):
        image, labels, masks = shapes.draw(index)
        picture = Picture(f'IMG_{index + 1:04d}.jpg', image)
        for label, mask in zip(labels, masks, strict=True):
            contours, _ = cv2.findContours(mask.astype('uint8'), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            outline = max(contours, key=len).reshape(-1, 2) + 0.5
            if len(outline) >= 3:
                picture.objects.append((shapes.classes[label], outline.ravel().tolist()))
        Image.fromarray(image).save(folder / picture.name, quality=90)
        (folder / picture.name).with_suffix('.json').write_text(json.dumps(labelme_content(picture)), 'utf-8')


@pytest.mark.slow
def test_the_page_as_written(tmp_path):
    write_photographs(tmp_path / 'photos')
    (tmp_path / 'hub').mkdir()
    with serve(tmp_path / 'hub', UploadHandler) as hub:
        places = os.pathsep.join((str(Path(sys.executable).parent), os.environ['PATH']))
        environment = {**os.environ, **hub.environment(tmp_path / 'cache'), 'MODELSCOPE_API_TOKEN': TOKEN,
                       'PATH': places, 'OMP_NUM_THREADS': '1'}
        for language, text in blocks():
            command = ['bash', '-e', '-c', text] if language == 'bash' else [sys.executable, '-c', text]
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
            assert done.returncode == 0, f'{text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
        assert [commit['model'] for commit in commits(hub)] == ['my-name/my-photos']
        assert (hub.root / 'my-name' / 'my-photos' / 'model.safetensors').is_file()
    for name in ('output/configuration.json', 'output_raw/model.safetensors', 'evaluation/confusion_matrix.png',
                 'evaluation/worst', 'curves.png', 'log.csv', 'log.jsonl', 'epoch_30_trainer_state.pth'):
        assert (tmp_path / 'work_dir' / name).exists(), name
    configuration = json.loads((tmp_path / 'work_dir' / 'output' / 'configuration.json').read_text('utf-8'))
    assert set(configuration['postprocessor']['score_thr']) == set(configuration['model']['classes'])
    assert sorted(file.name for file in (tmp_path / 'checked').iterdir()) == ['samples_all.png']


@pytest.mark.parametrize('mark', ['data check', 'data convert', 'train --model', 'torchrun', '--resume', 'evaluate',
                                  'predict', 'publish', 'pipeline(', 'build_trainer('])
def test_the_page_shows_every_step(mark):
    assert any(mark in text for language, text in blocks() if language in ('bash', 'python'))


def test_the_page_names_only_settings_that_there_are():
    from modelscope_fastinst.plugin.trainer_keys import ConfigurationError, check_keys
    settings = re.findall(r'`((?:train|preprocessor|evaluation)\.[\w.]+)=', DOC.read_text('utf-8'))
    assert len(settings) > 8
    for setting in settings:
        section: dict = {}
        place = section
        *path, key = setting.split('.')
        for name in path:
            place = place.setdefault(name, {})
        place[key] = None
        check_keys(section, setting)
    with pytest.raises(ConfigurationError):
        check_keys({'train': {'no_such_key': 1}}, 'x')
