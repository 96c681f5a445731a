"""How well a predictor ranks the sources of a target: NDCG, the best source's rank, regret, Spearman's correlation.

A target is one observation. Intervals are the middle 95 % of 2,000 draws of the targets with replacement, the same
draws for every predictor. Sources that a predictor cannot tell apart are put in every order alike.

The figure of the predictors of transfer: how well each ranks the sources, and what it costs.

Predictors of transfer: a number for every ordered pair of sources, and what it costs to know.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from tsns_lib.extraction import stored_activations
from tsns_lib.sampling import derive_seed
from tsns_lib.store import Store
from tsns_lib.transferability.logme import logme
from tsns_workbook.embeddings import rank_sources
from tsns_workbook.finetuning.finetune import FineTuned
from tsns_workbook.plots import FAINT, STYLE, finish
from tsns_workbook.report import caption
from tsns_workbook.statistics import PERCENTILES, Interval

N_ORDERS = 500  # orders of tied sources
N_DRAWS = 2_000  # of the targets
MEASURES = {
    "ndcg": "NDCG",
    "best_rank": "rank of the best source",
    "regret_1": "Regret@1 (%)",
    "regret_3": "Regret@3 (%)",
    "spearman": "Spearman",
}


def ranking_measures(scores: ArrayLike, accuracies: ArrayLike, *, seed: int = 0) -> dict[str, float]:
    """Judge one ranking of the sources of one target (arXiv 2005.00770; its NDCG is from memory).

    Parameters
    ----------
    scores : array of shape (n,)
        What the predictor gives each source; the highest is ranked first.
    accuracies : array of shape (n,)
        What each source reached (0 to 1).
    seed : int
        Of the orders of tied sources.

    Returns
    -------
    dict of str to float
        ``ndcg`` (gain 2^accuracy - 1, discount log2(1 + rank)); ``best_rank`` (1 is best); ``regret_1`` and
        ``regret_3`` (what the best among the first one or three lacks of the best, in percent of the best);
        ``spearman`` (0 where the scores or the accuracies do not vary).

    Raises
    ------
    ValueError
        If there are fewer than two sources, or a value is not finite.

    Examples
    --------
    >>> found = ranking_measures([3, 2, 1], [0.6, 0.8, 0.5])
    >>> found["best_rank"], round(found["regret_1"], 1), found["regret_3"], found["spearman"]
    (2.0, 25.0, 0.0, 0.5)
    """
    given, reached = np.asarray(scores, dtype=float), np.asarray(accuracies, dtype=float)
    if given.ndim != 1 or given.shape != reached.shape or len(given) < 2:
        raise ValueError(f"scores: need one for each of at least two sources, got {given.shape} and {reached.shape}")
    if not (np.isfinite(given).all() and np.isfinite(reached).all()):
        raise ValueError("scores, accuracies: a value is not finite")
    noise = np.random.default_rng(derive_seed(seed, "ties")).random((N_ORDERS, len(given)))
    orders = np.lexsort((noise, np.broadcast_to(-given, noise.shape)), axis=-1)
    gains, best = 2.0**reached - 1, reached.max()
    discounts = 1 / np.log2(np.arange(len(given)) + 2)
    ideal = float(np.sort(gains)[::-1] @ discounts)
    ranked = reached[orders]
    constant = np.ptp(given) == 0 or np.ptp(reached) == 0
    return {
        "ndcg": float((gains[orders] @ discounts).mean() / ideal) if ideal else 1.0,
        "best_rank": float(1 + ranked.argmax(axis=1).mean()),
        "regret_1": float(100 * (best - ranked[:, 0]).mean() / best) if best else 0.0,
        "regret_3": float(100 * (best - ranked[:, :3].max(axis=1)).mean() / best) if best else 0.0,
        "spearman": 0.0 if constant else float(np.corrcoef(rankdata(given), rankdata(reached))[0, 1]),
    }


def target_table(
    pairs: pd.DataFrame, predictors: Sequence[str], outcomes: Sequence[str], *, seed: int = 0
) -> pd.DataFrame:
    """Judge every predictor's ranking of the sources of every target.

    Parameters
    ----------
    pairs : pandas.DataFrame
        One row for each source and target in columns `source`, `target`, one for each predictor (high is promising)
        and one for each outcome (accuracy, 0 to 1).
    predictors, outcomes : sequence of str
        Columns of it.
    seed : int
        As in `ranking_measures`.

    Returns
    -------
    pandas.DataFrame
        Columns outcome, predictor, target and the measures.
    """
    rows: list[dict[str, Any]] = []
    for outcome in outcomes:
        for predictor in predictors:
            for target, part in pairs.groupby("target", sort=False):
                found = ranking_measures(part[predictor], part[outcome], seed=seed)
                rows.append({"outcome": outcome, "predictor": predictor, "target": target, **found})
    return pd.DataFrame(rows)


def predictor_table(targets: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Average every measure over the targets, with its interval.

    Parameters
    ----------
    targets : pandas.DataFrame
        As `target_table` gives it.
    seed : int
        Of the draws of the targets.

    Returns
    -------
    pandas.DataFrame
        One row for each outcome, predictor and measure in columns outcome, predictor, measure, estimate, low, high,
        targets.
    """
    rows = []
    for (outcome, predictor), part in targets.groupby(["outcome", "predictor"], sort=False):
        for measure in MEASURES:
            found = _mean(part[measure].to_numpy(), seed)
            rows.append((outcome, predictor, measure, *found, len(part)))
    columns = ["outcome", "predictor", "measure", *Interval._fields, "targets"]
    return pd.DataFrame(rows, columns=columns)


def ahead(targets: pd.DataFrame, outcome: str, a: str, b: str, *, seed: int = 0) -> Interval:
    """NDCG of predictor A less that of predictor B, mean over the targets, times 100.

    Parameters
    ----------
    targets : pandas.DataFrame
        As `target_table` gives it.
    outcome : str
        Of it.
    a, b : str
        Predictors.
    seed : int
        Of the draws of the targets.
    """
    wide = targets[targets["outcome"] == outcome].pivot(index="target", columns="predictor", values="ndcg")
    return _mean(100 * (wide[a] - wide[b]).to_numpy(), seed)


def readable(table: pd.DataFrame, outcome: str, names: Mapping[str, str], costs: Mapping[str, float]) -> pd.DataFrame:
    """Lay out the scores of the predictors of one outcome for reading, the best NDCG first; strings but the seconds.

    Parameters
    ----------
    table : pandas.DataFrame
        As `predictor_table` gives it.
    outcome : str
        Of it.
    names : mapping of str to str
        What each predictor is called.
    costs : mapping of str to float
        Seconds of each predictor for one source.
    """
    rows = table[table["outcome"] == outcome]
    digits = {"ndcg": 3}  # it hardly leaves 1
    cells = [
        f"{row.estimate:.{n}f} ({row.low:.{n}f} to {row.high:.{n}f})"
        for row in rows.itertuples()
        for n in [digits.get(row.measure, 2)]
    ]
    wide = rows.assign(cell=cells).pivot(index="predictor", columns="measure", values="cell")[list(MEASURES)]
    order = rows[rows["measure"] == "ndcg"].sort_values("estimate", ascending=False, kind="stable")["predictor"]
    wide = wide.loc[order].rename(columns=MEASURES)
    wide["seconds a source"] = [round(costs[name], 2) for name in wide.index]
    return wide.rename(index=names).rename_axis(index="predictor", columns=None)


def _mean(values: np.ndarray, seed: int) -> Interval:
    n = len(values)
    drawn = np.random.default_rng(derive_seed(seed, "targets", n)).integers(n, size=(N_DRAWS, n))
    low, high = np.percentile(values[drawn].mean(axis=1), PERCENTILES)
    return Interval(float(values.mean()), float(low), float(high))


LOOKS = (("#0072B2", "o"), ("#D55E00", "s"))
SHOWN = ("ndcg", "regret_1", "spearman")
CHANCE = "random"


def predictor_figure(
    table: pd.DataFrame, names: Mapping[str, str], costs: Mapping[str, float], sources: Iterable[Any], *, title: str
) -> Figure:
    """Draw what every predictor is worth by three measures, and its cost.

    Parameters
    ----------
    table : pandas.DataFrame
        As `ranking.predictor_table` gives it.
    names : mapping of str to str
        What each predictor is called, from the top; "random" is drawn as a line.
    costs : mapping of str to float
        Seconds for one source.
    sources : iterable of Source or str
        What the table was computed from; the title says if any is generated.
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each measure, a color and shape for each outcome, and the seconds last.
    """
    shown = [name for name in names if name != CHANCE]
    outcomes = list(table["outcome"].unique())
    with plt.rc_context(STYLE):
        size = (11.5, 1.9 + 0.42 * len(shown))
        figure, grid = plt.subplots(1, len(SHOWN) + 1, figsize=size, sharey=True, layout="constrained")
        for axes, measure in zip(grid, SHOWN, strict=False):
            for i, (outcome, (color, shape)) in enumerate(zip(outcomes, LOOKS, strict=False)):
                rows = table[(table["outcome"] == outcome) & (table["measure"] == measure)].set_index("predictor")
                heights = [place + 0.3 * (i - (len(outcomes) - 1) / 2) for place in range(len(shown))]
                own = rows.loc[shown]
                axes.hlines(heights, own["low"], own["high"], color=color)
                axes.plot(own["estimate"], heights, shape, color=color, markersize=6, label=outcome)
                axes.axvline(rows.loc[CHANCE, "estimate"], color=color, linestyle=":", linewidth=1.2)
            axes.set_xlabel(MEASURES[measure])
            axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        grid[-1].barh(range(len(shown)), [max(costs[name], 1e-3) for name in shown], color=FAINT, height=0.6)
        grid[-1].set(xscale="log", xlabel="seconds for one source")
        grid[0].set_yticks(range(len(shown)), [names[name] for name in shown])
        grid[0].invert_yaxis()
        handles, labels = grid[0].get_legend_handles_labels()
        handles.append(plt.Line2D([], [], color=FAINT, linestyle=":"))
        place: dict[str, Any] = {"loc": "outside lower center", "ncols": len(labels) + 1, "frameon": False}
        figure.legend(handles, [*(f"transfer by {label}" for label in labels), "a random ranking"], **place)
        figure.suptitle(caption(title, sources), x=0.01, ha="left", fontsize=12)
    return finish(figure)


Relation = Callable[[str, str], float]


def pair_frame(groups: Mapping[str, Sequence[str]], relations: Mapping[str, Relation]) -> pd.DataFrame:
    """Every ordered pair of sources of a group, with what each relation says of it.

    Parameters
    ----------
    groups : mapping of str to sequence of str
        Names of sources by task.
    relations : mapping of str to callable
        Take the names of a source and a target.

    Returns
    -------
    pandas.DataFrame
        Columns task, source, target, and one for each relation.

    Raises
    ------
    ValueError
        If a relation has the name of one of the first three columns.

    Examples
    --------
    >>> pair_frame({"letters": ["a", "b"]}, {"equal": lambda source, target: float(source == target)})
          task source target  equal
    0  letters      b      a    0.0
    1  letters      a      b    0.0
    """
    if taken := {"task", "source", "target"} & set(relations):
        raise ValueError(f"relations: {min(taken)!r} is the name of another column")
    pairs = [(task, a, b) for task, names in groups.items() for b in names for a in names if a != b]
    columns = {name: [relation(source, target) for _, source, target in pairs] for name, relation in relations.items()}
    return pd.DataFrame(pairs, columns=["task", "source", "target"]).assign(**columns)


def nearest_sources(names: Sequence[str], relations: Mapping[str, Relation]) -> pd.DataFrame:
    """The source that each relation puts first for each target.

    Parameters
    ----------
    names : sequence of str
        Sources, each of which is a target too.
    relations : mapping of str to callable
        Take the names of a source and a target.

    Returns
    -------
    pandas.DataFrame
        Column target, and one for each relation.

    Examples
    --------
    >>> nearest_sources(["aa", "b"], {"by length": lambda source, target: len(source)})
      target by length
    0     aa         b
    1      b        aa
    """
    rows = [
        {"target": target}
        | {
            title: max((name for name in names if name != target), key=lambda name: relation(name, target))
            for title, relation in relations.items()
        }
        for target in names
    ]
    return pd.DataFrame(rows)


def fused_likeness(vectors: Mapping[str, Mapping[str, np.ndarray]], groups: Iterable[Sequence[str]]) -> Relation:
    """The fused ranking of task embeddings as a relation: a target's sources are ranked among those of its group.

    Parameters
    ----------
    vectors : mapping of str to mapping
        Task embeddings by source.
    groups : iterable of sequences of str
        Names of sources that are ranked together.

    Returns
    -------
    callable
        Takes the names of a source and a target.
    """
    scores = {
        target: rank_sources(vectors[target], {name: vectors[name] for name in names if name != target})
        for names in groups
        for target in names
    }
    return lambda source, target: scores[target][source]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two vectors.

    Examples
    --------
    >>> cosine(np.array([1.0, 0.0]), np.array([1.0, 1.0]))
    0.707...
    """
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def profile_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """How alike two profiles of hidden-state variability are: the distance of their logarithms, negative (our choice).

    Examples
    --------
    >>> round(profile_similarity(np.array([1.0, 10.0]), np.array([1.0, 1.0])), 4)
    -2.3026
    """
    return -float(np.linalg.norm(np.log(a) - np.log(b)))


def source_model_logme(tuned: FineTuned, target: Any, **options: Any) -> float:
    """LogME of a source's fine-tuned model for a target: of its last layer's first token, with the target's labels.

    Parameters
    ----------
    tuned : FineTuned
        As `tsns_workbook.finetuning.finetune.fine_tune` gives it.
    target : Source
        Labelled rows of the target, of its training split.
    **options
        Of `tsns_lib.extract`.

    Returns
    -------
    float
    """
    encoder = tuned.encoder()
    last_layer = np.arange(encoder.n_neurons - encoder.hidden_size, encoder.n_neurons)
    return logme(stored_activations(target, encoder, **options).columns(last_layer), target.frame["label"])


def seconds_anew(work: Callable[[Store], Any]) -> float:
    """Time some work in an empty store, where nothing is known yet.

    Parameters
    ----------
    work : callable
        Takes the store.

    Returns
    -------
    float
        Seconds.

    Examples
    --------
    >>> seconds_anew(lambda store: None) < 1
    True
    """
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        work(Store(folder))
        return time.perf_counter() - start
