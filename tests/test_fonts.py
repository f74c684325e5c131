"""Fonts: a machine that has none draws Chinese all the same, and so do Matplotlib's pictures."""
from __future__ import annotations

import logging
import runpy
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest

from modelscope_fastinst import fonts
from modelscope_fastinst.visualize.lettering import lettering

GB_2312 = [text for high in range(0xA1, 0xF8) for low in range(0xA1, 0xFF)
           if len(text := bytes([high, low]).decode('gb2312', 'replace')) == 1 and text != '\ufffd']


def test_every_character_of_gb_2312_is_in_a_font_that_is_always_there():
    assert len(GB_2312) == 7445
    some = [*GB_2312[:682], *GB_2312[682::7]]   # all signs and letters, every seventh ideograph
    missing = [character for character in some if fonts.brought_along(character) is None]
    # what is left are numbers with parentheses and dots, spelled out; angle brackets; and an arc
    left = [character for character in missing if unicodedata.normalize('NFKC', character) == character]
    assert left == ['\u3008', '\u3009', '\u2312'] and len(missing) == 43


@pytest.mark.parametrize('character, file', [
    pytest.param('a', fonts.BUILT_IN, id='Latin'),
    pytest.param('\u6838', fonts.CJK, id='simplified Chinese'), pytest.param('\u9435', fonts.CJK, id='traditional'),
    pytest.param('\u3076', fonts.CJK, id='kana'), pytest.param('\u5ce0', fonts.CJK, id='Japanese'),
    pytest.param('\uff08', fonts.CJK, id='full-width')])
def test_a_character_is_looked_for_where_it_is(character, file):
    assert fonts.font_for(character) == file


@pytest.mark.parametrize('character', ['\u00e9', '\u03b3', '\u0436', '\u05e9', '\u0639', '\u2192', '\u221e'], ids=ascii)
def test_other_scripts_come_from_matplotlib(character):
    assert fonts.font_for(character).endswith('DejaVuSans.ttf')


def test_what_no_font_has_is_found_nowhere():
    assert fonts.font_for('\U000f1234') is None and fonts.spelled('\U000f1234') == '\U000f1234'


def test_a_hostile_name_does_not_open_every_font_for_every_character():
    asked = fonts.has.cache_info().misses
    assert not any(fonts.font_for(chr(0xf5500 + number)) for number in range(200))
    number_of_fonts = 3 + len(fonts._system_fonts())
    assert fonts.has.cache_info().misses - asked <= fonts._PATIENCE * number_of_fonts + 200 * 3


def test_lines_of_several_scripts_are_as_wide_as_their_parts():
    letters = lettering(None, 20)
    parts = ['cell ', '\u7ec6\u80de', '\u0436\u0443\u043a', ' 0.5']
    assert letters.length(''.join(parts)) == pytest.approx(sum(map(letters.length, parts)), abs=4)


def test_a_fitted_text_is_the_longest_that_fits():
    letters = lettering(None, 20)
    text = '\u7ec6\u80de\u6838 of a long kind'
    for width in range(0, letters.length(text) + 5, 7):
        fitted = letters.fitted(text, width)
        assert letters.length(fitted) <= width
        if fitted not in ('', text):
            assert fitted.endswith('\u2026') and text.startswith(fitted[:-1])
            longer = text[:len(fitted)].rstrip() + '\u2026'
            assert letters.length(longer) > width or longer == fitted
    assert letters.fitted(text, letters.length(text)) == text


def test_a_word_with_an_accent_is_in_one_font():
    letters = lettering(None, 20)
    assert len({file for file, _ in letters._runs('caf\u00e9 0.50')} - {fonts.BUILT_IN}) == 1
    assert [part.strip() for _, part in letters._runs('caf\u00e9 0.50')] == ['caf\u00e9 0.50']


def test_accented_and_joined_letters_stay_together():
    letters = lettering(None, 20)
    assert letters.length('e\u0301') == pytest.approx(letters.length('e'), abs=2)


def test_the_font_says_where_it_comes_from_and_keeps_its_licence():
    from fontTools.ttLib import TTFont
    names = {record.nameID: str(record) for record in TTFont(fonts.CJK)['name'].names}
    assert names[1] == fonts.CJK_FAMILY and 'Apache License' in names[13] and 'Google' in names[0]
    folder = Path(fonts.CJK).parent
    assert 'Apache License' in (folder / 'LICENSE').read_text('utf-8') and 'Droid' in (folder / 'README.md').read_text()
    assert Path(fonts.CJK).stat().st_size < 1_500_000


def test_the_font_can_be_made_again(tmp_path):
    import matplotlib
    from fontTools.ttLib import TTFont
    made = tmp_path / 'made.ttf'
    make = runpy.run_path(str(Path(fonts.CJK).with_name('make_font.py')))['make']
    make(f'{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf', made)   # another source: it has an arrow and an A
    font = TTFont(made)
    assert 0x2192 in font.getBestCmap() and 0x41 not in font.getBestCmap()
    assert font['name'].getDebugName(1) == fonts.CJK_FAMILY


def figure_of(text):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(3, 1))
    FigureCanvasAgg(figure)
    figure.text(0.1, 0.4, text, fontsize=20)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba()).copy()


def test_matplotlib_draws_chinese(caplog):
    with warnings.catch_warnings(), fonts.matplotlib_fonts(['\u7ec6\u80de']), caplog.at_level(logging.WARNING):
        warnings.simplefilter('error')   # it warns of glyphs that it lacks
        one, other = figure_of('\u7ec6\u80de a'), figure_of('\u8461\u8404 a')
    assert (one != other).any() and not caplog.records


def test_matplotlib_is_as_it_was_afterwards():
    import matplotlib
    before = list(matplotlib.rcParams['font.family'])
    with fonts.matplotlib_fonts():
        assert fonts.CJK_FAMILY in matplotlib.rcParams['font.family']
    assert matplotlib.rcParams['font.family'] == before


def test_the_pictures_of_a_report_name_classes_in_chinese(tmp_path):
    from modelscope_fastinst.evaluation.semantic_report import SemanticReport
    classes = ['\u5929\u7a7a', '\u8349\u5730']
    metrics = {f'{kind}/{name}': 0.5 for kind in ('IoU', 'ACC') for name in classes}
    report = SemanticReport(classes=classes, metrics={**metrics, 'mIoU': 0.5, 'fwIoU': 0.5, 'mACC': 0.5, 'pACC': 0.5},
                            confusion=np.array([[5, 1, 0], [2, 4, 0]]), images=1, worst=[])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        report.write_pictures(tmp_path)
    assert (tmp_path / 'iou.png').stat().st_size > 1000


def test_a_training_s_curves_name_classes_in_chinese(tmp_path):
    from modelscope_fastinst.plugin.curves import write_curves
    (tmp_path / 'log.jsonl').write_text('{"mode": "train", "epoch": 1, "iter": 1, "lr": 0.1, "loss": 2.0}\n'
                                        '{"mode": "eval", "epoch": 1, "iter": 1, "\u7ec6\u80de": 0.5}\n', 'utf-8')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert write_curves(tmp_path).is_file()
