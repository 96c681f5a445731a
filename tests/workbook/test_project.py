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
        ("runs: 1\nruns: 5\n", r"params/mini/01_good.yaml is not readable YAML: line 2: the key 'runs' stands twice"),
        ("where: {a: 1, a: 1}\n", r"the key 'a' stands twice"),
        ("runs: 1\nwhere: !!bool yes\n", r"line 2: a tag \(!!bool\) is not read; write the value without it"),
        ("runs: 1\nwhere: 1e400\n", r"line 2: 1e400 is too large for a number"),
        ("where: no\n", r"line 1: no is text for some readers of YAML and not for others; for text, write 'no'"),
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-3", 0.001), ("1.0e-3", 0.001), ("1E5", 100000.0), ("-.5", -0.5), ("0", 0), ("+7", 7), ("-12", -12)),
        *(("true", True), ("False", False), ("null", None), ("'no'", "no"), ('"010"', "010"), ("1.2.3", "1.2.3")),
        *(("builtin:minilm", "builtin:minilm"), ("[a, 1, {b: 2.5}]", ["a", 1, {"b": 2.5}])),
    ],
)
def test_a_value_means_what_yaml_12_says(text, value):
    (found,) = parse_overrides([f"x={text}"]).values()
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    ["1:30", "190:20:30", "010", "08", "0x1F", "0o17", "0b11", "1_000", "2020-01-01", "2001-12-14 21:59:43", "yes"]
    + ["!!int 010", "!!int 1:30", "!!float 1:30", "!!bool yes", "!!timestamp 2020-01-01", "!!binary aGk=", "!!set {a}"]
    + ["!!str no", "! 1", "!own a", "[1, !!int 010]", "{!!str a: 1}", "1e400", "-1.0e999", "[1e400]"]
    + ["No", "ON", "off", "<<", "[1, no]", "{no: 1}", "9" * 5000, "[" * 3000, "!!python/object:os.system x", "a: b: c"],
)
def test_a_value_of_two_meanings_or_none_is_refused(text):
    with pytest.raises(ProjectError, match=r"^--param x=.* is not readable YAML") as raised:
        parse_overrides([f"x={text}"])
    assert "\n" not in str(raised.value)


TYPED = """runs: int = 1
rate: float = 0.1
name: str = ""
flag: bool = False
neurons: list = []
targets: dict = {}
fraction: "float or str" = "auto"
"""


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        *(
            (f"runs={value}", "runs of 01_typed must be int, not ")
            for value in ("abc", "[1]", "true", "1.5", "", "1e3")
        ),
        *((f"rate={value}", "rate of 01_typed must be float, not ") for value in ("high", "true", "[0.1]")),
        *((f"name={value}", "name of 01_typed must be str, not ") for value in ("5", "[a]", "false")),
        *((f"flag={value}", "flag of 01_typed must be bool, not ") for value in ("1", "'true'")),
        ("neurons=300", "neurons of 01_typed must be list, not 300"),
        ("targets=[a]", "targets of 01_typed must be dict, not ['a']"),
        ("fraction=[1]", "fraction of 01_typed must be float or str, not [1]"),
    ],
)
def test_a_parameter_has_the_type_that_its_notebook_declares(project, pair, message):
    project.write("01_typed", parameters=TYPED, yaml="")
    with pytest.raises(ProjectError) as raised:
        plan(project.root, "mini", overrides=parse_overrides([pair]))
    assert str(raised.value).startswith(f"--param: {message}")
    key, _, value = pair.partition("=")
    (project / "params/mini/01_typed.yaml").write_text(f"{key}: {value}\n")
    with pytest.raises(ProjectError) as raised:
        plan(project.root, "mini")
    assert str(raised.value).startswith(f"params/mini/01_typed.yaml: {message}")


@pytest.mark.parametrize(
    ("pair", "stray"),
    [
        *((f"neurons=[100, {value}]", value) for value in ("'a'", "1.5", "[1]")),
        ("neurons=[100, true]", "True"),
        ("rates=[high]", "'high'"),
        ("rates=[null]", "None"),
        ("targets={scitail: 1}", "1"),
        ("targets={1: test}", "1"),
        ("unions=[[qqp, 1]]", "1"),
        ("unions=[qqp]", "'qqp'"),
        ("budgets={100: [a]}", "'a'"),
        ("budgets={100: 5}", "5"),
    ],
)
def test_what_a_list_or_mapping_holds_is_like_what_the_notebooks_own_does(project, pair, stray):
    own = """neurons: list = [1, 2]
rates: list = [0.1]
targets: dict = {"qqp": "dev"}
unions: list = [["qqp"], ["mnli", "rte"]]
budgets: dict = {200: [1]}
"""
    project.write("01_held", parameters=own, yaml="")
    key = pair.partition("=")[0]
    with pytest.raises(ProjectError) as raised:
        plan(project.root, "mini", overrides=parse_overrides([pair]))
    message = str(raised.value)
    said = f"--param: {key} of 01_held: {stray} is of another kind than what the notebook itself has, "
    assert message.startswith(said)
    fitting = ["neurons=[]", "rates=[1, 0.5]", "targets={a: b}", "unions=[[a], [b, c]]", "budgets={}"]
    (job,) = plan(project.root, "mini", overrides=parse_overrides(fitting))
    assert job.parameters["rates"] == [1, 0.5]


@pytest.mark.parametrize("pair", ["runs=3", "rate=1", "rate=1e-3", "fraction=0.5", "fraction=auto", "neurons=[1]"])
def test_a_fitting_value_is_taken(project, pair):
    project.write("01_typed", parameters=TYPED, yaml="")
    (job,) = plan(project.root, "mini", overrides=parse_overrides([pair]))
    assert job.parameters == parse_overrides([pair]) and job.changed


def test_only_another_value_makes_files_of_its_own(project):
    project.write("01_typed", parameters=TYPED + 'scheduler: str = ""\n', yaml="runs: 2\n")

    def folder(*pairs):
        (job,) = plan(project.root, "mini", overrides=parse_overrides(pairs))
        return job.folder.name

    assert folder() == folder("runs=2") == folder("scheduler=processes") == "mini"
    assert folder("runs=3") == folder("runs=2", "rate=1") == "mini+"
