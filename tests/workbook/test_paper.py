"""The printed numbers are the paper's, and its averages follow from its cells but for three known slips."""

import pandas as pd
import pytest
from tsns_workbook import paper
from tsns_workbook.families import declaration


def cell(table, source, target, method, k):
    rows = table.set_index(["source", "target", "method", "k"])
    return rows.loc[(source, target, method, k)]


def test_table1_counts():
    counts = paper.table1().set_index("source")
    assert len(counts) == 12
    assert counts.loc["books"].tolist() == ["sentiment", 2000, 2000]
    assert counts.loc["snli", "training"] == 366180
    assert counts.loc["qqp", "transferring"] == 40371
    assert counts["transferring"].isna().sum() == 6


@pytest.mark.parametrize(
    ("source", "target", "method", "k", "accuracy", "bold"),
    [
        ("dvd", "books", "last_layer", 1024, 82.6, True),
        ("dvd", "books", "tsns", 500, 81.2, False),
        ("electronics", "dvd", "CDB", 0, 79.3, True),
        ("kitchen", "dvd", "tsns", 100, 69.8, False),
        ("kitchen", "electronics", "PBLM", 0, 87.1, True),
        ("books", "kitchen", "tsns", 300, 85.2, True),
        ("electronics", "kitchen", "PE", 0, 84.6, False),
        ("electronics", "kitchen", "tsns", 1024, 87.1, False),
    ],
)
def test_table2_cells(source, target, method, k, accuracy, bold):
    found = cell(paper.table2(), source, target, method, k)
    assert (found["accuracy"], found["bold"]) == (accuracy, bold)


def test_table2_is_whole():
    table = paper.table2()
    assert len(table) == 12 * 10
    assert table["accuracy"].notna().all()
    assert table["bold"].sum() == 12
    assert table.loc[table["method"] == "tsns", "k"].unique().tolist() == [100, 300, 500, 700, 1024]


def test_table2_bold_is_the_best_of_its_row():
    for _, row in paper.table2().groupby(["source", "target"]):
        assert row.loc[row["bold"], "accuracy"].tolist() == [row["accuracy"].max()]


def test_table3_cells_and_pairs_not_run():
    table = paper.table3()
    assert len(table) == 12 * 4
    assert cell(table, "qqp", "scitail", "tsns", 1024)["accuracy"] == 71.9
    assert cell(table, "rte", "qqp", "tsns", 500)["accuracy"] == 40.17
    missing = table[table["accuracy"].isna()]
    assert set(zip(missing["source"], missing["target"], strict=True)) == {
        ("scitail", "scitail"),
        ("qqp", "qqp"),
    }


def test_table3_has_one_bold_cell_that_is_not_the_best():
    wrong = [
        pair
        for pair, row in paper.table3().dropna().groupby(["source", "target"])
        if row.loc[row["bold"], "accuracy"].tolist() != [row["accuracy"].max()]
    ]
    assert wrong == [("scitail", "qqp")]


def test_table4_cells():
    table = paper.table4()
    assert len(table) == 4 * 8
    assert cell(table, "dvd+electronics+kitchen", "books", "multi_tsns", 500)["accuracy"] == 83.0
    assert cell(table, "books+dvd+electronics", "kitchen", "MTLE", 0)["accuracy"] == 86.7
    assert table.loc[table["method"] == "MTLE", "accuracy"].isna().sum() == 3


def test_table5_cells_have_budgets():
    table = paper.table5().set_index(["source", "method", "k", "budget"])
    assert len(table) == 9 * 7
    assert table.loc[("qqp+mnli", "multi_tsns", 500, 300_000), "accuracy"] == 77.1
    assert table.loc[("qqp+mnli+rte+mrpc", "multi_tsns", 500, 20_000), "bold"]
    assert table.loc[("qqp+mnli", "multi_tsns", 1024, 200_000), "underlined"]


@pytest.mark.parametrize(
    ("table", "slips"),
    [(2, {"CMD": (79.9, 79.8), "PE": (78.2, 78.1), "last_layer": (77.4, 77.0)}), (4, {})],
)
def test_printed_averages_follow_from_the_cells_but_for_known_slips(table, slips):
    averages = paper.printed_averages(table).dropna()
    wrong = averages[averages["slip"]].set_index("method")
    assert dict(zip(wrong.index, zip(wrong["printed"], wrong["recomputed"], strict=True), strict=True)) == slips
    right = averages[~averages["slip"]]
    assert (right["printed"] == right["recomputed"]).all()


def test_printed_averages_round_halves_up():
    averages = paper.printed_averages(4).set_index(["method", "k"])
    assert averages.loc[("multi_tsns", 1024), "recomputed"] == 82.2  # the mean is 82.15


def test_tables_without_averages_are_refused():
    with pytest.raises(ValueError, match="table must be 2 or 4.*3"):
        paper.printed_averages(3)


def test_claims_are_well_formed():
    assert len({claim.id for claim in paper.CLAIMS}) == len(paper.CLAIMS)
    assert {claim.rule for claim in paper.CLAIMS} <= set(paper.RULES)
    assert {claim.family for claim in paper.CLAIMS} == set(paper.FAMILIES)


def test_a_claim_has_the_version_of_its_date_and_the_words_of_its_rule():
    one, other = (next(claim for claim in paper.CLAIMS if claim.id == id) for id in ("table2.gain", "table2.wins"))
    assert one.version.startswith("2026-11-26 ") and one.version != other.version


def test_what_was_declared_has_not_changed_since_its_date():
    """Whoever changes a claim, rule, threshold or family gives it a date, and writes the new digest here with it."""
    assert (max(claim.declared for claim in paper.CLAIMS), declaration()) == ("2026-11-26", "08aad0d2c172d58e")


def test_claimed_gain_and_wins_follow_from_table2():
    known = {claim.id: claim.paper for claim in paper.CLAIMS}
    wide = paper.table2().pivot(index=["source", "target"], columns=["method", "k"], values="accuracy")
    gains = wide["tsns", 500] - wide["last_layer", 1024]
    assert round(gains.mean(), 1) == known["table2.gain"]
    assert (gains > 0).sum() == known["table2.wins"]
    others = wide.drop(columns="tsns", level="method")
    assert (wide["tsns"].max(axis=1) > others.max(axis=1)).sum() == known["table2.state_of_the_art_pairs"]


@pytest.mark.parametrize(
    ("target", "source"),
    [("books", "dvd"), ("dvd", "books"), ("kitchen", "electronics"), ("electronics", "kitchen")],
)
def test_claimed_margins_follow_from_table2(target, source):
    table = paper.table2()
    rows = table[(table["target"] == target) & (table["method"] == "tsns") & (table["k"] == 500)]
    by_source: pd.Series = rows.set_index("source")["accuracy"]
    known = {claim.id: claim.paper for claim in paper.CLAIMS}
    assert round(by_source[source] - by_source.drop(source).max(), 1) == known[f"table2.best_for_{target}"]
