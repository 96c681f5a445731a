"""Intervals of models that were trained a few times (notebooks 10, 11 and 14): Student's t, over runs and target rows.

Three runs are too few to resample: the bootstrap of three numbers is too narrow. The variance of a mean is estimated
from the runs (each with its own seed) and from the rows of the target, both are added, and the degrees of freedom are
Satterthwaite's. With one run the variance between runs is unknown, and an interval would hold for that run alone.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.stats import t

from tsns_workbook.report import Interval
from tsns_workbook.statistics import CELL, PERCENTILES, Cell, Sides, answers


def tuned_accuracy(grid: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every cell of `finetuning.grids.tuning_grid`: CELL, accuracy, low, high (percent), runs.

    Matthews' correlation and AUC, means of the runs, stand beside it where the grid has them. An interval ends at 0 and
    100; of a single run it holds for other rows only.
    """
    hits = hits_of(grid)
    groups = grid.groupby(CELL, sort=False)
    parts = {cell: _interval([(cell[0], cell[1], values)]) for cell, values in hits.items()}
    table = pd.DataFrame(parts, index=["accuracy", "low", "high"]).T.clip(0, 100).rename_axis(CELL)
    table["runs"] = groups.size()
    for measure in ("matthews", "auc"):
        if measure in grid:
            table[measure] = groups[measure].mean()
    return table.reset_index()


def contrast(grid: pd.DataFrame, sides: Sides) -> Interval | None:
    """Mean accuracy of some cells minus the mean of others, mean over the sides, in points; None of single runs.

    Runs of the same number share a seed and are compared with each other; a cell with one run, which has nothing
    random, is compared with all.
    """
    if not sides or not all(side for compared in sides for side in compared):
        raise ValueError("sides: there is nothing to compare")
    hits = hits_of(grid)
    parts = []
    for better, others in sides:
        for cell in (*better, *others):
            if cell not in hits:
                raise ValueError("grid has no cell " + ", ".join(f"{k}={v!r}" for k, v in zip(CELL, cell, strict=True)))
        source, target = better[0][:2]
        gained = sum(hits[cell] for cell in better) / len(better) - sum(hits[cell] for cell in others) / len(others)
        parts.append((source, target, np.asarray(gained) / len(sides)))
    return None if any(len(values) == 1 for _, _, values in parts) else _interval(parts)


def hits_of(grid: pd.DataFrame) -> dict[Cell, np.ndarray]:
    """What every cell got right, in percent: (runs, rows of the target)."""
    rows = grid.sort_values("run", kind="stable").groupby(CELL, sort=False)["correct"]
    return {cell: 100.0 * np.stack([answers("correct", of_run) for of_run in correct]) for cell, correct in rows}


def _interval(parts: Iterable[tuple[str, str, np.ndarray]]) -> Interval:
    """The sum of the means of (source, target, (runs, rows)), with its t interval.

    Parts of one source share their runs, and parts of one target their rows.
    """
    estimate = least = 0.0
    of_runs: dict[str, np.ndarray] = {}
    of_rows: dict[str, np.ndarray] = {}
    for source, target, values in parts:
        estimate += values.mean()
        of_runs[source] = of_runs.get(source, 0.0) + values.mean(axis=1)
        of_rows[target] = of_rows.get(target, 0.0) + values.mean(axis=0)
        if values.shape[1] > 1:
            least += values.var(axis=1, ddof=1).mean() / values.size
    shares = [shared for shared in (*of_runs.values(), *of_rows.values()) if len(shared) > 1]
    variances = np.array([shared.var(ddof=1) / len(shared) for shared in shares])
    total = max(variances.sum(), least)  # models that always say one class, one each, cancel out row by row
    if total == 0:
        return Interval(float(estimate), float(estimate), float(estimate))
    freedom = total**2 / max(sum(v**2 / (len(shared) - 1) for v, shared in zip(variances, shares, strict=True)), 1e-12)
    half = t.ppf(PERCENTILES[1] / 100, freedom) * np.sqrt(total)
    return Interval(float(estimate), float(estimate - half), float(estimate + half))
