"""What the paper says of each table of accuracies, judged on a grid."""

from typing import Any

import pandas as pd

from tsns_lib.reporting.report import bare, claim
from tsns_lib.reporting.statistics import Key, contest, difference, margin, wins

# §4.4; tables 2 and 3
BEST_FOR = {
    "table2": {"books": ["dvd"], "dvd": ["books"], "kitchen": ["electronics"], "electronics": ["kitchen"]},
    "table3": {"scitail": ["mnli", "qqp"], "qqp": ["mnli", "scitail"]},
}
EXTERNAL = ["table2.state_of_the_art_pairs", "table2.state_of_the_art_average", "table4.state_of_the_art"]


def table2_claims(grid: pd.DataFrame, chosen: Key, last: Key, *, seed: int = 0) -> list[dict[str, Any]]:
    """Judge what the paper says of Table 2.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_lib.transfer_grid` gives it, on the paper's corpora or their generated counterparts.
    chosen, last : (method, k)
        The selection that the claims are about, and the last layer.
    seed : int
        Seed of the resampled target rows.

    Returns
    -------
    list of dict
        As `report.claim` gives them.
    """
    return [
        claim("table2.gain", *difference(grid, chosen, last, seed=seed)),
        claim("table2.wins", *wins(grid, chosen, last, seed=seed)),
        *_best_sources("table2", grid, chosen, seed),
        *_external("table2"),
    ]


def table3_claims(grid: pd.DataFrame, chosen: Key, last: Key, *, seed: int = 0) -> list[dict[str, Any]]:
    """Judge what the paper says of Table 3. Parameters and Returns as in `table2_claims`."""
    pairs = list(grid[["source", "target"]].drop_duplicates().itertuples(index=False, name=None))
    gains = [
        claim(
            f"table3.gain_{target}",
            *difference(grid, chosen, last, [pair for pair in pairs if bare(pair[1]) == target], seed=seed),
        )
        for target in BEST_FOR["table3"]
    ]
    return [*gains, *_best_sources("table3", grid, chosen, seed)]


def table4_claims(grid: pd.DataFrame, chosen: Key, last: Key, *, seed: int = 0) -> list[dict[str, Any]]:
    """Judge what the paper says of Table 4. Parameters and Returns as in `table2_claims`."""
    return [claim("table4.gain", *difference(grid, chosen, last, seed=seed)), *_external("table4")]


def table5_claims(grid: pd.DataFrame, k: int, last: Key, *, seed: int = 0) -> list[dict[str, Any]]:
    """Judge what the paper says of Table 5, on the grid of one budget.

    Parameters
    ----------
    grid : pandas.DataFrame
        As `tsns_lib.transfer_grid` gives it, with single sources ("tsns") and combinations ("multi_tsns").
    k : int
        K of the selection that the claims are about.
    last : (method, k)
        The last layer.
    seed : int
        Seed of the resampled target rows.

    Returns
    -------
    list of dict
        As `report.claim` gives them.
    """
    (target,) = grid["target"].unique()
    cells = {
        source: (source, target, "multi_tsns" if "+" in source else "tsns", k) for source in grid["source"].unique()
    }
    combined = [source for source in cells if "+" in source]
    against_members = [
        ([cells[source]], [cells[member] for member in source.split("+") if member in cells]) for source in combined
    ]
    with_rte = [sides for sides in against_members if bare(sides[0][0][0]) == "qqp+rte"]
    pairs = [(source, target) for source in combined]
    return [
        claim("table5.gain", *difference(grid, ("multi_tsns", k), last, pairs, seed=seed)),
        claim("table5.over_single", *contest(grid, against_members, seed=seed)),
        claim("table5.small_source_helps", *contest(grid, with_rte, seed=seed)),
    ]


def _best_sources(table: str, grid: pd.DataFrame, chosen: Key, seed: int) -> list[dict[str, Any]]:
    full = {bare(name): name for name in [*grid["source"], *grid["target"]]}
    return [
        claim(
            f"{table}.best_for_{target}",
            *margin(grid, [full[source] for source in sources], full[target], chosen, seed=seed),
        )
        for target, sources in BEST_FOR[table].items()
    ]


def _external(table: str) -> list[dict[str, Any]]:
    return [claim(id) for id in EXTERNAL if id.startswith(table)]
