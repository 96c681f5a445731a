"""Figure 1: the algorithm drawn from code, and a toy on which every box of it can be run and read."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import getdoc
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from numpy.typing import ArrayLike

from tsns_lib.aggregation import aggregate, meta_importance, select_neurons
from tsns_lib.importance import cumulative_importance, forest_importance
from tsns_lib.sampling import derive_seed, resample_rows
from tsns_workbook.dyads import t_interval
from tsns_workbook.plots import FAINT, INK, ORANGE, STYLE, finish, readable_digits
from tsns_workbook.report import caption, claim

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
LEARNER_STEPS, COMMON_STEPS = STEPS[:5], STEPS[5:]  # what each learner does, and what is done once for all
LEARNER_COLOR, COMMON_COLOR = "#DCEAF5", "#F6E3D5"
COLUMN, ROW, BOX = 2.25, 1.2, (1.95, 0.86)  # distances between the boxes, and their size, in inches
SHARED_NEURONS = (0, 1)  # of the toy
SHARED, OWN = 1.3, (3.2, 2.8, 2.4)  # how far apart these hold the classes, and the neuron that a source has for itself

Toy = Mapping[str, tuple[np.ndarray, np.ndarray]]  # name of a source to its X (rows × neurons) and y


def toy_sources(n_sources: int = 3, n_rows: int = 80, n_neurons: int = 8, *, seed: int = 0) -> Toy:
    """Make tiny sources "D1", "D2", ... whose important neurons are known.

    Neurons 0 and 1 (`SHARED_NEURONS`) tell the classes apart in every source, moderately. Each source has one more
    neuron that is much stronger but helps nowhere else: neuron 2 in the first, 3 in the second, and so on. In a union
    of two sources one of these often beats a shared neuron, so that a single learner misses a shared one. The other
    neurons are noise.

    Examples
    --------
    >>> {name: (X.shape, int(y.sum())) for name, (X, y) in toy_sources().items()}
    {'D1': ((80, 8), 40), 'D2': ((80, 8), 40), 'D3': ((80, 8), 40)}
    """
    if n_neurons < n_sources + 2:
        raise ValueError(f"n_neurons must be at least {n_sources + 2} for {n_sources} sources, not {n_neurons}")
    sources = {}
    for number in range(n_sources):
        rng = np.random.default_rng([seed, number])
        y = rng.permutation(np.arange(n_rows) % 2)
        strength = np.zeros(n_neurons)
        strength[[*SHARED_NEURONS, 2 + number]] = SHARED, SHARED, OWN[number % len(OWN)]
        X = rng.normal(size=(n_rows, n_neurons)) + strength * (y[:, None] - 0.5)
        sources[f"D{number + 1}"] = (X, y)
    return sources


def many_toys(
    n_toys: int, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], *, n_resamples: int, n_trees: int, seed: int = 0
) -> pd.DataFrame:
    """Run the algorithm on many toys: percent of them in which exactly the shared neurons come out on top.

    One row for each toy: by the sum of the ranks ("aggregate"), by one learner ("one learner", mean over the learners),
    and by one learner that is given all sources at once ("all sources at once").
    """
    n_sources = max(number for first, _ in pairs for number in first) + 1
    rows = []
    for toy in range(n_toys):
        sources = toy_sources(n_sources, seed=derive_seed(seed, "toy", toy))
        m = np.array([_toy_importance(toy_union(sources, first), n_resamples, n_trees) for first, _ in pairs])
        union = _toy_importance(toy_union(sources, range(n_sources)), n_resamples, n_trees)
        alone = [_finds_shared(row) for row in m]
        row = {"aggregate": _finds_shared(aggregate(meta_importance(m))), "one learner": np.mean(alone)}
        rows.append(row | {"all sources at once": _finds_shared(union)})
    return 100 * pd.DataFrame(rows).astype(float)


def aggregation_claim(toys: pd.DataFrame) -> dict[str, Any]:
    """Judge on `many_toys` whether the aggregate finds the shared neurons where a single learner does not.

    It is "by selection" (here: by the aggregation) only if it also does better than one learner on all sources at once.
    """
    gain = t_interval(toys["aggregate"] - toys["one learner"])
    control = t_interval(toys["aggregate"] - toys["all sources at once"])
    return claim("figure1.planted_neurons", *gain[:3], p=gain.p, by_selection=control.low > 0)


def _toy_importance(union: tuple[np.ndarray, np.ndarray], n_resamples: int, n_trees: int) -> np.ndarray:
    X, y = union
    slices = [resample_rows(len(y), 0.7, derive_seed(0, j)) for j in range(n_resamples)]
    q = [forest_importance(X[rows], y[rows], n_trees=n_trees, seed=j) for j, rows in enumerate(slices)]
    return cumulative_importance(np.array(q))


def _finds_shared(importance: np.ndarray) -> bool:
    return set(select_neurons(importance, len(SHARED_NEURONS))) == set(SHARED_NEURONS)


def toy_union(sources: Toy, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Put the rows of some toy sources, counted from 0, together."""
    members = [list(sources.values())[number] for number in numbers]
    return np.concatenate([X for X, _ in members]), np.concatenate([y for _, y in members])


def steps_table() -> pd.DataFrame:
    """List the boxes of Figure 1 with the function behind each and the first line of its documentation.

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


def pairs_table(pairs: Sequence[tuple[Sequence[int], Sequence[int]]], names: Sequence[str]) -> pd.DataFrame:
    """Write the pairs of `tsns_lib.aggregation.source_pairs` with the names of the sources.

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


def neuron_table(values: ArrayLike, rows: Sequence[str], *, digits: int = 3) -> pd.DataFrame:
    """Lay out one of the algorithm's arrays, q, m, r or h, for reading: one named row each, neurons across."""
    matrix = np.atleast_2d(np.asarray(values, dtype=float))
    if len(rows) != len(matrix):
        raise ValueError(f"rows has {len(rows)} names for {len(matrix)} rows of values")
    neurons = [f"f{i}" for i in range(matrix.shape[1])]
    return pd.DataFrame(matrix.round(digits), index=list(rows), columns=neurons)


def draw_schematic(n_learners: int) -> Figure:
    """Draw Figure 1: a row of boxes for each neuron-importance learner, and below them what joins their results."""
    if n_learners < 1:
        raise ValueError(f"n_learners must be at least 1, not {n_learners}")
    with plt.rc_context(STYLE):
        width, height = COLUMN * 5 + 0.35, ROW * (n_learners + 1) + 0.9
        figure = plt.figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
        axes.axis("off")
        across = [COLUMN * (column + 0.5) for column in range(5)]
        down = [height - 0.9 - ROW * (p + 0.5) for p in range(n_learners)]
        half = BOX[0] / 2
        for p, y in enumerate(down, start=1):
            for x, step in zip(across, LEARNER_STEPS, strict=True):
                _box(axes, x, y, step, LEARNER_COLOR, str(p))
            for x, after in pairwise(across):
                _arrow(axes, (x + half, y), (after - half, y))
        last, edge = ROW * 0.5, across[4] + half  # every learner's result joins one line down to the sum
        for y in down:
            axes.plot([edge, edge + 0.25, edge + 0.25], [y, y, last], color=INK, linewidth=1)
        _arrow(axes, (edge + 0.25, last), (edge, last))
        back = across[:1:-1]  # the last row is read from right to left
        for x, step in zip(back, COMMON_STEPS, strict=True):
            _box(axes, x, last, step, COMMON_COLOR, "p")
        for x, after in pairwise(back):
            _arrow(axes, (x - half, last), (after + half, last))
        note = "trained on the K neurons of all sources,\npredicts the target"
        axes.text(back[-1] - half - 0.15, last, note, ha="right", va="center", fontsize=9)
        title = f"Figure 1, drawn from code: {n_learners} neuron-importance learners (rows), then their aggregation"
        axes.text(across[0] - half, height - 0.25, title, fontsize=11, va="center")
        tuned = r"$\alpha^p$ tuned on $\gamma$ % of $\mathcal{D}_{S,2}^p$"
        axes.text((across[1] + across[2]) / 2, height - 0.72, r"for each of $j = 1 \ldots J$", ha="center", fontsize=9)
        axes.text(across[3], height - 0.72, tuned, ha="center", fontsize=9)
    return finish(figure, formulas=True)


def draw_arrays(arrays: Mapping[str, pd.DataFrame], selected: Sequence[int], *, ranks: str = "") -> Figure:
    """Draw every array of one run on the toy, step under step, with its values; the selected neurons are framed.

    `arrays` maps the title of a step to its `neuron_table`. Each is shaded over its own range, the most important
    neuron darkest; `ranks` names the step whose smallest value is the most important.
    """
    if not arrays:
        raise ValueError("arrays is empty; give at least one step")
    heights = [len(table) for table in arrays.values()]
    widest = max(table.shape[1] for table in arrays.values())
    with plt.rc_context(STYLE):
        size = (1.6 + 0.75 * widest, 0.34 * sum(heights) + 0.6 * len(heights) + 0.4)
        figure, grid = plt.subplots(
            len(arrays), 1, figsize=size, layout="constrained", squeeze=False, height_ratios=heights
        )
        for axes, (step, table) in zip(grid[:, 0], arrays.items(), strict=True):
            sns.heatmap(
                table,
                ax=axes,
                annot=True,
                fmt=".1f" if (table == table.round(1)).all(axis=None) else ".3f",
                cmap="Blues_r" if step == ranks else "Blues",
                cbar=False,
                linewidths=1,
                linecolor="white",
                annot_kws={"fontsize": 9},
            )
            readable_digits(axes)
            axes.set_title(step, loc="left", fontsize=10)
            axes.tick_params(length=0, labelrotation=0)
        for neuron in selected:
            frame = plt.Rectangle((neuron, 0), 1, heights[-1], fill=False, edgecolor=ORANGE, linewidth=2.5)
            frame.set_clip_on(False)
            axes.add_patch(frame)
        figure.suptitle(caption("Every array of Figure 1", generated=True), fontsize=11)
    return finish(figure)


def _box(axes: Axes, x: float, y: float, step: tuple[str, str, str], color: str, learner: str) -> None:
    width, height = BOX
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch(corner, width, height, style, facecolor=color, edgecolor=FAINT))
    box, symbol, place = step
    symbol = symbol if r"\Sigma" in symbol else symbol.replace("^p", f"^{learner}")
    axes.text(x, y + 0.24, box, ha="center", va="center", fontsize=9, color=INK)
    axes.text(x, y - 0.01, symbol, ha="center", va="center", fontsize=11, color=INK)
    axes.text(x, y - 0.28, place.split(".")[1], ha="center", va="center", fontsize=8, family="monospace")


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "shrinkA": 1, "shrinkB": 1})
