"""Figure 2: the fingerprints of all sources, what the paper says of them, and fingerprints that know no task.

The paper speaks of tasks, so a statement is tested over *sources*: its interval is the t interval of the few sources it
is about, and tasks are permuted among sources. The intervals of single sources and layers are narrower and say less:
they are bootstrap intervals over the resamples of one corpus, that is, how far other forests on other subsamples of
this corpus would move a fingerprint. In every draw the resamples of each run are drawn with replacement, the K neurons
are selected again, and the runs are averaged. A draw holds fewer distinct resamples than the run and is therefore
noisier, so the middle 95 % of the draws is shifted to lie around the estimate.
"""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform

from tsns_lib.encoders import Encoder
from tsns_lib.fingerprints import fingerprint_similarity, uniform_band
from tsns_workbook.cards import marked
from tsns_workbook.dyads import kinship, t_interval
from tsns_workbook.plots import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    PINK,
    PLAIN,
    STYLE,
    fingerprint_heatmap,
    finish,
    readable_digits,
)
from tsns_workbook.report import OUR_WORDS, Interval, answer, caption, claim, figures, short_name, verdict
from tsns_workbook.statistics import PERCENTILES

PAPER_LAYERS = 24  # of the paper's encoder; another encoder's layers are matched by depth, layer / number of layers
LATE, MIDDLE = (19, 24), (14, 20)  # "last six" (§4.3) and "14th-20th" (§4.4) of the 24
REGIONS = {
    **dict.fromkeys(["books", "dvd", "electronics", "kitchen", "mr", "sst"], LATE),
    **dict.fromkeys(["scitail", "mnli", "qqp"], MIDDLE),
}
SPREAD = ("snli", "rte", "mrpc")  # "almost all layers" (§4.3)
GROUPS = {
    "figure2.sentiment_late": [name for name, layers in REGIONS.items() if layers == LATE],
    "figure2.middle": [name for name, layers in REGIONS.items() if layers == MIDDLE],
    "figure2.spread": list(SPREAD),
}
STATEMENTS = {
    "figure2.sentiment_late": "sentiment lies most in the last quarter of the layers",
    "figure2.middle": "SciTail, MNLI and QQP lie most in the middle-upper ones",
    "figure2.spread": "SNLI, RTE and MRPC are spread more evenly than the others",
    "figure2.tasks": "two sources are more alike within a task than between tasks",
}
TASK_COLORS = (BLUE, ORANGE, GREEN, PINK)
NULL_LOOKS: list[dict[str, Any]] = [
    {"color": ORANGE, "marker": "^", "linestyle": "--"},
    {"color": GREEN, "marker": "s", "linestyle": "-."},
]


def mean_fingerprints(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Mean of the runs of every source, from a `fingerprint_frame`: first the estimate, then one row for each draw."""
    return {
        str(source): np.vstack([np.mean(rows["shares"].to_list(), axis=0), np.mean(rows["draws"].to_list(), axis=0)])
        for source, rows in frame.groupby("source", sort=False)
    }


def evenness(shares: np.ndarray) -> np.ndarray:
    """Entropy of fingerprints in percent of the greatest: 100 for equal shares, 0 for a single layer.

    Examples
    --------
    >>> evenness(np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])).tolist()
    [50.0, 0.0]
    """
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    return 0.0 - 100 * (shares * logs).sum(axis=-1) / np.log(shares.shape[-1])


def region(source: str, n_layers: int) -> tuple[int, int] | None:
    """First and last layer (from 1) in which the paper sees the fingerprint of a source; None for no region.

    Examples
    --------
    >>> region("books", 24), region("qqp", 24), region("miniature:qqp", 6), region("rte", 24)
    ((19, 24), (14, 20), (4, 5), None)
    """
    if short_name(source) not in REGIONS:
        return None
    first, last = (layer * n_layers for layer in REGIONS[short_name(source)])
    inside = [layer for layer in range(1, n_layers + 1) if first <= PAPER_LAYERS * layer <= last]
    if not inside or len(inside) == n_layers:
        raise ValueError(f"an encoder of {n_layers} layers is too shallow for the paper's regions")
    return inside[0], inside[-1]


def region_margin(shares: np.ndarray, first: int, last: int) -> np.ndarray:
    """Share in the layers first..last (from 1) less the best other block of equally many adjacent ones, in points.

    Examples
    --------
    >>> region_margin(np.array([0.1, 0.2, 0.4, 0.3]), 3, 4).round(6).item()
    10.0
    """
    blocks = np.lib.stride_tricks.sliding_window_view(shares, last - first + 1, axis=-1).sum(axis=-1)
    return 100 * (blocks[..., first - 1] - np.delete(blocks, first - 1, axis=-1).max(axis=-1))


def share_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Fingerprint of every source in percent, layer by layer; the sources of a task stand together.

    `share` is the mean of the runs, `low` and `high` its interval, `spread` the standard deviation between the runs.
    """
    tables = []
    by_task = frame.iloc[np.argsort(pd.factorize(frame["task"])[0], kind="stable")]
    for (source, task), rows in by_task.groupby(["source", "task"], sort=False):
        runs = 100 * np.stack(rows["shares"].to_list())
        share = runs.mean(axis=0)
        low, high = _ends(share, 100 * np.mean(rows["draws"].to_list(), axis=0))
        spread = runs.std(axis=0, ddof=1) if len(runs) > 1 else np.nan
        columns = {"share": share, "low": low, "high": high, "spread": spread}
        tables.append(pd.DataFrame({"source": source, "task": task, "layer": np.arange(1, len(share) + 1)} | columns))
    return pd.concat(tables, ignore_index=True)


def null_table(frame: pd.DataFrame, nulls: Mapping[str, pd.DataFrame], encoder: Encoder) -> pd.DataFrame:
    """Compare fingerprints with those of the nulls, such as {"shuffled labels": ..., "random weights": ...}.

    A null is a `fingerprint_frame` of some of the sources. "layers outside" counts the layers whose share lies
    outside the 95 % band of K neurons drawn at random from all layers.
    """
    rows = []
    of_task = mean_fingerprints(frame)
    for source in dict.fromkeys(name for null in nulls.values() for name in null["source"]):
        for kind, fingerprints in {"task": frame, **nulls}.items():
            shares = mean_fingerprints(fingerprints)[source][0]
            low, high = uniform_band(int(fingerprints["k"].iloc[0]), encoder.n_layers, encoder.n_neurons)
            outside = int(((shares < low) | (shares > high)).sum())
            similarity = fingerprint_similarity(of_task[source][0], shares)
            rows.append((source, kind, similarity, float(evenness(shares)), 100 * float(shares.max()), outside))
    columns = ["source", "fingerprint", "cosine with the task's", "evenness", "largest share", "layers outside"]
    return pd.DataFrame(rows, columns=columns).round(2)


def similarity_matrix(frame: pd.DataFrame) -> pd.DataFrame:
    """Cosine of the mean fingerprints of every two sources, in the order of the frame."""
    means = {source: shares[0] for source, shares in mean_fingerprints(frame).items()}
    values = [[fingerprint_similarity(a, b) for b in means.values()] for a in means.values()]
    return pd.DataFrame(values, index=list(means), columns=list(means))


def region_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Look at the paper's statement (§4.3) for every source alone, with its margin in points.

    The interval is over forests on this one corpus. A source of which the paper says nothing does not appear.
    """
    fingerprints = mean_fingerprints(frame)
    rows = []
    for source, shares in fingerprints.items():
        margins = _statement_margins(fingerprints, source)
        if margins is None:
            continue
        layers = region(source, shares.shape[1])
        statement = "spread over almost all layers" if layers is None else "most in layers {} to {}".format(*layers)
        interval = _interval(margins)
        rows.append((source, statement, *interval.rounded(), OUR_WORDS[verdict(*interval)]))
    return pd.DataFrame(rows, columns=["source", "statement", "margin", "low", "high", "verdict"])


def figure2_claims(frame: pd.DataFrame, shuffled: pd.DataFrame, *, seed: int = 0) -> list[dict[str, Any]]:
    """Judge what the paper says of Figure 2, over sources; a group with fewer than two sources here is not testable.

    `shuffled` is the `fingerprint_frame` of some sources with shuffled labels. A statement is not by the selection if
    it holds for these, too, on the mean over those of its sources that are among them.
    """
    fingerprints, of_no_task = mean_fingerprints(frame), mean_fingerprints(shuffled)
    claims = []
    for id, names in GROUPS.items():
        values = {name: _value(shares, name) for name, shares in fingerprints.items() if short_name(name) in names}
        controls = [_value(shares, name) for name, shares in of_no_task.items() if short_name(name) in names]
        others = [_value(shares, names[0]) for name, shares in fingerprints.items() if short_name(name) not in names]
        compared = (
            others if set(names) == set(SPREAD) else None
        )  # a region's margin is against other layers, not sources
        if len(values) < 2 or (compared is not None and len(compared) < 2):
            claims.append(claim(id))
            continue
        tested = t_interval(list(values.values()), compared)
        level = 0.0 if compared is None else float(np.mean(compared))
        by_selection = float(np.mean(controls)) <= level if controls else None
        claims.append(claim(id, *tested[:3], p=tested.p, by_selection=by_selection))
    tasks = frame.drop_duplicates("source").set_index("source")["task"]
    if tasks.nunique() < 2 or tasks.is_unique:
        return [*claims, claim("figure2.tasks")]
    alike = kinship(similarity_matrix(frame), tasks.to_dict(), seed=seed)
    return [*claims, claim("figure2.tasks", *alike[:3], p=alike.p)]


def _value(shares: np.ndarray, source: str) -> float:
    """What the paper's statement about a source measures: the margin of its region, or the evenness."""
    layers = region(source, shares.shape[1])
    return float(evenness(shares[0]) if layers is None else region_margin(shares[0], *layers))


def claims_by_K(frames: Mapping[int, pd.DataFrame], *, seed: int = 0) -> pd.DataFrame:
    """What the statements of `figure2_claims` measure for other K: a row for each statement, a column for each K.

    `frames` maps K to its `fingerprint_frame`. A cell has the estimate, its 95 % interval and the verdict.
    """
    cells = {}
    for k, frame in frames.items():
        for row in figure2_claims(frame, frame.iloc[:0], seed=seed):  # no control: each K has its own verdict only
            cells[STATEMENTS[row["id"]], f"K = {k}"] = " ".join([*figures(row), row["verdict"]]).strip()
    return pd.Series(cells).unstack(sort=False)


def figure2_answer(claims: list[dict[str, Any]], shares: pd.DataFrame, shuffled: pd.DataFrame) -> str:
    """Say from the judged claims and a `share_table` what is left of Figure 2, and where the largest share lies.

    `shuffled` is the `fingerprint_frame` of some sources with shuffled labels: what these choose there is said, too.
    """
    most = shares.loc[shares["share"].idxmax()]
    peak = f"{most['share']:.0f} % of the neurons of {short_name(most['source'])} in layer {most['layer']}"
    chance = mean_fingerprints(shuffled).get(most["source"])
    if chance is not None:
        peak += f"; with its labels shuffled that layer has {100 * chance[0, most['layer'] - 1]:.0f} %"
    return f"{answer(claims, STATEMENTS)} The largest share of one layer is {peak}."


def region_heatmap(shares: pd.DataFrame, *, generated: bool, title: str, encoder: Encoder | None = None) -> Figure:
    """Draw a `share_table`: a line between tasks, a frame where the paper sees the fingerprint.

    With an `encoder`, † marks a source that it was trained on.
    """
    figure = fingerprint_heatmap(shares, generated=generated, title=title)
    axes = figure.axes[0]
    tasks = shares.drop_duplicates("source").set_index("source")["task"]
    n_layers = int(shares["layer"].max())
    with plt.rc_context(STYLE):
        for row, (source, task) in enumerate(tasks.items()):
            if row and task != tasks.iloc[row - 1]:
                axes.axhline(row, color=INK, linewidth=1.5)
            layers = region(str(source), n_layers)
            if layers is not None:
                corner, width = (layers[0] - 1 + 0.04, row + 0.06), layers[1] - layers[0] + 1 - 0.08
                axes.add_patch(Rectangle(corner, width, 0.88, fill=False, edgecolor=ORANGE, linewidth=1.6))
        names = [f"{task}: {short_name(marked(str(source), encoder))}" for source, task in tasks.items()]
        axes.set_yticks(axes.get_yticks(), names)
        seen = "; † the encoder was trained on it" if any("†" in name for name in names) else ""
        axes.set_xlabel(f"layer (framed: where the paper sees the fingerprint, by depth{seen})")
    return figure


def null_panels(
    frame: pd.DataFrame, nulls: Mapping[str, pd.DataFrame], encoder: Encoder, *, generated: bool, title: str
) -> Figure:
    """Draw, for each source of the nulls (at most two, as in `null_table`), its fingerprint beside theirs.

    Bars are the fingerprint with 95 % intervals, lines the nulls (mean of the runs), and the grey band is the middle
    95 % for K neurons drawn at random from all layers.
    """
    low, high = uniform_band(int(frame["k"].iloc[0]), encoder.n_layers, encoder.n_neurons)
    shares = share_table(frame)
    null_shares = {kind: share_table(null) for kind, null in nulls.items()}
    sources = list(dict.fromkeys(name for null in nulls.values() for name in null["source"]))
    with plt.rc_context(STYLE):
        size = (1.2 + (2.4 + 0.08 * encoder.n_layers) * len(sources), 3.6)
        figure, panels = plt.subplots(1, len(sources), figsize=size, sharey=True, squeeze=False, layout="constrained")
        for axes, source in zip(panels[0], sources, strict=True):
            rows = shares[shares["source"] == source]
            spread = [(rows["share"] - rows["low"]).clip(lower=0), (rows["high"] - rows["share"]).clip(lower=0)]
            bars = {"color": "#9ECAE1", "edgecolor": BLUE, "ecolor": INK, "capsize": 2}
            axes.bar(rows["layer"], rows["share"], yerr=spread, label="fingerprint", **bars)
            axes.axhspan(100 * low, 100 * high, color=FAINT, alpha=0.35, linewidth=0, label="random neurons, 95 %")
            for look, (kind, table) in zip(NULL_LOOKS, null_shares.items(), strict=False):
                null = table[table["source"] == source]
                axes.plot(null["layer"], null["share"], label=kind, markersize=4, linewidth=1.4, **look)
            axes.set_title(short_name(marked(source, encoder)))
            axes.set_xlabel("layer")
            axes.set_xticks(sorted({1, *range(4, encoder.n_layers, 4), encoder.n_layers}))
        panels[0][0].set_ylabel("share of the neurons (%)")
        figure.suptitle(caption(title, generated), x=0.01, ha="left", fontsize=11)
        panels[0][-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return finish(figure)


def similarity_dendrogram(
    similarity: pd.DataFrame,
    *,
    generated: bool,
    title: str,
    tasks: Mapping[str, str] | None = None,
    encoder: Encoder | None = None,
) -> Figure:
    """Draw a `similarity_matrix`, its sources ordered and joined by average linkage of 1 - similarity.

    The diagonal is left out. Names have the colour of their task where `tasks` says it; with negative similarities the
    colours of the cells diverge from 0. With an `encoder`, † marks a source that it was trained on.
    """
    if len(similarity) < 2:
        raise ValueError(f"similarity: needs at least two sources to join, got {len(similarity)}")
    distance = np.clip(1 - (similarity.to_numpy() + similarity.to_numpy().T) / 2, 0, None)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), method="average", optimal_ordering=True)
    with plt.rc_context(STYLE | PLAIN):
        size = (4.4 + 0.5 * len(similarity), 1.6 + 0.36 * len(similarity))
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
        own = np.eye(len(ordered), dtype=bool)
        look: dict[str, Any] = {"cmap": "Blues", "linewidths": 1, "linecolor": "white", "annot_kws": {"fontsize": 9}}
        if (ordered.to_numpy()[~own] < 0).any():
            look |= {"cmap": "RdBu", "center": 0}
        sns.heatmap(ordered, ax=right, annot=True, fmt=".2f", mask=own, cbar_kws={"label": "similarity"}, **look)
        readable_digits(right)
        names = [short_name(marked(str(name), encoder)) for name in ordered.index]
        right.set_yticklabels(names, rotation=0)
        right.set_xticklabels(names, rotation=45, ha="right", rotation_mode="anchor")
        right.tick_params(length=0)
        if tasks is not None:
            _color_names(right, [tasks[name] for name in ordered.index])
        figure.suptitle(caption(title, generated), x=0.01, ha="left", fontsize=11)
    return finish(figure)


def _color_names(axes: Axes, tasks: list[str]) -> None:
    """Give the names on both axes the colour of their task, with a legend below that says which is which."""
    colors = dict(zip(dict.fromkeys(tasks), TASK_COLORS, strict=False))
    for labels in (axes.get_yticklabels(), axes.get_xticklabels()):
        for text, task in zip(labels, tasks, strict=True):
            text.set(color=colors[task], fontweight="bold")
    handles = [Patch(color=color, label=task) for task, color in colors.items()]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.35, -0.2), frameon=False, title="task")


def _statement_margins(fingerprints: Mapping[str, np.ndarray], source: str) -> np.ndarray | None:
    """Margin of the paper's statement about a source, for the estimate and every draw; None where it says nothing.

    Of a region it is `region_margin`; of a spread source the evenness less the mean of all sources with a region.
    """
    shares = fingerprints[source]
    layers = region(source, shares.shape[1])
    if layers is not None:
        return region_margin(shares, *layers)
    others = [evenness(values) for name, values in fingerprints.items() if short_name(name) in REGIONS]
    if short_name(source) not in SPREAD or not others:
        return None
    return evenness(shares) - np.mean(others, axis=0)


def _interval(values: np.ndarray) -> Interval:
    """Interval of a quantity of which the first value is the estimate and the others are the draws."""
    low, high = _ends(values[0], values[1:])
    return Interval(float(values[0]), float(low), float(high))


def _ends(estimate: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Ends of the middle 95 % of the draws (down), shifted to lie around the estimate."""
    return np.percentile(draws - draws.mean(axis=0) + estimate, PERCENTILES, axis=0)
