"""What every public function checks before it works: one clear line that names the argument and the value.

Numbers of numpy are numbers here, and booleans are none. A check returns the plain Python value, so that a key in the
store is the same whichever of the two a caller passed.
"""

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """The value as an int, or a ValueError."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral):
        raise ValueError(f"{name}: must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: must be at least {least}, got {value}")
    return int(value)


def share(name: str, value: Any, *, zero: bool = False, one: bool = True) -> float:
    """The value as a float between 0 and 1, or a ValueError; `zero` and `one` say which ends are allowed."""
    number = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    if not (number and (0 < value < 1 or (zero and value == 0) or (one and value == 1))):
        raise ValueError(f"{name}: must be in {'[' if zero else '('}0, 1{']' if one else ')'}, got {value!r}")
    return float(value)


def positive(name: str, value: Any) -> float:
    """The value as a finite float above 0, or a ValueError."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real) or not 0 < value < math.inf:
        raise ValueError(f"{name}: must be positive, got {value!r}")
    return float(value)


def matrix(name: str, values: ArrayLike, axes: str) -> np.ndarray:
    """The values as a finite matrix in double precision, or a ValueError; `axes` says what its axes are."""
    array = np.asarray(values, dtype=float)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name}: must be a matrix ({axes}), got shape {array.shape}")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise ValueError(f"{name}: must be a finite matrix ({axes}), row {finite.argmin()} is not finite")
    return array


def class_numbers(labels: ArrayLike, n_rows: int) -> np.ndarray:
    """Class numbers 0…C-1 of shape (n_rows,), or a ValueError.

    A missing label (NaN, None, NaT, pandas.NA) is never a class, and neither is a number with a fraction.
    """
    y = np.asarray(labels)
    if y.shape != (n_rows,):
        raise ValueError(f"y: must have one label for each of the {n_rows} rows of X, got shape {y.shape}")
    missing = pd.isna(y)
    if missing.any():
        raise ValueError(f"y: the label of row {missing.argmax()} is missing")
    if y.dtype.kind == "f":
        continuous = ~np.isfinite(y) | (y != np.floor(y))
        if continuous.any():
            row = continuous.argmax()
            raise ValueError(f"y: row {row} is {y[row]}; labels are classes, not quantities")
    try:
        names, classes = np.unique(y, return_inverse=True)
    except TypeError:
        raise ValueError("y: mixes labels that cannot be compared, such as text and numbers") from None
    if len(names) < 2:
        raise ValueError(f"y: has one class only ({names[0]}); at least two are needed")
    return classes.astype(np.int64)


def features_and_classes(X: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """What a score of features and labels works on: a finite matrix in double precision, and class numbers."""
    features = matrix("X", X, "rows × features")
    return features, class_numbers(y, len(features))
