"""Makes ``cjk.ttf``, the font in which class names in Chinese and Japanese are drawn where a machine has none.

    python modelscope_fastinst/assets/fonts/make_font.py DroidSansFallbackFull.ttf

The source is Droid Sans Fallback (Debian's package fonts-droid-fallback, Android's sources), Copyright Google Corp.,
Apache License 2.0; see README.md beside this file. What is left of it are the outlines of the characters of GB 2312
(simplified Chinese), of the frequent part of Big5 (traditional Chinese), of JIS X 0208's first level (Japanese), the
kana, and the punctuation and full-width forms that go with them. Latin, Greek and Cyrillic letters are not in the
source and come from other fonts, see `visualize.fonts`. Hinting, which is for small sizes on old screens, and
vertical layout are dropped. The same source and fontTools release give the same file to the byte.
"""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

FAMILY = 'FastInst CJK'
TARGET = Path(__file__).with_name('cjk.ttf')
# CJK punctuation, kana, full-width forms
BLOCKS = (range(0x3000, 0x3100), range(0xFF01, 0xFFF0))
# Encoding, first and second byte: all of GB 2312, the frequent characters of Big5, level 1 of JIS X 0208.
SETS = (('gb2312', range(0xA1, 0xF8), range(0xA1, 0xFF)),
        ('big5', range(0xA4, 0xC7), range(0x40, 0xFF)),
        ('euc_jp', range(0xB0, 0xD0), range(0xA1, 0xFF)))


def characters() -> set[int]:
    """The code points that the font should have."""
    found = {code for block in BLOCKS for code in block}
    for encoding, first, second in SETS:
        for pair in (bytes([high, low]) for high in first for low in second):
            text = pair.decode(encoding, 'replace')
            if len(text) == 1 and text != '\ufffd':   # else no character of the set
                found.add(ord(text))
    return found


def make(source: str | os.PathLike, target: str | os.PathLike = TARGET) -> None:
    """Writes the characters that are asked for of a TrueType font to a smaller one."""
    from fontTools import subset
    from fontTools.ttLib import TTFont
    options = subset.Options(hinting=False, layout_features=[], notdef_outline=True, name_IDs=['*'],
                             drop_tables=['GDEF', 'GPOS', 'GSUB', 'vhea', 'vmtx', 'gasp'])
    font = TTFont(source, recalcTimestamp=False)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=characters())
    subsetter.subset(font)
    font['post'].formatType = 3.0   # no glyph names
    # A changed font does not bear the name of the original, which is a trademark; copyright and licence stay.
    names = font['name']
    for record in list(names.names):
        if record.nameID in (1, 3, 4, 6, 16):
            text = FAMILY.replace(' ', '') if record.nameID == 6 else FAMILY
            names.setName(text, record.nameID, record.platformID, record.platEncID, record.langID)
        elif record.nameID == 10:
            names.setName('A subset of Droid Sans Fallback, made for modelscope-fastinst', 10, record.platformID,
                          record.platEncID, record.langID)
    font.save(target)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Makes cjk.ttf of Droid Sans Fallback.')
    parser.add_argument('source', help='DroidSansFallbackFull.ttf')
    parser.add_argument('--target', default=TARGET, type=Path)
    arguments = parser.parse_args()
    make(arguments.source, arguments.target)
    sys.stdout.write(f'{arguments.target}: {arguments.target.stat().st_size} bytes\n')
