"""How many resamples are enough: the forecast, its calibration, and the stop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsns_lib import SingleTSNS, resampled_importance
from tsns_lib.aggregation import half_overlap
from tsns_lib.stability import FIRST_LOOK, forecast_overlap, looks, overlap_curve


def noisy(n_resamples=100, n_neurons=300, seed=0):
    """Importances around a slope, with a spread of a quarter of the mean."""
    rng = np.random.default_rng(seed)
    mean = np.linspace(1, 5, n_neurons)
    return rng.gamma(16, mean / 16, size=(n_resamples, n_neurons))


def test_halves_on_literal_values():
    q = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.5, 0.0, 0.4], [0.6, 0.2, 0.2, 0.0], [0.0, 0.4, 0.1, 0.5]])
    assert half_overlap([q], 2, [1.0]) == 0.5
    assert half_overlap([np.repeat(q[:1], 6, axis=0)], 2, [1.0]) == 1.0
    assert np.isnan(half_overlap([q[:1]], 2, [1.0]))


def test_nothing_is_left_to_forecast_once_all_are_known():
    expected, low = forecast_overlap(noisy(20), [10, 50], 20)
    assert expected.tolist() == low.tolist() == [1.0, 1.0]


def test_the_forecast_is_calibrated():
    """On 40 sources: the mean is hit to a point, and the true overlap lies above the lower end in about 95 %."""
    curves = [overlap_curve(noisy(seed=source), [100], 100).set_index("resamples").loc[24] for source in range(40)]
    expected, low, found = (np.array([curve[name] for curve in curves]) for name in ("expected", "low", "found"))
    assert expected.mean() == pytest.approx(found.mean(), abs=0.01)
    assert (found >= low).mean() >= 0.9
    assert 0.01 < (expected - low).mean() < 0.04  # and not by an end that is far too low


def test_the_forecast_grows_with_what_is_known():
    curve = overlap_curve(noisy(), [30], 100)
    assert curve["resamples"].tolist() == [8, 12, 16, 24, 32, 48, 64, 96, 100]
    assert curve["expected"].is_monotonic_increasing
    assert curve["found"].iloc[-1] == 1.0


def test_what_was_not_computed_is_not_claimed():
    assert overlap_curve(noisy(16), [30], 100)["found"].isna().all()


@given(st.integers(1, 2_000))
def test_looks_ascend_and_end_with_all(n_resamples):
    found = list(looks(n_resamples))
    assert found == sorted(set(found)) and found[-1] == n_resamples
    assert all(look >= FIRST_LOOK for look in found[:-1])
    assert len(found) < 20


def test_a_tighter_tolerance_needs_more():
    q = noisy()
    low = {n: forecast_overlap(q[:n], [100], 100)[1] for n in looks(100)}
    needed = [next(n for n in looks(100) if low[n] >= 1 - tol) for tol in (0.2, 0.1, 0.05)]
    assert needed[0] < needed[1] < needed[2] <= 100


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 100)
    return rng.normal(size=(100, 12)) + 2 * y[:, None] * (np.arange(12) == 4), y


def test_a_run_stops_when_the_choice_is_clear_and_not_when_it_is_not(data, tmp_path):
    forests = {"n_resamples": 40, "n_trees": 10, "store": tmp_path}
    clear = resampled_importance(*data, **forests, tol=0.1, neurons=[1])
    assert len(clear) == 8
    unclear = resampled_importance(*data, **forests, tol=0.1, neurons=[1, 6])
    assert len(unclear) > 8
    whole = resampled_importance(*data, **forests)
    assert len(whole) == 40
    assert whole[:8].tobytes() == clear.tobytes()


def test_the_selector_says_how_many_it_used(data, tmp_path):
    selector = SingleTSNS(1, n_resamples=40, n_trees=10, tol=0.1, store=tmp_path).fit(*data)
    assert selector.n_resamples_ == 8
    assert SingleTSNS(1, n_resamples=9, n_trees=10, store=tmp_path).fit(*data).n_resamples_ == 9


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


def test_a_forecast_of_fewer_than_are_known_is_refused():
    with pytest.raises(ValueError, match="a forecast of 5 resamples needs 2 to 5 known ones, got 16"):
        forecast_overlap(noisy(16), [30], 5)
