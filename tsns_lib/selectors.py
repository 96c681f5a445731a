"""Task-specific neuron selection from one source, as a scikit-learn selector."""

import os
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from tsns_lib.aggregation import (
    check_n_neurons,
    order_neurons,
    select_neurons,
)
from tsns_lib.importance import cumulative_importance, resampled_importance
from tsns_lib.runtime.store import Store
from tsns_lib.stability import half_overlap

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
