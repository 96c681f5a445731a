"""Your own corpus: a CSV, TSV, JSONL or Parquet file or a frame, its columns found by name and checked row by row."""

import csv
import html
import io
import lzma
import re
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow.parquet import read_metadata

from tsns_lib.corpora.labels import is_missing, meant, numbered
from tsns_lib.corpora.readers import MAX_TEXT, PACKED, json_object, raw_lines, undouble

Records = list[dict[Any, Any]]

MOST_ROWS = 100_000  # of a Parquet file that has fewer bytes (our choice)
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_own(
    given: Path | pd.DataFrame, *, label: str | None = None, labels: Mapping[Any, Any] | None = None, **columns: Any
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read your own corpus with its labels; the arguments are those of `tsns_lib.load_source`.

    Returns the frame of a source, and what `read_texts` found; `labels` maps each text label to its number in sorted
    order, and is empty where labels are whole numbers.
    """
    label = label or "label"
    frame, facts = read_texts(given, label=label, **columns)
    place = f"{facts['path']}, row {{}}, column {label!r}"
    classes, numbers = numbered(frame["label"], place)
    if labels is not None:
        frame["label"] = meant(classes, numbers, labels, f"{facts['path']}, column {label!r}")
        used = frame["label"].notna()
        if not used.all():
            facts["skipped"]["class left out"] = int((~used).sum())
        frame = frame[used]
        classes, numbers = numbered(frame["label"], place)
    if not classes:
        raise ValueError(f"{facts['path']}: labels= leaves out every class, and no row is left")
    if len(set(classes)) == 1:
        raise ValueError(f"{facts['path']}: one class only, {frame['label'].iloc[0]!r}, in all {len(frame)} rows")
    frame = frame.assign(label=classes).astype({"label": "int64"}).reset_index(drop=True)
    return frame, facts | {"labels": numbers}


def read_texts(
    given: Path | pd.DataFrame,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    unescape: bool = False,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read the texts of your own corpus, and its labels as they are if their column is named.

    The ending decides: `.csv` (quoted as usual; separated by what cuts the header into most columns), `.tsv` (a
    quotation mark never joins lines), `.jsonl` or `.parquet`; all but the last in UTF-8, packed or not. The index of
    the frame counts the rows from 1, without the header and without empty lines, as errors do. A row without a text or
    a label is left out, and a warning says so; anything else that is wrong is an error. Also returns what was found:
    `path`, `rows_read`, `skipped`, `repaired` and `ignored_columns`.
    """
    place = "frame" if isinstance(given, pd.DataFrame) else str(given)
    names = {"text": text or "text", "text_pair": text_pair or "text_pair"} | ({"label": label} if label else {})
    if len(set(names.values())) < len(names):
        raise ValueError(f"{place}: one column cannot be two of {', '.join(names)}")
    records = _records(given, place, names.values())
    # All rows, not only the first: in JSONL some of them may lack a column.
    columns = list(dict.fromkeys(column for record in records for column in record))
    if not text_pair and "text_pair" not in columns:
        del names["text_pair"]
    for ours, theirs in names.items():
        if theirs not in columns:
            found = f"no column {theirs!r}; found: {', '.join(map(str, columns)):.200}"
            raise ValueError(f"{place}: {found}; name yours with {ours}=")
    rows: dict[int, dict[str, Any]] = {}
    gaps: dict[str, list[int]] = {}
    repaired: Counter[str] = Counter()
    for number, record in enumerate(records, 1):
        row: dict[str, Any] = {ours: record.get(theirs) for ours, theirs in names.items()}
        if empty := [ours for ours, value in row.items() if is_missing(value)]:
            gaps.setdefault("missing label" if empty == ["label"] else "empty text", []).append(number)
            continue
        for ours in ("text", "text_pair")[: len(row) - bool(label)]:
            if reason := _unusable(row[ours]):
                raise ValueError(f"{place}, row {number}, column {names[ours]!r}: {reason}")
            plain = unescaped(row[ours]) if unescape else row[ours]
            repaired["HTML entities"] += plain != row[ours]
            row[ours] = plain.strip()
        rows[number] = row
    said = ", ".join(f"{reason} in {len(gap)} (first: row {gap[0]})" for reason, gap in gaps.items())
    if not rows:
        raise ValueError(f"{place}: none of the {len(records)} rows can be used: {said}")
    if said:
        warnings.warn(f"{place}: {len(records) - len(rows)} of {len(records)} rows are not used: {said}", stacklevel=5)
    facts = {
        "path": place,
        "rows_read": len(records),
        "skipped": {reason: len(gap) for reason, gap in gaps.items()},
        "repaired": dict(+repaired),
        "ignored_columns": [column for column in columns if column not in names.values()],
    }
    kept = ["text", "text_pair", "label"][: 3 if label else 2]
    table = [[row.get(ours) for ours in kept] for row in rows.values()]
    return pd.DataFrame(table, list(rows), kept, dtype=object), facts


def headings(path: Path) -> list[Any]:
    """The columns of a file, of all its rows together: in JSONL some of them may lack a column."""
    return list(dict.fromkeys(column for record in _records(path, str(path), ()) for column in record))


def unescaped(text: str) -> str:
    """The text with its HTML entities as characters; one with an entity of thousands of digits stays as it is."""
    try:
        return html.unescape(text)
    except ValueError:
        return text


def _unusable(text: Any) -> str | None:
    """Why this is no text, or None."""
    if not isinstance(text, str):
        return f"{text!r:.60} is not text"
    if len(text) > MAX_TEXT:
        return f"{len(text):,} characters, at most {MAX_TEXT:,} are read"
    return "not valid Unicode (a lone surrogate)" if _SURROGATE.search(text) else None


def _named(headings: Iterable[Any], wanted: Iterable[str]) -> list[Any]:
    """The headings, those that are wanted as they were asked for; a ValueError if one stands twice."""
    asked = {name.strip().lower(): name for name in wanted}
    names = [
        asked.get(heading.strip().lower(), heading) if isinstance(heading, str) else heading for heading in headings
    ]
    twice = [name for name, count in Counter(names).items() if count > 1 and name != ""]
    if twice:
        raise ValueError(f"the column {twice[0]!r} stands twice")
    return names


def _records(given: Path | pd.DataFrame, place: str, wanted: Iterable[str]) -> Records:
    """The rows as they are, the columns that are wanted under the names that were asked for."""
    if isinstance(given, pd.DataFrame):
        try:
            records = given.set_axis(_named(given.columns, wanted), axis=1).to_dict("records")
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
    elif not given.is_file():
        raise FileNotFoundError(f"{given}: no such file")
    else:
        packed = given.suffix.lower() in PACKED
        ending = (Path(given.stem) if packed else given).suffix.lower()
        read = None if packed and ending == ".parquet" else READERS.get(ending)
        if read is None:
            raise ValueError(f"{given}: ending {given.suffix!r} is not one of {', '.join(READERS)}")
        try:
            records = read(given, wanted)
        except (EOFError, OSError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
            raise ValueError(f"{given}: cannot be read to its end ({error})") from error
    if not records:
        raise ValueError(f"{place}: no rows")
    return records


def _read_csv(path: Path, wanted: Iterable[str] = ()) -> Records:
    header = next(_pieces(path), "")
    mark = max(",;\t|", key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))
    return _table(path, wanted, "CSV", delimiter=mark, quoting=csv.QUOTE_MINIMAL)


def _read_tsv(path: Path, wanted: Iterable[str] = ()) -> Records:
    records = _table(path, wanted, "TSV", delimiter="\t", quoting=csv.QUOTE_NONE)
    return [{column: undouble(value) for column, value in record.items()} for record in records]


def _table(path: Path, wanted: Iterable[str], kind: str, *, delimiter: str, quoting: Any) -> Records:
    # Not pandas: with one comma too many in every row, it would silently shift the columns.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_TEXT))  # one limit for the whole process: never lowered
    lines: list[list[str]] = []
    try:
        lines.extend(filter(None, csv.reader(_pieces(path), delimiter=delimiter, quoting=quoting, strict=True)))
    except csv.Error as error:
        place = f"row {len(lines)}" if lines else "header"
        raise ValueError(f"{path}, {place}: not readable as {kind} ({error})") from error
    try:
        header = _named(lines[0], wanted) if lines else []
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


def _read_jsonl(path: Path, wanted: Iterable[str] = ()) -> Records:
    records = []
    # Split at newlines only: a text may hold Unicode line separators.
    for number, line in raw_lines(path):
        if line.strip():
            row = json_object(line, f"{path}, line {number}")
            try:
                records.append(dict(zip(_named(row, wanted), row.values(), strict=True)))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    return records


def _read_parquet(path: Path, wanted: Iterable[str] = ()) -> Records:
    try:
        n_rows, n_bytes = read_metadata(path).num_rows, path.stat().st_size
        if n_rows > max(n_bytes, MOST_ROWS):
            raise ValueError(f"{n_rows:,} rows in {n_bytes:,} bytes, more than one row a byte")
        frame = pd.read_parquet(path)
        frame.columns = _named(frame.columns, wanted)
    # A damaged file may raise any of these, from pandas or from pyarrow.
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path}: not readable as Parquet ({reason})") from error
    return frame.to_dict("records")


READERS = {".csv": _read_csv, ".tsv": _read_tsv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
