"""How sure the choice of the K most important neurons is by few trees, and when more would not change it.

The forecast. t of T trees have grown on each of J resamples. The two halves of a forest's t trees saw the same rows, so
that half their difference is the noise of its trees alone, and as large as that in its q. Which half comes first is
chance: a random sign for each resample makes of these differences one possible noise of the mean of q, and the square
root of (T - t)/T times that is what the trees to come may add. The share of the K neurons chosen with it that are also
chosen now is one possible overlap. The choice is stable when the lower end of these overlaps, one-sided 95 %, is at
least 1 - tol. Well below 0.9 the forecast is too high, since noise spreads the neurons apart. It is of the choice by
the mean: few trees widen σ, so that α < 1 weighs their noise more than all T trees would.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from tsns_lib.ranking import order_neurons
from tsns_lib.sampling import derive_seed

N_DRAWS = 200  # draws of a forecast (our choice)
CONFIDENCE = 0.95  # one-sided (our choice)
FEWEST = 8  # fewer resamples than this say too little of their spread, and fewer trees of their mean (our choice)
FIRST_LOOK = 0.04  # of all trees (our choice: reviews need no more)


def forecast_overlap(
    q: np.ndarray, noise: np.ndarray, neurons: Sequence[int], to_come: float, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Forecast which share of the K neurons chosen now (by the mean of q) all trees would choose too.

    Takes q and the noise of its trees, both of shape (J, N), and which share of all trees is still to come. Gives the
    expected overlap for every K and its lower end, one-sided 95 %, each of shape (len(neurons),).

    Examples
    --------
    >>> first, second = np.random.default_rng(0).dirichlet(np.linspace(1, 9, 20), size=(2, 12))
    >>> forecast_overlap((first + second) / 2, (first - second) / 2, [5], 0.0)[1].tolist()
    [1.0]
    """
    rng = np.random.default_rng(derive_seed(seed, "forecast", len(q)))
    mean = q.mean(axis=0)
    place = np.argsort(order_neurons(mean))
    signs = rng.choice([-1.0, 1.0], size=(N_DRAWS, len(q)))
    places = place[order_neurons(mean + np.sqrt(to_come) * (signs @ noise) / len(q))]
    overlaps = np.stack([(places[:, :k] < k).mean(axis=1) for k in neurons], axis=1)
    return overlaps.mean(axis=0), np.quantile(overlaps, 1 - CONFIDENCE, axis=0)


def looks(n_trees: int) -> Iterator[int]:
    """The numbers of trees after which an interim look is taken; all of them are the last.

    They are few, because each look is another chance to stop by luck.

    Examples
    --------
    >>> list(looks(1000)), list(looks(5))
    ([40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1000], [5])
    """
    look = max(FEWEST, round(FIRST_LOOK * n_trees))
    while look < n_trees:
        yield look
        if (between := look + look // 2) < n_trees:
            yield between
        look *= 2
    yield n_trees
