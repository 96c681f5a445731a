"""The final classifier, and the search for α that judges by it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import ThreadpoolController

from tsns_lib.importance import cumulative_importance
from tsns_lib.ranking import select_neurons
from tsns_lib.validation import share, shown

# Between α = 1 and α = 0 both terms of equation 1 matter only where 1 - α is about 1/N: hence steps in log(1 - α).
MOST_ALPHAS = 1_000  # to try; each may cost a classifier
ALPHAS = (1.0, 1 - 1e-5, 1 - 1e-4, 1 - 1e-3, 1 - 1e-2, 0.9, 0.5, 0.0)

C_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of C by cross-validation (our choice)
CV_ROWS = 4_000  # of a source, at most, are cross-validated on (our choice)
FOLDS = 5
SCALER = ("mean_", "var_", "scale_")  # what a fitted scaler knows of every neuron
_regression = partial(LogisticRegression, max_iter=5000)
_THREADS = ThreadpoolController()  # once: to look for the libraries takes a tenth of a small fit


class AlphaSearch(NamedTuple):
    """The best α, the accuracy of every α, and the medians over neurons of the two terms of equation 1."""

    alpha: float
    accuracies: np.ndarray
    term_medians: tuple[float, float]


def one_thread() -> AbstractContextManager[Any]:
    """Within it, matrix products use one thread: small ones on a busy machine wait 50 times as long for several."""
    return _THREADS.limit(limits=1)


def fit_classifier(X: ArrayLike, y: ArrayLike, C: float = 0.01) -> Pipeline:
    """Fit a logistic regression on activations standardised on the source (paper §3.3).

    C is the inverse strength of the L2 penalty (our choice; the paper gives none). Activations in float32 stay so:
    they are exact, and three times as fast.
    """
    values = computable(X)
    return fit_on(np.arange(values.shape[1]), values, y, scaler_of(values), C)


def scaler_of(X: ArrayLike) -> StandardScaler:
    """Fit the standardisation; the last bits of a variance depend on the order in memory, so there is one order."""
    return StandardScaler().fit(np.ascontiguousarray(computable(X)))


def fit_on(selected: np.ndarray, X: np.ndarray, y: ArrayLike, scaler: StandardScaler, C: float = 0.01) -> Pipeline:
    """`fit_classifier` on some neurons of X, to the last bit, by a scaler that was fitted on all: a quarter as long."""
    own = copy(scaler)
    vars(own).update({name: getattr(scaler, name)[selected] for name in SCALER}, n_features_in_=len(selected))
    features = own.transform(computable(X.take(selected, axis=1)))
    with one_thread():
        return make_pipeline(own, _regression(C=C).fit(features, y))


def cv_accuracy(X: np.ndarray, y: np.ndarray, C: float, seed: int, n_folds: int = FOLDS) -> float:
    """Accuracy of `fit_classifier` by cross-validation on at most 4,000 rows of a source."""
    return float(_cv_accuracies(X, y, [C], seed, n_folds)[0])


def cv_best_C(X: np.ndarray, y: np.ndarray, seed: int) -> float:
    """The C of `C_GRID` by which `cv_accuracy` is highest, and the first of several."""
    return C_GRID[int(_cv_accuracies(X, y, C_GRID, seed, FOLDS).argmax())]


def _cv_accuracies(X: np.ndarray, y: np.ndarray, Cs: Sequence[float], seed: int, n_folds: int) -> np.ndarray:
    rows, of_rarest = cv_rows(y, seed)
    X, y = computable(X[rows]), y[rows]
    splits = StratifiedKFold(min(n_folds, of_rarest), shuffle=True, random_state=seed % 2**32).split(X, y)
    accuracies = []
    for train, test in splits:
        scaler = scaler_of(X[train])
        seen, unseen = scaler.transform(X[train]), scaler.transform(X[test])
        with one_thread():
            accuracies.append([_regression(C=C).fit(seen, y[train]).score(unseen, y[test]) for C in Cs])
    return np.mean(accuracies, axis=0)


def cv_rows(y: np.ndarray, seed: int) -> tuple[np.ndarray, int]:
    """The rows that are cross-validated on, at most 4,000, and how many of them the class with the fewest has."""
    rows = np.random.default_rng(seed).permutation(len(y))[:CV_ROWS]
    names, classes = np.unique(y, return_inverse=True)
    if (least := int(np.bincount(classes[rows], minlength=len(names)).min())) < 2:
        among = f" among the {CV_ROWS:,} rows drawn for it" if len(y) > CV_ROWS else ""
        raise ValueError(f"C: cross-validation needs two rows of every class{among}; give a number")
    return rows, least


def computable(X: ArrayLike) -> np.ndarray:
    """Activations as a classifier can use them: half precision, which cannot hold a column's sum, as float32."""
    values = np.asarray(X)
    return values.astype(np.float32) if values.dtype == np.float16 else values


def scores(
    truth: np.ndarray, predicted: np.ndarray, decision: np.ndarray, classes: np.ndarray | None = None
) -> dict[str, Any]:
    """Judge one prediction of a target's n rows: the columns of a grid that hold its accuracy.

    `decision` has the shape (n,) for two classes, whose larger value speaks for the larger label, or (n, len(classes)).
    Balanced accuracy is the mean recall of the classes in `truth`. The area under the ROC curve is, for more than two
    classes, the mean of each against the rest, and NaN if `truth` has one class only.

    Examples
    --------
    >>> judged = scores(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), np.array([-2.0, -1.0, 3.0, 2.0]))
    >>> judged["accuracy"], round(judged["balanced_accuracy"], 3), round(judged["auc"], 3)
    (0.75, 0.833, 0.667)
    """
    correct, labels = predicted == truth, np.unique(truth)
    if decision.ndim == 1 or classes is None:
        against_rest = {labels[-1]: decision}
    else:
        against_rest = {label: decision[:, list(classes).index(label)] for label in labels}
    areas = [_area(truth == label, column) for label, column in against_rest.items() if len(labels) > 1]
    return {
        "accuracy": float(correct.mean()),
        "n": len(truth),
        "correct": correct,
        "balanced_accuracy": float(np.mean([correct[truth == label].mean() for label in labels])),
        "auc": float(np.mean(areas)) if areas else float("nan"),
    }


def _area(positive: np.ndarray, decision: np.ndarray) -> float:
    """Area under the ROC curve from ranks: scikit-learn's function checks its input for ten times as long."""
    n_positive = int(positive.sum())
    surplus = rankdata(decision)[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(surplus / (n_positive * (len(positive) - n_positive)))


def search_alpha(
    q: np.ndarray,
    train: tuple[np.ndarray, np.ndarray, StandardScaler],
    held_out: tuple[np.ndarray, np.ndarray],
    k: int,
    *,
    alphas: Sequence[float] = ALPHAS,
    C: float = 0.01,
) -> AlphaSearch:
    """Choose the α of equation 1 whose K neurons, trained on S1, predict rows of S2 best (paper §3.2).

    q is the importance on the resamples of S1; `train` holds the activations, the labels and the scaler of S1, and
    `held_out` the activations and labels of the sampled rows of S2. The first of equally good values is taken.
    """
    accuracy_of: dict[bytes, float] = {}  # many α choose the same neurons
    accuracies = []
    for alpha in alphas:
        selected = select_neurons(cumulative_importance(q, alpha=alpha), k)
        key = selected.tobytes()
        if key not in accuracy_of:
            model = fit_on(selected, *train, C)
            predicted = model.predict(computable(held_out[0].take(selected, axis=1)))
            accuracy_of[key] = float((predicted == held_out[1]).mean())
        accuracies.append(accuracy_of[key])
    return AlphaSearch(alphas[int(np.argmax(accuracies))], np.array(accuracies), term_medians(q))


def term_medians(q: np.ndarray) -> tuple[float, float]:
    """Medians over the neurons of E(q) and of E(q)/(σ(q)+ε): how far apart the terms of equation 1 are."""
    mean, over_spread = (float(np.median(cumulative_importance(q, alpha=alpha))) for alpha in (1.0, 0.0))
    return mean, over_spread


def alpha_grid(alphas: str | Sequence[float]) -> Sequence[float]:
    """The values of α to try: "log" is `ALPHAS`; a ValueError for anything outside [0, 1]."""
    if isinstance(alphas, str) and alphas == "log":
        return ALPHAS
    if isinstance(alphas, str) or not np.iterable(alphas) or not 1 <= len(given := list(alphas)) <= MOST_ALPHAS:
        wanted = f"'log' or numbers in [0, 1], 1 to {MOST_ALPHAS:,} of them"
        raise ValueError(f"alphas: must be {wanted}, got {shown(alphas)}")
    return [share("alphas", alpha, zero=True) for alpha in given]
