"""Seeds and seeded samples: which rows a resample or a budget takes.

A seed is derived from what it belongs to (a source, a run, a resample) and never from the order of the
calls, so that any part of a study can be computed alone, elsewhere or again, and gives the same bits.
"""

import hashlib
import json

import numpy as np
from numpy.typing import ArrayLike

from tsns_lib.validation import numbers, share, shown, whole_number

MOST_ROWS = 2**62  # of all sources together: their sum must fit in 64 bits
SMALL_SOURCE = 10_000  # rows; below it beta = 0.7, from there on 0.1 (beta: paper §4.2, the border: our choice)


def derive_seed(seed: int, *parts: str | int) -> int:
    """A 63-bit seed for one thing, named by its parts from the large to the small.

    Examples
    --------
    >>> derive_seed(0, "books", "run", 1) == derive_seed(0, "books", "run", 1)
    True
    >>> derive_seed(0, "books", "run", 1) == derive_seed(0, "books", "run", 2)
    False
    """
    text = json.dumps([int(seed), *parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def run_seed(seed: int, run: int, source: str | None = None) -> int:
    """The seed of one run, or of one source (or union of sources) in it.

    It is the same in every notebook, so that notebooks share their forests.

    Examples
    --------
    >>> run_seed(0, 1, "books") == derive_seed(run_seed(0, 1), "books")
    True
    """
    of_run = derive_seed(seed, "run", run)
    return of_run if source is None else derive_seed(of_run, source)


def resample_fraction(n_rows: int, fraction: float | str = "auto") -> float:
    """The share β of a source that one resample draws; a ValueError if it is neither "auto" nor in (0, 1].

    "auto" is 0.7 below 10,000 rows and 0.1 from there on (0.7 and 0.1: paper §4.2; the border: our choice).

    Examples
    --------
    >>> resample_fraction(2_000), resample_fraction(366_180), resample_fraction(50, 0.5)
    (0.7, 0.1, 0.5)
    """
    if isinstance(fraction, str) and fraction == "auto":
        return 0.7 if n_rows < SMALL_SOURCE else 0.1
    try:
        return share("fraction", fraction)
    except ValueError:
        raise ValueError(f"fraction: must be 'auto' or in (0, 1], got {shown(fraction)}") from None


def resample_rows(n_rows: int, fraction: float | str, seed: int) -> np.ndarray:
    """Sorted row numbers of one resample: a seeded draw without replacement of a share of the rows, at least one.

    Examples
    --------
    >>> resample_rows(10, 0.3, seed=0).size
    3
    """
    size = max(1, round(resample_fraction(n_rows, fraction) * n_rows))
    return np.sort(np.random.default_rng(seed).choice(n_rows, size=size, replace=False))


def water_fill(sizes: ArrayLike, budget: int) -> np.ndarray:
    """Share a budget of rows among sources as water fills vessels (paper §4.4, after Proakis).

    Every source gets its size or the common level, whichever is smaller; what is left below a whole level goes to
    the earliest sources that can take one more.

    Parameters
    ----------
    sizes : array of int, shape (M,)
        Rows of each source.
    budget : int
        L, the most rows in all.

    Returns
    -------
    ndarray of int, shape (M,)
        Rows to take from each source; they sum to min(L, Σ sizes).

    Raises
    ------
    ValueError
        If there is no source, a size or the budget is negative or no whole number, or there are more than 2**62 rows.

    Examples
    --------
    >>> water_fill([2_490, 363_177, 261_799], 200_000).tolist()
    [2490, 98755, 98755]
    >>> water_fill([5, 5, 5], 8).tolist()
    [3, 3, 2]
    """
    counts = numbers("sizes", sizes, "a non-empty list of row counts")
    if counts.ndim != 1 or counts.size == 0 or counts.dtype.kind not in "iu" or counts.min() < 0:
        raise ValueError(f"sizes: must be a non-empty list of row counts, got {shown(sizes)}")
    if sum(counts.tolist()) > MOST_ROWS:
        raise ValueError(f"sizes: must be at most {MOST_ROWS:,} rows together, got {sum(counts.tolist()):,}")
    try:
        limit = whole_number("budget", budget, least=0)
    except ValueError:
        raise ValueError(f"budget: must be a whole number of rows, 0 or more, got {shown(budget)}") from None
    size = counts.astype(np.int64)
    total = min(limit, int(size.sum()))
    low, high = 0, int(size.max())  # the highest level that the budget can fill everywhere
    while low < high:
        level = (low + high + 1) // 2
        low, high = (level, high) if np.minimum(size, level).sum() <= total else (low, level - 1)
    rows = np.minimum(size, low)
    rows[np.flatnonzero(size > low)[: total - int(rows.sum())]] += 1
    return rows
