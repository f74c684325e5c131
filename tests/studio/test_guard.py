"""The guard before Gradio: routes, sizes, speeds and room."""
from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from modelscope_fastinst.studio.guard import Guard, GuardLimits, remove_oldest, remove_unfinished


async def _echo(scope, receive, send) -> None:
    """Answers with the body that it was sent."""
    body, more = b'', True
    while more:
        message = await receive()
        body, more = body + message.get('body', b''), message.get('more_body', False)
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'x-content-type-options', b'none')]})
    await send({'type': 'http.response.body', 'body': body})


def asked(guard: Guard, method: str, path: str, *parts: bytes, pause: float = 0, root: str = '',
          length: bytes | None = None) -> tuple[int, bytes, dict[bytes, bytes]]:
    """Status, body and headers of the answer to a request whose body comes in parts."""
    sent: list[dict[str, Any]] = []
    left = list(parts)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause)
        return {'type': 'http.request', 'body': left.pop(0) if left else b'', 'more_body': bool(left)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [] if length is None else [(b'content-length', length)]
    scope = {'type': 'http', 'method': method, 'path': path, 'root_path': root, 'headers': headers}
    asyncio.run(guard(scope, receive, send))
    return sent[0]['status'], sent[1]['body'], dict(sent[0]['headers'])


@pytest.fixture
def guard(tmp_path) -> Guard:
    return Guard(_echo, tmp_path, GuardLimits(upload_bytes=1000, body_bytes=200, idle_seconds=0.2, seconds=0.5))


OPEN = [('GET', '/'), ('HEAD', '/'), ('GET', '/config'), ('GET', '/assets/index.js'), ('GET', '/theme.css'),
        ('GET', '/gradio_api/info'), ('GET', '/gradio_api/heartbeat/abc'), ('GET', '/gradio_api/queue/data'),
        ('GET', '/gradio_api/file=/somewhere/a.png'), ('GET', '/gradio_api/file=C:/somewhere/a.png'),
        ('POST', '/gradio_api/queue/join'), ('POST', '/gradio_api/upload'), ('POST', '/gradio_api/cancel')]
SHUT = [('GET', '/gradio_api/file=http://127.0.0.1/'), ('GET', '/gradio_api/proxy=http://127.0.0.1/'),
        ('GET', '/gradio_api/deep_link'), ('POST', '/gradio_api/process_recording'), ('POST', '/gradio_api/vibe-edit'),
        ('POST', '/gradio_api/run/segment'), ('POST', '/gradio_api/api/segment'), ('POST', '/gradio_api/call/segment'),
        ('POST', '/gradio_api/component_server'), ('GET', '/gradio_api/openapi.json'), ('GET', '/monitoring'),
        ('GET', '/gradio_api/stream/a/b/1/playlist.m3u8'), ('POST', '/'), ('POST', '/login'),
        ('GET', '/gradio_api/queue/join'), ('POST', '/gradio_api/queue/data')]


@pytest.mark.parametrize(('method', 'path'), OPEN, ids=' '.join)
def test_what_the_pages_call_passes(method, path, guard):
    assert asked(guard, method, path)[0] == 200


@pytest.mark.parametrize(('method', 'path'), SHUT, ids=' '.join)
def test_everything_else_of_gradio_s_is_not_there(method, path, guard):
    assert asked(guard, method, path)[0] == 404


@pytest.mark.parametrize('method', ['PUT', 'DELETE', 'TRACE'])
def test_other_methods_are_refused(method, guard):
    assert asked(guard, method, '/')[0] == 405


def test_below_the_path_of_a_proxy_the_same_holds(guard):
    assert asked(guard, 'GET', '/studio/gradio_api/info', root='/studio')[0] == 200
    assert asked(guard, 'GET', '/studio/gradio_api/proxy=http://127.0.0.1/', root='/studio')[0] == 404


def test_a_body_arrives_as_it_was_sent(guard):
    assert asked(guard, 'POST', '/gradio_api/queue/join', b'{"data": ', b'[1]}')[1] == b'{"data": [1]}'
    assert asked(guard, 'POST', '/gradio_api/upload', b'abc', b'', b'def')[1] == b'abcdef'


@pytest.mark.parametrize(('path', 'parts', 'length', 'status'), [
    pytest.param('upload', [b'x' * 6000] * 2, None, 413, id='an upload that turns out too large'),
    pytest.param('upload', [], b'99999', 413, id='an upload that says so'),
    pytest.param('queue/join', [b'[' + b' ' * 300 + b']'], None, 413, id='a request that turns out too large'),
    pytest.param('queue/join', [], b'201', 413, id='a request that says so'),
    pytest.param('upload', [], b'12a', 400, id='a length that is none'),
    pytest.param('queue/join', [b'{"data": '], None, 400, id='no JSON'),
    pytest.param('queue/join', [b'[' * 199], None, 400, id='brackets without an end'),
])
def test_what_is_too_large_or_broken_is_refused(path, parts, length, status, guard):
    assert asked(guard, 'POST', f'/gradio_api/{path}', *parts, length=length)[0] == status


@pytest.mark.parametrize('name', ['http://127.0.0.1/', 'HTTPS://example.com/a.png', ' http://127.0.0.1/',
                                  'file:///etc/passwd', 'ftp://example.com/', 'data:image/png;base64,AA'])
def test_a_file_that_is_named_by_an_address_is_refused(name, guard):
    body = f'{{"data": [null, [{{"path": "{name}"}}]]}}'.encode()
    assert asked(guard, 'POST', '/gradio_api/queue/join', body)[0] == 400
    assert asked(guard, 'POST', '/gradio_api/queue/join', b'{"data": [{"path": "C:/a.png"}]}')[0] == 200


@pytest.mark.parametrize('path', ['queue/join', 'run/predict', 'queue/join/'])
@pytest.mark.parametrize('body', [b'{"fn_index": 3}', b'{"fn_index": -1}', b'{"fn_index": "1"}', b'{"fn_index": true}',
                                  b'{"fn_index": [1]}', b'{}', b'[]', b''])
def test_an_event_that_no_page_has_is_refused(path, body, tmp_path):
    guard = Guard(_echo, tmp_path, events={0, 1, 2})
    assert asked(guard, 'POST', f'/gradio_api/{path}', body)[0] == 400
    assert asked(guard, 'POST', f'/gradio_api/{path}', b'{"fn_index": 2}')[0] == 200


@pytest.mark.parametrize('pause', [pytest.param(0.4, id='nothing comes'), pytest.param(0.12, id='it never ends')])
def test_a_slow_upload_is_ended_and_a_quick_one_is_not(pause, guard):
    assert asked(guard, 'POST', '/gradio_api/upload', *[b'x'] * 8, pause=pause)[0] == 408
    assert asked(guard, 'POST', '/gradio_api/upload', *[b'x'] * 8, pause=0)[0] == 200


@pytest.mark.parametrize(('limits', 'path'), [
    pytest.param({'uploads': 1}, '/gradio_api/upload', id='uploads'),
    pytest.param({'connections': 1}, '/gradio_api/queue/join', id='requests'),
])
def test_of_too_many_at_the_same_time_the_last_is_turned_away_and_later_ones_are_not(limits, path, tmp_path):
    async def both() -> list[int]:
        statuses: list[int] = []
        go_on = asyncio.Event()

        async def waits(scope, receive, send) -> None:
            await go_on.wait()
            await _echo(scope, receive, send)

        guard = Guard(waits, tmp_path, GuardLimits(**limits))

        async def one() -> None:
            async def receive() -> dict[str, Any]:
                return {'type': 'http.request', 'body': b'', 'more_body': False}

            async def send(message: dict[str, Any]) -> None:
                if message['type'] == 'http.response.start':
                    statuses.append(message['status'])

            await guard({'type': 'http', 'method': 'POST', 'path': path, 'headers': []}, receive, send)

        first = asyncio.create_task(one())
        await asyncio.sleep(0.1)
        await one()
        go_on.set()
        await first
        await one()
        return statuses

    assert asyncio.run(both()) == [503, 200, 200]


def test_files_are_served_so_that_nothing_in_them_runs(guard):
    headers = asked(guard, 'GET', '/gradio_api/file=/somewhere/a.svg')[2]
    assert headers[b'content-security-policy'].startswith(b"sandbox; default-src 'none'")
    assert headers[b'x-content-type-options'] == b'nosniff'
    page = asked(guard, 'GET', '/')[2]
    assert b'content-security-policy' not in page and page[b'x-content-type-options'] == b'nosniff'


def test_what_takes_too_much_room_goes_the_oldest_first(tmp_path):
    for age, name in enumerate(['new', 'older', 'oldest']):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'a.png').write_bytes(b'x' * 100)
        os.utime(tmp_path / name / 'a.png', (1e9 - age, 1e9 - age))
    remove_oldest(tmp_path, 250)
    assert sorted(path.parent.name for path in tmp_path.rglob('a.png')) == ['new', 'older']
    remove_oldest(tmp_path, 100)
    assert sorted(path.parent.name for path in tmp_path.rglob('a.png')) == ['new']


def test_what_a_cut_off_upload_leaves_goes_and_finished_ones_stay(tmp_path):
    (tmp_path / 'tmpabc').write_bytes(b'half')
    (tmp_path / 'finished').mkdir()
    (tmp_path / 'finished' / 'a.png').write_bytes(b'whole')
    remove_unfinished(tmp_path)
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob('*') if path.is_file()] == [Path('finished/a.png')]
    remove_unfinished(tmp_path / 'not there')
