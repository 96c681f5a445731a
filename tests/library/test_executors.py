"""The same bits here, in a pool and on a real Dask cluster; and what happens when its workers die."""

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pytest
from tsns_workbook.cli import main

from tsns_lib import executors, extract, load_encoder, resampled_importance
from tsns_lib.executors import check_scheduler, run_units


@contextmanager
def dask_cluster(n_workers):
    """Single-thread worker processes over loopback."""
    distributed = pytest.importorskip("distributed", reason="Dask: pip install 'tsns_lib[distributed]'")
    options = {"processes": True, "dashboard_address": ":0", "host": "127.0.0.1"}
    with distributed.LocalCluster(n_workers=n_workers, threads_per_worker=1, **options) as running:
        yield running.scheduler_address


@contextmanager
def dask_command(folder, *words, **environment):
    """`dask scheduler` or `dask worker`, as a user starts it."""
    pytest.importorskip("distributed", reason="Dask: pip install 'tsns_lib[distributed]'")
    command = [sys.executable, "-m", "dask", *words]
    started = subprocess.Popen(command, cwd=folder, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(20)


@pytest.fixture(scope="module")
def cluster():
    with dask_cluster(2) as address:
        yield address


@pytest.fixture(params=["here", "processes:2", "cluster"])
def scheduler(request):
    if request.param == "here":
        return None
    return request.getfixturevalue("cluster") if request.param == "cluster" else request.param


def address_in(scheduler_file):
    until = time.monotonic() + 20
    while not scheduler_file.exists():
        assert time.monotonic() < until, "the scheduler did not start"
        time.sleep(0.1)
    return json.loads(scheduler_file.read_text())["address"]


def cube(unit, offset):
    return unit**3 + offset


def pid(unit):
    return os.getpid()


def refuse_three(unit):
    if unit == 3:
        raise ValueError("three: not this one")
    return unit


def die_once(unit, folder):
    """The first run of unit 2 kills its own worker."""
    mark = Path(folder) / "died"
    if unit == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return unit


def die_always(unit):
    os.kill(os.getpid(), signal.SIGKILL)


def test_every_unit_comes_once(scheduler):
    assert dict(run_units(cube, range(5), shared=[1], scheduler=scheduler)) == {0: 1, 1: 2, 2: 9, 3: 28, 4: 65}


def test_no_units_are_no_work(scheduler):
    assert list(run_units(cube, [], shared=[1], scheduler=scheduler)) == []


def test_units_run_where_they_should(scheduler):
    pids = {number for _, number in run_units(pid, range(4), scheduler=scheduler)}
    assert (os.getpid() in pids) == (scheduler is None)


def test_an_error_comes_through_as_it_was(scheduler):
    with pytest.raises(ValueError, match="three: not this one"):
        list(run_units(refuse_three, range(5), scheduler=scheduler))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    return (rng.normal(size=(200, 1_000)) + y[:, None] * (np.arange(1_000) == 4)).astype(np.float32), y


@pytest.mark.parametrize("tol", [None, 0.2])
def test_forests_have_the_same_bits_everywhere(data, scheduler, tol, tmp_path):
    settings = {"n_resamples": 9, "n_trees": 20, "tol": tol, "neurons": [20]}  # three looks with tol
    here = resampled_importance(*data, **settings, store=tmp_path / "here")
    there = resampled_importance(*data, **settings, store=tmp_path / "there", scheduler=scheduler)
    assert here.tobytes() == there.tobytes()
    assert len(here) == 9


def test_activations_have_the_same_bits_everywhere(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr("tsns_lib.extraction.SHARD_ROWS", 4)
    texts = [f"made-up line {'word ' * (n % 5)}number {n}" for n in range(10)]
    settings = {"max_length": 32, "progress": False}
    here = extract(texts, load_encoder(), store=tmp_path / "here", **settings)
    there = extract(texts, load_encoder(), store=tmp_path / "there", scheduler=scheduler, **settings)
    assert here.tobytes() == there.tobytes()


def test_a_killed_worker_costs_only_time(cluster, tmp_path):
    results = dict(run_units(die_once, range(6), shared=[str(tmp_path)], scheduler=cluster))
    assert results == {unit: unit for unit in range(6)}
    assert (tmp_path / "died").exists()


def test_the_only_worker_may_die_with_all_that_the_units_share(tmp_path):
    with dask_cluster(1) as address:
        results = dict(run_units(die_once, range(4), shared=[str(tmp_path)], scheduler=address))
    assert results == {unit: unit for unit in range(4)}


def test_workers_that_always_die_are_one_line():
    with pytest.raises(RuntimeError, match="workers of processes:2 died .* what is finished is kept"):
        list(run_units(die_always, [0], scheduler="processes:2"))


def test_a_scheduler_that_dies_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "REACH_SECONDS", 3)
    where = tmp_path / "scheduler.json"
    place = ["--scheduler-file", str(where)]
    with (
        dask_command(tmp_path, "scheduler", "--host", "127.0.0.1", "--port", "0", *place) as first,
        dask_command(tmp_path, "worker", "--nthreads", "1", *place),
    ):
        results = run_units(time.sleep, [0, 60], scheduler=address_in(where))
        assert next(results) == (0, None)
        first.kill()
        with pytest.raises(RuntimeError, match="what is finished is kept, run it again to go on"):
            next(results)


@contextmanager
def worker_with_another(package, line, folder):
    """A cluster whose only worker has a copy of a package with one more line."""
    source = Path(sys.modules[package].__file__).parent
    shutil.copytree(source, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / package / "__init__.py").open("a") as file:
        file.write(f"{line}\n")
    with dask_cluster(0) as address, dask_command(folder, "worker", address, PYTHONPATH=str(folder)):
        yield address


@pytest.mark.parametrize(
    ("line", "message"), [("# another", "has tsns_lib"), ("raise OSError", "cannot load tsns_lib")]
)
def test_a_worker_with_another_library_is_refused(tmp_path, line, message):
    with (
        worker_with_another("tsns_lib", line, tmp_path) as address,
        pytest.raises(RuntimeError, match=f"{message}.*; install the same on both"),
    ):
        list(run_units(abs, [1], scheduler=address))


def test_a_worker_with_another_package_of_the_function_is_refused(tmp_path):
    with worker_with_another("tsns_workbook", "# another", tmp_path) as address:
        assert list(run_units(abs, [-1], scheduler=address)) == [(-1, 1)]
        with pytest.raises(
            RuntimeError, match=r"has tsns_workbook \w{12}, the caller \w{12}; install the same on both"
        ):
            list(run_units(main, [["--help"]], scheduler=address))


def test_a_worker_without_the_package_of_the_function_is_refused(tmp_path, monkeypatch):
    (tmp_path / "made_up_package.py").write_text("def double(unit):\n    return 2 * unit\n")
    with dask_cluster(1) as address:
        monkeypatch.syspath_prepend(tmp_path)
        double = importlib.import_module("made_up_package").double
        with pytest.raises(RuntimeError, match="a worker on .* lacks made_up_package; install the same on both"):
            list(run_units(double, [1], scheduler=address))


def test_without_dask_the_way_to_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[distributed\]'"):
        list(run_units(abs, [1], scheduler="tcp://127.0.0.1:9"))


def test_neither_dask_nor_joblib_is_loaded_unasked():
    code = (
        "import sys, tsns_lib.executors as e\n"
        "assert dict(e.run_units(abs, [-1])) == {-1: 1}\n"
        "print([name for name in ('dask', 'distributed', 'joblib') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_caller_may_stop_before_the_end(scheduler):
    results = run_units(abs, range(20), scheduler=scheduler)
    next(results)
    results.close()
    assert dict(run_units(abs, [-1], scheduler=scheduler)) == {-1: 1}


def test_an_address_without_a_scheduler_is_one_line(monkeypatch):
    monkeypatch.setattr(executors, "REACH_SECONDS", 1)
    with pytest.raises(ConnectionError, match="no Dask cluster answers at tcp://127.0.0.1:9"):
        list(run_units(cube, [1], shared=[0], scheduler="tcp://127.0.0.1:9"))


def test_tls_without_a_certificate_is_one_line():
    pytest.importorskip("distributed", reason="Dask: pip install 'tsns_lib[distributed]'")
    with pytest.raises(ConnectionError, match="tls://127.0.0.1:9 needs certificates"):
        list(run_units(cube, [1], shared=[0], scheduler="tls://127.0.0.1:9"))


def test_a_cluster_without_workers_is_one_line(monkeypatch):
    monkeypatch.setattr(executors, "REACH_SECONDS", 1)
    with dask_cluster(0) as address, pytest.raises(ConnectionError, match="has no workers"):
        list(run_units(cube, [1], shared=[0], scheduler=address))


@pytest.mark.parametrize("wrong", ["process", "processes:0", "processes:x", "localhost:8786", "", 8786])
def test_what_is_no_scheduler_is_named(wrong):
    with pytest.raises(ValueError, match="scheduler: must be 'processes', 'processes:N' or an address"):
        check_scheduler(wrong)


NOTEBOOK = """import math, os, warnings
from tsns_lib.executors import run_units
print(sorted(run_units(math.factorial, [3, 4, 5], scheduler=scheduler or None)))
print(runs, os.getcwd())
warnings.warn("made-up warning of a place")"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    for folder in ("notebooks", "params/mini"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setenv("TSNS_ROOT", str(tmp_path))
    parameters = nbformat.v4.new_code_cell(
        "runs = 1\nscheduler = ''", metadata={"tags": ["parameters"]}, id="parameters"
    )
    cells = [parameters, nbformat.v4.new_code_cell(NOTEBOOK, id="units")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, tmp_path / "notebooks/01_units.ipynb")
    (tmp_path / "params/mini/01_units.yaml").write_text("runs: 2\n")
    return tmp_path


def test_a_notebook_and_its_units_share_one_thread_of_one_worker(project, capsys):
    output = project / "outputs/mini/01_units.ipynb"
    assert main(["run"]) == 0
    here = output.read_bytes()
    with dask_cluster(1) as address:
        assert main(["run", "--force", "--scheduler", address]) == 0
        assert output.read_bytes() == here  # no address and no folder of the worker is left in it
        capsys.readouterr()
        assert main(["run", "--scheduler", address]) == 0
    assert "up to date" in capsys.readouterr().out  # none in the receipt
    assert b"[(3, 6), (4, 24), (5, 120)]" in here and b"2 <project>/notebooks" in here


def test_a_notebook_that_fails_on_the_cluster_fails_as_it_does_here(project, cluster, capsys):
    source = project / "notebooks/01_units.ipynb"
    source.write_text(source.read_text().replace("print(runs, os.getcwd())", "raise OSError('made-up trouble')"))
    for words in ([], ["--scheduler", cluster]):
        assert main(["run", *words]) == 1
        assert "made-up trouble" in capsys.readouterr().out
        assert (project / "outputs/mini/01_units.failed.ipynb").exists()
        assert not (project / "outputs/mini/01_units.ipynb").exists()


def test_a_scheduler_may_stand_in_the_parameters(project, capsys):
    (project / "params/mini/01_units.yaml").write_text("runs: 2\nscheduler: processes:2\n")
    assert main(["run"]) == 0
    (project / "params/mini/01_units.yaml").write_text("runs: 2\nscheduler: somewhere\n")
    assert main(["run"]) == 2
    assert "scheduler: must be 'processes'" in capsys.readouterr().err


def test_a_cluster_out_of_reach_is_one_line_of_the_command(project, capsys, monkeypatch):
    monkeypatch.setattr(executors, "REACH_SECONDS", 1)
    assert main(["run", "--scheduler", "tcp://127.0.0.1:9"]) == 2
    assert "tsns: scheduler: no Dask cluster answers at tcp://127.0.0.1:9" in capsys.readouterr().err


def hear_interrupts():
    """A shell that runs the tests in the background has them ignore Ctrl-C, and so would what they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(("where", "n_started"), [("one at a time", 1), ("here", 2), ("cluster", 2)])
def test_an_interrupt_is_one_line_and_starts_no_further_notebook(project, where, n_started, request):
    text = (project / "notebooks/01_units.ipynb").read_text()
    slow = text.replace("print(runs, os.getcwd())", "open(f'{where}/{os.getpid()}', 'x'); __import__('time').sleep(60)")
    for name in ("01_units", "02_units", "03_units", "04_units", "05_units"):
        (project / f"notebooks/{name}.ipynb").write_text(slow.replace("runs = 1", "runs = 1\\nwhere = ''"))
        (project / f"params/mini/{name}.yaml").write_text(f"where: {project}/started\n")
    (project / "started").mkdir()
    words = {"one at a time": lambda: [], "here": lambda: ["--jobs", "2"]}
    words["cluster"] = lambda: ["--scheduler", request.getfixturevalue("cluster")]
    command = [sys.executable, "-m", "tsns_workbook.cli", "run", *words[where]()]
    runner = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=hear_interrupts
    )
    until = time.monotonic() + 90
    while len(list((project / "started").iterdir())) < n_started:
        assert time.monotonic() < until and runner.poll() is None
        time.sleep(0.1)
    os.killpg(runner.pid, signal.SIGINT)
    said = runner.communicate(timeout=90)[1].decode()
    assert (runner.returncode, said) == (130, "tsns: interrupted; run the same command again to continue\n")
    assert len(list((project / "started").iterdir())) == n_started


# progress


def test_a_bar_inside_another_one_stands_in_its_text(monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setenv(executors.RUNNER, "1")
    with executors.bar(total=2, desc="sources", show=True) as outer:
        for _ in executors.bar(range(3), desc="resamples of mine", show=True):
            assert "resamples of mine" in outer.postfix
            executors.announce("forests", 30, 0)
    shown = capsys.readouterr().err
    lines = {line.split(":")[0] for line in re.split("[\r\n]", shown) if line.strip()}
    assert lines == {"sources", "forests"}
    assert shown.endswith("\r")  # the bar is gone


def test_a_log_has_lines_without_carriage_returns(monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    for _ in executors.bar(range(2), desc="sources", show=True):
        executors.announce("forests", 30, 0)
        executors.announce("what takes no time", 9, 0)
    assert capsys.readouterr().err == 2 * "forests: about 30 s, 0.0 MB on disk\n"
