"""Fingerprints on literal values, their likeness, and the study of many sources."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from tsns_lib import fingerprint, fingerprint_similarity, load_encoder, load_source, transfer_grid
from tsns_lib.fingerprints import METRICS, fingerprint_frame, uniform_band


def test_numbers_and_masks_give_the_same():
    mask = np.zeros(12, bool)
    mask[[0, 1, 2, 11]] = True
    assert fingerprint(mask, 3).tolist() == [0.75, 0.0, 0.25]
    assert fingerprint([11, 0, 2, 1], 3, 12).tolist() == [0.75, 0.0, 0.25]


def test_all_neurons_are_spread_evenly():
    assert fingerprint(range(2304), 6, 2304).tolist() == [1 / 6] * 6


@given(st.sets(st.integers(0, 59), min_size=1))
def test_shares_sum_to_one(selected):
    shares = fingerprint(sorted(selected), 5, 60)
    assert shares.sum() == pytest.approx(1)
    assert (shares >= 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], 2), "n_neurons: needed when selected holds neuron numbers"),
        (([0, 1], 4, 6), "n_layers: 6 neurons cannot be shared equally by 4 layers"),
        (([], 2, 6), "selected: must be a non-empty list"),
        (([0, 6], 2, 6), r"selected: neurons must be in \[0, 6\), got 0 to 6"),
        (([0, 0], 2, 6), "selected: a neuron stands twice"),
        (([True, False], 2, 6), "n_neurons: is 6, but the mask has 2 neurons"),
    ],
)
def test_bad_selections_are_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        fingerprint(*arguments)


@pytest.mark.parametrize(
    ("metric", "neighbours", "ends"), [("cosine", 0.0, 0.0), ("jensen_shannon", 0.0, 0.0), ("wasserstein", 0.75, 0.0)]
)
def test_similarity_of_fingerprints_on_one_layer_each(metric, neighbours, ends):
    first, second, last = np.eye(5)[[0, 1, 4]]
    assert fingerprint_similarity(first, first, metric) == pytest.approx(1)
    assert fingerprint_similarity(first, second, metric) == pytest.approx(neighbours)
    assert fingerprint_similarity(first, last, metric) == pytest.approx(ends)


def test_similarities_by_hand():
    a, b = [0.5, 0.5, 0.0], [0.5, 0.0, 0.5]
    assert fingerprint_similarity(a, b) == pytest.approx(0.5)
    assert fingerprint_similarity(a, b, "jensen_shannon") == pytest.approx(1 - 0.5**0.5)
    assert fingerprint_similarity(a, b, "wasserstein") == pytest.approx(1 - 0.25)


@given(shares=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=24))
@pytest.mark.parametrize("metric", METRICS)
def test_similarity_is_symmetric_and_between_0_and_1(metric, shares):
    a, b = np.array(shares).T + 0.01
    similarity = fingerprint_similarity(a, b, metric)
    assert -1e-9 <= similarity <= 1 + 1e-9
    assert similarity == pytest.approx(fingerprint_similarity(100 * b, a, metric))
    assert similarity <= fingerprint_similarity(a, a, metric) + 1e-9


def test_wasserstein_agrees_with_scipy():
    a, b = np.random.default_rng(0).dirichlet(np.ones(12), size=2)
    depth = np.linspace(0, 1, 12)
    assert fingerprint_similarity(a, b, "wasserstein") == pytest.approx(1 - wasserstein_distance(depth, depth, a, b))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 0], [1, 0], "euclid"), "metric: must be one of cosine, jensen_shannon, wasserstein, got 'euclid'"),
        (([1, 0], [1, 0, 0]), "a, b: fingerprints of 2 and 3 layers cannot be compared"),
        (([1, -1], [1, 0]), "a: must be a finite share for each layer, none negative"),
        (([1, 0], [0, 0]), "b: must be a finite share for each layer"),
        (([1, np.nan], [1, 0]), "a: must be a finite share for each layer"),
    ],
)
def test_bad_fingerprints_are_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        fingerprint_similarity(*arguments)


def test_the_uniform_band_covers_random_choices():
    low, high = uniform_band(100, 6, 600)
    rng = np.random.default_rng(0)
    drawn = np.array([fingerprint(rng.choice(600, 100, replace=False), 6, 600) for _ in range(2000)])
    assert 0.95 <= ((drawn >= low) & (drawn <= high)).mean() < 0.98


def test_the_uniform_band_of_all_neurons_is_a_line():
    assert uniform_band(600, 6, 600) == (1 / 6, 1 / 6)


@pytest.mark.parametrize(
    ("arguments", "level", "message"),
    [
        ((10, 4, 6), 0.95, "n_layers: 6 neurons cannot be shared equally by 4 layers"),
        ((7, 2, 6), 0.95, "k: must be between 1 and the 6 neurons"),
        ((3, 2, 6), 1.0, "level: must be in \(0, 1\)"),
    ],
)
def test_bad_bands_are_one_clear_line(arguments, level, message):
    with pytest.raises(ValueError, match=message):
        uniform_band(*arguments, level=level)


@pytest.fixture(scope="module")
def settings(own_cache):
    sources = [load_source(f"miniature:{name}", limit=40) for name in ("books", "dvd")]
    few = {"k": 60, "n_resamples": 3, "n_trees": 20, "max_length": 32, "store": own_cache, "progress": False}
    return sources, load_encoder(), few


def test_the_study_shares_its_choice_with_the_transfer_grid(settings):
    sources, encoder, few = settings
    frame = fingerprint_frame(sources, encoder, runs=2, **few)
    k = few["k"]
    others = {name: value for name, value in few.items() if name != "k"}
    grid = transfer_grid(sources, sources, encoder, neurons=[k], runs=2, **others)
    chosen = grid[grid["method"] == "tsns"].set_index(["source", "run"])["selected"]
    assert len(frame) == 4
    for row in frame.itertuples():
        assert (row.selected == chosen[row.source, row.run]).all()
        assert row.shares.tolist() == fingerprint(row.selected, 6, 2304).tolist()


def test_draws_are_fingerprints_around_the_runs(settings):
    sources, encoder, few = settings
    row = fingerprint_frame(sources[:1], encoder, runs=1, **few).iloc[0]
    assert row["draws"].shape == (500, 6)
    assert np.allclose(row["draws"].sum(axis=1), 1)
    assert np.abs(row["draws"].mean(axis=0) - row["shares"]).max() < 0.15


def test_shuffled_labels_choose_other_neurons_in_every_run(settings):
    sources, encoder, few = settings
    true, shuffled = (
        fingerprint_frame(sources[:1], encoder, runs=2, labels=labels, **few)["selected"].to_list()
        for labels in ("true", "shuffled")
    )
    assert set(true[0]) != set(shuffled[0]) != set(shuffled[1])
    again = fingerprint_frame(sources[:1], encoder, runs=1, labels="shuffled", **few)["selected"][0]
    assert (again == shuffled[0]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": "random"}, "labels: must be 'true' or 'shuffled', got 'random'"),
        ({"runs": 0}, "runs: must be at least 1, got 0"),
        ({"k": 2305}, "n_neurons: must be between 1 and the 2304"),
    ],
)
def test_bad_studies_are_one_clear_line(settings, changes, message):
    sources, encoder, few = settings
    with pytest.raises(ValueError, match=message):
        fingerprint_frame(sources, encoder, **{**few, **changes})
    with pytest.raises(ValueError, match="sources: a name stands twice"):
        fingerprint_frame([sources[0], sources[0]], encoder, **few)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint64"])
def test_neuron_numbers_of_any_type(dtype):
    assert fingerprint(np.array([0, 1, 100], dtype), 6, 2304).tolist() == [1.0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": "books"}, "sources: must be a list of what load_source gives, got 'books'"),
        ({"sources": ["books"]}, r"sources: must be a list of what load_source gives, got \['books'\]"),
        ({"encoder": "builtin:minilm"}, "encoder: must be what load_encoder gives, got str"),
        ({"seed": 1.5}, "seed: must be a whole number, got 1.5"),
        ({"seed": -1}, "seed: must be at least 0, got -1"),
        ({"runs": 10**12}, "runs: must be at most 10,000, got 1,000,000,000,000"),
    ],
)
def test_what_a_frame_cannot_be_made_of_is_said_before_any_work(tmp_path, change, message):
    given = {"sources": [load_source("miniature:books", limit=20)], "encoder": load_encoder(), "store": tmp_path / "s"}
    with pytest.raises(ValueError, match=message):
        fingerprint_frame(**given | change)
    assert not (tmp_path / "s").exists()
