"""Figure 1 from code, and the toy it is run on."""

import numpy as np
import pandas as pd
import pytest
from tsns_workbook import figure1
from tsns_workbook.report import reading

from tsns_lib import aggregation


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_every_box_names_a_function_that_exists():
    table = figure1.steps_table()
    assert [place.rsplit(".", 1)[1] for place in table["function"]] == [
        "source_pairs",
        "resample_rows",
        "forest_importance",
        "cumulative_importance",
        "meta_importance",
        "aggregate",
        "select_neurons",
        "fit_classifier",
    ]
    assert table["what it does"].str.len().min() > 10


def test_the_figure_has_a_row_of_boxes_for_each_learner_and_one_after_them():
    figure = figure1.draw_schematic(2)
    assert len(figure.axes[0].patches) == 2 * 5 + 3
    assert texts(figure).count("cumulative_importance") == 2
    assert texts(figure).count("select_neurons") == 1
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)


def test_a_figure_needs_a_learner():
    with pytest.raises(ValueError, match="n_learners must be at least 1, not 0"):
        figure1.draw_schematic(0)


def test_a_toy_source_has_the_shared_neurons_and_one_of_its_own():
    for number, (X, y) in enumerate(figure1.toy_sources(seed=1).values()):
        apart = np.abs(X[y == 1].mean(axis=0) - X[y == 0].mean(axis=0))
        assert set(np.argsort(-apart)[:3]) == {*figure1.SHARED_NEURONS, 2 + number}
        assert np.argmax(apart) == 2 + number


def test_the_toy_needs_a_neuron_for_each_source():
    with pytest.raises(ValueError, match="n_neurons must be at least 6 for 4 sources, not 5"):
        figure1.toy_sources(4, n_neurons=5)


PAIRS = aggregation.source_pairs(3)


def test_the_aggregate_finds_what_single_learners_miss():
    toys = figure1.many_toys(12, PAIRS, n_resamples=2, n_trees=50, seed=1)
    assert toys.columns.tolist() == ["aggregate", "one learner", "all sources at once"]
    assert len(toys) == 12 and set(toys["one learner"].round(1)) <= {0.0, 33.3, 66.7, 100.0}
    claim = figure1.aggregation_claim(toys)
    assert (claim["id"], claim["verdict"]) == ("figure1.planted_neurons", "reproduced")
    assert claim["ours"] == pytest.approx((toys["aggregate"] - toys["one learner"]).mean(), abs=1e-4)


def test_a_control_that_does_as_well_is_said():
    toys = pd.DataFrame({"aggregate": [100.0] * 9 + [0.0], "one learner": [0.0] * 9 + [33.0]})
    claims = [figure1.aggregation_claim(toys.assign(**{"all sources at once": rival})) for rival in (100.0, 0.0)]
    assert [reading(claim) for claim in claims] == ["reproduced, not by selection", "reproduced"]


def test_a_union_keeps_rows_and_labels_together():
    sources = {"D1": (np.zeros((2, 3)), np.array([0, 1])), "D2": (np.ones((1, 3)), np.array([1]))}
    X, y = figure1.toy_union(sources, [1, 0])
    assert X[:, 0].tolist() == [1.0, 0.0, 0.0]
    assert y.tolist() == [1, 0, 1]


def test_pairs_are_written_with_names():
    table = figure1.pairs_table(aggregation.source_pairs(3), ["D1", "D2", "D3"])
    assert table.iloc[0].tolist() == ["p=1", "D2 ∪ D3", "D1"]


def test_an_array_is_laid_out_with_its_neurons():
    table = figure1.neuron_table([0.12345, 1], ["sum"])
    assert table.columns.tolist() == ["f0", "f1"]
    assert table.loc["sum"].tolist() == [0.123, 1.0]
    with pytest.raises(ValueError, match="rows has 2 names for 1 rows"):
        figure1.neuron_table([1, 2], ["a", "b"])


def test_the_arrays_are_drawn_with_their_values_and_the_selected_ones_framed():
    q, h = figure1.neuron_table([[0.25, 0.75]], ["p=1"]), figure1.neuron_table([1.5, 2], ["sum"])
    figure = figure1.draw_arrays({"q": q, "h": h}, [1])
    assert texts(figure) == ["0.250", "0.750", "1.5", "2.0"]
    (frame,) = figure.axes[-1].patches
    assert frame.get_xy() == (1, 0)
    assert figure.get_suptitle().endswith("(generated data)")


def test_no_arrays_no_figure():
    with pytest.raises(ValueError, match="arrays is empty"):
        figure1.draw_arrays({}, [])
