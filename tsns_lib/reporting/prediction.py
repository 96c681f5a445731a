"""Does the likeness of two fingerprints predict the transfer between them? Correlations over pairs of sources."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsns_lib.fingerprints import METRICS, fingerprint, fingerprint_similarity
from tsns_lib.reporting.permutation import CORRELATIONS, Correlation, correlate
from tsns_lib.reporting.report import claim
from tsns_lib.reporting.statistics import Key
from tsns_lib.sampling import derive_seed

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
