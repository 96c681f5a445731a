"""Run the notebooks of a profile, show their state, and look after the cache."""

import argparse
import itertools
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from tsns_lib.executors import is_cluster, n_workers
from tsns_workbook.project import Job, Outcome, ProjectError, parse_overrides, plan, project_root


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    The status is 0; 1 if a notebook failed; 2 for a wrong profile, notebook or parameter; 130 after Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except (ProjectError, ConnectionError, ImportError) as error:
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
    run.add_argument("--param", action="append", default=[], metavar="K=V", help="change a parameter; may be repeated")
    run.add_argument("--force", action="store_true", help="run even the notebooks that are up to date")
    run.set_defaults(command=_run)

    status = commands.add_parser("status", help="show which notebooks are up to date and which would run")
    status.add_argument("--profile", default="mini", help="a folder in params/ (default: mini)")
    status.set_defaults(command=_status)

    cache = commands.add_parser("cache", help="show what is cached and how large it is")
    cache.add_argument("--clear", metavar="KIND", help="delete all entries of this kind")
    cache.set_defaults(command=_cache)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.jobs < 1:
        raise ProjectError(f"--jobs {arguments.jobs}: must be at least 1")
    overrides = parse_overrides(arguments.param)
    jobs = plan(project_root(), arguments.profile, arguments.names, overrides, arguments.scheduler)
    cluster = arguments.scheduler if is_cluster(arguments.scheduler) else None
    rows = []
    for outcome in _outcomes(jobs, arguments.jobs, arguments.force, cluster):
        reason = f": {outcome.message}" if outcome.message else ""
        print(f"{outcome.job.name}: {outcome.status}, {outcome.seconds:.1f} s{reason}", flush=True)
        rows.append((outcome.job.name, outcome.status, f"{outcome.seconds:.1f}", os.path.relpath(outcome.path)))
    _print_table("notebook", "status", "seconds", "file", rows=sorted(rows))
    print("Open them in JupyterLab with: make lab")
    return int(any(status == "failed" for _, status, _, _ in rows))


def _outcomes(jobs: list[Job], n_jobs: int, force: bool, cluster: str | None) -> Iterator[Outcome]:
    """Run the jobs and yield each outcome as soon as it is known."""
    from tsns_workbook.run import run

    if n_jobs == 1 and cluster is None:
        for job in jobs:
            print(f"{job.name}: profile {job.profile}", flush=True)
            yield run(job, force=force)
        return
    spawn = multiprocessing.get_context("spawn")
    # a notebook that reads the results of the others runs after them, on this machine
    for reads_results, batch in itertools.groupby(jobs, key=lambda job: job.reads_results):
        place = None if reads_results else cluster
        n_processes = max(n_jobs, n_workers(place) if place else 1)
        with ProcessPoolExecutor(n_processes, mp_context=spawn) as pool:
            futures = {pool.submit(run, job, force=force, cluster=place): job for job in batch}
            try:
                for future in as_completed(futures):
                    try:
                        yield future.result()
                    except BrokenProcessPool:
                        yield Outcome(futures[future], "failed", 0.0, "a process of the pool died (out of memory?)")
            except (KeyboardInterrupt, GeneratorExit):
                for child in multiprocessing.active_children():  # otherwise each starts its next notebook
                    child.terminate()
                raise


def _status(arguments: argparse.Namespace) -> int:
    from tsns_workbook.run import state

    jobs = plan(project_root(), arguments.profile)
    _print_table("notebook", "state", "file", rows=[(j.name, state(j), os.path.relpath(j.output)) for j in jobs])
    return 0


def _cache(arguments: argparse.Namespace) -> int:
    from tsns_lib.store import Store

    root = Store().root
    folders = {p.name: p for p in sorted(root.glob("*")) if p.is_dir()}
    if arguments.clear:
        if arguments.clear not in folders:
            raise ProjectError(f"no kind {arguments.clear!r} in {root} (there are: {', '.join(folders) or 'none'})")
        shutil.rmtree(folders.pop(arguments.clear))
    print(root)
    rows = []
    for kind, folder in folders.items():
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        rows.append((kind, str(len(list(folder.iterdir()))), f"{size / 1e6:.1f}"))
    _print_table("kind", "entries", "MB", rows=rows)
    return 0


def _print_table(*header: str, rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
