"""Figures, one function each: a tidy frame goes in, a matplotlib Figure comes out.

Every figure brings its own opaque white ground, dark text and colour-blind-safe colours, so that it reads
the same in light and dark JupyterLab and in print; a title says when the data were generated. The figure is
closed for pyplot, so that a notebook cell that ends with the call shows it once.
"""

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tsns_workbook.report import ONE_SIZE, bare, caption, label

INK, FAINT = "#222222", "#888888"
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
# Okabe and Ito's palette; a marker or a dash besides, so that nothing hangs on colour alone
LOOKS: dict[str, dict[str, Any]] = {
    "tsns": {"color": "#0072B2", "marker": "o", "linewidth": 2.2},
    "multi_tsns": {"color": "#0072B2", "marker": "o", "linewidth": 2.2},
    "random": {"color": "#888888", "marker": "s"},
    "f_test": {"color": "#009E73", "marker": "^"},
    "logistic": {"color": "#CC79A7", "marker": "D"},
    "last_layer": {"color": "#D55E00", "linestyle": "-."},
    "all": {"color": "#222222", "linestyle": ":"},
    "majority": {"color": "#888888", "linestyle": ":"},
}
PAPER_LINE: dict[str, Any] = {
    "color": "#0072B2",
    "linestyle": "--",
    "marker": "o",
    "markerfacecolor": "white",
}
PAPER_POINT: dict[str, Any] = {
    "marker": "D",
    "s": 26,
    "facecolor": "none",
    "edgecolor": "#D55E00",
    "zorder": 3,
}


def accuracy_by_k(
    averages: pd.DataFrame,
    sources: Iterable[Any],
    *,
    paper: pd.DataFrame | None = None,
    title: str = "Accuracy by K",
) -> Figure:
    """Draw the average accuracy against K, baselines included.

    Parameters
    ----------
    averages : pandas.DataFrame
        Columns method, k, accuracy, low, high (percent), as returned by `statistics.average_table`.
    sources : iterable of Source or str
        What the averages were computed from; the title says if any is generated.
    paper : pandas.DataFrame, optional
        Columns k, accuracy (percent): the paper's averages, drawn as a dashed line.
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        A line with 95 % bars for each method with several K, a horizontal line for each of one size. The
        legend is ordered as the lines end, best first.
    """
    _require(averages, "averages", ["method", "k", "accuracy", "low", "high"])
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
                line = axes.errorbar(rows["k"], rows["accuracy"], spread, **look)
            ends.append((last, line))
        if paper is not None:
            _require(paper, "paper", ["k", "accuracy"])
            rows = paper.sort_values("k")
            (line,) = axes.plot(rows["k"], rows["accuracy"], label="the paper's (BERT-large)", **PAPER_LINE)
            ends.append((rows["accuracy"].iloc[-1], line))
        sizes = sorted(averages.loc[~averages["method"].isin(ONE_SIZE), "k"].unique())
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set(xlabel="K, neurons selected", ylabel="average accuracy (%)")
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        axes.set_title(caption(title, sources), loc="left")
        handles = [line for _, line in sorted(ends, key=lambda end: -end[0])]
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return finish(figure)


def pair_heatmap(accuracies: pd.DataFrame, method: str, k: int, *, title: str | None = None) -> Figure:
    """Draw the accuracy of one method from every source (down) to every target (across).

    Parameters
    ----------
    accuracies : pandas.DataFrame
        Columns source, target, method, k, accuracy (percent), as returned by `statistics.accuracy_table`.
    method, k
        Which cells.
    title : str, optional
        Default: the method and K.

    Returns
    -------
    matplotlib.figure.Figure
        Pairs that were not run stay grey.

    Raises
    ------
    ValueError
        If there is no such method and k.
    """
    _require(accuracies, "accuracies", ["source", "target", "method", "k", "accuracy"])
    rows = accuracies[(accuracies["method"] == method) & (accuracies["k"] == k)]
    if rows.empty:
        raise ValueError(f"accuracies has no rows with method {method!r} and k {k}")
    matrix = rows.pivot(index="source", columns="target", values="accuracy")
    matrix = matrix.reindex(index=rows["source"].unique(), columns=rows["target"].unique())
    if set(matrix.index) == set(matrix.columns):
        matrix = matrix[matrix.index]  # so that the empty pairs lie on the diagonal
    with plt.rc_context(STYLE):
        size = (2.6 + 0.95 * matrix.shape[1], 1.3 + 0.5 * matrix.shape[0])
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        _heatmap(matrix, axes, ".1f", "accuracy (%)")
        axes.set(xlabel="target", ylabel="source")
        axes.set_title(caption(title or label(method, k), [*rows["source"], *rows["target"]]), loc="left")
    return finish(figure)


def fingerprint_heatmap(shares: pd.DataFrame, *, title: str = "Share of the selected neurons by layer") -> Figure:
    """Draw the fingerprints of several sources: share of the selected neurons in every layer.

    Parameters
    ----------
    shares : pandas.DataFrame
        Columns source, layer (the first is 1), share (percent; sums to 100 in every source).
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        Sources down, layers across.

    Raises
    ------
    ValueError
        If the shares of a source do not sum to 100.
    """
    _require(shares, "shares", ["source", "layer", "share"])
    sums = shares.groupby("source", sort=False)["share"].sum()
    for source, total in sums.items():
        if abs(total - 100) > 0.5:
            raise ValueError(f"the shares of {source!r} sum to {total:.4g}, not to 100 percent")
    matrix = shares.pivot(index="source", columns="layer", values="share").reindex(sums.index)
    with plt.rc_context(STYLE):
        size = (2.8 + 0.34 * max(matrix.shape[1], 10), 1.3 + 0.36 * matrix.shape[0])
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        _heatmap(matrix, axes, ".0f", "share (%)", vmin=0)
        axes.set(xlabel="layer", ylabel="")
        axes.set_title(caption(title, sums.index), loc="left")
    return finish(figure)


def gain_forest_plot(gains: pd.DataFrame, *, title: str = "Gain over the last layer") -> Figure:
    """Draw the gain of every pair with its interval, best first, around the line of no gain.

    Parameters
    ----------
    gains : pandas.DataFrame
        Columns source, target, gain, low, high (points), as returned by `statistics.gain_table`; an optional
        column paper holds the paper's gain and is drawn as a hollow diamond.
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        An interval that reaches the line of no gain is drawn grey.
    """
    _require(gains, "gains", ["source", "target", "gain", "low", "high"])
    rows = gains.sort_values("gain").reset_index(drop=True)
    clear = (rows["low"] > 0) | (rows["high"] < 0)
    looks = {True: ("interval clear of 0", "#0072B2"), False: ("interval reaches 0", FAINT)}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 1.5 + 0.27 * len(rows)), layout="constrained")
        axes.axvline(0, color=INK, linewidth=1)
        for is_clear, part in rows.groupby(clear):
            name, color = looks[bool(is_clear)]
            spread = [part["gain"] - part["low"], part["high"] - part["gain"]]
            axes.errorbar(
                part["gain"],
                part.index,
                xerr=spread,
                fmt="o",
                color=color,
                capsize=2,
                markersize=5,
                label=name,
            )
        if "paper" in rows:
            axes.scatter(rows["paper"], rows.index, label="the paper's", **PAPER_POINT)
        axes.set_yticks(rows.index, rows["source"].map(bare) + " → " + rows["target"].map(bare))
        axes.set(xlabel="gain in accuracy (points, 95 % interval)", ylim=(-0.7, len(rows) - 0.3))
        axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        axes.set_title(caption(title, [*rows["source"], *rows["target"]]), loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return finish(figure)


def _heatmap(matrix: pd.DataFrame, axes: Axes, form: str, unit: str, **limits: float) -> None:
    look: dict[str, Any] = {
        "cmap": "Blues",
        "linewidths": 1,
        "linecolor": "white",
        "annot_kws": {"fontsize": 9},
    }
    sns.heatmap(matrix, ax=axes, annot=True, fmt=form, cbar_kws={"label": unit}, **look, **limits)
    axes.set_facecolor("#DDDDDD")
    axes.set_xticklabels([bare(str(name)) for name in matrix.columns])
    axes.set_yticklabels([bare(str(name)) for name in matrix.index])
    axes.tick_params(length=0, labelrotation=0)


def _require(frame: pd.DataFrame, name: str, columns: list[str]) -> None:
    missing = [column for column in columns if column not in frame]
    if missing or frame.empty:
        raise ValueError(f"{name} lacks the column {missing[0]!r}" if missing else f"{name} has no rows")


def finish(figure: Figure) -> Figure:
    """Close a figure for pyplot, so that a notebook shows it once."""
    plt.close(figure)
    return figure
