"""Tables 2 to 5: what the paper says of each, judged on a transfer grid, and the small tables beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tsns_lib import load_source
from tsns_lib.fingerprints import fingerprint
from tsns_workbook.cards import marked
from tsns_workbook.ladder import CONTROLS
from tsns_workbook.plots import BLUE, INK, ORANGE, STYLE, finish
from tsns_workbook.report import ONE_SIZE, Key, beside_paper, caption, claim, label, short_name
from tsns_workbook.statistics import Bootstrap, accuracy_table, best_sources, contest, difference, wins

# §4.4; tables 2 and 3
BEST_FOR = {
    "table2": {"books": ["dvd"], "dvd": ["books"], "kitchen": ["electronics"], "electronics": ["kitchen"]},
    "table3": {"scitail": ["mnli", "qqp"], "qqp": ["mnli", "scitail"]},
}
MAJORITY: Key = ("majority", 0)
# small sources that the paper adds to larger ones
SMALL_ADDED = {
    frozenset({"qqp", "rte"}): "rte",
    frozenset({"qqp", "mnli", "rte"}): "rte",
    frozenset({"qqp", "mnli", "rte", "mrpc"}): "mrpc",
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
    fairly = reservations(boot, chosen, pairs) if whole else {}
    return [
        claim("table2.gain", *difference(boot, chosen, last, pairs), **fairly) if whole else claim("table2.gain"),
        claim("table2.wins", *wins(boot, chosen, last, pairs), **fairly) if whole else claim("table2.wins"),
        *_best_sources("table2", boot, chosen),
        claim("table2.state_of_the_art_pairs"),
        claim("table2.state_of_the_art_average"),
    ]


def table3_claims(boot: Bootstrap, chosen: Key, last: Key) -> list[dict[str, Any]]:
    """Judge what the paper says of Table 3; not testable without the target, or with another K than the paper's."""
    gains = []
    for target in BEST_FOR["table3"]:
        pairs = [pair for pair in boot.pairs if short_name(pair[1]) == target]
        if pairs and chosen[1] == CLAIMED_K:
            gain = difference(boot, chosen, last, pairs)
            gains.append(claim(f"table3.gain_{target}", *gain, **reservations(boot, chosen, pairs)))
        else:
            gains.append(claim(f"table3.gain_{target}"))
    return [*gains, *_best_sources("table3", boot, chosen)]


def table4_claims(boot: Bootstrap, chosen: Key, last: Key) -> list[dict[str, Any]]:
    """Judge what the paper says of Table 4; not testable with other domains, or with another K than the paper's."""
    whole = {short_name(target) for _, target in boot.pairs} == BEST_FOR["table2"].keys() and chosen[1] == CLAIMED_K
    gain = claim("table4.gain")
    if whole:
        gain = claim("table4.gain", *difference(boot, chosen, last), **reservations(boot, chosen, boot.pairs))
    return [gain, claim("table4.state_of_the_art")]


def table5_claims(boot: Bootstrap, chosen: Key, last: Key) -> list[dict[str, Any]]:
    """Judge what the paper says of Table 5, on the ladder of one budget, with single sources and combinations.

    Not testable is a claim about combinations of which none is here, or none of their members alone, and with another
    target than SciTail all of them.
    """
    (target,) = boot.grid["target"].unique()
    if short_name(target) != "scitail":
        return [claim(id) for id in ("table5.gain", "table5.over_single", "table5.small_source_helps")]
    names = {frozenset(map(short_name, row.members)): row.source for row in boot.grid.itertuples()}
    combined = [members for members in names if len(members) > 1]

    def sides(key: Key, others: Mapping[frozenset, Sequence[frozenset]]) -> list[Any]:
        return [
            ([(names[members], target, *key)], [(names[other], target, *key) for other in against])
            for members, against in others.items()
        ]

    alone = {members: [one for member in members if (one := frozenset([member])) in names] for members in combined}
    alone = {members: singles for members, singles in alone.items() if singles}
    without = {members: [members - {small}] for members, small in SMALL_ADDED.items() if members in names}
    without = {members: others for members, others in without.items() if others[0] in names}
    contests = []
    for id, others in {"table5.over_single": alone, "table5.small_source_helps": without}.items():
        if not others:
            contests.append(claim(id))
            continue
        controls = _controls(boot, chosen, of_sources=True)
        ours = sides(chosen, others)
        by_selection = all(contest(boot, ours, sides(control, others)).low > 0 for control in controls)
        above = difference(boot, chosen, MAJORITY, [(names[members], target) for members in others]).low > 0
        contests.append(claim(id, *contest(boot, ours), above_majority=above, by_selection=by_selection))
    pairs = [(names[members], target) for members in combined]
    gain = claim("table5.gain")
    if pairs and chosen[1] == CLAIMED_K:
        gain = claim("table5.gain", *difference(boot, chosen, last, pairs), **reservations(boot, chosen, pairs))
    return [gain, *contests]


def reservations(boot: Bootstrap, chosen: Key, pairs: Sequence[Any]) -> dict[str, bool]:
    """Say whether the selection is above the majority class, and above each control: only then a gain is its own."""
    controls = _controls(boot, chosen)
    return {
        "above_majority": difference(boot, chosen, MAJORITY, pairs).low > 0,
        "by_selection": all(difference(boot, chosen, control, pairs).low > 0 for control in controls),
    }


def _controls(boot: Bootstrap, chosen: Key, *, of_sources: bool = False) -> list[Key]:
    """Keys of the controls at the chosen K; whether one source is better than another, all neurons show as well."""
    keys = list(boot.point.index.droplevel(["source", "target"]).unique())
    everything = [key for key in keys if key[0] == "all"] if of_sources else []
    return [(method, chosen[1]) for method in CONTROLS] + everything


def _best_sources(table: str, boot: Bootstrap, chosen: Key) -> list[dict[str, Any]]:
    """Not testable without the target, without the claimed best sources, or without another source."""
    claims = []
    for target, best in BEST_FOR[table].items():
        tried = {short_name(pair[0]): pair for pair in boot.pairs if short_name(pair[1]) == target}
        id = f"{table}.best_for_{target}"
        if set(best) < tried.keys():
            names, goal = [tried[source][0] for source in best], tried[best[0]][1]
            ours = best_sources(boot, names, goal, chosen)
            theirs = [best_sources(boot, names, goal, key) for key in _controls(boot, chosen, of_sources=True)]
            above = difference(boot, chosen, MAJORITY, [(name, goal) for name in names]).low > 0
            by_selection = all(contest(boot, ours, control).low > 0 for control in theirs)
            claims.append(claim(id, *contest(boot, ours), above_majority=above, by_selection=by_selection))
        else:
            claims.append(claim(id))
    return claims


# small tables for reading


def literature_table(paper: pd.DataFrame) -> pd.DataFrame:
    """The published systems of `paper.table2` or `paper.table4` in percent: pairs down, systems across."""
    rows = paper[paper["k"] == 0].dropna(subset=["accuracy"])
    pair = rows["source"] + " → " + rows["target"]
    return rows.assign(pair=pair).pivot_table(index="pair", columns="method", values="accuracy", sort=False)


def stability_table(grid: pd.DataFrame) -> pd.DataFrame:
    """Share of the K chosen neurons on which two halves of the resamples agree: sources down, K across.

    Shares are the mean of the runs; beside them the fewest and most trees that a run needed of each resample, below
    them what two random choices would share.
    """
    rows = grid.dropna(subset=["stability"])
    rows = rows.assign(source=rows["source"].map(short_name))
    n_neurons = int(grid.loc[grid["method"] == "all", "k"].iloc[0])
    table = rows.pivot_table(index="source", columns="k", values="stability", sort=False)
    table.loc["by chance"] = [k / n_neurons for k in table.columns]
    used = rows.groupby("source", sort=False)["trees"].agg(["min", "max"])
    table = table.rename(columns=lambda k: f"K={k}").round(2)
    return table.assign(trees=[f"{few:.0f} to {many:.0f}" for few, many in used.to_numpy()] + [""])


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


def scaled_sources(
    names: Sequence[str], counts: pd.DataFrame, budgets: Sequence[int]
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Load sources so that they share a budget as the paper's do, and scale the paper's budgets L to what is here.

    The scale is the share of the paper's rows (`paper.table1`) that those sources have which are not whole. A source
    that has more is cut to it: so a small corpus is as small a part of the rows as it is in the paper.
    """
    if CLAIMED_L not in budgets:
        raise ValueError(f"budgets: {CLAIMED_L} must be among them, as the claims are about it; got {list(budgets)}")
    training = counts.set_index("source")["training"]
    whole = {name: load_source(name) for name in names}
    partial = [name for name in names if whole[name].n_rows < training[short_name(name)]]
    there = sum(whole[name].n_rows for name in partial)
    scale = there / int(sum(training[short_name(name)] for name in partial)) if partial else 1.0
    sources = {}
    for name, source in whole.items():
        limit = round(scale * int(training[short_name(name)]))
        sources[name] = load_source(name, limit=limit) if partial and limit < source.n_rows else source
    rows = [{"L": budget, "rows here": round(budget * scale), "scale": round(scale, 4)} for budget in budgets]
    return sources, pd.DataFrame(rows).set_index("L")


def as_one_method(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the method "selected": MultiTSNS, and TSNS where there is one source, as in the paper's Table 5."""
    alone = (frame["method"] == "tsns") & (frame["members"].map(len) == 1)
    chosen = frame[(frame["method"] == "multi_tsns") | alone].assign(method="selected")
    return pd.concat([frame[frame["method"] != "multi_tsns"], chosen], ignore_index=True)


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
        f"L={budget:,}": beside_paper(boot.grid, paper[paper["budget"] == budget], columns=[("selected", k)])
        for budget, boot in boots.items()
    }
    return pd.concat({name: block.droplevel(0, axis=1) for name, block in blocks.items()}, axis=1)


def plot_by_budget(accuracies: pd.DataFrame, rows: pd.DataFrame, *, generated: bool, encoder: Any = None) -> Figure:
    """Draw accuracy against rows, a panel for each combination of sources: the selection, all neurons, last layer.

    `accuracies` is as `accuracy_by_budget` gives it, `rows` as `scaled_sources` does. The majority class is dotted.
    With an `encoder`, † marks a source that it was trained on.
    """
    drawn = accuracies.assign(rows=accuracies["budget"].map(rows["rows here"]))
    combinations = list(dict.fromkeys(drawn["source"]))
    majority = drawn.loc[drawn["method"] == "majority", "accuracy"].iloc[0]
    looks = {"selected": (BLUE, "o"), "all": (INK, "s"), "last_layer": (ORANGE, "^")}
    with plt.rc_context(STYLE):
        n_down = -(-len(combinations) // 3)
        figure, grid = plt.subplots(
            n_down, 3, figsize=(8.4, 0.8 + 1.9 * n_down), sharex=True, sharey=True, layout="constrained", squeeze=False
        )
        for axes in grid.flat[len(combinations) :]:
            axes.set_axis_off()
        for axes, combination in zip(grid.flat, combinations, strict=False):
            for method, (color, marker) in looks.items():
                line = drawn[(drawn["source"] == combination) & (drawn["method"] == method)].sort_values("rows")
                spread = [line["accuracy"] - line["low"], line["high"] - line["accuracy"]]
                look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 4, "linewidth": 1.3}
                axes.errorbar(line["rows"], line["accuracy"], spread, capsize=2, label=label(method, 0), **look)
            axes.axhline(majority, color=INK, linestyle=":", linewidth=1, label="majority class")
            axes.set_title(short_name(marked(combination, encoder)), fontsize=9)
            axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        for axes in grid[-1]:
            axes.set_xlabel("rows of all sources together")
        figure.supylabel("accuracy (%)", fontsize=10)
        figure.suptitle(caption("Transfer to SciTail by the budget of rows", generated), fontsize=11)
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return finish(figure)
