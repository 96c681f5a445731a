"""What fingerprints show: shares with intervals, controls, similarities.

Intervals are bootstrap intervals over the resamples: in every draw each run's resamples are drawn anew with
replacement, the K neurons are chosen again, and the runs averaged. They say how far the forests and their
subsamples of *this* corpus would move a fingerprint, nothing about other texts. A draw rests on fewer
different resamples and so chooses more noisily than the run itself; the middle 95 % of the draws is
therefore shifted to lie around the estimate.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tsns_lib.fingerprints import fingerprint_similarity, uniform_band
from tsns_lib.reporting.statistics import PERCENTILES


def evenness(shares: np.ndarray) -> np.ndarray:
    """Entropy of fingerprints in percent of the greatest: 100 for equal shares, 0 for a single layer.

    Examples
    --------
    >>> evenness(np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])).tolist()
    [50.0, 0.0]
    """
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    return 0.0 - 100 * (shares * logs).sum(axis=-1) / np.log(shares.shape[-1])


def share_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Fingerprint of every source: mean of the runs, interval and spread; sources of one task together.

    Parameters
    ----------
    frame : pandas.DataFrame
        As `tsns_lib.fingerprint_study.fingerprint_frame` gives it.

    Returns
    -------
    pandas.DataFrame
        Columns source, task, layer (from 1), share, low, high, spread (standard deviation between the runs,
        missing for one), all in percent.
    """
    tables = []
    grouped = frame.iloc[np.argsort(pd.factorize(frame["task"])[0], kind="stable")]
    for (source, task), rows in grouped.groupby(["source", "task"], sort=False):
        runs = 100 * np.stack(rows["shares"].to_list())
        share = runs.mean(axis=0)
        low, high = around(share, 100 * np.mean(rows["draws"].to_list(), axis=0))
        spread = runs.std(axis=0, ddof=1) if len(runs) > 1 else np.nan
        facts = {"share": share, "low": low, "high": high, "spread": spread}
        tables.append(pd.DataFrame({"source": source, "task": task, "layer": np.arange(1, len(share) + 1)} | facts))
    return pd.concat(tables, ignore_index=True)


def similarity_matrix(frame: pd.DataFrame, metric: str = "cosine") -> pd.DataFrame:
    """Similarity of all sources to each other, by the mean fingerprint of the runs.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns source and shares: as `fingerprint_frame` gives it.
    metric : str
        As in `tsns_lib.fingerprint_similarity`.

    Returns
    -------
    pandas.DataFrame
        Sources down and across, in the order of the frame.
    """
    means = frame.groupby("source", sort=False)["shares"].apply(lambda shares: np.mean(shares.to_list(), axis=0))
    values = [[fingerprint_similarity(a, b, metric) for b in means] for a in means]
    return pd.DataFrame(values, index=list(means.index), columns=list(means.index))


def null_table(frame: pd.DataFrame, nulls: Mapping[str, pd.DataFrame], encoder: Any) -> pd.DataFrame:
    """Compare fingerprints with those that know nothing of the task.

    Parameters
    ----------
    frame : pandas.DataFrame
        As `fingerprint_frame` gives it.
    nulls : mapping of str to pandas.DataFrame
        The same for some of the sources, such as {"shuffled labels": ..., "random weights": ...}.
    encoder : Encoder
        Whose layers they are.

    Returns
    -------
    pandas.DataFrame
        One row for each such source and kind of fingerprint: its cosine with the task's own, evenness, largest
        share (percent), and how many layers lie outside the 95 % band of K neurons drawn evenly.
    """
    rows = []
    for source in dict.fromkeys(name for null in nulls.values() for name in null["source"]):
        own, _ = mean_fingerprint(frame, source)
        for kind, kept in {"task": frame, **nulls}.items():
            shares, _ = mean_fingerprint(kept, source)
            low, high = uniform_band(int(kept["k"].iloc[0]), encoder.n_layers, encoder.n_neurons)
            outside = int(((shares < low) | (shares > high)).sum())
            cosine = fingerprint_similarity(own, shares)
            rows.append((source, kind, cosine, float(evenness(shares)), 100 * float(shares.max()), outside))
    columns = ["source", "fingerprint", "cosine with the task's", "evenness", "largest share", "layers outside"]
    return pd.DataFrame(rows, columns=columns).round(2)


def mean_fingerprint(frame: pd.DataFrame, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean fingerprint of the runs of a source, shape (n_layers,), and of every draw, shape (draws, n_layers)."""
    rows = frame[frame["source"] == source]
    if rows.empty:
        raise ValueError(f"no fingerprint of source {source!r}")
    return np.mean(rows["shares"].to_list(), axis=0), np.mean(rows["draws"].to_list(), axis=0)


def around(estimate: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Ends of the middle 95 % of the draws (down), shifted to lie around the estimate."""
    return np.percentile(draws - draws.mean(axis=0) + estimate, PERCENTILES, axis=0)
