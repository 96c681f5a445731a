"""What is drawn anew, and what it does: trials of partial reinitialization, the causal test of a fingerprint."""

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tsns_lib.classifier import computable, fit_classifier
from tsns_lib.encoders import Encoder
from tsns_lib.extraction import EXTRACTION_VERSION, stored_activations
from tsns_lib.runtime.progress import bar
from tsns_lib.runtime.store import Store
from tsns_lib.sampling import derive_seed
from tsns_lib.texts import content_hash, texts_of
from tsns_lib.transferability.own_encoders import identity_of, prepared_encoder
from tsns_lib.transferability.reinitialization import CUTS, reinitialize, scramble
from tsns_lib.transferability.tuning_grid import Trials

# Counts up when the same draws and texts would give other predictions than before.
REDRAWN_VERSION = 1
INTACT = "intact"
INITS = tuple(CUTS)


def progressive(n_layers: int) -> dict[str, list[int]]:
    """Layers drawn anew from every height to the top, by name; layers are counted from 1 in a name, else from 0.

    Examples
    --------
    >>> progressive(3)
    {'intact': [], 'from layer 3': [2], 'from layer 2': [1, 2], 'from layer 1': [0, 1, 2]}
    """
    heights = {f"from layer {first + 1}": list(range(first, n_layers)) for first in reversed(range(n_layers))}
    return {INTACT: [], **heights}


def windows(n_layers: int, width: int = 3) -> dict[str, list[int]]:
    """Every block of adjacent layers, by name.

    Examples
    --------
    >>> windows(4)
    {'layers 1-3': [0, 1, 2], 'layers 2-4': [1, 2, 3]}
    """
    if not 1 <= width <= n_layers:
        raise ValueError(f"width={width}: expected 1 to {n_layers}, the layers")
    starts = range(n_layers - width + 1)
    return {f"layers {first + 1}-{first + width}": list(range(first, first + width)) for first in starts}


def all_but(blocks: Mapping[str, Sequence[int]], n_layers: int) -> dict[str, list[int]]:
    """Everything outside each block, by name: only the block stays pretrained.

    Examples
    --------
    >>> all_but({"layers 1-3": [0, 1, 2]}, 4)
    {'only layers 1-3 kept': [3]}
    """
    return {
        f"only {name} kept": [layer for layer in range(n_layers) if layer not in block]
        for name, block in blocks.items()
    }


def redrawn_trials(blocks: Mapping[str, Sequence[int]], init: str = "paper") -> Trials:
    """Fine-tune after drawing each block anew, for `tsns_lib.transferability.tuning_grid.tuning_grid`.

    Parameters
    ----------
    blocks : mapping of str to sequence of int
        Layers by name; none leaves the encoder as it is.
    init : {"paper", "released"}
        As in `reinitialize`.

    Returns
    -------
    callable
        Takes the name of a source and the seed of a run, which the draws follow.
    """
    return lambda source, seed: {
        name: {"prepare": partial(reinitialize, layers=list(layers), init=init, seed=seed)} if layers else {}
        for name, layers in blocks.items()
    }


def scrambled_trials(n_layers: int) -> Trials:
    """Fine-tune with the layers in another order, drawn anew for every run."""

    def trials(source: str, seed: int) -> dict[str, dict[str, Any]]:
        order = np.random.default_rng(derive_seed(seed, "order")).permutation(n_layers).tolist()
        return {"scrambled": {"prepare": partial(scramble, order=order)}}

    return trials


def redrawn_grid(
    sources: Sequence[Any],
    tests: Sequence[Any],
    encoder: Encoder,
    selected: Mapping[str, ArrayLike],
    blocks: Mapping[str, Sequence[int]],
    *,
    runs: int = 3,
    C: float = 0.01,
    max_length: int = 128,
    seed: int = 0,
    store: Store | str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Accuracy of chosen neurons when a block of layers is drawn anew and nothing is tuned.

    The neurons stay those that were chosen on the intact encoder; the classifier is trained on their new states.
    Predictions are kept in the store, drawn encoders and their states are not.

    Parameters
    ----------
    sources, tests : sequence of Source
        What a classifier is trained on, and what it predicts after each of them.
    encoder : Encoder
        The intact one.
    selected : mapping of str to array of int
        The neurons chosen on each source.
    blocks : mapping of str to sequence of int
        Layers by name, such as `windows` gives them.
    runs : int
        Draws of every block.
    C : float
        As in `tsns_lib.transfer_grid`.
    max_length, store, progress
        As in `tsns_lib.extract`.
    seed : int
        Of the study.

    Returns
    -------
    DataFrame
        For each source one row for "intact" and for each block and run, in columns `source`, `target`, `method` (the
        block's name), `k` (neurons), `run`, `accuracy` (0 to 1), `n` and `correct`.
    """
    store = store if isinstance(store, Store) else Store(store)
    cases = [(*pair, np.asarray(selected[pair[0].name])) for pair in zip(sources, tests, strict=True)]
    draws: dict[tuple[str, int], Any] = {(INTACT, 0): None}
    for name, layers in blocks.items():
        for run in range(runs):
            own = derive_seed(seed, "redrawn", run)
            draws[name, run] = partial(reinitialize, layers=list(layers), seed=own)
    rows = []
    for (name, run), draw in bar(draws.items(), desc="drawn anew", show=progress):
        found = _predictions(cases, encoder, draw, C, store, max_length=max_length, progress=progress)
        for (source, target, neurons), predicted in zip(cases, found, strict=True):
            correct = predicted == target.frame["label"].to_numpy()
            rows.append((source.name, target.name, name, len(neurons), run, correct.mean(), len(correct), correct))
    return pd.DataFrame(rows, columns=["source", "target", "method", "k", "run", "accuracy", "n", "correct"])


def _predictions(
    cases: Sequence[tuple[Any, Any, np.ndarray]], encoder: Encoder, draw: Any, C: float, store: Store, **options: Any
) -> list[np.ndarray]:
    """Labels predicted for every target by its source's neurons, in the encoder after a draw."""
    entries = [store.entry("predictions", _identity(encoder, draw, C, options["max_length"], *case)) for case in cases]
    missing = [number for number, entry in enumerate(entries) if not entry.is_finished(1)]
    if missing:
        # A drawn encoder and its states serve this once: a hundred of them would fill the store.
        with tempfile.TemporaryDirectory() as folder:
            drawn = prepared_encoder(encoder, draw, store=folder) if draw else encoder
            where = Store(folder) if draw else store
            for number in missing:
                *parts, neurons = cases[number]
                states = (stored_activations(part, drawn, store=where, **options) for part in parts)
                X, Z = (computable(entry.read(columns=neurons)) for entry in states)
                entries[number].write(0, fit_classifier(X, parts[0].frame["label"].to_numpy(), C).predict(Z))
                entries[number].finish(1)
    return [entry.read() for entry in entries]


def _identity(
    encoder: Encoder, draw: Any, C: float, max_length: int, source: Any, target: Any, neurons: np.ndarray
) -> dict[str, Any]:
    numbers = {"labels": source.frame["label"].to_numpy(), "neurons": neurons}
    return {
        "encoder": encoder.fingerprint,
        "dtype": encoder.dtype,
        "prepare": identity_of(draw),
        "C": C,
        "max_length": max_length,
        "source": content_hash(*texts_of(source, None)),
        "target": content_hash(*texts_of(target, None)),
        "extraction_version": EXTRACTION_VERSION[encoder.dtype],
        "redrawn_version": REDRAWN_VERSION,
        **{name: hashlib.sha256(values.astype("<i8").tobytes()).hexdigest() for name, values in numbers.items()},
    }
