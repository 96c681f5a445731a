"""The forest: exact splits, planted neurons, agreement with the reference, same bits on any number of threads."""

import hashlib
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsns_lib import extract, forest, forest_importance, load_encoder, load_source
from tsns_lib.sampling import resample_rows


def gini_decrease(values, classes, weights):
    """Brute force: the largest weighted gini decrease of a cut, and the value left of which it lies."""

    def impurity(mask):
        counts = np.bincount(classes[mask], weights[mask], minlength=classes.max() + 1)
        return counts.sum() - (counts**2).sum() / counts.sum()

    everything = np.ones(len(values), bool)
    cuts = [
        (impurity(everything) - impurity(values <= low) - impurity(values > low), low)
        for low, _ in pairwise(np.unique(values))
    ]
    return max(cuts, key=lambda cut: cut[0], default=(-1.0, 0))


nodes = st.integers(2, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 63), min_size=n, max_size=n),
        st.lists(st.integers(0, 2), min_size=n, max_size=n),
        st.lists(st.integers(1, 5), min_size=n, max_size=n),
    )
)


@settings(deadline=None, max_examples=200)
@given(nodes)
def test_best_cut_is_the_brute_force_gini_cut(node):
    values, classes, weights = (np.array(part) for part in node)
    n = len(values)
    column, rows = values.astype(np.uint8), np.arange(n, dtype=np.uint32)

    two = np.minimum(classes, 1)
    packed = weights | ((weights * two) << 32)
    hist, scores = np.zeros(64, np.int64), np.zeros(64)
    total, bits = packed.sum(), scores.view(np.int64)
    forest._fill(column, np.uint64(0), rows, packed, 0, n, hist)
    score, _ = forest._best_cut(total, hist, scores, bits)
    decrease, _ = gini_decrease(values, two, weights)
    assert (score < 0) == (decrease < 0)
    if score >= 0:
        assert 2 * score / weights.sum() == pytest.approx(decrease, abs=1e-9)
    assert not hist.any()

    packed = weights | (classes << 32)
    counts = np.bincount(classes, weights, minlength=3).astype(np.int64)
    hist, left = np.zeros(64 * 3, np.int64), np.zeros(3, np.int64)
    score, _ = forest._best_cut_of_many(column, np.uint64(0), rows, packed, 0, n, counts, hist, left)
    assert score == pytest.approx(gini_decrease(values, classes, weights)[0], abs=1e-9)
    assert not hist.any()


def planted(n=300, n_neurons=40, n_classes=2, seed=0):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, n_neurons)).astype(np.float32), rng.integers(0, n_classes, n)
    X[:, [7, 21]] += 2 * y[:, None]
    return X, y


@pytest.mark.parametrize("engine", ["histogram", "sklearn"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_planted_neurons_are_found(engine, n_classes):
    X, y = planted(n_classes=n_classes)
    q = forest_importance(X, y, n_trees=60, engine=engine)
    assert sorted(np.argsort(q)[-2:].tolist()) == [7, 21]
    assert q.sum() == pytest.approx(1)


def test_a_constant_neuron_gets_nothing_and_duplicates_share():
    X, y = planted()
    X[:, 3], X[:, 12] = 5.0, X[:, 7]
    q = forest_importance(X, y, n_trees=400)
    alone = forest_importance(np.delete(X, 12, axis=1), y, n_trees=400)
    assert q[3] == 0
    assert q[7] == pytest.approx(q[12], rel=0.25)
    assert q[7] < 0.8 * alone[7]


def test_nothing_to_split_sums_to_zero():
    assert forest_importance(np.ones((10, 3)), np.arange(10) % 2, n_trees=5).tolist() == [0, 0, 0]


def test_label_names_do_not_matter():
    X, y = planted()
    names = np.array(["no", "yes"])[y]
    assert np.array_equal(forest_importance(X, y, n_trees=20), forest_importance(X, names, n_trees=20))


def test_a_copy_by_rows_never_changes_a_bit(monkeypatch):
    X, y = planted(n=1_000)
    copied = forest_importance(X, y, n_trees=20)
    monkeypatch.setattr(forest, "COPY_BYTES", 0)
    assert forest_importance(X, y, n_trees=20).tobytes() == copied.tobytes()


def test_depth_one_is_one_split_a_tree():
    X, y = planted()
    q = forest_importance(X, y, n_trees=30, max_depth=1)
    assert np.allclose(q * 30, np.round(q * 30))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_threads_never_change_a_bit(n_classes):
    X, y = planted(n_classes=n_classes)
    one, two, five = (forest_importance(X, y, n_trees=50, n_jobs=jobs) for jobs in (1, 2, 5))
    assert one.tobytes() == two.tobytes() == five.tobytes()


@pytest.mark.parametrize(("n_classes", "digest"), [(2, "c38a63887fdad2b8"), (3, "3d60a6f350e3c673")])
def test_the_bits_are_those_of_the_stored_forests(n_classes, digest):
    """Where they must change, `importance.VERSION` has to go up: what is stored is then another forest's."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, n_classes, 3_000)
    bins = rng.integers(0, 64, (80, 3_000)).astype(np.uint8)
    bins[:3] = bins[:3] // 4 + 8 * classes
    sums = forest.grow_trees(bins, classes, 0, 8, 200, 7, 2)
    q = sums / sums.sum()
    parts = [forest.grow_trees(bins, classes, first, stop, 200, 7, 1) for first, stop in [(0, 3), (3, 8)]]
    assert np.array_equal(sum(parts), sums)
    assert hashlib.sha256(q.tobytes()).hexdigest()[:16] == digest


def test_another_seed_is_another_forest():
    X, y = planted()
    assert not np.array_equal(forest_importance(X, y, n_trees=20), forest_importance(X, y, n_trees=20, seed=1))


def test_the_interpreter_gives_the_bits_of_the_compiler():
    code = (
        "import numpy as np, warnings; warnings.simplefilter('ignore')\n"
        "from tsns_lib import forest_importance\n"
        "rng = np.random.default_rng(0); X = rng.normal(size=(80, 9)); y = rng.integers(0, 3, 80)\n"
        "for labels in (y, y > 0): print(forest_importance(X, labels, n_trees=3, n_jobs=1).tobytes().hex())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_DISABLE_JIT": disable},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for disable in ("0", "1")
    }
    assert len(printed) == 1


def top(q, k):
    return set(np.argsort(-q)[:k].tolist())


def test_selection_agrees_with_the_reference_as_well_as_the_reference_with_itself():
    """On correlated neurons in the shape of activations; on real ones it is measured in the outputs."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 500)
    hidden = rng.normal(size=(500, 12)) + 0.5 * y[:, None] * rng.normal(size=12)
    X = hidden @ rng.normal(size=(12, 200)) + rng.normal(size=(500, 200))
    reference = [forest_importance(X, y, n_trees=300, engine="sklearn", seed=seed) for seed in (0, 1)]
    ours = [forest_importance(X, y, n_trees=300, seed=seed) for seed in (0, 1)]
    for k in (20, 60):
        itself = len(top(reference[0], k) & top(reference[1], k)) / k
        across = np.mean([len(top(a, k) & top(b, k)) / k for a in reference for b in ours])
        assert across >= itself - 0.05


@pytest.mark.slow
def test_selection_agrees_with_the_reference_on_real_activations(real_data):
    books = load_source("books", data_dir=real_data)
    rows = resample_rows(2_000, 0.7, seed=0)
    X = extract(books, load_encoder(), max_length=64, progress=False)[rows]
    y = books.frame["label"].to_numpy()[rows]
    reference = [forest_importance(X, y, engine="sklearn", seed=seed) for seed in (0, 1)]
    ours = [forest_importance(X, y, seed=seed) for seed in (0, 1)]
    for k in (100, 300, 500):
        itself = len(top(reference[0], k) & top(reference[1], k)) / k
        across = np.mean([len(top(a, k) & top(b, k)) / k for a in reference for b in ours])
        assert across >= itself - 2 * np.sqrt(itself * (1 - itself) / k)  # no lower than chance allows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X": np.ones(4)}, r"X: must be a numeric matrix .* of shape \(4,\)"),
        ({"X": np.array([["a"], ["b"], ["c"], ["d"]])}, "X: must be a numeric matrix"),
        (
            {"X": np.array([[1.0], [np.nan], [2.0], [3.0]])},
            "X: row 1, neuron 0 is nan; activations must be finite",
        ),
        ({"X": np.array([[1.0], [2.0], [np.inf], [3.0]])}, "X: row 2, neuron 0 is inf"),
        ({"y": [0, 1, 0]}, "y: must have one label for each of the 4 rows of X"),
        ({"y": [1, 1, 1, 1]}, r"y: has one class only \(1\)"),
        ({"n_trees": 0}, "n_trees: must be at least 1, got 0"),
        ({"max_depth": 0}, "max_depth: must be at least 1, got 0"),
        ({"engine": "exact"}, "engine: must be 'histogram' or 'sklearn', got 'exact'"),
        ({"n_jobs": 0}, "n_jobs: must be -1"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message):
    good = {"X": np.arange(4.0)[:, None], "y": [0, 1, 0, 1], "n_trees": 2}
    with pytest.raises(ValueError, match=message) as error:
        forest_importance(**{**good, **arguments})
    assert "\n" not in str(error.value)
