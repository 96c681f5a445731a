"""The record that every notebook ends with: one JSON output that the batch collects into `results.json`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

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
