"""What every score of features and labels checks first."""

import numpy as np
from numpy.typing import ArrayLike


def features_and_classes(X: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """A finite matrix in double precision and class numbers 0…C-1, or one clear line."""
    features, labels = np.asarray(X, dtype=float), np.asarray(y)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"X: must be a matrix (rows × features), got shape {features.shape}")
    if labels.shape != features.shape[:1]:
        raise ValueError(f"y: must have one label for each of the {len(features)} rows of X, got shape {labels.shape}")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise ValueError(f"X: row {finite.argmin()} is not finite")
    names, classes = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"y: has one class only ({names[0]}); at least two are needed")
    return features, classes
