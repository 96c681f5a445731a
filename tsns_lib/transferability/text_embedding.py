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
    """Mean over a corpus of the last layer's mean over all tokens that are not padding (arXiv 2005.00770).

    Takes what `tsns_lib.extract` takes, texts and a frozen encoder; 128 tokens are kept (their released code). The
    vector has the shape (hidden_size,).

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
