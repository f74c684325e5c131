"""What a request may be before Gradio sees it: which routes there are, how large and how slow an upload may be.

Gradio serves more than these pages use: a proxy for addresses of the network, recordings that it hands to ffmpeg, links
that leave files behind; and it takes a thousand files in one upload, each of the size that one may have, for as long as
a visitor likes to send them.
"""
from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Container
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

API = '/gradio_api/'
# What the pages call. A request to any other route of the API is answered with 404.
ROUTES = re.compile(r'(?:GET|HEAD) (?:file=(?!\w\w+:)|info\Z|app_id\Z|heartbeat/|queue/data\Z|upload_progress\Z|'
                    r'startup-events\Z|theme\.css\Z|login_check\Z)|'
                    r'POST (?:upload|queue/join|cancel|reset|run/predict)/?\Z')
# Of the rest, what is no page and no part of one.
CLOSED = re.compile(r'/(?:monitoring|dev|login|logout|proxy|svelte|pwa_icon|gradio_api/?\Z|gradio_api/deep_link)')
UPLOAD = API + 'upload'
LOOK_SECONDS = 5   # how often the room that is left is looked at
# Files that visitors gave us, and their results, show or play, and run nothing.
SANDBOX = (b'content-security-policy', b"sandbox; default-src 'none'; style-src 'unsafe-inline'")
NOSNIFF = (b'x-content-type-options', b'nosniff')

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Rejected(Exception):
    """A request that is answered by the guard: a status and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text
        super().__init__(text)


@dataclass
class GuardLimits:
    """How much a request may bring, and how long it may take.

    Attributes:
        upload_bytes: of one upload, all its files together.
        folder_bytes: of all uploads and shown results that are kept; the oldest go first.
        body_bytes: of any other request.
        uploads: at the same time; who comes then is turned away.
        connections: open requests of all visitors, of which every open page has one.
        idle_seconds: without a byte of an upload.
        seconds: for a whole upload.
    """
    upload_bytes: int = 200_000_000
    folder_bytes: int = 4_000_000_000
    body_bytes: int = 1_000_000
    uploads: int = 8
    connections: int = 500
    idle_seconds: float = 20
    seconds: float = 900


@dataclass
class Guard:
    """An ASGI application around another one.

    Attributes:
        app: what answers requests that pass.
        folder: where uploads lie.
        events: numbers of the events of the pages; None for any.
    """
    app: Callable[..., Awaitable[None]]
    folder: Path
    limits: GuardLimits = field(default_factory=GuardLimits)
    events: Container[int] | None = None
    _connections: int = 0
    _uploads: int = 0
    _next_look: float = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            if scope['type'] == 'websocket':   # nothing here speaks it
                await send({'type': 'websocket.close', 'code': 1008})
            else:
                await self.app(scope, receive, send)
            return
        path = _path(scope)
        upload = path.rstrip('/') == UPLOAD
        self._connections += 1
        self._uploads += upload
        answer = _Answer(send, path)
        try:
            self._check(scope, path, upload)
            if scope['method'] == 'POST':
                await self._make_room()
                receive = await self._read(receive, path, upload)
            await self.app(scope, receive, answer)
        except Rejected as refusal:
            if answer.begun:   # the connection ends with half an answer
                raise
            await _refuse(send, refusal)
        finally:
            self._connections -= 1
            self._uploads -= upload
            if upload and not self._uploads:
                await asyncio.to_thread(remove_unfinished, self.folder)

    def _check(self, scope: Message, path: str, upload: bool) -> None:
        method = scope['method']
        if method not in ('GET', 'HEAD', 'POST', 'OPTIONS'):
            raise Rejected(405, 'Method not allowed.')
        if method != 'OPTIONS' and not _is_open(method, path):
            raise Rejected(404, 'Not found.')
        if self._connections > self.limits.connections:
            raise Rejected(503, 'Too many visitors. Try again in a moment.')
        if upload and self._uploads > self.limits.uploads:
            raise Rejected(503, 'Too many uploads at the same time. Try again in a moment.')
        length = dict(scope['headers']).get(b'content-length', b'0')
        if not length.isdigit():
            raise Rejected(400, 'Content-Length is no number.')
        if int(length) > self._most(upload):
            raise Rejected(413, 'The upload is too large.')

    def _most(self, upload: bool) -> int:
        # A form has a few lines around its file.
        return self.limits.upload_bytes + 10_000 if upload else self.limits.body_bytes

    async def _make_room(self) -> None:
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            await asyncio.to_thread(remove_oldest, self.folder, self.limits.folder_bytes)

    async def _read(self, receive: Receive, path: str, upload: bool) -> Receive:
        """What the application reads the request's body from."""
        counted = _Counted(receive, self._most(upload), self.limits.idle_seconds, self.limits.seconds)
        if upload:
            return counted
        body = bytearray()
        more = True
        while more:
            message = await counted()
            if message['type'] != 'http.request':
                raise Rejected(400, 'The request was cut off.')
            body += message.get('body', b'')
            more = message.get('more_body', False)
        if path.startswith(API):
            content = _content(bytes(body))
            _check_files(content)
            if self.events is not None and path[len(API):].rstrip('/') in ('queue/join', 'run/predict'):
                _check_event(content, self.events)
        return _Replayed(bytes(body), receive)


class _Counted:
    """Hands a request's body on, and counts bytes and seconds."""

    def __init__(self, receive: Receive, most: int, idle: float, seconds: float) -> None:
        self._receive, self._left, self._idle, self._seconds = receive, most, idle, seconds
        self._end: float | None = None
        self._read = False

    async def __call__(self) -> Message:
        now = asyncio.get_running_loop().time()
        if self._end is None:
            self._end = now + self._seconds
        try:
            message = await asyncio.wait_for(self._receive(), None if self._read else
                                             min(self._idle, max(0.0, self._end - now)))
        except (asyncio.TimeoutError, TimeoutError):   # two classes before Python 3.11
            raise Rejected(408, 'The upload was too slow.') from None
        self._left -= len(message.get('body', b''))
        if self._left < 0:
            raise Rejected(413, 'The upload is too large.')
        if message['type'] == 'http.request' and not message.get('more_body', False):
            self._read = True   # what may still come is that the visitor leaves
        return message


class _Replayed:
    """A body that was read, and after it whatever else the connection says."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {'type': 'http.request', 'body': body, 'more_body': False}


class _Answer:
    """Hands an answer on, with headers that keep what visitors gave us from running in others' browsers."""

    def __init__(self, send: Send, path: str) -> None:
        self._send, self.begun = send, False
        self._headers = [NOSNIFF, SANDBOX] if path.startswith(API + 'file=') else [NOSNIFF]

    async def __call__(self, message: Message) -> None:
        if message['type'] == 'http.response.start':
            self.begun = True
            own = {name for name, _ in self._headers}
            kept = [(name, value) for name, value in message.get('headers', []) if name.lower() not in own]
            message = {**message, 'headers': [*kept, *self._headers]}
        await self._send(message)


def _path(scope: Message) -> str:
    """The path as the application's routes see it: without where a proxy has put the whole."""
    path, root = scope['path'], scope.get('root_path', '').rstrip('/')
    return path[len(root):] if root and path.startswith(root + '/') else path


def _is_open(method: str, path: str) -> bool:
    if CLOSED.match(path):
        return False
    if path.startswith(API):
        return ROUTES.match(f'{method} {path[len(API):]}') is not None
    return method in ('GET', 'HEAD')


def _content(body: bytes) -> Any:
    try:
        return json.loads(body) if body.strip() else None
    except (ValueError, RecursionError):
        raise Rejected(400, 'The request is no JSON.') from None


def _check_event(content: Any, events: Container[int]) -> None:
    """An event that a request names must be one of the pages': for another, Gradio's answer is a trace in the log."""
    number = content.get('fn_index') if isinstance(content, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number not in events:
        raise Rejected(400, 'There is no such event.')


def _check_files(content: Any) -> None:
    """A file that a request names must be one that is here: Gradio would fetch an address."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            name = value.get('path')
            if isinstance(name, str) and re.match(r'\s*[a-z][a-z0-9+.-]+:', name, re.IGNORECASE):
                raise Rejected(400, 'Files are uploaded, not named by their address.')
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def remove_oldest(folder: Path, most: int) -> None:
    """Removes the oldest files of a folder until the others have at most so many bytes."""
    files = []
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):   # gone meanwhile
                facts = os.lstat(file := os.path.join(place, name))
                files.append((facts.st_mtime, facts.st_size, file))
    left = sum(size for _, size, _ in files)
    for _, size, file in sorted(files):
        if left <= most:
            return
        with suppress(OSError):
            os.unlink(file)
            left -= size


def remove_unfinished(folder: Path) -> None:
    """Removes what uploads that were cut off have left: a finished one lies in a folder of its own."""
    with suppress(OSError):
        for file in os.scandir(folder):
            if file.is_file(follow_symlinks=False):
                with suppress(OSError):
                    os.unlink(file.path)


async def _refuse(send: Send, refusal: Rejected) -> None:
    body = json.dumps({'detail': refusal.text}).encode()
    headers = [(b'content-type', b'application/json'), (b'content-length', str(len(body)).encode()), NOSNIFF,
               (b'connection', b'close')]
    await send({'type': 'http.response.start', 'status': refusal.status, 'headers': headers})
    await send({'type': 'http.response.body', 'body': body})
