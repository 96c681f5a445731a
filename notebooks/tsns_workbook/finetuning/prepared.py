"""Encoders that are made here, from another by a function, and lie in the store as folders like any other's."""

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsns_lib.encoders import TOKENIZER_EXTRAS, TOKENIZER_FILES, Encoder, _quiet, load_encoder
from tsns_lib.store import Store

if TYPE_CHECKING:
    from torch import nn


def prepared_encoder(
    encoder: Encoder,
    prepare: "Callable[[nn.Module], nn.Module]",
    *,
    store: Store | str | os.PathLike[str] | None = None,
) -> Encoder:
    """The encoder with something done to its model: layers drawn anew, or in another order.

    Parameters
    ----------
    encoder : Encoder
        As `tsns_lib.load_encoder` gives it; it is not changed.
    prepare : functools.partial
        Of a function of a module that takes a model and returns another, with arguments that are JSON.
    store : Store or path, optional
        Where its folder is kept and read again. Default: ``Store()``.

    Returns
    -------
    Encoder
        Of the same device and dtype.

    Raises
    ------
    ValueError
        If `prepare` is no such partial, or as it raises.

    Examples
    --------
    >>> from functools import partial
    >>> from tsns_lib.encoders import load_encoder
    >>> from tsns_lib.transferability.reinitialization import reinitialize
    >>> drawn = prepared_encoder(load_encoder(), partial(reinitialize, layers=[4, 5], seed=1))
    >>> drawn.n_neurons, drawn.fingerprint == load_encoder().fingerprint
    (2304, False)
    """
    from tsns_workbook.finetuning.model import fresh_model

    identity = {"encoder": encoder.fingerprint, "prepare": identity_of(prepare)}
    store = store if isinstance(store, Store) else Store(store)
    return stored_encoder(encoder, lambda: prepare(fresh_model(encoder)), identity, store)


def stored_encoder(
    encoder: Encoder, altered: "Callable[[], nn.Module]", identity: dict[str, Any], store: Store
) -> Encoder:
    """The encoder with another model in it, from a folder in the store; `altered` is asked where there is none."""
    folder = store.entry("encoders", identity).path
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _quiet(), tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            part = Path(temporary) / "whole"
            altered().save_pretrained(part)  # type: ignore[operator]
            for name in (*TOKENIZER_FILES, *TOKENIZER_EXTRAS):
                if (encoder.folder / name).is_file():
                    shutil.copy(encoder.folder / name, part)
            if not folder.is_dir():
                os.replace(part, folder)
    return load_encoder(folder, device=encoder._device, dtype=encoder.dtype)


def identity_of(prepare: Callable[..., Any] | None) -> dict[str, Any] | None:
    """Name what is done to a model, in JSON.

    Raises
    ------
    ValueError
        If it is no partial of a function that another process finds under its name.
    """
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
