"""A toy to run Figure 1 on: tiny sources with known important neurons, and every array laid out for reading."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from tsns_lib.reporting.plots import STYLE
from tsns_lib.reporting.report import caption

SHARED_NEURONS = (0, 1)


def toy_sources(
    n_sources: int = 3, n_rows: int = 80, n_neurons: int = 8, *, seed: int = 0
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Make tiny sources whose important neurons are known.

    Neuron 0 tells the classes apart in every source, neuron 1 a little less (`SHARED_NEURONS`); each source has
    one more that helps nowhere else (neuron 2 in the first, 3 in the second, ...), and the others are noise.

    Parameters
    ----------
    n_sources, n_rows, n_neurons : int
        Sources, rows of each, neurons. Default 3, 80, 8 (our choice: small enough to read).
    seed : int
        Seed of the noise.

    Returns
    -------
    dict
        "D1", "D2", ... to (X of shape (n_rows, n_neurons), y of shape (n_rows,), half ones).

    Raises
    ------
    ValueError
        If there are too few neurons for one of its own a source.

    Examples
    --------
    >>> {name: (X.shape, int(y.sum())) for name, (X, y) in toy_sources().items()}
    {'D1': ((80, 8), 40), 'D2': ((80, 8), 40), 'D3': ((80, 8), 40)}
    """
    if n_neurons < n_sources + 2:
        raise ValueError(f"n_neurons must be at least {n_sources + 2} for {n_sources} sources, not {n_neurons}")
    made = {}
    for number in range(n_sources):
        rng = np.random.default_rng([seed, number])
        y = rng.permutation(np.arange(n_rows) % 2)
        strength = np.zeros(n_neurons)
        strength[[*SHARED_NEURONS, 2 + number]] = 2.4, 1.6, 2.0
        X = rng.normal(size=(n_rows, n_neurons)) + strength * (y[:, None] - 0.5)
        made[f"D{number + 1}"] = (X, y)
    return made


def toy_union(
    sources: Mapping[str, tuple[np.ndarray, np.ndarray]], numbers: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Put the rows of some toy sources together.

    Parameters
    ----------
    sources : mapping of str to (X, y)
        As `toy_sources` gives them.
    numbers : sequence of int
        Which of them, counted from 0.

    Returns
    -------
    (ndarray of shape (n, N), ndarray of shape (n,))
    """
    chosen = [list(sources.values())[number] for number in numbers]
    return np.concatenate([X for X, _ in chosen]), np.concatenate([y for _, y in chosen])


def pairs_table(pairs: Sequence[tuple[Sequence[int], Sequence[int]]], names: Sequence[str]) -> pd.DataFrame:
    """Write the pairs of disjoint sets of sources with their names.

    Parameters
    ----------
    pairs : sequence of (S1, S2)
        As `tsns_lib.aggregation.source_pairs` gives them.
    names : sequence of str
        Name of every source.

    Returns
    -------
    pandas.DataFrame
        Columns `learner`, `S1, importance`, `S2, tunes α`.

    Examples
    --------
    >>> pairs_table([((1,), (0,))], ["D1", "D2"]).to_numpy().tolist()
    [['p=1', 'D2', 'D1']]
    """
    rows = [
        (f"p={p}", *(" ∪ ".join(names[number] for number in side) for side in pair))
        for p, pair in enumerate(pairs, start=1)
    ]
    return pd.DataFrame(rows, columns=["learner", "S1, importance", "S2, tunes α"])


def neuron_table(values: Any, rows: Sequence[str], *, digits: int = 3) -> pd.DataFrame:
    """Lay an array of the algorithm out for reading: neurons across.

    Parameters
    ----------
    values : array of shape (n, N) or (N,)
        One of q, m, r, h.
    rows : sequence of str
        Name of each row.
    digits : int
        Digits shown, default 3.

    Returns
    -------
    pandas.DataFrame
        Columns `f0` ... `f(N-1)`, as the paper counts them.

    Raises
    ------
    ValueError
        If the number of names is not that of the rows.
    """
    matrix = np.atleast_2d(np.asarray(values, dtype=float))
    if len(rows) != len(matrix):
        raise ValueError(f"rows has {len(rows)} names for {len(matrix)} rows of values")
    return pd.DataFrame(matrix.round(digits), index=list(rows), columns=_neurons(matrix.shape[1]))


def draw_arrays(
    arrays: Mapping[str, pd.DataFrame],
    selected: Sequence[int],
    *,
    ranks: str = "",
    title: str = "Every array of Figure 1",
) -> Figure:
    """Draw every array of one run of the algorithm, step under step, with its values.

    Parameters
    ----------
    arrays : mapping of str to pandas.DataFrame
        Title of the step to its table, as `neuron_table` gives it.
    selected : sequence of int
        The chosen neurons; they are framed in the last array.
    ranks : str
        Title of the step whose smallest value is the most important, if there is one.
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        Each array is shaded over its own range, the most important darkest.

    Raises
    ------
    ValueError
        If there is no array.
    """
    if not arrays:
        raise ValueError("arrays is empty; give at least one step")
    heights = [len(table) for table in arrays.values()]
    with plt.rc_context(STYLE):
        size = (
            1.6 + 0.75 * max(table.shape[1] for table in arrays.values()),
            0.34 * sum(heights) + 0.6 * len(heights) + 0.4,
        )
        figure, grid = plt.subplots(
            len(arrays), 1, figsize=size, layout="constrained", squeeze=False, height_ratios=heights
        )
        look: dict[str, Any] = {"cbar": False, "linewidths": 1, "linecolor": "white", "annot_kws": {"fontsize": 9}}
        for axes, (step, table) in zip(grid[:, 0], arrays.items(), strict=True):
            digits = ".1f" if (table == table.round(1)).all(axis=None) else ".3f"
            shades = "Blues_r" if step == ranks else "Blues"
            sns.heatmap(table, ax=axes, annot=True, fmt=digits, cmap=shades, **look)
            axes.set_title(step, loc="left", fontsize=10)
            axes.tick_params(length=0, labelrotation=0)
        figure.suptitle(caption(title, ["miniature:toy"]), fontsize=11)  # the toy is generated, too
        for neuron in selected:
            frame = plt.Rectangle((neuron, 0), 1, heights[-1], fill=False, edgecolor="#D55E00", linewidth=2.5)
            frame.set_clip_on(False)
            axes.add_patch(frame)
    plt.close(figure)
    return figure


def _neurons(n: int) -> list[str]:
    return [f"f{i}" for i in range(n)]
