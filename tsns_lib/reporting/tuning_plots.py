"""Figures about layers: what they hold, and what tuning or drawing them anew does."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tsns_lib.reporting.plots import STYLE, finish
from tsns_lib.reporting.report import bare, caption

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#BBBBBB"
SHADES = ("#56B4E9", "#0072B2", "#222222", "#CC79A7")
SHAPES = ("o", "s", "^", "D")


def layer_panels(values: pd.DataFrame, *, title: str) -> Figure:
    """Draw what each layer of a task is worth by two measures, one below the other, with the best layer marked.

    Parameters
    ----------
    values : pandas.DataFrame
        Columns source, layer (the first is 1), variability (low is specialised) and share (percent of the chosen
        neurons).
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        Sources across; variability on a logarithmic axis above the fingerprint.
    """
    sources = list(values["source"].unique())
    with plt.rc_context(STYLE):
        size = (1.2 + 2.4 * len(sources), 4.6)
        shape: dict[str, Any] = {"sharex": True, "sharey": "row", "squeeze": False, "layout": "constrained"}
        figure, grid = plt.subplots(2, len(sources), figsize=size, **shape)
        for column, source in enumerate(sources):
            rows = values[values["source"] == source]
            upper, lower = grid[:, column]
            upper.plot(rows["layer"], rows["variability"], "o-", color=BLUE)
            least = rows.loc[rows["variability"].idxmin()]
            upper.plot(least["layer"], least["variability"], "o", markersize=12, mfc="none", mec=ORANGE, mew=2)
            upper.set_yscale("log")
            upper.set_title(bare(source), loc="left")
            strongest = rows["share"] == rows["share"].max()
            lower.bar(rows["layer"], rows["share"], color=np.where(strongest, ORANGE, GREY))
            lower.set_xlabel("layer")
            lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        grid[0, 0].set_ylabel("variability ν")
        grid[1, 0].set_ylabel("fingerprint (%)")
        figure.suptitle(caption(title, sources), x=0.01, ha="left", fontsize=11)
    return finish(figure)


def dot_panels(accuracies: pd.DataFrame, methods: Sequence[str], *, title: str, marked: Mapping[str, str]) -> Figure:
    """Draw the accuracy of several methods with intervals, a panel for each source.

    Parameters
    ----------
    accuracies : pandas.DataFrame
        Columns source, method, accuracy, low, high (percent).
    methods : sequence of str
        Which, from the top.
    title : str
        Title without the mark for generated data.
    marked : mapping of str to str
        For each source, the method to be marked.

    Returns
    -------
    matplotlib.figure.Figure
    """
    sources = list(accuracies["source"].unique())
    with plt.rc_context(STYLE):
        size = (1.8 + 2.6 * len(sources), 1.4 + 0.34 * len(methods))
        figure, grid = plt.subplots(1, len(sources), figsize=size, sharey=True, squeeze=False, layout="constrained")
        for axes, source in zip(grid[0], sources, strict=True):
            rows = accuracies[accuracies["source"] == source].set_index("method").loc[list(methods)]
            for height, (method, row) in enumerate(rows.iterrows()):
                color = ORANGE if marked.get(source) == method else BLUE
                axes.hlines(height, row["low"], row["high"], color=color)
                axes.plot(row["accuracy"], height, "D" if color == ORANGE else "o", color=color, markersize=6)
            axes.set_yticks(range(len(methods)), methods)
            axes.set_xlabel("accuracy (%)")
            axes.set_title(bare(source), loc="left")
            axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        grid[0, 0].invert_yaxis()
        figure.suptitle(caption(title, sources), x=0.01, ha="left", fontsize=11)
    return finish(figure)


def progressive_panels(accuracies: pd.DataFrame, methods: Sequence[str], probes: pd.DataFrame, *, title: str) -> Figure:
    """Draw accuracy against the number of pretrained layers, a line for each number of rows, with probing beside it.

    Parameters
    ----------
    accuracies : pandas.DataFrame
        Columns source, method, k (rows trained on), accuracy, low, high (percent).
    methods : sequence of str
        From no pretrained layer to all.
    probes : pandas.DataFrame
        As `tsns_lib.transferability.tuning_grid.probing_grid` gives it.
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each source.
    """
    sources = list(accuracies["source"].unique())
    with plt.rc_context(STYLE):
        size = (2.6 + 3.6 * len(sources), 3.6)
        figure, grid = plt.subplots(1, len(sources), figsize=size, squeeze=False, layout="constrained")
        for axes, source in zip(grid[0], sources, strict=True):
            rows = accuracies[(accuracies["source"] == source) & accuracies["method"].isin(methods)]
            for i, (k, part) in enumerate(rows.groupby("k")):
                _line(axes, part.set_index("method").loc[list(methods)], f"{k:,} rows tuned", i)
            own = probes[probes["source"] == source]
            axes.plot(own["k"], 100 * own["accuracy"], ":", color=ORANGE, label="probing the layer")
            axes.set(xlabel="layers left pretrained", xticks=range(len(methods)))
            axes.set_title(bare(source), loc="left")
            axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        grid[0, 0].set_ylabel("accuracy (%)")
        grid[0, -1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        figure.suptitle(caption(title, sources), x=0.01, ha="left", fontsize=11)
    return finish(figure)


def _line(axes: Axes, rows: pd.DataFrame, name: str, i: int) -> None:
    color = SHADES[i % len(SHADES)]
    axes.plot(range(len(rows)), rows["accuracy"], marker=SHAPES[i % len(SHAPES)], color=color, label=name)
    axes.fill_between(range(len(rows)), rows["low"], rows["high"], color=color, alpha=0.15, linewidth=0)
