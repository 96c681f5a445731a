"""What the paper says of each table of accuracies, judged on a grid.

Small tables for reading: what was loaded, averages by K, controls, stability, fingerprints.

Table 5's budgets of rows: scaled to the rows there are, beside the paper's, and drawn.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from tsns_lib.fingerprints import fingerprint
from tsns_workbook.plots import INK, STYLE, finish
from tsns_workbook.report import (  # noqa: F401
    METHOD_LABELS,
    bare,
    beside_paper,
    caption,
    claim,
    encoder_table,
    label,
    sources_table,
    verdict,
)
from tsns_workbook.statistics import Key, accuracy_table, contest, difference, margin, wins

# §4.4; tables 2 and 3
BEST_FOR = {
    "table2": {"books": ["dvd"], "dvd": ["books"], "kitchen": ["electronics"], "electronics": ["kitchen"]},
    "table3": {"scitail": ["mnli", "qqp"], "qqp": ["mnli", "scitail"]},
}
EXTERNAL = ["table2.state_of_the_art_pairs", "table2.state_of_the_art_average", "table4.state_of_the_art"]


def table2_claims(grid: pd.DataFrame, chosen: Key, last: Key, *, seed: int = 0) -> list[dict[str, Any]]:
    """Judge what the paper says of Table 2.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_lib.transfer_grid` gives it, on the paper's corpora or their generated counterparts.
    chosen, last : (method, k)
        The selection that the claims are about, and the last layer.
    seed : int
        Seed of the resampled target rows.

    Returns
    -------
    list of dict
        As `report.claim` gives them.
    """
    return [
        claim("table2.gain", *difference(grid, chosen, last, seed=seed)),
        claim("table2.wins", *wins(grid, chosen, last, seed=seed)),
        *_best_sources("table2", grid, chosen, seed),
        *_external("table2"),
    ]


def table3_claims(grid: pd.DataFrame, chosen: Key, last: Key, *, seed: int = 0) -> list[dict[str, Any]]:
    """Judge what the paper says of Table 3. Parameters and Returns as in `table2_claims`."""
    pairs = list(grid[["source", "target"]].drop_duplicates().itertuples(index=False, name=None))
    gains = [
        claim(
            f"table3.gain_{target}",
            *difference(grid, chosen, last, [pair for pair in pairs if bare(pair[1]) == target], seed=seed),
        )
        for target in BEST_FOR["table3"]
    ]
    return [*gains, *_best_sources("table3", grid, chosen, seed)]


def table4_claims(grid: pd.DataFrame, chosen: Key, last: Key, *, seed: int = 0) -> list[dict[str, Any]]:
    """Judge what the paper says of Table 4. Parameters and Returns as in `table2_claims`."""
    return [claim("table4.gain", *difference(grid, chosen, last, seed=seed)), *_external("table4")]


def table5_claims(grid: pd.DataFrame, k: int, last: Key, *, seed: int = 0) -> list[dict[str, Any]]:
    """Judge what the paper says of Table 5, on the grid of one budget.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_lib.transfer_grid` gives it, with single sources ("tsns") and combinations ("multi_tsns").
    k : int
        K of the selection that the claims are about.
    last : (method, k)
        The last layer.
    seed : int
        Seed of the resampled target rows.

    Returns
    -------
    list of dict
        As `report.claim` gives them.
    """
    (target,) = grid["target"].unique()
    cells = {
        source: (source, target, "multi_tsns" if "+" in source else "tsns", k) for source in grid["source"].unique()
    }
    combined = [source for source in cells if "+" in source]
    against_members = [
        ([cells[source]], [cells[member] for member in source.split("+") if member in cells]) for source in combined
    ]
    with_rte = [sides for sides in against_members if bare(sides[0][0][0]) == "qqp+rte"]
    pairs = [(source, target) for source in combined]
    return [
        claim("table5.gain", *difference(grid, ("multi_tsns", k), last, pairs, seed=seed)),
        claim("table5.over_single", *contest(grid, against_members, seed=seed)),
        claim("table5.small_source_helps", *contest(grid, with_rte, seed=seed)),
    ]


def _best_sources(table: str, grid: pd.DataFrame, chosen: Key, seed: int) -> list[dict[str, Any]]:
    full = {bare(name): name for name in [*grid["source"], *grid["target"]]}
    return [
        claim(
            f"{table}.best_for_{target}",
            *margin(grid, [full[source] for source in sources], full[target], chosen, seed=seed),
        )
        for target, sources in BEST_FOR[table].items()
    ]


def _external(table: str) -> list[dict[str, Any]]:
    return [claim(id) for id in EXTERNAL if id.startswith(table)]


def literature_table(paper: pd.DataFrame) -> pd.DataFrame:
    """The published systems that the paper compares with, as it prints them.

    Parameters
    ----------
    paper : pandas.DataFrame
        One of `paper.table2` or `paper.table4`.

    Returns
    -------
    pandas.DataFrame
        Pairs down, systems across, percent.
    """
    rows = paper[paper["k"] == 0].dropna(subset=["accuracy"])
    pair = rows["source"] + " → " + rows["target"]
    return rows.assign(pair=pair).pivot_table(index="pair", columns="method", values="accuracy", sort=False)


def average_by_k(averages: pd.DataFrame) -> pd.DataFrame:
    """Averages over the pairs with their intervals: methods down, K across.

    Parameters
    ----------
    averages : pandas.DataFrame
        As `statistics.average_table` gives it.

    Returns
    -------
    pandas.DataFrame
        Strings such as "73.9 (73.1 to 74.8)"; a method of one size stands in its own column.
    """
    text = [
        f"{accuracy:.1f} ({low:.1f} to {high:.1f})"
        for accuracy, low, high in averages[["accuracy", "low", "high"]].itertuples(index=False)
    ]
    sized = averages.groupby("method")["k"].transform("nunique") > 1
    column = ("K=" + averages["k"].astype(str)).where(sized, "one size")
    names = list(METHOD_LABELS.values())
    methods = pd.Categorical(averages["method"].map(METHOD_LABELS), names, ordered=True)
    cells = averages.assign(text=text, method=methods, column=column)
    columns = list(dict.fromkeys(column[sized])) + ["one size"]
    wide = cells.pivot(index="method", columns="column", values="text")
    return wide.reindex(columns=columns).fillna("").rename_axis(index=None, columns=None)


def controls_table(grid: pd.DataFrame, chosen: Key, *, seed: int = 0) -> pd.DataFrame:
    """Compare the chosen selection with every baseline, on average over the pairs.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_lib.transfer_grid` gives it.
    chosen : (method, k)
        Such as ("tsns", 500).
    seed : int
        Seed of the resampled target rows.

    Returns
    -------
    pandas.DataFrame
        `baseline`, `gain`, `low`, `high` in points, and the `verdict` on "the selection beats it" ("holds",
        "direction only", "does not hold").
    """
    words = {"reproduced": "holds", "not reproduced": "does not hold"}
    keys = grid[["method", "k"]].drop_duplicates().itertuples(index=False, name=None)
    sized = set(grid.loc[grid["k"] == chosen[1], "method"])
    rows = []
    for method, k in keys:
        if method != chosen[0] and (k == chosen[1] or method not in sized):
            gain = difference(grid, chosen, (method, k), seed=seed)
            judged = verdict(*gain)
            points = (round(value, 1) + 0.0 for value in gain)  # + 0.0: no minus before a zero
            rows.append((label(method, k), *points, words.get(judged, judged)))
    return pd.DataFrame(rows, columns=["baseline", "gain", "low", "high", "verdict"])


def stability_table(grid: pd.DataFrame) -> pd.DataFrame:
    """Share of the K chosen neurons that two halves of the resamples have in common, and how many those were.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_lib.transfer_grid` gives it.

    Returns
    -------
    pandas.DataFrame
        Sources down, K across: the mean of the runs, and the fewest and most resamples of a run; the last row is
        what two random choices would share.
    """
    rows = grid.dropna(subset=["stability"])
    n_neurons = int(grid.loc[grid["method"] == "all", "k"].iloc[0])
    table = rows.pivot_table(index="source", columns="k", values="stability", sort=False)
    table.loc["by chance"] = [k / n_neurons for k in table.columns]
    used = rows.groupby("source", sort=False)["resamples"].agg(["min", "max"])
    table = table.rename(columns=lambda k: f"K={k}").round(2)
    return table.assign(resamples=[f"{used.at[name, 'min']} to {used.at[name, 'max']}" for name in used.index] + [""])


def alpha_table(grid: pd.DataFrame) -> pd.DataFrame:
    """Which α the learners of MultiTSNS chose, and how large the two terms of equation 1 are.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_lib.transfer_grid` gives it.

    Returns
    -------
    pandas.DataFrame
        One row for each combination of sources: the medians over learners, runs and K of E(q) and of E(q)/(σ(q)+ε)
        of the median neuron, and how often each 1 - α was chosen.
    """
    learned = grid.dropna(subset=["alphas"]).groupby("source", sort=False)
    terms = {
        source: [f"{value:.1e}" for value in np.median(np.concatenate(found["term_medians"].tolist()), axis=0)]
        for source, found in learned
    }
    counts = {
        source: pd.Series(1 - np.concatenate(found["alphas"].tolist())).round(9).value_counts()
        for source, found in learned
    }
    chosen = pd.DataFrame(counts).T.fillna(0).astype(int).sort_index(axis=1).rename(columns="1 - α = {:g}".format)
    medians = pd.DataFrame.from_dict(terms, orient="index", columns=["median E(q)", "median E(q)/(σ+ε)"])
    return medians.join(chosen)


def fingerprint_table(grid: pd.DataFrame, chosen: Key, encoder: Any) -> pd.DataFrame:
    """Fingerprint of every source, mean of the runs.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_lib.transfer_grid` gives it.
    chosen : (method, k)
        Such as ("tsns", 500).
    encoder : Encoder
        Whose neurons they are.

    Returns
    -------
    pandas.DataFrame
        Columns `source`, `layer` (from 1), `share` (percent).
    """
    rows = grid[(grid["method"] == chosen[0]) & (grid["k"] == chosen[1])].drop_duplicates(["source", "run"])
    shares = [
        (source, layer, 100 * share)
        for source, selected in zip(rows["source"], rows["selected"], strict=True)
        for layer, share in enumerate(fingerprint(selected, encoder.n_layers, encoder.n_neurons), start=1)
    ]
    frame = pd.DataFrame(shares, columns=["source", "layer", "share"])
    return frame.groupby(["source", "layer"], sort=False, as_index=False)["share"].mean()


def budget_table(sources: Sequence[Any], counts: pd.DataFrame, budgets: Sequence[int]) -> pd.DataFrame:
    """The paper's budgets, scaled by the share of the paper's rows that the loaded sources have.

    Parameters
    ----------
    sources : sequence of Source
        Every source of the table.
    counts : pandas.DataFrame
        `paper.table1()`.
    budgets : sequence of int
        L, the paper's most rows in all.

    Returns
    -------
    pandas.DataFrame
        Indexed by L: `rows here` (the scaled budget) and the `scale`.
    """
    training = counts.set_index("source")["training"]
    scale = sum(source.n_rows for source in sources) / int(sum(training[bare(source.name)] for source in sources))
    rows = [{"L": budget, "rows here": round(budget * scale), "scale": round(scale, 4)} for budget in budgets]
    return pd.DataFrame(rows).set_index("L")


def as_multi(grid: pd.DataFrame) -> pd.DataFrame:
    """Name the selection from a single source as the paper's Table 5 does: MultiTSNS with one source."""
    return grid.assign(method=grid["method"].replace("tsns", "multi_tsns"))


def accuracy_by_budget(grids: Mapping[int, pd.DataFrame], k: int, *, seed: int = 0) -> pd.DataFrame:
    """Accuracy of the selection and of its baselines at one K, for every budget.

    Parameters
    ----------
    grids : mapping of int to pandas.DataFrame
        A transfer grid for each L.
    k : int
        K.
    seed : int
        Seed of the resampled target rows.

    Returns
    -------
    pandas.DataFrame
        As `statistics.accuracy_table`, with the column `budget` in front.
    """
    tables = []
    for budget, grid in grids.items():
        table = accuracy_table(as_multi(grid), seed=seed)
        of_one_size = table["method"].isin(["last_layer", "all", "majority"])
        table.insert(0, "budget", budget)
        tables.append(table[of_one_size | (table["k"] == k)])
    return pd.concat(tables, ignore_index=True)


def budgets_beside_paper(grids: Mapping[int, pd.DataFrame], paper: pd.DataFrame, k: int) -> pd.DataFrame:
    """Ours beside the paper's at one K, a block of columns for each budget.

    Parameters
    ----------
    grids : mapping of int to pandas.DataFrame
        A transfer grid for each L.
    paper : pandas.DataFrame
        `paper.table5()`.
    k : int
        K.

    Returns
    -------
    pandas.DataFrame
        As `report.beside_paper`; the columns' first level is L.
    """
    blocks = {
        f"L={budget:,}": beside_paper(
            as_multi(grid), paper[paper["budget"] == budget], columns=[("multi_tsns", k)]
        ).droplevel(0, axis=1)
        for budget, grid in grids.items()
    }
    return pd.concat(blocks, axis=1)


def plot_by_budget(accuracies: pd.DataFrame, rows: pd.DataFrame) -> Figure:
    """Draw the accuracy of every combination of sources against the rows it was given.

    Parameters
    ----------
    accuracies : pandas.DataFrame
        As `accuracy_by_budget` gives it.
    rows : pandas.DataFrame
        As `budget_table` gives it.

    Returns
    -------
    matplotlib.figure.Figure
        The legend is ordered as the lines end, best first; the majority class is dotted.
    """
    found = accuracies[accuracies["method"] == "multi_tsns"].copy()
    found["rows"] = found["budget"].map(rows["rows here"])
    found["combination"] = found["source"].map(bare)
    order = found[found["rows"] == found["rows"].max()].sort_values("accuracy", ascending=False)["combination"].tolist()
    majority = accuracies.loc[accuracies["method"] == "majority", "accuracy"].iloc[0]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.2, 4.6), layout="constrained")
        sns.lineplot(
            found, x="rows", y="accuracy", hue="combination", style="combination", hue_order=order, style_order=order,
            markers=True, dashes=False, palette="colorblind", ax=axes,
        )  # fmt: skip
        axes.axhline(majority, color=INK, linestyle=":", linewidth=1.2, label=f"majority class: {majority:.1f}")
        ticks = sorted(found["rows"].unique())
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set(xlabel="rows of all sources together", ylabel="accuracy (%)")
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        axes.set_title(caption("Transfer to SciTail by the budget of rows", found["source"]), loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return finish(figure)
