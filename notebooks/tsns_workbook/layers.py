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
from tsns_workbook.dyads import t_interval
from tsns_workbook.few_runs import contrast, hits_of, tuned_accuracy
from tsns_workbook.finetuning.grids import INTACT, RANDOM_NEURONS, Layers
from tsns_workbook.plots import BLUE, FAINT, INK, ORANGE, PINK, STYLE, finish
from tsns_workbook.report import answer, caption, claim, short_name
from tsns_workbook.statistics import Sides

SHADES = ("#56B4E9", BLUE, INK, PINK)
MARKERS = ("o", "s", "^", "D")


def agreement_of_few(
    X: ArrayLike, y: ArrayLike, n_layers: int, *, share: float, draws: int, seed: int, uneven: bool = False
) -> np.ndarray:
    """Whether a sample of the rows gives the same layer of least variability as all rows do, for each of the draws.

    A sample is a share of all rows; `uneven`, of the rows of one class, with all rows of the others (the classes take
    turns).

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
    chosen = []
    for draw in range(draws):
        order = np.random.default_rng(derive_seed(seed, "few rows", draw)).permutation(len(labels))
        thinned = labels[order] == draw % (labels.max() + 1) if uneven else np.ones(len(labels), dtype=bool)
        n_kept = max(1, round(share * thinned.sum()))
        rows = np.concatenate([order[thinned][:n_kept], order[~thinned]])
        if len(np.unique(labels[rows])) < 2:
            few = f"the {len(rows)} rows of draw {draw} have one class only"
            raise ValueError(f"share={share}: {few}; take a larger share")
        chosen.append(layer_variability(states[rows], labels[rows], n_layers).argmin())
    return np.array(chosen) == of_all


def majority_of(tests: Mapping[str, Any]) -> dict[str, float]:
    """Percent of the largest class of every source's test: the accuracy of whoever always says it."""
    return {name: 100 * test.frame["label"].value_counts(normalize=True).max() for name, test in tests.items()}


# claims


def learnt(accuracy: pd.DataFrame, method: str, k: int, majority: Mapping[str, float]) -> list[str]:
    """The sources whose models are above the majority class, by the whole interval of a `tuned_accuracy` table."""
    rows = accuracy[(accuracy["method"] == method) & (accuracy["k"] == k)]
    return [row.source for row in rows.itertuples() if row.low > majority[row.source]]


def variability_claims(
    grid: pd.DataFrame,
    differing: Sequence[str],
    few: Mapping[str, ArrayLike],
    uneven: Mapping[str, ArrayLike],
    majority: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Judge what arXiv 2210.10041 says of layers chosen by hidden-state variability.

    `grid` holds the trials of `grids.block_trials`. `differing` are the sources whose chosen layer is not the last:
    for the others the two blocks are the same. Where even all layers, tuned, are not above the majority class, blocks
    cannot be compared. Without any source left a claim is not testable. `few` and `uneven` are what `agreement_of_few`
    gives for each source, `majority` is `majority_of` the tests.
    """
    (k,) = grid["k"].unique()
    able = learnt(tuned_accuracy(grid), "all layers", k, majority)
    targets = grid.drop_duplicates("source").set_index("source")["target"]

    def against(id: str, method: str, rival: str, sources: Sequence[str]) -> dict[str, Any]:
        cells = [(source, targets[source], k) for source in sources if source in able]
        sides = [([(s, t, method, k)], [(s, t, rival, k)]) for s, t, k in cells]
        interval = contrast(grid, sides) if sides else None
        if interval is None:
            return claim(id)
        hits = hits_of(grid)
        above = np.mean([hits[better].mean() - majority[better[0]] for (better,), _ in sides]) > 0
        return claim(id, *interval, above_majority=bool(above))

    return [
        against("variability.block_full", "ν block", "top block", differing),
        against("variability.block_adapter", "ν block, adapters", "top block, adapters", differing),
        against("variability.matches_all", "ν block", "all layers", list(few)),
        _of_tasks("variability.few_rows", few),
        _of_tasks("variability.uneven_classes", uneven),
        claim("variability.cost"),
    ]


def _of_tasks(id: str, agreement: Mapping[str, ArrayLike]) -> dict[str, Any]:
    """Judge the percent of agreeing draws, mean over the tasks with a t interval that ends at 0 and 100."""
    shares = [100 * np.asarray(values, dtype=float).mean() for values in agreement.values()]
    if len(shares) < 2:
        return claim(id)
    found = t_interval(shares)
    return claim(id, found.estimate, max(found.low, 0.0), min(found.high, 100.0))


def reinitialization_claims(
    grid: pd.DataFrame, probes: pd.DataFrame, blocks: Layers, majority: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Judge what arXiv 2004.14975 says of layers that probe well, and of the number of rows.

    `grid` holds the trials "intact" and "from layer 1" for the smallest and the largest size, and for the smallest
    also every block and "only … kept" of every block. `probes` is a `grids.probing_grid` of the same sources. A source
    counts where its intact model is above the majority class: with as many rows as a claim has, or the most of them.
    """
    few, many = int(grid["k"].min()), int(grid["k"].max())
    accuracy = tuned_accuracy(grid)
    able = {k: learnt(accuracy, INTACT, k, majority) for k in (few, many)}
    necessary, sufficient, growth = [], [], []
    for source, target in grid[["source", "target"]].drop_duplicates().itertuples(index=False, name=None):
        best = best_block(probes[probes["source"] == source], blocks)
        others = [name for name in blocks if name != best]
        if source in able[few]:
            necessary.append(([(source, target, best, few)], [(source, target, name, few) for name in others]))
            alone = {name: (source, target, f"only {name} kept", few) for name in blocks}
            sufficient.append(([alone[name] for name in others], [alone[best]]))
        if many > few and source in able[many]:
            growth += [
                ([(source, target, INTACT, many)], [(source, target, "from layer 1", many)]),
                ([(source, target, "from layer 1", few)], [(source, target, INTACT, few)]),
            ]
    return [
        _contrasted("reinitialization.not_necessary", grid, necessary),
        _contrasted("reinitialization.not_sufficient", grid, sufficient),
        _contrasted("reinitialization.data_size", grid, growth, 2),
    ]


def _contrasted(id: str, grid: pd.DataFrame, sides: Sides, times: int = 1) -> dict[str, Any]:
    """Judge a contrast; `times` 2 where the claim is about the sum of two sides, of which a contrast is the mean."""
    interval = contrast(grid, sides) if sides else None
    return claim(id) if interval is None else claim(id, *(times * value for value in interval))


def best_block(probes: pd.DataFrame, blocks: Layers) -> str:
    """The block whose layers probe best on average, in a `grids.probing_grid` of one source."""
    by_layer = probes.set_index("k")["accuracy"]
    return max(blocks, key=lambda name: by_layer[[layer + 1 for layer in blocks[name]]].mean())


def causal_claim(grid: pd.DataFrame, shares: Mapping[str, ArrayLike], blocks: Layers) -> dict[str, Any]:
    """Judge whether the strongest block of a fingerprint matters more to the chosen neurons than to random ones.

    Any low block spoils what lies above it, so the cost of the strongest block beside the others is compared with the
    same cost to as many random neurons. `grid` is a `grids.reinitialized_grid`, `shares` the fingerprint of each
    source.
    """
    sides = []
    for source, target, k in grid[["source", "target", "k"]].drop_duplicates().itertuples(index=False, name=None):
        best = strongest_block(shares[source], blocks)
        for kind in ("", RANDOM_NEURONS):
            cells = {name: (source, target, name + kind, k) for name in blocks}
            side = [cells[name] for name in blocks if name != best], [cells[best]]
            sides.append(side[::-1] if kind else side)
    return _contrasted("causal.strongest_block", grid, sides, 2)


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


def variability_answer(claims: Sequence[Mapping[str, Any]], chosen: Mapping[str, int], n_layers: int) -> str:
    """Say what is left of the claims of notebook 10, and which layers ν chooses."""
    said = {
        "variability.block_full": "the block chosen by ν beats the top block",
        "variability.block_adapter": "so do adapters in it",
        "variability.matches_all": "it comes within one point of tuning all layers",
        "variability.few_rows": "a tenth of the rows chooses the same layer",
        "variability.uneven_classes": "a tenth of one class chooses the same layer",
    }
    layers = ", ".join(f"{short_name(name)} {layer + 1}" for name, layer in chosen.items())
    return f"{answer(claims, said)} The layer of least ν, of {n_layers}: {layers}."


def reinitialization_answer(claims: Sequence[Mapping[str, Any]]) -> str:
    """Say what is left of the claims of notebook 11."""
    said = {
        "reinitialization.not_necessary": "the layers that probe best are not necessary",
        "reinitialization.not_sufficient": "they are not sufficient",
        "reinitialization.data_size": "more rows make pretrained layers worth more",
        "causal.strongest_block": "a fingerprint's strongest block matters more to its neurons than to random ones",
    }
    return answer(claims, said)


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
            lower.bar(rows["layer"], rows["share"], color=np.where(strongest, ORANGE, FAINT))
            lower.set_xlabel("layer")
            lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0, 0].set_ylabel("variability ν")
        panels[1, 0].set_ylabel("fingerprint (%)")
        figure.suptitle(caption(title, generated), x=0.01, ha="left", fontsize=11)
    return finish(figure)


def dot_panels(
    accuracies: pd.DataFrame,
    methods: Sequence[str],
    *,
    marked: Mapping[str, str],
    majority: Mapping[str, float],
    generated: bool,
    title: str,
) -> Figure:
    """Draw the accuracies of a `tuned_accuracy` table with intervals, methods from the top; one is marked by source.

    A dotted line is the majority class.
    """
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
            axes.axvline(majority[source], color=FAINT, linestyle=":", linewidth=1.6, label="majority class")
            axes.set_yticks(range(len(methods)), methods)
            axes.set_xlabel("accuracy (%)")
            axes.set_title(short_name(source), loc="left")
            axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        panels[0, 0].invert_yaxis()
        panels[0, -1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        figure.suptitle(caption(title, generated), x=0.01, ha="left", fontsize=11)
    return finish(figure)


def progressive_panels(
    accuracies: pd.DataFrame,
    methods: Sequence[str],
    probes: pd.DataFrame,
    *,
    majority: Mapping[str, float],
    generated: bool,
    title: str,
) -> Figure:
    """Draw accuracy against the number of pretrained layers, a line for each number of rows, with probing beside it.

    `methods` run from no pretrained layer to all; `probes` is a `grids.probing_grid`. A dotted line is the majority
    class.
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
            axes.plot(probed["k"], 100 * probed["accuracy"], "--", color=ORANGE, label="probing the layer")
            axes.axhline(majority[source], color=FAINT, linestyle=":", linewidth=1.6, label="majority class")
            axes.set(xlabel="layers left pretrained", xticks=range(len(methods)))
            axes.set_title(short_name(source), loc="left")
            axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        panels[0, 0].set_ylabel("accuracy (%)")
        panels[0, -1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        figure.suptitle(caption(title, generated), x=0.01, ha="left", fontsize=11)
    return finish(figure)
