"""Files that are whole or absent, and known by their bytes: what the store is made of.

A new file is written beside its target and gets its name only when all of it is on disk. What a file's bytes say is
read once a process, for as long as the file stays the same.
"""

import errno
import fcntl
import functools
import hashlib
import importlib.util
import json
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

TRAILER = b"\nsha256 of all bytes before this line: %s\n"
TRAILER_BYTES = len(TRAILER % bytes(64))
CHUNK = 1 << 18  # bytes read at a time: two of them are in memory, which a partial read promises to be little
JUST_NOW_NS = 20_000_000  # a file that changes twice within a tick of the clock (10 ms) may keep its time
_HELD: set[int] = set()  # open files whose lock this process holds

Result = TypeVar("Result")


class StoreError(RuntimeError):
    """An entry that cannot be read or written; the message names the file and says what to do."""


@contextmanager
def atomic(target: Path, publish: Callable[..., Any] = os.replace, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file that becomes `target` if the block succeeds; if durable, it is then on the disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    file = _locked_part(target)
    part = Path(file.name)
    try:
        with file:
            yield file
            file.flush()
            if durable:
                to_disk(part)
            publish(part, target)
        if durable:
            to_disk(target.parent)
    finally:
        with suppress(OSError):
            part.unlink()


def to_disk(path: Path) -> None:
    """Wait until the disk has what was written to a file or folder."""
    number = os.open(path, os.O_RDONLY)
    os.fsync(number)
    os.close(number)


def content_hash(chunks: Iterable[bytes | memoryview]) -> str:
    """sha256 over the bytes of all chunks in order, in hexadecimal."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_digest(package: str) -> str:
    """sha256 over the names and bytes of all files of a package, or of a module's one file: which code this is."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    if spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations))).resolve()
        files = sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    else:
        files = [Path(str(spec.origin)).resolve()]
        folder = files[0].parent
    names = [(p.relative_to(folder).as_posix(), once(sha256_of, p)) for p in files]
    return content_hash([json.dumps(names).encode()])


def add_trailer(file: IO[bytes], target: Path) -> None:
    """End a file with the sha256 of what was written to it and of where it belongs, so that it vouches for itself."""
    file.flush()
    file.write(TRAILER % _own_sha256(sha256_of(Path(file.name)), target))


def _own_sha256(sha256: str, path: Path) -> bytes:
    """A file of the same bytes in another folder, or under another name, has another."""
    return content_hash([f"{path.parent.name}/{path.name} {sha256}".encode()]).encode()


def once(read: Callable[[Path], Result], path: Path) -> Result:
    """`read(path)`, remembered in this process for as long as the file is the same."""
    status = path.stat()
    if stat.S_ISFIFO(status.st_mode):  # whoever opens it waits for ever
        raise OSError(errno.EINVAL, "is no file", str(path))
    age = time.time_ns() - status.st_ctime_ns
    call = remembered.__wrapped__ if 0 <= age < JUST_NOW_NS else remembered
    return call(read, path, (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


@functools.lru_cache(maxsize=1 << 16)
def remembered(read: Callable[[Path], Any], path: Path, version: tuple[int, ...]) -> Any:
    """What `once` has read in this process."""
    return read(path)


def digests(path: Path) -> tuple[str, bool]:
    """sha256 of the whole file, and whether its trailer is that of the bytes before."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        body = os.fstat(file.fileno()).st_size - TRAILER_BYTES
        while chunk := file.read(max(0, min(CHUNK, body - file.tell()))):
            digest.update(chunk)
        trailer, own = file.read(), TRAILER % _own_sha256(digest.hexdigest(), path)
    digest.update(trailer)
    return digest.hexdigest(), trailer == own


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a file, or of a folder where these have one (on NFS they have none): whoever else asks waits."""
    number = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    _HELD.add(number)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if isinstance(error, BlockingIOError) or not path.is_dir():
                raise
        yield
    finally:
        if number in _HELD:  # a child that was forked meanwhile has closed its copy
            _HELD.remove(number)
            os.close(number)


def _let_go() -> None:
    """Close a forked child's copies of locks, with which it would hold them for longer than its parent."""
    while _HELD:
        os.close(_HELD.pop())


os.register_at_fork(after_in_child=_let_go)


def sweep(folder: Path) -> None:
    """Remove what killed writers left and what was set aside; a living writer holds the lock of its part."""
    for path in (*folder.glob(".*.part"), *folder.glob(".*.damaged")):
        with suppress(OSError), path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _locked_part(target: Path) -> IO[bytes]:
    """A new temporary file beside the target, locked for as long as its writer lives."""
    while True:
        file = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part").open("xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:  # else it was swept before it was locked
            return file
        file.close()
