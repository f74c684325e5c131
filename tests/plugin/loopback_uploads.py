"""The loopback hub with the calls by which ModelScope's client makes a model and writes to it."""
from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from tests.plugin.loopback_hub import Handler, Hub

TOKEN = 'ms-0123-a-token-of-the-loopback-hub'
OWNERS = ('me', 'my-name', 'my-organization')   # under which the token may write


def visibilities(hub: Hub) -> dict[str, int]:
    """What was asked for each model that was made: 1 private, 5 public."""
    return hub.__dict__.setdefault('visibilities', {})


def commits(hub: Hub) -> list[dict[str, Any]]:
    """Of every commit: model, branch, message, and the names of its files."""
    return hub.__dict__.setdefault('commits', [])


class UploadHandler(Handler):
    """Takes models from whoever has ``TOKEN``, and serves them below ``hub.root``.

    Blobs lie in ``root/.blobs`` until a commit names them. ``hub.faults``: 'upload' -> 'cut' or 'cut once' (the
    connection closes after half of a blob), 'commit' -> the same (before anything is written) or 'refused'.
    """

    def handle_request(self) -> None:
        if self.command == 'PUT' and self._cut('upload'):
            self.hub.requests.append(f'{self.command} {self.path}')
            self.rfile.read(int(self.headers['Content-Length']) // 2)
            self.close_connection = True
            return None
        return super().handle_request()

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def route(self, method: str, parts: list[str], query: dict[str, str]) -> None:
        if not self._token_accepted():
            return self.send_json({'Code': 10010205001, 'Success': False, 'Message': 'invalid access token'}, 401)
        if method == 'POST' and parts == ['api', 'v1', 'models']:
            return self._make(json.loads(self.body))
        if method == 'PUT' and parts[0] == 'blobs':
            return self._store(parts[1])
        if method == 'POST' and parts[:4] == ['api', 'v1', 'repos', 'models'] and len(parts) >= 7:
            owner, name, rest = parts[4], parts[5], parts[6:]
            if not (self.hub.root / owner / name).is_dir():
                return self.missing()
            if owner not in OWNERS:
                return self._forbidden()
            if rest == ['info', 'lfs', 'objects', 'batch']:
                return self._batch(json.loads(self.body)['objects'])
            if rest[0] == 'commit':
                return self._commit(owner, name, '/'.join(rest[1:]), json.loads(self.body))
        return super().route(method, parts, query)

    def _token_accepted(self) -> bool:
        """Anybody may read, but a wrong token is refused everywhere."""
        given = self.headers.get('Authorization', '')
        return given == f'Bearer {TOKEN}' or not given and self.command in ('GET', 'HEAD')

    def _cut(self, what: str) -> bool:
        fault = self.hub.faults.get(what, '')
        if fault == 'cut once':
            del self.hub.faults[what]
        return fault.startswith('cut')

    def _forbidden(self) -> None:
        self.send_json({'Code': 10010101403, 'Success': False, 'Message': 'no permission'}, 403)

    def _make(self, asked: dict[str, Any]) -> None:
        owner, name = asked['Path'], asked['Name']
        if owner not in OWNERS:
            return self._forbidden()
        if (self.hub.root / owner / name).is_dir():
            return self.send_json({'Code': 10010101001, 'Success': False, 'Message': 'model already exists'}, 400)
        visibilities(self.hub)[f'{owner}/{name}'] = asked['Visibility']
        (self.hub.root / owner / name).mkdir(parents=True)
        # the hub's own first commit
        (self.hub.root / owner / name / 'README.md').write_text(f'---\nlicense: {asked["License"]}\n---\n', 'utf-8')
        return self.send_json({'Code': 200, 'Success': True, 'Data': {'Id': 1, 'Path': owner, 'Name': name}})

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        wanted = [{'oid': entry['oid'], 'size': entry['size'],
                   'actions': {'upload': {'href': f'{self.hub.address}/blobs/{entry["oid"]}'}}}
                  for entry in objects if not self._blob(entry['oid']).is_file()]
        self.send_json({'Code': 200, 'Success': True, 'Data': {'objects': wanted}})

    def _blob(self, checksum: str) -> Path:
        return self.hub.root / '.blobs' / checksum

    def _store(self, checksum: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != checksum:
            return self.send_json({'Code': 400, 'Success': False, 'Message': 'checksum mismatch'}, 400)
        self._blob(checksum).parent.mkdir(exist_ok=True)
        self._blob(checksum).write_bytes(self.body)
        return self.send_json({'Code': 200, 'Success': True})

    def _commit(self, owner: str, name: str, branch: str, asked: dict[str, Any]) -> None:
        if self._cut('commit'):
            self.close_connection = True
            return None
        if self.hub.faults.get('commit') == 'refused':
            return self.send_json({'Code': 400, 'Success': False, 'Message': 'the model is frozen'}, 400)
        folder = self.hub.root / owner / (name if branch == 'master' else f'{name}@{branch}')
        actions = asked['actions']
        if not folder.is_dir() or any(action['type'] == 'lfs' and not self._blob(action['sha256']).is_file()
                                      for action in actions):
            return self.missing()
        for action in actions:
            (folder / action['path']).parent.mkdir(parents=True, exist_ok=True)
            if action['type'] == 'lfs':
                shutil.copyfile(self._blob(action['sha256']), folder / action['path'])
            else:
                (folder / action['path']).write_bytes(base64.b64decode(action['content']))
        commits(self.hub).append({'model': f'{owner}/{name}', 'branch': branch, 'message': asked['commit_message'],
                                  'files': [action['path'] for action in actions]})
        return self.send_json({'Code': 200, 'Success': True, 'Data': {'commit_sha': '0' * 40}})

    def _api(self, owner: str, name: str, rest: list[str], query: dict[str, str]) -> None:
        if not rest and f'{owner}/{name}' in visibilities(self.hub):
            return self.send_json({'Code': 200, 'Success': True, 'Data': {
                'Owner': owner, 'Name': name, 'Path': owner,
                'Visibility': visibilities(self.hub)[f'{owner}/{name}']}})
        if rest == ['revisions']:   # what can be written to is a branch here, but for names that look like versions
            others = [path.name.partition('@')[2] for path in sorted((self.hub.root / owner).glob(f'{name}@*'))]
            return self.send_json({'Code': 200, 'Success': True, 'Data': {'RevisionMap': {
                'Branches': [{'Revision': other} for other in ['master', *others] if not other.startswith('v')],
                'Tags': [{'Revision': other} for other in others if other.startswith('v')]}}})
        return super()._api(owner, name, rest, query)
