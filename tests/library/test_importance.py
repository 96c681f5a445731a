"""Resamples, equation 1, order and stability."""

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tsns_lib import cumulative_importance, importance, resampled_importance
from tsns_lib.aggregation import half_overlap, order_neurons, select_neurons
from tsns_lib.executors import announce
from tsns_lib.sampling import derive_seed, resample_fraction, resample_rows, run_seed
from tsns_lib.store import Store, StoreError


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 100)
    return rng.normal(size=(100, 12)) + y[:, None] * (np.arange(12) == 4), y


SMALL = {"n_resamples": 4, "n_trees": 10}


def test_rows_sum_to_one(data, tmp_path):
    q = resampled_importance(*data, **SMALL, store=tmp_path)
    assert q.shape == (4, 12)
    assert np.allclose(q.sum(axis=1), 1)


def test_a_resample_is_the_forest_on_its_rows(data, tmp_path):
    from tsns_lib import forest_importance

    X, y = data
    q = resampled_importance(X, y, **SMALL, fraction=1.0, seed=3, store=tmp_path)
    seed = derive_seed(3, "resample", 2, "forest")
    assert np.array_equal(q[2], forest_importance(X, y, n_trees=10, seed=seed))


def test_threads_and_interruptions_never_change_a_bit(data, tmp_path):
    whole = resampled_importance(*data, **SMALL, n_jobs=1, store=tmp_path / "whole")
    resampled_importance(*data, n_resamples=2, n_trees=10, n_jobs=2, store=tmp_path / "parts")
    parts = resampled_importance(*data, **SMALL, n_jobs=2, store=tmp_path / "parts")
    assert whole.tobytes() == parts.tobytes()


def test_a_second_call_reads(data, tmp_path):
    store = Store(tmp_path)
    first = resampled_importance(*data, **SMALL, store=store)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    second = resampled_importance(*data, **SMALL, store=store)
    assert np.array_equal(first, second)
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}


def test_a_killed_call_goes_on_where_it_stopped(tmp_path):
    code = (
        "import numpy as np, sys; from tsns_lib import resampled_importance\n"
        "rng = np.random.default_rng(0); X = rng.normal(size=(400, 200)); y = rng.integers(0, 2, 400)\n"
        "q = resampled_importance(X, y, n_resamples=int(sys.argv[2]), n_trees=200, store=sys.argv[1])\n"
        "print(q.tobytes().hex()[-4000:])"
    )

    def run(store, n_resamples=40):
        command = [sys.executable, "-c", code, str(tmp_path / store), str(n_resamples)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    killed = run("killed")
    while not list((tmp_path / "killed").rglob("00002.npy")):
        time.sleep(0.01)
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("*.npy")}
    assert len(kept) == 3  # of four, each with ten resamples
    resumed, whole = run("killed").communicate()[0], run("whole").communicate()[0]
    assert resumed == whole
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())


def test_tens_of_resamples_are_kept_in_a_file_and_others_one_by_one(data, tmp_path):
    def forests(n, folder):
        q = resampled_importance(*data, n_resamples=n, n_trees=3, n_jobs=1, store=tmp_path / folder)
        return q, {path.name: path.stat().st_mtime_ns for path in (tmp_path / folder).rglob("*.npy")}

    ten, before = forests(10, "tens")
    twenty, after = forests(20, "tens")
    alone, files = forests(19, "alone")
    assert (sorted(before), sorted(after), len(files)) == (["00000.npy"], ["00000.npy", "00001.npy"], 19)
    assert before["00000.npy"] == after["00000.npy"]
    assert twenty[:10].tobytes() == ten.tobytes()
    assert twenty[:19].tobytes() == alone.tobytes()


def test_a_damaged_resample_is_said_and_grown_again(data, tmp_path, caplog):
    q = resampled_importance(*data, **SMALL, store=tmp_path)
    shard = next(tmp_path.rglob("00001.npy"))
    shard.write_bytes(shard.read_bytes()[:-8])
    assert resampled_importance(*data, **SMALL, store=tmp_path).tobytes() == q.tobytes()
    assert [str(shard) in message for message in caplog.messages] == [True]


def key(folder, X, y, **settings):
    """The one entry that a call has made in an empty store."""
    resampled_importance(X, y, **{"n_resamples": 2, "n_trees": 3, "n_jobs": 1, **settings}, store=folder)
    [entry] = (folder / "importance").iterdir()
    return entry.name


def changed(X, row, neuron, value):
    other = X.copy()
    other[row, neuron] = value
    return other


@pytest.mark.parametrize(
    "change",
    [
        lambda X, y: (X, y, {"n_trees": 4}),
        lambda X, y: (X, y, {"max_depth": 199}),
        lambda X, y: (X, y, {"fraction": 0.71}),
        lambda X, y: (X, y, {"seed": 1}),
        lambda X, y: (X, y, {"engine": "sklearn"}),
        lambda X, y: (X, np.where(np.arange(100) == 50, 1 - y, y), {}),
        lambda X, y: (X, np.where(np.arange(100) == 50, 2, y), {}),
        lambda X, y: (changed(X, 99, 11, X[99, 11] + 1e-9), y, {}),
        lambda X, y: (X[::-1], y, {}),
        lambda X, y: (X.astype(np.float32), y, {}),
        lambda X, y: (X.reshape(50, 24), y[:50], {}),
        lambda X, y: (X[:, :11], y, {}),
    ],
)
def test_whatever_changes_a_number_changes_the_key(data, tmp_path, change):
    X, y = data
    *other, settings = change(X, y)
    assert key(tmp_path / "one", X, y) != key(tmp_path / "two", *other, **settings)


def test_the_same_bytes_as_numbers_of_another_type_are_another_key(data, tmp_path):
    X, y = data[0].astype(np.float32), data[1]
    assert key(tmp_path / "one", X, y) != key(tmp_path / "two", X.view(np.int32), y)


@pytest.mark.parametrize("engine", ["histogram", "sklearn"])
def test_another_version_of_an_engine_is_another_key(data, tmp_path, monkeypatch, engine):
    before = key(tmp_path / "one", *data, engine=engine)
    if engine == "histogram":
        monkeypatch.setattr(importance, "VERSION", importance.VERSION + 1)
    else:
        monkeypatch.setattr(importance.metadata, "version", lambda package: f"9.9 of {package}")
    assert key(tmp_path / "two", *data, engine=engine) != before


@pytest.mark.parametrize(
    "settings",
    [
        {"n_jobs": 2},
        {"scheduler": "processes:1"},
        {"progress": True},
        {"tol": 0.2, "neurons": [1]},
        {"n_resamples": 3},
        {"n_trees": np.int32(3), "seed": np.uint8(0), "max_depth": np.int64(200), "fraction": np.float64(0.7)},
        {"fraction": "auto"},
    ],
    ids=lambda settings: "+".join(settings),
)
def test_what_changes_no_number_keeps_the_key(data, tmp_path, settings):
    X, y = data
    same = key(tmp_path / "one", X, y, fraction=0.7)
    assert key(tmp_path / "two", X, np.array(["no", "yes"])[y], **{"fraction": 0.7, **settings}) == same


def test_every_resample_has_rows_and_a_forest_of_its_own(data, tmp_path):
    X, y = data
    forests = resampled_importance(X, y, n_resamples=5, n_trees=3, fraction=1.0, store=tmp_path)  # the rows are all
    assert len({q.tobytes() for q in forests}) == 5
    forest = importance.Forest(5)
    assert len({importance._rows(j, 100, forest).tobytes() for j in range(5)}) == 5


def test_every_run_and_every_source_has_a_seed_of_its_own():
    assert run_seed(0, 0) == 655948615782592320
    assert len({run_seed(seed, run, name) for seed in (0, 1) for run in (0, 1) for name in (None, "a", "b")}) == 12


def test_the_key_is_what_it_was():
    """What is stored must be found again: only a new `importance.VERSION` may change this."""
    X = np.arange(24.0).reshape(8, 3)
    forest = importance.Forest(n_resamples=2, n_trees=3)
    resamples = importance.Resamples(X, np.arange(8) % 2, forest)
    assert resamples._entry(3).key[:16] == "23a8521937ecfed9"


def test_a_resample_of_one_class_is_found_before_the_first_forest(tmp_path):
    X, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) < 4
    with pytest.raises(ValueError, match=r"fraction: resample \d+ \(12 of 40 rows\) holds one class only"):
        resampled_importance(X, y, fraction=0.3, n_resamples=100, n_trees=1, seed=3, store=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_written_says_so_before_the_first_forest(data, tmp_path):
    (tmp_path / "importance").write_text("a file in the place of a folder")
    start = time.monotonic()
    with pytest.raises(StoreError, match="importance"):
        resampled_importance(*data, n_trees=500_000, store=tmp_path)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_resamples": 0}, "n_resamples: must be at least 1, got 0"),
        ({"fraction": 0}, r"fraction: must be 'auto' or in \(0, 1\], got 0"),
        ({"fraction": 1.5}, r"fraction: must be 'auto' or in \(0, 1\], got 1.5"),
        ({"fraction": "all"}, r"fraction: must be 'auto' or in \(0, 1\], got 'all'"),
        ({"fraction": 0.01}, "fraction: resample 0 .* holds one class only; use a larger fraction"),
    ],
)
def test_bad_resampling_is_one_clear_line(data, arguments, message):
    with pytest.raises(ValueError, match=message):
        resampled_importance(*data, **{**SMALL, **arguments})


def test_fraction_follows_the_size_of_the_source():
    assert [resample_fraction(n) for n in (2_000, 9_999, 10_000, 366_180)] == [0.7, 0.7, 0.1, 0.1]


def test_resample_rows_are_distinct_and_seeded():
    rows = resample_rows(1_000, 0.7, seed=5)
    assert len(rows) == len(set(rows)) == 700
    assert np.array_equal(rows, resample_rows(1_000, 0.7, seed=5))
    assert not np.array_equal(rows, resample_rows(1_000, 0.7, seed=6))


def test_a_seed_belongs_to_its_parts_and_stays_what_it_is():
    assert derive_seed(0, "books", "run", 1) == 5074785485830353976
    assert len({derive_seed(seed, *parts) for seed in (0, 1) for parts in [("a", 1), ("a", 2), ("a1",), ("a",)]}) == 8


def test_equation_1_on_literal_values():
    q = [[0.1, 0.6, 0.3], [0.3, 0.6, 0.1]]
    assert cumulative_importance(q) == pytest.approx([0.2, 0.6, 0.2])
    assert cumulative_importance(q, alpha=0, eps=0.1) == pytest.approx([1.0, 6.0, 1.0])
    assert cumulative_importance(q, alpha=0.5, eps=0.1) == pytest.approx([0.6, 3.3, 0.6])


importances = arrays(float, (4, 6), elements=st.floats(0, 1))


@given(importances)
def test_at_alpha_one_it_is_the_mean(q):
    assert cumulative_importance(q, alpha=1.0) == pytest.approx(q.mean(axis=0))


@given(importances, st.permutations(range(4)))
def test_the_order_of_resamples_does_not_matter(q, order):
    assert cumulative_importance(q[order], alpha=0.5) == pytest.approx(cumulative_importance(q, alpha=0.5), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"q": [0.1, 0.2]}, "q: must be a matrix"),
        ({"q": [[0.1, np.nan]]}, "q: must be a finite matrix"),
        ({"alpha": 1.1}, r"alpha: must be in \[0, 1\], got 1.1"),
        ({"eps": 0}, "eps: must be positive, got 0"),
    ],
)
def test_bad_importances_are_one_clear_line(arguments, message):
    arguments = {"q": [[0.5, 0.5]], **arguments}
    with pytest.raises(ValueError, match=message):
        cumulative_importance(arguments.pop("q"), **arguments)


def test_ties_are_not_ordered_by_index():
    order = order_neurons(np.zeros(1_000))
    assert sorted(order) == list(range(1_000))
    assert 400 < np.mean(order[:300]) < 600
    assert np.array_equal(order, order_neurons(np.zeros(1_000)))


@given(arrays(float, 30, elements=st.floats(0, 1)), st.integers(1, 30))
def test_the_selected_are_the_largest(m, k):
    m = m + 0.1
    selected = select_neurons(m, k)
    assert len(set(selected)) == k
    assert m[selected].min() >= np.sort(m)[-k]


def test_too_few_important_neurons_are_said():
    with pytest.warns(UserWarning, match="only 1 of the 2 selected neurons have an importance above 0"):
        assert 1 in select_neurons(np.array([0.0, 0.4, 0.0]), 2)


def test_stability_on_literal_values():
    q = np.array([[0.6, 0.3, 0.1, 0.0], [0.5, 0.0, 0.4, 0.1]])
    assert half_overlap([q], 2, [1.0]) == 0.5
    assert half_overlap([np.repeat(q[:1], 6, axis=0)], 2, [1.0]) == 1.0
    assert np.isnan(half_overlap([q[:1]], 2, [1.0]))


@pytest.fixture
def every_cost_is_said(monkeypatch):
    monkeypatch.setattr("tsns_lib.executors.WORTH_SAYING", 0)


@pytest.mark.usefixtures("every_cost_is_said")
def test_what_forests_will_cost_is_said_before_they_grow(data, tmp_path, capsys):
    resampled_importance(*data, **SMALL, store=tmp_path, progress=True)
    said = capsys.readouterr().err.split("\n")[0]
    assert said == "4 forests of 10 trees: about 0 s, 0.0 MB on disk"
    resampled_importance(*data, **SMALL, store=tmp_path, progress=True)
    assert "forests" not in capsys.readouterr().err  # what is known costs nothing


@pytest.mark.usefixtures("every_cost_is_said")
def test_a_ceiling_is_called_one(data, tmp_path, capsys):
    resampled_importance(*data, n_resamples=9, n_trees=10, tol=0.2, neurons=[1], store=tmp_path, progress=True)
    assert capsys.readouterr().err.startswith("at most 9 forests of 10 trees: about ")


def test_nothing_is_said_unasked(data, tmp_path, capsys):
    resampled_importance(*data, **SMALL, store=tmp_path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "n_bytes", "said"),
    [(42, 2e6, "42 s, 2.0 MB"), (600, 2e8, "10 min, 0.2 GB"), (9_000, 18e9, "2.5 h, 18.0 GB")],
)
def test_costs_are_said_in_units_for_people(capsys, seconds, n_bytes, said):
    announce("7 units", seconds, n_bytes)
    assert capsys.readouterr().err == f"7 units: about {said} on disk\n"
    announce("7 units", 9, n_bytes)
    assert capsys.readouterr().err == ""  # that is soon over


def test_an_entry_with_a_missing_value_grows_no_forest(data, tmp_path):
    X, y = data
    entry = Store(tmp_path).entry("activations", {"of": "somebody"})
    entry.write(0, changed(X, 3, 1, np.nan))
    entry.finish(1)
    with pytest.raises(ValueError, match="X: the entry holds values that are not finite"):
        resampled_importance(entry, y, n_resamples=2, n_trees=10, n_jobs=1, store=tmp_path)
    assert not (tmp_path / "importance").exists()
