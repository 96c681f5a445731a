"""Which layers to tune, as hidden-state variability chooses them, and the rival choices of as many.

What the neighbouring papers say of layers, tuned, drawn anew or merely read, judged on grids of accuracies.

Figures about layers: what they hold, and what tuning or drawing them anew does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from tsns_lib.sampling import derive_seed
from tsns_lib.transferability.variability import layer_variability
from tsns_workbook.plots import STYLE, finish
from tsns_workbook.report import bare, caption, claim
from tsns_workbook.statistics import PERCENTILES, Interval, bootstrap_weights, contrast

KINDS = {"full": "", "adapter": ", adapters"}
EVERYTHING: dict[str, dict[str, Any]] = {"all layers": {"method": "full"}}


def block_trials(chosen: int, n_layers: int, n_tuned: int, method: str = "full") -> dict[str, dict[str, Any]]:
    """Two blocks of layers to tune: that which ends at the chosen layer, and as many top layers.

    Parameters
    ----------
    chosen : int
        Layer of least variability, counted from 0: the head stands on it, and those above are dropped.
    n_layers : int
        Layers of the encoder.
    n_tuned : int
        Layers of a block; where fewer lie below the chosen one, both blocks have those.
    method : {"full", "adapter"}
        What is tuned in a block.

    Returns
    -------
    dict of str to dict
        Options of `tsns_workbook.finetuning.finetune.fine_tune` by name.

    Raises
    ------
    ValueError
        If the chosen layer is none, no layer is to be tuned, or the method is unknown.

    Examples
    --------
    >>> for name, options in block_trials(3, 6, 2).items():
    ...     print(name, options)
    ν block {'method': 'full', 'head_layer': 3, 'tuned_layers': [2, 3]}
    top block {'method': 'full', 'head_layer': 5, 'tuned_layers': [4, 5]}
    """
    if not 0 <= chosen < n_layers:
        raise ValueError(f"chosen={chosen}: expected 0 to {n_layers - 1}")
    if n_tuned < 1:
        raise ValueError(f"n_tuned={n_tuned}: expected at least 1")
    if method not in KINDS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(KINDS)}")
    size = min(n_tuned, chosen + 1)
    return {
        name + KINDS[method]: {
            "method": method,
            "head_layer": last,
            "tuned_layers": list(range(last + 1 - size, last + 1)),
        }
        for name, last in (("ν block", chosen), ("top block", n_layers - 1))
    }


def agreement_of_few(X: ArrayLike, y: ArrayLike, n_layers: int, *, share: float, draws: int, seed: int) -> np.ndarray:
    """Whether the layer of least variability is the same when only few rows are known.

    Parameters
    ----------
    X, y, n_layers
        As in `layer_variability`.
    share : float in (0, 1]
        Of the rows, drawn without replacement.
    draws : int
        Draws.
    seed : int
        Of the draws.

    Returns
    -------
    ndarray of bool of shape (draws,)

    Raises
    ------
    ValueError
        If the share is not in (0, 1], or as `layer_variability`.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 6))
    >>> X[:20, 2:4] += 5
    >>> agreement_of_few(X, np.arange(40) < 20, 3, share=0.25, draws=2, seed=0)
    array([ True,  True])
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: expected a number above 0 and at most 1")
    states, labels = np.asarray(X), np.asarray(y)
    chosen = layer_variability(states, labels, n_layers).argmin()
    found = []
    for draw in range(draws):
        order = np.random.default_rng(derive_seed(seed, "few rows", draw)).permutation(len(labels))
        rows = order[: max(1, round(share * len(labels)))]
        found.append(layer_variability(states[rows], labels[rows], n_layers).argmin() == chosen)
    return np.array(found)


def variability_claims(
    grid: pd.DataFrame, differing: Sequence[str], same: Mapping[str, ArrayLike], *, seed: int = 0
) -> list[dict[str, Any]]:
    """Judge what arXiv 2210.10041 says of layers chosen by hidden-state variability.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_workbook.finetuning.grids.tuning_grid` gives it, with the trials of
        `tsns_workbook.layers`.
    differing : sequence of str
        Sources whose chosen layer is not the last: for the others the two blocks are one, and nothing is compared.
    same : mapping of str to array of bool
        For each source, in which draws of few rows the same layer was chosen as with all.
    seed : int
        Of the draws.

    Returns
    -------
    list of dict
        As `report.claim` gives them; the blocks are not testable where no source differs.
    """
    cells = list(grid[["source", "target", "k"]].drop_duplicates().itertuples(index=False, name=None))

    def against(own: str, rival: str, sources: Sequence[str]) -> tuple[float, ...]:
        sides = [([(s, t, own, k)], [(s, t, rival, k)]) for s, t, k in cells if s in sources]
        return contrast(grid, sides, seed=seed) if sides else ()

    return [
        claim("variability.block_full", *against("ν block", "top block", differing)),
        claim("variability.block_adapter", *against("ν block, adapters", "top block, adapters", differing)),
        claim("variability.matches_all", *against("ν block", "all layers", list(same))),
        claim("variability.few_rows", *_share(same, seed)),
    ]


def reinitialization_claims(
    grid: pd.DataFrame, probes: pd.DataFrame, blocks: Mapping[str, Sequence[int]], *, seed: int = 0
) -> list[dict[str, Any]]:
    """Judge what arXiv 2004.14975 says of layers that probe well, and of the size of the data.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_workbook.finetuning.grids.tuning_grid` gives it, with the trials "intact", "from layer 1", each
        block, and "only … kept" of each, the blocks for the smallest size.
    probes : pandas.DataFrame
        As `tsns_workbook.finetuning.grids.probing_grid` gives it, of the same sources.
    blocks : mapping of str to sequence of int
        Layers by name.
    seed : int
        Of the draws.

    Returns
    -------
    list of dict
        As `report.claim` gives them.
    """
    necessary, sufficient, growth = [], [], []
    for (source, target), part in grid.groupby(["source", "target"], sort=False):
        few, many = int(part["k"].min()), int(part["k"].max())
        best = best_block(probes[probes["source"] == source], blocks)
        others = [name for name in blocks if name != best]
        necessary.append(([(source, target, best, few)], [(source, target, name, few) for name in others]))
        kept = {name: (source, target, f"only {name} kept", few) for name in blocks}
        sufficient.append(([kept[name] for name in others], [kept[best]]))
        if many > few:
            growth += [
                ([(source, target, "intact", many)], [(source, target, "from layer 1", many)]),
                ([(source, target, "from layer 1", few)], [(source, target, "intact", few)]),
            ]
    grown = [2 * value for value in contrast(grid, growth, seed=seed)]  # a mean of two halves, where a sum is meant
    return [
        claim("reinitialization.not_necessary", *contrast(grid, necessary, seed=seed)),
        claim("reinitialization.not_sufficient", *contrast(grid, sufficient, seed=seed)),
        claim("reinitialization.data_size", *grown),
    ]


def best_block(probes: pd.DataFrame, blocks: Mapping[str, Sequence[int]]) -> str:
    """The block whose layers probe best on average.

    Parameters
    ----------
    probes : pandas.DataFrame
        As `tsns_workbook.finetuning.grids.probing_grid` gives it, of one source.
    blocks : mapping of str to sequence of int
        Layers, counted from 0, by name.
    """
    by_layer = probes.set_index("k")["accuracy"]
    return max(blocks, key=lambda name: by_layer[[layer + 1 for layer in blocks[name]]].mean())


def causal_claim(
    grid: pd.DataFrame, shares: Mapping[str, ArrayLike], blocks: Mapping[str, Sequence[int]], *, seed: int = 0
) -> dict[str, Any]:
    """Judge whether drawing a fingerprint's strongest block anew hurts more than drawing an equal one elsewhere.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_workbook.finetuning.grids.redrawn_grid` gives it.
    shares : mapping of str to array of shape (n_layers,)
        Fingerprint of each source.
    blocks : mapping of str to sequence of int
        Layers by name.
    seed : int
        Of the draws.

    Returns
    -------
    dict
        As `report.claim` gives it.
    """
    sides = []
    for source, target, k in grid[["source", "target", "k"]].drop_duplicates().itertuples(index=False, name=None):
        best = strongest_block(shares[source], blocks)
        cells = {name: (source, target, name, k) for name in blocks}
        sides.append(([cells[name] for name in blocks if name != best], [cells[best]]))
    return claim("causal.strongest_block", *contrast(grid, sides, seed=seed))


def strongest_block(shares: ArrayLike, blocks: Mapping[str, Sequence[int]]) -> str:
    """The block that holds most of the chosen neurons.

    Examples
    --------
    >>> strongest_block([0.1, 0.2, 0.6, 0.1], {"layers 1-2": [0, 1], "layers 2-3": [1, 2]})
    'layers 2-3'
    """
    by_layer = np.asarray(shares)
    return max(blocks, key=lambda name: by_layer[list(blocks[name])].sum())


def _share(same: Mapping[str, ArrayLike], seed: int) -> Interval:
    """Percent of the draws that agree, mean over the sources, draws drawn anew."""
    means, drawn = [], []
    for source, found in same.items():
        agree = np.asarray(found, dtype=float)
        means.append(100 * agree.mean())
        drawn.append(100 * bootstrap_weights(len(agree), derive_seed(seed, "agree", source)) @ agree / len(agree))
    low, high = np.percentile(np.mean(drawn, axis=0), PERCENTILES)
    return Interval(float(np.mean(means)), float(low), float(high))


BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#BBBBBB"
SHADES = ("#56B4E9", "#0072B2", "#222222", "#CC79A7")
SHAPES = ("o", "s", "^", "D")


def layer_panels(values: pd.DataFrame, *, title: str) -> Figure:
    """Draw what each layer of a task is worth by two measures, one below the other, with the best layer marked.

    Parameters
    ----------
    values : pandas.DataFrame
        Columns source, layer (the first is 1), variability (low is specialised) and share (percent of the chosen
        neurons).
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        Sources across; variability on a logarithmic axis above the fingerprint.
    """
    sources = list(values["source"].unique())
    with plt.rc_context(STYLE):
        size = (1.2 + 2.4 * len(sources), 4.6)
        shape: dict[str, Any] = {"sharex": True, "sharey": "row", "squeeze": False, "layout": "constrained"}
        figure, grid = plt.subplots(2, len(sources), figsize=size, **shape)
        for column, source in enumerate(sources):
            rows = values[values["source"] == source]
            upper, lower = grid[:, column]
            upper.plot(rows["layer"], rows["variability"], "o-", color=BLUE)
            least = rows.loc[rows["variability"].idxmin()]
            upper.plot(least["layer"], least["variability"], "o", markersize=12, mfc="none", mec=ORANGE, mew=2)
            upper.set_yscale("log")
            upper.set_title(bare(source), loc="left")
            strongest = rows["share"] == rows["share"].max()
            lower.bar(rows["layer"], rows["share"], color=np.where(strongest, ORANGE, GREY))
            lower.set_xlabel("layer")
            lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        grid[0, 0].set_ylabel("variability ν")
        grid[1, 0].set_ylabel("fingerprint (%)")
        figure.suptitle(caption(title, sources), x=0.01, ha="left", fontsize=11)
    return finish(figure)


def dot_panels(accuracies: pd.DataFrame, methods: Sequence[str], *, title: str, marked: Mapping[str, str]) -> Figure:
    """Draw the accuracy of several methods with intervals, a panel for each source.

    Parameters
    ----------
    accuracies : pandas.DataFrame
        Columns source, method, accuracy, low, high (percent).
    methods : sequence of str
        Which, from the top.
    title : str
        Title without the mark for generated data.
    marked : mapping of str to str
        For each source, the method to be marked.

    Returns
    -------
    matplotlib.figure.Figure
    """
    sources = list(accuracies["source"].unique())
    with plt.rc_context(STYLE):
        size = (1.8 + 2.6 * len(sources), 1.4 + 0.34 * len(methods))
        figure, grid = plt.subplots(1, len(sources), figsize=size, sharey=True, squeeze=False, layout="constrained")
        for axes, source in zip(grid[0], sources, strict=True):
            rows = accuracies[accuracies["source"] == source].set_index("method").loc[list(methods)]
            for height, (method, row) in enumerate(rows.iterrows()):
                color = ORANGE if marked.get(source) == method else BLUE
                axes.hlines(height, row["low"], row["high"], color=color)
                axes.plot(row["accuracy"], height, "D" if color == ORANGE else "o", color=color, markersize=6)
            axes.set_yticks(range(len(methods)), methods)
            axes.set_xlabel("accuracy (%)")
            axes.set_title(bare(source), loc="left")
            axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        grid[0, 0].invert_yaxis()
        figure.suptitle(caption(title, sources), x=0.01, ha="left", fontsize=11)
    return finish(figure)


def progressive_panels(accuracies: pd.DataFrame, methods: Sequence[str], probes: pd.DataFrame, *, title: str) -> Figure:
    """Draw accuracy against the number of pretrained layers, a line for each number of rows, with probing beside it.

    Parameters
    ----------
    accuracies : pandas.DataFrame
        Columns source, method, k (rows trained on), accuracy, low, high (percent).
    methods : sequence of str
        From no pretrained layer to all.
    probes : pandas.DataFrame
        As `tsns_workbook.finetuning.grids.probing_grid` gives it.
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each source.
    """
    sources = list(accuracies["source"].unique())
    with plt.rc_context(STYLE):
        size = (2.6 + 3.6 * len(sources), 3.6)
        figure, grid = plt.subplots(1, len(sources), figsize=size, squeeze=False, layout="constrained")
        for axes, source in zip(grid[0], sources, strict=True):
            rows = accuracies[(accuracies["source"] == source) & accuracies["method"].isin(methods)]
            for i, (k, part) in enumerate(rows.groupby("k")):
                _line(axes, part.set_index("method").loc[list(methods)], f"{k:,} rows tuned", i)
            own = probes[probes["source"] == source]
            axes.plot(own["k"], 100 * own["accuracy"], ":", color=ORANGE, label="probing the layer")
            axes.set(xlabel="layers left pretrained", xticks=range(len(methods)))
            axes.set_title(bare(source), loc="left")
            axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        grid[0, 0].set_ylabel("accuracy (%)")
        grid[0, -1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        figure.suptitle(caption(title, sources), x=0.01, ha="left", fontsize=11)
    return finish(figure)


def _line(axes: Axes, rows: pd.DataFrame, name: str, i: int) -> None:
    color = SHADES[i % len(SHADES)]
    axes.plot(range(len(rows)), rows["accuracy"], marker=SHAPES[i % len(SHAPES)], color=color, label=name)
    axes.fill_between(range(len(rows)), rows["low"], rows["high"], color=color, alpha=0.15, linewidth=0)
