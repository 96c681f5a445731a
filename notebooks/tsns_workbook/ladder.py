"""The ladder: a transfer grid with every baseline that a sceptic would ask for, and with its crossed bootstrap.

Every rung is fitted on source rows alone. The two rungs named "(own z)" are transductive: they standardise a target by
its own unlabelled rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from tsns_lib import extract, transfer_grid
from tsns_lib.aggregation import select
from tsns_lib.classifier import computable, cv_accuracy, cv_best_C, fit_on, one_thread, scaler_of, scores
from tsns_lib.executors import bar
from tsns_lib.importance import Forest, Resamples
from tsns_lib.sampling import derive_seed, run_seed
from tsns_lib.transfer import Pool, parts_of, pool_of, random_neurons
from tsns_workbook.crossed import corpus_weights, refitted, replicated_scores

SELECTIONS = ("tsns", "multi_tsns")
CONTROLS = ("random of the same layers", "f_test")  # where these show the same gain, the selection is not its cause
FOREST = ("n_resamples", "fraction", "n_trees", "max_depth", "engine", "tol")
TRANSDUCTIVE = " (own z)"


class Rung(NamedTuple):
    """A fitted classifier: what it is called, what it reads (None: the texts), whether a target is standardised.

    The majority class has no model.
    """

    method: str
    k: int
    run: int
    model: Pipeline | None
    selected: np.ndarray | None
    own_z: bool = False


class Resampled(NamedTuple):
    """A corpus as a study sees it: its texts, activations and how often each row came in each replicate."""

    texts: pd.Series
    activations: np.ndarray
    weights: np.ndarray


def ladder_grid(
    sources: Sequence[Any],
    targets: Sequence[Any],
    encoder: Any,
    *,
    chosen_k: int,
    draws: int = 20,
    n_boot: int = 200,
    seed: int = 0,
    **settings: Any,
) -> pd.DataFrame:
    """`tsns_lib.transfer_grid` with the settings given, the ladder's further rungs, and a column `draws`.

    The rungs added: "layer 1" ... (each layer alone), "best layer" (the one with the highest five-fold cross-validated
    accuracy on the source), "all with C by CV", "TF-IDF" (words and pairs of words), at K = `chosen_k` `draws` draws
    (elsewhere one a run) of "random" and of "random of the same layers" (as many in each layer as the selection has),
    of several sources "tsns" (as if they were one), and "... (own z)". With `draws` = 0 none is added. The column
    `draws` of a row holds accuracy, balanced accuracy and AUC in each of `n_boot` replicates, shape (3, n_boot). Two
    classes are needed.
    """
    unions = [union if isinstance(union, tuple) else (union,) for union in sources]
    corpora = {(corpus.name, corpus.split): corpus for corpus in [*targets, *chain(*unions)]}
    for corpus in corpora.values():
        if len(corpus.classes) != 2:
            raise ValueError(f"{corpus.name}: the ladder compares two classes, and here are {len(corpus.classes)}")
    weights = corpus_weights(corpora.values(), n_boot, seed)
    for target in targets:
        _check_classes(target, weights[target.name, target.split])
    grid = transfer_grid(sources, targets, encoder, seed=seed, **settings)
    options = {name: settings[name] for name in ("pooling", "max_length", "store", "scheduler") if name in settings}
    resampled = {
        key: Resampled(
            corpus.frame["text"].str.cat(corpus.frame["text_pair"].fillna(""), sep=" "),
            computable(extract(corpus, encoder, progress=False, **options)),
            weights[key],
        )
        for key, corpus in corpora.items()
    }
    rows: list[dict[str, Any]] = []
    for union in bar(unions, desc="ladder", show=settings.get("progress", True)):
        parts = parts_of(union, settings.get("budget"), settings.get("pairing", "leave_one_out"), seed)
        seen = [resampled[part.source.name, part.source.split] for part in parts]
        pool = pool_of(parts, lambda source: resampled[source.name, source.split].activations)
        own = grid[grid["source"] == pool.name]
        texts = pd.concat([corpus.texts.iloc[part.rows] for corpus, part in zip(seen, parts, strict=True)])
        drawn = np.hstack([corpus.weights[:, part.rows] for corpus, part in zip(seen, parts, strict=True)])
        tests = [
            (target, parts[0].source.labels_of(target), resampled[target.name, target.split])
            for target in targets
            if target.name not in pool.members
        ]
        for rung in _rungs(pool, own, texts, encoder, chosen_k, draws, seed, settings):
            with one_thread():
                tested = list(judge_rung(rung, pool, texts, drawn, tests))
            rows += [{"source": pool.name, "members": pool.members} | row for row in tested]
    known = ["source", "target", "method", "k", "run"]
    ladder = pd.DataFrame(rows).merge(grid[[*known, *CHOICE]], on=known, how="left")
    return ladder[[*known, *SCORES, "selected", *CHOICE, "members", "generated", "draws"]]


SCORES = ["accuracy", "n", "correct", "balanced_accuracy", "auc"]
CHOICE = ["stability", "trees", "alphas", "term_medians"]


def _check_classes(target: Any, weights: np.ndarray) -> None:
    """Without rows of both classes a replicate has no AUC, and its interval has no ends."""
    labels = target.frame["label"].to_numpy()
    for label in np.unique(labels):
        if not (weights @ (labels == label)).all():
            reason = f"{np.count_nonzero(labels == label)} of its {len(labels)} rows have the label {label}"
            raise ValueError(f"{target.name}: {reason}, too few for an interval; a resample may have none of them")


def judge_rung(
    rung: Rung, pool: Pool, texts: pd.Series, drawn: np.ndarray, tests: Sequence[tuple[Any, np.ndarray, Resampled]]
) -> Iterator[dict[str, Any]]:
    """Test a rung on every target, as fitted and in every replicate."""
    facts = {"method": rung.method, "k": rung.k, "run": rung.run, "selected": rung.selected}
    if rung.model is not None:
        standardised, model = rung.model[:-1], rung.model[-1]
        features = standardised.transform(texts if rung.selected is None else pool.X.take(rung.selected, axis=1))
        refits = refitted(features, (pool.y == model.classes_[1]).astype(int), model, drawn)
    for target, truth, corpus in tests:
        if rung.model is None:  # the majority class
            labels, counts = np.unique(truth, return_counts=True)
            predicted, decision = np.full(len(truth), labels[counts.argmax()]), np.zeros(len(truth))
            moved = _constant(predicted == truth, corpus.weights)
        else:
            Z = corpus.texts if rung.selected is None else corpus.activations.take(rung.selected, axis=1)
            Z = StandardScaler().fit_transform(Z) if rung.own_z else standardised.transform(Z)
            predicted, decision = model.predict(Z), model.decision_function(Z)
            decisions = refits[:, :-1] @ Z.T + refits[:, -1:]
            moved = replicated_scores(decisions, truth == model.classes_[1], corpus.weights)
        generated = {"generated": pool.generated or target.generated, "draws": moved}
        yield facts | {"target": target.name} | scores(truth, predicted, decision) | generated


def _constant(correct: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What `replicated_scores` gives for one answer to every row."""
    return np.stack([weights @ correct / weights.sum(axis=1), *np.full((2, len(weights)), 0.5)])


def _rungs(
    pool: Pool,
    own: pd.DataFrame,
    texts: pd.Series,
    encoder: Any,
    chosen_k: int,
    draws: int,
    seed: int,
    settings: Mapping[str, Any],
) -> Iterator[Rung]:
    standard, scaler = settings.get("C", 0.01), scaler_of(pool.X)

    def fitted(method: str, k: int, run: int, selected: np.ndarray, C: float = standard, own_z: bool = False) -> Rung:
        return Rung(method, k, run, fit_on(selected, pool.X, pool.y, scaler, C), selected, own_z)

    known = own.drop_duplicates(["method", "k", "run"])
    for row in known.itertuples():
        yield Rung(row.method, row.k, row.run, row.model, row.selected)
    if not draws:
        return
    selections = known[known["method"].isin(SELECTIONS)]
    if len(pool.members) > 1:  # as if the sources were one
        forest = Forest(**{name: settings[name] for name in FOREST if name in settings})
        where = {name: settings[name] for name in ("store", "scheduler") if name in settings}
        seeds = [run_seed(seed, run, pool.name) for run in range(selections["run"].nunique())]
        resamples = Resamples(pool.X, pool.y, replace(forest, seed=seeds[0]), **where)
        for run, own_seed in enumerate(seeds):
            grown = resamples.of_run(own_seed).enough_for([chosen_k])[chosen_k]
            yield fitted("tsns", chosen_k, run, select([grown.q], chosen_k, [1.0]).neurons)
    yield Rung("TF-IDF", 0, 0, fit_words(texts, pool.y), None)
    layers = np.arange(encoder.n_neurons).reshape(encoder.n_layers, encoder.hidden_size)
    seed_of_folds = derive_seed(seed, "folds", pool.name)
    for number, layer in enumerate(layers, start=1):
        yield fitted(f"layer {number}", 0, 0, layer)
    best = max(layers, key=lambda layer: cv_accuracy(pool.X[:, layer], pool.y, standard, seed_of_folds))
    yield fitted("best layer", 0, 0, best)
    yield fitted("best layer" + TRANSDUCTIVE, 0, 0, best, own_z=True)
    yield fitted("all with C by CV", 0, 0, layers.ravel(), cv_best_C(pool.X, pool.y, seed_of_folds))
    for k in selections["k"].unique().tolist():
        of_run = selections[selections["k"] == k]["selected"].to_list()
        n_draws = max(draws, len(of_run)) if k == chosen_k else len(of_run)
        for run in range(len(of_run), n_draws):
            yield fitted("random", k, run, random_neurons(pool, k, run, seed))
        for run in range(n_draws):
            counts = np.bincount(of_run[run % len(of_run)] // encoder.hidden_size, minlength=encoder.n_layers)
            rng = np.random.default_rng(derive_seed(run_seed(seed, run, pool.name), "random of the same layers", k))
            matched = [rng.choice(layer, count, replace=False) for layer, count in zip(layers, counts, strict=True)]
            yield fitted("random of the same layers", k, run, np.sort(np.concatenate(matched)))
    for row in selections[selections["k"] == chosen_k].itertuples():
        yield Rung(f"TSNS{TRANSDUCTIVE}", row.k, row.run, row.model, row.selected, own_z=True)


def fit_words(texts: Sequence[str], y: np.ndarray) -> Pipeline:
    """Fit a logistic regression (C = 1) on TF-IDF of words and pairs of words that stand in two texts or more."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    return make_pipeline(words, LogisticRegression(max_iter=5000)).fit(texts, y)
