"""One array in the store, in a folder `<root>/<kind>/<sha256 of its identity>/` of shards.

It holds::

    identity.json   what the entry is, for people
    00000.npy ...   shards, concatenated along the first axis when read
    manifest.json   written last: sha256, shape and dtype of every shard, and free facts

A shard appears under its name only when it is whole and on disk, and it is written once: equal identities
mean equal content, so whichever of several writers comes first is as good as any other.
"""

import hashlib
import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsns_lib.runtime.shards import (
    AGAIN,
    Positions,
    Shard,
    StoreError,
    checked_positions,
    content_hash,
    gather,
    read_manifest,
    saved,
)

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
            "content": content_hash(shards),
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
