"""The manifest of an entry: what each of its shards has to be, and free facts; with a sha256 of all it says."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsns_lib.store.files import StoreError, atomic, content_hash, digests, once

FORMAT = 3  # before it, shards and manifests did not say to which entry they belong: nothing of them is believed
NO_MANIFEST = "no manifest, the entry is unfinished"


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
        array = mapped(path)
        return cls(path.name, once(digests, path)[0], array.shape, array.dtype.str)


def promises(path: Path) -> tuple[dict[str, Shard], dict[str, Any]]:
    """Shards by file name, and facts, of a manifest; a ValueError if it is not as it was written."""
    text = path.read_bytes()
    try:
        content = json.loads(text)
        if content["format"] != FORMAT or text != _signed(content, path.parent.name):
            raise ValueError("its sha256 is another")
        shards = {line["file"]: Shard(**{**line, "shape": tuple(line["shape"])}) for line in content["shards"]}
        if list(shards) != [f"{index:05d}.npy" for index in range(len(content["shards"]))] or not shards:
            raise ValueError("it lacks a shard")
        return shards, dict(content["facts"])
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("it is no manifest") from error


def manifest_fault(path: Path) -> str:
    """What is wrong with a manifest; nothing ("") if it is sound."""
    try:
        once(promises, path)
    except (FileNotFoundError, NotADirectoryError):
        return NO_MANIFEST
    except (OSError, ValueError):
        return "is not the manifest that was written"
    return ""


def write_manifest(path: Path, shards: list[Shard], facts: dict[str, Any]) -> None:
    """Promise shards that fit together; the caller holds the lock."""
    first = shards[0]
    for shard in shards:
        if (shard.dtype, shard.shape[1:]) != (first.dtype, first.shape[1:]):
            difference = f"{shard.dtype} {shard.shape}, the first shard {first.dtype} {first.shape}"
            raise StoreError(f"{path.parent / shard.file}: holds {difference}; delete the folder and run again")
    content = plain({"format": FORMAT, "shards": [vars(shard) for shard in shards], "facts": facts})
    with atomic(path) as file:
        file.write(_signed(content, path.parent.name))


def _signed(content: dict[str, Any], key: str) -> bytes:
    """The bytes of a manifest, which end with the sha256 of the entry's key and of what it says."""
    unsigned = {name: value for name, value in content.items() if name != "sha256"}
    sha256 = content_hash([key.encode(), json.dumps(unsigned).encode()])
    return json.dumps(unsigned | {"sha256": sha256}, indent=1).encode() + b"\n"


def plain(value: Any) -> Any:
    """A value as JSON gives it back, with numpy's integers and booleans as Python's."""

    def of_numpy(scalar: Any) -> Any:
        if isinstance(scalar, np.integer | np.bool_):
            return scalar.item()
        raise ValueError(f"{scalar!r:.80}: is not a number, text or list of Python's")

    return json.loads(json.dumps(value, default=of_numpy))


def mapped(path: Path) -> NDArray[Any]:
    """A shard, where a page is read when it is touched."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise StoreError(f"{path}: no .npy shard ({error}); delete the folder and run again") from None
