"""A Markdown file with YAML front matter that is completed without touching what somebody else wrote in it.

Sections that this package writes lie between two HTML comments, the first with a checksum of the section. A section
that still has its checksum is nobody's own text, so it is brought up to date the next time; a changed one is left as
it is, and so is everything outside.
"""
from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_FRONT_MATTER = re.compile(r'\A---[ \t]*\n(?P<yaml>.*?)^---[ \t]*(?:\n|\Z)', re.DOTALL | re.MULTILINE)
_END = '<!-- /modelscope-fastinst -->'
_BLOCK = re.compile(r'<!-- modelscope-fastinst (?P<key>[\w-]+) (?P<sum>[0-9a-f]{12}) -->\n(?P<text>.*?)'
                    + re.escape(_END), re.DOTALL)
_FENCE = re.compile(r'\s{0,3}(```+|~~~+)')
_HEADING = re.compile(r'\s{0,3}#{1,6}\s+(.*?)\s*#*\s*$')


class CardError(ValueError):
    """A model card that cannot be read or completed; the message says where and why."""


@dataclass(frozen=True)
class Section:
    """A part of the card's text.

    Attributes:
        key: a word that identifies it in the file.
        title: its heading, without ``#``; empty for text without one.
        text: Markdown below the heading.
        level: of the heading.
        also: other headings, in lower case, under which somebody may have written the same.
        keep: an earlier state of the section in the file knew more than this one, so it stays.
    """
    key: str
    title: str
    text: str
    level: int = 2
    also: frozenset[str] = field(default_factory=frozenset)
    keep: bool = False

    @property
    def markdown(self) -> str:
        """Heading and text, between the comments that tell it from somebody's own."""
        heading = f'{"#" * self.level} {self.title}\n\n' if self.title else ''
        text = f'{heading}{self.text.strip()}\n'
        return f'<!-- modelscope-fastinst {self.key} {_checksum(text)} -->\n{text}{_END}'


def completed(text: str, entries: Mapping[str, Any], sections: list[Section], where: str,
              earlier: Sequence[Mapping[str, Any]] = ()) -> str:
    """The card with the missing front-matter entries and sections added; the same text if nothing is missing.

    Args:
        text: the card so far, may be empty.
        entries: the front matter's entries, in their order. One whose key is there is left out.
        sections: in their order.
        where: the file, for errors.
        earlier: entries that this package may have written when it knew less; where the file holds exactly one of
            them, it is brought up to date.

    Raises:
        CardError: the front matter is no YAML, or no mapping.
    """
    windows = '\r\n' in text
    text = text.replace('\r\n', '\n')
    front, body = _split(text, where)
    gap = '\n' if front is None or not body.strip() else ''
    result = _front_matter(front, entries, earlier, where) + gap + _body(body, sections)
    return result.replace('\n', '\r\n') if windows else result


def front_matter(text: str, where: str) -> dict[str, Any]:
    """The entries of a card's front matter; empty if it has none.

    Raises:
        CardError: it is no YAML, or no mapping.
    """
    return _parsed(_split(text.replace('\r\n', '\n'), where)[0] or '', where)


def front_matter_text(text: str) -> str:
    """A card's front matter as it is written, with the lines of dashes."""
    found = _FRONT_MATTER.match(text.replace('\r\n', '\n'))
    return found.group().rstrip() if found else ''


def _split(text: str, where: str) -> tuple[str | None, str]:
    found = _FRONT_MATTER.match(text)
    if found:
        return found['yaml'], text[found.end():]
    if re.match(r'---[ \t]*\n\s*[\w-]+:', text):
        raise CardError(f'{where}: line 1 opens the front matter, but no line of --- closes it')
    return None, text


def _parsed(front: str, where: str) -> dict[str, Any]:
    import yaml
    try:
        entries = yaml.safe_load(front)
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        line = f' line {mark.line + 2}:' if mark else ''
        raise CardError(f'{where}:{line} the front matter is no YAML: '
                        f'{getattr(error, "problem", None) or error}; mend it or remove the file') from error
    if entries is None:
        return {}
    if not isinstance(entries, dict):
        raise CardError(f'{where}: the front matter must hold "key: value" lines; it holds a {type(entries).__name__}')
    return entries


def _front_matter(front: str | None, entries: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]],
                  where: str) -> str:
    there = _parsed(front or '', where)
    wanted = {key: there.get(key, value) for key, value in {**there, **entries}.items()}
    text = front or ''
    for key, value in entries.items():
        if key not in there:
            text += ('' if not text or text.endswith('\n') else '\n') + _dumped({key: value})
        elif found := _written_before(f'\n{text}', key, there[key], earlier):
            text = f'\n{text}'.replace(found, f'\n{_dumped({key: value})}', 1)[1:]
            wanted[key] = value
    if _parsed_or_none(text) != wanted:
        text = _dumped(wanted)   # a front matter in braces, for instance, to which no line can be added
    return f'---\n{text}---\n'


def _written_before(text: str, key: str, value: Any, earlier: Sequence[Mapping[str, Any]]) -> str | None:
    """The lines of an entry, if they are those that this package once wrote."""
    if not any(key in entries and entries[key] == value for entries in earlier):
        return None
    lines = f'\n{_dumped({key: value})}'
    return lines if lines in text else None


def _parsed_or_none(text: str) -> Any:
    import yaml
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _dumped(entries: Mapping[str, Any]) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:   # a value that comes twice is written twice, not as a reference
            return True

    return yaml.dump(dict(entries), Dumper=Dumper, allow_unicode=True, sort_keys=False, width=110)


def _body(body: str, sections: list[Section]) -> str:
    own = {found['key']: found for found in _BLOCK.finditer(body)}
    headings = {heading.lower() for heading in _headings(body)}
    empty = not body.strip()
    for section in sections:
        if section.key in own:
            found = own[section.key]
            if not section.keep and _checksum(found['text']) == found['sum']:
                body = body.replace(found.group(), section.markdown)
        elif empty or section.level > 1 and not headings & {section.title.lower(), *section.also}:
            body = f'{body.rstrip()}\n\n{section.markdown}\n'.lstrip('\n' if empty else '')
    return body


def _headings(body: str) -> Iterator[str]:
    """The headings of a Markdown text; lines of code that look like one are none."""
    fence = ''
    for line in body.split('\n'):
        found = _FENCE.match(line)
        if fence:
            if found and found[1].startswith(fence):
                fence = ''
        elif found:
            fence = found[1]
        elif heading := _HEADING.match(line):
            yield heading[1]


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
