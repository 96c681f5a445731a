"""Execute one notebook so that its output either is whole or does not exist."""

import os
import re
import sys
import tempfile
import time
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

from . import receipts
from .executors import run_units
from .project import Job
from .settling import settle, without_places

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
        if not force and receipts.state(job) == "up to date":
            return Outcome(job, "up to date", 0.0)
        job.part.unlink(missing_ok=True)
        started = time.perf_counter()
        try:
            made_of = receipts.identity(job)
            notebook = _execute(job, cluster)
            seconds = round(time.perf_counter() - started, 1)
            data = _publish(job, notebook, seconds)
            receipts.write_receipt(job, made_of, data, seconds)
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
        receipts.write_text(source, text)
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
        receipts.write_text(job.part, text)
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
        facts = {"versions": receipts.versions(), "seconds": seconds}  # receipts.MACHINE_FACTS
        receipts.write_json(job.results, {**without_places(record, job.root), **facts})
    settle(notebook, job.root)
    receipts.write_text(job.part, nbformat.writes(notebook) + "\n")
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
