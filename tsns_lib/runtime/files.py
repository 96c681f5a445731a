"""Files that are whole or not there, and what is in them."""

import functools
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def atomic(target: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that becomes `target`, durably, if the block succeeds."""
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
        folder = os.open(target.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    finally:
        with suppress(OSError):
            part.unlink()


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def library_sha256() -> str:
    """sha256 over the names and bytes of all files of `tsns_lib`: which code this is."""
    library = Path(__file__).resolve().parents[1]
    files = sorted(p for p in library.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    names = [(p.relative_to(library).as_posix(), sha256_of(p)) for p in files]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()
