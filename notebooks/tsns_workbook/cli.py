"""Run the notebooks of a profile, show their state, and look after the cache."""

import argparse
import itertools
import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tsns_lib.encoders import SEAL
from tsns_lib.executors import is_cluster, n_workers
from tsns_lib.store import Entry, Store, StoreError, sha256_of
from tsns_workbook.project import Job, Outcome, ProjectError, parse_overrides, plan, project_root

MOST_JOBS = 256  # more processes than any machine here has cores for


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    The status is 0; 1 if a notebook failed; 2 for a wrong profile, notebook or parameter; 130 after Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except (ProjectError, StoreError, OSError, ImportError) as error:
        print(f"tsns: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tsns: interrupted; run the same command again to continue", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tsns", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="execute notebooks and write them to outputs/PROFILE")
    run.add_argument("names", nargs="*", metavar="NAME", help="a notebook's name or its beginning (default: all)")
    run.add_argument("--profile", default="mini", help="a folder in params/ (default: mini)")
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="run N notebooks at a time (default: 1)")
    run.add_argument("--scheduler", metavar="WHERE", help="compute in processes[:N] or on a Dask cluster (address)")
    run.add_argument(
        "--param", action="append", default=[], metavar="K=V", help="change a parameter; writes to outputs/PROFILE+"
    )
    run.add_argument("--force", action="store_true", help="run even the notebooks that are up to date")
    run.set_defaults(command=_run)

    status = commands.add_parser("status", help="show which notebooks are up to date and why others would run")
    status.add_argument("--profile", default="mini", help="a folder in params/ (default: mini)")
    status.set_defaults(command=_status)

    get = commands.add_parser("get", help="fetch the corpora of Table 1 into a folder, and an encoder")
    get.add_argument("folder", type=Path, help="where the corpora go; name it later as TSNS_DATA")
    get.add_argument("corpora", nargs="*", metavar="CORPUS", help="such as mrpc (default: all)")
    get.add_argument("--encoder", metavar="NAME", help="bert-large-uncased or bert-base-uncased, into the hub's cache")
    get.add_argument("--accept", action="store_true", help="accept the terms that are printed; else nothing is fetched")
    get.add_argument("--dry-run", action="store_true", help="only print terms, sizes and sources")
    get.set_defaults(command=_get)

    analyse = commands.add_parser("analyse", help="say what one can expect of texts of your own, in one HTML page")
    analyse.add_argument("source", metavar="FILE", help="texts with labels: CSV, TSV, JSONL or Parquet")
    analyse.add_argument("--target", default="", metavar="FILE", help="other texts to predict, with or without labels")
    for role in ("", "target-"):
        whose = "the target, if it is another" if role else "the texts"
        analyse.add_argument(f"--{role}text", default="", metavar="COLUMN", help=f"column of {whose} (default: text)")
        analyse.add_argument(f"--{role}text-pair", default="", metavar="COLUMN", help=f"second texts of {whose}")
        analyse.add_argument(f"--{role}label", default="", metavar="COLUMN", help=f"labels of {whose} (default: label)")
        analyse.add_argument(
            f"--{role}labels", default="", metavar="MEANING", help="such as 1=neg,2=neg,3=,4=pos,5=pos; 3 is left out"
        )
    analyse.add_argument("--encoder", default="", metavar="NAME", help="a folder or hub id (default: the built-in one)")
    analyse.add_argument("--out", type=Path, metavar="FOLDER", help="where it goes (default: FILE's name and -report)")
    analyse.add_argument("--param", action="append", default=[], metavar="K=V", help="such as k=100, rows=0 (all rows)")
    analyse.set_defaults(command=_analyse)

    predict = commands.add_parser("predict", help="predict texts with a model that analyse saved")
    predict.add_argument("model", metavar="MODEL", help="its folder")
    predict.add_argument("file", metavar="FILE", help="texts; labels are not needed")
    predict.add_argument("--text", metavar="COLUMN", help="column of the texts (default: text)")
    predict.add_argument("--text-pair", metavar="COLUMN", help="column of second texts (default: text_pair, if any)")
    predict.add_argument("--out", default="predictions.csv", metavar="FILE", help="default: predictions.csv")
    predict.set_defaults(command=_predict)

    cache = commands.add_parser("cache", help="show what is cached and how large it is")
    cache.add_argument("--verify", action="store_true", help="read everything and name what is damaged")
    cache.add_argument("--prune", action="store_true", help="delete what no output needs, the oldest first ...")
    cache.add_argument("--keep", metavar="SIZE", help="... until at most this much is left, such as 10GB (default: 0)")
    cache.add_argument("--clear", metavar="KIND", help="delete all entries of this kind")
    cache.set_defaults(command=_cache)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.jobs < 1:
        raise ProjectError(f"--jobs {arguments.jobs}: must be at least 1")
    if arguments.jobs > MOST_JOBS:
        raise ProjectError(f"--jobs {arguments.jobs}: must be at most {MOST_JOBS}")
    overrides = parse_overrides(arguments.param)
    unreadable: list[Outcome] = []
    chosen = arguments.profile, arguments.names, overrides, arguments.scheduler
    jobs = plan(project_root(), *chosen, unreadable=unreadable)
    cluster = arguments.scheduler if is_cluster(arguments.scheduler) else None
    rows = []
    for outcome in itertools.chain(unreadable, _outcomes(jobs, arguments.jobs, arguments.force, cluster)):
        reason = f": {outcome.message}" if outcome.message else ""
        print(f"{outcome.job.name}: {outcome.status}, {outcome.seconds:.1f} s{reason}", flush=True)
        rows.append((outcome.job.name, outcome.status, f"{outcome.seconds:.1f}", os.path.relpath(outcome.path)))
    _print_table("notebook", "status", "seconds", "file", rows=sorted(rows))
    if any(job.changed for job in jobs):
        print(f"--param changed parameters: outputs/{arguments.profile} is as it was")
    print("Open them in JupyterLab with: make lab")
    return int(any(status == "failed" for _, status, _, _ in rows))


def _outcomes(jobs: list[Job], n_jobs: int, force: bool, cluster: str | None) -> Iterator[Outcome]:
    """Run the jobs and yield each outcome as soon as it is known."""
    from tsns_workbook.run import run

    if n_jobs == 1 and cluster is None:
        for number, job in enumerate(jobs, 1):
            print(f"{job.name}: running ({number} of {len(jobs)})", flush=True)
            yield run(job, force=force)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // n_jobs)))  # they share the cores
    spawn = multiprocessing.get_context("spawn")
    # a notebook that reads the results of the others runs after them, on this machine
    for reads_results, batch in itertools.groupby(jobs, key=lambda job: job.reads_results):
        place = None if reads_results else cluster
        n_processes = max(n_jobs, n_workers(place) if place else 1)
        with ProcessPoolExecutor(n_processes, spawn, _begin, (os.getpid(),)) as pool:
            longest_first = sorted(batch, key=last_seconds, reverse=True)  # so that none is left alone at the end
            futures = {pool.submit(run, job, force=force, cluster=place): job for job in longest_first}
            try:
                for future in as_completed(futures):
                    try:
                        yield future.result()
                    except BrokenProcessPool:
                        yield Outcome(futures[future], "failed", 0.0, "a process of the pool died (out of memory?)")
                    except Exception as error:  # an outcome that did not come back whole
                        yield Outcome(futures[future], "failed", 0.0, str(error) or type(error).__name__)
            except (KeyboardInterrupt, GeneratorExit):
                for child in multiprocessing.active_children():  # otherwise each starts its next notebook
                    child.terminate()
                raise


def last_seconds(job: Job) -> float:
    """How long a notebook took when it last ran for its profile, else for the reference; 0.0 where that is unknown."""
    for folder in (job.folder, job.root / "outputs/reference"):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            return float(json.loads((folder / job.results.name).read_bytes())["seconds"])
    return 0.0


def _begin(caller: int) -> None:
    """Begin a process that runs notebooks: an interrupt is heard by its caller alone, and it ends with its caller."""
    from tsns_lib.executors import end_with

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(caller)


def _analyse(arguments: argparse.Namespace) -> int:
    from tsns_workbook import own_output
    from tsns_workbook.run import execute_here, explain, joined_streams

    parameters = own_output.parameters(vars(arguments)) | parse_overrides(arguments.param)
    [job] = plan(project_root(), "mini", [own_output.NOTEBOOK], parameters)
    out = Path(job.parameters["out"])
    own_output.check_out(job.parameters)
    try:
        out.mkdir(parents=True, exist_ok=True)
        print(own_output.opening(job.parameters), flush=True)
        notebook = execute_here(job.source, out / "report.ipynb", job.parameters)
    except ValueError as error:
        raise ProjectError(str(error)) from error
    except Exception as error:  # whatever the kernel did
        raise ProjectError(f"{out / 'report.ipynb'}: {explain(out / 'report.ipynb', error)}") from error
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = joined_streams(cell.outputs)
    print(own_output.finish(notebook, out))
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    from tsns_workbook import own_output

    columns = {"text": arguments.text, "text_pair": arguments.text_pair}
    try:
        print(own_output.predict(arguments.model, arguments.file, arguments.out, **columns))
    except ValueError as error:
        raise ProjectError(own_output.as_options(str(error))) from error
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from tsns_workbook.receipts import Files, examine

    unreadable: list[Outcome] = []
    rows = []
    walked: dict[Path, Files] = {}
    for job in plan(project_root(), arguments.profile, unreadable=unreadable):
        state, reasons = examine(job, walked)
        rows.append((job.name, state, os.path.relpath(job.output), _first_three(reasons)))
    rows += [(o.job.name, o.status, os.path.relpath(o.path), o.message) for o in unreadable]
    _print_table("notebook", "state", "file", "why", rows=sorted(rows))
    return 0


def _first_three(reasons: list[str]) -> str:
    more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return "; ".join(reasons[:3]) + more


def _get(arguments: argparse.Namespace) -> int:
    from tsns_workbook.get import get

    options = {"encoder": arguments.encoder, "accept": arguments.accept, "dry_run": arguments.dry_run}
    return get(Path(os.path.expanduser(arguments.folder)), arguments.corpora, **options)


def _cache(arguments: argparse.Namespace) -> int:
    store = Store()
    if store.root.exists() and not store.root.is_dir():
        raise ProjectError(f"{store.root}: is a file; TSNS_CACHE must name a folder")
    print(store.root)
    if arguments.keep is not None and not arguments.prune:
        raise ProjectError("--keep says how much --prune leaves: name both")
    status = _verify(store) if arguments.verify else 0
    if arguments.prune:
        _prune(store, _n_bytes("0" if arguments.keep is None else arguments.keep))
    if arguments.clear is not None:
        _clear(store, arguments.clear)
    sizes = defaultdict(list)
    for entry in store.entries():
        sizes[entry.kind].append(entry.size())
    rows = [(kind, str(len(found)), _megabytes(sum(found))) for kind, found in sorted(sizes.items())]
    _print_table("kind", "entries", "MB", rows=rows)
    return status


def _verify(store: Store) -> int:
    started = time.perf_counter()
    entries = store.entries()
    faults = _misnamed(store, entries)
    for entry in entries:
        with suppress(FileNotFoundError):  # another process has just removed it
            faults += _faults(entry)
    for fault in faults:
        print(fault)
    n_bytes = sum(entry.size() for entry in entries)
    seconds = time.perf_counter() - started
    damaged = f"{len(faults)} damaged; they are computed again when they are needed" if faults else "nothing is damaged"
    print(f"read {len(entries)} entries, {_megabytes(n_bytes)} MB, in {seconds:.1f} s: {damaged}")
    return int(bool(faults))


def _misnamed(store: Store, entries: list[Entry]) -> list[str]:
    """What to say of folders named like an entry whose identity.json gives another name: it was damaged."""
    known = {entry.path for entry in entries}
    identities = [path for path in store.root.glob(f"*/{64 * '[0-9a-f]'}/identity.json") if path.parent not in known]
    return [
        f"{path}: does not belong to this folder; whoever needs the entry writes it again, --clear and --prune leave it"
        for path in identities
    ]


def _faults(entry: Entry) -> list[str]:
    """What is damaged of an entry: its shards, and the files of an encoder, a checkpoint or a tuned model."""
    faults = entry.verify()
    promised: dict[Path, str] = {}
    for seal in entry.path.rglob(SEAL):
        try:
            promised |= {seal.parent / name: digest for name, digest in json.loads(seal.read_bytes()).items()}
        except FileNotFoundError:  # a training has just removed it
            continue
        except (ValueError, AttributeError):
            faults.append(f"{seal}: is no list of checksums")
    with suppress(StoreError):  # an entry without a manifest
        tensors = entry.facts().get("sha256")  # of a tuned model, which may be left out
        promised |= {path: tensors for path in entry.path.glob("*.safetensors") if tensors}
    for path, digest in promised.items():
        try:
            fault = "" if sha256_of(path) == digest else "is not as it was written"
        except FileNotFoundError:
            fault = "is missing"
        if fault and (path.parent == entry.path or (path.parent / SEAL).is_file()):  # else its training removed it
            faults.append(f"{path}: {fault}")
    return faults


def _prune(store: Store, keep: int) -> None:
    from tsns_workbook.receipts import needed_entries

    root = project_root()
    if running := [lock.stem for lock in sorted(root.glob("outputs/*/.receipts/*.lock")) if _is_held(lock)]:
        raise ProjectError(f"{running[0]} is running, and no receipt says yet what it needs: prune when it has ended")
    removed = prune(store, keep, needed_entries(root))
    print(f"deleted {len(removed)} entries, {_megabytes(sum(size for _, size in removed))} MB")


def _is_held(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def prune(store: Store, keep_bytes: int, needed_keys: Collection[str]) -> list[tuple[Entry, int]]:
    """Remove entries that are not needed, the oldest first, until at most `keep_bytes` are left.

    Returns what was removed and how many bytes each took; an entry that is being computed stays.
    """
    sizes = [(entry, entry.size()) for entry in store.entries()]
    total, removed = sum(size for _, size in sizes), []
    for entry, size in sizes:
        if total > keep_bytes and entry.key not in needed_keys and entry.remove():
            total -= size
            removed.append((entry, size))
    return removed


def _clear(store: Store, kind: str) -> None:
    entries = [entry for entry in store.entries() if entry.kind == kind]
    if not entries:
        kinds = sorted({entry.kind for entry in store.entries()})
        raise ProjectError(f"no kind {kind!r} in {store.root} (there are: {', '.join(kinds) or 'none'})")
    removed = [entry.remove() for entry in entries]
    in_use = "" if all(removed) else f"; {removed.count(False)} are being written and stay"
    print(f"deleted {sum(removed)} entries{in_use}")


def _n_bytes(size: str) -> int:
    match = re.fullmatch(r"(\d{1,18}(?:\.\d+)?) ?([kMGT]?)B?", size)  # 18 digits are more than all disks
    if match is None:
        raise ProjectError(f"--keep {size:.80}: is not a size such as 500MB or 10GB")
    return int(float(match[1]) * 1000 ** " kMGT".index(match[2] or " "))


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f}"


def _print_table(*header: str, rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
