"""How alike the sources of one task are, and those of two."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from tsns_lib.reporting.statistics import PERCENTILES, Interval
from tsns_lib.sampling import derive_seed

N_PERMUTATIONS = 4_999


def similarity_frame(names: Sequence[str], similarity: Callable[[str, str], float]) -> pd.DataFrame:
    """A similarity of every two sources as a matrix.

    Parameters
    ----------
    names : sequence of str
        Sources.
    similarity : callable
        Takes two names.

    Returns
    -------
    pandas.DataFrame
        Sources down and across.

    Examples
    --------
    >>> similarity_frame(["a", "b"], lambda x, y: float(x == y)).to_numpy().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return pd.DataFrame([[similarity(a, b) for b in names] for a in names], list(names), list(names))


def kinship(similarity: pd.DataFrame, tasks: Mapping[str, str], *, seed: int = 0) -> Interval:
    """Mean similarity of two sources of one task less that of two tasks, times 100.

    The interval is the estimate less the middle 95 % of what permuted tasks give: it lies above 0 where the estimate
    exceeds 97.5 % of them.

    Parameters
    ----------
    similarity : pandas.DataFrame
        As `similarity_frame` gives it.
    tasks : mapping of str to str
        Task of every source.
    seed : int
        Of the permutations.

    Returns
    -------
    Interval

    Raises
    ------
    ValueError
        If there are not two tasks, or none has two sources.
    """
    _, numbers = np.unique([tasks[name] for name in similarity.index], return_inverse=True)
    pairs = np.triu_indices(len(numbers), 1)
    together = numbers[pairs[0]] == numbers[pairs[1]]
    if together.all() or not together.any():
        raise ValueError(f"tasks: need two, one of them with two sources, got {sorted(set(tasks.values()))}")
    values = 100 * similarity.to_numpy()[pairs]
    rng = np.random.default_rng(derive_seed(seed, "kinship"))
    orders = rng.permuted(np.tile(numbers, (N_PERMUTATIONS, 1)), axis=1)
    kin = orders[:, pairs[0]] == orders[:, pairs[1]]
    null = (kin * values).sum(axis=1) / kin.sum(axis=1) - (~kin * values).sum(axis=1) / (~kin).sum(axis=1)
    estimate = float(values[together].mean() - values[~together].mean())
    low, high = np.percentile(null, PERCENTILES)
    return Interval(estimate, float(estimate - high), float(estimate - low))
