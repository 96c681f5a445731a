"""How sure the choice of the K most important neurons is by few trees, and when more would not change it.

The forecast. Some of the units that one could grow are known. A Pólya urn (the finite population Bayesian bootstrap)
draws the others from those that are known. Each draw is one possible outcome of all of them; the share of the K neurons
that it has in common with the present choice is one possible overlap. The choice is stable when the lower end of these
overlaps, one-sided 95 %, is at least 1 - tol.

The units. T trees on each of J resamples are J·T/t forests of t trees. After t trees J of these are known, one on each
resample. They differ by their trees and by their rows, but only trees are still to come: the forecast is a little too
careful (on real reviews, rows add a sixth to the variance of a forest of 100 trees). It is of the choice by the mean of
q; few trees widen σ, so that α < 1 weighs their noise more than all T would.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from tsns_lib.ranking import check_n_neurons, order_neurons
from tsns_lib.sampling import derive_seed

N_DRAWS = 200  # draws of a forecast (our choice)
CONFIDENCE = 0.95  # one-sided (our choice)
FEWEST = 8  # fewer resamples than this say too little of their spread, and fewer trees of their mean (our choice)
FIRST_LOOK = 0.08  # of all trees (our choice)


def forecast_overlap(
    q: np.ndarray, neurons: Sequence[int], n_units: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Forecast which share of the K neurons chosen now (by the mean of q) all units would choose too.

    Takes q of the n known units, of shape (n, number of neurons), with n from 2 to `n_units`. Gives the expected
    overlap for every K and its lower end, one-sided 95 %, each of shape (len(neurons),).

    Examples
    --------
    >>> q = np.random.default_rng(0).dirichlet(np.linspace(1, 9, 20), size=12)
    >>> expected, low = forecast_overlap(q, [5], 100)
    >>> bool(low[0] <= expected[0] < 1), forecast_overlap(q, [5], 12)[1].tolist()
    (True, [1.0])
    """
    n, n_neurons = q.shape
    if n < 2 or n_units < n:
        raise ValueError(f"q: a forecast of {n_units} units needs 2 to {n_units} known ones, got {n}")
    for k in neurons:
        check_n_neurons(k, n_neurons)
    rng = np.random.default_rng(derive_seed(seed, "forecast", n, n_units))
    shares = rng.dirichlet(np.ones(n), size=N_DRAWS)
    added = np.stack([rng.multinomial(n_units - n, share) for share in shares])
    place = np.argsort(order_neurons(q.mean(axis=0)))
    overlaps = np.empty((N_DRAWS, len(neurons)))
    for draw, weights in enumerate(1 + added):
        order = order_neurons(weights @ q)
        overlaps[draw] = [(place[order[:k]] < k).mean() for k in neurons]
    return overlaps.mean(axis=0), np.quantile(overlaps, 1 - CONFIDENCE, axis=0)


def looks(n_trees: int) -> Iterator[int]:
    """The numbers of trees after which an interim look is taken; all of them are the last.

    They are few, because each look is another chance to stop by luck.

    Examples
    --------
    >>> list(looks(1000)), list(looks(5))
    ([80, 120, 160, 240, 320, 480, 640, 960, 1000], [5])
    """
    look = max(FEWEST, round(FIRST_LOOK * n_trees))
    while look < n_trees:
        yield look
        if (between := look + look // 2) < n_trees:
            yield between
        look *= 2
    yield n_trees
