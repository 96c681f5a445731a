"""The command line `tsns`: run the notebooks of a profile, show how they stand, look after the cache."""

import argparse
import itertools
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING

from tsns_lib.executors import is_cluster, n_workers
from tsns_workbook.project import Job, ProjectError, parse_overrides, plan, project_root

if TYPE_CHECKING:
    from tsns_workbook.run import Outcome


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after `tsns`. Default: those of this process.

    Returns
    -------
    int
        0; 1 when a notebook failed; 2 for a wrong profile, name or parameter; 130 when interrupted.
    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except (ProjectError, ConnectionError, ImportError) as error:
        print(f"tsns: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tsns: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tsns", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="execute the notebooks of a profile into outputs/PROFILE")
    run.add_argument("names", nargs="*", metavar="NAME", help="a notebook or the beginning of its name (default: all)")
    run.add_argument("--profile", default="mini", help="a folder of params/ (default: mini)")
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="notebooks at the same time (default: 1)")
    run.add_argument(
        "--scheduler", metavar="WHERE", help="compute in 'processes[:N]' or on the Dask cluster at an address"
    )
    run.add_argument("--param", action="append", default=[], metavar="K=V", help="override a parameter; repeatable")
    run.add_argument("--force", action="store_true", help="run what is up to date, too")
    run.set_defaults(command=_run)

    status = commands.add_parser("status", help="show how each notebook of a profile stands")
    status.add_argument("--profile", default="mini", help="a folder of params/ (default: mini)")
    status.set_defaults(command=_status)

    cache = commands.add_parser("cache", help="show the size of the cached activations and importances")
    cache.add_argument("--clear", metavar="KIND", help="remove every entry of this kind")
    cache.set_defaults(command=_cache)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.jobs < 1:
        raise ProjectError(f"--jobs {arguments.jobs}: at least 1")
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


def _outcomes(jobs: list[Job], workers: int, force: bool, cluster: str | None) -> Iterator["Outcome"]:
    from tsns_workbook.run import Outcome, run

    if workers == 1 and cluster is None:
        for job in jobs:
            print(f"{job.name}: profile {job.profile}", flush=True)
            yield run(job, force=force)
        return
    spawn = multiprocessing.get_context("spawn")
    for gathers, wave in itertools.groupby(jobs, key=lambda job: job.gathers):  # who gathers waits for the others
        place = None if gathers else cluster  # and reads their figures here
        with ProcessPoolExecutor(max(workers, n_workers(place) if place else 1), mp_context=spawn) as pool:
            futures = {pool.submit(run, job, force=force, cluster=place): job for job in wave}
            try:
                for future in as_completed(futures):
                    try:
                        yield future.result()
                    except BrokenProcessPool:
                        yield Outcome(futures[future], "failed", 0.0, "a process of the pool died (out of memory?)")
            except (KeyboardInterrupt, GeneratorExit):
                for child in multiprocessing.active_children():  # each would go on with the next notebook
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
    kinds = {p.name: p for p in sorted(root.glob("*")) if p.is_dir()}
    if arguments.clear:
        if arguments.clear not in kinds:
            raise ProjectError(f"no kind {arguments.clear!r} in {root} (there are: {', '.join(kinds) or 'none'})")
        shutil.rmtree(kinds.pop(arguments.clear))
    print(root)
    rows = [(kind, str(sum(1 for _ in folder.iterdir())), _megabytes(folder)) for kind, folder in kinds.items()]
    _print_table("kind", "entries", "MB", rows=rows)
    return 0


def _megabytes(folder: Path) -> str:
    return f"{sum(p.stat().st_size for p in folder.rglob('*') if p.is_file()) / 1e6:.1f}"


def _print_table(*header: str, rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
