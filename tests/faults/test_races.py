"""Two writers of one key, and writers killed at any moment: the store holds what one undisturbed run writes."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tsns_lib import extract, load_encoder, resampled_importance
from tsns_lib.store import Store

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("TSNS_KILLS", "20"))

WRITER = """
import os, random, signal, sys, time
import numpy as np
from tsns_lib.store import Store

def entry_of(root):
    return Store(root).entry("importance", {"seed": 0})

def write_all(root, n_shards, noise=0.0, order=1):
    entry = entry_of(root)
    for promised in range(10, n_shards + 1, 10):
        for index in entry.missing(promised)[::order]:
            entry.write(index, np.full((1, 3_000), index + noise))
        if not entry.is_finished(promised):
            entry.finish(promised, promised=promised)
        entry.columns([2_999, 5])
"""


def run(script, *arguments):
    command = [sys.executable, "-c", WRITER + script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT)


def bytes_of(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_killed_writers_leave_what_an_undisturbed_one_writes(tmp_path):
    kills = """
n_kills = int(sys.argv[2])
rng = random.Random(0)
for kill in range(n_kills):
    if not (pid := os.fork()):
        write_all(sys.argv[1], 100_000)
    time.sleep(rng.uniform(0.001, 0.06))
    os.kill(pid, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
n_written = len(list(entry_of(sys.argv[1]).path.glob("*.npy")))
write_all(sys.argv[1], n_written // 10 * 10 + 20)
write_all(sys.argv[3], n_written // 10 * 10 + 20)
"""
    assert run(kills, tmp_path / "killed", KILLS, tmp_path / "whole").wait(300) == 0
    killed, whole = (Store(tmp_path / name).entry("importance", {"seed": 0}) for name in ("killed", "whole"))
    assert bytes_of(killed.path) == bytes_of(whole.path)  # no leftovers either
    assert killed.verify() == [] and np.array_equal(killed.read(), whole.read())
    np.testing.assert_array_equal(killed.columns([5]), whole.read(columns=[5]))


def test_writers_whose_last_bits_differ_agree_on_one_of_them(tmp_path):
    script = """
noise, order = float(sys.argv[2]), int(sys.argv[3])
write_all(sys.argv[1], 40, noise, order)
entry = entry_of(sys.argv[1])
assert entry.shape == (40, 3_000) and entry.facts() == {"promised": 40}
first = entry.read()
time.sleep(0.2)
assert np.array_equal(entry.read(), first)
"""
    writers = [run(script, tmp_path, noise, order) for noise, order in ((0.0, 1), (1e-9, 1), (2e-9, -1))]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    entry = Store(tmp_path).entry("importance", {"seed": 0})
    assert entry.verify() == []
    assert sorted(path.name for path in entry.path.iterdir()) == [
        *(f"{index:05d}.npy" for index in range(40)), "identity.json", "manifest.json",
    ]  # fmt: skip
    np.testing.assert_allclose(entry.read()[:, 0], np.arange(40), atol=1e-8)


def test_a_shard_that_is_lost_while_two_write_is_promised_by_both(tmp_path):
    script = """
for number in range(12):
    entry = entry_of(sys.argv[1])
    write_all(sys.argv[1], 10, float(sys.argv[2]))
    (entry.path / f"{number % 10:05d}.npy").unlink(missing_ok=True)
"""
    writers = [run(script, tmp_path, noise) for noise in (0.0, 1e-9)]
    for writer in writers:
        writer.wait(120)  # a writer may be told that a shard has just vanished
    assert run("write_all(sys.argv[1], 10)", tmp_path).wait(60) == 0
    entry = Store(tmp_path).entry("importance", {"seed": 0})
    assert entry.verify() == [] and entry.is_finished(10)
    np.testing.assert_allclose(entry.read()[:, 0], np.arange(10), atol=1e-8)


def test_who_comes_second_waits_and_reads(tmp_path):
    """Nothing is computed twice: the one who waits gets what the other writes, told here by its impossible zeros."""
    texts, encoder = ["A made-up line.", "Another one.", "A third."], load_encoder()
    X, y = np.random.default_rng(0).normal(size=(60, 5)), np.arange(60) % 2
    calls = {
        "activations": lambda store: extract(texts, encoder, max_length=8, store=store, progress=False),
        "importance": lambda store: resampled_importance(X, y, n_resamples=2, n_trees=4, store=store),
    }
    for kind, call in calls.items():
        computed = call(tmp_path / "alone")
        [known] = [entry for entry in Store(tmp_path / "alone").entries() if entry.kind == kind]
        entry = Store(tmp_path / "both").entry(kind, known.identity)
        stored = known.read()
        with ThreadPoolExecutor(1) as pool:
            with entry.turn():
                waiting = pool.submit(call, tmp_path / "both")
                time.sleep(0.5)
                assert not waiting.done() and entry.missing(1) == [0]
                size = len(stored) if kind == "activations" else 1
                for start in range(0, len(stored), size):
                    entry.write(start // size, np.zeros_like(stored[start : start + size]))
                entry.finish(len(stored) // size, **known.facts())
            assert computed.any() and not waiting.result(60).any()


def test_who_waits_for_a_killed_one_computes(tmp_path):
    hold = """
entry = entry_of(sys.argv[1])
with entry.turn():
    entry.write(0, np.ones((1, 2)))
    print("holds", flush=True)
    time.sleep(600)
"""
    command = [sys.executable, "-c", WRITER + hold, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "holds\n"
        entry = Store(tmp_path).entry("importance", {"seed": 0})
        assert entry.remove() is False and entry.missing(2) == [1]  # nobody takes away what is being computed
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(lambda: entry.turn().__enter__())
            time.sleep(0.3)
            assert not waiting.done()
            holder.kill()
            waiting.result(30)
    assert entry.missing(2) == [1]


def test_a_child_that_was_forked_meanwhile_keeps_no_lock(tmp_path):
    """A worker that a caller forks while it computes may outlive it, and must not hold its turn."""
    entry = Store(tmp_path).entry("importance", {"seed": 0})
    read, write = os.pipe()
    ready, said = os.pipe()
    with entry.turn():
        if not (child := os.fork()):
            os.close(write)
            os.write(said, b".")
            os.read(read, 1)  # ends when the parent closes its end
            os._exit(0)
        os.read(ready, 1)  # until the child has begun
    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(entry.remove).result(20)
        assert os.waitpid(child, os.WNOHANG) == (0, 0)  # it lives
    finally:
        os.close(write)
        os.waitpid(child, 0)
