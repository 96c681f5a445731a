"""Correlation of two relations between sources, with what belongs to it when pairs share their sources.

A relation is a matrix, sources down and targets across, its diagonal missing. Its pairs are no independent
observations: every source stands in many of them. So the null is made by permuting the *sources* of one
relation (rows and columns together, the quadratic assignment procedure), and the correlation is repeated
without each of the sources.

Does the likeness of two fingerprints predict the transfer between them? Correlations over pairs of sources.

Figures about the prediction of transfer, in the style of `tsns_workbook.plots`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import rankdata

from tsns_lib.fingerprints import METRICS, fingerprint, fingerprint_similarity
from tsns_lib.sampling import derive_seed
from tsns_workbook.plots import INK, STYLE, finish
from tsns_workbook.report import bare, caption, claim
from tsns_workbook.statistics import PERCENTILES, Key

N_PERMUTATIONS = 4_999
CORRELATIONS = ("spearman", "pearson")

Relations = Sequence[tuple[np.ndarray, np.ndarray]]  # predictor and outcome, for one group of sources or several


class Correlation(NamedTuple):
    """A correlation; all fields are NaN where the predictor does not vary.

    `null_low` to `null_high` is the middle 95 % of the permuted correlations, `p` the one-sided p value
    against all of them, `left_out_low` to `left_out_high` the range without each source.
    """

    estimate: float
    null_low: float
    null_high: float
    p: float
    left_out_low: float
    left_out_high: float


def correlate(relations: Relations, correlation: str, *, within: bool = False, seed: int = 0) -> Correlation:
    """Correlate a predictor with an outcome over the pairs of sources.

    Parameters
    ----------
    relations : sequence of (ndarray of shape (n, n), ndarray of shape (n, n))
        Predictor and outcome of each group of sources; pairs are formed within a group only.
    correlation : {"spearman", "pearson"}
    within : bool
        Whether to compare only sources of the same target: values are ranked, or for Pearson centred, within
        the columns, so that neither a target's difficulty nor its group can help. Default False.
    seed : int
        Seed of the permutations.

    Returns
    -------
    Correlation

    Raises
    ------
    ValueError
        If the correlation is unknown, or a group has fewer than four sources.

    Examples
    --------
    >>> outcome = np.arange(36.0).reshape(6, 6)
    >>> correlate([(outcome**2, outcome)], "spearman").estimate
    1.0
    """
    if correlation not in CORRELATIONS:
        raise ValueError(f"correlation: must be 'spearman' or 'pearson', got {correlation!r}")
    if (least := min(len(x) for x, _ in relations)) < 4:
        raise ValueError(f"relations: need at least four sources in every group, got {least}")
    prepare = _preparation(correlation, within)
    ready = [(prepare(x), prepare(y)) for x, y in relations]
    estimate = _pearson([x for x, _ in ready], [y for _, y in ready])
    if np.isnan(estimate):
        return Correlation(*[float("nan")] * 6)
    # preparing commutes with permuting sources: both leave the pairs of a target together
    orders = [_permutations(len(x), derive_seed(seed, "permutation", i)) for i, (x, _) in enumerate(ready)]
    permuted = [x[order[:, :, None], order[:, None, :]] for (x, _), order in zip(ready, orders, strict=True)]
    null = _pearson(permuted, [y for _, y in ready])
    low, high = np.percentile(null, PERCENTILES)
    p = (1 + (null >= estimate - 1e-9).sum()) / (1 + len(null))
    left_out = []
    for group in range(len(relations)):
        for out in range(len(relations[group][0])):
            fewer = [_without(pair, out) if i == group else pair for i, pair in enumerate(relations)]
            left_out.append(_pearson([prepare(x) for x, _ in fewer], [prepare(y) for _, y in fewer]))
    return Correlation(*map(float, (estimate, low, high, p, np.nanmin(left_out), np.nanmax(left_out))))


def _without(relation: tuple[np.ndarray, np.ndarray], source: int) -> tuple[np.ndarray, np.ndarray]:
    kept = np.delete(np.arange(len(relation[0])), source)
    return relation[0][np.ix_(kept, kept)], relation[1][np.ix_(kept, kept)]


def _preparation(correlation: str, within: bool) -> Callable[[np.ndarray], np.ndarray]:
    """What makes Pearson's correlation of two matrices the wanted one."""
    axis = 0 if within else None

    def ranks(matrix: np.ndarray) -> np.ndarray:
        pairs = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix.round(9))
        return rankdata(pairs, axis=axis, nan_policy="omit").reshape(matrix.shape)

    def centred(matrix: np.ndarray) -> np.ndarray:
        pairs = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)
        return pairs - np.nanmean(pairs, axis=axis)

    return ranks if correlation == "spearman" else centred


def _permutations(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(np.arange(n), (N_PERMUTATIONS, 1)), axis=1)


def _pearson(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> np.ndarray:
    """Pearson's correlation over the off-diagonal cells of several matrices; x may hold many of each."""
    flat = [[m[..., ~np.eye(m.shape[-1], dtype=bool)] for m in side] for side in (x, y)]
    a, b = (np.concatenate(parts, axis=-1) for parts in flat)
    a, b = (values - values.mean(axis=-1, keepdims=True) for values in (a, b))
    scale = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 1e-9, (a * b).sum(axis=-1) / scale, np.nan)


OUTCOMES = ("accuracy", "gain")
PREDICTORS = {
    "cosine": "cosine",
    "jensen_shannon": "Jensen–Shannon",
    "wasserstein": "Wasserstein",
    "random": "random neurons' cosine",
    "log_rows": "rows of the source (log)",
    "majority": "majority class of the target",
}
WITHIN = "within targets"  # the scope of all tasks together: sources are compared for the same target only


def pair_table(
    grids: Mapping[str, pd.DataFrame], sources: Sequence[Any], chosen: Key, last: Key, encoder: Any
) -> pd.DataFrame:
    """Every ordered pair of sources of a task: how well it transfers, and what might have predicted it.

    Parameters
    ----------
    grids : mapping of str to pandas.DataFrame
        By task, as `tsns_lib.transfer_grid` gives them, every source being a target too.
    sources : sequence of Source
        The sources of all grids.
    chosen, last : (method, k)
        The selection, such as ("tsns", 500), and the last layer.
    encoder : Encoder
        Whose neurons they are.

    Returns
    -------
    pandas.DataFrame
        Columns task, source, target; accuracy (percent, mean of the runs), gain (points over the last layer);
        cosine, jensen_shannon, wasserstein (similarity of the mean fingerprints of the runs, the target's from
        its training labels), random (cosine of those of K random neurons), log_rows (natural logarithm of the
        source's rows), majority (percent of the target's larger class).

    Raises
    ------
    ValueError
        If a source is no target or a target no source, or a pair was not run.
    """
    rows = {source.name: source.n_rows for source in sources}
    tables = []
    for task, grid in grids.items():
        cells = grid.groupby(["source", "target", "method", "k"], sort=False)["accuracy"].mean().mul(100)
        prints, dice = (_fingerprints(grid, (method, chosen[1]), encoder) for method in (chosen[0], "random"))
        names = list(prints)
        for source, target in [(a, b) for a in names for b in names if a != b]:
            for key in (chosen, last, ("majority", 0)):
                if (source, target, *key) not in cells.index:
                    raise ValueError(f"grid {task!r} has no accuracy of {key} from {source!r} to {target!r}")
            own, baseline, majority = (cells[source, target, *key] for key in (chosen, last, ("majority", 0)))
            facts = {"task": task, "source": source, "target": target, "accuracy": own, "gain": own - baseline}
            facts |= {m: fingerprint_similarity(prints[source], prints[target], m) for m in METRICS}
            facts["random"] = fingerprint_similarity(dice[source], dice[target])
            tables.append(facts | {"log_rows": np.log(rows[source]), "majority": majority})
    return pd.DataFrame(tables)


def correlation_table(pairs: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Correlate every predictor with accuracy and with gain, task by task and with the task removed.

    Parameters
    ----------
    pairs : pandas.DataFrame
        As `pair_table` gives it.
    seed : int
        Seed of the permutations.

    Returns
    -------
    pandas.DataFrame
        One row for each scope (a task: all its pairs; "within targets": the pairs of all tasks, values being
        ranked, or for Pearson centred, among the sources of the same target, so that neither task nor target
        can help), outcome, predictor and correlation ("spearman", "pearson"), in columns `scope`, `outcome`,
        `predictor`, `correlation`, `estimate`, `low`, `high` (see the module), `p` (one-sided permutation
        p value, 4,999 permutations), `left_out_low`, `left_out_high` (range without each source), `pairs`.
        A predictor without variation gives missing values.

    Raises
    ------
    ValueError
        If a task has fewer than four sources, or lacks a pair.
    """
    tasks = {task: rows for task, rows in pairs.groupby("task", sort=False)}
    scopes = {task: [rows] for task, rows in tasks.items()} | {WITHIN: list(tasks.values())}
    rows = []
    for scope, parts in scopes.items():
        for outcome in OUTCOMES:
            for predictor in PREDICTORS:
                relations = [(_square(part, predictor), _square(part, outcome)) for part in parts]
                for name in CORRELATIONS:
                    own = derive_seed(seed, scope)  # not the predictor's: all are judged by the same permutations
                    found = correlate(relations, name, within=scope == WITHIN, seed=own)
                    rows.append((scope, outcome, predictor, name, *found, sum(map(len, parts))))
    columns = ["scope", "outcome", "predictor", "correlation", *Correlation._fields, "pairs"]
    return pd.DataFrame(rows, columns=columns)


def prediction_table(correlations: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """Lay out the correlations with one outcome for reading.

    Parameters
    ----------
    correlations : pandas.DataFrame
        As `correlation_table` gives it.
    outcome : {"accuracy", "gain"}

    Returns
    -------
    pandas.DataFrame
        Scopes and predictors down: both correlations, their permutation p values and the range of Spearman's
        without each source.
    """
    rows = correlations[correlations["outcome"] == outcome].assign(
        predictor=lambda frame: frame["predictor"].map(PREDICTORS)
    )
    wide = rows.pivot_table(
        index=["scope", "predictor"], columns="correlation", values=["estimate", "p"], sort=False, dropna=False
    )
    spearman = rows[rows["correlation"] == "spearman"].set_index(["scope", "predictor"])
    return pd.DataFrame(
        {
            "Spearman": wide["estimate", "spearman"],
            "p": wide["p", "spearman"],
            "without one source, least": spearman["left_out_low"],
            "without one source, most": spearman["left_out_high"],
            "Pearson": wide["estimate", "pearson"],
            "p (Pearson)": wide["p", "pearson"],
        }
    ).round(2)


def prediction_claims(correlations: pd.DataFrame, tasks: Mapping[str, str]) -> list[dict[str, Any]]:
    """Judge the paper's headline by Spearman's correlation of the cosine.

    The interval is the estimate less the middle 95 % of the correlations with permuted sources: it lies above 0
    where the estimate exceeds 97.5 % of them.

    Parameters
    ----------
    correlations : pandas.DataFrame
        As `correlation_table` gives it.
    tasks : mapping of str to str
        The scope of each claim about one task, {"sentiment": ..., "pairs": ...}.

    Returns
    -------
    list of dict
        As `report.claim` gives them.
    """
    rows = correlations[(correlations["predictor"] == "cosine") & (correlations["correlation"] == "spearman")]
    low = (rows["estimate"] - rows["null_high"]).clip(lower=-1)
    high = (rows["estimate"] - rows["null_low"]).clip(upper=1)
    found = rows.assign(low=low, high=high).set_index(["scope", "outcome"])[["estimate", "low", "high"]]
    wanted = {f"prediction.{name}": (scope, "accuracy") for name, scope in tasks.items()}
    wanted |= {f"prediction.{outcome}": (WITHIN, outcome) for outcome in OUTCOMES}
    return [
        claim(id) if found.loc[cell].isna().any() else claim(id, *found.loc[cell].tolist())
        for id, cell in wanted.items()
    ]


def _fingerprints(grid: pd.DataFrame, key: Key, encoder: Any) -> dict[str, np.ndarray]:
    """Mean fingerprint of the runs of every source of a grid."""
    rows = grid[(grid["method"] == key[0]) & (grid["k"] == key[1])].drop_duplicates(["source", "run"])
    if rows.empty or set(grid["source"]) != set(grid["target"]):
        raise ValueError(f"grid: every source must be a target too, and {key} be run")
    shares = rows["selected"].map(lambda selected: fingerprint(selected, encoder.n_layers, encoder.n_neurons))
    return {name: np.mean(runs.to_list(), axis=0) for name, runs in shares.groupby(rows["source"], sort=False)}


def _square(rows: pd.DataFrame, column: str) -> np.ndarray:
    """One column of the pairs as a matrix, sources down and targets across; its diagonal is missing."""
    names = list(rows["source"].unique())
    matrix = rows.pivot(index="source", columns="target", values=column).reindex(index=names, columns=names)
    if len(names) < 4 or len(rows) != len(names) * (len(names) - 1):
        raise ValueError(f"pairs: need every pair of at least four sources, got {len(rows)} pairs of {names}")
    return matrix.to_numpy()


UNITS = {"accuracy": "accuracy (%)", "gain": "gain over the last layer (points)"}
# Okabe and Ito's palette and six shapes: a target is told by both
BLUE = "#0072B2"
COLORS = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#222222", "#E69F00")
SHAPES = ("o", "s", "^", "D", "v", "P")


def similarity_scatter(pairs: pd.DataFrame, *, predictor: str = "cosine", title: str) -> Figure:
    """Draw accuracy and gain of every pair of sources against the similarity of their fingerprints.

    Parameters
    ----------
    pairs : pandas.DataFrame
        As `prediction.pair_table` gives it.
    predictor : str
        A column of it; default "cosine".
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        Tasks across, outcomes down; color and shape tell the target, whose pairs are to be compared.
    """
    tasks = list(pairs["task"].unique())
    with plt.rc_context(STYLE):
        size = (1.0 + 4.6 * len(tasks), 5.6)
        figure, grid = plt.subplots(2, len(tasks), figsize=size, sharex="col", squeeze=False, layout="constrained")
        for column, task in enumerate(tasks):
            part = pairs[pairs["task"] == task]
            for axes, outcome in zip(grid[:, column], OUTCOMES, strict=True):
                for i, target in enumerate(part["source"].unique()):
                    rows = part[part["target"] == target]
                    look = {"color": COLORS[i % len(COLORS)], "marker": SHAPES[i % len(SHAPES)]}
                    axes.scatter(rows[predictor], rows[outcome], s=34, alpha=0.85, label=bare(target), **look)
                axes.set_ylabel(UNITS[outcome])
                axes.grid(color="#E5E5E5", linewidth=0.8)
            grid[1, column].xaxis.set_major_locator(MaxNLocator(5))
            grid[1, column].axhline(0, color=INK, linewidth=1)
            grid[1, column].set_xlabel(f"similarity of the fingerprints ({PREDICTORS[predictor]})")
            grid[0, column].set_title(task, loc="left")
            grid[0, column].legend(title="target", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        figure.suptitle(caption(title, pairs["source"]), x=0.01, ha="left", fontsize=11)
    return finish(figure)


def predictor_plot(correlations: pd.DataFrame, sources: Iterable[str], *, title: str) -> Figure:
    """Draw what every predictor is worth: Spearman's correlation, its range without a source, and chance.

    Parameters
    ----------
    correlations : pandas.DataFrame
        As `prediction.correlation_table` gives it.
    sources : iterable of str
        What they were computed from; the title says if any is generated.
    title : str
        Title without the mark for generated data.

    Returns
    -------
    matplotlib.figure.Figure
        Scopes across, outcomes down; grey is the middle 95 % of the correlations with permuted sources.
    """
    spearman = correlations[correlations["correlation"] == "spearman"].dropna(subset=["estimate"])
    scopes, names = list(correlations["scope"].unique()), list(PREDICTORS)
    with plt.rc_context(STYLE):
        size = (2.6 + 2.6 * len(scopes), 1.4 + 0.5 * len(names))
        shape: dict[str, Any] = {"sharex": True, "sharey": True, "squeeze": False, "layout": "constrained"}
        figure, grid = plt.subplots(2, len(scopes), figsize=size, **shape)
        for (row, column), axes in np.ndenumerate(grid):
            rows = spearman[(spearman["scope"] == scopes[column]) & (spearman["outcome"] == OUTCOMES[row])]
            heights = [names.index(name) for name in rows["predictor"]]
            chance = {"left": rows["null_low"], "height": 0.7, "color": "#DDDDDD", "label": "chance, 95 %"}
            axes.barh(heights, rows["null_high"] - rows["null_low"], **chance)
            axes.axvline(0, color=INK, linewidth=1)
            ends = (rows["left_out_low"], rows["left_out_high"])
            axes.hlines(heights, *ends, color=BLUE, label="without one source")
            axes.plot(rows["estimate"], heights, "o", color=BLUE, markersize=6, label="all sources")
            axes.set_yticks(range(len(names)), PREDICTORS.values())
            if row == 0:
                axes.set_title(scopes[column], loc="left")
            if column == 0:
                axes.set_ylabel(OUTCOMES[row])
        grid[0, 0].invert_yaxis()
        figure.supxlabel("Spearman's correlation", fontsize=10)
        figure.suptitle(caption(title, sources), x=0.01, ha="left", fontsize=11)
        grid[0, -1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    return finish(figure)
