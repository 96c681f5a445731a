"""Figures about the prediction of transfer, in the style of `tsns_lib.reporting.plots`."""

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tsns_lib.reporting.plots import INK, STYLE, finish
from tsns_lib.reporting.prediction import OUTCOMES, PREDICTORS
from tsns_lib.reporting.report import bare, caption

UNITS = {"accuracy": "accuracy (%)", "gain": "gain over the last layer (points)"}
# Okabe and Ito's palette and six shapes: a target is told by both
BLUE = "#0072B2"
COLORS = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#222222", "#E69F00")
SHAPES = ("o", "s", "^", "D", "v", "P")


def similarity_scatter(pairs: pd.DataFrame, *, predictor: str = "cosine", title: str) -> Figure:
    """Draw accuracy and gain of every pair of sources against the similarity of their fingerprints.

    Parameters
    ----------
    pairs : pandas.DataFrame
        As `prediction.pair_table` gives it.
    predictor : str
        A column of it; default "cosine".
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        Tasks across, outcomes down; color and shape tell the target, whose pairs are to be compared.
    """
    tasks = list(pairs["task"].unique())
    with plt.rc_context(STYLE):
        size = (1.0 + 4.6 * len(tasks), 5.6)
        figure, grid = plt.subplots(2, len(tasks), figsize=size, sharex="col", squeeze=False, layout="constrained")
        for column, task in enumerate(tasks):
            part = pairs[pairs["task"] == task]
            for axes, outcome in zip(grid[:, column], OUTCOMES, strict=True):
                for i, target in enumerate(part["source"].unique()):
                    rows = part[part["target"] == target]
                    look = {"color": COLORS[i % len(COLORS)], "marker": SHAPES[i % len(SHAPES)]}
                    axes.scatter(rows[predictor], rows[outcome], s=34, alpha=0.85, label=bare(target), **look)
                axes.set_ylabel(UNITS[outcome])
                axes.grid(color="#E5E5E5", linewidth=0.8)
            grid[1, column].xaxis.set_major_locator(MaxNLocator(5))
            grid[1, column].axhline(0, color=INK, linewidth=1)
            grid[1, column].set_xlabel(f"similarity of the fingerprints ({PREDICTORS[predictor]})")
            grid[0, column].set_title(task, loc="left")
            grid[0, column].legend(title="target", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        figure.suptitle(caption(title, pairs["source"]), x=0.01, ha="left", fontsize=11)
    return finish(figure)


def predictor_plot(correlations: pd.DataFrame, sources: Iterable[str], *, title: str) -> Figure:
    """Draw what every predictor is worth: Spearman's correlation, its range without a source, and chance.

    Parameters
    ----------
    correlations : pandas.DataFrame
        As `prediction.correlation_table` gives it.
    sources : iterable of str
        What they were computed from; the title says if any is generated.
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        Scopes across, outcomes down; grey is the middle 95 % of the correlations with permuted sources.
    """
    spearman = correlations[correlations["correlation"] == "spearman"].dropna(subset=["estimate"])
    scopes, names = list(correlations["scope"].unique()), list(PREDICTORS)
    with plt.rc_context(STYLE):
        size = (2.6 + 2.6 * len(scopes), 1.4 + 0.5 * len(names))
        shape: dict[str, Any] = {"sharex": True, "sharey": True, "squeeze": False, "layout": "constrained"}
        figure, grid = plt.subplots(2, len(scopes), figsize=size, **shape)
        for (row, column), axes in np.ndenumerate(grid):
            rows = spearman[(spearman["scope"] == scopes[column]) & (spearman["outcome"] == OUTCOMES[row])]
            heights = [names.index(name) for name in rows["predictor"]]
            chance = {"left": rows["null_low"], "height": 0.7, "color": "#DDDDDD", "label": "chance, 95 %"}
            axes.barh(heights, rows["null_high"] - rows["null_low"], **chance)
            axes.axvline(0, color=INK, linewidth=1)
            ends = (rows["left_out_low"], rows["left_out_high"])
            axes.hlines(heights, *ends, color=BLUE, label="without one source")
            axes.plot(rows["estimate"], heights, "o", color=BLUE, markersize=6, label="all sources")
            axes.set_yticks(range(len(names)), PREDICTORS.values())
            if row == 0:
                axes.set_title(scopes[column], loc="left")
            if column == 0:
                axes.set_ylabel(OUTCOMES[row])
        grid[0, 0].invert_yaxis()
        figure.supxlabel("Spearman's correlation", fontsize=10)
        figure.suptitle(caption(title, sources), x=0.01, ha="left", fontsize=11)
        grid[0, -1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    return finish(figure)
