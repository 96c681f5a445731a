"""Uncertainty of a grid of accuracies: bootstrap intervals, paired comparisons, McNemar's test, the best sources.

Every interval is the middle 95 % of its bootstrap resamples (our choice; the paper gives none). Tables 2 to 5 resample
source rows, target rows and runs (`crossed`): these intervals hold for other rows of the same corpora. Beside them
stands a t interval over sources (`over_sources`), which asks for other corpora. `bootstrap` resamples target rows alone
and is too narrow for a claim about a study; models that were trained a few times have the t intervals of `few_runs`.
All cells of a target share the resampled rows: two methods are compared on the same rows, and an average over pairs
counts the rows of a target once, not once for each source.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, t

from tsns_lib.sampling import derive_seed
from tsns_lib.validation import shown
from tsns_workbook.report import Interval, Key

CELL = ["source", "target", "method", "k"]
BLOCK = 2**22  # numbers resampled at a time: some 100 MB at the peak, however many rows the target has
PERCENTILES = (2.5, 97.5)
METRICS = ("accuracy", "balanced_accuracy", "auc")  # of a ladder, in the order of its replicates

Pair = tuple[str, str]  # source, target
Cell = tuple[str, str, str, int]  # source, target, method, k
Sides = Sequence[tuple[Sequence[Cell], Sequence[Cell]]]  # what is compared with what


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Accuracies of the cells of a grid in percent: as measured (`point`), and in every resample (`draws`).

    `point` is indexed by source, target, method and k; `draws` has a column for each of these cells.
    """

    grid: pd.DataFrame
    point: pd.Series
    draws: pd.DataFrame

    @property
    def pairs(self) -> list[Pair]:
        """All pairs of source and target, in the order of the grid."""
        return list(self.point.index.droplevel(["method", "k"]).unique())

    def require(self, cells: Iterable[Cell]) -> None:
        """Raise ValueError if the grid lacks one of the cells."""
        for cell in cells:
            if cell not in self.point.index:
                raise ValueError("grid has no cell " + ", ".join(f"{k}={v!r}" for k, v in zip(CELL, cell, strict=True)))


def bootstrap(grid: pd.DataFrame, *, seed: int = 0) -> Bootstrap:
    """Resample the target rows of a transfer grid; the resamples of a target depend on the seed and its name alone."""
    _check(grid)
    groups = grid.groupby(CELL, sort=False)["correct"]
    runs = groups.size()
    # how many runs got each row right: whole numbers, so that sums of them are exact in float32 (up to 2**24)
    counts = {cell: np.sum(np.stack(rows.to_list()), axis=0, dtype=np.float32) for cell, rows in groups}
    point = pd.Series([100 * (hits.sum() / (hits.size * runs[cell])) for cell, hits in counts.items()], runs.index)
    draws = pd.DataFrame(index=range(2000), columns=runs.index, dtype=float)
    for target in grid["target"].unique():
        cells = [cell for cell in counts if cell[1] == target]
        hits = np.stack([counts[cell] for cell in cells], axis=1)
        blocks = _weight_blocks(len(hits), derive_seed(seed, "bootstrap", target), len(draws))
        sums = np.concatenate([weights @ hits for weights in blocks]).astype(np.float64)
        draws[cells] = 100 * (sums / (len(hits) * runs[cells].to_numpy()))
    return Bootstrap(grid, point, draws)


def crossed(grid: pd.DataFrame, *, metric: str = "accuracy", seed: int = 0) -> Bootstrap:
    """Join the replicates of a ladder (`ladder.ladder_grid`) over its runs, which are resampled, too.

    `metric` is one of `METRICS`. A replicate has fewer distinct rows than the study, so that its classifiers are
    a little worse: the replicates of a cell are moved to have the mean that was measured, and only their spread counts.
    """
    index = METRICS.index(metric)
    point, draws = {}, {}
    for cell, rows in grid.groupby(CELL, sort=False):
        source, target, method, k = cell
        moved = 100 * np.stack([values[index] for values in rows.sort_values("run")["draws"]])  # runs, replicates
        if not np.isfinite(moved).all():
            raise ValueError(f"draws: a replicate of {method} on {source} → {target} has no {metric}")
        runs = bootstrap_weights(len(moved), derive_seed(seed, "runs", source, int(k), len(moved)), moved.shape[1])
        mixed = (runs.T * moved).sum(axis=0) / len(moved)
        point[cell] = 100 * float(rows[metric].mean())
        draws[cell] = mixed - mixed.mean() + point[cell]
    cells = pd.MultiIndex.from_tuples(point, names=CELL)
    frame = pd.DataFrame(np.stack(list(draws.values()), axis=1), columns=cells)
    return Bootstrap(grid, pd.Series(list(point.values()), cells), frame)


def bootstrap_weights(n: int, seed: int, n_boot: int = 2000) -> NDArray[np.float32]:
    """Draw n rows with replacement n_boot times and count how often each row came: shape (n_boot, n).

    Examples
    --------
    >>> bootstrap_weights(4, seed=0, n_boot=3).sum(axis=1).tolist()
    [4.0, 4.0, 4.0]
    """
    return np.concatenate(list(_weight_blocks(n, seed, n_boot)))


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
    for cell in grid["correct"]:
        answers("correct", cell)
    repeated = grid.duplicated([*CELL, "run"])
    if repeated.any():
        raise ValueError(f"grid holds a run twice: {grid.loc[repeated, [*CELL, 'run']].iloc[0].to_dict()}")
    lengths = grid["correct"].map(len).groupby(grid["target"]).agg(["min", "max"])
    for target, shortest, longest in lengths.itertuples():
        if shortest != longest or shortest == 0:
            raise ValueError(f"target {target!r} has correct of {shortest} and of {longest} rows; one length is needed")


def answers(name: str, values: ArrayLike) -> NDArray[np.bool_]:
    """Which rows are right, as booleans; a ValueError where something is neither True or False nor 1 or 0.

    A missing answer, or text such as "False", would else count as right.
    """
    array = np.asarray(values)
    if array.dtype != bool:
        for value in array.ravel().tolist():
            if not isinstance(value, Real | np.bool_) or value not in (0, 1):
                raise ValueError(f"{name}: must be True or False for each row, and {shown(value, 40)} is neither")
    if array.ndim == 0:
        raise ValueError(f"{name}: must be True or False for each row, got {shown(values, 40)} alone")
    return array.astype(bool)


# accuracies


def accuracy_table(boot: Bootstrap) -> pd.DataFrame:
    """Accuracy of every cell, mean of its runs: CELL, accuracy, low, high (percent), n (rows of the target), runs."""
    low, high = np.percentile(boot.draws, PERCENTILES, axis=0)
    correct = boot.grid.groupby(CELL, sort=False)["correct"]
    facts = {"n": correct.first().map(len), "runs": correct.size()}
    return pd.DataFrame({"accuracy": boot.point, "low": low, "high": high} | facts).reset_index()


def average_table(boot: Bootstrap) -> pd.DataFrame:
    """Accuracy of every method and k, mean over the pairs: method, k, accuracy, low, high (percent), pairs.

    A method that lacks a pair raises ValueError: its average would not be comparable.
    """
    keys = boot.point.index.droplevel(["source", "target"]).unique()
    boot.require((*pair, *key) for key in keys for pair in boot.pairs)
    groups = {"level": ["method", "k"], "sort": False}
    low, high = np.percentile(boot.draws.T.groupby(**groups).mean(), PERCENTILES, axis=1)
    means = {"accuracy": boot.point.groupby(**groups).mean(), "low": low, "high": high, "pairs": len(boot.pairs)}
    return pd.DataFrame(means).reset_index()


# comparisons


def difference(boot: Bootstrap, a: Key, b: Key, pairs: Sequence[Pair] | None = None) -> Interval:
    """Accuracy of A minus accuracy of B in points, on the same target rows, mean over the pairs (default: all)."""
    point, draws = _gains(boot, a, b, pairs)
    return _interval(point.mean(), draws.mean(axis=1))


def over_sources(boot: Bootstrap, a: Key, b: Key) -> Interval:
    """Accuracy of A minus accuracy of B in points, with a t interval over the means of the sources: other corpora.

    The interval is infinite where there is one source only.
    """
    means = _gains(boot, a, b, None)[0].groupby(level="source").mean()
    spread = (
        means.std() * t.ppf(PERCENTILES[1] / 100, len(means) - 1) / np.sqrt(len(means)) if len(means) > 1 else np.inf
    )
    return Interval(float(means.mean()), float(means.mean() - spread), float(means.mean() + spread))


def wins(boot: Bootstrap, a: Key, b: Key, pairs: Sequence[Pair] | None = None) -> Interval:
    """Count the pairs in which A is ahead of B, with the count's interval."""
    point, draws = _gains(boot, a, b, pairs)
    return _interval((point > 0).sum(), (draws > 0).sum(axis=1))


def gain_table(boot: Bootstrap, a: Key, b: Key) -> pd.DataFrame:
    """Compare A with B pair by pair: source, target, gain, low, high (points), and McNemar's only_a, only_b, p.

    The p values are not corrected for their number.
    """
    point, draws = _gains(boot, a, b, None)
    low, high = np.percentile(draws, PERCENTILES, axis=0)
    frame = pd.DataFrame({"gain": point, "low": low, "high": high}).reset_index()
    correct = boot.grid.sort_values("run").groupby(CELL)["correct"]
    runs = {cell: np.stack(rows.to_list()) for cell, rows in correct}
    tests = [mcnemar(runs[*pair, *a], runs[*pair, *b]) for pair in point.index]
    return frame.assign(**{field: [getattr(test, field) for test in tests] for field in ("only_a", "only_b", "p")})


def _gains(boot: Bootstrap, a: Key, b: Key, pairs: Sequence[Pair] | None) -> tuple[pd.Series, pd.DataFrame]:
    """Accuracy of A minus accuracy of B by pair, as measured and in every resample."""
    compared = boot.pairs if pairs is None else list(pairs)
    cells_a, cells_b = ([(*pair, *key) for pair in compared] for key in (a, b))
    boot.require(cells_a + cells_b)
    index = pd.MultiIndex.from_tuples(compared, names=["source", "target"])
    point = boot.point[cells_a].to_numpy() - boot.point[cells_b].to_numpy()
    draws = boot.draws[cells_a].to_numpy() - boot.draws[cells_b].to_numpy()
    return pd.Series(point, index), pd.DataFrame(draws, columns=index)


def best_sources(boot: Bootstrap, sources: Sequence[str], target: str, key: Key) -> Sides:
    """The sides of a `contest` of the claimed best sources with all other sources of a target."""
    cells = [cell for cell in boot.point.index if cell[1:] == (target, *key)]
    claimed = [(source, target, *key) for source in sources]
    others = [cell for cell in cells if cell not in claimed]
    if not others:
        raise ValueError(f"target {target!r} has no source besides {', '.join(sources)} to compare with")
    return [(claimed, others)]


def contest(boot: Bootstrap, sides: Sides, control: Sides = ()) -> Interval:
    """Accuracy of the worst cell of one side minus that of the best of the other, mean over the sides, in points.

    Which is worst and which is best is decided again in every resample, so the interval pays for that choice. With a
    `control`, it is what its sides show in the same way that is taken off.
    """
    gap, draws = _gap(boot, sides)
    if control:
        same, with_control = _gap(boot, control)
        gap, draws = gap - same, draws - with_control
    return _interval(gap, draws)


def _gap(boot: Bootstrap, sides: Sides) -> tuple[float, np.ndarray]:
    boot.require(cell for compared in sides for side in compared for cell in side)
    gaps = [boot.point[claimed].min() - boot.point[others].max() for claimed, others in sides]
    draws = [boot.draws[claimed].min(axis=1) - boot.draws[others].max(axis=1) for claimed, others in sides]
    return float(np.mean(gaps)), np.mean(draws, axis=0)


def _interval(estimate: Any, draws: Any) -> Interval:
    low, high = np.percentile(draws, PERCENTILES)
    return Interval(float(estimate), float(low), float(high))


class McNemar(NamedTuple):
    """Two-sided exact p value, rows that only A got right, rows that only B got right."""

    p: float
    only_a: int
    only_b: int


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """Test by McNemar's exact test whether A and B err equally often on the same rows: shape (n,) or (runs, n).

    With several runs, run is compared with run (a single run with each of the other's), and the test with the median
    p value is returned, of an even number the upper median. So p and the counts belong to one run that took place. A
    majority vote over runs would test an ensemble that no table reports, and pooled runs would count every row several
    times. Twice the median p is a valid p value for all runs together.

    Examples
    --------
    >>> mcnemar([True, True, True, False], [False, False, False, False])
    McNemar(p=0.25, only_a=3, only_b=0)
    """
    a, b = np.atleast_2d(answers("correct_a", correct_a)), np.atleast_2d(answers("correct_b", correct_b))
    if a.shape[1] != b.shape[1] or (a.shape[0] != b.shape[0] and 1 not in (a.shape[0], b.shape[0])):
        raise ValueError(f"correct_a and correct_b do not fit: shapes {a.shape} and {b.shape} (runs, rows)")
    discordant = zip((a & ~b).sum(axis=1).tolist(), (b & ~a).sum(axis=1).tolist(), strict=True)
    tests = [McNemar(float(binomtest(x, x + y).pvalue) if x + y else 1.0, x, y) for x, y in discordant]
    return sorted(tests)[len(tests) // 2]
