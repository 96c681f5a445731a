"""SingleTSNS as a scikit-learn selector."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from tsns_lib import SingleTSNS, cumulative_importance, resampled_importance

SMALL = {"n_resamples": 3, "n_trees": 10, "n_jobs": 1}


@parametrize_with_checks([SingleTSNS(n_neurons=1, **SMALL)])
def test_it_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    return rng.normal(size=(120, 20)) + 2 * y[:, None] * np.isin(np.arange(20), [4, 15]), y


def test_it_finds_the_planted_neurons(data):
    selector = SingleTSNS(2, **SMALL).fit(*data)
    assert selector.get_support(indices=True).tolist() == [4, 15]
    assert set(selector.ranking_[[4, 15]]) == {1, 2}
    assert sorted(selector.ranking_) == list(range(1, 21))
    assert selector.transform(data[0]).shape == (120, 2)
    assert selector.stability_ == 1.0


def test_it_is_the_sum_of_its_parts(data):
    selector = SingleTSNS(3, alpha=0.5, random_state=7, **SMALL).fit(*data)
    q = resampled_importance(*data, seed=7, **SMALL)
    assert np.array_equal(selector.importances_, cumulative_importance(q, alpha=0.5))


def test_it_works_in_a_pipeline_with_column_names_and_three_classes(data):
    pd = pytest.importorskip("pandas")
    X, y = data
    frame = pd.DataFrame(X, columns=[f"neuron {i}" for i in range(20)])
    model = make_pipeline(SingleTSNS(4, **SMALL).set_output(transform="pandas"), LogisticRegression())
    model.fit(frame, np.where(X[:, 4] > 3, "high", np.array(["no", "yes"])[y]))
    assert model.score(frame, np.array(["no", "yes"])[y]) > 0.6
    assert "neuron 4" in model[0].get_feature_names_out()


@pytest.mark.parametrize("k", [0, 21])
def test_k_outside_the_neurons_is_one_clear_line(data, k):
    with pytest.raises(ValueError, match=f"n_neurons: must be between 1 and the 20 neurons there are, got {k}"):
        SingleTSNS(k, **SMALL).fit(*data)
