"""A content-addressed store of `.npy` shards: atomic, checksummed, resumable, never pickled."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from tsns_lib.runtime.entry import Entry
from tsns_lib.runtime.shards import StoreError

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
