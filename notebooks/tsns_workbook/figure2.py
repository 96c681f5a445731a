"""What fingerprints show: shares with intervals, controls, similarities.

Intervals are bootstrap intervals over the resamples: in every draw each run's resamples are drawn anew with
replacement, the K neurons are chosen again, and the runs averaged. They say how far the forests and their
subsamples of *this* corpus would move a fingerprint, nothing about other texts. A draw rests on fewer
different resamples and so chooses more noisily than the run itself; the middle 95 % of the draws is
therefore shifted to lie around the estimate.

The paper's statements about the regions of the fingerprints (§4.3), judged by rule.

Figures about fingerprints, in the style of `tsns_workbook.plots`: a tidy frame in, a Figure out.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform

from tsns_lib.fingerprints import fingerprint_similarity, uniform_band
from tsns_workbook.plots import FAINT, INK, STYLE, fingerprint_heatmap, finish
from tsns_workbook.report import bare, caption, claim, verdict
from tsns_workbook.statistics import PERCENTILES, Interval


def evenness(shares: np.ndarray) -> np.ndarray:
    """Entropy of fingerprints in percent of the greatest: 100 for equal shares, 0 for a single layer.

    Examples
    --------
    >>> evenness(np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])).tolist()
    [50.0, 0.0]
    """
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    return 0.0 - 100 * (shares * logs).sum(axis=-1) / np.log(shares.shape[-1])


def share_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Fingerprint of every source: mean of the runs, interval and spread; sources of one task together.

    Parameters
    ----------
    frame : pandas.DataFrame
        As `tsns_lib.fingerprints.fingerprint_frame` gives it.

    Returns
    -------
    pandas.DataFrame
        Columns source, task, layer (from 1), share, low, high, spread (standard deviation between the runs,
        missing for one), all in percent.
    """
    tables = []
    grouped = frame.iloc[np.argsort(pd.factorize(frame["task"])[0], kind="stable")]
    for (source, task), rows in grouped.groupby(["source", "task"], sort=False):
        runs = 100 * np.stack(rows["shares"].to_list())
        share = runs.mean(axis=0)
        low, high = around(share, 100 * np.mean(rows["draws"].to_list(), axis=0))
        spread = runs.std(axis=0, ddof=1) if len(runs) > 1 else np.nan
        facts = {"share": share, "low": low, "high": high, "spread": spread}
        tables.append(pd.DataFrame({"source": source, "task": task, "layer": np.arange(1, len(share) + 1)} | facts))
    return pd.concat(tables, ignore_index=True)


def similarity_matrix(frame: pd.DataFrame, metric: str = "cosine") -> pd.DataFrame:
    """Similarity of all sources to each other, by the mean fingerprint of the runs.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns source and shares: as `fingerprint_frame` gives it.
    metric : str
        As in `tsns_lib.fingerprint_similarity`.

    Returns
    -------
    pandas.DataFrame
        Sources down and across, in the order of the frame.
    """
    means = frame.groupby("source", sort=False)["shares"].apply(lambda shares: np.mean(shares.to_list(), axis=0))
    values = [[fingerprint_similarity(a, b, metric) for b in means] for a in means]
    return pd.DataFrame(values, index=list(means.index), columns=list(means.index))


def null_table(frame: pd.DataFrame, nulls: Mapping[str, pd.DataFrame], encoder: Any) -> pd.DataFrame:
    """Compare fingerprints with those that know nothing of the task.

    Parameters
    ----------
    frame : pandas.DataFrame
        As `fingerprint_frame` gives it.
    nulls : mapping of str to pandas.DataFrame
        The same for some of the sources, such as {"shuffled labels": ..., "random weights": ...}.
    encoder : Encoder
        Whose layers they are.

    Returns
    -------
    pandas.DataFrame
        One row for each such source and kind of fingerprint: its cosine with the task's own, evenness, largest
        share (percent), and how many layers lie outside the 95 % band of K neurons drawn evenly.
    """
    rows = []
    for source in dict.fromkeys(name for null in nulls.values() for name in null["source"]):
        own, _ = mean_fingerprint(frame, source)
        for kind, kept in {"task": frame, **nulls}.items():
            shares, _ = mean_fingerprint(kept, source)
            low, high = uniform_band(int(kept["k"].iloc[0]), encoder.n_layers, encoder.n_neurons)
            outside = int(((shares < low) | (shares > high)).sum())
            cosine = fingerprint_similarity(own, shares)
            rows.append((source, kind, cosine, float(evenness(shares)), 100 * float(shares.max()), outside))
    columns = ["source", "fingerprint", "cosine with the task's", "evenness", "largest share", "layers outside"]
    return pd.DataFrame(rows, columns=columns).round(2)


def mean_fingerprint(frame: pd.DataFrame, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean fingerprint of the runs of a source, shape (n_layers,), and of every draw, shape (draws, n_layers)."""
    rows = frame[frame["source"] == source]
    if rows.empty:
        raise ValueError(f"no fingerprint of source {source!r}")
    return np.mean(rows["shares"].to_list(), axis=0), np.mean(rows["draws"].to_list(), axis=0)


def around(estimate: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Ends of the middle 95 % of the draws (down), shifted to lie around the estimate."""
    return np.percentile(draws - draws.mean(axis=0) + estimate, PERCENTILES, axis=0)


LAYERS = 24  # of the paper's encoder; its layers are met by depth, layer / number of layers
LATE, MIDDLE = (19, 24), (14, 20)  # "last six" (§4.3) and "14th-20th" (§4.4) of the 24
REGIONS = {
    **dict.fromkeys(["books", "dvd", "electronics", "kitchen", "mr", "sst"], LATE),
    **dict.fromkeys(["scitail", "mnli", "qqp"], MIDDLE),
}
SPREAD = ("snli", "rte", "mrpc")  # "almost all layers" (§4.3)
WORDS = {"reproduced": "holds", "not reproduced": "does not hold"}


def region(source: str, n_layers: int) -> tuple[int, int] | None:
    """First and last layer (from 1) in which the paper sees the fingerprint of a source; None for no region.

    Examples
    --------
    >>> region("books", 24), region("qqp", 24), region("miniature:qqp", 6), region("rte", 24)
    ((19, 24), (14, 20), (4, 5), None)
    """
    if bare(source) not in REGIONS:
        return None
    first, last = REGIONS[bare(source)]
    inside = [layer for layer in range(1, n_layers + 1) if first * n_layers <= LAYERS * layer <= last * n_layers]
    if not inside or len(inside) == n_layers:
        raise ValueError(f"an encoder of {n_layers} layers is too shallow for the paper's regions")
    return inside[0], inside[-1]


def region_margin(shares: np.ndarray, first: int, last: int) -> np.ndarray:
    """Share in the layers first..last minus that in the best other block of as many adjacent layers, in points.

    Parameters
    ----------
    shares : ndarray of shape (..., n_layers)
        Fingerprints.
    first, last : int
        Layers, from 1.

    Returns
    -------
    ndarray of shape (...)

    Examples
    --------
    >>> region_margin(np.array([0.1, 0.2, 0.4, 0.3]), 3, 4).round(6).item()
    10.0
    """
    blocks = np.lib.stride_tricks.sliding_window_view(shares, last - first + 1, axis=-1).sum(axis=-1)
    return 100 * (blocks[..., first - 1] - np.delete(blocks, first - 1, axis=-1).max(axis=-1))


def region_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Test the paper's statement about every source (§4.3).

    Parameters
    ----------
    frame : pandas.DataFrame
        As `fingerprint_frame` gives it.

    Returns
    -------
    pandas.DataFrame
        `source`, the paper's `statement` with the layers that it means here, `margin` with its interval (points:
        `region_margin`, or for the spread ones evenness less the mean of the sources of the middle layers), and
        the `verdict` ("holds", "direction only", "does not hold"). Sources of which the paper says nothing
        are left out.
    """
    rows = []
    for source in frame["source"].unique():
        margin = _margin(frame, source)
        if margin is None:
            continue
        layers = region(source, len(frame["shares"].iloc[0]))
        statement = "spread over almost all layers" if layers is None else "most in layers {} to {}".format(*layers)
        judged = verdict(*(interval := _interval(*margin)))
        points = (round(value, 1) + 0.0 for value in interval)  # + 0.0: no minus before a zero
        rows.append((source, statement, *points, WORDS.get(judged, judged)))
    return pd.DataFrame(rows, columns=["source", "statement", "margin", "low", "high", "verdict"])


def figure2_claims(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Judge what the paper says of Figure 2; a group of which no source is there is not testable.

    Parameters
    ----------
    frame : pandas.DataFrame
        As `fingerprint_frame` gives it.

    Returns
    -------
    list of dict
        As `report.claim` gives them.
    """
    groups = {
        "figure2.sentiment_late": [name for name, layers in REGIONS.items() if layers == LATE],
        "figure2.middle": [name for name, layers in REGIONS.items() if layers == MIDDLE],
        "figure2.spread": SPREAD,
    }
    claims = []
    for id, names in groups.items():
        margins = [_margin(frame, source) for source in frame["source"].unique() if bare(source) in names]
        found = [margin for margin in margins if margin is not None]
        means = (np.mean(values, axis=0) for values in zip(*found, strict=True))
        claims.append(claim(id, *_interval(*means)) if found else claim(id))
    tasks = frame.drop_duplicates("source").set_index("source")["task"]
    same = [tasks[a] == tasks[b] for a, b in combinations(tasks.index, 2)]
    gaps = (
        _gap(shares, np.array(same)) for shares in zip(*(mean_fingerprint(frame, s) for s in tasks.index), strict=True)
    )
    claims.append(claim("figure2.tasks", *_interval(*gaps)) if len(set(same)) == 2 else claim("figure2.tasks"))
    return claims


def _margin(frame: pd.DataFrame, source: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Margin of the paper's statement about a source, and of every draw; None if it says or compares nothing."""
    both = mean_fingerprint(frame, source)
    layers = region(source, both[0].shape[-1])
    if layers is not None:
        first, second = (region_margin(shares, *layers) for shares in both)
        return first, second
    middle = [other for other in frame["source"].unique() if REGIONS.get(bare(other)) == MIDDLE]
    if bare(source) not in SPREAD or not middle:
        return None
    others = zip(*(mean_fingerprint(frame, other) for other in middle), strict=True)
    own, drawn = (
        evenness(shares) - np.mean([evenness(other) for other in group], axis=0)
        for shares, group in zip(both, others, strict=True)
    )
    return own, drawn


def _gap(fingerprints: tuple[np.ndarray, ...], same: np.ndarray) -> np.ndarray:
    """Mean cosine of the pairs of one task minus that of the other pairs, in points."""
    units = [shares / np.linalg.norm(shares, axis=-1, keepdims=True) for shares in fingerprints]
    cosines = np.array([(a * b).sum(axis=-1) for a, b in combinations(units, 2)])
    return 100 * (cosines[same].mean(axis=0) - cosines[~same].mean(axis=0))


def _interval(estimate: np.ndarray, draws: np.ndarray) -> Interval:
    low, high = around(estimate, draws)
    return Interval(float(estimate), float(low), float(high))


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
        As `tsns_lib.fingerprints.fingerprint_frame` gives it.
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
