"""Figure 1: the algorithm, drawn from code, each box with the function that does it."""

from importlib import import_module
from inspect import getdoc

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from tsns_lib.reporting.plots import FAINT, INK, STYLE

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
