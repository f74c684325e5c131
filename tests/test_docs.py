"""README and docs: both languages say the same, links lead somewhere, and commands are ones that there are."""
from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import shlex

import pytest

from modelscope_fastinst.cli.arguments import build_parser
from modelscope_fastinst.plugin.pipeline import OPTIONS
from modelscope_fastinst.plugin.tiled import PROGRESS
from modelscope_fastinst.plugin.trainer_keys import ConfigurationError, check_keys
from modelscope_fastinst.studio.limits import Limits
from modelscope_fastinst.visualize import draw_instances
from tests.docs_pages import (
    ENGLISH_ONLY,
    PAGES,
    REASONS,
    ROOT,
    SERVER,
    SHOWN,
    Block,
    anchors,
    blocks,
    chinese,
    codes,
    english,
    headings,
    links,
    pictures,
    prose,
    read,
    resolved,
    sections,
    tables,
    without_comments,
)

ALL = (*PAGES, *ENGLISH_ONLY, *map(chinese, PAGES))
LANGUAGES = {'bash', 'python', 'json', 'text', 'yaml'}
EVERY = [pytest.param(block, id=block.where) for page in PAGES for block in blocks(page)]


# the same in both languages

def same(page: str, what: str, first: list, second: list) -> None:
    for number, (mine, theirs) in enumerate(zip(first, second)):
        assert mine == theirs, f'{what} {number + 1} of {page} and of {chinese(page)} differ'
    assert len(first) == len(second), f'{what}: {len(first)} in {page}, {len(second)} in {chinese(page)}'


@pytest.mark.parametrize('page', PAGES)
def test_the_chinese_page_has_the_same_blocks(page):
    there = blocks(chinese(page))
    same(page, 'block', *([(block.language, block.marker, without_comments(block)) for block in group]
                          for group in (blocks(page), there)))


@pytest.mark.parametrize('page', PAGES)
def test_the_chinese_page_has_the_same_headings(page):
    same(page, 'heading', *([level for level, _ in headings(one)] for one in (page, chinese(page))))


@pytest.mark.parametrize('page', PAGES)
def test_the_chinese_page_has_the_same_pictures(page):
    same(page, 'picture', *([resolved(one, target)[0].replace('_zh.', '_en.') for _, target in pictures(one)]
                            for one in (page, chinese(page))))
    assert all(re.search('[\u4e00-\u9fff]', text) for text, _ in pictures(chinese(page)))


def place(page: str, target: str) -> tuple[str, int | str]:
    """Where a link leads, whatever its language: an address, or a page and the number of a heading."""
    if '://' in target:
        return target, ''
    file, anchor = resolved(page, target)
    return english(file), anchors(file).index(anchor) if anchor else ''


@pytest.mark.parametrize('page', PAGES)
def test_the_chinese_page_has_the_same_links_section_by_section(page):
    # Words come in another order there, so links of a section are compared as a set.
    def by_section(one: str) -> list[list]:
        return [sorted((place(one, target) for target in re.findall(r'(?<!!)\[[^\]]*\]\(([^)\s]+)\)', text)), key=str)
                for text in sections(one)]
    same(page, 'links of section', by_section(page), by_section(chinese(page)))


@pytest.mark.parametrize('page', PAGES)
def test_the_chinese_page_names_the_same_settings_section_by_section(page):
    same(page, 'code of section', *([sorted(set(codes(text))) for text in sections(one)]
                                    for one in (page, chinese(page))))


def figures(cell: str) -> list[str]:
    """The numbers in a cell, sorted, for words come in another order there."""
    return sorted(re.findall(r'\d+(?:\.\d+)?', re.sub(r'\]\([^)\s]*\)|(?<=\d),(?=\d{3})', '', cell)))


@pytest.mark.parametrize('page', PAGES)
def test_the_chinese_page_has_the_same_tables_and_figures(page):
    same(page, 'table', *([[[figures(cell) for cell in row] for row in table[1:]] for table in tables(prose(one))]
                          for one in (page, chinese(page))))


@pytest.mark.parametrize('page', PAGES)
def test_the_chinese_page_is_chinese_and_leads_to_chinese_pages(page):
    text = prose(chinese(page))
    assert len(re.findall('[\u4e00-\u9fff]', text)) > 0.25 * len(re.sub(r'`[^`]*`|\([^)]*\)', '', text))
    for target in links(chinese(page)):
        if '://' not in target:
            file, _ = resolved(chinese(page), target)
            assert file not in PAGES or file == page, f'{chinese(page)} leads to {file}, which is there in Chinese'


@pytest.mark.parametrize('page', PAGES)
def test_each_page_leads_to_its_other_language(page):
    assert chinese(page) in [resolved(page, target)[0] for target in links(page) if '://' not in target]
    assert page in [resolved(chinese(page), target)[0] for target in links(chinese(page)) if '://' not in target]


# links and pictures

@pytest.mark.parametrize('page', ALL)
def test_links_lead_somewhere(page):
    for target in [*links(page), *(target for _, target in pictures(page))]:
        if re.match('https?://', target):
            continue
        file, anchor = resolved(page, target)
        assert (ROOT / file).exists(), f'{page}: {target}'
        assert not anchor or anchor in anchors(file), f'{page}: {target}: {file} has {anchors(file)}'


def test_pictures_are_small_and_all_of_them_are_shown():
    files = sorted((ROOT / 'docs' / 'images').iterdir())
    shown = {resolved(page, target)[0] for page in ALL for _, target in pictures(page)}
    assert {file.relative_to(ROOT).as_posix() for file in files} == shown
    limits = {'studio_en.png': 400_000, 'studio_zh.png': 400_000}
    for file in files:
        assert 10_000 < file.stat().st_size < limits.get(file.name, 300_000), file.name   # less is a blank one
    assert sum(file.stat().st_size for file in files) < 1_500_000


@pytest.mark.parametrize('page', ALL)
def test_every_picture_says_what_it_shows(page):
    assert all(len(text) > 5 for text, _ in pictures(page))


# blocks

@pytest.mark.parametrize('page', (*PAGES, *ENGLISH_ONLY))
def test_blocks_are_closed_and_of_known_languages(page):
    assert {block.language for block in blocks(page)} <= LANGUAGES


@pytest.mark.parametrize('page', ENGLISH_ONLY)
def test_pages_that_nobody_types_have_no_commands(page):
    assert not [block.where for block in blocks(page) if block.language in ('bash', 'python')]


@pytest.mark.parametrize('block', EVERY)
def test_a_block_that_is_not_run_says_why(block):
    if block.marker and not block.excuse:
        assert block.marker == SERVER, f'{block.where}: no marker is called {block.marker!r}'
    elif block.excuse and block.excuse != SHOWN:
        assert block.excuse in REASONS, f'{block.where}: {block.excuse!r} is no reason that was agreed on'
    assert block.excuse != SHOWN or block.language not in ('bash', 'python')


def test_every_reason_is_somebody_s():
    assert {block.values[0].excuse for block in EVERY} - {'', SHOWN} == REASONS


@pytest.mark.parametrize('block', [block for block in EVERY if block.values[0].language == 'bash'])
def test_commands_are_understood(block):
    for words in command_lines(block):
        check_command(words, block)


@pytest.mark.parametrize('block', [block for block in EVERY if block.values[0].language == 'python'])
def test_programs_compile_and_import_what_there_is(block):
    for node in ast.walk(ast.parse(block.text, block.where)):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):   # then it has to be a module
                    importlib.import_module(f'{node.module}.{name.name}')


# what the text names

def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Every option of a parser and of the commands below it."""
    found: set[str] = set()
    for action in parser._actions:
        found.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                found |= options_of(below)
    return found


@pytest.mark.parametrize('page', PAGES)
def test_options_in_the_text_are_there(page):
    known = options_of(build_parser())
    named = {word for code in codes(prose(page)) for word in re.findall(r'(?<![\w-])--[a-z][\w-]*', code)}
    assert named, page
    assert named <= known | {'--endpoint'}, named - known


@pytest.mark.parametrize('page', PAGES)
def test_commands_in_the_text_are_understood(page):
    for code in codes(prose(page)):
        if code.startswith('modelscope-fastinst ') and not code.endswith('...'):
            words = shlex.split(code)[1:]
            if len(words) > 1:   # one word is a command's name
                build_parser().parse_args(words)


@pytest.mark.parametrize('page', PAGES)
def test_settings_in_the_text_are_there(page):
    settings = re.findall(r'(?:`|--set )((?:train|preprocessor|evaluation)\.[\w.]+)=', read(page))
    assert len(settings) > 8 or page != 'docs/fine-tune.md'
    for setting in settings:
        check_keys(section_of(setting), setting)


def section_of(setting: str) -> dict:
    """{'train': {'max_epochs': None}} for 'train.max_epochs'."""
    first, _, rest = setting.partition('.')
    return {first: section_of(rest) if rest else None}


def test_a_wrong_setting_is_found():
    with pytest.raises(ConfigurationError):
        check_keys(section_of('train.no_such_key'), 'x')


def test_the_options_of_a_call_are_listed():
    listed = {name for row in table_of('docs/inference.md', 'score_thr')[1:] for name in codes(row[0])}
    assert listed == {*OPTIONS, PROGRESS, 'batch_size', 'task'}


def test_the_arguments_of_drawing_are_listed():
    listed = {name for row in table_of('docs/inference.md', 'color_by')[1:] for name in codes(row[0])}
    there = set(inspect.signature(draw_instances).parameters) - {'image', 'scores', 'labels', 'masks', 'boxes'}
    assert listed | {'classes'} == there


def test_the_limits_of_the_studio_are_listed_with_their_values():
    limits = Limits()
    listed = table_of('docs/inference.md', '--max-upload')[1:]
    values = {codes(row[0])[0].split()[0]: float(row[1]) for row in listed}
    assert values == {'--max-upload': limits.upload_bytes / 1e6, '--max-pixels': limits.pixels,
                      '--max-video': limits.video_bytes / 1e6, '--max-seconds': limits.video_seconds,
                      '--queue': limits.queue, '--parallel': limits.parallel}


def table_of(page: str, word: str) -> list[list[str]]:
    """The table whose first column has a word."""
    return next(table for table in tables(prose(page)) if any(word in row[0] for row in table[1:]))


# commands

def command_lines(block: Block) -> list[list[str]]:
    """The words of each command of a shell block, without comments."""
    lines = block.text.replace('\\\n', ' ').splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def check_command(words: list[str], block: Block) -> None:
    """Asserts that a command could be typed: its program is known, and its words are ones that the program takes."""
    while re.match(r'\w+=', words[0]):   # VARIABLE=value before a command
        words = words[1:]
    program, *rest = words
    if program == 'torchrun':
        at = rest.index('modelscope_fastinst')
        assert rest[at - 1] == '-m'
        build_parser().parse_args(rest[at + 1:])
    elif program == 'modelscope-fastinst':
        build_parser().parse_args(rest)
    elif program == 'make':
        assert rest and all(re.search(rf'^{target}:', (ROOT / 'Makefile').read_text('utf-8'), re.MULTILINE)
                            for target in rest), f'{block.where}: make {rest}'
    elif program in ('python', 'python3'):
        # in a folder that a command of the page writes, or in the project
        written = f'--write {rest[0].split("/")[0]} ' in ' '.join(other.text for other in blocks(block.page))
        assert written or (ROOT / rest[0]).is_file(), f'{block.where}: there is no {rest[0]}'
    elif program == 'pip':
        extras = re.findall(r"^    '([\w-]+)': ", (ROOT / 'setup.py').read_text('utf-8'), re.MULTILINE)
        assert {'test', 'demo', 'video'} <= set(extras)
        for names in re.findall(r'\[([\w,-]+)\]', ' '.join(rest)):
            assert set(names.split(',')) <= set(extras), f'{block.where}: setup.py has no extra {names}'
    else:
        assert program in ('export', 'modelscope', 'git', 'cd', 'unzip'), f'{block.where}: {program}?'


def block_of(text: str, language: str = 'bash') -> Block:
    return Block('README.md', 1, language, text, '')


@pytest.mark.parametrize('text', [
    pytest.param('modelscope-fastinst predict a.png --no-such-option', id='an option that is not there'),
    pytest.param('modelscope-fastinst paint a.png', id='a command that is not there'),
    pytest.param('torchrun --nproc-per-node 2 -m modelscope_fastinst train --no-such-option x', id='through torchrun'),
    pytest.param('make coffee', id='a target that is not there'),
    pytest.param('python demo/no_such.py', id='a script that is not there'),
    pytest.param('pip install "modelscope-fastinst[moon]"', id='an extra that is not there'),
    pytest.param('rm -r photos', id='a program that is not ours'),
])
def test_a_wrong_command_is_found(text):
    with pytest.raises((AssertionError, SystemExit)):
        for words in command_lines(block_of(text)):
            check_command(words, block_of(text))


@pytest.mark.parametrize(('language', 'first', 'second'), [
    pytest.param('bash', 'a --b   # one\n', 'a --b   # another\n', id='a comment of a shell'),
    pytest.param('python', "x = f('#')   # one\n\n# more\ny = 2\n", "x = f('#')  # another\ny = 2\n", id='of Python'),
])
def test_comments_may_differ(language, first, second):
    assert without_comments(block_of(first, language)) == without_comments(block_of(second, language))
    changed = second.replace('y = 2', 'y = 3').replace('--b', '--c')
    assert without_comments(block_of(first, language)) != without_comments(block_of(changed, language))
