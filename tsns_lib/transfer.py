"""From sources to targets: train on K neurons of a source, predict a target never seen before."""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.feature_selection import f_classif

from tsns_lib.aggregation import check_n_neurons, select_neurons
from tsns_lib.classifier import computable, fit_classifier
from tsns_lib.encoders import Encoder
from tsns_lib.executors import bar
from tsns_lib.extraction import extract
from tsns_lib.importance import cumulative_importance, resampled_importance
from tsns_lib.sampling import derive_seed, run_seed, water_fill
from tsns_lib.selectors import MultiTSNS
from tsns_lib.stability import half_overlap
from tsns_lib.store import Store


class Choice(NamedTuple):
    """K neurons and how they were chosen: columns of the grid."""

    method: str
    k: int = 0
    run: int = 0
    selected: np.ndarray | None = None
    stability: float = float("nan")
    resamples: int = 0
    alphas: np.ndarray | None = None
    term_medians: np.ndarray | None = None


class Pool(NamedTuple):
    """The rows that a classifier is trained on, and the source of each."""

    name: str
    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray


def transfer_grid(
    sources: Sequence[Any],
    targets: Sequence[Any],
    encoder: Encoder,
    *,
    neurons: Sequence[int] = (100, 300, 500),
    runs: int = 5,
    n_resamples: int = 100,
    fraction: float | str = "auto",
    alpha: float = 1.0,
    budget: int | None = None,
    pairing: str = "leave_one_out",
    gamma: float = 0.1,
    n_trees: int = 1000,
    max_depth: int = 200,
    engine: str = "histogram",
    C: float = 0.01,
    pooling: str = "cls",
    max_length: int = 128,
    seed: int = 0,
    tol: float | None = None,
    n_jobs: int = -1,
    store: Store | str | os.PathLike | None = None,
    scheduler: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Accuracy of every source on every other target, by TSNS and by its baselines.

    Everything that is fitted (selection, α, scaling, classifier) sees source rows only; a target's labels are read
    once, to score the predictions. A source is not tested on a target of the same name.

    Parameters
    ----------
    sources : sequence of Source or of tuples of them
        As `tsns_lib.load_source` gives them; a tuple is several sources together, for MultiTSNS.
    targets : sequence of Source
        What is predicted.
    encoder : Encoder
        As `tsns_lib.load_encoder` gives it.
    neurons : sequence of int
        The values of K (default: our choice among the paper's).
    runs : int
        Independent runs, default 5 (paper §4.2); run r has a seed derived from the source's name and r.
    n_resamples, fraction, alpha, n_trees, max_depth, engine
        As in `tsns_lib.SingleTSNS`.
    budget : int, optional
        L, the most rows of a source or tuple, shared among its members by `tsns_lib.water_fill`; selection and
        classifier see these rows alone. Default: all rows.
    pairing, gamma
        As in `tsns_lib.MultiTSNS`.
    C : float
        Inverse strength of the classifier's L2 penalty on standardised activations, default 0.01 (our choice; the
        paper gives none).
    pooling, max_length
        As in `tsns_lib.extract`.
    seed : int
        Seed of the study.
    tol : float in (0, 1), optional
        Stop before J as soon as, for every K, the neurons chosen share at least 1 - tol with those of all J, at 95 %:
        see `tsns_lib.stability`. Default: all J (the paper).
    n_jobs : int
        Threads of the forests.
    store : Store or path, optional
        Default: the store of the environment (`TSNS_CACHE`).
    scheduler : str, optional
        Where shards and forests are computed: "processes", "processes:N" or the address of a Dask cluster.
        Default: here.
    progress : bool
        Whether to say what the work will cost and to show bars.

    Returns
    -------
    DataFrame
        One row for each source, target, method, K and run, in columns `source` (names joined by "+"), `target`,
        `method`, `k`, `run`, `accuracy` (0 to 1), `n` (target rows), `correct` (boolean array over the target rows),
        `selected` (neuron numbers, or None), `stability` (of TSNS: share of the K neurons that two halves of the
        resamples have in common), `resamples` (of TSNS: how many were needed, by the learner that needed most; else
        0), and of MultiTSNS `alphas` and `term_medians` of its learners (else None).
        The methods: "tsns" or "multi_tsns"; "last_layer" (the paper's "BERT"); and, which the paper lacks, "majority"
        (always the target's larger class), "random" (K neurons drawn evenly), "all" (every neuron), "f_test" and
        "logistic" (the K best by F-test and by absolute logistic coefficient). Methods without chance have run 0 only.

    Raises
    ------
    ValueError
        If a name stands twice, no pair of different names is left, K is not in [1, N], or `runs` is below 1.

    Examples
    --------
    >>> import tsns_lib
    >>> books, dvd = (tsns_lib.load_source(f"miniature:{name}", limit=40) for name in ("books", "dvd"))
    >>> grid = tsns_lib.transfer_grid(
    ...     [books], [dvd], tsns_lib.load_encoder(), neurons=[50], runs=1, n_resamples=2, n_trees=20, progress=False
    ... )
    >>> grid["method"].tolist()
    ['majority', 'last_layer', 'all', 'f_test', 'logistic', 'random', 'tsns']
    """
    groups = [source if isinstance(source, tuple) else (source,) for source in sources]
    _check_grid(groups, targets, neurons, runs, encoder.n_neurons)

    def read(source: Any) -> tuple[np.ndarray, np.ndarray]:
        options: dict[str, Any] = {"store": store, "scheduler": scheduler, "progress": progress}
        X = computable(extract(source, encoder, pooling=pooling, max_length=max_length, **options))
        return X, source.frame["label"].to_numpy()

    forest: dict[str, Any] = {
        "n_resamples": n_resamples,
        "fraction": fraction,
        "n_trees": n_trees,
        "max_depth": max_depth,
        "engine": engine,
        "tol": tol,
        "n_jobs": n_jobs,
        "store": store,
        "scheduler": scheduler,
    }
    multi = MultiTSNS(pairing=pairing, gamma=gamma, C=C, verbose=progress, **forest)
    tested = {target.name: read(target) for target in targets}
    rows = []
    for members in bar(groups, desc="sources", show=progress):
        pool = _pool(members, read, budget, seed)
        names = pool.name.split("+")
        others = {target: data for target, data in tested.items() if target not in names}
        for target, (_, truth) in others.items():
            labels, counts = np.unique(truth, return_counts=True)
            correct = truth == labels[counts.argmax()]
            rows.append({"source": pool.name, "target": target, "correct": correct, **Choice("majority")._asdict()})
        on_all_neurons = fit_classifier(pool.X, pool.y, C)
        choices = chain(
            _baselines(pool, encoder.hidden_size, neurons, runs, on_all_neurons[-1].coef_, seed),
            *(_tsns(pool, neurons, run, seed, alpha, multi, forest, progress) for run in range(runs)),
        )
        steps = 2 + len(neurons) * (2 + 2 * runs)
        for choice in bar(choices, desc=pool.name, total=steps, show=progress):
            fresh = choice.method != "all"
            model = fit_classifier(pool.X[:, choice.selected], pool.y, C) if fresh else on_all_neurons
            for target, (Z, truth) in others.items():
                correct = model.predict(Z[:, choice.selected]) == truth
                rows.append({"source": pool.name, "target": target, "correct": correct, **choice._asdict()})
    grid = pd.DataFrame(rows)
    grid["accuracy"] = [correct.mean() for correct in grid["correct"]]
    grid["n"] = [len(correct) for correct in grid["correct"]]
    return grid[["source", "target", "method", "k", "run", "accuracy", "n", "correct", *Choice._fields[3:]]]


def _pool(members: Sequence[Any], read: Callable, budget: int | None, seed: int) -> Pool:
    """The rows of one source, or of several together, within the budget.

    Members stand in the order of their names and keep the order of their rows, and a smaller share is part of a
    larger one: so equal parts of different pools are equal byte for byte, and share their forests.
    """
    members = sorted(members, key=lambda member: member.name)
    data = [read(member) for member in members]
    sizes = [len(y) for _, y in data]
    shares = sizes if budget is None else water_fill(sizes, budget).tolist()
    kept = [
        np.sort(np.random.default_rng(derive_seed(seed, "budget", member.name)).permutation(size)[:share])
        for member, size, share in zip(members, sizes, shares, strict=True)
    ]
    return Pool(
        "+".join(member.name for member in members),
        np.concatenate([X[rows] for (X, _), rows in zip(data, kept, strict=True)]),
        np.concatenate([y[rows] for (_, y), rows in zip(data, kept, strict=True)]),
        np.repeat([member.name for member in members], shares),
    )


def _baselines(
    pool: Pool, hidden: int, neurons: Sequence[int], runs: int, coefficients: np.ndarray, seed: int
) -> Iterator[Choice]:
    n_neurons = pool.X.shape[1]
    yield Choice("last_layer", hidden, selected=np.arange(n_neurons - hidden, n_neurons))
    yield Choice("all", n_neurons, selected=np.arange(n_neurons))
    with np.errstate(divide="ignore", invalid="ignore"):  # constant neurons have no F
        f_value = np.nan_to_num(f_classif(pool.X.astype(np.float64), pool.y)[0])
    largest = np.abs(coefficients).max(axis=0)
    for k in neurons:
        yield Choice("f_test", k, selected=select_neurons(f_value, k))
        yield Choice("logistic", k, selected=select_neurons(largest, k))
    for run in range(runs):
        for k in neurons:
            rng = np.random.default_rng(derive_seed(run_seed(seed, run, pool.name), "random", k))
            yield Choice("random", k, run, np.sort(rng.choice(n_neurons, k, replace=False)))


def _tsns(
    pool: Pool,
    neurons: Sequence[int],
    run: int,
    seed: int,
    alpha: float,
    multi: MultiTSNS,
    forest: dict[str, Any],
    progress: bool,
) -> Iterator[Choice]:
    X, y = pool.X, pool.y
    if len(np.unique(pool.groups)) == 1:
        of_run = run_seed(seed, run, pool.name)
        q = resampled_importance(X, y, seed=of_run, neurons=neurons, progress=progress, **forest)
        m = cumulative_importance(q, alpha=alpha)
        for k in neurons:
            yield Choice("tsns", k, run, select_neurons(m, k), half_overlap(q, k), len(q))
        return
    for k in neurons:
        fitted = clone(multi).set_params(n_neurons=k, random_state=run_seed(seed, run)).fit(X, y, groups=pool.groups)
        found = fitted.selected_, fitted.stability_, int(fitted.n_resamples_.max())
        yield Choice("multi_tsns", k, run, *found, fitted.alphas_, fitted.term_medians_)


def _check_grid(
    groups: Sequence[Sequence[Any]], targets: Sequence[Any], neurons: Sequence[int], runs: int, n_neurons: int
) -> None:
    pools = ["+".join(sorted(member.name for member in members)) for members in groups]
    tested = [target.name for target in targets]
    for role, names in (("sources", pools), ("targets", tested), *(("sources", pool.split("+")) for pool in pools)):
        if len(set(names)) < len(names):
            raise ValueError(f"{role}: a name stands twice in {names}")
    if all(target in pool.split("+") for pool in pools for target in tested):
        raise ValueError("sources, targets: no pair of different names")
    for k in neurons:
        check_n_neurons(k, n_neurons)
    if runs < 1:
        raise ValueError(f"runs: must be at least 1, got {runs}")
