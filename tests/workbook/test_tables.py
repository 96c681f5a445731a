"""The small tables and the judged claims, on made-up grids."""

import numpy as np
import pandas as pd
import pytest
from tsns_workbook import paper, report, tables2to5
from tsns_workbook.statistics import accuracy_table, bootstrap

from tsns_lib import load_encoder, load_source

N = 200
LAST = ("last_layer", 4)
SELECTED = ("selected", 500)


def cell(source, target, method, k, percent, run=0, **more):
    """One row of a grid with that accuracy on 200 target rows."""
    correct = np.arange(N) < N * percent // 100
    facts = {"stability": np.nan, "trees": 0, "selected": None, "alphas": None, "term_medians": None, **more}
    row = {"source": source, "target": target, "method": method, "k": k, "run": run, "correct": correct, **facts}
    return row | {"accuracy": correct.mean(), "n": N, "members": tuple(source.split("+")), "generated": False}


def grid_of(sources, targets, tsns, name="tsns", f_test=None):
    """Every method for every pair; `tsns` gives the accuracy of the selection from source to target."""
    rows = []
    for source in sources:
        for target in targets:
            if target in source.split("+"):
                continue
            rows += [
                cell(source, target, "majority", 0, 50),
                cell(source, target, *LAST, 60),
                cell(source, target, "all", 8, 72),
                cell(source, target, "random", 500, 65),
                cell(source, target, "random of the same layers", 500, 64),
                cell(source, target, "f_test", 500, 66 if f_test is None else f_test),
                cell(
                    source,
                    target,
                    name,
                    500,
                    tsns(source, target),
                    stability=0.75,
                    trees=24,
                    selected=np.array([0, 1, 2, 7]),
                ),
                cell(source, target, "random", 100, 60),
                cell(source, target, "random of the same layers", 100, 60),
                cell(source, target, "f_test", 100, 61),
                cell(source, target, name, 100, 62, stability=0.5, trees=16, selected=np.array([0, 4])),
            ]
    return pd.DataFrame(rows)


AMAZON = ["books", "dvd", "electronics", "kitchen"]
BEST = {("dvd", "books"), ("books", "dvd"), ("electronics", "kitchen"), ("kitchen", "electronics")}


@pytest.fixture(scope="module")
def amazon():
    return grid_of(AMAZON, AMAZON, lambda source, target: 80 if (source, target) in BEST else 70)


def verdicts(judged):
    return {row["id"]: row["verdict"] for row in judged}


def test_the_claims_of_table_2_hold_where_they_are_planted(amazon):
    judged = verdicts(tables2to5.table2_claims(bootstrap(amazon), ("tsns", 500), LAST))
    assert judged.pop("table2.state_of_the_art_pairs") == "not testable here"
    assert judged.pop("table2.state_of_the_art_average") == "not testable here"
    assert len(judged) == 6 and set(judged.values()) == {"reproduced"}


def test_a_gain_that_a_control_shows_as_well_is_not_by_selection(amazon):
    by_id = {row["id"]: row for row in tables2to5.table2_claims(bootstrap(amazon), ("tsns", 500), LAST)}
    assert by_id["table2.gain"]["by_selection"] and by_id["table2.gain"]["above_majority"]
    grid = grid_of(AMAZON, AMAZON, lambda source, target: 80 if (source, target) in BEST else 70, f_test=75)
    tied = {row["id"]: row for row in tables2to5.table2_claims(bootstrap(grid), ("tsns", 500), LAST)}
    assert report.reading(tied["table2.gain"]) == "reproduced, not by selection"


def test_a_gain_below_the_majority_class_says_so():
    grid = grid_of(AMAZON, AMAZON, lambda *_: 49)
    (gain, *_) = tables2to5.table2_claims(bootstrap(grid), ("tsns", 500), ("random", 100))
    assert gain["above_majority"] is False


def test_the_claims_of_table_2_fail_where_the_opposite_is_planted():
    grid = grid_of(AMAZON, AMAZON, lambda source, target: 50 if (source, target) in BEST else 55)
    judged = verdicts(tables2to5.table2_claims(bootstrap(grid), ("tsns", 500), LAST))
    assert {judged[id] for id in judged if "state_of_the_art" not in id} == {"contradicted"}


def test_a_claim_about_a_domain_that_is_not_here_is_not_testable():
    domains = ["books", "dvd", "electronics", "own.csv"]
    grid = grid_of(domains, domains, lambda source, target: 80 if (source, target) in BEST else 70)
    judged = tables2to5.table2_claims(bootstrap(grid), ("tsns", 500), LAST)
    assert {id for id, verdict in verdicts(judged).items() if verdict != "not testable here"} == {
        "table2.best_for_books",
        "table2.best_for_dvd",
    }
    assert set(verdicts(tables2to5.table4_claims(bootstrap(grid), ("tsns", 500), LAST)).values()) == {
        "not testable here"
    }
    assert set(verdicts(tables2to5.table3_claims(bootstrap(grid), ("tsns", 500), LAST)).values()) == {
        "not testable here"
    }


def test_what_the_paper_says_of_500_neurons_is_not_judged_on_other_numbers(amazon):
    judged = verdicts(tables2to5.table2_claims(bootstrap(amazon), ("tsns", 100), LAST))
    assert judged["table2.gain"] == judged["table2.wins"] == "not testable here"


def test_a_further_source_does_not_count_in_what_the_paper_says(amazon):
    more = [*AMAZON, "own.csv"]
    grid = grid_of(more, more, lambda source, target: 5 if "own.csv" in (source, target) else 70)
    (gain, *_) = tables2to5.table2_claims(bootstrap(grid), ("tsns", 500), LAST)
    assert gain["ours"] == 10


def test_the_claims_of_table_3_are_judged_by_target():
    accuracy = {"scitail": {"mnli": 80, "qqp": 75}, "qqp": {"mnli": 50, "scitail": 55}}
    sources = ["qqp", "scitail", "mnli", "snli"]
    grid = grid_of(sources, ["scitail", "qqp"], lambda source, target: accuracy[target].get(source, 58))
    judged = verdicts(tables2to5.table3_claims(bootstrap(grid), ("tsns", 500), LAST))
    assert judged == {
        "table3.gain_scitail": "reproduced",
        "table3.gain_qqp": "contradicted",
        "table3.best_for_scitail": "reproduced",
        "table3.best_for_qqp": "contradicted",
    }


def test_the_claims_of_table_5_compare_a_combination_with_its_members():
    accuracy = {"qqp": 60, "mnli": 70, "qqp+rte": 66, "mnli+qqp": 76}
    single = grid_of(["qqp", "mnli"], ["scitail"], lambda source, _: accuracy[source])
    combined = grid_of(["qqp+rte", "mnli+qqp"], ["scitail"], lambda source, _: accuracy[source], name="multi_tsns")
    grid = tables2to5.as_one_method(pd.concat([single, combined], ignore_index=True))
    judged = {row["id"]: row for row in tables2to5.table5_claims(bootstrap(grid), SELECTED, LAST)}
    assert judged["table5.gain"]["ours"] == pytest.approx((6 + 16) / 2)
    assert judged["table5.over_single"]["ours"] == pytest.approx((6 + 6) / 2)
    assert judged["table5.small_source_helps"]["ours"] == pytest.approx(6)


def test_the_claims_of_table_5_need_combinations():
    single = tables2to5.as_one_method(grid_of(["qqp", "mnli"], ["scitail"], lambda *_: 60))
    judged = verdicts(tables2to5.table5_claims(bootstrap(single), SELECTED, LAST))
    assert set(judged.values()) == {"not testable here"}
    alone = tables2to5.as_one_method(grid_of(["mnli+snli"], ["scitail"], lambda *_: 70, name="multi_tsns"))
    judged = verdicts(tables2to5.table5_claims(bootstrap(alone), SELECTED, LAST))
    assert judged == {
        "table5.gain": "reproduced",
        "table5.over_single": "not testable here",
        "table5.small_source_helps": "not testable here",
    }


def test_stability_stands_beside_chance(amazon):
    table = tables2to5.stability_table(amazon)
    assert table.loc["books"].tolist() == [0.75, 0.5, "16 to 24"]
    assert table.loc["by chance"].tolist() == [62.5, 12.5, ""]  # K/N of this toy of 8 neurons


def test_fingerprints_are_the_mean_of_the_runs():
    rows = [
        cell("books", "dvd", "tsns", 2, 70, run, selected=np.array(chosen))
        for run, chosen in enumerate([[0, 1], [0, 2303]])
    ]

    table = tables2to5.fingerprint_table(pd.DataFrame(rows), ("tsns", 2), load_encoder())
    assert table["share"].tolist() == [75, 0, 0, 0, 0, 25]
    assert table["layer"].tolist() == [1, 2, 3, 4, 5, 6]


def test_alphas_are_counted_and_the_terms_shown():
    found = {"alphas": np.array([1.0, 0.9]), "term_medians": np.array([[1e-4, 0.5], [3e-4, 0.7]])}
    table = tables2to5.alpha_table(
        pd.DataFrame([cell("a+b", "c", "multi_tsns", 2, 70, run, **found) for run in (0, 1)])
    )
    assert table.loc["a+b"].to_dict() == {
        "median E(q)": "2.0e-04",
        "median E(q)/(σ+ε)": "6.0e-01",
        "1 - α = 0": 2,
        "1 - α = 0.1": 2,
    }


def test_sources_say_what_they_are():
    table = report.sources_table([load_source("miniature:books"), load_source("miniature:scitail", split="test")])
    assert table["data"].tolist() == ["generated", "generated"]
    assert table["rows"].tolist() == [240, 240]


def test_literature_is_what_the_paper_prints():
    table = tables2to5.literature_table(paper.table2())
    assert table.loc["dvd → books"].to_dict() == {"CDB": 74.2, "CMD": 79.5, "PBLM": 82.5, "PE": 77.3}
    assert len(table) == 12


def test_budgets_and_small_sources_are_scaled_to_the_rows_there_are():
    names = ["miniature:rte", "miniature:mrpc"]
    sources, table = tables2to5.scaled_sources(names, paper.table1(), [1_000, 200_000])
    scale = (240 + 300) / (2_490 + 3_917)
    assert table["rows here"].to_dict() == {1_000: round(1_000 * scale), 200_000: round(200_000 * scale)}
    assert sources["miniature:rte"].n_rows == round(scale * 2_490)  # it has 240, a larger part than in the paper
    assert sources["miniature:mrpc"].n_rows == 300
    with pytest.raises(ValueError, match=r"budgets: 200000 must be among them, .* got \[1000\]"):
        tables2to5.scaled_sources(names, paper.table1(), [1_000])


def test_table_5_has_one_column_for_both_ways_to_select():
    boots = {
        budget: bootstrap(tables2to5.as_one_method(grid_of(["qqp"], ["scitail"], lambda *_, gain=gain: 60 + gain)))
        for budget, gain in ((20_000, 0), (200_000, 6))
    }
    wide = tables2to5.budgets_beside_paper(boots, tables2to5.as_one_method(paper.table5()), 500)
    assert wide.loc["qqp → scitail", ("L=200,000", "ours")] == 66.0
    assert wide.loc["qqp → scitail", ("L=200,000", "paper")] == 67.6
    table = tables2to5.accuracy_by_budget(boots, 500)
    assert {"majority", "last_layer", "all", "random", "tsns", "selected"} <= set(table["method"])
    rows = pd.DataFrame({"rows here": {20_000: 35, 200_000: 349}})
    axes = tables2to5.plot_by_budget(table, rows, generated=False).axes[0]
    assert axes.containers[0].lines[0].get_xdata().tolist() == [35, 349]


def test_accuracy_tables_hold_what_results_need(amazon):
    wanted = {"source", "target", "method", "k", "accuracy", "low", "high", "n"}
    assert wanted <= set(accuracy_table(bootstrap(amazon)).columns)
