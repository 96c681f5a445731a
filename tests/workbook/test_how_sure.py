"""The studies of notebook 15, the sweeps over C and K, and why chance prefers a layer."""

import numpy as np
import pandas as pd
import pytest
from tsns_workbook import how_sure, how_sure_report

from tsns_lib import load_encoder, load_source

FORESTS = {"n_resamples": 2, "n_trees": 100}


def study_rows(estimates, lows, highs, interval, contrast="TSNS − last layer"):
    columns = {"study": range(len(estimates)), "estimate": estimates, "low": lows, "high": highs}
    return pd.DataFrame(columns).assign(interval=interval, contrast=contrast, pooling="cls")


@pytest.fixture(scope="module")
def made():
    """Two corpora of 60 rows and 3 layers of 20 neurons; in the first two, these are near copies of each other."""
    corpora = []
    for seed, name in enumerate(["books", "kitchen"]):
        rng = np.random.default_rng(seed)
        y = rng.permutation(np.arange(60) % 2)
        copies = np.repeat(rng.normal(size=(60, 2)), 20, axis=1) + 0.2 * rng.normal(size=(60, 40))
        X = np.column_stack([copies, rng.normal(size=(60, 20))]) + 0.5 * y[:, None]
        corpora.append(how_sure.Domain(name, X, y, 20, True))
    return corpora


@pytest.fixture(scope="module")
def importances(made):
    return how_sure.importances_of(made, 0, **FORESTS)


def test_a_domain_holds_the_activations_and_labels_of_a_corpus():
    corpora = [load_source(name, limit=12) for name in ("miniature:books", "miniature:kitchen")]
    books, kitchen = how_sure.domains_of(corpora, load_encoder(), pooling="mean", max_length=8, progress=False)
    assert (books.X.shape, kitchen.n_rows, books.layer_size, books.generated) == ((12, 2304), 12, 384, True)
    assert books.y.tolist() == corpora[0].frame["label"].tolist()


def test_a_study_draws_rows_of_each_domain_and_is_the_same_again(made):
    drawn = made[0].drawn(200, seed=1)
    assert drawn.n_rows == 200 and set(drawn.X[:, 0]) <= set(made[0].X[:, 0])
    assert (drawn.X == made[0].drawn(200, seed=1).X).all() and (drawn.X != made[0].drawn(200, seed=2).X).any()
    plan = how_sure.Plan(40, 8, 2, 0.7, 20, runs=2, draws=2, n_boot=20, seed=0)
    once = how_sure.studies(made, plan, 2)
    assert once["contrast"].nunique() == 5 and len(once) == 2 * 5 * 2
    assert ((once["low"] <= once["estimate"]) & (once["estimate"] <= once["high"])).mean() > 0.9
    pd.testing.assert_frame_equal(
        once[once["study"] == 1].reset_index(drop=True), pd.DataFrame(how_sure.study(1, made, plan))
    )


def test_coverage_is_the_share_of_intervals_that_hold_the_mean_of_the_estimates():
    rows = study_rows([0.0, 1.0, 2.0, 3.0], [-1, 0, 1.6, 2], [1, 2, 3, 4], how_sure.CROSSED)
    (row,) = how_sure_report.coverage_table(rows).to_dict("records")
    assert (row["truth"], row["coverage"], round(row["width"], 6), row["studies"]) == (1.5, 0.25, 1.85, 4)
    assert row["spread"] == pytest.approx(1.291, abs=0.001)
    assert row["spread / error"] == pytest.approx(1.291 * 3.92 / 1.85, abs=0.001)
    assert (round(row["low"], 2), round(row["high"], 2), row["as said"]) == (0.05, 0.7, False)


def test_the_factor_makes_intervals_as_wide_as_the_studies_spread():
    estimates = np.random.default_rng(0).normal(size=200)
    rows = study_rows(estimates, estimates - 1, estimates + 1, how_sure.CROSSED)
    kept = study_rows(estimates, estimates - 1, estimates + 1, how_sure.CROSSED, "all neurons − last layer")
    factor = how_sure_report.calibration(how_sure_report.coverage_table(pd.concat([rows, kept])))
    assert factor == pytest.approx(1.96 * estimates.std(ddof=1))
    table = how_sure_report.coverage_table(how_sure_report.calibrated(pd.concat([rows, kept]), factor))
    assert table["interval"].tolist() == [how_sure.CROSSED, how_sure.CROSSED, how_sure_report.CALIBRATED]
    assert table["coverage"].iloc[0] < 0.75 and table["as said"].tolist() == [False, False, True]


def test_every_C_is_tried_and_each_source_chooses_one(made, importances):
    frame = how_sure.accuracy_by_C(made, importances, 10, seed=0)
    assert len(frame) == 2 * 2 * 5 and frame["accuracy"].between(0, 100).all()
    assert frame.groupby(["source", "method"])["chosen"].sum().tolist() == [1, 1, 1, 1]
    said = how_sure_report.C_answer(frame.assign(pooling="cls"))
    usual = frame[(frame["method"] == "all") & (frame["C"] == 0.01)]["accuracy"].mean()
    assert f"all neurons, [CLS], the paper's: {usual:.1f} % with C = 0.01" in said
    how_sure_report.draw_C(frame.assign(pooling="cls"), generated=True)


def test_with_all_neurons_every_choice_is_the_same(made, importances):
    averages = how_sure.accuracy_by_K(made, importances, 2, 20, seed=0)
    assert sorted(averages["k"].unique()) == [1, 3, 6, 13, 20, 30, 60]
    assert averages.loc[averages["k"] == 60, "accuracy"].nunique() == 1
    how_sure_report.draw_K(averages.assign(pooling="cls"), generated=True)
    shares = how_sure.fingerprints_by_K(importances, 20, "cls")
    assert shares.tail(3)["share"].tolist() == pytest.approx([100 / 3] * 3)
    assert shares["source"].iloc[-1] == "cls, K = 60 (100.0%)"


def test_a_disturbance_keeps_values_or_dependence(made):
    X = made[0].X
    changed = how_sure.disturbed(X, seed=0)
    assert (changed[how_sure.INTACT] == X).all()
    assert (np.sort(changed[how_sure.RANKS], axis=0) == np.arange(1, 61)[:, None]).all()
    assert (np.sort(changed[how_sure.PERMUTED], axis=0) == np.sort(X, axis=0)).all()
    intact, ranks, permuted = (how_sure.correlation_by_layer(Z, 20) for Z in changed.values())
    assert intact[:2].min() > 0.9 and ranks[:2].min() > 0.9 and intact[2] < 0.2
    assert permuted.max() < 0.2


def test_chance_prefers_the_layer_whose_neurons_differ_and_the_words_say_why():
    rng = np.random.default_rng(0)
    copies = np.repeat(rng.normal(size=(300, 2)), 30, axis=1) + 0.1 * rng.normal(size=(300, 60))
    X = np.column_stack([copies, rng.normal(size=(300, 30))])
    source = how_sure.Domain("books", X, np.arange(300) % 2, 30, True)
    chance = how_sure.shares_of_chance(source, 24, seed=0, **FORESTS).assign(pooling="cls")
    shares = chance.pivot(index="values", columns="layer", values="share")
    assert shares.loc[how_sure.INTACT, 3] > 60 and shares.loc[how_sure.RANKS, 3] > 60
    said = how_sure_report.chance_answer(chance, 24, 90)
    assert "how neurons depend on each other, not from the values" in said and "Layer 3 has the least" in said
    how_sure_report.draw_chance(chance, generated=True)


@pytest.mark.parametrize(
    ("ranks", "permuted", "words"),
    [
        (80, 34, "how neurons depend on each other"),
        (34, 80, "not from how neurons depend on each other"),
        (34, 34, "cannot be told apart"),
        (80, 80, "cannot be told apart"),
    ],
)
def test_the_words_follow_from_the_condition_that_removes_the_excess(ranks, permuted, words):
    kinds = {how_sure.INTACT: 80, how_sure.RANKS: ranks, how_sure.PERMUTED: permuted}
    rows = [
        {"pooling": "cls", "values": kind, "layer": layer, "share": share if layer == 3 else (100 - share) / 2}
        for kind, share in kinds.items()
        for layer in (1, 2, 3)
    ]
    assert words in how_sure_report.chance_answer(pd.DataFrame(rows).assign(correlation=0.1), 100, 300)


def test_an_even_choice_needs_no_reason():
    kinds = [how_sure.INTACT, how_sure.RANKS, how_sure.PERMUTED]
    rows = [{"values": kind, "layer": layer, "share": 100 / 3} for kind in kinds for layer in (1, 2, 3)]
    frame = pd.DataFrame(rows).assign(pooling="mean", correlation=0.1)
    assert "nothing to explain" in how_sure_report.chance_answer(frame, 100, 300)


def test_with_shuffled_labels_no_method_knows_anything(made):
    plan = how_sure.Plan(40, 8, 2, 0.7, 20, runs=2, draws=2, n_boot=20, seed=0)
    found = {
        shuffled: how_sure.studies(made, how_sure.replace(plan, shuffled=shuffled), 6).groupby("contrast")["estimate"]
        for shuffled in (False, True)
    }
    for contrast in ("TSNS − all neurons", "TSNS − last layer"):  # the planted copies make TSNS worse than both
        assert found[False].mean()[contrast] < -5 and abs(found[True].mean()[contrast]) < 3


def test_a_false_gain_is_an_interval_above_0():
    crossed = study_rows([1.0, 0.0, 1.0, -2.0], [0.1, -1, -1, -3], [2, 1, 2, -1], how_sure.CROSSED)
    of_rows = study_rows([1.0, 0.0, 1.0, 2.0], [0.1, 0.1, 0.5, 1], [2, 1, 2, 3], how_sure.TARGET_ROWS)
    table = how_sure_report.false_table(pd.concat([crossed, of_rows]))
    assert table["reproduced"].tolist() == [0.25, 1.0] and table["contradicted"].tolist() == [0.25, 0.0]
    assert table["as said"].tolist() == [False, False] and round(table["low"][0], 3) == 0.046
    said = how_sure_report.false_answer(table)
    assert "*reproduced* in **25.0 %**" in said and "target rows only in 100.0 %" in said
    assert "More often than allowed: TSNS − last layer (cls)." in said
