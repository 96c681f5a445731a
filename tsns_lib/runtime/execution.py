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
from .project import Job

RECORD = "application/vnd.tsns.result+json"
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
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


def run(job: Job, *, force: bool = False) -> Outcome:
    """Execute a notebook, unless its receipt says that nothing would change.

    A second process that runs the same notebook waits for the first. The output takes its name only when
    every cell ran; otherwise what there is becomes `<name>.failed.ipynb`. The receipt is written last.

    Parameters
    ----------
    job : Job
        What to run.
    force : bool, default False
        Run even where the receipt matches.

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
            notebook = _execute(job)
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


def _execute(job: Job) -> NotebookNode:
    notebook = papermill.execute_notebook(
        job.source,
        job.part,
        job.parameters,
        kernel_name="python3",
        language="python",
        cwd=job.source.parent,  # as JupyterLab and nbval do
        progress_bar=False,
        stderr_file=sys.stderr,  # the notebook's own progress bars
        record_timing=False,
        kernel_manager_class=_ThisPython,
    )
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
        receipts.write_json(job.results, {**_without_places(record, job.root), **facts})
    _settle(notebook, job.root)
    receipts.write_text(job.part, nbformat.writes(notebook) + "\n")
    os.replace(job.part, job.output)
    return records[0]["data"] if records else None


def _settle(notebook: NotebookNode, root: Path) -> None:
    """Take out what belongs to one run on one machine: times, paths, progress bars, widget state."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = _KERNELSPEC
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = "injected-parameters"  # papermill draws a random one
            cell.source = _without_places(cell.source, root)
        if cell.cell_type == "code":
            cell.outputs = [_without_places(output, root) for output in _joined_streams(cell.outputs)]
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


def _without_places(value: Any, root: Path) -> Any:
    """Replace the folders of this machine in every text of a JSON-like value."""
    if isinstance(value, dict):
        # base64 may spell a short path by chance
        clean = {k: v if k.startswith("image/p") else _without_places(v, root) for k, v in value.items()}
        return NotebookNode(clean) if isinstance(value, NotebookNode) else clean
    if isinstance(value, list):
        return [_without_places(item, root) for item in value]
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
