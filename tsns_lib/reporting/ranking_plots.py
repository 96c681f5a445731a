"""The figure of the predictors of transfer: how well each ranks the sources, and what it costs."""

from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from tsns_lib.reporting.plots import FAINT, STYLE, finish
from tsns_lib.reporting.ranking import MEASURES
from tsns_lib.reporting.report import caption

LOOKS = (("#0072B2", "o"), ("#D55E00", "s"))
SHOWN = ("ndcg", "regret_1", "spearman")
CHANCE = "random"


def predictor_figure(
    table: pd.DataFrame, names: Mapping[str, str], costs: Mapping[str, float], sources: Iterable[Any], *, title: str
) -> Figure:
    """Draw what every predictor is worth by three measures, and its cost.

    Parameters
    ----------
    table : pandas.DataFrame
        As `ranking.predictor_table` gives it.
    names : mapping of str to str
        What each predictor is called, from the top; "random" is drawn as a line.
    costs : mapping of str to float
        Seconds for one source.
    sources : iterable of Source or str
        What the table was computed from; the title says if any is generated.
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each measure, a color and shape for each outcome, and the seconds last.
    """
    shown = [name for name in names if name != CHANCE]
    outcomes = list(table["outcome"].unique())
    with plt.rc_context(STYLE):
        size = (11.5, 1.9 + 0.42 * len(shown))
        figure, grid = plt.subplots(1, len(SHOWN) + 1, figsize=size, sharey=True, layout="constrained")
        for axes, measure in zip(grid, SHOWN, strict=False):
            for i, (outcome, (color, shape)) in enumerate(zip(outcomes, LOOKS, strict=False)):
                rows = table[(table["outcome"] == outcome) & (table["measure"] == measure)].set_index("predictor")
                heights = [place + 0.3 * (i - (len(outcomes) - 1) / 2) for place in range(len(shown))]
                own = rows.loc[shown]
                axes.hlines(heights, own["low"], own["high"], color=color)
                axes.plot(own["estimate"], heights, shape, color=color, markersize=6, label=outcome)
                axes.axvline(rows.loc[CHANCE, "estimate"], color=color, linestyle=":", linewidth=1.2)
            axes.set_xlabel(MEASURES[measure])
            axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        grid[-1].barh(range(len(shown)), [max(costs[name], 1e-3) for name in shown], color=FAINT, height=0.6)
        grid[-1].set(xscale="log", xlabel="seconds for one source")
        grid[0].set_yticks(range(len(shown)), [names[name] for name in shown])
        grid[0].invert_yaxis()
        handles, labels = grid[0].get_legend_handles_labels()
        handles.append(plt.Line2D([], [], color=FAINT, linestyle=":"))
        place: dict[str, Any] = {"loc": "outside lower center", "ncols": len(labels) + 1, "frameon": False}
        figure.legend(handles, [*(f"transfer by {label}" for label in labels), "a random ranking"], **place)
        figure.suptitle(caption(title, sources), x=0.01, ha="left", fontsize=12)
    return finish(figure)
