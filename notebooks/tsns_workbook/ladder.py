"""The ladder: a transfer grid with every baseline that a sceptic would ask for, and with its crossed bootstrap.

Every rung is fitted on source rows alone. The two rungs named ", own z" are transductive: they standardise a target by
its own unlabelled rows.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from tsns_lib import extract, transfer_grid
from tsns_lib.classifier import computable, fit_classifier, scores
from tsns_lib.executors import bar
from tsns_lib.sampling import derive_seed, run_seed
from tsns_lib.transfer import Pool, parts_of, pool_of, random_neurons
from tsns_workbook.crossed import corpus_weights, refitted, replicated_scores

C_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
CV_ROWS = 4_000  # of a source, at most, are cross-validated on (our choice)
FOLDS = 5
SELECTIONS = ("tsns", "multi_tsns")
CONTROLS = ("random, same layers", "f_test")  # where these show the same gain, the selection is not its cause
TRANSDUCTIVE = ", own z"


class Rung(NamedTuple):
    """A fitted classifier: what it is called, what it reads (None: the texts) and whether a target is standardised."""

    method: str
    k: int
    run: int
    model: Pipeline
    selected: np.ndarray | None
    own_z: bool = False


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
    accuracy on the source), "all, C by CV", "TF-IDF" (words and pairs of words), `draws` draws of "random" and of
    "random, same layers" (as many in each layer as the selection has), and "..., own z". `draws` of a row holds
    accuracy, balanced accuracy and AUC in each of `n_boot` replicates, shape (3, n_boot). Two classes are needed.
    """
    for corpus in [*targets, *(member for union in sources for member in _members(union))]:
        if len(corpus.classes) != 2:
            raise ValueError(f"{corpus.name}: the ladder compares two classes, and here are {len(corpus.classes)}")
    grid = transfer_grid(sources, targets, encoder, seed=seed, **settings)
    options = {name: settings[name] for name in ("pooling", "max_length", "store", "scheduler") if name in settings}
    corpora = {(each.name, each.split): each for each in [*targets, *(m for union in sources for m in _members(union))]}
    activations = {key: computable(extract(each, encoder, progress=False, **options)) for key, each in corpora.items()}
    weights = corpus_weights(corpora.values(), n_boot, seed)
    rows: list[dict[str, Any]] = []
    for union in bar(sources, desc="ladder", show=settings.get("progress", True)):
        parts = parts_of(_members(union), settings.get("budget"), settings.get("pairing", "leave_one_out"), seed)
        pool = pool_of(parts, lambda source: activations[source.name, source.split])
        own = grid[grid["source"] == pool.name]
        if own.empty:  # every target is one of its own corpora
            continue
        texts = pd.concat([_texts(part.source).iloc[part.rows] for part in parts])
        drawn = np.hstack([weights[part.source.name, part.source.split][:, part.rows] for part in parts])
        y = (pool.y == np.unique(pool.y)[1]).astype(int)
        tests = [(target, parts[0].source.labels_of(target)) for target in targets if target.name in set(own["target"])]
        facts = own.drop_duplicates(["method", "k", "run"]).set_index(["method", "k", "run"])
        common = {"source": pool.name, "members": pool.members}
        for rung in _rungs(pool, own, texts, encoder, chosen_k, draws, settings.get("C", 0.01), seed):
            features = rung.model[:-1].transform(texts if rung.selected is None else pool.X[:, rung.selected])
            coefficients = refitted(features, y, rung.model[-1], drawn)
            known = (rung.method, rung.k, rung.run)
            chosen = facts.loc[known, CHOICE].to_dict() if known in facts.index else dict.fromkeys(CHOICE)
            for target, truth in tests:
                cell = {"target": target.name, "method": rung.method, "k": rung.k, "run": rung.run}
                Z = _seen(rung, _texts(target), activations[target.name, target.split])
                judged = scores(truth, rung.model[-1].predict(Z), rung.model[-1].decision_function(Z))
                decision = coefficients[:, :-1] @ Z.T if not hasattr(Z, "toarray") else (Z @ coefficients[:, :-1].T).T
                moved = replicated_scores(
                    decision + coefficients[:, -1:], truth == rung.model.classes_[1], weights[target.name, target.split]
                )
                origin = {"selected": rung.selected, "generated": pool.generated or target.generated, "draws": moved}
                rows.append(common | cell | judged | chosen | origin)
        for row in own[own["method"] == "majority"].to_dict("records"):
            kept = {name: row[name] for name in (*CELL, *SCORES, *CHOICE, "members", "generated", "selected")}
            target = next(target for target, _ in tests if target.name == row["target"])
            moved = _constant(row["correct"], weights[target.name, target.split])
            rows.append(kept | {"draws": moved})
    return pd.DataFrame(rows)[[*CELL, *SCORES, "selected", *CHOICE, "members", "generated", "draws"]]


CELL = ["source", "target", "method", "k", "run"]
SCORES = ["accuracy", "n", "correct", "balanced_accuracy", "auc"]
CHOICE = ["stability", "resamples", "alphas", "term_medians"]


def _members(union: Any) -> tuple[Any, ...]:
    return union if isinstance(union, tuple) else (union,)


def _texts(source: Any) -> pd.Series:
    """The texts, of pairs both in one."""
    return source.frame["text"].str.cat(source.frame["text_pair"].fillna(""), sep=" ")


def _constant(correct: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What `replicated_scores` gives for one answer to every row."""
    return np.stack([weights @ correct / weights.sum(axis=1), *np.full((2, len(weights)), 0.5)])


def _seen(rung: Rung, texts: pd.Series, activations: np.ndarray) -> Any:
    """A target's features as the classifier reads them."""
    if rung.own_z:
        return StandardScaler().fit_transform(activations[:, rung.selected])
    return rung.model[:-1].transform(texts if rung.selected is None else activations[:, rung.selected])


def _rungs(
    pool: Pool, own: pd.DataFrame, texts: pd.Series, encoder: Any, chosen_k: int, draws: int, C: float, seed: int
) -> Iterator[Rung]:
    def fitted(method: str, k: int, run: int, selected: np.ndarray, C: float = C, own_z: bool = False) -> Rung:
        return Rung(method, k, run, fit_classifier(pool.X[:, selected], pool.y, C), selected, own_z)

    known = own[own["method"] != "majority"].drop_duplicates(["method", "k", "run"])
    for row in known.itertuples():
        yield Rung(row.method, row.k, row.run, row.model, row.selected)
    yield Rung("TF-IDF", 0, 0, fit_words(texts, pool.y), None)
    width, everything = encoder.hidden_size, np.arange(encoder.n_neurons)
    layers = everything.reshape(encoder.n_layers, width)
    seed_of_folds = derive_seed(seed, "folds", pool.name)
    alone = [cv_accuracy(pool.X[:, layer], pool.y, C, seed_of_folds) for layer in layers]
    for number, layer in enumerate(layers, start=1):
        yield fitted(f"layer {number}", 0, 0, layer)
    best = layers[int(np.argmax(alone))]
    yield fitted("best layer", 0, 0, best)
    yield fitted("best layer" + TRANSDUCTIVE, 0, 0, best, own_z=True)
    by_C = [cv_accuracy(pool.X, pool.y, each, seed_of_folds) for each in C_GRID]
    yield fitted("all, C by CV", 0, 0, everything, C_GRID[int(np.argmax(by_C))])
    selections = known[known["method"].isin(SELECTIONS)]
    for k in selections["k"].unique().tolist():
        for run in range(selections["run"].nunique(), draws):
            yield fitted("random", k, run, random_neurons(pool, k, run, seed))
        of_run = selections[selections["k"] == k]["selected"].to_list()
        for run in range(draws):
            counts = np.bincount(of_run[run % len(of_run)] // width, minlength=encoder.n_layers)
            rng = np.random.default_rng(derive_seed(run_seed(seed, run, pool.name), "random, same layers", k))
            matched = [rng.choice(layer, count, replace=False) for layer, count in zip(layers, counts, strict=True)]
            yield fitted("random, same layers", k, run, np.sort(np.concatenate(matched)))
    for row in selections[selections["k"] == chosen_k].itertuples():
        yield Rung(f"TSNS{TRANSDUCTIVE}", row.k, row.run, row.model, row.selected, own_z=True)


def fit_words(texts: Sequence[str], y: np.ndarray) -> Pipeline:
    """Fit a logistic regression (C = 1) on TF-IDF of words and pairs of words that stand in two texts or more."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    return make_pipeline(words, LogisticRegression(max_iter=5000)).fit(texts, y)


def cv_accuracy(X: np.ndarray, y: np.ndarray, C: float, seed: int) -> float:
    """Accuracy of `fit_classifier` by five-fold cross-validation on at most `CV_ROWS` rows of a source."""
    rows = np.random.default_rng(seed).permutation(len(y))[:CV_ROWS]
    X, y = X[rows], y[rows]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed % 2**32).split(X, y)
    return float(np.mean([fit_classifier(X[train], y[train], C).score(X[test], y[test]) for train, test in folds]))
