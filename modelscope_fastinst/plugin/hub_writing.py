"""Writing to ModelScope's hub: a repository, and one commit with which all files of a model arrive or none.

``HubApi.upload_folder`` is not used: it commits the files that arrived although others did not, so that a cut
connection can leave a new configuration beside old weights; and it makes a missing repository, a public one. The calls
of ModelScope's client that it consists of are used one by one instead (``HubApi.legacy``: ``validate_blobs``,
``upload_blob``, ``create_commit``).
"""
from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from .hub import ANSWER_SECONDS, DEFAULT_REVISION, HubError, first_line

# How long to wait before a call that failed for a passing reason is made again, and again.
RETRY_SECONDS = (1, 3)
VISIBILITIES = {'private': 1, 'public': 5}   # as the hub writes them


class HubRepository:
    """A model of a hub, to be written to.

    Args:
        model_id: owner/name.
        token: default ``MODELSCOPE_API_TOKEN``, or what "modelscope login" stored. It is sent to the hub, and goes into
            no file and no message.
        endpoint: the hub's address; default ModelScope's (``MODELSCOPE_ENDPOINT``).
        revision: the branch to write to; it must exist, unless it is the default one.

    Raises:
        HubError: there is no token, or the address is none.
    """

    def __init__(self, model_id: str, token: str | None = None, endpoint: str | None = None,
                 revision: str | None = None) -> None:
        from modelscope.hub.api import HubApi
        from modelscope_hub import HubApi as Client
        from modelscope_hub.config import get_default_config
        self.model_id = model_id
        self.revision = revision or DEFAULT_REVISION
        self._token = (token if token is not None else get_default_config().token or '').strip()
        if not self._token:
            raise HubError('the hub wants to know who publishes, and there is no token: set MODELSCOPE_API_TOKEN, or '
                           'run "modelscope login"; the hub shows your tokens under "access token" in your settings')
        self._client = Client(endpoint=endpoint, token=self._token)
        self.endpoint = self._client.legacy.endpoint
        _check_address(self.endpoint)
        # the first question is asked once, so that an unreachable hub is told at once
        self._first = HubApi(endpoint=self.endpoint, token=self._token, timeout=ANSWER_SECONDS, max_retries=0)

    @property
    def address(self) -> str:
        """The page of the model, for a browser."""
        return f'{self.endpoint}/models/{self.model_id}'

    def visibility(self) -> str | None:
        """'public', 'private' or 'internal'; 'unknown' where the hub does not say; None if there is no such model.

        Raises:
            HubError: the hub cannot be reached, refuses the token, or has no such branch.
        """
        from modelscope_hub.errors import NotExistError
        with self._told('be read'):
            try:
                info = self._first.legacy.get_repo_info(self.model_id, 'model')
            except NotExistError:
                return None
            if self.revision != DEFAULT_REVISION:
                self._check_branch()
        names = {**{number: name for name, number in VISIBILITIES.items()}, 3: 'internal'}
        return names.get(info.get('Visibility') if isinstance(info, Mapping) else None, 'unknown')

    def create(self, visibility: str, licence: str) -> None:
        """Makes the repository.

        Raises:
            HubError: the hub does not allow it.
        """
        if self.revision != DEFAULT_REVISION:
            raise HubError(f'{self.model_id}: is new on the hub, so it has no branch {self.revision!r} yet; publish it '
                           'without --revision first')
        with self._told('be made'):
            self._client.create_repo(self.model_id, 'model', visibility=visibility, license=licence)

    def files(self) -> dict[str, tuple[int, str | None]]:
        """Name -> size in bytes and SHA-256 (None where the hub does not say) of what is on the branch."""
        with self._told('be listed'):
            listed = self._patiently(lambda: self._client.list_repo_files(self.model_id, 'model',
                                                                          revision=self.revision))
        return {file.path: (file.size, (file.sha256 or '').lower() or None) for file in listed if file.type != 'tree'}

    def upload(self, files: Mapping[str, bytes | Path], sums: Mapping[str, tuple[int, str]], message: str) -> None:
        """Uploads files and commits them together: the branch has all of them afterwards, or is as it was.

        Args:
            files: content by name; a path for what is large and goes to the hub's store of large files.
            sums: size in bytes and SHA-256 of each.
            message: of the commit.

        Raises:
            HubError: an upload failed for good, or the hub refused one.
        """
        large = {name: content for name, content in files.items() if isinstance(content, Path)}
        objects = [{'oid': sums[name][1], 'size': sums[name][0]} for name in large]
        legacy = self._client.legacy
        wanted: dict[str, str | None] = {}
        if objects:
            with self._told('be written to'):
                wanted = self._patiently(lambda: legacy.validate_blobs(self.model_id, 'model', objects))
        for name, path in large.items():
            size, checksum = sums[name]
            if wanted.get(checksum):   # a blob that is not asked for is there already
                with self._told('be written to', name):
                    self._patiently(lambda path=path, size=size, url=wanted[checksum]: _put(legacy, url, path, size))
        actions = [_action(name, content, *sums[name]) for name, content in files.items()]
        with self._told('be written to'):
            self._patiently(lambda: legacy.create_commit(self.model_id, 'model', actions, message, self.revision))

    def verify(self, sums: Mapping[str, tuple[int, str]]) -> None:
        """Raises HubError unless the hub lists these files with these sizes and checksums."""
        for wait in (*RETRY_SECONDS, None):   # a hub may need a moment before it lists a commit
            listed = self.files()
            faults = list(filter(None, (_difference(name, sum_, listed) for name, sum_ in sums.items())))
            if not faults:
                return
            if wait is not None:
                time.sleep(wait)
        raise HubError(f'{self.model_id}: was uploaded, but the hub {self.endpoint} does not have what was sent: '
                       f'{"; ".join(faults)}; publish again')

    def _check_branch(self) -> None:
        branches, tags = self._first.get_model_branches_and_tags(self.model_id)
        if self.revision not in branches:
            kind = 'is a tag, which cannot be written to' if self.revision in tags else 'is no branch of it'
            raise HubError(f'{self.model_id}: {self.revision!r} {kind}; branches are {", ".join(branches)}')

    @staticmethod
    def _patiently(call: Callable[[], Any]) -> Any:
        for wait in RETRY_SECONDS:
            try:
                return call()
            except Exception as error:
                if not getattr(error, 'retryable', False):
                    raise
                time.sleep(wait)
        return call()

    @contextmanager
    def _told(self, doing: str, file: str = '') -> Iterator[None]:
        """Turns what the client raises into one line that says what to do."""
        from modelscope_hub import errors
        where = f'{self.model_id}{f": {file}" if file else ""}'
        try:
            yield
        except HubError:
            raise
        except (errors.HubError, OSError, json.JSONDecodeError) as error:
            reason = self._reason(error)
            if isinstance(error, ValueError) and not isinstance(error, errors.HubError):   # may be an OSError as well
                text = f'{where}: cannot {doing}: what answers at {self.endpoint} is no hub ({reason})'
            elif isinstance(error, errors.AuthenticationError):
                text = (f'the hub {self.endpoint} does not accept the token ({reason}); set MODELSCOPE_API_TOKEN to a '
                        'valid one, or run "modelscope login"')
            elif isinstance(error, errors.PermissionDeniedError):
                text = (f'{where}: may not {doing} with this token ({reason}); the owner must be you or an '
                        'organization in which you may write, and the token must allow writing')
            elif isinstance(error, errors.NotExistError):
                text = f'{where}: cannot {doing}: the hub {self.endpoint} does not know it ({reason})'
            elif isinstance(error, errors.APIError):
                text = f'{where}: cannot {doing}: the hub {self.endpoint} says: {reason}'
            else:
                text = (f'{where}: cannot {doing}: the connection to the hub {self.endpoint} failed ({reason}); what '
                        'was there before is as it was. Try again when it can be reached')
            raise HubError(text) from error

    def _reason(self, error: BaseException) -> str:
        while getattr(error, 'response_body', None) is None and (origin := error.__cause__ or error.__context__):
            error = origin
        return first_line(error, secret=self._token)


def _check_address(endpoint: str) -> None:
    try:
        host = urlparse(endpoint).hostname
    except ValueError:
        host = None
    if not host or ' ' in endpoint:
        raise HubError(f'{endpoint}: is no address of a hub; it must look like https://hub.example')


def _put(legacy: Any, url: str, path: Path, size: int) -> None:
    with path.open('rb') as stream:
        legacy.upload_blob(url, stream, size)


def _action(name: str, content: bytes | Path, size: int, checksum: str) -> dict[str, Any]:
    """A file of a commit, as ModelScope's client writes it."""
    if isinstance(content, Path):
        return {'action': 'create', 'path': name, 'type': 'lfs', 'size': size, 'sha256': checksum, 'content': '',
                'encoding': ''}
    return {'action': 'create', 'path': name, 'type': 'normal', 'size': size, 'sha256': '',
            'content': base64.b64encode(content).decode(), 'encoding': 'base64'}


def _difference(name: str, wanted: tuple[int, str], listed: Mapping[str, tuple[int, str | None]]) -> str | None:
    if name not in listed:
        return f'{name} is missing'
    size, checksum = listed[name]
    if size != wanted[0]:
        return f'{name} has {size} bytes, {wanted[0]} were sent'
    if checksum not in (None, wanted[1]):
        return f'{name} has another SHA-256'
    return None
