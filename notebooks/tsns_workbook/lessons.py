"""Pictures and widgets of the lessons, on the results of the method.

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
from ipywidgets import HTML, Dropdown, HBox, Image, SelectionSlider, Text, VBox
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.pipeline import Pipeline

from tsns_lib.aggregation import half_overlap
from tsns_lib.fingerprints import METRICS, fingerprint_similarity
from tsns_lib.importance import cumulative_importance
from tsns_workbook.plots import BLUE, FAINT, GREEN, INK, LOOKS, ORANGE, PINK, STYLE, finish
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

    def __repr__(self) -> str:  # what an executed notebook keeps of the widget, beside the picture of several states
        return f"Controls: {', '.join(self.controls)}"

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
    ground = {
        "boxstyle": "round,pad=0.15",
        "facecolor": "white",
        "edgecolor": "none",
    }  # no edge strikes a count through
    for x, rows in enumerate(share):
        axes.annotate(f"{rows:,}", (x, rows), (0, 5), textcoords="offset points", ha="center", bbox=ground)
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
    """Write an α with all its nines: "α = 0.99999"."""
    return f"α = {alpha:.10g}"


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

    return Explorer({"α": _slider("α", {f"{alpha:.10g}": alpha for alpha in chosen})}, show)


def draw_accuracy(axes: Axes, averages: pd.DataFrame) -> None:
    """Draw accuracy against K on a logarithmic axis: a line for what has several K, a level for what has one.

    `averages` has the columns method, k, accuracy, low and high, in percent; only the line of TSNS gets its bars.
    """
    sizes = sorted(averages.loc[averages["method"] == "tsns", "k"])
    for method, rows in averages.groupby("method", sort=False):
        look = LOOKS.get(str(method), {"color": SECOND, "linestyle": "--"})
        name = label(method, 0)
        if len(rows) == 1:
            axes.axhline(rows["accuracy"].iloc[0], label=name, **(look | {"marker": ""}))
        elif method == "tsns":
            bars = [rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]]
            axes.errorbar(rows["k"], rows["accuracy"], bars, capsize=3, label=f"{name} (95 %)", **look)
        else:
            axes.plot(rows["k"], rows["accuracy"], label=name, **look)
    axes.set(xscale="log", xlabel="K, neurons selected", ylabel="accuracy (%)")
    axes.set_xticks(sizes, [f"{k:,}" for k in sizes], minor=False)
    axes.minorticks_off()


def accuracy_figure(averages: pd.DataFrame, *, generated: bool, title: str) -> Figure:
    """Draw accuracy against K; `averages` as in `draw_accuracy`."""
    return _picture(lambda axes: draw_accuracy(axes, averages), caption(title, generated), legend=True)


def k_explorer(averages: pd.DataFrame, *, generated: bool, title: str) -> Explorer:
    """Let the reader slide K and compare the chosen neurons with the baselines; `averages` as in `draw_accuracy`."""
    accuracy = averages.set_index(["method", "k"])["accuracy"]
    one_size = averages.groupby("method")["k"].nunique() == 1

    def show(k: int) -> tuple[str, Figure]:
        def draw(axes: Axes) -> None:
            draw_accuracy(axes, averages)
            axes.axvline(k, color=INK, linewidth=1)

        words = [f"{label(method, size)}: {value:.1f} %" for (method, size), value in accuracy.items()
                 if size == k or one_size[method]]  # fmt: skip
        return "; ".join(words), _picture(draw, caption(title, generated), legend=True)

    return Explorer({"K": _slider("K", {f"{k:,}": k for k in accuracy["tsns"].index})}, show)


def overlap_table(q: np.ndarray, resamples: Sequence[int], neurons: Sequence[int]) -> pd.DataFrame:
    """Which share of the K neurons two halves of the first J resamples choose alike, in percent: J down, K across."""
    rows = [[100 * half_overlap([q[:j]], k, [1.0]) for k in neurons] for j in resamples]
    return pd.DataFrame(rows, pd.Index(resamples, name="J"), pd.Index(neurons, name="K"))


def draw_overlaps(axes: Axes, overlaps: pd.DataFrame, chosen: int | None = None) -> None:
    """Draw the overlap of the two halves against J, a line for each K; the line of one K may stand out."""
    for k, marker, color in zip(overlaps, "os^Dv", (BLUE, ORANGE, GREEN, PINK, FAINT), strict=False):
        strong = chosen in (None, k)
        look: dict[str, Any] = {"marker": marker, "color": color, "linewidth": 2.2 if strong else 1.0}
        axes.plot(overlaps.index, overlaps[k], alpha=1 if strong else 0.45, label=f"K = {k:,}", **look)
    axes.set(xlabel="J, resamples in both halves together", ylabel="neurons in common (%)", ylim=(0, 105))
    axes.set_xticks(overlaps.index)


def overlaps_figure(overlaps: pd.DataFrame, *, generated: bool) -> Figure:
    """Draw how far two halves of J resamples agree, for every K; `overlaps` as `overlap_table` gives it."""
    title = caption("Two halves of the resamples choose K neurons", generated)
    return _picture(lambda axes: draw_overlaps(axes, overlaps), title, legend=True)


def stability_explorer(overlaps: pd.DataFrame, n_neurons: int, *, generated: bool) -> Explorer:
    """Let the reader move J and K and see how far the two halves agree; `overlaps` as `overlap_table` gives it."""
    title = caption("Two halves of the resamples choose K neurons", generated)

    def show(j: int, k: int) -> tuple[str, Figure]:
        def draw(axes: Axes) -> None:
            draw_overlaps(axes, overlaps, k)
            axes.plot(j, overlaps.loc[j, k], "o", markersize=14, markerfacecolor="none", markeredgecolor=INK)

        half = f"{j // 2} resample{'s' if j > 3 else ''} in a half: of {k:,} neurons"
        words = f"{half}, {overlaps.loc[j, k]:.0f} % are in both; chance gives {100 * k / n_neurons:.0f} %"
        return words, _picture(draw, title, legend=True)

    sliders = {name: _slider(name, {f"{v:,}": v for v in values}, width="340px")
               for name, values in {"J": overlaps.index, "K": overlaps.columns}.items()}  # fmt: skip
    return Explorer(sliders, show)


def draw_terms(axes: Axes, q: pd.DataFrame, alpha: float) -> None:
    """Draw m of a few neurons as the sum of the two terms of equation 1; `q` has resamples down and neurons across."""
    m = cumulative_importance(q, alpha=alpha)
    first = alpha * q.mean().to_numpy()
    axes.bar(q.columns, first, color=BLUE, label="α · E")
    axes.bar(q.columns, m - first, bottom=first, color=SECOND, hatch="//", edgecolor="white", label="(1-α) · E/(σ+ε)")
    axes.set(ylabel="m", ylim=(0, 1.15 * m.max()))


def terms_figure(q: pd.DataFrame, alphas: Sequence[float]) -> Figure:
    """Draw the two terms of equation 1 of a few neurons for some α, each panel on an axis of its own."""
    states = {alpha_label(alpha): alpha for alpha in alphas}
    return _side_by_side(lambda axes, alpha: draw_terms(axes, q, alpha), states, height=2.6, legend=True, common=False)


def terms_explorer(q: pd.DataFrame, alphas: Sequence[float]) -> Explorer:
    """Let the reader slide α and watch which of a few neurons wins; `q` has resamples down and neurons across."""

    def show(alpha: float) -> tuple[str, Figure]:
        m = pd.Series(cumulative_importance(q, alpha=alpha), q.columns)
        words = "; ".join(f"m of {neuron}: {value:.4g}" for neuron, value in m.items())
        figure = _picture(lambda axes: draw_terms(axes, q, alpha), f"Equation 1 with {alpha_label(alpha)}", legend=True)
        return f"{words}; the larger is {m.idxmax()}", figure

    return Explorer({"α": _slider("α", {f"{alpha:.10g}": alpha for alpha in alphas})}, show)


def draw_fingerprints(axes: Axes, fingerprints: pd.DataFrame, band: tuple[float, float]) -> None:
    """Draw one or two fingerprints by layer, with the band in which the share of a layer falls by chance.

    `fingerprints` has sources down and layers across, in percent, and `band` is in percent.
    """
    n_sources, n_layers = fingerprints.shape
    width = 0.8 / n_sources
    looks: list[dict[str, Any]] = [{"color": BLUE}, {"color": SECOND, "hatch": "//", "edgecolor": "white"}]
    for i, ((source, shares), look) in enumerate(zip(fingerprints.iterrows(), looks, strict=False)):
        x = np.arange(1, n_layers + 1) + (i - (n_sources - 1) / 2) * width
        axes.bar(x, shares, width, label=short_name(str(source)), **look)
    axes.axhspan(*band, color=FAINT, alpha=0.25, linewidth=0, label="K random neurons, 95 %")
    axes.axhline(100 / n_layers, color=INK, linestyle=":", linewidth=1)
    axes.set(xlabel="layer", ylabel="share (%)", xticks=fingerprints.columns[:: max(1, n_layers // 8)])


def fingerprints_figure(fingerprints: pd.DataFrame, bands: Sequence[tuple[float, float]], *, generated: bool) -> Figure:
    """Draw several fingerprints side by side, each with its band; arguments as in `draw_fingerprints`."""
    names = fingerprints.index
    states = {short_name(name): (fingerprints.loc[[name]], band) for name, band in zip(names, bands, strict=True)}
    title = caption("Share of the chosen neurons by layer; grey: K random neurons, 95 %", generated)
    return _side_by_side(lambda axes, state: draw_fingerprints(axes, *state), states, height=2.6, title=title)


def fingerprint_explorer(fingerprints: pd.DataFrame, band: tuple[float, float], *, generated: bool) -> Explorer:
    """Let the reader choose two sources and compare their fingerprints, by eye and by every measure."""

    def show(left: str, right: str) -> tuple[str, Figure]:
        a, b = fingerprints.loc[left], fingerprints.loc[right]
        similarities = [f"{metric.replace('_', '-')} {fingerprint_similarity(a, b, metric):.2f}" for metric in METRICS]
        both = fingerprints.loc[[left, right]]
        title = caption("Two fingerprints", generated)
        figure = _picture(lambda axes: draw_fingerprints(axes, both, band), title, legend=True)
        return f"similarity (1 is the same): {', '.join(similarities)}", figure

    options = [(short_name(source), source) for source in fingerprints.index]
    first = {"left": options[0][1], "right": options[1][1]}
    return Explorer({n: Dropdown(options=options, value=source, description=n) for n, source in first.items()}, show)


def contribution_table(activations: np.ndarray, selected: np.ndarray, model: Pipeline, n_layers: int) -> pd.DataFrame:
    """What each chosen neuron adds to the log-odds of the second class for one text, largest first.

    `activations` are those of the text, shape (N,); `model` is `classifier.fit_classifier` on the chosen neurons.
    """
    scaler, regression = model[0], model[-1]
    values = regression.coef_[0] * scaler.transform(activations[None, selected])[0]
    layers = selected // (len(activations) // n_layers) + 1
    table = pd.DataFrame({"neuron": selected, "layer": layers, "contribution": values})
    return table.sort_values("contribution", key=np.abs, ascending=False, ignore_index=True)


def draw_contributions(axes: Axes, table: pd.DataFrame, n_layers: int) -> None:
    """Draw what the chosen neurons of each layer add to the log-odds, and name the strongest five."""
    for positive, color, marker in ((True, BLUE, "o"), (False, ORANGE, "s")):
        side = table[(table["contribution"] > 0) == positive]
        axes.scatter(side["layer"], side["contribution"], color=color, marker=marker, s=18, alpha=0.6)
    strongest = table.head(5).sort_values(["layer", "contribution"])
    for side, (_, row) in zip((-1, 1, -1, 1, -1), strongest.iterrows(), strict=False):
        place: dict[str, Any] = {"ha": "left" if side > 0 else "right", "va": "center", "textcoords": "offset points"}
        axes.annotate(f"{row['neuron']:.0f}", (row["layer"], row["contribution"]), (7 * side, 0), **place)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set(xlabel="layer", ylabel="added to the log-odds", xticks=range(1, n_layers + 1), xlim=(0.3, n_layers + 0.7))


def sentences_figure(tables: Mapping[str, pd.DataFrame], n_layers: int) -> Figure:
    """Draw the contributions in some texts side by side; the tables are those of `contribution_table`."""
    return _side_by_side(lambda axes, table: draw_contributions(axes, table, n_layers), tables, height=3.2)


def sentence_explorer(
    read: Callable[[str], np.ndarray], selected: np.ndarray, model: Pipeline, n_layers: int, text: str
) -> Explorer:
    """Let the reader type a text and see which of the chosen neurons speak for which class.

    `read` gives the activations of a text; the other arguments are as in `contribution_table`.
    """

    def show(words: str) -> tuple[str, Figure]:
        table = contribution_table(read(words or " "), selected, model, n_layers)
        odds = table["contribution"].sum() + model[-1].intercept_[0]
        strongest = "; ".join(
            f"{row.neuron} of layer {row.layer} ({row.contribution:+.2f})" for row in table.head(3).itertuples()
        )
        title = "What every chosen neuron says about the text"
        figure = _picture(lambda axes: draw_contributions(axes, table, n_layers), title)
        return (
            f"class {model.classes_[1]} with probability {1 / (1 + np.exp(-odds)):.2f}; strongest: {strongest}",
            figure,
        )

    box = Text(value=text, description="text", continuous_update=False, layout={"width": "520px"})
    return Explorer({"text": box}, show)


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
    common: bool = True,
) -> Figure:
    """Small multiples: one panel for each state under its name, on common axes unless told otherwise."""
    with plt.rc_context(STYLE | {"font.size": 8}):
        figure, grid = plt.subplots(
            n_rows, -(-len(states) // n_rows), figsize=(11, height), sharex=common, sharey=common, layout="constrained",
            squeeze=False,
        )  # fmt: skip
        for axes, (name, state) in zip(grid.flat, states.items(), strict=False):
            draw(axes, state)
            axes.set_title(name, loc="left")
            if common:
                axes.label_outer()
        for axes in grid.flat[len(states) :]:
            axes.axis("off")
        if legend:
            figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return finish(figure)


def _slider(name: str, options: Mapping[str, Any], *, width: str = "520px") -> SelectionSlider:
    middle = list(options.values())[len(options) // 2]
    return SelectionSlider(options=list(options.items()), value=middle, description=name, layout={"width": width})


def _first_six(neurons: np.ndarray) -> str:
    listed = ", ".join(map(str, neurons[:6])) or "none"
    return f"{listed}, …" if len(neurons) > 6 else listed
