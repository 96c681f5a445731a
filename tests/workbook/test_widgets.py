"""The lesson's widgets without a kernel: set a control, read the sentence and the figure."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from tsns_workbook import lessons

from tsns_lib import water_fill

matplotlib.use("Agg")


SIZES = pd.Series({"large": 10, "middle": 6, "small": 2})
SHARES = pd.DataFrame({budget: water_fill(SIZES, budget) for budget in range(0, 21)}, index=SIZES.index)
CHOSEN = {1.0: np.array([0, 1, 4]), 0.9: np.array([0, 4, 5]), 0.0: np.array([2, 3, 5])}
AVERAGES = pd.DataFrame(
    [("tsns", 3, 70.0), ("tsns", 9, 72.0), ("random", 3, 60.0), ("random", 9, 71.0), ("last_layer", 4, 65.0)]
    + [("majority", 0, 50.0)],
    columns=["method", "k", "accuracy"],
).assign(low=lambda rows: rows["accuracy"] - 1, high=lambda rows: rows["accuracy"] + 1)
FINGERPRINTS = pd.DataFrame(
    [[50.0, 50.0, 0.0], [50.0, 50.0, 0.0], [0.0, 0.0, 100.0]],
    index=["miniature:books", "miniature:dvd", "miniature:qqp"],
    columns=[1, 2, 3],
)


def heights(axes):
    return [patch.get_height() for patch in axes.patches]


def budget():
    return lessons.budget_explorer(SIZES, SHARES)


def alpha():
    return lessons.alpha_explorer(
        CHOSEN, (0.001, 2.0), n_layers=3, n_neurons=6, source="miniature:books", generated=True
    )


def test_the_water_rises_with_the_budget():
    explorer = budget()
    slider = explorer.controls["budget"]
    slider.value = 7
    assert explorer.sentence.value == "7 rows taken; the level is 3 rows; full: small"
    assert heights(explorer.figure.axes[0]) == [10, 6, 2, 3, 2, 2]
    slider.value = 20
    assert explorer.sentence.value == "18 rows taken; every source is full"


def test_a_budget_of_nothing_fills_nothing():
    explorer = budget()
    explorer.controls["budget"].value = 0
    assert explorer.sentence.value == "0 rows taken; the level is 0 rows; no source is full"


def test_neurons_enter_and_leave_with_alpha():
    explorer = alpha()
    explorer.controls["α"].value = 0.9
    assert explorer.sentence.value == (
        "Median of the first term 9.0e-04, of the second 2.0e-01. Of 3 neurons 2 stay; in: 5; out: 1"
    )
    assert heights(explorer.figure.axes[0]) == [1, 0, 1, 0, 0, 1, -1, 0, 0]  # stay, enter, leave by layer
    explorer.controls["α"].value = 1.0
    assert explorer.sentence.value.endswith("Of 3 neurons 3 stay; in: none; out: none")
    assert explorer.figure.axes[0].get_title("left") == "Chosen on books with α = 1 against α = 1 (generated data)"


def test_long_lists_of_neurons_are_cut():
    chosen = {1.0: np.arange(8), 0.0: np.arange(8, 16)}
    explorer = lessons.alpha_explorer(chosen, (0.001, 2.0), n_layers=2, n_neurons=16, source="books", generated=False)
    explorer.controls["α"].value = 0.0
    assert explorer.sentence.value.endswith("in: 8, 9, 10, 11, 12, 13, …; out: 0, 1, 2, 3, 4, 5, …")


def test_k_is_read_beside_random_and_last_layer():
    explorer = lessons.k_explorer(AVERAGES, generated=False)
    explorer.controls["K"].value = 3
    assert explorer.sentence.value == "TSNS K=3: 70.0 %; random neurons K=3: 60.0 %; last layer: 65.0 %"
    explorer.controls["K"].value = 9
    assert explorer.sentence.value == "TSNS K=9: 72.0 %; random neurons K=9: 71.0 %; last layer: 65.0 %"
    assert explorer.figure.axes[0].lines[-1].get_xdata() == [9, 9]


def test_the_name_of_a_corpus_is_no_html():
    names = {"middle": "R&D.csv", "small": "<img src=x onerror=alert(1)>.csv"}
    explorer = lessons.budget_explorer(SIZES.rename(names), SHARES.rename(names))
    explorer.controls["budget"].value = 17
    assert explorer.sentence.value == (
        "17 rows taken; the level is 9 rows; full: R&amp;D.csv, &lt;img src=x onerror=alert(1)&gt;.csv"
    )


def test_two_fingerprints_are_compared():
    explorer = lessons.fingerprint_explorer(FINGERPRINTS, generated=True)
    assert explorer.sentence.value == ("similarity (1 is the same): cosine 1.00, jensen-shannon 1.00, wasserstein 1.00")
    explorer.controls["right"].value = "miniature:qqp"
    assert explorer.sentence.value == ("similarity (1 is the same): cosine 0.00, jensen-shannon 0.00, wasserstein 0.25")
    assert heights(explorer.figure.axes[0]) == [50, 50, 0, 0, 0, 100]
    explorer.controls["left"].value = "miniature:qqp"
    assert "cosine 1.00" in explorer.sentence.value


@pytest.mark.parametrize("build", [budget, alpha])
def test_a_change_draws_a_new_picture(build):
    explorer = build()
    (slider,) = explorer.controls.values()
    before = explorer.picture.value
    slider.index = 0
    assert bytes(explorer.picture.value[:4]) == b"\x89PNG" and explorer.picture.value != before


def test_a_picture_does_not_jump_when_its_sentence_wraps():
    explorer = alpha()
    assert explorer.sentence.layout.min_height == lessons.TWO_LINES
    sizes = set()
    for value in (1.0, 0.9, 0.0):
        explorer.controls["α"].value = value
        sizes.add(bytes(explorer.picture.value[16:24]))  # width and height of a PNG
    assert len(sizes) == 1


def test_what_stays_in_an_executed_notebook_says_how_to_move_it():
    assert repr(budget()) == "To move budget, open the notebook with a kernel and run it: make lab"


def test_the_table_of_alphas():
    table = lessons.alpha_table(CHOSEN, (0.001, 2.0))
    assert table["stay"].tolist() == [3, 2, 0] and table["enter"].tolist() == [0, 1, 3]
    assert table["first term"].round(6).tolist() == [0.001, 0.0009, 0.0]
    assert table["second term"].round(3).tolist() == [0.0, 0.2, 2.0]
    assert table.index.tolist() == ["α = 1", "α = 0.9", "α = 0"]


def test_alphas_need_the_one_to_compare_with():
    with pytest.raises(ValueError, match=r"α = 1 must be there, to compare the others with; got \[0.5\]"):
        lessons.alpha_table({0.5: CHOSEN[1.0]}, (0.001, 2.0))


def test_small_multiples_show_every_state():
    figure = lessons.shares_figure(SIZES, SHARES, [4, 12])
    assert [axes.get_title("left") for axes in figure.axes] == ["budget 4", "budget 12"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["5", "5", "2"]
    figure = lessons.alphas_figure(CHOSEN, 3, 6, source="miniature:books", generated=True)
    assert [axes.get_title("left") for axes in figure.axes] == ["α = 1", "α = 0.9", "α = 0", ""]
    assert figure.get_suptitle().endswith("by layer (generated data)")
    figure = lessons.fingerprints_figure(FINGERPRINTS, generated=True)
    assert [heights(axes) for axes in figure.axes] == FINGERPRINTS.to_numpy().tolist()


@pytest.mark.parametrize(
    ("alpha", "words"), [(1.0, "α = 1"), (1 - 1e-5, "α = 1 - 1e-05"), (0.9, "α = 0.9"), (0.0, "α = 0")]
)
def test_alpha_in_words(alpha, words):
    assert lessons.alpha_label(alpha) == words
