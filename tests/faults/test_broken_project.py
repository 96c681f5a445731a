"""A file that is broken or a folder that refuses costs one notebook one line; the others run."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from filelock import FileLock
from tsns_workbook.cli import main
from tsns_workbook.project import ProjectError, plan
from tsns_workbook.run import _own_folder, explain, run

from tsns_lib.store import Store

ROOT = Path(__file__).parents[2]


def lines(out):
    """What is printed of each notebook, by name, without the table at the end."""
    return dict(re.findall(r"^(\d\d_\w+): (?!profile)(.*)$", out, flags=re.MULTILINE))


def test_broken_files_cost_one_line_each_and_the_others_run(project, capsys):
    for name in ("01_yaml", "02_twice", "03_type", "04_json", "05_text", "06_list", "07_folder", "08_good"):
        project.write(name, "print(runs)", parameters="runs: int = 1")
    (project / "params/mini/01_yaml.yaml").write_bytes("runs: 2  # café".encode("latin-1"))
    (project / "params/mini/02_twice.yaml").write_text("runs: 1\nruns: 2\n")
    (project / "params/mini/03_type.yaml").write_text("runs: many\n")
    (project / "notebooks/04_json.ipynb").write_text('{"cells": [')
    (project / "notebooks/05_text.ipynb").write_bytes(b"\xff\xfe\0\xe9")
    (project / "notebooks/06_list.ipynb").write_text("[]")
    (project / "params/mini/07_folder.yaml").unlink()
    (project / "params/mini/07_folder.yaml").mkdir()
    assert main(["run"]) == 1
    printed = lines(capsys.readouterr().out)
    assert printed.pop("08_good").startswith("ran, ")
    reasons = {
        "01_yaml": r"params/mini/01_yaml\.yaml is not in UTF-8: .*0xe9.*",
        "02_twice": r"params/mini/02_twice\.yaml is not readable YAML: line 2: the key 'runs' stands twice",
        "03_type": r"params/mini/03_type\.yaml: runs of 03_type must be int, not 'many'",
        "04_json": r"notebooks/04_json\.ipynb is not a readable notebook: .+",
        "05_text": r"notebooks/05_text\.ipynb is not a readable notebook: .+",
        "06_list": r"notebooks/06_list\.ipynb is not a readable notebook: .+",
        "07_folder": r"params/mini/07_folder\.yaml cannot be read: Is a directory",
    }
    assert printed.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert re.fullmatch(rf"failed, 0\.0 s: {reason}", printed[name]), printed[name]
    assert project.text("08_good") == "2\n"
    assert main(["status"]) == 0
    states = [re.split("  +", line)[1] for line in capsys.readouterr().out.splitlines()[1:]]
    assert states == ["failed"] * 7 + ["up to date"]


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ("runs: 3\n".encode("utf-8-sig"), {"runs": 3}),
        (b"runs: 3\r\n", {"runs": 3}),
        ("runs: 3\n".encode("utf-16"), "01_good.yaml is not in UTF-8: "),
        ("runs: 3\n".encode("utf-16-be"), "01_good.yaml is not readable YAML: "),
        (b"runs: 3\0\n", "01_good.yaml is not readable YAML: "),
        (b"runs: !!python/object/apply:os.getcwd []\n", "01_good.yaml is not readable YAML: line 1: "),
        (
            b"runs: &a 3\nmore: [*a, *a]\n",
            "01_good.yaml is not readable YAML: line 2: an alias .* is not read",
        ),
        (b"", {}),
    ],
    ids=["BOM", "CRLF", "UTF-16", "UTF-16 without BOM", "zero", "Python", "alias", "empty"],
)
def test_encodings_of_a_parameter_file(project, content, read):
    project.write("01_good", "1")
    (project / "params/mini/01_good.yaml").write_bytes(content)
    if isinstance(read, dict):
        assert [job.parameters for job in plan(project.root, "mini")] == [read]
    else:
        with pytest.raises(ProjectError, match=read):
            plan(project.root, "mini")


def block_output(job):
    job.output.mkdir(parents=True)


def block_lock(job):
    job.receipt.with_suffix(".lock").mkdir(parents=True)


def block_part(job):
    job.part.mkdir(parents=True)


def block_receipt(job):
    job.receipt.mkdir(parents=True)


@pytest.mark.parametrize("block", [block_output, block_lock, block_part, block_receipt])
def test_what_cannot_be_written_is_an_outcome(project, block):
    project.write("01_bad", "1")
    (job,) = plan(project.root, "mini")
    block(job)
    outcome = run(job)
    assert outcome.status == "failed" and "\n" not in outcome.message and "Is a directory" in outcome.message
    assert main(["status"]) == 0


@pytest.mark.parametrize("outputs", ["outputs", "outputs/mini", "outputs/mini/.receipts"])
def test_a_file_where_a_folder_should_be(project, outputs, capsys):
    project.write("01_one")
    project.write("02_two")
    (project / outputs).parent.mkdir(parents=True, exist_ok=True)
    (project / outputs).write_text("a file")
    assert main(["run"]) == 1
    printed = lines(capsys.readouterr().out)
    assert printed.keys() == {"01_one", "02_two"}
    assert all(re.fullmatch(r"failed, 0\.\d s: \[Errno \d+\] .*", line) for line in printed.values())
    assert main(["status"]) == 0


def test_what_is_up_to_date_needs_nothing_to_be_written(project):
    project.write("01_good", "1")
    (job,) = plan(project.root, "mini")
    assert run(job).status == "ran"
    lock = job.receipt.with_suffix(".lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()
    assert run(job).status == "up to date"


def test_a_full_disk_is_an_outcome(project):
    project.write("01_large", "print('x' * 3_000_000)")
    project.write("02_small", "print('small')")
    code = """import resource, sys
from tsns_workbook.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
sys.exit(main(["run"]))"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    printed = lines(ended.stdout)
    assert "File too large" in ended.stdout and printed["01_large"].startswith("failed, ")
    assert printed["02_small"].startswith("ran, ")
    assert not (project / "outputs/mini/01_large.ipynb").exists()
    assert main(["status"]) == 0


def test_a_part_that_was_cut_off_explains_nothing_and_breaks_nothing(tmp_path):
    part = tmp_path / ".01_bad.part.ipynb"
    for content in (b"", b'{"cells": [', b"\xff\xfe", b"[]"):
        part.write_bytes(content)
        assert explain(part, OSError(28, "No space left on device")) == "[Errno 28] No space left on device"


# leftovers of processes that were killed


def test_leftovers_are_swept_at_the_next_start(project):
    project.write("01_good", "1")
    (job,) = plan(project.root, "mini")
    assert run(job).status == "ran"
    parts = [job.part, job.folder / ".01_good.ipynb.0123.part", job.receipt.parent / ".01_good.json.4567.part"]
    for part in parts:
        part.write_text("cut off")
    assert run(job).status == "up to date"
    assert [part for part in parts if part.exists()] == []


def test_folders_of_killed_workers_are_removed_and_those_of_others_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "import os\nfrom tsns_workbook.run import _own_folder\nwith _own_folder(): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)})
    (killed,) = tmp_path.glob("tsns_notebook_*")
    alive = tmp_path / "tsns_notebook_alive"
    alive.mkdir()
    with FileLock(alive / "lock"), _own_folder() as own:
        assert sorted(tmp_path.glob("tsns_notebook_*")) == sorted([alive, own]) and not killed.exists()
    assert not own.exists()


# the cache beside a process that writes and removes


def test_the_cache_is_listed_while_entries_come_and_go(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TSNS_CACHE", str(tmp_path))
    store, done = Store(), threading.Event()

    def come_and_go():
        while not done.is_set():
            for n in range(20):
                store.entry("models", {"n": n}).write(0, [1.0])
            shutil.rmtree(tmp_path / "models", ignore_errors=True)

    writer = threading.Thread(target=come_and_go)
    writer.start()
    try:
        assert [main(["cache"]) for _ in range(30)] == [0] * 30
        assert {main(["cache", "--verify"]) for _ in range(10)} <= {0, 1}
    finally:
        done.set()
        writer.join()
    assert "Traceback" not in capsys.readouterr().err


# make, in a folder whose name holds a space


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Call make with stand-ins for the tools, each of which prints its name, its words and TSNS_DATA."""
    folder = tmp_path / "my folder"
    for name in (".venv/bin", "outputs/reference"):
        (folder / name).mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / "outputs/reference/x.ipynb").write_text("{}")
    for name in ("python", "ruff", "mypy", "pytest", "tsns"):
        tool = folder / ".venv/bin" / name
        tool.write_text('#!/bin/sh\necho "$(basename "$0") $* ($TSNS_DATA) ($TSNS_CACHE)"\n')
        tool.chmod(0o755)
    (folder / ".venv/.installed").write_text("")
    monkeypatch.setenv("TSNS_CACHE", "")
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # under `make test` an inner make would say where it is
        monkeypatch.delenv(name, raising=False)
    return lambda *words: subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True)


def test_every_target_works_in_a_folder_with_a_space(make, tmp_path):
    tested = make("test")
    assert tested.returncode == 0, tested.stderr
    cache = tmp_path / "my folder/.venv/cache-of-doctests"
    assert f"pytest --doctest-modules tsns_lib notebooks/tsns_workbook () ({cache})" in tested.stdout
    assert make("run").stdout.endswith("tsns run --profile mini --jobs 2 () ()\n")


def test_the_corpora_may_lie_in_a_folder_with_a_space(make, tmp_path):
    corpora = tmp_path / "my 'own' corpora"
    corpora.mkdir()
    assert make("local", f"TSNS_DATA={corpora}").stdout.endswith(f"tsns run --profile local ({corpora}) ()\n")
    wrong = make("local", "TSNS_DATA=/no such")
    assert wrong.returncode == 2 and wrong.stderr.startswith("make local: /no such is no folder\n")
    assert make("local", "TSNS_DATA=").stderr.startswith("make local: name the folder of the corpora")
