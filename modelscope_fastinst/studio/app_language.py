"""Which language a visitor sees: the browser's for labels, the same one for what the server says."""
from __future__ import annotations

from typing import Any

import gradio as gr

from modelscope_fastinst.studio.texts import page_texts

# Gradio takes navigator.language if it is one of the names that it knows itself (zh-CN, zh-TW, fr ...), else the part
# before the hyphen, else English: "zh" or "zh-Hans-SG" would be English, and a French page half French. `?lang=` in the
# address wins.
SCRIPT = '''<script>
(() => {
  const asked = new URLSearchParams(location.search).get('lang') || navigator.language || 'en';
  const language = /^zh\\b/i.test(asked) ? 'zh-CN' : 'en';
  if (navigator.language !== language)
    Object.defineProperty(navigator, 'language', {get: () => language});
})();
</script>'''

# Gradio's own texts have keys such as "video".
PREFIX = 'studio_'


def i18n() -> gr.I18n:
    """The texts of the pages for the browser to choose from. Visitors who read traditional characters get the
    simplified ones rather than English."""
    english, chinese = ({PREFIX + key: text for key, text in page_texts(language).items()} for language in ('en', 'zh'))
    return gr.I18n(en=english, **{'zh-CN': chinese, 'zh-TW': chinese, 'zh': chinese})


def label(key: str) -> Any:
    """The text of this key, in the language of whoever looks at the page."""
    return gr.I18n()(PREFIX + key)


def language_of(request: gr.Request | None) -> str:
    """'zh' or 'en': what the address asks for (``?lang=``), else the first language of Accept-Language.

    The first and no other, since the labels follow it alone and one page should speak one language.
    """
    if request is None:
        return 'en'
    headers = request.headers
    first = headers.get('accept-language', '').split(',')[0]
    return _either(_asked(headers.get('referer', '')) or first)


def _asked(address: str) -> str:
    from urllib.parse import parse_qs, urlsplit
    try:
        return parse_qs(urlsplit(address).query).get('lang', [''])[0]
    except ValueError:   # no address
        return ''


def _either(tag: str) -> str:
    return 'zh' if tag.strip().lower().split(';')[0].replace('_', '-').split('-')[0] == 'zh' else 'en'


class EarlyScript:
    """ASGI middleware that puts ``SCRIPT`` at the top of the page. What Gradio is given as its ``head`` comes when its
    own scripts have run, and the language is chosen."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        page = scope['type'] == 'http' and scope['method'] == 'GET' and scope['path'].rstrip('/') == scope.get(
            'root_path', '')
        if not page:
            await self.app(scope, receive, send)
            return
        start: dict[str, Any] = {}
        parts: list[bytes] = []

        async def gathered(message: Any) -> None:
            if message['type'] == 'http.response.start':
                start.update(message)
                return
            parts.append(message.get('body', b''))
            if message.get('more_body'):
                return
            body = b''.join(parts).replace(b'<head>', b'<head>' + SCRIPT.encode(), 1)
            others = [(name, value) for name, value in start['headers'] if name.lower() != b'content-length']
            await send({**start, 'headers': [*others, (b'content-length', str(len(body)).encode())]})
            await send({'type': 'http.response.body', 'body': body})

        await self.app(scope, receive, gathered)
