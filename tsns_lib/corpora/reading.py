"""What a reader returns: usable rows, and a count of everything that was skipped or repaired on the way."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

Row = tuple[str, str | None, int | str]  # text, text_pair, label; a str as label says why to skip the row

MALFORMED = "malformed row"
# Control characters (tab and newline are text), Unicode line separators, and bytes that were not UTF-8.
_UNREADABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufffd]")
_LINE_BREAK = re.compile(r"<br\s*/?>")


class Reading(NamedTuple):
    """What a reader found.

    Attributes
    ----------
    frame : DataFrame
        Columns `text`, `text_pair` (str or None) and `label` (int), one row per usable row, in file order.
    skipped : dict
        Reason -> number of rows left out; `rows_read` is `len(frame)` plus their sum.
    rows_read : int
        Rows in the file, a header not counted.
    repaired : dict
        Repair -> number of rows whose text it changed.
    """

    frame: pd.DataFrame
    skipped: dict[str, int]
    rows_read: int
    repaired: dict[str, int]


def collect(rows: Iterable[Row], *, doubled_quotes: bool = False) -> Reading:
    """Gather rows into a frame, repair their texts, and count what was skipped or changed.

    Parameters
    ----------
    rows : iterable of (text, text_pair, label)
        A label that is a str is the reason to skip the row.
    doubled_quotes : bool, default False
        Undo CSV quoting field by field.

    Returns
    -------
    Reading

    Examples
    --------
    >>> reading = collect([("Good.<br />Really.", None, 1), ("Bad.", None, "no gold label"), (" ", None, 0)])
    >>> reading.frame["text"].tolist(), reading.skipped, reading.rows_read, reading.repaired
    (['Good. Really.'], {'no gold label': 1, 'empty text': 1}, 3, {'line breaks': 1})
    """
    kept: list[tuple[str, str | None, int]] = []
    skipped: Counter[str] = Counter()
    repaired: Counter[str] = Counter()
    for text, text_pair, label in rows:
        if isinstance(label, str):
            skipped[label] += 1
            continue
        changes: set[str] = set()
        text = _repair(text, doubled_quotes, changes)
        text_pair = None if text_pair is None else _repair(text_pair, doubled_quotes, changes)
        if not text or text_pair == "":
            skipped["empty text"] += 1
            continue
        repaired.update(changes)
        kept.append((text, text_pair, label))
    return Reading(as_frame(kept), dict(skipped), len(kept) + skipped.total(), dict(sorted(repaired.items())))


def as_frame(rows: Iterable[tuple[str, str | None, int]]) -> pd.DataFrame:
    """Build the frame that every source holds: `text`, `text_pair`, `label`; plain strings and None."""
    frame = pd.DataFrame(list(rows), columns=["text", "text_pair", "label"], dtype=object)
    return frame.astype({"label": "int64"})


def undouble(field: str) -> str:
    """Undo the CSV quoting of one field; an unbalanced quotation mark stays as it is.

    Examples
    --------
    >>> undouble('"Is ""slow"" good?"'), undouble('"To be'), undouble('said "no"')
    ('Is "slow" good?', '"To be', 'said "no"')
    """
    wrapped = len(field) > 2 and field[0] == field[-1] == '"' and '""' in field[1:-1]
    return (field[1:-1] if wrapped else field).replace('""', '"')


def _repair(text: str, doubled_quotes: bool, changes: set[str]) -> str:
    steps = {
        "doubled quotes": undouble(text) if doubled_quotes else text,
        "line breaks": _LINE_BREAK.sub(" ", text),
        "unreadable characters": _UNREADABLE.sub(" ", text),
    }
    changes.update(name for name, after in steps.items() if after != text)
    text = steps["doubled quotes"]
    return _UNREADABLE.sub(" ", _LINE_BREAK.sub(" ", text)).strip()
