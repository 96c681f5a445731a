"""Table 1: what the corpora hold, beside what the paper prints and what the official releases hold."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsns_lib.corpora.registry import REGISTRY
from tsns_lib.reporting import paper
from tsns_lib.reporting.report import bare, claim

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
