"""Tests whose unit is the source: for numbers about pairs of sources, which share them, and for means over sources.

A number for every pair of n sources is no sample of n² independent observations: a source that is easy or odd moves all
of its pairs. So the *sources* are permuted, rows and columns together (the quadratic assignment procedure, QAP), and
never the pairs; and a mean over a few sources has the t interval of these few, however many rows each has.

A relation is a pair of square matrices, sources down and targets across, whose diagonal is never read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import rankdata, ttest_1samp, ttest_ind

from tsns_lib.sampling import derive_seed
from tsns_lib.validation import matrix, numbers
from tsns_workbook.statistics import PERCENTILES

N_PERMUTATIONS = 4_999
CORRELATIONS = ("spearman", "pearson")

Relation = tuple[np.ndarray, np.ndarray]  # a predictor and an outcome, each n × n, for one group of n sources


class Measured(NamedTuple):
    """An estimate with its 95 % interval, and the two-sided p value against 0.

    Of a permutation test the interval is the estimate minus the middle 95 % of what permuted sources give: it lies
    above 0 where the estimate exceeds 97.5 % of them.
    """

    estimate: float
    low: float
    high: float
    p: float


class Correlation(NamedTuple):
    """A correlation; all fields are NaN where the predictor does not vary.

    `null_low` to `null_high` is the middle 95 % of the permuted correlations: a correlation between them cannot be told
    from chance. `p` is the two-sided p value against all of them, `left_out_low` to `left_out_high` the range with each
    source left out in turn.
    """

    estimate: float
    null_low: float
    null_high: float
    p: float
    left_out_low: float
    left_out_high: float


def t_interval(values: ArrayLike, others: ArrayLike | None = None) -> Measured:
    """Mean over sources (or targets, or runs) with its 95 % t interval; with `others`, minus their mean (Welch).

    Examples
    --------
    >>> mean = t_interval([7.9, 6.3, 16.4])
    >>> [round(value, 1) for value in mean]
    [10.2, -3.3, 23.7, 0.1]
    """
    samples = {"values": values} if others is None else {"values": values, "others": others}
    found = {name: numbers(name, sample, "one for each source").astype(float) for name, sample in samples.items()}
    for name, sample in found.items():
        if sample.ndim != 1 or len(sample) < 2:
            raise ValueError(f"{name}: need one for each of at least two sources, got shape {sample.shape}")
        if not np.isfinite(sample).all():
            place = np.isfinite(sample).argmin()
            raise ValueError(f"{name}: a value is not finite, {sample[place]} in place {place}")
    estimate = float(found["values"].mean()) - (0.0 if others is None else float(found["others"].mean()))
    if all(np.ptp(sample) < 1e-12 for sample in found.values()):  # no spread at all: the mean is exact
        return Measured(estimate, estimate, estimate, float(estimate == 0))
    if others is None:
        test = ttest_1samp(found["values"], 0.0)
    else:
        test = ttest_ind(found["values"], found["others"], equal_var=False)
    low, high = test.confidence_interval(0.95)
    return Measured(estimate, float(low), float(high), float(test.pvalue))


FEWEST = 4  # sources of a group: with three, no correlation can be told from chance


def groups_of(**groups: Mapping[str, str]) -> dict[str, list[str]]:
    """The groups that are not empty; a ValueError, before any work, where one has too few sources to correlate.

    Examples
    --------
    >>> groups_of(sentiment={"a": "train", "b": "test", "c": "train", "d": "train"}, pairs={})
    {'sentiment': ['a', 'b', 'c', 'd']}
    """
    found = {name: list(splits) for name, splits in groups.items() if splits}
    for name, sources in found.items():
        if len(sources) < FEWEST:
            raise ValueError(f"{name}: a correlation over pairs of sources needs {FEWEST} of them, got {len(sources)}")
    if not found:
        raise ValueError(f"{', '.join(groups)}: all are empty; one of them names {FEWEST} sources or more")
    return found


def kinship(similarity: pd.DataFrame, groups: Mapping[str, str], *, seed: int = 0) -> Measured:
    """Mean similarity of two sources within a group minus the mean between groups, times 100; groups are permuted.

    `similarity` is a symmetric frame of sources × sources, `groups` says which group (a task, a domain) each is of.

    Examples
    --------
    >>> alike = pd.DataFrame(np.kron(np.eye(2), np.ones((4, 4))), list("abcdefgh"), list("abcdefgh"))
    >>> kinship(alike, dict(zip("abcdefgh", "xxxxyyyy"))).estimate
    100.0
    """
    if lacking := [name for name in similarity.index if name not in groups]:
        raise ValueError(f"groups: says nothing of {lacking[0]}")
    alike = matrix("similarity", similarity, "sources × sources")
    _, members = np.unique([groups[name] for name in similarity.index], return_inverse=True)
    first, second = np.triu_indices(len(members), 1)
    within = members[first] == members[second]
    if within.all() or not within.any():
        raise ValueError(f"groups: need two, one of them with two sources, got {sorted(set(groups.values()))}")
    values = 100 * alike[first, second]
    rng = np.random.default_rng(derive_seed(seed, "kinship"))
    permuted = rng.permuted(np.tile(members, (N_PERMUTATIONS, 1)), axis=1)
    together = permuted[:, first] == permuted[:, second]
    null = together @ values / together.sum(axis=1) - ~together @ values / (~together).sum(axis=1)
    estimate = float(values[within].mean() - values[~within].mean())
    return _against(estimate, null)


def correlate(relations: Sequence[Relation], correlation: str, *, within: bool = False, seed: int = 0) -> Correlation:
    """Correlate a predictor with an outcome over the pairs of sources; pairs are formed within each group only.

    `within` compares only the sources of the same target: values are ranked, or for Pearson centred, within the
    columns, so that neither a target's difficulty nor its group can help.

    Examples
    --------
    >>> outcome = np.arange(36.0).reshape(6, 6)
    >>> correlate([(outcome**2, outcome)], "spearman").estimate
    1.0
    """
    if correlation not in CORRELATIONS:
        raise ValueError(f"correlation: must be 'spearman' or 'pearson', got {correlation!r}")
    least = min(len(x) for x, _ in relations)
    if least < FEWEST:
        raise ValueError(f"relations: need at least four sources in every group, got {least}")
    for pair in relations:
        for side, values in zip(("predictor", "outcome"), pair, strict=True):
            unknown = np.argwhere(~np.isfinite(values) & ~np.eye(len(values), dtype=bool)).tolist()
            if unknown:
                first, second = unknown[0]
                raise ValueError(f"relations: the {side} is {values[first, second]} for sources {first} and {second}")
    prepare = _preparation(correlation, within)
    predictors, outcomes = ([prepare(relation[side]) for relation in relations] for side in (0, 1))
    estimate = _pearson(predictors, outcomes)
    if np.isnan(estimate):
        return Correlation(*[float("nan")] * 6)
    # permuting prepared values is enough: a permutation of the sources keeps the pairs of a target together
    orders = [_permutations(len(x), derive_seed(seed, "permutation", i)) for i, x in enumerate(predictors)]
    permuted = [x[order[:, :, None], order[:, None, :]] for x, order in zip(predictors, orders, strict=True)]
    null = _pearson(permuted, outcomes)
    low, high = np.percentile(null, PERCENTILES)
    p = _two_sided(float(estimate), null)
    left_out = []
    for group, relation in enumerate(relations):
        for source in range(len(relation[0])):
            fewer = [*relations[:group], _without(relation, source), *relations[group + 1 :]]
            left_out.append(_pearson([prepare(x) for x, _ in fewer], [prepare(y) for _, y in fewer]))
    return Correlation(*map(float, (estimate, low, high, p, np.nanmin(left_out), np.nanmax(left_out))))


def _against(estimate: float, null: np.ndarray) -> Measured:
    low, high = np.percentile(null, PERCENTILES)
    return Measured(estimate, float(estimate - high), float(estimate - low), _two_sided(estimate, null))


def _two_sided(estimate: float, null: np.ndarray) -> float:
    """Twice the smaller tail; the estimate itself is one of the permutations, so no p value is 0."""
    above, below = (1 + (null >= estimate - 1e-9).sum()), (1 + (null <= estimate + 1e-9).sum())
    return float(min(1.0, 2 * min(above, below) / (1 + len(null))))


def _preparation(correlation: str, within: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Rank or centre a matrix without its diagonal, so that Pearson's correlation of two becomes the wanted one."""
    axis = 0 if within else None

    def prepare(matrix: np.ndarray) -> np.ndarray:
        pairs = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)
        if correlation == "spearman":
            return rankdata(pairs.round(9), axis=axis, nan_policy="omit").reshape(matrix.shape)
        return pairs - np.nanmean(pairs, axis=axis)

    return prepare


def _pearson(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> np.ndarray:
    """Pearson's correlation over the off-diagonal cells of several matrices; x may be stacks of permutations."""
    off_diagonal = [[m[..., ~np.eye(m.shape[-1], dtype=bool)] for m in side] for side in (x, y)]
    a, b = (np.concatenate(cells, axis=-1) for cells in off_diagonal)
    a, b = (values - values.mean(axis=-1, keepdims=True) for values in (a, b))
    scale = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 1e-9, (a * b).sum(axis=-1) / scale, np.nan)


def _permutations(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permuted(np.tile(np.arange(n), (N_PERMUTATIONS, 1)), axis=1)


def _without(relation: Relation, source: int) -> Relation:
    others = np.delete(np.arange(len(relation[0])), source)
    return relation[0][np.ix_(others, others)], relation[1][np.ix_(others, others)]
