"""The grid source × target × method × K × run, on generated corpora and the built-in encoder."""

import numpy as np
import pandas as pd
import pytest

from tsns_lib import SingleTSNS, extract, load_encoder, load_source, transfer_grid
from tsns_lib.classifier import fit_classifier
from tsns_lib.sampling import run_seed
from tsns_lib.transfer import parts_of, pool_of

SMALL = {"neurons": [20, 50], "runs": 2, "n_resamples": 4, "n_trees": 20, "max_length": 64, "progress": False}


@pytest.fixture(scope="module")
def encoder():
    return load_encoder()


@pytest.fixture(scope="module")
def domains():
    return [load_source(f"miniature:{name}", limit=80) for name in ("books", "dvd", "kitchen")]


@pytest.fixture(scope="module")
def grid(domains, encoder):
    return transfer_grid(domains[:2], domains, encoder, **SMALL)


def test_every_pair_of_different_names_has_every_method(grid):
    pairs = {
        (f"miniature:{a}", f"miniature:{b}") for a in ("books", "dvd") for b in ("books", "dvd", "kitchen") if a != b
    }
    counts = grid.groupby(["source", "target"])["method"].value_counts().unstack()
    assert set(counts.index) == pairs
    expected = {"majority": 1, "last_layer": 1, "all": 1, "f_test": 2, "logistic": 2, "random": 4, "tsns": 4}
    assert all(row.to_dict() == expected for _, row in counts.iterrows())


def test_accuracy_is_the_share_of_correct_rows(grid, domains):
    assert np.allclose(grid["accuracy"], [correct.mean() for correct in grid["correct"]])
    assert set(grid["n"]) == {80}


def test_selections_have_k_distinct_neurons(grid):
    chosen = grid[grid["method"] != "majority"]
    assert all(len(set(selected)) == k for selected, k in zip(chosen["selected"], chosen["k"], strict=True))
    last = grid.loc[grid["method"] == "last_layer", "selected"].iloc[0]
    assert (last.min(), last.max()) == (1920, 2303)


def test_a_cell_is_the_classifier_on_its_neurons(grid, domains, encoder):
    row = grid[(grid["method"] == "tsns") & (grid["target"] == "miniature:kitchen")].iloc[0]
    X, Z = (extract(source, encoder, max_length=64, progress=False) for source in (domains[0], domains[2]))
    model = fit_classifier(X[:, row["selected"]], domains[0].frame["label"])
    assert np.array_equal(model.predict(Z[:, row["selected"]]) == domains[2].frame["label"], row["correct"])


def test_majority_is_the_larger_class_of_the_target(grid, domains):
    share = domains[2].frame["label"].value_counts(normalize=True).max()
    majority = grid[(grid["method"] == "majority") & (grid["target"] == "miniature:kitchen")]
    assert majority["accuracy"].tolist() == [share, share]


def test_a_pair_alone_gives_the_same_numbers(grid, domains, encoder):
    alone = transfer_grid([domains[1]], [domains[2]], encoder, **SMALL)
    same = grid[(grid["source"] == "miniature:dvd") & (grid["target"] == "miniature:kitchen")]
    columns = ["method", "k", "run", "accuracy"]
    pd.testing.assert_frame_equal(alone[columns], same[columns].reset_index(drop=True))


def test_the_labels_of_a_target_change_the_score_and_nothing_else(domains, encoder, grid):
    from dataclasses import replace

    frame = domains[2].frame
    flipped = replace(domains[2], frame=frame.assign(label=1 - frame["label"]))
    turned = transfer_grid([domains[0]], [flipped], encoder, **SMALL).query("method != 'majority'")
    same = grid[(grid["source"] == "miniature:books") & (grid["target"] == "miniature:kitchen")]
    same = same.query("method != 'majority'")
    assert np.allclose(turned["accuracy"].to_numpy(), 1 - same["accuracy"].to_numpy())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neurons": [0]}, "n_neurons: must be between 1 and the 2304 neurons there are, got 0"),
        ({"neurons": [2305]}, "n_neurons: must be between 1 and the 2304 neurons there are, got 2305"),
        ({"runs": 0}, "runs: must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_one_clear_line(domains, encoder, change, message):
    with pytest.raises(ValueError, match=message):
        transfer_grid(domains[:1], domains[1:2], encoder, **{**SMALL, **change})


def test_a_source_alone_cannot_be_transferred(domains, encoder):
    with pytest.raises(ValueError, match="no pair of different names"):
        transfer_grid(domains[:1], domains[:1], encoder, **SMALL)
    with pytest.raises(ValueError, match="sources: a name stands twice"):
        transfer_grid([domains[0], domains[0]], domains[1:], encoder, **SMALL)


def test_several_sources_arepool_ofed_whatever_their_order(domains, encoder):
    books, dvd, kitchen = domains
    settings = {**SMALL, "neurons": [20], "runs": 1}
    grid, turned = (transfer_grid([pair], [kitchen], encoder, **settings) for pair in ((books, dvd), (dvd, books)))
    assert grid["method"].tolist() == ["majority", "last_layer", "all", "f_test", "logistic", "random", "multi_tsns"]
    assert set(grid["source"]) == {"miniature:books+miniature:dvd"}
    assert grid["accuracy"].tolist() == turned["accuracy"].tolist()
    learned = grid.iloc[-1]
    assert learned["alphas"].shape == (2,) and learned["term_medians"].shape == (2, 2)


def test_a_budget_is_shared_and_smaller_shares_are_part_of_larger_ones(domains):
    parts = [parts_of(domains[:2], budget, "leave_one_out", 0) for budget in (20, 90, None)]
    pools = [pool_of(part, lambda source: np.arange(80.0)[:, None]) for part in parts]
    assert [len(pool.y) for pool in pools] == [20, 90, 160]
    assert np.unique(pools[1].source_of_row, return_counts=True)[1].tolist() == [45, 45]
    rows = [set(zip(pool.source_of_row, pool.X[:, 0], strict=True)) for pool in pools]
    assert rows[0] < rows[1] < rows[2]


def test_one_learner_shares_its_forests_with_the_single_source(domains, encoder, tmp_path):
    books, dvd, kitchen = domains
    settings = {**SMALL, "neurons": [20], "runs": 1, "store": tmp_path}
    transfer_grid([books, dvd], [kitchen], encoder, **settings)
    written = set(tmp_path.rglob("importance/**/*.npy"))
    transfer_grid([(books, dvd)], [kitchen], encoder, **settings)
    assert set(tmp_path.rglob("importance/**/*.npy")) == written


def test_activations_in_half_precision_transfer_as_well(domains):
    halved = load_encoder(dtype="bfloat16")
    grid = transfer_grid(domains[:1], domains[1:2], halved, **SMALL)
    assert grid["accuracy"].notna().all()
    assert grid.loc[grid["method"] == "all", "accuracy"].item() > 0.5


def test_every_k_stops_alone_as_the_selector_does(domains, tmp_path):
    encoder = load_encoder()
    settings = {"n_resamples": 8, "n_trees": 100, "tol": 0.3, "store": tmp_path}
    neurons = [5, 600, 2304]
    grid = transfer_grid(domains[:1], domains[1:2], encoder, neurons=neurons, runs=1, progress=False, **settings)
    chosen = grid[grid["method"] == "tsns"].set_index("k")
    X, y = extract(domains[0], encoder, store=tmp_path, progress=False), domains[0].frame["label"].to_numpy()
    seed = run_seed(0, 0, domains[0].name)
    for k in neurons:
        alone = SingleTSNS(k, random_state=seed, **settings).fit(X, y)
        assert chosen.at[k, "selected"].tolist() == alone.selected_.tolist()
        assert chosen.at[k, "trees"] == alone.n_trees_
    assert chosen["trees"].nunique() > 1


def test_a_grid_says_what_a_union_is_made_of_and_whether_data_are_generated(domains, tmp_path):
    settings = {"neurons": [5], "runs": 1, "n_resamples": 2, "n_trees": 5, "store": tmp_path, "progress": False}
    grid = transfer_grid([tuple(domains[1::-1])], domains[2:3], load_encoder(), **settings)
    names = sorted(domain.name for domain in domains[:2])
    assert grid["source"].unique().tolist() == ["+".join(names)]
    assert grid["members"].map(list).tolist() == [names] * len(grid)
    assert grid["generated"].all()
