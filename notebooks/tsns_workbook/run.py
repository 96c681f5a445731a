"""Execute a notebook with papermill, so that its output is either whole or absent and is the same on every machine.

A receipt beside the output lists what went into it, so that a run that would change nothing is skipped.
"""

import json
import os
import platform
import re
import sys
import tempfile
import time
from importlib.metadata import version
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
from tsns_lib.store import atomic, code_digest, content_hash, sha256_of
from tsns_workbook.project import Job, Outcome

RECORD = "application/vnd.tsns.result+json"
MACHINE_FACTS = ("versions", "seconds")  # what a run adds to the record
_PACKAGES = ("torch", "transformers", "scikit-learn", "numba", "numpy", "pandas")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def run(job: Job, *, force: bool = False, cluster: str | None = None) -> Outcome:
    """Execute a notebook, unless its receipt says that nothing would change.

    A failure is an outcome and not an exception, so that the other notebooks still run. If another process is
    running the same notebook, this one waits for it. With `cluster`, the address of a Dask cluster, a worker executes
    the notebook; its output is checked and put in place here.
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
            before = inputs(job)
            notebook = _execute(job, cluster)
            seconds = round(time.perf_counter() - started, 1)
            data = _publish(job, notebook, seconds)
            facts = {"data": data, "corpora": _corpora_digest(data), "files": _files(job), "seconds": seconds}
            _write_json(job.receipt, before | facts)
        except Exception as error:  # whatever a notebook or its kernel does, only this notebook fails
            message = _explain(job.part, error)
            if job.part.exists():
                os.replace(job.part, job.failed)
            return Outcome(job, "failed", round(time.perf_counter() - started, 1), message)
        job.failed.unlink(missing_ok=True)
        return Outcome(job, "ran", seconds)


# execution, here or on a worker


class _ThisPython(AsyncKernelManager):
    """Start the kernel with the Python that runs this, even if the user has another "python3" kernelspec."""

    @default("kernel_spec_manager")
    def _native_only(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])

    @default("transport_encryption")
    def _encrypted_where_possible(self) -> str:
        return "auto"  # without it, every kernel starts with a warning


def _execute(job: Job, cluster: str | None) -> NotebookNode:
    parameters = job.parameters | ({"scheduler": job.scheduler} if job.scheduler else {})
    if cluster is None:
        return _execute_here(job.source, job.part, parameters)
    unit = (job.source.read_text(encoding="utf-8"), parameters)
    [(_, (text, error))] = run_units(execute_on_worker, [unit], scheduler=cluster)
    if text:
        _write_text(job.part, text)
    if error:
        raise RuntimeError(error)
    return nbformat.reads(text, as_version=4)


def execute_on_worker(unit: tuple[str, dict[str, Any]]) -> tuple[str, str]:
    """Execute a notebook, given as text and parameters, on a Dask worker; return its text and the error or "".

    The notebook waits for units on the same cluster, so it gives its thread back to the worker (`secede`).
    """
    from distributed import get_worker, secede

    text, parameters = unit
    if "scheduler" in parameters:  # the scheduler's address as this worker knows it
        parameters = parameters | {"scheduler": get_worker().scheduler.address}
    secede()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        source, part = root / "notebooks/source.ipynb", root / "part.ipynb"
        _write_text(source, text)
        try:
            notebook = _execute_here(source, part, parameters)
            settle(notebook, root)  # the caller does not know the folders of this machine
            return nbformat.writes(notebook), ""
        except Exception as raised:  # the caller reports it
            error = str(raised) or type(raised).__name__
            return part.read_text(encoding="utf-8") if part.exists() else "", error


def _execute_here(source: Path, part: Path, parameters: dict[str, Any]) -> NotebookNode:
    for variable in ("TSNS_DATA", "TSNS_CACHE"):  # a relative path would change its meaning with the folder
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
        stderr_file=sys.stderr,  # shows the notebook's own progress bars
        record_timing=False,
        kernel_manager_class=_ThisPython,
    )
    notebook = nbformat.read(part, as_version=4)
    for cell in _code_cells(notebook):
        # papermill reports success for cells that never ran, if the kernel died or a cell timed out
        if cell.execution_count is None or _errors(cell):
            raise RuntimeError("not every cell ran, although papermill reported no error")
    return notebook


def _publish(job: Job, notebook: NotebookNode, seconds: float) -> str | None:
    """Put the notebook and its record in place; return the record's "data", or None without a record."""
    records = [o.data[RECORD] for cell in _code_cells(notebook) for o in cell.outputs if RECORD in o.get("data", {})]
    if len(records) > 1:
        raise ValueError(f"{job.name} displays {len(records)} outputs of type {RECORD}; there must be one at most")
    if records and records[0].get("data") not in ("real", "generated"):
        raise ValueError(f'{job.name}: its record\'s "data" is {records[0].get("data")!r}, not "real" or "generated"')
    job.results.unlink(missing_ok=True)
    if records:
        facts = {"versions": versions(), "seconds": seconds}  # MACHINE_FACTS
        _write_json(job.results, _without_places(records[0], job.root) | facts)
    settle(notebook, job.root)
    _write_text(job.part, nbformat.writes(notebook) + "\n")
    os.replace(job.part, job.output)
    return records[0]["data"] if records else None


def _explain(part: Path, error: Exception) -> str:
    """Name the cell in which a run failed, with its first lines and the error's last ones."""
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


# an output without traces of the machine


def settle(notebook: NotebookNode, root: Path) -> None:
    """Remove from an executed notebook whatever changes from run to run or from machine to machine.

    These are times, folders, progress bars, widget state and the scheduler. Settling twice changes nothing more.
    """
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = _KERNELSPEC
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = "injected-parameters"  # papermill's is random
            lines = [line for line in cell.source.splitlines(keepends=True) if not line.startswith("scheduler = ")]
            cell.source = _without_places("".join(lines), root)
        if cell.cell_type == "code":
            cell.outputs = [_without_places(output, root) for output in _joined_streams(cell.outputs)]
            for output in cell.outputs:  # without its state a widget shows an error, but its text still reads well
                output.get("data", {}).pop(_WIDGET_VIEW, None)


def _joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join each stream of a cell into one output, and drop the lines that progress bars left in stderr."""
    streams: dict[str, NotebookNode] = {}
    joined = []
    for output in outputs:
        if output.get("name") in streams:
            streams[output.name].text += output.text
            continue
        joined.append(output)
        if output.output_type == "stream":
            streams[output.name] = output
    if "stderr" in streams:
        lines = streams["stderr"].text.split("\n")
        streams["stderr"].text = "".join(f"{line}\n" for line in lines if line.strip() and "\r" not in line)
    return [o for o in joined if o.output_type != "stream" or o.text.strip()]


def _without_places(value: Any, root: Path) -> Any:
    """Replace this machine's folders by names such as `<project>` in every text of a JSON-like value."""
    if isinstance(value, dict):
        # the base64 of an image may contain a short path by chance
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
    return re.sub(r"ipykernel_\d+/\d+", "ipykernel", value)  # the "file" in a warning that a cell raises


# receipts


def state(job: Job) -> str:
    """Compare an output with its receipt: "up to date", "out of date", "failed" or "not run"."""
    if job.failed.exists():
        return "failed"
    if not job.receipt.exists():
        return "not run"
    receipt = json.loads(job.receipt.read_text(encoding="utf-8"))
    expected = inputs(job) | {"corpora": _corpora_digest(receipt["data"]), "files": _files(job)}
    return "up to date" if all(receipt.get(key) == value for key, value in expected.items()) else "out of date"


def inputs(job: Job) -> dict[str, Any]:
    """Hash everything that an output depends on, except the corpora, which are only known after the run.

    This is the notebook's cells, its parameters, every file of the two packages, the results of other notebooks if it
    reads them, and the versions of the packages that results depend on.
    """
    notebook = nbformat.read(job.source, as_version=4)
    cells = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]
    others = [p for p in job.folder.glob("*.results.json") if p != job.results] if job.reads_results else []
    return {
        "source": _digest(cells),
        "parameters": _digest(job.parameters),
        "code": {package: code_digest(package) for package in ("tsns_lib", "tsns_workbook")},
        "results_read": {p.name: _results_digest(p) for p in others},
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version()} | {package: version(package) for package in _PACKAGES}


def _corpora_digest(data: str | None) -> str | None:
    """Hash the names and sizes of TSNS_DATA's files, after a run on real data; reading all files takes too long."""
    folder = os.environ.get("TSNS_DATA")
    if data != "real" or not folder:
        return None
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    return _digest([(p.relative_to(folder).as_posix(), p.stat().st_size) for p in files])


def _results_digest(path: Path) -> str:
    """Hash a results file without the facts that differ from run to run."""
    try:
        record = json.loads(path.read_bytes())
        return _digest({key: value for key, value in record.items() if key not in MACHINE_FACTS})
    except (ValueError, AttributeError):  # not JSON or not a mapping; the notebook that reads it reports that
        return sha256_of(path)


def _files(job: Job) -> dict[str, str]:
    return {p.name: sha256_of(p) for p in (job.output, job.results) if p.exists()}


def _digest(value: Any) -> str:
    return content_hash([json.dumps(value, sort_keys=True, default=str).encode()])


def _write_json(path: Path, value: Any) -> None:
    _write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    with atomic(path) as file:  # the file is whole or absent
        file.write(text.encode())
