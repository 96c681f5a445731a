"""Widgets of the lesson: a control, a sentence and a picture, built from frames that the notebook has computed.

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
from matplotlib.figure import Figure

from tsns_lib.fingerprints import METRICS, fingerprint_similarity
from tsns_lib.reporting.lesson import alpha_label, alpha_table, draw_choice, draw_fingerprints, draw_shares, water_level
from tsns_lib.reporting.plots import INK, STYLE, accuracy_by_k
from tsns_lib.reporting.report import bare, caption, label


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
