"""What stopping the resamples early saves and changes: the stopped choice beside that of all J."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from tsns_lib.reporting.plots import STYLE, finish
from tsns_lib.reporting.report import caption
from tsns_lib.reporting.statistics import difference
from tsns_lib.stability import overlap_curve

STOPPED = "tsns stopped"


def stopping_table(full: pd.DataFrame, stopped: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Compare a transfer grid with `tol` with the same grid after all J resamples.

    Parameters
    ----------
    full, stopped : pandas.DataFrame
        As `tsns_lib.transfer_grid` gives them, without and with `tol`; else the same.
    seed : int
        Seed of the resampled target rows.

    Returns
    -------
    pandas.DataFrame
        One row for each K: `resamples` (mean of sources and runs) of `J`, `overlap` of the chosen neurons with those
        of all J (mean and smallest), both accuracies in percent, the `change` in points with its interval, and
        whether that is a `measurable change`: an interval without 0.
    """
    ours, theirs = (grid[grid["method"] == "tsns"] for grid in (stopped, full))
    both = pd.concat([theirs, ours.assign(method=STOPPED)], ignore_index=True)
    pairs = ours.merge(theirs, on=["source", "target", "k", "run"], suffixes=("", "_full"))
    shared = [
        len(np.intersect1d(a, b)) / len(b) for a, b in zip(pairs["selected"], pairs["selected_full"], strict=True)
    ]
    rows = []
    for k, cells in pairs.assign(shared=shared).groupby("k"):
        change, low, high = difference(both, (STOPPED, k), ("tsns", k), seed=seed)
        rows.append(
            {
                "K": k,
                "resamples": round(cells["resamples"].mean(), 1),
                "J": cells["resamples_full"].max(),
                "overlap": round(cells["shared"].mean(), 3),
                "smallest": round(cells["shared"].min(), 3),
                "accuracy": round(100 * cells["accuracy"].mean(), 1),
                "accuracy of all J": round(100 * cells["accuracy_full"].mean(), 1),
                "change": round(change, 2),
                "low": round(low, 2),
                "high": round(high, 2),
                "measurable change": "yes" if low > 0 or high < 0 else "no",
            }
        )
    return pd.DataFrame(rows)


def overlap_curves(q_of: Mapping[str, np.ndarray], neurons: Sequence[int]) -> pd.DataFrame:
    """The forecast of the overlap beside the overlap found, look by look, for several sources.

    Parameters
    ----------
    q_of : mapping of str to ndarray of shape (J, N)
        Importance on all J resamples of each source.
    neurons : sequence of int
        The values of K.

    Returns
    -------
    pandas.DataFrame
        As `tsns_lib.stability.overlap_curve`, with the column `source` in front.
    """
    curves = [overlap_curve(q, neurons, len(q)).assign(source=name) for name, q in q_of.items()]
    return pd.concat(curves, ignore_index=True)[["source", "resamples", "k", "expected", "low", "found"]]


def plot_overlap_curves(curves: pd.DataFrame, tol: float) -> Figure:
    """Draw forecast and truth against the resamples, a panel for each K; one line a source.

    Parameters
    ----------
    curves : pandas.DataFrame
        As `overlap_curves` gives it.
    tol : float
        Drawn as the line where one stops.

    Returns
    -------
    matplotlib.figure.Figure
    """
    forms = {"low": "forecast, lower end (95 %)", "expected": "forecast, expected", "found": "found"}
    long = curves.melt(["source", "resamples", "k"], list(forms), "form", "overlap").replace({"form": forms})
    with plt.rc_context(STYLE):
        grid = sns.relplot(
            long, x="resamples", y="overlap", col="k", hue="form", style="form", hue_order=list(forms.values()),
            style_order=list(forms.values()), units="source", estimator=None, kind="line", palette="colorblind",
            height=2.9, aspect=1.0,
        )  # fmt: skip
        grid.set_titles("K = {col_name}").set_axis_labels("resamples", "overlap with all J")
        for axes in grid.axes.flat:
            axes.axhline(1 - tol, color="0.4", linewidth=0.8, linestyle=":")
            axes.set(xscale="log", xticks=(looked := [8, 16, 32, 64]), xticklabels=looked)
            axes.minorticks_off()
        title = caption("How far the choice of now is that of all J", curves["source"])
        grid.figure.suptitle(title, x=0.01, y=1.04, ha="left")
        grid.legend.set_title(None)
    return finish(grid.figure)
