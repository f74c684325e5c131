"""The texts in both languages, and who gets which."""
from __future__ import annotations

import re
import string

import gradio as gr
import pytest
from starlette.requests import Request

from modelscope_fastinst.studio import texts
from modelscope_fastinst.studio.app_facts import facts, model_line, refused, seconds, table
from modelscope_fastinst.studio.app_language import PREFIX, i18n, language_of
from modelscope_fastinst.studio.messages import CODES, Refused

TABLES = {'PAGE': texts.PAGE, 'ANSWERS': texts.ANSWERS, 'REFUSALS': texts.REFUSALS, 'STAGES': texts.STAGES}
CHINESE = re.compile('[\u4e00-\u9fff]')
# The same in both languages.
NO_WORDS = {'download_json', 'and_more'}


def values_of(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


@pytest.mark.parametrize('name', TABLES)
def test_each_text_is_there_in_both_languages_with_the_same_values(name):
    for key, (english, chinese) in TABLES[name].items():
        assert values_of(english) == values_of(chinese), key
        assert CHINESE.search(chinese) or key in NO_WORDS, key
        assert not CHINESE.search(english.replace('[中文]', '')), key


def test_every_refusal_has_a_sentence_with_its_values_only():
    assert set(texts.REFUSALS) == set(CODES)
    for code, (english, _) in texts.REFUSALS.items():
        assert values_of(english) <= set(CODES[code]), code


@pytest.mark.parametrize('language', texts.LANGUAGES)
def test_every_refusal_can_be_said(language):
    for code, names in CODES.items():
        said = texts.refusal(language, code, dict.fromkeys(names, 5_000_000))
        assert said and '{' not in said


def test_bytes_and_options_are_said_as_people_say_them():
    said = texts.refusal('en', 'file_too_large', {'bytes': 31_457_280, 'limit': 20_000_000})
    assert '31.5 MB' in said and '20.0 MB' in said
    said = texts.refusal('zh', 'option_invalid', {'option': 'min_size', 'value': 9, 'least': 64, 'most': 1600})
    assert said.startswith('短边像素数') and '1,600' in said


def test_a_model_that_failed_has_a_reason_or_none():
    values = {'name': 'a/b', 'reason': 'no weights'}
    assert texts.refusal('en', 'model_failed', values) == 'The model a/b could not be loaded: no weights.'
    assert texts.refusal('zh', 'model_failed', {**values, 'reason': ''}) == '模型 a/b 加载失败。'


def test_braces_of_a_class_name_stay_as_they_are():
    assert '{x} {0}' in texts.answer('en', 'selected', number=1, label='{x} {0}', score=0.5, area=3)


def test_labels_of_the_pages_are_in_every_name_that_a_browser_has_for_chinese():
    offered = i18n().translations
    assert set(offered) == {'en', 'zh', 'zh-CN', 'zh-TW'}
    assert offered['zh-CN'][PREFIX + 'run'] == '开始分割' and offered['en'][PREFIX + 'run'] == 'Segment'


@pytest.mark.parametrize(('accepted', 'referer', 'language'), [
    pytest.param('zh-CN,zh;q=0.9,en;q=0.8', '', 'zh', id='Chinese'),
    pytest.param('zh', '', 'zh', id='of no country'), pytest.param('ZH-hant-TW', '', 'zh', id='in capitals'),
    pytest.param('en-US,zh;q=0.5', '', 'en', id='the first counts'),
    pytest.param('zha', '', 'en', id='another language'),
    pytest.param('', '', 'en', id='nothing said'), pytest.param('\xff;;,', '', 'en', id='nonsense'),
    pytest.param('en', 'http://127.0.0.1/?lang=zh', 'zh', id='asked for in the address'),
    pytest.param('zh', 'http://127.0.0.1/?lang=en', 'en', id='English asked for'),
    pytest.param('zh', 'http://[broken', 'zh', id='an address that is none')])
def test_the_language_of_a_request(accepted, referer, language):
    headers = [(b'accept-language', accepted.encode('latin-1')), (b'referer', referer.encode())]
    assert language_of(gr.Request(request=Request({'type': 'http', 'headers': headers}))) == language


def test_what_comes_from_a_model_or_a_visitor_is_escaped():
    script = '<script>alert(1)</script>'
    for shown in (facts('en', script, {'read': 0.1}, script), model_line('zh', script, [script]),
                  refused('en', Refused('model_unknown', name=script))):
        assert '<script>' not in shown and '&lt;script&gt;' in shown


def test_times_are_in_the_order_of_the_work_and_a_wait_only_if_there_was_one():
    said = seconds('en', {'draw': 0.02, 'network': 1.234, 'read': 0.0015, 'wait': 0.001})
    assert said == 'read 1.5 ms · network 1.23 s · draw 20 ms'
    assert seconds('zh', {'wait': 2.0}) == '排队 2.00 秒'


def test_a_table_without_a_chosen_row_has_no_style():
    assert 'metadata' not in table('en', [[1, 'a', 0.5, 9, '0, 0, 3, 3']])
