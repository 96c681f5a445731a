"""What the paper's printed cells say beside its text: who is ahead, by how much, and what looks alike."""

import numpy as np
import pandas as pd

from tsns_lib.reporting import paper
from tsns_lib.reporting.report import label

HOLDS, FAILS = "holds", "does not hold"
PAIR = ["source", "target"]
BASELINE = ("last_layer", 1024)
MULTI_BUDGET = 200_000  # L of most columns of Table 5


def verdict_of(right: bool) -> str:
    """Say whether a statement holds."""
    return HOLDS if right else FAILS


def state_of_the_art(table: int = 2) -> pd.DataFrame:
    """Selected neurons minus the best published system, pair by pair, for every K.

    Parameters
    ----------
    table : int
        2 (single source, default) or 4 (several sources).

    Returns
    -------
    pandas.DataFrame
        Pairs down; `published` (the best one), its `system`, the difference in points for each K, and
        `K chosen on the target`, the largest difference. Last row: number of pairs ahead.

    Raises
    ------
    ValueError
        If the table has no published systems.

    Examples
    --------
    >>> state_of_the_art().loc["pairs ahead"].iloc[2:].astype(int).tolist()
    [2, 4, 3, 2, 3, 5]
    """
    if table not in (2, 4):
        raise ValueError(f"table must be 2 or 4, the tables with published systems, not {table!r}")
    cells = paper.table2() if table == 2 else paper.table4()
    wide = cells.pivot(index=PAIR, columns=["method", "k"], values="accuracy").loc[_pairs(cells)]
    published = wide.loc[:, wide.columns.get_level_values("k") == 0].droplevel("k", axis=1)
    ours = wide["tsns" if table == 2 else "multi_tsns"]
    ahead = ours.sub(published.max(axis=1), axis=0).round(1).add_prefix("K=")
    ahead["K chosen on the target"] = ahead.max(axis=1)
    found = pd.DataFrame({"published": published.max(axis=1), "system": published.idxmax(axis=1)}).join(ahead)
    found.index = pd.Index([" → ".join(pair) for pair in found.index], name="source → target")
    found.loc["pairs ahead"] = [np.nan, "", *(ahead > 0).sum()]
    return found


def binomial_error(accuracy: float, n: int = 2_000) -> float:
    """Standard error of an accuracy measured on n rows, in points.

    Parameters
    ----------
    accuracy : float
        Percent.
    n : int
        Rows; default 2,000, an Amazon domain (paper, Table 1).

    Returns
    -------
    float

    Examples
    --------
    >>> round(binomial_error(81.5), 2), round(binomial_error(50.0), 2)
    (0.87, 1.12)
    """
    return float(np.sqrt(accuracy * (100 - accuracy) / n))


def best_sources() -> pd.DataFrame:
    """Check which source the cells name as the best for a target, against the text (§4.4, Tables 2 and 3).

    Returns
    -------
    pandas.DataFrame
        Columns `table`, `target`, `stated`, `recomputed` (sources by their cell, K as in the column), `verdict`.
    """
    two, three = paper.table2(), paper.table3().dropna(subset=["accuracy"])
    two = two[(two["method"] == "tsns") & (two["k"] == 500)]
    three = three[three["method"] == "tsns"].groupby(PAIR, as_index=False)["accuracy"].max()
    stated = {"books": "dvd", "dvd": "books", "kitchen": "electronics", "electronics": "kitchen"}
    wanted = [("Table 2, K=500", two, target, {source}) for target, source in stated.items()]
    wanted += [("Table 3, best K", three, "scitail", {"mnli", "qqp"})]
    wanted += [("Table 3, best K", three, "qqp", {"mnli", "scitail"})]
    rows = []
    for table, frame, target, names in wanted:
        order = frame[frame["target"] == target].sort_values("accuracy", ascending=False)
        found = [f"{s} {a:.1f}" for s, a in zip(order["source"], order["accuracy"], strict=True)]
        right = set(order["source"].iloc[: len(names)]) == names
        rows.append((table, target, ", ".join(sorted(names)), " > ".join(found), verdict_of(right)))
    return pd.DataFrame(rows, columns=["table", "target", "stated", "recomputed", "verdict"])


def coincidences() -> pd.DataFrame:
    """Columns that are two different choices of neurons, or of rows, and yet print the same accuracies.

    Returns
    -------
    pandas.DataFrame
        Columns `table`, `where`, `one`, `other`, `difference` (points).
    """
    four = paper.table4().pivot(index="source", columns=["method", "k"], values="accuracy")
    five = paper.table5().pivot(index="source", columns=["method", "k", "budget"], values="accuracy")
    small, last = five["multi_tsns", 500, 20_000], five[(*BASELINE, MULTI_BUDGET)]
    rows = [
        ("Table 4: K=1024 of all layers, and the last layer", source, four["multi_tsns", 1024][source], value)
        for source, value in four[BASELINE].items()
    ]
    rows += [
        ("Table 5: K=500 with L=20,000, and the last layer", source, small[source], last[source])
        for source in ("qqp", "mnli", "snli")
    ]
    found = pd.DataFrame(rows, columns=["table", "where", "one", "other"])
    return found.assign(difference=(found["one"] - found["other"]).round(1))


def shared_cells() -> pd.DataFrame:
    """Single sources to SciTail stand in Tables 3 and 5; set both figures side by side.

    Returns
    -------
    pandas.DataFrame
        Columns `source`, `column`, `table 3`, `table 5` (L = 200,000), `difference`.
    """
    five = paper.table5()
    five = five[five["budget"] == MULTI_BUDGET].replace({"method": {"multi_tsns": "tsns"}})
    both = paper.table3().merge(five, on=[*PAIR, "method", "k"], suffixes=("_3", "_5"), how="inner")
    columns = [label(method, k) for method, k in zip(both["method"], both["k"], strict=True)]
    values = {"table 3": both["accuracy_3"], "table 5": both["accuracy_5"]}
    found = pd.DataFrame({"source": both["source"], "column": columns} | values)
    return found.assign(difference=(found["table 5"] - found["table 3"]).round(1))


def below_majority(shares: dict[str, float]) -> pd.DataFrame:
    """Count the cells of Table 3 that lie below the accuracy of always answering the larger class.

    Parameters
    ----------
    shares : dict
        Target to percent of its larger class.

    Returns
    -------
    pandas.DataFrame
        Columns `target`, `larger class`, `cells`, `below`, `best cell`.
    """
    cells = paper.table3().dropna(subset=["accuracy"])
    rows = []
    for target, share in shares.items():
        own = cells.loc[cells["target"] == target, "accuracy"]
        rows.append((target, share, len(own), int((own < share).sum()), own.max()))
    return pd.DataFrame(rows, columns=["target", "larger class", "cells", "below", "best cell"])


def _pairs(cells: pd.DataFrame) -> list[tuple[str, str]]:
    return list(cells[PAIR].drop_duplicates().itertuples(index=False, name=None))
