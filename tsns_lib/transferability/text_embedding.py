"""TextEmb: a corpus as one vector, the mean of a frozen encoder's states of its texts. It needs no labels."""

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
    """Mean over a corpus of the last layer's mean over all tokens that are not padding (TextEmb, arXiv 2005.00770).

    Parameters
    ----------
    source, encoder, max_length, store, progress
        As in `tsns_lib.extract`; 128 tokens are kept (their released code). Labels are not read.

    Returns
    -------
    ndarray of shape (hidden_size,)
        The larger the cosine of two corpora, the more alike they are.

    Examples
    --------
    >>> import tsns_lib
    >>> encoder, lines = tsns_lib.load_encoder(), ["A made-up line.", "Another one."]
    >>> text_embedding(lines, encoder, progress=False).shape
    (384,)
    """
    options: dict[str, Any] = {"max_length": max_length, "store": store, "progress": progress}
    entry = stored_activations(source, encoder, pooling="mean", **options)
    last_layer = np.arange(encoder.n_neurons - encoder.hidden_size, encoder.n_neurons)
    return entry.columns(last_layer).mean(axis=0, dtype=np.float64)
