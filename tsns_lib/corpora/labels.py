"""What a label is: one rule for every file of your own, applied before anything is counted or trained."""

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

LARGEST = 2**63 - 1  # labels are stored in 64 bits
EXACT = 2**53  # above it, a float no longer tells neighbours apart

# How a number is written, in text: 010 is a name, as are 1_000 and digits of other scripts.
_NUMBER = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
# In a column of numbers these words are no class; in a column of names they are names.
_NO_NAMES = {"nan", "none", "null", "na", "n/a", "<na>", "nat", "inf", "infinity", "true", "false"}


def numbered(values: Sequence[Any], place: str) -> tuple[list[int], dict[str, int]]:
    """Number the labels of a file, and return with them the number of each name (empty where labels are numbers).

    Whole numbers keep their value. Text and truth values are numbered 0 to C-1 in the sorted order of their text. A
    label that is missing, of another kind than the first, a quantity, or too large is a ValueError that names the place
    and the row, which counts from 1.

    Examples
    --------
    >>> numbered(["yes", "no", "yes"], "my.csv"), numbered(["5", "-2.0"], "my.csv"), numbered(["010", "10"], "my.csv")
    (([1, 0, 1], {'no': 0, 'yes': 1}), ([5, -2], {}), ([0, 1], {'010': 0, '10': 1}))
    """

    def refused(row: int, reason: str) -> ValueError:
        return ValueError(f"{place}, row {row}, column 'label': {reason}")

    kind = ""
    for row, value in enumerate(values, 1):
        if _is_missing(value):
            raise refused(row, "missing")
        own = _kind(value)
        if not own:
            raise refused(row, f"{_shown(value)} is no label; write text, a whole number, or true and false")
        kind = kind or own
        if own != kind:
            raise refused(row, f"{_shown(value)} is {own}, but row 1 has {kind}; labels are all of one kind")
    if kind == "a truth value":
        return _in_order([str(bool(value)) for value in values])
    if kind == "text":
        values = [value.strip() for value in values]
        names = [value for value in values if not _NUMBER.fullmatch(value)]
        if names and (len(names) == len(values) or not {name.lower().lstrip("+-") for name in names} <= _NO_NAMES):
            return _in_order(values)
        if names:
            raise refused(values.index(names[0]) + 1, f"{names[0]!r} among numbers is no class")
    numbers = []
    for row, value in enumerate(values, 1):
        try:
            numbers.append(_whole(value))
        except ValueError as error:
            raise refused(row, f"{_shown(value)} {error}") from None
    return numbers, {}


def _in_order(names: list[str]) -> tuple[list[int], dict[str, int]]:
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return [numbers[name] for name in names], numbers


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _kind(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "a truth value"
    if isinstance(value, str):
        return "text"
    return "a number" if isinstance(value, Integral | Real | Decimal) else ""


def _whole(value: Any) -> int:
    """The exact value of a whole number; what is none, or does not fit, is a ValueError that says why."""
    if isinstance(value, Integral):
        value = int(value)
    elif isinstance(value, Real):
        value = float(value)
        if EXACT < abs(value) < math.inf:
            raise ValueError("is too large to be exact; write it without a decimal point, or as a name")
    try:
        number = Decimal(value)
    except ArithmeticError:  # an exponent beyond all bounds
        raise ValueError("is too large for a label (64 bits); write it as a name") from None
    if not number.is_finite():
        raise ValueError("is no class")
    if number.adjusted() > len(str(LARGEST)) or abs(number) > LARGEST:
        raise ValueError("is too large for a label (64 bits); write it as a name")
    if number != number.to_integral_value():
        raise ValueError("is a quantity, and labels are classes")
    return int(number)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
