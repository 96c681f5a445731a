"""What predicts transfer (notebook 13): numbers for every pair of sources, how well they rank the sources, their cost.

Every source is also a target, so the pairs are not independent. For an interval the sources are left out one at a time,
as source and as target (jackknife); against chance they are permuted. Sources with the same score are tied: every
measure is its mean over all orders of tied sources.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.special import comb
from scipy.stats import rankdata, t

from tsns_lib.extraction import stored_activations
from tsns_lib.sampling import derive_seed
from tsns_lib.store import Store
from tsns_lib.transferability.logme import h_score, logme
from tsns_lib.validation import numbers
from tsns_workbook.dyads import N_PERMUTATIONS, Measured, correlate
from tsns_workbook.dyads import Relation as Dyads
from tsns_workbook.embeddings import Relation, said
from tsns_workbook.families import ERROR, holm
from tsns_workbook.finetuning.finetune import FineTuned, labels_of
from tsns_workbook.finetuning.grids import judge
from tsns_workbook.finetuning.prepared import temporary_store
from tsns_workbook.plots import BLUE, FAINT, INK, ORANGE, STYLE, finish
from tsns_workbook.report import Interval, caption
from tsns_workbook.statistics import PERCENTILES

MEASURES = {
    "ndcg": "NDCG (chance 0, best 1)",
    "best_rank": "rank of the best source",
    "regret_1": "Regret@1 (%)",
    "regret_3": "Regret@3 (%)",
    "spearman": "Spearman",
}
BOUNDS = {
    "ndcg": (-np.inf, 1),
    "best_rank": (1, np.inf),
    "regret_1": (0, 100),
    "regret_3": (0, 100),
    "spearman": (-1, 1),
}


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


def source_model_logme(tuned: FineTuned, target: Any, *, intercept: bool = True, **options: Any) -> float:
    """LogME of the last layer of a source's fine-tuned model, on labelled rows of a target; options are `extract`'s."""
    labels = labels_of(target)
    encoder = tuned.encoder()
    last_layer = np.arange(encoder.n_neurons - encoder.hidden_size, encoder.n_neurons)
    states = stored_activations(target, encoder, **options).columns(last_layer)
    return logme(states, labels, intercept=intercept)


def tuned_scores(tuned: FineTuned, target: Any) -> dict[str, Any]:
    """How a fine-tuned model does on a target: what `judge` says of it; classes meet by name."""
    return judge(tuned.source.labels_of(target), tuned.logits(target), tuned.classes)


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


def intercept_table(seed: int = 0) -> pd.DataFrame:
    """LogME of features of which one knows the classes, and of noise far from the origin, in both forms.

    Examples
    --------
    >>> intercept_table().round(1).to_dict("records")
    [{'LogME': 'with an intercept', 'knows': 10.9, 'shifted noise': -0.7}, {'LogME': 'as published', ...}]
    """
    rng = np.random.default_rng(seed)
    classes, noise = np.arange(40) % 2, rng.normal(size=(40, 8))
    features = {"knows": np.column_stack([2 * classes - 1, noise[:, 1:]]), "shifted noise": noise + 3}
    forms = {"with an intercept": True, "as published": False}
    return pd.DataFrame(
        {"LogME": form} | {name: logme(X, classes, intercept=intercept) for name, X in features.items()}
        for form, intercept in forms.items()
    )


def saturation_table(seed: int = 0) -> pd.DataFrame:
    """H-score and LogME of random features and labels, with more and more rows for each of 64 features."""
    rng, rows = np.random.default_rng(seed), []
    for ratio in (0.5, 1, 1.5, 2, 4, 8, 16):
        noise = rng.normal(size=(int(ratio * 64), 64))
        coins = np.arange(len(noise)) % 2
        rows.append({"rows per feature": ratio, "H-score": h_score(noise, coins), "LogME": logme(noise, coins)})
    return pd.DataFrame(rows)


# how well they rank


def ranking_measures(scores: ArrayLike, outcomes: ArrayLike) -> dict[str, float]:
    """Judge one ranking of the sources of one target (arXiv 2005.00770; its NDCG is from memory).

    The source of the highest score is ranked first; outcomes (accuracies, AUC) run from 0 to 1. NDCG has the gain
    2^outcome - 1 and the discount log2(1 + rank). Outcomes of one target are close together, so that even a random
    order comes near 1: it is rescaled to (NDCG - chance) / (1 - chance), where chance is the mean over all orders (our
    choice). The rank of the best source is 1 in the best case. Regret@k is what the best among the first k lacks of the
    best of all, in percent of that. NDCG and Spearman's correlation are 0 where scores or outcomes are all the same.

    Examples
    --------
    >>> measures = ranking_measures([3, 2, 1], [0.6, 0.8, 0.5])
    >>> measures["best_rank"], round(measures["regret_1"], 1), measures["regret_3"], round(measures["spearman"], 4)
    (2.0, 25.0, 0.0, 0.5)
    >>> round(measures["ndcg"], 4)
    0.0399
    """
    predicted = numbers("scores", scores, "a number for each source").astype(float)
    reached = numbers("outcomes", outcomes, "a number for each source").astype(float)
    if predicted.ndim != 1 or predicted.shape != reached.shape or len(predicted) < 2:
        shapes = f"{predicted.shape} and {reached.shape}"
        raise ValueError(f"scores: need one for each of at least two sources, got {shapes}")
    for name, values in (("scores", predicted), ("outcomes", reached)):
        if not np.isfinite(values).all():
            place = np.isfinite(values).argmin()
            raise ValueError(f"{name}: a value is not finite, {values[place]} in place {place}")
    if reached.min() < 0 or reached.max() > 1:
        raise ValueError(f"outcomes: must be from 0 to 1, got {reached.min()} to {reached.max()}")
    best = reached.max()
    regrets = {k: 100 * (best - _best_of_first(k, predicted, reached)) / best if best else 0.0 for k in (1, 3)}
    return {
        "ndcg": float(_ndcg(predicted, reached)),
        "best_rank": _rank_of_best(predicted, reached),
        "regret_1": float(regrets[1]),
        "regret_3": float(regrets[3]),
        "spearman": float(_spearman(predicted, reached)),
    }


def _ndcg(scores: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """NDCG between chance (0) and the best order (1), along the last axis."""
    n, gains = scores.shape[-1], 2**outcomes - 1
    discounts = 1 / np.log2(np.arange(2, n + 2))
    sums = np.concatenate([[0.0], np.cumsum(discounts)])
    first, last = (rankdata(-scores, method, axis=-1).astype(int) for method in ("min", "max"))
    reached = (gains * (sums[last] - sums[first - 1]) / (last - first + 1)).sum(axis=-1)  # tied sources share discounts
    best, chance = np.sort(gains)[..., ::-1] @ discounts, gains.mean(axis=-1) * sums[-1]
    equal = np.isclose(best, chance, rtol=1e-12)
    return np.where(equal, 0.0, (reached - chance) / np.where(equal, 1.0, best - chance))


def _spearman(scores: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Spearman's correlation along the last axis; 0 where one side is constant."""
    a, b = (rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2 for values in (scores, outcomes))
    spread = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    return (a * b).sum(axis=-1) / np.where(spread == 0, 1.0, spread)


def _rank_of_best(scores: np.ndarray, outcomes: np.ndarray) -> float:
    """Expected rank of the first source that reaches the best outcome, with tied sources in random order."""
    is_best = outcomes == outcomes.max()
    score = scores[is_best].max()
    tied = scores == score
    # b marked among m shuffled items leave b + 1 gaps of equal expected length: the first mark is at (m + 1) / (b + 1)
    return float((scores > score).sum() + (tied.sum() + 1) / ((tied & is_best).sum() + 1))


def _best_of_first(k: int, scores: np.ndarray, outcomes: np.ndarray) -> float:
    """Expected best outcome among the first k sources, with tied sources in random order."""
    k = min(k, len(scores))
    last_score = np.sort(scores)[-k]
    certain, tied = outcomes[scores > last_score], np.sort(outcomes[scores == last_score])
    n_drawn = k - len(certain)
    # how many of the equally likely draws from the tied sources have the i-th worst of them as their best
    chances = comb(np.arange(len(tied)), n_drawn - 1) / comb(len(tied), n_drawn)
    return min(float(chances @ np.maximum(tied, certain.max(initial=0.0))), float(outcomes.max()))


def target_table(pairs: pd.DataFrame, predictors: Sequence[str], outcomes: Sequence[str]) -> pd.DataFrame:
    """The measures of every predictor's ranking for every target, by each outcome.

    `pairs` has one row for each ordered pair of a task's sources: a column for each predictor (a high value is
    promising) and one for each outcome (an accuracy or AUC from 0 to 1).
    """
    tasks = _by_task(pairs, [*predictors, *outcomes])
    rows = [
        {"outcome": outcome, "predictor": predictor, "target": target}
        | ranking_measures(sources[predictor], sources[outcome])
        for outcome in outcomes
        for predictor in predictors
        for task in tasks
        for target, sources in task.groupby("target", sort=False)
    ]
    return pd.DataFrame(rows)


def _by_task(pairs: pd.DataFrame, columns: Sequence[str]) -> list[pd.DataFrame]:
    """The rows of each task; a ValueError unless each ordered pair of its sources has one row, with finite numbers.

    A ranking that lacks a source would be judged as a shorter one, and a gap would be permuted like a number.
    """
    for name in ("task", "source", "target", *columns):
        if name not in pairs:
            raise ValueError(f"pairs: has no column {name!r}")
    if pairs.empty:
        raise ValueError("pairs: has no rows")
    tasks = [rows[rows["source"] != rows["target"]] for _, rows in pairs.groupby("task", sort=False)]
    for rows in tasks:
        ends = list(zip(rows["source"], rows["target"], strict=True))
        for a, b in permutations(dict.fromkeys([*rows["source"], *rows["target"]]), 2):
            if ends.count((a, b)) != 1:
                raise ValueError(f"pairs: has {ends.count((a, b))} rows of {a} → {b}, and one is needed")
        for name in columns:
            values = numbers(name, rows[name], "a number for each pair")
            if not np.isfinite(values).all():
                place = np.isfinite(values).argmin()
                raise ValueError(f"{name}: is {values[place]} for {' → '.join(ends[place])}")
    return tasks


def leave_out(pairs: pd.DataFrame, predictors: Sequence[str], outcomes: Sequence[str]) -> pd.DataFrame:
    """Means over the targets: the first row of all pairs, then without each source, neither as source nor as target.

    A column for each outcome, predictor and measure.
    """
    fewest = min(rows["source"].nunique() for rows in _by_task(pairs, [*predictors, *outcomes])) - 1
    if fewest < 3:
        raise ValueError(f"pairs: to leave one out, a target needs at least three sources, got {fewest}")
    kept = {"": pairs} | {
        name: pairs[(pairs["source"] != name) & (pairs["target"] != name)] for name in pairs["target"].unique()
    }
    keys = ["outcome", "predictor"]
    means = {
        name: target_table(rows, predictors, outcomes).groupby(keys, sort=False)[list(MEASURES)].mean().stack()
        for name, rows in kept.items()
    }
    return pd.DataFrame(means).T


def predictor_table(means: pd.DataFrame) -> pd.DataFrame:
    """Every measure of `leave_out` with its interval, which ends where the measure does: one row a measure."""
    rows = [(*column, *np.clip(_jackknife(means[column].to_numpy()), *BOUNDS[column[-1]])) for column in means]
    return pd.DataFrame(rows, columns=["outcome", "predictor", "measure", *Interval._fields])


def ahead(means: pd.DataFrame, outcome: str, a: str, b: str) -> Interval:
    """NDCG of predictor A minus that of predictor B, times 100, mean over the targets of `leave_out`."""
    columns = [(outcome, name, "ndcg") for name in (a, b)]
    for column in columns:
        if column not in means:
            raise ValueError(f"means: predictor {column[1]!r} is not judged by {outcome!r}")
    return _jackknife(100 * (means[columns[0]] - means[columns[1]]).to_numpy())


def _jackknife(values: np.ndarray) -> Interval:
    """The first value, with a t interval from the others, which each lack one source."""
    n = len(values) - 1
    spread = np.sqrt((n - 1) * values[1:].var())
    half = t.ppf(PERCENTILES[1] / 100, n - 1) * spread
    return Interval(float(values[0]), float(values[0] - half), float(values[0] + half))


def matrices(pairs: pd.DataFrame, predictor: str, outcome: str) -> list[Dyads]:
    """A predictor and an outcome as a relation for each task, for the tests of `dyads`."""
    sides = [
        [rows.pivot(index="source", columns="target", values=name) for name in (predictor, outcome)]
        for rows in _by_task(pairs, [predictor, outcome])
    ]
    return [(predicted.to_numpy(), reached.to_numpy()) for predicted, reached in sides]


def above_chance(pairs: pd.DataFrame, predictor: str, outcome: str, *, seed: int = 0) -> Measured:
    """NDCG of a predictor, times 100, mean over the targets, less the middle 95 % of what permuted sources give."""
    total = 0.0
    for number, (predicted, reached) in enumerate(matrices(pairs, predictor, outcome)):
        n = len(predicted)
        rng = np.random.default_rng(derive_seed(seed, "permuted sources", number))
        orders = np.concatenate([[np.arange(n)], rng.permuted(np.tile(np.arange(n), (N_PERMUTATIONS, 1)), axis=1)])
        others = np.array([np.delete(np.arange(n), target) for target in range(n)])
        scores = predicted[orders[:, others], orders[:, :, None]]  # permutation, target, source
        outcomes = np.take_along_axis(reached.T, others, axis=1)
        total = total + 100 * _ndcg(scores, np.broadcast_to(outcomes, scores.shape)).sum(axis=1)
    values = (total / pairs["target"].nunique()).round(9)
    estimate, null = float(values[0]), values[1:]
    low, high = np.percentile(null, PERCENTILES)
    tails = 1 + (null >= estimate).sum(), 1 + (null <= estimate).sum()
    p = min(1.0, 2 * float(min(tails)) / (1 + N_PERMUTATIONS))
    return Measured(estimate, estimate - float(high), estimate - float(low), p)


def chance_table(
    pairs: pd.DataFrame, predictors: Sequence[str], outcomes: Sequence[str], *, seed: int = 0
) -> pd.DataFrame:
    """Spearman of every predictor within the targets, the p value of permuted sources, and the least it could show.

    "detectable" is the smallest correlation that could have been told from chance: above 97.5 % of the permuted ones.
    A predictor that says the same of all sources has none of these.
    """
    rows = []
    for outcome in outcomes:
        for predictor in predictors:
            found = correlate(matrices(pairs, predictor, outcome), "spearman", within=True, seed=seed)
            rows.append((outcome, predictor, found.estimate, found.null_high, found.p))
    return pd.DataFrame(rows, columns=["outcome", "predictor", "spearman", "detectable", "p"])


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
    estimate, low, high = (round(value, 2) + 0.0 for value in (row.estimate, row.low, row.high))  # no minus before a 0
    return f"{estimate:.2f} ({low:.2f} to {high:.2f})"


def sentence(scores: pd.DataFrame, chances: pd.DataFrame, outcome: str, names: Mapping[str, str]) -> str:
    """Say which predictor ranks best by one outcome, which are told from chance, and what could have been seen.

    `scores` is a `predictor_table`, `chances` a `chance_table`. All predictors share one error of 5 % (Holm).
    """
    ndcg = scores[(scores["outcome"] == outcome) & (scores["measure"] == "ndcg") & (scores["predictor"] != CHANCE)]
    best = ndcg.loc[ndcg["estimate"].idxmax()]
    rows = chances[chances["outcome"] == outcome].dropna()
    rows = rows.assign(shared=holm(rows["p"].to_list()))
    told = rows[(rows["p"] < ERROR) & (rows["spearman"] > 0)].sort_values("spearman", ascending=False)
    after, alone = (
        ", ".join(f"{names[row.predictor]} (ρ = {row.spearman:.2f}, {p_value(row.p)})" for row in found.itertuples())
        for found in (told[told["shared"] <= ERROR], told[told["shared"] > ERROR])
    )
    return (
        f"By {outcome}, {names[best['predictor']]} ranks the sources best: NDCG {_cell(best)}, where chance is 0 and "
        f"the best order 1. Told from chance (sources permuted, ranks pooled over the targets) once the {len(rows)} "
        f"predictors share one error of 5 %: {after or 'none'}; before that, too: {alone or 'none'}. A correlation "
        f"below {rows['detectable'].min():.2f} could not have been seen."
    )


def p_value(p: float) -> str:
    """A p value with three digits, but never as 0.

    Examples
    --------
    >>> p_value(0.0412), p_value(0.0004)
    ('p = 0.041', 'p < 0.001')
    """
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def majority_sentence(pairs: pd.DataFrame, outcome: str, majority: Mapping[str, float]) -> str:
    """Count the transfers of a `pair_frame` that are right no more often than the target's majority class (percent)."""
    poor = 100 * pairs[outcome] <= pairs["target"].map(majority)
    counts = [f"{rows.sum()} of {len(rows)} ({task})" for task, rows in poor.groupby(pairs["task"], sort=False)]
    return f"By {outcome}, no better than the majority class of the target are {', '.join(counts)}."


# color, marker and filling: one colour for a way to transfer, open for its AUC
LOOKS = ((BLUE, "o", BLUE), (BLUE, "o", "white"), (ORANGE, "s", ORANGE), (ORANGE, "s", "white"))
SHOWN = ("ndcg", "regret_1", "spearman")
CHANCE = "random"


def predictor_figure(
    scores: pd.DataFrame, names: Mapping[str, str], costs: Mapping[str, float], *, generated: bool, title: str
) -> Figure:
    """Draw a `predictor_table`: a panel for each of three measures, a mark for each outcome, and the seconds last.

    `names` says what each predictor is called, from the top down; the random ranking becomes a dotted line.
    """
    shown = [name for name in names if name != CHANCE]
    outcomes = list(scores["outcome"].unique())
    with plt.rc_context(STYLE):
        size = (11.5, 1.9 + 0.14 * len(shown) * (1 + len(outcomes)))
        figure, panels = plt.subplots(1, len(SHOWN) + 1, figsize=size, sharey=True, layout="constrained")
        for axes, measure in zip(panels, SHOWN, strict=False):
            for i, (outcome, (color, marker, filling)) in enumerate(zip(outcomes, LOOKS, strict=False)):
                rows = scores[(scores["outcome"] == outcome) & (scores["measure"] == measure)].set_index("predictor")
                heights = np.arange(len(shown)) + 0.18 * (i - (len(outcomes) - 1) / 2)
                axes.hlines(heights, rows.loc[shown, "low"], rows.loc[shown, "high"], color=color, linewidth=1.2)
                look: dict[str, Any] = {"color": color, "mfc": filling, "markersize": 5, "label": outcome}
                axes.plot(rows.loc[shown, "estimate"], heights, marker, **look)
                axes.axvline(rows.loc[CHANCE, "estimate"], color=color, linestyle=":", linewidth=1.2)
            axes.set_xlabel(MEASURES[measure])
            axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        panels[-1].plot([max(costs[name], 1e-3) for name in shown], range(len(shown)), "D", color=INK, markersize=5)
        panels[-1].set(xscale="log", xlabel="seconds for one source")
        panels[-1].grid(axis="both", color="#E5E5E5", linewidth=0.8)
        panels[0].set_yticks(range(len(shown)), [names[name] for name in shown])
        panels[0].invert_yaxis()
        handles, labels = panels[0].get_legend_handles_labels()
        handles.append(plt.Line2D([], [], color=FAINT, linestyle=":"))
        figure.legend(handles, [*labels, "a random ranking"], loc="outside lower center", ncols=5, frameon=False)
        figure.suptitle(caption(title, generated), x=0.01, ha="left", fontsize=12)
    return finish(figure)
