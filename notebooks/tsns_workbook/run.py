"""Receipts: what an executed notebook was made of, so that a run that would change nothing is skipped.

An executed notebook without what belongs to one run on one machine, so that every run writes the same bytes.

Execute one notebook so that its output either is whole or does not exist.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from filelock import FileLock, Timeout
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbformat import NotebookNode
from traitlets import default

from tsns_lib.executors import run_units
from tsns_lib.store import atomic, library_sha256, sha256_of
from tsns_workbook.project import Job

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


_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def settle(notebook: NotebookNode, root: Path) -> None:
    """Take out what belongs to one run on one machine: times, paths, progress bars, widget state, the scheduler.

    Parameters
    ----------
    notebook : NotebookNode
        Executed; changed in place. What is settled already stays as it is.
    root : Path
        The project's folder, of which every text says "<project>".
    """
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = _KERNELSPEC
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = "injected-parameters"  # papermill draws a random one
            kept = [line for line in cell.source.splitlines(keepends=True) if not line.startswith("scheduler = ")]
            cell.source = without_places("".join(kept), root)
        if cell.cell_type == "code":
            cell.outputs = [without_places(output, root) for output in _joined_streams(cell.outputs)]
            for output in cell.outputs:  # without its state a view is an error message; its text stays
                output.get("data", {}).pop(_WIDGET_VIEW, None)


def _joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join each stream of a cell into one output, and drop the lines of stderr that progress bars left."""
    streams: dict[str, NotebookNode] = {}
    kept = []
    for output in outputs:
        if output.get("name") in streams:
            streams[output.name].text += output.text
            continue
        kept.append(output)
        if output.output_type == "stream":
            streams[output.name] = output
    if "stderr" in streams:
        lines = streams["stderr"].text.split("\n")
        streams["stderr"].text = "".join(f"{line}\n" for line in lines if line.strip() and "\r" not in line)
    return [o for o in kept if o.output_type != "stream" or o.text.strip()]


def without_places(value: Any, root: Path) -> Any:
    """Replace the folders of this machine in every text of a JSON-like value."""
    if isinstance(value, dict):
        # base64 may spell a short path by chance
        clean = {k: v if k.startswith("image/p") else without_places(v, root) for k, v in value.items()}
        return NotebookNode(clean) if isinstance(value, NotebookNode) else clean
    if isinstance(value, list):
        return [without_places(item, root) for item in value]
    if not isinstance(value, str):
        return value
    places = {
        os.environ.get("TSNS_DATA"): "$TSNS_DATA",
        os.environ.get("TSNS_CACHE"): "$TSNS_CACHE",
        sys.prefix: "<python>",
        sys.base_prefix: "<python>",
        str(root): "<project>",
        tempfile.gettempdir(): "<tmp>",
        str(Path.home()): "~",
    }
    for place in sorted((p for p in places if p and p != "/"), key=len, reverse=True):
        value = re.sub(rf"(?<![\w.-]){re.escape(place)}(?!\w)", places[place], value)
    return re.sub(r"ipykernel_\d+/\d+", "ipykernel", value)  # "file" of a warning raised in a cell


RECORD = "application/vnd.tsns.result+json"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Outcome:
    """How one run ended: `status` is "ran", "up to date" or "failed"; `message` says why it failed."""

    job: Job
    status: str
    seconds: float
    message: str = ""

    @property
    def path(self) -> Path:
        """The notebook to open."""
        return self.job.failed if self.job.failed.exists() else self.job.output


def run(job: Job, *, force: bool = False, cluster: str | None = None) -> Outcome:
    """Execute a notebook, unless its receipt says that nothing would change.

    A second process that runs the same notebook waits for the first. The output takes its name only when
    every cell ran; otherwise what there is becomes `<name>.failed.ipynb`. The receipt is written last.

    Parameters
    ----------
    job : Job
        What to run.
    force : bool, default False
        Run even where the receipt matches.
    cluster : str, optional
        Address of a Dask cluster that executes the notebook; what it writes is checked and put in place here.

    Returns
    -------
    Outcome
        A failure is an outcome and not an exception: the other notebooks go on.
    """
    job.receipt.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(job.receipt.with_suffix(".lock"))
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        print(f"{job.name}: another process is running it; waiting", file=sys.stderr, flush=True)
        held = lock.acquire()
    with held:
        if not force and state(job) == "up to date":
            return Outcome(job, "up to date", 0.0)
        job.part.unlink(missing_ok=True)
        started = time.perf_counter()
        try:
            made_of = identity(job)
            notebook = _execute(job, cluster)
            seconds = round(time.perf_counter() - started, 1)
            data = _publish(job, notebook, seconds)
            write_receipt(job, made_of, data, seconds)
        except Exception as error:  # whatever a notebook or its kernel does fails this notebook alone
            message = _explain(job.part, error)
            if job.part.exists():
                os.replace(job.part, job.failed)
            return Outcome(job, "failed", round(time.perf_counter() - started, 1), message)
        job.failed.unlink(missing_ok=True)
        return Outcome(job, "ran", seconds)


class _ThisPython(AsyncKernelManager):
    """Start the kernel of the Python that runs this, whatever "python3" kernelspec the user has elsewhere."""

    @default("kernel_spec_manager")
    def _native_only(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])

    @default("transport_encryption")
    def _encrypted_where_possible(self) -> str:
        return "auto"  # else every kernel starts with a warning


def execute_there(unit: tuple[str, dict[str, Any]]) -> tuple[str, str]:
    """Execute a notebook on a worker: its text and parameters in, the text as far as it came and the error out.

    The notebook waits for units that run on the same cluster, so it must not hold one of the worker's threads.
    """
    from distributed import get_worker, secede

    text, parameters = unit
    if "scheduler" in parameters:
        parameters = parameters | {"scheduler": get_worker().scheduler.address}  # as it is called from there
    secede()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        source, part = root / "notebooks/source.ipynb", root / "part.ipynb"
        write_text(source, text)
        try:
            notebook = _execute_here(source, part, parameters)
            settle(notebook, root)  # the places of this machine, which the caller does not know
            return nbformat.writes(notebook), ""
        except Exception as raised:  # it fails the notebook, and the caller says how
            error = str(raised) or type(raised).__name__
            return part.read_text(encoding="utf-8") if part.exists() else "", error


def _execute(job: Job, cluster: str | None) -> NotebookNode:
    parameters = job.parameters | ({"scheduler": job.scheduler} if job.scheduler else {})
    if cluster is None:
        return _execute_here(job.source, job.part, parameters)
    unit = job.source.read_text(encoding="utf-8"), parameters
    [(_, (text, error))] = run_units(execute_there, [unit], scheduler=cluster)
    if text:
        write_text(job.part, text)
    if error:
        raise RuntimeError(error)
    return nbformat.reads(text, as_version=4)


def _execute_here(source: Path, part: Path, parameters: dict[str, Any]) -> NotebookNode:
    for variable in ("TSNS_DATA", "TSNS_CACHE"):  # a notebook runs in its own folder
        if os.environ.get(variable):
            os.environ[variable] = os.path.abspath(os.path.expanduser(os.environ[variable]))
    papermill.execute_notebook(
        source,
        part,
        parameters,
        kernel_name="python3",
        language="python",
        cwd=source.parent,  # as JupyterLab and nbval do
        progress_bar=False,
        stderr_file=sys.stderr,  # the notebook's own progress bars
        record_timing=False,
        kernel_manager_class=_ThisPython,
    )
    notebook = nbformat.read(part, as_version=4)
    for cell in _code_cells(notebook):
        # papermill calls a cell completed that never ran, where the kernel died or a cell timed out
        if cell.execution_count is None or _errors(cell):
            raise RuntimeError("not every cell ran, although papermill reported no error")
    return notebook


def _publish(job: Job, notebook: NotebookNode, seconds: float) -> str | None:
    """Put output and results in place; give the corpora's kind as the record says it."""
    records = [o.data[RECORD] for cell in _code_cells(notebook) for o in cell.outputs if RECORD in o.get("data", {})]
    if len(records) > 1:
        raise ValueError(f"{job.name} displays {len(records)} outputs of type {RECORD}; there must be one at most")
    if records and records[0].get("data") not in ("real", "generated"):
        raise ValueError(f'{job.name}: its record\'s "data" is {records[0].get("data")!r}, not "real" or "generated"')
    job.results.unlink(missing_ok=True)
    for record in records:
        facts = {"versions": versions(), "seconds": seconds}  # MACHINE_FACTS
        write_json(job.results, {**without_places(record, job.root), **facts})
    settle(notebook, job.root)
    write_text(job.part, nbformat.writes(notebook) + "\n")
    os.replace(job.part, job.output)
    return records[0]["data"] if records else None


def _explain(part: Path, error: Exception) -> str:
    """Say in which cell a run failed, with the cell's first lines and the error's last ones."""
    lines = [line for line in _ANSI.sub("", str(error)).splitlines() if line.strip()][-4:]
    where = ""
    if part.exists():
        notebook = nbformat.read(part, as_version=4)
        cells = [cell for cell in notebook.cells if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])]
        started = [n for n, cell in enumerate(cells) if cell.metadata.get("papermill", {}).get("start_time")]
        failed = [n for n, cell in enumerate(cells) if _errors(cell)] or started[-1:]
        if failed:
            where = f"cell {failed[0] + 1} of {len(cells)}\n"
            lines = [f"  | {line}" for line in cells[failed[0]].source.splitlines()[:3]] + lines
    return where + "\n".join(f"  {line}" for line in lines or [type(error).__name__])


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def _errors(cell: NotebookNode) -> list[NotebookNode]:
    return [output for output in cell.get("outputs", []) if output.output_type == "error"]
