"""From importance to a choice: ranks, their sum over learners, the K neurons that stand first."""

import warnings
from itertools import product

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from tsns_lib.sampling import derive_seed


def order_neurons(m: np.ndarray) -> np.ndarray:
    """Neurons from the most to the least important.

    Equal importance is ordered by one fixed permutation and never by index: few trees leave many neurons at
    exactly 0, and the order of the index would fill the fingerprint's low layers.

    Parameters
    ----------
    m : ndarray of shape (N,)

    Returns
    -------
    ndarray of shape (N,)
        Neuron numbers.

    Examples
    --------
    >>> order_neurons(np.array([0.1, 0.7, 0.2])).tolist()
    [1, 2, 0]
    """
    shuffled = np.random.default_rng(derive_seed(0, "ties", len(m))).permutation(len(m))
    return shuffled[np.argsort(-m[shuffled], kind="stable")]


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
    matrix = _learners_by_neurons("m", m)
    n = matrix.shape[1]
    return (2 * n - rankdata(-matrix, axis=1)) / n


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
    return _learners_by_neurons("h", h).sum(axis=0)


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
        If there are fewer than two sources or the pairing is unknown.

    Examples
    --------
    >>> source_pairs(3)
    [((1, 2), (0,)), ((0, 2), (1,)), ((0, 1), (2,))]
    >>> len(source_pairs(3, "bipartitions")), len(source_pairs(3, "disjoint"))
    (6, 12)
    """
    if n_sources < 2:
        raise ValueError(f"n_sources: pairs need at least 2 sources, got {n_sources}")
    if pairing == "leave_one_out":
        everyone = range(n_sources)
        return [(tuple(m for m in everyone if m != left), (left,)) for left in everyone]
    if pairing not in ("bipartitions", "disjoint"):
        raise ValueError(f"pairing: must be 'leave_one_out', 'bipartitions' or 'disjoint', got {pairing!r}")
    roles = (1, 2) if pairing == "bipartitions" else (0, 1, 2)  # of each source: in neither, in S1, in S2
    pairs = []
    for assignment in product(roles, repeat=n_sources):
        first, second = (tuple(m for m, role in enumerate(assignment) if role == side) for side in (1, 2))
        if first and second:
            pairs.append((first, second))
    return pairs


def select_neurons(m: np.ndarray, k: int) -> np.ndarray:
    """The K most important neurons; warns when fewer than K have any importance.

    Parameters
    ----------
    m : ndarray of shape (N,)
        Importance.
    k : int
        K.

    Returns
    -------
    ndarray of shape (k,)
        Sorted neuron numbers.

    Raises
    ------
    ValueError
        If K is not in [1, N].

    Examples
    --------
    >>> select_neurons(np.array([0.1, 0.7, 0.2]), 2).tolist()
    [1, 2]
    """
    check_n_neurons(k, len(m))
    positive = int((m > 0).sum())
    if positive < k:
        warnings.warn(f"only {positive} of the {k} selected neurons have an importance above 0", stacklevel=2)
    return np.sort(order_neurons(m)[:k])


def check_n_neurons(k: int, n_neurons: int) -> None:
    """One clear line if K neurons cannot be chosen of N."""
    if not 1 <= k <= n_neurons:
        raise ValueError(f"n_neurons: must be between 1 and the {n_neurons} neurons there are, got {k}")


def _learners_by_neurons(name: str, values: ArrayLike) -> np.ndarray:
    matrix = np.asarray(values, dtype=float)
    if matrix.ndim != 2 or 0 in matrix.shape or not np.isfinite(matrix).all():
        raise ValueError(f"{name}: must be a finite matrix (learners × neurons), got shape {matrix.shape}")
    return matrix
