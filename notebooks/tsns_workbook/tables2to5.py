"""Tables 2 to 5: what the paper says of each, judged on a transfer grid, and the small tables beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from tsns_lib.fingerprints import fingerprint
from tsns_workbook.plots import INK, STYLE, finish
from tsns_workbook.report import (
    METHOD_LABELS,
    ONE_SIZE,
    OUR_WORDS,
    Key,
    beside_paper,
    caption,
    claim,
    label,
    short_name,
    verdict,
)
from tsns_workbook.statistics import CELL, Bootstrap, accuracy_table, contest, difference, margin, wins

# §4.4; tables 2 and 3
BEST_FOR = {
    "table2": {"books": ["dvd"], "dvd": ["books"], "kitchen": ["electronics"], "electronics": ["kitchen"]},
    "table3": {"scitail": ["mnli", "qqp"], "qqp": ["mnli", "scitail"]},
}
CLAIMED_K = 500  # what the paper claims, it claims of this many neurons
CLAIMED_L = 200_000  # and in Table 5 of this many rows


# the paper's claims


def table2_claims(boot: Bootstrap, chosen: Key, last: Key) -> list[dict[str, Any]]:
    """Judge what the paper says of Table 2: chosen is the selection that the claims are about, last the last layer.

    A claim is not testable without a domain that it is about, or with another K than the paper's.
    """
    pairs = [pair for pair in boot.pairs if set(map(short_name, pair)) <= BEST_FOR["table2"].keys()]
    whole = len(pairs) == 12 and chosen[1] == CLAIMED_K
    return [
        claim("table2.gain", *difference(boot, chosen, last, pairs)) if whole else claim("table2.gain"),
        claim("table2.wins", *wins(boot, chosen, last, pairs)) if whole else claim("table2.wins"),
        *_best_sources("table2", boot, chosen),
        claim("table2.state_of_the_art_pairs"),
        claim("table2.state_of_the_art_average"),
    ]


def table3_claims(boot: Bootstrap, chosen: Key, last: Key) -> list[dict[str, Any]]:
    """Judge what the paper says of Table 3; not testable without the target, or with another K than the paper's."""
    pairs = {target: [pair for pair in boot.pairs if short_name(pair[1]) == target] for target in BEST_FOR["table3"]}
    gains = [
        claim(f"table3.gain_{target}", *difference(boot, chosen, last, pairs[target]))
        if pairs[target] and chosen[1] == CLAIMED_K
        else claim(f"table3.gain_{target}")
        for target in pairs
    ]
    return [*gains, *_best_sources("table3", boot, chosen)]


def table4_claims(boot: Bootstrap, chosen: Key, last: Key) -> list[dict[str, Any]]:
    """Judge what the paper says of Table 4; not testable with other domains, or with another K than the paper's."""
    whole = {short_name(target) for _, target in boot.pairs} == BEST_FOR["table2"].keys() and chosen[1] == CLAIMED_K
    gain = claim("table4.gain", *difference(boot, chosen, last)) if whole else claim("table4.gain")
    return [gain, claim("table4.state_of_the_art")]


def table5_claims(boot: Bootstrap, k: int, last: Key) -> list[dict[str, Any]]:
    """Judge what the paper says of Table 5, on the grid of one budget, with single sources and combinations.

    Not testable is a claim about combinations of which none is here, or none of their members alone.
    """
    (target,) = boot.grid["target"].unique()
    names = dict(zip(boot.grid["members"], boot.grid["source"], strict=True))
    cells = {
        members: (name, target, "multi_tsns" if len(members) > 1 else "tsns", k) for members, name in names.items()
    }
    combined = [members for members in cells if len(members) > 1]
    against_members = {
        members: ([cells[members]], [cells[member,] for member in members if (member,) in cells])
        for members in combined
    }
    sides = {members: both for members, both in against_members.items() if both[1]}
    with_rte = [both for members, both in sides.items() if {*map(short_name, members)} == {"qqp", "rte"}]
    pairs = [(names[members], target) for members in combined]
    gain = difference(boot, ("multi_tsns", k), last, pairs) if pairs else ()
    return [
        claim("table5.gain", *gain),
        claim("table5.over_single", *(contest(boot, list(sides.values())) if sides else ())),
        claim("table5.small_source_helps", *(contest(boot, with_rte) if with_rte else ())),
    ]


def _best_sources(table: str, boot: Bootstrap, chosen: Key) -> list[dict[str, Any]]:
    """Not testable without the target, without the claimed best sources, or without another source."""
    claims = []
    for target, best in BEST_FOR[table].items():
        tried = {short_name(pair[0]): pair for pair in boot.pairs if short_name(pair[1]) == target}
        id = f"{table}.best_for_{target}"
        if set(best) < tried.keys():
            names = [tried[source][0] for source in best]
            claims.append(claim(id, *margin(boot, names, tried[best[0]][1], chosen)))
        else:
            claims.append(claim(id))
    return claims


# small tables for reading


def literature_table(paper: pd.DataFrame) -> pd.DataFrame:
    """The published systems of `paper.table2` or `paper.table4` in percent: pairs down, systems across."""
    rows = paper[paper["k"] == 0].dropna(subset=["accuracy"])
    pair = rows["source"] + " → " + rows["target"]
    return rows.assign(pair=pair).pivot_table(index="pair", columns="method", values="accuracy", sort=False)


def average_by_k(averages: pd.DataFrame) -> pd.DataFrame:
    """Averages over the pairs as text, "73.9 (73.1 to 74.8)": methods down, K across, methods of one size apart."""
    text = [
        f"{accuracy:.1f} ({low:.1f} to {high:.1f})"
        for accuracy, low, high in averages[["accuracy", "low", "high"]].itertuples(index=False)
    ]
    sized = averages.groupby("method")["k"].transform("nunique") > 1
    column = ("K=" + averages["k"].astype(str)).where(sized, "one size")
    methods = pd.Categorical(averages["method"].map(METHOD_LABELS), list(METHOD_LABELS.values()), ordered=True)
    cells = averages.assign(text=text, method=methods, column=column)
    columns = list(dict.fromkeys(column[sized])) + ["one size"]
    wide = cells.pivot(index="method", columns="column", values="text")
    return wide.reindex(columns=columns).fillna("").rename_axis(index=None, columns=None)


def controls_table(boot: Bootstrap, chosen: Key) -> pd.DataFrame:
    """Compare the chosen selection with every baseline, mean over the pairs.

    Columns baseline; gain, low, high (points); and the verdict on "the selection beats it".
    """
    keys = boot.point.index.droplevel(["source", "target"]).unique()
    sized = {method for method, k in keys if k == chosen[1]}
    rows = []
    for method, k in keys:
        if method != chosen[0] and (k == chosen[1] or method not in sized):
            gain = difference(boot, chosen, (method, k))
            rows.append((label(method, k), *gain.rounded(), OUR_WORDS[verdict(*gain)]))
    return pd.DataFrame(rows, columns=["baseline", "gain", "low", "high", "verdict"])


def stability_table(grid: pd.DataFrame) -> pd.DataFrame:
    """Share of the K chosen neurons on which two halves of the resamples agree: sources down, K across.

    Shares are the mean of the runs; beside them the fewest and most resamples of a run, below them what two random
    choices would share.
    """
    rows = grid.dropna(subset=["stability"])
    rows = rows.assign(source=rows["source"].map(short_name))
    n_neurons = int(grid.loc[grid["method"] == "all", "k"].iloc[0])
    table = rows.pivot_table(index="source", columns="k", values="stability", sort=False)
    table.loc["by chance"] = [k / n_neurons for k in table.columns]
    used = rows.groupby("source", sort=False)["resamples"].agg(["min", "max"])
    table = table.rename(columns=lambda k: f"K={k}").round(2)
    return table.assign(resamples=[f"{used.at[name, 'min']} to {used.at[name, 'max']}" for name in used.index] + [""])


def alpha_table(grid: pd.DataFrame) -> pd.DataFrame:
    """Which α the learners of MultiTSNS chose, and how large the two terms of equation 1 are, by combination.

    The medians over learners, runs and K of E(q) and of E(q)/(σ(q)+ε) of the median neuron, and how often each 1 - α
    was chosen.
    """
    terms, counts = {}, {}
    for source, rows in grid.dropna(subset=["alphas"]).groupby(grid["source"].map(short_name), sort=False):
        medians = np.median(np.concatenate(rows["term_medians"].tolist()), axis=0)
        terms[source] = [f"{value:.1e}" for value in medians]
        counts[source] = pd.Series(1 - np.concatenate(rows["alphas"].tolist())).round(9).value_counts()
    chosen = pd.DataFrame(counts).T.fillna(0).astype(int).sort_index(axis=1).rename(columns="1 - α = {:g}".format)
    medians = pd.DataFrame.from_dict(terms, orient="index", columns=["median E(q)", "median E(q)/(σ+ε)"])
    return medians.join(chosen)


def fingerprint_table(grid: pd.DataFrame, chosen: Key, encoder: Any) -> pd.DataFrame:
    """Fingerprint of every source, mean of the runs: source, layer (from 1), share (percent)."""
    rows = grid[(grid["method"] == chosen[0]) & (grid["k"] == chosen[1])].drop_duplicates(["source", "run"])
    shares = [
        (source, layer, 100 * share)
        for source, selected in zip(rows["source"], rows["selected"], strict=True)
        for layer, share in enumerate(fingerprint(selected, encoder.n_layers, encoder.n_neurons), start=1)
    ]
    frame = pd.DataFrame(shares, columns=["source", "layer", "share"])
    return frame.groupby(["source", "layer"], sort=False, as_index=False)["share"].mean()


# the budgets of Table 5


def budget_table(sources: Sequence[Any], counts: pd.DataFrame, budgets: Sequence[int]) -> pd.DataFrame:
    """The paper's budgets L, scaled by the share of the paper's rows (`paper.table1`) that the loaded sources have."""
    if CLAIMED_L not in budgets:
        raise ValueError(f"budgets: {CLAIMED_L} must be among them, as the claims are about it; got {list(budgets)}")
    training = counts.set_index("source")["training"]
    scale = sum(source.n_rows for source in sources) / int(sum(training[short_name(source.name)] for source in sources))
    rows = [{"L": budget, "rows here": round(budget * scale), "scale": round(scale, 4)} for budget in budgets]
    return pd.DataFrame(rows).set_index("L")


def as_multi(boot: Bootstrap) -> Bootstrap:
    """Put the selection from a single source under the method "multi_tsns", as the paper's Table 5 does."""
    names = {"tsns": "multi_tsns"}
    cells = pd.MultiIndex.from_frame(boot.point.index.to_frame(index=False).replace({"method": names}), names=CELL)
    grid = boot.grid.assign(method=boot.grid["method"].replace(names))
    return replace(boot, grid=grid, point=boot.point.set_axis(cells), draws=boot.draws.set_axis(cells, axis=1))


def accuracy_by_budget(boots: Mapping[int, Bootstrap], k: int) -> pd.DataFrame:
    """`statistics.accuracy_table` of every budget, at one K and for the methods of one size; `budget` in front."""
    tables = []
    for budget, boot in boots.items():
        table = accuracy_table(boot)
        table.insert(0, "budget", budget)
        tables.append(table[table["method"].isin(ONE_SIZE) | (table["k"] == k)])
    return pd.concat(tables, ignore_index=True)


def budgets_beside_paper(boots: Mapping[int, Bootstrap], paper: pd.DataFrame, k: int) -> pd.DataFrame:
    """Ours beside `paper.table5` at one K, a block of columns for each budget."""
    blocks = {
        f"L={budget:,}": beside_paper(boot.grid, paper[paper["budget"] == budget], columns=[("multi_tsns", k)])
        for budget, boot in boots.items()
    }
    return pd.concat({name: block.droplevel(0, axis=1) for name, block in blocks.items()}, axis=1)


def plot_by_budget(accuracies: pd.DataFrame, rows: pd.DataFrame, *, generated: bool) -> Figure:
    """Draw the accuracy of every combination of sources against the rows it was given.

    `accuracies` is as `accuracy_by_budget` gives it, `rows` as `budget_table` does. The legend is ordered as the lines
    end, best first; the majority class is dotted.
    """
    combinations = accuracies[accuracies["method"] == "multi_tsns"]
    combinations = combinations.assign(
        rows=combinations["budget"].map(rows["rows here"]), combination=combinations["source"].map(short_name)
    )
    ticks = sorted(combinations["rows"].unique())
    order = combinations[combinations["rows"] == ticks[-1]].sort_values("accuracy", ascending=False)["combination"]
    majority = accuracies.loc[accuracies["method"] == "majority", "accuracy"].iloc[0]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.2, 4.6), layout="constrained")
        sns.lineplot(
            combinations, x="rows", y="accuracy", hue="combination", style="combination", hue_order=list(order),
            style_order=list(order), markers=True, dashes=False, palette="colorblind", ax=axes,
        )  # fmt: skip
        axes.axhline(majority, color=INK, linestyle=":", linewidth=1.2, label=f"majority class: {majority:.1f}")
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set(xlabel="rows of all sources together", ylabel="accuracy (%)")
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        axes.set_title(caption("Transfer to SciTail by the budget of rows", generated), loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return finish(figure)
