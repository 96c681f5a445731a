"""What the paper says in passing: claims that no notebook is about, answered from the tables that others recorded.

The unit is the target (or the combination of sources): with so few of them the t intervals are wide. What no recorded
table can answer is listed all the same, as not testable here.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from tsns_workbook.dyads import t_interval
from tsns_workbook.paper import CLAIMS
from tsns_workbook.report import claim, short_name

PAPER_LAYERS, HELPFUL = 24, (20, 22)  # "20th-22th" of the paper's 24 layers (§4.4), matched by depth
SMALL = ("rte", "mrpc")
K = 500

Tables = dict[str, pd.DataFrame]  # by "notebook's number and name of the table", such as "04 accuracy"


class Answer(NamedTuple):
    """Differences, one for each target or combination, and the same of a control that selects nothing."""

    differences: pd.Series
    control: pd.Series | None = None
    above_majority: bool | None = None


def tables_of(results: Sequence[Any]) -> Tables:
    """The recorded tables of all notebooks as frames, their sources under short names."""
    tables = {}
    for result in results:
        for name, rows in result.tables.items():
            frame = pd.DataFrame(rows)
            columns = [column for column in ("source", "target") if column in frame]
            tables[f"{result.notebook[:2]} {name}"] = frame.assign(**{c: frame[c].map(short_name) for c in columns})
    return tables


def claims_in_passing(results: Sequence[Any]) -> list[dict[str, Any]]:
    """Judge these claims from what the other notebooks recorded.

    A claim is by the selection only if the difference is clearly larger than that of random neurons.
    """
    tables = tables_of(results)
    answers = {
        "table2.late_layers": late_layers,
        "table3.small_sources": small_sources,
        "table4.over_single": over_single,
        "table5.more_rows": more_rows,
    }
    claims = [_judged(id, answer, tables) for id, answer in answers.items()]
    return claims + [claim(known.id) for known in CLAIMS if known.rule == "untested"]


def _judged(id: str, question: Callable[[Tables], Answer], tables: Tables) -> dict[str, Any]:
    try:
        answer = question(tables)
    except KeyError:  # a table, column or method that this profile does not have
        return claim(id)
    if len(answer.differences) < 2:
        return claim(id)
    measured = t_interval(answer.differences)
    by_selection = None
    if answer.control is not None:
        by_selection = t_interval(answer.differences - answer.control).low > 0
    return claim(id, *measured[:3], p=measured.p, by_selection=by_selection, above_majority=answer.above_majority)


def late_layers(tables: Tables) -> Answer:
    """Accuracy of the layers 20 to 22 (by depth), alone, minus that of the best other layer; over the targets."""
    cells = tables["04 accuracy"]
    layers = cells[cells["method"].str.fullmatch(r"layer \d+")]
    if layers.empty:
        raise KeyError("no single layers")
    numbers = layers["method"].str.removeprefix("layer ").astype(int)
    first, last = (end * numbers.max() for end in HELPFUL)
    by_target = layers.assign(layer=numbers).pivot_table(index="target", columns="layer", values="accuracy")
    helpful = [layer for layer in by_target if first <= PAPER_LAYERS * layer <= last]
    others = by_target.drop(columns=helpful)
    return Answer(by_target[helpful].mean(axis=1) - others[others.mean().idxmax()])


def small_sources(tables: Tables) -> Answer:
    """Accuracy from the other sources minus that from RTE and MRPC, for every target that is larger than these."""
    pairs = tables["08 pairs"]
    pairs = pairs[(pairs["task"] == "sentence pairs") & ~pairs["target"].isin(SMALL)]
    small = pairs["source"].isin(SMALL)
    others, poor = (pairs[side].groupby("target")["accuracy"].mean() for side in (~small, small))
    above = bool((pairs["accuracy"] > pairs["majority"]).mean() > 0.5)
    return Answer((others - poor).dropna(), above_majority=above)


def over_single(tables: Tables) -> Answer:
    """Accuracy of the neurons selected from three domains minus that from the best single domain; over the targets."""
    several, single = tables["06 accuracy"], tables["04 accuracy"]
    single = single[single["k"] == K].groupby(["method", "target"])["accuracy"].max()
    several = several[several["k"] == K].set_index(["method", "target"])["accuracy"]
    ours, random = several["multi_tsns"] - single["tsns"], several["random"] - single["random"]
    return Answer(ours.dropna(), random.dropna())


def more_rows(tables: Tables) -> Answer:
    """Accuracy with the largest budget of rows minus that with the smallest; over the combinations of sources."""
    cells = tables["07 budgets"]
    cells = cells[(cells["k"] == K) & cells["source"].str.contains("+", regex=False)]
    cells = cells[cells["method"].isin(["selected", "random"])]  # the ladder's rungs are of one budget alone
    by_budget = cells.pivot_table(index=["method", "source"], columns="budget", values="accuracy").dropna(axis=1)
    if by_budget.shape[1] < 2:
        raise KeyError("no second budget")
    gains = by_budget.iloc[:, -1] - by_budget.iloc[:, 0]
    return Answer(gains["selected"], gains.get("random"))
