"""From a model id to a folder: the snapshot in ModelScope's cache, without a network call when it is complete.

ModelScope's client downloads; what this file adds is the word *complete*. The client takes any folder that is not empty
for a cached model, also one that holds a configuration and half of the weights. So a record lies beside every snapshot
that was downloaded here, out of reach of what a hub sends: it is begun before the first byte, and finished after every
file was found to have the size and the SHA-256 that the hub lists. A snapshot without a record was downloaded by
ModelScope alone; it counts as complete if its configuration can be read, its weight file ends where it says, and no
partial file lies in it. So does one that ModelScope fetched anew after its record was written.
"""
from __future__ import annotations

import json
import os
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from modelscope_fastinst.checksum import file_sha256

DEFAULT_REVISION = 'master'
# The first question to a hub is asked once and waits this long, so that a machine without network is told so at once.
# ModelScope's own patience (five retries) holds for everything after it.
ANSWER_SECONDS = 10
# A process that waits longer than this for another one's download says so.
SILENT_SECONDS = 2

_MODEL_ID = re.compile(r'[\w-][\w.-]*/[\w-][\w.-]*', re.ASCII)
# A mistyped path to such a file is a mistyped path, not a question to the hub.
_FILE_SUFFIXES = ('.pth', '.pt', '.bin', '.pkl', '.ckpt', '.safetensors', '.json', '.yaml', '.yml')
_PARTIAL_SUFFIXES = ('.incomplete', '.parallel_tmp')   # of files that ModelScope's client has not finished


class HubError(OSError):
    """A model of a hub cannot be had: one line that says which, why, and what to do."""


def has_form_of_id(text: str) -> bool:
    """Whether a text has the form owner/name and does not end as the file name of weights or a configuration does."""
    return _MODEL_ID.fullmatch(text) is not None and not text.lower().endswith(_FILE_SUFFIXES)


def is_model_id(text: str) -> bool:
    """Whether a text is a model id of the form owner/name: there is no such file or folder on this machine."""
    return has_form_of_id(text) and not os.path.exists(text)


def model_directory(model: str | os.PathLike, revision: str | None = None, *,
                    cache_dir: str | os.PathLike | None = None) -> str:
    """The folder of a model that is given as a folder or as an id of ModelScope's hub.

    A complete snapshot in the cache is taken without asking the hub, so a revision that moves (a branch) stays what it
    was when it was downloaded. To have what the branch is now, run ``modelscope download --model ID``, which fetches
    what has changed into the same folder; or delete that folder, and the model is downloaded and verified here again.
    A model that is not in the cache is downloaded, continuing an interrupted download, and verified. Processes that
    ask for the same model at once download it once.

    Args:
        model: folder, or id of the form owner/name.
        revision: branch, tag or commit; None for 'master'. Of a folder it says nothing.
        cache_dir: instead of ModelScope's cache (``MODELSCOPE_CACHE``).

    Raises:
        FileNotFoundError: neither a folder nor of the form of an id.
        HubError: the model is not in the cache and cannot be downloaded, or what was downloaded is damaged.
    """
    model = os.fspath(model)
    if os.path.isdir(model):
        return model
    if not is_model_id(model):
        found = 'it is a file' if os.path.exists(model) else 'no such file or folder'
        raise FileNotFoundError(f'{model}: is no model folder ({found}), nor a model id of the form owner/name')
    return cached_directory(model, revision, cache_dir=cache_dir) or _downloaded(model, _checked(revision), cache_dir)


def cached_directory(model_id: str, revision: str | None = None, *,
                     cache_dir: str | os.PathLike | None = None) -> str | None:
    """The complete snapshot of exactly this revision in the cache, or None. Asks no hub and writes nothing."""
    folder = snapshot_folder(model_id, revision, cache_dir=cache_dir)
    return str(folder) if is_complete(folder) else None


def snapshot_folder(model_id: str, revision: str | None = None, *,
                    cache_dir: str | os.PathLike | None = None) -> Path:
    """Where a revision lies in the cache, or would lie; it need not exist or be complete."""
    from modelscope.hub.snapshot_download import snapshot_download
    from modelscope_hub.config import get_default_config
    from modelscope_hub.errors import CacheNotFound
    revision = _checked(revision)
    base = Path(cache_dir) if cache_dir is not None else get_default_config().cache_dir
    folder = base / 'models' / model_id.replace('/', '--') / 'snapshots' / revision
    if revision != DEFAULT_REVISION or folder.is_dir():
        return folder
    # ModelScope also knows where its releases before 1.38 put models. These folders do not say which revision they
    # hold, so they stand for none but the default one.
    try:
        return Path(snapshot_download(model_id, revision=revision, cache_dir=cache_dir, local_files_only=True))
    except CacheNotFound:
        return folder


def is_complete(folder: Path) -> bool:
    """Whether a snapshot holds everything that the hub listed, judged without reading the files through."""
    record = _read_record(folder)
    if record is None:
        return _looks_complete(folder)
    if record.get('complete') is not True:
        return False
    present = {name: (folder / name).stat() for name in record['files'] if (folder / name).is_file()}
    missing = len(present) < len(record['files'])
    changed = {name for name, stat in present.items() if stat.st_size != record['files'][name]['size']}
    if not missing and not changed:
        return True
    # ModelScope may have fetched the branch anew since, into the same folder or, if that was deleted, into a new one
    # that lacks what the branch no longer has
    written = record_file(folder).stat().st_mtime_ns
    older = {name for name, stat in present.items() if stat.st_mtime_ns < written}
    return not changed & older and not (missing and older) and _looks_complete(folder)


def _looks_complete(folder: Path) -> bool:
    """Whether a snapshot of which no record says what belongs to it has a configuration and whole weights."""
    from modelscope_fastinst.checkpoints.formats import CheckpointError
    from modelscope_fastinst.checkpoints.reading import INDEX_FILES, WEIGHT_FILES, shards

    from .huggingface import is_huggingface_folder
    if not isinstance(read_json(folder / 'configuration.json'), Mapping) and not is_huggingface_folder(folder):
        return False
    if any(file.name.endswith(_PARTIAL_SUFFIXES) for file in folder.rglob('*')):
        return False
    weights = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
    try:
        weights += [file for name in INDEX_FILES if (folder / name).is_file() for file in shards(folder / name)]
    except CheckpointError:   # a piece is missing
        return False
    return bool(weights) and all(_ends_where_it_says(file) for file in weights)


def record_file(folder: Path) -> Path:
    """Where the record of a snapshot lies: id, revision, hub, and every file's size in bytes and SHA-256."""
    return folder.with_name(f'.{folder.name}.fastinst.json')


def read_json(file: Path) -> Any:
    """The content of a JSON file; None if there is no such file or it is not JSON."""
    try:
        return json.loads(file.read_text('utf-8'))
    except (OSError, ValueError):
        return None


def first_line(error: BaseException, secret: str = '') -> str:
    """What an exception of ModelScope's client or of the system says, in one line of at most 200 characters.

    ``secret`` does not appear in it, nor does a part of it.
    """
    text = str(getattr(error, 'message', None) or error)
    lines = (text.replace(secret, '***') if secret else text).splitlines()
    return (lines or [''])[0][:200] or type(error).__name__


def advice(model_id: str, revision: str) -> str:
    """What to do about a model that is not in the cache where there is no network."""
    pinned = '' if revision == DEFAULT_REVISION else f' --revision {revision}'
    folder = model_id.rpartition('/')[2]
    return (f'run "modelscope download --model {model_id}{pinned} --local_dir {folder}" where there is a network, copy '
            f'the folder {folder} here, and give that folder instead of the id')


def _checked(revision: str | None) -> str:
    revision = revision or DEFAULT_REVISION
    path = PurePosixPath(revision)
    if path.is_absolute() or '..' in path.parts or '\\' in revision:
        raise HubError(f'{revision!r}: is no revision; give a branch, a tag or a commit')
    return revision


def _read_record(folder: Path) -> Mapping[str, Any] | None:
    """The record of a snapshot; None if it has none, a record of nothing complete if it cannot be read."""
    if not record_file(folder).is_file():
        return None
    record = read_json(record_file(folder))
    return record if isinstance(record, Mapping) and isinstance(record.get('files'), Mapping) else {'files': {}}


def _ends_where_it_says(file: Path) -> bool:
    """Whether a weight file is as long as its header says, or has the end that its format wants."""
    if file.suffix != '.safetensors':
        with file.open('rb') as stream:
            # an old pickle without an archive around it has no length to compare with
            return stream.read(2)[:1] == b'\x80' or zipfile.is_zipfile(file)
    try:
        with file.open('rb') as stream:
            length = struct.unpack('<Q', stream.read(8))[0]
            if length > file.stat().st_size:
                return False
            header = json.loads(stream.read(length))
        end = max((entry['data_offsets'][1] for name, entry in header.items() if name != '__metadata__'), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error):
        return False
    return file.stat().st_size == 8 + length + end


def _downloaded(model_id: str, revision: str, cache_dir: str | os.PathLike | None) -> str:
    """Downloads and verifies a revision; gives its folder."""
    from modelscope.hub.snapshot_download import snapshot_download
    folder = snapshot_folder(model_id, revision, cache_dir=cache_dir)
    where = f'{model_id} (revision {revision})'
    endpoint, listed = _list_files(model_id, revision, folder)
    try:
        with _one_at_a_time(folder, where):
            if is_complete(folder):   # another process was faster
                return str(folder)
            former = (_read_record(folder) or {'files': {}})['files']
            _write_record(folder, model_id, revision, endpoint, listed, complete=False)
            snapshot_download(model_id, revision=revision, cache_dir=cache_dir, local_dir=str(folder),
                              endpoint=endpoint)
            for name in set(former) - set(listed):   # of an interrupted download of what the branch was then
                (folder / name).unlink(missing_ok=True)
            _verify(folder, listed, f'{where} from {endpoint}')
            _write_record(folder, model_id, revision, endpoint, listed, complete=True)
    except HubError:
        raise
    except Exception as error:
        if not _is_of_the_client(error):
            raise
        raise HubError(f'{where} could not be downloaded from {endpoint}: {_reason(error)}; {_mend(error)}') from error
    return str(folder)


def _list_files(model_id: str, revision: str, folder: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """The hub's address, and size in bytes and SHA-256 (None where the hub does not say) of every file."""
    from modelscope_hub import HubApi as Client
    from modelscope_hub.errors import AuthenticationError, NotExistError, PermissionDeniedError
    where = f'{model_id} (revision {revision})'
    endpoint = _first_address()
    names: list[str] = []
    try:
        try:
            names = _list_revisions(model_id, endpoint)
        except NotExistError:   # it may be at ModelScope's other site, if the user did not choose one
            if (other := Client().resolve_endpoint_for_read(model_id)) == endpoint:
                raise
            endpoint = other
            names = _list_revisions(model_id, endpoint)
        listed = Client(endpoint=endpoint).list_repo_files(model_id, 'model', revision=revision)
    except NotExistError as error:
        if names:
            raise HubError(f'{model_id}: the hub {endpoint} has no revision {revision!r} of it; it has '
                           f'{", ".join(names)}') from error
        raise HubError(f'{model_id}: is no folder here, and the hub {endpoint} has no such model, or it is private and '
                       'MODELSCOPE_API_TOKEN is not set; check the spelling') from error
    except (AuthenticationError, PermissionDeniedError) as error:
        raise HubError(f'{where}: the hub {endpoint} refuses it ({_reason(error)}); log in with "modelscope login" or '
                       'set MODELSCOPE_API_TOKEN') from error
    except Exception as error:
        if not _is_of_the_client(error):
            raise
        raise HubError(f'{where} is no folder here and not complete in the cache{_other_revisions(folder)}, and the '
                       f'hub {endpoint} cannot be reached ({_reason(error)}); {advice(model_id, revision)}') from error
    files = {file.path: {'size': file.size, 'sha256': (file.sha256 or '').lower() or None}
             for file in listed if file.type != 'tree'}
    for name in files:
        if PurePosixPath(name).is_absolute() or '..' in PurePosixPath(name).parts or '\\' in name or not name:
            raise HubError(f'{where}: the hub {endpoint} lists a file {name!r} that lies outside of the model; '
                           'nothing was downloaded')
    if not files:
        raise HubError(f'{where}: the hub {endpoint} lists no files of it'
                       f'{f"; it has the revisions {names}" if names else ""}')
    return endpoint, files


def _first_address() -> str:
    """The hub that is asked first, as ModelScope's client chooses it."""
    from modelscope_hub.config import get_default_config
    from modelscope_hub.constants import DEFAULT_ENDPOINT, DEFAULT_INTL_ENDPOINT
    endpoint = get_default_config().endpoint
    abroad = os.environ.get('MODELSCOPE_PREFER_AI_SITE', '').lower() in ('1', 'true', 'yes', 'on')
    return DEFAULT_INTL_ENDPOINT if abroad and endpoint == DEFAULT_ENDPOINT else endpoint


def _list_revisions(model_id: str, endpoint: str) -> list[str]:
    """Branches and tags of a model, asked once and without patience: whether there is a network shows here."""
    from modelscope.hub.api import HubApi
    branches, tags = HubApi(endpoint=endpoint, timeout=ANSWER_SECONDS,
                            max_retries=0).get_model_branches_and_tags(model_id)
    return [*branches, *tags]


def _other_revisions(folder: Path) -> str:
    if folder.parent.name != 'snapshots':
        return ''
    others = sorted(path.name for path in folder.parent.glob('*') if path != folder and is_complete(path))
    return f' (which holds the revision {", ".join(others)})' if others else ''


@contextmanager
def _one_at_a_time(folder: Path, name: str) -> Iterator[None]:
    """Holds other processes that want the same snapshot until this one is done with it."""
    from filelock import FileLock, Timeout
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f'.{folder.name}.lock')
    try:
        lock.acquire(timeout=SILENT_SECONDS)
    except Timeout:
        from modelscope.utils.logger import get_logger
        get_logger().warning(f'waiting for another process that downloads {name}')
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _verify(folder: Path, listed: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Raises HubError, and removes the file, if one is missing or differs from what the hub lists."""
    for name, expected in listed.items():
        file = folder / name
        if not file.is_file():
            raise HubError(f'{where}: the hub lists {name}, but it was not downloaded; start again')
        size, checksum = file.stat().st_size, file_sha256(file)
        for what, found, wanted in (('bytes', size, expected['size'] or size),
                                    ('SHA-256', checksum, expected['sha256'] or checksum)):
            if found != wanted:
                file.unlink()
                raise HubError(f'{where}: {name} is damaged: {what} {found}, but the hub lists {wanted}; it was '
                               'removed; start again, and tell the owner of the model if that does not help')


def _write_record(folder: Path, model_id: str, revision: str, endpoint: str, files: Mapping[str, Any],
                  complete: bool) -> None:
    from modelscope_fastinst.checkpoints.writing import write_whole
    folder.mkdir(parents=True, exist_ok=True)
    if complete:   # the sizes to compare with later; a hub need not list them
        files = {name: {**file, 'size': (folder / name).stat().st_size} for name, file in files.items()}
    record = {'model': model_id, 'revision': revision, 'endpoint': endpoint, 'complete': complete, 'files': files}
    write_whole(record_file(folder), (json.dumps(record, indent=1) + '\n').encode())


def _is_of_the_client(error: Exception) -> bool:
    """Whether an exception is one of ModelScope's client, of the network, of the disc, or of an answer not in JSON."""
    from modelscope_hub.errors import HubError as ClientError
    return isinstance(error, (ClientError, OSError, json.JSONDecodeError))


def _reason(error: BaseException) -> str:
    """The cause in one line; for a download the first file that failed."""
    failed = getattr(error, 'failed_files', None)
    if failed:
        name, cause = next(iter(failed.items()))
        more = f', and {len(failed) - 1} more files' if len(failed) > 1 else ''
        return f'{name}: {_reason(cause)}{more}'
    while (origin := error.__cause__ or error.__context__) is not None:   # wrappers around what the system said
        error = origin
    return first_line(error)


def _mend(error: BaseException) -> str:
    """What is to be done about a failed download, by the kind of the failure."""
    import errno

    from modelscope_hub.errors import FileIntegrityError
    causes = [error, *getattr(error, 'failed_files', {}).values()]
    codes = {cause.errno for cause in causes if isinstance(cause, OSError)}
    if codes & {errno.ENOSPC, errno.EDQUOT}:
        return 'make room on the disc, or set MODELSCOPE_CACHE to a folder on another one'
    if codes & {errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR}:
        return 'the cache cannot be written: set MODELSCOPE_CACHE to a folder that can'
    if any(isinstance(cause, FileIntegrityError) for cause in causes):
        return 'the file is not the one that the hub lists: try again later, and tell the owner of the model'
    return 'start again; what arrived is kept, and the download continues there'
