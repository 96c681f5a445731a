"""Texts as an encoder takes them: unpacked from what brings them, checked row by row, named by their content.

Tokens in, every layer's pooled states out: batches of rows of like length through one model.

Nothing here knows the store; a shard of tokens and an encoder determine the result, wherever it is computed.

Texts in, activations of every layer out: shard by shard into the store, so that no array has to fit in memory.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsns_lib.encoders import Encoder, EncoderRecipe, encoder_of, recipe_of
from tsns_lib.executors import announce, bar, check_scheduler, is_shown, run_units
from tsns_lib.store import Entry, Store

if TYPE_CHECKING:
    import torch


def texts_of(texts_or_source: Any, text_pairs: Sequence[str] | None) -> tuple[list[str], list[str] | None]:
    """Unpack and check; every fault is named by its row."""
    if hasattr(texts_or_source, "frame"):
        if text_pairs is not None:
            raise ValueError("text_pairs: a Source brings its own pairs, pass one or the other")
        frame = texts_or_source.frame
        texts_or_source = frame["text"]
        text_pairs = None if frame["text_pair"].isna().all() else frame["text_pair"]
    if isinstance(texts_or_source, str) or isinstance(text_pairs, str):
        raise ValueError("texts: expected a sequence of texts, got one string")
    texts = _checked_texts("text", texts_or_source)
    if text_pairs is None:
        return texts, None
    pairs = _checked_texts("text_pair", text_pairs)
    if len(pairs) != len(texts):
        raise ValueError(f"text_pairs: {len(pairs)} rows for {len(texts)} texts")
    return texts, pairs


def _checked_texts(name: str, values: Any) -> list[str]:
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


def texts_hash(texts: list[str], pairs: list[str] | None) -> str:
    """sha256 over all rows; lengths keep apart what concatenation would join."""
    digest = hashlib.sha256(b"singles" if pairs is None else b"pairs")
    for column in (texts, pairs or []):
        for text in column:
            content = text.encode()
            digest.update(len(content).to_bytes(8, "little"))
            digest.update(content)
    return digest.hexdigest()


# Padded tokens in one batch, which set what its rows are padded to and with it their last bits. A GPU wants more (our
# choice): BERT-large's states of all layers take 0.8 GB there.
TOKEN_BUDGET = {"float32": 2_048, "bfloat16": 1_024}
GPU_TOKEN_BUDGET = 16_384

# So many go through the model at once on a CPU, in a thread of their own: MiniLM is a third slower at 16k, where they
# leave the caches, and a tenth where all threads share each product instead.
TOKENS_AT_ONCE = 512

STORED_AS = {"float32": np.float32, "bfloat16": np.float16}

# Where the states of a layer enter its feed-forward half. ALBERT is not here: its layers are one module.
BEFORE_FEED_FORWARD = {
    **dict.fromkeys(["bert", "roberta", "xlm-roberta", "electra"], "encoder.layer.{}.attention.output"),
    "distilbert": "transformer.layer.{}.sa_layer_norm",
}


class Tokens(NamedTuple):
    """Some tokenised rows, one after the other without padding."""

    ids: NDArray[np.int32]
    types: NDArray[np.int8]
    lengths: NDArray[np.int32]


def tokenised(encoder: Encoder, texts: list[str], pairs: list[str] | None, max_length: int) -> tuple[Tokens, int]:
    """Tokens of every row, and how many rows were cut to `max_length`."""
    rows = encoder.tokenizer(texts, pairs, truncation="longest_first", max_length=max_length).encodings
    assert rows is not None
    tokens = Tokens(
        np.concatenate([np.array(row.ids, np.int32) for row in rows]),
        np.concatenate([np.array(row.type_ids, np.int8) for row in rows]),
        np.array([len(row) for row in rows], np.int32),
    )
    return tokens, sum(bool(row.overflowing) for row in rows)


def activations(
    tokens: Tokens, encoder: Encoder, pooling: str, on_rows: Callable[[int], Any] | None = None
) -> NDArray[Any]:
    """Pool every layer of every row.

    Parameters
    ----------
    tokens : Tokens
        As `tokenised` gives them.
    encoder : Encoder
        As `tsns_lib.load_encoder` gives it.
    pooling : {"cls", "mean", "content"}
        As in `tsns_lib.extract`.
    on_rows : callable, optional
        Told the number of rows after each batch.

    Returns
    -------
    ndarray
        Shape (rows, n_layers * hidden_size), float32, or float16 for a bfloat16 encoder.
    """
    values = np.empty((len(tokens.lengths), encoder.n_neurons), dtype=STORED_AS[encoder.dtype])
    for rows, pooled in _in_turn(tokens, encoder, pooling, _parts(tokens.lengths, encoder)):
        values[rows] = pooled
        if on_rows is not None:
            on_rows(len(rows))
    return values


def batches(lengths: NDArray[np.integer[Any]], budget: int) -> Iterator[NDArray[np.intp]]:
    """Rows of like length together, the longest first so that memory peaks at once."""
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        size = max(1, budget // int(lengths[order[0]]))
        yield order[:size]
        order = order[size:]


def seconds_of(tokens: Tokens, encoder: Encoder, pooling: str) -> float:
    """Forecast what `activations` will take, from the middle ones of its parts."""
    import torch

    every = list(_parts(tokens.lengths, encoder))
    middle = every[len(every) // 2 :][: torch.get_num_threads()]
    for _ in range(2):  # the first loads the model
        start = time.perf_counter()
        n_tokens = sum(tokens.lengths[rows].sum() for rows, _ in _in_turn(tokens, encoder, pooling, middle))
        seconds = time.perf_counter() - start
    return float(seconds * tokens.lengths.sum() / n_tokens)


def _parts(lengths: NDArray[np.integer[Any]], encoder: Encoder) -> Iterator[tuple[NDArray[np.intp], int]]:
    """Rows that go through the model at once, and the length that they are padded to.

    A row's bits follow from the length of its batch and not from the rows beside it, so a batch may be dealt out.
    """
    on_gpu = encoder.device.startswith("cuda")
    for batch in batches(lengths, GPU_TOKEN_BUDGET if on_gpu else TOKEN_BUDGET[encoder.dtype]):
        longest = int(lengths[batch[0]])
        n_parts = 1 if on_gpu else min(len(batch), -(-len(batch) * longest // TOKENS_AT_ONCE))
        yield from ((rows, longest) for rows in np.array_split(batch, n_parts))


def _in_turn(
    tokens: Tokens, encoder: Encoder, pooling: str, parts: Iterable[tuple[NDArray[np.intp], int]]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """Rows of each part with their pooled layers, in order; on a CPU as many parts at a time as PyTorch has threads."""
    import torch

    def pooled(part: tuple[NDArray[np.intp], int]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        return part[0], _pooled(encoder, _padded(encoder, tokens, *part), pooling)

    # In float32 the last bits would change, and with them what is stored under its key.
    shortened = pooling == "cls" and encoder.dtype == "bfloat16"
    n_threads = torch.get_num_threads()
    encoder.model.eval()  # loaded here, once: drawn weights come from a generator that all threads share
    with first_token_last(encoder) if shortened else nullcontext():
        if encoder.device.startswith("cuda") or n_threads == 1:
            yield from map(pooled, parts)
            return
        try:
            with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                yield from pool.map(pooled, parts)
        finally:
            torch.set_num_threads(n_threads)  # threads that start later take the last number set anywhere


def _padded(encoder: Encoder, tokens: Tokens, rows: NDArray[np.intp], length: int) -> "dict[str, torch.Tensor]":
    import torch

    tokenizer = encoder.tokenizer
    starts = (np.cumsum(tokens.lengths) - tokens.lengths)[rows]
    mask = np.arange(length) < tokens.lengths[rows][:, None]
    positions = (starts[:, None] + np.arange(length))[mask]
    ids = np.full(mask.shape, tokenizer.pad_token_id or 0)
    ids[mask] = tokens.ids[positions]
    arrays = {"input_ids": ids, "attention_mask": mask.astype(ids.dtype)}
    # What the tokenizer would pass on itself, unless the model has no embedding for it.
    if "token_type_ids" in tokenizer.model_input_names and getattr(encoder.model.config, "type_vocab_size", 0) > 1:
        arrays["token_type_ids"] = np.zeros_like(ids)
        arrays["token_type_ids"][mask] = tokens.types[positions]
    return {name: torch.from_numpy(array).to(encoder.device) for name, array in arrays.items()}


def _pooled(encoder: Encoder, inputs: "dict[str, torch.Tensor]", pooling: str) -> NDArray[np.float32]:
    """Pool every layer of some rows: (rows, n_layers * hidden_size)."""
    import torch

    with torch.inference_mode():
        layers = encoder.model(**inputs, output_hidden_states=True).hidden_states[1:]
        if pooling == "cls":
            pooled = [layer[:, 0].float() for layer in layers]
        else:
            weights = inputs["attention_mask"].float()
            if pooling == "content":
                weights = weights * ~torch.isin(inputs["input_ids"], _framing(encoder))
            weights = weights / weights.sum(dim=1, keepdim=True)
            pooled = [torch.einsum("rt,rth->rh", weights, layer.float()) for layer in layers]
        return torch.cat(pooled, dim=1).cpu().numpy()


def _framing(encoder: Encoder) -> "torch.Tensor":
    """Tokens that the tokenizer sets around texts; an unknown word is special to it, too, but is a word."""
    import torch

    tokenizer = encoder.tokenizer
    numbers = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}
    return torch.tensor(sorted(numbers), device=encoder.device)


def first_token_last(encoder: Encoder) -> AbstractContextManager[Any]:
    """Let the last layer's feed-forward half, a ninth of MiniLM's work, see the first token only."""
    path = BEFORE_FEED_FORWARD.get(encoder.config["model_type"])
    if path is None:
        return nullcontext()
    last = encoder.model.get_submodule(path.format(encoder.n_layers - 1))
    return last.register_forward_hook(lambda module, inputs, states: states[:, :1])


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
        "texts": texts_hash(texts, pairs),
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
    unit: tuple[int, Tokens], encoder: Encoder | EncoderRecipe, pooling: str, on_rows: Callable[[int], Any] | None
) -> NDArray[Any]:
    encoder = encoder_of(encoder) if isinstance(encoder, EncoderRecipe) else encoder
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
