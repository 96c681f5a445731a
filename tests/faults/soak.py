"""Kill the work, damage what it stored, run it again, and look whether anything was lost: `make soak`.

Each workload runs in a process with a session, a store, a project and a temporary folder of its own. SIGKILL hits it at
a seeded moment, or just before its n-th change of a file; then the same work is started again, until one run is left
alone and finishes. Every stored file and every result must equal those of a run that was never disturbed. Then one
byte of its store is flipped, and the work uses the store again: it must say so, and the results are the same.

A process is forked from this one, which has imported the packages and has done nothing else: no model is loaded, no
thread and no pool is started. So a start takes no seconds, and what is killed is a real process.
"""

import argparse
import hashlib
import importlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from soak_processes import DIED, MEMORY, OWN, Place, Process, end_all, fork, start
from soak_workloads import WORKLOADS, activations, make_inputs

SEAL = "sha256.json"  # of an encoder's folder
PATIENCE = 90.0  # a run that was started again and takes longer is blocked; alone it takes seconds
ORPHANS_MAY_LIVE = 5.0
KILLS_IN_A_ROW = (2, 4)  # before a run is left alone and compared
COLUMNS = ("kills", "flips")  # what was done
COLUMNS += ("differing bytes", "blocked reruns", "orphans", "leftovers", "false warnings", "unnoticed flips")

# What SIGKILL can hit: "caller" is the process that was started, "group" all that it has started as well. Any two modes
# give the same bits, so a piece of work that was begun in one mode is ended in another.
HERE, POOL, DASK = None, "processes:2", "dask"
MODES = {
    "run": [(HERE, "caller"), (HERE, "kernel"), (POOL, "group"), (DASK, "worker"), (DASK, "scheduler")],
    "extract": [(HERE, "group"), (DASK, "worker"), (POOL, "worker"), (DASK, "scheduler"), (POOL, "caller")],
    "resampled_importance": [(POOL, "group"), (POOL, "worker"), (DASK, "worker"), (POOL, "caller"), (DASK, "caller")],
    "MultiTSNS": [(DASK, "scheduler"), (HERE, "group"), (POOL, "caller"), (DASK, "worker"), (POOL, "worker")],
    "fine_tune": [(HERE, "group")],  # it has no scheduler
}
SLOWER_BY = {HERE: 0.0, POOL: 2.0, DASK: 1.0}  # seconds, to start a pool or to reach a cluster

FAILED = {"run": {1}}  # a notebook that failed is an outcome of the command
MARKS = {"kernel": "ipykernel_launcher", "worker": "popen_loky"}  # of a command

# What is there for a while only: files being written, checkpoints of a training, notebooks that failed.
PASSING = re.compile(r"(^|/)(checkpoints/|tmp[^/]*/|\.[^/]*part(\.ipynb)?$)|\.failed\.ipynb$")
# A claim of damage, which is never true here: SIGKILL damages no file.
DAMAGE = re.compile(
    r"damage|set aside|checksum|not (as|what) (it )?was|written again|cut short|StoreError", re.IGNORECASE
)


class Soak:
    """One workload: kills it, counts what was found, and says it."""

    def __init__(self, workload: str, root: Path, inputs: Path, seed: int) -> None:
        self.workload, self.root, self.inputs = workload, root, inputs
        self.rng = random.Random(f"{seed} {workload}")
        self.counts = dict.fromkeys(COLUMNS, 0)
        self.pids: set[int] = set()

    def found(self, column: str, n: int, words: str) -> None:
        self.counts[column] += n
        print(f"{self.workload}: {column}: {words}", flush=True)

    def undisturbed(self) -> None:
        """The run that all others are compared with."""
        self.reference = place = Place(self.root / "reference")
        began = time.monotonic()
        run = start(self.workload, place, self.inputs, HERE)
        if not run.wait(600) or run.status:
            raise SystemExit(f"{self.workload}: does not even run undisturbed{run.last_words()}")
        self.seconds = time.monotonic() - began
        self.sums, self.n_changes = place.results(run)["sums"], place.results(run)["changes"]
        self.files = place.files()

    def kill(self, n_kills: int) -> None:
        """Pieces of work, each disturbed a few times and then left alone, until there were that many kills."""
        modes, idle = itertools.cycle(MODES[self.workload]), 0
        scheduler, target = next(modes)
        for number in itertools.count():
            if self.counts["kills"] >= n_kills:
                break
            place, dead, used = Place(self.root / f"work-{number}"), [], scheduler
            for _ in range(self.rng.randint(*KILLS_IN_A_ROW)):
                run, victim = self.disturb(place, used := scheduler, target)
                if victim:
                    dead.append(victim)
                    scheduler, target = next(modes)
                idle = 0 if victim else idle + 1
                if run.status == 0 or self.counts["kills"] >= n_kills:
                    break
            if idle > 30:
                raise SystemExit(f"{self.workload}: ends too soon to be hit ({scheduler or 'here'}, {target})")
            self.leave_alone(place, used, dead)
            place.end()

    def flip(self, n_flips: int) -> None:
        """Flip one byte of the store at rest, at a random place of a random file, and use the store again."""
        names = sorted(name for name, content in self.files.items() if name.startswith("store/") and content)
        for number in range(n_flips if names else 0):
            place, name = Place(self.root / f"flip-{number}"), self.rng.choice(names)
            shutil.copytree(self.reference.root / "store", place.root / "store", dirs_exist_ok=True)
            path = place.root / name
            content = bytearray(path.read_bytes())
            where = self.rng.randrange(len(content))
            content[where] ^= self.rng.randrange(1, 256)
            path.write_bytes(content)
            words = f"byte {where} of {name} flipped"
            run = self.start(place, HERE)
            self.must_end(run, words, {0}, damage=str(path.parent))  # a damaged seal accuses the file beside it
            self.compare(run, place, words)
            self.counts["flips"] += 1
            place.end()

    def start(self, place: Place, scheduler: str | None, **die: Any) -> Process:
        address = place.cluster.ready() if scheduler == DASK else scheduler
        run = start(self.workload, place, self.inputs, address, **die)
        self.pids.add(run.pid)
        return run

    def disturb(self, place: Place, scheduler: str | None, target: str) -> tuple[Process, Process | None]:
        """One run and one kill: the run, and what was killed of it, if anything was."""
        whole = target in ("group", "caller")
        moment = self.rng.uniform(0, self.seconds + SLOWER_BY[scheduler])
        if whole and self.rng.random() < 0.5:
            number = self.rng.randint(1, self.n_changes)
            words = f"{scheduler or 'here'}, {target} killed before change {number}"
            run = self.start(place, scheduler, die_at=number, alone=target == "caller")
            victim = run if run.wait(PATIENCE) and run.status == -signal.SIGKILL else None
        else:
            words = f"{scheduler or 'here'}, {target} killed after {moment:.2f} s"
            run = self.start(place, scheduler)
            run.wait(moment)
            victim = self.strike(run, place, scheduler, target)
        fine = {0}
        if victim and whole and run.wait(PATIENCE) and run.status == 0:  # it came too late
            victim = None
        if victim:
            self.counts["kills"] += 1
            victim.over_at = time.monotonic()
            fine = {-signal.SIGKILL} if whole else {0, DIED, *FAILED.get(self.workload, ())}
        self.must_end(run, words, fine)
        for name, content in place.files().items():  # a file under its final name is the whole file
            if name.endswith("manifest.json"):  # it may promise more later
                for shard in json.loads(content)["shards"]:
                    path = (place.root / name).with_name(shard["file"])
                    if hashlib.sha256(path.read_bytes()).hexdigest() != shard["sha256"]:
                        self.found("differing bytes", 1, f"{words}: {path.name} is not what {name} promises")
            elif "/encoders/" in name and not (place.root / name).with_name(SEAL).exists():
                continue  # nobody believes a folder before its seal is there, which is written last
            elif not PASSING.search(name) and content != self.files.get(name, content):
                self.differs(words, f"{name}, after the kill", content, self.files[name])
        return run, victim

    def strike(self, run: Process, place: Place, scheduler: str | None, target: str) -> Process | None:
        """Send SIGKILL; None where the run ended before there was anything to hit."""
        while not run.ended:
            family = run.family()
            self.pids |= family.keys()
            if target in ("group", "caller"):
                for pid in (run.pid, *(family if target == "group" else ())):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return run
            if scheduler == DASK:
                victim = place.cluster.scheduler if target == "scheduler" else self.rng.choice(place.cluster.workers)
                assert victim
                os.kill(victim.pid, signal.SIGKILL)
                return victim
            for pid, command in sorted(family.items()):
                if MARKS[target] in command:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        return run
            time.sleep(0.02)
        return None

    def must_end(self, run: Process, words: str, fine: set[int], damage: str = "") -> None:
        """A run ends by itself, in one of these ways, and claims no damage but that which was done in a folder."""
        if not run.wait(PATIENCE):
            self.found("blocked reruns", 1, f"{words}: still running{run.last_words()}")
            run.end()
        elif run.status not in fine:
            self.found("blocked reruns", 1, f"{words}: ended with {run.status}{run.last_words()}")
        claims = [line for line in run.said().splitlines() if DAMAGE.search(line)]
        if damage and not any(damage in line for line in claims):
            self.found("unnoticed flips", 1, f"{words}: nobody says so{run.last_words()}")
        if claims and not damage:
            self.found("false warnings", len(claims), f"{words}: {claims[0]}")

    def leave_alone(self, place: Place, scheduler: str | None, dead: list[Process]) -> None:
        """The run that finishes; whether all is there, and nothing else."""
        words = f"{scheduler or 'here'}, left alone"
        run = self.start(place, scheduler)
        self.must_end(run, words, {0})
        place.cluster.stop()
        for process in (*dead, run):
            while (alive := process.family()) and time.monotonic() < process.over_at + ORPHANS_MAY_LIVE:
                time.sleep(0.05)
            if alive:
                self.found("orphans", len(alive), f"{words}: {alive}")
                process.end()
        files = self.compare(run, place, words)
        begin_other_work(place)
        others = [name for name in os.listdir(MEMORY) if not name.startswith(OWN)]  # whose digits are no process
        shared = [name for name in others if self.pids & {int(digits) for digits in re.findall(r"\d+", name)}]
        left = [*sorted({*files} - {*self.files}), *os.listdir(place.root / "tmp"), *os.listdir(place.memory), *shared]
        if left:
            self.found("leftovers", len(left), f"{words}: {', '.join(left)}")
        self.pids.clear()  # each leftover is found once

    def compare(self, run: Process, place: Place, words: str) -> dict[str, bytes]:
        """The files that are there now; all results and files are those of the undisturbed run."""
        sums, files = place.results(run)["sums"], place.files()
        for name in self.sums:
            if sums.get(name) != self.sums[name]:
                self.found("differing bytes", 1, f"{words}: result {name}")
        for name, content in self.files.items():
            if files.get(name) != content:
                self.differs(words, name, files.get(name, b""), content)
        return files

    def differs(self, words: str, name: str, content: bytes, expected: bytes) -> None:
        n = sum(a != b for a, b in zip(content, expected, strict=False)) + abs(len(content) - len(expected))
        where = next((i for i, (a, b) in enumerate(zip(content, expected, strict=False)) if a != b), 0)
        beginning = slice(max(0, where - 40), where + 40)
        self.found("differing bytes", n, f"{words}: {name}: {content[beginning]!r}, not {expected[beginning]!r}")


def begin_other_work(place: Place) -> None:
    """What pools have left goes when the next units run; a run that found everything done had none."""

    def work(results: Path) -> int:
        from tsns_lib.executors import run_units

        return len(list(run_units(abs, [])))

    fork(place, work).wait(PATIENCE)


def import_all() -> None:
    """Import what the workloads need, so that a forked process starts at once."""
    names = ("cli", "run", "finetuning.finetune", "finetuning.model", "finetuning.training")
    for name in (*(f"tsns_workbook.{name}" for name in names), "distributed", "sklearn.linear_model"):
        importlib.import_module(name)
    importlib.import_module("transformers.models.bert.modeling_bert")


def prepare(place: Place) -> Path:
    """Make the inputs and compile the forest, in a process of its own."""

    def work(results: Path) -> int:
        from tsns_lib import forest_importance

        make_inputs(place.root)
        X, y, _ = activations()
        forest_importance(X[:, :50], y, n_trees=1)
        return 0

    process = fork(place, work)
    if not process.wait(600) or process.status:
        raise SystemExit(f"cannot begin{process.last_words()}")
    return place.root


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)} (default: all)")
    parser.add_argument("--kills", type=int, default=20, help="of each workload (default: 20)")
    parser.add_argument("--flips", type=int, default=50, help="of a byte of the store of each but run (default: 50)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("soak: was told to end"))
    import_all()
    root, rows = Path(tempfile.mkdtemp(prefix=OWN)).resolve(), []
    try:
        inputs = prepare(Place(root / "prepared"))
        for workload in arguments.workloads or WORKLOADS:
            began = time.monotonic()
            soak = Soak(workload, root / workload, inputs, arguments.seed)
            soak.undisturbed()
            soak.kill(arguments.kills)
            if workload != "run":  # which finds its outputs up to date, and reads no store
                soak.flip(arguments.flips)
            done = f"{soak.counts['kills']} kills, {soak.counts['flips']} flips"
            print(f"{workload}: {done}, {time.monotonic() - began:.0f} s", flush=True)
            rows.append((workload, *soak.counts.values()))
    finally:
        end_all()
        shutil.rmtree(root, ignore_errors=True)
    rows.append(("all", *(sum(row[i] for row in rows) for i in range(1, 1 + len(COLUMNS)))))
    for name, *cells in (("workload", *COLUMNS), *rows):
        print(
            name.ljust(20), *(str(cell).rjust(len(head)) for cell, head in zip(cells, COLUMNS, strict=True)), sep="  "
        )
    return int(any(rows[-1][3:]))


if __name__ == "__main__":
    sys.exit(main())
