"""Where data sets keep their annotation files and images."""
from __future__ import annotations

import os

# {split} as the user names it; the first that exists wins. ModelScope's layout, then COCO's own, then flat ones.
ANNOTATION_FILES = ('annotations/instances_{split}.json', 'annotations/instances_{split}2017.json',
                    'annotations/instances_{split}2014.json', 'instances_{split}.json', 'annotations/{split}.json',
                    '{split}.json')
IMAGE_FOLDERS = ('images/{split}', '{split}', 'images/{split}2017', '{split}2017', 'images/{split}2014', '{split}2014',
                 'images')


def find_coco(root: str | os.PathLike, split: str) -> tuple[str, str]:
    """Finds a split of a COCO data set in ModelScope's or COCO's own folder layout.

    ModelScope: ``annotations/instances_train.json`` with ``images/train``. COCO:
    ``annotations/instances_train2017.json`` with ``train2017``. The same names directly under ``root``, and one
    ``images`` folder for all splits, are found too.

    Args:
        root: the data set's folder.
        split: ``train``, ``val``, ... (or with the year, ``train2017``).

    Returns:
        (annotation file, image folder).

    Raises:
        FileNotFoundError: says what was looked for and what splits there are.
    """
    root = os.fspath(root)
    if not os.path.isdir(root):
        raise FileNotFoundError(f'{root}: no such folder; a COCO data set was expected there')
    annotation_file = _first(root, ANNOTATION_FILES, split, os.path.isfile)
    if annotation_file is None:
        raise FileNotFoundError(f'{root}: no annotation file for the split {split!r}; looked for '
                                f'{_names(ANNOTATION_FILES, split)}.{_present(root)}')
    # A file of one year goes with the images of that year, should several lie side by side.
    years = [year for year in ('2017', '2014') if annotation_file.endswith(f'{split}{year}.json')]
    folders = [folder.replace('{split}', '{split}' + year) for year in years
               for folder in ('images/{split}', '{split}')] + list(IMAGE_FOLDERS)
    image_dir = _first(root, folders, split, os.path.isdir)
    if image_dir is None:
        raise FileNotFoundError(f'{root}: {os.path.relpath(annotation_file, root)} is there, but no folder with its '
                                f'images; looked for {_names(IMAGE_FOLDERS, split)}')
    return annotation_file, image_dir


def _first(root: str, patterns, split: str, exists) -> str | None:
    paths = (os.path.join(root, *pattern.format(split=split).split('/')) for pattern in patterns)
    return next((path for path in paths if exists(path)), None)


def _names(patterns, split: str) -> str:
    return ', '.join(pattern.format(split=split) for pattern in patterns)


def _present(root: str) -> str:
    found = [os.path.join(folder, name) for folder in ('', 'annotations') if os.path.isdir(os.path.join(root, folder))
             for name in sorted(os.listdir(os.path.join(root, folder))) if name.endswith('.json')]
    return f' There are {", ".join(found[:10])}' if found else ' There are no .json files at all'
