"""A ModelScope hub on the loopback interface: enough of it to resolve and download models; read only."""
from __future__ import annotations

import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Hub:
    """A running hub.

    Models are the folders ``root/<owner>/<name>``, their other revisions ``root/<owner>/<name>@<revision>``.

    Attributes:
        address: 'http://127.0.0.1:<port>'.
        requests: 'GET /path?query' of everything that was asked, in order.
        faults: file name -> 'cut' (the connection closes in mid-file), 'cut once' (the first time only), or 'wrong
            checksum' (in the listing).
    """
    root: Path
    address: str = ''
    requests: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)

    def environment(self, cache: Path) -> dict[str, str]:
        """What a process has in its environment to use this hub and a cache of its own."""
        return {'MODELSCOPE_ENDPOINT': self.address, 'MODELSCOPE_CACHE': str(cache),
                'MODELSCOPE_HOME': str(cache / 'home'), 'MODELSCOPE_API_TOKEN': ''}


class Handler(BaseHTTPRequestHandler):
    """Answers what ModelScope's client asks of a hub; subclasses add routes in ``route``."""
    protocol_version = 'HTTP/1.1'
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Requests are kept in ``hub.requests``, not printed."""

    def handle_request(self) -> None:
        url = urllib.parse.urlparse(self.path)
        self.hub.requests.append(f'{self.command} {self.path}')
        self.body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        self.route(self.command, url.path.strip('/').split('/'), dict(urllib.parse.parse_qsl(url.query)))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request

    def route(self, method: str, parts: list[str], query: dict[str, str]) -> None:
        """Answers one request; its body is in ``self.body``."""
        if method not in ('GET', 'HEAD'):
            return self.missing()
        if parts[0] == 'files':
            return self.send_file(self.hub.root, '/'.join(parts[1:]))
        for prefix, answer in ((['openapi', 'v1', 'models'], self._open_api), (['api', 'v1', 'models'], self._api)):
            if parts[:3] == prefix and len(parts) >= 5 and (self.hub.root / parts[3] / parts[4]).is_dir():
                return answer(*parts[3:5], parts[5:], query)
        return self.missing()

    def _open_api(self, owner: str, name: str, *_: Any) -> None:
        self.send_json({'success': True, 'data': {'id': f'{owner}/{name}', 'owner': owner, 'name': name,
                                                  'repo_type': 'model', 'visibility': 5}})

    def _api(self, owner: str, name: str, rest: list[str], query: dict[str, str]) -> None:
        revision = query.get('Revision', 'master')
        folder = self.hub.root / owner / (name if revision == 'master' else f'{name}@{revision}')
        if rest == ['repo', 'files'] and folder.is_dir():
            self.send_json({'Code': 200, 'Success': True, 'Data': {'Files': [
                self._record(folder, path) for path in sorted(folder.rglob('*')) if path.is_file()]}})
        elif rest == ['repo']:
            self.send_file(folder, query.get('FilePath', ''))
        elif rest == ['revisions']:
            tags = [path.name.partition('@')[2] for path in sorted(folder.parent.glob(f'{name}@*'))]
            self.send_json({'Code': 200, 'Success': True, 'Data': {'RevisionMap': {
                'Branches': [{'Revision': 'master', 'CreatedAt': 1}],
                'Tags': [{'Revision': tag, 'CreatedAt': 1} for tag in tags]}}})
        elif not rest:
            self.send_json({'Code': 200, 'Success': True, 'Data': {'Owner': owner, 'Name': name, 'Path': owner}})
        else:
            self.missing()

    def _record(self, folder: Path, path: Path) -> dict[str, Any]:
        content = path.read_bytes()
        checksum = hashlib.sha256(content).hexdigest()
        if self.hub.faults.get(path.name) == 'wrong checksum':
            checksum = checksum[::-1]
        return {'Name': path.name, 'Path': path.relative_to(folder).as_posix(), 'Type': 'blob', 'Size': len(content),
                'Sha256': checksum, 'Revision': 'master'}

    def send_file(self, folder: Path, name: str) -> None:
        path = (folder / urllib.parse.unquote(name)).resolve()
        if folder.resolve() not in path.parents or not path.is_file():
            return self.missing()
        content, start = path.read_bytes(), 0
        wanted = self.headers.get('Range', '')
        if wanted.startswith('bytes='):
            start = int(wanted.removeprefix('bytes=').partition('-')[0])
        headers = {'Content-Range': f'bytes {start}-{len(content) - 1}/{len(content)}'} if start else {}
        fault = self.hub.faults.get(path.name, '')
        if fault == 'cut once':
            del self.hub.faults[path.name]
        return self.answer(206 if start else 200, content[start:], 'application/octet-stream', headers,
                           cut=fault.startswith('cut'))

    def missing(self) -> None:
        self.send_json({'Code': 404, 'Success': False, 'success': False, 'Message': 'not found'}, 404)

    def send_json(self, body: dict, code: int = 200) -> None:
        self.answer(code, json.dumps(body).encode(), 'application/json')

    def answer(self, code: int, body: bytes, content_type: str, headers: dict[str, str] | None = None,
               cut: bool = False) -> None:
        """Sends an answer; ``cut`` closes the connection after half of the body."""
        self.send_response(code)
        for name, value in {'Content-Type': content_type, 'Content-Length': str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body[:len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut


@contextmanager
def serve(root: Path, handler: type[Handler] = Handler) -> Iterator[Hub]:
    """Serves the models below ``root``, and its files as ``/files/...``."""
    hub = Hub(root)
    server = ThreadingHTTPServer(('127.0.0.1', 0), type('HubHandler', (handler,), {'hub': hub}))
    server.daemon_threads = True
    hub.address = f'http://127.0.0.1:{server.server_address[1]}'
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
