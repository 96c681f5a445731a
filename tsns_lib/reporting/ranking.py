"""How well a predictor ranks the sources of a target: NDCG, the best source's rank, regret, Spearman's correlation.

A target is one observation. Intervals are the middle 95 % of 2,000 draws of the targets with replacement, the same
draws for every predictor. Sources that a predictor cannot tell apart are put in every order alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from tsns_lib.reporting.statistics import PERCENTILES, Interval
from tsns_lib.sampling import derive_seed

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
