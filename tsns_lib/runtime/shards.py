"""Shards: `.npy` files that are written whole, measured once, and read as their manifest describes them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tsns_lib.runtime.files import atomic, sha256_of

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


def content_hash(shards: Sequence[Shard]) -> str:
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
