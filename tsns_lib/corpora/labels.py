"""What a label is: one rule for every file of your own, applied before anything is counted or trained."""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from tsns_lib.validation import EXACT, INVISIBLE, is_blank, shown

LARGEST = 2**63 - 1  # labels are stored in 64 bits

# How a number is written, in text: 010 is a name, as are 1_000 and digits of other scripts.
_NUMBER = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
# In a column of numbers these words are no class; in a column of names they are names.
_NO_NAMES = {"nan", "none", "null", "na", "n/a", "<na>", "nat", "inf", "infinity", "true", "false", "#n/a", "n.a."}
_NO_NAMES |= {"", "?", ".", "missing", "undefined", "unknown", "1.#qnan", "1.#ind", "nan(ind)"}


def numbered(labels: pd.Series, place: str) -> tuple[list[int], dict[str, int]]:
    """Number the labels of a file, and return with them the number of each name (empty where labels are numbers).

    Whole numbers keep their value. Text and truth values are numbered 0 to C-1 in the sorted order of their text. A
    label of another kind than the first, a quantity, or one that is too large is a ValueError that names the place; in
    it, {} stands for the row, which is the label's index.

    Examples
    --------
    >>> [numbered(pd.Series(labels), "row {}") for labels in (["yes", "no", "yes"], ["5", "-2.0"], ["010", "10"])]
    [([1, 0, 1], {'no': 0, 'yes': 1}), ([5, -2], {}), ([0, 1], {'010': 0, '10': 1})]
    """

    def refused(row: int, reason: str) -> ValueError:
        return ValueError(f"{place.format(row)}: {reason}")

    rows, values = labels.index, labels.tolist()
    kind = ""
    for row, value in zip(rows, values, strict=True):
        own = _kind(value)
        if not own:
            raise refused(row, f"{shown(value, 60)} is no label; write text, a whole number, or true and false")
        kind = kind or own
        if own != kind:
            raise refused(row, f"{shown(value, 60)} is {own}, but row {rows[0]} has {kind}; labels are all of one kind")
    if kind == "a truth value":
        return _in_order([str(bool(value)) for value in values])
    if kind == "text":
        values = [plain(value) for value in values]
        if cut := [row for row, value in zip(rows, values, strict=True) if value.endswith("\0")]:
            raise refused(cut[0], "the label ends with a NUL, which numpy drops")
        names = [value for value in values if not _NUMBER.fullmatch(value)]
        if names and (len(names) == len(values) or not {name.lower().lstrip("+-") for name in names} <= _NO_NAMES):
            return _in_order(values)
        if names:
            raise refused(rows[values.index(names[0])], f"{names[0]!r} among numbers is no class")
    numbers = []
    for row, value in zip(rows, values, strict=True):
        try:
            numbers.append(_whole(value))
        except ValueError as error:
            raise refused(row, f"{shown(value, 60)} {error}") from None
    return numbers, {}


def _in_order(names: list[str]) -> tuple[list[int], dict[str, int]]:
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return [numbers[name] for name in names], numbers


def meant(classes: list[int], numbers: Mapping[str, int], meaning: Mapping[Any, Any], place: str) -> list[Any]:
    """What `meaning` says of the class of each row, by its name: another name or number, or None to leave it out.

    Examples
    --------
    >>> meant([1, 3, 5], {}, {1: "bad", 3: None, 5: "good"}, "my.csv")
    ['bad', None, 'good']
    """
    if not isinstance(meaning, Mapping):
        raise ValueError(f"labels: must be a dict of what each label means, got {shown(meaning, 60)}")
    names = {number: name for name, number in numbers.items()} or {number: str(number) for number in classes}
    said = {plain(name): None if is_missing(value) else value for name, value in meaning.items()}
    if len(said) < len(meaning):
        raise ValueError(f"labels: names a class twice, got {shown(meaning, 60)}")
    if set(names.values()) - set(said):
        both = f"{listed(said)}, and there are {listed(names[number] for number in sorted(names))}"
        raise ValueError(f"{place}: labels= must name every class, with None for one to leave out: it names {both}")
    return [said[names[number]] for number in classes]


def plain(name: Any) -> str:
    """The name of a class as text: 1.0 is 1, and what looks the same is the same, however it was typed."""
    if isinstance(name, float | np.floating) and float(name).is_integer():
        name = int(name)
    text = unicodedata.normalize("NFC", str.__str__(name) if isinstance(name, str) else str(name))  # of an Enum, too
    while text != (shorter := text.strip().strip(INVISIBLE)):
        text = shorter
    return text


def listed(names: Iterable[str]) -> str:
    """Names in quotation marks, at most ten of them."""
    first = [f"{name!r:.40}" for name in names]
    return ", ".join(first[:10]) + (f" and {len(first) - 10} more" if len(first) > 10 else "") or "none"


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: a blank text, None, NaN, NaT or pandas.NA."""
    if isinstance(value, str):
        return is_blank(value)
    if isinstance(value, Decimal):  # pandas fails on one that signals
        return value.is_nan()
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
        try:
            value = float(value)
        except OverflowError:
            raise ValueError("is too large for a label (64 bits); write it as a name") from None
        if EXACT <= abs(value) < math.inf:
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
