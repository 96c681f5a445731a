"""Pictures of the lesson about the method: one state of it on given axes, and small multiples of several states.

`widgets` draws the same states one at a time; the small multiples teach where no kernel runs.

Widgets of the lesson: a control, a sentence and a picture, built from frames that the notebook has computed.

A builder takes plain values and returns an `Explorer`. What it shows is a function of the controls' values, so that
it can be tested where no kernel runs: set a control's `value`, read `sentence.value` and `figure`.
"""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from ipywidgets import HTML, Dropdown, HBox, Image, SelectionSlider, VBox
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tsns_lib.fingerprints import METRICS, fingerprint_similarity
from tsns_workbook.plots import FAINT, INK, STYLE, accuracy_by_k
from tsns_workbook.report import bare, caption, label

WATER, ENTERS, LEAVES, SECOND = "#56B4E9", "#009E73", "#D55E00", "#E69F00"  # Okabe and Ito's palette


def water_level(sizes: pd.Series, share: pd.Series) -> int | None:
    """The level that every source is filled to or below; None when all of them are full."""
    return None if (share >= sizes).all() else int(share[share < sizes].max())


def draw_shares(axes: Axes, sizes: pd.Series, share: pd.Series) -> None:
    """Draw each source as a vessel of its size, filled to its share of the budget.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    sizes, share : pandas.Series
        Rows by source: all there are, and those that the budget takes.
    """
    axes.bar(sizes.index, sizes, color="white", edgecolor=FAINT, linewidth=1.2)
    axes.bar(share.index, share, color=WATER, edgecolor=FAINT, linewidth=1.2)
    level = water_level(sizes, share)
    if level is not None:
        axes.axhline(level, color="#0072B2", linestyle="--", linewidth=1.2)
    for x, rows in enumerate(share):
        axes.annotate(f"{rows:,}", (x, rows), (0, 3), textcoords="offset points", ha="center")
    axes.set(ylim=(0, 1.12 * sizes.max()), ylabel="rows")
    axes.yaxis.set_major_formatter("{x:,.0f}")


def shares_figure(sizes: pd.Series, shares: pd.DataFrame, budgets: Sequence[int]) -> Figure:
    """Small multiples of `draw_shares`, one for each budget.

    Parameters
    ----------
    sizes : pandas.Series
        Rows by source.
    shares : pandas.DataFrame
        Sources down, budgets across.
    budgets : sequence of int
        Which columns to draw.

    Returns
    -------
    matplotlib.figure.Figure
    """
    with plt.rc_context(STYLE | {"font.size": 8}):
        figure, row = plt.subplots(1, len(budgets), figsize=(11, 2.9), sharey=True, layout="constrained", squeeze=False)
        for axes, budget in zip(row[0], budgets, strict=True):
            draw_shares(axes, sizes, shares[budget])
            axes.set_title(f"budget {budget:,}", loc="left")
            axes.label_outer()
    plt.close(figure)
    return figure


def alpha_table(chosen: Mapping[float, np.ndarray], term_medians: tuple[float, float]) -> pd.DataFrame:
    """What each α does: the size of both terms of equation 1, and how much of the choice for α = 1 it keeps.

    Parameters
    ----------
    chosen : mapping of float to ndarray of shape (K,)
        The neurons chosen by α, 1 among them.
    term_medians : (float, float)
        Medians over the neurons of E(q) and of E(q)/(σ(q)+ε).

    Returns
    -------
    pandas.DataFrame
        Indexed by α, in columns `first term` and `second term` (the medians times α and 1-α), `stay`, `enter`
        (neurons chosen here and with α = 1; neurons chosen here only).

    Raises
    ------
    ValueError
        If α = 1, with which the others are compared, is missing.
    """
    if 1.0 not in chosen:
        raise ValueError(f"chosen: α = 1 must be there, to compare the others with; got {list(chosen)}")
    mean, over_spread = term_medians
    rows = []
    for alpha, neurons in chosen.items():
        stay = np.isin(neurons, chosen[1.0]).sum()
        rows.append((alpha, alpha * mean, (1 - alpha) * over_spread, stay, len(neurons) - stay))
    columns = ["alpha", "first term", "second term", "stay", "enter"]
    return pd.DataFrame(rows, columns=columns).set_index("alpha")


def draw_choice(axes: Axes, neurons: np.ndarray, before: np.ndarray, n_layers: int, n_neurons: int) -> None:
    """Draw by layer which of the neurons chosen before stay, which enter, and which leave.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    neurons, before : ndarray of shape (K,)
        Numbers of the neurons chosen now and before.
    n_layers, n_neurons : int
        Of the encoder.
    """
    sets = {"stay": np.intersect1d(neurons, before), "enter": np.setdiff1d(neurons, before)}
    sets["leave"] = np.setdiff1d(before, neurons)
    stay, enter, leave = (np.bincount(s // (n_neurons // n_layers), minlength=n_layers) for s in sets.values())
    layers = np.arange(1, n_layers + 1)
    axes.bar(layers, stay, color="#0072B2", label="stay")
    axes.bar(layers, enter, bottom=stay, color=ENTERS, hatch="//", edgecolor="white", label="enter")
    axes.bar(layers, -leave, color="white", edgecolor=LEAVES, label="leave")
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set(xlabel="layer", ylabel="neurons", xticks=layers[:: max(1, n_layers // 8)])
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")


def alphas_figure(chosen: Mapping[float, np.ndarray], n_layers: int, n_neurons: int, sources: Sequence[str]) -> Figure:
    """Small multiples of `draw_choice`, one for each α, against the choice for α = 1.

    Parameters
    ----------
    chosen : mapping of float to ndarray of shape (K,)
        The neurons chosen by α, 1 among them.
    n_layers, n_neurons : int
        Of the encoder.
    sources : sequence of str
        What they were chosen on; the title says if it is generated.

    Returns
    -------
    matplotlib.figure.Figure
    """
    across = (len(chosen) + 1) // 2
    with plt.rc_context(STYLE | {"font.size": 8}):
        figure, grid = plt.subplots(
            2, across, figsize=(11, 4.4), sharex=True, sharey=True, layout="constrained", squeeze=False
        )
        for axes, (alpha, neurons) in zip(grid.flat, chosen.items(), strict=False):
            draw_choice(axes, neurons, chosen[1.0], n_layers, n_neurons)
            axes.set_title(alpha_label(alpha), loc="left")
            axes.label_outer()
        for axes in grid.flat[len(chosen) :]:
            axes.axis("off")
        handles = grid[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside right upper", frameon=False)
        title = f"Neurons chosen on {bare(sources[0])} against those for α = 1, by layer"
        figure.suptitle(caption(title, sources), x=0.01, ha="left", fontsize=11)
    plt.close(figure)
    return figure


def alpha_label(alpha: float) -> str:
    """Write an α near 1 by its distance from 1: "α = 1 - 1e-05"."""
    return f"α = {alpha:g}" if alpha in (0, 1) or alpha < 0.95 else f"α = 1 - {1 - alpha:.0e}"


def draw_fingerprints(axes: Axes, fingerprints: pd.DataFrame) -> None:
    """Draw fingerprints side by side, layer by layer, with the share of a layer if there were no preference.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    fingerprints : pandas.DataFrame
        Sources down, layers across, percent; one source or two.
    """
    width = 0.8 / len(fingerprints)
    looks: list[dict[str, Any]] = [{"color": "#0072B2"}, {"color": SECOND, "hatch": "//", "edgecolor": "white"}]
    for n, ((source, shares), look) in enumerate(zip(fingerprints.iterrows(), looks, strict=False)):
        x = np.arange(1, len(shares) + 1) + (n - (len(fingerprints) - 1) / 2) * width
        axes.bar(x, shares, width, label=bare(str(source)), **look)
    axes.axhline(100 / fingerprints.shape[1], color=INK, linestyle=":", linewidth=1)
    axes.set(xlabel="layer", ylabel="share (%)", xticks=fingerprints.columns[:: max(1, fingerprints.shape[1] // 8)])


def fingerprints_figure(fingerprints: pd.DataFrame) -> Figure:
    """Small multiples of `draw_fingerprints`, one for each source.

    Parameters
    ----------
    fingerprints : pandas.DataFrame
        Sources down, layers across, percent.

    Returns
    -------
    matplotlib.figure.Figure
    """
    with plt.rc_context(STYLE | {"font.size": 8}):
        figure, row = plt.subplots(
            1, len(fingerprints), figsize=(11, 2.6), sharey=True, layout="constrained", squeeze=False
        )
        for axes, source in zip(row[0], fingerprints.index, strict=True):
            draw_fingerprints(axes, fingerprints.loc[[source]])
            axes.set_title(bare(str(source)), loc="left")
            axes.label_outer()
        title = caption("Share of the chosen neurons by layer; dotted: no preference", fingerprints.index)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    plt.close(figure)
    return figure


class Explorer(VBox):
    """Controls above, a sentence and a picture below; every change of a control draws both anew.

    Parameters
    ----------
    controls : mapping of str to widget
        Each with a `value`.
    show : callable
        Given the controls' values in their order, returns the sentence and the figure.

    Attributes
    ----------
    controls : dict
        As given.
    sentence : HTML
        What the picture shows, in words.
    figure : Figure
        The picture's, as drawn last.
    """

    def __init__(self, controls: Mapping[str, Any], show: Callable[..., tuple[str, Figure]]):
        self.controls = dict(controls)
        self.sentence, self.picture = HTML(), Image(format="png")
        self._show = show
        super().__init__([HBox(list(self.controls.values())), self.sentence, self.picture])
        for control in self.controls.values():
            control.observe(self._redraw, names="value")
        self._redraw()

    def __repr__(self) -> str:  # what stays of it in an executed notebook
        return f"To move {' and '.join(self.controls)}, open the notebook with a kernel and run it: make lab"

    def _redraw(self, _: Any = None) -> None:
        self.sentence.value, self.figure = self._show(*(control.value for control in self.controls.values()))
        png = BytesIO()
        self.figure.savefig(png, format="png")
        self.picture.value = png.getvalue()


def budget_explorer(sizes: pd.Series, shares: pd.DataFrame) -> Explorer:
    """Slide a budget of rows and watch the water level rise.

    Parameters
    ----------
    sizes : pandas.Series
        Rows by source.
    shares : pandas.DataFrame
        Sources down, budgets across: what `tsns_lib.water_fill` takes of each.

    Returns
    -------
    Explorer
        With the control "budget".
    """

    def show(budget: int) -> tuple[str, Figure]:
        level = water_level(sizes, shares[budget])
        full = shares.index[shares[budget] >= sizes]
        below = "no source is full" if full.empty else f"full: {', '.join(full)}"
        words = "every source is full" if level is None else f"the level is {level:,} rows; {below}"
        with plt.rc_context(STYLE):
            figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
            draw_shares(axes, sizes, shares[budget])
            axes.set_title(f"A budget of {budget:,} rows", loc="left")
        plt.close(figure)
        return f"{shares[budget].sum():,} rows taken; {words}", figure

    return Explorer({"budget": _slider("budget", {f"{budget:,}": budget for budget in shares})}, show)


def alpha_explorer(
    chosen: Mapping[float, np.ndarray],
    term_medians: tuple[float, float],
    n_layers: int,
    n_neurons: int,
    sources: Sequence[str],
) -> Explorer:
    """Slide α of equation 1 and watch neurons enter and leave the choice.

    Parameters
    ----------
    chosen : mapping of float to ndarray of shape (K,)
        The neurons chosen by α, 1 among them.
    term_medians : (float, float)
        Medians over the neurons of E(q) and of E(q)/(σ(q)+ε).
    n_layers, n_neurons : int
        Of the encoder.
    sources : sequence of str
        What they were chosen on; the title says if it is generated.

    Returns
    -------
    Explorer
        With the control "alpha".
    """
    table = alpha_table(chosen, term_medians)

    def show(alpha: float) -> tuple[str, Figure]:
        row, neurons = table.loc[alpha], chosen[alpha]
        sentence = (
            f"Median of the first term {row['first term']:.1e}, of the second {row['second term']:.1e}. "
            f"Of {len(neurons)} neurons {row['stay']:.0f} stay; "
            f"in: {_some(np.setdiff1d(neurons, chosen[1.0]))}; out: {_some(np.setdiff1d(chosen[1.0], neurons))}"
        )
        with plt.rc_context(STYLE):
            figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
            draw_choice(axes, neurons, chosen[1.0], n_layers, n_neurons)
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
            title = f"Chosen on {bare(sources[0])} with {alpha_label(alpha)} against α = 1"
            axes.set_title(caption(title, sources), loc="left")
        plt.close(figure)
        return sentence, figure

    return Explorer({"alpha": _slider("1 - α", {f"{1 - alpha:.0e}": alpha for alpha in chosen})}, show)


def k_explorer(averages: pd.DataFrame, sources: Sequence[Any]) -> Explorer:
    """Slide K and read the accuracy of the choice beside random neurons and the last layer.

    Parameters
    ----------
    averages : pandas.DataFrame
        As `statistics.average_table` gives it, with the methods "tsns", "random" and "last_layer".
    sources : sequence of Source or str
        What the averages were computed from.

    Returns
    -------
    Explorer
        With the control "K".
    """
    drawn = averages[averages["method"].isin(["tsns", "random", "last_layer"])]
    accuracy = drawn.set_index(["method", "k"])["accuracy"]
    (last,) = accuracy["last_layer"]

    def show(k: int) -> tuple[str, Figure]:
        words = [f"{label(method, k)}: {accuracy[method, k]:.1f} %" for method in ("tsns", "random")]
        figure = accuracy_by_k(drawn, sources, title="Accuracy by K, average over the pairs")
        figure.axes[0].axvline(k, color=INK, linewidth=1)
        return f"{'; '.join(words)}; last layer: {last:.1f} %", figure

    return Explorer({"K": _slider("K", {str(k): k for k in accuracy["tsns"].index})}, show)


def fingerprint_explorer(fingerprints: pd.DataFrame) -> Explorer:
    """Choose two sources and set their fingerprints side by side.

    Parameters
    ----------
    fingerprints : pandas.DataFrame
        Sources down, layers across, percent; two sources or more.

    Returns
    -------
    Explorer
        With the controls "left" and "right".
    """

    def show(left: str, right: str) -> tuple[str, Figure]:
        a, b = fingerprints.loc[left], fingerprints.loc[right]
        alike = [f"{metric.replace('_', '-')} {fingerprint_similarity(a, b, metric):.2f}" for metric in METRICS]
        with plt.rc_context(STYLE):
            figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
            draw_fingerprints(axes, fingerprints.loc[[left, right]])
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
            axes.set_title(caption("Two fingerprints; dotted: no preference", [left, right]), loc="left")
        plt.close(figure)
        return f"similarity (1 is the same): {', '.join(alike)}", figure

    options = [(bare(source), source) for source in fingerprints.index]
    sides = {"left": options[0][1], "right": options[1][1]}
    return Explorer({n: Dropdown(options=options, value=side, description=n) for n, side in sides.items()}, show)


def _slider(name: str, options: Mapping[str, Any]) -> SelectionSlider:
    middle = list(options.values())[len(options) // 2]
    return SelectionSlider(options=list(options.items()), value=middle, description=name, layout={"width": "520px"})


def _some(neurons: np.ndarray) -> str:
    shown = ", ".join(map(str, neurons[:6])) or "none"
    return f"{shown}, …" if len(neurons) > 6 else shown
