"""The controls of notebook 14: each is seen to act where it must, and the rules that judge them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tsns_workbook import controls
from tsns_workbook.few_runs import tuned_accuracy
from tsns_workbook.report import Interval

from tsns_lib import SingleTSNS, load_encoder, load_source, transfer

FEW = {"n_resamples": 2, "n_trees": 50}


@pytest.fixture(scope="module")
def corpora():
    return load_source("miniature:books", limit=60), load_source("miniature:dvd", limit=60)


@pytest.fixture(scope="module")
def study(corpora):
    return controls.Study(SingleTSNS(8, **FEW), *corpora, seed=0)


@pytest.fixture(scope="module")
def made(corpora):
    """Made-up activations of both: two layers of 20 neurons, of which 8 in the second tell the classes apart."""
    rng = np.random.default_rng(0)
    arrays = []
    for corpus in corpora:
        X = rng.normal(size=(60, 40)).astype(np.float32)
        X[:, 30:38] += 2 * corpus.frame["label"].to_numpy()[:, None]
        arrays.append(X)
    return *arrays, corpora[0].frame["label"].to_numpy()


@pytest.fixture(scope="module")
def grid(study, made):
    X, Z, y = made
    rows = []
    for run in range(4):
        rows += study.trial(controls.INTACT, run, X, Z, y) + study.trial(controls.SKIPPED, run, X, Z, y)
        rows += study.trial(controls.ROTATED, run, *controls.rotated(X, Z, 2, run), y)
        rows += study.trial(controls.RANDOM, run, X[::-1], Z, y)
        rows += study.trial(controls.SHUFFLED, run, X, Z, controls.shuffled(y, run))
    return pd.DataFrame(rows)


def accuracies(grid, control):
    return grid[(grid["source"] == control) & (grid["method"] == "tsns")]["correct"].map(np.mean).mean()


def test_a_target_whose_classes_have_other_numbers_has_the_same_score(study, made):
    target = study.target
    other = replace(target, frame=target.frame.assign(label=1 - target.frame["label"]), classes=target.classes[::-1])
    ours, theirs = (own.trial(controls.INTACT, 0, *made) for own in (study, replace(study, target=other)))
    assert [row["correct"].tolist() for row in ours] == [row["correct"].tolist() for row in theirs]
    assert ours[0]["correct"].mean() > 0.9


# what a control changes


def test_shuffled_labels_are_the_same_labels_at_other_rows():
    y = np.repeat([0, 1], 50)
    assert controls.shuffled(y, 0).sum() == 50
    assert (controls.shuffled(y, 0) != y).sum() > 30
    assert (controls.shuffled(y, 0) != controls.shuffled(y, 1)).any()


def test_a_rotation_keeps_the_distances_within_a_layer_and_mixes_no_layers(made):
    X, Z, _ = made
    turned, also = controls.rotated(X, Z, 2, seed=3)
    standard = [(A - X.mean(axis=0)) / X.std(axis=0) for A in (X, Z)]
    for layer in (slice(0, 20), slice(20, 40)):
        for before, after in zip(standard, (turned, also), strict=True):
            np.testing.assert_allclose(
                after[:, layer] @ after[:, layer].T, before[:, layer] @ before[:, layer].T, atol=1e-3
            )
    assert np.abs(turned - standard[0]).max() > 1
    assert turned.dtype == X.dtype and not (controls.rotated(X, Z, 2, seed=4)[0] == turned).any()


def test_a_constant_neuron_is_rotated_like_any_other():
    X = np.random.default_rng(0).normal(size=(9, 4))
    X[:, 1] = 7
    assert np.isfinite(controls.rotated(X, X, 2, seed=0)[0]).all()


def test_eight_copies_hide_planted_neurons_from_the_forest_and_skipping_copies_finds_all():
    X, y = controls.planted_copies(seed=0)
    assert X.shape == (600, 500) and (X[:, :8] == X[:, :1]).all() and (X[:, 8] != X[:, 7]).any()
    fitted = SingleTSNS(20, n_resamples=4, n_trees=100).fit(X, y)
    chosen = controls.copies_of(fitted.selected_)
    assert sum(chosen) == 20 and np.count_nonzero(chosen) <= 10
    assert controls.copies_of(controls.choose_distinct(fitted.importances_, X, 20)) == [1] * 20


def test_a_copy_is_skipped_whatever_its_sign_and_scale():
    X = np.random.default_rng(0).normal(size=(30, 3))
    X = np.column_stack([X[:, 0], 3 - 2 * X[:, 0], X[:, 1:]])
    assert controls.choose_distinct(np.array([0.4, 0.3, 0.2, 0.1]), X, 2).tolist() == [0, 2]
    assert controls.choose_distinct(np.array([0.4, 0.3, 0.2, 0.1]), X, 4).tolist() == [0, 2, 3]


def test_a_planted_neuron_rises_with_its_strength(study, made):
    X, _, y = made
    ranks = [study.fit(0, controls.with_planted(X, y, strength, 0), y).ranking_[-1] for strength in (0.0, 8.0)]
    assert ranks[0] > 8 and ranks[1] == 1


# what came of it


def test_shuffled_labels_transfer_nothing(grid):
    assert accuracies(grid, controls.INTACT) > 0.9
    assert 0.3 < accuracies(grid, controls.SHUFFLED) < 0.7


def test_overlap_is_compared_with_chance_and_with_chance_in_the_same_layers(grid):
    table = controls.overlap_table(grid, 2, 40).groupby("control").mean()
    assert table.loc[controls.INTACT, "overlap"] > 80
    assert table.loc[controls.INTACT, "chance"] == 20  # 8 of 40
    assert table.loc[controls.INTACT, "by layer"] == pytest.approx(40, abs=1)  # 8 of the 20 in the second layer
    assert table.loc[controls.SHUFFLED, "overlap"] < 50


def test_the_shares_of_a_control_sum_to_all(grid):
    shares = controls.share_table(grid, 2, 40)
    assert shares.loc[controls.INTACT].tolist() == pytest.approx([0, 100], abs=1)
    assert shares.sum(axis=1).tolist() == pytest.approx([100] * 4)


def test_every_tensor_of_a_random_encoder_differs_and_none_from_itself():
    trained, random = load_encoder(), load_encoder(random_weights=True, seed=1)
    table = controls.tensor_table(trained, random)
    assert table.loc["all", ["tensors", "differ"]].tolist() == [101, 101]
    assert table.loc["all", "numbers that differ"] > 0.99 * table.loc["all", "numbers"]
    assert controls.tensor_table(trained, trained)["differ"].sum() == 0


def test_every_label_that_is_flipped_moves_to_another_class(corpora):
    pairs = controls.changed_pairs(*corpora, seed=0)
    (source, _), (_, target) = pairs["source: one label flipped"], pairs["target: all labels flipped"]
    assert (target.frame["label"] == 1 - corpora[1].frame["label"]).all()
    assert (source.frame["label"] != corpora[0].frame["label"]).tolist() == [True] + 59 * [False]
    three = [replace(corpus, frame=corpus.frame[:5].assign(label=[3, 1, 3, 8, 8])) for corpus in corpora]
    pairs = controls.changed_pairs(*three, seed=0)
    assert pairs["source: one label flipped"][0].frame["label"].tolist() == [8, 1, 3, 8, 8]
    assert pairs["target: all labels flipped"][1].frame["label"].tolist() == [8, 3, 8, 1, 1]


@pytest.fixture(scope="module")
def leaks(corpora):
    settings = {"neurons": [50], "max_length": 16, "progress": False} | FEW
    pairs = controls.changed_pairs(*corpora, seed=0)
    digests = {change: controls.grid_digests(*pair, load_encoder(), **settings) for change, pair in pairs.items()}
    return pd.DataFrame.from_dict(digests, orient="index")


def test_nothing_of_the_target_reaches_selection_or_classifier_and_one_label_of_the_source_does(leaks):
    nothing, *target, source = leaks[["neurons", "classifiers"]].to_numpy().tolist()
    assert len(target) == 3 and target == [nothing] * 3
    assert source[0] != nothing[0] and source[1] != nothing[1]
    flipped = leaks.loc["target: all labels flipped", "accuracy"]
    assert leaks.loc["nothing", "accuracy"] + flipped == pytest.approx(100)


def test_a_grid_that_scales_on_the_target_would_be_noticed(corpora, monkeypatch):
    settings = {"neurons": [50], "max_length": 16, "progress": False} | FEW
    read = transfer.extract
    together = {}

    def leaking(corpus, *arguments, **options):  # the source's activations, centred on the target's
        X = together[corpus.name] = read(corpus, *arguments, **options)
        return X if corpus.name == corpora[1].name else X - together[corpora[1].name][:10].mean(axis=0)

    monkeypatch.setattr(transfer, "extract", leaking)
    pairs = list(controls.changed_pairs(*corpora, seed=0).values())[:2]
    before, after = (controls.grid_digests(*pair, load_encoder(), **settings) for pair in pairs)
    assert before["classifiers"] != after["classifiers"]


def test_every_control_is_judged(grid, leaks):
    overlap = controls.overlap_table(grid, 2, 40)
    tensors = pd.DataFrame({"tensors": [5, 5], "differ": [5, 4]})
    choices = {controls.BY_IMPORTANCE: [np.arange(20)], controls.SKIPPED: [np.arange(0, 160, 8)]}
    ranks = pd.DataFrame({"strength": [0.0, 0.0, 1.0, 1.0], "rank": [30, 7, 1, 1]})
    table = controls.verdict_table(grid, overlap, tensors, choices, ranks, leaks, chance=50)
    rows = dict(zip(table["control"], table[["ours", "verdict"]].itertuples(index=False, name=None), strict=True))
    assert rows["random weights: tensors that equal the trained ones"] == (0.5, "inconclusive")
    assert rows["copies: distinct neurons among 20, by importance"] == (3.0, "holds")
    assert rows["copies: the same, near copies skipped"] == (20.0, "holds")
    assert rows["planted neuron of noise alone: its rank minus K"] == (10.5, "inconclusive")  # K = 8
    assert rows["planted neuron, the strongest: its rank"] == (1.0, "holds")
    assert rows["target changed in three ways: how many show in a digest"] == (0.0, "holds")
    assert rows["source changed in one label: shows in a digest"] == (1.0, "holds")
    said = controls.controls_answer(table)
    assert said.startswith(f"Of 11 controls {sum(verdict == 'holds' for _, verdict in rows.values())} hold. ")
    assert "planted neuron of noise alone: its rank minus K (10.5, -1.0 to 22.0, holds if 1 or more)" in said


def test_a_verdict_asks_for_the_whole_interval():
    row = controls.judged("x", Interval(1.04, -0.5, 2.5), (0, np.inf))
    assert list(row.values()) == ["x", 1.0, "-0.5 to 2.5", "0 or more", "inconclusive"]
    assert controls.judged("x", [20, 20], (20, 20))["verdict"] == "holds"
    assert controls.judged("x", [19, 19], (20, 20))["verdict"] == "does not hold"


def test_the_figure_shows_all_controls(grid):
    accuracy = tuned_accuracy(grid)
    shares = controls.share_table(grid, 2, 40)
    copies = {controls.BY_IMPORTANCE: [1] * 20, controls.SKIPPED: [1] * 20}
    ranks = pd.DataFrame({"strength": [0.0, 1.0], "rank": [30, 1]})
    figure = controls.draw_controls(accuracy, shares, copies, ranks, k=8, chance=50, generated=True)
    assert figure.get_suptitle() == "Controls that act (generated data)"
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == accuracy["source"].unique().tolist()
    assert len(figure.axes) == 4
