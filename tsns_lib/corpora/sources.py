"""A corpus by name, by path or from the hub as one plain value, and the list of the corpora that have a name."""

import difflib
import hashlib
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tsns_lib.corpora import miniature
from tsns_lib.corpora.hub import read_copies, read_hub
from tsns_lib.corpora.labels import is_missing, listed
from tsns_lib.corpora.own import read_own
from tsns_lib.corpora.readers import Reading
from tsns_lib.corpora.registry import REGISTRY, SPLITS, Corpus
from tsns_lib.validation import path, shown, truth, whole_number

_IS_NUMBER = re.compile("-?[0-9]+")


@dataclass(frozen=True)
class Source:
    """One split of one corpus.

    Attributes
    ----------
    name : str
        `"books"`, `"miniature:books"`, `"hub:books"`; of your own file its folder and its name, `"shop/train.csv"`; or
        the name that you gave.
    task : str
        `"sentiment"`, `"nli"`, `"similarity"` or `"own"`.
    split : str
        `"train"`, `"dev"` or `"test"`.
    frame : DataFrame
        Columns `text` (str), `text_pair` (str or None), `label` (int); rows numbered from 0.
    origin : dict
        `kind` (`"files"`, `"hub"`, `"miniature"`, `"own"`); `corpus`, which is the same for all rows that one corpus
        has, whatever its source is called; `path`, with the `sha256` of your own file, or `repository` and `commit`;
        `rows_read`, `rows_kept` and `skipped` ({reason: count}), which add up (before any limit); `repaired`
        ({repair: rows}); `repeated_rows`; `official_rows` and `paper_rows` (None where there is no such
        figure); `limit` where one was asked for.
    classes : tuple of str
        Names of the labels, in ascending order of the label numbers. Position i names label i in every corpus of Table
        1 and in own files with text labels, which are numbered 0 to C-1 in sorted order. Whole-number labels of an own
        file keep their numbers and are named by their decimal text: labels 2 and 5 give `("2", "5")`, where position
        0 names label 2.
    """

    name: str
    task: str
    split: str
    frame: pd.DataFrame
    origin: dict[str, Any]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for column in ("text", "text_pair", "label"):
            if column not in self.frame:
                raise ValueError(f"frame: lacks the column {column!r}")
        if not isinstance(self.name, str) or self.name.endswith("\0"):  # which numpy drops
            raise ValueError(f"name: must be text, got {self.name!r:.60}")

    @property
    def n_rows(self) -> int:
        """Number of rows in `frame`, after any limit."""
        return len(self.frame)

    @property
    def is_pair(self) -> bool:
        """Whether rows are pairs of texts."""
        return bool(self.frame["text_pair"].notna().all())

    @property
    def generated(self) -> bool:
        """Whether the corpus is built in and generated, not real."""
        return self.origin["kind"] == "miniature"

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each class in `frame["label"]`, by its name."""
        if self.task == "own" and not self.origin.get("labels") and all(map(_IS_NUMBER.fullmatch, self.classes)):
            return {name: int(name) for name in self.classes}
        return {name: number for number, name in enumerate(self.classes)}

    def labels_of(self, other: "Source") -> NDArray[np.int64]:
        """Labels of another source, in the numbers of this one: classes meet by name, whatever their numbers are there.

        Numbers that nobody named are those of Table 1 (1 is positive, or a match), and so are those of its corpora with
        other tasks, with a warning. What does not fit is a ValueError; classes of this source alone are a warning.
        """
        if not isinstance(other, Source):
            raise ValueError(f"labels: must be of what load_source gives, got {type(other).__name__}")
        ours, theirs = self._present(), other._present()
        numbers = {theirs[name]: ours[name] for name in theirs if name in ours}
        both = f"{self.name} has the classes {listed(ours)}, and {other.name} has {listed(theirs)}"
        if len(numbers) < len(theirs):
            sorted_by_text = self.origin.get("labels") or other.origin.get("labels")
            if sorted_by_text or not set(theirs.values()) <= set(ours.values()):
                lacking = [name for name in theirs if name not in ours]
                fault = f"names must agree, case and spelling too: {listed(lacking)} has no partner"
                raise ValueError(
                    f"labels: {both}; {fault}; load_source(..., labels={{{lacking[0]!r:.40}: ...}}) renames them"
                )
            numbers = {number: number for number in theirs.values()}
            warnings.warn(f"labels: {both}; they are compared by number", stacklevel=2)
        if rest := set(ours.values()) - set(numbers.values()):
            extra = listed(name for name in ours if ours[name] in rest)
            warnings.warn(f"labels: {both}; rows predicted as the class {extra} count as wrong", stacklevel=2)
        return np.array([numbers[label] for label in other.frame["label"].tolist()], dtype=np.int64)

    def _present(self) -> dict[str, int]:
        """The classes that occur in `frame`; a label that is none of them is a ValueError."""
        numbers = self.numbers
        known = self.frame["label"].isin(list(numbers.values())).to_numpy(dtype=bool)
        if not known.all():
            row = int(known.argmin())
            label = self.frame["label"].tolist()[row]
            raise ValueError(f"{self.name}: the label of row {row}, {label!r:.60}, is none of {listed(numbers)}")
        present = set(self.frame["label"])
        return {name: number for name, number in numbers.items() if number in present}


def load_source(
    name_or_path: Any,
    *,
    name: str | None = None,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    labels: Mapping[Any, Any] | None = None,
    unescape: bool = False,
    split: str = "train",
    data_dir: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    revision: str | None = None,
) -> Source:
    """Load one split of a corpus.

    Parameters
    ----------
    name_or_path : str, path, DataFrame or datasets.Dataset
        A corpus of Table 1 (`"books"`, `"dvd"`, `"electronics"`, `"kitchen"`, `"mr"`, `"sst"`, `"scitail"`,
        `"snli"`, `"mnli"`, `"rte"`, `"qqp"`, `"mrpc"`) in its official files; the same with `"miniature:"`
        (built in, generated) or `"hub:"` (Hugging Face hub) before it; or your own rows: a frame, or the path of a CSV
        (separated by `,`, `;`, `|` or tabs), TSV, JSONL or Parquet file in UTF-8; the first three may be packed
        (`.gz`, `.xz`, `.zip`). `~` is your home folder.
    name : str, optional
        What to call the source. Results and seeds go by it, so two corpora need two names. Default: the name of the
        corpus, the folder and name of your file, or `"frame"`.
    text, text_pair, label : str, optional
        The columns of your own rows, in any case. Default: `"text"`, `"text_pair"` if there is one, and `"label"`.
    labels : dict, optional
        What the labels of your own rows mean: a name or number for every class, None to leave its rows out. So
        `{1: "negative", 2: None, 3: "positive"}` meets the reviews of Table 1. Default: labels as they are.
    unescape : bool
        Whether to write HTML entities of your own texts as the characters that they stand for. Default: not.
    split : str, default "train"
        `"train"`, and `"dev"` and `"test"` where the corpus has them; your own rows are all `"train"`. The
        paper's targets are the whole Amazon domains (`"train"`), SciTail `"test"` and QQP `"dev"`.
    data_dir : path, optional
        Folder of the official files. Default: the environment variable `TSNS_DATA`.
    limit : int, optional
        Keep a random subset of this many rows, with the classes in proportion and the rows in their order. At least
        the number of classes; a limit above the number of rows keeps all. Default: every row, as in the paper.
    seed : int, default 0
        Seed of the subset, and of the texts of a `"miniature:"` corpus; at least 0.
    revision : str, optional
        Branch, tag or commit of a `"hub:"` corpus; in a name such as `"hub:sst@main"` it stands after `@`. Default: the
        commit that was compared with the official release. `origin["commit"]` names what was read.

    Returns
    -------
    Source
        Its `frame` has one row for each usable text or pair, and `origin` counts the rows skipped or repaired.

    Raises
    ------
    FileNotFoundError
        If there is no data folder, or the files are not in it, or there is no such path.
    ValueError
        For an unknown corpus or split, a negative seed, a limit below the number of classes, a revision of a corpus
        that is not on the hub, a corpus with fewer than two classes, or a bad row in your own file.
    ConnectionError
        If the hub does not answer and its local cache does not hold the corpus.

    Examples
    --------
    >>> source = load_source("miniature:books", limit=10)
    >>> source.name, source.task, source.n_rows, source.is_pair, source.generated
    ('miniature:books', 'sentiment', 10, False, True)
    >>> source.classes
    ('negative', 'positive')
    >>> source.origin["limit"]
    '10 of 240 rows, classes in proportion, seed 0'
    """
    given = name_or_path
    for argument, value in {"name": name, "text": text, "text_pair": text_pair, "label": label, "split": split}.items():
        if value is None and argument != "split":
            continue
        if not isinstance(value, str) or not value.strip() or value.endswith("\0"):
            raise ValueError(f"{argument}: must be text, got {value!r:.60}")
    seed = whole_number("seed", seed, least=0)
    limit = None if limit is None else whole_number("limit", limit)
    if data_dir is not None:  # whether it is read or not
        _folder(data_dir)
    unescape = truth("unescape", unescape)
    own = {"text": text, "text_pair": text_pair, "label": label, "labels": labels, "unescape": unescape}
    is_frame = isinstance(given, pd.DataFrame) or hasattr(given, "to_pandas")
    if not is_frame and not (isinstance(given, str | os.PathLike) and isinstance(os.fspath(given), str)):
        raise ValueError(f"name_or_path: must be a name, a path or a frame, got {type(given).__name__}")
    wanted = "" if is_frame else os.fspath(given)
    prefix, _, rest = wanted.partition(":")
    if revision is not None and (prefix != "hub" or "@" in rest):
        reason = "names its own" if prefix == "hub" else "is none: write 'hub:...'"
        raise ValueError(f"revision={revision!r} pins a hub corpus, and {wanted!r} {reason}")
    named = prefix in ("miniature", "hub") or (isinstance(given, str) and wanted in REGISTRY)
    if refused := [option for option, value in own.items() if named and value]:
        raise ValueError(f"{refused[0]}: is for your own rows, and {wanted!r} is a corpus of Table 1")
    if prefix == "miniature":
        corpus, origin = _corpus(rest, split), {"kind": "miniature", "seed": seed}
        frame = miniature.generate(corpus.name, split, seed=seed)
        source = _source(wanted, corpus.task, split, frame, origin, corpus.classes)
    elif prefix == "hub":
        rest, _, pinned = rest.partition("@")
        corpus = _corpus(rest, split)
        reading, commit = read_hub(corpus, split, pinned or revision)
        _check_classes(reading, corpus, f"hub:{rest}")
        place = {"kind": "hub", "repository": corpus.hub.repository, "commit": commit}
        source = _from_reading(f"hub:{rest}", corpus, split, reading, place)
    elif named:
        source = _from_files(_corpus(wanted, split), split, _folder(data_dir))
    elif split != "train":
        advice = "keep those to test on in a file of their own"
        raise ValueError(f"split={split!r}: your own rows are all 'train'; {advice}")
    else:
        source = _from_own(given if is_frame else Path(wanted), own)
    if limit is not None:
        source = _limited(source, limit, seed)
    return source if name is None else replace(source, name=name)


def list_sources(data_dir: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """Compare Table 1's counts: in the paper, in the official releases and in your data folder.

    Parameters
    ----------
    data_dir : path, optional
        Folder of the official files. Default: the environment variable `TSNS_DATA`; without either, nothing
        is read and the loaded counts are missing.

    Returns
    -------
    DataFrame
        One row per corpus: `name`, `task`, `paper_training` and `paper_transferring` (rows in the paper's Table 1),
        then `official_<split>` and `loaded_<split>` for each split (usable rows; missing without such a split or file).

    Raises
    ------
    FileNotFoundError
        If the data folder does not exist.
    ValueError
        If a file in it has no usable row or is not in its official format.

    Examples
    --------
    >>> table = list_sources().set_index("name")
    >>> int(table.loc["mrpc", "paper_training"]), int(table.loc["mrpc", "official_train"])
    (3917, 4076)
    """
    folder = _folder(data_dir)
    rows = []
    for corpus in REGISTRY.values():
        row: dict[str, Any] = {"name": corpus.name, "task": corpus.task}
        row["paper_training"] = corpus.paper["train"]
        row["paper_transferring"] = corpus.paper[corpus.target] if corpus.target else None
        row |= {f"official_{split}": corpus.official.get(split) for split in SPLITS}
        for split in SPLITS:
            on_disk = folder is not None and _place(corpus, split, folder) is not None
            row[f"loaded_{split}"] = _from_files(corpus, split, folder).n_rows if on_disk else None
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.astype({column: "Int64" for column in table.columns[2:]})


def stratified_rows(labels: ArrayLike, limit: int, *, seed: int, name: str) -> NDArray[np.intp]:
    """Choose exactly `limit` rows at random, with the classes in proportion, and return their indices in order.

    `limit` is from the number of classes up to the number of rows. `name` says which rows these are; it is part of the
    seed, so that two corpora do not share a stream.
    """
    labels = np.asarray(labels)
    classes, sizes = np.unique(labels, return_counts=True)
    if not len(classes) <= whole_number("limit", limit) <= len(labels):
        raise ValueError(f"limit: must be from {len(classes)} (classes) to {len(labels)} (rows), got {limit}")
    # Largest remainders: a class gets its share rounded down, but at least one row; the rest by remainder.
    shares = sizes * limit / sizes.sum()
    counts = np.maximum(shares.astype(int), 1)
    while counts.sum() < limit:
        counts[np.argmax(shares - counts)] += 1
    while counts.sum() > limit:
        counts[np.argmax(counts)] -= 1
    stream = np.random.default_rng(np.random.SeedSequence([seed, *name.encode(errors="surrogatepass")]))
    chosen = [stream.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, counts, strict=True)]
    return np.sort(np.concatenate(chosen))


def _from_files(corpus: Corpus, split: str, folder: Path | None) -> Source:
    if folder is None:
        ways = f"set TSNS_DATA or pass data_dir, or load 'hub:{corpus.name}' or 'miniature:{corpus.name}'"
        raise FileNotFoundError(f"{corpus.name}: no data folder; {ways}")
    place = _place(corpus, split, folder)
    if place is None:
        raise FileNotFoundError(f"{corpus.name}: no {' or '.join(corpus.files[split])} in {folder}")
    copied = place == corpus.files[split][-1]
    files = sorted((folder / place).glob("*"))
    if copied and not files:
        raise FileNotFoundError(f"{folder / place}: must be a folder with the hub's files")
    reading = read_copies(corpus, files) if copied else corpus.read(folder / place)
    _check_classes(reading, corpus, str(folder / place))
    return _from_reading(corpus.name, corpus, split, reading, {"kind": "files", "path": place})


def _check_classes(reading: Reading, corpus: Corpus, place: str) -> None:
    labels = set(reading.frame["label"])
    if not labels:
        raise ValueError(f"{place}: no usable row (skipped: {reading.skipped})")
    if len(labels) == 1:
        only = f"one class only, {corpus.classes[labels.pop()]!r}, in all {len(reading.frame)} usable rows"
        raise ValueError(f"{place}: {only} (skipped: {reading.skipped})")


def _from_reading(name: str, corpus: Corpus, split: str, reading: Reading, place: Mapping[str, Any]) -> Source:
    counts = {
        "rows_read": reading.rows_read,
        "skipped": reading.skipped,
        "repaired": reading.repaired,
        "official_rows": corpus.official.get(split),
        "paper_rows": corpus.paper.get(split),
    }
    return _source(name, corpus.task, split, reading.frame, {**place, **counts}, corpus.classes)


def _from_own(given: Any, own: dict[str, Any]) -> Source:
    if isinstance(given, Path):
        file = path("name_or_path", given)
        if not os.path.exists(file):  # not Path.exists, which raises for a text that is no path at all
            missing = f"{os.fspath(given)[:200]}: no such file, nor a corpus of Table 1"
            raise FileNotFoundError(f"{missing}: {', '.join(REGISTRY)}{_near(os.fspath(given))}")
        frame, facts = read_own(file, **own)
        place = Path(os.path.abspath(file))
        with file.open("rb") as written:  # it may be written again before the next call
            facts["sha256"] = hashlib.file_digest(written, "sha256").hexdigest()
        name, corpus = f"{place.parent.name}/{place.name}".lstrip("/"), str(file.resolve())
    else:
        frame, facts = read_own(_pandas(given, own["label"] or "label"), **own)
        rows = hashlib.sha256(frame.to_json().encode("utf-8")).hexdigest()
        name, corpus = "frame", f"a frame of {len(frame)} rows, {rows[:16]}"
    classes = tuple(facts["labels"]) or tuple(str(label) for label in sorted(set(frame["label"])))
    return _source(name, "own", "train", frame, {"kind": "own", "corpus": corpus, **facts}, classes)


def _pandas(given: Any, label: str) -> pd.DataFrame:
    """The rows of a DataFrame, or of what can become one, such as a datasets.Dataset, whose labels get their names."""
    if isinstance(given, pd.DataFrame):
        return given
    frame = given.to_pandas()
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"name_or_path: must have columns, got {type(given).__name__}")
    for column, feature in dict(getattr(given, "features", None) or {}).items():
        if column.strip().lower() == label.strip().lower() and (names := getattr(feature, "names", None)):
            frame[column] = [_class_name(names, number, column) for number in frame[column]]
    return frame


def _class_name(names: Sequence[str], number: Any, column: str) -> str | None:
    """The name of a class by its number, of which -1 is none."""
    if is_missing(number) or number == -1:
        return None
    if number not in range(len(names)):
        raise ValueError(f"column {column!r}: {shown(number)} is no number of the {len(names)} classes {shown(names)}")
    return names[int(number)]


def _source(
    name: str, task: str, split: str, frame: pd.DataFrame, origin: Mapping[str, Any], classes: tuple[str, ...]
) -> Source:
    """Make a source; unless `origin` says otherwise, every row was read as it is and no count is known to compare."""
    unknown = {
        "corpus": name,
        "rows_read": len(frame),
        "skipped": {},
        "repaired": {},
        "official_rows": None,
        "paper_rows": None,
    }
    repeated = int(frame.duplicated(["text", "text_pair"]).sum())
    counts = {"rows_kept": len(frame), "repeated_rows": repeated}
    return Source(name, task, split, frame, {**unknown, **origin, **counts}, classes)


def _limited(source: Source, limit: int, seed: int) -> Source:
    n_classes = source.frame["label"].nunique()
    if limit < n_classes:
        raise ValueError(f"limit: must be at least {n_classes}, the number of classes of {source.name}, got {limit}")
    if limit >= source.n_rows:
        note = f"{limit} asked for, all {source.n_rows} rows kept"
        return replace(source, origin=source.origin | {"limit": note})
    rows = stratified_rows(source.frame["label"], limit, seed=seed, name=f"{source.name}/{source.split}")
    note = f"{limit} of {source.n_rows} rows, classes in proportion, seed {seed}"
    frame = source.frame.iloc[rows].reset_index(drop=True)
    return replace(source, frame=frame, origin=source.origin | {"limit": note})


def _corpus(name: str, split: str) -> Corpus:
    if name not in REGISTRY:
        raise ValueError(f"{name!r} is not a corpus of Table 1: {', '.join(REGISTRY)}{_near(name)}")
    corpus = REGISTRY[name]
    if split not in corpus.files:
        raise ValueError(f"{name}: no split {split!r}; there is {', '.join(corpus.files)}")
    return corpus


def _near(word: str) -> str:
    near = difflib.get_close_matches(word[:200], REGISTRY, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _folder(data_dir: str | os.PathLike[str] | None) -> Path | None:
    setting = "TSNS_DATA" if data_dir is None else "data_dir"
    folder = os.environ.get("TSNS_DATA") if data_dir is None else data_dir
    if folder is None or folder == "":
        return None
    if not os.path.isdir(place := path(setting, folder)):
        raise FileNotFoundError(f"{setting}={os.fspath(folder)!r}: no such folder")
    return place


def _place(corpus: Corpus, split: str, folder: Path) -> str | None:
    return next((place for place in corpus.files.get(split, ()) if (folder / place).exists()), None)
