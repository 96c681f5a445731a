"""Receipts: what an executed notebook was made of, so that a run that would change nothing is skipped."""

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from .files import atomic, library_sha256, sha256_of
from .project import Job

_PACKAGES = ("torch", "transformers", "scikit-learn", "numba", "numpy", "pandas")
MACHINE_FACTS = ("versions", "seconds")  # what the batch adds to a notebook's figures


def versions() -> dict[str, str]:
    """Give the versions of Python and of the packages that figures depend on, where they are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def identity(job: Job) -> dict[str, Any]:
    """Give the hashes of all that an output follows from, save the corpora.

    Parameters
    ----------
    job : Job
        The notebook and its parameters.

    Returns
    -------
    dict
        `source` (the cells), `parameters` and `library` (every file of `tsns_lib`) as sha256, `gathered` (one sha256
        for each file of figures that the notebook reads, where it gathers those of the others), and `versions`.
    """
    notebook = nbformat.read(job.source, as_version=4)
    cells = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]
    return {
        "source": _sha256(cells),
        "parameters": _sha256(job.parameters),
        "library": library_sha256(),
        "gathered": _gathered(job),
        "versions": versions(),
    }


def state(job: Job) -> str:
    """Say how an output stands: "up to date", "out of date", "failed" or "not run"."""
    if job.failed.exists():
        return "failed"
    if not job.receipt.exists():
        return "not run"
    receipt = json.loads(job.receipt.read_text(encoding="utf-8"))
    expected = {**identity(job), "corpora": _corpora(receipt["data"]), "files": _files(job)}
    return "up to date" if all(receipt.get(key) == value for key, value in expected.items()) else "out of date"


def write_receipt(job: Job, made_of: Mapping[str, Any], data: str | None, seconds: float) -> None:
    """Write the receipt of a finished run, as its last act.

    Parameters
    ----------
    job : Job
        The run, with its output in place.
    made_of : mapping
        `identity(job)` as it was before the run.
    data : {"real", "generated"} or None
        What the notebook's record says of its corpora; None where it has no record.
    seconds : float
        Wall time.
    """
    facts = {
        "status": "ran",
        "data": data,
        "corpora": _corpora(data),
        "files": _files(job),
        "seconds": seconds,
    }
    write_json(job.receipt, {**made_of, **facts})


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all, making its folder where needed."""
    with atomic(path) as file:
        file.write(text.encode())


def _corpora(data: str | None) -> str | None:
    """Hash the names and sizes of TSNS_DATA's files, for a run on real data; reading them takes too long."""
    folder = os.environ.get("TSNS_DATA")
    if data != "real" or not folder:
        return None
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    return _sha256([(p.relative_to(folder).as_posix(), p.stat().st_size) for p in files])


def _gathered(job: Job) -> dict[str, str]:
    others = [p for p in job.folder.glob("*.results.json") if p != job.results] if job.gathers else []
    return {p.name: _figures_sha256(p) for p in others}


def _figures_sha256(path: Path) -> str:
    """Hash a file of figures without what a rerun changes by itself."""
    try:
        figures = json.loads(path.read_bytes())
        return _sha256({key: value for key, value in figures.items() if key not in MACHINE_FACTS})
    except (ValueError, AttributeError):  # not JSON, or no mapping: the notebook says so
        return sha256_of(path)


def _files(job: Job) -> dict[str, str]:
    return {p.name: sha256_of(p) for p in (job.output, job.results) if p.exists()}


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
