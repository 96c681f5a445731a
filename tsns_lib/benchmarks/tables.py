"""Tables of the performance notebook: sizes side by side, the bill of the paper's run, and what was promised."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsns_lib.benchmarks.cost import paper_cost
from tsns_lib.benchmarks.forests import OURS, REFERENCE, evenly
from tsns_lib.extraction import extract
from tsns_lib.forward import tokenised

SAMPLE = 300  # rows of a corpus whose tokens are counted
MAX_LENGTH = 256  # of the paper profile
FOREST_TARGETS = {"base": 20.0, "wide": 25.0, "tall": 30.0}  # times as fast as scikit-learn's forest
EXTRACTION_TARGETS = {"plain loop, float32": 2.0, "NeuroX to HDF5": 10.0}
PEAK_TARGETS = {"MiniLM (6 × 384)": 0.35, "BERT-large's shape (24 × 1,024)": 0.60}
WORKERS_TARGET = 1.8


def noisy_copies(X: np.ndarray, n_neurons: int, *, seed: int = 0) -> np.ndarray:
    """Widen activations by copies of themselves with more and more noise.

    Parameters
    ----------
    X : ndarray of shape (n, N)
        Activations.
    n_neurons : int
        Neurons of the result.
    seed : int
        Seed of the noise.

    Returns
    -------
    ndarray of shape (n, n_neurons)
        float32; the first N neurons are X.
    """
    rng = np.random.default_rng(seed)
    copies = -(-n_neurons // X.shape[1])
    noise = (copy * X.std(axis=0) * rng.normal(size=X.shape) for copy in range(copies))
    return np.concatenate([(X + part).astype(np.float32) for part in noise], axis=1)[:, :n_neurons]


def stacked(sources: Sequence[Any], encoder: Any, max_length: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Activations and labels of so many rows, at even distances, of several sources one below the other."""
    X = np.concatenate([extract(source, encoder, max_length=max_length) for source in sources])
    return evenly(X, np.concatenate([source.frame["label"].to_numpy() for source in sources]), rows)


def by_size(sizes: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Our forest and scikit-learn's at every size.

    Parameters
    ----------
    sizes : mapping of str to pandas.DataFrame
        As `tsns_lib.benchmarks.forests.compare_forests` gives them, with columns `rows`, `neurons`, `trees`.
    """
    found = pd.concat([table.assign(size=size) for size, table in sizes.items()])
    found = found[found["forest"].isin([OURS, REFERENCE])]
    shared = [column for column in found.columns if column.startswith("K=")]
    return found[["size", "rows", "neurons", "trees", "forest", "seconds", "ratio", *shared]].reset_index(drop=True)


def paper_bill(
    forests: pd.DataFrame,
    of_a_tree: float,
    sources: Sequence[Any],
    counts: pd.DataFrame,
    peak: pd.DataFrame,
    encoder: Any,
) -> pd.DataFrame:
    """What the paper's own run costs, from the unit costs measured in this run.

    Parameters
    ----------
    forests, of_a_tree
        As `tsns_lib.benchmarks.cost.paper_cost` takes them.
    sources : sequence of Source
        Corpora whose tokens a row are counted; the mean stands for every corpus of Table 1.
    counts : pandas.DataFrame
        `paper.table1()`.
    peak : pandas.DataFrame
        As `tsns_lib.benchmarks.encoders.share_of_peak` gives it, on two cores.
    encoder : Encoder
        Its tokenizer counts.

    Returns
    -------
    pandas.DataFrame
        As `tsns_lib.benchmarks.cost.paper_cost`.
    """
    lengths = []
    for source in sources:
        frame = source.frame.iloc[:: max(1, source.n_rows // SAMPLE)]
        pairs = None if frame["text_pair"].isna().all() else frame["text_pair"].tolist()
        lengths.append(tokenised(encoder, frame["text"].tolist(), pairs, MAX_LENGTH)[0].lengths.mean())
    rows = int(counts[["training", "transferring"]].fillna(0).to_numpy().sum())
    of_large = peak.set_index("encoder").at["BERT-large's shape (24 × 1,024)", "tokens a second"]
    return paper_cost(forests, of_a_tree, {"all": rows * float(np.mean(lengths))}, of_large / 2, rows)


def targets(
    sizes: Mapping[str, pd.DataFrame],
    ways: pd.DataFrame,
    peak: pd.DataFrame,
    workers: pd.DataFrame,
    saved: pd.DataFrame,
) -> pd.DataFrame:
    """Judge what this workbook promises of itself; a figure that was not measured says so.

    Parameters
    ----------
    sizes, ways, peak, workers, saved
        The tables of the notebook.

    Returns
    -------
    pandas.DataFrame
        Columns `promise`, `rule`, `target`, `ours`, `verdict`: "met", "not met" or "not measured here".
    """
    rows: list[tuple[str, str, float, float | None]] = []
    for size, target in FOREST_TARGETS.items():
        table = sizes[size].set_index("forest") if size in sizes else None
        rows.append((f"forest, {size}", "ratio at least", target, None if table is None else table.at[OURS, "ratio"]))
        shared = [] if table is None else [column for column in table.columns if column.startswith("K=")]
        if table is not None:
            lag = (table.loc[REFERENCE, shared] - table.loc[OURS, shared]).mean()
            rows.append((f"forest, {size}: overlap behind scikit-learn's own seeds', mean of K", "at most", 0.02, lag))
    for n, table in ways.set_index("way").groupby("rows"):
        seconds = table["seconds"]
        for peer, target in EXTRACTION_TARGETS.items():
            ratio = seconds[peer] / seconds["tsns_lib, bfloat16"]
            rows.append((f"extraction of {n:,} texts against {peer}", "ratio at least", target, ratio))
    for name, target in PEAK_TARGETS.items():
        share = peak.set_index("encoder").at[name, "share"]
        rows.append((f"share of the matrix speed, {name}", "at least", target, share))
    of_two = workers.set_index("where")["ratio"]
    rows.append(("from 1 to 2 workers", "ratio at least", WORKERS_TARGET, of_two["2 workers"]))
    rows.append(("from 1 to 2 threads, the machine itself", "for comparison", np.nan, of_two["here, 2 threads"]))
    rows.append(("same bits everywhere", "share of ways", 1.0, float(workers["same bits"].mean())))
    rows.append(("tol: largest change of an average, in points", "at most", 0.5, float(saved["change"].abs().max())))
    rows.append(
        ("tol: resamples used of those of all J", "share", np.nan, float((saved["resamples"] / saved["J"]).max()))
    )
    return pd.DataFrame(
        [(promise, rule, target, ours, _met(rule, target, ours)) for promise, rule, target, ours in rows],
        columns=["promise", "rule", "target", "ours", "verdict"],
    )


def _met(rule: str, target: float, ours: float | None) -> str:
    if ours is None or np.isnan(ours):
        return "not measured here"
    if np.isnan(target):
        return ""
    return "met" if (ours <= target if rule == "at most" else ours >= target) else "not met"
