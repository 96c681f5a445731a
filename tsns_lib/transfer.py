"""From sources to targets: train on K neurons of a source, predict a target never seen before."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.feature_selection import f_classif
from sklearn.pipeline import Pipeline

from tsns_lib.aggregation import select, source_pairs
from tsns_lib.classifier import computable, fit_classifier, fit_on, scores
from tsns_lib.encoders import Encoder, check_encoder
from tsns_lib.executors import bar, check_scheduler
from tsns_lib.extraction import check_settings, extract, stored_activations, texts_of
from tsns_lib.importance import Forest, Resamples, check_threads
from tsns_lib.ranking import check_n_neurons, select_neurons
from tsns_lib.sampling import derive_seed, run_seed, water_fill
from tsns_lib.selectors import MultiTSNS, fit_together, learners_of
from tsns_lib.store import Store
from tsns_lib.validation import MOST_RUNS, MOST_SEED, positive, share, whole_number


class Choice(NamedTuple):
    """K neurons and how they were chosen: columns of the grid."""

    method: str
    k: int = 0
    run: int = 0
    selected: np.ndarray | None = None
    stability: float = float("nan")
    trees: int = 0
    alphas: np.ndarray | None = None
    term_medians: np.ndarray | None = None


class Part(NamedTuple):
    """A source in a pool: the rows of it that are used, and their labels in the numbers of the pool's first source."""

    source: Any
    rows: np.ndarray
    y: np.ndarray


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
    also: Sequence[str] = (),
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
    once, to score the predictions. A source is not tested on a target of the same name, which is the same corpus. The
    classes of a source, of the others in its tuple and of its targets are matched by name.

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
        Inverse strength of the classifier's L2 penalty on standardised activations, default 0.01 (our choice).
    pooling, also, max_length
        As in `tsns_lib.extraction.stored_activations`.
    seed : int
        Seed of the study.
    tol : float in (0, 1), optional
        As in `tsns_lib.resampled_importance`; every K stops alone. Default: all trees (the paper).
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
        `balanced_accuracy` and `auc` (see `tsns_lib.classifier.scores`), `model` (the fitted pipeline; None of
        "majority"), `selected` (neuron numbers, or None), `stability` (of TSNS: share of the K neurons that two halves
        of the resamples have in common), `trees` (of TSNS: how many were grown on each resample, by the learner that
        needed most; else 0), of MultiTSNS `alphas` and `term_medians` of its learners (else None), `members` (tuple of
        the names of the sources) and `generated` (whether the source or the target is generated data).
        The methods: "tsns" or "multi_tsns"; "last_layer" (the paper's "BERT"); and, which the paper lacks, "majority"
        (always the target's larger class), "random" (K neurons drawn evenly), "all" (every neuron), "f_test" and
        "logistic" (the K best by F-test and by absolute logistic coefficient). Deterministic methods have run 0 only.

    Raises
    ------
    ValueError
        If a name stands twice, or for two corpora; no pair of different names is left; the classes of a source and a
        target do not match; a budget leaves no row of a class; or an argument is out of range.

    Warns
    -----
    UserWarning
        If a source has no target but its own corpora, or more than half of a target's rows are rows of a source.

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
    unions, tests = _checked_corpora(sources, targets)
    check_encoder(encoder)
    neurons = _checked_neurons(neurons, encoder.n_neurons)
    runs, seed = whole_number("runs", runs, 1, MOST_RUNS), whole_number("seed", seed, 0, MOST_SEED)
    alpha, C, gamma = share("alpha", alpha, zero=True), positive("C", C), share("gamma", gamma)
    source_pairs(2, pairing)
    check_scheduler(scheduler)
    check_threads(n_jobs)
    forest = Forest(n_resamples, fraction, n_trees, max_depth, engine, tol)
    compute: dict[str, Any] = {"n_jobs": n_jobs, "store": store, "scheduler": scheduler}
    measured = {name: value for name, value in vars(forest).items() if name != "seed"} | compute  # a run has its own
    multi = MultiTSNS(pairing=pairing, gamma=gamma, C=C, verbose=progress, **measured)
    for source in chain(*unions, tests):
        check_settings(pooling, max_length, encoder, texts_of(source, None)[1] is not None, also)
    _warn_of_shared_rows(chain(*unions), tests)
    work = []
    for union in unions:
        own = {source.name for source in union}
        parts = parts_of(union, budget, pairing, seed)
        check_learners(parts, runs, seed, pairing, forest)
        others = [(target, parts[0].source.labels_of(target)) for target in tests if target.name not in own]
        if others:
            work.append((parts, others))
        else:
            warnings.warn(f"source {union_name(own)}: every target is one of its own corpora; left out", stacklevel=2)

    def read(source: Any) -> np.ndarray:
        options: dict[str, Any] = {"pooling": pooling, "max_length": max_length, "store": store, "scheduler": scheduler}
        stored_activations(source, encoder, also=also, progress=progress, **options)  # all poolings in one pass
        return computable(extract(source, encoder, progress=progress, **options))

    tested = {target.name: read(target) for target in tests}
    rows: list[dict[str, Any]] = []
    for parts, others in bar(work, desc="sources", show=progress):
        pool = pool_of(parts, read)
        on_all_neurons = fit_classifier(pool.X, pool.y, C)
        coefficients = np.abs(on_all_neurons[-1].coef_).max(axis=0)
        picks = tsns_choices(pool, neurons, runs, seed, alpha, multi, forest, compute, progress)
        choices = chain(_baselines(pool, encoder.hidden_size, neurons, runs, coefficients, seed), picks)
        for choice in bar(choices, desc=pool.name, total=3 + len(neurons) * (2 + 2 * runs), show=progress):
            model = on_all_neurons
            if choice.method not in ("majority", "all"):
                model = fit_on(choice.selected, pool.X, pool.y, on_all_neurons[0], C)
            for target, truth in others:
                judged = _judged(choice, model, tested[target.name], truth)
                facts = {"source": pool.name, "target": target.name, "members": pool.members}
                rows.append(facts | choice._asdict() | judged | {"generated": pool.generated or target.generated})
    first = ["source", "target", "method", "k", "run", "accuracy", "n", "correct", "balanced_accuracy", "auc", "model"]
    return pd.DataFrame(rows)[[*first, *Choice._fields[3:], "members", "generated"]]


def _judged(choice: Choice, model: Pipeline, activations: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    if choice.selected is None:
        labels, counts = np.unique(truth, return_counts=True)
        return {"model": None} | scores(truth, np.full(len(truth), labels[counts.argmax()]), np.zeros(len(truth)))
    Z = activations.take(choice.selected, axis=1)
    return {"model": model} | scores(truth, model.predict(Z), model.decision_function(Z), model.classes_)


def union_name(members: Iterable[str]) -> str:
    """The name of several sources together, whatever their order: this is the one place that makes it."""
    return "+".join(sorted(members))


def parts_of(union: Sequence[Any], budget: int | None, pairing: str, seed: int) -> list[Part]:
    """What is used of one source, or of several together, within the budget.

    Members stand in the order of their names and keep the order of their rows, and a smaller share is part of a
    larger one: so equal parts of different pools are equal byte for byte, and share their forests.
    """
    members = sorted(union, key=lambda source: source.name)
    _check_once("sources", [source.name for source in members])
    sizes = [source.n_rows for source in members]
    shares = sizes if budget is None else water_fill(sizes, whole_number("budget", budget, len(members))).tolist()
    parts = []
    for source, size, n_rows in zip(members, sizes, shares, strict=True):
        source.labels_of(members[0])  # both ways: no member may lack a class of another
        rows = np.random.default_rng(derive_seed(seed, "budget", source.name)).permutation(size)[:n_rows]
        parts.append(Part(source, np.sort(rows), members[0].labels_of(source)[np.sort(rows)]))
    taught = [s1 for s1, _ in source_pairs(len(parts), pairing)] if len(parts) > 1 else [(0,)]
    numbers = members[0].numbers
    present = set(members[0].frame["label"])
    known = {name for name, number in numbers.items() if number in present}
    for learner in taught:
        used = np.unique(np.concatenate([parts[member].y for member in learner]))
        names = union_name(parts[member].source.name for member in learner)
        if len(used) < 2:
            raise ValueError(f"{names}: the rows used have one class only; at least two are needed")
        if lacking := [name for name in known if numbers[name] not in used]:
            raise ValueError(f"{names}: none of the rows within budget={budget} has the label {min(lacking)!r}")
    return parts


def check_learners(parts: Sequence[Part], runs: int, seed: int, pairing: str, forest: Forest) -> None:
    """Raise a ValueError if a resample of any run would hold one class only: before any text is read."""
    members = [part.source.name for part in parts]
    y, source_of_row = np.concatenate([part.y for part in parts]), np.repeat(members, [len(part.y) for part in parts])
    for run in range(runs):
        try:
            learners_of(y, source_of_row, pairing, replace(forest, seed=seed_of(members, run, seed)))
        except ValueError as error:
            raise ValueError(f"{union_name(members)}: {error}") from None


def seed_of(members: Sequence[str], run: int, seed: int) -> int:
    """The seed of one run: learners of several sources have seeds of their own, derived from it."""
    return run_seed(seed, run, *members) if len(members) == 1 else run_seed(seed, run)


def _warn_of_shared_rows(sources: Iterable[Any], targets: Sequence[Any]) -> None:
    """Say which targets have mostly rows of a source under another name."""
    rows = {target.name: row_hashes(target) for target in targets}
    for source in {source.name: source for source in sources}.values():
        known = row_hashes(source)
        for name, own in rows.items():
            if name != source.name and (shared := int(np.isin(own, known).sum())) > len(own) / 2:
                both = f"{shared} of the {len(own)} rows of {name!r} are rows of the source {source.name!r} too"
                warnings.warn(f"targets: {both}; what is reached on them is no transfer", stacklevel=3)


def row_hashes(source: Any) -> np.ndarray:
    """64 bits of the text or texts of every row, by which rows of two sources are known to be the same."""
    rows = source.frame["text"].str.cat(source.frame["text_pair"].fillna(""), sep="\0")
    return pd.util.hash_array(rows.to_numpy(object), categorize=False)


def _check_once(role: str, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"{role}: a name stands twice in {names}; load_source(..., name=...) gives another")


def pool_of(parts: Sequence[Part], read: Callable[[Any], np.ndarray]) -> Pool:
    """The rows of all parts together; `read` gives the activations of a source."""
    members = tuple(part.source.name for part in parts)
    return Pool(
        union_name(members),
        members,
        any(part.source.generated for part in parts),
        np.concatenate([read(part.source)[part.rows] for part in parts]),
        np.concatenate([part.y for part in parts]),
        np.repeat(members, [len(part.rows) for part in parts]),
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
            yield Choice("random", k, run, random_neurons(pool, k, run, seed))


def random_neurons(pool: Pool, k: int, run: int, seed: int) -> np.ndarray:
    """K neurons drawn evenly from all, sorted; another run draws others."""
    rng = np.random.default_rng(derive_seed(run_seed(seed, run, pool.name), "random", k))
    return np.sort(rng.choice(pool.X.shape[1], k, replace=False))


def tsns_choices(
    pool: Pool,
    neurons: Sequence[int],
    runs: int,
    seed: int,
    alpha: float,
    multi: MultiTSNS,
    forest: Forest,
    compute: dict[str, Any],
    progress: bool,
) -> Iterator[Choice]:
    """The choice of each K in each run, by TSNS of a single source or by `multi` of several."""
    seeds = [seed_of(pool.members, run, seed) for run in range(runs)]
    if len(pool.members) == 1:
        resamples = Resamples(pool.X, pool.y, replace(forest, seed=seeds[0]), progress=progress, **compute)
        for run, own_seed in enumerate(seeds):
            for k, grown in resamples.of_run(own_seed).enough_for(neurons).items():
                choice = select([grown.q], k, [alpha])
                yield Choice("tsns", k, run, choice.neurons, choice.stability, grown.n_trees)
        return
    each = list(product(enumerate(seeds), neurons))
    selectors = [clone(multi).set_params(n_neurons=k, random_state=own_seed) for (_, own_seed), k in each]
    fit_together(selectors, pool.X, pool.y, pool.source_of_row)
    for ((run, _), k), fitted in zip(each, selectors, strict=True):
        chosen = fitted.selected_, fitted.stability_, int(fitted.n_trees_.max())
        yield Choice("multi_tsns", k, run, *chosen, fitted.alphas_, fitted.term_medians_)


def _checked_neurons(neurons: Sequence[int], n_neurons: int) -> list[int]:
    if isinstance(neurons, str) or not np.iterable(neurons):
        raise ValueError(f"neurons: must be a list of whole numbers, got {neurons!r}")
    checked = [check_n_neurons(k, n_neurons) for k in neurons]
    if not checked or len(set(checked)) < len(checked):
        raise ValueError(f"neurons: must be one K or more, none of them twice, got {checked}")
    return checked


def _checked_corpora(sources: Sequence[Any], targets: Sequence[Any]) -> tuple[list[tuple[Any, ...]], list[Any]]:
    """Every source as a tuple of its members, and the targets; a ValueError unless each has a name of its own."""
    for role, given in {"sources": sources, "targets": targets}.items():
        if isinstance(given, str) or not np.iterable(given):
            raise ValueError(f"{role}: must be a list of what load_source gives, got {type(given).__name__}")
    unions, tests = [source if isinstance(source, tuple) else (source,) for source in sources], list(targets)
    places: dict[str, tuple[str, Any]] = {}
    for role, corpora in {"sources": chain(*unions), "targets": tests}.items():
        for corpus in corpora:
            if not hasattr(corpus, "labels_of"):
                found = type(corpus).__name__
                raise ValueError(f"{role}: must be what load_source gives, or tuples of it in sources, got {found}")
            place = str(corpus.origin.get("corpus", corpus.name)), corpus.origin.get("sha256")
            if (known := places.setdefault(corpus.name, place)) != place:
                both = f"{known[0]} and {place[0]} are both called {corpus.name!r}"
                both += "; the file was written again meanwhile" if known[0] == place[0] else ""
                raise ValueError(f"{role}: {both}; give one another name: load_source(..., name=...)")
    for source, target in product(chain(*unions), tests):
        same = (places[source.name], source.split) == (places[target.name], target.split)
        if same and source.name != target.name:
            raise ValueError(f"targets: {target.name!r} has the rows of the source {source.name!r}; give both one name")
    members = [sorted(source.name for source in union) for union in unions]
    together, tested = [union_name(union) for union in members], [target.name for target in tests]
    for name, union in zip(together, members, strict=True):
        if (first := members[together.index(name)]) != union:
            raise ValueError(f"sources: {first} and {union} are both called {name!r}; load_source(..., name=...) helps")
    for role, names in {"sources": together, "targets": tested}.items():
        _check_once(role, names)
    if not all(members) or all(target in union for union in members for target in tested):
        raise ValueError("sources, targets: no pair of different names")
    return unions, tests
