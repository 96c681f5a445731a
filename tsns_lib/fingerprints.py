"""The fingerprint of a task: the share of its chosen neurons in each layer."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import jensenshannon
from scipy.stats import hypergeom

METRICS = ("cosine", "jensen_shannon", "wasserstein")


def fingerprint(selected: ArrayLike, n_layers: int, n_neurons: int | None = None) -> np.ndarray:
    """Share of the chosen neurons in each layer (paper §4.3).

    Parameters
    ----------
    selected : array
        Chosen neurons: their numbers (layer-major, so neuron i lives in layer i // hidden), or a boolean mask
        of shape (N,).
    n_layers : int
        Layers of the encoder.
    n_neurons : int, optional
        N, all neurons of the encoder; needed with numbers, known from a mask.

    Returns
    -------
    ndarray of shape (n_layers,)
        Sums to 1.

    Raises
    ------
    ValueError
        If nothing is selected, a neuron is not in [0, N) or stands twice, or N is no multiple of n_layers.

    Examples
    --------
    >>> fingerprint([0, 1, 5], n_layers=3, n_neurons=6).round(2).tolist()
    [0.67, 0.0, 0.33]
    >>> fingerprint([True, False, False, True], n_layers=2).tolist()
    [0.5, 0.5]
    """
    chosen = np.asarray(selected)
    if chosen.dtype == bool:
        if n_neurons not in (None, chosen.size):
            raise ValueError(f"n_neurons: is {n_neurons}, but the mask has {chosen.size} neurons")
        n_neurons, chosen = chosen.size, np.flatnonzero(chosen)
    if n_neurons is None:
        raise ValueError("n_neurons: needed when selected holds neuron numbers and not a boolean mask")
    if n_layers < 1 or n_neurons % n_layers:
        raise ValueError(f"n_layers: {n_neurons} neurons cannot be shared equally by {n_layers} layers")
    if chosen.ndim != 1 or chosen.size == 0 or chosen.dtype.kind not in "iu":
        raise ValueError(f"selected: must be a non-empty list of neuron numbers or a mask, got {selected!r:.80}")
    if chosen.min() < 0 or chosen.max() >= n_neurons:
        raise ValueError(f"selected: neurons must be in [0, {n_neurons}), got {chosen.min()} to {chosen.max()}")
    if len(np.unique(chosen)) < len(chosen):
        raise ValueError("selected: a neuron stands twice")
    return np.bincount(chosen // (n_neurons // n_layers), minlength=n_layers) / chosen.size


def fingerprint_similarity(a: ArrayLike, b: ArrayLike, metric: str = "cosine") -> float:
    """How alike two fingerprints are: 1 for the same, larger is more alike under every metric.

    Parameters
    ----------
    a, b : array of shape (n_layers,)
        Two fingerprints of one encoder. Only the proportions matter, so percent will do as well as shares.
    metric : {"cosine", "jensen_shannon", "wasserstein"}
        "cosine" (default, our choice: the paper compares by eye); 1 - the Jensen-Shannon distance (the root of
        the divergence in bits); 1 - the Wasserstein distance over depth, where the first layer lies at 0 and
        the last at 1. The first two ask which layers hold the neurons, the last also how far apart they are.

    Returns
    -------
    float
        In [0, 1]; 0 for two layers that share nothing (Wasserstein: for the first layer against the last).

    Raises
    ------
    ValueError
        If the metric is unknown, or the two are not finite shares, none negative, of as many layers.

    Examples
    --------
    >>> [round(fingerprint_similarity([1, 0, 0], [0, 1, 0], metric), 6) for metric in METRICS]
    [0.0, 0.0, 0.5]
    >>> round(fingerprint_similarity([0.5, 0.5], [0.25, 0.75]), 3)
    0.894
    """
    if metric not in METRICS:
        raise ValueError(f"metric: must be one of {', '.join(METRICS)}, got {metric!r}")
    first, second = _shares(a, "a"), _shares(b, "b")
    if first.shape != second.shape:
        raise ValueError(f"a, b: fingerprints of {first.size} and {second.size} layers cannot be compared")
    if metric == "cosine":
        return float(min(1.0, first @ second / np.sqrt((first @ first) * (second @ second))))
    if metric == "jensen_shannon":
        with np.errstate(invalid="ignore"):  # of two that are the same, rounding may leave the root of -1e-17
            return float(1 - np.nan_to_num(jensenshannon(first, second, base=2)))
    # of two distributions on a line: the area between their cumulative curves
    return float(1 - np.abs(np.cumsum(first - second)[:-1]).sum() / max(1, first.size - 1))


def uniform_band(k: int, n_layers: int, n_neurons: int, *, level: float = 0.95) -> tuple[float, float]:
    """Share of one layer when K neurons are drawn evenly from all: the null band of a fingerprint.

    The counts in the layers are then multivariate hypergeometric, so that of one layer is hypergeometric.

    Parameters
    ----------
    k : int
        K, neurons drawn.
    n_layers, n_neurons : int
        Layers and neurons of the encoder.
    level : float
        Chance of one layer to lie in the band, at least; default 0.95 (our choice).

    Returns
    -------
    low, high : float
        Shares.

    Raises
    ------
    ValueError
        If K or the level is out of range, or N is no multiple of n_layers.

    Examples
    --------
    >>> low, high = uniform_band(500, n_layers=6, n_neurons=2304)
    >>> round(low, 3), round(high, 3)
    (0.138, 0.196)
    """
    if n_layers < 1 or n_neurons % n_layers:
        raise ValueError(f"n_layers: {n_neurons} neurons cannot be shared equally by {n_layers} layers")
    if not 1 <= k <= n_neurons:
        raise ValueError(f"k: must be between 1 and the {n_neurons} neurons there are, got {k}")
    if not 0 < level < 1:
        raise ValueError(f"level: must be between 0 and 1, got {level}")
    tail = (1 - level) / 2
    low, high = hypergeom.ppf([tail, 1 - tail], n_neurons, n_neurons // n_layers, k) / k
    return float(low), float(high)


def _shares(fingerprint: ArrayLike, name: str) -> np.ndarray:
    shares = np.asarray(fingerprint, dtype=float)
    if shares.ndim != 1 or not np.isfinite(shares).all() or (shares < 0).any() or not shares.sum() > 0:
        raise ValueError(f"{name}: must be a finite share for each layer, none negative, got {fingerprint!r:.80}")
    return shares / shares.sum()
