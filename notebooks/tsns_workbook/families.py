"""Claims that share one error rate: the families declared in `paper_claims.yaml`, and Holm's correction within them.

A family is a table or figure, or a neighbouring paper. Twenty claims tested at 5 % each would "reproduce" one by luck
alone; Holm's step-down procedure keeps the chance of a single false verdict in a family below 5 %.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from tsns_workbook.paper import CLAIMS, FAMILIES, RULES

ERRORLESS = ("count", "arithmetic", "external", "untested")  # rules whose figure is counted, or that are never tested
ERROR = 0.05
Z = 1.96  # from the estimate to an end of its 95 % interval, in standard errors


def adjusted_p(claims: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Holm's p value of each judged claim, two-sided, within its family; None for what is counted or not testable.

    A row's own `p` is used where it has one, else the normal approximation of that part of its interval which lies on
    the side of the threshold: it is below 5 % where the interval does not reach the threshold. Claims of the family
    that are not among the rows count as if they had p = 1.

    Examples
    --------
    >>> from tsns_workbook.report import claim
    >>> rows = [claim("table2.gain", 4.0, 2.0, 6.0), claim("table2.best_for_books", 1.0, -1.0, 3.0)]
    >>> [round(p, 4) for p in adjusted_p(rows)]
    [0.0006, 1.0]
    """
    thresholds = {claim.id: claim.threshold for claim in CLAIMS}
    sizes = {name: sum(c.family == name and c.rule not in ERRORLESS for c in CLAIMS) for name in FAMILIES}
    adjusted: list[float | None] = [None] * len(claims)
    for family in dict.fromkeys(row["family"] for row in claims):
        rows = [i for i, row in enumerate(claims) if row["family"] == family and row["rule"] not in ERRORLESS]
        known = {i: _p(claims[i], thresholds[claims[i]["id"]]) for i in rows if claims[i]["ours"] is not None}
        shared = holm(list(known.values()), sizes[family] - (len(rows) - len(known)))
        for i, p in zip(known, shared, strict=True):
            adjusted[i] = p
    return adjusted


def holm(p: Sequence[float], n_tests: int | None = None) -> list[float]:
    """Holm's adjusted p values of n tests (default: of these); those that are not given count as if they had p = 1.

    Examples
    --------
    >>> holm([0.01, 0.04]), holm([0.01], 3)
    ([0.02, 0.04], [0.03])
    """
    adjusted, left, least = [0.0] * len(p), n_tests or len(p), 0.0
    for i in sorted(range(len(p)), key=p.__getitem__):
        adjusted[i] = least = max(least, min(1.0, left * p[i]))
        left -= 1
    return adjusted


def _p(row: Mapping[str, Any], threshold: float) -> float:
    if row["p"] is not None:
        return row["p"]
    ours, (low, high) = row["ours"], row["interval"]
    if low == high:
        return float(ours == threshold)
    towards = ours - low if ours > threshold else high - ours
    # a bootstrap's interval can lie beside its estimate
    width = towards if towards > 0 else (high - low) / 2
    return 2 * (1 - NormalDist().cdf(Z * abs(ours - threshold) / width))


def is_whole(family: str, claims: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all claims of a family that can be tested are among these rows."""
    ids = {row["id"] for row in claims}
    return all(c.id in ids for c in CLAIMS if c.family == family and c.rule not in ERRORLESS)


def declaration() -> str:
    """A digest of what was declared before the results: every claim's rule, threshold, family, and what they say."""
    claims = [[c.id, c.statement, c.rule, c.threshold, c.family, c.declared] for c in CLAIMS]
    text = json.dumps([sorted(claims), sorted(RULES.items()), sorted(FAMILIES.items())], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
