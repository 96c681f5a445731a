"""Tables of the performance notebook: sizes side by side, the bill of the paper's run, and what was promised.

The figures of the performance notebook: ratios beside agreement, and how seconds grow.

What stopping the resamples early saves and changes: the stopped choice beside that of all J.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from tsns_lib.extraction import extract, tokenised
from tsns_lib.stability import overlap_curve
from tsns_workbook.benchmarks import OURS, REFERENCE, evenly, paper_cost
from tsns_workbook.plots import INK, STYLE, finish
from tsns_workbook.report import caption
from tsns_workbook.statistics import difference

SAMPLE = 300  # rows of a corpus whose tokens are counted
MAX_LENGTH = 256  # of the paper profile
FOREST_TARGETS = {"base": 20.0, "wide": 25.0, "tall": 30.0}  # times as fast as scikit-learn's forest
EXTRACTION_TARGETS = {"plain loop, float32": 2.0, "NeuroX to HDF5": 10.0}
PEAK_TARGETS = {"MiniLM (6 × 384)": 0.35, "BERT-large's shape (24 × 1,024)": 0.60}
WORKERS_TARGET = 1.8


def noisy_copies(X: np.ndarray, n_neurons: int, *, seed: int = 0) -> np.ndarray:
    """Widen activations by copies of themselves with more and more noise.

    Parameters
    ----------
    X : ndarray of shape (n, N)
        Activations.
    n_neurons : int
        Neurons of the result.
    seed : int
        Seed of the noise.

    Returns
    -------
    ndarray of shape (n, n_neurons)
        float32; the first N neurons are X.
    """
    rng = np.random.default_rng(seed)
    copies = -(-n_neurons // X.shape[1])
    noise = (copy * X.std(axis=0) * rng.normal(size=X.shape) for copy in range(copies))
    return np.concatenate([(X + part).astype(np.float32) for part in noise], axis=1)[:, :n_neurons]


def stacked(sources: Sequence[Any], encoder: Any, max_length: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Activations and labels of so many rows, at even distances, of several sources one below the other."""
    X = np.concatenate([extract(source, encoder, max_length=max_length) for source in sources])
    return evenly(X, np.concatenate([source.frame["label"].to_numpy() for source in sources]), rows)


def by_size(sizes: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Our forest and scikit-learn's at every size.

    Parameters
    ----------
    sizes : mapping of str to pandas.DataFrame
        As `tsns_workbook.benchmarks.compare_forests` gives them, with columns `rows`, `neurons`, `trees`.
    """
    found = pd.concat([table.assign(size=size) for size, table in sizes.items()])
    found = found[found["forest"].isin([OURS, REFERENCE])]
    shared = [column for column in found.columns if column.startswith("K=")]
    return found[["size", "rows", "neurons", "trees", "forest", "seconds", "ratio", *shared]].reset_index(drop=True)


def paper_bill(
    forests: pd.DataFrame,
    of_a_tree: float,
    sources: Sequence[Any],
    counts: pd.DataFrame,
    peak: pd.DataFrame,
    encoder: Any,
) -> pd.DataFrame:
    """What the paper's own run costs, from the unit costs measured in this run.

    Parameters
    ----------
    forests, of_a_tree
        As `tsns_workbook.benchmarks.paper_cost` takes them.
    sources : sequence of Source
        Corpora whose tokens a row are counted; the mean stands for every corpus of Table 1.
    counts : pandas.DataFrame
        `paper.table1()`.
    peak : pandas.DataFrame
        As `tsns_workbook.benchmarks.share_of_peak` gives it, on two cores.
    encoder : Encoder
        Its tokenizer counts.

    Returns
    -------
    pandas.DataFrame
        As `tsns_workbook.benchmarks.paper_cost`.
    """
    lengths = []
    for source in sources:
        frame = source.frame.iloc[:: max(1, source.n_rows // SAMPLE)]
        pairs = None if frame["text_pair"].isna().all() else frame["text_pair"].tolist()
        lengths.append(tokenised(encoder, frame["text"].tolist(), pairs, MAX_LENGTH)[0].lengths.mean())
    rows = int(counts[["training", "transferring"]].fillna(0).to_numpy().sum())
    of_large = peak.set_index("encoder").at["BERT-large's shape (24 × 1,024)", "tokens a second"]
    return paper_cost(forests, of_a_tree, {"all": rows * float(np.mean(lengths))}, of_large / 2, rows)


def targets(
    sizes: Mapping[str, pd.DataFrame],
    ways: pd.DataFrame,
    peak: pd.DataFrame,
    workers: pd.DataFrame,
    saved: pd.DataFrame,
) -> pd.DataFrame:
    """Judge what this workbook promises of itself; a figure that was not measured says so.

    Parameters
    ----------
    sizes, ways, peak, workers, saved
        The tables of the notebook.

    Returns
    -------
    pandas.DataFrame
        Columns `promise`, `rule`, `target`, `ours`, `verdict`: "met", "not met" or "not measured here".
    """
    rows: list[tuple[str, str, float, float | None]] = []
    for size, target in FOREST_TARGETS.items():
        table = sizes[size].set_index("forest") if size in sizes else None
        rows.append((f"forest, {size}", "ratio at least", target, None if table is None else table.at[OURS, "ratio"]))
        shared = [] if table is None else [column for column in table.columns if column.startswith("K=")]
        if table is not None:
            lag = (table.loc[REFERENCE, shared] - table.loc[OURS, shared]).mean()
            rows.append((f"forest, {size}: overlap behind scikit-learn's own seeds', mean of K", "at most", 0.02, lag))
    for n, table in ways.set_index("way").groupby("rows"):
        seconds = table["seconds"]
        for peer, target in EXTRACTION_TARGETS.items():
            ratio = seconds[peer] / seconds["tsns_lib, bfloat16"]
            rows.append((f"extraction of {n:,} texts against {peer}", "ratio at least", target, ratio))
    for name, target in PEAK_TARGETS.items():
        share = peak.set_index("encoder").at[name, "share"]
        rows.append((f"share of the matrix speed, {name}", "at least", target, share))
    of_two = workers.set_index("where")["ratio"]
    rows.append(("from 1 to 2 workers", "ratio at least", WORKERS_TARGET, of_two["2 workers"]))
    rows.append(("from 1 to 2 threads, the machine itself", "for comparison", np.nan, of_two["here, 2 threads"]))
    rows.append(("same bits everywhere", "share of ways", 1.0, float(workers["same bits"].mean())))
    rows.append(("tol: largest change of an average, in points", "at most", 0.5, float(saved["change"].abs().max())))
    rows.append(
        ("tol: resamples used of those of all J", "share", np.nan, float((saved["resamples"] / saved["J"]).max()))
    )
    return pd.DataFrame(
        [(promise, rule, target, ours, _met(rule, target, ours)) for promise, rule, target, ours in rows],
        columns=["promise", "rule", "target", "ours", "verdict"],
    )


def _met(rule: str, target: float, ours: float | None) -> str:
    if ours is None or np.isnan(ours):
        return "not measured here"
    if np.isnan(target):
        return ""
    return "met" if (ours <= target if rule == "at most" else ours >= target) else "not met"


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
        As `tsns_workbook.benchmarks.scaling` gives it.
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
