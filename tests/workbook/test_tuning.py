"""Grids of tuned and of re-initialised models, and the claims judged on them."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from tsns_workbook.embeddings import fused_likeness
from tsns_workbook.few_runs import contrast, tuned_accuracy
from tsns_workbook.finetuning.finetune import Recipe
from tsns_workbook.finetuning.grids import (
    COLUMNS,
    all_but,
    block_trials,
    probing_grid,
    progressive,
    reinitialized_grid,
    reinitialized_trials,
    scrambled_trials,
    tuning_grid,
    windows,
)
from tsns_workbook.layers import (
    agreement_of_few,
    best_block,
    causal_claim,
    dot_panels,
    layer_panels,
    majority_of,
    progressive_panels,
    reinitialization_claims,
    strongest_block,
    variability_claims,
)
from tsns_workbook.ranking import pair_frame, profile_similarity, source_model_logme

from tsns_lib import executors, load_encoder, load_source

matplotlib.use("Agg")


RECIPE = Recipe(epochs=1, max_length=16)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def encoder():
    return load_encoder()


@pytest.fixture(scope="module")
def books():
    return load_source("miniature:books", limit=32)


@pytest.fixture(scope="module")
def dvd():
    return load_source("miniature:dvd", limit=40)


# what is tried


def test_a_block_ends_at_the_chosen_layer_and_the_rival_is_as_large():
    assert block_trials({"s": 0}, 6, 3, "adapter")("s", 0) == {
        "ν block, adapters": {"method": "adapter", "head_layer": 0, "tuned_layers": [0]},
        "top block, adapters": {"method": "adapter", "head_layer": 5, "tuned_layers": [5]},
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"s": 6}, 6, 2), "chosen: must be at most 5, got 6"),
        (({"s": 2}, 6, 0), "n_tuned: must be at least 1, got 0"),
        (({"s": 2}, 6, 2, "lora"), "method: must be 'full' or 'adapter', got 'lora'"),
    ],
)
def test_a_wrong_choice_of_layers_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        block_trials(*arguments)


def test_all_rows_choose_as_all_rows_do():
    X = np.random.default_rng(0).normal(size=(30, 8))
    agree = {
        share: agreement_of_few(X, np.arange(30) % 2, 4, share=share, draws=20, seed=0).mean() for share in (1.0, 0.2)
    }
    assert agree[1.0] == 1 > agree[0.2]
    uneven = agreement_of_few(X, np.arange(30) % 2, 4, share=0.1, draws=20, seed=0, uneven=True)
    assert len(uneven) == 20 and 0 < uneven.mean() < 1
    with pytest.raises(ValueError, match=r"share: must be in \(0, 1\], got 0"):
        agreement_of_few(X, np.arange(30) % 2, 4, share=0, draws=1, seed=0)


def test_blocks_cover_every_layer_and_their_inverse_the_rest():
    blocks = windows(6, 3)
    assert list(blocks) == ["layers 1-3", "layers 2-4", "layers 3-5", "layers 4-6"]
    assert all_but(blocks, 6)["only layers 2-4 kept"] == [0, 4, 5]
    assert list(progressive(6).values()) == [[], [5], [4, 5], [3, 4, 5], [2, 3, 4, 5], [1, 2, 3, 4, 5], [*range(6)]]
    with pytest.raises(ValueError, match="width: must be at most 6, got 7"):
        windows(6, 7)


def test_new_weights_and_orders_follow_the_seed_of_the_run():
    trials = reinitialized_trials({"intact": [], "layers 1-2": [0, 1]}, "released")
    assert trials("s", 3)["intact"] == {}
    assert trials("s", 3)["layers 1-2"]["prepare"].keywords == {"layers": [0, 1], "init": "released", "seed": 3}
    orders = [scrambled_trials(6)("s", seed)["scrambled"]["prepare"].keywords["order"] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[2]) == [*range(6)]


# what comes of it


def test_a_tuning_grid_has_a_row_for_each_source_trial_and_run(books, dvd, encoder, tmp_path):
    def trials(source, seed):
        return {"lowest": {"method": "head", "head_layer": 0}, source: {"method": "head"}}

    options = {"n_rows": 16, "runs": 2, "store": tmp_path, "progress": False}
    grid = tuning_grid([books, dvd], [dvd, books], encoder, RECIPE, trials, **options)
    assert list(grid.columns) == COLUMNS
    assert grid.groupby(["source", "method", "run"]).size().tolist() == [1] * 8
    assert set(zip(grid["source"], grid["target"], strict=True)) == {(books.name, dvd.name), (dvd.name, books.name)}
    assert set(grid["k"]) == {16} and grid["seconds"].gt(0).all()
    assert [len(row) for row in grid["correct"]] == grid["n"].tolist()
    assert grid["accuracy"].tolist() == [row.mean() for row in grid["correct"]]
    assert grid["auc"].between(0, 1).all()


def test_more_runs_than_anyone_waits_for_are_refused(books, dvd, encoder):
    with pytest.raises(ValueError, match="runs: must be at most 10,000, got 1,000,000,000,000,000"):
        tuning_grid([books], [dvd], encoder, RECIPE, lambda source, seed: {}, runs=10**15)
    with pytest.raises(ValueError, match="runs: must be at most 10,000, got 1,000,000,000,000,000"):
        reinitialized_grid([books], [dvd], encoder, {books.name: [1]}, {}, runs=10**15)


def test_a_grid_keeps_predictions_and_no_model(books, dvd, encoder, tmp_path):
    def trials(source, seed):
        return {"lowest": {"method": "head", "head_layer": 0}}

    options = {"n_rows": 16, "runs": 1, "store": tmp_path, "progress": False}
    first = tuning_grid([books], [dvd], encoder, RECIPE, trials, **options)
    assert not list(tmp_path.rglob("*.safetensors"))
    again = tuning_grid([books], [dvd], encoder, RECIPE, trials, **options)
    assert again["seconds"].tolist() == first["seconds"].tolist()  # read, not trained
    assert np.array_equal(again["correct"][0], first["correct"][0])


def test_trainings_are_announced_after_the_first(books, dvd, encoder, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(executors, "WORTH_SAYING", 0)  # seconds; these two take less than is worth a line

    def trials(source, seed):
        return {"low": {"method": "head", "head_layer": 0}, "high": {"method": "head"}}

    for expected in (1, 0):
        tuning_grid([books], [dvd], encoder, RECIPE, trials, n_rows=16, runs=1, store=tmp_path)
        assert capsys.readouterr().err.count("at most 1 more trainings: about") == expected


def test_every_source_has_its_test(books, dvd, encoder):
    with pytest.raises(ValueError, match="tests: need one for each of the 2 sources, got 1"):
        tuning_grid([books, dvd], [dvd], encoder, RECIPE, lambda source, seed: {})


def test_probing_reads_every_layer(books, dvd, encoder, tmp_path):
    grid = probing_grid([books], [dvd], encoder, max_length=16, store=tmp_path, progress=False)
    assert grid["k"].tolist() == [1, 2, 3, 4, 5, 6]
    assert grid["accuracy"].between(0, 1).all() and grid["matthews"].between(-1, 1).all()


def test_reinitializing_a_layer_leaves_what_lies_below(books, dvd, encoder, tmp_path):
    options = {"runs": 2, "max_length": 16, "store": tmp_path, "progress": False}
    low, high = np.arange(100), np.arange(1920, 2304)
    grids = [
        reinitialized_grid([books], [dvd], encoder, {books.name: neurons}, {"layer 6": [5]}, **options)
        for neurons in (low, high)
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["activations", "predictions"]
    below, above = (list(grid["correct"]) for grid in grids)
    chosen = ["intact", "intact, random neurons"] + 2 * ["layer 6", "layer 6, random neurons"]
    assert grids[0]["method"].tolist() == chosen and set(grids[0]["k"]) == {100}
    assert all(np.array_equal(below[0], row) for row in below[::2])
    assert not all(np.array_equal(above[0], row) for row in above[::2])
    assert not np.array_equal(below[3], below[5])  # other neurons in each run, and other weights


def test_logme_of_a_source_model_needs_its_states_only(books, dvd, encoder, tmp_path):
    from tsns_workbook.finetuning.finetune import fine_tune

    tuned = fine_tune(books, encoder, RECIPE, seed=0, method="head", store=tmp_path, progress=False)
    options = {"max_length": 16, "store": tmp_path, "progress": False}
    assert np.isfinite(source_model_logme(tuned, dvd, **options))


def test_profiles_differ_by_their_ratio():
    assert profile_similarity(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 0
    assert profile_similarity(np.array([1.0, 2.0]), np.array([3.0, 2.0])) == pytest.approx(-np.log(3))


def test_embeddings_are_ranked_within_their_group():
    vectors = {
        name: {"pooled": np.array([1.0, height])} for name, height in {"a": 0.0, "b": 0.1, "c": 1.0, "z": 0.0}.items()
    }
    likeness = fused_likeness(vectors, [["a", "b", "c"]])
    assert likeness("b", "a") == pytest.approx(1 / 61) and likeness("c", "a") == pytest.approx(1 / 62)


def test_a_relation_must_not_take_the_name_of_a_column():
    with pytest.raises(ValueError, match="relations: 'task' is the name of another column"):
        pair_frame({"letters": ["a", "b"]}, {"task": lambda a, b: 0.0})


# how it is compared


def grid_of(shares, *, n=200, runs=3, source="s", k=10, seed=0):
    """Runs of several methods with given shares of correct rows."""
    rng = np.random.default_rng(seed)
    rows = [
        (source, source, method, k, run, rng.random(n) < share)
        for method, share in shares.items()
        for run in range(runs)
    ]
    grid = pd.DataFrame(rows, columns=["source", "target", "method", "k", "run", "correct"])
    return grid.assign(accuracy=[row.mean() for row in grid["correct"]], n=n)


def test_a_contrast_is_the_difference_of_the_means():
    grid = grid_of({"a": 0.9, "b": 0.6, "c": 0.5})
    cells = {name: ("s", "s", name, 10) for name in "abc"}
    means = 100 * grid.groupby("method")["accuracy"].mean()
    gain = contrast(grid, [([cells["a"]], [cells["b"], cells["c"]])])
    assert gain.estimate == pytest.approx(means["a"] - (means["b"] + means["c"]) / 2)
    assert 0 < gain.low < gain.estimate < gain.high
    same = contrast(grid, [([cells["a"]], [cells["a"]])])
    assert same == (0, 0, 0)


def test_three_runs_have_a_t_interval():
    rows = np.zeros((3, 4), bool), np.array([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    cells = [("s", "s", name, 10, run, rows[name == "a"][run]) for name in "ab" for run in range(3)]
    grid = pd.DataFrame(cells, columns=["source", "target", "method", "k", "run", "correct"])
    gain = contrast(grid, [([("s", "s", "a", 10)], [("s", "s", "b", 10)])])
    # the runs have the means 100, 100, 0, whose standard error is 33.33; t with 2 degrees of freedom is 4.3027
    assert gain == pytest.approx((66.6667, 66.6667 - 143.42, 66.6667 + 143.42), abs=0.01)


def test_of_single_runs_the_spread_is_unknown():
    assert contrast(grid_of({"a": 0.9, "b": 0.1}, runs=1), [([("s", "s", "a", 10)], [("s", "s", "b", 10)])]) is None


def test_an_interval_covers_other_seeds():
    lucky = np.repeat([[True], [False]], 100, axis=1)
    grid = grid_of({"a": 0.5}, n=100, runs=2)
    grid["correct"] = list(lucky)
    table = tuned_accuracy(grid)
    assert table.loc[0, ["accuracy", "low", "high"]].tolist() == [50, 0, 100]


def test_a_nominal_interval_of_95_percent_covers_the_truth():
    rng, covered = np.random.default_rng(0), []
    for _ in range(100):
        ease, rows = rng.normal(size=200), []
        for method in "ab":
            for run, luck in enumerate(rng.normal(scale=0.2, size=3)):
                hits = ease + luck + rng.normal(size=200) > 0
                rows.append(("s", "s", method, 10, run, hits))
        grid = pd.DataFrame(rows, columns=["source", "target", "method", "k", "run", "correct"])
        gain = contrast(grid, [([("s", "s", "a", 10)], [("s", "s", "b", 10)])])
        covered.append(gain.low <= 0 <= gain.high)
    assert 0.92 <= np.mean(covered) <= 1


@pytest.mark.parametrize(
    ("sides", "message"),
    [([([("s", "s", "z", 10)], [("s", "s", "a", 10)])], "grid has no cell .*method='z'"), ([], "nothing to compare")],
)
def test_a_comparison_of_nothing_is_named(sides, message):
    with pytest.raises(ValueError, match=message):
        contrast(grid_of({"a": 0.5}), sides)


# what is claimed


def verdicts(claims):
    return {row["id"].split(".")[1]: row["verdict"] for row in claims}


METHODS = ["ν block", "top block", "ν block, adapters", "top block, adapters", "all layers"]


def variability_of(shares, differing, majority=40.0):
    grid = grid_of(dict(zip(METHODS, shares, strict=True)))
    agree = {"s": np.ones(20, bool), "other": np.arange(20) > 0}
    claims = variability_claims(grid, differing, agree, {"s": np.zeros(20, bool)}, {"s": majority})
    return {row["id"].split(".")[1]: row for row in claims}


def test_claims_of_variability_follow_the_grid():
    claims = variability_of([0.9, 0.6, 0.6, 0.9, 0.5], ["s"])
    assert {id: row["verdict"] for id, row in claims.items()} == {
        "block_full": "reproduced",
        "block_adapter": "contradicted",
        "matches_all": "reproduced",
        "few_rows": "reproduced",
        "uneven_classes": "not testable here",  # of one task
        "cost": "not testable here",
    }
    assert claims["block_full"]["above_majority"] is True


def test_where_the_chosen_layer_is_the_last_there_is_nothing_to_compare():
    claims = variability_of([0.7] * 5, [])
    assert [claims[id]["verdict"] for id in ("block_full", "block_adapter")] == ["not testable here"] * 2


def test_where_all_layers_say_the_majority_class_blocks_are_not_compared():
    claims = variability_of([0.9, 0.6, 0.6, 0.9, 0.5], ["s"], majority=50.0)
    assert {row["verdict"] for id, row in claims.items() if id != "few_rows"} == {"not testable here"}


def test_a_layer_that_is_robust_in_three_tasks_of_four_is_not_robust():
    tasks = {name: np.full(20, name != "b") for name in "abcd"}
    claims = variability_claims(grid_of(dict.fromkeys(METHODS, 0.5)), [], tasks, tasks, {"s": 50.0})
    few = claims[3]
    assert (few["ours"], few["interval"], few["verdict"]) == (75.0, [0.0, 100.0], "inconclusive")


def reinitialization_of(majority):
    blocks = windows(3, 2)
    probes = pd.DataFrame({"source": "s", "k": [1, 2, 3], "accuracy": [0.6, 0.7, 0.9]})
    assert best_block(probes, blocks) == "layers 2-3"
    few = {"intact": 0.6, "from layer 1": 0.55, "layers 1-2": 0.5, "layers 2-3": 0.9}
    few |= {"only layers 1-2 kept": 0.5, "only layers 2-3 kept": 0.9}
    grid = pd.concat([grid_of(few, k=10), grid_of({"intact": 0.95, "from layer 1": 0.5}, k=20, seed=1)])
    return grid, reinitialization_claims(grid, probes, blocks, {"s": majority})


def test_claims_of_reinitialization_follow_the_grid():
    grid, claims = reinitialization_of(majority=50.0)
    assert verdicts(claims) == {
        "not_necessary": "reproduced",
        "not_sufficient": "contradicted",
        "data_size": "reproduced",
    }
    means = 100 * grid.groupby(["k", "method"])["accuracy"].mean()
    growth = (means[20, "intact"] - means[20, "from layer 1"]) - (means[10, "intact"] - means[10, "from layer 1"])
    assert claims[2]["ours"] == pytest.approx(growth, abs=1e-4)


def test_a_task_that_few_rows_do_not_teach_tells_nothing_of_blocks():
    assert verdicts(reinitialization_of(majority=65.0)[1]) == {
        "not_necessary": "not testable here",
        "not_sufficient": "not testable here",
        "data_size": "reproduced",  # many rows do teach it
    }


def causal_grid(chosen, random):
    names = ["layers 1-2", "layers 2-3"]
    shares = dict(zip(names, chosen, strict=True)) | {
        f"{name}, random neurons": share for name, share in zip(names, random, strict=True)
    }
    return grid_of({"intact": 0.9} | shares)


def test_the_causal_claim_compares_with_random_neurons_at_the_same_depth():
    blocks = windows(3, 2)
    assert strongest_block([0.1, 0.2, 0.7], blocks) == "layers 2-3"
    high, low = {"s": [0.1, 0.2, 0.7]}, {"s": [0.7, 0.2, 0.1]}
    grid = causal_grid(chosen=(0.8, 0.5), random=(0.7, 0.7))
    assert causal_claim(grid, high, blocks)["verdict"] == "reproduced"
    assert causal_claim(grid, low, blocks)["verdict"] == "contradicted"
    depth_alone = causal_grid(chosen=(0.5, 0.8), random=(0.5, 0.8))
    assert {causal_claim(depth_alone, shares, blocks)["verdict"] for shares in (high, low)} == {"inconclusive"}


def test_figures_say_what_they_show():
    values = pd.DataFrame({"source": "miniature:s", "layer": [1, 2], "variability": [3.0, 1.0], "share": [40.0, 60.0]})
    assert layer_panels(values, generated=True, title="Layers").get_suptitle() == "Layers (generated data)"
    table = tuned_accuracy(grid_of({"a": 0.5, "b": 0.7}))
    look = {"majority": {"s": 55.0}, "generated": False}
    figure = dot_panels(table, ["b", "a"], marked={"s": "b"}, title="Dots", **look)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["b", "a"]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["majority class"]
    probes = pd.DataFrame({"source": "s", "k": [1], "accuracy": [0.5]})
    figure = progressive_panels(table, ["a", "b"], probes, title="Lines", **look)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "10 rows tuned",
        "probing the layer",
        "majority class",
    ]


def test_the_majority_class_is_the_largest_of_the_test(books):
    counts = books.frame["label"].value_counts()
    assert majority_of({"s": books})["s"] == pytest.approx(100 * counts.max() / 32)
