"""A studio folder: what ModelScope's hub takes, and runs as a studio (ModelScope's docs: "Studio Card", "Quick Creation
and Deployment").

It holds the sources of this package, so that it needs no release of it, and the requirements of this installation.
"""
from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from modelscope_fastinst.checkpoints import find_weights

PACKAGE = 'modelscope_fastinst'
DISTRIBUTION = 'modelscope-fastinst'
# What the hub is asked for; `modelscope studio base-images`, `sdk-versions` and `hardware` list what it has.
DEPLOYMENT = {
    '$schema': 'https://modelscope.cn/api/v1/studios/deploy_schema.json',
    'sdk_type': 'gradio',
    'sdk_version': '6.2.0',
    'resource_configuration': 'platform/2v-cpu-16g-mem',
    'base_image': 'ubuntu22.04-py311-torch2.9.1-modelscope1.35.0',
}
APP = '''"""The studio as ModelScope's hub runs it; on a machine of your own: modelscope-fastinst studio."""
from pathlib import Path

from modelscope_fastinst.studio.hosted import run

if __name__ == '__main__':
    run(Path(__file__).resolve().parent{models})
'''
TEXT = """
# FastInst Studio

Instance, panoptic and semantic segmentation of pictures and videos: upload one, move the sliders, click an object,
download outlines, masks and COCO JSON. In English and Chinese.

实例、全景与语义分割：上传图片或视频，调整阈值，点击物体，下载叠加图、掩码和 COCO JSON。界面支持中文和英文。

{models}

On a machine of your own: `pip install -r requirements.txt`, then `python app.py`.
"""
# Of a model folder: what it is loaded from, and what is said of it.
_MODEL_FILES = ('configuration.json', 'config.json', 'preprocessor_config.json', 'README.md', 'LICENSE', 'LICENSE.txt',
                'LICENSE.md', 'NOTICE')


class StudioFolderError(ValueError):
    """A studio folder that is not written; the message says why."""


def write_studio_folder(target: str | os.PathLike, models: Sequence[str] = ()) -> list[str]:
    """Writes a folder that can be uploaded to the hub as it stands; all of it or nothing.

    Args:
        target: a folder that is not there yet, or is empty.
        models: what visitors may choose from, the first loaded at the start: model folders, which go along, and ids of
            the hub, which the studio downloads when it starts. None for the embedded model.

    Returns:
        What lies in it: app.py, README.md with the hub's front matter, requirements.txt, ms_deploy.json, the sources of
        this package, and the folders of models.

    Raises:
        StudioFolderError: a model that is neither a folder nor of the form of an id; this package was copied instead of
            installed, so that its requirements are not known.
        FileExistsError: there is something at ``target``.
        CheckpointError: a model folder without weights.
        OSError: the folder cannot be written.
    """
    from modelscope_fastinst.plugin.new_folder import new_folder
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f'{target}: is there already; give another folder')
    requirements = _requirements()
    folders, ids = _sorted_out(models)
    named = [*(folders.get(model, model) for model in models)]
    with new_folder(target) as folder:
        (folder / 'app.py').write_text(app(named), 'utf-8')
        (folder / 'README.md').write_text(card(ids, [Path(name).name for name in folders.values()]), 'utf-8')
        (folder / 'requirements.txt').write_text('\n'.join(requirements) + '\n', 'utf-8')
        (folder / 'ms_deploy.json').write_text(deployment(), 'utf-8')
        _copy_package(folder)
        for source, name in folders.items():
            _copy_model(Path(source), folder / name)
    return sorted(f'{path.name}/' if path.is_dir() else path.name for path in target.iterdir())


def app(models: Sequence[str] = ()) -> str:
    """The text of app.py."""
    return APP.replace('{models}', f', {list(models)!r}' if models else '')


def deployment() -> str:
    """The text of ms_deploy.json."""
    return json.dumps(DEPLOYMENT, indent=2) + '\n'


def front_matter(models: Sequence[str] = ()) -> dict[str, object]:
    """What the hub reads at the top of a studio's README.md.

    Args:
        models: ids of the hub's models that the studio shows.
    """
    return {'domain': ['cv'], 'tags': ['instance segmentation', 'panoptic segmentation', 'FastInst', 'Mask2Former'],
            'models': list(models), 'datasets': {'evaluation': [], 'test': [], 'train': []},
            'deployspec': {'entry_file': 'app.py'}, 'license': 'Apache License 2.0'}


def card(ids: Sequence[str] = (), folders: Sequence[str] = ()) -> str:
    """The text of README.md."""
    import yaml
    shown = [f'[{name}](https://modelscope.cn/models/{name})' for name in ids] + [f'`{name}`' for name in folders]
    models = f'Models: {", ".join(shown)}.' if shown else 'Model: the one that modelscope-fastinst carries along.'
    return (f'---\n{yaml.safe_dump(front_matter(ids), sort_keys=False, allow_unicode=True)}---\n'
            + TEXT.replace('{models}', models))


def _sorted_out(models: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Where folders of models go in the studio folder, by what was asked for; and the ids."""
    from modelscope_fastinst.plugin.hub import has_form_of_id
    folders: dict[str, str] = {}
    ids = []
    for model in models:
        if Path(model).is_dir():
            base = re.sub(r'[^\w.-]', '_', Path(model).resolve().name).lstrip('.') or 'model'
            name, number = f'models/{base}', 1
            while name in folders.values():
                number += 1
                name = f'models/{base}_{number}'
            folders[model] = name
        elif has_form_of_id(model):
            ids.append(model)
        else:
            raise StudioFolderError(f'{model}: no such folder, and no model id of the form owner/name')
    return folders, ids


def _requirements() -> list[str]:
    """Those of the installed package and of its extra ``demo``."""
    try:
        known = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        raise StudioFolderError(f'the requirements of {DISTRIBUTION} are not known, for it is not installed; install '
                                'it first, with pip') from None
    split = [requirement.partition(';') for requirement in known]
    plain = [name.strip() for name, _, condition in split if 'extra' not in condition]
    demo = [name.strip() for name, _, condition in split if re.search(r'extra\s*==\s*["\']demo["\']', condition)]
    if not demo:
        raise StudioFolderError(f'the {DISTRIBUTION} that is installed has no extra "demo"; install it again')
    return plain + demo


def _copy_package(folder: Path) -> None:
    from modelscope_fastinst import zoo
    here = Path(zoo.__file__).parent
    unwanted = shutil.ignore_patterns('__pycache__', '*.py[cod]', '.*')
    shutil.copytree(here, folder / PACKAGE, ignore=unwanted)
    configurations = zoo.configuration_file(zoo.NAMES[0]).parent
    if configurations.parent != here:
        (folder / PACKAGE / 'configs').mkdir()
        for file in sorted(configurations.glob('*.json')):
            shutil.copyfile(file, folder / PACKAGE / 'configs' / file.name)
    licence = here.parent / 'LICENSE'
    text = licence.read_text('utf-8') if licence.is_file() else (
        metadata.distribution(DISTRIBUTION).read_text('licenses/LICENSE'))
    if text:
        (folder / 'LICENSE').write_text(text, 'utf-8')


def _copy_model(source: Path, target: Path) -> None:
    weights = find_weights(source)
    names = {weights.name, *_MODEL_FILES}
    if weights.suffix == '.json':   # an index of several files
        names |= {Path(name).name for name in json.loads(weights.read_text('utf-8'))['weight_map'].values()}
    target.mkdir(parents=True)
    for name in sorted(names):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
