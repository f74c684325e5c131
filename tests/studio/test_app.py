"""The pages: that they can be built and served, what the server gives away, and what the command line makes of it."""
from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request

import pytest

from modelscope_fastinst.cli import main
from modelscope_fastinst.cli.arguments import build_parser
from modelscope_fastinst.studio.addresses import is_loopback


@pytest.fixture(scope='module')
def server():
    """A studio with the embedded model, in this process."""
    from modelscope_fastinst.studio.app import launch
    with launch(port=0, device='cpu') as server:
        yield server


def get(server, path: str, **headers: str) -> tuple[int, str]:
    """Status and content of an answer; no proxy of the machine's is asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(server.address + path, headers=headers)
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, answer.read().decode('utf-8', 'replace')
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode('utf-8', 'replace')


def test_it_listens_where_only_this_machine_can_reach_it(server):
    assert server.address.startswith('http://127.0.0.1:')
    listening = server.pages.server.servers[0].sockets
    assert {one.getsockname()[0] for one in listening} == {'127.0.0.1'}


def test_the_page_asks_nobody_else_for_anything(server):
    status, page = get(server, '')
    config = json.loads(page.split('window.gradio_config = ')[1].split(';</script>')[0])
    assert status == 200
    assert config['analytics_enabled'] is False
    assert config.get('stylesheets', []) == []   # where fonts of Google's would be
    assert 'fonts.googleapis.com' not in get(server, 'theme.css')[1]


@pytest.mark.parametrize('path', [
    pytest.param('gradio_api/file=/etc/passwd', id='a file of the machine'),
    pytest.param('gradio_api/file=setup.py', id='a file of the current folder'),
    pytest.param('gradio_api/file=..%2f..%2f..%2fetc%2fpasswd', id='a path upwards'),
    pytest.param('gradio_api/file=', id='no name'),
    pytest.param('gradio_api/proxy=https://example.com/', id='another server'),
    pytest.param('docs', id='API documentation'),
    pytest.param('redoc', id='API documentation in another form'),
    pytest.param('openapi.json', id='API description'),
    pytest.param('monitoring', id='who visits'),
])
def test_the_server_gives_nothing_away(server, path):
    status, content = get(server, path)
    assert status in (400, 403, 404, 405)
    assert 'root:' not in content and 'Traceback' not in content


def test_the_page_chooses_its_language_before_it_is_built(server):
    from modelscope_fastinst.studio.app_language import SCRIPT
    status, page = get(server, '')
    assert page.index(SCRIPT) < page.index('type="module"')
    assert page.rstrip().endswith('</html>')


def test_results_lie_where_the_server_serves_no_folder(server):
    folder = server.service.folder
    (folder / 'left.txt').write_text('of another visitor')
    assert get(server, f'gradio_api/file={folder}')[0] in (403, 404)
    assert get(server, f'gradio_api/file={folder / "left.txt"}')[0] in (403, 404)


def test_the_short_side_goes_no_further_than_it_makes_a_difference(server):
    config = json.loads(get(server, 'config')[1])
    largest = server.service.store.get().defaults['max_size']
    sliders = {part['props'].get('elem_id'): part['props'] for part in config['components']}
    assert [sliders[name]['maximum'] for name in ('image_min_size', 'video_min_size')] == [largest] * 2


def test_after_each_way_to_segment_a_picture_the_page_catches_up_with_its_sliders(server):
    events = json.loads(get(server, 'config')[1])['dependencies']
    caught = {event['trigger_after'] for event in events if event['api_name'].startswith('catch_up')}
    ways = {event['id'] for event in events if event['api_name'].startswith('segment')}
    assert len(ways) == 6 and ways == caught   # picture, button, short side, task, tiles, model


def test_no_function_of_the_pages_is_offered_to_programs(server):
    _, content = get(server, 'gradio_api/info')
    assert json.loads(content) == {'named_endpoints': {}, 'unnamed_endpoints': {}}


@pytest.mark.parametrize(('host', 'local'), [
    pytest.param('127.0.0.1', True, id='the usual one'), pytest.param('127.8.9.1', True, id='another of its kin'),
    pytest.param('localhost', True, id='its name'), pytest.param('::1', True, id='IPv6'),
    pytest.param('[::1]', True, id='IPv6 in brackets'), pytest.param('0.0.0.0', False, id='all'),
    pytest.param('192.168.1.5', False, id='a neighbour'), pytest.param('example.com', False, id='a name'),
    pytest.param('::', False, id='all of IPv6'), pytest.param('', False, id='nothing')])
def test_which_addresses_are_of_this_machine_alone(host, local):
    assert is_loopback(host) is local


def test_any_model_is_for_this_machine_alone(capsys):
    from modelscope_fastinst.studio.app import launch
    assert main(['studio', '--any-model', '--host', '0.0.0.0', '--no-browser']) == 1
    assert '--any-model' in capsys.readouterr().err
    with pytest.raises(ValueError, match='any_model'):
        launch(any_model=True, host='0.0.0.0')


def test_a_port_that_is_taken_is_an_error_in_a_line(capsys):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(['studio', '--port', str(port), '--no-browser', '--device', 'cpu']) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('error: ') and str(port) in error


def test_a_model_that_cannot_be_loaded_is_an_error_that_says_why(tmp_path, capsys):
    broken = tmp_path / 'broken'
    broken.mkdir()
    (broken / 'configuration.json').write_text('{"model": ')
    assert main(['studio', '--model', str(broken), '--no-browser', '--device', 'cpu']) == 1
    assert 'configuration.json' in capsys.readouterr().err.strip().splitlines()[-1]


def test_the_command_line_binds_to_this_machine_and_has_limits():
    arguments = build_parser().parse_args(['studio'])
    assert (arguments.host, arguments.port, arguments.any_model) == ('127.0.0.1', None, False)
    typed = ['studio', '--model', 'a', '--model', 'b/c', '--port', '0', '--max-pixels', '9']
    arguments = build_parser().parse_args(typed)
    assert (arguments.model, arguments.port, arguments.max_pixels) == (['a', 'b/c'], 0, 9)
    for port in ('65536', '-1', 'http'):
        with pytest.raises(SystemExit):
            build_parser().parse_args(['studio', f'--port={port}'])
