"""Text in pictures: any label as one line, each character in a font that has it."""
from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from modelscope_fastinst.fonts import BUILT_IN, JOINERS, face, font_for, has, spelled, warn_of

ELLIPSIS = '\u2026'
_REMEMBERED = 200   # texts of a lettering


@lru_cache(maxsize=16)
def lettering(file: str | Path | None, size: int) -> Lettering:
    """Text of so many pixels, in a font file (what it lacks comes from others) or, for None, in the usual fonts.

    Raises:
        ValueError: no font file.
    """
    return Lettering(None if file is None else str(file), size)


class Lettering:
    """Text of one size. See `lettering`.

    Attributes:
        ascent, descent: of a line, in pixels from its base; the same for all texts.
    """

    def __init__(self, file: str | None, size: int) -> None:
        self.file, self.size = file, size
        first = face(BUILT_IN if file is None else file, size)
        self.ascent, self.descent = first.getmetrics()
        self._layout_turns = _layout_turns()
        self._lengths: dict[str, int] = {}
        self._painted: dict[str, np.ndarray] = {}

    def length(self, text: str) -> int:
        """How wide a text (of `fonts.as_line`) is, in pixels."""
        length = self._lengths.get(text)
        if length is None:   # threads share a lettering: what is looked up is kept apart from what is remembered
            length = int(np.ceil(sum(face(file, self.size).getlength(part) for file, part in self._runs(text))))
            if len(self._lengths) >= 50 * _REMEMBERED:
                self._lengths.clear()
            self._lengths[text] = length
        return length

    def fitted(self, text: str, width: float) -> str:
        """The text, or as much of its beginning as has room, with an ellipsis; nothing where not a character has."""
        if self.length(text) <= width:
            return text
        low, high = 0, len(text)
        while low < high:   # the longest beginning that fits
            middle = (low + high + 1) // 2
            if self.length(text[:middle].rstrip() + ELLIPSIS) <= width:
                low = middle
            else:
                high = middle - 1
        return text[:low].rstrip() + ELLIPSIS if low else ''

    def painted(self, text: str) -> np.ndarray:
        """Coverage, uint8 ``[ascent + descent, length]``, of a text; what is higher or lower is cut off."""
        painted = self._painted.get(text)
        if painted is None:
            from PIL import Image, ImageDraw
            picture = Image.new('L', (max(1, self.length(text)), self.ascent + self.descent))
            draw, x, missing = ImageDraw.Draw(picture), 0.0, set()
            for file, part in self._runs(text, missing):
                font = face(file, self.size)
                draw.text((x, self.ascent), part, fill=255, font=font, anchor='ls')
                x += font.getlength(part)
            warn_of(missing)
            painted = np.asarray(picture)
            if len(self._painted) >= _REMEMBERED:
                self._painted.clear()
            self._painted[text] = painted
        return painted

    def _runs(self, text: str, missing: set[str] | None = None) -> Iterator[tuple[str, str]]:
        """Pieces of the text, each with the font that has its characters."""
        runs: list[list[str]] = []
        # One word, one font: the built-in one has no accents.
        accented = next((letter for letter in text if '\x80' < letter < '\u0250' and letter.isalpha()), None)
        latin = BUILT_IN if accented is None else font_for(accented)
        for character in ''.join(map(self._drawable, text)):
            neutral = character == ' ' or unicodedata.combining(character)
            if character in JOINERS or neutral and runs and has(runs[-1][0], character):
                if runs:   # else it joins nothing
                    runs[-1][1] += character
                continue
            file = self._file_of(character, latin)
            if file is None:
                if missing is not None:
                    missing.add(character)
                file = BUILT_IN   # its box
            if runs and runs[-1][0] == file:
                runs[-1][1] += character
            else:
                runs.append([file, character])
        for file, part in runs:
            body = part.rstrip()   # where a run goes from right to left, a blank at its end would be at its left
            if body:
                yield file, body if self._layout_turns else _turned(body)
            if body != part:
                yield BUILT_IN, part[len(body):]

    def _drawable(self, character: str) -> str:
        own = character.isascii() or self.file is not None and has(self.file, character)
        return character if own else spelled(character)

    def _file_of(self, character: str, latin: str | None) -> str | None:
        if self.file is not None and has(self.file, character):
            return self.file
        return latin if latin and character.isascii() else font_for(character)


@lru_cache(maxsize=1)
def _layout_turns() -> bool:
    """Whether Pillow sets Arabic and Hebrew from right to left by itself (it has Raqm and FriBiDi)."""
    from PIL import features
    return bool(features.check('raqm'))


def _turned(text: str) -> str:
    """A text in the order in which it is seen, for a layout that goes from left to right whatever the script."""
    text = ''.join(character for character in text if character not in JOINERS)
    if any(unicodedata.bidirectional(character) in ('R', 'AL') for character in text):
        return text[::-1]
    return text
