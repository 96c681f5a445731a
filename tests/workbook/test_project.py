"""Finding the project, and checking what its parameter files and `--param` say."""

import pytest
from tsns_workbook.project import ProjectError, parse_overrides, plan, project_root


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: [1\n", r"params/mini/01_good.yaml is not readable YAML"),
        ("- runs\n", r"params/mini/01_good.yaml is not a mapping .* but a list"),
        ("run: 2\n", r"in params/mini/01_good.yaml: 'run'; did you mean 'runs'\?"),
        ("1: 2\n", r"in params/mini/01_good.yaml: '1' \(there are: runs, where\)"),
    ],
)
def test_wrong_parameter_files(project, text, message):
    project.write("01_good", yaml=text)
    with pytest.raises(ProjectError, match=message):
        plan(project.root, "mini")


def test_a_parameter_file_without_a_notebook(project):
    (project / "params/mini/09_gone.yaml").write_text("")
    with pytest.raises(ProjectError, match="params/mini/09_gone.yaml has no notebook"):
        plan(project.root, "mini")


def test_a_notebook_without_a_parameter_file_is_not_part_of_the_profile(project):
    project.write("01_good", yaml="")
    project.write("02_other", yaml=None)
    assert [(job.name, job.parameters) for job in plan(project.root, "mini")] == [("01_good", {})]


def test_overrides_are_read_as_yaml():
    assert parse_overrides(["a=1", "b=[x, 2]", "c=0.5", "d="]) == {"a": 1, "b": ["x", 2], "c": 0.5, "d": None}


def test_the_root_is_found_from_below(project, monkeypatch):
    monkeypatch.delenv("TSNS_ROOT")
    monkeypatch.chdir(project / "params/mini")
    assert project_root() == project.root


def test_a_wrong_root_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TSNS_ROOT", str(tmp_path))
    with pytest.raises(ProjectError, match="no project found: TSNS_ROOT="):
        project_root()
