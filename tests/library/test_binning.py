"""Quantile bins from memory and from the store."""

import numpy as np
import pytest

from tsns_lib import forest, resampled_importance
from tsns_lib.forest import bin_activations, bin_edges
from tsns_lib.store import Store


def binned(X, **options):
    return bin_activations(X, bin_edges(X, **options), **options)


def stored(X, folder, shard_rows=37):
    entry = Store(folder).entry("activations", {"toy": X.shape, "dtype": X.dtype.str})
    shards = [X[first : first + shard_rows] for first in range(0, len(X), shard_rows)]
    for index, shard in enumerate(shards):
        entry.write(index, shard)
    entry.finish(len(shards))
    return entry


def test_few_distinct_values_keep_a_bin_each():
    bins = binned(np.array([[3.0, 1.0], [-1.0, 1.0], [7.0, 1.0], [3.0, 1.0]]))
    assert bins.tolist() == [[1, 0, 2, 1], [0, 0, 0, 0]]


def test_many_values_are_cut_into_64_bins_of_equal_share():
    bins = binned(np.random.default_rng(0).normal(size=(6_400, 3)))
    assert all(np.bincount(column).tolist() == [100] * 64 for column in bins)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "bool"])
def test_every_kind_of_number_is_cut_as_its_exact_values(dtype):
    X = (np.random.default_rng(0).normal(size=(300, 5)) * 3).astype(dtype)
    assert binned(X).tolist() == binned(X.astype(np.float64)).tolist()


def test_threads_never_change_a_bin():
    X = np.random.default_rng(0).normal(size=(500, 200)).astype(np.float32)
    assert np.array_equal(binned(X, n_jobs=1), binned(X, n_jobs=2))


def test_some_rows_are_cut_as_all_are():
    X = np.random.default_rng(0).normal(size=(5_000, 70)).astype(np.float32)
    edges, rows = bin_edges(X), np.arange(3, 5_000, 2)
    assert np.array_equal(bin_activations(X, edges, rows), bin_activations(X, edges)[:, rows])


def test_a_large_source_is_cut_by_some_of_its_rows(monkeypatch):
    monkeypatch.setattr(forest, "EDGE_ROWS", 640)
    X = np.random.default_rng(0).permutation(64_000).astype(np.float32)[:, None]
    shares = np.bincount(binned(X)[0]) / len(X)
    assert len(shares) == 64
    assert shares.max() < 3 / 64


@pytest.mark.parametrize("period", [2, 3, 10])
def test_a_regular_order_of_the_rows_hides_no_value(monkeypatch, period):
    monkeypatch.setattr(forest, "EDGE_ROWS", 640)
    X = (np.arange(640 * period) % period)[:, None].astype(np.float32)
    assert sorted(set(binned(X)[0].tolist())) == list(range(period))


@pytest.mark.parametrize("engine", ["histogram", "sklearn"])
def test_importance_from_the_store_has_the_same_bits(tmp_path, engine, monkeypatch):
    monkeypatch.setattr(forest, "BLOCK_BYTES", 10_000)  # several blocks of neurons
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 150)
    X = (rng.normal(size=(150, 200)) + y[:, None] * (np.arange(200) == 4)).astype(np.float16)
    settings = {"n_resamples": 3, "n_trees": 10, "engine": engine, "n_jobs": 1}
    from_memory = resampled_importance(X, y, **settings, store=tmp_path / "one")
    from_store = resampled_importance(stored(X, tmp_path), y, **settings, store=tmp_path / "two")
    assert from_memory.tobytes() == from_store.tobytes()
    names = [[path.name for path in (tmp_path / store / "importance").iterdir()] for store in ("one", "two")]
    assert names[0] == names[1]  # and is the same entry: either way reads what the other has done
