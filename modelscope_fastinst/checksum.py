"""The checksum by which a file is known again."""
from __future__ import annotations

import hashlib
import os


def file_sha256(file: str | os.PathLike) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(file, 'rb') as stream:
        while part := stream.read(1 << 20):   # hashlib.file_digest() is there from Python 3.11 on
            digest.update(part)
    return digest.hexdigest()
