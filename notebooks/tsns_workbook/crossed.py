"""How a transfer would move with other rows: the crossed bootstrap.

A study draws its source rows and its target rows. In each replicate the rows of every corpus are resampled once, and
the same resampled corpus serves wherever it is source or target. A classifier is not fitted 200 times: near its optimum
one Newton step from the fit on all rows gives the fit on the resampled ones. Where there are many rows for each
feature, all steps share the curvature of all rows (the infinitesimal jackknife), for the price of one factorisation.
Where there are few, a single row bends it too much for that, and each step has the curvature of its own rows. The
choice of neurons is kept; what that leaves out, notebook 15 measures.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import linalg, sparse
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from tsns_lib.sampling import derive_seed
from tsns_workbook.statistics import bootstrap_weights

MANY = 5  # rows for each feature; with 2.6 to 4, the shared curvature follows a real refit with r = 0.92 to 0.96
CG_STEPS = 60  # at most; some 10 are needed, and 20 where there is no shared curvature to start from
INTERCEPT = 1e-6  # its penalty, which is none
CG_TOLERANCE = 1e-3  # of a step that is itself an approximation
TINY = np.finfo(np.float32).tiny

Weights = Mapping[tuple[str, str], np.ndarray]


def corpus_weights(corpora: Any, n_boot: int, seed: int) -> dict[tuple[str, str], np.ndarray]:
    """How often each row of a corpus came in each replicate, (n_boot, n_rows), by the corpus's name and split."""
    return {
        (corpus.name, corpus.split): bootstrap_weights(
            corpus.n_rows, derive_seed(seed, "crossed", corpus.name, corpus.split), n_boot
        )
        for corpus in corpora
    }


def refitted(features: Any, y: np.ndarray, model: LogisticRegression, weights: np.ndarray) -> np.ndarray:
    """Coefficients of the model refitted on resampled rows, by one Newton step: (n_boot, d + 1), the intercept last.

    `features` (n, d) are what the model was fitted on, dense or sparse, y (n,) is 0 or 1, weights (n_boot, n) count the
    rows. The coefficients have the precision of the features.

    Examples
    --------
    >>> X, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([0, 1, 0, 1])
    >>> model = LogisticRegression().fit(X, y)
    >>> refitted(X, y, model, np.ones((1, 4))).round(3).tolist() == [[*model.coef_[0].round(3), 0.0]]
    True
    """
    probability = expit(model.decision_function(features))
    one = np.ones((features.shape[0], 1), features.dtype)
    design = sparse.hstack([features, one], "csr") if sparse.issparse(features) else np.hstack([features, one])
    penalty = np.append(np.ones(features.shape[1]), INTERCEPT)[:, None].astype(features.dtype)
    curvature = (model.C * probability * (1 - probability))[:, None].astype(features.dtype)
    # of all rows together the gradient is 0
    gradient = design.T @ (model.C * (weights - 1) * (probability - y)).T.astype(features.dtype)
    # the step is A⁻¹ gradient with A = penalty + Xᵀ curvature X
    shared = np.array if sparse.issparse(features) else _solver(penalty, curvature, design)
    if sparse.issparse(features) or design.shape[0] < MANY * design.shape[1]:
        own = curvature * weights.T.astype(features.dtype)
        step = _conjugate_gradients(lambda v: penalty * v + design.T @ (own * (design @ v)), gradient, shared)
    else:
        step = shared(gradient)
    return np.append(model.coef_[0], model.intercept_[0]).astype(features.dtype) - step.T


def _solver(penalty: np.ndarray, curvature: np.ndarray, design: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A⁻¹ by one factorisation, where A has the curvature of all rows."""
    root = np.sqrt(curvature) * design
    matrix = root.T @ root
    matrix[np.diag_indices(len(matrix))] += penalty[:, 0]
    factor = linalg.cho_factor(matrix, lower=True, overwrite_a=True)
    return lambda target: linalg.cho_solve(factor, target)


def _conjugate_gradients(
    product: Callable[[np.ndarray], np.ndarray], target: np.ndarray, shared: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Solve A x = b for all columns b of the target at once, each with an A of its own.

    `product` gives A v, and `shared` nearly A⁻¹ v, so that few steps are needed.
    """
    solution, residual = np.zeros_like(target), target.copy()
    near = shared(residual)
    direction, length = near, (residual * near).sum(axis=0)
    enough = CG_TOLERANCE**2 * length
    for _ in range(CG_STEPS):
        image = product(direction)
        along = length / np.maximum((direction * image).sum(axis=0), TINY)
        solution += along * direction
        residual -= along * image
        near = shared(residual)
        longer, length = length, (residual * near).sum(axis=0)
        if (length <= enough).all():
            break
        direction = near + length / np.maximum(longer, TINY) * direction
    return solution


def replicated_scores(decision: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Accuracy, balanced accuracy and AUC in each replicate, (3, n_boot), from 0 to 1.

    `decision` (n_boot, n) are the decision values of each replicate's classifier, truth (n,) says which rows are of the
    larger class, weights (n_boot, n) count the target's rows. Decision values that are equal in single precision are
    ordered by row in the AUC.

    Examples
    --------
    >>> truth = np.array([False, False, True])
    >>> replicated_scores(np.array([[-1.0, 2.0, 1.0]]), truth, np.ones((1, 3))).round(3).tolist()
    [[0.667], [0.75], [0.5]]
    """
    sizes, n_positive = weights.sum(axis=1), weights @ truth
    n_negative = sizes - n_positive
    right = weights * ((decision > 0) == truth)
    n_right, right_positive = right.sum(axis=1), right @ truth
    balanced = (right_positive / n_positive + (n_right - right_positive) / n_negative) / 2
    ordered = np.take_along_axis(np.where(truth, weights, -weights), _ascending(decision), axis=1)
    below = -np.cumsum(np.minimum(ordered, 0), axis=1, dtype=np.float64)
    area = np.einsum("ij,ij->i", np.maximum(ordered, 0), below) / (n_positive * n_negative)
    return np.stack([n_right / sizes, balanced, area])


def _ascending(values: np.ndarray) -> np.ndarray:
    """Sort each row of `values` in single precision: column numbers, equal values in the order of their columns.

    One integer holds a value and its column, and these are sorted in an eighth of the time of a stable `numpy.argsort`.
    """
    bits = (values.astype(np.float32, order="C") + 0).view(np.int32)  # -0 becomes 0
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)  # now in the order of the values: negative ones have theirs reversed
    keys = (bits.astype(np.int64) << 32) | np.arange(values.shape[1])
    keys.sort(axis=1)
    return keys & 0xFFFFFFFF
