"""One resample of a source as a unit of work: pure, seeded, the same bits wherever it runs.

Importance of every neuron for a task: one forest, J resamples of it, and what they add up to.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata

import numpy as np
from numpy.typing import ArrayLike

from tsns_lib.aggregation import check_n_neurons
from tsns_lib.executors import announce, bar, check_scheduler, is_shown, run_units
from tsns_lib.forest import Activations, bin_activations, bin_edges, histogram_importance, row_blocks
from tsns_lib.sampling import derive_seed, resample_fraction, resample_rows
from tsns_lib.stability import is_stable, looks
from tsns_lib.store import Entry, Store

PROBE_TREES = 16  # enough to forecast what a forest takes


@dataclass(frozen=True)
class Forests:
    """What the resamples of one call have in common.

    `data` are the activations; or, for the histogram engine where they fit in memory, their bins, neuron-major.
    `edges` cut them, where that is still to be done.
    """

    data: Activations
    edges: np.ndarray | None
    classes: np.ndarray
    fraction: float | str
    n_trees: int
    max_depth: int
    engine: str
    seed: int
    n_jobs: int


def prepare(X: Activations, engine: str, n_jobs: int) -> tuple[Activations, np.ndarray | None]:
    """What the engine reads, and the edges where it is still to be cut."""
    if engine == "sklearn":
        return X, None
    edges = bin_edges(X, n_jobs)
    return (X, edges) if isinstance(X, Entry) else (bin_activations(X, edges, n_jobs=n_jobs), None)


def grow_resample(j: int, forests: Forests) -> np.ndarray:
    """Importance of shape (N,) on resample j: a pure unit of work for any executor."""
    data, edges, classes = forests.data, forests.edges, forests.classes
    rows = resample_rows(len(classes), forests.fraction, derive_seed(forests.seed, "resample", j, "rows"))
    if len(np.unique(classes[rows])) < 2:
        held = f"{len(rows)} of {len(classes)} rows"
        raise ValueError(f"fraction: resample {j} ({held}) holds one class only; use a larger fraction")
    if edges is not None:
        part = bin_activations(data, edges, rows, forests.n_jobs)
    elif forests.engine == "sklearn":
        part = np.concatenate(list(row_blocks(data, rows)))
    else:
        assert isinstance(data, np.ndarray)  # bins
        part = data.take(rows, axis=1)
    seed = derive_seed(forests.seed, "resample", j, "forest")
    settings = forests.n_trees, forests.max_depth, forests.engine
    return grow_forest(part, classes[rows], *settings, seed, forests.n_jobs)


def grow_forest(
    prepared: np.ndarray,
    classes: np.ndarray,
    n_trees: int,
    max_depth: int,
    engine: str,
    seed: int,
    n_jobs: int,
) -> np.ndarray:
    """Importance of shape (N,) by one forest on what `prepare` gives."""
    if engine == "histogram":
        return histogram_importance(prepared, classes, n_trees, max_depth, seed, n_jobs)
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_trees, max_depth=max_depth, random_state=seed % 2**32, n_jobs=n_jobs)
    return forest.fit(prepared, classes).feature_importances_


def announce_cost(forests: Forests, n_forests: int, n_neurons: int, at_most: bool) -> None:
    """Say what the forests will cost, by a few trees of the first one: what a resample and what a tree takes."""
    seconds = []
    for n_trees in (1, 1, PROBE_TREES):  # the first compiles
        start = time.perf_counter()
        grow_resample(0, replace(forests, n_trees=n_trees))
        seconds.append(time.perf_counter() - start)
    of_a_tree = max(0.0, seconds[2] - seconds[1]) / (PROBE_TREES - 1)
    work = f"{'at most ' if at_most else ''}{n_forests} forests of {forests.n_trees:,} trees"
    announce(work, n_forests * (seconds[1] + of_a_tree * (forests.n_trees - 1)), n_forests * n_neurons * 8)


VERSION = 1  # of what a stored resample means; part of its key


def forest_importance(
    X: ArrayLike,
    y: ArrayLike,
    *,
    n_trees: int = 1000,
    max_depth: int = 200,
    engine: str = "histogram",
    seed: int = 0,
    n_jobs: int = -1,
) -> np.ndarray:
    """Impurity importance of every neuron, from one random forest.

    √N candidate neurons a split, gini, bootstrap, each tree's importances normalised before the mean.

    Parameters
    ----------
    X : array of shape (n, N)
        Activations; finite.
    y : array of shape (n,)
        Labels; two classes or more.
    n_trees : int
        Default 1,000 (paper §4.2).
    max_depth : int
        Default 200 (paper §4.2).
    engine : {"histogram", "sklearn"}
        "sklearn" is the reference, `RandomForestClassifier`; "histogram" is `tsns_lib.forest`, the default
        because it selects as well and is many times faster (our choice).
    seed : int
        Seed of the forest.
    n_jobs : int
        Threads; -1 is all cores. It never changes the result of "histogram".

    Returns
    -------
    ndarray of shape (N,)
        Sums to 1 (to 0 when no neuron separates anything).

    Raises
    ------
    ValueError
        If an argument is out of range, X is not finite, or y has one class only.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> importance = forest_importance(X, X[:, 3] > 0, n_trees=20, n_jobs=1)
    >>> int(importance.argmax()), round(float(importance.sum()), 6)
    (3, 1.0)
    """
    matrix, classes = _checked_activations(X, y)
    _check_forest(n_trees, max_depth, engine, n_jobs)
    data, _ = prepare(matrix, engine, n_jobs)
    assert isinstance(data, np.ndarray)
    return grow_forest(data, classes, n_trees, max_depth, engine, seed, n_jobs)


def resampled_importance(
    X: ArrayLike | Entry,
    y: ArrayLike,
    *,
    n_resamples: int = 100,
    fraction: float | str = "auto",
    n_trees: int = 1000,
    max_depth: int = 200,
    engine: str = "histogram",
    seed: int = 0,
    tol: float | None = None,
    neurons: Sequence[int] = (100, 300, 500),
    n_jobs: int = -1,
    store: Store | str | os.PathLike | None = None,
    scheduler: str | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Importance q on J seeded resamples of a source, each a durable unit in the store.

    A resample that the store holds is read, not computed: a call that was cut off goes on where it stopped,
    and a call with more resamples extends the earlier ones.

    Parameters
    ----------
    X : array or Entry of shape (n, N)
        Activations of one source, in memory or as `tsns_lib.extraction.stored_activations` gives them: then only
        the rows of one resample are in memory at once, and the workers of a scheduler read them from a shared folder.
    y : array of shape (n,)
        Its labels.
    n_resamples : int
        J, default 100 (paper §4.2).
    fraction : float in (0, 1] or "auto"
        β, the share of rows in a resample: 0.7 for small sources, 0.1 for large ones (paper §4.2).
    n_trees, max_depth, engine, n_jobs
        As in `forest_importance`.
    seed : int
        Seed of this run; resample j has a seed derived from it and from j.
    tol : float in (0, 1), optional
        Stop before J as soon as, at 95 %, the K neurons chosen (by the mean of q) share at least 1 - tol with those
        that all J resamples would choose: see `tsns_lib.stability`. Default: all J (the paper).
    neurons : sequence of int
        The values of K for which that must hold; read only with `tol`.
    store : Store or path, optional
        Default: the store of the environment (`TSNS_CACHE`).
    scheduler : str, optional
        Where the forests grow: "processes", "processes:N" or the address of a Dask cluster. Default: here, in
        threads. It never changes the result of "histogram".
    progress : bool
        Whether to say what the forests will cost and to show a bar over them.

    Returns
    -------
    ndarray of shape (J, N)
        Row j is the importance on resample j; each row sums to 1. With `tol`, as many rows as were needed.

    Raises
    ------
    ValueError
        As `forest_importance`, if a resample holds one class only, or if `tol` is not in (0, 1).

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> q = resampled_importance(X, X[:, 3] > 0, n_resamples=3, n_trees=20, n_jobs=1)
    >>> q.shape, q.argmax(axis=1).tolist()
    ((3, 5), [3, 3, 3])
    >>> len(resampled_importance(X, X[:, 3] > 0, n_trees=20, tol=0.1, neurons=[1], n_jobs=1))
    8
    """
    activations, classes = _checked_activations(X, y)
    _check_forest(n_trees, max_depth, engine, n_jobs)
    _check_resamples(n_resamples, tol, neurons, activations.shape[1])
    check_scheduler(scheduler)
    identity = {
        "version": VERSION,
        "activations": _array_hash(activations),
        "classes": _array_hash(classes),
        "fraction": resample_fraction(len(classes), fraction),
        "n_trees": n_trees,
        "max_depth": max_depth,
        "engine": _engine_version(engine),
        "seed": seed,
    }
    entry = (store if isinstance(store, Store) else Store(store)).entry("importance", identity)
    forests = None
    for n in (n_resamples,) if tol is None else looks(n_resamples):
        if missing := entry.missing(n):
            if forests is None:
                data, edges = prepare(activations, engine, n_jobs)
                threads = 1 if scheduler else n_jobs
                forests = Forests(data, edges, classes, fraction, n_trees, max_depth, engine, seed, threads)
                if is_shown(progress):
                    announce_cost(forests, len(entry.missing(n_resamples)), activations.shape[1], tol is not None)
            grown = run_units(grow_resample, missing, shared=(forests,), scheduler=scheduler)
            for j, q in bar(grown, total=len(missing), desc="resamples", show=progress):
                entry.write(j, q[None, :])
        if not entry.is_finished(n):
            entry.finish(n)
        q = entry.read(n)
        if tol is not None and is_stable(q, neurons, n_resamples, tol, seed=seed):
            break
    return q


def cumulative_importance(q: ArrayLike, *, alpha: float = 1.0, eps: float = 1e-6) -> np.ndarray:
    """Equation 1 of the paper: α·E(q) + (1-α)·E(q)/(σ(q)+ε), over the resamples.

    Parameters
    ----------
    q : array of shape (J, N)
        Importance on each resample.
    alpha : float in [0, 1]
        1 for a single source (paper §3.1). Both terms are far apart in size: importances sum to 1, so E(q) is
        about 1/N while E/σ is of order 1, and any α below about 1 - 1/N is the second term alone.
    eps : float
        1e-6 (paper §4.2).

    Returns
    -------
    ndarray of shape (N,)
        σ is the population's (our choice).

    Raises
    ------
    ValueError
        If q is not a finite matrix, α is not in [0, 1] or ε is not positive.

    Examples
    --------
    >>> cumulative_importance([[0.2, 0.8], [0.4, 0.6]]).round(3).tolist()
    [0.3, 0.7]
    >>> cumulative_importance([[0.2, 0.8], [0.4, 0.6]], alpha=0.0, eps=0.1).round(3).tolist()
    [1.5, 3.5]
    """
    q = np.asarray(q, dtype=float)
    if q.ndim != 2 or 0 in q.shape or not np.isfinite(q).all():
        raise ValueError(f"q: must be a finite matrix (resamples × neurons), got shape {q.shape}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: must be in [0, 1], got {alpha}")
    if eps <= 0:
        raise ValueError(f"eps: must be positive, got {eps}")
    mean = q.mean(axis=0)
    return alpha * mean + (1 - alpha) * mean / (q.std(axis=0) + eps)


def _engine_version(engine: str) -> str:
    return engine if engine == "histogram" else f"{engine} {metadata.version('scikit-learn')}"


def _array_hash(array: Activations) -> str:
    content = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    for block in row_blocks(array):
        content.update(np.ascontiguousarray(block).data)
    return content.hexdigest()


def _checked_activations(X: ArrayLike | Entry, y: ArrayLike) -> tuple[Activations, np.ndarray]:
    """Activations as a finite matrix and labels as class numbers 0…C-1, or one clear line."""
    matrix, labels = X if isinstance(X, Entry) else np.asarray(X), np.asarray(y)
    if len(matrix.shape) != 2 or 0 in matrix.shape or matrix.dtype.kind not in "fiub":
        raise ValueError(f"X: must be a numeric matrix (rows × neurons), got {matrix.dtype} of shape {matrix.shape}")
    if labels.shape != matrix.shape[:1]:
        raise ValueError(f"y: must have one label for each of the {matrix.shape[0]} rows of X, got {labels.shape}")
    if isinstance(matrix, np.ndarray):  # the extraction has checked an entry
        for row in range(len(matrix)):
            if not np.isfinite(matrix[row]).all():
                neuron = int(np.flatnonzero(~np.isfinite(matrix[row]))[0])
                raise ValueError(f"X: row {row}, neuron {neuron} is {matrix[row, neuron]}; activations must be finite")
    names, classes = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"y: has one class only ({names[0]}); importance needs at least two")
    return matrix, classes.astype(np.int64)


def _check_forest(n_trees: int, max_depth: int, engine: str, n_jobs: int) -> None:
    if engine not in ("histogram", "sklearn"):
        raise ValueError(f"engine: must be 'histogram' or 'sklearn', got {engine!r}")
    if n_jobs == 0:
        raise ValueError("n_jobs: must be -1 (all cores) or a positive number of threads, got 0")
    for name, value in (("n_trees", n_trees), ("max_depth", max_depth)):
        if value < 1:
            raise ValueError(f"{name}: must be at least 1, got {value}")


def _check_resamples(n_resamples: int, tol: float | None, neurons: Sequence[int], n_neurons: int) -> None:
    if n_resamples < 1:
        raise ValueError(f"n_resamples: must be at least 1, got {n_resamples}")
    if tol is not None:
        if not 0 < tol < 1:
            raise ValueError(f"tol: must be in (0, 1), got {tol}")
        for k in neurons:
            check_n_neurons(k, n_neurons)
