"""The command line on tiny real notebooks in a project of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from tsns_workbook.cli import main
from tsns_workbook.project import ProjectError, parse_overrides, plan, project_root

RECORD = """from IPython.display import display
tables = {"t": [{"accuracy": 0.1 * runs}]}
record = {"notebook": "01_good", "data": "generated", "claims": [], "tables": tables}
display({"application/vnd.tsns.result+json": record}, raw=True)"""


def write_notebook(root, name, *cells, parameters="runs = 1  # how often\nwhere = ''", yaml="runs: 2\n"):
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}, id="parameters")
    rest = [nbformat.v4.new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(cells)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[first, *rest], metadata=kernel), root / f"notebooks/{name}.ipynb")
    if yaml is not None:
        (root / f"params/mini/{name}.yaml").write_text(yaml)


@pytest.fixture
def project(tmp_path, monkeypatch):
    for folder in ("notebooks", "params/mini", "params/paper"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setenv("TSNS_ROOT", str(tmp_path))
    monkeypatch.delenv("TSNS_DATA", raising=False)
    return tmp_path


def output_text(root, name, profile="mini"):
    notebook = nbformat.read(root / f"outputs/{profile}/{name}.ipynb", as_version=4)
    return "".join(o.get("text", "") for c in notebook.cells if c.cell_type == "code" for o in c.outputs)


def spawn(*words, **environment):
    command = [sys.executable, "-m", "tsns_workbook.cli", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True, **pipes)


def wait_for(path):
    until = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < until, f"{path.name} did not appear"
        time.sleep(0.05)


# what a run leaves behind


def test_a_run_writes_output_results_and_a_summary_and_is_then_skipped(project, capsys):
    write_notebook(project, "01_good", "print('runs', runs)", RECORD)
    assert main(["run"]) == 0
    assert output_text(project, "01_good") == "runs 2\n"
    results = json.loads((project / "outputs/mini/01_good.results.json").read_text())
    assert results["tables"] == {"t": [{"accuracy": 0.2}]}
    assert results["seconds"] > 0
    assert set(results["versions"]) == {
        "python", "torch", "transformers", "scikit-learn", "numba", "numpy", "pandas"
    }  # fmt: skip
    written = (project / "outputs/mini/01_good.ipynb").stat().st_mtime_ns
    assert "make lab" in capsys.readouterr().out

    assert main(["run"]) == 0
    assert "01_good   up to date" in capsys.readouterr().out
    assert (project / "outputs/mini/01_good.ipynb").stat().st_mtime_ns == written
    assert sorted(p.name for p in (project / "outputs/mini").iterdir()) == [
        ".receipts",
        "01_good.ipynb",
        "01_good.results.json",
    ]


def test_a_changed_parameter_source_or_output_runs_again(project, capsys):
    def status():
        capsys.readouterr()
        assert main(["status"]) == 0
        return capsys.readouterr().out.splitlines()[-1].split("  ")[1].strip()

    write_notebook(project, "01_good", "print(runs)", RECORD)
    assert status() == "not run"
    assert main(["run", "01", "--param", "runs=7"]) == 0
    assert output_text(project, "01_good") == "7\n"
    assert status() == "out of date"  # the profile says 2
    assert main(["run"]) == 0
    assert output_text(project, "01_good") == "2\n"
    assert status() == "up to date"
    results = project / "outputs/mini/01_good.results.json"
    results.write_text(results.read_text().replace("0.2", "0.9"))
    assert status() == "out of date"
    write_notebook(project, "01_good", "print(runs + 1)")
    assert main(["run"]) == 0
    assert output_text(project, "01_good") == "3\n"
    assert not results.exists()  # the new notebook records nothing


def test_the_output_holds_no_path_time_progress_bar_or_widget_state(project):
    write_notebook(
        project,
        "01_good",
        "import sys, os, warnings, tqdm\nfor _ in tqdm.tqdm(range(3)): print('step')\nwarnings.warn('mind')",
        "print(os.getcwd(), sys.executable, os.environ['TSNS_CACHE'], where)",
        "import ipywidgets\nipywidgets.IntSlider()",
        yaml=f"where: {Path.home()}/model\n",
    )
    assert main(["run"]) == 0
    text = (project / "outputs/mini/01_good.ipynb").read_text()
    for place in (str(project), sys.prefix, os.environ["TSNS_CACHE"], f"{Path.home()}/"):
        assert place not in text
    notebook = nbformat.reads(text, as_version=4)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert [set(cell.metadata) for cell in notebook.cells] == [{"tags"}, {"tags"}, set(), set(), set()]
    assert [cell.id for cell in notebook.cells][:2] == ["parameters", "injected-parameters"]
    assert [set(output.data) for output in notebook.cells[4].outputs] == [{"text/plain"}]
    streams = {output.name: output.text for output in notebook.cells[2].outputs}
    assert streams["stdout"] == "step\nstep\nstep\n"
    assert streams["stderr"] == "<tmp>/ipykernel.py:3: UserWarning: mind\n  warnings.warn('mind')\n"
    assert output_text(project, "01_good").endswith(" ~/model\n")


def test_the_kernel_is_this_python_in_the_notebooks_folder(project, monkeypatch, tmp_path):
    spec = tmp_path / "jupyter/kernels/python3/kernel.json"  # as a user-wide installation would leave it
    spec.parent.mkdir(parents=True)
    spec.write_text(
        json.dumps({"argv": ["/nonexistent", "{connection_file}"], "display_name": "x", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    write_notebook(
        project,
        "01_good",
        f"import sys, os\nprint(sys.executable == {sys.executable!r}, os.path.basename(os.getcwd()))",
    )
    assert main(["run"]) == 0
    assert output_text(project, "01_good") == "True notebooks\n"


def test_real_data_counts_towards_the_receipt(project, monkeypatch, capsys):
    (project / "corpora").mkdir()
    (project / "corpora/a.txt").write_text("one")
    monkeypatch.chdir(project)
    monkeypatch.setenv("TSNS_DATA", "corpora")
    write_notebook(
        project,
        "01_good",
        "import os\nprint(os.listdir(os.environ['TSNS_DATA']))",
        RECORD.replace("generated", "real"),
    )
    assert main(["run"]) == 0
    assert output_text(project, "01_good") == "['a.txt']\n"
    (project / "corpora/a.txt").write_text("three")
    main(["status"])
    assert "out of date" in capsys.readouterr().out


# failures


def test_a_failing_cell_is_shown_and_the_others_still_run(project, capsys):
    write_notebook(project, "01_bad", "x = 1", "raise RuntimeError('no such luck')", "print('never')")
    write_notebook(project, "02_good", "print(runs)")
    assert main(["run"]) == 1
    out = capsys.readouterr().out
    assert "01_bad: failed" in out and "cell 4 of 5" in out
    assert "  | raise RuntimeError('no such luck')" in out and "  RuntimeError: no such luck" in out
    assert output_text(project, "02_good") == "2\n"
    assert not (project / "outputs/mini/01_bad.ipynb").exists()
    assert (project / "outputs/mini/01_bad.failed.ipynb").exists()
    write_notebook(project, "01_bad", "x = 1")
    assert main(["run"]) == 0
    assert not (project / "outputs/mini/01_bad.failed.ipynb").exists()


def test_a_killed_kernel_is_a_failure(project, capsys):
    write_notebook(project, "01_killed", "x = 1", "import os\nos.kill(os.getpid(), 9)", "print('never')")
    assert main(["run"]) == 1
    out = capsys.readouterr().out
    assert "cell 4 of 5" in out and "Kernel died" in out
    assert [p.name for p in (project / "outputs/mini").glob("*.ipynb")] == ["01_killed.failed.ipynb"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (f"{RECORD}\n{RECORD}", "displays 2 outputs"),
        (RECORD.replace("generated", "guessed"), "\"data\" is 'guessed'"),
        ("import sys\nsys.exit(0)", "not every cell ran"),
    ],
)
def test_what_papermill_accepts_but_we_do_not(project, capsys, cell, message):
    write_notebook(project, "01_bad", cell)
    assert main(["run"]) == 1
    assert message in capsys.readouterr().out
    assert not (project / "outputs/mini/01_bad.ipynb").exists()


def test_a_killed_run_goes_on_where_it_stopped(project):
    write_notebook(project, "01_good", "print(runs)")
    write_notebook(
        project,
        "02_slow",
        "import os, pathlib, time",
        "pathlib.Path('started').touch()",
        "time.sleep(float(where))",
    )
    (project / "params/mini/02_slow.yaml").write_text("where: '60'\n")
    runner = spawn("run")
    wait_for(project / "notebooks/started")
    os.killpg(runner.pid, signal.SIGKILL)
    runner.communicate()
    assert sorted(p.name for p in (project / "outputs/mini").glob("*.ipynb")) == [
        ".02_slow.part.ipynb",
        "01_good.ipynb",
    ]
    (project / "params/mini/02_slow.yaml").write_text("where: '0'\n")
    second = spawn("run")
    out, _ = second.communicate()
    assert second.returncode == 0
    assert "01_good   up to date" in out and "02_slow   ran" in out
    assert not list((project / "outputs/mini").glob(".*.part.ipynb"))


def test_two_processes_with_the_same_notebook_take_turns(project):
    start = "import time\nfrom pathlib import Path\nPath('started').touch()"
    write_notebook(project, "01_good", start, "while not Path('go').exists(): time.sleep(0.05)")
    first = spawn("run")
    wait_for(project / "notebooks/started")
    second = spawn("run")
    assert second.stderr.readline() == "01_good: another process is running it; waiting\n"
    (project / "notebooks/go").touch()
    assert "01_good   ran" in first.communicate()[0]
    assert "01_good   up to date" in second.communicate()[0]


def test_jobs_run_side_by_side(project, capfd):
    for name in ("01_one", "02_two"):
        write_notebook(
            project,
            name,
            f"import pathlib, time\npathlib.Path('{name}').touch()\ntime.sleep(0)",
            f"print('{name}')",
        )
    write_notebook(project, "03_bad", "1 / 0")
    assert main(["run", "--jobs", "2"]) == 1
    assert output_text(project, "01_one") == "01_one\n" and output_text(project, "02_two") == "02_two\n"
    out = capfd.readouterr().out
    assert "ZeroDivisionError: division by zero" in out
    assert [line.split()[:2] for line in out.splitlines()[-4:-1]] == [
        ["01_one", "ran"],
        ["02_two", "ran"],
        ["03_bad", "failed"],
    ]


# the notebook that gathers the figures of the others

GATHER = """import json, pathlib
folder = pathlib.Path('..') / 'outputs' / 'mini'
print([json.loads(p.read_text())['tables']['t'][0]['accuracy'] for p in sorted(folder.glob('*.results.json'))])"""


def test_the_notebook_that_gathers_runs_last_and_again_when_a_figure_changed(project, capsys):
    write_notebook(project, "00_all", GATHER, yaml="")
    write_notebook(project, "01_good", RECORD)
    write_notebook(project, "02_good", RECORD)

    def summary():
        assert main(["run"]) == 0
        return [line.split()[:2] for line in capsys.readouterr().out.splitlines()[-4:-1]]

    assert summary() == [["00_all", "ran"], ["01_good", "ran"], ["02_good", "ran"]]
    assert output_text(project, "00_all") == "[0.2, 0.2]\n"
    (project / "outputs/mini/.receipts/01_good.json").unlink()  # it runs again, to the same figures
    assert summary() == [["00_all", "up"], ["01_good", "ran"], ["02_good", "up"]]
    (project / "params/mini/01_good.yaml").write_text("runs: 4\n")
    assert summary() == [["00_all", "ran"], ["01_good", "ran"], ["02_good", "up"]]
    assert output_text(project, "00_all") == "[0.4, 0.2]\n"


def test_the_notebook_that_gathers_runs_last_among_jobs_too(project):
    write_notebook(project, "00_all", GATHER)
    write_notebook(project, "01_good", "import time\ntime.sleep(1)", RECORD)
    assert main(["run", "--jobs", "2"]) == 0
    assert output_text(project, "00_all") == "[0.2]\n"


def test_an_unreadable_file_of_figures_is_left_to_the_notebook_that_gathers(project):
    write_notebook(project, "00_all", "print('here')")
    (project / "outputs/mini").mkdir(parents=True)
    (project / "outputs/mini/01_good.results.json").write_text("no JSON")
    assert main(["run"]) == 0 and main(["run"]) == 0
    assert output_text(project, "00_all") == "here\n"


# one clear line for a wrong profile, name or parameter


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
        (["run", "--jobs", "0"], "--jobs 0: at least 1"),
        (["cache", "--clear", "../x"], "no kind '../x'"),
    ],
)
def test_wrong_words(project, capsys, words, message):
    write_notebook(project, "01_good")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("tsns: ") and error.count("\n") == 1


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
    write_notebook(project, "01_good", yaml=text)
    with pytest.raises(ProjectError, match=message):
        plan(project, "mini")


def test_a_parameter_file_without_a_notebook(project):
    (project / "params/mini/09_gone.yaml").write_text("")
    with pytest.raises(ProjectError, match="params/mini/09_gone.yaml has no notebook"):
        plan(project, "mini")


def test_a_notebook_without_a_parameter_file_is_not_part_of_the_profile(project):
    write_notebook(project, "01_good", yaml="")
    write_notebook(project, "02_other", yaml=None)
    assert [(job.name, job.parameters) for job in plan(project, "mini")] == [("01_good", {})]


def test_overrides_are_read_as_yaml():
    assert parse_overrides(["a=1", "b=[x, 2]", "c=0.5", "d="]) == {"a": 1, "b": ["x", 2], "c": 0.5, "d": None}


def test_the_root_is_found_from_below(project, monkeypatch):
    monkeypatch.delenv("TSNS_ROOT")
    monkeypatch.chdir(project / "params/mini")
    assert project_root() == project


def test_a_wrong_root_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TSNS_ROOT", str(tmp_path))
    with pytest.raises(ProjectError, match="no project found: TSNS_ROOT="):
        project_root()


# the cache


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
