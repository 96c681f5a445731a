"""A caller that is killed leaves no worker and no array behind; units in threads of one worker do not meet."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from tsns_lib import resampled_importance
from tsns_lib.executors import run_units

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

CALLER = (
    "import os, time, numpy as np\n"
    "from tsns_lib.executors import run_units\n"
    "from tests.faults.test_processes import wait\n"
    "shared = np.zeros((2_000, 1_000))  # large enough to be mapped from a file\n"
    "print(*(pid for _, pid in run_units(wait, [0.5, 0.5], shared=[shared], scheduler='processes:2')), flush=True)\n"
    "list(run_units(wait, [60, 60, 60, 60], shared=[shared], scheduler='processes:2'))\n"
)


def wait(seconds, shared):
    time.sleep(seconds)
    return os.getpid()


def n_threads(unit):
    import torch

    time.sleep(0.2)
    return [pool["num_threads"] for pool in threadpool_info()] + [torch.get_num_threads()]


def of_process(pid):
    return Path(f"/proc/{pid}")


@pytest.fixture
def caller(tmp_path):
    """A process that works in a pool, with the pids of its two workers."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "JOBLIB_TEMP_FOLDER": str(tmp_path), "PYTHONPATH": str(root)}
    started = subprocess.Popen(
        [sys.executable, "-c", CALLER], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    workers = [int(pid) for pid in started.stdout.readline().split()]
    until = time.monotonic() + 20
    while not list(tmp_path.rglob("*.pkl")):
        assert time.monotonic() < until and started.poll() is None
        time.sleep(0.05)
    yield started, set(workers)
    started.stdout.close()
    started.wait()


def has_ended(pid):
    """Whether a process is gone; one that nobody has asked for its end yet counts."""
    try:
        return of_process(pid).joinpath("stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def another_caller(folder):
    """What a second process prints that works in a pool: a sum, and how many folders are there meanwhile."""
    code = (
        "import os, sys; from tsns_lib.executors import run_units\n"
        "print(sum(n for _, n in run_units(abs, [-1, -2], scheduler='processes:2')), len(os.listdir(sys.argv[1])))"
    )
    environment = {**os.environ, "JOBLIB_TEMP_FOLDER": str(folder)}
    return subprocess.run([sys.executable, "-c", code, folder], env=environment, capture_output=True, text=True).stdout


def test_workers_and_arrays_go_with_a_caller_that_is_killed(caller, tmp_path):
    started, workers = caller
    assert another_caller(tmp_path) == "3 2\n"
    assert list(tmp_path.rglob("*.pkl"))  # a living caller's arrays are left alone
    assert workers and not any(map(has_ended, workers))
    started.kill()
    until = time.monotonic() + 15
    while not all(map(has_ended, workers)) or list(tmp_path.iterdir()):
        assert time.monotonic() < until, (workers, list(tmp_path.iterdir()))
        time.sleep(0.1)


def test_what_a_killed_group_has_left_goes_at_the_next_start(caller, tmp_path):
    started, _ = caller
    os.killpg(started.pid, signal.SIGKILL)  # nobody is left to clear anything
    started.wait()
    [left] = tmp_path.iterdir()
    assert list(left.rglob("*.pkl"))
    assert another_caller(tmp_path) == "3 1\n"  # its own folder alone
    assert list(tmp_path.iterdir()) == []


def test_one_process_gives_back_its_threads():
    import torch

    before = torch.get_num_threads(), [pool["num_threads"] for pool in threadpool_info()]
    [(_, inside)] = run_units(n_threads, [0], scheduler="processes:1")
    assert set(inside) == {1}
    assert (torch.get_num_threads(), [pool["num_threads"] for pool in threadpool_info()]) == before


def test_two_units_at_a_time_in_one_process_keep_to_one_thread_each():
    from tsns_lib.executors import _in_one_thread

    before = [pool["num_threads"] for pool in threadpool_info()]
    results = []
    units = [threading.Thread(target=lambda: results.append(_in_one_thread(0, n_threads, ())[1])) for _ in range(3)]
    for unit in units:
        unit.start()
        time.sleep(0.1)  # one leaves while another works
    for unit in units:
        unit.join()
    assert len(results) == 3 and {n for result in results for n in result} == {1}
    assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_a_dask_worker_with_two_threads_gives_the_same_bits(tmp_path):
    distributed = pytest.importorskip("distributed", reason="Dask: pip install 'tsns_lib[distributed]'")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    X = rng.normal(size=(120, 30)) + y[:, None] * (np.arange(30) == 4)
    settings = [{"n_resamples": 8, "n_trees": 10, "engine": engine} for engine in ("histogram", "sklearn")]
    here = [resampled_importance(X, y, **setting, store=tmp_path / "here") for setting in settings]
    options = {"processes": True, "dashboard_address": ":0", "host": "127.0.0.1"}
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, **options) as cluster:
        place = {"store": tmp_path / "there", "scheduler": cluster.scheduler_address}
        there = [resampled_importance(X, y, **setting, **place) for setting in settings]
    assert [q.tobytes() for q in there] == [q.tobytes() for q in here]
