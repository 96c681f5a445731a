"""Running tiny real notebooks in a project of their own: outputs, receipts, failures."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from tsns_workbook import run
from tsns_workbook.cli import main

RECORD = """from IPython.display import display
tables = {"t": [{"accuracy": 0.1 * runs}]}
record = {"notebook": "01_good", "data": "generated", "claims": [], "tables": tables}
display({"application/vnd.tsns.result+json": record}, raw=True)"""


def spawn(*words, **environment):
    command = [sys.executable, "-m", "tsns_workbook.cli", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True, **pipes)


def wait_for(path):
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"{path.name} did not appear"
        time.sleep(0.05)


# what a run shows and leaves behind


def test_a_log_has_no_carriage_returns_and_a_notebook_no_progress(project, capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    bars = "from tsns_lib.executors import announce, bar\nfor _ in bar(range(3), show=True): announce('work', 60, 1e6)"
    project.write("01_good", bars)
    assert main(["run"]) == 0
    assert project.text("01_good") == ""
    said = capsys.readouterr().err
    assert "\r" not in said and said.count("work: about 60 s, 1.0 MB on disk\n") == 3


def test_jupyterlab_shows_one_widget_for_bars_inside_one_another(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    code = "from tsns_lib.executors import bar\nfor name in bar('ab', desc='sources', show=True):\n"
    code += "    assert list(bar(range(3), desc=name, show=True)) == [0, 1, 2]"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook).execute()
    [output] = notebook.cells[0].outputs
    assert output.data["text/plain"].startswith("sources:   0%") and run._WIDGET_VIEW in output.data


def test_a_state_of_a_bar_is_a_line_a_minute(capsys, monkeypatch):
    texts = ["\rsources:  10%", "\r          \r\rforests: about 30 s\n\rsources:  20%  \r"]
    for seconds in (60, 0):
        monkeypatch.setattr(run, "LOG_SECONDS", seconds)
        log = run._Log()
        for text in texts:
            log.write(text)
    lines = ["forests: about 30 s", "sources:  10%", "forests: about 30 s", "sources:  20%"]
    assert capsys.readouterr().err.splitlines() == lines


def test_a_run_writes_output_results_and_a_summary_and_is_then_skipped(project, capsys):
    project.write("01_good", "print('runs', runs)", RECORD)
    assert main(["run"]) == 0
    assert project.text("01_good") == "runs 2\n"
    results = json.loads((project / "outputs/mini/01_good.results.json").read_text())
    assert results["tables"] == {"t": [{"accuracy": 0.2}]}
    assert results["seconds"] > 0
    assert set(results["versions"]) == {
        *("python", "torch", "transformers", "tokenizers", "accelerate", "scikit-learn", "scipy", "numba", "llvmlite"),
        *("numpy", "pandas"),
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
        return re.split("  +", capsys.readouterr().out.splitlines()[-1].strip())[1:]

    output = os.path.relpath(project / "outputs/mini/01_good.ipynb")
    project.write("01_good", "print(runs)", RECORD)
    assert status() == ["not run", output]
    assert main(["run"]) == 0
    assert project.text("01_good") == "2\n"
    assert status() == ["up to date", output]
    (project / "params/mini/01_good.yaml").write_text("runs: 7\n")
    assert status() == ["out of date", output, "parameter runs: 2 -> 7"]
    (project / "params/mini/01_good.yaml").write_text("runs: 2\n")
    results = project / "outputs/mini/01_good.results.json"
    results.write_text(results.read_text().replace("0.2", "0.9"))
    assert status() == ["out of date", output, "01_good.results.json changed"]
    project.write("01_good", "print(runs + 1)")
    assert status()[2] == "the notebook's cells changed; 01_good.results.json changed"
    assert main(["run"]) == 0
    assert project.text("01_good") == "3\n"
    assert not results.exists()  # the new notebook records nothing


def test_the_output_holds_no_path_time_progress_bar_or_widget_state(project):
    project.write(
        "01_good",
        "import sys, os, warnings, tqdm\nfor _ in tqdm.tqdm(range(3)): print('step')\nwarnings.warn('mind')",
        "print(os.getcwd(), sys.executable, os.environ['TSNS_CACHE'], where)",
        "import ipywidgets\nipywidgets.IntSlider()",
        yaml=f"where: {Path.home()}/model\n",
    )
    assert main(["run"]) == 0
    text = (project / "outputs/mini/01_good.ipynb").read_text()
    for place in (str(project.root), sys.prefix, os.environ["TSNS_CACHE"], f"{Path.home()}/"):
        assert place not in text
    notebook = nbformat.reads(text, as_version=4)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert [set(cell.metadata) for cell in notebook.cells] == [{"tags"}, {"jupyter", "tags"}, set(), set(), set()]
    assert [cell.id for cell in notebook.cells][:2] == ["parameters", "injected-parameters"]
    assert [set(output.data) for output in notebook.cells[4].outputs] == [{"text/plain"}]
    streams = {output.name: output.text for output in notebook.cells[2].outputs}
    assert streams["stdout"] == "step\nstep\nstep\n"
    assert streams["stderr"] == "<tmp>/ipykernel.py:3: UserWarning: mind\n  warnings.warn('mind')\n"
    assert project.text("01_good").endswith(" ~/model\n")


def test_the_kernel_is_this_python_in_the_notebooks_folder(project, monkeypatch, tmp_path):
    spec = tmp_path / "jupyter/kernels/python3/kernel.json"  # as a user-wide installation would leave it
    spec.parent.mkdir(parents=True)
    spec.write_text(
        json.dumps({"argv": ["/nonexistent", "{connection_file}"], "display_name": "x", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    project.write(
        "01_good",
        f"import sys, os\nprint(sys.executable == {sys.executable!r}, os.path.basename(os.getcwd()))",
    )
    assert main(["run"]) == 0
    assert project.text("01_good") == "True notebooks\n"


def test_real_data_counts_towards_the_receipt(project, monkeypatch, capsys):
    (project / "corpora").mkdir()
    (project / "corpora/a.txt").write_text("one")
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("TSNS_DATA", "corpora")
    project.write(
        "01_good",
        "import os\nprint(os.listdir(os.environ['TSNS_DATA']))",
        RECORD.replace("generated", "real"),
    )
    assert main(["run"]) == 0
    assert project.text("01_good") == "['a.txt']\n"
    (project / "corpora/a.txt").write_text("three")
    capsys.readouterr()
    main(["status"])
    assert "folder TSNS_DATA changed" in capsys.readouterr().out


def test_a_run_with_other_parameters_leaves_the_profiles_outputs_alone(project, capsys):
    project.write("00_all", SUMMARY)
    project.write("01_good", "print(runs, 1 / (runs - 3))", RECORD)
    assert main(["run"]) == 0
    good = (project / "outputs/mini/01_good.ipynb").read_bytes()
    assert main(["run", "01", "--param", "runs=7"]) == 0
    out = capsys.readouterr().out
    assert "outputs/mini+/01_good.ipynb" in out and "outputs/mini is as it was" in out
    assert project.text("01_good", "mini+") == "7 0.25\n"
    assert main(["run", "01", "--param", "runs=3"]) == 1
    assert (project / "outputs/mini+/01_good.failed.ipynb").exists()
    assert (project / "outputs/mini/01_good.ipynb").read_bytes() == good
    assert main(["run", "--param", "runs=2"]) == 0  # as the profile says
    assert "mini+" not in capsys.readouterr().out.splitlines()[-2]
    assert main(["status"]) == 0
    states = [re.split("  +", line)[1] for line in capsys.readouterr().out.splitlines()[-2:]]
    assert states == ["up to date", "up to date"]


# failures


def test_a_failing_cell_is_shown_and_the_others_still_run(project, capsys):
    project.write("01_bad", "x = 1", "raise RuntimeError('no such luck')", "print('never')")
    project.write("02_good", "print(runs)")
    assert main(["run"]) == 1
    out = capsys.readouterr().out
    assert "01_bad: failed" in out and "cell 4 of 5" in out
    assert "  | raise RuntimeError('no such luck')" in out and "  RuntimeError: no such luck" in out
    assert project.text("02_good") == "2\n"
    assert not (project / "outputs/mini/01_bad.ipynb").exists()
    assert (project / "outputs/mini/01_bad.failed.ipynb").exists()
    project.write("01_bad", "x = 1")
    assert main(["run"]) == 0
    assert not (project / "outputs/mini/01_bad.failed.ipynb").exists()


def test_a_killed_kernel_is_a_failure(project, capsys):
    project.write("01_killed", "x = 1", "import os\nos.kill(os.getpid(), 9)", "print('never')")
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
    project.write("01_bad", cell)
    assert main(["run"]) == 1
    assert message in capsys.readouterr().out
    assert not (project / "outputs/mini/01_bad.ipynb").exists()


def test_a_killed_run_goes_on_where_it_stopped(project):
    project.write("01_good", "print(runs)")
    project.write(
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


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_notebooks_end_with_a_command_that_is_killed(project, jobs, how):
    names = ["01_slow", "02_slow", "03_slow"]
    for name in names:
        say = (
            f"import os, pathlib, time\npathlib.Path('part').write_text(str(os.getpid()))\nos.rename('part', '{name}')"
        )
        project.write(name, say.replace("part", f"{name}.part"), "time.sleep(60)")
    runner = spawn("run", "--jobs", jobs)
    for name in names[: int(jobs)]:
        wait_for(project / "notebooks" / name)
    kernels = [int((project / "notebooks" / name).read_text()) for name in names[: int(jobs)]]
    os.kill(runner.pid, how)
    runner.communicate()
    until = time.monotonic() + 20
    while any(map(is_alive, kernels)):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert not (project / "notebooks/03_slow").exists()


def is_alive(pid):
    """Whether a process is there; one that has ended and that nobody has asked for its status is not."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


IMPATIENT = """import asyncio, os, signal, sys, threading, time
from pathlib import Path
from nbclient import NotebookClient
from nbclient.client import DeadKernelError
from tsns_workbook.run import execute_here

ending = threading.Event()

async def poll(self):  # nbclient asks every second whether the kernel is alive; here, in the end, without a rest
    try:
        while True:
            await asyncio.sleep(0.0005 if ending.is_set() else 0.1)
            await self._async_check_alive()
    except DeadKernelError:
        self.task_poll_for_reply.cancel()

def interrupt():
    while not Path("started").exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
    ending.set()

NotebookClient._async_poll_kernel_alive = poll
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=interrupt).start()
try:
    execute_here(Path("slow.ipynb"), Path("part.ipynb"), {})
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_does_not_report_the_kernels_end_as_its_death(tmp_path):
    cell = nbformat.v4.new_code_cell("open('started', 'w').close()\n__import__('time').sleep(60)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "slow.ipynb")
    process = subprocess.run(
        [sys.executable, "-c", IMPATIENT], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "interrupted\n", "")


def test_two_processes_with_the_same_notebook_take_turns(project):
    start = "import time\nfrom pathlib import Path\nPath('started').touch()"
    project.write("01_good", start, "while not Path('go').exists(): time.sleep(0.05)")
    first = spawn("run")
    wait_for(project / "notebooks/started")
    second = spawn("run")
    assert second.stderr.readline() == "01_good: another process is running it; waiting\n"
    (project / "notebooks/go").touch()
    assert "01_good   ran" in first.communicate()[0]
    assert "01_good   up to date" in second.communicate()[0]


def test_jobs_run_side_by_side(project, capfd):
    for name in ("01_one", "02_two"):
        project.write(
            name,
            f"import pathlib, time\npathlib.Path('{name}').touch()\ntime.sleep(0)",
            f"print('{name}')",
        )
    project.write("03_bad", "1 / 0")
    assert main(["run", "--jobs", "2"]) == 1
    assert project.text("01_one") == "01_one\n" and project.text("02_two") == "02_two\n"
    out = capfd.readouterr().out
    assert "ZeroDivisionError: division by zero" in out
    assert [line.split()[:2] for line in out.splitlines()[-4:-1]] == [
        ["01_one", "ran"],
        ["02_two", "ran"],
        ["03_bad", "failed"],
    ]


# the notebook that reads the results of the others

SUMMARY = """import json, pathlib
folder = pathlib.Path('..') / 'outputs' / 'mini'
print([json.loads(p.read_text())['tables']['t'][0]['accuracy'] for p in sorted(folder.glob('*.results.json'))])"""


def test_a_notebook_that_reads_results_runs_last_and_again_when_one_changed(project, capsys):
    project.write("00_all", SUMMARY, yaml="")
    project.write("01_good", RECORD)
    project.write("02_good", RECORD)

    def summary():
        assert main(["run"]) == 0
        return [line.split()[:2] for line in capsys.readouterr().out.splitlines()[-4:-1]]

    assert summary() == [["00_all", "ran"], ["01_good", "ran"], ["02_good", "ran"]]
    assert project.text("00_all") == "[0.2, 0.2]\n"
    (project / "outputs/mini/.receipts/01_good.json").unlink()  # it runs again, to the same figures
    assert summary() == [["00_all", "up"], ["01_good", "ran"], ["02_good", "up"]]
    (project / "params/mini/01_good.yaml").write_text("runs: 4\n")
    assert summary() == [["00_all", "ran"], ["01_good", "ran"], ["02_good", "up"]]
    assert project.text("00_all") == "[0.4, 0.2]\n"


def test_a_notebook_that_reads_results_runs_last_among_jobs_too(project):
    project.write("00_all", SUMMARY)
    project.write("01_good", "import time\ntime.sleep(1)", RECORD)
    assert main(["run", "--jobs", "2"]) == 0
    assert project.text("00_all") == "[0.2]\n"


def test_an_unreadable_results_file_is_left_to_the_notebook_that_reads_it(project):
    project.write("00_all", "print('here')")
    (project / "outputs/mini").mkdir(parents=True)
    (project / "outputs/mini/01_good.results.json").write_text("no JSON")
    assert main(["run"]) == 0 and main(["run"]) == 0
    assert project.text("00_all") == "here\n"
