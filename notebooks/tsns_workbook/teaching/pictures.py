"""Pictures of the lessons' toys: values small enough to follow by eye. All are closed for pyplot, as in `plots`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tsns_lib.importance import cumulative_importance
from tsns_workbook.plots import BLUE, FAINT, INK, ORANGE, STYLE, finish
from tsns_workbook.report import caption

CLASS_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "marker": "o", "label": "class 0"},
    {"color": ORANGE, "marker": "X", "label": "class 1"},
)


def activations_figure(activations: np.ndarray, n_layers: int) -> Figure:
    """Draw the activations of one text, shape (N,), as a map: layers down, the neurons of a layer across."""
    by_layer = activations.reshape(n_layers, -1)
    limit = float(np.quantile(np.abs(by_layer), 0.99))

    def draw(axes: Axes) -> None:
        look: dict[str, Any] = {"cmap": "PuOr", "vmin": -limit, "vmax": limit, "aspect": "auto"}
        image = axes.imshow(by_layer, interpolation="nearest", **look)
        axes.set_yticks(range(n_layers), [str(layer) for layer in range(1, n_layers + 1)])
        axes.set(xlabel="neuron of the layer", ylabel="layer")
        axes.figure.colorbar(image, ax=axes, label="activation", extend="both")

    return panel(draw, "One sentence, every neuron", height=2.8)


def rows_figure(X: np.ndarray, y: np.ndarray, cuts: Sequence[tuple[float, int, float]] = ()) -> Figure:
    """Draw every neuron of a few rows as marks on a line, with its best cut: (decrease, neuron, place of the cut)."""
    n_neurons = X.shape[1]
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(1, n_neurons, figsize=(9.5, 1.9), sharey=True, squeeze=False, layout="constrained")
        for i, axes in enumerate(grid[0]):
            for number, look in enumerate(CLASS_LOOKS):
                mine = y == number
                axes.scatter(X[mine, i], np.full(mine.sum(), 1 - number), s=55, **look)
            axes.set(title=f"neuron {i}", xlim=(0, 1), ylim=(-0.6, 1.6), xlabel="activation")
            axes.set_yticks([1, 0], ["class 0", "class 1"])
            if cuts:
                gain, _, place = cuts[i]
                axes.axvline(place, color=INK, linestyle="--", linewidth=1.2)
                axes.set_title(f"neuron {i}: gini −{gain:.2f}")
    return finish(figure)


def panel(draw: Callable[[Axes], None], title: str, *, height: float = 3.4, legend: bool = False) -> Figure:
    """One picture of the width of a page."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.5, height), layout="constrained")
        draw(axes)
        axes.set_title(title, loc="left")
        if legend:
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return finish(figure)


def resamples_figure(q: np.ndarray, *, generated: bool) -> Figure:
    """Draw the importance of three neurons, of the ranks 1, 10 and N/2, on each of J resamples; q has shape (J, N)."""
    order = np.argsort(-q.mean(axis=0))
    ranks = [1, 10, len(order) // 2]

    def draw(axes: Axes) -> None:
        across = np.linspace(-0.3, 0.3, len(q))
        for place, rank in enumerate(ranks):
            values = q[:, order[rank - 1]]
            axes.plot(place + across, values, "o", color=BLUE, markersize=4, alpha=0.7)
            axes.plot([place - 0.35, place + 0.35], [values.mean()] * 2, color=INK, linewidth=1.5)
        axes.axhline(1 / q.shape[1], color=ORANGE, linestyle="--", linewidth=1.2)
        axes.annotate("1/N", (len(ranks) - 0.55, 1 / q.shape[1]), (0, 3), textcoords="offset points", color=ORANGE)
        axes.set_xticks(range(len(ranks)), [f"rank {rank:,}" for rank in ranks])
        axes.set(ylabel="importance q")

    return panel(draw, caption(f"Three neurons on {len(q)} resamples; black: the mean", generated))


def crossing_figure(q: pd.DataFrame, crossing: float) -> Figure:
    """Draw m of a few neurons (resamples down, neurons across) against 1-α, and where they change places."""
    distances = np.logspace(-7, 0, 200)

    def draw(axes: Axes) -> None:
        for (neuron, values), color, line in zip(q.items(), (BLUE, ORANGE), ("-", "--"), strict=True):
            m = [float(cumulative_importance(values.to_numpy()[:, None], alpha=1 - d)[0]) for d in distances]
            axes.plot(distances, m, line, color=color, linewidth=2, label=str(neuron))
        axes.axvline(crossing, color=FAINT, linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel="1-α", ylabel="m of equation 1")

    return panel(draw, "Where the two neurons change places", legend=True)


def sums_figure(importances: Mapping[str, np.ndarray]) -> Figure:
    """Draw several importances of the same few neurons side by side; the largest of each stands out."""
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(importances), figsize=(9.5, 2.6), layout="constrained")
        for axes, (name, values) in zip(row, importances.items(), strict=True):
            bars = axes.bar(range(len(values)), values, color="#B8CFE0")
            bars[int(values.argmax())].set(color=BLUE, hatch="//", edgecolor="white")
            axes.set(xlabel="neuron", xticks=range(len(values)))
            axes.set_title(name, loc="left")
    return finish(figure)


def leads_figure(leads: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> Figure:
    """Draw leads over some opponents, each with an interval over rows and one over sources: estimate, low, high."""
    looks = {"rows": (BLUE, "o", -0.12), "sources": (ORANGE, "s", 0.12)}

    def draw(axes: Axes) -> None:
        for kind, (color, marker, shift) in looks.items():
            means, lows, highs = np.array([lead[kind] for lead in leads.values()]).T
            look: dict[str, Any] = {"fmt": marker, "color": color, "capsize": 3, "label": f"interval over {kind}"}
            axes.errorbar(means, np.arange(len(leads)) + shift, xerr=[means - lows, highs - means], **look)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks(range(len(leads)), [f"over {opponent}" for opponent in leads])
        axes.set(xlabel="lead of TSNS (points, 95 %)", ylim=(len(leads) - 0.5, -0.5))

    return panel(draw, "Lead of TSNS, mean over the tokens (generated data)", legend=True)


def layers_figure(measures: pd.DataFrame, *, best: Mapping[str, str]) -> Figure:
    """Draw some measures of every layer (layers down, measures across), each with its best layer marked.

    `best` says "min" of a measure whose smallest value is the best.
    """
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, measures.shape[1], figsize=(11, 2.7), layout="constrained")
        for axes, (name, values) in zip(row, measures.items(), strict=True):
            place = values.idxmin() if best.get(str(name)) == "min" else values.idxmax()
            axes.plot(values.index, values, "-o", color=BLUE, markersize=5)
            axes.plot(place, values[place], "o", markersize=13, markerfacecolor="none", markeredgecolor=ORANGE)
            axes.set(xlabel="layer", xticks=values.index)
            axes.set_title(str(name), loc="left")
    return finish(figure)
