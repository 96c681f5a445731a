"""One resample of a source as a unit of work: pure, seeded, the same bits wherever it runs."""

import time
from dataclasses import dataclass, replace

import numpy as np

from tsns_lib.binning import Activations, bin_activations, bin_edges, row_blocks
from tsns_lib.forest import histogram_importance
from tsns_lib.runtime.progress import announce
from tsns_lib.runtime.store import Entry
from tsns_lib.sampling import derive_seed, resample_rows

PROBE_TREES = 16  # enough to forecast what a forest takes


@dataclass(frozen=True)
class Forests:
    """What the resamples of one call have in common.

    `data` are the activations; or, for the histogram engine where they fit in memory, their bins, neuron-major.
    `edges` cut them, where that is still to be done.
    """

    data: Activations
    edges: np.ndarray | None
    classes: np.ndarray
    fraction: float | str
    n_trees: int
    max_depth: int
    engine: str
    seed: int
    n_jobs: int


def prepare(X: Activations, engine: str, n_jobs: int) -> tuple[Activations, np.ndarray | None]:
    """What the engine reads, and the edges where it is still to be cut."""
    if engine == "sklearn":
        return X, None
    edges = bin_edges(X, n_jobs)
    return (X, edges) if isinstance(X, Entry) else (bin_activations(X, edges, n_jobs=n_jobs), None)


def grow_resample(j: int, forests: Forests) -> np.ndarray:
    """Importance of shape (N,) on resample j: a pure unit of work for any executor."""
    data, edges, classes = forests.data, forests.edges, forests.classes
    rows = resample_rows(len(classes), forests.fraction, derive_seed(forests.seed, "resample", j, "rows"))
    if len(np.unique(classes[rows])) < 2:
        held = f"{len(rows)} of {len(classes)} rows"
        raise ValueError(f"fraction: resample {j} ({held}) holds one class only; use a larger fraction")
    if edges is not None:
        part = bin_activations(data, edges, rows, forests.n_jobs)
    elif forests.engine == "sklearn":
        part = np.concatenate(list(row_blocks(data, rows)))
    else:
        assert isinstance(data, np.ndarray)  # bins
        part = data.take(rows, axis=1)
    seed = derive_seed(forests.seed, "resample", j, "forest")
    settings = forests.n_trees, forests.max_depth, forests.engine
    return grow_forest(part, classes[rows], *settings, seed, forests.n_jobs)


def grow_forest(
    prepared: np.ndarray,
    classes: np.ndarray,
    n_trees: int,
    max_depth: int,
    engine: str,
    seed: int,
    n_jobs: int,
) -> np.ndarray:
    """Importance of shape (N,) by one forest on what `prepare` gives."""
    if engine == "histogram":
        return histogram_importance(prepared, classes, n_trees, max_depth, seed, n_jobs)
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_trees, max_depth=max_depth, random_state=seed % 2**32, n_jobs=n_jobs)
    return forest.fit(prepared, classes).feature_importances_


def announce_cost(forests: Forests, n_forests: int, n_neurons: int, at_most: bool) -> None:
    """Say what the forests will cost, by a few trees of the first one: what a resample and what a tree takes."""
    seconds = []
    for n_trees in (1, 1, PROBE_TREES):  # the first compiles
        start = time.perf_counter()
        grow_resample(0, replace(forests, n_trees=n_trees))
        seconds.append(time.perf_counter() - start)
    of_a_tree = max(0.0, seconds[2] - seconds[1]) / (PROBE_TREES - 1)
    work = f"{'at most ' if at_most else ''}{n_forests} forests of {forests.n_trees:,} trees"
    announce(work, n_forests * (seconds[1] + of_a_tree * (forests.n_trees - 1)), n_forests * n_neurons * 8)
