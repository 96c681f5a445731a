"""The record that every notebook ends with: one JSON output that the batch collects into `results.json`.

Ours beside the paper's, verdicts by rule, and the record that every notebook ends with.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsns_workbook.paper import CLAIMS

MIME = "application/vnd.tsns.result+json"
VERDICTS = ("reproduced", "direction only", "not reproduced", "not testable here")
CLAIM_FIELDS = ("id", "paper_ref", "rule", "ours", "interval", "paper", "verdict")


def record(
    notebook: str,
    profile: str,
    generated: bool,
    encoder: str,
    claims: Sequence[Mapping[str, Any]],
    tables: Mapping[str, pd.DataFrame],
) -> None:
    """Display what a notebook found, as the one machine-readable output that the batch collects.

    Parameters
    ----------
    notebook, profile, encoder : str
        Name without ending, parameter profile, encoder name.
    generated : bool
        Whether any source is generated data.
    claims : sequence of dict
        As returned by `claim`.
    tables : mapping of str to pandas.DataFrame
        Tidy tables by name; accuracy tables as returned by `statistics.accuracy_table`. Floats are rounded
        to four digits, a missing value becomes null.

    Raises
    ------
    ValueError
        If a name is empty, a claim lacks a field or has an unknown verdict, or a value does not fit into
        JSON.
    """
    from IPython.display import display

    found = result(notebook, profile, generated, encoder, claims, tables)
    text = f"recorded {len(claims)} claims and {len(tables)} tables ({found['data']} data)"
    display({MIME: found, "text/plain": text}, raw=True)


def result(
    notebook: str,
    profile: str,
    generated: bool,
    encoder: str,
    claims: Sequence[Mapping[str, Any]],
    tables: Mapping[str, pd.DataFrame],
) -> dict[str, Any]:
    """Build and check what `record` displays. Parameters and Raises as there."""
    for name, value in (("notebook", notebook), ("profile", profile), ("encoder", encoder)):
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name} must be a non-empty string, not {value!r}")
    for row in claims:
        if set(row) != set(CLAIM_FIELDS) or row["verdict"] not in VERDICTS:
            raise ValueError(f"not a judged claim, make it with report.claim: {dict(row)}")
    return {
        "notebook": notebook,
        "profile": profile,
        "data": "generated" if generated else "real",
        "encoder": encoder,
        "claims": [plain(row, row["id"]) for row in claims],
        "tables": {name: plain(frame.to_dict("records"), name) for name, frame in tables.items()},
    }


def plain(value: Any, where: str) -> Any:
    """Turn numpy and pandas values into what JSON knows, floats rounded to four digits, missing to None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if value is None or value is pd.NA:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return round(float(value), 4) if math.isfinite(value) else None
    raise ValueError(f"{where} is a {type(value).__name__}, which does not fit into results.json")


__all__ = [
    "METHOD_LABELS",
    "MIME",
    "bare",
    "beside_paper",
    "caption",
    "claim",
    "claims_table",
    "is_generated",
    "label",
    "record",
    "verdict",
]

METHOD_LABELS = {
    "tsns": "TSNS",
    "multi_tsns": "MultiTSNS",
    "last_layer": "last layer",
    "all": "all neurons",
    "random": "random neurons",
    "f_test": "F-test",
    "logistic": "logistic weights",
    "majority": "majority class",
}
ONE_SIZE = ("last_layer", "all", "majority")  # one k for an encoder: they meet the paper's whatever their k

Key = tuple[str, int]  # method, k


def is_generated(source: Any) -> bool:
    """Tell whether a source (a `Source`, its name, or names joined by "+") is generated data."""
    return bool(getattr(source, "generated", "miniature:" in str(source)))


def caption(title: str, sources: Iterable[Any]) -> str:
    """Append "(generated data)" to a title if any of the sources is generated.

    Parameters
    ----------
    title : str
        Title of a table or figure.
    sources : iterable of Source or str
        What the table or figure was computed from.

    Examples
    --------
    >>> caption("Table 2", ["miniature:books", "dvd"])
    'Table 2 (generated data)'
    """
    return f"{title} (generated data)" if any(map(is_generated, sources)) else title


def bare(name: str) -> str:
    """Strip "miniature:" and "hub:" from a source's name, or from every name of a union joined by "+"."""
    return "+".join(part.removeprefix("miniature:").removeprefix("hub:") for part in name.split("+"))


def label(method: str, k: int) -> str:
    """Name a method and its K as a reader wants it: "TSNS K=500", "last layer", "PBLM"."""
    name = METHOD_LABELS.get(method, method)
    return name if method in ONE_SIZE or k == 0 else f"{name} K={k}"


def beside_paper(grid: pd.DataFrame, paper: pd.DataFrame, *, columns: Sequence[Key] | None = None) -> pd.DataFrame:
    """Set our accuracies beside the paper's, pair by pair, with the average over the pairs that both have.

    Parameters
    ----------
    grid : pandas.DataFrame
        Columns source, target, method, k, accuracy (0..1): a transfer grid. Runs are averaged.
    paper : pandas.DataFrame
        Columns source, target, method, k, accuracy (percent): one of `paper.table2` ... `table5` (of the
        last, the rows of one budget).
    columns : sequence of (method, k), optional
        What to show, in this order. Default: every method and k that both have, in the paper's order. One
        that only the paper has (a literature column) or only we have (a baseline) is shown alone.

    Returns
    -------
    pandas.DataFrame
        One row per pair, first in the paper's order, then those that only we have; last the average over the
        pairs that have all the figures of that method and k. Columns (method and K) x (ours, paper,
        difference), in percent and points, one digit. A difference is that of the two figures shown; a
        missing figure is NaN.

    Raises
    ------
    ValueError
        If the paper's frame holds a cell twice, or neither side has a wanted method and k.
    """
    if paper.duplicated(["source", "target", "method", "k"]).any():
        raise ValueError("paper holds a cell twice; choose one budget of Table 5")
    names: dict[str, str] = {}
    theirs, ours = _cells(paper, 1, names), _cells(grid, 100, names)
    shown = [name for name in theirs if name in ours] if columns is None else [label(*key) for key in columns]
    pairs = [pair for pair in names if pair in theirs.index or pair in ours.index]
    sides = {"ours (generated)" if any(map(is_generated, grid["source"])) else "ours": ours, "paper": theirs}
    table, compared = {}, set()
    for name in shown:
        found = {side: cells[name].reindex(pairs) for side, cells in sides.items() if name in cells}
        if not found:
            raise ValueError(f"neither the grid nor the paper has {name!r}")
        values = pd.DataFrame(found)
        compared.add(len(values.dropna()))
        values.loc["average"] = values.dropna().mean()
        values = values.round(1)
        if len(found) == 2:
            values["difference"] = (values.iloc[:, 0] - values["paper"]).round(1)
        table[name] = values
    if not table:
        raise ValueError("the grid and the paper have no method and k in common; say what to show with columns")
    # pairs that a method lacks leave its average on fewer of them: then no one number would be true
    names["average"] = f"average of {compared.pop()} pairs" if len(compared) == 1 else "average"
    wide = pd.concat(table, axis=1)
    wide.index = pd.Index([names[pair] for pair in wide.index], name="source → target")
    return wide


def verdict(estimate: float | None, low: float | None, high: float | None, *, threshold: float = 0.0) -> str:
    """Judge a claim that something lies above the threshold.

    Parameters
    ----------
    estimate, low, high : float or None
        Estimate and interval in the claim's direction. None for all three: the claim cannot be tested here.
    threshold : float
        Default 0: "A beats B" in points.

    Returns
    -------
    str
        "reproduced": the whole interval lies above. "direction only": the estimate lies above, the interval
        reaches down to the threshold. "not reproduced": the estimate does not lie above. "not testable here".

    Raises
    ------
    ValueError
        If only some of the three are None, one is NaN, or low > high.

    Examples
    --------
    >>> verdict(4.1, 3.2, 5.0), verdict(0.4, -0.5, 1.3), verdict(-1.0, -2.0, 0.1), verdict(None, None, None)
    ('reproduced', 'direction only', 'not reproduced', 'not testable here')
    """
    if estimate is None and low is None and high is None:
        return "not testable here"
    if estimate is None or low is None or high is None or math.isnan(estimate) or not low <= high:
        raise ValueError(f"estimate, low, high must be three numbers with low <= high, not {estimate}, {low}, {high}")
    if estimate <= threshold:
        return "not reproduced"
    return "reproduced" if low > threshold else "direction only"


def claim(
    id: str, estimate: float | None = None, low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    """Judge one claim of `paper.CLAIMS`; without an estimate it is not testable here.

    Parameters
    ----------
    id : str
        Name of the claim, such as "table2.gain".
    estimate, low, high : float, optional
        What the claim's rule asks for (`paper.RULES`), as `statistics.difference`, `wins` or `margin` return
        it.

    Returns
    -------
    dict
        id, paper_ref, rule, ours, interval, paper, verdict: a row of `results.json`.

    Raises
    ------
    ValueError
        If there is no such claim, or an estimate for one that is not testable by its rule.

    Examples
    --------
    >>> claim("table2.gain", 12.1, 11.0, 13.2)["verdict"]
    'reproduced'
    """
    found = next((known for known in CLAIMS if known.id == id), None)
    if found is None:
        raise ValueError(f"no claim {id!r}; there are {', '.join(known.id for known in CLAIMS)}")
    if found.rule == "external" and estimate is not None:
        raise ValueError(f"claim {id!r} compares with systems that are not rerun here; give no estimate")
    judged = verdict(estimate, low, high, threshold=found.threshold)
    interval = None if estimate is None else [low, high]
    values = (id, found.paper_ref, found.rule, estimate, interval, found.paper, judged)
    return plain(dict(zip(CLAIM_FIELDS, values, strict=True)), id)


def claims_table(claims: Sequence[Mapping[str, Any]], *, generated: bool = False) -> pd.DataFrame:
    """Lay out judged claims for reading: what the paper says, its figure, ours with interval, the verdict.

    Parameters
    ----------
    claims : sequence of dict
        As returned by `claim`.
    generated : bool
        Whether ours come from generated data; the column then says so. Default False.

    Returns
    -------
    pandas.DataFrame
        Strings only, one row per claim.
    """
    statements = {known.id: known.statement for known in CLAIMS}
    rows = [
        {
            "claim": statements[row["id"]],
            "where": row["paper_ref"],
            "paper": _number(row["paper"]),
            "ours (generated data)" if generated else "ours": _number(row["ours"]),
            "95 % interval": "" if row["interval"] is None else " to ".join(map(_number, row["interval"])),
            "verdict": row["verdict"],
        }
        for row in claims
    ]
    return pd.DataFrame(rows)


def _cells(frame: pd.DataFrame, scale: float, names: dict[str, str]) -> pd.DataFrame:
    """Mean accuracy in percent, pairs down, labels across; notes in names how each pair is written."""
    rows = frame.dropna(subset=["accuracy"])
    pairs = []
    for source, target in zip(map(bare, rows["source"]), map(bare, rows["target"]), strict=True):
        # the order within a union of sources does not matter
        pairs.append(f"{'+'.join(sorted(source.split('+')))} → {target}")
        names.setdefault(pairs[-1], f"{source} → {target}")
    labels = [label(method, k) for method, k in zip(rows["method"], rows["k"], strict=True)]
    tidy = pd.DataFrame({"pair": pairs, "label": labels, "accuracy": scale * rows["accuracy"].to_numpy()})
    return tidy.pivot_table(index="pair", columns="label", values="accuracy", sort=False)


def _number(value: float | None) -> str:
    """Points to one digit, what lies below 1 (a correlation) to two."""
    if value is None:
        return ""
    digits = 1 if abs(value) >= 1 else 2
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a zero
