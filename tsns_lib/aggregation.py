"""From importance to a choice: ranks, their sum over learners, and the one function that selects K neurons."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from tsns_lib.importance import cumulative_importance
from tsns_lib.ranking import order_neurons, select_neurons
from tsns_lib.validation import matrix, one_of, whole_number

PAIRINGS = ("leave_one_out", "bipartitions", "disjoint")
MOST_SOURCES = 1_000  # that can be paired (our choice; the paper has 7)
MOST_PAIRS = 100_000  # each is a learner with J forests: "disjoint" reaches it with 11 sources, "bipartitions" with 17


class Selection(NamedTuple):
    """K chosen neurons, and what the choice rests on; made by `select`.

    `neurons` are sorted numbers of shape (K,). `importances` of shape (N,) is what they were chosen by: m of a single
    learner, h of several. `learner_importances` is m of every learner, (P, N). `stability` is the share of the K
    neurons that two halves of the resamples have in common (NaN for a single resample).
    """

    neurons: np.ndarray
    importances: np.ndarray
    learner_importances: np.ndarray
    stability: float


def select(qs: Sequence[np.ndarray], k: int, alphas: Sequence[float]) -> Selection:
    """Choose the K most important neurons from the q of every learner and its α (paper §3.1, §3.2).

    Every table, figure and selector chooses by this function.

    Examples
    --------
    >>> q = np.array([[0.6, 0.3, 0.1], [0.5, 0.1, 0.4]])
    >>> choice = select([q], 2, [1.0])
    >>> choice.neurons.tolist(), choice.stability
    ([0, 2], 0.5)
    """
    by_learner = _by_learner(qs, alphas)
    importances = _over_learners(by_learner)
    neurons = select_neurons(importances, k)
    return Selection(neurons, importances, by_learner, half_overlap(qs, k, alphas))


def half_overlap(qs: Sequence[np.ndarray], k: int, alphas: Sequence[float]) -> float:
    """The share of the K neurons that two halves of the resamples have in common; chance gives K/N.

    The even resamples are compared with the odd ones. NaN where a learner has a single resample.

    Examples
    --------
    >>> half_overlap([np.array([[0.6, 0.3, 0.1], [0.5, 0.1, 0.4]])], 2, [1.0])
    0.5
    """
    if min(len(q) for q in qs) < 2:
        return float("nan")
    halves = (_over_learners(_by_learner([q[first::2] for q in qs], alphas)) for first in (0, 1))
    even, odd = (order_neurons(importances)[:k] for importances in halves)
    return len(np.intersect1d(even, odd)) / k


def meta_importance(m: ArrayLike) -> np.ndarray:
    """Meta-importance h^p = (2N - r^p) / N of every neuron for every learner (paper §3.2).

    Parameters
    ----------
    m : array of shape (P, N)
        Importance of N neurons by P learners.

    Returns
    -------
    ndarray of shape (P, N)
        r = 1 is the most important neuron; equal importance shares its average rank (our choice).

    Raises
    ------
    ValueError
        If m is not a finite matrix.

    Examples
    --------
    >>> meta_importance([[0.1, 0.6, 0.3], [0.4, 0.4, 0.2]]).round(2).tolist()
    [[1.0, 1.67, 1.33], [1.5, 1.5, 1.0]]
    """
    importances = matrix("m", m, "learners × neurons")
    n = importances.shape[1]
    return (2 * n - rankdata(-importances, axis=1)) / n


def aggregate(h: ArrayLike) -> np.ndarray:
    """Sum the meta-importance of all learners: a Borda count (paper §3.2).

    Parameters
    ----------
    h : array of shape (P, N)
        As `meta_importance` gives it.

    Returns
    -------
    ndarray of shape (N,)

    Raises
    ------
    ValueError
        If h is not a finite matrix.

    Examples
    --------
    >>> aggregate([[1.0, 1.5], [1.5, 1.25]]).tolist()
    [2.5, 2.75]
    """
    return matrix("h", h, "learners × neurons").sum(axis=0)


def source_pairs(n_sources: int, pairing: str = "leave_one_out") -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Pairs (S1, S2) of disjoint, non-empty sets of sources, one for each learner.

    The paper says that the pairs determine the number of learners P, and writes p ∈ {1…M} (§4.2).

    Parameters
    ----------
    n_sources : int
        M, two or more.
    pairing : {"leave_one_out", "bipartitions", "disjoint"}
        "leave_one_out" (default, our choice because P = M): S2 is one source, S1 all others. "bipartitions": every
        ordered split in two, 2^M - 2 pairs. "disjoint": every ordered pair of disjoint sets, 3^M - 2^(M+1) + 1.

    Returns
    -------
    list of (S1, S2)
        Tuples of source numbers.

    Raises
    ------
    ValueError
        If there are fewer than two sources or more than 1,000, or the pairing is unknown or makes over 100,000 pairs.

    Examples
    --------
    >>> source_pairs(3)
    [((1, 2), (0,)), ((0, 2), (1,)), ((0, 1), (2,))]
    >>> len(source_pairs(3, "bipartitions")), len(source_pairs(3, "disjoint"))
    (6, 12)
    """
    n_sources = whole_number("n_sources", n_sources, most=MOST_SOURCES)
    if n_sources < 2:
        raise ValueError(f"n_sources: pairs need at least 2 sources, got {n_sources}")
    one_of("pairing", pairing, PAIRINGS)
    sizes = {"bipartitions": 2**n_sources - 2, "disjoint": 3**n_sources - 2 ** (n_sources + 1) + 1}
    if sizes.get(pairing, n_sources) > MOST_PAIRS:
        raise ValueError(f"pairing: {pairing!r} of {n_sources} sources makes more than {MOST_PAIRS:,} pairs")
    if pairing == "leave_one_out":
        everyone = range(n_sources)
        return [(tuple(m for m in everyone if m != left_out), (left_out,)) for left_out in everyone]
    places = (1, 2) if pairing == "bipartitions" else (0, 1, 2)  # a source stands in neither set, in S1 or in S2
    pairs = []
    for assignment in product(places, repeat=n_sources):
        first, second = (tuple(m for m, place in enumerate(assignment) if place == side) for side in (1, 2))
        if first and second:
            pairs.append((first, second))
    return pairs


def _by_learner(qs: Sequence[np.ndarray], alphas: Sequence[float]) -> np.ndarray:
    return np.stack([cumulative_importance(q, alpha=alpha) for q, alpha in zip(qs, alphas, strict=True)])


def _over_learners(m: np.ndarray) -> np.ndarray:
    """One learner's m as it is; the summed ranks of several."""
    return m[0] if len(m) == 1 else aggregate(meta_importance(m))
