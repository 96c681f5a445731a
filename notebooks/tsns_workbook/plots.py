"""Figures, one function each: a tidy frame goes in, a matplotlib Figure comes out.

Every figure has an opaque white ground, dark text and colours that colour-blind readers can tell apart, so that it
reads the same in a light or dark JupyterLab and in print; its title says when the data are generated. Every figure is
closed for pyplot, so that a notebook's cell that ends with the call shows it once.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from seaborn.utils import relative_luminance

from tsns_workbook.cards import marked
from tsns_workbook.report import ONE_SIZE, caption, label, short_name

INK, FAINT = "#222222", "#888888"
# Okabe and Ito's palette; a marker or a dash besides, so that nothing hangs on colour alone
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
STYLE = (
    sns.axes_style("ticks")
    | {
        "figure.facecolor": "white",
        "axes.facecolor": "white",
        "savefig.facecolor": "white",
        "figure.dpi": 100,
        "savefig.dpi": 100,
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.labelsize": 10,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    | dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], INK)
)
LOOKS: dict[str, dict[str, Any]] = {
    "tsns": {"color": BLUE, "marker": "o", "linewidth": 2.2},
    "multi_tsns": {"color": BLUE, "marker": "o", "linewidth": 2.2},
    "selected": {"color": BLUE, "marker": "o", "linewidth": 2.2},
    "random": {"color": FAINT, "marker": "s"},
    "random of the same layers": {"color": FAINT, "marker": "v", "linestyle": "--"},
    "f_test": {"color": GREEN, "marker": "^"},
    "logistic": {"color": PINK, "marker": "D"},
    "last_layer": {"color": ORANGE, "linestyle": "-."},
    "all": {"color": INK, "linestyle": ":"},
    "majority": {"color": FAINT, "linestyle": ":"},
}
EVEN_CONTRAST = 0.21  # luminance of the ground on which white and INK are read equally well
PLAIN = {"text.parse_math": False}  # of a heat map, which seaborn draws while it is made: names may hold a dollar sign
PAPER_LINE: dict[str, Any] = {"color": BLUE, "linestyle": "--", "marker": "o", "markerfacecolor": "white"}


def label_points(axes: Axes, places: np.ndarray, names: Sequence[str]) -> None:
    """Name points (n, 2), each at the corner where the name covers least; their places on the page must be settled."""
    dots = axes.transData.transform(places)
    boxes: list[Bbox] = []
    for place, name in zip(places, names, strict=True):
        tries = []
        for (side, dx), (edge, dy) in product((("left", 4), ("right", -4)), (("bottom", 2), ("top", -2))):
            text = axes.annotate(name, place, (dx, dy), textcoords="offset points", ha=side, va=edge, fontsize=7)
            box = text.get_window_extent().padded(2)  # pixels, else two names read as one
            outside = box.x1 > axes.bbox.x1 or box.x0 < axes.bbox.x0
            tries.append((box.count_overlaps(boxes) + box.count_contains(dots) + outside / 2, text, box))
        _, best, box = min(tries, key=lambda tried: tried[0])
        boxes.append(box)
        for _, text, _ in tries:
            if text is not best:
                text.remove()


def readable_digits(axes: Axes) -> None:
    """Write each number of a heat map in the colour, white or dark, that contrasts more with its cell."""
    (cells,) = axes.collections
    shown = ~np.ma.getmaskarray(np.ma.asarray(cells.get_array())).ravel()
    for text, color in zip(axes.texts, np.atleast_2d(cells.get_facecolor())[shown], strict=True):
        text.set_color("white" if relative_luminance(color) < EVEN_CONTRAST else INK)


def accuracy_by_k(
    averages: pd.DataFrame, *, generated: bool, paper: pd.DataFrame | None = None, title: str = "Accuracy by K"
) -> Figure:
    """Draw average accuracy against K, as `statistics.average_table` gives it, with the paper's averages dashed.

    A method with several K is a line with 95 % bars, one of a single size a level with a band. The lines stand a little
    apart, as some would hide others. The legend is ordered as they end, best first.
    """
    _require(averages, "averages", ["method", "k", "accuracy", "low", "high"])
    averages = averages[averages["method"].isin(LOOKS)]
    sized = [method for method in LOOKS if method in set(averages["method"]) - set(ONE_SIZE)]
    step = 0.006 * averages["k"].max()
    apart = {
        method: step * ((place + 1) // 2) * (-1) ** place for place, method in enumerate(sized)
    }  # 0, -1, 1, -2 ...
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.2, 4.4), layout="constrained")
        ends: list[tuple[float, Any]] = []
        for method, rows in averages.sort_values("k").groupby("method", sort=False):
            look = {"linewidth": 1.4} | LOOKS.get(method, {"color": INK, "marker": "x"})
            last = rows["accuracy"].iloc[-1]
            if method in ONE_SIZE:
                axes.axhspan(rows["low"].iloc[-1], rows["high"].iloc[-1], color=look["color"], alpha=0.1, linewidth=0)
                line: Any = axes.axhline(last, label=f"{label(method, 0)}: {last:.1f}", **look)
            else:
                look |= {"capsize": 2, "markersize": 5, "label": label(method, 0)}
                spread = [rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]]
                line = axes.errorbar(rows["k"] + apart[method], rows["accuracy"], spread, **look)
            ends.append((last, line))
        if paper is not None:
            _require(paper, "paper", ["k", "accuracy"])
            rows = paper.sort_values("k")
            (line,) = axes.plot(rows["k"], rows["accuracy"], label="the paper's (BERT-large)", **PAPER_LINE)
            ends.append((rows["accuracy"].iloc[-1], line))
        sizes = sorted(averages.loc[averages["method"].isin(sized), "k"].unique())
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set(xlabel="K, neurons selected", ylabel="average accuracy (%)")
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        axes.set_title(caption(title, generated), loc="left")
        handles = [line for _, line in sorted(ends, key=lambda end: -end[0])]
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return finish(figure)


def fingerprint_heatmap(
    shares: pd.DataFrame, *, generated: bool, title: str = "Share of the selected neurons by layer"
) -> Figure:
    """Draw fingerprints, sources down and layers across: columns source, layer (from 1), share (percent)."""
    _require(shares, "shares", ["source", "layer", "share"])
    sums = shares.groupby("source", sort=False)["share"].sum()
    for source, total in sums.items():
        if abs(total - 100) > 0.5:
            raise ValueError(f"the shares of {source!r} sum to {total:.4g}, not to 100 percent")
    matrix = shares.pivot(index="source", columns="layer", values="share").reindex(sums.index)
    with plt.rc_context(STYLE | PLAIN):
        size = (2.8 + 0.34 * max(matrix.shape[1], 10), 1.3 + 0.36 * matrix.shape[0])
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        look: dict[str, Any] = {"cmap": "Blues", "linewidths": 1, "linecolor": "white", "annot_kws": {"fontsize": 9}}
        sns.heatmap(matrix, ax=axes, annot=True, fmt=".0f", vmin=0, cbar_kws={"label": "share (%)"}, **look)
        readable_digits(axes)
        axes.set_yticklabels([short_name(source) for source in matrix.index])
        axes.tick_params(length=0, labelrotation=0)
        axes.set(xlabel="layer", ylabel="")
        axes.set_title(caption(title, generated), loc="left")
    return finish(figure)


def gain_forest_plot(
    gains: pd.DataFrame,
    *,
    generated: bool,
    title: str = "Gain over the last layer",
    unit: str = "accuracy",
    encoder: Any = None,
) -> Figure:
    """Draw the gain of every pair with its interval, best first, around the line of no gain.

    The rows are as `statistics.gain_table` gives them; an interval that reaches the line of no gain is grey. With an
    `encoder`, † marks a corpus that it was trained on.
    """
    _require(gains, "gains", ["source", "target", "gain", "low", "high"])
    rows = gains.sort_values("gain").reset_index(drop=True)
    clear = (rows["low"] > 0) | (rows["high"] < 0)
    looks = {True: ("interval clear of 0", BLUE), False: ("interval reaches 0", FAINT)}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 1.5 + 0.27 * len(rows)), layout="constrained")
        axes.axvline(0, color=INK, linewidth=1)
        for is_clear, pairs in rows.groupby(clear):
            name, color = looks[bool(is_clear)]
            look: dict[str, Any] = {"fmt": "o", "color": color, "capsize": 2, "markersize": 5, "label": name}
            spread = [pairs["gain"] - pairs["low"], pairs["high"] - pairs["gain"]]
            axes.errorbar(pairs["gain"], pairs.index, xerr=spread, **look)
        ends = rows[["source", "target"]].map(lambda name: short_name(marked(name, encoder)))
        axes.set_yticks(rows.index, ends["source"] + " → " + ends["target"])
        axes.set(xlabel=f"gain in {unit} (points, 95 % interval)", ylim=(-0.7, len(rows) - 0.3))
        axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        axes.set_title(caption(title, generated), loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return finish(figure)


def _require(frame: pd.DataFrame, name: str, columns: list[str]) -> None:
    missing = [column for column in columns if column not in frame]
    if missing or frame.empty:
        raise ValueError(f"{name} lacks the column {missing[0]!r}" if missing else f"{name} has no rows")


def finish(figure: Figure, *, formulas: bool = False) -> Figure:
    """Close a figure for pyplot, so that a notebook shows it once.

    A dollar sign, as in the name of a file, is only a sign, unless the figure has `formulas`; the numbers of a
    logarithmic axis are set by matplotlib's own.
    """
    for axes in figure.axes:  # an axis of names writes its labels when they are asked for
        axes.get_xticklabels(), axes.get_yticklabels()
    for text in [] if formulas else figure.findobj(Text):
        if "$" in text.get_text() and "\\mathdefault" not in text.get_text():
            text.set_parse_math(False)
    plt.close(figure)
    return figure
