"""What notebook 15 shows: how far intervals can be trusted, accuracy by C and by K, layers that chance prefers."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import binomtest

from tsns_lib.fingerprints import uniform_band
from tsns_workbook.how_sure import CROSSED, INTACT, PERMUTED, RANKS, SHARES, TARGET_ROWS
from tsns_workbook.ladder_report import POOLING_NAMES
from tsns_workbook.plots import BLUE, FAINT, GREEN, INK, LOOKS, ORANGE, STYLE, finish
from tsns_workbook.report import METHOD_LABELS, caption, short_name

LINES = ("-", "--", ":", "-.")  # of the pairs

CALIBRATED = "crossed, calibrated"
WANTED = (0.92, 0.97)  # share of the studies whose interval, of nominal 95 %, holds the truth
ONE_SIDE = 0.025  # share of the studies whose interval, of nominal 95 %, may lie above what is true
WIDTH_IN_ERRORS = 2 * 1.96  # of a 95 % interval


# words


def calibration(table: pd.DataFrame) -> float:
    """By what the crossed intervals of contrasts with TSNS are to be multiplied, on average, to be as wide as said.

    It is the root mean square of their `spread / error` in `coverage_table`.
    """
    rows = table[(table["interval"] == CROSSED) & table["contrast"].str.startswith("TSNS")]
    return float(np.sqrt((rows["spread / error"] ** 2).mean()))


def calibrated(studies: pd.DataFrame, factor: float) -> pd.DataFrame:
    """The studies, and once more their crossed intervals of contrasts with TSNS, times the factor."""
    rows = studies[(studies["interval"] == CROSSED) & studies["contrast"].str.startswith("TSNS")]
    bounds = {side: rows["estimate"] + factor * (rows[side] - rows["estimate"]) for side in ("low", "high")}
    return pd.concat([studies, rows.assign(interval=CALIBRATED, **bounds)], ignore_index=True)


def coverage_table(studies: pd.DataFrame) -> pd.DataFrame:
    """How often each interval holds the truth, which is the mean of the studies' estimates, by pooling and contrast.

    Columns `truth` and `spread` (the studies' standard deviation), `width` (mean of the intervals), `spread / error`
    (an interval's error is its width over 3.92), `coverage` (a share) with its 95 % interval `low` to `high`, and
    `as said`: whether that interval reaches 92 to 97 %.
    """
    rows = []
    for (pooling, contrast, kind), found in studies.groupby(["pooling", "contrast", "interval"], sort=False):
        truth, width = found["estimate"].mean(), (found["high"] - found["low"]).mean()
        held = int(((found["low"] <= truth) & (truth <= found["high"])).sum())
        low, high = binomtest(held, len(found)).proportion_ci(method="wilson")
        row = {"pooling": pooling, "contrast": contrast, "interval": kind, "studies": len(found), "truth": truth}
        row |= {"spread": found["estimate"].std(), "width": width}
        row |= {"spread / error": row["spread"] * WIDTH_IN_ERRORS / width, "coverage": held / len(found)}
        rows.append(row | {"low": low, "high": high, "as said": low <= WANTED[1] and high >= WANTED[0]})
    return pd.DataFrame(rows)


def coverage_answer(table: pd.DataFrame, factor: float, n_rows: int) -> str:
    """Say what the intervals cover, and by what factor the crossed ones of contrasts with TSNS would be right."""
    held = {kind: _range(100 * rows["coverage"], 0) for kind, rows in table.groupby("interval", sort=False)}
    of_tsns = table["contrast"].str.startswith("TSNS")
    tsns, others = (
        table.loc[chosen & (table["interval"] == CROSSED), "spread / error"] for chosen in (of_tsns, ~of_tsns)
    )
    words = "too wide" if factor < 0.95 else "too narrow" if factor > 1.05 else "as wide as it should be"
    return (
        f"{table['studies'].iloc[0]} studies of {n_rows} rows a corpus were simulated. An interval that resamples"
        f" **target rows only** holds the truth in {held[TARGET_ROWS]} % of them, where 95 % are promised; the"
        f" **crossed bootstrap** in {held[CROSSED]} %. For contrasts with TSNS, whose choice of neurons it keeps, the"
        f" studies spread by {_range(tsns, 2)} times its error; for all neurons against the last layer, where nothing"
        f" is chosen, by {_range(others, 2)}. On average it is {words} for TSNS. Multiplied by **{factor:.2f}** it"
        f" holds the truth in {held[CALIBRATED]} % ({100 * WANTED[0]:.0f} to {100 * WANTED[1]:.0f} are wanted)."
    )


def false_table(studies: pd.DataFrame) -> pd.DataFrame:
    """How often studies of shuffled labels find what is not there, by pooling, contrast and kind of interval.

    `reproduced` is the share of the studies whose interval lies above 0, `low` to `high` its own 95 % interval,
    `contradicted` the share whose interval lies below; `as said`: no more than 2.5 % of the studies, as far as their
    number can tell.
    """
    rows = []
    for (pooling, contrast, kind), found in studies.groupby(["pooling", "contrast", "interval"], sort=False):
        above = int((found["low"] > 0).sum())
        low, high = binomtest(above, len(found)).proportion_ci(method="wilson")
        row = {"pooling": pooling, "contrast": contrast, "interval": kind, "studies": len(found)}
        row |= {"reproduced": above / len(found), "low": low, "high": high}
        rows.append(row | {"contradicted": (found["high"] < 0).mean(), "as said": low <= ONE_SIDE})
    return pd.DataFrame(rows)


def false_answer(table: pd.DataFrame) -> str:
    """Say how often a gain is called reproduced where labels are shuffled and there is none."""
    called = {kind: _range(100 * rows["reproduced"], 1) for kind, rows in table.groupby("interval", sort=False)}
    more = table[(table["interval"] == CROSSED) & ~table["as said"]]
    names = ", ".join(f"{row['contrast']} ({row['pooling']})" for _, row in more.iterrows())
    said = (
        f"More often than allowed: {names}."
        if names
        else "With the crossed bootstrap no contrast does so more often, as far as their number can tell."
    )
    return (
        f"{table['studies'].iloc[0]} studies with shuffled labels: the crossed bootstrap calls a gain *reproduced* in"
        f" **{called[CROSSED]} %** of them, an interval over target rows only in {called[TARGET_ROWS]} %; 2.5 % are"
        f" allowed. {said}"
    )


def _range(values: pd.Series, digits: int) -> str:
    low, high = (f"{value:.{digits}f}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def C_answer(accuracies: pd.DataFrame, usual: float = 0.01) -> str:
    """Say what the usual C reaches and what the C chosen on the source does, mean over the pairs."""
    parts = []
    for (pooling, method), rows in accuracies.groupby(["pooling", "method"], sort=False):
        means = [rows.loc[chosen, "accuracy"].mean() for chosen in (rows["C"] == usual, rows["chosen"])]
        chosen = ", ".join(f"{C:g}" for C in sorted(set(rows.loc[rows["chosen"], "C"])))
        name = f"{METHOD_LABELS[str(method)]}, {POOLING_NAMES[str(pooling)]}"
        parts.append(f"{name}: {means[0]:.1f} % with C = {usual:g}, {means[1]:.1f} % with the C chosen ({chosen})")
    return "Mean over the pairs. " + "; ".join(parts) + "."


def chance_answer(chance: pd.DataFrame, k: int, n_neurons: int) -> str:
    """Say for each pooling which layer forests prefer under shuffled labels, and which change takes it away."""
    said = [
        f"**{POOLING_NAMES[str(pooling)]}**: {_chance_of_pooling(rows, k, n_neurons)}"
        for pooling, rows in chance.groupby("pooling", sort=False)
    ]
    return "\n\n".join(said)


def _chance_of_pooling(shares: pd.DataFrame, k: int, n_neurons: int) -> str:
    table = shares.pivot(index="layer", columns="values", values="share")
    layer, even = int(table[INTACT].idxmax()), 100 / len(table)
    if table.loc[layer, INTACT] <= 100 * uniform_band(k, len(table), n_neurons, level=1 - 0.05 / len(table))[1]:
        return f"No layer holds clearly more than an even share of {even:.0f} %: there is nothing to explain."
    left = {values: table.loc[layer, values] - even for values in (INTACT, RANKS, PERMUTED)}
    removes = {values: left[values] < left[INTACT] / 2 for values in (RANKS, PERMUTED)}
    found = (
        f"Layer {layer} takes {table.loc[layer, INTACT]:.0f} % where an even share is {even:.0f} %; with ranks"
        f" {table.loc[layer, RANKS]:.0f} %, with each neuron permuted on its own {table.loc[layer, PERMUTED]:.0f} %."
    )
    if removes[RANKS] == removes[PERMUTED]:
        return f"{found} Values and dependence cannot be told apart here."
    if removes[RANKS]:
        return f"{found} So it comes from the values that a neuron takes, not from how neurons depend on each other."
    r = shares[shares["values"] == INTACT].set_index("layer")["correlation"]
    least = (
        f" Layer {layer} has the least correlated neurons (mean |r| {r[layer]:.2f}; elsewhere {r.drop(layer).min():.2f}"
        f" to {r.drop(layer).max():.2f}): neurons that say the same share what chance gives them."
    )
    cause = "So it comes from how neurons depend on each other, not from the values that a neuron takes."
    return f"{found} {cause}{least if r.idxmin() == layer else ''}"


# pictures


def draw_coverage(table: pd.DataFrame, *, generated: bool) -> Figure:
    """Draw for each contrast what each interval covers, and how the studies' spread compares with its error."""
    looks = {TARGET_ROWS: (ORANGE, "D", 0.2), CROSSED: (BLUE, "o", 0), CALIBRATED: (GREEN, "s", -0.2)}
    rows = list(dict.fromkeys(zip(table["pooling"], table["contrast"], strict=True)))
    heights = {row: -place for place, row in enumerate(rows)}
    with plt.rc_context(STYLE | {"axes.titlelocation": "left"}):
        size = (9.6, 1.6 + 0.42 * len(rows))
        figure, (held, errors) = plt.subplots(
            1, 2, figsize=size, layout="constrained", sharey=True, width_ratios=[3, 2]
        )
        for kind, found in table.groupby("interval", sort=False):
            color, marker, shift = looks[str(kind)]
            y = [heights[row] + shift for row in zip(found["pooling"], found["contrast"], strict=True)]
            look = {"color": color, "marker": marker, "linestyle": "", "markersize": 5, "label": kind}
            spread = [100 * (found["coverage"] - found["low"]), 100 * (found["high"] - found["coverage"])]
            held.errorbar(100 * found["coverage"], y, xerr=spread, capsize=2, **look)
            errors.plot(found["spread / error"], y, **look)
        held.axvspan(100 * WANTED[0], 100 * WANTED[1], color=FAINT, alpha=0.2, linewidth=0)
        errors.axvline(1, color=INK, linestyle=":")
        held.set_yticks(list(heights.values()), [f"{contrast}, {pooling}" for pooling, contrast in rows])
        held.set(xlabel="studies whose 95 % interval holds the truth (%)", title=caption("Coverage", generated))
        errors.set(xlabel="spread of the studies / error", xlim=0, title="Below 1 too wide, above 1 too narrow")
        figure.legend(*held.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return finish(figure)


def draw_C(accuracies: pd.DataFrame, *, generated: bool) -> Figure:
    """Draw accuracy by C, a panel for each pooling: each pair's line, and a star at the C that its source chooses."""
    with plt.rc_context(STYLE | {"axes.titlelocation": "left"}):
        figure, panels = _panels(accuracies, caption("Accuracy by C", generated))
        for panel, (_, found) in zip(panels, accuracies.groupby("pooling", sort=False), strict=True):
            pairs = list(found.groupby(["source", "target"], sort=False).groups)
            for (method, *ends), pair in found.groupby(["method", "source", "target"], sort=False):
                look = LOOKS[str(method)] | {"marker": "", "linewidth": 1.4}
                look["linestyle"] = LINES[pairs.index(tuple(ends)) % len(LINES)]
                name = f"{METHOD_LABELS[str(method)]}, {' → '.join(map(short_name, ends))}"
                panel.plot(pair["C"], pair["accuracy"], label=name, **look)
                best = pair[pair["chosen"]]
                panel.plot(best["C"], best["accuracy"], "*", color=look["color"], markersize=11)
            panel.set(xlabel="C", xscale="log")
        title = "star: the C chosen by cross-\nvalidation on the source"
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title=title, alignment="left")
    return finish(figure)


def draw_K(averages: pd.DataFrame, *, generated: bool) -> Figure:
    """Draw accuracy by K as a share of all neurons, a panel for each pooling, with 95 % bars."""
    n_neurons = averages.loc[averages["method"] == "all", "k"].iloc[0]
    with plt.rc_context(STYLE | {"axes.titlelocation": "left"}):
        figure, panels = _panels(averages, caption("Accuracy by K", generated))
        for panel, (_, found) in zip(panels, averages.groupby("pooling", sort=False), strict=True):
            for place, method in enumerate(("tsns", "f_test", "random")):
                rows = found[found["method"] == method]
                spread = [rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]]
                look = LOOKS[method] | {"linewidth": 1.4, "markersize": 5, "capsize": 2}
                x = 100 * rows["k"] / n_neurons * 1.05 ** (place - 1)  # a little apart
                panel.errorbar(x, rows["accuracy"], spread, label=METHOD_LABELS[method], **look)
            panel.set(xlabel="K, percent of all neurons", xscale="log")
            panel.set_xticks([100 * share for share in SHARES], [f"{100 * share:g}" for share in SHARES], minor=False)
            panel.minorticks_off()
        panels[0].legend(frameon=False)
    return finish(figure)


def _panels(frame: pd.DataFrame, title: str) -> tuple[Figure, np.ndarray]:
    """A panel of accuracies for each pooling, side by side."""
    poolings = frame["pooling"].unique()
    size = (1 + 4.2 * len(poolings), 3.8)
    figure, (panels,) = plt.subplots(1, len(poolings), figsize=size, layout="constrained", sharey=True, squeeze=False)
    for panel, pooling in zip(panels, poolings, strict=True):
        panel.set_title(POOLING_NAMES[pooling])
        panel.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    panels[0].set_ylabel("accuracy (%)")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure, panels


def draw_chance(chance: pd.DataFrame, *, generated: bool) -> Figure:
    """Draw which layers forests choose under shuffled labels, and below how neurons of a layer are correlated."""
    looks = {INTACT: (BLUE, "o"), RANKS: (ORANGE, "s"), PERMUTED: (GREEN, "^")}
    poolings = chance["pooling"].unique()
    with plt.rc_context(STYLE | {"axes.titlelocation": "left"}):
        figure, panels = plt.subplots(2, len(poolings), sharex=True, sharey="row", squeeze=False, layout="constrained")
        figure.set_size_inches(1 + 4.2 * len(poolings), 5.6)
        for (chosen, related), pooling in zip(panels.T, poolings, strict=True):
            for values, rows in chance[chance["pooling"] == pooling].groupby("values", sort=False):
                color, marker = looks[str(values)]
                look = {"color": color, "marker": marker, "label": values, "markersize": 9 if values == INTACT else 5}
                chosen.plot(rows["layer"], rows["share"], **look)
                related.plot(rows["layer"], rows["correlation"], **look)
            chosen.axhline(100 / chance["layer"].max(), color=INK, linestyle=":", label="an even share")
            chosen.set(ylim=0, title=POOLING_NAMES[pooling])
            related.set(xlabel="layer", ylim=0)
        panels[0, 0].set_ylabel("share of the K neurons (%)")
        panels[1, 0].set_ylabel("mean |correlation| in the layer")
        panels[0, 0].legend(frameon=False, title="values of a neuron", alignment="left")
        figure.suptitle(caption("Layers that forests choose under shuffled labels", generated), x=0.01, ha="left")
    return finish(figure)
