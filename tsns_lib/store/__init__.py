"""A content-addressed store of `.npy` shards: atomic, verified, resumable, never pickled.

An entry is one array in a folder `<root>/<kind>/<sha256 of its kind and identity>/`::

    identity.json   what the entry is, for people; a folder that it names is an entry, no other folder is
    00000.npy ...   shards; the array is their concatenation along the first axis; each ends with its own sha256
    manifest.json   written last: sha256, shape and dtype of every shard, free facts, and a sha256 of all these

A file appears under its name only when it is complete, and a shard is written once. What a manifest lists is on the
disk. Equal identities mean equal content, so it does not matter which of several writers comes first. Nothing is used
that was not verified: the manifest's sha256 of a shard counts, or else the shard's own. A damaged file is set aside
and is missing from then on.
"""

import copy
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock, Timeout
from numpy.typing import ArrayLike, NDArray

from tsns_lib import validation
from tsns_lib.store import files
from tsns_lib.store.files import StoreError, atomic, code_digest, content_hash, once, sha256_of, sweep
from tsns_lib.store.manifest import NO_MANIFEST, Shard, manifest_fault, mapped, plain, promises, write_manifest

__all__ = ["Entry", "Store", "StoreError", "atomic", "code_digest", "content_hash", "sha256_of", "sweep"]

log = logging.getLogger(__name__)

RUN_AGAIN = "run the step that writes it again"
NO_SHARD = "shard is missing"
NOT_DAMAGED = ("", NO_SHARD, NO_MANIFEST)

Positions = Sequence[int] | NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Entry:
    """One array in shards, on disk; made by `Store.entry`.

    A finished entry stands in for an array that is larger than memory: ``.shape``, ``.dtype`` and
    ``.read(rows=..., columns=...)`` are all that a computation on it needs. It pickles as its path, so another
    process on the same file system reads it too. `key` is the sha256 of kind and identity, and names the folder `path`.
    A process verifies each shard once, whatever part of it is read, for as long as the file stays the same.
    """

    key: str
    path: Path
    identity: dict[str, Any]

    @property
    def kind(self) -> str:
        """The kind given to `Store.entry`."""
        return self.path.parent.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array, as the manifest lists it."""
        shards = self._finished()
        return sum(shard.shape[0] for shard in shards), *shards[0].shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the array that `read` returns."""
        return np.dtype(self._finished()[0].dtype)

    def facts(self) -> dict[str, Any]:
        """The facts given to `finish`."""
        return copy.deepcopy(self._manifest(required=True)[1])

    def missing(self, n_shards: int) -> list[int]:
        """Indices below `n_shards` whose shard has to be written: it is not there, or it was damaged and set aside."""
        return [index for index in range(n_shards) if self._fault(self._shard_path(index))]

    def is_finished(self, n_shards: int) -> bool:
        """Whether the manifest covers `n_shards` shards and all of them are there and sound."""
        return len(self._manifest()[0]) >= n_shards and not self.missing(n_shards)

    def claim(self) -> None:
        """Make the folder, with its identity in it: whoever writes own files into it makes it an entry by this."""
        path = self.path / "identity.json"
        with _refusing(path):
            if self.is_claimed():
                return
            if path.exists():
                log.warning("%s: is not what was written; it is written again", path)
            with atomic(path) as file:
                file.write(self._claim)

    def is_claimed(self) -> bool:
        """Whether the folder is there and says that it is this entry's."""
        path = self.path / "identity.json"
        return path.exists() and path.read_bytes() == self._claim

    @property
    def _claim(self) -> bytes:
        return json.dumps(self.identity, indent=2, sort_keys=True).encode() + b"\n"

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Compute what is missing here: whoever else wants it waits, and then reads it, and `remove` leaves it."""
        self.claim()
        with files.locked(self.path):
            yield

    def write(self, index: int, array: ArrayLike) -> None:
        """Write one shard: an array of numbers with a first axis. A sound one is left; `finish` waits for the disk."""
        values = np.asarray(array, order="C")
        if index < 0 or values.ndim == 0 or values.dtype.hasobject:
            raise ValueError(f"shard {index}: cannot store shape {values.shape}, dtype {values.dtype}")
        target = self._shard_path(index)
        if not self._fault(target):
            return
        self.claim()
        sweep(self.path)
        with _refusing(target), atomic(target, self._publish, durable=False) as file:
            np.save(file, values, allow_pickle=False)
            files.add_trailer(file, target)

    def finish(self, n_shards: int, **facts: Any) -> None:
        """Write the manifest over the first `n_shards` shards; a later call with more shards extends it.

        A StoreError names a shard that is missing, damaged, or of another dtype or row shape than the first.
        """
        if n_shards < 1:
            raise ValueError(f"n_shards={n_shards}: an entry has at least one shard")
        with _refusing(self._manifest_path), self._lock():
            listed, _ = self._listed()
            unlisted = [self._shard_path(index) for index in range(len(listed), n_shards)]
            for path in unlisted:
                if fault := self._shard_fault(path):
                    raise StoreError(f"{path}: {fault}; {RUN_AGAIN}")
                files.to_disk(path)
            if n_shards >= len(listed):  # else another writer has promised more
                write_manifest(self._manifest_path, [*listed.values(), *map(Shard.measured, unlisted)], facts)
        sweep(self.path)

    def read(
        self, n_shards: int | None = None, *, rows: Positions | None = None, columns: Positions | None = None
    ) -> NDArray[Any]:
        """Read the array, or its first `n_shards` shards, or some rows and columns of these, one shard at a time.

        `rows` and `columns` are positions in any order along the first and second axis. Memory peaks at the output and
        twice what is read from one shard: its pages, and a sorted copy. A StoreError says that there is no manifest, or
        names a shard that is missing or damaged; a ValueError names the position that is outside.
        """
        listed = self._finished()
        if n_shards is not None and not 1 <= n_shards <= len(listed):
            raise StoreError(f"{self._manifest_path}: lists {len(listed)} shards, not {n_shards}; {RUN_AGAIN}")
        return self._gather(listed[:n_shards], rows, columns)

    def columns(self, numbers: Positions) -> NDArray[Any]:
        """Read some columns of all rows, as ``read(columns=numbers)``, and keep them as an entry of kind "columns".

        Every later call, also of another process, reads that small entry. When the bytes of the large entry have
        changed, its columns are read again. In a store that cannot be written nothing is kept.
        """
        shards = self._finished()
        chosen = _checked_positions("columns", numbers, shards[0].shape[1] if len(shards[0].shape) > 1 else 0)
        identity = {
            "entry": self.key,
            "content": content_hash(shard.sha256.encode() for shard in shards),
            "n_columns": len(chosen),
            "columns": content_hash([chosen.astype("<i8").tobytes()]),
        }
        root = self.path.parents[1]
        small = Store(root).entry("columns", identity)
        if not small.is_finished(len(shards)):
            for index in small.missing(len(shards)):
                part = self._gather([shards[index]], None, chosen)
                with suppress(StoreError):  # where it cannot be written
                    small.write(index, part)
            with suppress(StoreError):
                small.finish(len(shards))
            if not small.is_finished(len(shards)):
                return self._gather(shards, None, chosen)
        return small.read()

    def verify(self) -> list[str]:
        """Read all shards and the manifest again and name what is damaged; nothing is changed."""
        files.remembered.cache_clear()
        paths = {self.path / name for name in self._listed()[0]} | set(self.path.glob("[0-9]*.npy"))
        faults = {self._manifest_path: manifest_fault(self._manifest_path)}
        faults |= {path: self._shard_fault(path) for path in sorted(paths)}
        return [f"{path}: {fault}" for path, fault in faults.items() if fault not in ("", NO_MANIFEST)]

    def size(self) -> int:
        """Bytes of all files in its folder; a file that vanishes meanwhile counts nothing."""
        total = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                with suppress(FileNotFoundError):
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total

    def last_used(self) -> float:
        """When a process last began to use it or wrote its identity, in seconds since 1970."""
        return (self.path / "identity.json").stat().st_mtime

    def remove(self) -> bool:
        """Delete the folder, its identity last, so that what a kill leaves is an entry; False while it is computed."""
        try:
            with FileLock(self.path / ".lock", timeout=0), files.locked(self.path, wait=False):  # of a training
                for path in self.path.iterdir():
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    elif path.name != "identity.json":
                        path.unlink()
                shutil.rmtree(self.path.resolve())
                self.path.unlink(missing_ok=True)  # a link, where it was moved to another disk
        except (Timeout, BlockingIOError):
            return False
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be removed ({error.strerror})") from error
        return True

    @property
    def _manifest_path(self) -> Path:
        return self.path / "manifest.json"

    def _shard_path(self, index: int) -> Path:
        return self.path / f"{index:05d}.npy"

    def _finished(self) -> list[Shard]:
        return [*self._manifest(required=True)[0].values()]

    def _manifest(self, *, required: bool = False) -> tuple[dict[str, Shard], dict[str, Any]]:
        """Shards by file name, and facts; both are empty where there is no sound manifest and none is required."""
        fault = self._checked(self._manifest_path, manifest_fault)
        listed = self._listed()
        if required and not listed[0]:
            raise StoreError(f"{self._manifest_path}: {fault or NO_MANIFEST}; {RUN_AGAIN}")
        if listed[0] and self.path not in _USED:
            _USED.add(self.path)
            with suppress(OSError, StoreError):
                self.claim()
                os.utime(self.path / "identity.json")
        return listed

    def _listed(self) -> tuple[dict[str, Shard], dict[str, Any]]:
        """What the manifest says now, if it is sound."""
        try:
            return once(promises, self._manifest_path)
        except (OSError, ValueError):
            return {}, {}

    def _fault(self, path: Path) -> str:
        """What is wrong with a shard; nothing ("") if it is sound."""
        return self._checked(path, self._shard_fault)

    def _shard_fault(self, path: Path) -> str:
        """`_fault`, and nothing is set aside."""
        promise = self._listed()[0].get(path.name)
        try:
            sha256, vouches_for_itself = once(files.digests, path)
        except (FileNotFoundError, NotADirectoryError):
            return NO_SHARD
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        if promise is None:
            return "" if vouches_for_itself else "neither a manifest nor its own checksum confirms it"
        return "" if sha256 == promise.sha256 else "checksum differs from the manifest's"

    def _checked(self, path: Path, judge: Callable[[Path], str]) -> str:
        """What is wrong with a file; a damaged one is set aside, so that it is missing for whoever can write it again.

        It is judged again under the lock, as another process may have put a new file in its place meanwhile.
        """
        fault = judge(path)
        if fault in NOT_DAMAGED:
            return fault
        with suppress(OSError, StoreError), self._lock():  # a store that cannot be written keeps the file
            fault = judge(path)
            if fault not in NOT_DAMAGED:
                os.rename(path, path.with_name(f".{path.name}.{uuid.uuid4().hex}.damaged"))
        if fault not in NOT_DAMAGED:
            log.warning("%s: %s; it is not used and has to be written again", path, fault)
        return fault

    def _publish(self, part: Path, target: Path) -> None:
        """Give a shard its name, unless another writer has; a manifest that lists it lists the new one from now on."""
        with self._lock():
            if not self._shard_fault(target):
                return
            os.replace(part, target)
            listed, facts = self._listed()
            if target.name in listed:  # a lost shard that is computed again may differ in its last bits
                files.to_disk(target)
                write_manifest(self._manifest_path, [*(listed | {target.name: Shard.measured(target)}).values()], facts)

    def _gather(self, shards: Sequence[Shard], rows: Positions | None, columns: Positions | None) -> NDArray[Any]:
        """Read rows and columns of concatenated shards; one shard is mapped at a time, and only if a row is wanted."""
        starts = np.cumsum([0, *(shard.shape[0] for shard in shards)])
        tail = shards[0].shape[1:]
        if rows is not None:
            rows = _checked_positions("rows", rows, int(starts[-1]))
        if columns is not None:
            columns = _checked_positions("columns", columns, tail[0] if tail else 0)
            tail = (len(columns), *tail[1:])
        out = np.empty((int(starts[-1]) if rows is None else len(rows), *tail), dtype=shards[0].dtype)
        for shard, start, stop in zip(shards, starts[:-1], starts[1:], strict=True):
            if rows is None:
                array = self._opened(shard)
                out[start:stop] = array if columns is None else array[:, columns]
                continue
            here = np.flatnonzero((rows >= start) & (rows < stop))
            if len(here):
                array, local = self._opened(shard), rows[here] - start
                out[here] = array[local] if columns is None else array[local[:, None], columns]
        return out

    def _opened(self, shard: Shard) -> NDArray[Any]:
        """Map a sound shard into memory, where a page is read when it is touched, or say what is wrong with it."""
        path = self.path / shard.file
        if fault := self._fault(path):
            raise StoreError(f"{path}: {fault}; {RUN_AGAIN}")
        return mapped(path)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Let one writer at a time change what the folder promises; no lock file is left behind."""
        self.claim()
        with files.locked(self.path / "identity.json"):
            yield


class Store:
    """The folder that holds all entries: a path, another Store, or by default that of ``TSNS_CACHE`` or of the user.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> store = Store(tempfile.mkdtemp())
    >>> entry = store.entry("importance", {"forest": "toy", "seed": 0})
    >>> entry.missing(2)
    [0, 1]
    >>> entry.write(0, np.eye(2))
    >>> entry.write(1, np.ones((1, 2)))
    >>> entry.finish(2, note="three rows")
    >>> entry.read(rows=[2, 0], columns=[1])
    array([[1.],
           [0.]])
    >>> entry.shape, entry.columns([0]).tolist()
    ((3, 2), [[1.0], [0.0], [1.0]])
    >>> [each.kind for each in store.entries()], entry.verify()
    (['importance', 'columns'], [])
    """

    def __init__(self, root: "Store | str | os.PathLike[str] | None" = None) -> None:
        if not isinstance(root, Store | str | os.PathLike | None):
            raise ValueError(f"store: must be a Store or a path, got {type(root).__name__} {root!r}")
        if isinstance(root, Store):
            root = root.root
        folder = root or os.environ.get("TSNS_CACHE") or platformdirs.user_cache_path("tsns")
        self.root: Path = validation.path("store", folder).absolute()

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def entry(self, kind: str, identity: Mapping[str, Any]) -> Entry:
        """Name the entry of one content; nothing is written yet.

        `kind` is a folder below the root, such as "activations". `identity` holds JSON values that determine every
        byte: hashes, parameters, seeds; no file name, no time. Integers and booleans of numpy are those of Python.
        """
        if not re.fullmatch(r"[a-z][a-z_]*", kind):
            raise ValueError(f"kind={kind!r}: expected a lower-case word such as 'activations'")
        try:
            named = {"kind": kind, "identity": plain(dict(identity))}
            canonical = json.dumps(named, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"identity of {kind!r} is not plain JSON: {error}") from None
        key = content_hash([canonical.encode()])
        return Entry(key, self.root / kind / key, named["identity"])

    def entries(self) -> list[Entry]:
        """Every entry on disk, the one first that was last used longest ago.

        Only a folder counts whose name is the sha256 of its kind and its identity.json: no other folder is ours.
        """
        found = []
        for path in self.root.glob("*/" + 64 * "[0-9a-f]"):
            with suppress(OSError, TypeError, ValueError, RecursionError):
                entry = self.entry(path.parent.name, json.loads((path / "identity.json").read_bytes()))
                if entry.path == path:
                    found.append((entry.last_used(), entry))
        return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]


_USED: set[Path] = set()  # entries that this process has marked as used


@contextmanager
def _refusing(target: Path) -> Iterator[None]:
    """A StoreError where the disk refuses."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or f"cannot be written whole, the disk may be full ({error})"
        raise StoreError(f"{target}: {reason}; make room or set TSNS_CACHE to another folder") from error


def _checked_positions(name: str, values: Positions, size: int) -> NDArray[np.intp]:
    """Positions along an axis of `size`, or a ValueError that names the first one outside."""
    positions = np.asarray(values)
    if positions.ndim != 1 or (positions.size and positions.dtype.kind not in "iu"):
        raise ValueError(f"{name}: expected a 1-D sequence of integers, got {positions.dtype} {positions.shape}")
    outside = positions[(positions < 0) | (positions >= size)]
    if len(outside):
        raise ValueError(f"{name}: {outside[0]} is outside 0..{size - 1}")
    return positions.astype(np.intp)
