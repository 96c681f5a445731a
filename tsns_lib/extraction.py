"""Texts in, activations of every layer out: shard by shard into the store, so that no array has to fit in memory.

Texts are checked and tokenised. Rows of similar length go through the model together, and every layer's states are
pooled over the tokens. A shard's tokens and the encoder determine its activations, wherever they are computed.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsns_lib.encoders import Encoder, check_encoder
from tsns_lib.executors import announce, bar, check_scheduler, is_shown, run_units
from tsns_lib.store import Entry, Store, content_hash
from tsns_lib.validation import one_of, shown, whole_number
from tsns_lib.validation import texts as checked_texts

if TYPE_CHECKING:
    import torch
    from transformers import BatchEncoding

log = logging.getLogger(__name__)

# Raised by one when the same texts and encoder would give other numbers than before.
EXTRACTION_VERSION = {"float32": 1, "bfloat16": 3}
COMPUTED_BY = ("tokenizers", "torch", "transformers")  # another version may give other bits
SHARD_ROWS = 2_048
STORED_AS = {"float32": np.float32, "bfloat16": np.float16}
POOLINGS = ("cls", "mean", "content")

# Padded tokens in a batch, which sets the length of its rows and so their last bits; on a GPU, `Encoder.tokens_within`.
TOKEN_BUDGET = {"float32": 2_048, "bfloat16": 1_024}
GPU_TOKEN_BUDGET = 16_384  # where one trains

# Tokens that one CPU thread passes through the model at once. MiniLM is a third slower with 16k, which do not fit
# the caches, and a tenth slower when all threads share each matrix product instead.
TOKENS_AT_ONCE = 512

# What all threads see, one changes at a time: the length that a tokenizer cuts to, and PyTorch's threads.
_TOKENISING = threading.Lock()
_SETTING_UP = threading.Lock()
for _lock in (_TOKENISING, _SETTING_UP):  # a child that was forked meanwhile would wait for ever
    os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]
_SAID: set[Any] = set()  # texts whose cut was spoken of: once a process is enough


class Tokens(NamedTuple):
    """Tokenised rows, one after the other without padding."""

    ids: NDArray[np.int32]
    types: NDArray[np.int8]
    lengths: NDArray[np.int32]


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
    """Hidden states of every layer for every text; what the store already holds is read from it.

    A call that was killed continues at the first missing shard when it is repeated. The whole array is returned:
    if it does not fit in memory, use `tsns_lib.extraction.stored_activations`.

    Parameters
    ----------
    texts_or_source : sequence of str, or Source
        The texts; of a Source, ``frame["text"]`` and ``frame["text_pair"]``.
    encoder : Encoder
        Made by `load_encoder`.
    text_pairs : sequence of str, optional
        Second texts: row i is encoded as one input ``[CLS] text [SEP] pair [SEP]``.
    pooling : {"cls", "mean", "content"}
        The state of the first token (paper §2); the mean over all tokens but padding; or the mean over the tokens
        of the texts alone, without the framing tokens such as ``[CLS]`` and ``[SEP]``.
    max_length : int
        The longest input in tokens, special tokens included; the longer of two texts is cut first
        (128: our choice, the paper does not say).
    store : Store or path, optional
        Default: ``Store()``, the folder of ``TSNS_CACHE``.
    scheduler : str, optional
        Where the model runs: ``"processes"``, ``"processes:N"`` or the address of a Dask cluster. Default: here.
        Each worker loads the encoder itself; machines of one kind give the same numbers.
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
        If there are no texts, they are no sequence, a row is empty or not a string, there are more or fewer pairs
        than texts, `pooling` is unknown, `max_length` does not fit the encoder, or values are not finite.
    StoreError
        If the cache is damaged or cannot be written.

    Examples
    --------
    >>> from tsns_lib.encoders import load_encoder
    >>> extract(["A made-up line.", "Another one."], load_encoder(), progress=False).shape
    (2, 2304)
    """
    reading: dict[str, Any] = {"pooling": pooling, "max_length": max_length, "store": store}
    reading |= {"scheduler": scheduler, "progress": progress}
    return stored_activations(texts_or_source, encoder, text_pairs=text_pairs, **reading).read()


def stored_activations(
    texts_or_source: Any,
    encoder: Encoder,
    *,
    text_pairs: Sequence[str] | None = None,
    pooling: str = "cls",
    also: Sequence[str] = (),
    max_length: int = 128,
    store: Store | str | os.PathLike[str] | None = None,
    scheduler: str | None = None,
    progress: bool = True,
) -> Entry:
    """Compute what `extract` returns into the store, with one shard of 2,048 rows in memory at a time.

    The arguments and the errors are those of `extract`; poolings named in `also` are stored from the same pass of the
    model. The finished entry has ``.shape``, ``.dtype`` and ``.read(rows=..., columns=...)``; ``.columns(numbers)``
    reads chosen neurons of all rows and keeps them.
    """
    texts, pairs = texts_of(texts_or_source, text_pairs)
    check_settings(pooling, max_length, encoder, pairs is not None, also)
    check_scheduler(scheduler)
    identity = {
        "encoder": encoder.digest,
        "dtype": encoder.dtype,
        "max_length": int(max_length),
        "texts": texts_digest(texts, pairs),
        "shard_rows": SHARD_ROWS,
        "extraction_version": EXTRACTION_VERSION[encoder.dtype],
        "versions": {package: metadata.version(package) for package in COMPUTED_BY},
    }
    entries = {each: Store(store).entry("activations", identity | {"pooling": each}) for each in (pooling, *also)}
    entry, n_shards = entries[pooling], -(-len(texts) // SHARD_ROWS)
    if not entry.is_finished(n_shards):
        with ExitStack() as turns:
            for other in sorted(entries.values(), key=lambda one: one.key):  # in one order: none waits for ever
                turns.enter_context(other.turn())
            if not entry.is_finished(n_shards):  # or another process has just computed it
                n_truncated = _fill(entries, encoder, texts, pairs, int(max_length), scheduler, progress)
                for filled in entries.values():
                    filled.finish(n_shards, n_rows=len(texts), n_truncated=n_truncated)
    n_truncated = entry.facts()["n_truncated"]
    if n_truncated and (about := (identity["texts"], max_length, n_truncated)) not in _SAID:
        _SAID.add(about)
        name = getattr(texts_or_source, "name", None) or "the texts"
        log.warning("%s: %d of %d texts were cut to max_length=%d tokens", name, n_truncated, len(texts), max_length)
    return entry


def texts_of(texts_or_source: Any, text_pairs: Sequence[str] | None) -> tuple[list[str], list[str] | None]:
    """The checked texts and pairs of a Source or of sequences; an error names the source and the row."""
    where = ""
    if isinstance(getattr(texts_or_source, "frame", None), pd.DataFrame):
        if text_pairs is not None:
            raise ValueError("text_pairs: a Source brings its own pairs, pass one or the other")
        frame, name = texts_or_source.frame, getattr(texts_or_source, "name", None)
        where = f"source {name!r}, " if name else ""
        if lacking := {"text", "text_pair"} - set(frame):
            raise ValueError(f"{where}frame: no column {min(lacking)!r}")
        texts_or_source = frame["text"]
        text_pairs = None if frame["text_pair"].isna().all() else frame["text_pair"]
    texts = checked_texts("text", texts_or_source, where)
    if text_pairs is None:
        return texts, None
    pairs = checked_texts("text_pair", text_pairs, where)
    if len(pairs) != len(texts):
        raise ValueError(f"text_pairs: {len(pairs)} rows for {len(texts)} texts")
    return texts, pairs


def texts_digest(texts: list[str], pairs: list[str] | None) -> str:
    """sha256 over all rows; each text comes after its length, so that two texts differ from their concatenation."""

    def chunks() -> Iterator[bytes]:
        yield b"singles" if pairs is None else b"pairs"
        for text in (*texts, *(pairs or [])):
            content = text.encode()
            yield len(content).to_bytes(8, "little")
            yield content

    return content_hash(chunks())


def encoded(encoder: Encoder, texts: list[str], pairs: list[str] | None, max_length: int) -> "BatchEncoding":
    """What the tokenizer makes of every row; it keeps the length that it cuts to, so threads use it in turn."""
    tokenizer = encoder.tokenizer
    with _TOKENISING:
        return tokenizer(texts, pairs, truncation="longest_first", max_length=max_length)


def tokenised(encoder: Encoder, texts: list[str], pairs: list[str] | None, max_length: int) -> tuple[Tokens, int]:
    """Tokens of every row, and how many rows were cut to `max_length`."""
    rows = encoded(encoder, texts, pairs, max_length).encodings
    assert rows is not None
    ids = np.concatenate([np.array(row.ids, np.int32) for row in rows])
    types = np.concatenate([np.array(row.type_ids, np.int8) for row in rows])
    return Tokens(ids, types, np.array(list(map(len, rows)), np.int32)), sum(bool(row.overflowing) for row in rows)


def activations(
    tokens: Tokens, encoder: Encoder, *poolings: str, on_rows: Callable[[int], Any] = lambda n_rows: None
) -> NDArray[Any]:
    """Every layer of every row, (rows, n_layers * hidden_size), poolings side by side; `on_rows` hears of rows done."""
    values = np.empty((len(tokens.lengths), len(poolings) * encoder.n_neurons), dtype=STORED_AS[encoder.dtype])
    for rows, states in _forward(tokens, encoder, poolings, _padded_groups(tokens.lengths, encoder)):
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is not stored
            values[rows] = states
        on_rows(len(rows))
    return values


def batches(lengths: NDArray[np.integer[Any]], budget: int) -> Iterator[NDArray[np.intp]]:
    """Rows of similar length together, the longest first so that memory peaks at the start."""
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        size = max(1, budget // int(lengths[order[0]]))
        yield order[:size]
        order = order[size:]


def check_settings(pooling: str, max_length: int, encoder: Encoder, pairs: bool, also: Sequence[str] = ()) -> None:
    """Raise a ValueError for what an extraction of texts, or of pairs of them, cannot work with."""
    check_encoder(encoder)
    one_of("pooling", pooling, POOLINGS)
    if not isinstance(also, list | tuple):  # a generator would be empty the second time
        raise ValueError(f"also: must be a list of poolings, got {shown(also)}")
    for each in also:
        one_of("also", each, POOLINGS)
    # At least one token of each text besides the special tokens, of which RoBERTa puts four around a pair.
    least = 6 if pairs else 3
    max_length = whole_number("max_length", max_length)
    if not least <= max_length <= encoder.max_tokens:
        bounds = f"expected {least} to {encoder.max_tokens} for {encoder.name}"
        raise ValueError(f"max_length={max_length}: {bounds}{' and pairs' if pairs else ''}")


def _fill(
    entries: Mapping[str, Entry],
    encoder: Encoder,
    texts: list[str],
    pairs: list[str] | None,
    max_length: int,
    scheduler: str | None,
    progress: bool,
) -> int:
    """Write the missing shards as they are finished; return the number of truncated rows in all shards."""
    if "content" in entries:
        _refuse_without_content(encoder, texts, pairs, max_length)
    missing = {shard for entry in entries.values() for shard in entry.missing(-(-len(texts) // SHARD_ROWS))}
    truncated = []

    def units() -> Iterator[tuple[int, Tokens]]:
        for shard, (tokens, n_truncated) in enumerate(_tokenised_ahead(encoder, texts, pairs, max_length)):
            truncated.append(n_truncated)
            if shard in missing:
                if shard == min(missing) and len(missing) > 1 and scheduler is None and is_shown(progress):
                    _announce_cost(min(len(missing) * SHARD_ROWS, len(texts)), tokens, encoder, tuple(entries))
                yield shard, tokens
            else:
                rows_bar.update(len(tokens.lengths))

    with bar(total=len(texts), desc="activations", unit="row", show=progress) as rows_bar:
        if scheduler is None:
            results = run_units(_shard, units(), shared=(encoder, rows_bar.update, *entries))
        else:  # taken apart here: where a worker cannot load the encoder, its unit fails with that error
            results = run_units(_shard_there, units(), shared=(*encoder.__reduce__(), *entries), scheduler=scheduler)
        for (shard, tokens), values in results:
            finite = np.isfinite(values).all(axis=1)
            if not finite.all():
                row = shard * SHARD_ROWS + finite.argmin()
                raise ValueError(f"text, row {row}: {encoder.name} gave values not finite")
            for entry, part in zip(entries.values(), np.hsplit(values, len(entries)), strict=True):
                entry.write(shard, np.ascontiguousarray(part))
            if scheduler is not None:
                rows_bar.update(len(tokens.lengths))
    return sum(truncated)


def _shard(unit: tuple[int, Tokens], encoder: Encoder, on_rows: Callable[[int], Any], *poolings: str) -> NDArray[Any]:
    return activations(unit[1], encoder, *poolings, on_rows=on_rows)


def _shard_there(unit: tuple[int, Tokens], load: Callable, arguments: tuple, *poolings: str) -> NDArray[Any]:
    return activations(unit[1], load(*arguments), *poolings)


def _tokenised_ahead(
    encoder: Encoder, texts: list[str], pairs: list[str] | None, max_length: int
) -> Iterator[tuple[Tokens, int]]:
    """Tokenise the next shard while the model works on this one; the tokenizer runs outside Python's lock."""

    def tokens_of(start: int) -> tuple[Tokens, int]:
        rows = slice(start, start + SHARD_ROWS)
        return tokenised(encoder, texts[rows], pairs and pairs[rows], max_length)

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(tokens_of, 0)
        for start in range(SHARD_ROWS, len(texts), SHARD_ROWS):
            current, following = following, pool.submit(tokens_of, start)
            yield current.result()
        yield following.result()


def _refuse_without_content(encoder: Encoder, texts: list[str], pairs: list[str] | None, max_length: int) -> None:
    """Raise a ValueError where a row is nothing but framing tokens: all rows, before the model sees the first."""
    for shard, (tokens, _) in enumerate(_tokenised_ahead(encoder, texts, pairs, max_length)):
        rows = np.repeat(np.arange(len(tokens.lengths)), tokens.lengths)
        content = np.bincount(rows, ~np.isin(tokens.ids, _framing(encoder)))
        if not content.all():
            where = f"text, row {shard * SHARD_ROWS + content.argmin()}"
            raise ValueError(f"{where}: has no token but the special ones, and pooling='content' needs one")


def _announce_cost(n_rows: int, tokens: Tokens, encoder: Encoder, poolings: tuple[str, ...]) -> None:
    """Say what `n_rows` rows like these will cost, measured on the groups of median length."""
    import torch

    groups = list(_padded_groups(tokens.lengths, encoder))
    median_groups = groups[len(groups) // 2 :][: torch.get_num_threads()]
    for _ in range(2):  # the first run loads the model
        start = time.perf_counter()
        n_tokens = sum(tokens.lengths[rows].sum() for rows, _ in _forward(tokens, encoder, poolings, median_groups))
        seconds = time.perf_counter() - start
    forecast = float(seconds * tokens.lengths.sum() / n_tokens) * n_rows / len(tokens.lengths)
    row_bytes = len(poolings) * encoder.n_neurons * np.dtype(STORED_AS[encoder.dtype]).itemsize
    announce(f"activations of {n_rows:,} texts", forecast, n_rows * row_bytes)


def _padded_groups(lengths: NDArray[np.integer[Any]], encoder: Encoder) -> Iterator[tuple[NDArray[np.intp], int]]:
    """Rows that go through the model at once, and the length they are padded to, on which alone their bits depend."""
    import torch

    budget = TOKEN_BUDGET[encoder.dtype]
    if encoder.device.startswith("cuda"):
        budget = encoder.tokens_within(torch.cuda.get_device_properties(encoder.device).total_memory)
    for batch in batches(lengths, budget):
        longest = int(lengths[batch[0]])
        n_groups = min(len(batch), -(-len(batch) * longest // TOKENS_AT_ONCE)) if encoder.device == "cpu" else 1
        yield from ((rows, longest) for rows in np.array_split(batch, n_groups))


def _forward(
    tokens: Tokens, encoder: Encoder, poolings: Sequence[str], groups: Iterable[tuple[NDArray[np.intp], int]]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """Rows of each group with their pooled layers, in order; a CPU works on one group in each of PyTorch's threads."""

    def pooled(group: tuple[NDArray[np.intp], int]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        return group[0], _pooled(encoder, _padded(encoder, tokens, *group), *poolings)

    encoder.model.eval()  # loaded here, before the threads begin
    if encoder.device != "cpu":
        yield from map(pooled, groups)
    else:
        with _single_threads() as pool:
            yield from pool.map(pooled, groups)


def _single_threads() -> ThreadPoolExecutor:
    """As many threads as PyTorch would use here, each of which runs the model on itself alone.

    `torch.set_num_threads` acts on its own thread and on all that first use PyTorch later. So these start at once, and
    the number is set back before another thread of ours can take it over.
    """
    import torch

    def alone(_: int) -> None:
        torch.get_num_threads()  # a first use
        torch.set_num_threads(1)
        all_started.wait()

    with _SETTING_UP:
        n_threads = torch.get_num_threads()
        all_started = threading.Barrier(n_threads)
        pool = ThreadPoolExecutor(n_threads)
        list(pool.map(alone, range(n_threads)))
        torch.set_num_threads(n_threads)
    return pool


def _padded(encoder: Encoder, tokens: Tokens, rows: NDArray[np.intp], length: int) -> "dict[str, torch.Tensor]":
    import torch

    tokenizer = encoder.tokenizer
    starts = (np.cumsum(tokens.lengths) - tokens.lengths)[rows]
    mask = np.arange(length) < tokens.lengths[rows][:, None]
    positions = (starts[:, None] + np.arange(length))[mask]
    ids = np.full(mask.shape, tokenizer.pad_token_id or 0)
    ids[mask] = tokens.ids[positions]
    arrays = {"input_ids": ids, "attention_mask": mask.astype(ids.dtype)}
    # As the tokenizer itself would return them, unless the model has no embedding for types.
    if "token_type_ids" in tokenizer.model_input_names and getattr(encoder.model.config, "type_vocab_size", 0) > 1:
        arrays["token_type_ids"] = np.zeros_like(ids)
        arrays["token_type_ids"][mask] = tokens.types[positions]
    return {name: torch.from_numpy(array).to(encoder.device) for name, array in arrays.items()}


def _pooled(encoder: Encoder, inputs: "dict[str, torch.Tensor]", *poolings: str) -> NDArray[np.float32]:
    """Pool every layer of some rows: (rows, n_layers * hidden_size), poolings side by side."""
    import torch

    with torch.inference_mode(), torch.autocast(encoder.model.device.type, enabled=False):  # of the caller
        layers = encoder.model(**inputs, output_hidden_states=True).hidden_states[1:]
        pooled: list[torch.Tensor] = []
        for pooling in poolings:
            if pooling == "cls":
                pooled += [layer[:, 0].float() for layer in layers]
                continue
            weights = inputs["attention_mask"].float()
            if pooling == "content":
                framing = torch.tensor(_framing(encoder), device=encoder.device)
                weights = weights * ~torch.isin(inputs["input_ids"], framing)
            weights = weights / weights.sum(dim=1, keepdim=True)
            pooled += [torch.einsum("rt,rth->rh", weights, layer.float()) for layer in layers]
        return torch.cat(pooled, dim=1).cpu().numpy()


def _framing(encoder: Encoder) -> list[int]:
    """Tokens that the tokenizer puts around texts. It calls unknown words special too, but these are words."""
    tokenizer = encoder.tokenizer
    numbers = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}
    return sorted(numbers)
