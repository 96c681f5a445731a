"""Fingerprints of many sources: select in every run, and see how far the choice would move."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsns_lib.aggregation import check_n_neurons, order_neurons, select_neurons
from tsns_lib.encoders import Encoder
from tsns_lib.extraction import extract
from tsns_lib.fingerprints import fingerprint
from tsns_lib.importance import cumulative_importance, resampled_importance
from tsns_lib.runtime.progress import bar
from tsns_lib.runtime.store import Store
from tsns_lib.sampling import derive_seed, run_seed
from tsns_lib.stability import half_overlap

N_DRAWS = 500  # bootstrap draws of a run's resamples (our choice)
LABELS = ("true", "shuffled")


def fingerprint_frame(
    sources: Sequence[Any],
    encoder: Encoder,
    *,
    k: int = 500,
    runs: int = 5,
    labels: str = "true",
    n_resamples: int = 100,
    fraction: float | str = "auto",
    n_trees: int = 1000,
    max_depth: int = 200,
    engine: str = "histogram",
    pooling: str = "cls",
    max_length: int = 128,
    seed: int = 0,
    tol: float | None = None,
    n_jobs: int = -1,
    store: Store | str | os.PathLike | None = None,
    scheduler: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Fingerprint of every source in every run.

    Parameters
    ----------
    sources : sequence of Source
        As `tsns_lib.load_source` gives them.
    encoder : Encoder
        As `tsns_lib.load_encoder` gives it; one with random weights gives the control.
    k : int
        K, default 500 (our choice; the paper gives none for its Figure 2).
    runs : int
        Independent runs, default 5 (paper §4.2); a run has the same seed as in `tsns_lib.transfer_grid`.
    labels : {"true", "shuffled"}
        "shuffled" permutes the labels of a source anew in every run: the same texts, no task.
    n_resamples, fraction, n_trees, max_depth, engine
        As in `tsns_lib.resampled_importance`; alpha is 1 (paper §3.1).
    pooling, max_length
        As in `tsns_lib.extract`.
    seed : int
        Seed of the study.
    tol, n_jobs, store, scheduler, progress
        As in `tsns_lib.transfer_grid`.

    Returns
    -------
    DataFrame
        One row for each source and run, in columns `source`, `task`, `run`, `k`, `selected` (neuron numbers),
        `shares` (array of shape (n_layers,), sums to 1), `draws` (array of shape (500, n_layers)) and
        `stability` (share of the K neurons that two halves of the resamples have in common) and `resamples`
        (how many were needed). A draw is the
        fingerprint after as many resamples drawn with replacement from the run's.

    Raises
    ------
    ValueError
        If a name stands twice, K is not in [1, N], `runs` is below 1 or `labels` is unknown.

    Examples
    --------
    >>> import tsns_lib
    >>> books = tsns_lib.load_source("miniature:books", limit=40)
    >>> settings = {"k": 50, "runs": 1, "n_resamples": 2, "n_trees": 20, "progress": False}
    >>> frame = fingerprint_frame([books], tsns_lib.load_encoder(), **settings)
    >>> frame["shares"][0].shape, frame["draws"][0].shape
    ((6,), (500, 6))
    """
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"sources: a name stands twice in {names}")
    if labels not in LABELS:
        raise ValueError(f"labels: must be 'true' or 'shuffled', got {labels!r}")
    if runs < 1:
        raise ValueError(f"runs: must be at least 1, got {runs}")
    check_n_neurons(k, encoder.n_neurons)
    forest: dict[str, Any] = {
        "n_resamples": n_resamples,
        "fraction": fraction,
        "n_trees": n_trees,
        "max_depth": max_depth,
        "engine": engine,
        "tol": tol,
        "neurons": [k],
        "n_jobs": n_jobs,
    }
    where: dict[str, Any] = {"store": store, "scheduler": scheduler, "progress": progress}
    rows = []
    for source in bar(sources, desc="sources", show=progress):
        X = extract(source, encoder, pooling=pooling, max_length=max_length, **where)
        for run in range(runs):
            y = source.frame["label"].to_numpy()
            if labels == "shuffled":
                y = np.random.default_rng(derive_seed(seed, source.name, "shuffled", run)).permutation(y)
            q = resampled_importance(X, y, seed=run_seed(seed, run, source.name), **forest, **where)
            selected = select_neurons(cumulative_importance(q), k)
            shares = fingerprint(selected, encoder.n_layers, encoder.n_neurons)
            draws = _draws(q, k, encoder.n_layers, derive_seed(seed, source.name, "draws", run))
            stability = half_overlap(q, k)
            rows.append((source.name, source.task, run, k, selected, shares, draws, stability, len(q)))
    columns = ["source", "task", "run", "k", "selected", "shares", "draws", "stability", "resamples"]
    return pd.DataFrame(rows, columns=columns)


def _draws(q: np.ndarray, k: int, n_layers: int, seed: int) -> np.ndarray:
    """Fingerprints after as many resamples drawn with replacement, shape (N_DRAWS, n_layers)."""
    n_resamples, n_neurons = q.shape
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n_resamples, np.full(n_resamples, 1 / n_resamples), size=N_DRAWS)
    chosen = (order_neurons(weights @ q)[:k] for weights in counts)
    return np.stack([fingerprint(neurons, n_layers, n_neurons) for neurons in chosen])
