"""McNemar's exact test, which asks whether two classifiers err equally often on the same rows."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest


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
