"""The bootstrap behind every interval: draw the target's rows anew, recompute the accuracy of every cell.

Correctness is first averaged over runs; then whole target rows are drawn with replacement. All cells of a
target share the drawn rows, so that two methods are compared on the same rows, and an average over pairs
counts a target's rows once, not once per source. The intervals hold for other rows of the same targets; they
say nothing about other source samples or other corpora.

McNemar's exact test, which asks whether two classifiers err equally often on the same rows.

Uncertainty of a transfer grid: intervals, paired comparisons, the best sources.

A grid is the frame of `tsns_lib.transfer_grid`. Every interval is the middle 95 % of 2,000 resamples of the
target's rows (see `tsns_workbook.statistics` for what is drawn, what is shared, and what the intervals
do not cover).

Comparisons of models that were trained several times: runs are drawn anew, and so are the rows of the targets.

`tsns_workbook.statistics` holds the runs fixed, which suits forests that are averaged; a fine-tuned model differs
from seed to seed, so here an interval covers other seeds as well as other rows. The runs of one source, and the rows
of one target, are drawn together for all that is compared.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from tsns_lib.sampling import derive_seed
from tsns_workbook.report import Interval, Key

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


class McNemar(NamedTuple):
    """Two-sided exact p value, rows that only A got right, rows that only B got right."""

    p: float
    only_a: int
    only_b: int


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """Test by McNemar's exact test whether A and B err equally often on the same rows.

    With several runs, run is compared with run (a single run with each of the other's) and the run whose p
    value is the median is returned, of an even number the upper median. So p and the counts belong to one
    run that was really made. A majority vote over runs would test an ensemble that no table reports, and
    pooling the runs would count every row several times. Twice the median p is a valid p value for all runs
    together.

    Parameters
    ----------
    correct_a, correct_b : array_like of bool, shape (n,) or (runs, n)
        Whether each row was classified rightly.

    Returns
    -------
    McNemar
        p (1.0 when no row differs), only_a, only_b.

    Raises
    ------
    ValueError
        If the numbers of rows differ, or the numbers of runs differ and neither is 1.

    Examples
    --------
    >>> mcnemar([True, True, True, False], [False, False, False, False])
    McNemar(p=0.25, only_a=3, only_b=0)
    """
    a, b = np.atleast_2d(np.asarray(correct_a, dtype=bool)), np.atleast_2d(np.asarray(correct_b, dtype=bool))
    if a.shape[1] != b.shape[1] or (a.shape[0] != b.shape[0] and 1 not in (a.shape[0], b.shape[0])):
        raise ValueError(f"correct_a and correct_b do not fit: shapes {a.shape} and {b.shape} (runs, rows)")
    discordant = zip((a & ~b).sum(axis=1).tolist(), (b & ~a).sum(axis=1).tolist(), strict=True)
    tests = [McNemar(float(binomtest(x, x + y).pvalue) if x + y else 1.0, x, y) for x, y in discordant]
    return sorted(tests)[len(tests) // 2]


PERCENTILES = (2.5, 97.5)  # 95 % intervals (our choice; the paper gives none)

Pair = tuple[str, str]  # source, target
Cell = tuple[str, str, str, int]  # source, target, method, k


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
        _require_cells(grid, [(*pair, *key) for pair in pairs])
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
    _require_cells(grid, cells)
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
    _require_cells(grid, cells_a + cells_b)
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


def _require_cells(grid: pd.DataFrame, cells: list[tuple[str, str, str, int]]) -> None:
    held = set(grid[CELL].itertuples(index=False, name=None))
    for cell in cells:
        if cell not in held:
            raise ValueError("grid has no cell " + ", ".join(f"{k}={v!r}" for k, v in zip(CELL, cell, strict=True)))


def _interval(estimate: float, resampled: Any) -> Interval:
    low, high = np.percentile(resampled, PERCENTILES)
    return Interval(float(estimate), float(low), float(high))


def tuned_accuracy(grid: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Accuracy of every cell of a grid, averaged over runs, with its interval.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_workbook.finetuning.grids.tuning_grid` gives it.
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
