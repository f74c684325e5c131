"""A documentation page taken apart: code blocks and their markers, headings, links, pictures, tables."""
from __future__ import annotations

import io
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ('README.md', 'docs/inference.md', 'docs/models.md', 'docs/fine-tune.md', 'docs/publishing.md')
ENGLISH_ONLY = ('docs/design.md', 'docs/variants.md')

# Why a block may not be run as it stands. `<!-- not run: REASON -->` on the line before it says so; such a block is
# still parsed by the command line's own parser, or compiled, and what it imports has to exist.
REASONS = {'it installs packages', 'it needs a camera', 'it needs the data of COCO'}
# A server is started, asked for its page, and stopped: `<!-- stopped once it answers -->`.
SERVER = 'stopped once it answers'
# A block of text shows what the block before it prints, numbers aside; `<!-- no output -->` says that it does not.
SHOWN = 'no output'


@dataclass
class Block:
    """A fenced block: its language, text, the line of its fence, and the comment before it ('' where there is none)."""
    page: str
    line: int
    language: str
    text: str
    marker: str

    @property
    def excuse(self) -> str:
        """Why it is not run, or that it is no output; '' where it is to be typed."""
        if self.marker.startswith('not run: '):
            return self.marker.removeprefix('not run: ')
        return self.marker if self.marker == SHOWN else ''

    @property
    def where(self) -> str:
        return f'{self.page}:{self.line}'


def chinese(page: str) -> str:
    """The page of the same content: 'docs/zh/inference.md' for 'docs/inference.md'."""
    return 'README_zh.md' if page == 'README.md' else page.replace('docs/', 'docs/zh/')


def english(page: str) -> str:
    """The other way round; pages that exist in English only are themselves."""
    return 'README.md' if page == 'README_zh.md' else page.replace('docs/zh/', 'docs/')


def read(page: str) -> str:
    return (ROOT / page).read_text('utf-8')


def blocks(page: str) -> list[Block]:
    """Every fenced block, in order.

    Raises:
        ValueError: a fence that is never closed.
    """
    found, opened, lines = [], None, read(page).splitlines()
    for number, line in enumerate(lines, 1):
        if opened is None:
            if match := re.match(r'```(.*)$', line):
                comment = re.fullmatch(r'<!-- (.*) -->', lines[number - 2]) if number > 1 else None
                opened = Block(page, number, match[1].strip(), '', comment[1] if comment else '')
        elif line.rstrip() == '```':
            found.append(opened)
            opened = None
        else:
            opened.text += line + '\n'
    if opened is not None:
        raise ValueError(f'{opened.where}: this block is never closed')
    return found


def prose(page: str) -> str:
    """The page without fenced blocks and comments."""
    text = re.sub(r'^```.*?^```$', '', read(page), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r'<!--.*?-->', '', text, flags=re.DOTALL)


def headings(page: str) -> list[tuple[int, str]]:
    """(level, text) of each heading."""
    return [(len(marks), text) for marks, text in re.findall(r'^(#+) (.+)$', prose(page), re.MULTILINE)]


def anchors(page: str) -> list[str]:
    """What the hub and GitHub make of each heading: lower case, no punctuation, hyphens for spaces."""
    found: list[str] = []
    for _, text in headings(page):
        plain = re.sub(r'\[([^\]]*)\]\([^)]*\)|`', r'\1', text).strip().lower()
        name = re.sub(r'[^\w\- ]', '', plain).replace(' ', '-')
        found.append(name if name not in found else f'{name}-{found.count(name)}')
    return found


def links(page: str) -> list[str]:
    """The targets of links, in order; pictures are not among them."""
    text = re.sub(r'!\[[^\]]*\]\([^)]*\)', '', prose(page))
    return re.findall(r'\[[^\]]*\]\(([^)\s]+)\)', text)


def pictures(page: str) -> list[tuple[str, str]]:
    """(description, target) of each picture."""
    return re.findall(r'!\[([^\]]*)\]\(([^)\s]+)\)', prose(page))


def resolved(page: str, target: str) -> tuple[str, str]:
    """(file below the project's folder, anchor) of a link within the project."""
    file, _, anchor = target.partition('#')
    path = (ROOT / page).parent / file if file else ROOT / page
    return path.resolve().relative_to(ROOT).as_posix(), anchor


def sections(page: str) -> list[str]:
    """The prose between headings; the first is what comes before any."""
    return re.split(r'^#+ .+$', prose(page), flags=re.MULTILINE)


def codes(text: str) -> list[str]:
    """What stands between single backticks."""
    return re.findall(r'`([^`\n]+)`', text)


def tables(text: str) -> list[list[list[str]]]:
    """Tables as rows of cells, without the line below the head."""
    found: list[list[list[str]]] = []
    last = -2
    for number, line in enumerate(text.splitlines()):
        if not line.startswith('|'):
            continue
        if number != last + 1:
            found.append([])
        last = number
        cells = [cell.strip() for cell in line.strip().strip('|').split('|')]
        if not all(re.fullmatch(r':?-+:?', cell) for cell in cells):
            found[-1].append(cells)
    return found


def without_comments(block: Block) -> str:
    """What a block does, whatever it says about it: the words of a command line, or the tokens of a program."""
    if block.language == 'python':
        kinds = (tokenize.COMMENT, tokenize.NL)
        tokens = tokenize.generate_tokens(io.StringIO(block.text).readline)
        return ' '.join(token.string for token in tokens if token.type not in kinds)
    if block.language == 'bash':
        lines = (re.sub(r'(^|\s)#.*$', '', line).strip() for line in block.text.splitlines())
        return '\n'.join(line for line in lines if line)
    return block.text
