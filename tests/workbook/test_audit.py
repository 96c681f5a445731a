"""The paper against itself: the known slips are found, each with its arithmetic, and nothing else is called one."""

import pytest
from tsns_workbook import audit, paper, report

STATEMENTS = audit.statements().set_index("claim")


def failing(frame):
    return frame[frame["verdict"] != report.HOLDS]


def test_one_average_of_table2_is_impossible_and_two_are_saved_by_rounding():
    assert failing(audit.averages())[["table", "column", "printed", "recomputed"]].to_numpy().tolist() == [
        ["Table 2", "last layer", 77.4, 77.0]
    ]
    rounded = audit.averages().set_index(["table", "column"])[["printed", "recomputed"]]
    assert rounded.loc[[("Table 2", "CMD"), ("Table 2", "PE")]].to_numpy().tolist() == [[79.9, 79.8], [78.2, 78.1]]


def test_the_arithmetic_of_an_average_is_shown():
    shown = audit.averages().set_index(["table", "column"]).loc[("Table 4", "MultiTSNS K=1024"), "cells"]
    assert shown == "(80.6 + 83.5 + 83.6 + 80.9) / 4 = 82.150"


def test_wrong_and_missing_marks():
    wrong = failing(audit.marks())
    assert wrong[["table", "where", "marked", "best"]].to_numpy().tolist() == [
        [3, "scitail → qqp", "63.7 (TSNS K=1024)", "64.9 (TSNS K=500)"],
        [
            5,
            "qqp+mnli",
            "75.1 (MultiTSNS K=1024, L=200,000); 77.1 (MultiTSNS K=500, L=300,000)",
            "77.1 (MultiTSNS K=500, L=300,000)",
        ],
        [5, "MultiTSNS K=1024, L=200,000", "none", "75.6 (qqp+mnli+rte)"],
        [5, "MultiTSNS K=500, L=300,000", "none", "77.1 (qqp+mnli)"],
    ]


def test_pairs_that_were_not_run_have_no_mark_to_check():
    assert not audit.marks()["where"].isin(["scitail → scitail", "qqp → qqp"]).any()


@pytest.mark.parametrize(
    ("table", "ahead"),
    [
        (2, {"K=100": 2, "K=300": 4, "K=500": 3, "K=700": 2, "K=1024": 3, "K chosen on the target": 5}),
        (4, {"K=200": 3, "K=500": 3, "K=700": 3, "K=1024": 2, "K chosen on the target": 4}),
    ],
)
def test_pairs_ahead_of_the_state_of_the_art(table, ahead):
    last = audit.state_of_the_art(table).loc["pairs ahead"]
    assert last.drop(["published", "system"]).to_dict() == ahead


def test_the_best_published_system_is_named():
    row = audit.state_of_the_art(4).loc["books+dvd+electronics → kitchen"]
    assert (row["published"], row["system"], row["K=500"]) == (86.7, "MTLE", -0.2)


def test_tables_without_published_systems_are_refused():
    with pytest.raises(ValueError, match="table must be 2 or 4.*3"):
        audit.state_of_the_art(3)


def test_gains_from_the_cells():
    assert audit.gains()[["printed", "recomputed"]].to_numpy().tolist() == [[1.1, 1.1], [4.1, 4.5], [3.0, 3.0]]


def test_no_reading_gives_the_two_ranges():
    ranges = audit.ranges().set_index(["compared with", "reading"])[["lowest", "highest"]]
    assert (audit.ranges()["verdict"] == "does not hold").all()
    assert ranges.loc[("the best single source combined", "best cell of each")].tolist() == [-1.1, 4.0]
    assert ranges.loc[("QQP, a part of every combination", "MultiTSNS K=500, L=300,000")].tolist() == [2.9, 9.5]
    assert ranges.loc[("the last layer", "MultiTSNS K=500, L=200,000")].tolist() == [3.3, 13.0]
    assert ranges.loc[("the last layer", "MultiTSNS K=500, L=300,000")].tolist() == [3.8, 13.2]


def test_columns_that_coincide():
    assert audit.coincidences()["difference"].abs().tolist() == [0.0, 0.2, 0.0, 0.0, 0.0, 0.1, 0.0]


def test_the_same_cells_in_two_tables():
    shared = audit.shared_cells().set_index(["source", "column"])
    assert len(shared) == 12
    assert shared.loc[("qqp", "last layer")].tolist() == [66.9, 68.5, 1.6]
    assert shared.loc[("snli", "last layer")].tolist() == [52.5, 50.8, -1.7]


def test_cells_below_the_larger_class():
    table = audit.below_majority({"scitail": 60.4, "qqp": 64.1}, {"qqp": 7600}).set_index("target")
    assert table["below"].to_dict() == {"scitail": 8, "qqp": 16}
    assert table["surely below"].to_dict() == {"scitail": 8, "qqp": 14}
    assert table["at least"].to_dict() == {"scitail": 60.4, "qqp": 63.0}


def test_findings_are_written_from_the_cells():
    below, alike, average, ahead = audit.findings(audit.below_majority({"qqp": 64.1}, {"qqp": 7600}))
    assert below.startswith("16 of the 20 accuracies printed for QQP in Table 3 lie below 64.1 %")
    assert "In all 4 rows of Table 4" in alike and alike.endswith("to 0.2 points.")
    assert average.endswith("so the gain of 500 neurons is 4.5 points and not 4.1, in the paper's favour.")
    assert "in 5 of 12 pairs and 4 of 4 scenarios" in ahead and ahead.endswith("with one K, 500, they do in 3 and 3.")


def test_the_text_names_the_best_sources():
    assert failing(audit.best_sources()).empty


def test_how_much_of_each_statement_follows():
    assert STATEMENTS[["stated", "follow"]].to_numpy().tolist() == [
        [10, 9],
        [7, 7],
        [28, 27],
        [16, 13],
        [5, 5],
        [4, 4],
        [3, 2],
        [2, 0],
        [6, 6],
        [18, 15],
    ]
    assert STATEMENTS.index[STATEMENTS["verdict"] == "holds"].tolist() == [
        "audit.averages_table4",
        "audit.state_of_the_art_pairs",
        "audit.state_of_the_art_scenarios",
        "audit.best_sources",
    ]


def test_claims_state_what_the_audit_counts():
    known = {claim.id: claim for claim in paper.CLAIMS if claim.rule == "arithmetic"}
    assert set(known) == set(STATEMENTS.index)
    for name, stated in STATEMENTS["stated"].items():
        assert (known[name].paper, known[name].threshold) == (stated, stated - 0.5)


def test_a_claim_is_reproduced_if_all_follows():
    for claim in audit.audit_claims(audit.statements()):
        holds = STATEMENTS.loc[claim["id"], "verdict"] == "holds"
        assert claim["verdict"] == ("reproduced" if holds else "contradicted")
        assert claim["interval"] == [claim["ours"], claim["ours"]]
