"""Intervals over the target's rows, paired comparisons and overlaps."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from tsns_workbook import statistics
from tsns_workbook.few_runs import hits_of
from tsns_workbook.statistics import (
    CELL,
    McNemar,
    accuracy_table,
    average_table,
    best_sources,
    bootstrap,
    bootstrap_weights,
    contest,
    difference,
    gain_table,
    mcnemar,
    wins,
)

A, B = ("tsns", 2), ("last_layer", 4)
vectors = st.integers(1, 30).flatmap(lambda n: st.tuples(*[st.lists(st.booleans(), min_size=n, max_size=n)] * 2))


def make_grid(cells):
    """One row per (source, target, method, k, run) -> correct."""
    rows = [(*cell, np.mean(correct), len(correct), np.array(correct, bool)) for cell, correct in cells.items()]
    return pd.DataFrame(rows, columns=[*CELL, "run", "accuracy", "n", "correct"])


def random_grid(n=200, levels=(0.8, 0.6), seed=0):
    rng = np.random.default_rng(seed)
    pairs = [(s, t) for s in "xyz" for t in "xyz" if s != t]
    return make_grid(
        {(*pair, *key, 0): rng.random(n) < level for pair in pairs for key, level in zip((A, B), levels, strict=True)}
    )


def test_weights_count_n_rows_in_every_resample():
    weights = bootstrap_weights(7, seed=1, n_boot=50)
    assert weights.shape == (50, 7)
    assert weights.dtype == np.float32
    assert (weights.sum(axis=1) == 7).all()


def test_weights_depend_on_the_seed_alone():
    assert (bootstrap_weights(50, 3, 20) == bootstrap_weights(50, 3, 20)).all()
    assert (bootstrap_weights(50, 3, 20) != bootstrap_weights(50, 4, 20)).any()


def test_weights_are_multinomial():
    weights = bootstrap_weights(20, seed=0, n_boot=4000)
    assert np.allclose(weights.mean(axis=0), 1, atol=0.08)
    assert np.allclose(weights.var(axis=0), 1 - 1 / 20, atol=0.12)


def test_blocks_bound_the_memory_not_the_result(monkeypatch):
    grid = random_grid()
    expected = accuracy_table(bootstrap(grid))
    monkeypatch.setattr(statistics, "BLOCK", 1000)
    pd.testing.assert_frame_equal(accuracy_table(bootstrap(grid)), expected)


def test_weights_refuse_an_empty_target():
    with pytest.raises(ValueError, match="n must be at least 1, not 0"):
        bootstrap_weights(0, seed=0)


def test_accuracy_is_the_mean_over_runs_in_percent():
    grid = make_grid({("a", "b", *A, 0): [1, 1, 0, 0], ("a", "b", *A, 1): [1, 1, 1, 0]})
    row = accuracy_table(bootstrap(grid)).iloc[0]
    assert row["accuracy"] == 62.5
    assert (row["n"], row["runs"]) == (4, 2)
    assert row["low"] <= 62.5 <= row["high"]


def test_certain_accuracy_has_no_width():
    table = accuracy_table(bootstrap(make_grid({("a", "b", *A, 0): [1] * 9, ("a", "b", *B, 0): [0] * 9})))
    assert table[["accuracy", "low", "high"]].to_numpy().tolist() == [[100, 100, 100], [0, 0, 0]]


def test_interval_agrees_with_the_binomial():
    n = 2000
    row = accuracy_table(bootstrap(make_grid({("a", "b", *A, 0): np.arange(n) < 0.75 * n}))).iloc[0]
    low, high = 100 * binom.ppf([0.025, 0.975], n, 0.75) / n
    assert row["low"] == pytest.approx(low, abs=0.2)
    assert row["high"] == pytest.approx(high, abs=0.2)


def test_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    grid = make_grid({(f"s{i}", "t", *A, 0): rng.random(300) < 0.7 for i in range(400)})
    table = accuracy_table(bootstrap(grid))
    covered = ((table["low"] <= 70) & (table["high"] >= 70)).mean()
    assert 0.91 < covered < 0.98


def test_cells_of_one_target_share_the_drawn_rows():
    half = np.arange(40) < 20
    grid = make_grid({("a", "t", *A, 0): half, ("b", "t", *A, 0): half, ("a", "u", *A, 0): half})
    draws = bootstrap(grid).draws
    assert (draws["a", "t", *A] == draws["b", "t", *A]).all()
    assert (draws["a", "t", *A] != draws["a", "u", *A]).any()


def test_average_counts_the_rows_of_a_target_once():
    half = np.arange(400) < 200
    shared = average_table(bootstrap(make_grid({(s, "t", *A, 0): half for s in "abcd"}))).iloc[0]
    apart = average_table(bootstrap(make_grid({("s", t, *A, 0): half for t in "abcd"}))).iloc[0]
    assert shared["accuracy"] == apart["accuracy"] == 50
    assert shared["pairs"] == apart["pairs"] == 4
    assert (shared["high"] - shared["low"]) == pytest.approx(2 * (apart["high"] - apart["low"]), rel=0.15)


def test_average_refuses_a_method_that_misses_a_pair():
    grid = random_grid().iloc[:-1]
    with pytest.raises(ValueError, match="source='z', target='y', method='last_layer', k=4"):
        average_table(bootstrap(grid))


def test_difference_is_paired():
    a = np.arange(100) < 80
    b = np.arange(100) < 70
    estimate, low, high = difference(bootstrap(make_grid({("s", "t", *A, 0): a, ("s", "t", *B, 0): b})), A, B)
    assert estimate == pytest.approx(10)
    assert 3 < low < 10 < high < 17  # unpaired, the same figures would reach below 0


def test_difference_of_a_method_from_itself_is_zero():
    assert difference(bootstrap(random_grid()), A, A) == (0, 0, 0)


def test_difference_over_chosen_pairs():
    grid = random_grid()
    table = gain_table(bootstrap(grid), A, B).set_index(["source", "target"])["gain"]
    chosen = difference(bootstrap(grid), A, B, [("x", "y"), ("z", "x")])
    assert chosen.estimate == pytest.approx((table["x", "y"] + table["z", "x"]) / 2)


@pytest.mark.parametrize(("pairs", "missing"), [([("x", "nowhere")], "nowhere"), (None, "k=9")])
def test_difference_names_the_missing_cell(pairs, missing):
    with pytest.raises(ValueError, match=f"grid has no cell .*{missing}"):
        difference(bootstrap(random_grid()), A, ("last_layer", 4 if pairs else 9), pairs)


@settings(max_examples=20, deadline=None)
@given(vectors)
def test_difference_changes_sign_with_the_order(correct):
    a, b = correct
    grid = make_grid({("s", "t", *A, 0): a, ("s", "t", *B, 0): b})
    there, back = difference(bootstrap(grid), A, B), difference(bootstrap(grid), B, A)
    assert there == pytest.approx((-back.estimate, -back.high, -back.low))


def test_wins_count_pairs():
    assert wins(bootstrap(random_grid()), A, B) == (6, 6, 6)
    estimate, low, high = wins(bootstrap(random_grid(levels=(0.7, 0.7))), A, B)
    assert 0 <= low <= estimate <= high <= 6


def test_a_tie_is_no_win_with_any_number_of_runs():
    third = np.arange(30) % 3 == 0
    cells = {("s", "t", *A, run): third for run in range(5)} | {("s", "t", *B, 0): third}
    assert wins(bootstrap(make_grid(cells)), A, B) == (0, 0, 0)


def test_gain_table_holds_the_test_of_each_pair():
    cells = {("s", "t", *A, 0): [1, 1, 1, 1, 0, 0], ("s", "t", *B, 0): [0, 0, 0, 1, 0, 1]}
    row = gain_table(bootstrap(make_grid(cells)), A, B).iloc[0]
    assert row[["source", "target", "only_a", "only_b"]].tolist() == ["s", "t", 3, 1]
    assert row["gain"] == pytest.approx(100 / 3)
    assert row["p"] == 0.625


def margin(boot, sources, target, key):
    return contest(boot, best_sources(boot, sources, target, key))


def test_margin_is_against_the_best_other_source():
    n = np.arange(1000)
    grid = make_grid({(s, "t", *A, 0): n < 10 * level for s, level in {"a": 80, "b": 70, "c": 60}.items()})
    best = margin(bootstrap(grid), ["a"], "t", A)
    assert best.estimate == pytest.approx(10)
    assert best.low > 0
    assert margin(bootstrap(grid), ["c"], "t", A).estimate == pytest.approx(-20)


def test_margin_of_several_sources_is_that_of_the_worst():
    n = np.arange(1000)
    grid = make_grid({(s, "t", *A, 0): n < 10 * level for s, level in {"a": 80, "b": 70, "c": 60}.items()})
    assert margin(bootstrap(grid), ["a", "b"], "t", A).estimate == pytest.approx(10)
    assert margin(bootstrap(grid), ["a", "c"], "t", A).estimate == pytest.approx(-10)


def test_contests_are_averaged():
    n = np.arange(1000)
    grid = make_grid({(s, "t", *A, 0): n < 10 * level for s, level in {"a": 80, "b": 70, "c": 60}.items()})
    a, b, c = ((source, "t", *A) for source in "abc")
    assert contest(bootstrap(grid), [([a], [b, c]), ([b], [c])]).estimate == pytest.approx(10)
    assert contest(bootstrap(grid), [([c], [a]), ([b], [c])]).estimate == pytest.approx(-5)


def test_what_a_control_shows_is_taken_off_a_contest():
    n = np.arange(1000)
    levels = {("a", *A): 80, ("b", *A): 70, ("a", *B): 68, ("b", *B): 60}
    boot = bootstrap(make_grid({(s, "t", *key, 0): n < 10 * level for (s, *key), level in levels.items()}))
    ours, same = ([([("a", "t", *key)], [("b", "t", *key)])] for key in (A, B))
    beyond = contest(boot, ours, same)
    assert beyond.estimate == pytest.approx(2)  # 10 minus 8
    assert contest(boot, same).low > 0 > beyond.low  # the control's own gain is clear, and ours is not clearly larger


def test_margin_needs_a_rival():
    grid = make_grid({("a", "t", *A, 0): [1, 0]})
    with pytest.raises(ValueError, match="target 't' has no source besides a"):
        margin(bootstrap(grid), ["a"], "t", A)


def test_mcnemar_worked_example():
    # Agresti's approval ratings: 150 changed one way, 86 the other
    a = np.r_[np.ones(150), np.zeros(86), np.ones(794)].astype(bool)
    b = np.r_[np.zeros(150), np.ones(86), np.ones(794)].astype(bool)
    p, only_a, only_b = mcnemar(a, b)
    assert (only_a, only_b) == (150, 86)
    assert p == pytest.approx(2 * binom.cdf(86, 236, 0.5))
    assert p == pytest.approx(3.7e-5, rel=0.05)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 0, 1], [1, 0, 1], McNemar(1.0, 0, 0)),
        ([1] * 6, [0] * 6, McNemar(2 / 64, 6, 0)),
        ([1, 0], [0, 1], McNemar(1.0, 1, 1)),
    ],
)
def test_mcnemar_small_cases(a, b, expected):
    assert mcnemar(a, b) == pytest.approx(expected)


def test_mcnemar_of_several_runs_is_that_of_the_median_run():
    b = np.zeros(6, bool)
    runs = np.arange(6) < np.array([[0], [6], [5]])
    assert mcnemar(runs, b) == mcnemar(runs[2], b)
    assert mcnemar(runs[:2], b) == mcnemar(runs[0], b)  # of two, the less significant


@given(vectors)
def test_mcnemar_is_symmetric(correct):
    a, b = correct
    there, back = mcnemar(a, b), mcnemar(b, a)
    assert 0 < there.p <= 1
    assert (there.only_a, there.only_b, there.p) == (back.only_b, back.only_a, pytest.approx(back.p))


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((2, 3), (3, 3))])
def test_mcnemar_refuses_what_does_not_fit(shapes):
    with pytest.raises(ValueError, match="do not fit: shapes"):
        mcnemar(*(np.ones(shape, bool) for shape in shapes))


NEITHER = [
    ([True, float("nan")], "nan"),
    (["True", "False"], "'True'"),
    ([True, None], "None"),
    ([1, 2], "2"),
    (pd.array([True, pd.NA], "boolean"), "<NA>"),
]


@pytest.mark.parametrize(("answers", "shown"), NEITHER)
def test_what_is_neither_right_nor_wrong_is_refused(answers, shown):
    with pytest.raises(ValueError, match=f"correct_b: must be True or False for each row, and {shown} is neither"):
        mcnemar([True, False], answers)
    grid = make_grid({("a", "b", *A, 0): [1, 0], ("a", "b", *A, 1): [1, 0]})
    grid.at[1, "correct"] = answers
    for read in (bootstrap, hits_of):
        with pytest.raises(ValueError, match=f"correct: must be True or False for each row, and {shown} is neither"):
            read(grid)


def test_zeros_and_ones_are_answers():
    assert mcnemar(np.ones(6, np.int8), pd.Series([False] * 6, dtype=object)) == McNemar(2 / 64, 6, 0)
    assert mcnemar([1.0, 0.0], pd.array([False, True], "boolean")) == McNemar(1.0, 1, 1)
