"""Pairs of sources, what predicts the transfer between them, and the verdicts."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from tsns_workbook.prediction import (
    PREDICTORS,
    WITHIN,
    below_majority,
    correlation_table,
    pair_table,
    prediction_answer,
    prediction_claims,
    prediction_table,
    predictor_plot,
    similarity_scatter,
)
from tsns_workbook.report import reading

NAMES = list("abcdef")


class Encoder:
    """The shape of an encoder: two layers of four neurons."""

    n_layers, n_neurons = 2, 8


class Named:
    """A source by name and size."""

    def __init__(self, name, n_rows):
        self.name, self.n_rows = name, n_rows


def make_grid(names=NAMES, prefix=""):
    """Source i chooses 4 neurons, i of them in the second layer, at most 4; transfer is as good as both are alike."""
    rows = []
    for i, source in enumerate(names):
        second = min(i, 4)
        chosen = np.array([*range(4 - second), *range(4, 4 + second)])
        for j, target in enumerate(names):
            if i != j:
                accuracy = 0.9 - 0.05 * abs(second - min(j, 4))
                cells = [("tsns", 4, accuracy, chosen), ("random", 4, 0.5, np.array([0, 1, 4, 5]))]
                cells += [("last_layer", 4, 0.6, np.arange(4, 8)), ("majority", 0, 0.5 + 0.01 * j, None)]
                rows += [(prefix + source, prefix + target, m, k, 0, a, s) for m, k, a, s in cells]
    grid = pd.DataFrame(rows, columns=["source", "target", "method", "k", "run", "accuracy", "selected"])
    return grid.assign(auc=grid["accuracy"] + 0.05)


def make_pairs(prefix="", grid=None):
    grids = {"first": make_grid(prefix=prefix) if grid is None else grid, "second": make_grid(list("uvwxyz"), prefix)}
    sources = [Named(prefix + name, 10 * i + 10) for i, name in enumerate("abcdefuvwxyz")]
    return pair_table(grids, sources, ("tsns", 4), ("last_layer", 4), Encoder())


@cache
def correlations_of(prefix=""):
    """The correlations of made-up pairs, computed once."""
    return correlation_table(make_pairs(prefix))


def test_pairs_hold_outcomes_and_predictors():
    pairs = make_pairs().set_index(["source", "target"])
    assert len(pairs) == 60
    row = pairs.loc["a", "c"]
    assert row[["accuracy", "gain", "majority"]].tolist() == pytest.approx([80, 20, 52])
    assert row[["auc", "auc_gain"]].tolist() == pytest.approx([85, 20])
    assert row["cosine"] == pytest.approx(0.5**0.5)
    assert row["wasserstein"] == pytest.approx(0.5)
    assert row["random"] == pytest.approx(1)
    assert row["log_rows"] == pytest.approx(np.log(10))
    assert pairs.loc["e", "f"]["cosine"] == pytest.approx(1)


def test_pairs_need_every_cell():
    grid = make_grid()
    lost = (grid["source"] == "a") & (grid["target"] == "b") & (grid["method"] == "last_layer")
    with pytest.raises(ValueError, match=r"grid 'first' has no accuracy of \('last_layer', 4\) from 'a' to 'b'"):
        make_pairs(grid=grid[~lost])
    with pytest.raises(ValueError, match="every source must be a target too"):
        make_pairs(grid=grid[grid["target"] != "a"])


def test_correlations_find_what_was_built_in():
    table = correlations_of().set_index(["scope", "outcome", "predictor", "correlation"])
    assert len(table) == 3 * 4 * len(PREDICTORS) * 2
    for scope, pairs in {"first": 30, "second": 30, WITHIN: 60}.items():
        row = table.loc[scope, "accuracy", "wasserstein", "spearman"]
        assert row["estimate"] == pytest.approx(1)
        assert row["p"] < 0.01
        assert row["pairs"] == pairs
    assert np.isnan(table.loc[WITHIN, "accuracy", "majority", "pearson"]["estimate"])
    assert np.isnan(table.loc["first", "accuracy", "random", "pearson"]["estimate"])


def test_claims_are_judged_by_the_permutations():
    claims = prediction_claims(correlations_of(), make_pairs(), {"sentiment": "first", "pairs": "second"})
    assert [claim["id"].removeprefix("prediction.") for claim in claims] == ["sentiment", "pairs", "accuracy", "gain"]
    assert {claim["verdict"] for claim in claims} == {"reproduced"}
    assert all(claim["p"] < 0.05 for claim in claims)
    assert all(claim["interval"][1] <= 1 for claim in claims)


def test_the_table_for_reading_keeps_a_predictor_without_variation():
    table = prediction_table(correlations_of(), "accuracy")
    assert len(table) == 3 * len(PREDICTORS)
    assert np.isnan(table.loc[(WITHIN, "majority class of the target"), "Spearman"])


def test_figures_tell_generated_data():
    pairs = make_pairs(prefix="miniature:")
    scatter = similarity_scatter(pairs, "accuracy", generated=True, title="Transfer")
    predictors = predictor_plot(correlations_of("miniature:"), generated=True, title="Predictors")
    assert all(figure.get_suptitle().endswith("(generated data)") for figure in (scatter, predictors))
    assert [axes.get_title(loc="left") for axes in scatter.axes[:2]] == ["a: ρ 1.00", "b: ρ 0.97"]
    assert [text.get_text() for text in scatter.axes[0].texts] == list("bcdef")
    assert [axes.get_title(loc="left") for axes in predictors.axes[:3]] == ["first", "second", WITHIN]


def test_pairs_below_the_majority_class_are_counted_and_make_no_plain_verdict():
    pairs = make_pairs()
    assert below_majority(pairs) == 0
    pairs.loc[pairs["task"] == "first", "majority"] = 99.0
    assert below_majority(pairs) == 30
    correlations = correlations_of()  # the majority class is not correlated again
    claims = prediction_claims(correlations, pairs, {"sentiment": "first", "pairs": "second"})
    assert [reading(row) for row in claims[:2]] == ["reproduced, below the majority class", "reproduced"]
    text = prediction_answer(claims, correlations, pairs)
    assert "no better than the majority class: 30 of 30 (first), 0 of 30 (second)." in text


def test_what_chance_gives_is_shown_with_both_ends():
    correlations = correlations_of()
    shown = prediction_table(correlations, "auc").loc[("first", "cosine"), "by chance"]
    rows = correlations.set_index(["scope", "outcome", "predictor", "correlation"])
    low, high = rows.loc[("first", "auc", "cosine", "spearman"), ["null_low", "null_high"]]
    assert shown == f"{low:.2f} to {high:.2f}"
    assert low < 0 < high
