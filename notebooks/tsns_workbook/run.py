"""Execute a notebook with papermill, so that its output is either whole or absent and is the same on every machine.

A run that would change nothing is skipped. Whatever goes wrong is an outcome of one notebook: the others still run.
"""

import asyncio
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nbformat
import papermill
from filelock import FileLock, Timeout
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbformat import NotebookNode
from traitlets import default
from traitlets.config import Config

from tsns_lib.executors import RUNNER, run_units
from tsns_lib.store import atomic, sweep
from tsns_workbook.project import Job, Outcome
from tsns_workbook.receipts import inputs, state, versions, write_json, write_receipt

RECORD = "application/vnd.tsns.result+json"
LOG_SECONDS = 60  # from one state of a bar to the next in a log
_LINK = re.compile(r"\]\((?![a-z]+:|[#/])([^)\s]+)\)")  # of Markdown, to a file beside it
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def run(job: Job, *, force: bool = False, cluster: str | None = None) -> Outcome:
    """Execute a notebook, unless its receipt says that nothing would change.

    If another process is running the same notebook, this one waits for it. With `cluster`, the address of a Dask
    cluster, a worker executes the notebook; its output is checked and put in place here.
    """
    started = time.perf_counter()
    try:
        for folder in (job.folder, job.receipt.parent):
            sweep(folder)
        if force or job.part.exists() or state(job) != "up to date":  # what is up to date needs no folder to write to
            with _turn(job):
                job.part.unlink(missing_ok=True)  # of a process that was killed
                if force or state(job) != "up to date":  # another process may just have run it
                    return _run(job, cluster)
        return Outcome(job, "up to date", 0.0)
    except Exception as error:  # a folder that cannot be written, a full disk
        return Outcome(job, "failed", round(time.perf_counter() - started, 1), _last_lines(error)[-1])


def _run(job: Job, cluster: str | None) -> Outcome:
    now, started = time.time(), time.perf_counter()
    try:
        known = inputs(job)
        notebook = _execute(job, cluster)
        seconds = round(time.perf_counter() - started, 1)
        _publish(job, notebook, seconds)
        write_receipt(job, known, now, seconds)
    except Exception as error:  # whatever a notebook or its kernel does
        message = explain(job.part, error)
        with suppress(OSError):
            os.replace(job.part, job.failed)
        return Outcome(job, "failed", round(time.perf_counter() - started, 1), message)
    job.failed.unlink(missing_ok=True)
    return Outcome(job, "ran", seconds)


@contextmanager
def _turn(job: Job) -> Iterator[None]:
    """Let one process at a time run a notebook."""
    job.receipt.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(job.receipt.with_suffix(".lock"))
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        print(f"{job.name}: another process is running it; waiting", file=sys.stderr, flush=True)
        held = lock.acquire()
    with held:
        yield


class _Log:
    """Standard error without carriage returns: lines pass, and of what bars write over themselves a state a minute."""

    def __init__(self) -> None:
        self._next = time.monotonic() + LOG_SECONDS

    def write(self, text: str) -> None:
        for line in text.splitlines(keepends=True):
            is_state = not line.endswith("\n")
            if line.strip() and (not is_state or time.monotonic() >= self._next):
                self._next = time.monotonic() + LOG_SECONDS if is_state else self._next
                print(line.rstrip(), file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


# execution, here or on a worker


class _ThisPython(AsyncKernelManager):
    """Start the kernel with the Python that runs this, even if the user has another "python3" kernelspec."""

    @default("kernel_spec_manager")
    def _native_only(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])

    @default("transport_encryption")
    def _encrypted_where_possible(self) -> str:
        return "auto"  # without it, every kernel starts with a warning

    async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
        await super().start_kernel(**options | {"env": os.environ | {RUNNER: "1"}})

    async def shutdown_kernel(self, *words: Any, **options: Any) -> None:  # type: ignore[override]
        # after Ctrl-C, nbclient still waits for the cell, and would report the kernel's end as its death
        waiting = asyncio.all_tasks() - {asyncio.current_task()}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await super().shutdown_kernel(*words, **options)


def _execute(job: Job, cluster: str | None) -> NotebookNode:
    parameters = job.parameters | ({"scheduler": job.scheduler} if job.scheduler else {})
    if cluster is None:
        return execute_here(job.source, job.part, parameters)
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
    with _own_folder() as root:
        source, part = root / "notebooks/source.ipynb", root / "part.ipynb"
        _write_text(source, text)
        try:
            notebook = execute_here(source, part, parameters)
            settle(notebook, root)  # the caller does not know the folders of this machine
            return nbformat.writes(notebook), ""
        except Exception as raised:  # the caller reports it
            error = str(raised) or type(raised).__name__
            return part.read_text(encoding="utf-8") if part.exists() else "", error


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A temporary folder; those of processes that were killed are removed first, as no process holds their locks."""
    for left in Path(tempfile.gettempdir()).glob("tsns_notebook_*/lock"):
        with suppress(Timeout, OSError), FileLock(left, timeout=0):
            shutil.rmtree(left.parent, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="tsns_notebook_") as folder, FileLock(Path(folder, "lock")):
        yield Path(folder).resolve()


def execute_here(source: Path, part: Path, parameters: dict[str, Any]) -> NotebookNode:
    """Execute a notebook in a kernel of this machine, and return it as papermill wrote it to `part`."""
    for variable in ("TSNS_DATA", "TSNS_CACHE"):  # a relative path would change its meaning with the folder
        if os.environ.get(variable):
            os.environ[variable] = os.path.abspath(os.path.expanduser(os.environ[variable]))
    with _own_folder() as folder:  # for the keys to the kernel, which a kill would leave
        papermill.execute_notebook(
            source,
            part,
            parameters,
            kernel_name="python3",
            language="python",
            cwd=source.parent,  # as JupyterLab and nbval do
            progress_bar=False,
            # shows the notebook's own progress bars
            stderr_file=sys.stderr if sys.stderr.isatty() else _Log(),
            record_timing=False,
            kernel_manager_class=_ThisPython,
            config=Config(
                KernelManager={"connection_file": str(folder / "kernel.json")},
                # what happens in cells is in the notebook; a kernel that is interrupted logs pages of its own
                NotebookClient={"extra_arguments": ["--IPKernelApp.log_level=50"]},
            ),
        )
    notebook = nbformat.read(part, as_version=4)
    for cell in _code_cells(notebook):
        # papermill reports success for cells that never ran, if the kernel died or a cell timed out
        if cell.execution_count is None or _errors(cell):
            raise RuntimeError("not every cell ran, although papermill reported no error")
    return notebook


def _publish(job: Job, notebook: NotebookNode, seconds: float) -> None:
    """Put the notebook and its record in place."""
    records = [o.data[RECORD] for cell in _code_cells(notebook) for o in cell.outputs if RECORD in o.get("data", {})]
    if len(records) > 1:
        raise ValueError(f"{job.name} displays {len(records)} outputs of type {RECORD}; there must be one at most")
    if records and records[0].get("data") not in ("real", "generated"):
        raise ValueError(f'{job.name}: its record\'s "data" is {records[0].get("data")!r}, not "real" or "generated"')
    job.results.unlink(missing_ok=True)
    if records:
        facts = {"versions": versions(), "seconds": seconds}  # receipts.MACHINE_FACTS
        write_json(job.results, _without_places(records[0], job.root) | facts)
    settle(notebook, job.root)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _moved(cell.source, job.source.parent, job.output.parent)
    _write_text(job.part, nbformat.writes(notebook) + "\n")
    os.replace(job.part, job.output)


def _moved(text: str, old: Path, new: Path) -> str:
    """Change the relative links of a text in one folder so that they lead to the same places from another.

    Examples
    --------
    >>> _moved("[a](lessons/a.md), [b](https://b.org), [c](#c)", Path("notebooks"), Path("outputs/local"))
    '[a](../../notebooks/lessons/a.md), [b](https://b.org), [c](#c)'
    """
    return _LINK.sub(lambda found: f"]({Path(os.path.relpath(old / found[1], new)).as_posix()})", text)


def explain(part: Path, error: Exception) -> str:
    """Name the cell in which a run failed, with its first lines and the error's last ones."""
    try:
        cells = nbformat.read(part, as_version=4).cells
    except Exception:  # there is none, or a full disk has cut it off
        return _last_lines(error)[-1]
    cells = [cell for cell in cells if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])]
    started = [n for n, cell in enumerate(cells) if cell.metadata.get("papermill", {}).get("start_time")]
    failed = [n for n, cell in enumerate(cells) if _errors(cell)] or started[-1:]
    if not failed:
        return _last_lines(error)[-1]
    source = [f"| {line}" for line in cells[failed[0]].source.splitlines()[:3]]
    return "\n  ".join([f"cell {failed[0] + 1} of {len(cells)}", *source, *_last_lines(error)])


def _last_lines(error: Exception) -> list[str]:
    lines = [line for line in _ANSI.sub("", str(error)).splitlines() if line.strip()]
    return lines[-4:] or [type(error).__name__]


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
            cell.metadata["jupyter"] = {"source_hidden": True}
            lines = [line for line in cell.source.splitlines(keepends=True) if not line.startswith("scheduler = ")]
            cell.source = _without_places("".join(lines), root)
        if cell.cell_type == "code":
            cell.outputs = [_without_places(output, root) for output in joined_streams(cell.outputs)]
            for output in cell.outputs:  # without its state a widget shows an error, but its text still reads well
                output.get("data", {}).pop(_WIDGET_VIEW, None)


def joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
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


def _write_text(path: Path, text: str) -> None:
    with atomic(path) as file:  # the file is whole or absent
        file.write(text.encode())
