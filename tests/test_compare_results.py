"""The script that compares the results of two runs."""

import json

import pytest
from compare_results import differences, main


@pytest.fixture
def write(tmp_path):
    def write(folder, name="04_x", **record):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.results.json").write_text(json.dumps(record))
        return str(tmp_path / folder)

    return write


def test_runs_that_differ_in_time_and_versions_alone_are_equal(write, capsys):
    before = write("before", seconds=1.0, versions={"python": "3.11"}, tables={"t": [{"k": 100}]})
    after = write("after", seconds=2.0, versions={"python": "3.13"}, tables={"t": [{"k": 100}]})
    assert main([before, after]) == 0
    assert capsys.readouterr().out == "no differences\n"


def test_every_difference_is_one_line(write, capsys):
    before = write("before", tables={"t": [{"k": 100, "accuracy": 70.0}, {"k": 300}]}, old=1)
    after = write("after", tables={"t": [{"k": 100.0, "accuracy": 70.00000000000001}]}, new=None)
    write("before", "05_gone")
    write("after", "06_new")
    assert main([before, after]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"05_gone.results.json: only in {before}",
        f"06_new.results.json: only in {after}",
        "04_x.old: only before",
        "04_x.new: only after",
        "04_x.tables.t: 2 items before, 1 after",
        "04_x.tables.t[0].k: 100 before, 100.0 after",
        "04_x.tables.t[0].accuracy: 70.0 before, 70.00000000000001 after",
    ]


def test_a_folder_without_results_is_an_error(write, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as exit:
        main([write("before"), str(tmp_path / "empty")])
    assert exit.value.code == 2 and "empty holds no *.results.json" in capsys.readouterr().err


def test_a_tolerance_may_be_given():
    def close(before, after, where):
        return abs(before - after) < 1

    assert differences({"a": [1, 5]}, {"a": [1.5, 7]}, same=close) == ["results.a[1]: 5 before, 7 after"]
