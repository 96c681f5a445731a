"""The checks of arguments: which values pass, and the one line that names what is wrong."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from tsns_lib import MultiTSNS, SingleTSNS, forest_importance, logme, resampled_importance
from tsns_lib.importance import Forest
from tsns_lib.store import Store
from tsns_lib.validation import class_numbers, matrix, one_each, path, positive, share, whole_number

X = np.random.default_rng(0).normal(size=(12, 4))
MISSING = {
    "NaN": np.where(np.arange(12) % 3, np.arange(12) % 2, np.nan),
    "None": [None if row == 3 else "ab"[row % 2] for row in range(12)],
    "pandas.NA": pd.Series(np.arange(12) % 2).astype("Int64").mask(np.arange(12) == 3),
    "NaT": pd.to_datetime(["2020-01-01", None] * 6),
}


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_a_whole_number_may_be_numpys(value):
    assert whole_number("n", value) == 3 and type(whole_number("n", value)) is int


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "n: must be a whole number, got True"),
        (np.True_, "n: must be a whole number"),
        (2.0, "n: must be a whole number, got 2.0"),
        ("3", "n: must be a whole number, got '3'"),
        (None, "n: must be a whole number, got None"),
        (0, "n: must be at least 1, got 0"),
    ],
)
def test_what_is_no_whole_number_is_named(value, message):
    with pytest.raises(ValueError, match=message):
        whole_number("n", value)


def test_a_share_has_the_ends_it_may_have():
    assert share("s", np.float32(0.5)) == 0.5 and share("s", 1) == 1.0 and share("s", 0, zero=True) == 0.0
    for wrong, ends, allowed in (
        (0, {}, r"\(0, 1\]"),
        (1, {"one": False}, r"\(0, 1\)"),
        (-0.1, {"zero": True}, r"\[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=rf"s: must be in {allowed}, got {wrong}"):
            share("s", wrong, **ends)
    for wrong in ("0.5", None, True, float("nan")):
        with pytest.raises(ValueError, match="s: must be in"):
            share("s", wrong)


@pytest.mark.parametrize("wrong", [0, -1, float("inf"), float("nan"), "1", None, True])
def test_what_is_not_positive_is_named(wrong):
    with pytest.raises(ValueError, match="C: must be positive, got"):
        positive("C", wrong)


def test_a_row_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match=r"q: must be a finite matrix \(a × b\), row 1 is not finite"):
        matrix("q", [[1.0, 2.0], [np.inf, 0.0]], "a × b")


@pytest.mark.parametrize(
    "labels", [["b", "a", "b"], [1, 0, 1], [1.0, 0.0, 1.0], [True, False, True], [np.int64(7), 3, 7]]
)
def test_classes_are_numbered_in_the_order_of_their_names(labels):
    assert class_numbers(labels, 3).tolist() == [1, 0, 1]


@pytest.mark.parametrize("kind", MISSING)
@pytest.mark.parametrize(
    "use",
    [
        lambda y: forest_importance(X, y, n_trees=2, n_jobs=1),
        lambda y: resampled_importance(X, y, n_resamples=1, n_trees=2, n_jobs=1),
        lambda y: logme(X, y),
    ],
    ids=["forest_importance", "resampled_importance", "logme"],
)
def test_a_missing_label_is_never_a_class(use, kind):
    with pytest.raises(ValueError, match=r"y: the label of row \d+ is missing"):
        use(MISSING[kind])


@pytest.mark.parametrize("labels", [np.linspace(0, 1, 12), [0.0, np.inf] * 6])
def test_quantities_are_no_classes(labels):
    with pytest.raises(ValueError, match="labels are classes, not quantities"):
        forest_importance(X, labels, n_trees=2)


def test_labels_that_cannot_be_compared_are_said():
    with pytest.raises(ValueError, match="y: mixes labels"):
        class_numbers(np.array([1, "a", 2], dtype=object), 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_trees": 2.0}, "n_trees: must be a whole number, got 2.0"),
        ({"max_depth": None}, "max_depth: must be a whole number, got None"),
        ({"n_resamples": True}, "n_resamples: must be a whole number, got True"),
        ({"seed": -1}, "seed: must be at least 0, got -1"),
        ({"tol": 1}, r"tol: must be in \(0, 1\), got 1"),
        ({"engine": "fast"}, "engine: must be 'histogram' or 'sklearn', got 'fast'"),
        ({"fraction": "most"}, "fraction: must be 'auto' or in"),
    ],
)
def test_settings_are_checked_when_they_are_made(settings, message):
    with pytest.raises(ValueError, match=message):
        Forest(**settings)


def test_numpys_numbers_give_the_same_key(tmp_path):
    y = X[:, 1] > 0
    for number in (int, np.int64):
        settings = {"n_resamples": number(2), "n_trees": number(3), "max_depth": number(5), "seed": number(1)}
        resampled_importance(X, y, **settings, store=Store(tmp_path))
    assert len(list((tmp_path / "importance").iterdir())) == 1


@pytest.mark.parametrize("name", ["alpha", "n_neurons", "random_state"])
def test_a_wrong_argument_is_refused_before_any_forest_grows(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name}: must be"):
        SingleTSNS(**{"n_neurons": 2, name: 1.5}, store=tmp_path).fit(X, X[:, 1] > 0)
    assert list(tmp_path.iterdir()) == []


def test_whole_numbers_of_any_size_are_classes_of_their_own():
    assert class_numbers([2**63, 2**63 + 1, 0], 3).tolist() == [1, 2, 0]
    assert class_numbers([2**53 + 1, 2**53, 0.0], 3).tolist() == [2, 1, 0]
    assert class_numbers([-(2**70), 5, 5], 3).tolist() == [0, 1, 1]
    assert one_each("groups", [2**63, 2**63 + 1], 2, "group").tolist() == [2**63, 2**63 + 1]


@pytest.mark.parametrize("labels", [[Fraction(1, 2), Fraction(1, 3)], [2**70, 0.5], [1, 1.5]])
def test_a_quantity_of_any_type_is_no_class(labels):
    with pytest.raises(ValueError, match="labels are classes, not quantities"):
        class_numbers(labels, 2)


def test_a_number_of_thousands_of_digits_is_named_and_not_written():
    with pytest.raises(ValueError, match="n: must be at most 9, got a int of thousands of digits"):
        whole_number("n", 10**5000, most=9)
    with pytest.raises(ValueError, match="n: must be at least 1, got a int of thousands of digits"):
        whole_number("n", -(10**5000))


def test_a_name_does_not_lose_its_end():
    for names in (["a", "a\0"], pd.Series(["a", "a\0"], dtype=object), [b"a", b"a\0"]):
        with pytest.raises(ValueError, match="y: the label of row 1 ends with a NUL, which numpy drops"):
            class_numbers(names, 2)
    assert class_numbers(["a", "a\0b"], 2).tolist() == [0, 1]
    with pytest.raises(ValueError, match="groups: the source of row 3 ends with a NUL"):
        MultiTSNS(2).fit(X, X[:, 1] > 0, groups=["g", "h", "g", "g\0"] * 3)


def test_numbers_that_no_float_holds_are_refused():
    huge = 10**400
    for wrong in (huge, Fraction(huge)):
        with pytest.raises(ValueError, match="C: must be positive, got"):
            positive("C", wrong)
        with pytest.raises(ValueError, match="alpha: must be in"):
            share("alpha", wrong)
    assert class_numbers([huge, Fraction(huge + 1), 0], 3).tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="gamma: must be in"):
        share("gamma", np.longdouble("1e-4000"))
    with pytest.raises(ValueError, match=r"X: holds whole numbers beyond 2\*\*53"):
        forest_importance(np.c_[2**60 + np.arange(12) % 2], np.arange(12) % 2, n_trees=4)
    with pytest.raises(ValueError, match="y: must be text or whole numbers, got"):
        class_numbers(np.zeros(3, "V4"), 3)


def test_a_path_holds_no_null_byte():
    with pytest.raises(ValueError, match="folder: must be a path, got 'a"):
        path("folder", "a\0b")
    with pytest.raises(ValueError, match="store: must be a path, got 'a"):
        Store("a\0b")


@pytest.mark.parametrize("selector", [SingleTSNS, MultiTSNS])
def test_selectors_take_the_labels_that_forests_take(selector):
    few = {"n_resamples": 2, "n_trees": 5}
    expected = selector(2, **few).fit(X, np.arange(12) % 2, *([np.arange(12) // 6] if selector is MultiTSNS else []))
    for first, second in ((b"a", b"b"), (2**64, 2**64 + 1), (2**53, 2**53 + 1.5 - 0.5)):
        groups = [np.arange(12) // 6] if selector is MultiTSNS else []
        fitted = selector(2, **few).fit(X, [first, second] * 6, *groups)
        assert np.array_equal(fitted.selected_, expected.selected_)
    for missing in (pd.Series(["a", "b", None] * 4, dtype="string"), np.array(["a", "b", pd.NA] * 4, dtype=object)):
        with pytest.raises(ValueError, match="^y: the label of row 2 is missing$"):
            selector(2, **few).fit(X, missing)
