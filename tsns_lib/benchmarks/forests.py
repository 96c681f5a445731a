"""The forest beside its peers: seconds, and whether they choose the same neurons.

Why 64 bins (the kernel is compiled for one number, so this was measured once, on 1,400 reviews × 2,304 neurons, 1,000
trees, two cores; overlap of the top 100, 300 and 500 with scikit-learn's, mean of three seeds against two):

    bins      16                 32                 64                 128                256
    seconds   0.42               0.51               0.47               0.47               0.63
    overlap   0.82, 0.81, 0.78   0.83, 0.81, 0.78   0.82, 0.82, 0.78   0.84, 0.81, 0.79   0.83, 0.82, 0.79

scikit-learn's own two seeds share 0.81, 0.83 and 0.79: from 16 to 256 bins the choice is the same within that noise,
and 64 is the most that costs nothing.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd

from tsns_lib.aggregation import order_neurons
from tsns_lib.importance import forest_importance

OURS, REFERENCE = "tsns_lib", "RandomForestClassifier"
BORUTA_ROUNDS = 3  # of at most; it needs a forest of twice the neurons for each

Forest = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]


def _ours(X: np.ndarray, y: np.ndarray, n_trees: int, seed: int) -> np.ndarray:
    return forest_importance(X, y, n_trees=n_trees, seed=seed)


def _reference(X: np.ndarray, y: np.ndarray, n_trees: int, seed: int) -> np.ndarray:
    return forest_importance(X, y, n_trees=n_trees, engine="sklearn", seed=seed)


def _extra_trees(X: np.ndarray, y: np.ndarray, n_trees: int, seed: int) -> np.ndarray:
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(n_trees, random_state=seed, n_jobs=-1).fit(X, y).feature_importances_


def _intelex(X: np.ndarray, y: np.ndarray, n_trees: int, seed: int) -> np.ndarray:
    from sklearnex.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_trees, random_state=seed, n_jobs=-1).fit(X, y).feature_importances_


def _ydf(X: np.ndarray, y: np.ndarray, n_trees: int, seed: int) -> np.ndarray:
    import ydf

    ydf.verbose(0)
    learner = ydf.RandomForestLearner(
        label="label",
        num_trees=n_trees,
        max_depth=200,
        min_examples=1,
        random_seed=seed,
        compute_oob_performances=False,
    )
    names = [f"n{i}" for i in range(X.shape[1])]
    model = learner.train({name: X[:, i] for i, name in enumerate(names)} | {"label": y.astype(str)})
    found = {name: score for score, name in model.variable_importances()["SUM_SCORE"]}
    return np.array([found.get(name, 0.0) for name in names])


def _boruta(X: np.ndarray, y: np.ndarray, n_trees: int, seed: int) -> np.ndarray:
    from boruta import BorutaPy
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_trees, n_jobs=-1)
    found = BorutaPy(forest, n_estimators=n_trees, max_iter=BORUTA_ROUNDS, random_state=seed).fit(X, y)
    return -found.ranking_.astype(float)


# The name shown, the module that it needs, and how it gives an importance.
PEERS: dict[str, tuple[str, Forest]] = {
    OURS: ("tsns_lib", _ours),
    REFERENCE: ("sklearn", _reference),
    "ExtraTreesClassifier": ("sklearn", _extra_trees),
    "scikit-learn-intelex": ("sklearnex", _intelex),
    "ydf": ("ydf", _ydf),
    "Boruta": ("boruta", _boruta),
}


def compare_forests(
    X: np.ndarray,
    y: np.ndarray,
    *,
    n_trees: int = 1000,
    neurons: Sequence[int] = (100, 300, 500),
    repeats: int = 1,
    peers: Iterable[str] = tuple(PEERS),
) -> pd.DataFrame:
    """Grow a forest with every peer, in turns, and compare seconds and chosen neurons with scikit-learn's.

    Parameters
    ----------
    X : ndarray of shape (n, N)
        Activations.
    y : ndarray of shape (n,)
        Labels.
    n_trees : int
        Trees of every forest.
    neurons : sequence of int
        The values of K whose overlap is shown.
    repeats : int
        Turns; seconds are the median.
    peers : iterable of str
        Names in `PEERS`.

    Returns
    -------
    DataFrame
        One row for each peer in columns `forest`, `seconds`, `ratio` (scikit-learn's seconds divided by these) and
        `K=…` (share of the K most important neurons that are scikit-learn's, too, mean of two seeds; in its own row,
        what its two seeds share). A peer that is not installed has "not installed" in column `note`.
    """
    chosen = {name: PEERS[name] for name in dict.fromkeys([OURS, REFERENCE, *peers])}
    there = {name: forest for name, (module, forest) in chosen.items() if find_spec(module)}
    for forest in there.values():  # compile, import, start threads
        forest(*evenly(X[:, :50], y, min(200, len(y))), 2, 0)
    seconds: dict[str, list[float]] = {name: [] for name in there}
    importance: dict[str, np.ndarray] = {}
    for _ in range(repeats):
        for name, forest in there.items():
            spent, importance[name] = timed(forest, X, y, n_trees, 0)
            seconds[name].append(spent)
    bar = _reference(X, y, n_trees, 1)
    rows: list[dict[str, Any]] = []
    for name in chosen:
        if name not in there:
            rows.append({"forest": name, "note": "not installed"})
            continue
        median = float(np.median(seconds[name]))
        ratio = float(np.median(seconds[REFERENCE])) / median
        others = [bar] if name == REFERENCE else [importance[REFERENCE], bar]
        shared = {f"K={k}": float(np.mean([overlap(importance[name], other, k) for other in others])) for k in neurons}
        note = f"at most {BORUTA_ROUNDS} rounds; its ranks have ties" if name == "Boruta" else ""
        rows.append({"forest": name, "seconds": median, "ratio": ratio, **shared, "note": note})
    return pd.DataFrame(rows)


def scaling(X: np.ndarray, y: np.ndarray, vary: dict[str, Sequence[int]], *, n_trees: int) -> pd.DataFrame:
    """Seconds of our forest and of scikit-learn's while one size varies and the others stay.

    Parameters
    ----------
    X, y : ndarray
        Activations and labels; rows and neurons beyond their number are not asked for.
    vary : dict
        "rows", "neurons", "trees" or "threads", and the values of each.
    n_trees : int
        Trees where they do not vary.

    Returns
    -------
    DataFrame
        Columns `varied`, `value`, `forest`, `seconds`.
    """
    rows = []
    for varied, values in vary.items():
        for value in values:
            part, labels = evenly(X, y, value if varied == "rows" else len(y))
            part = part[:, : value if varied == "neurons" else None]
            settings = {
                "n_trees": value if varied == "trees" else n_trees,
                "n_jobs": value if varied == "threads" else -1,
            }
            for name, engine in ((OURS, "histogram"), (REFERENCE, "sklearn")):
                spent, _ = timed(forest_importance, part, labels, engine=engine, **settings)
                rows.append({"varied": varied, "value": value, "forest": name, "seconds": spent})
    return pd.DataFrame(rows)


def overlap(a: np.ndarray, b: np.ndarray, k: int) -> float:
    """Share of the K most important neurons that two importances have in common."""
    return len(np.intersect1d(order_neurons(a)[:k], order_neurons(b)[:k])) / k


def timed(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[float, Any]:
    """Seconds of one call, and what it returns."""
    start = time.perf_counter()
    result = function(*args, **options)
    return time.perf_counter() - start, result


def evenly(X: np.ndarray, y: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows at even distances: a corpus may stand class by class."""
    rows = np.arange(n) * len(y) // n
    return X[rows], y[rows]
