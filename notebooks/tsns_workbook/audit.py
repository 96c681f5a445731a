"""What the paper's printed cells say beside its text: who is ahead, by how much, and what looks alike.

The paper against itself: every printed average, mark and range recomputed from its own printed cells.

No model and no data: the cells of `tsns_workbook.paper` go in. Each function shows the arithmetic of one
thing; `statements` gathers what they decide, and `audit_claims` judges it by code.
"""

from typing import Any

import numpy as np
import pandas as pd

from tsns_workbook import paper
from tsns_workbook.report import claim, label
from tsns_workbook.table1 import printed_counts

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


def averages() -> pd.DataFrame:
    """Recompute every printed average of Tables 2 and 4.

    Returns
    -------
    pandas.DataFrame
        Columns `table`, `column`, `cells` (the arithmetic), `printed`, `recomputed`, `verdict`.

    Examples
    --------
    >>> found = averages()
    >>> found.loc[found["verdict"] != HOLDS, ["column", "printed", "recomputed"]].to_numpy().tolist()
    [['CMD', 79.9, 79.8], ['PE', 78.2, 78.1], ['last layer', 77.4, 77.0]]
    """
    rows = []
    for table, cells in ((2, paper.table2()), (4, paper.table4())):
        for method, k, printed, again, _, slip in paper.printed_averages(table).dropna().itertuples(False):
            own = cells.loc[(cells["method"] == method) & (cells["k"] == k), "accuracy"]
            sum_of = f"({' + '.join(map(str, own))}) / {len(own)} = {own.mean():.3f}"
            rows.append((f"Table {table}", label(method, k), sum_of, printed, again, verdict_of(not slip)))
    return pd.DataFrame(rows, columns=["table", "column", "cells", "printed", "recomputed", "verdict"])


def marks() -> pd.DataFrame:
    """Check every bold and underlined figure: what is marked must be the best, and all of it.

    In Tables 2 to 4 bold is the best of its row; in Table 5 an underline is the best of its row and bold the best
    of its column (its caption).

    Returns
    -------
    pandas.DataFrame
        Columns `table`, `mark`, `where`, `marked`, `best`, `verdict`: one row per row or column that has a best.
    """
    rows = []
    for table, frame in ((2, paper.table2()), (3, paper.table3()), (4, paper.table4())):
        for pair, row in frame.groupby(PAIR, sort=False):
            rows.append(_mark(table, "bold, best of the row", " → ".join(pair), row, "bold"))
        if table != 3:
            means = paper.printed_averages(table).rename(columns={"printed": "accuracy"})
            rows.append(_mark(table, "bold, best of the row", "average", means, "bold"))
    wide = paper.table5()
    for source, row in wide.groupby("source", sort=False):
        rows.append(_mark(5, "underlined, best of the row", source, row, "underlined"))
    for (method, k, budget), column in wide.groupby(["method", "k", "budget"], sort=False):
        name = f"{label(method, k)}, L={budget:,}"
        rows.append(_mark(5, "bold, best of the column", name, column, "bold"))
    found = pd.DataFrame(rows, columns=["table", "mark", "where", "marked", "best", "verdict"])
    return found[found["best"] != ""].reset_index(drop=True)


def gains() -> pd.DataFrame:
    """Recompute the average gains that the text names, from the cells and not from the printed averages.

    Returns
    -------
    pandas.DataFrame
        Columns `where`, `gain`, `cells` (the arithmetic), `printed`, `recomputed`, `verdict`.
    """
    two, four = (frame.groupby(["method", "k"])["accuracy"].mean() for frame in (paper.table2(), paper.table4()))
    wanted = [
        ("§4.4, Table 2", "TSNS K=500 over the best published average (PBLM)", two, "tsns", ("PBLM", 0), 1.1),
        ("§4.4, Table 2", "TSNS K=500 over the last layer", two, "tsns", BASELINE, 4.1),
        ("§4.4, Table 4", "MultiTSNS K=500 over the last layer", four, "multi_tsns", BASELINE, 3.0),
    ]
    rows = []
    for where, name, means, method, other, printed in wanted:
        a, b = means[method, 500], means[other]
        again = round(a - b + 1e-9, 1)  # halves up, as printed: 4.525 is 4.5
        rows.append((where, name, f"{a:.3f} - {b:.3f} = {a - b:.3f}", printed, again, again == printed))
    found = pd.DataFrame(rows, columns=["where", "gain", "cells", "printed", "recomputed", "verdict"])
    return found.assign(verdict=found["verdict"].map(verdict_of))


def ranges() -> pd.DataFrame:
    """Try to find the two ranges that the text names for Table 5, under every plain reading of it.

    The gain of each combination of sources, column by column and with the best cell of each: over single sources
    ("3.5 to 9.5"; the best of those combined, or QQP), and over the last layer ("3.8 to 13.0").

    Returns
    -------
    pandas.DataFrame
        Columns `compared with`, `reading`, `printed`, `lowest`, `highest`, `verdict`.
    """
    cells = paper.table5()
    cells = cells.assign(column=_columns5(cells))
    wide = cells.pivot(index="source", columns="column", values="accuracy")[cells["column"].unique()]
    last, ours = wide.iloc[:, 0], wide.iloc[:, 1:]
    ours = ours.assign(**{"best cell of each": ours.max(axis=1)})
    unions = [source for source in wide.index if "+" in source]
    single = pd.DataFrame(
        {union: ours.loc[[part for part in union.split("+") if part in ours.index]].max() for union in unions}
    ).T
    combined = ours.loc[unions]
    compared = [
        ("the best single source combined", combined - single, 3.5, 9.5),
        ("QQP, a part of every combination", combined - ours.loc["qqp"], 3.5, 9.5),
        ("the last layer", combined.sub(last[unions], axis=0), 3.8, 13.0),
    ]
    rows = []
    for name, gain, low, high in compared:
        for reading, values in gain.round(1).items():
            found = (float(values.min()), float(values.max()))
            rows.append((name, reading, f"{low} to {high}", *found, verdict_of(found == (low, high))))
    columns = ["compared with", "reading", "printed", "lowest", "highest", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def statements() -> pd.DataFrame:
    """What the paper states of its own tables, each with how much of it follows from the printed cells.

    Returns
    -------
    pandas.DataFrame
        Columns `claim` (its id in the scoreboard), `where`, `statement`, `stated` (how many figures, marks or
        pairs it is about), `follow` (how many of them follow), `verdict`: it holds if all do.
    """
    mean, mark, gain, span, best = averages(), marks(), gains(), ranges(), best_sources()
    row_marks = mark[mark["table"] != 5]
    ahead2, ahead4 = (state_of_the_art(table).loc["pairs ahead"] for table in (2, 4))
    counts = printed_counts()
    any_reading = span.assign(right=span["verdict"] == HOLDS).groupby("printed")["right"].any()
    found: list[tuple[str, int, Any]] = [
        ("averages_table2", 10, _following(mean[mean["table"] == "Table 2"])),
        ("averages_table4", 7, _following(mean[mean["table"] == "Table 4"])),
        ("bold_tables2_to_4", len(row_marks), _following(row_marks)),
        ("marks_table5", len(mark) - len(row_marks), _following(mark[mark["table"] == 5])),
        ("state_of_the_art_pairs", 5, ahead2["K=500"]),
        ("state_of_the_art_scenarios", 4, ahead4["K=500"]),
        ("average_gains", len(gain), _following(gain)),
        ("ranges_table5", len(any_reading), any_reading.sum()),
        ("best_sources", len(best), _following(best)),
        ("official_counts", len(counts), (counts["paper"] == counts["official"]).sum()),
    ]
    texts = {known.id: known for known in paper.CLAIMS}
    rows = [
        (f"audit.{name}", texts[f"audit.{name}"].paper_ref, texts[f"audit.{name}"].statement, stated, int(n))
        for name, stated, n in found
    ]
    frame = pd.DataFrame(rows, columns=["claim", "where", "statement", "stated", "follow"])
    return frame.assign(verdict=(frame["follow"] == frame["stated"]).map(verdict_of))


def audit_claims(stated: pd.DataFrame) -> list[dict[str, Any]]:
    """Judge the statements for the scoreboard.

    Parameters
    ----------
    stated : pandas.DataFrame
        As `statements` gives it.

    Returns
    -------
    list of dict
        As `report.claim` gives them; the estimate, and both ends of its interval, is how many follow.
    """
    return [claim(name, n, n, n) for name, n in zip(stated["claim"], stated["follow"].tolist(), strict=True)]


def _following(frame: pd.DataFrame) -> int:
    return int((frame["verdict"] == HOLDS).sum())


def _columns5(cells: pd.DataFrame) -> list[str]:
    columns = zip(cells["method"], cells["k"], cells["budget"], strict=True)
    return [f"{label(method, k)}, L={budget:,}" for method, k, budget in columns]


def _mark(table: int, mark: str, where: str, cells: pd.DataFrame, flag: str) -> tuple:
    """One row of `marks`: the marked cells and the best ones, each with its place."""
    across = "column" not in mark
    # a printed average has no budget, and a bold cell of Table 5 is named by its source
    names = [
        label(row.method, row.k) + (f", L={row.budget:,}" if table == 5 else "") if across else row.source
        for row in cells.itertuples()
    ]
    values = cells["accuracy"].to_numpy(dtype=float)
    if cells["accuracy"].isna().all():
        return table, mark, where, "", "", ""
    flagged = cells[flag].to_numpy(dtype=bool) if flag in cells else np.zeros(len(cells), dtype=bool)
    is_best = values == np.nanmax(values)
    said = ["; ".join(f"{values[i]} ({names[i]})" for i in np.flatnonzero(m)) for m in (flagged, is_best)]
    return table, mark, where, said[0] or "none", said[1], verdict_of(bool((flagged == is_best).all()))
