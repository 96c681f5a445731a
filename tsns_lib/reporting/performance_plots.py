"""The figures of the performance notebook: ratios beside agreement, and how seconds grow."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from tsns_lib.reporting.plots import INK, STYLE, finish


def ratio_plot(compared: pd.DataFrame, name: str, *, title: str, than: str) -> Figure:
    """Draw how many times as fast each peer is, on a logarithmic scale.

    Parameters
    ----------
    compared : pandas.DataFrame
        With a column `name` and the columns `seconds` and `ratio`; what has no ratio is not drawn.
    name : str
        The column of names.
    title : str
        Title.
    than : str
        What the ratio is measured against.

    Returns
    -------
    matplotlib.figure.Figure
    """
    found = compared.dropna(subset=["ratio"])
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.6, 0.9 + 0.42 * len(found)), layout="constrained")
        colors = ["#0072B2" if text.startswith("tsns_lib") else "#999999" for text in found[name]]
        axes.barh(found[name], found["ratio"], color=colors, height=0.62)
        axes.axvline(1, color=INK, linewidth=1)
        for place, row in enumerate(found.itertuples()):
            axes.text(max(row.ratio, 1), place, f" {row.ratio:.2g}×  ({row.seconds:.3g} s)", va="center", fontsize=9)
        axes.set_xscale("log")
        axes.set_xlim(right=found["ratio"].max() * 6)
        axes.invert_yaxis()
        axes.set_xlabel(f"times as fast as {than}")
        axes.set_title(title, loc="left")
    return finish(figure)


def scaling_plot(measured: pd.DataFrame, *, title: str) -> Figure:
    """Draw seconds against what was varied, a panel each, both axes logarithmic.

    Parameters
    ----------
    measured : pandas.DataFrame
        As `tsns_lib.benchmarks.forests.scaling` gives it.
    title : str
        Title.

    Returns
    -------
    matplotlib.figure.Figure
    """
    with plt.rc_context(STYLE):
        grid = sns.relplot(
            measured, x="value", y="seconds", col="varied", hue="forest", style="forest", kind="line", markers=True,
            dashes=False, palette=["#0072B2", "#888888"], facet_kws={"sharex": False}, height=2.9, aspect=0.95,
        )  # fmt: skip
        grid.set(xscale="log", yscale="log").set_titles("{col_name}").set_axis_labels("", "seconds")
        for axes, (_, part) in zip(grid.axes.flat, measured.groupby("varied", sort=False), strict=True):
            values = sorted(part["value"].unique())
            axes.set_xticks(values, [f"{value:,}" for value in values], fontsize=8)
            axes.minorticks_off()
        grid.figure.suptitle(title, x=0.01, y=1.04, ha="left")
        grid.legend.set_title(None)
    return finish(grid.figure)
