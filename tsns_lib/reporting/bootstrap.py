"""The bootstrap behind every interval: draw the target's rows anew, recompute the accuracy of every cell.

Correctness is first averaged over runs; then whole target rows are drawn with replacement. All cells of a
target share the drawn rows, so that two methods are compared on the same rows, and an average over pairs
counts a target's rows once, not once per source. The intervals hold for other rows of the same targets; they
say nothing about other source samples or other corpora.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tsns_lib.sampling import derive_seed

CELL = ["source", "target", "method", "k"]
BLOCK = 2**22  # numbers drawn at a time: some 100 MB at the peak, however many rows the target has


def bootstrap_weights(n: int, seed: int, n_boot: int = 2000) -> NDArray[np.float32]:
    """Draw n rows with replacement n_boot times and count how often each row came.

    Parameters
    ----------
    n : int
        Rows to draw from, and to draw.
    seed : int
        Same seed, same weights.
    n_boot : int
        Resamples. Default 2000 (our choice).

    Returns
    -------
    numpy.ndarray, shape (n_boot, n), float32
        Multinomial counts; every row sums to n.

    Raises
    ------
    ValueError
        If n or n_boot is below 1.

    Examples
    --------
    >>> bootstrap_weights(4, seed=0, n_boot=3).sum(axis=1).tolist()
    [4.0, 4.0, 4.0]
    """
    return np.concatenate(list(_weight_blocks(n, seed, n_boot)))


def resampled_accuracy(grid: pd.DataFrame, *, seed: int = 0, n_boot: int = 2000) -> tuple[pd.Series, pd.DataFrame]:
    """Accuracy of every cell of a grid in percent, as measured and in every resample of the target rows.

    Parameters
    ----------
    grid : pandas.DataFrame
        As returned by `transfer_grid`: one row per source, target, method, k and run, with `correct` of
        shape (n,).
    seed : int
        The draws of a target come from derive_seed(seed, "bootstrap", target).
    n_boot : int
        Resamples. Default 2000 (our choice).

    Returns
    -------
    pandas.Series, pandas.DataFrame
        Accuracy, indexed by (source, target, method, k); the same resampled, shape (n_boot, cells).

    Raises
    ------
    ValueError
        If the grid is empty, lacks a column, repeats a run, or holds `correct` of unequal length for one
        target.
    """
    _check(grid)
    groups = grid.groupby(CELL, sort=False)["correct"]
    runs = groups.size()
    # how many runs got each row right: whole numbers, so that sums of them are exact in float32 (up to 2**24)
    counts = {cell: np.sum(np.stack(rows.to_list()), axis=0, dtype=np.float32) for cell, rows in groups}
    boot = pd.DataFrame(index=range(n_boot), columns=runs.index, dtype=float)
    for target in grid["target"].unique():
        cells = [cell for cell in counts if cell[1] == target]
        hits = np.stack([counts[cell] for cell in cells], axis=1)
        blocks = _weight_blocks(len(hits), derive_seed(seed, "bootstrap", target), n_boot)
        drawn = np.concatenate([weights @ hits for weights in blocks]).astype(np.float64)
        boot[cells] = 100 * (drawn / (len(hits) * runs[cells].to_numpy()))
    point = pd.Series([100 * (hits.sum() / (hits.size * runs[cell])) for cell, hits in counts.items()], runs.index)
    return point, boot


def _weight_blocks(n: int, seed: int, n_boot: int) -> Iterator[NDArray[np.float32]]:
    for name, value in (("n", n), ("n_boot", n_boot)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    generator = np.random.default_rng(seed)
    size = max(1, BLOCK // n)
    for start in range(0, n_boot, size):
        rows = min(size, n_boot - start)
        drawn = generator.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float32)


def _check(grid: pd.DataFrame) -> None:
    missing = [name for name in [*CELL, "run", "correct"] if name not in grid.columns]
    if missing:
        raise ValueError(f"grid lacks the column {missing[0]!r}")
    if grid.empty:
        raise ValueError("grid has no rows")
    repeated = grid.duplicated([*CELL, "run"])
    if repeated.any():
        raise ValueError(f"grid holds a run twice: {grid.loc[repeated, [*CELL, 'run']].iloc[0].to_dict()}")
    lengths = grid["correct"].map(len).groupby(grid["target"]).agg(["min", "max"])
    for target, shortest, longest in lengths.itertuples():
        if shortest != longest or shortest == 0:
            raise ValueError(f"target {target!r} has correct of {shortest} and of {longest} rows; one length is needed")
