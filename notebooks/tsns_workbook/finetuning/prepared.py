"""Encoders that a function makes from another, kept in the store as folders that load like any other's."""

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsns_lib.encoders import TOKENIZER_EXTRAS, TOKENIZER_FILES, Encoder, load_encoder, quiet_transformers
from tsns_lib.store import Store

if TYPE_CHECKING:
    from torch import nn

    Prepare = Callable[[nn.Module], nn.Module]


def prepared_encoder(
    encoder: Encoder, prepare: "Prepare", *, store: Store | str | os.PathLike[str] | None = None
) -> Encoder:
    """The encoder with something done to its model, such as layers re-initialised or put in another order.

    `prepare` is a ``functools.partial`` of a function of a module; it takes a model and returns another, and its
    arguments are plain JSON.

    Examples
    --------
    >>> from functools import partial
    >>> from tsns_lib.encoders import load_encoder
    >>> from tsns_lib.transferability.reinitialization import reinitialize
    >>> prepared = prepared_encoder(load_encoder(), partial(reinitialize, layers=[4, 5], seed=1))
    >>> prepared.n_neurons, prepared.digest == load_encoder().digest
    (2304, False)
    """
    from tsns_workbook.finetuning.model import fresh_model

    identity = {"encoder": encoder.digest, "prepare": identity_of(prepare)}
    store = store if isinstance(store, Store) else Store(store)
    return stored_encoder(encoder, lambda: prepare(fresh_model(encoder)), identity, store)


def stored_encoder(
    encoder: Encoder, altered: "Callable[[], nn.Module]", identity: dict[str, Any], store: Store
) -> Encoder:
    """The encoder with another model in it; `altered` makes the model where the store has no folder of it yet."""
    folder = store.entry("encoders", identity).path
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with quiet_transformers(), tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            complete = Path(temporary) / "complete"
            altered().save_pretrained(complete)  # type: ignore[operator]
            for name in (*TOKENIZER_FILES, *TOKENIZER_EXTRAS):
                if (encoder.folder / name).is_file():
                    shutil.copy(encoder.folder / name, complete)
            if not folder.is_dir():
                os.replace(complete, folder)
    return load_encoder(folder, device=encoder.requested_device, dtype=encoder.dtype)


def identity_of(prepare: Callable[..., Any] | None) -> dict[str, Any] | None:
    """The path of the function and its arguments in JSON, as they stand in the keys of the store."""
    if prepare is None:
        return None
    function = getattr(prepare, "func", None)
    name = f"{getattr(function, '__module__', None)}.{getattr(function, '__qualname__', '<')}"
    if not isinstance(prepare, functools.partial) or "<" in name or name.startswith("__main__."):
        raise ValueError(f"prepare: expected functools.partial of a function of a module, got {prepare!r:.80}")
    try:
        return json.loads(json.dumps({"function": name, "args": prepare.args, "keywords": prepare.keywords}))
    except TypeError as error:
        raise ValueError(f"prepare: the arguments of {name} are not plain JSON: {error}") from None
