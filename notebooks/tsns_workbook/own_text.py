"""Your own text (notebook 30): what is wrong with it, what one can expect of it, and which method to use.

Every method is judged twice where there is a target with labels: on rows of the source that it was not fitted on, by
cross-validation, and on the target. Rows with the same text stay in one fold, and target rows whose text is in the
source are not scored.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.dummy import DummyClassifier
from sklearn.feature_selection import f_classif
from sklearn.model_selection import StratifiedGroupKFold

from tsns_lib import SingleTSNS, TransferModel, extract, load_source
from tsns_lib.classifier import computable, cv_accuracy, fit_classifier
from tsns_lib.corpora.own import headings, read_texts, unescaped
from tsns_lib.corpora.sources import Source
from tsns_lib.encoders import Encoder
from tsns_lib.executors import bar
from tsns_lib.extraction import stored_activations
from tsns_lib.ranking import select_neurons
from tsns_lib.sampling import derive_seed
from tsns_workbook.ladder import fit_words
from tsns_workbook.plots import BLUE, INK, ORANGE, STYLE, finish
from tsns_workbook.report import caption
from tsns_workbook.statistics import PERCENTILES, bootstrap_weights

N_BOOT = 1000  # resamples of the scored rows
RARE = 0.1  # below this share, a class is called rare
FEWEST = 4  # texts of a class without which nothing can be said
CV = "source, cross-validated"
METRICS = ("accuracy", "balanced accuracy", "macro F1", "ROC AUC")
JUDGE = "balanced accuracy"  # what the rule compares; of equal classes it is the accuracy
TSNS = "TSNS"
# The cheapest first: what each needs besides labels.
METHODS = {
    "majority class": "nothing",
    "TF-IDF": "words and pairs of words, no encoder",
    "mean pooling": "one vector a text: the mean of the last layer",
    "best layer": "the [CLS] state of one layer, chosen on the training rows",
    "all neurons": "the [CLS] states of all layers",
    "F-test": "all layers, to select K neurons",
    TSNS: "all layers and forests, to select K neurons",
}


class Corpora(NamedTuple):
    """What was read: the source, the target if there is one, and whether the target has labels."""

    source: Source
    target: Source | None = None
    labelled: bool = False


class Rows(NamedTuple):
    """Texts (of pairs both in one) and their activations: [CLS] of all layers, mean of the last."""

    texts: pd.Series
    cls: np.ndarray
    mean: np.ndarray

    def take(self, rows: np.ndarray) -> "Rows":
        """Some of the rows."""
        return Rows(self.texts.iloc[rows], self.cls[rows], self.mean[rows])


class Judged(NamedTuple):
    """Predictions of one method at one place: truth and predicted (n,), probabilities (n, classes of the source)."""

    place: str
    method: str
    truth: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    classes: np.ndarray


# what was read


def load(source: str, target: str = "", *, rows: int = 0, seed: int = 0, **columns: Any) -> Corpora:
    """Read source and target, files of your own or corpora with a name; the target may lack labels.

    `columns` are `text`, `text_pair`, `label`, `labels` and `unescape` of `load_source`, and `target_text` and so on
    where the target has others. `rows` above 0 keeps a random subset of that number of rows of each. Rows that
    cannot be used are counted in `reading_table`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*rows are not used")
        return _loaded(source, target, rows, seed, columns)


def _loaded(source: str, target: str, rows: int, seed: int, columns: Mapping[str, Any]) -> Corpora:
    options = {name: columns.get(name) or None for name in ("text", "text_pair", "label", "labels")}
    known = load_source(source, limit=rows or None, seed=seed, unescape=columns.get("unescape", False), **options)
    counts = _texts(known).groupby(known.frame["label"].to_numpy()).nunique()
    if counts.min() < FEWEST:
        few = known.classes[list(known.numbers.values()).index(counts.idxmin())]
        fault = f"the class {few!r} has {counts.min()} different texts; at least {FEWEST} are needed"
        raise ValueError(f"{known.name}: {fault}")
    if not target:
        return Corpora(known)
    own = {name: columns.get(f"target_{name}") or None for name in options}
    file = Path(target).expanduser()
    if file.is_file():
        there = [str(name).strip().lower() for name in headings(file)]
        for name in ("text", "text_pair", "label"):  # the source's columns, where the target has them
            own[name] = own[name] or (options[name] if (options[name] or "").strip().lower() in there else None)
        if not own["label"] and "label" not in there:
            return Corpora(
                known, _unlabelled(file, own["text"], own["text_pair"], columns.get("unescape", False), rows, seed)
            )
    other = load_source(target, limit=rows or None, seed=seed, unescape=columns.get("unescape", False), **own)
    if other.is_pair != known.is_pair:
        raise ValueError(f"{known.name} and {other.name}: one has pairs of texts, the other single texts")
    if other.name == known.name:
        raise ValueError(f"{known.name}: source and target are the same")
    known.labels_of(other)
    return Corpora(known, other, True)


def _unlabelled(file: Path, text: str | None, text_pair: str | None, unescape: bool, rows: int, seed: int) -> Source:
    """The texts of a file as a source of one unknown class."""
    frame, facts = read_texts(file, text=text, text_pair=text_pair, unescape=unescape)
    frame = frame.assign(label=0).reset_index(drop=True)
    origin = {"kind": "own", "rows_kept": len(frame), **facts}
    if 0 < rows < len(frame):
        stream = np.random.default_rng(derive_seed(seed, "rows", file.name))
        frame = frame.iloc[np.sort(stream.permutation(len(frame))[:rows])]
    return Source(file.name, "own", "train", frame.reset_index(drop=True), origin, ("unknown",))


def reading_table(corpora: Corpora, encoder: Encoder, max_length: int) -> pd.DataFrame:
    """What was read of each corpus and what is wrong with it, a column for each."""
    table = {}
    both = _texts(corpora.source)
    for corpus in filter(None, corpora[:2]):
        texts = _texts(corpus)
        entry = stored_activations(corpus, encoder, max_length=max_length, progress=False)
        is_target = corpus is corpora.target
        names = {number: name for name, number in corpus.numbers.items()}
        labels, is_labelled = corpus.frame["label"].map(names), not is_target or corpora.labelled
        shares = [f"{name}: {share:.1%}" for name, share in labels.value_counts(normalize=True).items()]
        conflicts = labels.groupby(texts.to_numpy()).nunique()
        table[corpus.name] = {
            "rows read": corpus.origin["rows_read"],
            "rows not used": ", ".join(f"{n} {reason}" for reason, n in corpus.origin["skipped"].items()) or "0",
            "rows in this report": corpus.n_rows,
            "classes": ", ".join(shares) if is_labelled else "no labels",
            "repeated texts": int(texts.duplicated().sum()),
            "texts with two labels": int((conflicts > 1).sum()),
            "texts that the other file has, too": int(texts.isin(both).sum()) if is_target else "",
            f"cut to {max_length} tokens": f"{entry.facts()['n_truncated'] / corpus.n_rows:.0%}",
            "with HTML entities": int(sum(unescaped(text) != text for text in texts)),
        }
    return pd.DataFrame(table)


def warnings_of(corpora: Corpora, table: pd.DataFrame) -> list[str]:
    """What a reader has to know before believing a number, a sentence each."""
    said = []
    for corpus in filter(None, corpora[:2]):
        facts = table[corpus.name]
        share = corpus.frame["label"].value_counts(normalize=True).min()
        if corpus is corpora.target and not corpora.labelled:
            said.append(f"{corpus.name} has no labels: its rows are predicted, and nothing can be scored on it.")
        elif share < RARE:
            said.append(f"A class of {corpus.name} has {share:.0%} of the rows only: accuracy says little there.")
        if corpus.n_rows < 200 and (corpus is corpora.source or corpora.labelled):
            said.append(f"{corpus.name} has {corpus.n_rows} rows: the intervals are wide.")
        if corpus.n_rows < corpus.origin.get("rows_kept", corpus.n_rows):
            said.append(f"{corpus.n_rows} rows of {corpus.name} were drawn at random; rows=0 takes all.")
        for fact in ("repeated texts", "texts with two labels", "texts that the other file has, too"):
            if facts[fact]:
                said.append(f"{corpus.name}: {facts[fact]} {fact}.")
        if facts["with HTML entities"]:
            said.append(
                f"{corpus.name}: {facts['with HTML entities']} texts with HTML entities; unescape=true mends them."
            )
    return said


def _texts(source: Source) -> pd.Series:
    """The texts, of pairs both in one."""
    return source.frame["text"].str.cat(source.frame["text_pair"].fillna(""), sep=" ").str.strip()


# what one can expect


def read_rows(source: Source, encoder: Encoder, max_length: int) -> Rows:
    """The texts of a source and their activations: what the store lacks of both poolings comes from one pass."""
    last_layer = np.arange(encoder.n_neurons - encoder.hidden_size, encoder.n_neurons)
    mean = stored_activations(source, encoder, pooling="mean", also=["cls"], max_length=max_length).columns(last_layer)
    return Rows(_texts(source), computable(extract(source, encoder, max_length=max_length)), computable(mean))


def contest(
    corpora: Corpora, encoder: Encoder, model: TransferModel, *, folds: int, forest: Mapping[str, Any]
) -> list[Judged]:
    """Predictions of every method on rows that it was not fitted on: of the source, and of a target with labels.

    K, C, seed and the cut of the texts are those of the model. In the folds TSNS grows the forests that `forest` says.
    """
    settings = model.settings_
    seed, k, max_length = settings["seed"], settings["n_neurons"], settings["max_length"]
    rows, y = read_rows(corpora.source, encoder, max_length), corpora.source.frame["label"].to_numpy()
    classes = np.unique(y)
    groups = pd.factorize(rows.texts)[0]
    n_folds = min(folds, int(rows.texts.groupby(y).nunique().min()))
    split = StratifiedGroupKFold(n_folds, shuffle=True, random_state=derive_seed(seed, "own text") % 2**32)
    parts = list(split.split(groups, y, groups))
    predicted = {method: np.empty(len(y), dtype=y.dtype) for method in METHODS}
    chances = {method: np.zeros((len(y), len(classes))) for method in METHODS}
    for train, test in bar(parts, desc="folds", show=True):
        for method, answer in _fitted(rows.take(train), y[train], encoder, k, model.C_, forest, seed):
            predicted[method][test], found = answer(rows.take(test))
            chances[method][np.ix_(test, np.searchsorted(classes, np.unique(y[train])))] = found
    judged = [Judged(CV, method, y, predicted[method], chances[method], classes) for method in METHODS]
    if corpora.labelled and corpora.target is not None:
        others, truth = read_rows(corpora.target, encoder, max_length), corpora.source.labels_of(corpora.target)
        new = np.flatnonzero(~others.texts.isin(rows.texts).to_numpy())
        if not len(new):
            raise ValueError(f"{corpora.target.name}: the source has every text of it")
        chosen = (model.selected_ - [1, 0]) @ [encoder.hidden_size, 1]
        for method, answer in _fitted(rows, y, encoder, k, model.C_, forest, seed, chosen):
            said, found = answer(others.take(new))
            judged.append(Judged(corpora.target.name, method, truth[new], said, found, classes))
    return judged


Answer = Callable[[Rows], tuple[np.ndarray, np.ndarray]]


def _fitted(
    rows: Rows,
    y: np.ndarray,
    encoder: Encoder,
    k: int,
    C: float,
    forest: Mapping[str, Any],
    seed: int,
    chosen: np.ndarray | None = None,
) -> Any:
    """Every method and what answers for it: a function of rows; `chosen` are the neurons of TSNS, where known."""

    def answer(fit: Any, read: Callable[[Rows], Any]) -> Answer:
        return lambda others: (fit.predict(read(others)), fit.predict_proba(read(others)))

    def on(neurons: np.ndarray) -> Answer:
        return answer(fit_classifier(rows.cls[:, neurons], y, C), lambda others: others.cls[:, neurons])

    majority = DummyClassifier(strategy="most_frequent").fit(np.zeros((len(y), 1)), y)
    yield "majority class", answer(majority, lambda others: np.zeros((len(others.texts), 1)))
    yield "TF-IDF", answer(fit_words(rows.texts, y), lambda others: others.texts)
    yield "mean pooling", answer(fit_classifier(rows.mean, y, C), lambda others: others.mean)
    layers = np.split(np.arange(rows.cls.shape[1]), encoder.n_layers)
    folds = derive_seed(seed, "layers")
    yield "best layer", on(max(layers, key=lambda layer: cv_accuracy(rows.cls[:, layer], y, C, folds, n_folds=2)))
    yield "all neurons", on(np.arange(rows.cls.shape[1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        varied = np.ptp(rows.cls, axis=0) > 0  # a constant neuron has no F
        f_value = np.zeros(len(varied))
        if varied.any():
            f_value[varied] = np.nan_to_num(f_classif(rows.cls[:, varied].astype(float), y)[0])
    yield "F-test", on(select_neurons(f_value, k))
    if chosen is None:
        chosen = SingleTSNS(k, random_state=seed, **forest).fit(rows.cls, y).selected_
    yield TSNS, on(chosen)


def measures(judged: Judged, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric in percent, for each resample of the rows: weights (B, n) count the rows."""
    recalls, f1, areas = [], [], []
    with np.errstate(invalid="ignore", divide="ignore"):
        for label in np.unique(judged.truth):
            is_true, is_said = judged.truth == label, judged.predicted == label
            hits, size = weights @ (is_true & is_said), weights @ is_true
            recalls.append(hits / size)
            f1.append(2 * hits / (size + weights @ is_said))
            column = int(np.searchsorted(judged.classes, label))
            areas.append(_area(judged.probabilities[:, column], is_true, weights))
        accuracy = weights @ (judged.truth == judged.predicted) / weights.sum(axis=1)
    found = (
        accuracy,
        np.nanmean(recalls, axis=0),
        np.nanmean(f1, axis=0),
        np.nanmean(areas[-1:] if len(judged.classes) == 2 else areas, axis=0),
    )
    return {metric: 100 * np.asarray(values, dtype=float) for metric, values in zip(METRICS, found, strict=True)}


def _area(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve in each resample; equal scores count half."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])
    yes, no = (np.add.reduceat((weights * part)[:, order], starts, axis=1) for part in (positive, ~positive))
    below = np.cumsum(no, axis=1) - no / 2
    return (yes * below).sum(axis=1) / (yes.sum(axis=1) * no.sum(axis=1))


def score_table(judged: Sequence[Judged], seed: int) -> pd.DataFrame:
    """Every metric of every method with its interval, and how far it is from the best by the judge, on the same rows.

    Columns: place, method, metric, value, low, high (percent), n; `behind`, `behind_low`, `behind_high` (points) are
    how far the method with the highest balanced accuracy of the place is ahead.
    """
    tables = []
    for place in dict.fromkeys(each.place for each in judged):
        here = [each for each in judged if each.place == place]
        n = len(here[0].truth)
        weights = bootstrap_weights(n, derive_seed(seed, "own text", place), N_BOOT).astype(float)
        exact = {each.method: measures(each, np.ones((1, n))) for each in here}
        drawn = {each.method: measures(each, weights) for each in here}
        best = max(exact, key=lambda method: exact[method][JUDGE][0])
        for method in exact:
            for metric in METRICS:
                ahead = drawn[best][metric] - drawn[method][metric]
                row = {"place": place, "method": method, "metric": metric, "n": n, "value": exact[method][metric][0]}
                row["low"], row["high"] = np.nanpercentile(drawn[method][metric], PERCENTILES)
                row["behind"] = exact[best][metric][0] - exact[method][metric][0]
                row["behind_low"], row["behind_high"] = np.nanpercentile(ahead, PERCENTILES)
                tables.append(row)
    return pd.DataFrame(tables)


def readable(scores: pd.DataFrame, place: str) -> pd.DataFrame:
    """The scores at one place: a row for each method, a column for each metric, "81.2 (79.0 to 83.1)"."""
    rows = scores[scores["place"] == place]
    cells = [f"{row.value:.1f} ({row.low:.1f} to {row.high:.1f})" for row in rows.itertuples()]
    table = rows.assign(cell=cells).pivot(index="method", columns="metric", values="cell")
    return table.loc[list(METHODS), list(METRICS)].assign(needs=METHODS.values()).rename_axis(None, axis=1)


def score_figure(scores: pd.DataFrame, *, generated: bool) -> Figure:
    """Draw the balanced accuracy of every method with its interval, the places side by side."""
    rows = scores[scores["metric"] == JUDGE]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.4, 3.2), layout="constrained")
        for number, (place, own) in enumerate(rows.groupby("place", sort=False)):
            height = np.arange(len(own))[::-1] - 0.2 * number
            spread = [own["value"] - own["low"], own["high"] - own["value"]]
            look: dict[str, Any] = {"color": (BLUE, ORANGE)[number], "marker": "os"[number], "capsize": 2}
            axes.errorbar(own["value"], height, xerr=spread, linestyle="none", label=place.replace("$", r"\$"), **look)
        axes.set_yticks(np.arange(len(METHODS))[::-1] - 0.1, list(METHODS))
        axes.set(xlabel="balanced accuracy (%, 95 % interval)")
        axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        axes.set_title(caption("What one can expect", generated), loc="left", color=INK)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return finish(figure)


# which one to use


class Choice(NamedTuple):
    """What the rule says: the method, the method that is best by figures, and the comparison of all with the best."""

    method: str
    best: str
    place: str
    comparison: pd.DataFrame


def choose(scores: pd.DataFrame) -> Choice:
    """Take the cheapest method that ties with the best one, on the target if it has labels, else on the source.

    Two methods tie if the interval of their difference in balanced accuracy, on the same rows, reaches 0.
    """
    place = scores["place"].iloc[-1]
    rows = scores[(scores["place"] == place) & (scores["metric"] == JUDGE)].set_index("method").loc[list(METHODS)]
    ties = rows["behind_low"] <= 0
    best = str(rows["value"].idxmax())
    comparison = pd.DataFrame(
        {
            JUDGE: rows["value"].round(1),
            f"points behind {best}": rows["behind"].round(1) + 0.0,
            "95 % interval": [f"{row.behind_low:.1f} to {row.behind_high:.1f}" for row in rows.itertuples()],
            "ties": np.where(ties | (rows.index == best), "yes", "no"),
        }
    )
    return Choice(next(method for method in rows.index if ties[method] or method == best), best, place, comparison)


def advice(choice: Choice, scores: pd.DataFrame) -> str:
    """Say by the rule which method to use, with its figure and what it ties with."""
    row = scores[
        (scores["place"] == choice.place) & (scores["metric"] == JUDGE) & (scores["method"] == choice.method)
    ].iloc[0]
    figure = f"balanced accuracy {row['value']:.1f} % ({row['low']:.1f} to {row['high']:.1f}) on {choice.place}"
    if choice.method == "majority class":
        return f"**Use none of them**: no method is surely better than always the largest class ({figure})."
    why = "it is the best" if choice.method == choice.best else f"the best, {choice.best}, is not surely better"
    if choice.method != TSNS:
        tsns = choice.comparison.loc[TSNS]
        reason = "ties with it and costs more" if tsns["ties"] == "yes" else "is behind the best"
        why += f"; TSNS {reason}"
    not_tsns = "" if choice.method == TSNS else ", not TSNS"
    return f"**Use {choice.method}{not_tsns}**: {figure}; {why}."


# which neurons, how stable, and whom they are like


def neuron_table(model: TransferModel) -> pd.DataFrame:
    """The chosen neurons: layer (from 1), neuron (from 0) and the classifier's weight for each class."""
    weights = model.pipeline_[-1].coef_
    names = model.classes_[1:] if len(weights) == 1 else model.classes_
    columns = {f"weight for {name}": weight for name, weight in zip(names, weights, strict=True)}
    return pd.DataFrame({"layer": model.selected_[:, 0], "neuron": model.selected_[:, 1]} | columns)


def largest_weights(model: TransferModel, n: int = 10) -> pd.DataFrame:
    """The neurons with the largest weights, of any class."""
    table = neuron_table(model)
    order = table.iloc[:, 2:].abs().max(axis=1).sort_values(ascending=False, kind="stable").index
    return table.loc[order[:n]].round(3).set_index(["layer", "neuron"])


def layer_table(model: TransferModel, frame: pd.DataFrame) -> pd.DataFrame:
    """Share of the chosen neurons in each layer, percent, with the interval over bootstraps of the resamples."""
    draws = 100 * frame["draws"].iloc[0]
    low, high = np.percentile(draws - draws.mean(axis=0) + 100 * model.fingerprint_, PERCENTILES, axis=0)
    shares = {"share (%)": 100 * model.fingerprint_, "low": np.maximum(low, 0), "high": high}
    return pd.DataFrame(shares, index=pd.RangeIndex(1, len(low) + 1, name="layer")).round(1)


def stability(model: TransferModel) -> str:
    """How much of the choice two halves of the resamples share, beside what chance would."""
    k, n = model.settings_["n_neurons"], model.encoder_.n_neurons
    if np.isnan(model.stability_):
        return f"The {k} neurons come from one resample: nothing is known of their stability."
    return (
        f"Two halves of the resamples share {model.stability_:.0%} of the {k} neurons; chance alone gives {k / n:.0%}."
    )
