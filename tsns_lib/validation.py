"""What every public function checks before it works: one clear line that names the argument and the value.

Numbers of numpy are numbers here, and booleans are none. A check returns the plain Python value, so that a key in the
store is the same whichever of the two a caller passed.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence, Set
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

LARGEST = 1e60  # squares of such values, their sums over a matrix, and squares of those stay below 1e308
SMALLEST = 1e-8  # features that are all nearer to 0 are zeros or noise: scores divide by their squares
EXACT = 2**53  # above it, a float no longer tells neighbours apart
MOST_RUNS = 10_000  # of a study: more would not end (our choice)
MOST_SEED = 2**64 - 1
INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"  # spaces of no width, hyphens, marks of order
_BLANK = re.compile(rf"[\s\x00-\x1f\x7f-\x9f{INVISIBLE}]*")
MOST_CLASSES = 1_000  # more are row numbers or quantities, with which a forest would not end (our choice)


def shown(value: Any, width: int = 80) -> str:
    """What a message shows of a value: one line, cut to a width."""
    try:
        return " ".join(repr(value).split())[:width]
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return f"a {type(value).__name__} of thousands of digits"


def whole_number(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """The value as an int, or a ValueError."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral):
        raise ValueError(f"{name}: must be a whole number, got {shown(value)}")
    number = int(value)
    if number < least:
        raise ValueError(f"{name}: must be at least {least}, got {shown(number)}")
    if most is not None and number > most:
        raise ValueError(f"{name}: must be at most {most:,}, got {f'{number:,}' if number < 1e30 else shown(number)}")
    return number


def share(name: str, value: Any, *, zero: bool = False, one: bool = True) -> float:
    """The value as a float between 0 and 1, or a ValueError; `zero` and `one` say which ends are allowed."""
    real = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    number = float(value) if real and 0 <= value <= 1 else -1.0  # a tiny value of another type may become 0
    if not (0 < number < 1 or (zero and value == number == 0) or (one and number == 1)):
        raise ValueError(f"{name}: must be in {'[' if zero else '('}0, 1{']' if one else ')'}, got {shown(value)}")
    return number


def positive(name: str, value: Any) -> float:
    """The value as a finite float above 0 whose inverse is finite too, or a ValueError."""
    number = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    if not (number and sys.float_info.min <= value <= sys.float_info.max):
        raise ValueError(f"{name}: must be positive, got {shown(value)}")
    return float(value)


def truth(name: str, value: Any) -> bool:
    """The value as a bool, or a ValueError."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: must be True or False, got {shown(value)}")
    return bool(value)


def path(name: str, value: Any) -> Path:
    """The value as a path, with `~` as the home folder where there is such a user, or a ValueError."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise ValueError(f"{name}: must be a path, got {type(value).__name__}")
    if "\0" in os.fspath(value):
        raise ValueError(f"{name}: must be a path, got {shown(value)}")
    return Path(os.path.expanduser(value))


def one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    """The value as a str, or a ValueError unless it is one of two allowed words or more."""
    if not isinstance(value, str) or value not in allowed:
        *others, last = map(repr, allowed)
        raise ValueError(f"{name}: must be {', '.join(others)} or {last}, got {shown(value)}")
    return str(value)


def numbers(name: str, values: ArrayLike, what: str) -> np.ndarray:
    """The values as an array of real numbers of their own type, or a ValueError; `what` says what they must be.

    Nothing is dropped in silence: a mask is no number, and neither is text that looks like one.
    """
    array = _array(name, values, f"be {what}")
    if array.dtype.kind == "O" and array.ndim:
        for value in array.flat:
            if not isinstance(value, Real):
                raise ValueError(f"{name}: must be {what}, and {shown(value, 40)} is no number")
        array = _array(name, array, f"be {what}", dtype=float)  # says no to a number that is too large
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: must be {what}, got {array.dtype} of shape {array.shape}")
    return array


def as_floats(name: str, values: ArrayLike, what: str) -> np.ndarray:
    """`numbers` that are computed with as floats: whole ones are refused where two of them may become one."""
    array = numbers(name, values, what)
    if array.dtype.kind in "iu" and array.size and max(int(array.max()), -int(array.min())) > EXACT:
        raise ValueError(f"{name}: holds whole numbers beyond 2**53, of which a float does not tell neighbours apart")
    return array


def matrix(name: str, values: ArrayLike, axes: str) -> np.ndarray:
    """The values as a finite matrix in double precision, or a ValueError; `axes` says what its axes are."""
    array = as_floats(name, values, f"a matrix ({axes})")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name}: must be a matrix ({axes}), got shape {array.shape}")
    with np.errstate(over="ignore"):
        array = array.astype(float, copy=False)
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise ValueError(f"{name}: must be a finite matrix ({axes}), row {finite.argmin()} is not finite")
    if max(array.max(), -array.min()) > LARGEST:
        row = int(np.abs(array).max(axis=1).argmax())
        raise ValueError(f"{name}: row {row} holds values beyond {LARGEST:g}, whose squares cannot be computed with")
    return array


def texts(name: str, values: Any, of: str = "") -> list[str]:
    """The values as a list of texts, or a ValueError that names the row; `of` says of which source they are."""
    if isinstance(values, str | bytes | bytearray | Mapping | Set | pd.DataFrame) or not np.iterable(values):
        kind = "one string" if isinstance(values, str) else type(values).__name__
        raise ValueError(f"{name}s: expected a sequence of texts, such as a list or one column of a frame, got {kind}")
    if not (rows := list(values)):
        raise ValueError(f"{of}{name}: no rows")
    for row, text in enumerate(rows):
        if not isinstance(text, str):
            raise ValueError(f"{of}{name}, row {row}: expected a string, got {type(text).__name__} {shown(text, 60)}")
        if is_blank(text):
            raise ValueError(f"{of}{name}, row {row}: empty")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{of}{name}, row {row}: not valid Unicode (a lone surrogate)") from None
    return rows


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: white space, control characters, a byte order mark, spaces of no width."""
    return _BLANK.fullmatch(text) is not None


def centred(X: np.ndarray) -> np.ndarray:
    """Columns less their means; one that is constant is 0, and not what rounding leaves of it."""
    X = X - X[0]
    return X - X.mean(axis=0)


def one_each(name: str, values: ArrayLike, n_rows: int, what: str, verb: str = "have one") -> np.ndarray:
    """One label or name for each row, of shape (n_rows,), or a ValueError; `what` says of what kind they are.

    A missing one (NaN, None, NaT, pandas.NA) is refused, and so are text and numbers side by side: numpy would make
    text of all, and of what is missing too.
    """
    wanted = f"{verb} {what} for each of the {n_rows} rows of X"
    array = _array(name, values, wanted, dtype=object if isinstance(values, list | tuple) else None)
    if array.shape != (n_rows,):
        raise ValueError(f"{name}: must {wanted}, got shape {array.shape}")
    if array.dtype.kind == "V":
        raise ValueError(f"{name}: must be text or whole numbers, got {array.dtype}")
    missing = pd.isna(array)
    if missing.any():
        raise ValueError(f"{name}: the {what} of row {missing.argmax()} is missing")
    if array.dtype.kind == "O":
        kinds = [_kind(value) for value in array]
        if None in kinds:
            row = kinds.index(None)
            raise ValueError(f"{name}: row {row} is {shown(array[row], 40)}, which is neither text nor a number")
        if len(set(kinds)) > 1:
            raise ValueError(f"{name}: mixes {what}s that cannot be compared, such as text and numbers")
        if cut := [row for row, value in enumerate(array) if hasattr(value, "strip") and value[-1:] in ("\0", b"\0")]:
            raise ValueError(f"{name}: the {what} of row {cut[0]} ends with a NUL, which numpy drops")
        array = _exact(array) if "number" in kinds else np.array(array.tolist())
    if array.dtype.kind not in "OfiubUS":
        raise ValueError(f"{name}: must be text or whole numbers, got {array.dtype}")
    return array


def class_numbers(labels: ArrayLike, n_rows: int) -> np.ndarray:
    """Class numbers 0…C-1 of shape (n_rows,), or a ValueError.

    A missing label is never a class, and neither is a number with a fraction.
    """
    y = one_each("y", labels, n_rows, "label")
    if y.dtype.kind == "f":
        continuous = ~np.isfinite(y) | (y != np.floor(y))
        if continuous.any():
            row = continuous.argmax()
            raise ValueError(f"y: row {row} is {y[row]}; labels are classes, not quantities")
    names, classes = np.unique(y, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"y: has one class only ({names[0]}); at least two are needed")
    if len(names) > MOST_CLASSES:
        raise ValueError(f"y: has {len(names):,} classes, more than {MOST_CLASSES:,}; labels are no row numbers")
    return classes.astype(np.int64)


def features_and_classes(X: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """What a score of features and labels works on: a finite matrix in double precision, and class numbers."""
    features = matrix("X", X, "rows × features")
    classes = class_numbers(y, len(features))
    largest = max(features.max(), -features.min())
    if largest < SMALLEST:
        raise ValueError(f"X: its largest value is {largest:g}; features below {SMALLEST:g} say nothing")
    return features, classes


def _array(name: str, values: Any, wanted: str, dtype: Any = None) -> np.ndarray:
    """The values as numpy sees them, or a ValueError where numpy fails or would drop something."""
    if hasattr(values, "toarray") and hasattr(values, "nnz"):
        raise ValueError(f"{name}: must {wanted}, got a sparse matrix; its .toarray() is one")
    if np.ma.is_masked(values):
        raise ValueError(f"{name}: must {wanted}, and some values are masked")
    try:
        return np.asarray(values, dtype=dtype)
    except (ValueError, TypeError, RuntimeError, OverflowError):  # rows of several lengths; a tensor on a device
        raise ValueError(f"{name}: must {wanted}, got a {type(values).__name__} that is no array") from None


def _exact(numbers: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers as they are, of any size; floats as floats, unless these would make one of two neighbours."""
    with np.errstate(invalid="ignore"):  # infinity has no remainder
        whole = all(number % 1 == 0 for number in numbers)
    if not all(isinstance(number, Integral) for number in numbers) and (max(map(abs, numbers)) <= EXACT or not whole):
        return numbers.astype(float)
    exact = [int(number) for number in numbers]
    return np.array(exact, dtype=object if max(map(abs, exact)) > np.iinfo(np.int64).max else np.int64)


def _kind(value: Any) -> str | None:
    """The family of values within which labels can be compared; None for what is no label."""
    families = {"text": str, "bytes": bytes, "truth": bool | np.bool_, "number": Real}
    return next((family for family, types in families.items() if isinstance(value, types)), None)


def finite(activations: np.ndarray, engine: str) -> None:
    """Raise a ValueError unless all are finite, which scikit-learn's forest needs them to be in single precision."""
    for start in range(0, len(activations), 1_000):
        block = activations[start : start + 1_000]
        good = np.isfinite(block)
        if engine == "sklearn":
            good &= np.abs(block) <= np.finfo(np.float32).max
        if not good.all():
            row, neuron = np.argwhere(~good)[0].tolist()
            value = block[row, neuron]
            wanted = "finite" if not np.isfinite(value) else "within single precision for engine 'sklearn'"
            raise ValueError(f"X: row {start + row}, neuron {neuron} is {value}; activations must be {wanted}")
