"""What the notebook on performance shows: figures, what early stopping changes, the cost of the paper's run, promises.

The measurements come from `tsns_workbook.benchmarks`. Here they become tables and pictures; the cost of the paper's
whole run is arithmetic, units counted from Table 1 times the cost of a unit measured in this run.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from tsns_lib import extract, source_pairs, water_fill
from tsns_lib.extraction import texts_of, tokenised
from tsns_lib.importance import Forest, Grown, Resamples
from tsns_lib.ranking import order_neurons
from tsns_lib.sampling import resample_fraction
from tsns_lib.stability import forecast_overlap
from tsns_workbook import paper
from tsns_workbook.benchmarks import LARGE, OURS, PAPER_NEURONS, REFERENCE, SMALL, evenly
from tsns_workbook.plots import BLUE, FAINT, INK, STYLE, finish
from tsns_workbook.report import caption
from tsns_workbook.statistics import bootstrap, difference

FOREST_TARGETS = {"base": 20.0, "wide": 25.0, "tall": 30.0}  # times as fast as scikit-learn's forest
EXTRACTION_TARGETS = {"plain loop, float32": 2.0, "NeuroX to HDF5": 10.0}  # times as fast
PEAK_TARGETS = {SMALL: 0.35, LARGE: 0.60}
WORKERS_TARGET = 1.8

RUNS, RESAMPLES, TREES = 5, 100, 1_000  # paper §4.2
DOMAIN_PAIRS = 6  # of the four domains of Table 4: every learner takes two, and its choice serves both other targets
MAX_LENGTH = 256  # of the paper profile
SAMPLE = 300  # rows of a corpus whose tokens are counted


# sizes side by side


def noisy_copies(X: np.ndarray, n_neurons: int, *, seed: int = 0) -> np.ndarray:
    """Widen activations to n_neurons by copies of themselves with more and more noise; X itself stands first."""
    rng = np.random.default_rng(seed)
    n_copies = -(-n_neurons // X.shape[1])
    noise = (copy * X.std(axis=0) * rng.normal(size=X.shape) for copy in range(n_copies))
    return np.concatenate([(X + added).astype(np.float32) for added in noise], axis=1)[:, :n_neurons]


def stacked(sources: Sequence[Any], encoder: Any, max_length: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Put several sources one below the other and take rows at even distances: activations and labels.

    The labels are in the numbers of the first source; classes meet by name.
    """
    X = np.concatenate([extract(source, encoder, max_length=max_length) for source in sources])
    return evenly(X, np.concatenate([sources[0].labels_of(source) for source in sources]), rows)


def by_size(sizes: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Our forest and scikit-learn's at every size: tables of `compare_forests` with `rows`, `neurons` and `trees`."""
    compared = pd.concat([table.assign(size=size) for size, table in sizes.items()])
    compared = compared[compared["forest"].isin([OURS, REFERENCE])].reset_index(drop=True)
    return compared[["size", "rows", "neurons", "trees", "forest", "seconds", "ratio", *_overlaps(compared)]]


def _overlaps(compared: pd.DataFrame) -> list[str]:
    return [column for column in compared.columns if column.startswith("K=")]


def ratio_plot(compared: pd.DataFrame, name: str, *, title: str, than: str) -> Figure:
    """Draw how many times as fast each peer in column `name` is; what was not measured has no ratio and no bar."""
    measured = compared.dropna(subset=["ratio"])
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.6, 0.9 + 0.42 * len(measured)), layout="constrained")
        colors = [BLUE if peer.startswith(OURS) else FAINT for peer in measured[name]]
        axes.barh(measured[name], measured["ratio"], color=colors, height=0.62)
        axes.axvline(1, color=INK, linewidth=1)
        for place, row in enumerate(measured.itertuples()):
            axes.text(max(row.ratio, 1), place, f" {row.ratio:.2g}×  ({row.seconds:.3g} s)", va="center", fontsize=9)
        axes.set_xscale("log")
        axes.set_xlim(right=measured["ratio"].max() * 6)
        axes.invert_yaxis()
        axes.set_xlabel(f"times as fast as {than}")
        axes.set_title(title, loc="left")
    return finish(figure)


def scaling_plot(measured: pd.DataFrame, *, title: str) -> Figure:
    """Draw seconds against each size that `scaling` varied, in a panel of its own, on logarithmic axes."""
    with plt.rc_context(STYLE):
        grid = sns.relplot(
            measured, x="value", y="seconds", col="varied", hue="forest", style="forest", kind="line", markers=True,
            dashes=False, palette=[BLUE, FAINT], facet_kws={"sharex": False}, height=2.9, aspect=0.95,
        )  # fmt: skip
        grid.set(xscale="log", yscale="log").set_titles("{col_name}").set_axis_labels("", "seconds")
        for axes, (_, panel) in zip(grid.axes.flat, measured.groupby("varied", sort=False), strict=True):
            values = sorted(panel["value"].unique())
            axes.set_xticks(values, [f"{value:,}" for value in values], fontsize=8)
            axes.minorticks_off()
        grid.figure.suptitle(title, x=0.01, y=1.04, ha="left")
        grid.legend.set_title(None)
    return finish(grid.figure)


# stopping early


def stopping_table(full: pd.DataFrame, stopped: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Compare a transfer grid that stopped early, or changed in another way, with the grid by all T trees.

    One row for each K, which stops alone: `trees` of each resample used (mean of sources and runs) of `T`, `overlap` of
    the chosen neurons with those of the full grid (mean and smallest), both accuracies in percent, and the `change` in
    points with its interval; it is a `measurable change` if the interval does not hold 0.
    """
    before, after = (grid[grid["method"] == "tsns"] for grid in (full, stopped))
    both = bootstrap(pd.concat([before, after.assign(method="tsns stopped")], ignore_index=True), seed=seed)
    pairs = after.merge(before, on=["source", "target", "k", "run"], suffixes=("", "_full"))
    pairs["shared"] = [
        len(np.intersect1d(a, b)) / len(b) for a, b in zip(pairs["selected"], pairs["selected_full"], strict=True)
    ]
    rows = []
    for k, cells in pairs.groupby("k"):
        change, low, high = difference(both, ("tsns stopped", k), ("tsns", k))
        rows.append(
            {
                "K": k,
                "trees": round(cells["trees"].mean(), 1),
                "T": cells["trees_full"].max(),
                "overlap": round(cells["shared"].mean(), 3),
                "smallest": round(cells["shared"].min(), 3),
                "accuracy": round(100 * cells["accuracy"].mean(), 1),
                "accuracy with T trees": round(100 * cells["accuracy_full"].mean(), 1),
                "change": round(change, 2),
                "low": round(low, 2),
                "high": round(high, 2),
                "measurable change": "yes" if low > 0 or high < 0 else "no",
            }
        )
    return pd.DataFrame(rows)


def looked_at(X: np.ndarray, y: Sequence[Any], **forest: Any) -> list[Grown]:
    """Importance at every interim look up to all trees; `forest` holds fields of `tsns_lib.importance.Forest`."""
    return list(Resamples(X, y, Forest(**forest), progress=True).at_looks())


def overlap_curve(grown: Sequence[Grown], neurons: Sequence[int]) -> pd.DataFrame:
    """How the overlap with the final choice grows, look by look, of which the last has all trees.

    One row for each look and K, in columns `trees`, `k`, `expected` and `low` (the forecast), and `found`, the true
    overlap.
    """
    rows, final = [], order_neurons(grown[-1].q.mean(axis=0))
    for n_trees, q, noise in grown:
        present = order_neurons(q.mean(axis=0))
        forecasts = forecast_overlap(q, noise, neurons, 1 - n_trees / grown[-1].n_trees)
        for k, expected, low in zip(neurons, *forecasts, strict=True):
            found = len(np.intersect1d(present[:k], final[:k])) / k
            rows.append({"trees": n_trees, "k": k, "expected": expected, "low": low, "found": found})
    return pd.DataFrame(rows)


def overlap_curves(grown: Mapping[str, Sequence[Grown]], neurons: Sequence[int]) -> pd.DataFrame:
    """The curves of several sources; the column `source` stands in front."""
    curves = [overlap_curve(looks, neurons).assign(source=name) for name, looks in grown.items()]
    return pd.concat(curves, ignore_index=True)[["source", "trees", "k", "expected", "low", "found"]]


def plot_overlap_curves(curves: pd.DataFrame, tol: float, *, generated: bool) -> Figure:
    """Draw forecast and measurement against the trees of a resample, a panel for each K and a line for each source.

    The dotted line is the overlap 1 - tol, above which no more trees grow.
    """
    forms = {"low": "forecast, lower end (95 %)", "expected": "forecast, expected", "found": "measured"}
    long = curves.melt(["source", "trees", "k"], list(forms), "form", "overlap").replace({"form": forms})
    ticks = sorted(curves["trees"].unique())[::2]
    with plt.rc_context(STYLE):
        grid = sns.relplot(
            long, x="trees", y="overlap", col="k", hue="form", style="form", hue_order=list(forms.values()),
            style_order=list(forms.values()), units="source", estimator=None, kind="line", palette="colorblind",
            height=2.9, aspect=1.0,
        )  # fmt: skip
        grid.set_titles("K = {col_name}").set_axis_labels("trees of each resample", "share of the K neurons")
        for axes in grid.axes.flat:
            axes.axhline(1 - tol, color="0.4", linewidth=0.8, linestyle=":")
            axes.set(xscale="log", xticks=ticks, xticklabels=ticks)
            axes.minorticks_off()
        title = caption("Share of the neurons chosen so far that all trees choose too", generated)
        grid.figure.suptitle(title, x=0.01, y=1.04, ha="left")
        grid.legend.set_title(None)
    return finish(grid.figure)


# the cost of the paper's run


def paper_forests(rows_of: Mapping[str, int]) -> pd.DataFrame:
    """Count the forests (resamples × runs) of every table and figure, by the training rows of each source of Table 1.

    Forests on equal rows are grown once.
    """
    counts = [("Tables 2 and 3, Figure 2", name, n, resample_fraction(n), 1) for name, n in rows_of.items()]
    counts.append(("Table 4", "two of four domains", 2 * rows_of["books"], 0.7, DOMAIN_PAIRS))
    for members in dict.fromkeys(_table5_members(rows_of)):
        name = "+".join(f"{source} {share:,}" for source, share in members)
        counts.append(("Table 5", name, sum(share for _, share in members), 0.1, 1))
    rows = [(what, name, n, round(n * beta), RUNS * RESAMPLES * times) for what, name, n, beta, times in counts]
    return pd.DataFrame(rows, columns=["what", "source", "source rows", "resample rows", "forests"])


def _table5_members(rows_of: Mapping[str, int]) -> Iterator[tuple[tuple[str, int], ...]]:
    """The sources of every learner of Table 5, each with its share of the budget; equal learners come again."""
    table = paper.table5()
    for budget, union in product(sorted(table["budget"].unique()), table["source"].unique()):
        names = union.split("+")
        shares = water_fill([rows_of[name] for name in names], budget).tolist()
        learners = [first for first, _ in source_pairs(len(names))] if len(names) > 1 else [(0,)]
        for first in learners:
            yield tuple(sorted((names[m], shares[m]) for m in first))


def forest_hours(forests: pd.DataFrame, of_a_tree: float, n_trees: int = TREES) -> pd.Series:
    """Core-hours of the forests that `paper_forests` counts, by table; `seconds_per_split_level` is `of_a_tree`."""
    n = forests["resample rows"].to_numpy(float)
    hours = forests["forests"] * n_trees * of_a_tree * n * np.log2(n) / 3600
    return hours.groupby(forests["what"], sort=False).sum()


def mean_tokens(source: Any, encoder: Any, max_length: int) -> float:
    """Tokens of a row, on average over some hundred rows at even distances."""
    texts, pairs = texts_of(source, None)
    step = max(1, source.n_rows // SAMPLE)
    return float(tokenised(encoder, texts[::step], pairs[::step] if pairs else None, max_length)[0].lengths.mean())


def paper_cost(
    forests: pd.DataFrame, of_a_tree: float, n_tokens: float, tokens_a_core_second: float, rows: int
) -> pd.DataFrame:
    """Core-hours and disk of the whole paper, and hours on 1, 16 and 128 cores.

    `forests` is as `paper_forests` counts them, `of_a_tree` as `seconds_per_split_level` measures it; all `rows` with
    their tokens are encoded once by BERT-large. Hours on several cores are core-hours divided by the cores, because the
    units are independent and there are far more units than cores.
    """
    by_table, counts = forest_hours(forests, of_a_tree), forests.groupby("what", sort=False)["forests"].sum()
    table = pd.DataFrame(
        {
            "units": [f"{rows:,} rows", *(f"{count:,} forests" for count in counts)],
            "core-hours": [n_tokens / tokens_a_core_second / 3600, *by_table],
            "GB": [rows * PAPER_NEURONS * 2 / 1e9, *(counts * PAPER_NEURONS * 8 / 1e9)],
        },
        index=["activations", *by_table.index],
    )
    table.loc["all"] = ["", *table[["core-hours", "GB"]].sum()]
    for cores in (1, 16, 128):
        table[f"hours on {cores} core{'s' * (cores > 1)}"] = table["core-hours"] / cores
    return table.round(1)


def paper_bill(
    of_a_tree: float, sources: Sequence[Any], counts: pd.DataFrame, peak: pd.DataFrame, encoder: Any
) -> pd.DataFrame:
    """`paper_cost` from the unit costs of this run.

    `counts` is `paper.table1()`. The mean number of tokens of a row of the `sources` stands for every corpus; `peak` is
    what `share_of_peak` measured, on two cores.
    """
    lengths = [mean_tokens(source, encoder, MAX_LENGTH) for source in sources]
    rows = int(counts[["training", "transferring"]].fillna(0).to_numpy().sum())
    forests = paper_forests(counts.set_index("source")["training"].astype(int).to_dict())
    large_tokens_a_second = peak.set_index("encoder").at[LARGE, "tokens a second"]
    return paper_cost(forests, of_a_tree, rows * float(np.mean(lengths)), large_tokens_a_second / 2, rows)


# promises


def targets(
    sizes: Mapping[str, pd.DataFrame],
    ways: pd.DataFrame,
    peak: pd.DataFrame,
    workers: pd.DataFrame,
    saved: pd.DataFrame,
) -> pd.DataFrame:
    """Judge what this workbook promises of itself, from the tables of the notebook: "met", "not met" or "not measured
    here"; what is shown for comparison has no verdict.
    """
    rows: list[tuple[str, str, float, float]] = []
    for size, target in FOREST_TARGETS.items():
        if size not in sizes:
            rows.append((f"forest, {size}", "ratio at least", target, np.nan))
            continue
        table = sizes[size].set_index("forest")
        rows.append((f"forest, {size}", "ratio at least", target, table.at[OURS, "ratio"]))
        lag = (table.loc[REFERENCE, _overlaps(table)] - table.loc[OURS, _overlaps(table)]).mean()
        rows.append((f"forest, {size}: overlap behind scikit-learn's own seeds', mean of K", "at most", 0.02, lag))
    for n, seconds in ways.set_index("way").groupby("rows")["seconds"]:
        for peer, target in EXTRACTION_TARGETS.items():
            ratio = seconds[peer] / seconds["tsns_lib, bfloat16"]
            rows.append((f"extraction of {n:,} texts against {peer}", "ratio at least", target, ratio))
    for name, target in PEAK_TARGETS.items():
        share = peak.set_index("encoder").at[name, "share"]
        rows.append((f"share of the matrix speed, {name}", "at least", target, share))
    gain_of_two = workers.set_index("where")["ratio"]
    used = float((saved["trees"] / saved["T"]).max())
    rows += [
        ("from 1 to 2 workers", "ratio at least", WORKERS_TARGET, gain_of_two["2 workers"]),
        ("from 1 to 2 threads, the machine itself", "for comparison", np.nan, gain_of_two["here, 2 threads"]),
        ("same bits everywhere", "share of ways", 1.0, float(workers["same bits"].mean())),
        ("tol: largest change of an average, in points", "at most", 0.5, float(saved["change"].abs().max())),
        ("tol: share of the trees that was used", "share", np.nan, used),
    ]
    judged = [(promise, rule, target, ours, _verdict(rule, target, ours)) for promise, rule, target, ours in rows]
    return pd.DataFrame(judged, columns=["promise", "rule", "target", "ours", "verdict"])


def _verdict(rule: str, target: float, ours: float) -> str:
    if np.isnan(ours):
        return "not measured here"
    if np.isnan(target):
        return ""
    is_met = ours <= target if rule == "at most" else ours >= target
    return "met" if is_met else "not met"
