"""Your own corpus: a CSV, TSV, JSONL or Parquet file with `text[, text_pair], label`, checked row by row."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from tsns_lib.corpora.readers import as_frame, undouble

Records = list[dict[str, Any]]


def read_own(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read your own corpus; unlike in an official one, a bad row is an error and is not skipped.

    The ending decides: `.csv` (quoted as usual), `.tsv` (a quotation mark never joins lines), `.jsonl` or `.parquet`,
    in UTF-8. Also returns two facts: `labels`, which maps each text label to its number in sorted order (empty where
    labels were whole numbers), and `ignored_columns`. Errors name the file and, where there is one, row and column;
    rows count from 1, without the header.
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
            raise ValueError(f"{path}: no column {column!r}; found: {', '.join(map(str, columns))}")
    texts = ["text", "text_pair"] if "text_pair" in columns else ["text"]
    for number, record in enumerate(records, 1):
        for column in texts:
            value = record.get(column)
            if not isinstance(value, str) or not value.strip():
                reason = "empty" if _missing(value) else f"{value!r} is not text"
                raise ValueError(f"{path}, row {number}, column {column!r}: {reason}")
        if _missing(record.get("label")):
            raise ValueError(f"{path}, row {number}, column 'label': missing")
    labels, numbers = _numbered([record["label"] for record in records])
    if len(set(labels)) == 1:
        raise ValueError(f"{path}: one class only, {records[0]['label']!r}, in all {len(records)} rows")
    frame = as_frame(
        (record["text"].strip(), record["text_pair"].strip() if len(texts) == 2 else None, label)
        for record, label in zip(records, labels, strict=True)
    )
    return frame, {"labels": numbers, "ignored_columns": [c for c in columns if c not in (*texts, "label")]}


def _missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _numbered(values: list[Any]) -> tuple[list[int], dict[str, int]]:
    """Keep whole numbers as they are; number anything else 0..C-1 in the sorted order of its text."""
    try:
        numbers = [float(value) for value in values if not isinstance(value, bool)]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) == len(values) and all(number.is_integer() for number in numbers):
        return [int(number) for number in numbers], {}
    names = [str(value).strip() for value in values]
    mapping = {name: number for number, name in enumerate(sorted(set(names)))}
    return [mapping[name] for name in names], mapping


def _read_csv(path: Path) -> Records:
    return _table(path, delimiter=",", quoting=csv.QUOTE_MINIMAL)


def _read_tsv(path: Path) -> Records:
    records = _table(path, delimiter="\t", quoting=csv.QUOTE_NONE)
    return [{column: undouble(value) for column, value in record.items()} for record in records]


def _table(path: Path, *, delimiter: str, quoting: Any) -> Records:
    # Not pandas: with one comma too many in every row, it would silently shift the columns.
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            lines = [row for row in csv.reader(handle, delimiter=delimiter, quoting=quoting, strict=True) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as {path.suffix[1:].upper()} ({error})") from error
    header = lines[0] if lines else []
    for number, row in enumerate(lines[1:], 1):
        if len(row) != len(header):
            raise ValueError(f"{path}, row {number}: {len(row)} fields, but the header has {len(header)}")
    return [dict(zip(header, row, strict=True)) for row in lines[1:]]


def _read_jsonl(path: Path) -> Records:
    records = []
    # Split at newlines only: a text may hold Unicode line separators.
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line.strip():
            try:
                records.append(dict(json.loads(line.decode("utf-8-sig"))))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: not a JSON object ({error})") from error
    return records


def _read_parquet(path: Path) -> Records:
    try:
        return pd.read_parquet(path).to_dict("records")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable as Parquet ({error})") from error


_READERS = {".csv": _read_csv, ".tsv": _read_tsv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
