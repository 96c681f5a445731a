"""TextEmb: a corpus as the mean of what a frozen encoder makes of its texts; no labels."""

import os
from typing import Any

import numpy as np

from tsns_lib.encoders import Encoder
from tsns_lib.extraction import stored_activations
from tsns_lib.store import Store


def text_embedding(
    source: Any,
    encoder: Encoder,
    *,
    max_length: int = 128,
    store: Store | str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Mean over a corpus of the last layer's mean over all tokens that are not padding (arXiv 2005.00770).

    Parameters
    ----------
    source : Source, or sequence of str
        As `tsns_lib.extract` takes it.
    encoder : Encoder
        As `tsns_lib.load_encoder` gives it; frozen.
    max_length : int
        Tokens kept, default 128 (their released code).
    store, progress
        As in `tsns_lib.extract`.

    Returns
    -------
    ndarray of shape (hidden_size,)

    Raises
    ------
    ValueError, StoreError
        As `tsns_lib.extract`.

    Examples
    --------
    >>> from tsns_lib.encoders import load_encoder
    >>> text_embedding(["A made-up line.", "Another one."], load_encoder(), progress=False).shape
    (384,)
    """
    options: dict[str, Any] = {"max_length": max_length, "store": store, "progress": progress}
    entry = stored_activations(source, encoder, pooling="mean", **options)
    last_layer = np.arange(encoder.n_neurons - encoder.hidden_size, encoder.n_neurons)
    return entry.columns(last_layer).mean(axis=0, dtype=np.float64)
