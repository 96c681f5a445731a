"""Scores of frozen features for a task, without training on it: LogME, and H-score for comparison."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from tsns_lib.validation import centred, features_and_classes, truth

LOG_RATIOS = np.log(10) * np.linspace(-20, 20, 401)  # of α/β to the largest eigenvalue (our choice)
TINY = 1e-12  # of a target that the features know exactly, whose evidence has no bound


def logme(X: ArrayLike, y: ArrayLike, *, intercept: bool = True) -> float:
    """Log maximum evidence of the labels given the features, per row and class (You et al. 2021); high is good.

    Every class is one target of 0 and 1 of a Bayesian linear regression, y ~ N(Xw, 1/β), w ~ N(0, 1/α), whose
    evidence is maximised over α and β.

    Parameters
    ----------
    X : array of shape (n, D)
        Features.
    y : array of shape (n,)
        Labels; two classes or more.
    intercept : bool
        Centre features and targets, which leaves n - 1 free rows (our choice). The published form does not: it depends
        on where the origin is, and may put noise far from it above a feature that knows the classes.

    Returns
    -------
    float
        Natural logarithm.

    Raises
    ------
    ValueError
        If X is no finite matrix, or so large or small that its evidence cannot be computed, or constant; if y does
        not fit it or has one class only.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(60, 4))
    >>> logme(X, X[:, 0] > 0) > logme(X, np.arange(60) % 2)
    True
    """
    features, classes = features_and_classes(X, y)
    intercept = truth("intercept", intercept)
    targets = (classes[:, None] == np.arange(classes.max() + 1)).astype(float)
    if intercept:
        features, targets = centred(features), centred(targets)
    if not features.any():
        raise ValueError("X: every feature is constant, which says nothing beside an intercept")
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    n = len(features) - intercept
    evidence = float(np.mean([_evidence(left, singular**2, target, n) for target in targets.T]))
    if not np.isfinite(evidence):
        raise ValueError("X: its evidence is not finite; the features are too large or too small, so scale them")
    return evidence


def _evidence(left: np.ndarray, eigenvalues: np.ndarray, target: np.ndarray, n: int) -> float:
    """The greatest log evidence per row of n free rows.

    For a ratio α/β the best β is known, so that only the ratio is looked for: first on a grid, as there may be several
    maxima, then between the neighbours of the best one. Ratios and eigenvalues have the unit of the largest eigenvalue.
    """
    along = left.T @ target
    inside = along**2  # the target's length along each direction of the features, squared
    outside = float(np.square(target - left @ along).sum())
    eigenvalues = eigenvalues / eigenvalues.max()

    def evidence(log_ratio: ArrayLike) -> np.ndarray:
        ratio = np.exp(log_ratio)[..., None]
        shrunk = ratio / (eigenvalues + ratio)  # of the target along a direction, the share that is left
        left_over = (inside * shrunk).sum(axis=-1) + outside + TINY
        return (np.log(shrunk).sum(axis=-1) + n * np.log(n / (2 * np.pi * left_over)) - n) / (2 * n)

    best = int(evidence(LOG_RATIOS).argmax())
    around = LOG_RATIOS[max(0, best - 1)], LOG_RATIOS[min(len(LOG_RATIOS) - 1, best + 1)]
    found = minimize_scalar(lambda log_ratio: -evidence(log_ratio), bounds=around, method="bounded")
    return float(max(-found.fun, evidence(LOG_RATIOS[best])))


def h_score(X: ArrayLike, y: ArrayLike) -> float:
    """H-score tr(cov(X)† cov(E[X|y])) (Bao et al. 2019) of features (n, D) and labels (n,); high is good.

    It cannot exceed the number of classes less one. With as many features as rows it reaches that for any labels.
    """
    features, classes = features_and_classes(X, y)
    left, singular, _ = np.linalg.svd(centred(features), full_matrices=False)
    kept = singular > singular.max() * max(features.shape) * np.finfo(float).eps
    members = (classes[:, None] == np.arange(classes.max() + 1)).astype(float)
    # With centred features U S Vᵀ it is the trace of Uᵀ P U, where P replaces every row by the mean of its class.
    return float(np.square(left[:, kept].T @ (members / np.sqrt(members.sum(axis=0)))).sum())
