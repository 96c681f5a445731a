"""How sure the choice of the K most important neurons is after J resamples, and when more would not change it.

The forecast. Of J resamples the first n are known. What the other J - n would add is drawn from those that are known
by a Pólya urn (the finite population Bayesian bootstrap): every draw is one possible answer of all J, and the share of
the K neurons that it has in common with the choice of now is one possible overlap. The choice is stable when the
lower end of these overlaps, one-sided 95 %, is at least 1 - tol. On forests whose all J are known the forecast holds
from an overlap of 0.9 on, where one stops; around 0.7 it is some points too high, since the noise of now spreads the
neurons apart.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from tsns_lib.aggregation import check_n_neurons, order_neurons
from tsns_lib.sampling import derive_seed

N_DRAWS = 200  # of a forecast (our choice)
CONFIDENCE = 0.95  # one-sided (our choice)
FIRST_LOOK = 8  # fewer resamples than this are never enough (our choice)


def half_overlap(q: np.ndarray, k: int) -> float:
    """How stable the K chosen neurons are: the share that two halves of the resamples have in common.

    Parameters
    ----------
    q : ndarray of shape (J, N)
        Importance on each resample.
    k : int
        Neurons chosen.

    Returns
    -------
    float
        In [0, 1] (K/N is what chance gives); NaN for a single resample.

    Examples
    --------
    >>> half_overlap(np.array([[0.6, 0.3, 0.1], [0.5, 0.1, 0.4]]), 2)
    0.5
    """
    if len(q) < 2:
        return float("nan")
    even, odd = (set(order_neurons(q[half::2].mean(axis=0))[:k]) for half in (0, 1))
    return len(even & odd) / k


def forecast_overlap(
    q: np.ndarray, neurons: Sequence[int], n_resamples: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the K neurons chosen now that all J resamples would choose too, forecast from those that are known.

    Parameters
    ----------
    q : ndarray of shape (n, N)
        Importance on the resamples that are known; at least two.
    neurons : sequence of int
        The values of K; the choice is by the mean of q.
    n_resamples : int
        J, at least n.
    seed : int
        Seed of the draws.

    Returns
    -------
    tuple of two ndarrays of shape (len(neurons),)
        The expected overlap for every K, and its lower end, one-sided 95 %.

    Raises
    ------
    ValueError
        If there are fewer than two resamples, J is smaller than n or a K is not in [1, N].

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


def is_stable(q: np.ndarray, neurons: Sequence[int], n_resamples: int, tol: float, *, seed: int = 0) -> bool:
    """Whether, for every K, the choice of now shares at least 1 - tol with that of all J resamples, at 95 %.

    Parameters
    ----------
    q : ndarray of shape (n, N)
        Importance on the resamples that are known.
    neurons, n_resamples, seed
        As in `forecast_overlap`.
    tol : float
        The share of the K neurons that may still change.

    Examples
    --------
    >>> is_stable(np.tile([0.2, 0.3, 0.5], (8, 1)), [1, 2], 100, tol=0.05)
    True
    """
    return bool((forecast_overlap(q, neurons, n_resamples, seed=seed)[1] >= 1 - tol).all())


def looks(n_resamples: int) -> Iterator[int]:
    """After how many resamples one looks whether they are enough: few times, so that the confidence holds.

    Parameters
    ----------
    n_resamples : int
        J, which is always the last look.

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
    """How the overlap with the answer of all J resamples grows, look by look.

    Parameters
    ----------
    q : ndarray of shape (n, N)
        Importance on the resamples that are known.
    neurons : sequence of int
        The values of K.
    n_resamples : int
        J.
    seed : int
        Seed of the draws.

    Returns
    -------
    DataFrame
        One row for each look and K, in columns `resamples`, `k`, `expected`, `low` (as `forecast_overlap`) and
        `found`: the true overlap, where q holds all J (else NaN).

    Examples
    --------
    >>> q = np.random.default_rng(0).dirichlet(np.ones(20), size=12)
    >>> overlap_curve(q, [5], 12)["resamples"].tolist()
    [8, 12]
    """
    rows = []
    for n in looks(n_resamples):
        if n > len(q):
            break
        now, all_of_them = (order_neurons(part.mean(axis=0)) for part in (q[:n], q))
        for k, expected, low in zip(neurons, *forecast_overlap(q[:n], neurons, n_resamples, seed=seed), strict=True):
            known = len(q) == n_resamples
            found = len(np.intersect1d(now[:k], all_of_them[:k])) / k if known else float("nan")
            rows.append({"resamples": n, "k": k, "expected": expected, "low": low, "found": found})
    return pd.DataFrame(rows)
