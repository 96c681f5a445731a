"""Texts in, activations of every layer out: shard by shard into the store, so that no array has to fit in memory."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsns_lib.encoders import Encoder
from tsns_lib.forward import STORED_AS, Tokens, activations, seconds_of, tokenised
from tsns_lib.recipes import Recipe, encoder_of, recipe_of
from tsns_lib.runtime.executors import check_scheduler, run_units
from tsns_lib.runtime.progress import announce, bar, is_shown
from tsns_lib.runtime.store import Entry, Store
from tsns_lib.texts import content_hash, texts_of

log = logging.getLogger(__name__)

# Counts up when the same texts and encoder would give other numbers than before.
EXTRACTION_VERSION = {"float32": 1, "bfloat16": 2}
SHARD_ROWS = 2_048

POOLINGS = ("cls", "mean", "content")


def extract(
    texts_or_source: Any,
    encoder: Encoder,
    *,
    text_pairs: Sequence[str] | None = None,
    pooling: str = "cls",
    max_length: int = 128,
    store: Store | str | os.PathLike[str] | None = None,
    scheduler: str | None = None,
    progress: bool = True,
) -> NDArray[Any]:
    """Hidden states of every layer for every text, read from the store where they are known.

    A call that is killed goes on at the first missing shard when it is repeated. The array is returned whole:
    where it would not fit in memory, take `tsns_lib.extraction.stored_activations`.

    Parameters
    ----------
    texts_or_source : sequence of str, or Source
        The texts; of a Source, ``frame["text"]`` and ``frame["text_pair"]``.
    encoder : Encoder
        As `load_encoder` gives it.
    text_pairs : sequence of str, optional
        Second texts: row i is encoded as one input ``[CLS] text [SEP] pair [SEP]``.
    pooling : {"cls", "mean", "content"}
        The first token's state (paper §2), the mean over all tokens that are not padding, or that over the tokens
        of the texts alone, without those set around them such as ``[CLS]`` and ``[SEP]``.
    max_length : int
        Tokens kept of one input, special tokens included; the longer of two texts is cut first
        (128: our choice, the paper gives none).
    store : Store or path, optional
        Default: ``Store()``, the folder of ``TSNS_CACHE``.
    scheduler : str, optional
        Where the model runs: ``"processes"``, ``"processes:N"`` or the address of a Dask cluster. Default: here.
        Each worker loads the encoder itself; the numbers are the same on machines of one kind.
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
    return stored_activations(
        texts_or_source,
        encoder,
        text_pairs=text_pairs,
        pooling=pooling,
        max_length=max_length,
        store=store,
        scheduler=scheduler,
        progress=progress,
    ).read()


def stored_activations(
    texts_or_source: Any,
    encoder: Encoder,
    *,
    text_pairs: Sequence[str] | None = None,
    pooling: str = "cls",
    max_length: int = 128,
    store: Store | str | os.PathLike[str] | None = None,
    scheduler: str | None = None,
    progress: bool = True,
) -> Entry:
    """Compute what `extract` returns into the store, holding one shard of 2,048 rows at a time.

    Parameters
    ----------
    texts_or_source, encoder, text_pairs, pooling, max_length, store, scheduler, progress
        As in `extract`.

    Returns
    -------
    Entry
        The finished entry: ``.shape``, ``.dtype``, ``.read(rows=..., columns=...)``, and ``.columns(numbers)`` for
        chosen neurons of all rows, which is kept in the store.

    Raises
    ------
    ValueError, StoreError
        As `extract`.

    Examples
    --------
    >>> from tsns_lib.encoders import load_encoder
    >>> entry = stored_activations(["A made-up line.", "Another one."], load_encoder(), progress=False)
    >>> entry.shape, entry.read(rows=[1], columns=[0, 2303]).shape
    ((2, 2304), (1, 2))
    """
    texts, pairs = texts_of(texts_or_source, text_pairs)
    _check_settings(pooling, max_length, encoder, pairs is not None)
    check_scheduler(scheduler)
    identity = {
        "encoder": encoder.fingerprint,
        "dtype": encoder.dtype,
        "pooling": pooling,
        "max_length": int(max_length),
        "texts": content_hash(texts, pairs),
        "shard_rows": SHARD_ROWS,
        "extraction_version": EXTRACTION_VERSION[encoder.dtype],
    }
    entry = (store if isinstance(store, Store) else Store(store)).entry("activations", identity)
    n_shards = -(-len(texts) // SHARD_ROWS)
    if not entry.is_finished(n_shards):
        n_truncated = _fill(entry, encoder, texts, pairs, pooling, int(max_length), scheduler, progress)
        entry.finish(n_shards, n_rows=len(texts), n_truncated=n_truncated)
    if n_truncated := entry.facts()["n_truncated"]:
        log.warning("%d of %d texts were cut to max_length=%d tokens", n_truncated, len(texts), max_length)
    return entry


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


def _fill(
    entry: Entry,
    encoder: Encoder,
    texts: list[str],
    pairs: list[str] | None,
    pooling: str,
    max_length: int,
    scheduler: str | None,
    progress: bool,
) -> int:
    """Write the missing shards as they come and count the truncated rows of all."""
    missing = set(entry.missing(-(-len(texts) // SHARD_ROWS)))
    truncated = []

    def units() -> Iterator[tuple[int, Tokens]]:
        for shard, (tokens, n_truncated) in enumerate(_tokenised_ahead(encoder, texts, pairs, max_length)):
            truncated.append(n_truncated)
            if shard in missing:
                if shard == min(missing) and len(missing) > 1 and scheduler is None and is_shown(progress):
                    _announce_cost(min(len(missing) * SHARD_ROWS, len(texts)), tokens, encoder, pooling)
                yield shard, tokens
            else:
                shown.update(len(tokens.lengths))

    with bar(total=len(texts), desc="activations", unit="row", show=progress) as shown:
        shared = (encoder, pooling, shown.update) if scheduler is None else (recipe_of(encoder), pooling, None)
        for (shard, tokens), values in run_units(_shard, units(), shared=shared, scheduler=scheduler):
            finite = np.isfinite(values).all(axis=1)
            if not finite.all():
                row = shard * SHARD_ROWS + finite.argmin()
                raise ValueError(f"text, row {row}: {encoder.name} gave values not finite")
            entry.write(shard, values)
            if scheduler is not None:
                shown.update(len(tokens.lengths))
    return sum(truncated)


def _shard(
    unit: tuple[int, Tokens], encoder: Encoder | Recipe, pooling: str, on_rows: Callable[[int], Any] | None
) -> NDArray[Any]:
    encoder = encoder_of(encoder) if isinstance(encoder, Recipe) else encoder
    return activations(unit[1], encoder, pooling, on_rows)


def _announce_cost(n_rows: int, tokens: Tokens, encoder: Encoder, pooling: str) -> None:
    """Say what rows like these will cost, by one batch of them."""
    seconds = seconds_of(tokens, encoder, pooling) * n_rows / len(tokens.lengths)
    row_bytes = encoder.n_neurons * np.dtype(STORED_AS[encoder.dtype]).itemsize
    announce(f"activations of {n_rows:,} texts", seconds, n_rows * row_bytes)


def _tokenised_ahead(
    encoder: Encoder, texts: list[str], pairs: list[str] | None, max_length: int
) -> Iterator[tuple[Tokens, int]]:
    """Tokenise the next shard while the model works on this one: the tokenizer runs beside it, outside Python."""

    def tokens_of(start: int) -> tuple[Tokens, int]:
        rows = slice(start, start + SHARD_ROWS)
        return tokenised(encoder, texts[rows], pairs and pairs[rows], max_length)

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(tokens_of, 0)
        for start in range(SHARD_ROWS, len(texts), SHARD_ROWS):
            current, following = following, pool.submit(tokens_of, start)
            yield current.result()
        yield following.result()
