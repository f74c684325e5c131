"""Which font has a character: so that a class name in any script is drawn as what it is, in every picture.

Characters are looked for in the font that Pillow has built in (Latin), in the one that this package brings (Chinese,
Japanese; ``assets/fonts``), in Matplotlib's DejaVu Sans (Greek, Cyrillic, Arabic, Hebrew, symbols, some emoji), and
then in the fonts of the system.
"""
from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

logger = logging.getLogger('modelscope_fastinst')

CJK = str(Path(__file__).parent / 'assets' / 'fonts' / 'cjk.ttf')
CJK_FAMILY = 'FastInst CJK'
JOINERS = '\u200c\u200d'   # say whether letters of Arabic and Indian scripts join
BUILT_IN = ''   # stands for Pillow's own font, which is no file
_PROBE = 20   # pixels: the size at which fonts are asked what they have
# Of a block of 256 characters, after so many that no font has, the others are not looked for: a hostile name would
# otherwise open every font for every character.
_PATIENCE = 12
_CONSIDERED = 600   # characters of a label; a line in a picture has room for fewer
_LOOKALIKES = {'\u3008': '\u27e8', '\u3009': '\u27e9'}   # angle brackets
_absent: dict[int, int] = {}
_warned = False


def as_line(text: Any) -> str:
    """A label as one line of characters that can be drawn: line breaks, tabs and control characters become blanks;
    invisible ones, such as those that turn the direction of writing, are left out."""
    found: list[str] = []
    marks = 0
    for character in unicodedata.normalize('NFC', str(text)[:_CONSIDERED].encode('utf-16', 'replace').decode('utf-16')):
        kind = unicodedata.category(character)
        # of accents piled up on one letter, two
        marks = marks + 1 if kind in ('Mn', 'Me') else 0
        if kind in ('Cc', 'Zs', 'Zl', 'Zp'):
            found.append(' ')
        elif (kind != 'Cf' or character in JOINERS) and not _is_variant(character) and marks <= 2:
            found.append(character)
    return ' '.join(''.join(found).split())


def font_for(character: str) -> str | None:
    """The file of the first font that has a character, `BUILT_IN` for Pillow's own; None where there is none."""
    if character.isascii() and character.isprintable():
        return BUILT_IN
    return _search(character)


def brought_along(character: str) -> str | None:
    """The file of the first font with a character of those that every installation has; see `font_for`."""
    return next((file for file in (BUILT_IN, CJK, _dejavu()) if has(file, character)), None)


def spelled(character: str) -> str:
    """A character, or where no font has it what Unicode says it stands for, such as ``(1)`` for a parenthesized one."""
    if font_for(character) is None:
        other = _LOOKALIKES.get(character) or unicodedata.normalize('NFKC', character)
        if all(font_for(part) is not None for part in other):
            return other
    return character


@lru_cache(maxsize=256)
def face(file: str, size: int) -> Any:
    """Pillow's font of a file, or of `BUILT_IN`, at a size in pixels.

    Raises:
        ValueError: no font file.
    """
    from PIL import ImageFont
    if file == BUILT_IN:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(file, size)
    except OSError as error:
        raise ValueError(f'{file}: is no font file that can be read ({error})') from error


@lru_cache(maxsize=65536)
def has(file: str, character: str) -> bool:
    """Whether a font has a character: what it draws for it is not what it draws for one that no font has."""
    try:
        mask, offset = face(file, _PROBE).getmask2(character)
    except ValueError:   # Raqm, for an invisible character in a font that has neither it nor a blank to put for it
        return False
    return (bytes(mask), mask.size, offset) != _blank(file)


def warn_of(characters: Iterable[str]) -> None:
    """Warns, once in a process, of characters that no font has."""
    global _warned
    missing = ''.join(sorted(set(characters)))
    if missing and not _warned:
        _warned = True
        logger.warning(f'no font on this machine has {missing[:20]!r} of the labels; name a font file that has '
                       '(font= of draw_instances, --font of the command line)')


@contextmanager
def matplotlib_fonts(texts: Iterable[str] = ()) -> Iterator[None]:
    """While it lasts, Matplotlib's figures are made and saved with fonts for Chinese, and for whatever else the
    ``texts`` have that its own font lacks."""
    import matplotlib
    from matplotlib import font_manager
    files = dict.fromkeys([CJK, *(file for text in texts for file in map(font_for, set(text)) if file)])
    known = {entry.fname: entry.name for entry in font_manager.fontManager.ttflist}
    families = []
    for file in files:
        if file not in known:
            font_manager.fontManager.addfont(file)
            known = {entry.fname: entry.name for entry in font_manager.fontManager.ttflist}
        families.append(known[file])
    with matplotlib.rc_context({'font.family': list(dict.fromkeys([*matplotlib.rcParams['font.family'], *families]))}):
        yield


@lru_cache(maxsize=65536)
def _search(character: str) -> str | None:
    file = brought_along(character)
    if file is not None:
        return file
    block = ord(character) >> 8
    if _absent.get(block, 0) >= _PATIENCE:
        return None
    for file in _system_fonts():
        if has(file, character):
            return file
    _absent[block] = _absent.get(block, 0) + 1
    return None


@lru_cache(maxsize=1024)
def _blank(file: str) -> tuple[bytes, tuple[int, int], tuple[int, int]]:
    mask, offset = face(file, _PROBE).getmask2('\U0010ffff')   # a noncharacter, for which every font draws its box
    return bytes(mask), mask.size, offset


@lru_cache(maxsize=1)
def _dejavu() -> str:
    import matplotlib
    return str(Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf')


@lru_cache(maxsize=1)
def _system_fonts() -> tuple[str, ...]:
    """Files of the fonts of this machine that Pillow can scale, plain ones first."""
    from matplotlib.font_manager import findSystemFonts
    usable = []
    for file in sorted(findSystemFonts(), key=_plainness):
        try:
            _blank(file)
        except (OSError, ValueError) as error:   # bitmaps of one size, as of coloured emoji, or broken
            logger.debug(f'{error}')
            continue
        usable.append(file)
    return tuple(usable)


def _plainness(file: str) -> tuple[int, str]:
    name = Path(file).stem.lower()
    styles = ('bold', 'italic', 'oblique', 'serif', 'mono', 'light', 'thin', 'black', 'condensed')
    return sum(style in name.replace('sansserif', '') for style in styles) + ('sans' not in name), file


def _is_variant(character: str) -> bool:
    """Whether a character says only how the one before it is to look: emoji style, colour of skin."""
    return '\ufe00' <= character <= '\ufe0f' or '\U000e0100' <= character <= '\U000e01ef' or \
        '\U0001f3fb' <= character <= '\U0001f3ff'
