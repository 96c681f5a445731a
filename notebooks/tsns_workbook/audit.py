"""The paper against itself: its averages, marks, ranges and comparisons recomputed from its own printed cells.

No model and no corpus: the cells of `tsns_workbook.paper` go in. Every function shows the arithmetic of one thing,
`statements` gathers what they decide, and `audit_claims` turns that into claims of the scoreboard.
"""

import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tsns_workbook import paper
from tsns_workbook.plots import BLUE, ORANGE, STYLE, finish
from tsns_workbook.report import DOES_NOT_HOLD, HOLDS, claim, label
from tsns_workbook.table1 import printed_counts

PAIR = ["source", "target"]
BASELINE = ("last_layer", 1024)
ROUNDING = 0.05  # what printing one digit can hide
MULTI_BUDGET = 200_000  # L of most columns of Table 5


def averages() -> pd.DataFrame:
    """Recompute every printed average of Tables 2 and 4, with the arithmetic in the column `cells`.

    A printed average holds if some figures that round to the printed cells have an average that rounds to it: the cells
    and the average may each be off by 0.05.

    Examples
    --------
    >>> table = averages()
    >>> table.loc[table["verdict"] != HOLDS, ["column", "printed", "recomputed"]].to_numpy().tolist()
    [['last layer', 77.4, 77.0]]
    """
    rows = []
    for table, cells in ((2, paper.table2()), (4, paper.table4())):
        for row in paper.printed_averages(table).dropna().itertuples():
            values = cells.loc[(cells["method"] == row.method) & (cells["k"] == row.k), "accuracy"]
            mean = f"({' + '.join(map(str, values))}) / {len(values)} = {values.mean():.3f}"
            possible = abs(row.printed - values.mean()) <= 2 * ROUNDING + 1e-9
            rows.append(
                (f"Table {table}", label(row.method, row.k), mean, row.printed, row.recomputed, _word(possible))
            )
    return pd.DataFrame(rows, columns=["table", "column", "cells", "printed", "recomputed", "verdict"])


def gains() -> pd.DataFrame:
    """Recompute the average gains that the text names, from the cells and not from the printed averages.

    A gain holds if figures that round to the printed cells can have it: it may be off by 0.05, and so may
    both averages.
    """
    two, four = (frame.groupby(["method", "k"])["accuracy"].mean() for frame in (paper.table2(), paper.table4()))
    named = [
        ("§4.4, Table 2", "TSNS K=500 over the best published average (PBLM)", two, "tsns", ("PBLM", 0), 1.1),
        ("§4.4, Table 2", "TSNS K=500 over the last layer", two, "tsns", BASELINE, 4.1),
        ("§4.4, Table 4", "MultiTSNS K=500 over the last layer", four, "multi_tsns", BASELINE, 3.0),
    ]
    rows = []
    for where, name, means, method, other, printed in named:
        a, b = means[method, 500], means[other]
        recomputed = round(a - b + 1e-9, 1)  # halves up, as printed: 4.525 is 4.5
        arithmetic = f"{a:.3f} - {b:.3f} = {a - b:.3f}"
        possible = abs(printed - (a - b)) <= 3 * ROUNDING + 1e-9
        rows.append((where, name, arithmetic, printed, recomputed, _word(possible)))
    return pd.DataFrame(rows, columns=["where", "gain", "cells", "printed", "recomputed", "verdict"])


def marks() -> pd.DataFrame:
    """Check every bold and underlined figure: the marked cells must be the best ones, all of them and no others.

    In Tables 2 to 4 bold is the best of its row; in Table 5 an underline is the best of its row and bold the best
    of its column (its caption). There is one row for each row or column of a table that has a best cell.
    """
    rows = []
    best_of_row = "bold, best of the row"
    for table, cells in ((2, paper.table2()), (3, paper.table3()), (4, paper.table4())):
        cells = cells.assign(place=_columns(cells))
        for pair, row in cells.groupby(PAIR, sort=False):
            rows.append((table, best_of_row, " → ".join(pair), *_marked(row, "bold")))
        if table != 3:
            means = paper.printed_averages(table).rename(columns={"printed": "accuracy"})
            rows.append((table, best_of_row, "average", *_marked(means.assign(place=_columns(means)), "bold")))
    five = paper.table5()
    five = five.assign(column=_columns(five))
    for source, row in five.groupby("source", sort=False):
        row = row.assign(place=row["column"])
        rows.append((5, "underlined, best of the row", source, *_marked(row, "underlined")))
    for name, column in five.groupby("column", sort=False):
        column = column.assign(place=column["source"])
        rows.append((5, "bold, best of the column", name, *_marked(column, "bold")))
    table = pd.DataFrame(rows, columns=["table", "mark", "where", "marked", "best", "verdict"])
    return table[table["best"] != ""].reset_index(drop=True)


def state_of_the_art(table: int = 2) -> pd.DataFrame:
    """Selected neurons minus the best published system, pair by pair, for every K of Table 2 or Table 4.

    `K chosen on the target`, as the paper chooses it, is the largest of the differences; the last row counts the pairs
    ahead.

    Examples
    --------
    >>> state_of_the_art().loc["pairs ahead"].iloc[2:].astype(int).tolist()
    [2, 4, 3, 2, 3, 5]
    """
    if table not in (2, 4):
        raise ValueError(f"table must be 2 or 4, the tables with published systems, not {table!r}")
    cells = paper.table2() if table == 2 else paper.table4()
    pairs = list(cells[PAIR].drop_duplicates().itertuples(index=False, name=None))
    wide = cells.pivot(index=PAIR, columns=["method", "k"], values="accuracy").loc[pairs]
    published = wide.loc[:, wide.columns.get_level_values("k") == 0].droplevel("k", axis=1)
    selected = wide["tsns" if table == 2 else "multi_tsns"]
    ahead = selected.sub(published.max(axis=1), axis=0).round(1).add_prefix("K=")
    ahead["K chosen on the target"] = ahead.max(axis=1)
    best = pd.DataFrame({"published": published.max(axis=1), "system": published.idxmax(axis=1)})
    compared = best.join(ahead)
    compared.index = pd.Index([" → ".join(pair) for pair in pairs], name="source → target")
    compared.loc["pairs ahead"] = [np.nan, "", *(ahead > 0).sum()]
    return compared


def binomial_error(accuracy: float, n: int) -> float:
    """Standard error, in points, of an accuracy in percent measured on n rows.

    Examples
    --------
    >>> round(binomial_error(81.5, 2_000), 2), round(binomial_error(50.0, 2_000), 2)
    (0.87, 1.12)
    """
    return float(np.sqrt(accuracy * (100 - accuracy) / n))


def ranges() -> pd.DataFrame:
    """Look for the two ranges that the text names for Table 5, under every plain reading of it.

    The gain of each combination of sources, column by column and with the best cell of each: over single sources
    ("3.5 to 9.5"; the best of its members, or QQP), and over the last layer ("3.8 to 13.0").
    """
    cells = paper.table5()
    cells = cells.assign(column=_columns(cells))
    wide = cells.pivot(index="source", columns="column", values="accuracy")[cells["column"].unique()]
    last, selected = wide.iloc[:, 0], wide.iloc[:, 1:]
    selected = selected.assign(**{"best cell of each": selected.max(axis=1)})
    members = cells.drop_duplicates("source").set_index("source")["members"]
    unions = [source for source in wide.index if len(members[source]) > 1]
    best_member = {union: selected[selected.index.isin(members[union])].max() for union in unions}
    combined = selected.loc[unions]
    comparisons = [
        ("the best single source combined", combined - pd.DataFrame(best_member).T, 3.5, 9.5),
        ("QQP, a part of every combination", combined - selected.loc["qqp"], 3.5, 9.5),
        ("the last layer", combined.sub(last[unions], axis=0), 3.8, 13.0),
    ]
    rows = []
    for name, gain, low, high in comparisons:
        for reading, values in gain.round(1).items():
            ends = (float(values.min()), float(values.max()))
            rows.append((name, reading, f"{low} to {high}", *ends, _word(ends == (low, high))))
    columns = ["compared with", "reading", "printed", "lowest", "highest", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def best_sources() -> pd.DataFrame:
    """Check which source the cells name as the best for a target, against the text (§4.4, Tables 2 and 3)."""
    two, three = paper.table2(), paper.table3().dropna(subset=["accuracy"])
    two = two[(two["method"] == "tsns") & (two["k"] == 500)]
    three = three[three["method"] == "tsns"].groupby(PAIR, as_index=False)["accuracy"].max()
    named = {"books": "dvd", "dvd": "books", "kitchen": "electronics", "electronics": "kitchen"}
    stated = [("Table 2, K=500", two, target, {source}) for target, source in named.items()]
    stated += [("Table 3, best K", three, "scitail", {"mnli", "qqp"})]
    stated += [("Table 3, best K", three, "qqp", {"mnli", "scitail"})]
    rows = []
    for table, cells, target, names in stated:
        ranked = cells[cells["target"] == target].sort_values("accuracy", ascending=False)
        ranking = [f"{s} {a:.1f}" for s, a in zip(ranked["source"], ranked["accuracy"], strict=True)]
        is_right = set(ranked["source"].iloc[: len(names)]) == names
        rows.append((table, target, ", ".join(sorted(names)), " > ".join(ranking), _word(is_right)))
    return pd.DataFrame(rows, columns=["table", "target", "stated", "recomputed", "verdict"])


def below_majority(shares: Mapping[str, float], counted: Mapping[str, int]) -> pd.DataFrame:
    """Count the cells of Table 3 below the larger class of their target, whose percentage `shares` gives.

    `counted` holds targets of which only a part of the corpus is here, and its number of rows: "surely below" counts
    the cells below the lower end of the share's 95 % interval.
    """
    cells = paper.table3().dropna(subset=["accuracy"])
    rows = []
    for target, share in shares.items():
        values = cells.loc[cells["target"] == target, "accuracy"]
        least = share - (1.96 * binomial_error(share, counted[target]) if target in counted else 0)
        below, surely = (int((values < level).sum()) for level in (share, least))
        rows.append((target, share, least, len(values), below, surely, values.max()))
    columns = ["target", "larger class", "at least", "cells", "below", "surely below", "best cell"]
    return pd.DataFrame(rows, columns=columns).round(1)


def findings(below: pd.DataFrame) -> list[str]:
    """What a reader of the printed tables should know before comparing with them: sentences written from the cells."""
    (qqp,) = below.set_index("target").loc[["qqp"]].to_dict("records")
    alike = coincidences()
    alike = alike[alike["table"].str.startswith("Table 4")]
    last = averages().set_index(["table", "column"]).loc[("Table 2", "last layer")]
    gain = gains().set_index("gain").loc["TSNS K=500 over the last layer"]
    choices = ["K chosen on the target", "K=500"]
    (two, two_500), (four, four_500) = (state_of_the_art(n).loc["pairs ahead", choices].astype(int) for n in (2, 4))
    return [
        f"{qqp['below']} of the {qqp['cells']} accuracies printed for QQP in Table 3 lie below "
        f"{qqp['larger class']:.1f} %, the share of its larger class here ({qqp['surely below']} lie below "
        f"{qqp['at least']:.1f} %, the lower end of its interval): always answering “no duplicate” does better.",
        f"In all {len(alike)} rows of Table 4, 1,024 neurons selected from all layers are as accurate as the 1,024 of "
        f"the last layer, to {alike['difference'].abs().max():.1f} points.",
        f"The last layer's average of Table 2 is printed as {last['printed']}, its cells give {last['recomputed']}; so "
        f"the gain of 500 neurons is {gain['recomputed']} points and not {gain['printed']}, in the paper's favour.",
        f"Selected neurons beat every published system in {two} of 12 pairs and {four} of 4 scenarios where K is "
        f"chosen for each on its target, as the paper does; with one K, 500, they do in {two_500} and {four_500}.",
    ]


def coincidences() -> pd.DataFrame:
    """Columns that stand for two different choices of neurons, or of rows, and yet print the same accuracies."""
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
    table = pd.DataFrame(rows, columns=["table", "where", "one", "other"])
    return table.assign(difference=(table["one"] - table["other"]).round(1))


def shared_cells() -> pd.DataFrame:
    """Set the single sources to SciTail, which stand in Tables 3 and 5 (L = 200,000), side by side."""
    five = paper.table5()
    five = five[five["budget"] == MULTI_BUDGET].replace({"method": {"multi_tsns": "tsns"}})
    both = paper.table3().merge(five, on=[*PAIR, "method", "k"], suffixes=("_3", "_5"), how="inner")
    columns = [label(method, k) for method, k in zip(both["method"], both["k"], strict=True)]
    values = {"table 3": both["accuracy_3"], "table 5": both["accuracy_5"]}
    table = pd.DataFrame({"source": both["source"], "column": columns} | values)
    return table.assign(difference=(table["table 5"] - table["table 3"]).round(1))


def statements() -> pd.DataFrame:
    """What the paper states of its own tables, and how much of it follows from the printed cells.

    `stated` counts the figures, marks or pairs that a statement is about, `follow` those that follow; it holds if
    all of them do.
    """
    mean, mark, gain, span, best = averages(), marks(), gains(), ranges(), best_sources()
    is_table5 = mark["table"] == 5
    ahead2, ahead4 = (state_of_the_art(table).loc["pairs ahead", "K chosen on the target"] for table in (2, 4))
    counts = printed_counts()
    one_reading = span.assign(holds=span["verdict"] == HOLDS).groupby("printed")["holds"].any()
    counted: list[tuple[str, int, Any]] = [
        ("averages_table2", 10, _following(mean[mean["table"] == "Table 2"])),
        ("averages_table4", 7, _following(mean[mean["table"] == "Table 4"])),
        ("bold_tables2_to_4", (~is_table5).sum(), _following(mark[~is_table5])),
        ("marks_table5", is_table5.sum(), _following(mark[is_table5])),
        ("state_of_the_art_pairs", 5, ahead2),
        ("state_of_the_art_scenarios", 4, ahead4),
        ("average_gains", len(gain), _following(gain)),
        ("ranges_table5", len(one_reading), one_reading.sum()),
        ("best_sources", len(best), _following(best)),
        ("official_counts", len(counts), (counts["paper"] == counts["official"]).sum()),
    ]
    known = {claim.id: claim for claim in paper.CLAIMS}
    rows = []
    for name, stated, follow in counted:
        about = known[f"audit.{name}"]
        rows.append((about.id, about.paper_ref, about.statement, int(stated), int(follow), _word(follow == stated)))
    return pd.DataFrame(rows, columns=["claim", "where", "statement", "stated", "follow", "verdict"])


def audit_answer(stated: pd.DataFrame) -> str:
    """Say in two sentences how much of what the paper states of its own tables follows from them."""
    held = stated["verdict"] == HOLDS
    partly = ", ".join(f"{row.follow} of {row.stated} ({row.where})" for row in stated[~held].itertuples())
    all_follow = f"Of {len(stated)} statements about its own tables, {held.sum()} follow from the printed cells."
    return f"{all_follow} Of the others, there follow {partly}."


def audit_figure(stated: pd.DataFrame) -> Figure:
    """Draw the `statements`, a bar each: what share of the stated figures, marks or pairs follows from the cells."""
    rows = stated.iloc[::-1]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9.2, 1.1 + 0.4 * len(rows)), layout="constrained")
        axes.barh(range(len(rows)), 100, color="#EEEEEE", height=0.62)
        share = 100 * rows["follow"] / rows["stated"]
        axes.barh(
            range(len(rows)), share, color=[BLUE if held else ORANGE for held in rows["verdict"] == HOLDS], height=0.62
        )
        for height, row in enumerate(rows.itertuples()):
            axes.text(101, height, f"{row.follow} of {row.stated}", va="center", fontsize=9)
        axes.set_yticks(range(len(rows)), [textwrap.fill(text, 62) for text in rows["statement"]])
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(0, 112), xlabel="follows from the printed cells (%)")
        handles = [Patch(color=color, label=word) for word, color in ((HOLDS, BLUE), (DOES_NOT_HOLD, ORANGE))]
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=2, frameon=False)
        axes.set_title("What the paper states of its own tables", loc="left")
    return finish(figure)


def audit_claims(stated: pd.DataFrame) -> list[dict[str, Any]]:
    """Judge the `statements` for the scoreboard; the estimate, and both ends of its interval, is how many follow."""
    return [claim(name, n, n, n) for name, n in zip(stated["claim"], stated["follow"].tolist(), strict=True)]


def _word(holds: bool) -> str:
    return HOLDS if holds else DOES_NOT_HOLD


def _following(table: pd.DataFrame) -> int:
    return int((table["verdict"] == HOLDS).sum())


def _columns(cells: pd.DataFrame) -> list[str]:
    """Name the column of each cell, as "TSNS K=500"; in Table 5 with its budget L."""
    budgets = cells["budget"] if "budget" in cells else [None] * len(cells)
    columns = zip(cells["method"], cells["k"], budgets, strict=True)
    return [label(method, k) + (f", L={budget:,}" if budget else "") for method, k, budget in columns]


def _marked(cells: pd.DataFrame, flag: str) -> tuple[str, str, str]:
    """The marked cells of one row or column, its best ones, and whether they are the same; empty without cells."""
    values = cells["accuracy"].to_numpy(dtype=float)
    if np.isnan(values).all():
        return "", "", ""
    is_marked = cells[flag].to_numpy(dtype=bool)
    is_best = values == np.nanmax(values)
    written = np.array([f"{value} ({place})" for value, place in zip(values, cells["place"], strict=True)])
    return "; ".join(written[is_marked]) or "none", "; ".join(written[is_best]), _word((is_marked == is_best).all())
