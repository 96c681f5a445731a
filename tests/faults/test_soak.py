"""A few kills of each workload, of which `make soak` makes a hundred; and that the harness sees what it looks for."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the state of a process is read from /proc")


@pytest.mark.slow
def test_work_that_is_killed_goes_on_to_the_same_bytes():
    pytest.importorskip("distributed", reason="Dask: pip install 'tsns_lib[distributed]'")
    command = [sys.executable, HERE / "soak.py", "--kills", "2", "--flips", "1"]
    soak = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert soak.returncode == 0, soak.stdout + soak.stderr
    assert soak.stdout.splitlines()[-1].split() == ["all", "10", "4", *6 * ["0"]]


def careless(inputs, scheduler):
    """Work with every fault that there is to find."""
    store = Path(os.environ["TSNS_CACHE"])
    whole, lock = store / "whole.txt", store / "mine.lock"
    if whole.exists() and whole.stat().st_size < 140:
        print("whole.txt: damaged, it is written again")
    while lock.exists():
        time.sleep(0.02)
    lock.touch()
    helper = subprocess.Popen(["sleep", "60"])
    folder = tempfile.mkdtemp()
    whole.unlink(missing_ok=True)
    for number in range(50):
        with whole.open("a") as file:
            print(number, file=file)
    os.rmdir(folder)
    helper.kill()
    lock.unlink()
    return {"sum": np.arange(50)}


def kill_careless_work(folder):
    """Run by the test below, in a process from which it is safe to fork."""
    import soak

    soak.PATIENCE, soak.ORPHANS_MAY_LIVE = 3.0, 1.0
    soak.WORKLOADS["careless"] = careless
    soak.MODES["careless"] = [(soak.HERE, "caller")]
    kills = soak.Soak("careless", Path(folder), Path(folder), seed=1)  # it dies in the middle
    try:
        kills.undisturbed()
        kills.kill(1)
        kills.flip(2)
    finally:
        soak.end_all()
    print(json.dumps(kills.counts))


def test_the_harness_finds_what_it_looks_for(tmp_path):
    code = f"import test_soak; test_soak.kill_careless_work({str(tmp_path)!r})"
    found = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    counts = json.loads(found.stdout.splitlines()[-1])
    assert counts["kills"] == 1 and min(counts.values()) > 0, found.stdout
