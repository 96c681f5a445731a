"""Your own corpus: a CSV, TSV, JSONL or Parquet file with `text[, text_pair], label`, checked row by row."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from tsns_lib.corpora.labels import numbered
from tsns_lib.corpora.readers import MAX_TEXT, as_frame, raw_lines, undouble

Records = list[dict[Any, Any]]

COLUMNS = ("text", "text_pair", "label")
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_own(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read your own corpus; unlike in an official one, a bad row is an error and is not skipped.

    The ending decides: `.csv` (quoted as usual), `.tsv` (a quotation mark never joins lines), `.jsonl` or `.parquet`,
    in UTF-8. Headings may be in upper case. Also returns two facts: `labels`, which maps each text label to its number
    in sorted order (empty where labels were whole numbers), and `ignored_columns`. Errors name the file and, where
    there is one, row and column; rows count from 1, without the header and without empty lines.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path}: ending {path.suffix!r} is not one of {', '.join(_READERS)}")
    records = read(path)
    if not records:
        raise ValueError(f"{path}: no rows")
    # All rows, not only the first: in JSONL some of them may lack a column.
    columns = list(dict.fromkeys(column for record in records for column in record))
    for column in ("text", "label"):
        if column not in columns:
            raise ValueError(f"{path}: no column {column!r}; found: {', '.join(map(str, columns)):.200}")
    texts = ["text", "text_pair"] if "text_pair" in columns else ["text"]
    for number, record in enumerate(records, 1):
        for column in texts:
            if reason := _unusable(record.get(column)):
                raise ValueError(f"{path}, row {number}, column {column!r}: {reason}")
    labels, numbers = numbered([record.get("label") for record in records], str(path))
    if len(set(labels)) == 1:
        raise ValueError(f"{path}: one class only, {records[0]['label']!r}, in all {len(records)} rows")
    frame = as_frame(
        (record["text"].strip(), record["text_pair"].strip() if len(texts) == 2 else None, label)
        for record, label in zip(records, labels, strict=True)
    )
    return frame, {"labels": numbers, "ignored_columns": [c for c in columns if c not in COLUMNS]}


def _unusable(text: Any) -> str | None:
    """Why this is no text, or None."""
    if not isinstance(text, str):
        missing = text is None or (pd.api.types.is_scalar(text) and pd.isna(text))
        return "empty" if missing else f"{text!r:.60} is not text"
    if not text.strip():
        return "empty"
    if len(text) > MAX_TEXT:
        return f"{len(text):,} characters, at most {MAX_TEXT:,} are read"
    return "not valid Unicode (a lone surrogate)" if _SURROGATE.search(text) else None


def _named(headings: Iterable[Any]) -> list[Any]:
    """The headings, ours in lower case; a ValueError if one stands twice."""
    names = [
        heading.strip().lower() if isinstance(heading, str) and heading.strip().lower() in COLUMNS else heading
        for heading in headings
    ]
    twice = [name for name, count in Counter(names).items() if count > 1 and name != ""]
    if twice:
        raise ValueError(f"the column {twice[0]!r} stands twice")
    return names


def _read_csv(path: Path) -> Records:
    return _table(path, delimiter=",", quoting=csv.QUOTE_MINIMAL)


def _read_tsv(path: Path) -> Records:
    records = _table(path, delimiter="\t", quoting=csv.QUOTE_NONE)
    return [{column: undouble(value) for column, value in record.items()} for record in records]


def _table(path: Path, *, delimiter: str, quoting: Any) -> Records:
    # Not pandas: with one comma too many in every row, it would silently shift the columns.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_TEXT))  # one limit for the whole process: never lowered
    lines: list[list[str]] = []
    try:
        for row in csv.reader(_pieces(path), delimiter=delimiter, quoting=quoting, strict=True):
            if row:
                lines.append(row)
    except csv.Error as error:
        place = f"row {len(lines)}" if lines else "header"
        raise ValueError(f"{path}, {place}: not readable as {path.suffix[1:].upper()} ({error})") from error
    try:
        header = _named(lines[0]) if lines else []
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for number, row in enumerate(lines[1:], 1):
        if len(row) != len(header):
            raise ValueError(f"{path}, row {number}: {len(row)} fields, but the header has {len(header)}")
    return [dict(zip(header, row, strict=True)) for row in lines[1:]]


def _pieces(path: Path) -> Iterator[str]:
    """Lines with their ends; a lone carriage return ends one too, as the csv module expects."""
    for _, line in raw_lines(path):
        yield from io.StringIO(line, newline="") if "\r" in line else [line]


def _read_jsonl(path: Path) -> Records:
    def record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(zip(_named(key for key, _ in pairs), (value for _, value in pairs), strict=True))

    records = []
    # Split at newlines only: a text may hold Unicode line separators.
    for number, line in raw_lines(path):
        if line.strip():
            try:
                row = json.loads(line.removeprefix("\ufeff"), object_pairs_hook=record)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: not a JSON object ({error})") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: not a JSON object")
            records.append(row)
    return records


def _read_parquet(path: Path) -> Records:
    try:
        frame = pd.read_parquet(path)
        frame.columns = _named(frame.columns)
    # A damaged file may raise any of these, from pandas or from pyarrow.
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path}: not readable as Parquet ({reason})") from error
    return frame.to_dict("records")


_READERS = {".csv": _read_csv, ".tsv": _read_tsv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
