"""Importance of every neuron for a task: one forest, J resamples of it, and what they add up to (equation 1).

A resample is a unit of work: pure, seeded and the same bits wherever it runs. The store keeps it.
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tsns_lib.executors import announce, bar, check_scheduler, is_shown, run_units
from tsns_lib.forest import Activations, bin_activations, bin_edges, grow_trees, row_blocks
from tsns_lib.ranking import check_n_neurons
from tsns_lib.sampling import derive_seed, resample_fraction, resample_rows
from tsns_lib.stability import FEWEST, forecast_overlap, looks
from tsns_lib.store import Entry, Store, content_hash
from tsns_lib.validation import as_floats, class_numbers, finite, matrix, one_of, positive, share, shown, whole_number

VERSION = 5  # of what a stored resample means; part of its key
ENGINES = ("histogram", "sklearn")
MOST_RESAMPLES = 100_000  # a shard's name has five digits
MOST_TREES = 1_000_000  # a thousand times the paper's; they take hours on any machine
MOST_DEPTH = 2**31 - 1  # scikit-learn's word for no limit: a tree has fewer levels than rows
MOST_SEED = 2**63 - 1  # a derived seed has 63 bits
MOST_THREADS = 10_000  # far more than any machine has cores
AS_GOOD_AS_NEVER = 1e-9  # a chance below which no resample is drawn only to look at its classes
PER_SHARD = 10  # resamples, where J is a multiple of it (our choice): files are few, and a kill costs little
PROBE_TREES = 16  # enough to forecast what a forest takes


@dataclass(frozen=True)
class Forest:
    """How importance is measured: the settings that travel from a notebook's parameters to the kernel as one value.

    The fields are the parameters of `resampled_importance` of the same names; they are checked when it is made.
    """

    n_resamples: int = 100
    fraction: float | str = "auto"
    n_trees: int = 1000
    max_depth: int = 200
    engine: str = "histogram"
    tol: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        most = {"n_resamples": MOST_RESAMPLES, "n_trees": MOST_TREES, "max_depth": MOST_DEPTH, "seed": MOST_SEED}
        for name, limit in most.items():
            object.__setattr__(self, name, whole_number(name, getattr(self, name), 0 if name == "seed" else 1, limit))
        resample_fraction(1, self.fraction)
        if not isinstance(self.fraction, str):
            object.__setattr__(self, "fraction", float(self.fraction))
        one_of("engine", self.engine, ENGINES)
        if self.tol is not None:
            object.__setattr__(self, "tol", share("tol", self.tol, one=False))


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
        If an argument is out of range, X is not finite, or y has one class only or a missing label.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> importance = forest_importance(X, X[:, 3] > 0, n_trees=20, n_jobs=1)
    >>> int(importance.argmax()), round(float(importance.sum()), 6)
    (3, 1.0)
    """
    forest = Forest(n_trees=n_trees, max_depth=max_depth, engine=engine, seed=seed)
    activations, classes = _checked(X, y, n_jobs, engine)
    prepared, _ = _prepare(activations, engine, n_jobs)
    assert isinstance(prepared, np.ndarray)
    return _shares(_grow(prepared, classes, forest, n_jobs).sum(axis=0))


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
    """Importance q on J seeded resamples of a source, which the store keeps.

    A resample that the store holds is read, not computed: a call that was cut off goes on where it stopped, and one
    with more resamples extends the earlier ones. Where J is a multiple of ten, it keeps and extends by tens.

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
        Stop before `n_trees` as soon as, at 95 %, the K neurons chosen share at least 1 - tol with those of all trees:
        see `tsns_lib.stability`. Fewer than 8 resamples, and scikit-learn's forests, never stop. Default: all trees.
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
        Row j is the importance on resample j, which sums to 1; with `tol`, by as many trees as the slowest K needs.

    Raises
    ------
    ValueError
        As `forest_importance`, if a resample holds one class only, or if `tol` is not in (0, 1). Everything is checked
        before the first forest grows.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> q = resampled_importance(X, X[:, 3] > 0, n_resamples=3, n_trees=20, n_jobs=1)
    >>> q.shape, q.argmax(axis=1).tolist()
    ((3, 5), [3, 3, 3])
    >>> resampled_importance(X, X[:, 3] > 0, n_trees=20, tol=0.1, neurons=[1], n_jobs=1).shape
    (100, 5)
    """
    forest = Forest(n_resamples, fraction, n_trees, max_depth, engine, tol, seed)
    if isinstance(neurons, str) or not np.iterable(neurons) or not (wanted := list(neurons)):
        raise ValueError(f"neurons: must be a list of one K or more, got {shown(neurons)}")
    resamples = Resamples(X, y, forest, n_jobs=n_jobs, store=store, scheduler=scheduler, progress=progress)
    by_k = resamples.enough_for([1] if tol is None else wanted)  # all trees serve every K
    return max(by_k.values(), key=lambda grown: grown.n_trees).q


class Grown(NamedTuple):
    """Importance q by the first n_trees of each forest, and the noise of these trees in it, both of shape (J, N)."""

    n_trees: int
    q: np.ndarray
    noise: np.ndarray


class Resamples:
    """The resamples of one source under one setting: grown where the store lacks them, read where it has them.

    Everything is checked when it is made, before any forest grows.
    """

    def __init__(
        self,
        X: ArrayLike | Entry,
        y: ArrayLike,
        forest: Forest,
        *,
        n_jobs: int = -1,
        store: Store | str | os.PathLike | None = None,
        scheduler: str | None = None,
        progress: bool = False,
    ) -> None:
        check_scheduler(scheduler)
        self._store = Store(store)
        self._activations, self._classes = _checked(X, y, n_jobs, forest.engine)
        check_resamples(self._classes, forest)
        self._forest, self._scheduler, self._progress = forest, scheduler, progress
        self._n_jobs = 1 if scheduler else n_jobs
        self._bins: list[_Work] = []  # of all runs, from the first that needs them
        self._size = 1 if forest.n_resamples % PER_SHARD else PER_SHARD
        self._identity = {
            "version": VERSION,
            "resamples_of_shard": self._size,
            "activations": _array_hash(self._activations),
            "classes": _array_hash(self._classes),
            "fraction": resample_fraction(len(self._classes), forest.fraction),
            "max_depth": forest.max_depth,
            "engine": f"sklearn {metadata.version('scikit-learn')}" if forest.engine == "sklearn" else forest.engine,
            "seed": forest.seed,
        }

    def of_run(self, seed: int, y: ArrayLike | None = None) -> "Resamples":
        """The same activations, checked, hashed and binned once, for another run and, where it has its own, labels."""
        other = copy(self)
        other._forest = replace(self._forest, seed=seed)
        other._classes = self._classes if y is None else class_numbers(y, len(self._classes))
        check_resamples(other._classes, other._forest)
        other._identity = self._identity | {"seed": other._forest.seed, "classes": _array_hash(other._classes)}
        return other

    def enough_for(self, neurons: Sequence[int]) -> dict[int, Grown]:
        """Give q for every K, each by as many trees as its own choice needs (all of them without `tol`).

        Every K stops alone, so that the choice of K neurons never depends on which other K are asked for.
        """
        wanted = waiting = list(dict.fromkeys(check_n_neurons(k, self._activations.shape[1]) for k in neurons))
        forest, T, tol = self._forest, self._forest.n_trees, self._forest.tol
        if tol is None or forest.n_resamples < FEWEST or forest.engine == "sklearn":
            return dict.fromkeys(wanted, _grown(T, self._sums(T)))
        found: dict[int, Grown] = {}
        for grown in self.at_looks():
            _, low = forecast_overlap(grown.q, grown.noise, waiting, 1 - grown.n_trees / T, seed=forest.seed)
            found |= {k: grown for k, overlap in zip(waiting, low, strict=True) if overlap >= 1 - tol}
            if not (waiting := [k for k in waiting if k not in found]):
                break
        return {k: found[k] for k in wanted}

    def at_looks(self) -> Iterator[Grown]:
        """Give q at every interim look; each look's forests grow out of those of the look before it."""
        sums, n_trees = None, 0
        for look in looks(self._forest.n_trees):
            sums, n_trees = self._sums(look, sums, n_trees), look
            yield _grown(look, sums)

    def _sums(self, n_trees: int, known: np.ndarray | None = None, n_known: int = 0) -> np.ndarray:
        """What `_grow` gives by n_trees on every resample, of shape (J, 2, N), where `known` is that by n_known."""
        entry, size, n = self._entry(n_trees), self._size, self._forest.n_resamples // self._size
        if not entry.is_finished(n):
            with entry.turn():  # a store that cannot be written says so before the first forest
                if missing := [j for shard in entry.missing(n) for j in range(shard * size, (shard + 1) * size)]:
                    forest = replace(self._forest, n_trees=n_trees)
                    own = replace(self._prepared(), classes=self._classes, forest=forest, known=known, n_known=n_known)
                    grown = run_units(_grow_resample, missing, shared=(own,), scheduler=self._scheduler)
                    waiting: dict[int, dict[int, np.ndarray]] = defaultdict(dict)  # by shard, until it is whole
                    for j, sums in bar(grown, total=len(missing), desc="resamples", show=self._progress):
                        shard = waiting[j // size]
                        shard[j] = sums
                        if len(shard) == size:
                            entry.write(j // size, np.stack([shard.pop(number) for number in sorted(shard)]))
                entry.finish(n)
        return entry.read(n)

    def _entry(self, n_trees: int) -> Entry:
        return self._store.entry("importance", self._identity | {"n_trees": n_trees})

    def _prepared(self) -> "_Work":
        if not self._bins:
            data, edges = _prepare(self._activations, self._forest.engine, self._n_jobs)
            self._bins.append(_Work(data, edges, self._classes, self._forest, self._n_jobs))
            if is_shown(self._progress):
                self._announce_cost(self._bins[0])
        return self._bins[0]

    def _announce_cost(self, work: "_Work") -> None:
        """Say what the forests will cost, forecast from a few trees of the first one."""
        one, each = seconds_of_trees(lambda n: _grow_resample(0, replace(work, forest=replace(work.forest, n_trees=n))))
        n_trees = self._forest.n_trees
        n_forests = self._size * len(self._entry(n_trees).missing(self._forest.n_resamples // self._size))
        at_most = "at most " if self._forest.tol is not None else ""
        forecast, n_bytes = n_forests * (one + each * (n_trees - 1)), n_forests * self._activations.shape[1] * 16
        announce(f"{at_most}{n_forests} forests of {n_trees:,} trees", forecast, n_bytes)


def seconds_of_trees(grow: Callable[[int], Any]) -> tuple[float, float]:
    """What the first tree takes and what each further one does, where `grow` grows as many as it is told."""
    seconds = []
    for n_trees in (1, 1, PROBE_TREES):  # the first compiles
        start = time.perf_counter()
        grow(n_trees)
        seconds.append(time.perf_counter() - start)
    return seconds[1], max(0.0, seconds[2] - seconds[1]) / (PROBE_TREES - 1)


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
        If q is not a finite matrix, α is not in [0, 1] or ε is not positive, or so small that E/ε is infinite.

    Examples
    --------
    >>> cumulative_importance([[0.2, 0.8], [0.4, 0.6]]).round(3).tolist()
    [0.3, 0.7]
    >>> cumulative_importance([[0.2, 0.8], [0.4, 0.6]], alpha=0.0, eps=0.1).round(3).tolist()
    [1.5, 3.5]
    """
    importances = matrix("q", q, "resamples × neurons")
    alpha, eps = share("alpha", alpha, zero=True), positive("eps", eps)
    mean = importances.mean(axis=0)
    with np.errstate(over="ignore"):
        m = alpha * mean + (1 - alpha) * mean / (importances.std(axis=0) + eps)
    if not np.isfinite(m).all():
        raise ValueError(f"eps: is too small to divide by, got {eps}")
    return m


@dataclass(frozen=True)
class _Work:
    """What all resamples of one call read, wherever they grow.

    `data` are the activations, or their bins where the histogram engine can hold these in memory. `edges` are where the
    bins are cut, if that is still to be done. `known` of shape (J, 2, N) is what the first `n_known` trees gave.
    """

    data: Activations
    edges: np.ndarray | None
    classes: np.ndarray
    forest: Forest
    n_jobs: int
    known: np.ndarray | None = None
    n_known: int = 0


def _prepare(X: Activations, engine: str, n_jobs: int) -> tuple[Activations, np.ndarray | None]:
    """What the engine reads, and the edges of the bins if they are still to be cut."""
    if engine == "sklearn":
        return X, None
    edges = bin_edges(X, n_jobs)
    return (X, edges) if isinstance(X, Entry) else (bin_activations(X, edges, n_jobs=n_jobs), None)


def _grow_resample(j: int, work: _Work) -> np.ndarray:
    """What `_grow` gives on resample j, of shape (2, N): a pure unit of work for any executor."""
    forest, data, classes = work.forest, work.data, work.classes
    rows = _rows_with_both_classes(j, classes, forest)
    if work.edges is not None:
        part = bin_activations(data, work.edges, rows, work.n_jobs)
    elif forest.engine == "sklearn":
        part = np.concatenate(list(row_blocks(data, rows)))
    else:
        assert isinstance(data, np.ndarray)  # bins
        part = data.take(rows, axis=1, mode="clip")  # rows in range need no check, which takes as long again
    seeded = replace(forest, seed=derive_seed(forest.seed, "resample", j, "forest"))
    sums = _grow(part, classes[rows], seeded, work.n_jobs, work.n_known)
    return sums if work.known is None else work.known[j] + sums


def check_resamples(classes: np.ndarray, forest: Forest) -> None:
    """Raise a ValueError if any resample would hold one class only: found before the first forest, not after many."""
    size, shares = len(_rows(0, len(classes), forest)), np.bincount(classes) / len(classes)
    if forest.n_resamples * (shares**size).sum() > AS_GOOD_AS_NEVER:
        for j in range(forest.n_resamples):
            _rows_with_both_classes(j, classes, forest)


def _rows(j: int, n_rows: int, forest: Forest) -> np.ndarray:
    return resample_rows(n_rows, forest.fraction, derive_seed(forest.seed, "resample", j, "rows"))


def _rows_with_both_classes(j: int, classes: np.ndarray, forest: Forest) -> np.ndarray:
    rows = _rows(j, len(classes), forest)
    if len(np.unique(classes[rows])) < 2:
        sizes = f"{len(rows)} of {len(classes)} rows"
        raise ValueError(f"fraction: resample {j} ({sizes}) holds one class only; use a larger fraction")
    return rows


def _grow(prepared: np.ndarray, classes: np.ndarray, forest: Forest, n_jobs: int, first: int = 0) -> np.ndarray:
    """What either half of the trees from `first` on adds to the importances, of shape (2, N).

    They are whole numbers, so that sums of parts have the bits of the whole; scikit-learn gives shares, (1, N).
    """
    if forest.engine == "histogram":
        limits = forest.n_trees, forest.max_depth, forest.seed, n_jobs
        halves = first + first % 2, first + (first + 1) % 2  # even trees and odd ones, however many grow at once
        return np.stack([grow_trees(prepared, classes, half, *limits, every=2) for half in halves])
    from sklearn.ensemble import RandomForestClassifier

    settings = {"max_depth": forest.max_depth, "random_state": forest.seed % 2**32, "n_jobs": n_jobs}
    return RandomForestClassifier(forest.n_trees, **settings).fit(prepared, classes).feature_importances_[None]


def _grown(n_trees: int, sums: np.ndarray) -> Grown:
    halves = _shares(sums)
    return Grown(n_trees, _shares(sums.sum(axis=1)), (halves[:, 0] - halves[:, -1]) / 2)


def _shares(sums: np.ndarray) -> np.ndarray:
    """Importances of which each row sums to 1, or to 0 where no neuron separates anything, as scikit-learn's do."""
    return sums / np.maximum(1, sums.sum(axis=-1, keepdims=True)) if sums.dtype.kind == "i" else sums


def _array_hash(array: Activations) -> str:
    header = f"{array.dtype.str} {array.shape} ".encode()
    return content_hash(chain([header], (np.ascontiguousarray(block).data for block in row_blocks(array))))


def check_threads(n_jobs: int | None) -> None:
    """Raise a ValueError unless these are threads for a forest, as scikit-learn counts them."""
    if n_jobs is not None and not whole_number("n_jobs", n_jobs, -MOST_THREADS, MOST_THREADS):
        raise ValueError("n_jobs: must be -1 (all cores) or a positive number of threads, got 0")


def _checked(X: ArrayLike | Entry, y: ArrayLike, n_jobs: int, engine: str) -> tuple[Activations, np.ndarray]:
    """Activations as a finite matrix and labels as class numbers 0…C-1, or one clear line."""
    check_threads(n_jobs)
    wanted = "a numeric matrix (rows × neurons)"
    activations = X if isinstance(X, Entry) else as_floats("X", X, wanted)
    dtype, shape = activations.dtype, activations.shape
    if len(shape) != 2 or 0 in shape or dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise ValueError(f"X: must be {wanted}, got {dtype} of shape {shape}")
    classes = class_numbers(y, shape[0])
    if isinstance(activations, np.ndarray):
        finite(activations, engine)
    elif not all(np.isfinite(block).all() for block in row_blocks(activations)):
        raise ValueError("X: the entry holds values that are not finite; activations must be finite")
    return activations, classes
