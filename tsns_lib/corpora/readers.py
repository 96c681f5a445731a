"""Readers of the official file formats of Table 1, which handle and count the traps of the real files.

A reader turns one file, folder or archive into rows of `text, text_pair, label`. Labels are the workbook's: positive,
entailment, paraphrase and duplicate are 1; negative, neutral, not_entailment and not_duplicate are 0; contradiction is
left out. Whatever is skipped or repaired on the way is counted.
"""

import gzip
import io
import json
import lzma
import math
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import pandas as pd

Row = tuple[str, str | None, int | str]  # text, text_pair, label; a str as label says why to skip the row

MAX_TEXT = 16_000_000  # characters of a text and bytes of a line: no text is longer, a damaged file may be
MAX_MEMBER = 100_000_000  # bytes of a file in an archive; the official ones have 2 MB at most
CHUNK = 1 << 20  # bytes that are read at once
BOMB = "unpacks to more than 100 times its size"
MALFORMED = "malformed row"
NO_TEXT = "missing text"
NLI_LABELS: dict[str, int | str] = {"entailment": 1, "neutral": 0}
NLI_LABELS |= {"contradiction": "contradiction", "-": "no gold label"}  # skipped, and why
# Control characters (tab and newline are text), Unicode line separators, bytes that were not UTF-8, lone surrogates.
_UNREADABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufffd\ud800-\udfff]")
_LINE_BREAK = re.compile(r"<br\s*/?>")


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
        if max(len(text), len(text_pair or "")) > MAX_TEXT:
            skipped[f"text of more than {MAX_TEXT:,} characters"] += 1
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


def row_of(label: int | str, *texts: Any) -> Row:
    """A row of one text or two; one that lacks a text (a null in its file) is to be skipped."""
    if not isinstance(label, str) and not all(isinstance(text, str) for text in texts):
        label = NO_TEXT
    return texts[0], texts[1] if len(texts) == 2 else None, label


def as_frame(rows: Iterable[tuple[str, str | None, int]]) -> pd.DataFrame:
    """Build the frame that every source holds: `text`, `text_pair`, `label`; plain strings and None."""
    frame = pd.DataFrame(list(rows), columns=["text", "text_pair", "label"], dtype=object)
    return frame.astype({"label": "int64"})


def undouble(field: str) -> str:
    """Undo the CSV quoting of one field; an unbalanced quotation mark stays as it is.

    Examples
    --------
    >>> undouble('"Is ""slow"" good?"'), undouble('"To be'), undouble('said "no"'), undouble('""')
    ('Is "slow" good?', '"To be', 'said "no"', '')
    """
    wrapped = field == '""' or (len(field) > 2 and field[0] == field[-1] == '"' and '""' in field[1:-1])
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
    reviews, unread = _members(path, rf"(?:^|/){re.escape(domain)}/(negative|positive)\.review$")
    if len(reviews) != 2:
        raise FileNotFoundError(f"{path}: needs {domain}/negative.review and {domain}/positive.review")

    def rows() -> Iterator[Row]:
        for match, content in sorted(reviews, key=lambda member: member[0][1]):
            # A byte that is not UTF-8 is replaced here, and counted as unreadable later.
            for review in content.decode("utf-8", errors="replace").split("<review>")[1:]:
                # Not a pattern: on many tags that are never closed, it would take the square of their number.
                _, opened, rest = review.partition("<review_text>")
                body, closed, _ = rest.partition("</review_text>")
                yield (body, None, int(match[1] == "positive")) if opened and closed else ("", None, MALFORMED)

    return collect(chain(rows(), unread))


def read_imdb(path: Path) -> Reading:
    """Read the 25,000 training reviews of IMDB from `aclImdb_v1.tar.gz` or its unpacked folder `aclImdb`."""
    reviews, unread = _members(path, r"(?:^|/)train/(neg|pos)/(\d+)_\d+\.txt$")
    if not reviews:
        raise FileNotFoundError(f"{path}: holds no train/pos/*.txt or train/neg/*.txt")
    reviews.sort(key=lambda member: (member[0][1], int(member[0][2])))
    rows = ((_decode(content, f"{path}/{m[0]}"), None, int(m[1] == "pos")) for m, content in reviews)
    return collect(chain(rows, unread))


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
    """Read SNLI or MNLI 1.0 in `.jsonl`, but for empty lines; one without gold label and sentences is an error."""

    def rows() -> Iterator[Row]:
        for number, line in enumerate(_lines(path), 1):
            if not line.strip():
                continue
            row = json_object(line, f"{path}, line {number}", "an SNLI/MNLI row")
            try:
                label = NLI_LABELS.get(row["gold_label"], MALFORMED)
                text, text_pair, label = row_of(label, row["sentence1"], row["sentence2"])
                if label == NO_TEXT:
                    raise ValueError(NO_TEXT)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: not an SNLI/MNLI row ({error!r})") from error
            yield text, text_pair, label

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
            raise ValueError(f"{path}, line 1: header is {first!r:.200}, expected {header!r}")
    width = header.count("\t") + 1 if header else len(columns)
    text, text_pair, label = columns
    for line in lines:
        fields = line.split("\t")
        well_formed = len(fields) == width and fields[label] in labels
        yield (fields[text], fields[text_pair], labels[fields[label]]) if well_formed else ("", None, MALFORMED)


def _lines(path: Path) -> Iterator[str]:
    yield from (line.removesuffix("\n").removesuffix("\r") for _, line in raw_lines(path))


def json_object(line: str, place: str, what: str = "a JSON object") -> dict[str, Any]:
    """The object of a line of JSON; what is none, or has a key twice, is a ValueError: `place` is not `what`."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
            raise ValueError(f"the column {twice[0]!r} stands twice")
        return dict(pairs)

    try:
        row = json.loads(line.removeprefix("\ufeff"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: not {what} ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"{place}: not {what}")
    return row


def raw_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number every line from 1, and decode it with its end; a bad byte or an endless line is named by its number.

    Lines end at newlines only: `str.splitlines` would also cut at the stray control characters inside the texts.
    """
    packed = path.suffix.lower() in PACKED
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: is {'a folder' if path.is_dir() else 'a pipe or device'}, and a file is needed")
    with PACKED.get(path.suffix.lower(), open)(path, "rb") as file:
        number, left = 0, _most_unpacked(path) if packed else math.inf
        while line := file.readline(MAX_TEXT + 1):
            number += 1
            if len(line) > MAX_TEXT:
                raise ValueError(f"{path}, line {number}: longer than {MAX_TEXT:,} bytes")
            if (left := left - len(line)) < 0:
                raise ValueError(f"{path}, line {number}: {BOMB}")
            yield number, _decode(line, f"{path}, line {number}", "utf-8-sig" if number == 1 else "utf-8")


class _Streams(io.RawIOBase):
    """The streams of an .xz file, one after the other; `lzma.open` takes a damaged one for the end of the file."""

    def __init__(self, path: Path) -> None:
        self._file, self._stream = path.open("rb"), lzma.LZMADecompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        while not data:
            more = b""
            if self._stream.eof:
                more = self._stream.unused_data.lstrip(b"\0")  # zeros may stand between streams
                while not more:
                    if not (block := self._file.read(io.DEFAULT_BUFFER_SIZE)):
                        return 0
                    more = block.lstrip(b"\0")
                self._stream = lzma.LZMADecompressor()
            elif self._stream.needs_input and not (more := self._file.read(io.DEFAULT_BUFFER_SIZE)):
                raise EOFError("ends within a stream")
            data = self._stream.decompress(more, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _whole_xz(path: Path, _: str) -> IO[bytes]:
    return io.BufferedReader(_Streams(path))


def _only_member(path: Path, _: str) -> IO[bytes]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if len(names) != 1:
            raise ValueError(f"{path}: holds {len(names)} files; it must be one")
        return archive.open(names[0])


# how a packed file is opened, by its ending
PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": _whole_xz, ".zip": _only_member}


def _decode(content: bytes, name: str, encoding: str = "utf-8-sig") -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not UTF-8 at byte {error.start}") from error


def _members(path: Path, pattern: str) -> tuple[list[tuple[re.Match[str], bytes]], list[Row]]:
    """Return the match and the content of each file in a folder or tar archive whose path matches the pattern.

    What matches in an archive and is a link or no file, or lies outside of it, is not read; it is a row to be skipped.
    """
    wanted = re.compile(pattern)
    read: list[tuple[re.Match[str], bytes]] = []
    unread: list[Row] = []
    if path.is_dir():
        for file in sorted(path.rglob("*.*")):
            if match := wanted.search(file.relative_to(path).as_posix()):
                _check_size(file, file.stat().st_size)
                read.append((match, file.read_bytes()))
        return read, unread
    try:
        with tarfile.open(path) as archive:
            left = _most_unpacked(path)
            for member in archive:
                place = PurePosixPath(member.name)
                if match := wanted.search(member.name):
                    _check_size(path / place, member.size)
                    outside = place.is_absolute() or ".." in place.parts
                    content = archive.extractfile(member) if member.isfile() and not outside else None
                    if content:
                        read.append((match, content.read()))
                    else:
                        unread.append(("", None, "link or outside path in the archive"))
                if (left := left - member.size) < 0:  # what is not read has to be unpacked too
                    break
            # the checksum of a compressed archive is its last word, and is compared when it is reached
            while left >= 0 and archive.fileobj is not None and (rest := archive.fileobj.read(CHUNK)):
                left -= len(rest)
            if isinstance(archive.fileobj, io.BufferedReader) and left >= 0:  # not compressed: there is no checksum
                archive.fileobj.seek(archive.offset)
                if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("the mark of its end is missing")
        if left < 0:
            raise ValueError(f"{path}: {BOMB}")
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path}: not a whole tar archive ({error})") from error
    return read, unread


def _most_unpacked(path: Path) -> int:
    return max(MAX_MEMBER, 100 * path.stat().st_size)  # text is packed to a third; a bomb to a thousandth


def _check_size(file: Path, size: int) -> None:
    if size > MAX_MEMBER:
        raise ValueError(f"{file}: {size:,} bytes, at most {MAX_MEMBER:,} are read")
