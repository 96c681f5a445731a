"""Models tuned in several ways, each tested on the same rows: a grid like that of `tsns_lib.transfer_grid`."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import matthews_corrcoef

from tsns_lib.classifier import computable, fit_classifier
from tsns_lib.encoders import Encoder
from tsns_lib.extraction import stored_activations
from tsns_lib.runtime.progress import announce, bar, is_shown
from tsns_lib.runtime.store import Store
from tsns_lib.sampling import run_seed
from tsns_lib.transferability.finetuning import Recipe, fine_tune

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
