"""Processes that `soak.py` kills, each with what it starts, and the folders that they work in."""

import asyncio
import atexit
import hashlib
import itertools
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from soak_workloads import WORKLOADS, make_project

DIED = 3  # the status of a run that says in one line that workers died
MEMORY = "/dev/shm"
OWN = "tsns-soak-"  # how the folders of this program begin
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate"}  # and "open" for writing
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
AT_HOME = {"host": "127.0.0.1", "port": 0, "dashboard": False}
STARTS_WITHIN = 60.0  # a Dask scheduler

STARTED: list["Process"] = []
PLACES: list["Place"] = []
N_CHANGES = [0]


@dataclass
class Process:
    """A forked process. What it started is known by its session, or by a word in the environment."""

    pid: int
    word: str
    log: Path
    status: int | None = None
    over_at: float = 0.0

    @property
    def ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status, self.over_at = os.waitstatus_to_exitcode(status), time.monotonic()
        return self.status is not None

    def wait(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not self.ended and time.monotonic() < until:
            time.sleep(0.005)
        return self.ended

    def family(self) -> dict[int, str]:
        """Number and command of every living process that it started, itself excluded."""
        found = {}
        word = f"TSNS_SOAK={self.word}\0".encode()
        for pid in {int(name) for name in os.listdir("/proc") if name.isdigit()} - {self.pid, os.getpid()}:
            with suppress(OSError):
                state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
                mine = int(session) == self.pid or word in Path(f"/proc/{pid}/environ").read_bytes()
                if mine and state not in "ZX":
                    found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:200]
        return found

    def end(self) -> None:
        """Kill it with all that it started, once nothing more is to be seen; trackers of resources clean up last."""
        family = self.family()
        for pid in (*family, *([] if self.ended else [self.pid])):
            if "resource_tracker" not in family.get(pid, ""):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.wait(10)

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def last_words(self) -> str:
        return "".join(f"\n    | {line}" for line in self.said().splitlines()[-12:])


class Place:
    """Where one piece of work lives: its store, project, temporary folder, shared memory and cluster."""

    def __init__(self, root: Path) -> None:
        self.root, self.numbers = root, itertools.count()
        for name in ("store", "tmp", "logs", "results", "jupyter", "dask"):
            (root / name).mkdir(parents=True)
        self.memory = Path(tempfile.mkdtemp(prefix=OWN, dir=MEMORY))
        self.cluster = Cluster(self)
        make_project(root / "project")
        PLACES.append(self)

    def end(self) -> None:
        self.cluster.stop()
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self.memory, ignore_errors=True)

    def results(self, run: Process) -> dict[str, Any]:
        path = self.root / f"results/{run.log.stem}.json"
        return json.loads(path.read_text()) if path.exists() else {"sums": {}}

    def files(self) -> dict[str, bytes]:
        """Every file that was written but locks, by its path; without times."""
        files = {}
        for folder in ("store", "project"):
            for path in sorted((self.root / folder).rglob("*")):
                name = path.relative_to(self.root).as_posix()
                with suppress(FileNotFoundError, NotADirectoryError):  # what outlives a kill may still move it
                    if path.is_file() and path.suffix != ".lock":
                        files[name] = timeless(path.read_bytes()) if path.suffix == ".json" else path.read_bytes()
        return files


def timeless(content: bytes) -> bytes:
    """JSON without the seconds that work took, and without the checksum of a file that holds them."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            timed = {"seconds", *(["sha256"] if "seconds" in value.get("facts", ()) else [])}
            return {k: strip(v) for k, v in value.items() if k not in timed and not k.endswith(".results.json")}
        return [strip(item) for item in value] if isinstance(value, list) else value

    with suppress(ValueError):
        value = json.loads(content)
        return content if strip(value) == value else json.dumps(strip(value)).encode()
    return content


def fork(place: Place, work: Callable[[Path], int], *, die_at: int | None = None, alone: bool = False) -> Process:
    """Start `work` in a new session; with `die_at`, SIGKILL hits it just before that change of a file."""
    number = next(place.numbers)
    word, log = f"{os.getpid()}-{place.root.name}-{number}", place.root / f"logs/{number:03d}.txt"
    sys.stdout.flush()
    if pid := os.fork():
        process = Process(pid, word, log)
        STARTED.append(process)
        return process
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        folders = {"TSNS_CACHE": "store", "TSNS_ROOT": "project", "TMPDIR": "tmp", "JUPYTER_RUNTIME_DIR": "jupyter"}
        os.environ.update({name: str(place.root / folder) for name, folder in folders.items()})
        os.environ.update(TSNS_SOAK=word, JOBLIB_TEMP_FOLDER=str(place.memory), TQDM_DISABLE="1", HF_HUB_OFFLINE="1")
        os.environ.pop("TSNS_DATA", None)
        tempfile.tempdir = None
        os.chdir(place.root)
        count_changes(place, die_at, alone)
        code = work(place.root / f"results/{number:03d}.json")
    except (RuntimeError, ConnectionError) as error:  # how this library says that workers died
        code = DIED
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    with suppress(BaseException):  # what the interpreter does at the end of a process
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def count_changes(place: Place, die_at: int | None, alone: bool) -> None:
    """Count the changes that this process makes in its store and project, and die before number `die_at`."""
    watched = tuple(f"{place.root / folder}{os.sep}" for folder in ("store", "project"))

    def hook(event: str, values: tuple[Any, ...]) -> None:
        if event not in CHANGES and not (event == "open" and values[2] and values[2] & WRITES):
            return
        path = os.fspath(values[0]) if isinstance(values[0], str | os.PathLike) else ""
        if path.startswith(watched) or (path and not os.path.isabs(path)):  # relative: a folder is being removed
            N_CHANGES[0] += 1
            if N_CHANGES[0] == die_at:
                os.kill(os.getpid(), signal.SIGKILL) if alone else os.killpg(0, signal.SIGKILL)

    sys.addaudithook(hook)


def start(workload: str, place: Place, inputs: Path, scheduler: str | None, **die: Any) -> Process:
    """Start a workload; checksums of its results come into a file."""

    def work(results: Path) -> int:
        from tsns_lib import executors

        logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
        executors.REACH_SECONDS, executors.ROUNDS = 3, 2
        got = WORKLOADS[workload](inputs, scheduler)
        sums = {} if isinstance(got, int) else {name: checksum(array) for name, array in got.items()}
        results.write_text(json.dumps({"sums": sums, "changes": N_CHANGES[0]}))
        return got if isinstance(got, int) else 0

    return fork(place, work, **die)


def end_all() -> None:
    """Kill what still lives and remove its folders."""
    for left in (*STARTED, *PLACES):
        left.end()


def checksum(array: np.ndarray) -> str:
    return f"{array.dtype.str} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


class Cluster:
    """A Dask scheduler and two workers of one thread, each a process; `ready` starts what is not there."""

    def __init__(self, place: Place) -> None:
        self.place, self.address = place, place.root / "address"
        self.scheduler: Process | None = None
        self.workers: list[Process] = []

    def ready(self) -> str:
        from distributed import Scheduler, Worker

        if self.scheduler is None or self.scheduler.ended:
            self.stop()
            self.address.unlink(missing_ok=True)
            self.scheduler = fork(self.place, lambda _: asyncio.run(serve(lambda: Scheduler(**AT_HOME), self.address)))
            until = time.monotonic() + STARTS_WITHIN
            while not self.address.exists():
                assert time.monotonic() < until, f"no Dask scheduler: {self.scheduler.last_words()}"
                time.sleep(0.02)
        address = self.address.read_text()
        worker = partial(Worker, address, nthreads=1, dashboard=False)
        self.workers = [process for process in self.workers if not process.ended]
        while len(self.workers) < 2:
            self.workers.append(fork(self.place, lambda _: asyncio.run(serve(worker))))
        return address

    def stop(self) -> None:
        for process in (*self.workers, *([self.scheduler] if self.scheduler else [])):
            process.end()
        self.scheduler, self.workers = None, []


async def serve(make: Callable[[], Any], where: Path | None = None) -> int:
    import dask

    dask.config.set({"temporary-directory": os.path.abspath("dask")})
    async with make() as server:
        if where is not None:
            where.with_suffix(".new").write_text(server.address)
            where.with_suffix(".new").rename(where)
        await server.finished()
    return 0
