"""Texts in, activations of every layer out: one pass, batched by length, resumable through the store."""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tsns_lib.encoders import Encoder
from tsns_lib.runtime.progress import bar
from tsns_lib.runtime.store import Entry, Store

if TYPE_CHECKING:
    from tokenizers import Encoding

log = logging.getLogger(__name__)

# Counts up when the same texts and encoder would give other numbers than before.
EXTRACTION_VERSION = 1
SHARD_ROWS = 2_048
# Padded tokens in one batch. MiniLM on 2 CPU cores: flat from 1k to 4k, a third slower at 16k, where a batch
# leaves the caches; at 2k BERT-large's hidden states of all 24 layers take 0.2 GB.
TOKEN_BUDGET = 2_048

POOLINGS = ("cls", "mean")
STORED_AS = {"float32": np.float32, "bfloat16": np.float16}


def extract(
    texts_or_source: Any,
    encoder: Encoder,
    *,
    text_pairs: Sequence[str] | None = None,
    pooling: str = "cls",
    max_length: int = 128,
    store: Store | str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> NDArray[Any]:
    """Hidden states of every layer for every text, read from the store where they are known.

    A call that is killed goes on at the first missing shard when it is repeated.

    Parameters
    ----------
    texts_or_source : sequence of str, or Source
        The texts; of a Source, ``frame["text"]`` and ``frame["text_pair"]``.
    encoder : Encoder
        As `load_encoder` gives it.
    text_pairs : sequence of str, optional
        Second texts: row i is encoded as one input ``[CLS] text [SEP] pair [SEP]``.
    pooling : {"cls", "mean"}
        The first token's state (paper §2), or the mean over all tokens that are not padding.
    max_length : int
        Tokens kept of one input, special tokens included; the longer of two texts is cut first
        (128: our choice, the paper gives none).
    store : Store or path, optional
        Default: ``Store()``, the folder of ``TSNS_CACHE``.
    progress : bool
        Whether to show a progress bar over the rows that have to be computed.

    Returns
    -------
    ndarray
        Shape (n, n_layers * hidden_size), layer-major: neuron i lives in layer ``i // hidden_size``; the
        embedding layer is excluded. float32, or float16 for a bfloat16 encoder.

    Raises
    ------
    ValueError
        If there are no texts, a row is no text or empty, the pairs are of another number, `pooling` is
        unknown, `max_length` does not fit the encoder, or the model gives values that are not finite.
    StoreError
        If the cache is damaged or cannot be written.

    Examples
    --------
    >>> from tsns_lib.encoders import load_encoder
    >>> extract(["A made-up line.", "Another one."], load_encoder(), progress=False).shape
    (2, 2304)
    """
    texts, pairs = _texts(texts_or_source, text_pairs)
    _check_settings(pooling, max_length, encoder, pairs is not None)
    identity = {
        "encoder": encoder.fingerprint,
        "dtype": encoder.dtype,
        "pooling": pooling,
        "max_length": int(max_length),
        "texts": _content_hash(texts, pairs),
        "shard_rows": SHARD_ROWS,
        "extraction_version": EXTRACTION_VERSION,
    }
    entry = (store if isinstance(store, Store) else Store(store)).entry("activations", identity)
    n_shards = -(-len(texts) // SHARD_ROWS)
    if not entry.is_finished(n_shards):
        n_truncated = _fill(entry, encoder, texts, pairs, pooling, max_length, progress)
        entry.finish(n_shards, n_rows=len(texts), n_truncated=n_truncated)
    if n_truncated := entry.facts()["n_truncated"]:
        log.warning("%d of %d texts were cut to max_length=%d tokens", n_truncated, len(texts), max_length)
    return entry.read(n_shards)


def _texts(texts_or_source: Any, text_pairs: Sequence[str] | None) -> tuple[list[str], list[str] | None]:
    """Unpack and check; every fault is named by its row."""
    if hasattr(texts_or_source, "frame"):
        if text_pairs is not None:
            raise ValueError("text_pairs: a Source brings its own pairs, pass one or the other")
        frame = texts_or_source.frame
        texts_or_source = frame["text"]
        text_pairs = None if frame["text_pair"].isna().all() else frame["text_pair"]
    if isinstance(texts_or_source, str) or isinstance(text_pairs, str):
        raise ValueError("texts: expected a sequence of texts, got one string")
    texts = _checked("text", texts_or_source)
    if text_pairs is None:
        return texts, None
    pairs = _checked("text_pair", text_pairs)
    if len(pairs) != len(texts):
        raise ValueError(f"text_pairs: {len(pairs)} rows for {len(texts)} texts")
    return texts, pairs


def _checked(name: str, values: Any) -> list[str]:
    texts = list(values)
    if not texts:
        raise ValueError(f"{name}: no rows")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{name}, row {row}: expected a string, got {type(text).__name__} {text!r}")
        if not text.strip():
            raise ValueError(f"{name}, row {row}: empty")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name}, row {row}: not valid Unicode (a lone surrogate)") from None
    return texts


def _check_settings(pooling: str, max_length: int, encoder: Encoder, pairs: bool) -> None:
    if pooling not in POOLINGS:
        raise ValueError(f"pooling={pooling!r}: expected one of {', '.join(POOLINGS)}")
    # One token of each text beside the special ones; RoBERTa sets four around a pair.
    least = 6 if pairs else 3
    if not isinstance(max_length, int | np.integer) or isinstance(max_length, bool):
        raise ValueError(f"max_length={max_length!r}: expected an integer")
    if not least <= max_length <= encoder.max_tokens:
        bounds = f"expected {least} to {encoder.max_tokens} for {encoder.name}"
        raise ValueError(f"max_length={max_length}: {bounds}{' and pairs' if pairs else ''}")


def _content_hash(texts: list[str], pairs: list[str] | None) -> str:
    """sha256 over all rows; lengths keep apart what concatenation would join."""
    digest = hashlib.sha256(b"singles" if pairs is None else b"pairs")
    for column in (texts, pairs or []):
        for text in column:
            content = text.encode()
            digest.update(len(content).to_bytes(8, "little"))
            digest.update(content)
    return digest.hexdigest()


def _fill(
    entry: Entry, encoder: Encoder, texts: list[str], pairs: list[str] | None, pooling: str, max_length: int,
    progress: bool,
) -> int:  # fmt: skip
    """Write the missing shards and count the truncated rows of all."""
    starts = range(0, len(texts), SHARD_ROWS)
    missing = set(entry.missing(len(starts)))
    n_truncated = 0
    with bar(total=len(texts), desc="activations", unit="row", show=progress) as shown:
        for shard, start in enumerate(starts):
            rows = slice(start, start + SHARD_ROWS)
            inputs = encoder.tokenizer(
                texts[rows], pairs and pairs[rows], truncation="longest_first", max_length=int(max_length)
            ).encodings
            assert inputs is not None
            n_truncated += sum(bool(encoding.overflowing) for encoding in inputs)
            if shard not in missing:
                shown.update(len(inputs))
                continue
            values = np.empty((len(inputs), encoder.n_neurons), dtype=STORED_AS[encoder.dtype])
            for batch in _batches(np.array([len(encoding) for encoding in inputs])):
                values[batch] = _forward(encoder, [inputs[row] for row in batch], pooling)
                shown.update(len(batch))
            finite = np.isfinite(values).all(axis=1)
            if not finite.all():
                raise ValueError(f"text, row {start + finite.argmin()}: {encoder.name} gave values not finite")
            entry.write(shard, values)
    return n_truncated


def _batches(lengths: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Rows of like length together, the longest first so that memory peaks at once."""
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        size = max(1, TOKEN_BUDGET // int(lengths[order[0]]))
        yield order[:size]
        order = order[size:]


def _forward(encoder: Encoder, inputs: "list[Encoding]", pooling: str) -> NDArray[np.float32]:
    """Pool every layer of one padded batch: (rows, n_layers * hidden_size)."""
    import torch

    tokenizer, model = encoder.tokenizer, encoder.model
    shape = len(inputs), max(len(encoding) for encoding in inputs)
    ids = np.full(shape, tokenizer.pad_token_id or 0)
    mask, types = np.zeros_like(ids), np.zeros_like(ids)
    for row, encoding in enumerate(inputs):
        ids[row, : len(encoding)] = encoding.ids
        mask[row, : len(encoding)] = 1
        types[row, : len(encoding)] = encoding.type_ids
    arrays = {"input_ids": ids, "attention_mask": mask}
    # What the tokenizer would pass on itself, unless the model has no embedding for it.
    if "token_type_ids" in tokenizer.model_input_names and getattr(model.config, "type_vocab_size", 0) > 1:
        arrays["token_type_ids"] = types
    with torch.inference_mode():
        tensors = {name: torch.from_numpy(array).to(encoder.device) for name, array in arrays.items()}
        layers = model(**tensors, output_hidden_states=True).hidden_states[1:]
        if pooling == "cls":
            pooled = [layer[:, 0].float() for layer in layers]
        else:
            weights = tensors["attention_mask"].float()
            weights = weights / weights.sum(dim=1, keepdim=True)
            pooled = [torch.einsum("rt,rth->rh", weights, layer.float()) for layer in layers]
        return torch.cat(pooled, dim=1).cpu().numpy()
