"""Several sources: water-filling, pairs, ranks, and MultiTSNS against a plain loop."""

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from tsns_lib import MultiTSNS, SingleTSNS, aggregate, meta_importance, resampled_importance, source_pairs, water_fill
from tsns_lib.classifier import ALPHAS, C_GRID, cv_accuracy, cv_best_C, fit_classifier, fit_on, scaler_of, search_alpha
from tsns_lib.sampling import derive_seed, resample_rows
from tsns_lib.selectors import fit_together

SMALL = {"n_resamples": 4, "n_trees": 8, "n_jobs": 1}
sizes = st.lists(st.integers(0, 40), min_size=1, max_size=6)


@given(sizes, st.integers(0, 200))
def test_water_filling_spends_the_budget_and_overfills_nobody(size, budget):
    share = water_fill(size, budget)
    assert share.sum() == min(budget, sum(size))
    assert (share <= size).all() and (share >= 0).all()


@given(sizes, st.integers(0, 200))
def test_more_budget_takes_from_nobody(size, budget):
    assert (water_fill(size, budget) <= water_fill(size, budget + 1)).all()


@given(sizes, st.integers(0, 200))
def test_one_level_for_all_up_to_the_remainder(size, budget):
    share = water_fill(size, budget)
    short = [taken for taken, there in zip(share, size, strict=True) if taken < there]
    assert not short or max(share) - min(short) <= 1
    for a, b in combinations(range(len(size)), 2):
        if size[a] == size[b]:
            assert share[a] - share[b] in (0, 1)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 20))
def test_water_filling_is_pouring_row_by_row(size, budget):
    share = [0] * len(size)
    for _ in range(min(budget, sum(size))):
        open_sources = [m for m in range(len(size)) if share[m] < size[m]]
        share[min(open_sources, key=lambda m: (share[m], m))] += 1
    assert water_fill(size, budget).tolist() == share


@pytest.mark.parametrize(
    ("size", "budget", "message"),
    [
        ([], 3, "sizes: must be a non-empty list"),
        ([3, -1], 3, "sizes: must be a non-empty list"),
        ([3.5], 3, "sizes: must be a non-empty list"),
        ([3], -1, "budget: must be a whole number of rows, 0 or more, got -1"),
        ([3], 2.5, "budget: must be a whole number of rows, 0 or more, got 2.5"),
    ],
)
def test_bad_budgets_are_one_clear_line(size, budget, message):
    with pytest.raises(ValueError, match=message):
        water_fill(size, budget)


@pytest.mark.parametrize("m", [2, 3, 4])
def test_numbers_of_pairs(m):
    assert len(source_pairs(m)) == m
    assert len(set(source_pairs(m, "bipartitions"))) == 2**m - 2
    assert len(set(source_pairs(m, "disjoint"))) == 3**m - 2 ** (m + 1) + 1
    for s1, s2 in chain(source_pairs(m), source_pairs(m, "bipartitions"), source_pairs(m, "disjoint")):
        assert s1 and s2 and not set(s1) & set(s2)


def test_unknown_pairings_are_one_clear_line():
    with pytest.raises(ValueError, match="pairing: must be .* got 'all'"):
        source_pairs(3, "all")
    with pytest.raises(ValueError, match="n_sources: pairs need at least 2 sources, got 1"):
        source_pairs(1)


def test_meta_importance_on_literal_values_with_ties():
    m = [[0.5, 0.1, 0.3, 0.1], [0.0, 0.0, 0.0, 1.0]]
    assert meta_importance(m).tolist() == [[1.75, 1.125, 1.5, 1.125], [1.25, 1.25, 1.25, 1.75]]
    assert aggregate(meta_importance(m)).tolist() == [3.0, 2.375, 2.75, 2.875]


@given(arrays(float, (3, 7), elements=st.floats(0, 1)), st.floats(0.1, 10))
def test_ranks_do_not_depend_on_scale(m, scale):
    assert np.array_equal(meta_importance(m * 2.0**3), meta_importance(m))
    assert meta_importance(m).sum() == pytest.approx(3 * (2 * 7 - 4))


@parametrize_with_checks([MultiTSNS(n_neurons=1, n_resamples=2, n_trees=5, n_jobs=1)])
def test_it_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def data():
    """Three sources on a grid of few values: ties everywhere."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 150)
    X = np.round(rng.normal(size=(150, 12)) + 1.5 * y[:, None] * np.isin(np.arange(12), [2, 9]), 0)
    return X, y, np.repeat(["c", "a", "b"], 50)


@pytest.mark.parametrize("pairing", ["leave_one_out", "bipartitions", "disjoint"])
def test_it_agrees_with_a_plain_loop(data, pairing):
    X, y, groups = data
    h = np.zeros(12)
    chosen_alphas = []
    for s1, s2 in source_pairs(3, pairing):
        s1, s2 = ["abc"[i] for i in s1], ["abc"[i] for i in s2]
        inside = [i for i in range(150) if groups[i] in s1]
        outside = np.array([i for i in range(150) if groups[i] in s2])
        q = resampled_importance(X[inside], y[inside], seed=derive_seed(5, "+".join(s1)), **SMALL)
        judge = outside[resample_rows(len(outside), 0.5, derive_seed(5, "gamma", *s1, "|", *s2))]
        best = (-1.0, None, None)
        for alpha in ALPHAS:
            m = alpha * q.mean(0) + (1 - alpha) * q.mean(0) / (q.std(0) + 1e-6)
            ties = np.random.default_rng(derive_seed(0, "ties", 12)).permutation(12)
            top = sorted(sorted(ties, key=lambda i: -m[i])[:3])  # noqa: B023
            scaler = StandardScaler().fit(X[inside][:, top])
            model = LogisticRegression(C=0.01, max_iter=5000).fit(scaler.transform(X[inside][:, top]), y[inside])
            accuracy = np.mean(model.predict(scaler.transform(X[judge][:, top])) == y[judge])
            if accuracy > best[0]:
                best = (accuracy, alpha, m)
        chosen_alphas.append(best[1])
        for i in range(12):
            larger, equal = sum(best[2] > best[2][i]), sum(best[2] == best[2][i])
            h[i] += (2 * 12 - (larger + (equal + 1) / 2)) / 12
    selector = MultiTSNS(3, pairing=pairing, gamma=0.5, random_state=5, **SMALL).fit(X, y, groups=groups)
    assert selector.alphas_.tolist() == chosen_alphas
    assert selector.meta_importances_ == pytest.approx(h)
    assert set(selector.selected_) >= {2, 9}


def test_the_classifier_sees_standardised_activations(data):
    X, y, _ = data
    other_units = X * np.linspace(0.01, 100, 12) + 7
    plain, scaled = fit_classifier(X, y), fit_classifier(other_units, y)
    assert scaled.decision_function(other_units) == pytest.approx(plain.decision_function(X), abs=1e-3)


def test_one_source_is_the_single_source_selector(data):
    X, y, _ = data
    single = SingleTSNS(3, random_state=5, **SMALL).fit(X, y)
    for groups in (None, ["only"] * 150):
        multi = MultiTSNS(3, random_state=5, **SMALL).fit(X, y, groups=groups)
        assert np.array_equal(multi.learner_importances_[0], single.importances_)
        assert np.array_equal(multi.selected_, single.selected_)
        assert multi.stability_ == single.stability_
        assert multi.alphas_.tolist() == [1.0]


def test_the_order_of_rows_and_names_does_not_matter_to_the_sources(data):
    X, y, groups = data
    shuffled = np.random.default_rng(1).permutation(3)
    blocks = np.concatenate([np.flatnonzero(groups == "abc"[i]) for i in shuffled])
    first = MultiTSNS(3, random_state=5, **SMALL).fit(X, y, groups=groups)
    second = MultiTSNS(3, random_state=5, **SMALL).fit(X[blocks], y[blocks], groups=groups[blocks])
    assert first.pairs_ == second.pairs_


def test_learners_share_their_forests_between_selectors(data, tmp_path):
    X, y, groups = data
    MultiTSNS(3, random_state=5, store=tmp_path, **SMALL).fit(X, y, groups=groups)
    written = set(tmp_path.rglob("*.npy"))
    MultiTSNS(5, gamma=1.0, random_state=5, store=tmp_path, **SMALL).fit(X, y, groups=groups)
    assert set(tmp_path.rglob("*.npy")) == written


def test_fitted_together_selectors_choose_as_each_does_alone(data, tmp_path):
    X, y, groups = data
    settings = {"random_state": 5, "n_resamples": 8, "n_trees": 200, "tol": 0.3}
    together = [MultiTSNS(k, store=tmp_path / "together", **settings) for k in (2, 4, 2)]
    fit_together(together, X, y, groups)
    for selector in together:
        alone = MultiTSNS(selector.n_neurons, store=tmp_path / "alone", **settings).fit(X, y, groups=groups)
        for name in ("selected_", "alphas_", "n_trees_", "learner_importances_", "meta_importances_", "term_medians_"):
            assert np.array_equal(getattr(selector, name), getattr(alone, name)), name
        assert (selector.stability_, selector.pairs_) == (alone.stability_, alone.pairs_)
    assert len({selector.n_trees_.tobytes() for selector in together}) == 2  # every K stopped alone


def test_another_run_grows_other_forests(data, tmp_path):
    X, y, groups = data
    for number_of_run in (5, 6):
        MultiTSNS(3, random_state=number_of_run, store=tmp_path, **SMALL).fit(X, y, groups=groups)
    assert len(list((tmp_path / "importance").iterdir())) == 6  # three learners a run


@pytest.mark.parametrize(
    ("labels", "fraction", "message"),
    [
        (
            lambda y, groups: np.where(groups == "c", y, 0),
            "auto",
            "y: of the sources a, b together: has one class only",
        ),
        (
            lambda y, groups: np.where(groups == "c", y, np.arange(150) == 60),
            0.1,
            r"fraction: of the sources a, b together: resample \d \(10 of 100 rows\) holds one class only",
        ),
    ],
)
def test_every_learner_is_checked_before_the_first_forest(data, tmp_path, labels, fraction, message):
    X, y, groups = data
    with pytest.raises(ValueError, match=message):
        MultiTSNS(3, fraction=fraction, store=tmp_path, **SMALL).fit(X, labels(y, groups), groups=groups)
    assert list(tmp_path.iterdir()) == []


def test_a_classifier_is_the_same_bits_by_any_way(data):
    X, y, _ = data
    X, chosen = X.astype(np.float32), np.array([1, 4, 7])
    ways = (
        fit_classifier(X[:, chosen], y),
        fit_classifier(X.take(chosen, axis=1), y),
        fit_on(chosen, X, y, scaler_of(X)),
    )
    for scaler, regression in ways:
        assert (
            scaler.mean_.tolist() == ways[0][0].mean_.tolist() and scaler.scale_.tolist() == ways[0][0].scale_.tolist()
        )
        assert regression.coef_.tolist() == ways[0][1].coef_.tolist()


def test_the_best_C_is_that_of_the_highest_cross_validated_accuracy(data):
    X, y, _ = data
    found = [cv_accuracy(X, y, C, seed=3) for C in C_GRID]
    assert cv_best_C(X, y, seed=3) == C_GRID[int(np.argmax(found))]
    assert len(set(found)) > 1


def test_alpha_is_a_switch_between_two_terms_far_apart(data):
    X, y, _ = data
    q = resampled_importance(X, y, **SMALL)
    search = search_alpha(q, (X[:100], y[:100], scaler_of(X[:100])), (X[100:], y[100:]), 3)
    assert search.alpha in ALPHAS and len(search.accuracies) == len(ALPHAS)
    assert search.accuracies.max() == search.accuracies[ALPHAS.index(search.alpha)]
    assert search.term_medians[1] > 10 * search.term_medians[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_neurons": 13}, "n_neurons: must be between 1 and the 12 neurons there are, got 13"),
        ({"gamma": 0}, r"gamma: must be in \(0, 1\], got 0"),
        ({"alphas": [1.5]}, r"alphas: must be in \[0, 1\], got 1.5"),
        ({"alphas": "linear"}, "alphas: must be 'log' or numbers"),
        ({"alphas": []}, "alphas: must be 'log' or numbers"),
        ({"pairing": "all"}, "pairing: must be"),
    ],
)
def test_bad_settings_are_one_clear_line(data, arguments, message):
    X, y, groups = data
    with pytest.raises(ValueError, match=message):
        MultiTSNS(**{"n_neurons": 3, **SMALL, **arguments}).fit(X, y, groups=groups)


def test_groups_of_another_length_are_one_clear_line(data):
    X, y, groups = data
    with pytest.raises(ValueError, match="groups: must name a source for each of the 150 rows"):
        MultiTSNS(3, **SMALL).fit(X, y, groups=groups[:10])
