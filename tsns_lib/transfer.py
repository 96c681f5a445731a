"""From sources to targets: train on K neurons of a source, predict a target never seen before."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.feature_selection import f_classif

from tsns_lib.aggregation import select
from tsns_lib.classifier import computable, fit_classifier
from tsns_lib.encoders import Encoder
from tsns_lib.executors import bar
from tsns_lib.extraction import extract
from tsns_lib.importance import Forest, Resamples
from tsns_lib.ranking import check_n_neurons, select_neurons
from tsns_lib.sampling import derive_seed, run_seed, water_fill
from tsns_lib.selectors import MultiTSNS
from tsns_lib.store import Store
from tsns_lib.validation import positive, share, whole_number


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
    """The rows that a classifier is trained on, the source of each, and the names of these sources."""

    name: str
    members: tuple[str, ...]
    generated: bool
    X: np.ndarray
    y: np.ndarray
    source_of_row: np.ndarray


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
        Stop before J as soon as the K neurons chosen share at least 1 - tol with those of all J, at 95 %; every K
        stops alone: see `tsns_lib.stability`. Default: all J (the paper).
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
        0), of MultiTSNS `alphas` and `term_medians` of its learners (else None), `members` (tuple of the names of the
        sources) and `generated` (whether the source or the target is generated data).
        The methods: "tsns" or "multi_tsns"; "last_layer" (the paper's "BERT"); and, which the paper lacks, "majority"
        (always the target's larger class), "random" (K neurons drawn evenly), "all" (every neuron), "f_test" and
        "logistic" (the K best by F-test and by absolute logistic coefficient). Deterministic methods have run 0 only.

    Raises
    ------
    ValueError
        If a name stands twice, no pair of different names is left, or an argument is out of range.

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
    unions = [source if isinstance(source, tuple) else (source,) for source in sources]
    _check_names(unions, targets)
    neurons = [check_n_neurons(k, encoder.n_neurons) for k in neurons]
    runs, seed = whole_number("runs", runs), whole_number("seed", seed, least=0)
    alpha, C = share("alpha", alpha, zero=True), positive("C", C)
    forest = Forest(n_resamples, fraction, n_trees, max_depth, engine, tol)
    compute: dict[str, Any] = {"n_jobs": n_jobs, "store": store, "scheduler": scheduler}
    measured = vars(forest).copy() | compute
    del measured["seed"]  # each run brings its own
    multi = MultiTSNS(pairing=pairing, gamma=gamma, C=C, verbose=progress, **measured)

    def read(source: Any) -> tuple[np.ndarray, np.ndarray]:
        options: dict[str, Any] = {"store": store, "scheduler": scheduler, "progress": progress}
        X = extract(source, encoder, pooling=pooling, max_length=max_length, **options)
        return computable(X), source.frame["label"].to_numpy()

    tested = {target.name: read(target) for target in targets}
    rows: list[dict[str, Any]] = []
    for union in bar(unions, desc="sources", show=progress):
        pool = _pool(union, read, budget, seed)
        others = [target for target in targets if target.name not in pool.members]
        on_all_neurons = fit_classifier(pool.X, pool.y, C)
        coefficients = np.abs(on_all_neurons[-1].coef_).max(axis=0)
        choices = chain(
            _baselines(pool, encoder.hidden_size, neurons, runs, coefficients, seed),
            *(_tsns(pool, neurons, run, seed, alpha, multi, forest, compute, progress) for run in range(runs)),
        )
        steps = 3 + len(neurons) * (2 + 2 * runs)
        for choice in bar(choices, desc=pool.name, total=steps, show=progress):
            model = on_all_neurons
            if choice.method not in ("majority", "all"):
                model = fit_classifier(pool.X[:, choice.selected], pool.y, C)
            for target in others:
                Z, truth = tested[target.name]
                predicted = _larger_class(truth) if choice.selected is None else model.predict(Z[:, choice.selected])
                names = {"source": pool.name, "target": target.name, "members": pool.members}
                facts = {"generated": pool.generated or target.generated, "correct": predicted == truth}
                rows.append(names | facts | choice._asdict())
    grid = pd.DataFrame(rows)
    grid["accuracy"] = [correct.mean() for correct in grid["correct"]]
    grid["n"] = [len(correct) for correct in grid["correct"]]
    first = ["source", "target", "method", "k", "run", "accuracy", "n", "correct"]
    return grid[[*first, *Choice._fields[3:], "members", "generated"]]


def union_name(members: Sequence[str]) -> str:
    """The name of several sources together, whatever their order: this is the one place that makes it."""
    return "+".join(sorted(members))


def _larger_class(truth: np.ndarray) -> np.ndarray:
    labels, counts = np.unique(truth, return_counts=True)
    return np.full(len(truth), labels[counts.argmax()])


def _pool(union: Sequence[Any], read: Callable, budget: int | None, seed: int) -> Pool:
    """The rows of one source, or of several together, within the budget.

    Members stand in the order of their names and keep the order of their rows, and a smaller share is part of a
    larger one: so equal parts of different pools are equal byte for byte, and share their forests.
    """
    union = sorted(union, key=lambda source: source.name)
    data = [read(source) for source in union]
    sizes = [len(y) for _, y in data]
    shares = sizes if budget is None else water_fill(sizes, budget).tolist()
    kept = [
        np.sort(np.random.default_rng(derive_seed(seed, "budget", source.name)).permutation(size)[:rows])
        for source, size, rows in zip(union, sizes, shares, strict=True)
    ]
    members = tuple(source.name for source in union)
    return Pool(
        union_name(members),
        members,
        any(source.generated for source in union),
        np.concatenate([X[rows] for (X, _), rows in zip(data, kept, strict=True)]),
        np.concatenate([y[rows] for (_, y), rows in zip(data, kept, strict=True)]),
        np.repeat(members, shares),
    )


def _baselines(
    pool: Pool, hidden_size: int, neurons: Sequence[int], runs: int, coefficients: np.ndarray, seed: int
) -> Iterator[Choice]:
    n_neurons = pool.X.shape[1]
    yield Choice("majority")
    yield Choice("last_layer", hidden_size, selected=np.arange(n_neurons - hidden_size, n_neurons))
    yield Choice("all", n_neurons, selected=np.arange(n_neurons))
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Features .* are constant")  # constant neurons have no F
        f_value = np.nan_to_num(f_classif(pool.X.astype(np.float64), pool.y)[0])
    for k in neurons:
        yield Choice("f_test", k, selected=select_neurons(f_value, k))
        yield Choice("logistic", k, selected=select_neurons(coefficients, k))
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
    forest: Forest,
    compute: dict[str, Any],
    progress: bool,
) -> Iterator[Choice]:
    if len(np.unique(pool.source_of_row)) == 1:
        seeded = replace(forest, seed=run_seed(seed, run, pool.name))
        resamples = Resamples(pool.X, pool.y, seeded, progress=progress, **compute)
        for k, q in resamples.enough_for(neurons).items():
            choice = select([q], k, [alpha])
            yield Choice("tsns", k, run, choice.neurons, choice.stability, int(choice.n_resamples[0]))
        return
    for k in neurons:
        fitted = clone(multi).set_params(n_neurons=k, random_state=run_seed(seed, run))
        fitted.fit(pool.X, pool.y, groups=pool.source_of_row)
        chosen = fitted.selected_, fitted.stability_, int(fitted.n_resamples_.max())
        yield Choice("multi_tsns", k, run, *chosen, fitted.alphas_, fitted.term_medians_)


def _check_names(unions: Sequence[Sequence[Any]], targets: Sequence[Any]) -> None:
    members = [sorted(source.name for source in union) for union in unions]
    tested = [target.name for target in targets]
    together = [("sources", [union_name(union) for union in members]), ("targets", tested)]
    for role, names in together + [("sources", union) for union in members]:
        if len(set(names)) < len(names):
            raise ValueError(f"{role}: a name stands twice in {names}")
    if all(target in union for union in members for target in tested):
        raise ValueError("sources, targets: no pair of different names")
