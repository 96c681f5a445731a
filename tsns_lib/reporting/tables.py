"""Small tables for reading: what was loaded, averages by K, controls, stability, fingerprints."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsns_lib.fingerprints import fingerprint
from tsns_lib.reporting.report import METHOD_LABELS, label, verdict
from tsns_lib.reporting.statistics import Key, difference


def sources_table(sources: Sequence[Any]) -> pd.DataFrame:
    """What was loaded: rows kept, skipped and official, and the share of the positive class.

    Parameters
    ----------
    sources : sequence of Source
        As `tsns_lib.load_source` gives them.

    Returns
    -------
    pandas.DataFrame
        One row per source.
    """
    rows = [
        {
            "source": source.name,
            "task": source.task,
            "split": source.split,
            "rows": source.n_rows,
            "skipped": sum(source.origin["skipped"].values()),
            "official": source.origin["official_rows"],
            "paper": source.origin["paper_rows"],
            "largest class": f"{source.frame['label'].value_counts(normalize=True).max():.1%}",
            "data": "generated" if source.generated else f"real, {_provenance(source.origin)}",
        }
        for source in sources
    ]
    return pd.DataFrame(rows).astype({"official": "Int64", "paper": "Int64"})


def _provenance(origin: dict[str, Any]) -> str:
    if origin["kind"] == "hub":
        return f"{origin['repository']} at commit {origin['commit']}"
    return {"files": "official files", "own": "own file"}[origin["kind"]]


def encoder_table(encoder: Any) -> pd.DataFrame:
    """Which encoder this is: its shape, and what identifies its weights.

    Parameters
    ----------
    encoder : Encoder
        As `tsns_lib.load_encoder` gives it.

    Returns
    -------
    pandas.DataFrame
        One row.
    """
    facts = {
        "encoder": encoder.name,
        "layers": encoder.n_layers,
        "neurons a layer": encoder.hidden_size,
        "neurons": encoder.n_neurons,
        "dtype": encoder.dtype,
        "commit": encoder.revision or "not from a hub",
        "fingerprint": encoder.fingerprint[:16],
    }
    return pd.DataFrame([facts])


def literature_table(paper: pd.DataFrame) -> pd.DataFrame:
    """The published systems that the paper compares with, as it prints them.

    Parameters
    ----------
    paper : pandas.DataFrame
        One of `paper.table2` or `paper.table4`.

    Returns
    -------
    pandas.DataFrame
        Pairs down, systems across, percent.
    """
    rows = paper[paper["k"] == 0].dropna(subset=["accuracy"])
    pair = rows["source"] + " → " + rows["target"]
    return rows.assign(pair=pair).pivot_table(index="pair", columns="method", values="accuracy", sort=False)


def average_by_k(averages: pd.DataFrame) -> pd.DataFrame:
    """Averages over the pairs with their intervals: methods down, K across.

    Parameters
    ----------
    averages : pandas.DataFrame
        As `statistics.average_table` gives it.

    Returns
    -------
    pandas.DataFrame
        Strings such as "73.9 (73.1 to 74.8)"; a method of one size stands in its own column.
    """
    text = [
        f"{accuracy:.1f} ({low:.1f} to {high:.1f})"
        for accuracy, low, high in averages[["accuracy", "low", "high"]].itertuples(index=False)
    ]
    sized = averages.groupby("method")["k"].transform("nunique") > 1
    column = ("K=" + averages["k"].astype(str)).where(sized, "one size")
    names = list(METHOD_LABELS.values())
    methods = pd.Categorical(averages["method"].map(METHOD_LABELS), names, ordered=True)
    cells = averages.assign(text=text, method=methods, column=column)
    columns = list(dict.fromkeys(column[sized])) + ["one size"]
    wide = cells.pivot(index="method", columns="column", values="text")
    return wide.reindex(columns=columns).fillna("").rename_axis(index=None, columns=None)


def controls_table(grid: pd.DataFrame, chosen: Key, *, seed: int = 0) -> pd.DataFrame:
    """Compare the chosen selection with every baseline, on average over the pairs.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_lib.transfer_grid` gives it.
    chosen : (method, k)
        Such as ("tsns", 500).
    seed : int
        Seed of the resampled target rows.

    Returns
    -------
    pandas.DataFrame
        `baseline`, `gain`, `low`, `high` in points, and the `verdict` on "the selection beats it" ("holds",
        "direction only", "does not hold").
    """
    words = {"reproduced": "holds", "not reproduced": "does not hold"}
    keys = grid[["method", "k"]].drop_duplicates().itertuples(index=False, name=None)
    sized = set(grid.loc[grid["k"] == chosen[1], "method"])
    rows = []
    for method, k in keys:
        if method != chosen[0] and (k == chosen[1] or method not in sized):
            gain = difference(grid, chosen, (method, k), seed=seed)
            judged = verdict(*gain)
            points = (round(value, 1) + 0.0 for value in gain)  # + 0.0: no minus before a zero
            rows.append((label(method, k), *points, words.get(judged, judged)))
    return pd.DataFrame(rows, columns=["baseline", "gain", "low", "high", "verdict"])


def stability_table(grid: pd.DataFrame) -> pd.DataFrame:
    """Share of the K chosen neurons that two halves of the resamples have in common, and how many those were.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_lib.transfer_grid` gives it.

    Returns
    -------
    pandas.DataFrame
        Sources down, K across: the mean of the runs, and the fewest and most resamples of a run; the last row is
        what two random choices would share.
    """
    rows = grid.dropna(subset=["stability"])
    n_neurons = int(grid.loc[grid["method"] == "all", "k"].iloc[0])
    table = rows.pivot_table(index="source", columns="k", values="stability", sort=False)
    table.loc["by chance"] = [k / n_neurons for k in table.columns]
    used = rows.groupby("source", sort=False)["resamples"].agg(["min", "max"])
    table = table.rename(columns=lambda k: f"K={k}").round(2)
    return table.assign(resamples=[f"{used.at[name, 'min']} to {used.at[name, 'max']}" for name in used.index] + [""])


def alpha_table(grid: pd.DataFrame) -> pd.DataFrame:
    """Which α the learners of MultiTSNS chose, and how large the two terms of equation 1 are.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_lib.transfer_grid` gives it.

    Returns
    -------
    pandas.DataFrame
        One row for each combination of sources: the medians over learners, runs and K of E(q) and of E(q)/(σ(q)+ε)
        of the median neuron, and how often each 1 - α was chosen.
    """
    learned = grid.dropna(subset=["alphas"]).groupby("source", sort=False)
    terms = {
        source: [f"{value:.1e}" for value in np.median(np.concatenate(found["term_medians"].tolist()), axis=0)]
        for source, found in learned
    }
    counts = {
        source: pd.Series(1 - np.concatenate(found["alphas"].tolist())).round(9).value_counts()
        for source, found in learned
    }
    chosen = pd.DataFrame(counts).T.fillna(0).astype(int).sort_index(axis=1).rename(columns="1 - α = {:g}".format)
    medians = pd.DataFrame.from_dict(terms, orient="index", columns=["median E(q)", "median E(q)/(σ+ε)"])
    return medians.join(chosen)


def fingerprint_table(grid: pd.DataFrame, chosen: Key, encoder: Any) -> pd.DataFrame:
    """Fingerprint of every source, mean of the runs.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_lib.transfer_grid` gives it.
    chosen : (method, k)
        Such as ("tsns", 500).
    encoder : Encoder
        Whose neurons they are.

    Returns
    -------
    pandas.DataFrame
        Columns `source`, `layer` (from 1), `share` (percent).
    """
    rows = grid[(grid["method"] == chosen[0]) & (grid["k"] == chosen[1])].drop_duplicates(["source", "run"])
    shares = [
        (source, layer, 100 * share)
        for source, selected in zip(rows["source"], rows["selected"], strict=True)
        for layer, share in enumerate(fingerprint(selected, encoder.n_layers, encoder.n_neurons), start=1)
    ]
    frame = pd.DataFrame(shares, columns=["source", "layer", "share"])
    return frame.groupby(["source", "layer"], sort=False, as_index=False)["share"].mean()
