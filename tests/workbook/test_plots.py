"""The data behind the figures, not their pixels."""

from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from seaborn.utils import relative_luminance
from tsns_workbook.figure1 import draw_schematic
from tsns_workbook.figure2 import similarity_dendrogram
from tsns_workbook.lessons import shares_figure
from tsns_workbook.plots import accuracy_by_k, fingerprint_heatmap, finish, gain_forest_plot, label_points

matplotlib.use("Agg")


AVERAGES = pd.DataFrame(
    [
        ("last_layer", 384, 61.0, 60.0, 62.0),
        ("tsns", 300, 74.0, 73.0, 75.5),
        ("tsns", 100, 72.0, 71.0, 73.0),
        ("random", 100, 66.0, 65.0, 67.0),
        ("random", 300, 70.0, 69.0, 71.0),
        ("majority", 0, 50.0, 49.0, 51.0),
    ],
    columns=["method", "k", "accuracy", "low", "high"],
)
SHARES = pd.DataFrame(
    [("books", 1, 25.0), ("books", 2, 75.0), ("qqp", 1, 60.0), ("qqp", 2, 40.0)],
    columns=["source", "layer", "share"],
)
GAINS = pd.DataFrame(
    [("books", "dvd", 2.0, -1.0, 5.0), ("dvd", "books", 10.0, 8.0, 12.0)],
    columns=["source", "target", "gain", "low", "high"],
)


def figures():
    paper = pd.DataFrame({"k": [100, 300], "accuracy": [77.9, 81.0]})
    return {
        "k": accuracy_by_k(AVERAGES, generated=False, paper=paper),
        "layers": fingerprint_heatmap(SHARES, generated=False),
        "gains": gain_forest_plot(GAINS, generated=False),
    }


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_accuracy_by_k_draws_lines_in_order_of_k():
    axes = accuracy_by_k(AVERAGES, generated=False).axes[0]
    lines = {c.get_label(): c.lines[0] for c in axes.containers}
    assert lines["TSNS"].get_xdata().tolist() == [100, 300]
    assert lines["TSNS"].get_ydata().tolist() == [72.0, 74.0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["100", "300"]


def test_accuracy_by_k_draws_the_intervals():
    axes = accuracy_by_k(AVERAGES, generated=False).axes[0]
    bars = next(c for c in axes.containers if c.get_label() == "TSNS").lines[2][0]
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [[71.0, 73.0], [73.0, 75.5]]


def test_accuracy_by_k_draws_methods_of_one_size_as_levels():
    axes = accuracy_by_k(AVERAGES, generated=False).axes[0]
    levels = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert levels["last layer: 61.0"] == [61.0, 61.0]
    assert levels["majority class: 50.0"] == [50.0, 50.0]


def test_accuracy_by_k_draws_the_papers_curve_dashed():
    axes = figures()["k"].axes[0]
    line = next(line for line in axes.lines if line.get_label() == "the paper's (BERT-large)")
    assert line.get_ydata().tolist() == [77.9, 81.0]
    assert line.get_linestyle() == "--"


def test_accuracy_by_k_orders_the_legend_as_the_lines_end():
    legend = figures()["k"].axes[0].get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [
        "the paper's (BERT-large)",
        "TSNS",
        "random neurons",
        "last layer: 61.0",
        "majority class: 50.0",
    ]


def test_fingerprint_heatmap_shows_percent_by_layer():
    axes = fingerprint_heatmap(SHARES, generated=False).axes[0]
    assert texts(axes) == ["25", "75", "60", "40"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["books", "qqp"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2"]


def test_fingerprint_heatmap_refuses_shares_of_one():
    with pytest.raises(ValueError, match="shares of 'books' sum to 1, not to 100 percent"):
        fingerprint_heatmap(SHARES.assign(share=SHARES["share"] / 100), generated=False)


def test_gain_forest_plot_puts_the_best_on_top():
    axes = gain_forest_plot(GAINS, generated=False).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["books → dvd", "dvd → books"]
    drawn = {c.get_label(): c.lines[0].get_xdata().tolist() for c in axes.containers}
    assert drawn == {"interval reaches 0": [2.0], "interval clear of 0": [10.0]}


@pytest.mark.parametrize("name", ["k", "layers", "gains"])
def test_every_figure_is_opaque_white_legible_and_closed(name):
    figure = figures()[name]
    assert isinstance(figure, Figure)
    assert figure.get_facecolor() == (1, 1, 1, 1)
    assert figure.dpi == 100
    assert figure.number not in plt.get_fignums()
    axes = figure.axes[0]
    sizes = [tick.get_fontsize() for tick in [*axes.get_xticklabels(), *axes.get_yticklabels()]]
    assert min([*sizes, axes.title.get_fontsize(), *(text.get_fontsize() for text in axes.texts)]) >= 9


@pytest.mark.parametrize(
    "draw",
    [
        lambda: accuracy_by_k(AVERAGES, generated=True),
        lambda: fingerprint_heatmap(SHARES.assign(source="miniature:" + SHARES["source"]), generated=True),
        lambda: gain_forest_plot(GAINS.assign(target="miniature:" + GAINS["target"]), generated=True),
    ],
)
def test_every_title_says_when_data_were_generated(draw):
    axes = draw().axes[0]
    assert axes.get_title(loc="left").endswith("(generated data)")
    assert not any("miniature" in tick.get_text() for tick in axes.get_yticklabels())


@pytest.mark.parametrize(
    ("draw", "frame", "column"),
    [
        (accuracy_by_k, AVERAGES, "low"),
        (fingerprint_heatmap, SHARES, "layer"),
        (gain_forest_plot, GAINS, "high"),
    ],
)
def test_every_figure_names_the_missing_column(draw, frame, column):
    with pytest.raises(ValueError, match=f"lacks the column '{column}'"):
        draw(frame.drop(columns=column), generated=False)


def test_labels_of_long_names_do_not_overlap():
    names = ["electronics", "kitchen", "scitail", "mnli"]
    figure = fingerprint_heatmap(
        pd.DataFrame({"source": names, "layer": 1, "share": 100.0}), generated=False, title="Share"
    )
    figure.canvas.draw()
    boxes = [tick.get_window_extent() for tick in figure.axes[0].get_yticklabels()]
    assert np.all([upper.y0 > lower.y1 for upper, lower in zip(boxes, boxes[1:], strict=False)])


@pytest.mark.parametrize("name", [r"a$\frac$.csv", "a$x_1$.csv", "$"])
def test_a_dollar_sign_in_a_name_is_only_a_sign(name):
    shares = SHARES.assign(source=SHARES["source"].replace("books", name))
    shapes = pd.DataFrame([[1.0, 0.5], [0.5, 1.0]], [name, "qqp"], [name, "qqp"])
    for figure in (
        fingerprint_heatmap(shares, generated=False, title=f"Of {name}"),
        gain_forest_plot(GAINS.assign(source=name), generated=False),
        similarity_dendrogram(shapes, generated=False, title="Likeness"),
        shares_figure(pd.Series({name: 5, "b": 100}), pd.DataFrame({20: {name: 5, "b": 15}}), [20]),
    ):
        figure.canvas.draw()
        named = [text for text in figure.findobj(Text) if name in text.get_text()]
        assert named and not any(text.get_parse_math() for text in named)


def test_the_formulas_of_figure_1_and_of_an_axis_are_set():
    figure = draw_schematic(2)
    figure.canvas.draw()
    formulas = [text for text in figure.findobj(Text) if r"\mathcal" in text.get_text()]
    assert formulas and all(text.get_parse_math() for text in formulas)
    figure, axes = plt.subplots()
    axes.set_xscale("log")
    finish(figure).canvas.draw()
    assert all(text.get_parse_math() for text in axes.get_xticklabels())


def test_names_beside_points_cover_neither_each_other_nor_a_point():
    figure, axes = plt.subplots(figsize=(2, 2))
    places = np.array([[0.0, 0.0], [0.1, 0.0], [0.95, 1.0], [1.0, 1.0], [1.0, 0.9]])
    axes.plot(*places.T, "o", markersize=5)
    figure.draw_without_rendering()
    label_points(axes, places, ["first", "second", "third", "fourth", "fifth"])
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == ["first", "second", "third", "fourth", "fifth"]
    assert not any(one.padded(3).overlaps(other) for one, other in combinations(boxes, 2))
    assert not any(box.count_contains(axes.transData.transform(places)) for box in boxes)
    plt.close(figure)


def test_digits_are_read_on_every_cell():
    rows = [("books", layer, share) for layer, share in enumerate([2.0, 12.0, 22.0, 28.0, 36.0], start=1)]
    figure = fingerprint_heatmap(pd.DataFrame(rows, columns=["source", "layer", "share"]), generated=False)
    axes = figure.axes[0]
    for text, ground in zip(axes.texts, axes.collections[0].get_facecolors(), strict=True):
        lighter, darker = sorted([relative_luminance(text.get_color()), relative_luminance(ground)], reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 3.9, text.get_text()
