"""The fingerprint of a task: the share of its chosen neurons in each layer; of one choice, and of many sources."""

import os
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.spatial.distance import jensenshannon
from scipy.stats import hypergeom

from tsns_lib.aggregation import select
from tsns_lib.encoders import Encoder, check_encoder
from tsns_lib.executors import bar
from tsns_lib.extraction import extract
from tsns_lib.importance import Forest, Resamples, check_resamples
from tsns_lib.ranking import check_n_neurons, order_neurons
from tsns_lib.sampling import derive_seed, run_seed
from tsns_lib.store import Store
from tsns_lib.validation import (
    LARGEST,
    MOST_RUNS,
    MOST_SEED,
    class_numbers,
    numbers,
    one_of,
    share,
    shown,
    whole_number,
)

METRICS = ("cosine", "jensen_shannon", "wasserstein")
LABELS = ("true", "shuffled")
MOST_LAYERS, MOST_NEURONS = 10_000, 10**9  # of an encoder; far more than any has
N_BOOTSTRAPS = 500  # of a run's resamples (our choice)


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
    chosen = numbers("selected", selected, "a non-empty list of neuron numbers or a mask")
    if chosen.dtype == bool and chosen.ndim == 1:
        if n_neurons is not None and whole_number("n_neurons", n_neurons) != chosen.size:
            raise ValueError(f"n_neurons: is {n_neurons}, but the mask has {chosen.size} neurons")
        n_neurons, chosen = chosen.size, np.flatnonzero(chosen)
    if n_neurons is None:
        raise ValueError("n_neurons: needed when selected holds neuron numbers and not a boolean mask")
    n_layers, n_neurons = _shape(n_layers, n_neurons)
    if chosen.ndim != 1 or chosen.size == 0 or chosen.dtype.kind not in "iu":
        raise ValueError(f"selected: must be a non-empty list of neuron numbers or a mask, got {shown(selected)}")
    if chosen.min() < 0 or chosen.max() >= n_neurons:
        raise ValueError(f"selected: neurons must be in [0, {n_neurons}), got {chosen.min()} to {chosen.max()}")
    if len(np.unique(chosen)) < len(chosen):
        raise ValueError("selected: a neuron stands twice")
    return np.bincount(chosen.astype(np.int64) // (n_neurons // n_layers), minlength=n_layers) / chosen.size


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
    if not isinstance(metric, str) or metric not in METRICS:
        raise ValueError(f"metric: must be one of {', '.join(METRICS)}, got {shown(metric)}")
    first, second = _shares(a, "a"), _shares(b, "b")
    if first.shape != second.shape:
        raise ValueError(f"a, b: fingerprints of {first.size} and {second.size} layers cannot be compared")
    if metric == "cosine":
        return cosine(first, second)
    if metric == "jensen_shannon":
        with np.errstate(invalid="ignore"):  # of two that are the same, rounding may leave the root of -1e-17
            return float(1 - np.nan_to_num(jensenshannon(first, second, base=2)))
    # of two distributions on a line: the area between their cumulative curves
    return float(1 - np.abs(np.cumsum(first - second)[:-1]).sum() / max(1, first.size - 1))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two vectors, 0 where one of them is 0.

    Examples
    --------
    >>> round(cosine(np.array([1.0, 0.0]), np.array([1.0, 1.0])), 3)
    0.707
    """
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return min(1.0, float(a @ b) / max(scale, np.finfo(float).tiny))


def uniform_band(k: int, n_layers: int, n_neurons: int, *, level: float = 0.95) -> tuple[float, float]:
    """Share of one layer when K neurons are drawn evenly from all: the null band of a fingerprint.

    The counts in the layers are then multivariate hypergeometric, so the count in one layer is hypergeometric. The
    share of one layer lies in the band with a probability of at least `level`.

    Examples
    --------
    >>> low, high = uniform_band(500, n_layers=6, n_neurons=2304)
    >>> round(low, 3), round(high, 3)
    (0.138, 0.196)
    """
    n_layers, n_neurons = _shape(n_layers, n_neurons)
    k = check_n_neurons(k, n_neurons, "k")
    tail = (1 - share("level", level, one=False)) / 2
    low, high = hypergeom.ppf([tail, 1 - tail], n_neurons, n_neurons // n_layers, k) / k
    return float(low), float(high)


def fingerprint_frame(
    sources: Sequence[Any],
    encoder: Encoder,
    *,
    k: int = 500,
    runs: int = 5,
    labels: str = "true",
    n_resamples: int = 100,
    fraction: float | str = "auto",
    n_trees: int = 1000,
    max_depth: int = 200,
    engine: str = "histogram",
    pooling: str = "cls",
    max_length: int = 128,
    seed: int = 0,
    tol: float | None = None,
    n_jobs: int = -1,
    store: Store | str | os.PathLike | None = None,
    scheduler: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Fingerprint of every source in every run, and how far it would move under other resamples.

    The settings are those of `tsns_lib.transfer_grid`, with which the runs share their seeds and forests; an encoder
    with random weights, or `labels="shuffled"` (the labels of a source permuted in every run), gives a control. One row
    for each source and run, in columns `source`, `task`, `run`, `k`, `selected` (neuron numbers), `shares` (array of
    shape (n_layers,), sums to 1), `draws` (array of shape (500, n_layers): the fingerprints of 500 bootstraps of the
    run's resamples), `stability`, `trees` (how many were grown on each resample) and `generated`.

    Examples
    --------
    >>> import tsns_lib
    >>> books = tsns_lib.load_source("miniature:books", limit=40)
    >>> settings = {"k": 50, "runs": 1, "n_resamples": 2, "n_trees": 20, "progress": False}
    >>> frame = fingerprint_frame([books], tsns_lib.load_encoder(), **settings)
    >>> frame["shares"][0].shape, frame["draws"][0].shape
    ((6,), (500, 6))
    """
    if isinstance(sources, str) or not np.iterable(sources) or not all(hasattr(each, "origin") for each in sources):
        raise ValueError(f"sources: must be a list of what load_source gives, got {shown(sources)}")
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"sources: a name stands twice in {names}")
    one_of("labels", labels, LABELS)
    check_encoder(encoder)
    runs, k = whole_number("runs", runs, 1, MOST_RUNS), check_n_neurons(k, encoder.n_neurons)
    seed = whole_number("seed", seed, 0, MOST_SEED)
    compute: dict[str, Any] = {"store": store, "scheduler": scheduler, "progress": progress}
    work: dict[str, list[tuple[np.ndarray, Forest]]] = {name: [] for name in names}
    for source, run in product(sources, range(runs)):
        y, own_seed = source.frame["label"].to_numpy(), run_seed(seed, run, source.name)
        if labels == "shuffled":
            y = np.random.default_rng(derive_seed(seed, source.name, "shuffled", run)).permutation(y)
        forest = Forest(n_resamples, fraction, n_trees, max_depth, engine, tol, own_seed)
        check_resamples(class_numbers(y, len(y)), forest)  # before any text is read
        work[source.name].append((y, forest))
    rows = []
    for source in bar(sources, desc="sources", show=progress):
        X = extract(source, encoder, pooling=pooling, max_length=max_length, **compute)
        of_all = Resamples(X, *work[source.name][0], n_jobs=n_jobs, **compute)
        for run, (y, forest) in enumerate(work[source.name]):
            grown = of_all.of_run(forest.seed, y).enough_for([k])[k]
            choice = select([grown.q], k, [1.0])
            shares = fingerprint(choice.neurons, encoder.n_layers, encoder.n_neurons)
            draws = _bootstrapped(grown.q, k, encoder.n_layers, derive_seed(seed, source.name, "draws", run))
            facts = (source.name, source.task, run, k, choice.neurons, shares, draws, choice.stability, grown.n_trees)
            rows.append((*facts, source.generated))
    columns = ["source", "task", "run", "k", "selected", "shares", "draws", "stability", "trees", "generated"]
    return pd.DataFrame(rows, columns=columns)


def _bootstrapped(q: np.ndarray, k: int, n_layers: int, seed: int) -> np.ndarray:
    """Fingerprints of bootstraps of the resamples, shape (N_BOOTSTRAPS, n_layers)."""
    counts = np.random.default_rng(seed).multinomial(len(q), np.full(len(q), 1 / len(q)), N_BOOTSTRAPS)
    return np.stack([fingerprint(chosen, n_layers, q.shape[1]) for chosen in order_neurons(counts @ q)[:, :k]])


def _shape(n_layers: int, n_neurons: int) -> tuple[int, int]:
    """Layers and neurons of an encoder, or a ValueError unless every layer has as many."""
    layers, neurons = whole_number("n_layers", n_layers, 1, MOST_LAYERS), whole_number("n_neurons", n_neurons)
    if neurons % layers or neurons > MOST_NEURONS:
        raise ValueError(f"n_layers: {neurons} neurons cannot be shared equally by {layers} layers")
    return layers, neurons


def _shares(fingerprint: ArrayLike, name: str) -> np.ndarray:
    wanted = "a finite share for each layer, none negative"
    shares = numbers(name, fingerprint, wanted).astype(float)
    if shares.ndim != 1 or not ((shares >= 0) & (shares <= LARGEST)).all() or not shares.sum() > 1 / LARGEST:
        raise ValueError(f"{name}: must be {wanted}, got {shown(fingerprint)}")
    return shares / shares.sum()
