"""What the layers of an encoder are worth (notebooks 10 and 11): claims on tuning and re-initialising them, figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from tsns_lib import validation
from tsns_lib.sampling import derive_seed
from tsns_lib.transferability.variability import layer_variability
from tsns_lib.validation import class_numbers, numbers, whole_number
from tsns_workbook.finetuning.grids import Layers
from tsns_workbook.plots import BLUE, INK, ORANGE, PINK, STYLE, finish
from tsns_workbook.report import Interval, caption, claim, short_name
from tsns_workbook.statistics import PERCENTILES, bootstrap_weights, contrast

GREY = "#BBBBBB"
SHADES = ("#56B4E9", BLUE, INK, PINK)
MARKERS = ("o", "s", "^", "D")


def agreement_of_few(X: ArrayLike, y: ArrayLike, n_layers: int, *, share: float, draws: int, seed: int) -> np.ndarray:
    """Whether a sample of the rows gives the same layer of least variability as all rows do, for each of the draws.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 6))
    >>> X[:20, 2:4] += 5
    >>> agreement_of_few(X, np.arange(40) < 20, 3, share=0.25, draws=2, seed=0)
    array([ True,  True])
    """
    share, draws, seed = validation.share("share", share), whole_number("draws", draws), whole_number("seed", seed, 0)
    states = np.asarray(X)
    labels = class_numbers(y, len(states))
    of_all = layer_variability(states, labels, n_layers).argmin()
    n_rows = max(1, round(share * len(labels)))
    chosen = []
    for draw in range(draws):
        rows = np.random.default_rng(derive_seed(seed, "few rows", draw)).permutation(len(labels))[:n_rows]
        if len(np.unique(labels[rows])) < 2:
            few = f"the {n_rows} rows of draw {draw} have one class only"
            raise ValueError(f"share={share}: {few}; take a larger share")
        chosen.append(layer_variability(states[rows], labels[rows], n_layers).argmin())
    return np.array(chosen) == of_all


# claims


def variability_claims(
    grid: pd.DataFrame, differing: Sequence[str], agreement: Mapping[str, ArrayLike], *, seed: int = 0
) -> list[dict[str, Any]]:
    """Judge what arXiv 2210.10041 says of layers chosen by hidden-state variability.

    `grid` holds the trials of `grids.block_trials`. `differing` are the sources whose chosen layer is not the last:
    for the others the two blocks are the same, and without any differing source the blocks are not testable.
    `agreement` is what `agreement_of_few` gives for each source.
    """
    cells = list(grid[["source", "target", "k"]].drop_duplicates().itertuples(index=False, name=None))

    def against(method: str, rival: str, sources: Sequence[str]) -> tuple[float, ...]:
        sides = [([(s, t, method, k)], [(s, t, rival, k)]) for s, t, k in cells if s in sources]
        return contrast(grid, sides, seed=seed) if sides else ()

    return [
        claim("variability.block_full", *against("ν block", "top block", differing)),
        claim("variability.block_adapter", *against("ν block, adapters", "top block, adapters", differing)),
        claim("variability.matches_all", *against("ν block", "all layers", list(agreement))),
        claim("variability.few_rows", *_mean_agreement(agreement, seed)),
    ]


def _mean_agreement(agreement: Mapping[str, ArrayLike], seed: int) -> Interval:
    """Percent of the draws that agree, averaged over the sources; the interval is by bootstrapped draws."""
    if not agreement:
        raise ValueError("agreement: there is no source")
    means, resampled = [], []
    for source, values in agreement.items():
        agrees = np.asarray(values, dtype=float)
        weights = bootstrap_weights(len(agrees), derive_seed(seed, "agree", source))
        means.append(100 * agrees.mean())
        resampled.append(100 * weights @ agrees / len(agrees))
    low, high = np.percentile(np.mean(resampled, axis=0), PERCENTILES)
    return Interval(float(np.mean(means)), float(low), float(high))


def reinitialization_claims(
    grid: pd.DataFrame, probes: pd.DataFrame, blocks: Layers, *, seed: int = 0
) -> list[dict[str, Any]]:
    """Judge what arXiv 2004.14975 says of layers that probe well, and of the number of rows.

    `grid` holds the trials "intact" and "from layer 1" for the smallest and the largest size, and for the smallest
    also every block and "only … kept" of every block. `probes` is a `grids.probing_grid` of the same sources.
    """
    necessary, sufficient, growth = [], [], []
    for (source, target), rows in grid.groupby(["source", "target"], sort=False):
        few, many = int(rows["k"].min()), int(rows["k"].max())
        best = best_block(probes[probes["source"] == source], blocks)
        others = [name for name in blocks if name != best]
        necessary.append(([(source, target, best, few)], [(source, target, name, few) for name in others]))
        alone = {name: (source, target, f"only {name} kept", few) for name in blocks}
        sufficient.append(([alone[name] for name in others], [alone[best]]))
        if many > few:
            growth += [
                ([(source, target, "intact", many)], [(source, target, "from layer 1", many)]),
                ([(source, target, "from layer 1", few)], [(source, target, "intact", few)]),
            ]
    # the contrast is the mean of the two gains, and the claim is about their sum
    grown = [2 * value for value in contrast(grid, growth, seed=seed)]
    return [
        claim("reinitialization.not_necessary", *contrast(grid, necessary, seed=seed)),
        claim("reinitialization.not_sufficient", *contrast(grid, sufficient, seed=seed)),
        claim("reinitialization.data_size", *grown),
    ]


def best_block(probes: pd.DataFrame, blocks: Layers) -> str:
    """The block whose layers probe best on average, in a `grids.probing_grid` of one source."""
    by_layer = probes.set_index("k")["accuracy"]
    return max(blocks, key=lambda name: by_layer[[layer + 1 for layer in blocks[name]]].mean())


def causal_claim(
    grid: pd.DataFrame, shares: Mapping[str, ArrayLike], blocks: Layers, *, seed: int = 0
) -> dict[str, Any]:
    """Judge whether re-initialising the strongest block of a fingerprint hurts more than an equal block elsewhere.

    `grid` is a `grids.reinitialized_grid`, `shares` the fingerprint of each source.
    """
    sides = []
    for source, target, k in grid[["source", "target", "k"]].drop_duplicates().itertuples(index=False, name=None):
        best = strongest_block(shares[source], blocks)
        cells = {name: (source, target, name, k) for name in blocks}
        sides.append(([cells[name] for name in blocks if name != best], [cells[best]]))
    return claim("causal.strongest_block", *contrast(grid, sides, seed=seed))


def strongest_block(shares: ArrayLike, blocks: Layers) -> str:
    """The block that holds most of the selected neurons.

    Examples
    --------
    >>> strongest_block([0.1, 0.2, 0.6, 0.1], {"layers 1-2": [0, 1], "layers 2-3": [1, 2]})
    'layers 2-3'
    """
    by_layer = numbers("shares", shares, "a share for each layer")
    if not np.isfinite(by_layer).all():
        raise ValueError(f"shares: layer {np.isfinite(by_layer).argmin() + 1} is not finite")
    return max(blocks, key=lambda name: by_layer[list(blocks[name])].sum())


# figures, with a panel or a column for each source


def layer_panels(values: pd.DataFrame, *, generated: bool, title: str) -> Figure:
    """Draw the variability ν of every layer, on a logarithmic axis, above the fingerprint; the best layer is marked.

    `values` has the columns source, layer (the first is 1), variability and share (percent of the selected neurons).
    """
    sources = list(values["source"].unique())
    with plt.rc_context(STYLE):
        size = (1.2 + 2.4 * len(sources), 4.6)
        options: dict[str, Any] = {"sharex": True, "sharey": "row", "squeeze": False, "layout": "constrained"}
        figure, panels = plt.subplots(2, len(sources), figsize=size, **options)
        for column, source in enumerate(sources):
            rows = values[values["source"] == source]
            upper, lower = panels[:, column]
            upper.plot(rows["layer"], rows["variability"], "o-", color=BLUE)
            least = rows.loc[rows["variability"].idxmin()]
            upper.plot(least["layer"], least["variability"], "o", markersize=12, mfc="none", mec=ORANGE, mew=2)
            upper.set_yscale("log")
            upper.set_title(short_name(source), loc="left")
            strongest = rows["share"] == rows["share"].max()
            lower.bar(rows["layer"], rows["share"], color=np.where(strongest, ORANGE, GREY))
            lower.set_xlabel("layer")
            lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0, 0].set_ylabel("variability ν")
        panels[1, 0].set_ylabel("fingerprint (%)")
        figure.suptitle(caption(title, generated), x=0.01, ha="left", fontsize=11)
    return finish(figure)


def dot_panels(
    accuracies: pd.DataFrame, methods: Sequence[str], *, marked: Mapping[str, str], generated: bool, title: str
) -> Figure:
    """Draw the accuracies of a `tuned_accuracy` table with intervals, methods from the top; one is marked by source."""
    sources = list(accuracies["source"].unique())
    with plt.rc_context(STYLE):
        size = (1.8 + 2.6 * len(sources), 1.4 + 0.34 * len(methods))
        figure, panels = plt.subplots(1, len(sources), figsize=size, sharey=True, squeeze=False, layout="constrained")
        for axes, source in zip(panels[0], sources, strict=True):
            rows = accuracies[accuracies["source"] == source].set_index("method").loc[list(methods)]
            for height, (method, row) in enumerate(rows.iterrows()):
                color, marker = (ORANGE, "D") if marked.get(source) == method else (BLUE, "o")
                axes.hlines(height, row["low"], row["high"], color=color)
                axes.plot(row["accuracy"], height, marker, color=color, markersize=6)
            axes.set_yticks(range(len(methods)), methods)
            axes.set_xlabel("accuracy (%)")
            axes.set_title(short_name(source), loc="left")
            axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        panels[0, 0].invert_yaxis()
        figure.suptitle(caption(title, generated), x=0.01, ha="left", fontsize=11)
    return finish(figure)


def progressive_panels(
    accuracies: pd.DataFrame, methods: Sequence[str], probes: pd.DataFrame, *, generated: bool, title: str
) -> Figure:
    """Draw accuracy against the number of pretrained layers, a line for each number of rows, with probing beside it.

    `methods` run from no pretrained layer to all; `probes` is a `grids.probing_grid`.
    """
    sources = list(accuracies["source"].unique())
    with plt.rc_context(STYLE):
        size = (2.6 + 3.6 * len(sources), 3.6)
        figure, panels = plt.subplots(1, len(sources), figsize=size, squeeze=False, layout="constrained")
        for axes, source in zip(panels[0], sources, strict=True):
            rows = accuracies[(accuracies["source"] == source) & accuracies["method"].isin(methods)]
            for i, (k, of_size) in enumerate(rows.groupby("k")):
                line = of_size.set_index("method").loc[list(methods)]
                color, marker = SHADES[i % len(SHADES)], MARKERS[i % len(MARKERS)]
                axes.plot(range(len(line)), line["accuracy"], marker=marker, color=color, label=f"{k:,} rows tuned")
                axes.fill_between(range(len(line)), line["low"], line["high"], color=color, alpha=0.15, linewidth=0)
            probed = probes[probes["source"] == source]
            axes.plot(probed["k"], 100 * probed["accuracy"], ":", color=ORANGE, label="probing the layer")
            axes.set(xlabel="layers left pretrained", xticks=range(len(methods)))
            axes.set_title(short_name(source), loc="left")
            axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        panels[0, 0].set_ylabel("accuracy (%)")
        panels[0, -1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        figure.suptitle(caption(title, generated), x=0.01, ha="left", fontsize=11)
    return finish(figure)
