"""How sure the choice of the K most important neurons is after n resamples, and when J would not change it.

The forecast. n of J resamples are known. A Pólya urn (the finite population Bayesian bootstrap) draws the other J - n
from those that are known. Each draw is one possible outcome of all J; the share of the K neurons that it has in common
with the present choice is one possible overlap. The choice is stable when the lower end of these overlaps, one-sided
95 %, is at least 1 - tol. Where all J resamples were computed, the forecast proved right from an overlap of 0.9 on,
which is where one stops. Around 0.7 it is some points too high, since noise spreads the neurons apart.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from tsns_lib.ranking import check_n_neurons, order_neurons
from tsns_lib.sampling import derive_seed

N_DRAWS = 200  # draws of a forecast (our choice)
CONFIDENCE = 0.95  # one-sided (our choice)
FIRST_LOOK = 8  # fewer resamples than this are never enough (our choice)


def forecast_overlap(
    q: np.ndarray, neurons: Sequence[int], n_resamples: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Forecast which share of the K neurons chosen now (by the mean of q) all J resamples would choose too.

    Takes q of shape (n, N) with n from 2 to J; gives the expected overlap for every K and its lower end, one-sided
    95 %, each of shape (len(neurons),).

    Examples
    --------
    >>> q = np.random.default_rng(0).dirichlet(np.linspace(1, 9, 20), size=12)
    >>> expected, low = forecast_overlap(q, [5], 100)
    >>> bool(low[0] <= expected[0] < 1), forecast_overlap(q, [5], 12)[1].tolist()
    (True, [1.0])
    """
    n, n_neurons = q.shape
    if n < 2 or n_resamples < n:
        raise ValueError(f"q: a forecast of {n_resamples} resamples needs 2 to {n_resamples} known ones, got {n}")
    for k in neurons:
        check_n_neurons(k, n_neurons)
    rng = np.random.default_rng(derive_seed(seed, "forecast", n))
    shares = rng.dirichlet(np.ones(n), size=N_DRAWS)
    added = np.stack([rng.multinomial(n_resamples - n, share) for share in shares])
    place = np.argsort(order_neurons(q.mean(axis=0)))
    overlaps = np.empty((N_DRAWS, len(neurons)))
    for draw, weights in enumerate(1 + added):
        order = order_neurons(weights @ q)
        overlaps[draw] = [(place[order[:k]] < k).mean() for k in neurons]
    return overlaps.mean(axis=0), np.quantile(overlaps, 1 - CONFIDENCE, axis=0)


def looks(n_resamples: int) -> Iterator[int]:
    """The numbers of resamples after which an interim look is taken; J is the last.

    They are few, because each look is another chance to stop by luck.

    Examples
    --------
    >>> list(looks(100)), list(looks(5))
    ([8, 12, 16, 24, 32, 48, 64, 96, 100], [5])
    """
    look, step = FIRST_LOOK, FIRST_LOOK // 2
    while look < n_resamples:
        yield look
        look += step
        step = look // 2 if look & (look - 1) == 0 else step
    yield n_resamples


def overlap_curve(q: np.ndarray, neurons: Sequence[int], n_resamples: int, *, seed: int = 0) -> pd.DataFrame:
    """How the overlap with the final choice grows, look by look.

    One row for each look and K, in columns `resamples`, `k`, `expected` and `low` (of `forecast_overlap`), and `found`:
    the true overlap, where q holds all J resamples (else NaN).

    Examples
    --------
    >>> q = np.random.default_rng(0).dirichlet(np.ones(20), size=12)
    >>> overlap_curve(q, [5], 12)["resamples"].tolist()
    [8, 12]
    """
    rows = []
    final = order_neurons(q.mean(axis=0))
    for n in looks(n_resamples):
        if n > len(q):
            break
        present = order_neurons(q[:n].mean(axis=0))
        for k, expected, low in zip(neurons, *forecast_overlap(q[:n], neurons, n_resamples, seed=seed), strict=True):
            overlap = len(np.intersect1d(present[:k], final[:k])) / k if len(q) == n_resamples else float("nan")
            rows.append({"resamples": n, "k": k, "expected": expected, "low": low, "found": overlap})
    return pd.DataFrame(rows)
