"""What a reader returns: usable rows, and a count of everything that was skipped or repaired on the way.

The official file formats of Table 1, one small reader each, with their traps handled and counted.

A reader turns one file (or folder, or archive) into rows of `text, text_pair, label` in the label spaces of
the workbook: positive = 1; entailment, paraphrase, duplicate = 1; neutral, not_entailment = 0; contradiction
left out.
"""

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
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


NLI_LABELS: dict[str, int | str] = {
    "entailment": 1,
    "neutral": 0,
    "contradiction": "contradiction",
    "-": "no gold label",
}
_REVIEW_TEXT = re.compile(r"<review_text>(.*?)</review_text>", re.DOTALL)


def read_amazon(path: Path, domain: str) -> Reading:
    """Read one domain of the Amazon reviews: `<domain>/{negative,positive}.review`, 1,000 reviews each.

    The files are pseudo-XML that no XML parser takes, so bodies are cut out by their tags; the name of the
    file is the label.

    Parameters
    ----------
    path : Path
        The folder `sorted_data_acl`, or the archive that holds it.
    domain : str
        Folder of the domain, e.g. `"books"` or `"kitchen_&_housewares"`.

    Raises
    ------
    FileNotFoundError
        If either of the two files is missing.
    """
    files = _members(path, rf"(?:^|/){re.escape(domain)}/(negative|positive)\.review$")
    if len(files) != 2:
        raise FileNotFoundError(f"{path}: needs {domain}/negative.review and {domain}/positive.review")

    def rows() -> Iterator[Row]:
        for match, content in sorted(files, key=lambda file: file[0][1]):
            # A byte that is not UTF-8 is replaced here, and counted as unreadable later.
            for review in content.decode("utf-8", errors="replace").split("<review>")[1:]:
                body = _REVIEW_TEXT.search(review)
                yield (body[1], None, int(match[1] == "positive")) if body else ("", None, MALFORMED)

    return collect(rows())


def read_imdb(path: Path) -> Reading:
    """Read the 25,000 training reviews of IMDB from `aclImdb_v1.tar.gz` or its unpacked folder `aclImdb`.

    Raises
    ------
    FileNotFoundError
        If there is no `train/{pos,neg}/*.txt`.
    """
    files = _members(path, r"(?:^|/)train/(neg|pos)/(\d+)_\d+\.txt$")
    if not files:
        raise FileNotFoundError(f"{path}: holds no train/pos/*.txt or train/neg/*.txt")
    files.sort(key=lambda file: (file[0][1], int(file[0][2])))
    return collect((_decode(text, f"{path}/{m[0]}"), None, int(m[1] == "pos")) for m, text in files)


def read_sst(path: Path) -> Reading:
    """Read `stsa.binary.*`: one line a sentence, the label, a space, the tokenised text."""

    def rows() -> Iterator[Row]:
        for line in _lines(path):
            label, _, text = line.partition(" ")
            yield text, None, int(label) if label in ("0", "1") else MALFORMED

    return collect(rows())


def read_scitail(path: Path) -> Reading:
    """Read SciTail 1.1 `tsv_format`: premise, hypothesis, entails or neutral; no header.

    A CSV reader loses 499 training rows here: some quotation marks are CSV-doubled, some unbalanced.
    """
    labels = {"entails": 1, "neutral": 0}
    return collect(_fields(path, None, (0, 1, 2), labels), doubled_quotes=True)


def read_nli(path: Path) -> Reading:
    """Read SNLI 1.0 or MNLI 1.0 `.jsonl`: gold_label, sentence1, sentence2.

    Raises
    ------
    ValueError
        If a line is not a JSON object with these keys; the message names file and line.
    """

    def rows() -> Iterator[Row]:
        for number, line in enumerate(_lines(path), 1):
            try:
                row = json.loads(line)
                yield row["sentence1"], row["sentence2"], NLI_LABELS.get(row["gold_label"], MALFORMED)
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: not an SNLI/MNLI row ({error!r})") from error

    return collect(rows())


def read_rte(path: Path) -> Reading:
    """Read GLUE `RTE/*.tsv`: quotation marks are plain text (quoting off)."""
    labels = {"entailment": 1, "not_entailment": 0}
    return collect(_fields(path, "index\tsentence1\tsentence2\tlabel", (1, 2, 3), labels))


def read_qqp(path: Path) -> Reading:
    """Read GLUE `QQP/*.tsv`: CSV-doubled quotes inside fields; a row that lacks a field is skipped."""
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
    return collect(_fields(path, header, (3, 4, 5), {"1": 1, "0": 0}), doubled_quotes=True)


def read_mrpc(path: Path) -> Reading:
    """Read `msr_paraphrase_*.txt`: a byte-order mark, and unbalanced quotation marks (quoting off)."""
    return collect(_fields(path, "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", (3, 4, 0), {"1": 1, "0": 0}))


def _fields(path: Path, header: str | None, columns: tuple[int, int, int], labels: dict[str, int]) -> Iterator[Row]:
    """Rows of a tab-separated file, line by line and without quoting, so that no mark can swallow a row."""
    lines = _lines(path)
    if header is not None and (first := next(lines, "")) != header:
        raise ValueError(f"{path}, line 1: header is {first!r}, expected {header!r}")
    width = header.count("\t") + 1 if header else len(columns)
    text, text_pair, label = columns
    for fields in (line.split("\t") for line in lines):
        known = len(fields) == width and fields[label] in labels
        yield (fields[text], fields[text_pair], labels[fields[label]]) if known else ("", None, MALFORMED)


def _lines(path: Path) -> Iterator[str]:
    # Split at newlines only: str.splitlines would also cut at the stray control characters inside the texts.
    lines = _decode(path.read_bytes(), str(path)).split("\n")
    yield from (line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines))


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not UTF-8 at byte {error.start}") from error


def _members(path: Path, pattern: str) -> list[tuple[re.Match[str], bytes]]:
    """Files of a folder or of a tar archive whose path matches."""
    wanted = re.compile(pattern)
    if path.is_dir():
        files = ((wanted.search(p.relative_to(path).as_posix()), p) for p in sorted(path.rglob("*.*")))
        return [(match, p.read_bytes()) for match, p in files if match]
    try:
        with tarfile.open(path) as archive:
            inside = ((wanted.search(m.name), archive.extractfile(m)) for m in archive if m.isfile())
            return [(match, member.read()) for match, member in inside if match and member]
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a whole tar archive ({error})") from error
