"""What a published model's card shows: the example, what the model finds in it, and the widget."""
from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from modelscope_fastinst.card_file import front_matter
from modelscope_fastinst.card_widget import earlier_widgets, widget
from modelscope_fastinst.model_card import write_model_card
from modelscope_fastinst.plugin.build import build_segmenter
from modelscope_fastinst.plugin.publishing import publish as publish_folder
from modelscope_fastinst.visualize import draw_instances, draw_panoptic, draw_semantic
from tests.plugin.hub_client import files_of
from tests.plugin.loopback_uploads import commits
from tests.plugin.model_folders import scene, write_map_folder
from tests.plugin.publishing_runs import ID, LICENCE, change_weights, publish


@pytest.fixture
def picture(tmp_path) -> Path:
    Image.fromarray(scene()[:, :, ::-1]).save(tmp_path / 'cells.png')
    return tmp_path / 'cells.png'


def opened(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image).astype(int)


def drawn(task: str, image: np.ndarray, found: dict, classes: list[str]) -> np.ndarray:
    if task == 'panoptic':
        return draw_panoptic(image, found['id_map'], found['segments'], classes=classes)
    if task == 'semantic':
        return draw_semantic(image, found['label_map'], classes)
    return draw_instances(image, found['scores'], found['labels'], found['masks'], found['boxes'], classes=classes)


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
def test_the_card_shows_the_example_and_what_the_model_itself_finds_in_it(task, hub, model, tmp_path, picture):
    folder = model if task == 'instance' else write_map_folder(tmp_path / task, task)
    assert publish(folder, '--example', str(picture)) == 0
    published = files_of(hub.root / 'me' / 'nuclei')
    assert '![a picture](example.jpg) | ![what the model finds in it](example_result.jpg)' \
        in published['README.md'].decode()
    assert (folder / 'example_result.jpg').read_bytes() == published['example_result.jpg']
    segment = build_segmenter(ID, 'cpu')   # the published one
    image = opened(published['example.jpg']).astype(np.uint8)
    found = segment(image[:, :, ::-1], mask_format='rle')
    assert found['labels']
    expected = drawn(task, image, found, segment.model.classes).astype(int)
    error = np.abs(opened(published['example_result.jpg']) - expected).mean()   # of the JPEG
    assert error < np.abs(image - expected).mean() / 4


def test_what_is_found_is_counted_in_the_card_and_told(hub, model, picture, capsys):
    assert publish(model, '--example', str(picture)) == 0
    found = build_segmenter(str(model), 'cpu')(str(model / 'example.jpg'), mask_format='rle')
    label, number = Counter(found['labels']).most_common(1)[0]
    assert number > 1
    assert f'what the model finds in it: {number} `{label}`' in (model / 'README.md').read_text('utf-8')
    assert f'in the example the model finds {number} {label}' in capsys.readouterr().out


def test_a_dry_run_names_the_pictures_and_the_widget_and_writes_nothing(model, picture, capsys):
    before = files_of(model)
    assert publish(model, '--example', str(picture), '--widget', '--dry-run', token=None) == 0
    said = capsys.readouterr().out
    assert files_of(model) == before
    assert {'example.jpg', 'example_result.jpg'} <= {line.split()[0] for line in said.splitlines() if line.strip()}
    shown = yaml.safe_load(said.split('---\n')[1])['widgets']
    assert shown == [widget('image-segmentation', has_example=True, enabled=True)]
    assert 'the widget is on: the hub runs the model' in said


def test_the_same_folder_again_uploads_nothing(hub, model, picture):
    assert publish(model, '--example', str(picture)) == 0
    assert publish(model) == 0
    assert len(commits(hub)) == 1


def test_other_weights_give_another_result(hub, model, picture):
    assert publish(model, '--example', str(picture)) == 0
    change_weights(model)
    assert publish(model) == 0
    assert {'example_result.jpg', 'model.safetensors'} <= set(commits(hub)[-1]['files']) \
        and 'example.jpg' not in commits(hub)[-1]['files']


# the widget

def published_widget(folder: Path, **options) -> dict:
    card = publish_folder(folder, ID, licence=LICENCE, dry_run=True, device='cpu', **options).card
    return front_matter(card, 'README.md')['widgets'][0]


@pytest.mark.parametrize(('options', 'enabled'), [
    pytest.param({}, False, id='off unless asked for'),
    pytest.param({'widget': True}, True, id='asked for'),
])
def test_the_widget_is_shown_where_it_was_asked_for(options, enabled, model, picture):
    assert published_widget(model, example=picture, **options) == widget('image-segmentation', True, enabled)


def test_a_widget_that_is_on_stays_on_and_gets_its_example(model, picture):
    card = publish_folder(model, ID, licence=LICENCE, dry_run=True, device='cpu', widget=True).card
    (model / 'README.md').write_text(card, 'utf-8')
    assert published_widget(model, example=picture) == widget('image-segmentation', True, enabled=True)


@pytest.mark.parametrize('earlier', list(earlier_widgets('image-segmentation')), ids=[
    'off', 'off, with an example', 'on', 'on, with an example', 'without a version', 'without a version, an example'])
def test_a_widget_as_this_package_once_wrote_it_is_brought_up_to_date(earlier, model, picture):
    write_model_card(model, licence=LICENCE)
    card = model / 'README.md'
    front = front_matter(text := card.read_text('utf-8'), 'README.md')
    rest = text[text.index('---\n', 4) + 4:]
    card.write_text(f'---\n{yaml.safe_dump({**front, "widgets": [earlier]}, sort_keys=False)}---\n{rest}', 'utf-8')
    expected = widget('image-segmentation', True, enabled=earlier.get('enable', False))
    assert published_widget(model, example=picture) == expected


def test_somebody_s_own_widget_stays(model, picture):
    own = {'task': 'image-segmentation', 'inputs': [{'type': 'image', 'title': 'Bild'}], 'examples': []}
    (model / 'README.md').write_text(f'---\n{yaml.safe_dump({"license": LICENCE, "widgets": [own]})}---\n# Mine\n',
                                     'utf-8')
    assert published_widget(model, example=picture, widget=True) == own
