"""Claims answered from recorded tables: each figure, what is missing, and the paper's own figures from its cells."""

import pandas as pd
import pytest
from tsns_workbook import paper
from tsns_workbook.in_passing import claims_in_passing, late_layers, more_rows, over_single, small_sources, tables_of
from tsns_workbook.scoreboard import Result

DOMAINS = ["books", "dvd", "electronics", "kitchen"]
KNOWN = {claim.id: claim for claim in paper.CLAIMS}


def cells(rows, *columns):
    return [dict(zip(columns, row, strict=True)) for row in rows]


def single_layers():
    """Layer 5 of 6 is the best for every target, layer 4 the best other one."""
    rows = [(s, t, f"layer {n}", 384, 60.0 + n) for s in DOMAINS for t in DOMAINS if s != t for n in range(1, 6)]
    rows += [(s, t, "layer 6", 384, 50.0 + i) for i, s in enumerate(DOMAINS) for t in DOMAINS if s != t]
    return rows


def single_sources():
    return [
        (s, t, method, 500, accuracy + i)
        for method, accuracy in (("tsns", 70.0), ("random", 69.0))
        for t in DOMAINS
        for i, s in enumerate(name for name in DOMAINS if name != t)
    ]


def several(tsns, random):
    return [
        ("three", t, m, 500, a + i)
        for m, a in (("multi_tsns", tsns), ("random", random))
        for i, t in enumerate(DOMAINS)
    ]


COLUMNS = ("source", "target", "method", "k", "accuracy")


def results(**tables):
    names = {"04": "04_table2", "06": "06_table4", "07": "07_table5", "08": "08_prediction"}
    return [Result(names[key[1:3]], "builtin:minilm", False, [], {key[4:]: rows}) for key, rows in tables.items()]


def test_the_helpful_layers_are_met_by_depth_and_compared_with_the_best_other():
    tables = tables_of(results(t04_accuracy=cells(single_layers(), *COLUMNS)))
    assert late_layers(tables).differences.to_dict() == dict.fromkeys(DOMAINS, 1.0)


def test_three_domains_are_compared_with_the_best_single_one_and_with_random_neurons():
    recorded = {"t04_accuracy": cells(single_sources(), *COLUMNS), "t06_accuracy": cells(several(73.0, 71.0), *COLUMNS)}
    answer = over_single(tables_of(results(**recorded)))
    assert answer.differences.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert answer.control.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_more_rows_is_the_largest_budget_minus_the_smallest_of_combinations():
    rows = [
        (source, "scitail", method, 500, budget, accuracy)
        for source in ("qqp", "qqp+rte", "qqp+mnli")
        for method in ("selected", "random")
        for budget, accuracy in ((20_000, 60.0), (100_000, 66.0), (300_000, 64.0))
    ]
    of_one_budget = [(source, "scitail", "TSNS (own z)", 500, 100_000, 70.0) for source in ("qqp+rte", "qqp+mnli")]
    columns = ("source", "target", "method", "k", "budget", "accuracy")
    for recorded in (rows, rows + of_one_budget):
        answer = more_rows(tables_of(results(t07_budgets=cells(recorded, *columns))))
        assert answer.differences.to_dict() == {"qqp+mnli": 4.0, "qqp+rte": 4.0}
        assert answer.control.tolist() == [4.0, 4.0]
    only = [row for row in rows if row[4] == 100_000]
    judged = {row["id"]: row for row in claims_in_passing(results(t07_budgets=cells(only, *columns)))}
    assert judged["table5.more_rows"]["verdict"] == "not testable here"


def test_small_sources_are_judged_on_the_large_targets_alone():
    names = ["miniature:scitail", "miniature:qqp", "miniature:mnli", "miniature:rte", "miniature:mrpc"]
    rows = [
        ("sentence pairs", s, t, 55.0 if s.endswith(("rte", "mrpc")) else 60.0, 58.0)
        for s in names
        for t in names
        if s != t
    ]
    answer = small_sources(
        tables_of(results(t08_pairs=cells(rows, "task", "source", "target", "accuracy", "majority")))
    )
    assert answer.differences.to_dict() == {"scitail": 5.0, "qqp": 5.0, "mnli": 5.0}
    assert answer.above_majority is False  # 6 of 12 pairs: not most of them


def test_claims_say_what_is_not_by_selection_and_what_is_missing():
    recorded = {"t04_accuracy": cells(single_sources(), *COLUMNS), "t06_accuracy": cells(several(76.0, 75.0), *COLUMNS)}
    judged = {row["id"]: row for row in claims_in_passing(results(**recorded))}
    assert judged["table4.over_single"]["verdict"] == "reproduced"
    assert judged["table4.over_single"]["by_selection"] is False
    others = {row["verdict"] for id, row in judged.items() if id != "table4.over_single"}
    assert others == {"not testable here"}
    assert {claim.id for claim in paper.CLAIMS if claim.rule in ("passing", "untested")} == set(judged)


def test_the_papers_figures_follow_from_its_cells():
    two, three, four, five = (
        frame[frame["k"] == 500] for frame in (paper.table2(), paper.table3(), paper.table4(), paper.table5())
    )
    best = two.groupby("target")["accuracy"].max()
    together = four.set_index("target")["accuracy"]
    assert round((together - best).mean(), 1) == KNOWN["table4.over_single"].paper
    three = three.dropna(subset=["accuracy"])
    small = three["source"].isin(["rte", "mrpc"])
    gaps = [three[side].groupby("target")["accuracy"].mean() for side in (~small, small)]
    assert round((gaps[0] - gaps[1]).mean(), 1) == KNOWN["table3.small_sources"].paper
    wide = five[five["source"].str.contains("+", regex=False)].pivot(
        index="source", columns="budget", values="accuracy"
    )
    assert (wide[300_000] - wide[20_000]).mean() == pytest.approx(KNOWN["table5.more_rows"].paper)


def test_a_table_without_rows_is_no_error():
    assert isinstance(tables_of(results(t08_pairs=[]))["08 pairs"], pd.DataFrame)
