"""The words of `tsns`: one clear line for what is wrong, and the cache."""

import os
import re

import numpy as np
import pytest
from filelock import FileLock
from tsns_workbook.cli import last_seconds, main
from tsns_workbook.project import plan
from tsns_workbook.receipts import write_json

from tsns_lib.store import Store, sha256_of


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
        (["run", "--param", "runs=1:30"], "1:30 is text for some readers of YAML and not for others"),
        (["run", "--param", "runs=1", "--param", "runs=2"], "--param runs=2: runs is given twice"),
        (["run", "--jobs", "0"], "--jobs 0: must be at least 1"),
        (["run", "--jobs", "9" * 20], "--jobs 99999999999999999999: must be at most 256"),
        (["cache", "--prune", "--keep", "9" * 400 + "GB"], "999: is not a size such as 500MB or 10GB"),
        (["cache", "--clear", "../x"], "no kind '../x'"),
        (["cache", "--prune", "--keep", "much"], "--keep much: is not a size such as 500MB or 10GB"),
        (["cache", "--prune", "--keep", ""], "--keep : is not a size such as 500MB or 10GB"),
        (["cache", "--clear", ""], "no kind ''"),
        (["cache", "--keep", "1GB"], "--keep says how much --prune leaves"),
    ],
)
def test_wrong_words(project, capsys, words, message):
    project.write("01_good")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("tsns: ") and error.count("\n") == 1


def test_how_long_a_notebook_takes_is_read_from_its_last_run_or_from_the_reference(project):
    for name in ("01_own", "02_reference", "03_unknown", "04_broken"):
        project.write(name)
    write_json(project / "outputs/mini/01_own.results.json", {"seconds": 12.5})
    write_json(project / "outputs/reference/01_own.results.json", {"seconds": 3.0})
    write_json(project / "outputs/reference/02_reference.results.json", {"seconds": 40.0})
    write_json(project / "outputs/mini/04_broken.results.json", [])
    jobs = plan(project.root, "mini")
    assert [last_seconds(job) for job in jobs] == [12.5, 40.0, 0.0, 0.0]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store of three entries, of a megabyte each; the last one was used last."""
    monkeypatch.setenv("TSNS_CACHE", str(tmp_path / "cache"))
    store = Store()
    for age, (kind, name) in enumerate([("importance", "c"), ("activations", "b"), ("activations", "a")]):
        entry = store.entry(kind, {"name": name})
        entry.write(0, np.zeros((1000, 125)))
        entry.finish(1)
        os.utime(entry.path / "identity.json", (1e9 + age, 1e9 + age))
    return store


def kinds(out):
    return [line.split() for line in out.splitlines() if line.startswith(("activations", "importance"))]


@pytest.mark.parametrize("words", [[], ["--verify"], ["--prune"], ["--clear", "activations"]])
def test_a_cache_that_is_a_file_is_said(tmp_path, monkeypatch, capsys, words):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("TSNS_CACHE", str(tmp_path / "cache"))
    assert main(["cache", *words]) == 2
    assert capsys.readouterr() == ("", f"tsns: {tmp_path / 'cache'}: is a file; TSNS_CACHE must name a folder\n")


def test_the_cache_lists_and_clears_what_is_its_own(store, capsys):
    (store.root / "activations/mine.txt").write_text("not an entry")
    (store.root / "letters").mkdir()
    assert main(["cache"]) == 0
    assert kinds(capsys.readouterr().out) == [["activations", "2", "2.0"], ["importance", "1", "1.0"]]
    assert main(["cache", "--clear", "letters"]) == 2
    assert "no kind 'letters'" in capsys.readouterr().err
    assert main(["cache", "--clear", "activations"]) == 0
    assert kinds(capsys.readouterr().out) == [["importance", "1", "1.0"]]
    assert (store.root / "activations/mine.txt").exists() and (store.root / "letters").exists()


def test_the_cache_is_verified(store, capsys):
    assert main(["cache", "--verify"]) == 0
    assert re.search(r"read 3 entries, 3\.0 MB, in \d+\.\d s: nothing is damaged", capsys.readouterr().out)
    shard = store.entry("importance", {"name": "c"}).path / "00000.npy"
    content = bytearray(shard.read_bytes())
    content[5000] ^= 1
    shard.write_bytes(content)
    assert main(["cache", "--verify"]) == 1
    out = capsys.readouterr().out
    assert str(shard) in out and "1 damaged" in out
    identity = store.entry("activations", {"name": "a"}).path / "identity.json"
    identity.write_bytes(identity.read_bytes().replace(b"a", b"e", 1))
    assert main(["cache", "--verify"]) == 1
    out = capsys.readouterr().out
    assert f"{identity}: does not belong to this folder" in out and "2 damaged" in out


def test_files_beside_the_shards_are_verified_too(store, capsys):
    encoder, tuned = store.entry("encoders", {"name": "e"}), store.entry("models", {"name": "m"})
    for folder in (encoder.path, tuned.path / "checkpoint-1"):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
        write_json(folder / "sha256.json", {"model.safetensors": sha256_of(folder / "model.safetensors")})
    encoder.claim()
    (tuned.path / "model.safetensors").write_bytes(b"tuned")
    tuned.write(0, [1.0])
    tuned.finish(1, sha256=sha256_of(tuned.path / "model.safetensors"))
    assert main(["cache", "--verify"]) == 0
    for path in (encoder.path, tuned.path / "checkpoint-1", tuned.path):
        (path / "model.safetensors").write_bytes(b"weighty")
    capsys.readouterr()
    assert main(["cache", "--verify"]) == 1
    out = capsys.readouterr().out
    assert out.count("model.safetensors: is not as it was written") == 3
    (encoder.path / "model.safetensors").unlink()
    (tuned.path / "checkpoint-1/sha256.json").write_text("[1")
    assert main(["cache", "--verify"]) == 1
    out = capsys.readouterr().out
    assert "model.safetensors: is missing" in out and "sha256.json: is no list of checksums" in out


def test_the_cache_is_pruned_of_what_is_old_and_not_needed(project, store, capsys):
    needed = store.entry("importance", {"name": "c"}).key
    receipt = {"inputs": {}, "seen": {}, "outputs": {}, "entries": [needed]}
    write_json(project / "outputs/mini/.receipts/01_a.json", receipt)
    assert main(["cache", "--prune", "--keep", "2.5MB"]) == 0
    assert "deleted 1 entries, 1.0 MB" in capsys.readouterr().out
    assert {entry.identity["name"] for entry in store.entries()} == {"c", "a"}  # b is younger than c
    with FileLock(project / "outputs/mini/.receipts/02_b.lock"):
        assert main(["cache", "--prune"]) == 2
        assert "02_b is running, and no receipt" in capsys.readouterr().err
    assert len(store.entries()) == 2
    assert main(["cache", "--prune"]) == 0
    assert {entry.identity["name"] for entry in store.entries()} == {"c"}
