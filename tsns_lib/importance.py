"""Importance of every neuron for a task: one forest, J resamples of it, and what they add up to."""

import hashlib
import os
from importlib import metadata

import numpy as np
from numpy.typing import ArrayLike

from tsns_lib.aggregation import order_neurons
from tsns_lib.forest import bin_activations, histogram_importance
from tsns_lib.runtime.progress import bar
from tsns_lib.runtime.store import Store
from tsns_lib.sampling import derive_seed, resample_fraction, resample_rows

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
    X, classes = _checked_activations(X, y)
    _check_forest(n_trees, max_depth, engine, n_jobs)
    prepared = bin_activations(X, n_jobs) if engine == "histogram" else X
    return _one_forest(prepared, classes, n_trees, max_depth, engine, seed, n_jobs)


def resampled_importance(
    X: ArrayLike,
    y: ArrayLike,
    *,
    n_resamples: int = 100,
    fraction: float | str = "auto",
    n_trees: int = 1000,
    max_depth: int = 200,
    engine: str = "histogram",
    seed: int = 0,
    n_jobs: int = -1,
    store: Store | str | os.PathLike | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Importance q on J seeded resamples of a source, each a durable unit in the store.

    A resample that the store holds is read, not computed: a call that was cut off goes on where it stopped,
    and a call with more resamples extends the earlier ones.

    Parameters
    ----------
    X : array of shape (n, N)
        Activations of one source.
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
    store : Store or path, optional
        Default: the store of the environment (`TSNS_CACHE`).
    progress : bool
        Whether to show a bar over the resamples.

    Returns
    -------
    ndarray of shape (J, N)
        Row j is the importance on resample j; each row sums to 1.

    Raises
    ------
    ValueError
        As `forest_importance`, or if a resample holds one class only.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> q = resampled_importance(X, X[:, 3] > 0, n_resamples=3, n_trees=20, n_jobs=1)
    >>> q.shape, q.argmax(axis=1).tolist()
    ((3, 5), [3, 3, 3])
    """
    X, classes = _checked_activations(X, y)
    _check_forest(n_trees, max_depth, engine, n_jobs)
    if n_resamples < 1:
        raise ValueError(f"n_resamples: must be at least 1, got {n_resamples}")
    identity = {
        "version": VERSION,
        "activations": _content_hash(X),
        "classes": _content_hash(classes),
        "fraction": resample_fraction(len(X), fraction),
        "n_trees": n_trees,
        "max_depth": max_depth,
        "engine": _engine_version(engine),
        "seed": seed,
    }
    entry = (store if isinstance(store, Store) else Store(store)).entry("importance", identity)
    missing = entry.missing(n_resamples)
    if missing:
        prepared = bin_activations(X, n_jobs) if engine == "histogram" else X
        for j in bar(missing, desc="resamples", show=progress):
            rows = resample_rows(len(X), fraction, derive_seed(seed, "resample", j, "rows"))
            if len(np.unique(classes[rows])) < 2:
                raise ValueError(
                    f"fraction: resample {j} ({len(rows)} of {len(X)} rows) holds one class only; use a larger fraction"
                )
            part = prepared.take(rows, axis=1) if engine == "histogram" else prepared[rows]
            forest_seed = derive_seed(seed, "resample", j, "forest")
            q = _one_forest(part, classes[rows], n_trees, max_depth, engine, forest_seed, n_jobs)
            entry.write(j, q[None, :])
    if not entry.is_finished(n_resamples):
        entry.finish(n_resamples)
    return entry.read(n_resamples)


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


def half_overlap(q: np.ndarray, k: int) -> float:
    """How stable the K chosen neurons are: the share that two halves of the resamples have in common.

    Parameters
    ----------
    q : ndarray of shape (J, N)
        Importance on each resample.
    k : int
        Neurons chosen.

    Returns
    -------
    float
        In [0, 1] (K/N is what chance gives); NaN for a single resample.

    Examples
    --------
    >>> half_overlap(np.array([[0.6, 0.3, 0.1], [0.5, 0.1, 0.4]]), 2)
    0.5
    """
    if len(q) < 2:
        return float("nan")
    even, odd = (set(order_neurons(q[half::2].mean(axis=0))[:k]) for half in (0, 1))
    return len(even & odd) / k


def _one_forest(
    prepared: np.ndarray,
    classes: np.ndarray,
    n_trees: int,
    max_depth: int,
    engine: str,
    seed: int,
    n_jobs: int,
) -> np.ndarray:
    if engine == "histogram":
        return histogram_importance(prepared, classes, n_trees, max_depth, seed, n_jobs)
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_trees, max_depth=max_depth, random_state=seed % 2**32, n_jobs=n_jobs)
    return forest.fit(prepared, classes).feature_importances_


def _engine_version(engine: str) -> str:
    return engine if engine == "histogram" else f"{engine} {metadata.version('scikit-learn')}"


def _content_hash(array: np.ndarray) -> str:
    content = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()


def _checked_activations(X: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Activations as a finite matrix and labels as class numbers 0…C-1, or one clear line."""
    X, y = np.asarray(X), np.asarray(y)
    if X.ndim != 2 or 0 in X.shape or X.dtype.kind not in "fiub":
        raise ValueError(f"X: must be a numeric matrix (rows × neurons), got {X.dtype} of shape {X.shape}")
    if y.shape != X.shape[:1]:
        raise ValueError(f"y: must have one label for each of the {len(X)} rows of X, got shape {y.shape}")
    for row in range(len(X)):
        if not np.isfinite(X[row]).all():
            neuron = int(np.flatnonzero(~np.isfinite(X[row]))[0])
            raise ValueError(f"X: row {row}, neuron {neuron} is {X[row, neuron]}; activations must be finite")
    labels, classes = np.unique(y, return_inverse=True)
    if len(labels) < 2:
        raise ValueError(f"y: has one class only ({labels[0]}); importance needs at least two")
    return X, classes.astype(np.int64)


def _check_forest(n_trees: int, max_depth: int, engine: str, n_jobs: int) -> None:
    if engine not in ("histogram", "sklearn"):
        raise ValueError(f"engine: must be 'histogram' or 'sklearn', got {engine!r}")
    if n_jobs == 0:
        raise ValueError("n_jobs: must be -1 (all cores) or a positive number of threads, got 0")
    for name, value in (("n_trees", n_trees), ("max_depth", max_depth)):
        if value < 1:
            raise ValueError(f"{name}: must be at least 1, got {value}")
