"""What the paper's own setting costs: counted units times unit costs measured here."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from tsns_lib.aggregation import source_pairs
from tsns_lib.benchmarks.forests import timed
from tsns_lib.importance import forest_importance
from tsns_lib.sampling import resample_fraction, water_fill

RUNS, RESAMPLES, TREES, NEURONS = 5, 100, 1_000, 24_576  # paper §4.2, BERT-large
AMAZON = ("books", "dvd", "electronics", "kitchen")
COMBINATIONS = ("qqp", "mnli", "snli", "qqp+rte", "qqp+mnli", "qqp+mnli+rte", "qqp+mnli+rte+mrpc", "qqp+snli",
                "qqp+mnli+snli")  # fmt: skip
BUDGETS = (20_000, 100_000, 200_000, 300_000)


def paper_forests(rows_of: Mapping[str, int]) -> pd.DataFrame:
    """The forests of every table and figure; equal ones are grown once.

    Parameters
    ----------
    rows_of : mapping of str to int
        Training rows of each source of Table 1.

    Returns
    -------
    DataFrame
        One row for each set of rows: `what`, `source rows`, `resample rows` and `forests` (resamples × runs).
    """
    found = {}
    for name, rows in rows_of.items():
        found["Tables 2 and 3, Figure 2", name, rows] = resample_fraction(rows)
    for left_out in source_pairs(len(AMAZON) - 1):
        found["Table 4", f"{len(left_out[0])} domains of three", 2 * rows_of["books"]] = 0.7
    unions = {}
    for budget, combination in ((budget, names.split("+")) for budget in BUDGETS for names in COMBINATIONS):
        shares = dict(
            zip(combination, water_fill([rows_of[name] for name in combination], budget).tolist(), strict=True)
        )
        learners = [s1 for s1, _ in source_pairs(len(combination))] if len(combination) > 1 else [(0,)]
        for s1 in learners:
            members = tuple(sorted((combination[m], shares[combination[m]]) for m in s1))
            unions[members] = sum(rows for _, rows in members)
    for members, rows in unions.items():
        found["Table 5", "+".join(f"{name} {share:,}" for name, share in members), rows] = 0.1
    table = [
        (what, name, rows, round(rows * fraction), RUNS * RESAMPLES * (6 if what == "Table 4" else 1))
        for (what, name, rows), fraction in found.items()
    ]
    return pd.DataFrame(table, columns=["what", "source", "source rows", "resample rows", "forests"])


def seconds_per_split_level(rows: Sequence[int], *, n_trees: int = 20, n_neurons: int = NEURONS) -> float:
    """Core-seconds of one tree, divided by n·log2(n) of its rows, for forests of that many neurons.

    Parameters
    ----------
    rows : sequence of int
        Sizes of a resample; the dearest by row counts, so that a forecast is not too low.
    n_trees : int
        Trees of the larger of two forests at each size; their difference leaves out what trees share.
    n_neurons : int
        Neurons; they are noise with a weak signal, in one thread.
    """
    rng = np.random.default_rng(0)
    costs = []
    for n in rows:
        y = rng.integers(0, 2, n)
        X = rng.normal(size=(n, n_neurons)).astype(np.float32) + np.float32(0.2) * y[:, None].astype(np.float32)
        few, many = (timed(forest_importance, X, y, n_trees=trees, n_jobs=1)[0] for trees in (1, 1 + n_trees))
        costs.append((many - few) / n_trees / (n * np.log2(n)))
    return float(max(costs))


def paper_cost(
    forests: pd.DataFrame, of_a_tree: float, tokens: Mapping[str, float], tokens_a_core_second: float, rows: int
) -> pd.DataFrame:
    """Core-hours and disk of the whole paper, and hours on 1, 16 and 128 cores.

    Parameters
    ----------
    forests : DataFrame
        As `paper_forests` gives it.
    of_a_tree : float
        As `seconds_per_split_level` gives it.
    tokens : mapping of str to float
        Tokens of all rows of each corpus.
    tokens_a_core_second : float
        What one core encodes of them with BERT-large.
    rows : int
        Rows of all corpora, encoded once.

    Returns
    -------
    DataFrame
        Rows: activations, the forests of each table, and all. The hours on several cores are the core-hours divided:
        units are independent, and there are far more of them than cores.
    """
    n = forests["resample rows"].to_numpy(float)
    hours = forests["forests"] * TREES * of_a_tree * n * np.log2(n) / 3600
    parts = hours.groupby(forests["what"], sort=False).sum()
    counts = forests.groupby("what", sort=False)["forests"].sum()
    table = pd.DataFrame(
        {
            "units": [f"{rows:,} rows", *(f"{count:,} forests" for count in counts)],
            "core-hours": [sum(tokens.values()) / tokens_a_core_second / 3600, *parts],
            "GB": [rows * NEURONS * 2 / 1e9, *(counts * NEURONS * 8 / 1e9)],
        },
        index=["activations", *parts.index],
    )
    table.loc["all"] = ["", *table[["core-hours", "GB"]].sum()]
    for cores in (1, 16, 128):
        table[f"hours on {cores} core{'s' * (cores > 1)}"] = table["core-hours"] / cores
    return table.round(1)
