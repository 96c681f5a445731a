"""Hidden-state variability: how far the classes stand apart in a layer, before any training."""

import numpy as np
from numpy.typing import ArrayLike

from tsns_lib.validation import centred, features_and_classes, numbers, whole_number

RANK = 1e-10  # relative singular value below which a direction between the class means does not count


def hidden_state_variability(X: ArrayLike, y: ArrayLike) -> float:
    """Within-class over between-class variability ν of one layer (arXiv 2210.10041); low means specialised.

    ν = tr(Σ_w Σ_b†) / |Y|, where Σ_w is the mean of the classes' population covariances and Σ_b the population
    covariance of the class means around their unweighted mean. Σ_b has at most |Y| - 1 directions, which a thin
    decomposition of the class means gives without any matrix of D × D.

    Parameters
    ----------
    X : array of shape (n, D)
        States of one layer, such as means over the tokens that are not special.
    y : array of shape (n,)
        Labels; two classes or more.

    Returns
    -------
    float
        Infinite when all class means are equal.

    Raises
    ------
    ValueError
        If X is no finite matrix or as good as zero, y does not fit it or has one class only.

    Examples
    --------
    >>> hidden_state_variability([[0.0, 0.0], [0.0, 2.0], [4.0, 0.0], [6.0, 0.0]], [0, 0, 1, 1])
    0.0384...
    """
    features, classes = features_and_classes(X, y)
    features = centred(features)
    members = [features[classes == label] for label in range(classes.max() + 1)]
    means = np.stack([rows.mean(axis=0) for rows in members])
    _, scale, directions = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    apart = scale > RANK * float(np.abs(features).max())
    if not apart.any():
        return float("inf")
    within = np.mean([(rows @ directions[apart].T).var(axis=0) for rows in members], axis=0)
    return float((within / scale[apart] ** 2).sum())


def layer_variability(X: ArrayLike, y: ArrayLike, n_layers: int) -> np.ndarray:
    """Hidden-state variability ν of every layer, shape (n_layers,), from activations (n, n_layers × hidden).

    The head belongs on the layer with the smallest ν.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 6))
    >>> X[:20, 2:4] += 5
    >>> int(layer_variability(X, np.arange(40) < 20, 3).argmin())
    1
    """
    states = numbers("X", X, "a matrix (rows × neurons)")
    n_layers = whole_number("n_layers", n_layers)
    if states.ndim != 2 or 0 in states.shape:
        raise ValueError(f"X: must be a matrix (rows × neurons), got shape {states.shape}")
    if states.shape[1] % n_layers:
        raise ValueError(f"n_layers: {states.shape} activations do not divide into {n_layers} layers")
    return np.array([hidden_state_variability(layer, y) for layer in np.split(states, n_layers, axis=1)])
