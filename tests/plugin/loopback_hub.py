"""A ModelScope hub on the loopback interface: enough of it to resolve and download models; read only."""
from __future__ import annotations

import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    root: Path

    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get('Content-Length') or 0))
        self._missing()

    do_PUT = do_POST

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urllib.parse.urlparse(self.path)
        parts = url.path.strip('/').split('/')
        if parts[0] == 'files':
            return self._file(self.root, '/'.join(parts[1:]))
        for prefix, answer in ((['openapi', 'v1', 'models'], self._open_api), (['api', 'v1', 'models'], self._api)):
            if parts[:3] == prefix and len(parts) >= 5 and (self.root / parts[3] / parts[4]).is_dir():
                return answer(*parts[3:5], parts[5:], dict(urllib.parse.parse_qsl(url.query)))
        return self._missing()

    def _open_api(self, owner: str, name: str, *_: Any) -> None:
        self._json({'success': True, 'data': {'id': f'{owner}/{name}', 'owner': owner, 'name': name,
                                              'repo_type': 'model', 'visibility': 5}})

    def _api(self, owner: str, name: str, rest: list[str], query: dict[str, str]) -> None:
        folder = self.root / owner / name
        if rest == ['repo', 'files']:
            self._json({'Code': 200, 'Success': True, 'Data': {'Files': [_record(folder, path) for path in
                                                                         sorted(folder.rglob('*')) if path.is_file()]}})
        elif rest == ['repo']:
            self._file(folder, query.get('FilePath', ''))
        elif rest == ['revisions']:
            self._json({'Code': 200, 'Success': True, 'Data': {'RevisionMap': {
                'Branches': [{'Revision': 'master', 'CreatedAt': 1}], 'Tags': []}}})
        elif not rest:
            self._json({'Code': 200, 'Success': True, 'Data': {'Owner': owner, 'Name': name, 'Path': owner}})
        else:
            self._missing()

    def _file(self, folder: Path, name: str) -> None:
        path = (folder / urllib.parse.unquote(name)).resolve()
        if folder.resolve() not in path.parents or not path.is_file():
            return self._missing()
        return self._answer(200, path.read_bytes(), 'application/octet-stream')

    def _missing(self) -> None:
        self._json({'Code': 404, 'Success': False, 'success': False, 'Message': 'not found'}, 404)

    def _json(self, body: dict, code: int = 200) -> None:
        self._answer(code, json.dumps(body).encode(), 'application/json')

    def _answer(self, code: int, body: bytes, content_type: str) -> None:
        self.send_response(code)
        self.send_header('Content-Type', content_type)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)


def _record(folder: Path, path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {'Name': path.name, 'Path': path.relative_to(folder).as_posix(), 'Type': 'blob', 'Size': len(content),
            'Sha256': hashlib.sha256(content).hexdigest(), 'Revision': 'master'}


@contextmanager
def serve(root: Path) -> Iterator[str]:
    """Serves the models ``root/<owner>/<name>/...``, and files below ``root`` as ``/files/...``; gives the address."""
    handler = type('Handler', (_Handler,), {'root': root})
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_address[1]}'
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
