"""What predicts transfer (notebook 13): numbers for every pair of sources, how well they rank the sources, their cost.

A target is one observation. An interval is the middle 95 % of 2,000 bootstrap samples of the targets, the same samples
for every predictor. Sources with the same score are tied: every measure is its mean over all orders of tied sources.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.special import comb
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score

from tsns_lib.extraction import stored_activations
from tsns_lib.sampling import derive_seed
from tsns_lib.store import Store
from tsns_lib.transferability.logme import logme
from tsns_lib.validation import numbers
from tsns_workbook.embeddings import Relation, said
from tsns_workbook.finetuning.finetune import FineTuned, labels_of
from tsns_workbook.finetuning.prepared import temporary_store
from tsns_workbook.plots import BLUE, FAINT, ORANGE, STYLE, finish
from tsns_workbook.report import Interval, caption
from tsns_workbook.statistics import PERCENTILES

N_BOOTSTRAP = 2_000
MEASURES = {
    "ndcg": "NDCG",
    "best_rank": "rank of the best source",
    "regret_1": "Regret@1 (%)",
    "regret_3": "Regret@3 (%)",
    "spearman": "Spearman",
}
DIGITS = {"ndcg": 3}  # it hardly leaves 1; the others are shown with two digits


# numbers for every pair of sources


def pair_frame(groups: Mapping[str, Sequence[str]], relations: Mapping[str, Relation]) -> pd.DataFrame:
    """Every ordered pair of sources within a group, with one column for what each relation says of it.

    Examples
    --------
    >>> pair_frame({"letters": ["a", "b"]}, {"equal": lambda source, target: float(source == target)})
          task source target  equal
    0  letters      b      a    0.0
    1  letters      a      b    0.0
    """
    keys = ["task", "source", "target"]
    for name in keys:
        if name in relations:
            raise ValueError(f"relations: {name!r} is the name of another column")
    pairs = [(task, a, b) for task, names in groups.items() for b in names for a in names if a != b]
    columns = {name: [said(relations, name, source, target) for _, source, target in pairs] for name in relations}
    return pd.DataFrame(pairs, columns=keys).assign(**columns)


def profile_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """How alike two profiles of hidden-state variability are: minus the distance of their logarithms (our choice).

    Examples
    --------
    >>> round(profile_similarity(np.array([1.0, 10.0]), np.array([1.0, 1.0])), 4)
    -2.3026
    """
    profiles = [numbers("profiles", profile, "a number for each layer") for profile in (a, b)]
    for profile in profiles:
        if profile.ndim != 1 or profile.shape != profiles[0].shape:
            raise ValueError(f"profiles: need a number for each layer, got {profiles[0].shape} and {profile.shape}")
        if not (np.isfinite(profile) & (profile > 0)).all():
            raise ValueError(f"profiles: must be positive and finite, got {profile.tolist()}")
    return -float(np.linalg.norm(np.log(profiles[0]) - np.log(profiles[1])))


def source_model_logme(tuned: FineTuned, target: Any, **options: Any) -> float:
    """LogME of the last layer of a source's fine-tuned model, on labelled rows of a target; options are `extract`'s."""
    labels = labels_of(target)
    encoder = tuned.encoder()
    last_layer = np.arange(encoder.n_neurons - encoder.hidden_size, encoder.n_neurons)
    return logme(stored_activations(target, encoder, **options).columns(last_layer), labels)


def seconds_from_empty(work: Callable[[Store], Any]) -> float:
    """Seconds that some work takes when it is given an empty store.

    Examples
    --------
    >>> seconds_from_empty(lambda store: None) < 1
    True
    """
    with temporary_store() as store:
        start = time.perf_counter()
        work(store)
        return time.perf_counter() - start


# how well they rank


def ranking_measures(scores: ArrayLike, accuracies: ArrayLike) -> dict[str, float]:
    """Judge one ranking of the sources of one target (arXiv 2005.00770; its NDCG is from memory).

    The source of the highest score is ranked first; accuracies run from 0 to 1. NDCG has the gain 2^accuracy - 1 and
    the discount log2(1 + rank). The rank of the best source is 1 in the best case. Regret@k is what the best among the
    first k lacks of the best of all, in percent of that. Spearman's correlation is 0 where scores or accuracies are
    all the same.

    Examples
    --------
    >>> measures = ranking_measures([3, 2, 1], [0.6, 0.8, 0.5])
    >>> measures["best_rank"], round(measures["regret_1"], 1), measures["regret_3"], round(measures["spearman"], 4)
    (2.0, 25.0, 0.0, 0.5)
    """
    predicted = numbers("scores", scores, "a number for each source").astype(float)
    reached = numbers("accuracies", accuracies, "a number for each source").astype(float)
    if predicted.ndim != 1 or predicted.shape != reached.shape or len(predicted) < 2:
        shapes = f"{predicted.shape} and {reached.shape}"
        raise ValueError(f"scores: need one for each of at least two sources, got {shapes}")
    for name, values in (("scores", predicted), ("accuracies", reached)):
        if not np.isfinite(values).all():
            place = np.isfinite(values).argmin()
            raise ValueError(f"{name}: a value is not finite, {values[place]} in place {place}")
    if reached.min() < 0 or reached.max() > 1:
        raise ValueError(f"accuracies: must be from 0 to 1, got {reached.min()} to {reached.max()}")
    best = reached.max()
    regrets = {k: 100 * (best - _best_of_first(k, predicted, reached)) / best if best else 0.0 for k in (1, 3)}
    constant = np.ptp(predicted) == 0 or np.ptp(reached) == 0
    return {
        "ndcg": float(ndcg_score([2**reached - 1], [predicted])) if best else 1.0,
        "best_rank": _rank_of_best(predicted, reached),
        "regret_1": float(regrets[1]),
        "regret_3": float(regrets[3]),
        "spearman": 0.0 if constant else float(spearmanr(predicted, reached).statistic),
    }


def _rank_of_best(scores: np.ndarray, accuracies: np.ndarray) -> float:
    """Expected rank of the first source that reaches the best accuracy, with tied sources in random order."""
    is_best = accuracies == accuracies.max()
    score = scores[is_best].max()
    tied = scores == score
    # b marked among m shuffled items leave b + 1 gaps of equal expected length: the first mark is at (m + 1) / (b + 1)
    return float((scores > score).sum() + (tied.sum() + 1) / ((tied & is_best).sum() + 1))


def _best_of_first(k: int, scores: np.ndarray, accuracies: np.ndarray) -> float:
    """Expected best accuracy among the first k sources, with tied sources in random order."""
    k = min(k, len(scores))
    last_score = np.sort(scores)[-k]
    certain, tied = accuracies[scores > last_score], np.sort(accuracies[scores == last_score])
    n_drawn = k - len(certain)
    # how many of the equally likely draws from the tied sources have the i-th worst of them as their best
    chances = comb(np.arange(len(tied)), n_drawn - 1) / comb(len(tied), n_drawn)
    return min(float(chances @ np.maximum(tied, certain.max(initial=0.0))), float(accuracies.max()))


def target_table(pairs: pd.DataFrame, predictors: Sequence[str], outcomes: Sequence[str]) -> pd.DataFrame:
    """The measures of every predictor's ranking for every target, by each outcome.

    `pairs` has one row for each source and target: a column for each predictor (a high value is promising) and one for
    each outcome (an accuracy from 0 to 1).
    """
    for name in (*predictors, *outcomes):
        if name not in pairs:
            raise ValueError(f"pairs: has no column {name!r}")
    rows = [
        {"outcome": outcome, "predictor": predictor, "target": target}
        | ranking_measures(sources[predictor], sources[outcome])
        for outcome in outcomes
        for predictor in predictors
        for target, sources in pairs.groupby("target", sort=False)
    ]
    return pd.DataFrame(rows)


def predictor_table(targets: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Mean of every measure over the targets of a `target_table`, with its interval: one row a measure."""
    rows = []
    for (outcome, predictor), measured in targets.groupby(["outcome", "predictor"], sort=False):
        for measure in MEASURES:
            rows.append((outcome, predictor, measure, *_mean(measured[measure].to_numpy(), seed), len(measured)))
    return pd.DataFrame(rows, columns=["outcome", "predictor", "measure", *Interval._fields, "targets"])


def ahead(targets: pd.DataFrame, outcome: str, a: str, b: str, *, seed: int = 0) -> Interval:
    """NDCG of predictor A minus that of predictor B, times 100, mean over the targets of a `target_table`."""
    wide = targets[targets["outcome"] == outcome].pivot(index="target", columns="predictor", values="ndcg")
    for name in (a, b):
        if name not in wide or wide[name].isna().any():
            raise ValueError(f"targets: predictor {name!r} is not judged by {outcome!r} for every target")
    return _mean(100 * (wide[a] - wide[b]).to_numpy(), seed)


def _mean(values: np.ndarray, seed: int) -> Interval:
    n = len(values)
    resampled = np.random.default_rng(derive_seed(seed, "targets", n)).integers(n, size=(N_BOOTSTRAP, n))
    low, high = np.percentile(values[resampled].mean(axis=1), PERCENTILES)
    return Interval(float(values.mean()), float(low), float(high))


# for reading


def readable(scores: pd.DataFrame, outcome: str, names: Mapping[str, str], costs: Mapping[str, float]) -> pd.DataFrame:
    """Lay out a `predictor_table` for one outcome, the best NDCG first, with the seconds for one source beside it."""
    rows = scores[scores["outcome"] == outcome]
    wide = rows.assign(cell=[_cell(row) for row in rows.itertuples()])
    wide = wide.pivot(index="predictor", columns="measure", values="cell")[list(MEASURES)]
    order = rows[rows["measure"] == "ndcg"].sort_values("estimate", ascending=False, kind="stable")["predictor"]
    wide = wide.loc[order].rename(columns=MEASURES)
    wide["seconds per source"] = [round(costs[name], 2) for name in wide.index]
    return wide.rename(index=names).rename_axis(index="predictor", columns=None)


def _cell(row: Any) -> str:
    digits = DIGITS.get(row.measure, 2)
    return f"{row.estimate:.{digits}f} ({row.low:.{digits}f} to {row.high:.{digits}f})"


LOOKS = ((BLUE, "o"), (ORANGE, "s"))
SHOWN = ("ndcg", "regret_1", "spearman")
CHANCE = "random"


def predictor_figure(
    scores: pd.DataFrame, names: Mapping[str, str], costs: Mapping[str, float], *, generated: bool, title: str
) -> Figure:
    """Draw a `predictor_table`: a panel for each of three measures, a color for each outcome, and the seconds last.

    `names` says what each predictor is called, from the top down; the random ranking becomes a dotted line.
    """
    shown = [name for name in names if name != CHANCE]
    outcomes = list(scores["outcome"].unique())
    with plt.rc_context(STYLE):
        size = (11.5, 1.9 + 0.42 * len(shown))
        figure, panels = plt.subplots(1, len(SHOWN) + 1, figsize=size, sharey=True, layout="constrained")
        for axes, measure in zip(panels, SHOWN, strict=False):
            for i, (outcome, (color, marker)) in enumerate(zip(outcomes, LOOKS, strict=False)):
                rows = scores[(scores["outcome"] == outcome) & (scores["measure"] == measure)].set_index("predictor")
                heights = np.arange(len(shown)) + 0.3 * (i - (len(outcomes) - 1) / 2)
                axes.hlines(heights, rows.loc[shown, "low"], rows.loc[shown, "high"], color=color)
                axes.plot(rows.loc[shown, "estimate"], heights, marker, color=color, markersize=6, label=outcome)
                axes.axvline(rows.loc[CHANCE, "estimate"], color=color, linestyle=":", linewidth=1.2)
            axes.set_xlabel(MEASURES[measure])
            axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        panels[-1].barh(range(len(shown)), [max(costs[name], 1e-3) for name in shown], color=FAINT, height=0.6)
        panels[-1].set(xscale="log", xlabel="seconds for one source")
        panels[0].set_yticks(range(len(shown)), [names[name] for name in shown])
        panels[0].invert_yaxis()
        handles, labels = panels[0].get_legend_handles_labels()
        handles.append(plt.Line2D([], [], color=FAINT, linestyle=":"))
        labels = [*(f"transfer by {label}" for label in labels), "a random ranking"]
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.suptitle(caption(title, generated), x=0.01, ha="left", fontsize=12)
    return finish(figure)
