"""Models tuned in several ways, each tested on the same rows: a grid like that of `tsns_lib.transfer_grid`."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from sklearn.metrics import matthews_corrcoef

from tsns_lib.classifier import computable, fit_classifier
from tsns_lib.encoders import Encoder
from tsns_lib.extraction import extract
from tsns_lib.runtime.progress import bar
from tsns_lib.runtime.store import Store
from tsns_lib.sampling import run_seed
from tsns_lib.transferability.finetuning import Recipe, fine_tune

COLUMNS = ["source", "target", "method", "k", "run", "accuracy", "matthews", "n", "correct", "seconds"]

Trials = Callable[[int], Mapping[str, Mapping[str, Any]]]


def tuning_grid(
    source: Any,
    targets: Sequence[Any],
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
    """Tune an encoder on a source in every way that is tried, and test each model on every target.

    Parameters
    ----------
    source : Source
        What is trained on.
    targets : sequence of Source
        What is predicted: the source's own test split, or other sources.
    encoder : Encoder
        Where every training starts.
    recipe : Recipe
        How long and how fast.
    trials : callable
        Takes the seed of a run and gives what is tried in it: options of `fine_tune` by name.
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
        One row for each target, trial and run, in columns `source`, `target`, `method` (the trial), `k` (rows
        trained on), `run`, `accuracy` (0 to 1), `matthews` (Matthews' correlation, -1 to 1), `n`, `correct`
        (boolean array over the target's rows) and `seconds` (of the training).

    Raises
    ------
    ValueError, StoreError
        As `fine_tune`.

    Examples
    --------
    >>> from tsns_lib import load_encoder, load_source
    >>> books, dvd = (load_source(f"miniature:{name}", limit=16) for name in ("books", "dvd"))
    >>> ways = lambda seed: {"probing": {"method": "head"}}
    >>> recipe = Recipe(epochs=1, max_length=16)
    >>> tuning_grid(books, [dvd], load_encoder(), recipe, ways, runs=1, progress=False)[["source", "target", "k", "n"]]
                source         target   k   n
    0  miniature:books  miniature:dvd  16  16
    """
    k = source.n_rows if n_rows is None else n_rows
    rows = []
    for run in bar(range(runs), desc=f"runs on {source.name}", show=progress):
        own = run_seed(seed, run, source.name)
        for name, options in trials(own).items():
            where: dict[str, Any] = {"store": store, "progress": progress}
            tuned = fine_tune(source, encoder, recipe, seed=own, n_rows=n_rows, **options, **where)
            for target in targets:
                truth, predicted = target.frame["label"].to_numpy(), tuned.predict(target)
                correct = predicted == truth
                scores = correct.mean(), matthews_corrcoef(truth, predicted), len(truth)
                rows.append((source.name, target.name, name, k, run, *scores, correct, tuned.seconds))
    return pd.DataFrame(rows, columns=COLUMNS)


def probing_grid(
    source: Any,
    target: Any,
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
    source, target : Source
        What is trained on, and what is predicted.
    encoder : Encoder
        Frozen.
    C : float
        Inverse strength of the penalty, as in `tsns_lib.transfer_grid`.
    max_length, store, progress
        As in `tsns_lib.extract`.

    Returns
    -------
    DataFrame
        One row for each layer, in the columns of `tuning_grid` less `seconds`: `method` is "probe" and `k` the layer,
        the first being 1.

    Examples
    --------
    >>> from tsns_lib import load_encoder, load_source
    >>> books, dvd = (load_source(f"miniature:{name}", limit=40) for name in ("books", "dvd"))
    >>> probing_grid(books, dvd, load_encoder(), max_length=16, progress=False)["k"].tolist()
    [1, 2, 3, 4, 5, 6]
    """
    options: dict[str, Any] = {"max_length": max_length, "store": store, "progress": progress}
    X, Z = (computable(extract(rows, encoder, **options)) for rows in (source, target))
    truth = target.frame["label"].to_numpy()
    rows = []
    for layer in range(encoder.n_layers):
        own = slice(layer * encoder.hidden_size, (layer + 1) * encoder.hidden_size)
        predicted = fit_classifier(X[:, own], source.frame["label"].to_numpy(), C).predict(Z[:, own])
        correct = predicted == truth
        scores = correct.mean(), matthews_corrcoef(truth, predicted), len(truth)
        rows.append((source.name, target.name, "probe", layer + 1, 0, *scores, correct))
    return pd.DataFrame(rows, columns=COLUMNS[:-1])
