"""Correlation of two relations between sources, with what belongs to it when pairs share their sources.

A relation is a matrix, sources down and targets across, its diagonal missing. Its pairs are no independent
observations: every source stands in many of them. So the null is made by permuting the *sources* of one
relation (rows and columns together, the quadratic assignment procedure), and the correlation is repeated
without each of the sources.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from tsns_lib.reporting.statistics import PERCENTILES
from tsns_lib.sampling import derive_seed

N_PERMUTATIONS = 4_999
CORRELATIONS = ("spearman", "pearson")

Relations = Sequence[tuple[np.ndarray, np.ndarray]]  # predictor and outcome, for one group of sources or several


class Correlation(NamedTuple):
    """A correlation; all fields are NaN where the predictor does not vary.

    `null_low` to `null_high` is the middle 95 % of the permuted correlations, `p` the one-sided p value
    against all of them, `left_out_low` to `left_out_high` the range without each source.
    """

    estimate: float
    null_low: float
    null_high: float
    p: float
    left_out_low: float
    left_out_high: float


def correlate(relations: Relations, correlation: str, *, within: bool = False, seed: int = 0) -> Correlation:
    """Correlate a predictor with an outcome over the pairs of sources.

    Parameters
    ----------
    relations : sequence of (ndarray of shape (n, n), ndarray of shape (n, n))
        Predictor and outcome of each group of sources; pairs are formed within a group only.
    correlation : {"spearman", "pearson"}
    within : bool
        Whether to compare only sources of the same target: values are ranked, or for Pearson centred, within
        the columns, so that neither a target's difficulty nor its group can help. Default False.
    seed : int
        Seed of the permutations.

    Returns
    -------
    Correlation

    Raises
    ------
    ValueError
        If the correlation is unknown, or a group has fewer than four sources.

    Examples
    --------
    >>> outcome = np.arange(36.0).reshape(6, 6)
    >>> correlate([(outcome**2, outcome)], "spearman").estimate
    1.0
    """
    if correlation not in CORRELATIONS:
        raise ValueError(f"correlation: must be 'spearman' or 'pearson', got {correlation!r}")
    if (least := min(len(x) for x, _ in relations)) < 4:
        raise ValueError(f"relations: need at least four sources in every group, got {least}")
    prepare = _preparation(correlation, within)
    ready = [(prepare(x), prepare(y)) for x, y in relations]
    estimate = _pearson([x for x, _ in ready], [y for _, y in ready])
    if np.isnan(estimate):
        return Correlation(*[float("nan")] * 6)
    # preparing commutes with permuting sources: both leave the pairs of a target together
    orders = [_permutations(len(x), derive_seed(seed, "permutation", i)) for i, (x, _) in enumerate(ready)]
    permuted = [x[order[:, :, None], order[:, None, :]] for (x, _), order in zip(ready, orders, strict=True)]
    null = _pearson(permuted, [y for _, y in ready])
    low, high = np.percentile(null, PERCENTILES)
    p = (1 + (null >= estimate - 1e-9).sum()) / (1 + len(null))
    left_out = []
    for group in range(len(relations)):
        for out in range(len(relations[group][0])):
            fewer = [_without(pair, out) if i == group else pair for i, pair in enumerate(relations)]
            left_out.append(_pearson([prepare(x) for x, _ in fewer], [prepare(y) for _, y in fewer]))
    return Correlation(*map(float, (estimate, low, high, p, np.nanmin(left_out), np.nanmax(left_out))))


def _without(relation: tuple[np.ndarray, np.ndarray], source: int) -> tuple[np.ndarray, np.ndarray]:
    kept = np.delete(np.arange(len(relation[0])), source)
    return relation[0][np.ix_(kept, kept)], relation[1][np.ix_(kept, kept)]


def _preparation(correlation: str, within: bool) -> Callable[[np.ndarray], np.ndarray]:
    """What makes Pearson's correlation of two matrices the wanted one."""
    axis = 0 if within else None

    def ranks(matrix: np.ndarray) -> np.ndarray:
        pairs = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix.round(9))
        return rankdata(pairs, axis=axis, nan_policy="omit").reshape(matrix.shape)

    def centred(matrix: np.ndarray) -> np.ndarray:
        pairs = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)
        return pairs - np.nanmean(pairs, axis=axis)

    return ranks if correlation == "spearman" else centred


def _permutations(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(np.arange(n), (N_PERMUTATIONS, 1)), axis=1)


def _pearson(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> np.ndarray:
    """Pearson's correlation over the off-diagonal cells of several matrices; x may hold many of each."""
    flat = [[m[..., ~np.eye(m.shape[-1], dtype=bool)] for m in side] for side in (x, y)]
    a, b = (np.concatenate(parts, axis=-1) for parts in flat)
    a, b = (values - values.mean(axis=-1, keepdims=True) for values in (a, b))
    scale = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 1e-9, (a * b).sum(axis=-1) / scale, np.nan)
