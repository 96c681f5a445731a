"""The scoreboard on result files of its own: what is read, what is left out, and how it is laid out."""

import json

import matplotlib
import pandas as pd
import pytest
from tsns_workbook.paper import CLAIMS, FAMILIES
from tsns_workbook.report import claim
from tsns_workbook.scoreboard import (
    PARTS,
    count_verdicts,
    findings,
    front_sentence,
    read_results,
    readable,
    scoreboard,
    scoreboard_figure,
)

matplotlib.use("Agg")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "04_table2", [claim("table2.gain", 9.11, 6.98, 11.1), claim("table2.wins", 6.0, 4.0, 8.0)])
    write(tmp_path, "09_audit", [claim("audit.averages_table2", 7.0, 7.0, 7.0)])
    return tmp_path


def write(folder, name, claims, **facts):
    record = {"notebook": name, "profile": "mini", "data": "generated", "encoder": "builtin:minilm", "claims": claims}
    record["tables"] = {}
    (folder / f"{name}.results.json").write_text(json.dumps(record | facts))


def board_of(folder):
    return scoreboard(read_results(folder, "mini")[0]).set_index("id")


def test_each_claim_has_one_row_and_what_nobody_judged_is_not_run(folder):
    board = board_of(folder)
    assert sorted(board.index) == sorted(known.id for known in CLAIMS)
    assert board.loc["table2.gain", ["ours", "low", "high"]].tolist() == [9.11, 6.98, 11.1]
    assert board.loc["table2.gain", ["about", "verdict"]].tolist() == ["Table 2", "reproduced"]
    assert board.loc["table2.gain", ["notebook", "data"]].tolist() == ["04_table2", "generated"]
    assert board.loc["table2.best_for_books", ["verdict", "notebook"]].tolist() == ["not run", ""]
    assert board.loc["table2.best_for_books", "paper"] == 3.5


def test_the_papers_own_results_come_first_and_the_counts_last(folder):
    abouts = board_of(folder)["about"].unique().tolist()
    assert abouts[:2] == ["Table 2", "Table 3"]
    assert abouts[-3:] == ["Figure 1", "Table 1", "Arithmetic audit"]


def test_what_a_renamed_notebook_left_is_not_taken_for_the_new_ones(tmp_path):
    folder = tmp_path / "outputs/mini"
    folder.mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/04_new.ipynb").touch()
    write(folder, "04_new", [claim("table2.gain", 9.11, 6.98, 11.1)])
    write(folder, "03_old", [claim("table2.gain", 1.0, 0.5, 1.5)])
    results, problems = read_results(folder, "mini")
    assert [result.notebook for result in results] == ["04_new"]
    assert problems == ["03_old.results.json: its notebook is gone or has another name; delete what it left"]


def test_a_folder_without_results_gives_a_page_of_claims_not_run(tmp_path):
    assert read_results(tmp_path, "mini") == ([], [])
    assert set(board_of(tmp_path)["verdict"]) == {"not run"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "05_x.results.json: is no readable record of a notebook (JSONDecodeError: "),
        ("[]", "05_x.results.json: is no readable record of a notebook (TypeError: "),
        ('{"claims": []}', "05_x.results.json: is no readable record of a notebook (KeyError: 'data')"),
        ("[" * 200_000, "05_x.results.json: is no readable record of a notebook (RecursionError: "),
    ],
)
def test_an_unreadable_file_is_one_line(folder, text, message):
    (folder / "05_x.results.json").write_text(text)
    results, (problem,) = read_results(folder, "mini")
    assert [result.notebook for result in results] == ["04_table2", "09_audit"]
    assert problem.startswith(message) and "\n" not in problem


def test_a_record_that_is_a_folder_is_one_line(folder):
    (folder / "05_x.results.json").mkdir()
    results, (problem,) = read_results(folder, "mini")
    assert [result.notebook for result in results] == ["04_table2", "09_audit"]
    assert problem.startswith("05_x.results.json: is no readable record of a notebook (IsADirectoryError: ")


@pytest.mark.parametrize(
    "wrong",
    [{"data": "imagined"}, {"data": ["real"]}, {"data": None}, {"encoder": ["a"]}, {"notebook": 5}]
    + [{"tables": []}, {"tables": {"findings": 5}}, {"tables": {"findings": [5]}}, {"claims": [5]}],
)
def test_a_record_with_a_damaged_fact_is_one_line(folder, wrong):
    facts = {"claims": [claim("table3.gain_qqp", 3.0, 1.0, 5.0)]} | wrong
    write(folder, "05_x", **facts)
    results, (problem,) = read_results(folder, "mini")
    assert [result.notebook for result in results] == ["04_table2", "09_audit"]
    assert problem.startswith("05_x.results.json: is no readable record of a notebook (") and "\n" not in problem


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("id", [1], "[1]"),
        ("ours", "5", "'5'"),
        ("ours", float("nan"), "nan"),
        pytest.param("ours", 10**400, "1" + 39 * "0", id="beyond a float"),
        ("ours", True, "True"),
        ("interval", [9, 1], "[9, 1]"),
        ("interval", [1, None], "[1, None]"),
        ("interval", [1, 2, 3], "[1, 2, 3]"),
        ("interval", None, "None"),
        ("interval", "12", "'12'"),
        ("p", "0.01", "'0.01'"),
        ("p", 2, "2"),
        ("above_majority", "no", "'no'"),
    ],
)
def test_a_damaged_claim_is_left_out_and_named(folder, field, value, shown):
    good = claim("table3.gain_qqp", 3.0, 1.0, 5.0)
    write(folder, "05_x", [good, claim("table3.gain_scitail", 3.0, 1.0, 5.0) | {field: value}])
    results, problems = read_results(folder, "mini")
    name = "[1]" if field == "id" else "'table3.gain_scitail'"
    assert problems == [f"05_x.results.json: left out claim {name}, whose {field} is {shown}"]
    board = scoreboard(results).set_index("id")
    assert board.loc[["table3.gain_qqp", "table3.gain_scitail"], "verdict"].tolist() == ["reproduced", "not run"]


def test_a_file_of_another_profile_is_one_line_and_its_claims_are_not_run(folder):
    write(folder, "04_table2", [claim("table2.gain", 1.0, 0.5, 2.0)], profile="local")
    assert read_results(folder, "mini")[1] == ["04_table2.results.json: is of profile 'local', not of 'mini'"]
    assert board_of(folder).loc["table2.gain", "verdict"] == "not run"


def test_a_verdict_is_drawn_again_from_the_recorded_interval(folder):
    old = claim("table2.wins", 6.0, 4.0, 8.0) | {"verdict": "reproduced"}
    write(folder, "04_table2", [old])
    assert read_results(folder, "mini")[1] == []
    assert board_of(folder).loc["table2.wins", ["verdict", "reading"]].tolist() == ["inconclusive", "inconclusive"]


def test_a_record_from_before_the_declarations_is_to_be_rerun(folder):
    write(folder, "04_table2", [{"id": "table2.wins", "rule": "wins", "ours": 6, "interval": [4, 8]}])
    assert board_of(folder).loc["table2.wins", "verdict"] == "to be rerun"


@pytest.mark.parametrize("change", [{"rule": "margin"}, {"declared": "2025-01-01 0123abcd"}])
def test_a_claim_whose_rule_has_changed_is_to_be_rerun(folder, change):
    write(folder, "04_table2", [claim("table2.gain", 3.0, 1.0, 5.0) | change])
    board = board_of(folder)
    assert board.loc["table2.gain", "verdict"] == "to be rerun"
    assert pd.isna(board.loc["table2.gain", "ours"])


def test_what_is_never_tested_is_never_to_be_rerun(folder):
    write(folder, "04_table2", [claim("table2.state_of_the_art_pairs") | {"declared": "2025-01-01 0123abcd"}])
    assert board_of(folder).loc["table2.state_of_the_art_pairs", "verdict"] == "not testable here"


def test_what_is_not_by_selection_reads_so(folder):
    write(folder, "04_table2", [claim("table2.gain", 3.0, 1.0, 5.0, by_selection=False)])
    assert board_of(folder).loc["table2.gain", "reading"] == "reproduced, not by selection"


def test_claims_that_are_unknown_or_judged_twice_are_left_out_and_named(folder):
    other = claim("table2.gain", -1.0, -2.0, 0.5)
    write(folder, "05_x", [other, other | {"id": "table2.luck"}])
    assert read_results(folder, "mini")[1] == [
        "05_x.results.json: left out claim 'table2.gain', which was judged by 04_table2",
        "05_x.results.json: left out claim 'table2.luck', which is none of the paper's",
    ]
    assert board_of(folder).loc["table2.gain", "verdict"] == "reproduced"


def test_figures_older_than_a_failed_run_are_named(folder):
    (folder / "04_table2.failed.ipynb").touch()
    assert read_results(folder, "mini")[1] == [
        "04_table2.results.json: the latest run failed; these are the figures of an earlier one"
    ]


def test_the_counts_add_up(folder):
    counts = count_verdicts(scoreboard(read_results(folder, "mini")[0]))
    in_table2 = sum(known.family == "table2" for known in CLAIMS)
    assert counts.loc["Table 2", ["reproduced", "inconclusive", "contradicted", "claims"]].tolist() == [
        1,
        1,
        0,
        in_table2,
    ]
    assert counts.loc["all", "claims"] == len(CLAIMS) == counts.drop(index="all")["claims"].sum()
    assert counts.loc["all", "not run"] == len(CLAIMS) - 3


def test_what_has_a_reservation_is_counted_apart(folder):
    write(folder, "04_table2", [claim("table2.gain", 3.0, 1.0, 5.0, by_selection=False)])
    board = scoreboard(read_results(folder, "mini")[0])
    assert count_verdicts(board).loc["Table 2", ["reproduced", "reproduced, but"]].tolist() == [0, 1]
    signs = [text.get_text() for text in scoreboard_figure(board, "paper").axes[0].texts]
    assert "(✓) reproduced, not by\nselection" in signs


def test_one_sentence_says_what_became_of_the_papers_own_claims(folder):
    write(folder, "05_table3", [claim("table3.gain_qqp", 3.0, 1.0, 5.0, above_majority=False)])
    write(folder, "08_x", [claim("prediction.gain", -0.3, -0.6, -0.1)])
    board = scoreboard(read_results(folder, "mini")[0])
    own = sum(FAMILIES[known.family].part == "paper" for known in CLAIMS)
    assert front_sentence(board) == (
        f"Of the paper's {own} empirical claims, 4 could be tested here: 1 **reproduced**, 1 reproduced but below the "
        "majority class or not clearly better than a control, 1 **inconclusive**, 1 **contradicted**. Once the claims "
        f"of a table share one error of 5 % (Holm), these numbers are 1, 1, 1 and 1. {own - 4} wait for their notebook "
        "to be run."
    )


def test_its_own_record_is_not_read_again(folder):
    write(folder, "00_scoreboard", [claim("table4.over_single", 1.0, 0.5, 1.5)])
    assert [result.notebook for result in read_results(folder, "mini")[0]] == ["04_table2", "09_audit"]


def test_claims_from_the_records_themselves_are_shown(folder):
    results = read_results(folder, "mini")[0]
    board = scoreboard(results, [claim("table4.over_single", 1.0, 0.5, 1.5)]).set_index("id")
    assert board.loc["table4.over_single", ["verdict", "notebook"]].tolist() == ["reproduced", "00_scoreboard"]


def test_what_the_encoder_has_seen_is_marked_where_the_data_are_real(folder):
    for data, mark in (("real", " †"), ("generated", "")):
        write(folder, "05_table3", [claim("table3.gain_qqp", 3.0, 1.0, 5.0)], data=data)
        shown = board_of(folder).loc["table3.gain_qqp", "claim"]
        assert shown == "500 selected neurons beat the last layer on QQP, averaged over the 5 sources" + mark


def test_the_findings_of_the_audit_are_a_list(folder):
    assert findings(read_results(folder, "mini")[0]) == "Notebook 09 has no results yet."
    write(folder, "09_audit", [claim("audit.averages_table2", 9, 9, 9)], tables={"findings": [{"finding": "A slip."}]})
    assert findings(read_results(folder, "mini")[0]) == "- A slip."


def test_figures_in_words(folder):
    write(folder, "08_x", [claim("prediction.sentiment", 0.12, 0.034, 0.9)])
    table = readable(scoreboard(read_results(folder, "mini")[0])).set_index("claim")
    words = {known.id: known.statement for known in CLAIMS}
    shown = ["ours", "95 % interval", "paper"]
    assert table.loc[words["table2.gain"], shown].tolist() == ["9.1", "7.0 to 11.1", "4.5"]
    assert table.loc[words["table2.wins"], shown].tolist() == ["6", "4 to 8", "11"]
    assert table.loc[words["audit.averages_table2"], shown].tolist() == ["7", "", "10"]
    assert table.loc[words["prediction.sentiment"], shown].tolist() == ["0.12", "0.03 to 0.90", ""]


def test_real_data_is_not_called_generated(folder):
    for name in ("04_table2", "09_audit"):
        write(folder, name, [], data="real")
    write(folder, "04_table2", [claim("table2.gain", 1.0, 0.5, 2.0)], data="real")
    board = scoreboard(read_results(folder, "mini")[0])
    assert set(readable(board)["data"]) == {"real", ""}
    assert not any("generated" in text.get_text() for text in scoreboard_figure(board, "paper").axes[0].texts)


def test_generated_data_are_marked_where_they_stand(folder):
    write(folder, "09_audit", [claim("audit.averages_table2", 7.0, 7.0, 7.0)], data="real")
    board = scoreboard(read_results(folder, "mini")[0])
    texts = [text.get_text() for part in PARTS for text in scoreboard_figure(board, part).axes[0].texts]
    assert "Table 2 (generated data)" in texts and "Arithmetic audit" in texts
    assert set(readable(board).loc["Table 2", "data"]) >= {"generated"}


def test_the_figures_show_every_claim_with_its_verdict(folder):
    board = scoreboard(read_results(folder, "mini")[0])
    figures = [scoreboard_figure(board, part) for part in PARTS]
    texts = [text.get_text().replace("\n", " ") for figure in figures for text in figure.axes[0].texts]
    unwrapped = {text.replace(" ", "") for text in texts}  # a line may break after a hyphen
    assert [known.statement for known in CLAIMS if known.statement.replace(" ", "") not in unwrapped] == []
    chips = pd.Series([text[2:] for text in texts if text[:2] in ("✓ ", "≈ ", "✗ ", "– ", "· ")]).value_counts()
    assert chips.to_dict() == board["reading"].value_counts().to_dict()
    assert "9.1 (7.0 to 11.1)" in texts
    assert figures[0].axes[0].get_title("left") == "What the paper finds"


def test_an_unknown_part_is_refused(folder):
    with pytest.raises(ValueError, match="part must be one of paper, ours, neighbours, counts, not 'all'"):
        scoreboard_figure(board_of(folder).reset_index(), "all")
