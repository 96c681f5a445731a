"""The paper's printed numbers and claims, as data.

The tables lie in `paper_tables.yaml` beside this file, in the layout of the paper, the claims in `paper_claims.yaml`.
Here they become tidy frames with our names: corpora as in the registry, the paper's "BERT" as "last_layer", its
SingleTSNS as "tsns", its MultiTSNS as "multi_tsns". Accuracies are in percent, exactly as printed, slips included.
Columns of Tables 2 to 5: source, members (its corpora: a tuple), target, method, k (0 for literature), accuracy (NaN
for an empty cell), bold, underlined.
"""

import hashlib
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd
import yaml


@dataclass(frozen=True)
class Claim:
    """One claim of the paper in our words, with the rule that decides it.

    `rule` is a key of `RULES` and says what the claim's estimate is; `paper` is the same estimate from the paper's
    printed cells, or the figure that it prints; the claim holds above the `threshold`. `family` is a key of `FAMILIES`
    and the first word of the id; `declared` is the date (ISO) of its rule, threshold and family; `corpora` are those
    that its figure is measured on, where an encoder may have been trained on one of them.
    """

    id: str
    paper_ref: str
    statement: str
    rule: str
    paper: float | None
    threshold: float = 0.0
    declared: str = ""
    corpora: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """The table, figure or paper whose claims share one error rate."""
        return self.id.partition(".")[0]

    @property
    def version(self) -> str:
        """The date of the declaration and a digest of the rule's words: what was recorded under another is stale."""
        return f"{self.declared} {hashlib.sha256(RULES[self.rule].encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Family:
    """Claims that belong together; `part` is the part of the front page on which they stand."""

    title: str
    part: str


def _load_claims() -> tuple[dict[str, str], dict[str, Family], tuple[Claim, ...]]:
    data = _yaml("paper_claims.yaml")
    families = {name: Family(**facts) for name, facts in data["families"].items()}
    claims = []
    for id, facts in data["claims"].items():
        facts = {"declared": data["declared"], **facts}
        where, corpora = facts.pop("where"), tuple(facts.pop("corpora", ()))
        claims.append(Claim(id, where, **facts, corpora=corpora))
    return data["rules"], families, tuple(claims)


def table1() -> pd.DataFrame:
    """Table 1: how many examples each corpus has for training and for transferring (<NA> where the paper has none).

    Examples
    --------
    >>> table1().set_index("source").loc["scitail", "training"]
    np.int64(23596)
    """
    rows = [(source, *facts) for source, facts in _tables()["table1"].items()]
    frame = pd.DataFrame(rows, columns=["source", "task", "training", "transferring"])
    return frame.astype({"training": "Int64", "transferring": "Int64"})


def table2() -> pd.DataFrame:
    """Table 2: one source to one target, Amazon sentiment, with the literature columns CDB, CMD, PBLM and PE.

    Examples
    --------
    >>> cells = table2().set_index(["source", "target", "method", "k"])["accuracy"]
    >>> float(cells["dvd", "books", "tsns", 500])
    81.2
    """
    return _cells(2).drop(columns="budget")


def table3() -> pd.DataFrame:
    """Table 3: one source to SciTail and to QQP; a pair that was not run is NaN."""
    return _cells(3).drop(columns="budget")


def table4() -> pd.DataFrame:
    """Table 4: three Amazon domains to the fourth, with SDAM, MDAN and MTLE."""
    return _cells(4).drop(columns="budget")


def table5() -> pd.DataFrame:
    """Table 5: combinations of sources to SciTail; one more column, the budget (most source rows)."""
    return _cells(5)


def printed_averages(table: int) -> pd.DataFrame:
    """The row "Average" of Table 2 or 4 as printed, and recomputed from the cells above it (one digit, halves up).

    Columns method, k, printed, recomputed (NaN where a cell is missing), bold, slip (whether the two differ).

    Examples
    --------
    >>> averages = printed_averages(2)
    >>> averages.loc[averages["slip"], "method"].tolist()
    ['CMD', 'PE', 'last_layer']
    """
    if table not in (2, 4):
        raise ValueError(f"table must be 2 or 4, the tables with printed averages, not {table!r}")
    layout = _tables()[f"table{table}"]
    columns = [_column(name) for name in layout["columns"].split()]
    cells = _cells(table)
    rows = []
    for (method, k, _), token in zip(columns, layout["average"].split(), strict=True):
        printed, bold, _ = _read(token)
        column = cells.loc[(cells["method"] == method) & (cells["k"] == k), "accuracy"]
        rows.append((method, k, printed, _mean_as_printed(column), bold))
    frame = pd.DataFrame(rows, columns=["method", "k", "printed", "recomputed", "bold"])
    frame["slip"] = frame["recomputed"].notna() & (frame["printed"] != frame["recomputed"])
    return frame


def _mean_as_printed(accuracies: pd.Series) -> float:
    # in decimal: the mean of Table 4's last column is exactly 82.15, which binary floats would round down
    if accuracies.isna().any():
        return float("nan")
    total = sum((Decimal(str(value)) for value in accuracies), Decimal(0))
    return float((total / len(accuracies)).quantize(Decimal("0.1"), ROUND_HALF_UP))


@cache
def _tables() -> dict[str, Any]:
    return _yaml("paper_tables.yaml")


def _yaml(name: str) -> dict[str, Any]:
    return yaml.safe_load(files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _cells(table: int) -> pd.DataFrame:
    layout = _tables()[f"table{table}"]
    columns = [_column(name) for name in layout["columns"].split()]
    rows = []
    for line in layout["rows"].splitlines():
        source, target, *tokens = line.split()
        for column, token in zip(columns, tokens, strict=True):
            rows.append((source, tuple(source.split("+")), target, *column, *_read(token)))
    names = ["source", "members", "target", "method", "k", "budget", "accuracy", "bold", "underlined"]
    return pd.DataFrame(rows, columns=names).astype({"budget": "Int64"})


def _column(name: str) -> tuple[str, int, int | None]:
    method, *numbers = name.split("@")
    k, budget = ([int(number) for number in numbers] + [None, None])[:2]
    return method, k or 0, budget


def _read(token: str) -> tuple[float, bool, bool]:
    value = float("nan") if token == "-" else float(token.lstrip("*_"))
    return value, token.startswith("*"), token.startswith("_")


RULES, FAMILIES, CLAIMS = _load_claims()
