"""Table 5's budgets of rows: scaled to the rows there are, beside the paper's, and drawn."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from tsns_lib.reporting.plots import INK, STYLE, finish
from tsns_lib.reporting.report import bare, beside_paper, caption
from tsns_lib.reporting.statistics import accuracy_table


def budget_table(sources: Sequence[Any], counts: pd.DataFrame, budgets: Sequence[int]) -> pd.DataFrame:
    """The paper's budgets, scaled by the share of the paper's rows that the loaded sources have.

    Parameters
    ----------
    sources : sequence of Source
        Every source of the table.
    counts : pandas.DataFrame
        `paper.table1()`.
    budgets : sequence of int
        L, the paper's most rows in all.

    Returns
    -------
    pandas.DataFrame
        Indexed by L: `rows here` (the scaled budget) and the `scale`.
    """
    training = counts.set_index("source")["training"]
    scale = sum(source.n_rows for source in sources) / int(sum(training[bare(source.name)] for source in sources))
    rows = [{"L": budget, "rows here": round(budget * scale), "scale": round(scale, 4)} for budget in budgets]
    return pd.DataFrame(rows).set_index("L")


def as_multi(grid: pd.DataFrame) -> pd.DataFrame:
    """Name the selection from a single source as the paper's Table 5 does: MultiTSNS with one source."""
    return grid.assign(method=grid["method"].replace("tsns", "multi_tsns"))


def accuracy_by_budget(grids: Mapping[int, pd.DataFrame], k: int, *, seed: int = 0) -> pd.DataFrame:
    """Accuracy of the selection and of its baselines at one K, for every budget.

    Parameters
    ----------
    grids : mapping of int to pandas.DataFrame
        A transfer grid for each L.
    k : int
        K.
    seed : int
        Seed of the resampled target rows.

    Returns
    -------
    pandas.DataFrame
        As `statistics.accuracy_table`, with the column `budget` in front.
    """
    tables = []
    for budget, grid in grids.items():
        table = accuracy_table(as_multi(grid), seed=seed)
        of_one_size = table["method"].isin(["last_layer", "all", "majority"])
        table.insert(0, "budget", budget)
        tables.append(table[of_one_size | (table["k"] == k)])
    return pd.concat(tables, ignore_index=True)


def budgets_beside_paper(grids: Mapping[int, pd.DataFrame], paper: pd.DataFrame, k: int) -> pd.DataFrame:
    """Ours beside the paper's at one K, a block of columns for each budget.

    Parameters
    ----------
    grids : mapping of int to pandas.DataFrame
        A transfer grid for each L.
    paper : pandas.DataFrame
        `paper.table5()`.
    k : int
        K.

    Returns
    -------
    pandas.DataFrame
        As `report.beside_paper`; the columns' first level is L.
    """
    blocks = {
        f"L={budget:,}": beside_paper(
            as_multi(grid), paper[paper["budget"] == budget], columns=[("multi_tsns", k)]
        ).droplevel(0, axis=1)
        for budget, grid in grids.items()
    }
    return pd.concat(blocks, axis=1)


def plot_by_budget(accuracies: pd.DataFrame, rows: pd.DataFrame) -> Figure:
    """Draw the accuracy of every combination of sources against the rows it was given.

    Parameters
    ----------
    accuracies : pandas.DataFrame
        As `accuracy_by_budget` gives it.
    rows : pandas.DataFrame
        As `budget_table` gives it.

    Returns
    -------
    matplotlib.figure.Figure
        The legend is ordered as the lines end, best first; the majority class is dotted.
    """
    found = accuracies[accuracies["method"] == "multi_tsns"].copy()
    found["rows"] = found["budget"].map(rows["rows here"])
    found["combination"] = found["source"].map(bare)
    order = found[found["rows"] == found["rows"].max()].sort_values("accuracy", ascending=False)["combination"].tolist()
    majority = accuracies.loc[accuracies["method"] == "majority", "accuracy"].iloc[0]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.2, 4.6), layout="constrained")
        sns.lineplot(
            found, x="rows", y="accuracy", hue="combination", style="combination", hue_order=order, style_order=order,
            markers=True, dashes=False, palette="colorblind", ax=axes,
        )  # fmt: skip
        axes.axhline(majority, color=INK, linestyle=":", linewidth=1.2, label=f"majority class: {majority:.1f}")
        ticks = sorted(found["rows"].unique())
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set(xlabel="rows of all sources together", ylabel="accuracy (%)")
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        axes.set_title(caption("Transfer to SciTail by the budget of rows", found["source"]), loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return finish(figure)
