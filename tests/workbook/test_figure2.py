"""The paper's statements about regions, on fingerprints made by hand."""

import numpy as np
import pandas as pd
import pytest
from tsns_workbook.figure2 import (
    evenness,
    figure2_answer,
    figure2_claims,
    mean_fingerprints,
    null_panels,
    null_table,
    region,
    region_heatmap,
    region_margin,
    region_table,
    share_table,
    similarity_dendrogram,
    similarity_matrix,
)
from tsns_workbook.report import reading

LATE, MIDDLE, EVEN = [0.1, 0.1, 0.1, 0.1, 0.3, 0.3], [0.1, 0.1, 0.1, 0.3, 0.3, 0.1], [1 / 6] * 6
TASKS = (
    dict.fromkeys(["books", "sst", "dvd", "kitchen", "mr"], "sentiment")
    | dict.fromkeys(["mnli", "snli"], "nli")
    | {"scitail": "nli", "qqp": "similarity", "rte": "nli", "mrpc": "similarity"}
)


class SixLayers:
    """The shape of an encoder."""

    n_layers, n_neurons, name = 6, 2304, "six layers"


def make_frame(shares, noise=0.0, prefix="", runs=2):
    rng = np.random.default_rng(0)
    rows = [
        (prefix + name, TASKS[name], run, 500, np.array(value), value + noise * rng.normal(size=(500, 6)))
        for name, value in shares.items()
        for run in range(runs)
    ]
    return pd.DataFrame(rows, columns=["source", "task", "run", "k", "shares", "draws"])


LATE_TOO, MIDDLE_TOO = [0.1, 0.1, 0.1, 0.105, 0.295, 0.3], [0.1, 0.1, 0.1, 0.295, 0.3, 0.105]
EVEN_TOO = [0.16, 0.17, 0.17, 0.16, 0.17, 0.17]
PAPERS = {"books": LATE, "sst": LATE_TOO, "scitail": MIDDLE, "qqp": MIDDLE_TOO, "rte": EVEN, "mrpc": EVEN_TOO}


NOTHING = make_frame({"mrpc": [0.05, 0.05, 0.05, 0.05, 0.1, 0.7]})  # shuffled labels that lie late


def verdicts(frame):
    return {claim["id"]: claim["verdict"] for claim in figure2_claims(frame, NOTHING)}


def test_regions_are_met_by_depth():
    assert [region("mr", layers) for layers in (24, 12, 6)] == [(19, 24), (10, 12), (5, 6)]
    assert [region("miniature:mnli", layers) for layers in (24, 12, 6)] == [(14, 20), (7, 10), (4, 5)]
    assert region("snli", 6) is None
    assert region("my.csv", 6) is None


def test_an_encoder_of_one_layer_has_no_regions():
    with pytest.raises(ValueError, match="an encoder of 1 layers is too shallow"):
        region("books", 1)


def test_margin_is_over_the_best_other_block():
    assert region_margin(np.array(LATE), 5, 6) == pytest.approx(20)  # over layers 4 and 5
    assert region_margin(np.array([LATE, MIDDLE]), 4, 5) == pytest.approx([-20, 20])


def test_evenness_of_one_layer_and_of_all():
    assert evenness(np.array([EVEN, [0, 0, 1, 0, 0, 0]])) == pytest.approx([100, 0])


def test_what_the_paper_says_is_reproduced_on_what_it_says():
    assert verdicts(make_frame(PAPERS, 0.001)) == {
        "figure2.sentiment_late": "reproduced",
        "figure2.middle": "reproduced",
        "figure2.spread": "reproduced",
        "figure2.tasks": "inconclusive",  # three tasks of two sources each are too few
    }


def test_the_opposite_is_contradicted():
    swapped = {"books": MIDDLE, "sst": MIDDLE_TOO, "scitail": LATE, "qqp": LATE_TOO, "rte": LATE, "mrpc": LATE_TOO}
    assert verdicts(make_frame(swapped | {"dvd": EVEN, "kitchen": EVEN_TOO})) == {
        "figure2.sentiment_late": "inconclusive",  # two of four sources on either side
        "figure2.middle": "contradicted",
        "figure2.spread": "inconclusive",
        "figure2.tasks": "inconclusive",
    }


def test_sources_that_differ_leave_it_open_however_sure_each_is():
    """The forests say nothing about other sources: their draws do not enter."""
    frame = make_frame({"books": LATE, "sst": MIDDLE, "qqp": MIDDLE, "scitail": MIDDLE_TOO}, 0.0)
    assert verdicts(frame)["figure2.sentiment_late"] == "inconclusive"
    assert verdicts(frame)["figure2.middle"] == "reproduced"


def test_tasks_are_told_apart_where_sources_are_enough():
    shares = dict.fromkeys(["books", "dvd", "kitchen", "sst", "mr"], LATE)
    shares |= dict.fromkeys(["scitail", "mnli", "snli", "rte", "qqp"], MIDDLE)
    frame = make_frame(shares)
    (tasks,) = [row for row in figure2_claims(frame, NOTHING) if row["id"] == "figure2.tasks"]
    assert tasks["verdict"] == "reproduced" and tasks["p"] < 0.05


def test_evenness_is_compared_with_all_other_sources():
    (spread,) = [row for row in figure2_claims(make_frame(PAPERS), NOTHING) if row["id"] == "figure2.spread"]
    of = {name: float(evenness(np.array(shares))) for name, shares in PAPERS.items()}
    others = [of[name] for name in ("books", "sst", "scitail", "qqp")]
    assert spread["ours"] == pytest.approx((of["rte"] + of["mrpc"]) / 2 - np.mean(others), abs=1e-4)


def test_a_statement_that_shuffled_labels_fulfil_too_is_not_by_selection():
    shuffled = make_frame({"scitail": MIDDLE, "mrpc": EVEN})
    readings = [reading(row) for row in figure2_claims(make_frame(PAPERS), shuffled)]
    assert readings[:3] == ["reproduced", "reproduced, not by selection", "reproduced, not by selection"]
    flags = [row["by_selection"] for row in figure2_claims(make_frame(PAPERS), NOTHING)]
    assert flags == [None, None, True, None]


def test_the_answer_names_the_largest_share():
    frame = make_frame({**PAPERS, "rte": [0, 0, 0, 0, 0.3, 0.7]})
    text = figure2_answer(figure2_claims(frame, NOTHING), share_table(frame), NOTHING)
    assert text.startswith(
        "**Reproduced**: sentiment lies most in the last quarter of the layers (19.8, 16.6 to 22.9);"
    )
    assert text.endswith("The largest share of one layer is 70 % of the neurons of rte in layer 6.")
    shuffled = make_frame({"rte": [0, 0, 0, 0, 0.4, 0.6]})
    text = figure2_answer(figure2_claims(frame, NOTHING), share_table(frame), shuffled)
    assert text.endswith("of rte in layer 6; with its labels shuffled that layer has 60 %.")


def test_claims_without_their_sources_are_not_testable():
    found = verdicts(make_frame({"books": LATE, "sst": LATE_TOO}))
    assert found.pop("figure2.sentiment_late") == "reproduced"
    assert set(found.values()) == {"not testable here"}
    assert set(verdicts(make_frame({"books": LATE})).values()) == {"not testable here"}


def test_every_source_is_judged_on_its_own():
    table = region_table(make_frame(PAPERS | {"sst": MIDDLE})).set_index("source")
    assert table["margin"].to_dict() == {
        "books": 20.0,
        "sst": -20.0,
        "scitail": 20.0,
        "qqp": 19.0,
        "rte": 8.2,
        "mrpc": 8.2,
    }
    assert table.loc["books", "statement"] == "most in layers 5 to 6"
    assert table.loc["sst", "verdict"] == "does not hold"


def test_shares_are_in_percent_and_sources_of_a_task_together():
    table = share_table(make_frame({"scitail": MIDDLE, "books": LATE, "rte": EVEN}, 0.01))
    assert table["source"].unique().tolist() == ["scitail", "rte", "books"]
    assert table.groupby("source")["share"].sum().round(6).unique().tolist() == [100.0]
    assert (table["low"] < table["share"]).all() and (table["share"] < table["high"]).all()
    assert (table["spread"] == 0).all()


def test_the_mean_fingerprint_comes_before_its_draws():
    frame = make_frame({"books": LATE, "sst": EVEN}, 0.01)
    means = mean_fingerprints(frame)
    assert list(means) == ["books", "sst"]
    assert means["books"].shape == (501, 6)
    assert means["books"][0] == pytest.approx(LATE)
    draws = frame.loc[frame["source"] == "books", "draws"].to_list()
    assert means["books"][1:] == pytest.approx(np.mean(draws, axis=0))


def test_spread_of_a_single_run_is_missing():
    assert share_table(make_frame({"books": LATE}, runs=1))["spread"].isna().all()


def test_similarity_matrix_is_of_the_mean_fingerprints():
    matrix = similarity_matrix(make_frame({"books": LATE, "sst": LATE, "qqp": MIDDLE}))
    assert matrix.index.tolist() == matrix.columns.tolist() == ["books", "sst", "qqp"]
    assert matrix.loc["books"].tolist() == pytest.approx([1, 1, (0.03 + 0.03 + 0.09 + 0.03) / 0.22])


def test_nulls_stand_beside_the_tasks_own():
    frame = make_frame({"books": LATE, "qqp": MIDDLE})
    table = null_table(frame, {"shuffled labels": make_frame({"books": EVEN})}, SixLayers())
    assert table["fingerprint"].tolist() == ["task", "shuffled labels"]
    assert table["cosine with the task's"].tolist() == [1.0, 0.87]
    assert table["layers outside"].tolist() == [6, 0]


def test_figures_frame_the_claims_and_tell_generated_data():
    frame = make_frame(PAPERS, 0.01, prefix="miniature:")
    figure = region_heatmap(share_table(frame), generated=True, title="Fingerprints")
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()][0] == "sentiment: books"
    assert [(p.get_x(), p.get_width()) for p in axes.patches[:1]] == [pytest.approx((4.04, 1.92))]
    assert len(axes.patches) == 4  # RTE has no region
    drawings = [
        figure.axes[0].get_title(loc="left"),
        null_panels(frame, {"shuffled labels": frame}, SixLayers(), generated=True, title="Nulls").get_suptitle(),
        similarity_dendrogram(similarity_matrix(frame), generated=True, title="Cosine").get_suptitle(),
    ]
    assert all(title.endswith("(generated data)") for title in drawings)


def test_the_dendrogram_orders_the_matrix():
    matrix = similarity_matrix(make_frame({"books": LATE, "qqp": MIDDLE, "sst": LATE}))
    left, right = similarity_dendrogram(matrix, generated=False, title="Cosine").axes[:2]
    names = [tick.get_text() for tick in right.get_yticklabels()]
    assert abs(names.index("books") - names.index("sst")) == 1
    assert names == [tick.get_text() for tick in right.get_xticklabels()]


def test_a_dendrogram_needs_two_sources():
    with pytest.raises(ValueError, match="needs at least two sources to join, got 1"):
        similarity_dendrogram(similarity_matrix(make_frame({"books": LATE})), generated=False, title="Cosine")
