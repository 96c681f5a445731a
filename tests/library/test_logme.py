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
    evidence = np.mean([greatest_evidence(X, (y == label).astype(float)) for label in np.unique(y)])
    assert logme(X, y) == pytest.approx(evidence, abs=2e-3)


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
