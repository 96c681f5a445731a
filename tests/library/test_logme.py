"""LogME against the evidence itself, maximised; H-score against its definition, and where it saturates."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from tsns_lib import logme
from tsns_lib.transferability.logme import h_score


def task(n, width, n_classes=2, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, width))
    return X, (X @ rng.normal(size=(width, n_classes)) + rng.normal(size=(n, n_classes))).argmax(axis=1)


def greatest_evidence(X, target):
    """log p(y | α, β) of y ~ N(0, XXᵀ/α + I/β), maximised with no algebra."""

    def loss(logs):
        covariance = X @ X.T * np.exp(-logs[0]) + np.eye(len(X)) * np.exp(-logs[1])
        return -multivariate_normal.logpdf(target, np.zeros(len(X)), covariance, allow_singular=True)

    starts = [(0.0, 0.0), (2.0, 2.0), (4.0, 1.0)]
    return -min(minimize(loss, start, method="Nelder-Mead").fun for start in starts) / len(X)


@pytest.mark.parametrize(("n", "width", "n_classes"), [(30, 3, 2), (40, 5, 3), (12, 20, 2)])
def test_it_is_the_evidence_maximised(n, width, n_classes):
    X, y = task(n, width, n_classes)
    targets = [(y == label).astype(float) for label in np.unique(y)]
    published = np.mean([greatest_evidence(X, target) for target in targets])
    assert logme(X, y, intercept=False) == pytest.approx(published, abs=2e-3)
    rotation = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, 1:]]))[0]
    free = rotation[:, 1:].T  # the n - 1 directions in which an intercept changes nothing
    with_intercept = np.mean([greatest_evidence(free @ X, free @ target) for target in targets])
    assert logme(X, y) == pytest.approx(with_intercept, abs=2e-3)


@pytest.mark.parametrize(("n", "width"), [(60, 384), (19, 21), (60, 5)])
def test_the_unit_of_the_features_does_not_matter(n, width):
    X, y = np.random.default_rng(1).normal(size=(n, width)), np.arange(n) % 2
    for intercept in (True, False):
        assert len({round(logme(X * 2.0**power, y, intercept=intercept), 9) for power in (-15, 0, 1, 20)}) == 1


def test_a_target_that_is_known_exactly_has_one_value_in_every_unit_and_order():
    y = np.arange(4_000) % 2
    X = np.column_stack([2.0 * y - 1, np.random.default_rng(0).normal(size=(4_000, 3))])
    values = [logme(X, y), logme(10 * X, y), logme(X[::-1], y[::-1])]
    assert values == pytest.approx([values[0]] * 3, abs=1e-3) and values[0] > 10


def test_of_several_maxima_the_greatest_counts():
    # one direction of great and one of small variance know the target: the evidence has a maximum for each of them
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = np.column_stack([1e3 * (y + rng.normal(size=40)), 1e-3 * (2 * y - 1 + 0.01 * rng.normal(size=40))])
    assert logme(X, y) > 1 > logme(X[:, :1], y)


def test_its_values_on_four_rows():
    X, y = [[1.0], [2.0], [3.0], [5.0]], [0, 0, 1, 1]
    assert logme(X, y) == pytest.approx(-0.714223, abs=1e-6)
    assert logme(X, y, intercept=False) == pytest.approx(-0.878525, abs=1e-6)


def test_without_an_intercept_shifted_noise_beats_a_feature_that_knows_the_classes():
    rng, y = np.random.default_rng(0), np.arange(40) % 2
    noise = rng.normal(size=(40, 7))
    knows, shifted = np.column_stack([2 * y - 1, noise]), np.column_stack([rng.normal(size=40), noise]) + 3
    published = [logme(X, y, intercept=False) for X in (knows, shifted)]
    assert published == pytest.approx([-0.9128, -0.7724], abs=1e-4)
    assert logme(knows, y) > 10 > logme(shifted, y) == pytest.approx(-0.7221, abs=1e-4)


def test_with_an_intercept_the_origin_does_not_matter():
    X, y = task(60, 5)
    assert logme(X + 100, y) == pytest.approx(logme(X, y))
    with pytest.raises(ValueError, match="X: every feature is constant"):
        logme(np.full((4, 2), 3.0), [0, 1, 0, 1])


def test_features_that_know_the_task_score_higher():
    X, y = task(200, 8)
    assert logme(X, y) > logme(X, np.random.default_rng(1).permutation(y)) + 0.1


def test_the_names_of_the_classes_do_not_matter():
    X, y = task(60, 4)
    assert logme(X, y) == logme(X, np.where(y == 1, "yes", "no"))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_h_score_is_its_definition(n_classes):
    X, y = task(80, 6, n_classes)
    means = np.stack([X[y == label].mean(axis=0) for label in y])
    definition = np.trace(np.linalg.pinv(np.cov(X.T, bias=True)) @ np.cov(means.T, bias=True))
    assert h_score(X, y) == pytest.approx(definition)
    assert 0 < h_score(X, y) < n_classes - 1


@pytest.mark.parametrize("n_classes", [2, 4])
def test_h_score_says_nothing_where_features_are_as_many_as_rows(n_classes):
    rng = np.random.default_rng(0)
    noise, labels = rng.normal(size=(40, 60)), np.arange(40) % n_classes
    assert h_score(noise, labels) == pytest.approx(n_classes - 1)
    assert h_score(noise, rng.permutation(labels)) == pytest.approx(n_classes - 1)


@pytest.mark.parametrize("score", [logme, h_score])
def test_one_class_is_refused(score):
    with pytest.raises(ValueError, match=r"y: has one class only \(1\); at least two are needed"):
        score(np.eye(3), [1, 1, 1])
