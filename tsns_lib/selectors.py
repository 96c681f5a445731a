"""Task-specific neuron selection as scikit-learn selectors: from one source, and from several."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from tsns_lib.aggregation import MOST_SOURCES, Selection, aggregate, meta_importance, select, source_pairs
from tsns_lib.classifier import AlphaSearch, alpha_grid, scaler_of, search_alpha, term_medians
from tsns_lib.executors import check_scheduler
from tsns_lib.importance import MOST_SEED, Forest, Grown, Resamples, check_resamples, check_threads
from tsns_lib.ranking import check_n_neurons, order_neurons
from tsns_lib.sampling import derive_seed, resample_rows
from tsns_lib.store import Store
from tsns_lib.validation import LARGEST, class_numbers, finite, numbers, one_each, positive, share, whole_number

Learner = tuple[tuple[Any, ...], tuple[Any, ...], int]  # the sources S1 that teach it, those that judge it, its seed


class TSNSSelector(SelectorMixin, BaseEstimator):
    """What both selectors share: their forests, the mask of `selected_`, and that labels are needed."""

    def _validated(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """X and y as scikit-learn takes them, or one line that names the argument."""
        if getattr(getattr(X, "dtype", None), "kind", None) not in ("O", "c"):  # of which scikit-learn says it well
            numbers("X", X, "a numeric matrix (rows × neurons)")
        # numpy makes text of mixed labels, also of a missing one, and drops a mask; pandas' missing one has no truth
        of_objects = hasattr(y, "isna") or getattr(getattr(y, "dtype", None), "kind", None) == "O"
        of_objects = of_objects and len(y.shape) == 1
        if isinstance(y, list | tuple) or of_objects or issparse(y) or np.ma.is_masked(y):
            y = one_each("y", y, y.shape[0] if issparse(y) else len(y), "label")
        try:
            activations, labels = validate_data(self, X, y)
        except (ValueError, TypeError) as error:
            raise type(error)(f"X, y: {str(error).splitlines()[0]}") from None
        if self.engine == "sklearn":
            finite(activations, self.engine)
        check_scheduler(self.scheduler)
        check_threads(self.n_jobs)
        Store(self.store)
        return activations, labels

    def _forest(self, seed: int) -> Forest:
        return Forest(self.n_resamples, self.fraction, self.n_trees, self.max_depth, self.engine, self.tol, seed)

    def _resamples(self, X: np.ndarray, y: np.ndarray, seed: int) -> Resamples:
        compute = {"n_jobs": self.n_jobs, "store": self.store, "scheduler": self.scheduler, "progress": self.verbose}
        return Resamples(X, y, self._forest(seed), **compute)

    def _keep(self, selection: Selection) -> None:
        """The attributes that both selectors have after `fit`."""
        self.selected_ = selection.neurons
        self.ranking_ = np.argsort(order_neurons(selection.importances)) + 1
        self.stability_ = selection.stability

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self)
        return np.isin(np.arange(self.n_features_in_), self.selected_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


class SingleTSNS(TSNSSelector):
    """Select the K most important neurons for one source (paper §3.1).

    Parameters
    ----------
    n_neurons : int
        K, default 300 (our choice; the paper shows 100 to 1,024).
    n_resamples : int
        J, default 100 (paper §4.2).
    fraction : float in (0, 1] or "auto"
        β, the share of rows in a resample: 0.7 below 10,000 rows, else 0.1 (paper §4.2; the border: our choice).
    alpha : float in [0, 1]
        Weight of the mean against the mean over its spread in equation 1, default 1 (paper §3.1).
    n_trees, max_depth : int
        The forest, default 1,000 trees of depth 200 (paper §4.2).
    engine : {"histogram", "sklearn"}
        As in `tsns_lib.forest_importance`.
    tol : float in (0, 1), optional
        As in `tsns_lib.resampled_importance`, for these K neurons; default: all trees.
    random_state : int
        Seed of this run.
    n_jobs : int
        Threads, -1 for all cores; never changes the result of "histogram".
    store : Store or path, optional
        Where each resample is kept; default: the store of the environment (`TSNS_CACHE`).
    scheduler : str, optional
        As in `tsns_lib.resampled_importance`.
    verbose : bool
        Whether to say what the forests will cost and to show a bar over them.

    Attributes
    ----------
    importances_ : ndarray of shape (N,)
        m of equation 1.
    ranking_ : ndarray of shape (N,)
        1 for the most important neuron, N for the least.
    selected_ : ndarray of shape (n_neurons,)
        Sorted numbers of the chosen neurons; `get_support(indices=True)` gives the same.
    n_trees_ : int
        How many trees were grown on each resample.
    stability_ : float
        Share of the K neurons that two halves of the resamples have in common.
    n_features_in_ : int
        N.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> selector = SingleTSNS(n_neurons=1, n_resamples=3, n_trees=20).fit(X, X[:, 3] > 0)
    >>> selector.get_support(indices=True).tolist()
    [3]
    """

    def __init__(
        self,
        n_neurons: int = 300,
        *,
        n_resamples: int = 100,
        fraction: float | str = "auto",
        alpha: float = 1.0,
        n_trees: int = 1000,
        max_depth: int = 200,
        engine: str = "histogram",
        tol: float | None = None,
        random_state: int = 0,
        n_jobs: int = -1,
        store: Store | str | os.PathLike | None = None,
        scheduler: str | None = None,
        verbose: bool = False,
    ):
        self.n_neurons = n_neurons
        self.n_resamples = n_resamples
        self.fraction = fraction
        self.alpha = alpha
        self.n_trees = n_trees
        self.max_depth = max_depth
        self.engine = engine
        self.tol = tol
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.store = store
        self.scheduler = scheduler
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Measure every neuron's importance and choose the K most important.

        Parameters
        ----------
        X : array of shape (n, N)
            Activations of the source.
        y : array of shape (n,)
            Its labels.

        Returns
        -------
        SingleTSNS
            Itself.

        Raises
        ------
        ValueError
            If K is not in [1, N], α is not in [0, 1], or as `tsns_lib.resampled_importance`.
        """
        activations, labels = self._validated(X, y)
        k = check_n_neurons(self.n_neurons, activations.shape[1])
        alpha = share("alpha", self.alpha, zero=True)
        seed = whole_number("random_state", self.random_state, 0, MOST_SEED)
        grown = self._resamples(activations, labels, seed).enough_for([k])[k]
        selection = select([grown.q], k, [alpha])
        self._keep(selection)
        self.importances_ = selection.importances
        self.n_trees_ = grown.n_trees
        return self


class MultiTSNS(TSNSSelector):
    """Select the K neurons on which learners from different sources agree (paper §3.2).

    Learner p measures importance on the sources S1, chooses α by the accuracy on a share γ of the rows of S2, and
    ranks the neurons; the ranks are summed over the learners.

    Parameters
    ----------
    n_neurons : int
        K, default 500 (our choice; the paper's best average).
    pairing : {"leave_one_out", "bipartitions", "disjoint"}
        Which pairs (S1, S2), as in `tsns_lib.source_pairs`.
    gamma : float in (0, 1]
        Share of the rows of S2 that judges α, default 0.1 (paper §4.2).
    alphas : "log" or sequence of float
        Grid of α; "log" is in steps of log(1 - α) (our choice).
    C : float
        Inverse strength of the classifier's penalty that judges α, default 0.01 (our choice).
    n_resamples, fraction, n_trees, max_depth, engine, tol, random_state, n_jobs, store, scheduler, verbose
        As in `SingleTSNS`, for every learner; `tol` judges each learner's own K neurons by the mean (α = 1).

    Attributes
    ----------
    pairs_ : list of (tuple, tuple)
        S1 and S2 of each learner, as labels of `groups`; one pair with an empty S2 for a single source.
    alphas_ : ndarray of shape (P,)
        α of each learner.
    term_medians_ : ndarray of shape (P, 2)
        Medians over the neurons of the two terms of equation 1: they show which of the terms decides.
    learner_importances_ : ndarray of shape (P, N)
        m of each learner.
    meta_importances_ : ndarray of shape (N,)
        h, the sum of the learners' meta-importance.
    n_trees_ : ndarray of shape (P,)
        How many trees each learner grew on each resample.
    selected_, ranking_, stability_, n_features_in_
        As in `SingleTSNS`; the halves of the resamples keep each learner's α.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(120, 5))
    >>> sources = np.repeat(["books", "dvd"], 60)
    >>> selector = MultiTSNS(n_neurons=1, n_resamples=3, n_trees=20).fit(X, X[:, 3] > 0, groups=sources)
    >>> selector.get_support(indices=True).tolist(), len(selector.alphas_)
    ([3], 2)
    """

    def __init__(
        self,
        n_neurons: int = 500,
        *,
        pairing: str = "leave_one_out",
        gamma: float = 0.1,
        alphas: str | Sequence[float] = "log",
        C: float = 0.01,
        n_resamples: int = 100,
        fraction: float | str = "auto",
        n_trees: int = 1000,
        max_depth: int = 200,
        engine: str = "histogram",
        tol: float | None = None,
        random_state: int = 0,
        n_jobs: int = -1,
        store: Store | str | os.PathLike | None = None,
        scheduler: str | None = None,
        verbose: bool = False,
    ):
        self.n_neurons = n_neurons
        self.pairing = pairing
        self.gamma = gamma
        self.alphas = alphas
        self.C = C
        self.n_resamples = n_resamples
        self.fraction = fraction
        self.n_trees = n_trees
        self.max_depth = max_depth
        self.engine = engine
        self.tol = tol
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.store = store
        self.scheduler = scheduler
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Measure every neuron's importance by every learner, and choose the K on which they agree.

        A single source has no pairs: it is measured as by `SingleTSNS` with α = 1 and the same `random_state`.

        Parameters
        ----------
        X : array of shape (n, N)
            Activations of all sources.
        y : array of shape (n,)
            Labels.
        groups : array of shape (n,), optional
            The source of each row; default: all rows are of one.

        Returns
        -------
        MultiTSNS
            Itself.

        Raises
        ------
        ValueError
            If K is not in [1, N], γ is not in (0, 1], an α is not in [0, 1], `groups` does not fit, or as
            `tsns_lib.resampled_importance` for any S1.
        """
        fit_together([self], X, y, groups)
        return self


def fit_together(selectors: Sequence[MultiTSNS], X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> None:
    """Fit selectors that differ in K and `random_state` alone, each as `fit` would: what all need is done once."""
    for selector in selectors:
        activations, labels = selector._validated(X, y)
    of_all, ks = selectors[0], [check_n_neurons(one.n_neurons, activations.shape[1]) for one in selectors]
    alphas, gamma, C = alpha_grid(of_all.alphas), share("gamma", of_all.gamma), positive("C", of_all.C)
    of_run: dict[int, list[int]] = defaultdict(list)
    for number, selector in enumerate(selectors):
        of_run[whole_number("random_state", selector.random_state, 0, MOST_SEED)].append(number)
    labels = class_numbers(labels, len(labels))
    source_of_row = _sources(groups, len(labels))
    by_run = [learners_of(labels, source_of_row, of_all.pairing, of_all._forest(run)) for run in of_run]
    if len(by_run[0]) > 1 and max(float(activations.max()), -float(activations.min())) > LARGEST:
        raise ValueError(f"X: holds values beyond {LARGEST:g}, with which no classifier can be fitted")
    learned: list[list[tuple[Grown, AlphaSearch]]] = [[] for _ in selectors]
    for learner in zip(*by_run, strict=True):  # the same in every run, but for its seed
        s1, s2, first = learner[0]
        taught = np.isin(source_of_row, s1) if s2 else slice(None)
        X1, y1, candidates = activations[taught], labels[taught], np.flatnonzero(np.isin(source_of_row, s2))
        resamples = of_all._resamples(X1, y1, first)
        train = X1, y1, scaler_of(X1 if s2 else X1[:1])  # with a single source no α is judged
        for (run, members), (*_, seed) in zip(of_run.items(), learner, strict=True):
            of_judges = derive_seed(run, "gamma", *map(str, s1), "|", *map(str, s2))
            judges = candidates[resample_rows(len(candidates), gamma, of_judges)] if s2 else candidates
            held_out = activations[judges], labels[judges]
            grown = resamples.of_run(seed).enough_for([ks[number] for number in members])
            for number in members:
                k, q = ks[number], grown[ks[number]].q
                alone = AlphaSearch(1.0, np.array([]), term_medians(q))
                search = search_alpha(q, train, held_out, k, alphas=alphas, C=C) if s2 else alone
                learned[number].append((grown[k], search))
    for selector, k, own in zip(selectors, ks, learned, strict=True):
        selector.pairs_ = [(s1, s2) for s1, s2, _ in by_run[0]]
        selector.n_trees_ = np.array([grown.n_trees for grown, _ in own])
        selector.alphas_ = np.array([search.alpha for _, search in own])
        selector.term_medians_ = np.array([search.term_medians for _, search in own])
        selection = select([grown.q for grown, _ in own], k, selector.alphas_.tolist())
        selector._keep(selection)
        selector.learner_importances_ = selection.learner_importances
        selector.meta_importances_ = aggregate(meta_importance(selection.learner_importances))


def learners_of(labels: np.ndarray, source_of_row: np.ndarray, pairing: str, forest: Forest) -> list[Learner]:
    """What every learner is taught on and judged by, and its forests' seed; a single source has one, without judges.

    A ValueError says whose resample would hold one class only; no activations are needed to know that.
    """
    sources, learners = np.unique(source_of_row).tolist(), []
    for first, second in source_pairs(len(sources), pairing) if len(sources) > 1 else [((0,), ())]:
        s1, s2 = (tuple(sources[member] for member in members) for members in (first, second))
        seed = derive_seed(forest.seed, "+".join(map(str, s1))) if s2 else forest.seed
        taught = labels[np.isin(source_of_row, s1)]
        try:
            check_resamples(class_numbers(taught, len(taught)), replace(forest, seed=seed))
        except ValueError as error:
            argument, _, said = str(error).partition(": ")
            together = f"of the sources {', '.join(map(str, s1))} together: " if s2 else ""
            raise ValueError(f"{argument}: {together}{said}") from None
        learners.append((s1, s2, seed))
    return learners


def _sources(groups: ArrayLike | None, n_rows: int) -> np.ndarray:
    """The source of each row, or a ValueError."""
    if groups is None:
        return np.zeros(n_rows, dtype=int)
    sources = one_each("groups", groups, n_rows, "source", verb="name a")
    if sources.dtype.kind == "f":
        raise ValueError(f"groups: must be names or whole numbers, got {sources.dtype}")
    if (found := len(np.unique(sources))) > MOST_SOURCES:
        raise ValueError(f"groups: names {found:,} sources; at most {MOST_SOURCES:,} can be paired")
    return sources
