"""Figures about fingerprints, in the style of `tsns_lib.reporting.plots`: a tidy frame in, a Figure out."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform

from tsns_lib.fingerprints import uniform_band
from tsns_lib.reporting.fingerprint_tables import share_table
from tsns_lib.reporting.plots import FAINT, INK, STYLE, fingerprint_heatmap, finish
from tsns_lib.reporting.regions import region
from tsns_lib.reporting.report import bare, caption

CLAIMED = "#D55E00"
NULL_LOOKS: list[dict[str, Any]] = [
    {"color": "#D55E00", "marker": "^", "linestyle": "--"},
    {"color": "#009E73", "marker": "s", "linestyle": "-."},
]


def region_heatmap(shares: pd.DataFrame, *, title: str = "Fingerprints") -> Figure:
    """Draw the fingerprints of all sources, a rule between tasks, a frame where the paper sees them.

    Parameters
    ----------
    shares : pandas.DataFrame
        As `fingerprint_tables.share_table` gives it: the sources of a task stand together.
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        Sources down, layers across; percent of the selected neurons.
    """
    figure = fingerprint_heatmap(shares, title=title)
    axes = figure.axes[0]
    tasks = shares.drop_duplicates("source").set_index("source")["task"]
    n_layers = int(shares["layer"].max())
    with plt.rc_context(STYLE):
        for row, (source, task) in enumerate(tasks.items()):
            if row and task != tasks.iloc[row - 1]:
                axes.axhline(row, color=INK, linewidth=1.5)
            if layers := region(str(source), n_layers):
                corner, width = (layers[0] - 1 + 0.04, row + 0.06), layers[1] - layers[0] + 1 - 0.08
                axes.add_patch(Rectangle(corner, width, 0.88, fill=False, edgecolor=CLAIMED, linewidth=1.6))
        names = tasks + ": " + pd.Series(tasks.index.map(bare), tasks.index)
        axes.set_yticks(axes.get_yticks(), names)
        axes.set_xlabel("layer (framed: where the paper sees the fingerprint, by depth)")
    return figure


def null_panels(frame: pd.DataFrame, nulls: Mapping[str, pd.DataFrame], encoder: Any, *, title: str) -> Figure:
    """Draw some fingerprints beside those that know nothing of the task.

    Parameters
    ----------
    frame : pandas.DataFrame
        As `tsns_lib.fingerprint_study.fingerprint_frame` gives it.
    nulls : mapping of str to pandas.DataFrame
        The same for some of the sources, at most two: {"shuffled labels": ..., "random weights": ...}.
    encoder : Encoder
        Whose layers they are.
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each source of the nulls: the fingerprint as bars with 95 % intervals, the nulls as lines
        (mean of the runs), the band of K neurons drawn evenly in grey.
    """
    sources = list(dict.fromkeys(name for null in nulls.values() for name in null["source"]))
    low, high = uniform_band(int(frame["k"].iloc[0]), encoder.n_layers, encoder.n_neurons)
    own = share_table(frame)
    lines = {kind: share_table(null) for kind, null in nulls.items()}
    with plt.rc_context(STYLE):
        size = (1.2 + (2.4 + 0.08 * encoder.n_layers) * len(sources), 3.6)
        figure, panels = plt.subplots(1, len(sources), figsize=size, sharey=True, squeeze=False, layout="constrained")
        for axes, source in zip(panels[0], sources, strict=True):
            rows = own[own["source"] == source]
            spread = [(rows["share"] - rows["low"]).clip(lower=0), (rows["high"] - rows["share"]).clip(lower=0)]
            bars = {"color": "#9ECAE1", "edgecolor": "#0072B2", "ecolor": INK, "capsize": 2}
            axes.bar(rows["layer"], rows["share"], yerr=spread, label="fingerprint", **bars)
            axes.axhspan(100 * low, 100 * high, color=FAINT, alpha=0.35, linewidth=0, label="drawn evenly, 95 %")
            for look, (kind, table) in zip(NULL_LOOKS, lines.items(), strict=False):
                null = table[table["source"] == source]
                axes.plot(null["layer"], null["share"], label=kind, markersize=4, linewidth=1.4, **look)
            axes.set_title(bare(source))
            axes.set_xlabel("layer")
            axes.set_xticks(sorted({1, *range(4, encoder.n_layers, 4), encoder.n_layers}))
        panels[0][0].set_ylabel("share of the neurons (%)")
        figure.suptitle(caption(title, sources), x=0.01, ha="left", fontsize=11)
        panels[0][-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return finish(figure)


def similarity_dendrogram(similarity: pd.DataFrame, *, title: str = "Similarity of the fingerprints") -> Figure:
    """Draw a similarity matrix, its sources ordered and joined by average linkage.

    Parameters
    ----------
    similarity : pandas.DataFrame
        Sources down and across, 1 on the diagonal, as `fingerprint_tables.similarity_matrix` gives it; at least
        two sources.
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        The dendrogram joins at a height of 1 - similarity.

    Raises
    ------
    ValueError
        If there are fewer than two sources.
    """
    if len(similarity) < 2:
        raise ValueError(f"similarity: needs at least two sources to join, got {len(similarity)}")
    distance = np.clip(1 - (similarity.to_numpy() + similarity.to_numpy().T) / 2, 0, None)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), method="average", optimal_ordering=True)
    with plt.rc_context(STYLE):
        size = (4.4 + 0.54 * len(similarity), 1.6 + 0.36 * len(similarity))
        figure, (left, right) = plt.subplots(
            1, 2, figsize=size, width_ratios=[1, 3.4], layout="constrained", gridspec_kw={"wspace": 0.01}
        )
        drawn = dendrogram(tree, ax=left, orientation="left", no_labels=True, color_threshold=0)
        for lines in left.collections:
            lines.set_color(INK)
        left.set_ylim(10 * len(similarity), 0)
        left.spines[["left", "right", "top"]].set_visible(False)
        left.set_xlabel("1 - similarity")
        ordered = similarity.iloc[drawn["leaves"], drawn["leaves"]]
        look: dict[str, Any] = {"cmap": "Blues", "linewidths": 1, "linecolor": "white", "annot_kws": {"fontsize": 9}}
        sns.heatmap(ordered, ax=right, annot=True, fmt=".3f", vmax=1, cbar_kws={"label": "similarity"}, **look)
        names = [bare(name) for name in ordered.index]
        right.set_yticklabels(names, rotation=0)
        right.set_xticklabels(names, rotation=45, ha="right", rotation_mode="anchor")
        right.tick_params(length=0)
        figure.suptitle(caption(title, similarity.index), x=0.01, ha="left", fontsize=11)
    return finish(figure)
