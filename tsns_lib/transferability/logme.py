"""Scores of frozen features for a task, without training on it: LogME, and H-score for comparison."""

import numpy as np
from numpy.typing import ArrayLike

from tsns_lib.validation import centred, features_and_classes, truth

MOST_ROUNDS = 100
PRECISION = 1e-6  # relative change of α/β at which the fixed point is reached (our choice)
TINY = 1e-12


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
    shape = len(features) - intercept, features.shape[1]
    evidence = float(np.mean([_evidence(left, singular**2, target, *shape) for target in targets.T]))
    if not np.isfinite(evidence):
        raise ValueError("X: its evidence is not finite; the features are too large or too small, so scale them")
    return evidence


def _evidence(left: np.ndarray, eigenvalues: np.ndarray, target: np.ndarray, n: int, n_features: int) -> float:
    """The greatest log evidence per row of n free rows, by MacKay's fixed point."""
    inside = (left.T @ target) ** 2  # the target's length along each direction of the features, squared
    outside = max(0.0, float(target @ target - inside.sum()))
    tiny = TINY / float(eigenvalues.max())  # of squared weights, whose unit is that of 1 / eigenvalues
    alpha = beta = 1.0
    for _ in range(MOST_ROUNDS):
        ratio = alpha / beta
        effective = float((eigenvalues / (eigenvalues + ratio)).sum())
        weights = float((eigenvalues * inside / (eigenvalues + ratio) ** 2).sum())
        residual = float((inside * (ratio / (eigenvalues + ratio)) ** 2).sum()) + outside
        alpha, beta = effective / (weights + tiny), (n - effective) / (residual + TINY)
        if abs(alpha / beta - ratio) <= PRECISION * ratio:
            break
    ratio = alpha / beta
    weights = float((eigenvalues * inside / (eigenvalues + ratio) ** 2).sum())
    residual = float((inside * (ratio / (eigenvalues + ratio)) ** 2).sum()) + outside
    determinant = np.log(alpha + beta * eigenvalues).sum() + (n_features - len(eigenvalues)) * np.log(alpha)
    fit = beta * residual + alpha * weights
    return float(n_features * np.log(alpha) + n * np.log(beta / (2 * np.pi)) - determinant - fit) / (2 * n)


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
