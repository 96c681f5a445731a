"""Forests on a Dask cluster of this machine: how much the second worker adds, and whether the bits stay."""

import logging
import tempfile

import numpy as np
import pandas as pd

from tsns_lib.benchmarks.forests import timed
from tsns_lib.importance import resampled_importance


def compare_workers(X: np.ndarray, y: np.ndarray, *, n_resamples: int = 24, n_trees: int = 1000) -> pd.DataFrame:
    """Grow the same resamples here in one thread and in two, and on clusters of one and of two single-thread workers.

    Parameters
    ----------
    X : ndarray of shape (n, N)
        Activations.
    y : ndarray of shape (n,)
        Labels.
    n_resamples, n_trees : int
        Forests, and trees of each.

    Returns
    -------
    DataFrame
        Columns `where`, `seconds`, `ratio` (the seconds of one divided by these, threads and workers apart) and
        `same bits` (as one thread here). Starting a cluster and its first unit are not counted. Two threads in one
        process are what the machine itself gives: its two processors may share one core.
    """
    from distributed import LocalCluster

    found: dict[str, tuple[float, np.ndarray]] = {}
    few = {"n_trees": n_trees, "n_resamples": n_resamples}

    def grow(where: str, **options: object) -> None:
        with tempfile.TemporaryDirectory() as store:
            found[where] = timed(resampled_importance, X, y, store=store, **few, **options)

    for threads in (1, 2):
        grow(f"here, {threads} thread{'s' * (threads > 1)}", n_jobs=threads)
    logging.getLogger("distributed").setLevel(logging.ERROR)  # some peers make every logger talk
    for workers in (1, 2):
        settings = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": logging.ERROR}
        with LocalCluster(n_workers=workers, host="127.0.0.1", **settings) as cluster:
            for _ in range(2):  # the first compiles and imports
                grow(f"{workers} worker{'s' * (workers > 1)}", scheduler=cluster.scheduler_address)
    seconds = pd.Series({where: spent for where, (spent, _) in found.items()}, name="seconds")
    one = [seconds["here, 1 thread"]] * 2 + [seconds["1 worker"]] * 2
    bits = found["here, 1 thread"][1].tobytes()
    same = [importance.tobytes() == bits for _, importance in found.values()]
    return pd.DataFrame(
        {"where": seconds.index, "seconds": seconds.values, "ratio": one / seconds.values, "same bits": same}
    )
