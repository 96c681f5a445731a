"""Table 1: what the corpora hold, beside what the paper prints and what the official releases hold.

Rows are counted, compared and measured; no text of a corpus is shown.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tsns_lib.corpora.registry import REGISTRY
from tsns_lib.corpora.sources import Source
from tsns_workbook import paper
from tsns_workbook.plots import BLUE, FAINT, GREEN, INK, ORANGE, STYLE, finish
from tsns_workbook.report import NOT_TESTABLE, caption, claim, short_name

MET, NOT_MET = "met", "not met"
AMAZON = ("books", "dvd", "electronics", "kitchen")  # one row of the printed table
QUANTILES = (5, 25, 50, 75, 95)
TASK_COLORS = {"sentiment": BLUE, "nli": ORANGE, "similarity": GREEN}


def printed_counts() -> pd.DataFrame:
    """Every count that Table 1 prints, with the split it stands for and the official release's count.

    Examples
    --------
    >>> counts = printed_counts()
    >>> len(counts), counts.loc[counts["paper"] != counts["official"], "corpus"].tolist()
    (18, ['qqp', 'mrpc', 'qqp'])
    """
    counts = paper.table1().melt("source", ["training", "transferring"], var_name="printed as", value_name="paper")
    counts = counts.dropna().rename(columns={"source": "corpus"}).reset_index(drop=True)
    targets = counts["corpus"].map(lambda corpus: REGISTRY[corpus].target or "train")
    counts["split"] = targets.where(counts["printed as"] == "transferring", "train")
    places = zip(counts["corpus"], counts["split"], strict=True)
    counts["official"] = [REGISTRY[corpus].official[split] for corpus, split in places]
    return counts[["corpus", "printed as", "split", "paper", "official"]]


def counts_table(sources: Sequence[Source]) -> pd.DataFrame:
    """Each printed count beside the official one and the loaded one, with a verdict.

    Only a corpus that is here whole can meet a count or miss it; any other count is "not testable here".
    """
    loaded = {(short_name(source.name), source.split): source for source in sources}
    counts = printed_counts()
    splits = [loaded.get(place) for place in zip(counts["corpus"], counts["split"], strict=True)]
    counts["loaded"] = pd.array([source and source.origin["rows_kept"] for source in splits], dtype="Int64")
    counts["here"] = [_extent(source) for source in splits]
    is_met = (counts["loaded"] == counts["paper"]).fillna(False)
    counts["verdict"] = np.where(counts["here"] == "whole", np.where(is_met, MET, NOT_MET), NOT_TESTABLE)
    return counts


def splits_table(sources: Sequence[Source]) -> pd.DataFrame:
    """Rows, repeated rows and class balance (percent of the positive class) of every split."""
    rows = [
        {
            "source": source.name,
            "task": source.task,
            "split": source.split,
            "rows": source.n_rows,
            "repeated": source.origin["repeated_rows"],
            "positive": round(100 * float(source.frame["label"].mean()), 1),
            "official": source.origin["official_rows"],
            "here": _extent(source),
        }
        for source in sources
    ]
    return pd.DataFrame(rows).astype({"official": "Int64"})


def changes_table(sources: Sequence[Source]) -> pd.DataFrame:
    """Rows skipped and rows repaired, by reason; a split that was read unchanged does not appear."""
    rows = [
        (source.name, source.split, source.origin["rows_read"], what, reason, n)
        for source in sources
        for what in ("skipped", "repaired")
        for reason, n in source.origin.get(what, {}).items()
    ]
    return pd.DataFrame(rows, columns=["source", "split", "read", "what", "reason", "rows"])


def count_with_quoting(path: str | os.PathLike[str]) -> dict[str, int]:
    """Count the rows of a tab-separated file with a header, as it stands and as pandas reads it by default.

    By default pandas honours quotation marks: one that is never closed swallows the line ends up to the next
    mark, and rows with them.
    """
    with open(path, encoding="utf-8-sig", newline="\n") as lines:
        in_file = sum(1 for _ in lines) - 1
    read = pd.read_csv(path, sep="\t", encoding="utf-8-sig", on_bad_lines="skip")
    return {"in the file": in_file, "read with quoting on": len(read), "complete": len(read.dropna())}


def mrpc_explained(sources: Sequence[Source]) -> pd.DataFrame:
    """Where the paper's 3,917 rows of MRPC come from: the official file, counted as pandas reads it.

    If the official training split is not among the sources, one row says so.
    """
    printed = int(paper.table1().set_index("source").loc["mrpc", "training"])
    counts: dict[str, Any] = {"printed in Table 1": printed}
    wanted = ("mrpc", "train", "files")
    official = next((s for s in sources if (s.name, s.split, s.origin["kind"]) == wanted), None)
    if official is None:
        counts["the official file is not loaded"] = NOT_TESTABLE
    else:
        counts |= count_with_quoting(Path(os.environ.get("TSNS_DATA", ".")) / official.origin["path"])
        is_same = counts["complete"] == printed
        counts["the printed count is the complete rows read with quoting on"] = "yes" if is_same else "no"
    return pd.DataFrame(counts.items(), columns=["MRPC, training rows", "count"])


def shared_rows(a: Source, b: Source) -> int:
    """Count the distinct texts (or pairs of texts) that occur, letter for letter, in both sources."""
    first, second = (set(zip(s.frame["text"], s.frame["text_pair"], strict=True)) for s in (a, b))
    return len(first & second)


def leakage_table(sources: Sequence[Source]) -> pd.DataFrame:
    """Every two splits that share rows letter for letter; `share` is in percent of the smaller one's distinct rows."""
    rows = []
    for i, one in enumerate(sources):
        for other in sources[i + 1 :]:
            shared = shared_rows(one, other) if one.is_pair == other.is_pair else 0
            if shared:
                smaller = min(s.origin["rows_kept"] - s.origin["repeated_rows"] for s in (one, other))
                names = (f"{s.name} {s.split}" for s in (one, other))
                rows.append((*names, shared, round(100 * shared / smaller, 2)))
    return pd.DataFrame(rows, columns=["one", "other", "shared", "share"])


def leakage_matrix(sources: Sequence[Source]) -> pd.DataFrame:
    """Rows that each training split (down) shares with each split that the paper tests on (across)."""
    counts = printed_counts()
    transferring = counts[counts["printed as"] == "transferring"]
    tested = set(zip(transferring["corpus"], transferring["split"], strict=True))
    cells = {
        f"{short_name(target.name)} {target.split}": {
            short_name(source.name): "—" if source is target else str(shared_rows(source, target))
            for source in sources
            if source.split == "train"
        }
        for target in sources
        if (short_name(target.name), target.split) in tested
    }
    return pd.DataFrame(cells).rename_axis(index="source (train)")


def length_quantiles(sources: Sequence[Source]) -> pd.DataFrame:
    """Percentiles of the number of words per row; the two texts of a pair count together."""
    rows = [(source.name, source.task, source.split, *np.percentile(_words(source), QUANTILES)) for source in sources]
    return pd.DataFrame(rows, columns=["source", "task", "split", *(f"p{q}" for q in QUANTILES)])


def table1_claims(counts: pd.DataFrame) -> list[dict[str, Any]]:
    """Judge every row of the printed table: it is reproduced if all its counts are met."""
    rows = counts["corpus"].where(~counts["corpus"].isin(AMAZON), "amazon")
    claims = []
    for name, verdicts in counts.groupby(rows, sort=False)["verdict"]:
        n_met = int((verdicts == MET).sum())
        is_testable = NOT_TESTABLE not in set(verdicts)
        claims.append(claim(f"table1.{name}", n_met, n_met, n_met) if is_testable else claim(f"table1.{name}"))
    return claims


def length_plot(lengths: pd.DataFrame, *, generated: bool) -> Figure:
    """Draw how long the texts of every training split are, as `length_quantiles` gives it."""
    rows = lengths[lengths["split"] == "train"][::-1].reset_index(drop=True)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 1.3 + 0.3 * len(rows)), layout="constrained")
        for task, of_task in rows[::-1].groupby("task", sort=False):
            color = TASK_COLORS.get(str(task), INK)
            axes.hlines(of_task.index, of_task["p5"], of_task["p95"], linewidth=1.2, color=color)
            axes.hlines(of_task.index, of_task["p25"], of_task["p75"], linewidth=6, alpha=0.45, color=color)
            axes.plot(of_task["p50"], of_task.index, "o", markersize=6, label=task, color=color)
        ticks = [t for t in (5, 10, 20, 50, 100, 200, 500, 1000) if t <= 1.2 * rows["p95"].max()]
        axes.set(xscale="log", xlabel="words (dot: median; thick line: middle half; thin line: middle 90 %)")
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        axes.set_yticks(rows.index, rows["source"].map(short_name))
        axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        axes.tick_params(color=FAINT)
        axes.set_title(caption("Words per row, both texts of a pair together", generated), loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return finish(figure)


def _extent(source: Source | None) -> str:
    """How much of an official split is here."""
    if source is None:
        return "not loaded"
    if source.generated:
        return "generated"
    official = source.origin["official_rows"]
    return "whole" if official is None or source.origin["rows_kept"] >= official else "part of the official"


def _words(source: Source) -> pd.Series:
    words = source.frame["text"].str.split().str.len()
    return words + source.frame["text_pair"].str.split().str.len() if source.is_pair else words
