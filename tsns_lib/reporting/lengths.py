"""How long the texts of each corpus are."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tsns_lib.reporting.plots import FAINT, INK, STYLE
from tsns_lib.reporting.report import bare, caption

QUANTILES = (5, 25, 50, 75, 95)
COLOURS = {"sentiment": "#0072B2", "nli": "#D55E00", "similarity": "#009E73"}  # Okabe and Ito's


def length_quantiles(sources: Sequence[Any]) -> pd.DataFrame:
    """Quantiles of the number of words a row, both texts of a pair together.

    Parameters
    ----------
    sources : sequence of Source
        Splits.

    Returns
    -------
    pandas.DataFrame
        Columns `source`, `task`, `split`, and the percentiles `p5`, `p25`, `p50`, `p75`, `p95`.
    """
    rows = [(source.name, source.task, source.split, *np.percentile(_words(source), QUANTILES)) for source in sources]
    return pd.DataFrame(rows, columns=["source", "task", "split", *(f"p{q}" for q in QUANTILES)])


def length_plot(lengths: pd.DataFrame, *, title: str = "Words a row, both texts of a pair together") -> Figure:
    """Draw the distribution of lengths, one line a corpus; no text is shown.

    Parameters
    ----------
    lengths : pandas.DataFrame
        As `length_quantiles` gives it; the training splits are drawn.
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        A thin line from the 5th to the 95th percentile, a thick one over the middle half, a dot at the median.
    """
    rows = lengths[lengths["split"] == "train"][::-1].reset_index(drop=True)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 1.3 + 0.3 * len(rows)), layout="constrained")
        for task, part in rows[::-1].groupby("task", sort=False):
            look: dict[str, Any] = {"color": COLOURS.get(str(task), INK)}
            axes.hlines(part.index, part["p5"], part["p95"], linewidth=1.2, **look)
            axes.hlines(part.index, part["p25"], part["p75"], linewidth=6, alpha=0.45, **look)
            axes.plot(part["p50"], part.index, "o", markersize=6, label=task, **look)
        ticks = [t for t in (5, 10, 20, 50, 100, 200, 500, 1000) if t <= 1.2 * rows["p95"].max()]
        axes.set(xscale="log", xlabel="words (5 %, middle half, median, 95 %)")
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        axes.set_yticks(rows.index, rows["source"].map(bare))
        axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        axes.tick_params(color=FAINT)
        axes.set_title(caption(title, rows["source"]), loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    plt.close(figure)
    return figure


def _words(source: Any) -> pd.Series:
    texts = source.frame["text"].str.split().str.len()
    return texts + source.frame["text_pair"].str.split().str.len() if source.is_pair else texts
