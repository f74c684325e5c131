"""A hostile visitor of a running studio: requests by hand, past the page. After each the next visitor is served."""
from __future__ import annotations

import http.client
import io
import json
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modelscope_fastinst.studio.limits import Limits
from tests.studio.hostile import encoded

FILE = {'_type': 'gradio.FileData'}
LIMITS = Limits(upload_bytes=200_000, video_bytes=300_000)
SETTINGS = {'image_min_size': 128, 'image_score': 0.5, 'image_most': 100, 'image_classes': [], 'image_task': 'instance',
            'image_tile': False, 'image_color_by': 'instance', 'image_opacity': 0.45, 'image_parts': [],
            'model': 'embedded'}


class Visitor:
    """Speaks HTTP with a studio."""

    def __init__(self, address: str) -> None:
        self.place = address.removeprefix('http://').rstrip('/')
        self.config = json.loads(self.ask('GET', '/config')[2])
        self.parts = {one['id']: one['props'].get('elem_id') for one in self.config['components']}

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict, bytes]:
        connection = http.client.HTTPConnection(self.place, timeout=60)
        try:
            connection.request(method, path, body, {name.replace('_', '-'): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def upload(self, *files: tuple[str, bytes]) -> tuple[int, Any]:
        body = b''.join(b'--part\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n'
                        b'Content-Type: image/png\r\n\r\n%s\r\n' % (name.encode(), content) for name, content in files)
        status, _, said = self.ask('POST', '/gradio_api/upload', body + b'--part--\r\n',
                                   Content_Type='multipart/form-data; boundary=part')
        return status, json.loads(said) if status == 200 else said

    def call(self, name: str, values: dict[str, Any], **more: Any) -> tuple[int, dict[str, Any]]:
        """Status of the request, and what the page would have been told."""
        event = next(one for one in self.config['dependencies'] if one['api_name'] == name)
        data = [values.get(self.parts[part]) for part in event['inputs']]
        session = more.pop('session', uuid.uuid4().hex)
        body = json.dumps({'data': data, 'fn_index': event['id'], 'session_hash': session, **more}).encode()
        status, _, said = self.ask('POST', '/gradio_api/queue/join', body, Content_Type='application/json')
        if status != 200:
            return status, {'said': said.decode()}
        told = self.ask('GET', f'/gradio_api/queue/data?session_hash={session}')[2].decode().splitlines()
        messages = [json.loads(line[5:]) for line in told if line.startswith('data:')]
        return status, next(one['output'] for one in messages if one['msg'] == 'process_completed')

    def segment(self, picture: Any, **more: Any) -> tuple[int, dict[str, Any]]:
        return self.call('segment_1', {**SETTINGS, 'picture': picture, **more})


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    from modelscope_fastinst.studio.app import launch
    with launch(port=0, device='cpu', limits=LIMITS) as server:
        yield server


@pytest.fixture(scope='module')
def picture(nuclei) -> bytes:
    return encoded(nuclei)


@pytest.fixture
def visitor(server, picture):
    """One who comes with bad intentions; somebody else comes after, and finds the studio as ever."""
    visitor = Visitor(server.address)
    yield visitor
    other = Visitor(server.address)
    status, [path] = other.upload(('cells.png', picture))
    assert status == 200
    assert shown(other.segment({'path': path, 'meta': FILE})[1])


def shown(output: dict[str, Any]) -> bool:
    """Whether a page got a result: a picture to show."""
    return any(isinstance(value, dict) and str(value.get('path', '')).endswith('.png')
               for value in output.get('data') or [])


@pytest.fixture
def private(tmp_path, nuclei) -> Path:
    """A picture of the machine's owner."""
    (tmp_path / 'private.png').write_bytes(encoded(nuclei))
    return tmp_path / 'private.png'


@pytest.mark.parametrize('request_for', [
    pytest.param(lambda path, upload: {'path': path}, id='a path that is not called a file'),
    pytest.param(lambda path, upload: {'path': path, 'meta': FILE}, id='a path that is called a file'),
    pytest.param(lambda path, upload: {'path': path, 'meta': FILE, 'is_stream': True}, id='a stream'),
    pytest.param(lambda path, upload: {'path': f'{os.path.dirname(upload)}/../../../../../../../..{path}'},
                 id='a way up from an upload'),
    pytest.param(lambda path, upload: {'path': upload, 'url': f'file://{path}', 'meta': FILE, 'data': path},
                 id='other fields'),
])
def test_a_picture_of_the_machine_is_never_shown(request_for, visitor, private):
    _, [upload] = visitor.upload(('gray.png', encoded(np.full((48, 64, 3), 90, np.uint8))))
    status, output = visitor.segment(request_for(str(private), upload))
    if status == 200 and shown(output):   # of the upload, then
        [file] = [value['path'] for value in output['data'] if isinstance(value, dict) and value.get('path')]
        with Image.open(io.BytesIO(visitor.ask('GET', f'/gradio_api/file={file}')[2])) as image:
            assert image.size == (64, 48)
    assert 'Traceback' not in json.dumps(output) and 'private.png' not in json.dumps(output)


@pytest.mark.parametrize('path', ['http://127.0.0.1:9/a.png', 'https://example.com/a.png', 'file:///etc/passwd'])
def test_the_studio_fetches_nothing_for_a_visitor(path, visitor):
    assert visitor.segment({'path': path, 'meta': FILE})[0] == 400
    assert visitor.ask('GET', f'/gradio_api/file={path}')[0] in (403, 404)
    assert visitor.ask('GET', f'/gradio_api/proxy={path}')[0] == 404


@pytest.mark.parametrize(('name', 'values'), [
    pytest.param('segment_1', {'image_min_size': 'large'}, id='a word for a number'),
    pytest.param('segment_1', {'image_min_size': 1e9}, id='a size out of bounds'),
    pytest.param('segment_1', {'image_score': float('nan')}, id='not a number'),
    pytest.param('segment_1', {'image_classes': ['<script>alert(1)</script>']}, id='a class that is none'),
    pytest.param('segment_1', {'image_task': '../depth'}, id='a task that is none'),
    pytest.param('segment_1', {'image_parts': {'a': [1]}}, id='another type'),
    pytest.param('segment_1', {'model': '/etc'}, id='a folder for a model'),
    pytest.param('segment_1', {'model': 'somebody/huge'}, id='a model of the hub'),
    pytest.param('segment_1', {'picture': 7}, id='a number for a file'),
    pytest.param('segment_1', {'picture': {'path': 'a\0b', 'meta': FILE}}, id='a zero byte in a path'),
    pytest.param('pick_point', {}, id='a click before there is a result'),
])
def test_values_that_no_page_sends_get_no_result_and_no_trace(name, values, visitor, picture):
    _, [path] = visitor.upload(('cells.png', picture))
    status, output = visitor.call(name, {**SETTINGS, 'picture': {'path': path, 'meta': FILE}, **values})
    assert status in (200, 400) and not shown(output)
    assert 'Traceback' not in json.dumps(output) and '.py' not in json.dumps(output)


@pytest.mark.parametrize('name', ['segment_1', 'save_json', 'changed', 'render'])
def test_nothing_that_waits_in_the_queue_can_be_had_past_it(name, visitor, picture):
    _, [path] = visitor.upload(('cells.png', picture))
    event = next(one for one in visitor.config['dependencies'] if one['api_name'] == name)
    values = {**SETTINGS, 'picture': {'path': path, 'meta': FILE}}
    data = [values.get(visitor.parts[part]) for part in event['inputs']]
    body = json.dumps({'data': data, 'fn_index': event['id'], 'session_hash': 'x'}).encode()
    status, _, said = visitor.ask('POST', '/gradio_api/run/predict', body, Content_Type='application/json')
    assert status == 404 and b'queue' in said


@pytest.mark.parametrize(('name', 'content'), [
    pytest.param('a.svg', b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', id='SVG'),
    pytest.param('a.html', b'<script>alert(1)</script>', id='HTML'),
    pytest.param('a.png', b'<script>alert(1)</script>', id='HTML with the name of a picture'),
])
def test_what_was_uploaded_does_not_run_in_a_browser(name, content, visitor):
    _, [path] = visitor.upload((name, content))
    status, headers, _ = visitor.ask('GET', f'/gradio_api/file={path}')
    assert status == 200 and headers['x-content-type-options'] == 'nosniff'
    assert headers['content-security-policy'].startswith('sandbox')
    assert headers['content-type'] in ('application/octet-stream', 'image/png')
    assert not shown(visitor.segment({'path': path, 'meta': FILE})[1])


@pytest.mark.parametrize('name', ['../../evil.png', '/etc/evil.png', '..\\..\\evil.png', 'a' * 400 + '.png', '.bashrc',
                                  '<img src=x>.png', '%2e%2e%2fevil.png'])
def test_an_upload_lands_among_the_uploads_whatever_its_name(name, visitor, picture):
    from gradio.utils import get_upload_folder
    status, [path] = visitor.upload((name, picture))
    assert status == 200
    assert Path(path).resolve().parents[1] == Path(get_upload_folder()).resolve()


def test_a_thousand_files_in_one_upload_are_one_upload(visitor):
    from gradio.utils import get_upload_folder
    before = {path for path in Path(get_upload_folder()).rglob('*') if path.is_file()}
    status, said = visitor.upload(*((f'{number}.png', os.urandom(60_000)) for number in range(8)))
    assert status == 413 and b'too large' in said
    assert {path for path in Path(get_upload_folder()).rglob('*') if path.is_file()} == before


def test_a_visitor_of_another_session_has_no_result(visitor, picture):
    _, [path] = visitor.upload(('cells.png', picture))
    output = visitor.call('segment_1', {**SETTINGS, 'picture': {'path': path, 'meta': FILE}}, session='first')[1]
    assert shown(output)
    assert not shown(visitor.call('save_overlay', {**SETTINGS}, session='second')[1])
    assert shown(visitor.call('save_overlay', {**SETTINGS}, session='first')[1])


def test_an_event_that_there_is_not_is_an_error_without_a_trace(visitor):
    body = json.dumps({'data': [], 'fn_index': 9999, 'session_hash': 'x'}).encode()
    status, _, said = visitor.ask('POST', '/gradio_api/queue/join', body, Content_Type='application/json')
    assert status == 400 and b'Traceback' not in said and b'.py' not in said
