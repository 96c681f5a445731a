"""Comparisons of models that were trained several times: runs are drawn anew, and so are the rows of the targets.

`tsns_lib.reporting.statistics` holds the runs fixed, which suits forests that are averaged; a fine-tuned model differs
from seed to seed, so here an interval covers other seeds as well as other rows. The runs of one source, and the rows
of one target, are drawn together for all that is compared.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tsns_lib.reporting.bootstrap import CELL, bootstrap_weights
from tsns_lib.reporting.statistics import PERCENTILES, Cell, Interval
from tsns_lib.sampling import derive_seed


def tuned_accuracy(grid: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Accuracy of every cell of a grid, averaged over runs, with its interval.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_lib.transferability.tuning_grid.tuning_grid` gives it.
    seed : int
        Of the draws.

    Returns
    -------
    pandas.DataFrame
        Columns source, target, method, k, accuracy, low, high (percent), runs, and Matthews' correlation (mean of the
        runs) where the grid has it.
    """
    point, boot = _resampled(grid, seed)
    low, high = np.percentile(boot, PERCENTILES, axis=0)
    groups = grid.groupby(CELL, sort=False)
    facts = {"accuracy": point, "low": low, "high": high, "runs": groups.size()}
    if "matthews" in grid:
        facts["matthews"] = groups["matthews"].mean()
    return pd.DataFrame(facts).reset_index()


def contrast(grid: pd.DataFrame, sides: Sequence[tuple[list[Cell], list[Cell]]], *, seed: int = 0) -> Interval:
    """Mean accuracy of some cells less that of others in points, averaged over comparisons.

    Parameters
    ----------
    grid : pandas.DataFrame
        As in `tuned_accuracy`.
    sides : sequence of (cells, cells)
        What is compared with what; a cell is (source, target, method, k).
    seed : int
        Of the draws.

    Returns
    -------
    Interval

    Raises
    ------
    ValueError
        If there is nothing to compare, or the grid lacks a cell.
    """
    point, boot = _resampled(grid, seed)
    for cell in [cell for pair in sides for side in pair for cell in side]:
        if cell not in point.index:
            raise ValueError("grid has no cell " + ", ".join(f"{k}={v!r}" for k, v in zip(CELL, cell, strict=True)))
    if not sides or not all(side for pair in sides for side in pair):
        raise ValueError("sides: there is nothing to compare")
    gaps = [point[own].mean() - point[rivals].mean() for own, rivals in sides]
    drawn = np.mean([boot[own].mean(axis=1) - boot[rivals].mean(axis=1) for own, rivals in sides], axis=0)
    low, high = np.percentile(drawn, PERCENTILES)
    return Interval(float(np.mean(gaps)), float(low), float(high))


def _resampled(grid: pd.DataFrame, seed: int) -> tuple[pd.Series, pd.DataFrame]:
    """Accuracy of every cell in percent, and the same in every draw: shape (2000, cells)."""
    point, boot = {}, {}
    for cell, rows in grid.groupby(CELL, sort=False):
        source, target, _, k = cell
        hits = np.stack(rows.sort_values("run")["correct"].to_list()).astype(np.float32)  # runs, rows
        point[cell] = 100 * float(hits.mean())
        by_run = bootstrap_weights(hits.shape[1], derive_seed(seed, "bootstrap", target)) @ hits.T / hits.shape[1]
        runs = bootstrap_weights(len(hits), derive_seed(seed, "runs", source, int(k), len(hits))) / len(hits)
        boot[cell] = 100 * (by_run * runs).sum(axis=1)
    index = pd.MultiIndex.from_tuples(point, names=CELL)
    return pd.Series(list(point.values()), index), pd.DataFrame(np.stack(list(boot.values()), axis=1), columns=index)
