"""Tokens in, every layer's pooled states out: batches of rows of like length through one model.

Nothing here knows the store; a shard of tokens and an encoder determine the result, wherever it is computed.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsns_lib.encoders import Encoder

if TYPE_CHECKING:
    import torch

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
