"""Figure 1: the algorithm, drawn from code, each box with the function that does it.

A toy to run Figure 1 on: tiny sources with known important neurons, and every array laid out for reading.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import getdoc
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from tsns_workbook.plots import FAINT, INK, STYLE
from tsns_workbook.report import caption

# what a box shows, its symbol in the paper, the function behind it
STEPS = (
    ("pairs of disjoint sources", r"$(\mathcal{D}_{S,1}^p, \mathcal{D}_{S,2}^p)$", "aggregation.source_pairs"),
    ("J random slices", r"$\mathcal{D}_S^j$", "sampling.resample_rows"),
    ("random forest", r"$q_i^j$", "importance.forest_importance"),
    ("cumulative importance", r"$m_i^p$", "importance.cumulative_importance"),
    ("meta-importance, by rank", r"$h_i^p$", "aggregation.meta_importance"),
    ("meta-aggregation", r"$h_i = \Sigma_p\, h_i^p$", "aggregation.aggregate"),
    ("the K largest", r"$\mathbf{f}_K$", "aggregation.select_neurons"),
    ("logistic regression", r"$\mathcal{D}_T$", "transfer.fit_classifier"),
)
LEARNER, COMMON = "#DCEAF5", "#F6E3D5"  # grounds of the boxes inside and outside the learners
COLUMN, ROW, BOX = 2.25, 1.2, (1.95, 0.86)  # distances of the boxes and their size, in inches


def steps_table() -> pd.DataFrame:
    """List the boxes of Figure 1 with the function behind each, as the library documents it.

    Returns
    -------
    pandas.DataFrame
        Columns `box`, `symbol`, `function`, `what it does` (the first line of its documentation).

    Examples
    --------
    >>> steps_table()["function"].tolist()[2:4]
    ['tsns_lib.importance.forest_importance', 'tsns_lib.importance.cumulative_importance']
    """
    rows = []
    for box, symbol, place in STEPS:
        module, name = place.split(".")
        function = getattr(import_module(f"tsns_lib.{module}"), name)
        rows.append((box, symbol, f"tsns_lib.{place}", (getdoc(function) or "").splitlines()[0]))
    return pd.DataFrame(rows, columns=["box", "symbol", "function", "what it does"])


def draw_schematic(n_learners: int = 3) -> Figure:
    """Draw Figure 1: P neuron-importance learners side by side, then what brings them together.

    Parameters
    ----------
    n_learners : int
        Learners drawn, default 3 (our choice; there are P).

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no learner.
    """
    if n_learners < 1:
        raise ValueError(f"n_learners must be at least 1, not {n_learners}")
    with plt.rc_context(STYLE):
        width, height = COLUMN * 5 + 0.35, ROW * (n_learners + 1) + 0.9
        figure = plt.figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
        axes.axis("off")
        across = [COLUMN * (column + 0.5) for column in range(5)]
        down = [height - 0.9 - ROW * (p + 0.5) for p in range(n_learners)]
        for p, y in enumerate(down, start=1):
            for x, step in zip(across, STEPS[:5], strict=True):
                _box(axes, x, y, step, LEARNER, str(p))
            for x, after in zip(across, across[1:], strict=False):
                _arrow(axes, (x + BOX[0] / 2, y), (after - BOX[0] / 2, y))
        last, edge = ROW * 0.5, across[4] + BOX[0] / 2  # every learner's result joins one line down to the sum
        for y in down:
            axes.plot([edge, edge + 0.25, edge + 0.25], [y, y, last], color=INK, linewidth=1)
        _arrow(axes, (edge + 0.25, last), (edge, last))
        for x, step in zip((across[4], across[3], across[2]), STEPS[5:], strict=True):
            _box(axes, x, last, step, COMMON, "p")
        for x, after in ((across[4], across[3]), (across[3], across[2])):
            _arrow(axes, (x - BOX[0] / 2, last), (after + BOX[0] / 2, last))
        said = "trained on the K neurons of all sources,\npredicts the target"
        axes.text(across[2] - BOX[0] / 2 - 0.15, last, said, ha="right", va="center", fontsize=9)
        title = f"Figure 1, drawn from code: {n_learners} neuron-importance learners (rows), then their aggregation"
        axes.text(across[0] - BOX[0] / 2, height - 0.25, title, fontsize=11, va="center")
        for x, note in (
            ((across[1] + across[2]) / 2, r"for each of $j = 1 \ldots J$"),
            (across[3], r"$\alpha^p$ tuned on $\gamma$ % of $\mathcal{D}_{S,2}^p$"),
        ):
            axes.text(x, height - 0.72, note, ha="center", fontsize=9)
    plt.close(figure)
    return figure


def _box(axes: Axes, x: float, y: float, step: tuple[str, str, str], color: str, learner: str) -> None:
    width, height = BOX
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch(corner, width, height, style, facecolor=color, edgecolor=FAINT))
    box, symbol, place = step
    symbol = symbol.replace("^p", f"^{learner}") if r"\Sigma" not in symbol else symbol
    axes.text(x, y + 0.24, box, ha="center", va="center", fontsize=9, color=INK)
    axes.text(x, y - 0.01, symbol, ha="center", va="center", fontsize=11, color=INK)
    axes.text(x, y - 0.28, place.split(".")[1], ha="center", va="center", fontsize=8, family="monospace")


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "shrinkA": 1, "shrinkB": 1})


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
