"""A content-addressed store of `.npy` shards: atomic, checksummed, resumable, never pickled.

One entry is one folder, `<root>/<kind>/<sha256 of its identity>/`::

    identity.json   what the entry is, for people
    00000.npy ...   shards, concatenated along the first axis when read
    manifest.json   written last: sha256, shape and dtype of every shard, and free facts

A shard appears under its name only when it is whole and on disk, and it is written once: equal identities
mean equal content, so whichever of several writers comes first is as good as any other.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import platformdirs
from numpy.typing import ArrayLike, NDArray

from tsns_lib.runtime.files import atomic, sha256_of

FORMAT = 1
STALE_SECONDS = 3600.0
AGAIN = "run the step that writes it again"
DELETE = "delete this file and run again"

Positions = Sequence[int] | NDArray[np.integer[Any]]


class StoreError(RuntimeError):
    """An entry that cannot be read or written; the message names the file and says what to do."""


class Store:
    """The folder that holds all entries.

    Parameters
    ----------
    root : path, optional
        Default: the environment variable ``TSNS_CACHE``, else the user's cache folder.

    Examples
    --------
    >>> import tempfile
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
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        chosen = root or os.environ.get("TSNS_CACHE") or platformdirs.user_cache_path("tsns")
        self.root = Path(chosen).expanduser().absolute()

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def entry(self, kind: str, identity: Mapping[str, Any]) -> "Entry":
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
        if not re.fullmatch(r"[a-z][a-z_]*", kind):
            raise ValueError(f"kind={kind!r}: expected a lower-case word such as 'activations'")
        try:
            named = {"kind": kind, "identity": dict(identity)}
            canonical = json.dumps(named, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"identity of {kind!r} is not plain JSON: {error}") from None
        key = hashlib.sha256(canonical.encode()).hexdigest()
        return Entry(key, self.root / kind / key, dict(identity))


@dataclass(frozen=True)
class _Shard:
    """One line of the manifest."""

    file: str
    sha256: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Entry:
    """One array in shards; made by `Store.entry`."""

    key: str
    path: Path
    identity: dict[str, Any]

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
            with _saved(self.path / "identity.json") as file:
                file.write(json.dumps(self.identity, indent=2, sort_keys=True).encode() + b"\n")
        with _saved(target) as file:
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
        shards = known + [_measured(self._shard(index)) for index in range(len(known), n_shards)]
        first = shards[0]
        for shard in shards:
            if (shard.dtype, shard.shape[1:]) != (first.dtype, first.shape[1:]):
                found = f"{shard.dtype} {shard.shape}, the first shard {first.dtype} {first.shape}"
                raise StoreError(f"{self.path / shard.file}: holds {found}; delete the folder and run again")
        content = {"format": FORMAT, "shards": [vars(shard) for shard in shards], "facts": facts}
        with _saved(self._manifest_path) as file:
            file.write(json.dumps(content, indent=1).encode() + b"\n")
        self._sweep()

    def is_finished(self, n_shards: int) -> bool:
        """Whether the manifest covers `n_shards` shards and all of them are there."""
        return len(self._manifest()[0]) >= n_shards and not self.missing(n_shards)

    def facts(self) -> dict[str, Any]:
        """The facts given to `finish`."""
        return self._manifest(required=True)[1]

    def read(
        self, n_shards: int | None = None, *, rows: Positions | None = None, columns: Positions | None = None
    ) -> NDArray[Any]:
        """Read the array, or some of its rows and columns, one shard in memory at a time.

        Parameters
        ----------
        n_shards : int, optional
            Only the first shards. Default: all that the manifest lists.
        rows, columns : 1-D integers, optional
            Positions in any order along the first and second axis. Checksums are verified when neither is
            given (each shard is then read whole); shapes and dtypes always.

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
        shards = listed[:n_shards]
        starts = np.cumsum([0, *(shard.shape[0] for shard in shards)])
        tail = shards[0].shape[1:]
        if rows is not None:
            rows = _checked("rows", rows, int(starts[-1]))
        if columns is not None:
            columns = _checked("columns", columns, tail[0] if tail else 0)
            tail = (len(columns), *tail[1:])
        out = np.empty((int(starts[-1]) if rows is None else len(rows), *tail), dtype=shards[0].dtype)
        for shard, start, stop in zip(shards, starts[:-1], starts[1:], strict=True):
            array = self._verified(shard, checksum=rows is None and columns is None)
            if rows is None:
                out[start:stop] = array if columns is None else array[:, columns]
            else:
                here = np.flatnonzero((rows >= start) & (rows < stop))
                local = rows[here] - start
                out[here] = array[local] if columns is None else array[local[:, None], columns]
        return out

    @property
    def _manifest_path(self) -> Path:
        return self.path / "manifest.json"

    def _shard(self, index: int) -> Path:
        return self.path / f"{index:05d}.npy"

    def _manifest(self, *, required: bool = False) -> tuple[list[_Shard], dict[str, Any]]:
        """Read shards and facts; empty where there is no manifest."""
        try:
            content = json.loads(self._manifest_path.read_text(encoding="utf-8"))
            shards = [_Shard(**{**line, "shape": tuple(line["shape"])}) for line in content["shards"]]
            return shards, dict(content["facts"])
        except (FileNotFoundError, NotADirectoryError):
            if required:
                raise StoreError(f"{self._manifest_path}: no manifest, the entry is unfinished; {AGAIN}") from None
            return [], {}
        except (ValueError, KeyError, TypeError):
            raise StoreError(f"{self._manifest_path}: is not a manifest; {DELETE}") from None

    def _verified(self, shard: _Shard, *, checksum: bool) -> NDArray[Any]:
        path = self.path / shard.file
        array = _opened(path)
        if (array.shape, array.dtype.str) != (shard.shape, shard.dtype):
            found = f"{array.dtype.str} {array.shape}, its manifest says {shard.dtype} {shard.shape}"
            raise StoreError(f"{path}: holds {found}; {DELETE}")
        if checksum and sha256_of(path) != shard.sha256:
            raise StoreError(f"{path}: checksum differs from the manifest's; {DELETE}")
        return array

    def _sweep(self) -> None:
        """Remove what killed writers left; living ones take seconds, not an hour."""
        for part in self.path.glob(".*.part"):
            with suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > STALE_SECONDS:
                    part.unlink()


@contextmanager
def _saved(target: Path) -> Iterator[IO[bytes]]:
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


def _measured(path: Path) -> _Shard:
    array = _opened(path)
    return _Shard(path.name, sha256_of(path), array.shape, array.dtype.str)


def _checked(name: str, values: Positions, size: int) -> NDArray[np.intp]:
    found = np.asarray(values)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise ValueError(f"{name}: expected a 1-D sequence of integers, got {found.dtype} {found.shape}")
    outside = found[(found < 0) | (found >= size)]
    if len(outside):
        raise ValueError(f"{name}: {outside[0]} is outside 0..{size - 1}")
    return found.astype(np.intp)
