"""ν in closed form, by the definition, and under what must not matter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsns_lib import hidden_state_variability
from tsns_lib.transferability.variability import layer_variability


def by_definition(X, y):
    """As the paper writes it, with a D × D pseudo-inverse."""
    labels = np.unique(y)
    means = np.stack([X[y == label].mean(axis=0) for label in labels])
    within = np.mean([np.cov(X[y == label].T, bias=True) for label in labels], axis=0)
    apart = means - means.mean(axis=0)
    return np.trace(within @ np.linalg.pinv(apart.T @ apart / len(labels))) / len(labels)


def states(n_classes, seed=0, n=90, width=7):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return rng.normal(size=(n, width)) + rng.normal(size=(n_classes, width))[y], y


def test_two_classes_by_hand():
    X, y = np.array([[0.0, 0.0], [0.0, 2.0], [4.0, 0.0], [6.0, 0.0]]), np.array([0, 0, 1, 1])
    assert hidden_state_variability(X, y) == pytest.approx(1 / 26)  # δ = (5, -1), Σ_w = I/2


def test_two_classes_in_closed_form():
    X, y = states(2)
    delta = X[y == 1].mean(axis=0) - X[y == 0].mean(axis=0)
    within = (np.cov(X[y == 0].T, bias=True) + np.cov(X[y == 1].T, bias=True)) / 2
    assert hidden_state_variability(X, y) == pytest.approx(2 * delta @ within @ delta / (delta @ delta) ** 2)


@pytest.mark.parametrize("n_classes", [2, 3, 5, 9])
def test_the_thin_form_is_the_definition(n_classes):
    X, y = states(n_classes)
    assert hidden_state_variability(X, y) == pytest.approx(by_definition(X, y))


@given(seed=st.integers(0, 50), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_rotation_scale_and_place_do_not_matter(seed, scale, shift):
    X, y = states(3, seed)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(7, 7)))[0]
    assert hidden_state_variability(scale * (X + shift) @ rotation, y) == pytest.approx(by_definition(X, y), rel=1e-6)


def test_nothing_stands_apart_where_the_means_are_equal():
    assert hidden_state_variability(np.array([[1.0], [-1.0], [2.0], [-2.0]]), [0, 0, 1, 1]) == np.inf


def test_the_specialised_layer_is_found():
    X, y = states(2, width=12)
    X[:, 4:8] += 6 * y[:, None]
    found = layer_variability(X, y, 3)
    assert found.argmin() == 1
    assert found[2] == hidden_state_variability(X[:, 8:], y)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros(3), [0, 1, 0], r"X: must be a matrix \(rows × features\), got shape \(3,\)"),
        (np.zeros((3, 2)), [0, 1], r"y: must have one label for each of the 3 rows of X, got shape \(2,\)"),
        (np.zeros((2, 2)), [4, 4], r"y: has one class only \(4\); at least two are needed"),
        (np.array([[1.0], [np.nan]]), [0, 1], r"X: must be a finite matrix .*, row 1 is not finite"),
    ],
)
def test_what_is_wrong_is_named(X, y, message):
    with pytest.raises(ValueError, match=message):
        hidden_state_variability(X, y)


def test_neurons_must_divide_into_layers():
    with pytest.raises(ValueError, match="do not divide into 3 layers"):
        layer_variability(np.zeros((4, 8)), [0, 1, 0, 1], 3)
