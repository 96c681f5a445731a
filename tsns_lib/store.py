"""A content-addressed store of `.npy` shards: atomic, checksummed, resumable, never pickled.

An entry is one array in a folder `<root>/<kind>/<sha256 of its identity>/`::

    identity.json   what the entry is, for people
    00000.npy ...   shards; the array is their concatenation along the first axis
    manifest.json   written last: sha256, shape and dtype of every shard, and free facts

A file appears under its name only when it is complete and on disk, and a shard is written once. Equal identities mean
equal content, so it does not matter which of several writers comes first.
"""

import functools
import hashlib
import importlib.util
import json
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import platformdirs
from numpy.typing import ArrayLike, NDArray

FORMAT = 1
STALE_SECONDS = 3600.0  # a temporary file of this age belongs to a writer that was killed
RUN_AGAIN = "run the step that writes it again"
DELETE = "delete this file and run again"

Positions = Sequence[int] | NDArray[np.integer[Any]]


class StoreError(RuntimeError):
    """An entry that cannot be read or written; the message names the file and says what to do."""


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


@functools.cache
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
    names = [(p.relative_to(folder).as_posix(), sha256_of(p)) for p in files]
    return content_hash([json.dumps(names).encode()])


@dataclass(frozen=True)
class Shard:
    """One line of the manifest: what a shard has to be."""

    file: str
    sha256: str
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def measured(cls, path: Path) -> "Shard":
        """Describe the shard that lies at a path."""
        array = _mapped(path)
        return cls(path.name, sha256_of(path), array.shape, array.dtype.str)

    def opened(self, folder: Path, *, checksum: bool) -> NDArray[Any]:
        """Map the shard into memory, where a page is read when it is touched, or say how it breaks its promise."""
        path = folder / self.file
        array = _mapped(path)
        if (array.shape, array.dtype.str) != (self.shape, self.dtype):
            difference = f"{array.dtype.str} {array.shape}, its manifest says {self.dtype} {self.shape}"
            raise StoreError(f"{path}: holds {difference}; {DELETE}")
        if checksum and sha256_of(path) != self.sha256:
            raise StoreError(f"{path}: checksum differs from the manifest's; {DELETE}")
        return array


@dataclass(frozen=True)
class Entry:
    """One array in shards, on disk; made by `Store.entry`.

    A finished entry stands in for an array that is larger than memory: ``.shape``, ``.dtype`` and
    ``.read(rows=..., columns=...)`` are all that a computation on it needs. It pickles as its path, so another
    process on the same file system reads it too. `key` is the sha256 of kind and identity, and names the folder `path`.
    """

    key: str
    path: Path
    identity: dict[str, Any]

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
        return self._manifest(required=True)[1]

    def missing(self, n_shards: int) -> list[int]:
        """Indices below `n_shards` whose shard is not yet on disk, whether or not a manifest lists it."""
        return [index for index in range(n_shards) if not self._shard_path(index).exists()]

    def is_finished(self, n_shards: int) -> bool:
        """Whether the manifest covers `n_shards` shards and all of them are there."""
        return len(self._manifest()[0]) >= n_shards and not self.missing(n_shards)

    def write(self, index: int, array: ArrayLike) -> None:
        """Write one shard durably: an array of numbers with a first axis. A shard that is there is left as it is."""
        values = np.asarray(array, order="C")
        if index < 0 or values.ndim == 0 or values.dtype.hasobject:
            raise ValueError(f"shard {index}: cannot store shape {values.shape}, dtype {values.dtype}")
        target = self._shard_path(index)
        if target.exists():
            return
        # A lost shard that is computed again may differ in its last bits: the manifest's checksum no longer holds.
        if index < len(self._manifest()[0]):
            self._manifest_path.unlink(missing_ok=True)
        if not (self.path / "identity.json").exists():
            with _saved(self.path / "identity.json") as file:
                file.write(json.dumps(self.identity, indent=2, sort_keys=True).encode() + b"\n")
        with _saved(target) as file:
            np.save(file, values, allow_pickle=False)

    def finish(self, n_shards: int, **facts: Any) -> None:
        """Write the manifest over the first `n_shards` shards; a later call with more shards extends it.

        A StoreError names a shard that is missing, truncated, or of another dtype or row shape than the first.
        """
        if n_shards < 1:
            raise ValueError(f"n_shards={n_shards}: an entry has at least one shard")
        listed, _ = self._manifest()
        shards = listed + [Shard.measured(self._shard_path(index)) for index in range(len(listed), n_shards)]
        first = shards[0]
        for shard in shards:
            if (shard.dtype, shard.shape[1:]) != (first.dtype, first.shape[1:]):
                difference = f"{shard.dtype} {shard.shape}, the first shard {first.dtype} {first.shape}"
                raise StoreError(f"{self.path / shard.file}: holds {difference}; delete the folder and run again")
        content = {"format": FORMAT, "shards": [vars(shard) for shard in shards], "facts": facts}
        with _saved(self._manifest_path) as file:
            file.write(json.dumps(content, indent=1).encode() + b"\n")
        self._sweep()

    def read(
        self, n_shards: int | None = None, *, rows: Positions | None = None, columns: Positions | None = None
    ) -> NDArray[Any]:
        """Read the array, or some of its rows and columns, one shard at a time.

        Memory peaks at the output and twice the rows and columns read from one shard: its pages, and a sorted copy.

        Parameters
        ----------
        n_shards : int, optional
            Only the first shards. Default: all that the manifest lists.
        rows, columns : 1-D integers, optional
            Positions in any order along the first and second axis. Checksums are verified when neither is
            given (each shard is then read completely); the shape and dtype of each opened shard are always verified.

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
        listed = self._finished()
        if n_shards is not None and not 1 <= n_shards <= len(listed):
            raise StoreError(f"{self._manifest_path}: lists {len(listed)} shards, not {n_shards}; {RUN_AGAIN}")
        return self._gather(listed[:n_shards], rows, columns, checksum=rows is None and columns is None)

    def columns(self, numbers: Positions) -> NDArray[Any]:
        """Read some columns of all rows, and keep them in the store as a small entry.

        The first call verifies and reads every shard and stores the columns as an entry of kind ``"columns"``. Every
        later call, also of another process, reads that entry. When the bytes of the large entry have changed, its
        columns are read again.

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
        shards = self._finished()
        chosen = _checked_positions("columns", numbers, shards[0].shape[1] if len(shards[0].shape) > 1 else 0)
        identity = {
            "entry": self.key,
            "content": content_hash(shard.sha256.encode() for shard in shards),
            "n_columns": len(chosen),
            "columns": content_hash([chosen.astype("<i8").tobytes()]),
        }
        small = Store(self.path.parents[1]).entry("columns", identity)
        if not small.is_finished(len(shards)):
            for index in small.missing(len(shards)):
                small.write(index, self._gather([shards[index]], None, chosen, checksum=True))
            small.finish(len(shards))
        return small.read()

    @property
    def _manifest_path(self) -> Path:
        return self.path / "manifest.json"

    def _shard_path(self, index: int) -> Path:
        return self.path / f"{index:05d}.npy"

    def _finished(self) -> list[Shard]:
        return self._manifest(required=True)[0]

    def _manifest(self, *, required: bool = False) -> tuple[list[Shard], dict[str, Any]]:
        """Shards and facts; both are empty where there is no manifest and none is required."""
        path = self._manifest_path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            shards = [Shard(**{**line, "shape": tuple(line["shape"])}) for line in content["shards"]]
            return shards, dict(content["facts"])
        except (FileNotFoundError, NotADirectoryError):
            if required:
                raise StoreError(f"{path}: no manifest, the entry is unfinished; {RUN_AGAIN}") from None
            return [], {}
        except (ValueError, KeyError, TypeError):
            raise StoreError(f"{path}: is not a manifest; {DELETE}") from None

    def _gather(
        self, shards: Sequence[Shard], rows: Positions | None, columns: Positions | None, *, checksum: bool
    ) -> NDArray[Any]:
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
                array = shard.opened(self.path, checksum=checksum)
                out[start:stop] = array if columns is None else array[:, columns]
                continue
            here = np.flatnonzero((rows >= start) & (rows < stop))
            if len(here):
                array, local = shard.opened(self.path, checksum=checksum), rows[here] - start
                out[here] = array[local] if columns is None else array[local[:, None], columns]
        return out

    def _sweep(self) -> None:
        """Remove what killed writers left behind; a living writer needs seconds, not an hour."""
        for part in self.path.glob(".*.part"):
            with suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > STALE_SECONDS:
                    part.unlink()


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
        folder = root or os.environ.get("TSNS_CACHE") or platformdirs.user_cache_path("tsns")
        self.root = Path(folder).expanduser().absolute()

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
            If `kind` is not a simple word or `identity` is not JSON.
        """
        if not re.fullmatch(r"[a-z][a-z_]*", kind):
            raise ValueError(f"kind={kind!r}: expected a lower-case word such as 'activations'")
        try:
            named = {"kind": kind, "identity": dict(identity)}
            canonical = json.dumps(named, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"identity of {kind!r} is not plain JSON: {error}") from None
        key = content_hash([canonical.encode()])
        return Entry(key, self.root / kind / key, dict(identity))


@contextmanager
def _saved(target: Path) -> Iterator[IO[bytes]]:
    """`atomic`, with a StoreError where the disk refuses."""
    try:
        with atomic(target) as file:
            yield file
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"{target}: {reason}; make room or set TSNS_CACHE to another folder") from error


def _mapped(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise StoreError(f"{path}: shard is missing; {RUN_AGAIN}") from None
    except (ValueError, EOFError, OSError) as error:
        raise StoreError(f"{path}: truncated or no .npy shard ({error}); {DELETE}") from None


def _checked_positions(name: str, values: Positions, size: int) -> NDArray[np.intp]:
    """Positions along an axis of `size`, or a ValueError that names the first one outside."""
    positions = np.asarray(values)
    if positions.ndim != 1 or (positions.size and positions.dtype.kind not in "iu"):
        raise ValueError(f"{name}: expected a 1-D sequence of integers, got {positions.dtype} {positions.shape}")
    outside = positions[(positions < 0) | (positions >= size)]
    if len(outside):
        raise ValueError(f"{name}: {outside[0]} is outside 0..{size - 1}")
    return positions.astype(np.intp)
