"""How many trees are enough: the forecast, its calibration, and the stop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsns_lib import SingleTSNS, resampled_importance
from tsns_lib.aggregation import half_overlap
from tsns_lib.ranking import order_neurons
from tsns_lib.stability import FEWEST, forecast_overlap, looks


def noisy(n_trees=100, n_resamples=30, n_neurons=300, seed=0):
    """Importance by each of n_trees on each resample, around a slope: rows that differ, and trees that differ more."""
    rng = np.random.default_rng(seed)
    mean = np.linspace(1, 5, n_neurons)
    of_rows = rng.gamma(100, mean / 100, size=(n_resamples, n_neurons))
    return rng.gamma(1, of_rows[:, None], size=(n_resamples, n_trees, n_neurons))


def known(trees, t):
    """Q and the noise of its trees, where only the first t trees are known."""
    first, second = trees[:, : t // 2].mean(axis=1), trees[:, t // 2 : t].mean(axis=1)
    return trees[:, :t].mean(axis=1), (first - second) / 2


def test_halves_on_literal_values():
    q = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.5, 0.0, 0.4], [0.6, 0.2, 0.2, 0.0], [0.0, 0.4, 0.1, 0.5]])
    assert half_overlap([q], 2, [1.0]) == 0.5
    assert half_overlap([np.repeat(q[:1], 6, axis=0)], 2, [1.0]) == 1.0
    assert np.isnan(half_overlap([q[:1]], 2, [1.0]))


def test_nothing_is_left_to_forecast_once_all_are_known():
    expected, low = forecast_overlap(*known(noisy(20), 20), [10, 50], 0.0)
    assert expected.tolist() == low.tolist() == [1.0, 1.0]


def test_the_noise_is_that_of_the_trees_and_not_of_the_rows():
    trees = noisy(40)
    q, noise = known(trees, 40)
    of_trees = (trees.var(axis=1, ddof=1) / 40).mean()
    assert (noise**2).mean() == pytest.approx(of_trees, rel=0.05)
    assert q.var(axis=0).mean() > 1.2 * of_trees


def test_the_forecast_is_calibrated():
    """On 40 sources: the mean is hit to a point, and the true overlap lies above the lower end in about 95 %."""
    expected, low, found = [], [], []
    for source in range(40):
        trees = noisy(seed=source)
        q, noise = known(trees, 24)
        present, final = (set(order_neurons(each.mean(axis=0))[:100].tolist()) for each in (q, trees.mean(axis=1)))
        forecast = forecast_overlap(q, noise, [100], 0.76)
        expected, low = [*expected, forecast[0][0]], [*low, forecast[1][0]]
        found.append(len(present & final) / 100)
    assert np.mean(expected) == pytest.approx(np.mean(found), abs=0.01)
    assert (np.array(found) >= low).mean() >= 0.9
    assert 0.01 < np.mean(expected) - np.mean(low) < 0.04  # and not by an end that is far too low


def test_looks_on_literal_values():
    assert list(looks(1000)) == [40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1000]
    assert list(looks(100)) == [8, 12, 16, 24, 32, 48, 64, 96, 100]
    assert list(looks(7)) == [7]


@given(st.integers(1, 2_000))
def test_looks_ascend_and_end_with_all(n_trees):
    found = list(looks(n_trees))
    assert found == sorted(set(found)) and found[-1] == n_trees
    assert all(look >= FEWEST for look in found[:-1])
    assert len(found) <= 12


def test_a_tighter_tolerance_needs_more():
    trees = noisy()
    low = {n: forecast_overlap(*known(trees, n), [100], 1 - n / 100)[1] for n in looks(100)}
    needed = [next(n for n in looks(100) if low[n] >= 1 - tol) for tol in (0.1, 0.05, 0.02)]
    assert needed[0] < needed[1] < needed[2] <= 100


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 100)
    return rng.normal(size=(100, 12)) + 2 * y[:, None] * (np.arange(12) == 4), y


def test_a_run_stops_when_the_choice_is_clear_and_not_when_it_is_not(data, tmp_path):
    forests = {"n_resamples": 10, "n_trees": 100, "store": tmp_path}
    clear = resampled_importance(*data, **forests, tol=0.1, neurons=[1])
    assert clear.tobytes() == resampled_importance(*data, **forests | {"n_trees": 8}).tobytes()
    unclear = resampled_importance(*data, **forests, tol=0.1, neurons=[1, 6])
    assert unclear.tobytes() != clear.tobytes()


def test_a_run_that_never_stops_has_the_bits_of_all_trees(data, tmp_path):
    forests = {"n_resamples": 8, "n_trees": 20, "n_jobs": 1}
    looked = resampled_importance(*data, **forests, tol=1e-9, neurons=[6], store=tmp_path / "looks")
    assert looked.tobytes() == resampled_importance(*data, **forests, store=tmp_path / "whole").tobytes()


def test_too_few_resamples_never_stop(data, tmp_path):
    forests = {"n_resamples": 7, "n_trees": 100, "store": tmp_path}
    assert SingleTSNS(1, **forests, tol=0.5).fit(*data).n_trees_ == 100


def test_forests_of_scikit_learn_never_stop(data, tmp_path):
    forests = {"n_resamples": 8, "n_trees": 10, "engine": "sklearn", "n_jobs": 1, "store": tmp_path}
    assert SingleTSNS(1, **forests, tol=0.5).fit(*data).n_trees_ == 10


def test_the_choice_of_fewer_trees_is_that_of_all_as_often_as_said(tmp_path):
    """On 20 sources whose noise is that of real forests: 1 - tol of the neurons are kept, but for 5 % of the runs."""
    kept = []
    for source in range(20):
        rng = np.random.default_rng(source)
        y = rng.integers(0, 2, 120)
        X = rng.normal(size=(120, 60)) + y[:, None] * np.linspace(0, 1, 60)
        forests = {"n_resamples": 20, "n_trees": 400, "random_state": source, "n_jobs": 1, "store": tmp_path}
        whole, stopped = (SingleTSNS(20, **forests, tol=tol).fit(X, y) for tol in (None, 0.1))
        assert stopped.n_trees_ < whole.n_trees_ == 400
        kept.append(len(np.intersect1d(whole.selected_, stopped.selected_)) / 20)
    assert (np.array(kept) >= 0.9).mean() >= 0.9


def test_the_selector_says_how_many_it_used(data, tmp_path):
    selector = SingleTSNS(1, n_resamples=8, n_trees=100, tol=0.1, store=tmp_path).fit(*data)
    assert selector.n_trees_ == 8
    assert SingleTSNS(1, n_resamples=9, n_trees=10, store=tmp_path).fit(*data).n_trees_ == 10


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tol": 0}, r"tol: must be in \(0, 1\), got 0"),
        ({"tol": 1.5}, r"tol: must be in \(0, 1\), got 1.5"),
        ({"tol": 0.1, "neurons": [3, 13]}, "n_neurons: must be between 1 and the 12 neurons there are, got 13"),
    ],
)
def test_a_wrong_tolerance_is_named(data, tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        resampled_importance(*data, **wrong, store=tmp_path)


def test_what_was_computed_before_changes_nothing(tmp_path):
    rng = np.random.default_rng(0)
    for seed in range(6):
        X = rng.normal(size=(80, 60)).astype(np.float32)
        y = X[:, :12].sum(axis=1) + 2 * rng.normal(size=80) > 0
        few = {"n_resamples": 8, "fraction": 0.7, "neurons": [10], "seed": seed, "n_jobs": 1}
        alone = resampled_importance(X, y, n_trees=1000, tol=0.25, store=tmp_path / f"alone {seed}", **few)
        resampled_importance(X, y, n_trees=500, tol=0.05, store=tmp_path / f"after {seed}", **few)  # other looks
        after = resampled_importance(X, y, n_trees=1000, tol=0.25, store=tmp_path / f"after {seed}", **few)
        assert np.array_equal(alone, after), seed
