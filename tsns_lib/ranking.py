"""From importance to an order of the neurons, and the K that stand first."""

import warnings

import numpy as np

from tsns_lib.sampling import derive_seed
from tsns_lib.validation import whole_number


def order_neurons(m: np.ndarray) -> np.ndarray:
    """Neuron numbers from the most to the least important along the last axis, in the shape of m.

    Equal importance is ordered by one fixed permutation and never by index: few trees leave many neurons at
    exactly 0, and the order of the index would fill the fingerprint's low layers.

    Examples
    --------
    >>> order_neurons(np.array([0.1, 0.7, 0.2])).tolist()
    [1, 2, 0]
    """
    n_neurons = m.shape[-1]
    shuffled = np.random.default_rng(derive_seed(0, "ties", n_neurons)).permutation(n_neurons)
    return shuffled[np.argsort(-m[..., shuffled], kind="stable")]


def select_neurons(m: np.ndarray, k: int) -> np.ndarray:
    """The K most important neurons; warns when fewer than K have any importance.

    The numbers come sorted, in an array of shape (k,); m has the shape (N,).

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


def check_n_neurons(k: int, n_neurons: int, name: str = "n_neurons") -> int:
    """K as an int, or a ValueError if K neurons cannot be chosen of N."""
    chosen = whole_number(name, k, least=0)
    if not 1 <= chosen <= n_neurons:
        raise ValueError(f"{name}: must be between 1 and the {n_neurons} neurons there are, got {k}")
    return chosen
