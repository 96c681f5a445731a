"""Correlations and kinship over pairs that share their sources, and means over sources."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr, ttest_1samp, ttest_ind
from tsns_workbook.dyads import correlate, groups_of, kinship, t_interval

NAMES = list("abcdef")
OFF = ~np.eye(6, dtype=bool)


def square(seed):
    return np.random.default_rng(seed).normal(size=(6, 6))


def likeness(seed):
    matrix = square(seed)
    return matrix + matrix.T


@pytest.mark.parametrize(("correlation", "reference"), [("spearman", spearmanr), ("pearson", pearsonr)])
def test_estimate_is_scipys_over_the_pairs(correlation, reference):
    x, y = square(0), square(1)
    assert correlate([(x, y)], correlation).estimate == pytest.approx(reference(x[OFF], y[OFF]).statistic)


def test_within_targets_the_columns_do_not_matter():
    x, y = square(0), square(1)
    moved = y + 100 * np.arange(6)
    for correlation in ("spearman", "pearson"):
        expected = correlate([(x, y)], correlation, within=True)
        assert correlate([(x, moved)], correlation, within=True) == pytest.approx(expected)


def test_within_targets_is_the_mean_of_the_columns_for_spearman():
    x, y = square(0), square(1)
    columns = [spearmanr(x[OFF[:, j], j], y[OFF[:, j], j]).statistic for j in range(6)]
    assert correlate([(x, y)], "spearman", within=True).estimate == pytest.approx(np.mean(columns))


def test_the_diagonal_is_never_read():
    x, y = square(0), square(1)
    broken = x.copy()
    np.fill_diagonal(broken, 1e9)
    for correlation in ("spearman", "pearson"):
        assert correlate([(x, y)], correlation) == pytest.approx(correlate([(broken, y)], correlation))


def test_perfect_prediction_is_as_rare_as_permutations_allow():
    x = likeness(0)
    correlation = correlate([(x, x)], "spearman")
    assert correlation.estimate == pytest.approx(1)
    assert 0.0004 <= correlation.p < 0.012  # twice 1 of 720 permutations
    assert correlation.null_high < 1
    assert (correlation.left_out_low, correlation.left_out_high) == pytest.approx((1, 1))


def test_the_test_keeps_its_level_where_pairs_share_sources():
    """An effect of the source on both sides: treating pairs as independent would reject far too often."""
    rng = np.random.default_rng(0)
    p, naive = [], []
    for _ in range(150):
        x, y = (rng.normal(size=(6, 1)) + 0.3 * rng.normal(size=(6, 6)) for _ in range(2))
        p.append(correlate([(x, y)], "pearson").p)
        naive.append(pearsonr(x[OFF], y[OFF], alternative="two-sided").pvalue)
    assert np.mean(np.array(p) < 0.05) < 0.10
    assert np.mean(np.array(naive) < 0.05) > 0.15


def test_leaving_out_the_one_source_that_carries_it():
    x, y = np.zeros((6, 6)), np.zeros((6, 6))
    x[0], y[0] = 5, 7
    noise = 0.01 * square(2), 0.01 * square(3)
    correlation = correlate([(x + noise[0], y + noise[1])], "pearson")
    assert correlation.estimate > 0.99
    assert correlation.left_out_low < 0.3


def test_a_predictor_without_variation_gives_nothing():
    assert np.isnan(correlate([(np.ones((6, 6)), square(0))], "spearman")).all()
    columns = np.tile(np.arange(6.0), (6, 1)) / 3
    assert np.isnan(correlate([(columns, square(0))], "pearson", within=True)).all()


def test_same_seed_same_permutations():
    pair = (likeness(0), square(1))
    assert correlate([pair], "spearman", seed=3) == correlate([pair], "spearman", seed=3)
    assert correlate([pair], "spearman", seed=3).p != correlate([pair], "spearman", seed=4).p


@pytest.mark.parametrize(
    ("relations", "correlation", "message"),
    [
        (
            [(np.ones((6, 6)), np.ones((6, 6)))],
            "kendall",
            "correlation: must be 'spearman' or 'pearson', got 'kendall'",
        ),
        ([(np.ones((3, 3)), np.ones((3, 3)))], "pearson", "need at least four sources in every group, got 3"),
    ],
)
def test_bad_relations_are_one_clear_line(relations, correlation, message):
    with pytest.raises(ValueError, match=message):
        correlate(relations, correlation)


def test_a_mean_over_sources_has_their_t_interval():
    values = [7.9, 6.3, 16.4]
    expected = ttest_1samp(values, 0)
    assert t_interval(values) == pytest.approx((10.2, *expected.confidence_interval(0.95), expected.pvalue))
    assert t_interval([2.0, 2.0]) == (2.0, 2.0, 2.0, 0.0)


def test_two_groups_of_sources_are_compared_by_welchs_interval():
    values, others = [92.1, 93.2, 97.3], [92.7, 96.2, 90.9, 93.0, 92.9, 97.0, 87.5, 88.2, 84.6]
    expected = ttest_ind(values, others, equal_var=False)
    found = t_interval(values, others)
    assert found[1:] == pytest.approx((*expected.confidence_interval(0.95), expected.pvalue))
    assert found.low < found.estimate < found.high


def test_what_is_not_finite_is_named():
    holed = square(1)
    holed[2, 3] = np.nan
    np.fill_diagonal(holed, np.nan)  # which is never read
    with pytest.raises(ValueError, match="relations: the outcome is nan for sources 2 and 3"):
        correlate([(square(0), holed)], "spearman")
    with pytest.raises(ValueError, match="relations: the predictor is nan for sources 2 and 3"):
        correlate([(holed, square(0))], "pearson", within=True)
    with pytest.raises(ValueError, match="others: a value is not finite, inf in place 1"):
        t_interval([1.0, 2.0], [3.0, np.inf])


def test_one_source_has_no_interval():
    with pytest.raises(ValueError, match="at least two sources"):
        t_interval([1.0])


TASKS = dict(zip(NAMES, "xxxyyy", strict=True))


def test_kin_within_a_group_are_found_and_chance_is_counted_in_sources():
    alike = pd.DataFrame(np.kron(np.eye(2), np.ones((3, 3))), NAMES, NAMES)
    found = kinship(alike, TASKS)
    assert found.estimate == pytest.approx(100)
    assert (
        0.1 < found.p < 0.35
    )  # 2 of the 20 ways to choose 3 of 6, two-sided: three against three cannot be significant
    turned = kinship(-alike, TASKS)
    assert turned.estimate == pytest.approx(-100)
    assert turned.high >= 0


def test_kinship_keeps_its_level():
    rng = np.random.default_rng(0)
    names = list("abcdefghij")
    groups = dict(zip(names, "xxxxxyyyyy", strict=True))
    p = [kinship(pd.DataFrame(m + m.T, names, names), groups).p for m in rng.normal(size=(100, 10, 10))]
    assert np.mean(np.array(p) < 0.05) <= 0.10


def test_kinship_needs_groups_for_all():
    alike = pd.DataFrame(np.eye(6), NAMES, NAMES)
    with pytest.raises(ValueError, match="groups: says nothing of f"):
        kinship(alike, {name: "x" for name in "abcde"})
    with pytest.raises(ValueError, match="groups: need two"):
        kinship(alike, dict.fromkeys(NAMES, "x"))


def test_a_group_may_be_empty_but_not_too_small():
    four = dict.fromkeys("abcd", "train")
    assert groups_of(sentiment={}, pairs=four) == {"pairs": ["a", "b", "c", "d"]}
    with pytest.raises(ValueError, match="sentiment: a correlation over pairs of sources needs 4 of them, got 2"):
        groups_of(sentiment={"a": "train", "b": "train"}, pairs={})
    with pytest.raises(ValueError, match="sentiment, pairs: all are empty"):
        groups_of(sentiment={}, pairs={})
