"""Rankings of sources are judged by their definitions, and ties by all their orders."""

import re
from itertools import permutations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tsns_workbook.embeddings import DOMAIN, FORM, TASK, kin_claim, kin_table, kinship_within, similarity_frame
from tsns_workbook.ranking import (
    above_chance,
    ahead,
    chance_table,
    leave_out,
    predictor_figure,
    predictor_table,
    ranking_measures,
    readable,
    sentence,
    target_table,
)

matplotlib.use("Agg")


ACCURACIES = [0.5, 0.7, 0.6, 0.9]


def test_the_order_itself_is_perfect():
    measures = ranking_measures(ACCURACIES, ACCURACIES)
    assert measures == pytest.approx({"ndcg": 1, "best_rank": 1, "regret_1": 0, "regret_3": 0, "spearman": 1})


def dcg(accuracies):
    return sum((2**accuracy - 1) / np.log2(rank + 2) for rank, accuracy in enumerate(accuracies))


def rescaled(value, accuracies):
    """NDCG between the mean of all orders and the best order."""
    dcgs = [dcg(order) for order in permutations(accuracies)]
    return (value - np.mean(dcgs)) / (max(dcgs) - np.mean(dcgs))


def test_a_ranking_by_hand():
    measures = ranking_measures([4, 3, 2, 1], ACCURACIES)
    assert measures["ndcg"] == pytest.approx(rescaled(dcg(ACCURACIES), ACCURACIES))
    assert measures["ndcg"] == pytest.approx(-0.759067, abs=1e-6)
    assert measures["best_rank"] == 4
    assert measures["regret_1"] == pytest.approx(100 * (0.9 - 0.5) / 0.9)
    assert measures["regret_3"] == pytest.approx(100 * (0.9 - 0.7) / 0.9)
    assert measures["spearman"] == pytest.approx(-0.8)


def test_sources_that_are_all_tied_have_the_mean_of_all_orders():
    measures = ranking_measures([0, 0, 0, 0], ACCURACIES)
    best_of_three = [max(order[:3]) for order in permutations(ACCURACIES)]
    assert measures["ndcg"] == pytest.approx(0)
    assert measures["best_rank"] == (4 + 1) / 2
    assert measures["regret_1"] == pytest.approx(100 * (0.9 - np.mean(ACCURACIES)) / 0.9)
    assert measures["regret_3"] == pytest.approx(100 * (0.9 - np.mean(best_of_three)) / 0.9)
    assert measures["spearman"] == 0
    assert ranking_measures([3, 2, 1], [0.7, 0.7, 0.7])["ndcg"] == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.2, 0.5, 0.8, 0.9])), min_size=2, max_size=5))
def test_ties_between_some_sources_have_the_mean_of_their_orders(sources):
    scores, accuracies = zip(*sources, strict=True)
    measures = ranking_measures(scores, accuracies)
    orders = [order for order in permutations(sources) if list(order) == sorted(order, key=lambda pair: -pair[0])]
    rankings = [[accuracy for _, accuracy in order] for order in orders]
    best = max(accuracies)
    assert measures["best_rank"] == pytest.approx(np.mean([1 + ranking.index(best) for ranking in rankings]))
    if len(set(accuracies)) > 1:
        expected = np.mean([rescaled(dcg(ranking), accuracies) for ranking in rankings])
        assert measures["ndcg"] == pytest.approx(expected, abs=1e-9)
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
    rows = [("letters", a, b, rng.uniform(0.5, 0.9)) for b in names for a in names if a != b]
    frame = pd.DataFrame(rows, columns=["task", "source", "target", "tuned"])
    return frame.assign(oracle=frame["tuned"], inverse=-frame["tuned"], random=0.0)


NAMES = {"oracle": "the oracle", "inverse": "its inverse", "random": "random"}


def test_an_oracle_is_ahead_and_chance_is_0(pairs):
    assert len(target_table(pairs, list(NAMES), ["tuned"])) == 18
    means = leave_out(pairs, list(NAMES), ["tuned"])
    assert means.index.tolist() == ["", *"abcdef"]
    gap = ahead(means, "tuned", "oracle", "random")
    assert gap == pytest.approx((100, 100, 100))
    assert ahead(means, "tuned", "oracle", "oracle") == (0, 0, 0)
    with pytest.raises(ValueError, match="means: predictor 'luck' is not judged by 'tuned'"):
        ahead(means, "tuned", "oracle", "luck")
    scores = predictor_table(means).set_index(["predictor", "measure"])
    assert scores.loc[("oracle", "ndcg"), ["estimate", "low", "high"]].tolist() == pytest.approx([1, 1, 1])
    assert scores.loc[("inverse", "spearman"), "estimate"] == pytest.approx(-1)
    assert scores.loc[("random", "spearman"), "estimate"] == 0


def test_an_interval_is_the_jackknife_over_sources(pairs):
    pairs = pairs.assign(random=np.random.default_rng(1).normal(size=len(pairs)))
    scores = predictor_table(leave_out(pairs, ["random"], ["tuned"])).set_index("measure")
    of = {"": pairs} | {name: pairs[~(pairs[["source", "target"]] == name).any(axis=1)] for name in "abcdef"}
    means = {name: target_table(rows, ["random"], ["tuned"])["ndcg"].mean() for name, rows in of.items()}
    without = np.array([means[name] for name in "abcdef"])
    half = 2.570582 * np.sqrt(5 / 6 * ((without - without.mean()) ** 2).sum())  # t with 5 degrees of freedom
    expected = [means[""], means[""] - half, min(1, means[""] + half)]  # no NDCG is above 1
    assert scores.loc["ndcg", ["estimate", "low", "high"]].tolist() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="at least three sources, got 2"):
        leave_out(pairs[pairs[["source", "target"]].isin([*"abc"]).all(axis=1)], ["random"], ["tuned"])


def test_chance_permutes_sources_as_sources_and_targets(pairs):
    found = above_chance(pairs, "oracle", "tuned")
    assert found.estimate == pytest.approx(100) and 0 < found.low < 100 < found.high and found.p < 0.01
    assert above_chance(pairs, "random", "tuned") == pytest.approx((0, 0, 0, 1))
    table = chance_table(pairs, ["oracle", "inverse", "random"], ["tuned"]).set_index("predictor")
    assert table["spearman"].tolist()[:2] == pytest.approx([1, -1])
    assert 0.2 < table.loc["oracle", "detectable"] < 0.6 and table.loc["oracle", "p"] < 0.01
    assert table.loc["random", ["spearman", "detectable", "p"]].isna().all()


def by_lists(judge):
    return lambda pairs, *names: judge(pairs, *([name] for name in names))


@pytest.mark.parametrize("judge", [above_chance, by_lists(chance_table), by_lists(target_table), by_lists(leave_out)])
def test_a_gap_in_the_pairs_is_named(pairs, judge):
    for name in ("oracle", "tuned"):
        for gap in (np.nan, np.inf):
            holed = pairs.assign(**{name: pairs[name].mask(pairs.index == 7, gap)})
            with pytest.raises(ValueError, match=f"^{name}: is {gap} for d → b$"):
                judge(holed, "oracle", "tuned")
    for rows, count in ((pairs.drop(index=7), 0), (pd.concat([pairs, pairs[7:8]]), 2)):
        with pytest.raises(ValueError, match=f"^pairs: has {count} rows of d → b, and one is needed$"):
            judge(rows, "oracle", "tuned")
    with pytest.raises(ValueError, match="^pairs: has no column 'task'$"):
        judge(pairs.drop(columns="task"), "oracle", "tuned")
    with pytest.raises(ValueError, match="^pairs: has no rows$"):
        judge(pairs[:0], "oracle", "tuned")


def test_a_predictor_that_knows_the_best_source_is_above_chance_whoever_the_target_is():
    names = list("abcdef")
    quality = dict(zip(names, range(6), strict=True))
    rows = [("letters", a, b, 0.5 + quality[a] / 20, float(quality[a])) for b in names for a in names if a != b]
    pairs = pd.DataFrame(rows, columns=["task", "source", "target", "tuned", "size"])
    assert above_chance(pairs, "size", "tuned").low > 0
    assert above_chance(pairs.assign(size=pairs["target"].map(quality)), "size", "tuned").estimate == 0


def test_the_table_has_the_best_first_and_the_cost_beside_it(pairs):
    costs = {"oracle": 12.345, "inverse": 1.0, "random": 0.0}
    scores = predictor_table(leave_out(pairs, list(NAMES), ["tuned"]))
    table = readable(scores, "tuned", NAMES, costs)
    assert table.index.tolist() == ["the oracle", "random", "its inverse"]
    assert table.loc["the oracle"].tolist()[:2] == ["1.00 (1.00 to 1.00)", "1.00 (1.00 to 1.00)"]
    assert table["seconds per source"].tolist() == pytest.approx([12.345, 0, 1], abs=0.01)
    figure = predictor_figure(scores, NAMES, costs, generated=True, title="What predicts transfer?")
    assert figure.get_suptitle() == "What predicts transfer? (generated data)"
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["the oracle", "its inverse"]
    said = sentence(scores, chance_table(pairs, list(NAMES), ["tuned"]), "tuned", NAMES)
    opening = "By tuned, the oracle ranks the sources best: NDCG 1.00 (1.00 to 1.00), where chance is 0"
    assert said.startswith(
        f"{opening} and the best order 1. Told from chance (sources permuted, ranks pooled over the targets) once the "
        "2 predictors share one error of 5 %: the oracle (ρ = 1.00, p = 0.00"
    )
    assert re.search(r"\); before that, too: none\. A correlation below 0\.[2-5]\d could not have been seen\.$", said)


LETTERS, DIGITS = "abcdef", "123456"
FORMS = {name: "single texts" if name in LETTERS else "pairs" for name in LETTERS + DIGITS}


def test_kin_are_told_from_strangers_of_the_same_form():
    groups = dict(zip(LETTERS + DIGITS, "ppppqqppppqq", strict=True))
    alike = similarity_frame(list(groups), lambda a, b: 0.9 if groups[a] == groups[b] else 0.4)
    found, least = kinship_within(alike, groups, FORMS)
    assert found.estimate == pytest.approx(50) and found.low > 0
    assert found.p == least == pytest.approx(2 / 15**2, abs=0.005)  # 15 ways to choose two of six, twice
    even, least = kinship_within(similarity_frame(list(groups), lambda a, b: 0.7), groups, FORMS)
    assert even == pytest.approx((0, 0, 0, 1)) and least == 1


def test_single_texts_are_not_taken_for_kin():
    tasks = {name: "sentiment" if name in LETTERS else "entailment" for name in FORMS} | {"5": "news", "6": "news"}
    alike = similarity_frame(list(tasks), lambda a, b: 0.9 if FORMS[a] == FORMS[b] else 0.1)
    table = kin_table({"text": alike}, tasks, FORMS).set_index("more alike within")
    assert table.loc[FORM, "low"] > 0  # they are told from pairs, which looks like a task
    assert table.loc[TASK, ["estimate", "p"]].tolist() == [0, 1]


def test_a_test_that_no_order_of_the_groups_could_pass_is_not_testable():
    groups = dict(zip(DIGITS, "ppppqq", strict=True))
    alike = similarity_frame(list(groups), lambda a, b: 0.9 if groups[a] == groups[b] else 0.4)
    found, least = kinship_within(alike, groups, dict.fromkeys(groups, "pairs"))
    assert found.p == least == pytest.approx(2 / 15, abs=0.02)
    row = {"embedding": "task", "more alike within": TASK} | found._asdict() | {"least p": least}
    assert kin_claim("embeddings.task_kin", pd.DataFrame([row]), "task", TASK)["verdict"] == "not testable here"
    row |= {"more alike within": DOMAIN, "least p": 0.01}
    assert kin_claim("embeddings.text_kin", pd.DataFrame([row]), "task", DOMAIN)["ours"] == pytest.approx(50)


def test_one_group_has_no_strangers():
    alike = similarity_frame(["a", "b"], lambda a, b: 1.0)
    found, least = kinship_within(alike, {"a": "letters", "b": "letters"}, {"a": "x", "b": "x"})
    assert np.isnan(found.estimate) and least == 1
