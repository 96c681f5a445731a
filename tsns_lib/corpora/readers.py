"""Readers of the official file formats of Table 1, which handle and count the traps of the real files.

A reader turns one file, folder or archive into rows of `text, text_pair, label`. Labels are the workbook's: positive,
entailment, paraphrase and duplicate are 1; negative, neutral, not_entailment and not_duplicate are 0; contradiction is
left out. Whatever is skipped or repaired on the way is counted.
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
NLI_LABELS: dict[str, int | str] = {"entailment": 1, "neutral": 0}
NLI_LABELS |= {"contradiction": "contradiction", "-": "no gold label"}  # skipped, and why
# Control characters (tab and newline are text), Unicode line separators, and bytes that were not UTF-8.
_UNREADABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufffd]")
_LINE_BREAK = re.compile(r"<br\s*/?>")
_REVIEW_TEXT = re.compile(r"<review_text>(.*?)</review_text>", re.DOTALL)


class Reading(NamedTuple):
    """What a reader returns: the usable rows in file order, and the counts of the others."""

    frame: pd.DataFrame  # columns text (str), text_pair (str or None), label (int)
    skipped: dict[str, int]  # reason -> number of rows left out
    rows_read: int  # rows in the file without its header: len(frame) plus all that were skipped
    repaired: dict[str, int]  # repair -> number of rows in frame whose text it changed


def collect(rows: Iterable[Row], *, doubled_quotes: bool = False) -> Reading:
    """Gather rows into a frame, repair their texts, and count what was skipped or changed.

    With `doubled_quotes`, the CSV quoting of each field is undone.

    Examples
    --------
    >>> reading = collect([("Good.<br />Really.", None, 1), ("Bad.", None, "no gold label"), (" ", None, 0)])
    >>> reading.frame["text"].tolist(), reading.skipped, reading.rows_read, reading.repaired
    (['Good. Really.'], {'no gold label': 1, 'empty text': 1}, 3, {'line breaks': 1})
    """
    usable: list[tuple[str, str | None, int]] = []
    skipped: Counter[str] = Counter()
    repaired: Counter[str] = Counter()
    for text, text_pair, label in rows:
        if isinstance(label, str):
            skipped[label] += 1
            continue
        repairs: set[str] = set()
        text = _repair(text, doubled_quotes, repairs)
        text_pair = None if text_pair is None else _repair(text_pair, doubled_quotes, repairs)
        if not text or text_pair == "":
            skipped["empty text"] += 1
            continue
        repaired.update(repairs)
        usable.append((text, text_pair, label))
    return Reading(as_frame(usable), dict(skipped), len(usable) + skipped.total(), dict(sorted(repaired.items())))


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


def _repair(text: str, doubled_quotes: bool, repairs: set[str]) -> str:
    """Clean one text, and add the names of the repairs that it needed to `repairs`."""
    unquoted = undouble(text) if doubled_quotes else text
    needed = {
        "doubled quotes": unquoted != text,
        "line breaks": _LINE_BREAK.search(text),
        "unreadable characters": _UNREADABLE.search(text),
    }
    repairs.update(name for name, evidence in needed.items() if evidence)
    return _UNREADABLE.sub(" ", _LINE_BREAK.sub(" ", unquoted)).strip()


def read_amazon(path: Path, domain: str) -> Reading:
    """Read one domain of the Amazon reviews from the folder `sorted_data_acl` or the archive that holds it.

    `domain` is a folder name, such as `"books"`, with `negative.review` and `positive.review` of 1,000 reviews each.
    The files are pseudo-XML that no XML parser accepts, so reviews are cut out at their tags.
    """
    reviews = _members(path, rf"(?:^|/){re.escape(domain)}/(negative|positive)\.review$")
    if len(reviews) != 2:
        raise FileNotFoundError(f"{path}: needs {domain}/negative.review and {domain}/positive.review")

    def rows() -> Iterator[Row]:
        for match, content in sorted(reviews, key=lambda member: member[0][1]):
            # A byte that is not UTF-8 is replaced here, and counted as unreadable later.
            for review in content.decode("utf-8", errors="replace").split("<review>")[1:]:
                body = _REVIEW_TEXT.search(review)
                yield (body[1], None, int(match[1] == "positive")) if body else ("", None, MALFORMED)

    return collect(rows())


def read_imdb(path: Path) -> Reading:
    """Read the 25,000 training reviews of IMDB from `aclImdb_v1.tar.gz` or its unpacked folder `aclImdb`."""
    reviews = _members(path, r"(?:^|/)train/(neg|pos)/(\d+)_\d+\.txt$")
    if not reviews:
        raise FileNotFoundError(f"{path}: holds no train/pos/*.txt or train/neg/*.txt")
    reviews.sort(key=lambda member: (member[0][1], int(member[0][2])))
    return collect((_decode(content, f"{path}/{m[0]}"), None, int(m[1] == "pos")) for m, content in reviews)


def read_sst(path: Path) -> Reading:
    """Read `stsa.binary.*`: in each line the label, a space and a tokenised sentence."""

    def rows() -> Iterator[Row]:
        for line in _lines(path):
            label, _, text = line.partition(" ")
            yield text, None, int(label) if label in ("0", "1") else MALFORMED

    return collect(rows())


def read_scitail(path: Path) -> Reading:
    """Read SciTail 1.1 in `tsv_format`: premise, hypothesis, "entails" or "neutral", without a header.

    A CSV reader loses 499 training rows here: some quotation marks are CSV-doubled, some unbalanced.
    """
    return collect(_fields(path, None, (0, 1, 2), {"entails": 1, "neutral": 0}), doubled_quotes=True)


def read_nli(path: Path) -> Reading:
    """Read SNLI 1.0 or MNLI 1.0 in `.jsonl`; a line without gold_label, sentence1 and sentence2 is an error."""

    def rows() -> Iterator[Row]:
        for number, line in enumerate(_lines(path), 1):
            try:
                row = json.loads(line)
                yield row["sentence1"], row["sentence2"], NLI_LABELS.get(row["gold_label"], MALFORMED)
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: not an SNLI/MNLI row ({error!r})") from error

    return collect(rows())


def read_rte(path: Path) -> Reading:
    """Read GLUE `RTE/*.tsv`, where quotation marks are plain text."""
    labels = {"entailment": 1, "not_entailment": 0}
    return collect(_fields(path, "index\tsentence1\tsentence2\tlabel", (1, 2, 3), labels))


def read_qqp(path: Path) -> Reading:
    """Read GLUE `QQP/*.tsv`, with CSV-doubled quotes inside fields; a row that lacks a field is skipped."""
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
    return collect(_fields(path, header, (3, 4, 5), {"1": 1, "0": 0}), doubled_quotes=True)


def read_mrpc(path: Path) -> Reading:
    """Read `msr_paraphrase_*.txt`, with a byte-order mark and unbalanced quotation marks as plain text."""
    return collect(_fields(path, "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", (3, 4, 0), {"1": 1, "0": 0}))


def _fields(path: Path, header: str | None, columns: tuple[int, int, int], labels: dict[str, int]) -> Iterator[Row]:
    """Yield the rows of a tab-separated file line by line, without quoting, so that no quotation mark joins rows.

    `columns` are the positions of text, text_pair and label.
    """
    lines = _lines(path)
    if header is not None:
        first = next(lines, "")
        if first != header:
            raise ValueError(f"{path}, line 1: header is {first!r}, expected {header!r}")
    width = header.count("\t") + 1 if header else len(columns)
    text, text_pair, label = columns
    for line in lines:
        fields = line.split("\t")
        well_formed = len(fields) == width and fields[label] in labels
        yield (fields[text], fields[text_pair], labels[fields[label]]) if well_formed else ("", None, MALFORMED)


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
    """Return the match and the content of each file in a folder or tar archive whose path matches the pattern."""
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
