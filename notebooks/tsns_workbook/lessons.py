"""Pictures and widgets of the lesson about the method.

A `draw_…` function draws one state of the method on given axes. A `…_figure` shows several states side by side, for
reading where no kernel runs; an `…_explorer` shows one state at a time and lets the reader move through them. All of
them take values that the notebook has computed and compute no neurons themselves.
"""

import html
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
from tsns_workbook.plots import BLUE, FAINT, GREEN, INK, ORANGE, STYLE, accuracy_by_k, finish
from tsns_workbook.report import caption, label, short_name

WATER, SECOND = "#56B4E9", "#E69F00"  # of Okabe and Ito's palette, as all colours of `plots`
TWO_LINES = "3.2em"  # height kept for a sentence, so that the picture below does not jump when it wraps


class Explorer(VBox):
    """Controls above, a sentence and a picture below, both drawn again whenever a control changes.

    `show` takes the values of the `controls` in their order and returns the sentence and the figure. Without a kernel
    a test sets a control's `value` and reads `sentence.value` and `figure`.
    """

    def __init__(self, controls: Mapping[str, Any], show: Callable[..., tuple[str, Figure]]):
        self.controls = dict(controls)
        self.sentence, self.picture = HTML(layout={"min_height": TWO_LINES}), Image(format="png")
        self._show = show
        super().__init__([HBox(list(self.controls.values())), self.sentence, self.picture])
        for control in self.controls.values():
            control.observe(self._redraw, names="value")
        self._redraw()

    def __repr__(self) -> str:  # what an executed notebook keeps of the widget
        return f"To move {' and '.join(self.controls)}, open the notebook with a kernel and run it: make lab"

    def _redraw(self, _: Any = None) -> None:
        sentence, self.figure = self._show(*(control.value for control in self.controls.values()))
        self.sentence.value = html.escape(sentence, quote=False)  # it names corpora, whose names may be anything
        png = BytesIO()
        self.figure.savefig(png, format="png")
        self.picture.value = png.getvalue()


def water_level(sizes: pd.Series, share: pd.Series) -> int | None:
    """The level that every source is filled to or below; None when all of them are full."""
    return None if (share >= sizes).all() else int(share[share < sizes].max())


def draw_shares(axes: Axes, sizes: pd.Series, share: pd.Series) -> None:
    """Draw each source as a vessel of its size, filled to its share of the budget; both hold rows by source."""
    axes.bar(sizes.index, sizes, color="white", edgecolor=FAINT, linewidth=1.2)
    axes.bar(share.index, share, color=WATER, edgecolor=FAINT, linewidth=1.2)
    level = water_level(sizes, share)
    if level is not None:
        axes.axhline(level, color=BLUE, linestyle="--", linewidth=1.2)
    for x, rows in enumerate(share):
        axes.annotate(f"{rows:,}", (x, rows), (0, 3), textcoords="offset points", ha="center")
    axes.set(ylim=(0, 1.12 * sizes.max()), ylabel="rows")
    axes.yaxis.set_major_formatter("{x:,.0f}")


def shares_figure(sizes: pd.Series, shares: pd.DataFrame, budgets: Sequence[int]) -> Figure:
    """Draw the shares of some budgets side by side; `shares` has sources down and budgets across."""
    states = {f"budget {budget:,}": shares[budget] for budget in budgets}
    return _side_by_side(lambda axes, share: draw_shares(axes, sizes, share), states, height=2.9)


def budget_explorer(sizes: pd.Series, shares: pd.DataFrame) -> Explorer:
    """Let the reader slide the budget of rows and watch the water rise; arguments as in `shares_figure`."""

    def show(budget: int) -> tuple[str, Figure]:
        share = shares[budget]
        level = water_level(sizes, share)
        full = shares.index[share >= sizes]
        full_sources = "no source is full" if full.empty else f"full: {', '.join(full)}"
        state = "every source is full" if level is None else f"the level is {level:,} rows; {full_sources}"
        figure = _picture(lambda axes: draw_shares(axes, sizes, share), f"A budget of {budget:,} rows")
        return f"{share.sum():,} rows taken; {state}", figure

    return Explorer({"budget": _slider("budget", {f"{budget:,}": budget for budget in shares})}, show)


def alpha_label(alpha: float) -> str:
    """Write an α near 1 by its distance from 1: "α = 1 - 1e-05"."""
    return f"α = {alpha:g}" if alpha in (0, 1) or alpha < 0.95 else f"α = 1 - {1 - alpha:.0e}"


def alpha_table(chosen: Mapping[float, np.ndarray], term_medians: tuple[float, float]) -> pd.DataFrame:
    """Set beside each α the size of both terms of equation 1 and how the chosen neurons differ from those for α = 1.

    `chosen` holds the K neurons of each α, 1 among them; `term_medians` the medians over the neurons of E(q) and of
    E(q)/(σ(q)+ε), which the columns `first term` and `second term` multiply by α and by 1-α. Of the K neurons, `stay`
    are chosen with α = 1 too, and `enter` are not.
    """
    if 1.0 not in chosen:
        raise ValueError(f"chosen: α = 1 must be there, to compare the others with; got {list(chosen)}")
    mean, over_spread = term_medians
    rows = {}
    for alpha, neurons in chosen.items():
        stay = np.isin(neurons, chosen[1.0]).sum()
        rows[alpha_label(alpha)] = (alpha * mean, (1 - alpha) * over_spread, stay, len(neurons) - stay)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["first term", "second term", "stay", "enter"])


def draw_choice(axes: Axes, neurons: np.ndarray, before: np.ndarray, n_layers: int, n_neurons: int) -> None:
    """Draw by layer how many of the neurons chosen before stay, how many enter, and how many leave."""
    hidden_size = n_neurons // n_layers
    sets = (np.intersect1d(neurons, before), np.setdiff1d(neurons, before), np.setdiff1d(before, neurons))
    stay, enter, leave = (np.bincount(members // hidden_size, minlength=n_layers) for members in sets)
    layers = np.arange(1, n_layers + 1)
    axes.bar(layers, stay, color=BLUE, label="stay")
    axes.bar(layers, enter, bottom=stay, color=GREEN, hatch="//", edgecolor="white", label="enter")
    axes.bar(layers, -leave, color="white", edgecolor=ORANGE, label="leave")
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set(xlabel="layer", ylabel="neurons", xticks=layers[:: max(1, n_layers // 8)])
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")


def alphas_figure(
    chosen: Mapping[float, np.ndarray], n_layers: int, n_neurons: int, *, source: str, generated: bool
) -> Figure:
    """Draw the neurons chosen with each α against those chosen with α = 1, side by side."""
    states = {alpha_label(alpha): neurons for alpha, neurons in chosen.items()}
    title = caption(f"Neurons chosen on {short_name(source)} against those for α = 1, by layer", generated)
    return _side_by_side(
        lambda axes, neurons: draw_choice(axes, neurons, chosen[1.0], n_layers, n_neurons),
        states,
        n_rows=2,
        height=4.4,
        title=title,
        legend=True,
    )


def alpha_explorer(
    chosen: Mapping[float, np.ndarray],
    term_medians: tuple[float, float],
    n_layers: int,
    n_neurons: int,
    *,
    source: str,
    generated: bool,
) -> Explorer:
    """Let the reader slide α of equation 1 and watch which neurons enter and leave; arguments as in `alpha_table`."""
    table = alpha_table(chosen, term_medians)

    def show(alpha: float) -> tuple[str, Figure]:
        row, neurons, before = table.loc[alpha_label(alpha)], chosen[alpha], chosen[1.0]
        sentence = (
            f"Median of the first term {row['first term']:.1e}, of the second {row['second term']:.1e}. "
            f"Of {len(neurons)} neurons {row['stay']:.0f} stay; "
            f"in: {_first_six(np.setdiff1d(neurons, before))}; out: {_first_six(np.setdiff1d(before, neurons))}"
        )
        title = caption(f"Chosen on {short_name(source)} with {alpha_label(alpha)} against α = 1", generated)
        figure = _picture(lambda axes: draw_choice(axes, neurons, before, n_layers, n_neurons), title, legend=True)
        return sentence, figure

    return Explorer({"α": _slider("", {alpha_label(alpha): alpha for alpha in chosen})}, show)


def k_explorer(averages: pd.DataFrame, *, generated: bool) -> Explorer:
    """Let the reader slide K and compare the chosen neurons with random ones and with the last layer.

    `averages` is what `statistics.average_table` gives, with the methods "tsns", "random" and "last_layer".
    """
    compared = averages[averages["method"].isin(["tsns", "random", "last_layer"])]
    accuracy = compared.set_index(["method", "k"])["accuracy"]
    (last,) = accuracy["last_layer"]

    def show(k: int) -> tuple[str, Figure]:
        words = [f"{label(method, k)}: {accuracy[method, k]:.1f} %" for method in ("tsns", "random")]
        figure = accuracy_by_k(compared, generated=generated, title="Accuracy by K, average over the pairs")
        figure.axes[0].axvline(k, color=INK, linewidth=1)
        return f"{'; '.join(words)}; last layer: {last:.1f} %", figure

    return Explorer({"K": _slider("K", {str(k): k for k in accuracy["tsns"].index})}, show)


def draw_fingerprints(axes: Axes, fingerprints: pd.DataFrame) -> None:
    """Draw one or two fingerprints by layer, with a dotted line at the share of a layer without any preference.

    `fingerprints` has sources down and layers across, in percent.
    """
    n_sources, n_layers = fingerprints.shape
    width = 0.8 / n_sources
    looks: list[dict[str, Any]] = [{"color": BLUE}, {"color": SECOND, "hatch": "//", "edgecolor": "white"}]
    for i, ((source, shares), look) in enumerate(zip(fingerprints.iterrows(), looks, strict=False)):
        x = np.arange(1, n_layers + 1) + (i - (n_sources - 1) / 2) * width
        axes.bar(x, shares, width, label=short_name(str(source)), **look)
    axes.axhline(100 / n_layers, color=INK, linestyle=":", linewidth=1)
    axes.set(xlabel="layer", ylabel="share (%)", xticks=fingerprints.columns[:: max(1, n_layers // 8)])


def fingerprints_figure(fingerprints: pd.DataFrame, *, generated: bool) -> Figure:
    """Draw the fingerprints of all sources side by side."""
    states = {short_name(source): fingerprints.loc[[source]] for source in fingerprints.index}
    title = caption("Share of the chosen neurons by layer; dotted: no preference", generated)
    return _side_by_side(draw_fingerprints, states, height=2.6, title=title)


def fingerprint_explorer(fingerprints: pd.DataFrame, *, generated: bool) -> Explorer:
    """Let the reader choose two sources and compare their fingerprints, by eye and by every measure."""

    def show(left: str, right: str) -> tuple[str, Figure]:
        a, b = fingerprints.loc[left], fingerprints.loc[right]
        similarities = [f"{metric.replace('_', '-')} {fingerprint_similarity(a, b, metric):.2f}" for metric in METRICS]
        title = caption("Two fingerprints; dotted: no preference", generated)
        figure = _picture(lambda axes: draw_fingerprints(axes, fingerprints.loc[[left, right]]), title, legend=True)
        return f"similarity (1 is the same): {', '.join(similarities)}", figure

    options = [(short_name(source), source) for source in fingerprints.index]
    first = {"left": options[0][1], "right": options[1][1]}
    return Explorer({n: Dropdown(options=options, value=source, description=n) for n, source in first.items()}, show)


def _picture(draw: Callable[[Axes], None], title: str, *, legend: bool = False) -> Figure:
    """The one picture of an explorer, always of the same size."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
        draw(axes)
        if legend:
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        axes.set_title(title, loc="left")
    return finish(figure)


def _side_by_side(
    draw: Callable[[Axes, Any], None],
    states: Mapping[str, Any],
    *,
    n_rows: int = 1,
    height: float,
    title: str = "",
    legend: bool = False,
) -> Figure:
    """Small multiples: one panel for each state under its name, on common axes."""
    with plt.rc_context(STYLE | {"font.size": 8}):
        figure, grid = plt.subplots(
            n_rows, -(-len(states) // n_rows), figsize=(11, height), sharex=True, sharey=True, layout="constrained",
            squeeze=False,
        )  # fmt: skip
        for axes, (name, state) in zip(grid.flat, states.items(), strict=False):
            draw(axes, state)
            axes.set_title(name, loc="left")
            axes.label_outer()
        for axes in grid.flat[len(states) :]:
            axes.axis("off")
        if legend:
            figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return finish(figure)


def _slider(name: str, options: Mapping[str, Any]) -> SelectionSlider:
    middle = list(options.values())[len(options) // 2]
    return SelectionSlider(options=list(options.items()), value=middle, description=name, layout={"width": "520px"})


def _first_six(neurons: np.ndarray) -> str:
    listed = ", ".join(map(str, neurons[:6])) or "none"
    return f"{listed}, …" if len(neurons) > 6 else listed
