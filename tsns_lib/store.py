"""Files that are whole or not there, and what is in them.

Shards: `.npy` files that are written whole, measured once, and read as their manifest describes them.

One array in the store, in a folder `<root>/<kind>/<sha256 of its identity>/` of shards.

It holds::

    identity.json   what the entry is, for people
    00000.npy ...   shards, concatenated along the first axis when read
    manifest.json   written last: sha256, shape and dtype of every shard, and free facts

A shard appears under its name only when it is whole and on disk, and it is written once: equal identities
mean equal content, so whichever of several writers comes first is as good as any other.

A content-addressed store of `.npy` shards: atomic, checksummed, resumable, never pickled.
"""

import functools
import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import platformdirs
from numpy.typing import ArrayLike, NDArray


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
    library = Path(__file__).resolve().parent
    files = sorted(p for p in library.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    names = [(p.relative_to(library).as_posix(), sha256_of(p)) for p in files]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


AGAIN = "run the step that writes it again"
DELETE = "delete this file and run again"

Positions = Sequence[int] | NDArray[np.integer[Any]]


class StoreError(RuntimeError):
    """An entry that cannot be read or written; the message names the file and says what to do."""


@dataclass(frozen=True)
class Shard:
    """One line of the manifest: what a shard has to be."""

    file: str
    sha256: str
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def measured(cls, path: Path) -> "Shard":
        """Describe a shard as it lies there."""
        array = _opened(path)
        return cls(path.name, sha256_of(path), array.shape, array.dtype.str)

    def opened(self, folder: Path, *, checksum: bool) -> NDArray[Any]:
        """Map the shard, of the shape and dtype that are promised; pages are read when they are touched.

        Raises
        ------
        StoreError
            If the file is missing, truncated, or not what the manifest says.
        """
        path = folder / self.file
        array = _opened(path)
        if (array.shape, array.dtype.str) != (self.shape, self.dtype):
            found = f"{array.dtype.str} {array.shape}, its manifest says {self.dtype} {self.shape}"
            raise StoreError(f"{path}: holds {found}; {DELETE}")
        if checksum and sha256_of(path) != self.sha256:
            raise StoreError(f"{path}: checksum differs from the manifest's; {DELETE}")
        return array


def shards_hash(shards: Sequence[Shard]) -> str:
    """sha256 over the shards' own: it changes when any byte of the array does."""
    return hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()


def read_manifest(path: Path, *, required: bool) -> tuple[list[Shard], dict[str, Any]]:
    """Shards and facts; empty where there is no manifest and none is required."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        shards = [Shard(**{**line, "shape": tuple(line["shape"])}) for line in content["shards"]]
        return shards, dict(content["facts"])
    except (FileNotFoundError, NotADirectoryError):
        if required:
            raise StoreError(f"{path}: no manifest, the entry is unfinished; {AGAIN}") from None
        return [], {}
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{path}: is not a manifest; {DELETE}") from None


def gather(
    folder: Path, shards: Sequence[Shard], rows: Positions | None, columns: Positions | None, *, checksum: bool
) -> NDArray[Any]:
    """Read rows and columns of concatenated shards, one mapped at a time; none without a wanted row is opened."""
    starts = np.cumsum([0, *(shard.shape[0] for shard in shards)])
    tail = shards[0].shape[1:]
    if rows is not None:
        rows = checked_positions("rows", rows, int(starts[-1]))
    if columns is not None:
        columns = checked_positions("columns", columns, tail[0] if tail else 0)
        tail = (len(columns), *tail[1:])
    out = np.empty((int(starts[-1]) if rows is None else len(rows), *tail), dtype=shards[0].dtype)
    for shard, start, stop in zip(shards, starts[:-1], starts[1:], strict=True):
        if rows is None:
            array = shard.opened(folder, checksum=checksum)
            out[start:stop] = array if columns is None else array[:, columns]
        elif len(here := np.flatnonzero((rows >= start) & (rows < stop))):
            array = shard.opened(folder, checksum=checksum)
            local = rows[here] - start
            out[here] = array[local] if columns is None else array[local[:, None], columns]
    return out


def checked_positions(name: str, values: Positions, size: int) -> NDArray[np.intp]:
    """Positions along an axis of `size`, or a ValueError that names the first one outside."""
    found = np.asarray(values)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise ValueError(f"{name}: expected a 1-D sequence of integers, got {found.dtype} {found.shape}")
    outside = found[(found < 0) | (found >= size)]
    if len(outside):
        raise ValueError(f"{name}: {outside[0]} is outside 0..{size - 1}")
    return found.astype(np.intp)


@contextmanager
def saved(target: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears whole under its name, or a StoreError that says why it cannot."""
    try:
        with atomic(target) as file:
            yield file
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"{target}: {reason}; make room or set TSNS_CACHE to another folder") from error


def _opened(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise StoreError(f"{path}: shard is missing; {AGAIN}") from None
    except (ValueError, EOFError, OSError) as error:
        raise StoreError(f"{path}: truncated or no .npy shard ({error}); {DELETE}") from None


FORMAT = 1
STALE_SECONDS = 3600.0


@dataclass(frozen=True)
class Entry:
    """One array in shards, on disk; made by `Store.entry`.

    A finished entry stands in for an array that is larger than memory: ``.shape``, ``.dtype`` and
    ``.read(rows=..., columns=...)`` are all that a computation on it needs. It pickles as its path, so another
    process on the same file system reads it too.
    """

    key: str
    path: Path
    identity: dict[str, Any]

    @classmethod
    def named(cls, root: Path, kind: str, identity: Mapping[str, Any]) -> "Entry":
        """Name an entry of a store's folder, as `Store.entry` describes it."""
        if not re.fullmatch(r"[a-z][a-z_]*", kind):
            raise ValueError(f"kind={kind!r}: expected a lower-case word such as 'activations'")
        try:
            named = {"kind": kind, "identity": dict(identity)}
            canonical = json.dumps(named, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"identity of {kind!r} is not plain JSON: {error}") from None
        key = hashlib.sha256(canonical.encode()).hexdigest()
        return cls(key, root / kind / key, dict(identity))

    def missing(self, n_shards: int) -> list[int]:
        """Indices below `n_shards` whose shard is not yet on disk, manifest or not."""
        return [index for index in range(n_shards) if not self._shard(index).exists()]

    def write(self, index: int, array: ArrayLike) -> None:
        """Write one shard durably; a shard that is already there is left as it is.

        Raises
        ------
        ValueError
            If the index is negative, or the array has no first axis or holds Python objects.
        StoreError
            If the disk refuses.
        """
        values = np.asarray(array, order="C")
        if index < 0 or values.ndim == 0 or values.dtype.hasobject:
            raise ValueError(f"shard {index}: cannot store shape {values.shape}, dtype {values.dtype}")
        target = self._shard(index)
        if target.exists():
            return
        # A lost shard that comes back may differ in its last bits: the old promise no longer holds.
        if index < len(self._manifest()[0]):
            self._manifest_path.unlink(missing_ok=True)
        if not (self.path / "identity.json").exists():
            with saved(self.path / "identity.json") as file:
                file.write(json.dumps(self.identity, indent=2, sort_keys=True).encode() + b"\n")
        with saved(target) as file:
            np.save(file, values, allow_pickle=False)

    def finish(self, n_shards: int, **facts: Any) -> None:
        """Write the manifest over the first `n_shards` shards; a later call with more extends it.

        Raises
        ------
        StoreError
            If a shard is missing, truncated, or of another dtype or row shape than the first.
        """
        if n_shards < 1:
            raise ValueError(f"n_shards={n_shards}: an entry has at least one shard")
        known, _ = self._manifest()
        shards = known + [Shard.measured(self._shard(index)) for index in range(len(known), n_shards)]
        first = shards[0]
        for shard in shards:
            if (shard.dtype, shard.shape[1:]) != (first.dtype, first.shape[1:]):
                found = f"{shard.dtype} {shard.shape}, the first shard {first.dtype} {first.shape}"
                raise StoreError(f"{self.path / shard.file}: holds {found}; delete the folder and run again")
        content = {"format": FORMAT, "shards": [vars(shard) for shard in shards], "facts": facts}
        with saved(self._manifest_path) as file:
            file.write(json.dumps(content, indent=1).encode() + b"\n")
        self._sweep()

    def is_finished(self, n_shards: int) -> bool:
        """Whether the manifest covers `n_shards` shards and all of them are there."""
        return len(self._manifest()[0]) >= n_shards and not self.missing(n_shards)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array that the manifest lists."""
        shards, _ = self._manifest(required=True)
        return sum(shard.shape[0] for shard in shards), *shards[0].shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """What `read` gives."""
        shards, _ = self._manifest(required=True)
        return np.dtype(shards[0].dtype)

    def facts(self) -> dict[str, Any]:
        """The facts given to `finish`."""
        return self._manifest(required=True)[1]

    def read(
        self, n_shards: int | None = None, *, rows: Positions | None = None, columns: Positions | None = None
    ) -> NDArray[Any]:
        """Read the array, or some of its rows and columns, one shard at a time.

        Memory peaks at the output and twice the part of one shard that is read: its pages, and a copy in order.

        Parameters
        ----------
        n_shards : int, optional
            Only the first shards. Default: all that the manifest lists.
        rows, columns : 1-D integers, optional
            Positions in any order along the first and second axis. Checksums are verified when neither is
            given (each shard is then read whole); the shape and dtype of each shard that is opened always.

        Returns
        -------
        ndarray
            Shape (rows, ...), the shards' dtype.

        Raises
        ------
        StoreError
            No manifest, or a shard that is missing, truncated, altered, or of another shape or dtype.
        ValueError
            If `rows` or `columns` are not integers within the array.
        """
        listed, _ = self._manifest(required=True)
        if n_shards is not None and not 1 <= n_shards <= len(listed):
            raise StoreError(f"{self._manifest_path}: lists {len(listed)} shards, not {n_shards}; {AGAIN}")
        return gather(self.path, listed[:n_shards], rows, columns, checksum=rows is None and columns is None)

    def columns(self, numbers: Positions) -> NDArray[Any]:
        """Read some columns of all rows, from a small entry of their own where they were read before.

        The first call verifies and reads every shard and stores the columns as an entry of kind ``"columns"`` in
        the same store; every later one, also of another process, reads that. An entry whose bytes have changed is
        read anew.

        Parameters
        ----------
        numbers : 1-D integers
            Positions along the second axis, in any order.

        Returns
        -------
        ndarray
            Shape (n, len(numbers), ...), equal to ``read(columns=numbers)``.

        Raises
        ------
        StoreError, ValueError
            As `read`.
        """
        shards, _ = self._manifest(required=True)
        chosen = checked_positions("columns", numbers, shards[0].shape[1] if len(shards[0].shape) > 1 else 0)
        identity = {
            "entry": self.key,
            "content": shards_hash(shards),
            "n_columns": len(chosen),
            "columns": hashlib.sha256(chosen.astype("<i8").tobytes()).hexdigest(),
        }
        own = Entry.named(self.path.parents[1], "columns", identity)
        if not own.is_finished(len(shards)):
            for index in own.missing(len(shards)):
                own.write(index, gather(self.path, [shards[index]], None, chosen, checksum=True))
            own.finish(len(shards))
        return own.read()

    @property
    def _manifest_path(self) -> Path:
        return self.path / "manifest.json"

    def _shard(self, index: int) -> Path:
        return self.path / f"{index:05d}.npy"

    def _manifest(self, *, required: bool = False) -> tuple[list[Shard], dict[str, Any]]:
        return read_manifest(self._manifest_path, required=required)

    def _sweep(self) -> None:
        """Remove what killed writers left; living ones take seconds, not an hour."""
        for part in self.path.glob(".*.part"):
            with suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > STALE_SECONDS:
                    part.unlink()


__all__ = ["Entry", "Store", "StoreError"]


class Store:
    """The folder that holds all entries.

    Parameters
    ----------
    root : path, optional
        Default: the environment variable ``TSNS_CACHE``, else the user's cache folder.

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
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        chosen = root or os.environ.get("TSNS_CACHE") or platformdirs.user_cache_path("tsns")
        self.root = Path(chosen).expanduser().absolute()

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def entry(self, kind: str, identity: Mapping[str, Any]) -> Entry:
        """Name the entry of one content; nothing is written yet.

        Parameters
        ----------
        kind : str
            A folder below the root, such as ``"activations"`` or ``"importance"``.
        identity : mapping
            JSON values that determine every byte: hashes, parameters, seeds; no file name, no time.

        Raises
        ------
        ValueError
            If `kind` is no simple word or `identity` is not JSON.
        """
        return Entry.named(self.root, kind, identity)
