"""Units of work in this process, in a pool of processes or on a Dask cluster, with the same bits everywhere; progress.

A unit is a pure function of its arguments, seeds included, so where and when it runs cannot matter. A unit writes
nothing: its result comes back as soon as it is finished, and the caller writes it durably. So the machines need not
share a disk, and finished results survive a crash of the pool or the cluster.
"""

import atexit
import functools
import io
import os
import platform
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from filelock import FileLock
from tqdm import tqdm

from tsns_lib.store import code_digest
from tsns_lib.validation import shown, whole_number

REACH_SECONDS = 10  # for a scheduler, and for its first worker, to answer
RETRIES = 3  # of a unit that raises: a disk or a network may come back
ROUNDS = 5  # of sending the shared arguments again after the workers that held them were lost
MOST_PROCESSES = 1_000  # of a pool: a slip such as "processes:99999" would fill the machine (our choice)
WATCH_SECONDS = 0.5  # how soon a worker notices that its caller is gone
SHARED_MEMORY, ROOMY_BYTES = Path("/dev/shm"), 2e9  # joblib's own rule: arrays lie in memory where this much is free
SAME_VERSIONS = ("numpy", "numba", "scikit-learn", "torch", "transformers")  # packages that determine the bits

RUNNER = "TSNS_RUNS_NOTEBOOK"  # in the environment of a kernel: the runner passes progress on, and keeps none of it

Unit = Any
Function = Callable[..., Any]


_outermost: tuple[Any, tqdm] | None = None  # the bar that is shown, and the turn of the notebook that it belongs to


def bar(items: Iterable | None = None, *, show: bool, **options: Any) -> tqdm:
    """A bar that vanishes when done, and that `TQDM_DISABLE` hides: in JupyterLab a widget, and nothing in a log.

    One inside another stands in the text of that one. `tsns run` passes on what a notebook's bars write.
    """
    global _outermost
    if not is_shown(show):
        return tqdm(items, disable=True, **options)
    options |= {"leave": False, "position": 0}
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    turn, executed = getattr(shell, "execution_count", None), RUNNER in os.environ
    if _outermost and _outermost[0] == turn and not (outer := _outermost[1]).disable:
        inside: Any = SimpleNamespace(write=lambda text: outer.set_postfix_str(text.strip()), flush=lambda: None)
        return tqdm(items, file=inside, bar_format="{desc} {n_fmt}/{total_fmt}", **options)
    if hasattr(shell, "kernel") and not executed:
        from tqdm.notebook import tqdm as widget

        _outermost = turn, widget(items, **options)
    else:
        _outermost = turn, tqdm(items, disable=False if executed else None, **options)  # None: unless a terminal
    return _outermost[1]


def is_shown(show: bool) -> bool:
    """Whether a bar would be seen; only then is it worth the time to measure what the work will cost."""
    with tqdm(file=io.StringIO()) as probe:  # reads TQDM_DISABLE
        return show and not probe.disable


WORTH_SAYING = 10  # seconds that a forecast is for, at least


def announce(work: str, seconds: float, n_bytes: float) -> None:
    """Say in one line, before long work such as "100 forests of 1,000 trees" starts, what it will cost."""
    if seconds < WORTH_SAYING:
        return
    time = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
    if seconds >= 3600:
        time = f"{seconds / 3600:.1f} h"
    size = f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"
    # a carriage return marks the line as progress, which does not stay in an executed notebook
    mark = "\r" if RUNNER in os.environ else ""
    with tqdm.external_write_mode(sys.stderr):
        print(f"{mark}{work}: about {time}, {size} on disk", file=sys.stderr, flush=True)


def check_scheduler(scheduler: str | None) -> None:
    """Raise a ValueError of one line unless this is None, "processes", "processes:N" or an address."""
    known = isinstance(scheduler, str) and re.fullmatch(r"processes(:[1-9]\d*)?|[a-z]+://\S+", scheduler)
    if not (known or scheduler is None):
        forms = "'processes', 'processes:N' or an address such as 'tcp://host:8786'"
        raise ValueError(f"scheduler: must be {forms}, got {shown(scheduler)}")
    if isinstance(scheduler, str) and scheduler.startswith("processes:"):
        whole_number("scheduler: the number of processes", int(scheduler[10:]), most=MOST_PROCESSES)


def is_cluster(scheduler: str | None) -> bool:
    """Whether this is the address of a Dask cluster."""
    return scheduler is not None and "://" in scheduler


def n_workers(address: str) -> int:
    """How many workers a Dask cluster has."""
    with _client(address) as client:
        return len(client.scheduler_info(n_workers=-1)["workers"])


def run_units(
    function: Function, units: Iterable[Unit], *, shared: Sequence[Any] = (), scheduler: str | None = None
) -> Iterator[tuple[Unit, Any]]:
    """Compute ``function(unit, *shared)`` for each unit, and yield the unit with its result as it finishes.

    `function` is a pure function of a module. Units are small values; what all of them read, such as large arrays,
    is `shared` and sent once to each worker. Without a scheduler, units run here one after another, each when it is
    asked for; "processes" or "processes:N" is a pool of processes, an address a Dask cluster, and either computes
    a unit in one thread. ConnectionError: no cluster answers, or it has no workers. RuntimeError: workers die again and
    again, or a worker differs in the code of `function`'s package, in this library, or in a package that determines
    the bits. ImportError: Dask is not installed.

    Examples
    --------
    >>> dict(run_units(pow, [2, 3], shared=[2]))
    {2: 4, 3: 9}
    """
    check_scheduler(scheduler)
    _remove_what_was_left(os.getpid())
    if scheduler is None:
        return ((unit, function(unit, *shared)) for unit in units)
    if is_cluster(scheduler):
        return _on_cluster(function, list(units), tuple(shared), scheduler)
    return _in_processes(function, list(units), tuple(shared), scheduler)


def _in_processes(
    function: Function, units: list[Unit], shared: tuple[Any, ...], scheduler: str
) -> Iterator[tuple[Unit, Any]]:
    from joblib import Parallel, cpu_count, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    size = int(scheduler.partition(":")[2] or cpu_count())
    folder = _folder_of_arrays(os.getpid())
    start = {"initializer": end_with, "initargs": (os.getpid(), folder)}
    # large arrays are mapped into every process, from files in the folder
    pool = Parallel(size, "loky", return_as="generator_unordered", temp_folder=folder, **start)
    try:
        yield from pool(delayed(_in_one_thread)(unit, function, shared) for unit in units)
    except TerminatedWorkerError:
        raise RuntimeError(_died(scheduler)) from None


def end_with(caller: int, folder: str | None = None) -> None:
    """End this worker soon after its caller: one that is killed can neither stop its workers nor clear its folder."""

    def watch() -> None:
        while os.getppid() == caller:
            time.sleep(WATCH_SECONDS)
        shutil.rmtree(folder or "", ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@functools.cache
def _folder_of_arrays(caller: int) -> str:
    """The folder for what the pools of this process share, whose lock this process holds as long as it lives."""
    roomy = os.access(SHARED_MEMORY, os.W_OK) and shutil.disk_usage(SHARED_MEMORY).free > ROOMY_BYTES
    place = Path(os.environ.get("JOBLIB_TEMP_FOLDER") or (SHARED_MEMORY if roomy else tempfile.gettempdir()))
    place.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix=f"tsns_pool_{caller}_", dir=place)
    lock = FileLock(Path(folder, "lock"), thread_local=False)
    lock.acquire()

    def leave() -> None:
        if os.getpid() == caller:  # and not in a fork of it
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()

    atexit.register(leave)
    return folder


@functools.cache
def _remove_what_was_left(caller: int) -> None:
    """Remove, once a process, what pools of killed callers have left in memory: nobody holds the locks of these."""
    places = {SHARED_MEMORY, Path(tempfile.gettempdir()), Path(os.environ.get("JOBLIB_TEMP_FOLDER") or SHARED_MEMORY)}
    for lock in [lock for place in places for lock in place.glob("tsns_pool_*/lock")]:
        with suppress(OSError), FileLock(lock, timeout=0):  # its number may be that of a process in another container
            for semaphore in SHARED_MEMORY.glob(f"sem.loky-{lock.parent.name.split('_')[2]}-*"):
                semaphore.unlink()
            shutil.rmtree(lock.parent)


def _on_cluster(
    function: Function, units: list[Unit], shared: tuple[Any, ...], address: str
) -> Iterator[tuple[Unit, Any]]:
    code = _code_behind(function)
    with _client(address) as client:
        from distributed import as_completed
        from distributed.client import CommClosedError, FutureCancelledError
        from distributed.scheduler import KilledWorker

        with suppress(CommClosedError):  # the scheduler has just gone, as the first round will notice
            _refuse_other_code(client, code)
        unfinished = dict(enumerate(units))
        for _ in range(ROUNDS):
            try:
                client.wait_for_workers(1, timeout=REACH_SECONDS)
                [sent] = client.scatter([shared], hash=False)  # to all it would wait for ever for one that dies now
            # the scheduler is gone, so that the client has closed itself, or every worker is, or one has just left
            except (OSError, RuntimeError, KeyError, AttributeError):
                continue
            submitted = {
                client.submit(_on_worker, unit, function, sent, code, retries=RETRIES, pure=False): number
                for number, unit in unfinished.items()
            }
            for future in as_completed(submitted, loop=client.loop):
                try:
                    result = future.result()
                except (FutureCancelledError, CommClosedError):
                    continue  # the last worker that held the shared arguments is lost, or the scheduler is
                except KilledWorker:
                    raise RuntimeError(_died(address)) from None
                future.release()
                yield unfinished.pop(submitted[future]), result
            if not unfinished:
                return
        raise RuntimeError(_died(address))


def _client(address: str) -> Any:
    try:
        from distributed import Client, Security
    except ImportError:
        raise ImportError("scheduler: needs Dask: pip install '.[distributed]'") from None
    if address.startswith("tls://") and Security().get_connection_args("client")["ssl_context"] is None:
        how = "name them in Dask's settings (distributed.comm.tls)"
        raise ConnectionError(f"scheduler: {address} needs certificates; {how}")
    client = None
    try:
        client = Client(address, timeout=REACH_SECONDS, set_as_default=False)
        client.wait_for_workers(1, timeout=REACH_SECONDS)
    except (OSError, ValueError) as error:  # a timeout is an OSError, an unknown protocol a ValueError
        if client is not None:
            client.close()
            raise ConnectionError(f"scheduler: the Dask cluster at {address} has no workers") from None
        raise ConnectionError(f"scheduler: no Dask cluster answers at {address} ({type(error).__name__})") from None
    return client


def _code_behind(function: Function) -> dict[str, str]:
    """What a worker must have in common with the caller: digests of the packages of code, and versions."""
    package = (function.__module__ or "builtins").partition(".")[0]
    packages = {"tsns_lib", package} - {"__main__", *sys.stdlib_module_names}
    return {name: code_digest(name) for name in sorted(packages)} | {name: _version(name) for name in SAME_VERSIONS}


def _version(package: str) -> str:
    return metadata.version(package).partition("+")[0]  # 2.6.0+cpu is 2.6.0, built for another device


def _difference(code: dict[str, str]) -> str | None:
    """The first difference between the code here and the caller's, in words; None where there is none."""
    for name, expected in code.items():
        try:
            actual = _version(name) if name in SAME_VERSIONS else code_digest(name)
        except ModuleNotFoundError:
            return f"a worker on {platform.node()} lacks {name}"
        if actual != expected:
            return f"a worker on {platform.node()} has {name} {actual[:12]}, the caller {expected[:12]}"
    return None


def _refuse_other_code(client: Any, code: dict[str, str]) -> None:
    """Raise one clear line before any work where a worker lacks the caller's code or has other code."""
    for worker, difference in client.run(_difference, code, on_error="return").items():
        if isinstance(difference, OSError):  # the worker is leaving
            continue
        if isinstance(difference, Exception):
            difference = f"the worker at {worker} cannot load tsns_lib ({difference})"
        if difference:
            raise RuntimeError(f"scheduler: {difference}; install the same on both")


def _on_worker(unit: Unit, function: Function, shared: tuple[Any, ...], code: dict[str, str]) -> Any:
    """Compute a unit on a cluster; a worker that joined after the first check is checked here."""
    if difference := _difference(code):
        raise RuntimeError(f"scheduler: {difference}; install the same on both")
    return _in_one_thread(unit, function, shared)[1]


def _in_one_thread(unit: Unit, function: Function, shared: tuple[Any, ...]) -> tuple[Unit, Any]:
    with _one_thread_each:
        return unit, function(unit, *shared)


class _OneThreadEach:
    """While units run, numeric libraries of this process use one thread for each.

    That is a setting of the process, and a Dask worker may compute several units at a time: every unit that enters sets
    it, since libraries may have been loaded meanwhile, and the last one to leave puts back what was.
    """

    def __init__(self) -> None:
        self._door, self._inside, self._before = threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        from threadpoolctl import threadpool_limits

        with self._door:
            self._inside += 1
            self._before.enter_context(threadpool_limits(1))
            if "torch" in sys.modules:
                torch = sys.modules["torch"]
                self._before.callback(torch.set_num_threads, torch.get_num_threads())
                torch.set_num_threads(1)

    def __exit__(self, *error: object) -> None:
        with self._door:
            self._inside -= 1
            if not self._inside:
                self._before.close()


_one_thread_each = _OneThreadEach()


def _died(scheduler: str) -> str:
    return f"scheduler: workers of {scheduler} died (out of memory?); what is finished is kept, run it again to go on"
