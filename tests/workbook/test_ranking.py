"""Rankings of sources are judged by their definitions, and ties by all their orders."""

from itertools import permutations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tsns_workbook.embeddings import kinship, similarity_frame
from tsns_workbook.ranking import ahead, predictor_figure, predictor_table, ranking_measures, readable, target_table

matplotlib.use("Agg")


ACCURACIES = [0.5, 0.7, 0.6, 0.9]


def test_the_order_itself_is_perfect():
    measures = ranking_measures(ACCURACIES, ACCURACIES)
    assert measures == pytest.approx({"ndcg": 1, "best_rank": 1, "regret_1": 0, "regret_3": 0, "spearman": 1})


def test_a_ranking_by_hand():
    measures = ranking_measures([4, 3, 2, 1], ACCURACIES)
    gains = [2**a - 1 for a in ACCURACIES]
    dcg = sum(gain / np.log2(rank + 2) for rank, gain in enumerate(gains))
    ideal = sum(gain / np.log2(rank + 2) for rank, gain in enumerate(sorted(gains, reverse=True)))
    assert measures["ndcg"] == pytest.approx(dcg / ideal)
    assert measures["best_rank"] == 4
    assert measures["regret_1"] == pytest.approx(100 * (0.9 - 0.5) / 0.9)
    assert measures["regret_3"] == pytest.approx(100 * (0.9 - 0.7) / 0.9)
    assert measures["spearman"] == pytest.approx(-0.8)


def test_sources_that_are_all_tied_have_the_mean_of_all_orders():
    measures = ranking_measures([0, 0, 0, 0], ACCURACIES)
    gains = [2**a - 1 for a in ACCURACIES]
    ideal = sum(gain / np.log2(rank + 2) for rank, gain in enumerate(sorted(gains, reverse=True)))
    dcgs = [sum(gain / np.log2(rank + 2) for rank, gain in enumerate(order)) for order in permutations(gains)]
    best_of_three = [max(order[:3]) for order in permutations(ACCURACIES)]
    assert measures["ndcg"] == pytest.approx(np.mean(dcgs) / ideal)
    assert measures["best_rank"] == (4 + 1) / 2
    assert measures["regret_1"] == pytest.approx(100 * (0.9 - np.mean(ACCURACIES)) / 0.9)
    assert measures["regret_3"] == pytest.approx(100 * (0.9 - np.mean(best_of_three)) / 0.9)
    assert measures["spearman"] == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.2, 0.5, 0.8, 0.9])), min_size=2, max_size=5))
def test_ties_between_some_sources_have_the_mean_of_their_orders(sources):
    scores, accuracies = zip(*sources, strict=True)
    measures = ranking_measures(scores, accuracies)
    orders = [order for order in permutations(sources) if list(order) == sorted(order, key=lambda pair: -pair[0])]
    rankings = [[accuracy for _, accuracy in order] for order in orders]
    best = max(accuracies)
    assert measures["best_rank"] == pytest.approx(np.mean([1 + ranking.index(best) for ranking in rankings]))
    for k in (1, 3):
        regret = np.mean([100 * (best - max(ranking[:k])) / best for ranking in rankings])
        assert measures[f"regret_{k}"] == pytest.approx(regret, abs=1e-9)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=8, unique=True), st.randoms())
def test_no_ranking_beats_the_order_itself(accuracies, random):
    scores = random.sample(range(len(accuracies)), len(accuracies))
    measures = ranking_measures(scores, accuracies)
    assert measures["ndcg"] <= 1 + 1e-9
    assert 1 <= measures["best_rank"] <= len(accuracies)
    assert 0 <= measures["regret_3"] <= measures["regret_1"] <= 100


@pytest.mark.parametrize(
    ("scores", "accuracies", "message"),
    [
        ([1.0], [0.5], "at least two sources"),
        ([1.0, 2.0], [0.5], "at least two sources"),
        ([1.0, np.nan], [0.5, 0.6], "a value is not finite"),
    ],
)
def test_what_cannot_be_ranked_is_named(scores, accuracies, message):
    with pytest.raises(ValueError, match=message):
        ranking_measures(scores, accuracies)


@pytest.fixture
def pairs():
    names = list("abcdef")
    rng = np.random.default_rng(0)
    rows = [(a, b, rng.uniform(0.5, 0.9)) for b in names for a in names if a != b]
    frame = pd.DataFrame(rows, columns=["source", "target", "tuned"])
    return frame.assign(oracle=frame["tuned"], inverse=-frame["tuned"], random=0.0)


def test_an_oracle_is_ahead_and_chance_has_no_correlation(pairs):
    targets = target_table(pairs, ["oracle", "inverse", "random"], ["tuned"])
    assert len(targets) == 18
    gap = ahead(targets, "tuned", "oracle", "random")
    assert gap.low > 0 and gap.low <= gap.estimate <= gap.high
    assert ahead(targets, "tuned", "oracle", "oracle") == (0, 0, 0)
    scores = predictor_table(targets).set_index(["predictor", "measure"])
    assert scores.loc[("oracle", "ndcg"), ["estimate", "low", "high"]].tolist() == pytest.approx([1, 1, 1])
    assert scores.loc[("inverse", "spearman"), "estimate"] == pytest.approx(-1)
    assert scores.loc[("random", "spearman"), "estimate"] == 0
    assert set(scores["targets"]) == {6}


def test_the_table_has_the_best_first_and_the_cost_beside_it(pairs):
    names = {"oracle": "the oracle", "inverse": "its inverse", "random": "random"}
    costs = {"oracle": 12.345, "inverse": 1.0, "random": 0.0}
    scores = predictor_table(target_table(pairs, list(names), ["tuned"]))
    table = readable(scores, "tuned", names, costs)
    assert table.index.tolist() == ["the oracle", "random", "its inverse"]
    assert table.loc["the oracle"].tolist()[:2] == ["1.000 (1.000 to 1.000)", "1.00 (1.00 to 1.00)"]
    assert table["seconds per source"].tolist() == pytest.approx([12.345, 0, 1], abs=0.01)
    figure = predictor_figure(scores, names, costs, generated=True, title="What predicts transfer?")
    assert figure.get_suptitle() == "What predicts transfer? (generated data)"
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["the oracle", "its inverse"]


def test_kin_are_told_from_strangers():
    tasks = {name: "letters" if name in "abcde" else "digits" for name in "abcde12345"}
    alike = similarity_frame(list(tasks), lambda a, b: 0.9 if tasks[a] == tasks[b] else 0.4)
    gap = kinship(alike, tasks)
    assert gap.estimate == pytest.approx(50) and gap.low > 0
    even = kinship(similarity_frame(list(tasks), lambda a, b: 0.7), tasks)
    assert even == pytest.approx((0, 0, 0))


def test_one_task_has_no_strangers():
    alike = similarity_frame(["a", "b"], lambda a, b: 1.0)
    with pytest.raises(ValueError, match="tasks: need two"):
        kinship(alike, {"a": "letters", "b": "letters"})
