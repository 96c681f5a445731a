"""The words of `tsns`: one clear line for what is wrong, and the cache."""

import pytest
from tsns_workbook.cli import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["run", "--profile", "mimi"],
            "unknown profile 'mimi'; did you mean 'mini'? (there are: mini, paper)",
        ),
        (["run", "05"], "unknown notebook '05' (there are: 01_good)"),
        (["run", "--profile", "paper", "01"], "01_good is not part of profile 'paper'"),
        (
            ["run", "--param", "rums=3"],
            "unknown parameter of 01_good in --param: 'rums'; did you mean 'runs'?",
        ),
        (["run", "--param", "runs"], "--param 'runs' is not of the form key=value"),
        (["run", "--param", "runs=[1"], "--param runs=[1 is not readable YAML"),
        (["run", "--param", "runs=1e-3"], "write it with a point, as in 1.0e-3"),
        (["run", "--jobs", "0"], "--jobs 0: must be at least 1"),
        (["cache", "--clear", "../x"], "no kind '../x'"),
    ],
)
def test_wrong_words(project, capsys, words, message):
    project.write("01_good")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("tsns: ") and error.count("\n") == 1


def test_the_cache_lists_and_clears_kinds(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TSNS_CACHE", str(tmp_path))
    for kind, key in (("activations", "aa"), ("activations", "bb"), ("importance", "cc")):
        (tmp_path / kind / key).mkdir(parents=True)
        (tmp_path / kind / key / "00000.npy").write_bytes(b"0" * 1_000_000)
    assert main(["cache"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "activations  2        2.0",
        "importance   1        1.0",
    ]
    assert main(["cache", "--clear", "activations"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["importance"]
