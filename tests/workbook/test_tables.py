"""The small tables and the judged claims, on made-up grids."""

import numpy as np
import pandas as pd
import pytest
from tsns_workbook import paper, report, tables2to5
from tsns_workbook.statistics import accuracy_table, average_table, bootstrap

from tsns_lib import load_encoder, load_source

N = 200
LAST = ("last_layer", 4)


def cell(source, target, method, k, percent, run=0, **more):
    """One row of a grid with that accuracy on 200 target rows."""
    correct = np.arange(N) < N * percent // 100
    facts = {"stability": np.nan, "resamples": 0, "selected": None, "alphas": None, "term_medians": None, **more}
    row = {"source": source, "target": target, "method": method, "k": k, "run": run, "correct": correct, **facts}
    return row | {"accuracy": correct.mean(), "n": N, "members": tuple(source.split("+")), "generated": False}


def grid_of(sources, targets, tsns, name="tsns"):
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
                cell(
                    source,
                    target,
                    name,
                    500,
                    tsns(source, target),
                    stability=0.75,
                    resamples=24,
                    selected=np.array([0, 1, 2, 7]),
                ),
                cell(source, target, "random", 100, 60),
                cell(source, target, name, 100, 62, stability=0.5, resamples=16, selected=np.array([0, 4])),
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


def test_the_claims_of_table_2_fail_where_the_opposite_is_planted():
    grid = grid_of(AMAZON, AMAZON, lambda source, target: 50 if (source, target) in BEST else 55)
    judged = verdicts(tables2to5.table2_claims(bootstrap(grid), ("tsns", 500), LAST))
    assert {judged[id] for id in judged if "state_of_the_art" not in id} == {"not reproduced"}


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
        "table3.gain_qqp": "not reproduced",
        "table3.best_for_scitail": "reproduced",
        "table3.best_for_qqp": "not reproduced",
    }


def test_the_claims_of_table_5_compare_a_combination_with_its_members():
    accuracy = {"qqp": 60, "mnli": 70, "qqp+rte": 66, "mnli+qqp": 76}
    single = grid_of(["qqp", "mnli"], ["scitail"], lambda source, _: accuracy[source])
    combined = grid_of(["qqp+rte", "mnli+qqp"], ["scitail"], lambda source, _: accuracy[source], name="multi_tsns")
    judged = {row["id"]: row for row in tables2to5.table5_claims(bootstrap(pd.concat([single, combined])), 500, LAST)}
    assert judged["table5.gain"]["ours"] == pytest.approx((6 + 16) / 2)
    assert judged["table5.over_single"]["ours"] == pytest.approx((6 + 6) / 2)
    assert judged["table5.small_source_helps"]["ours"] == pytest.approx(6)


def test_the_claims_of_table_5_need_combinations():
    single = grid_of(["qqp", "mnli"], ["scitail"], lambda *_: 60)
    assert set(verdicts(tables2to5.table5_claims(bootstrap(single), 500, LAST)).values()) == {"not testable here"}
    alone = grid_of(["mnli+snli"], ["scitail"], lambda *_: 70, name="multi_tsns")
    judged = verdicts(tables2to5.table5_claims(bootstrap(alone), 500, LAST))
    assert judged == {
        "table5.gain": "reproduced",
        "table5.over_single": "not testable here",
        "table5.small_source_helps": "not testable here",
    }


def test_controls_say_which_baseline_the_selection_beats(amazon):
    table = tables2to5.controls_table(bootstrap(amazon), ("tsns", 500)).set_index("baseline")
    assert table["gain"].round(1).to_dict() == {
        "majority class": 23.3,
        "last layer": 13.3,
        "all neurons": 1.3,
        "random neurons K=500": 8.3,
    }
    assert set(table["verdict"]) == {"holds"}
    worse = tables2to5.controls_table(bootstrap(amazon), ("tsns", 100)).set_index("baseline")
    assert worse.loc["all neurons", "verdict"] == "does not hold"


def test_averages_stand_by_k_and_those_of_one_size_apart(amazon):
    table = tables2to5.average_by_k(average_table(bootstrap(amazon)))
    assert table.columns.tolist() == ["K=500", "K=100", "one size"]
    assert table.index.tolist() == ["majority class", "last layer", "all neurons", "random neurons", "TSNS"]
    assert table.loc["TSNS", "K=500"].startswith("73.3 (")
    assert table.loc["TSNS", "one size"] == "" and table.loc["all neurons", "K=500"] == ""


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


def test_budgets_are_scaled_to_the_rows_there_are():
    sources = [load_source("miniature:rte"), load_source("miniature:mrpc")]
    table = tables2to5.budget_table(sources, paper.table1(), [1_000, 200_000])
    scale = (240 + 300) / (2_490 + 3_917)
    assert table["rows here"].to_dict() == {1_000: round(1_000 * scale), 200_000: round(200_000 * scale)}
    with pytest.raises(ValueError, match=r"budgets: 200000 must be among them, .* got \[1000\]"):
        tables2to5.budget_table(sources, paper.table1(), [1_000])


def test_a_single_source_stands_as_multi_in_table_5():
    boots = {
        budget: tables2to5.as_multi(bootstrap(grid_of(["qqp"], ["scitail"], lambda *_, gain=gain: 60 + gain)))
        for budget, gain in ((20_000, 0), (200_000, 6))
    }
    wide = tables2to5.budgets_beside_paper(boots, paper.table5(), 500)
    assert wide.loc["qqp → scitail", ("L=200,000", "ours")] == 66.0
    assert wide.loc["qqp → scitail", ("L=200,000", "paper")] == 67.6
    table = tables2to5.accuracy_by_budget(boots, 500)
    assert set(table["method"]) == {"majority", "last_layer", "all", "random", "multi_tsns"}
    rows = pd.DataFrame({"rows here": {20_000: 35, 200_000: 349}})
    (axes,) = tables2to5.plot_by_budget(table, rows, generated=False).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["35", "349"]


def test_accuracy_tables_hold_what_results_need(amazon):
    wanted = {"source", "target", "method", "k", "accuracy", "low", "high", "n"}
    assert wanted <= set(accuracy_table(bootstrap(amazon)).columns)
