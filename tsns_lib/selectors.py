"""Task-specific neuron selection from one source, as a scikit-learn selector.

Task-specific neuron selection from several sources, as a scikit-learn selector.
"""

import os
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from tsns_lib.aggregation import (
    aggregate,
    check_n_neurons,
    meta_importance,
    order_neurons,
    select_neurons,
    source_pairs,
)
from tsns_lib.classifier import AlphaSearch, alpha_grid, search_alpha, term_medians
from tsns_lib.importance import cumulative_importance, resampled_importance
from tsns_lib.sampling import derive_seed, resample_rows
from tsns_lib.stability import half_overlap
from tsns_lib.store import Store

# passed on to the forests as they are
FOREST = ("n_resamples", "fraction", "n_trees", "max_depth", "engine", "tol", "n_jobs", "store", "scheduler")


class TSNSSelector(SelectorMixin, BaseEstimator):
    """What both selectors share: the forests, the mask of `selected_`, and that labels are needed."""

    def _importance(self, X: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
        forest = {name: getattr(self, name) for name in FOREST}
        return resampled_importance(X, y, seed=seed, neurons=[self.n_neurons], progress=self.verbose, **forest)

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
        Stop before J as soon as the K neurons share at least 1 - tol with those of all J, at 95 %; default: all J.
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
        Sorted numbers of the chosen neurons.
    n_resamples_ : int
        How many resamples were needed.
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
        """Measure every neuron's importance.

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
            If K is not in [1, N], or as `tsns_lib.resampled_importance`.
        """
        activations, labels = validate_data(self, X, y)
        check_classification_targets(labels)
        check_n_neurons(self.n_neurons, activations.shape[1])
        q = self._importance(activations, labels, self.random_state)
        self.importances_ = cumulative_importance(q, alpha=self.alpha)
        self.n_resamples_ = len(q)
        self.stability_ = half_overlap(q, self.n_neurons)
        self.selected_ = select_neurons(self.importances_, self.n_neurons)
        self.ranking_ = np.argsort(order_neurons(self.importances_)) + 1
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
        Medians over the neurons of the two terms of equation 1: which of them α really weighs.
    learner_importances_ : ndarray of shape (P, N)
        m of each learner.
    meta_importances_ : ndarray of shape (N,)
        h, the sum of the learners' meta-importance.
    n_resamples_ : ndarray of shape (P,)
        How many resamples each learner needed.
    selected_, ranking_, stability_, n_features_in_
        As in `SingleTSNS`; the halves of the resamples keep the α that was found.

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
        """Measure every neuron's importance by every learner.

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
        activations, labels = validate_data(self, X, y)
        check_classification_targets(labels)
        check_n_neurons(self.n_neurons, activations.shape[1])
        alphas = alpha_grid(self.alphas)
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma: must be in (0, 1], got {self.gamma}")
        names = np.zeros(len(labels), dtype=int) if groups is None else np.asarray(groups)
        if names.shape != labels.shape:
            raise ValueError(f"groups: must name a source for each of the {len(labels)} rows, got shape {names.shape}")
        sources = np.unique(names).tolist()
        found = []
        if len(sources) == 1:
            self.pairs_ = [((sources[0],), ())]
            q = self._importance(activations, labels, self.random_state)
            found.append((q, AlphaSearch(1.0, np.array([]), term_medians(q))))
        else:
            pairs = source_pairs(len(sources), self.pairing)
            self.pairs_ = [(tuple(sources[m] for m in s1), tuple(sources[m] for m in s2)) for s1, s2 in pairs]
            for s1, s2 in self.pairs_:
                rows = np.isin(names, s1)
                train = activations[rows], labels[rows]
                q = self._importance(*train, derive_seed(self.random_state, "+".join(map(str, s1))))
                others = np.flatnonzero(np.isin(names, s2))
                seed = derive_seed(self.random_state, "gamma", *map(str, s1), "|", *map(str, s2))
                judge = others[resample_rows(len(others), self.gamma, seed)]
                held_out = activations[judge], labels[judge]
                found.append((q, search_alpha(q, train, held_out, self.n_neurons, alphas=alphas, C=self.C)))
        self.alphas_ = np.array([search.alpha for _, search in found])
        self.term_medians_ = np.array([search.term_medians for _, search in found])
        self.n_resamples_ = np.array([len(q) for q, _ in found])
        self.learner_importances_ = self._by_learner([q for q, _ in found])
        self.meta_importances_ = aggregate(meta_importance(self.learner_importances_))
        self.selected_ = select_neurons(self.meta_importances_, self.n_neurons)
        self.ranking_ = np.argsort(order_neurons(self.meta_importances_)) + 1
        halves = ([q[half::2] for q, _ in found] for half in (0, 1))
        self.stability_ = self._overlap(*halves) if self.n_resamples > 1 else float("nan")
        return self

    def _by_learner(self, qs: list[np.ndarray]) -> np.ndarray:
        return np.stack([cumulative_importance(q, alpha=a) for q, a in zip(qs, self.alphas_, strict=True)])

    def _overlap(self, *halves: list[np.ndarray]) -> float:
        first, second = (
            select_neurons(aggregate(meta_importance(self._by_learner(half))), self.n_neurons) for half in halves
        )
        return len(np.intersect1d(first, second)) / self.n_neurons
