"""The ladder of baselines: its rungs, its replicates, and what it says."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tsns_workbook import ladder_report
from tsns_workbook.crossed import corpus_weights
from tsns_workbook.ladder import TRANSDUCTIVE, cv_accuracy, fit_words, ladder_grid
from tsns_workbook.statistics import crossed, difference, over_sources

from tsns_lib import load_encoder, load_source, transfer_grid

SMALL = {"neurons": [20, 50], "runs": 2, "n_resamples": 2, "n_trees": 20, "max_length": 64, "progress": False}


@pytest.fixture(scope="module")
def domains():
    return [load_source(f"miniature:{name}", limit=60) for name in ("books", "dvd", "kitchen")]


@pytest.fixture(scope="module")
def grid(domains):
    return ladder_grid(domains[:2], domains[:2], load_encoder(), chosen_k=50, draws=3, n_boot=40, **SMALL)


def test_every_rung_is_there(grid):
    counts = grid.drop_duplicates(["source", "method", "k", "run"]).groupby("source")["method"].value_counts()
    layers = {f"layer {number}": 1 for number in range(1, 7)}
    sized = {"tsns": 4, "f_test": 2, "logistic": 2, "random": 5, "random of the same layers": 5}
    single = dict.fromkeys(["majority", "last_layer", "all", "all with C by CV", "TF-IDF", "best layer"], 1)
    transductive = {f"best layer{TRANSDUCTIVE}": 1, f"TSNS{TRANSDUCTIVE}": 2}
    for source in ("miniature:books", "miniature:dvd"):
        assert counts[source].to_dict() == layers | sized | single | transductive


def test_the_rungs_of_a_transfer_grid_are_those_of_the_library(grid, domains):
    alone = transfer_grid(domains[:2], domains[:2], load_encoder(), **SMALL)
    cell = ["source", "target", "method", "k", "run"]
    both = alone.merge(grid, on=cell, suffixes=("", "_ladder"), how="left")
    for column in ("accuracy", "balanced_accuracy", "auc"):
        assert np.array_equal(both[column], both[f"{column}_ladder"])


def test_the_last_layer_is_layer_6(grid):
    accuracy = grid.set_index(["source", "target", "method"])["accuracy"]
    for pair in [("miniature:books", "miniature:dvd"), ("miniature:dvd", "miniature:books")]:
        assert accuracy[*pair, "last_layer"] == accuracy[*pair, "layer 6"]


def test_neurons_of_the_same_layers_are_as_many_in_each_layer(grid):
    rows = grid[(grid["k"] == 50) & (grid["source"] == "miniature:books") & (grid["run"] == 1)]
    chosen, matched = (
        rows.loc[rows["method"] == method, "selected"].iloc[0] for method in ("tsns", "random of the same layers")
    )
    assert np.array_equal(np.bincount(chosen // 384, minlength=6), np.bincount(matched // 384, minlength=6))
    assert not np.array_equal(chosen, matched)


def test_own_z_standardises_the_target_and_nothing_else_does(domains):
    moved = [domains[0], domains[1]]
    grid = ladder_grid(moved, moved[1:], load_encoder(), chosen_k=20, draws=1, n_boot=5, **SMALL | {"neurons": [20]})
    plain, own_z = (grid.loc[grid["method"] == method, "correct"].iloc[0] for method in ("tsns", f"TSNS{TRANSDUCTIVE}"))
    assert not np.array_equal(plain, own_z)


def test_replicates_have_the_measured_mean_and_a_spread(grid):
    boot = crossed(grid, metric="auc")
    assert np.allclose(boot.draws.mean(), boot.point)
    assert (boot.draws.std()[boot.point.index.get_level_values("method") == "tsns"] > 1).all()


def test_a_replicate_without_a_number_is_refused(grid):
    draws = [values.copy() for values in grid["draws"]]
    draws[3][2, 7] = np.nan
    row = grid.iloc[3]
    with pytest.raises(ValueError, match=f"^draws: a replicate of {row.method} on {row.source} → .* has no auc$"):
        crossed(grid.assign(draws=draws), metric="auc")
    assert len(crossed(grid.assign(draws=draws)).point) > 0


def test_a_target_with_too_few_rows_of_a_class_is_refused_before_any_forest(domains, tmp_path):
    rare = replace(domains[1], frame=domains[1].frame.assign(label=(np.arange(60) == 5).astype(int)))
    with pytest.raises(ValueError, match="^miniature:dvd: 1 of its 60 rows have the label 1, too few for an interval"):
        ladder_grid(domains[:1], [rare], load_encoder(), chosen_k=20, n_boot=50, store=tmp_path, **SMALL)
    assert not list(tmp_path.iterdir())


def test_a_corpus_is_resampled_once_in_both_roles(domains):
    weights = corpus_weights(domains, n_boot=4, seed=0)
    again = corpus_weights(domains[:1], n_boot=4, seed=0)
    books = ("miniature:books", "train")
    assert np.array_equal(weights[books], again[books]) and weights[books].sum(axis=1).tolist() == [60.0] * 4
    assert not np.array_equal(weights[books], weights["miniature:dvd", "train"])


def test_several_sources_have_single_tsns_beside_multi(domains):
    union = [tuple(domains[:2])]
    grid = ladder_grid(union, domains[2:], load_encoder(), chosen_k=20, draws=2, n_boot=5, **SMALL | {"neurons": [20]})
    assert {"tsns", "multi_tsns"} <= set(grid["method"])
    assert grid.loc[grid["method"] == "multi_tsns", "alphas"].notna().all()


def test_without_draws_only_the_rungs_of_the_grid_are_judged(domains):
    union, options = [tuple(domains[:2])], SMALL | {"neurons": [20]}
    alone, whole = (
        ladder_grid(union, domains[2:], load_encoder(), chosen_k=20, draws=draws, n_boot=5, **options)
        for draws in (0, 2)
    )
    assert set(alone["method"]) == {"majority", "last_layer", "all", "f_test", "logistic", "random", "multi_tsns"}
    both = alone.merge(whole, on=["source", "target", "method", "k", "run"])
    assert len(both) == len(alone) and all(map(np.array_equal, both["draws_x"], both["draws_y"]))


def test_three_classes_are_refused(tmp_path):
    path = tmp_path / "three.csv"
    path.write_text("text,label\n" + "".join(f"word {row},{row % 3}\n" for row in range(30)))
    source = load_source(str(path))
    with pytest.raises(ValueError, match="two classes, and here are 3"):
        ladder_grid([source], [source], load_encoder(), chosen_k=20, **SMALL)


def test_words_tell_what_only_words_tell():
    texts = pd.Series(["good film", "bad film", "good book", "bad book"] * 5)
    labels = np.array([1, 0, 1, 0] * 5)
    assert fit_words(texts, labels).predict(["a good film", "a bad book"]).tolist() == [1, 0]


def test_cross_validation_sees_held_out_rows_only():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 300)), rng.integers(0, 2, 200)
    assert 0.35 < cv_accuracy(X, y, 1.0, seed=0) < 0.65  # noise, which a fit tells apart without an error
    assert cv_accuracy(X + 5 * y[:, None], y, 0.01, seed=0) == 1.0


def test_the_answer_sorts_every_rung_by_its_interval(grid):
    ladders = {"cls": ladder_report.crossed_by_metric(grid, 0)}
    frame = ladder_report.ladder_frame(ladders, ("tsns", 50))
    answer = ladder_report.ladder_answer(frame, ("tsns", 50))
    gain = difference(ladders["cls"]["accuracy"], ("tsns", 50), ("last_layer", 384))
    assert (
        f"its lead over the last layer is {gain.estimate:+.1f} ({gain.low:+.1f} to {gain.high:+.1f}) points" in answer
    )
    named = set(frame["method"]) - {"tsns"}
    assert all(ladder_report.label(method, 0) in answer for method in named if TRANSDUCTIVE not in method)
    table = ladder_report.ladder_table(frame, ("tsns", 50), generated=True)
    assert table.shape == (len(frame), 5) and "generated" in table.columns[0][0]
    lead = ladder_report.ladder_table(frame, ("tsns", 50), generated=True, metric="auc").iloc[:, -2:]
    gain = difference(ladders["cls"]["auc"], ("tsns", 50), ("last_layer", 384))
    _, low, high = over_sources(ladders["cls"]["auc"], ("tsns", 50), ("last_layer", 384))
    assert lead.loc["last layer"].tolist() == [
        f"{gain.estimate:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})",
        f"{low:+.1f} to {high:+.1f}",
    ]
