"""What the neighbouring papers say of layers, tuned, drawn anew or merely read, judged on grids of accuracies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tsns_lib.reporting.bootstrap import bootstrap_weights
from tsns_lib.reporting.contrasts import contrast
from tsns_lib.reporting.report import claim
from tsns_lib.reporting.statistics import PERCENTILES, Interval
from tsns_lib.sampling import derive_seed


def variability_claims(
    grid: pd.DataFrame, differing: Sequence[str], same: Mapping[str, ArrayLike], *, seed: int = 0
) -> list[dict[str, Any]]:
    """Judge what arXiv 2210.10041 says of layers chosen by hidden-state variability.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_lib.transferability.tuning_grid.tuning_grid` gives it, with the trials of
        `tsns_lib.transferability.layer_choice`.
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
        As `tsns_lib.transferability.tuning_grid.tuning_grid` gives it, with the trials "intact", "from layer 1", each
        block, and "only … kept" of each, the blocks for the smallest size.
    probes : pandas.DataFrame
        As `tsns_lib.transferability.tuning_grid.probing_grid` gives it, of the same sources.
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
        As `tsns_lib.transferability.tuning_grid.probing_grid` gives it, of one source.
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
        As `tsns_lib.transferability.redrawn.redrawn_grid` gives it.
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
