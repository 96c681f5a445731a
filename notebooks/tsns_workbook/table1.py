"""Table 1: what the corpora hold, beside what the paper prints and what the official releases hold.

Leakage: rows that stand, letter for letter, in two splits.

How long the texts of each corpus are.
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
from tsns_lib.corpora.sources import shared_rows
from tsns_workbook import paper
from tsns_workbook.plots import FAINT, INK, STYLE
from tsns_workbook.report import bare, caption, claim

MET, NOT_MET, UNTESTABLE = "met", "not met", "not testable here"
AMAZON = ("books", "dvd", "electronics", "kitchen")  # one row of the printed table


def printed_counts() -> pd.DataFrame:
    """Every count that Table 1 prints, with the split it stands for and the official release's count.

    Returns
    -------
    pandas.DataFrame
        Columns `corpus`, `printed as` ("training" or "transferring"), `split`, `paper`, `official`.

    Examples
    --------
    >>> counts = printed_counts()
    >>> len(counts), counts.loc[counts["paper"] != counts["official"], "corpus"].tolist()
    (18, ['qqp', 'mrpc', 'qqp'])
    """
    counts = paper.table1().melt("source", ["training", "transferring"], var_name="printed as", value_name="paper")
    counts = counts.dropna().rename(columns={"source": "corpus"}).reset_index(drop=True)
    places = list(zip(counts["corpus"], counts["printed as"], strict=True))
    counts["split"] = [
        (REGISTRY[corpus].target or "train") if role == "transferring" else "train" for corpus, role in places
    ]
    counts["official"] = [
        REGISTRY[corpus].official[split] for corpus, split in zip(counts["corpus"], counts["split"], strict=True)
    ]
    return counts[["corpus", "printed as", "split", "paper", "official"]]


def counts_table(sources: Sequence[Any]) -> pd.DataFrame:
    """Each printed count beside the official one and the loaded one, with a verdict.

    Parameters
    ----------
    sources : sequence of Source
        Splits as `tsns_lib.load_source` gives them.

    Returns
    -------
    pandas.DataFrame
        As `printed_counts`, plus `loaded` (missing where the split was not loaded), `here` ("whole", "part of
        the official", "generated" or "not loaded") and `verdict`: "met" if a whole corpus has exactly the
        printed count, else "not met"; "not testable here" for every corpus that is not whole.
    """
    loaded = {(bare(source.name), source.split): source for source in sources}
    counts = printed_counts()
    found = [loaded.get(key) for key in zip(counts["corpus"], counts["split"], strict=True)]
    counts["loaded"] = pd.array([source and source.origin["rows_kept"] for source in found], dtype="Int64")
    counts["here"] = [_extent(source) for source in found]
    same = np.where((counts["loaded"] == counts["paper"]).fillna(False), MET, NOT_MET)
    counts["verdict"] = np.where(counts["here"] == "whole", same, UNTESTABLE)
    return counts


def table1_claims(counts: pd.DataFrame) -> list[dict[str, Any]]:
    """Judge every row of the printed Table 1 by whether all its counts are met.

    Parameters
    ----------
    counts : pandas.DataFrame
        As `counts_table` gives it.

    Returns
    -------
    list of dict
        As `report.claim` gives them; the estimate is the number of counts met.
    """
    rows = counts["corpus"].where(~counts["corpus"].isin(AMAZON), "amazon")
    judged = []
    for name, verdicts in counts.groupby(rows, sort=False)["verdict"]:
        n_met = int((verdicts == MET).sum())
        testable = UNTESTABLE not in set(verdicts)
        judged.append(claim(f"table1.{name}", *(3 * [n_met] if testable else [])))
    return judged


def splits_table(sources: Sequence[Any]) -> pd.DataFrame:
    """Rows, repetitions and class balance of every split.

    Parameters
    ----------
    sources : sequence of Source
        Splits.

    Returns
    -------
    pandas.DataFrame
        One row per split: `source`, `task`, `split`, `rows`, `repeated`, `positive` (percent), `official`
        (missing for generated data), `here`.
    """
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


def changes_table(sources: Sequence[Any]) -> pd.DataFrame:
    """Rows skipped and rows repaired, by reason; a split that lost and changed nothing does not appear.

    Parameters
    ----------
    sources : sequence of Source
        Splits.

    Returns
    -------
    pandas.DataFrame
        Columns `source`, `split`, `read` (rows in the file), `what` ("skipped" or "repaired"), `reason`, `rows`.
    """
    rows = [
        (source.name, source.split, source.origin["rows_read"], what, reason, n)
        for source in sources
        for what in ("skipped", "repaired")
        for reason, n in source.origin.get(what, {}).items()
    ]
    return pd.DataFrame(rows, columns=["source", "split", "read", "what", "reason", "rows"])


def count_with_quoting(path: str | os.PathLike[str]) -> dict[str, int]:
    """Count the rows of a tab-separated file as it stands, and as pandas reads it with quoting left on.

    An unbalanced quotation mark then swallows the line ends up to the next one, and with them rows.

    Parameters
    ----------
    path : path
        The file, with a header line, such as `msr_paraphrase_train.txt`.

    Returns
    -------
    dict
        Rows "in the file", "read with quoting on", and "complete" ones among the latter.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    with open(path, encoding="utf-8-sig", newline="\n") as lines:
        in_file = sum(1 for _ in lines) - 1
    read = pd.read_csv(path, sep="\t", encoding="utf-8-sig", on_bad_lines="skip")
    return {"in the file": in_file, "read with quoting on": len(read), "complete": len(read.dropna())}


def mrpc_explained(sources: Sequence[Any]) -> pd.DataFrame:
    """Where the paper's 3,917 rows of MRPC come from: recount the official file as pandas reads it.

    Parameters
    ----------
    sources : sequence of Source
        Splits, the training split of MRPC from the official file among them.

    Returns
    -------
    pandas.DataFrame
        Columns `MRPC, training rows`, `count`; and one row saying so where the official file is not there.
    """
    printed = int(paper.table1().set_index("source").loc["mrpc", "training"])
    real = [s for s in sources if (s.name, s.split, s.origin["kind"]) == ("mrpc", "train", "files")]
    counts: dict[str, Any] = {"printed in Table 1": printed}
    if real:
        folder = Path(os.environ.get("TSNS_DATA", "."))
        counts |= count_with_quoting(folder / real[0].origin["path"])
        same = counts["complete"] == printed
        counts["the printed count is the complete rows read with quoting on"] = "yes" if same else "no"
    else:
        counts["the official file is not loaded"] = UNTESTABLE
    return pd.DataFrame(counts.items(), columns=["MRPC, training rows", "count"])


def _extent(source: Any) -> str:
    if source is None:
        return "not loaded"
    if source.generated:
        return "generated"
    official = source.origin["official_rows"]
    return "whole" if official is None or source.origin["rows_kept"] >= official else "part of the official"


def leakage_table(sources: Sequence[Any]) -> pd.DataFrame:
    """Every two splits, of one corpus or of two, that share rows letter for letter.

    Parameters
    ----------
    sources : sequence of Source
        Splits.

    Returns
    -------
    pandas.DataFrame
        Columns `one`, `other` ("scitail train"), `shared` (different texts or pairs of texts), `share`
        (percent of the different rows of the smaller one). Empty if nothing is shared.
    """
    rows = []
    for i, one in enumerate(sources):
        for other in sources[i + 1 :]:
            shared = shared_rows(one, other) if one.is_pair == other.is_pair else 0
            if shared:
                smaller = min(s.origin["rows_kept"] - s.origin["repeated_rows"] for s in (one, other))
                names = (f"{s.name} {s.split}" for s in (one, other))
                rows.append((*names, shared, round(100 * shared / smaller, 2)))
    return pd.DataFrame(rows, columns=["one", "other", "shared", "share"])


def leakage_matrix(sources: Sequence[Any]) -> pd.DataFrame:
    """Rows that each training split shares with each split that the paper tests on.

    Parameters
    ----------
    sources : sequence of Source
        Splits.

    Returns
    -------
    pandas.DataFrame
        Training splits down, target splits across; "—" for the split itself.
    """
    counts = printed_counts()
    transferring = counts[counts["printed as"] == "transferring"]
    tested = set(zip(transferring["corpus"], transferring["split"], strict=True))
    targets = [source for source in sources if (bare(source.name), source.split) in tested]
    cells = {
        f"{bare(target.name)} {target.split}": {
            bare(source.name): "—" if source is target else str(shared_rows(source, target))
            for source in sources
            if source.split == "train"
        }
        for target in targets
    }
    return pd.DataFrame(cells).rename_axis(index="source (train)")


QUANTILES = (5, 25, 50, 75, 95)
COLOURS = {"sentiment": "#0072B2", "nli": "#D55E00", "similarity": "#009E73"}  # Okabe and Ito's


def length_quantiles(sources: Sequence[Any]) -> pd.DataFrame:
    """Quantiles of the number of words a row, both texts of a pair together.

    Parameters
    ----------
    sources : sequence of Source
        Splits.

    Returns
    -------
    pandas.DataFrame
        Columns `source`, `task`, `split`, and the percentiles `p5`, `p25`, `p50`, `p75`, `p95`.
    """
    rows = [(source.name, source.task, source.split, *np.percentile(_words(source), QUANTILES)) for source in sources]
    return pd.DataFrame(rows, columns=["source", "task", "split", *(f"p{q}" for q in QUANTILES)])


def length_plot(lengths: pd.DataFrame, *, title: str = "Words a row, both texts of a pair together") -> Figure:
    """Draw the distribution of lengths, one line a corpus; no text is shown.

    Parameters
    ----------
    lengths : pandas.DataFrame
        As `length_quantiles` gives it; the training splits are drawn.
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        A thin line from the 5th to the 95th percentile, a thick one over the middle half, a dot at the median.
    """
    rows = lengths[lengths["split"] == "train"][::-1].reset_index(drop=True)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 1.3 + 0.3 * len(rows)), layout="constrained")
        for task, part in rows[::-1].groupby("task", sort=False):
            look: dict[str, Any] = {"color": COLOURS.get(str(task), INK)}
            axes.hlines(part.index, part["p5"], part["p95"], linewidth=1.2, **look)
            axes.hlines(part.index, part["p25"], part["p75"], linewidth=6, alpha=0.45, **look)
            axes.plot(part["p50"], part.index, "o", markersize=6, label=task, **look)
        ticks = [t for t in (5, 10, 20, 50, 100, 200, 500, 1000) if t <= 1.2 * rows["p95"].max()]
        axes.set(xscale="log", xlabel="words (5 %, middle half, median, 95 %)")
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        axes.set_yticks(rows.index, rows["source"].map(bare))
        axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        axes.tick_params(color=FAINT)
        axes.set_title(caption(title, rows["source"]), loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    plt.close(figure)
    return figure


def _words(source: Any) -> pd.Series:
    texts = source.frame["text"].str.split().str.len()
    return texts + source.frame["text_pair"].str.split().str.len() if source.is_pair else texts
