"""Progress as text, which notebooks, terminals and logs show alike: what work will cost, then a bar over it.

Units of work here, in a pool of processes or on a Dask cluster: the same bits everywhere.

A unit is a pure function of its arguments, seeds included, so that where and when it runs cannot matter. Nothing is
written where it runs: results come back as they finish and the caller writes each durably, so that no disk has to be
shared, and what is finished survives whatever happens to the engine.
"""

import io
import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from typing import Any

from tqdm import tqdm

from tsns_lib.store import library_sha256


def bar(items: Iterable | None = None, *, show: bool, **options: Any) -> tqdm:
    """A bar over the items that vanishes when done; `TQDM_DISABLE` hides it where it would be shown."""
    if not show:
        options["disable"] = True  # and never False, which would overrule the environment
    return tqdm(items, leave=False, **options)


def is_shown(show: bool) -> bool:
    """Whether a bar would be seen; a probe of what work costs is worth its time only then."""
    with bar(show=show, file=io.StringIO()) as probe:
        return not probe.disable


def announce(work: str, seconds: float, n_bytes: float) -> None:
    """Say in one line, before long work starts, what it will cost.

    Parameters
    ----------
    work : str
        What and how much: "100 forests of 1,000 trees".
    seconds : float
        Forecast from a measured probe.
    n_bytes : float
        What will be kept on disk.
    """
    hours, minutes = seconds / 3600, seconds / 60
    time = f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
    size = f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"
    # a carriage return marks the line as progress, which does not stay in an executed notebook
    print(f"\r{work}: about {time}, {size} on disk", file=sys.stderr, flush=True)


REACH_SECONDS = 10  # for a scheduler, and for its first worker, to answer
RETRIES = 3  # of a unit that raises: a disk or a network may come back
ROUNDS = 5  # of sending what all units share again, when the workers that held it are gone
SAME_BITS = ("numpy", "numba", "scikit-learn", "torch", "transformers")  # packages that results follow from

Unit = Any
Function = Callable[..., Any]


def check_scheduler(scheduler: str | None) -> None:
    """One clear line for what is no scheduler."""
    known = isinstance(scheduler, str) and re.fullmatch(r"processes(:[1-9]\d*)?|[a-z]+://\S+", scheduler)
    if not (known or scheduler is None):
        forms = "'processes', 'processes:N' or an address such as 'tcp://host:8786'"
        raise ValueError(f"scheduler: must be {forms}, got {scheduler!r}")


def is_cluster(scheduler: str | None) -> bool:
    """Whether that is the address of a Dask cluster."""
    return scheduler is not None and "://" in scheduler


def run_units(
    function: Function, units: Iterable[Unit], *, shared: Sequence[Any] = (), scheduler: str | None = None
) -> Iterator[tuple[Unit, Any]]:
    """Compute units, and yield each with its result as it finishes.

    Parameters
    ----------
    function : callable
        A pure function of a module, called as ``function(unit, *shared)``.
    units : iterable
        Small values that can be sent to a worker: numbers, tuples.
    shared : sequence
        What all units read, such as large arrays; sent once to each worker.
    scheduler : str, optional
        "processes" or "processes:N" for a pool of processes (N: the cores), or the address of a Dask cluster.
        Default: here, one after another, each when it is asked for. A worker computes a unit in one thread.

    Yields
    ------
    tuple
        A unit and its result.

    Raises
    ------
    ValueError
        If `scheduler` is none of these.
    ConnectionError
        If no cluster answers at the address, or it has no workers.
    RuntimeError
        If workers die again and again, or a worker has another version of the library or of what it rests on.
    ImportError
        If Dask is not installed.

    Examples
    --------
    >>> dict(run_units(pow, [2, 3], shared=[2]))
    {2: 4, 3: 9}
    """
    check_scheduler(scheduler)
    if scheduler is None:
        return ((unit, function(unit, *shared)) for unit in units)
    if is_cluster(scheduler):
        return _on_cluster(function, list(units), tuple(shared), scheduler)
    return _in_processes(function, list(units), tuple(shared), scheduler)


def n_workers(address: str) -> int:
    """How many workers a Dask cluster has."""
    with _client(address) as client:
        return len(client.scheduler_info(n_workers=-1)["workers"])


def _in_processes(
    function: Function, units: list[Unit], shared: tuple[Any, ...], scheduler: str
) -> Iterator[tuple[Unit, Any]]:
    from joblib import Parallel, cpu_count, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    size = int(scheduler.partition(":")[2] or cpu_count())
    pool = Parallel(size, backend="loky", return_as="generator_unordered")  # maps large arrays into every process
    try:
        yield from pool(delayed(_in_one_thread)(unit, function, shared) for unit in units)
    except TerminatedWorkerError:
        raise RuntimeError(_died(scheduler)) from None


def _on_cluster(
    function: Function, units: list[Unit], shared: tuple[Any, ...], address: str
) -> Iterator[tuple[Unit, Any]]:
    with _client(address) as client:
        from distributed import as_completed
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        _refuse_other_code(client)
        versions, left = _versions(), dict(enumerate(units))
        for _ in range(ROUNDS):
            try:
                client.wait_for_workers(1, timeout=REACH_SECONDS)
                [sent] = client.scatter([shared], broadcast=True, hash=False)
            except (OSError, RuntimeError):  # the scheduler, every worker, or one just now is gone
                continue
            submitted = {
                client.submit(_on_worker, unit, function, sent, versions, retries=RETRIES, pure=False): number
                for number, unit in left.items()
            }
            for future in as_completed(submitted, loop=client.loop):
                try:
                    result = future.result()
                except FutureCancelledError:  # what it reads was lost with the last worker that held it
                    continue
                except KilledWorker:
                    raise RuntimeError(_died(address)) from None
                future.release()
                yield left.pop(submitted[future]), result
            if not left:
                return
        raise RuntimeError(_died(address))


def _client(address: str) -> Any:
    try:
        from distributed import Client, Security
    except ImportError:
        raise ImportError("scheduler: needs Dask; pip install 'tsns_lib[distributed]'") from None
    if address.startswith("tls://") and Security().get_connection_args("client")["ssl_context"] is None:
        raise ConnectionError(
            f"scheduler: {address} needs certificates; name them in Dask's settings (distributed.comm.tls)"
        )
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


def _refuse_other_code(client: Any) -> None:
    """One clear line before any work, where a worker is made of other code or lacks it."""
    for worker, found in client.run(_difference, _versions(), on_error="return").items():
        if isinstance(found, Exception) and not isinstance(found, OSError):  # an OSError: it is leaving
            found = f"the worker at {worker} cannot load tsns_lib ({found})"
        if isinstance(found, str):
            raise RuntimeError(f"scheduler: {found}; install the same on both")


def _on_worker(unit: Unit, function: Function, shared: tuple[Any, ...], versions: dict[str, str]) -> Any:
    """Compute a unit on a cluster, if this worker, which may have come late, is made of the same code."""
    if found := _difference(versions):
        raise RuntimeError(f"scheduler: {found}; install the same on both")
    return _in_one_thread(unit, function, shared)[1]


def _difference(versions: dict[str, str]) -> str | None:
    """What is not the same here as at the caller: the same bits need the same code."""
    for name, version in _versions().items():
        if version != versions[name]:
            return f"a worker on {platform.node()} has {name} {version[:12]}, the caller {versions[name][:12]}"
    return None


def _in_one_thread(unit: Unit, function: Function, shared: tuple[Any, ...]) -> tuple[Unit, Any]:
    from threadpoolctl import threadpool_limits

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    with threadpool_limits(1):
        return unit, function(unit, *shared)


def _versions() -> dict[str, str]:
    # a build for another device, such as 2.6.0+cpu, is the same version
    packages = {name: metadata.version(name).partition("+")[0] for name in SAME_BITS}
    return {"tsns_lib": library_sha256()} | packages


def _died(scheduler: str) -> str:
    return f"scheduler: workers of {scheduler} died (out of memory?); what is finished is kept, run it again to go on"
