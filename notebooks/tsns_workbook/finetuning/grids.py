"""Models tuned in several ways, each tested on the same rows: a grid like that of `tsns_lib.transfer_grid`.

What is drawn anew, and what it does: trials of partial reinitialization, the causal test of a fingerprint.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import matthews_corrcoef

from tsns_lib.classifier import computable, fit_classifier
from tsns_lib.encoders import Encoder
from tsns_lib.executors import announce, bar, is_shown
from tsns_lib.extraction import EXTRACTION_VERSION, stored_activations, texts_hash, texts_of
from tsns_lib.sampling import derive_seed, run_seed
from tsns_lib.store import Store
from tsns_lib.transferability.reinitialization import CUTS, reinitialize, scramble
from tsns_workbook.finetuning.finetune import Recipe, fine_tune
from tsns_workbook.finetuning.prepared import identity_of, prepared_encoder

COLUMNS = ["source", "target", "method", "k", "run", "accuracy", "matthews", "n", "correct", "seconds"]

Trials = Callable[[str, int], Mapping[str, Mapping[str, Any]]]  # of a source and the seed of a run


def tuning_grid(
    sources: Sequence[Any],
    tests: Sequence[Any],
    encoder: Encoder,
    recipe: Recipe,
    trials: Trials,
    *,
    n_rows: int | None = None,
    runs: int = 3,
    seed: int = 0,
    store: Store | str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Tune an encoder on every source in every way that is tried, and test each model.

    Predictions are kept in the store and models are not: a grid of BERT-large's layers would be hundreds of GB.

    Parameters
    ----------
    sources : sequence of Source
        What is trained on.
    tests : sequence of Source
        What is predicted after each of them, such as its test split.
    encoder : Encoder
        Where every training starts.
    recipe : Recipe
        How long and how fast.
    trials : callable
        Takes the name of a source and the seed of a run, and gives what is tried: options of `fine_tune` by name.
    n_rows : int, optional
        Rows trained on, drawn anew in every run and shared by its trials. Default: all.
    runs : int
        Runs, default 3 (arXiv 2004.14975).
    seed : int
        Of the study; a run's follows from it, its number and the source's name.
    store, progress
        As in `fine_tune`.

    Returns
    -------
    DataFrame
        One row for each source, trial and run, in columns `source`, `target`, `method` (the trial), `k` (rows
        trained on), `run`, `accuracy` (0 to 1), `matthews` (Matthews' correlation, -1 to 1), `n`, `correct`
        (boolean array over the target's rows) and `seconds` (of the training).

    Raises
    ------
    ValueError
        If there are not as many tests as sources, or as `fine_tune`.
    StoreError
        As `fine_tune`.

    Examples
    --------
    >>> from tsns_lib import load_encoder, load_source
    >>> books, dvd = (load_source(f"miniature:{name}", limit=16) for name in ("books", "dvd"))
    >>> ways = lambda source, seed: {"probing": {"method": "head"}}
    >>> recipe = Recipe(epochs=1, max_length=16)
    >>> grid = tuning_grid([books], [dvd], load_encoder(), recipe, ways, runs=1, progress=False)
    >>> grid[["source", "target", "k", "n"]]
                source         target   k   n
    0  miniature:books  miniature:dvd  16  16
    """
    if len(sources) != len(tests):
        raise ValueError(f"tests: {len(sources)} sources need as many, got {len(tests)}")
    jobs = [
        (source, target, run, own, trial)
        for source, target in zip(sources, tests, strict=True)
        for run in range(runs)
        for own in [run_seed(seed, run, source.name)]
        for trial in trials(source.name, own).items()
    ]
    rows, announced = [], not is_shown(progress)
    for done, (source, target, run, own, (name, options)) in enumerate(bar(jobs, desc="trainings", show=progress), 1):
        start = time.perf_counter()
        where: dict[str, Any] = {"only_for": target, "store": store, "progress": progress}
        tuned = fine_tune(source, encoder, recipe, seed=own, n_rows=n_rows, **options, **where)
        predicted, truth = tuned.predict(target), target.frame["label"].to_numpy()
        seconds = time.perf_counter() - start
        # the first that was not in the store is the probe
        if not announced and seconds >= tuned.seconds and done < len(jobs):
            announce(f"at most {len(jobs) - done:,} more trainings", (len(jobs) - done) * seconds, 0)
            announced = True
        correct = predicted == truth
        scores = correct.mean(), matthews_corrcoef(truth, predicted), len(truth)
        rows.append((source.name, target.name, name, n_rows or source.n_rows, run, *scores, correct, tuned.seconds))
    return pd.DataFrame(rows, columns=COLUMNS)


def probing_grid(
    sources: Sequence[Any],
    tests: Sequence[Any],
    encoder: Encoder,
    *,
    C: float = 0.01,
    max_length: int = 128,
    store: Store | str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Accuracy of a logistic regression on every layer's first token: what a layer holds before any tuning.

    Parameters
    ----------
    sources, tests : sequence of Source
        What is trained on, and what is predicted after each of them.
    encoder : Encoder
        Frozen.
    C : float
        Inverse strength of the penalty, as in `tsns_lib.transfer_grid`.
    max_length, store, progress
        As in `tsns_lib.extract`.

    Returns
    -------
    DataFrame
        One row for each source and layer, in the columns of `tuning_grid` less `seconds`: `method` is "probe" and `k`
        the layer, the first being 1.

    Examples
    --------
    >>> from tsns_lib import load_encoder, load_source
    >>> books, dvd = (load_source(f"miniature:{name}", limit=40) for name in ("books", "dvd"))
    >>> probing_grid([books], [dvd], load_encoder(), max_length=16, progress=False)["k"].tolist()
    [1, 2, 3, 4, 5, 6]
    """
    options: dict[str, Any] = {"max_length": max_length, "store": store, "progress": progress}
    rows = []
    for source, target in zip(sources, tests, strict=True):
        known, unknown = (stored_activations(part, encoder, **options) for part in (source, target))
        labels, truth = source.frame["label"].to_numpy(), target.frame["label"].to_numpy()
        for layer in range(encoder.n_layers):
            own = np.arange(layer * encoder.hidden_size, (layer + 1) * encoder.hidden_size)
            X, Z = (computable(entry.read(columns=own)) for entry in (known, unknown))
            predicted = fit_classifier(X, labels, C).predict(Z)
            correct = predicted == truth
            scores = correct.mean(), matthews_corrcoef(truth, predicted), len(truth)
            rows.append((source.name, target.name, "probe", layer + 1, 0, *scores, correct))
    return pd.DataFrame(rows, columns=COLUMNS[:-1])


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
    """Fine-tune after drawing each block anew, for `tsns_workbook.finetuning.grids.tuning_grid`.

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
        found = _redrawn_predictions(cases, encoder, draw, C, store, max_length=max_length, progress=progress)
        for (source, target, neurons), predicted in zip(cases, found, strict=True):
            correct = predicted == target.frame["label"].to_numpy()
            rows.append((source.name, target.name, name, len(neurons), run, correct.mean(), len(correct), correct))
    return pd.DataFrame(rows, columns=["source", "target", "method", "k", "run", "accuracy", "n", "correct"])


def _redrawn_predictions(
    cases: Sequence[tuple[Any, Any, np.ndarray]], encoder: Encoder, draw: Any, C: float, store: Store, **options: Any
) -> list[np.ndarray]:
    """Labels predicted for every target by its source's neurons, in the encoder after a draw."""
    entries = [
        store.entry("predictions", _redrawn_identity(encoder, draw, C, options["max_length"], *case)) for case in cases
    ]
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


def _redrawn_identity(
    encoder: Encoder, draw: Any, C: float, max_length: int, source: Any, target: Any, neurons: np.ndarray
) -> dict[str, Any]:
    numbers = {"labels": source.frame["label"].to_numpy(), "neurons": neurons}
    return {
        "encoder": encoder.fingerprint,
        "dtype": encoder.dtype,
        "prepare": identity_of(draw),
        "C": C,
        "max_length": max_length,
        "source": texts_hash(*texts_of(source, None)),
        "target": texts_hash(*texts_of(target, None)),
        "extraction_version": EXTRACTION_VERSION[encoder.dtype],
        "redrawn_version": REDRAWN_VERSION,
        **{name: hashlib.sha256(values.astype("<i8").tobytes()).hexdigest() for name, values in numbers.items()},
    }
