"""Uncertainty of a transfer grid: intervals, paired comparisons, the best sources.

A grid is the frame of `tsns_lib.transfer_grid`. Every interval is the middle 95 % of 2,000 resamples of the
target's rows (see `tsns_lib.reporting.bootstrap` for what is drawn, what is shared, and what the intervals
do not cover).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tsns_lib.reporting.bootstrap import CELL, resampled_accuracy
from tsns_lib.reporting.mcnemar import mcnemar

PERCENTILES = (2.5, 97.5)  # 95 % intervals (our choice; the paper gives none)

Key = tuple[str, int]  # method, k
Pair = tuple[str, str]  # source, target
Cell = tuple[str, str, str, int]  # source, target, method, k


class Interval(NamedTuple):
    """An estimate with its 95 % interval; unpacks into estimate, low, high."""

    estimate: float
    low: float
    high: float


def accuracy_table(grid: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Accuracy of every cell of the grid, averaged over runs, with its interval.

    Parameters
    ----------
    grid : pandas.DataFrame
        As returned by `transfer_grid`.
    seed : int
        Seed of the resamples. Default 0.

    Returns
    -------
    pandas.DataFrame
        Columns source, target, method, k, accuracy, low, high (percent), n (rows of the target), runs.

    Raises
    ------
    ValueError
        If the grid is empty, lacks a column, repeats a run, or holds `correct` of unequal length for one
        target.
    """
    point, boot = resampled_accuracy(grid, seed=seed)
    low, high = np.percentile(boot, PERCENTILES, axis=0)
    correct = grid.groupby(CELL, sort=False)["correct"]
    facts = {"n": correct.first().map(len), "runs": correct.size()}
    return pd.DataFrame({"accuracy": point, "low": low, "high": high} | facts).reset_index()


def average_table(grid: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Accuracy of every method and k averaged over all pairs of the grid, with its interval.

    Parameters
    ----------
    grid, seed
        As in `accuracy_table`.

    Returns
    -------
    pandas.DataFrame
        Columns method, k, accuracy, low, high (percent), pairs.

    Raises
    ------
    ValueError
        As in `accuracy_table`, and if a method and k is missing for some pair: its average would not be
        comparable.
    """
    point, boot = resampled_accuracy(grid, seed=seed)
    pairs = _pairs(grid)
    for key in grid[["method", "k"]].drop_duplicates().itertuples(index=False, name=None):
        _require(grid, [(*pair, *key) for pair in pairs])
    groups = {"level": ["method", "k"], "sort": False}
    low, high = np.percentile(boot.T.groupby(**groups).mean(), PERCENTILES, axis=1)
    means = {"accuracy": point.groupby(**groups).mean(), "low": low, "high": high, "pairs": len(pairs)}
    return pd.DataFrame(means).reset_index()


def difference(grid: pd.DataFrame, a: Key, b: Key, pairs: Sequence[Pair] | None = None, *, seed: int = 0) -> Interval:
    """Accuracy of A minus accuracy of B in points, on the same target rows, averaged over pairs.

    Parameters
    ----------
    grid : pandas.DataFrame
        As returned by `transfer_grid`.
    a, b : (method, k)
        What is compared, such as ("tsns", 500) and ("last_layer", 384).
    pairs : sequence of (source, target), optional
        Default: all pairs of the grid.
    seed : int
        Seed of the resamples. Default 0.

    Returns
    -------
    Interval
        estimate, low, high.

    Raises
    ------
    ValueError
        As in `accuracy_table`, and if a pair lacks A or B.
    """
    point, boot = _gains(grid, a, b, pairs, seed)
    return _interval(point.mean(), boot.mean(axis=1))


def wins(grid: pd.DataFrame, a: Key, b: Key, pairs: Sequence[Pair] | None = None, *, seed: int = 0) -> Interval:
    """Count the pairs in which A is ahead of B, with the count's interval. Parameters as in `difference`."""
    point, boot = _gains(grid, a, b, pairs, seed)
    return _interval((point > 0).sum(), (boot > 0).sum(axis=1))


def gain_table(grid: pd.DataFrame, a: Key, b: Key, *, seed: int = 0) -> pd.DataFrame:
    """Compare A with B pair by pair: gain in points with its interval, and McNemar's test.

    Parameters
    ----------
    grid, a, b, seed
        As in `difference`.

    Returns
    -------
    pandas.DataFrame
        Columns source, target, gain, low, high, only_a, only_b, p. The p values are not corrected for their
        number.
    """
    point, boot = _gains(grid, a, b, None, seed)
    low, high = np.percentile(boot, PERCENTILES, axis=0)
    frame = pd.DataFrame({"gain": point, "low": low, "high": high}).reset_index()
    runs = {cell: np.stack(rows.to_list()) for cell, rows in grid.sort_values("run").groupby(CELL)["correct"]}
    tests = [mcnemar(runs[*pair, *a], runs[*pair, *b]) for pair in point.index]
    return frame.assign(**{field: [getattr(test, field) for test in tests] for field in ("only_a", "only_b", "p")})


def margin(grid: pd.DataFrame, sources: Sequence[str], target: str, key: Key, *, seed: int = 0) -> Interval:
    """Accuracy from the worst of the claimed best sources minus that from the best other one, in points.

    The worst and the best are chosen anew in every resample, so the interval pays for that choice.

    Parameters
    ----------
    grid, seed
        As in `accuracy_table`.
    sources : sequence of str
        The claimed best sources of the target.
    target : str
        Which target.
    key : (method, k)
        Which selection, such as ("tsns", 500).

    Returns
    -------
    Interval
        Above 0: each of `sources` is ahead of every other.

    Raises
    ------
    ValueError
        If the grid has no such cell, or no other source for the target.
    """
    tried = grid.loc[(grid["target"] == target) & (grid["method"] == key[0]) & (grid["k"] == key[1]), "source"]
    others = [source for source in tried.unique() if source not in sources]
    if not others:
        raise ValueError(f"target {target!r} has no source besides {', '.join(sources)} to compare with")
    own, rivals = ([(source, target, *key) for source in group] for group in (sources, others))
    return contest(grid, [(own, rivals)], seed=seed)


def contest(grid: pd.DataFrame, pairs: Sequence[tuple[list[Cell], list[Cell]]], *, seed: int = 0) -> Interval:
    """Worst cell of one side minus best cell of the other, averaged over pairs of sides, in points.

    Parameters
    ----------
    grid, seed
        As in `accuracy_table`.
    pairs : sequence of (cells, cells)
        The two sides; a cell is (source, target, method, k). Cells of one target share its resampled rows.

    Returns
    -------
    Interval

    Raises
    ------
    ValueError
        If the grid lacks a cell.
    """
    cells = list(dict.fromkeys(cell for sides in pairs for side in sides for cell in side))
    _require(grid, cells)
    point, boot = resampled_accuracy(grid[pd.MultiIndex.from_frame(grid[CELL]).isin(cells)], seed=seed)
    gaps = [point[own].min() - point[rivals].max() for own, rivals in pairs]
    resampled = [boot[own].min(axis=1) - boot[rivals].max(axis=1) for own, rivals in pairs]
    return _interval(np.mean(gaps), np.mean(resampled, axis=0))


def _gains(
    grid: pd.DataFrame, a: Key, b: Key, pairs: Sequence[Pair] | None, seed: int
) -> tuple[pd.Series, pd.DataFrame]:
    """Accuracy of A minus B: the values of the pairs, and a frame (resamples, pairs)."""
    wanted = _pairs(grid) if pairs is None else [(source, target) for source, target in pairs]
    cells_a, cells_b = ([(*pair, *key) for pair in wanted] for key in (a, b))
    _require(grid, cells_a + cells_b)
    used = pd.MultiIndex.from_frame(grid[CELL]).isin(cells_a + cells_b)
    point, boot = resampled_accuracy(grid[used], seed=seed)
    index = pd.MultiIndex.from_tuples(wanted, names=["source", "target"])
    gains = boot[cells_a].to_numpy() - boot[cells_b].to_numpy()
    return (
        pd.Series(point[cells_a].to_numpy() - point[cells_b].to_numpy(), index),
        pd.DataFrame(gains, columns=index),
    )


def _pairs(grid: pd.DataFrame) -> list[Pair]:
    return list(grid[["source", "target"]].drop_duplicates().itertuples(index=False, name=None))


def _require(grid: pd.DataFrame, cells: list[tuple[str, str, str, int]]) -> None:
    held = set(grid[CELL].itertuples(index=False, name=None))
    for cell in cells:
        if cell not in held:
            raise ValueError("grid has no cell " + ", ".join(f"{k}={v!r}" for k, v in zip(CELL, cell, strict=True)))


def _interval(estimate: float, resampled: Any) -> Interval:
    low, high = np.percentile(resampled, PERCENTILES)
    return Interval(float(estimate), float(low), float(high))
