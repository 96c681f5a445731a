"""What scores, forests and selectors refuse, each in one line that begins with the argument."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from tsns_lib import (
    MultiTSNS,
    SingleTSNS,
    aggregate,
    cumulative_importance,
    fingerprint,
    fingerprint_similarity,
    forest_importance,
    hidden_state_variability,
    logme,
    meta_importance,
    resampled_importance,
    water_fill,
)
from tsns_lib.transferability.logme import h_score
from tsns_lib.transferability.variability import layer_variability

X = np.random.default_rng(0).normal(size=(60, 6))
y = (X[:, 3] > 0).astype(int)
GROUPS = np.repeat(["a", "b", "c"], 20)
SMALL = {"n_resamples": 2, "n_trees": 2, "n_jobs": 1}


def with_value(value, dtype=float):
    changed = X.astype(dtype)
    changed[3, 2] = value
    return changed


FORESTS = {
    "forest_importance": lambda X, y: forest_importance(X, y, n_trees=2, n_jobs=1),
    "sklearn": lambda X, y: forest_importance(X, y, n_trees=2, n_jobs=1, engine="sklearn"),
    "resampled_importance": lambda X, y: resampled_importance(X, y, **SMALL),
    "SingleTSNS": lambda X, y: SingleTSNS(2, **SMALL).fit(X, y).importances_,
    "MultiTSNS": lambda X, y: MultiTSNS(2, **SMALL).fit(X, y, groups=GROUPS).meta_importances_,
}
SCORES = {
    "logme": logme,
    "h_score": h_score,
    "variability": hidden_state_variability,
    "layers": lambda X, y: layer_variability(X, y, 2),
}
SUMS = {
    "cumulative": lambda q, y: cumulative_importance(q, alpha=0.5),
    "meta": lambda m, y: meta_importance(m),
    "aggregate": lambda h, y: aggregate(h),
}
NO_MATRIX = {
    "NaN": with_value(np.nan),
    "infinite": with_value(np.inf),
    "complex": X * 1j,
    "text": X.astype(str),
    "text among numbers": with_value("1.5x", object),
    "None among numbers": with_value(None, object),
    "times": np.full((60, 6), np.datetime64("2020-01-01")),
    "durations": np.full((60, 6), np.timedelta64(1, "D")),
    "ragged": [[1.0, 2.0]] * 59 + [[1.0]],
    "no rows": np.empty((0, 6)),
    "no columns": np.empty((60, 0)),
    "three axes": X[:, :, None],
    "one axis": X[:, 0],
    "a number": np.float64(3),
    "sparse": scipy.sparse.csr_matrix(X),
    "masked": np.ma.masked_array(X, mask=X > 2),
    "frame with text": pd.DataFrame(with_value("a", object)),
    "frame with NA": pd.DataFrame(X).convert_dtypes().mask(X > 2),
    "huge whole numbers": [[10**400, 1]] * 60,
    "None": None,
    "dict": {"a": 1},
    "set": {1, 2},
    "records": np.zeros(60, dtype=[("a", float)]),
    "with gradient": torch.tensor(X, requires_grad=True),
}
TOO_LARGE = {"1e300": with_value(1e300), "all 1e300": X * 1e300, "long double": X.astype(np.longdouble) * 1e300 * 1e300}
TOO_SMALL = {"0": X * 0, "1e-12": X * 1e-12, "1e-300": X * 1e-300}
NO_LABELS = {
    "NaN": np.where(np.arange(60) == 3, np.nan, y),
    "NaN among texts": ["ab"[label] for label in y[:59]] + [float("nan")],
    "None among numbers": [*y[:59].tolist(), None],
    "NA": pd.Series(y).astype("Int64").mask(np.arange(60) == 2),
    "1 and '1'": [1, "1"] * 30,
    "True and 1": np.array([True, 1, 0] * 20, dtype=object),
    "halves": np.array([0.5, 1.0] * 30, dtype=object),
    "quantities": X[:, 0],
    "infinite": np.where(y, np.inf, 0.0),
    "complex": y * 1j,
    "times": np.array(["2020-01-01", "2021-01-01"] * 30, dtype="M8[D]"),
    "sparse": scipy.sparse.csr_matrix(y),
    "masked": np.ma.masked_array(y, mask=y > 0),
    "too few": y[:5],
    "one class": y * 0,
    "none": [],
    "None": None,
    "lists": [[0], [1]] * 30,
    "ragged": [[1]] * 30 + [[1, 2]] * 30,
}


def refused(use, *beginnings):
    with pytest.raises(ValueError) as error:
        use()
    message = str(error.value)
    assert message.startswith(beginnings) and "\n" not in message and len(message) < 400


@pytest.mark.parametrize("name", FORESTS | SCORES | SUMS)
@pytest.mark.parametrize("kind", NO_MATRIX)
def test_what_is_no_matrix_is_refused(name, kind):
    refused(lambda: (FORESTS | SCORES | SUMS)[name](NO_MATRIX[kind], y), "X", "q: ", "m: ", "h: ")


@pytest.mark.parametrize("name", FORESTS | SCORES)
@pytest.mark.parametrize("kind", NO_LABELS)
def test_what_is_no_label_is_refused(name, kind):
    refused(lambda: (FORESTS | SCORES)[name](X, NO_LABELS[kind]), "y: ", "X, y: ")


@pytest.mark.parametrize("kind", TOO_LARGE)
@pytest.mark.parametrize("name", ["sklearn", "MultiTSNS", *SCORES, *SUMS])
def test_what_would_overflow_is_refused(name, kind):
    refused(lambda: (FORESTS | SCORES | SUMS)[name](TOO_LARGE[kind], y), "X", "q: ", "m: ", "h: ")


@pytest.mark.parametrize("kind", TOO_SMALL)
@pytest.mark.parametrize("name", SCORES)
def test_what_a_score_would_divide_by_is_not_zero(name, kind):
    refused(lambda: SCORES[name](TOO_SMALL[kind], y), "X: its largest value is ")


def test_the_forest_needs_the_order_of_values_alone():
    expected = forest_importance(X, y, n_trees=5, n_jobs=1)
    assert forest_importance(X * 1e300, y, n_trees=5, n_jobs=1).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "values",
    [X.astype(object), X.tolist(), pd.DataFrame(X), np.ma.masked_array(X), torch.tensor(X), X.astype(np.longdouble)],
    ids=["objects", "lists", "frame", "nothing masked", "tensor", "long double"],
)
@pytest.mark.parametrize("name", SCORES | SUMS)
def test_what_holds_the_same_numbers_gives_the_same(name, values):
    use = (SCORES | SUMS)[name]
    assert use(values, y) == pytest.approx(use(X, y), rel=1e-12)  # a frame lies in memory by columns


@pytest.mark.parametrize(
    "labels",
    [
        pd.Series(y).astype("category"),
        pd.Series(y).astype("Int64"),
        pd.Series(y > 0),
        pd.Series(np.where(y, "b", "a")).astype("string"),
        y.astype(float),
        y.tolist(),
    ],
    ids=["category", "Int64", "bool", "string", "float", "list"],
)
@pytest.mark.parametrize("name", FORESTS | SCORES)
def test_every_kind_of_label_is_the_same_classes(name, labels):
    use = (FORESTS | SCORES)[name]
    assert np.asarray(use(X, labels)).tobytes() == np.asarray(use(X, y)).tobytes()


def test_variability_does_not_depend_on_the_scale():
    expected = hidden_state_variability(X, y)
    for scale in (1e-6, 1e-3, 1e20, 1e50):
        assert hidden_state_variability(X * scale, y) == pytest.approx(expected)
        assert h_score(X * scale, y) == pytest.approx(h_score(X, y))
        assert np.isfinite(logme(X * scale, y))


def test_equal_means_have_an_infinite_variability_as_documented():
    assert hidden_state_variability(np.ones((4, 2)), [0, 1, 0, 1]) == np.inf


def test_an_eps_that_makes_the_result_infinite_is_named():
    refused(lambda: cumulative_importance(np.full((2, 3), 1e5), alpha=0.5, eps=1e-306), "eps: ")
    refused(lambda: cumulative_importance(np.ones((2, 3)), eps=1e-320), "eps: must be positive")


@pytest.mark.parametrize(
    "groups",
    [
        np.array([None, "a"] * 30, dtype=object),
        [float("nan"), "a"] * 30,
        [1, "a"] * 30,
        [1.0, 2.0] * 30,
        ["a"],
        [["a"]] * 60,
        np.array(["2020", "2021"] * 30, dtype="M8[Y]"),
        "ab",
        {},
    ],
    ids=["None", "NaN", "mixed", "float", "short", "lists", "times", "text", "dict"],
)
def test_groups_are_names(groups):
    refused(lambda: MultiTSNS(2, **SMALL).fit(X, y, groups=groups), "groups: ")


@pytest.mark.parametrize("value", [None, 2.5, "all", [2], -1, 1j, {}, np.random.RandomState(0), float("nan"), True])
@pytest.mark.parametrize(
    "name", ["n_neurons", "n_resamples", "n_trees", "max_depth", "random_state", "fraction", "engine", "C", "gamma"]
)
def test_settings_of_a_selector_are_named(name, value):
    if (name, value) in [("C", 2.5)]:
        return
    refused(lambda: MultiTSNS(**{"n_neurons": 2, **SMALL, name: value}).fit(X, y, groups=GROUPS), f"{name}: ")


NO_SELECTION = [None, "ab", [], [[0, 1]], [0.5], [0, 0], [-1], [10], {0}, ["a"], [1j], [None], [10**30], [[1], [1, 2]]]
NO_SELECTION += [np.ma.masked_array([0, 1], mask=[0, 1]), scipy.sparse.csr_matrix([[1, 0]]), np.eye(2, 3, dtype=bool)]
NO_SHARES = [None, "ab", [], [[1, 2]], [1, np.nan], [1, np.inf], [1e308, 1e308], [-1, 2], [0, 0], [1e-320, 0], [1j, 1]]
NO_SHARES += [["a", "b"], {1}, [None, 1], [10**400, 1], [1e300, 1], scipy.sparse.csr_matrix([[1, 0]])]
NO_SIZES = [None, "a", [], [1.5], [-1], [2**70], [[1, 2]], {1}, [True], [None], [[1], [1, 2]], [2**62] * 4]


@pytest.mark.parametrize("value", NO_SELECTION, ids=str)
def test_what_is_no_selection_is_refused(value):
    refused(lambda: fingerprint(value, 2, 6), "selected: ")


@pytest.mark.parametrize("metric", ["cosine", "jensen_shannon", "wasserstein"])
@pytest.mark.parametrize("value", NO_SHARES, ids=str)
def test_what_is_no_fingerprint_is_refused(value, metric):
    refused(lambda: fingerprint_similarity(value, [1, 2], metric), "a: ")


@pytest.mark.parametrize("value", NO_SIZES, ids=str)
def test_what_are_no_sizes_is_refused(value):
    refused(lambda: water_fill(value, 10), "sizes: ")


@pytest.mark.parametrize("scale", [1e-7, 1e3, 1e7, 1e30])
def test_the_unit_of_the_features_does_not_matter(scale):
    for score in (logme, h_score, hidden_state_variability):
        assert score(X * scale, y) == pytest.approx(score(X, y), rel=1e-4)
    assert logme(X * scale, y, intercept=False) == pytest.approx(logme(X, y, intercept=False), rel=1e-4)


@pytest.mark.parametrize("value", [0.1, 1e11])
def test_a_constant_feature_says_nothing_whatever_its_value(value):
    beside = np.c_[X, np.full(60, value)]
    for score in (logme, h_score, hidden_state_variability):
        assert score(beside, y) == pytest.approx(score(X, y), rel=1e-6)
    constant = np.full((60, 6), value)
    assert h_score(constant, y) == 0.0 and hidden_state_variability(constant, y) == float("inf")
    with pytest.raises(ValueError, match="X: every feature is constant"):
        logme(constant, y)


def test_where_the_origin_is_does_not_matter():
    assert hidden_state_variability(X + 1e6, y) == pytest.approx(hidden_state_variability(X, y), rel=1e-6)
