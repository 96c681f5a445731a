"""Every claim of the papers on one page: what the notebooks of a profile found, read from their `results.json`."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tsns_lib.validation import LARGEST, shown
from tsns_workbook.paper import CLAIMS, FAMILIES
from tsns_workbook.plots import BLUE, FAINT, STYLE, finish
from tsns_workbook.report import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_TESTABLE,
    REPRODUCED,
    about_seen,
    after_holm,
    caption,
    claim,
    figures,
    reading,
)

NOT_RUN, TO_BE_RERUN, RESERVED = "not run", "to be rerun", "reproduced, but"
TESTED = (REPRODUCED, RESERVED, INCONCLUSIVE, CONTRADICTED)
OUTCOMES = (*TESTED, NOT_TESTABLE, TO_BE_RERUN, NOT_RUN)
SEEN_AS = ("reading", "after_holm")  # columns of a scoreboard: the verdicts alone, and once a family shares its error
PARTS = {
    "paper": "What the paper finds",
    "ours": "Our own test of it",
    "neighbours": "Three neighbouring papers",
    "counts": "A toy, the counts, and the arithmetic of the tables",
}
# dark enough for white letters; a sign and the word besides, so that nothing hangs on colour alone
LOOKS = {
    REPRODUCED: ("✓", "#007A5A"),
    RESERVED: ("(✓)", "#6B6B00"),
    INCONCLUSIVE: ("≈", BLUE),
    CONTRADICTED: ("✗", "#B84E00"),
    NOT_TESTABLE: ("–", "#666666"),
    TO_BE_RERUN: ("↻", "#999999"),
    NOT_RUN: ("·", "#999999"),
}
SELF = "00_scoreboard"  # this notebook's own record is not read
NEEDED = ("id", "rule", "ours", "interval")  # of a recorded claim
COLUMNS = {"verdict": 0.6, "claim": 17, "ours (95 % interval)": 65, "paper": 83.5, "ours/paper": 91, "after Holm": 92.5}
HEADING = 1.6  # height of a group's heading, in lines


@dataclass(frozen=True)
class Result:
    """What one notebook recorded: its name, its encoder, whether its data were generated, its claims and tables."""

    notebook: str
    encoder: str
    generated: bool
    claims: list[dict[str, Any]]
    tables: dict[str, list[dict[str, Any]]]


def read_results(folder: Path, profile: str) -> tuple[list[Result], list[str]]:
    """Read the `results.json` of every notebook of a profile that judges a claim, in the order of their names.

    Every problem is one line: a file that cannot be read, is of another profile or of a notebook that is gone (its
    claims are left out), a claim that is damaged, not the paper's, or was judged before (left out, too), and a notebook
    whose latest run failed, so that its figures are those of an earlier run.
    """
    results: list[Result] = []
    problems: list[str] = []
    judged_by = {known.id: "" for known in CLAIMS}
    notebooks = folder.resolve().parents[1] / "notebooks"
    for path in sorted(folder.glob("*.results.json")):
        name = path.name.removesuffix(".results.json")
        if name == SELF:
            continue
        if notebooks.is_dir() and not (notebooks / f"{name}.ipynb").is_file():
            problems.append(f"{path.name}: its notebook is gone or has another name; delete what it left")
            continue
        try:
            result = _read(path, profile)
        except ValueError as error:
            problems.append(f"{path.name}: {error}")
            continue
        for row in list(result.claims):
            if field := _wrong_field(row):
                problems.append(f"{path.name}: left out claim {shown(row['id'], 40)}, whose {field}")
                result.claims.remove(row)
                continue
            if judged_by.get(row["id"]) == "":
                judged_by[row["id"]] = name
                continue
            known = row["id"] in judged_by
            why = f"was judged by {judged_by[row['id']]}" if known else "is none of the paper's"
            problems.append(f"{path.name}: left out claim {row['id']!r}, which {why}")
            result.claims.remove(row)
        if not result.claims:
            continue
        results.append(result)
        if path.with_name(f"{name}.failed.ipynb").exists():
            problems.append(f"{path.name}: the latest run failed; these are the figures of an earlier one")
    return results, problems


def scoreboard(results: Sequence[Result], more: Sequence[dict[str, Any]] = ()) -> pd.DataFrame:
    """Set every claim of the papers beside what was found: one row each, grouped by table, figure or section.

    Estimates and intervals are those recorded; they are judged again by today's rules, so that a verdict never comes
    from an older one. A claim whose rule is another one by now is "to be rerun", one that no result judges is "not
    run". `more` are claims judged from the records themselves.
    """
    recorded = {row["id"]: (result, row) for result in results for row in result.claims}
    here = Result(SELF, encoders(results), generated(results), list(more), {})
    recorded |= {row["id"]: (here, row) for row in more}
    judged = {id: _judged(row) for id, (_, row) in recorded.items()}
    current = [row for row in judged.values() if row]
    remains = dict(zip([row["id"] for row in current], after_holm(current), strict=True))
    rows = []
    for known in CLAIMS:
        result, facts = recorded[known.id][0] if known.id in recorded else None, judged.get(known.id, {})
        low, high = facts.get("interval") or (None, None)
        unjudged = TO_BE_RERUN if known.id in recorded else NOT_RUN
        seen = result is not None and about_seen(known.id, result.encoder, result.generated)
        rows.append(
            {
                "part": FAMILIES[known.family].part,
                "about": FAMILIES[known.family].title,
                "id": known.id,
                "claim": known.statement + (" †" if seen else ""),
                "where": known.paper_ref,
                "rule": known.rule,
                "ours": facts.get("ours"),
                "low": low,
                "high": high,
                "paper": known.paper,
                "size": facts.get("size"),
                "verdict": facts.get("verdict", unjudged),
                "reading": reading(facts) if facts else unjudged,
                "after_holm": remains.get(known.id, ""),
                "notebook": result.notebook if result else "",
                "data": _data(result),
            }
        )
    order = [family.title for family in FAMILIES.values()]
    rows.sort(key=lambda row: order.index(row["about"]))
    return pd.DataFrame(rows).astype(dict.fromkeys(["ours", "low", "high", "paper", "size"], float))


def outcome(reading: str) -> str:
    """The kind of a reading: what is reproduced with a reservation is a kind of its own."""
    return RESERVED if reading.startswith(f"{REPRODUCED},") else reading


def front_sentence(board: pd.DataFrame) -> str:
    """Say in one sentence what became of the paper's own empirical claims."""
    own = board[board["part"] == "paper"]
    n, left = (own[column].map(outcome).value_counts().reindex(OUTCOMES, fill_value=0) for column in SEEN_AS)
    sentence = (
        f"Of the paper's {len(own)} empirical claims, {n[list(TESTED)].sum()} could be tested here: {n[REPRODUCED]} "
        f"**reproduced**, {n[RESERVED]} reproduced but below the majority class or not clearly better than a control, "
        f"{n[INCONCLUSIVE]} **inconclusive**, {n[CONTRADICTED]} **contradicted**. Once the claims of a table share one "
        f"error of 5 % (Holm), these numbers are {', '.join(str(left[name]) for name in TESTED[:-1])} and "
        f"{left[CONTRADICTED]}."
    )
    waiting = n[TO_BE_RERUN] + n[NOT_RUN]
    return sentence + (f" {waiting} wait for their notebook to be run." if waiting else "")


def readable(board: pd.DataFrame) -> pd.DataFrame:
    """Lay out a scoreboard for reading, strings only; what was counted and not estimated has no interval."""
    cells = [_figures(row) for row in board.itertuples()]
    columns = dict(zip(("ours", "95 % interval", "paper", "size"), map(list, zip(*cells, strict=True)), strict=True))
    table = board[["claim", "where", "rule"]].assign(**columns, verdict=board["reading"])
    table = table.assign(**{"after Holm": board["after_holm"], "data": board["data"]})
    return table.set_index(board["about"].rename(None))


def count_verdicts(board: pd.DataFrame) -> pd.DataFrame:
    """Count the claims by table or figure and by outcome, with the sums."""
    counts = pd.crosstab(board["about"], board["reading"].map(outcome))
    counts = counts.reindex(index=board["about"].unique(), columns=list(OUTCOMES), fill_value=0)
    counts.loc["all"] = counts.sum()
    return counts.assign(claims=counts.sum(axis=1)).rename_axis(index=None, columns=None)


def scoreboard_figure(board: pd.DataFrame, part: str) -> Figure:
    """Draw one part of a scoreboard: a line for each claim, with its verdict as a sign, a word and a colour.

    What was measured on generated data is marked group by group; "after Holm" stands where it differs.
    """
    shown = board[board["part"] == part]
    if shown.empty:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, not {part!r}")
    groups = list(shown.groupby("about", sort=False))
    wrapped = {row.id: [_wrap(row.reading, 22), _wrap(row.claim, 88)] for row in shown.itertuples()}
    heights = {id: 0.6 + 0.7 * (1 + max(text.count("\n") for text in texts)) for id, texts in wrapped.items()}
    total = sum(heights.values()) + HEADING * len(groups)
    with plt.rc_context(STYLE | {"font.size": 8.5}):
        figure, axes = plt.subplots(figsize=(12, 0.7 + 0.2 * total), layout="constrained")
        axes.set(xlim=(0, 100), ylim=(total, -1.6))
        axes.axis("off")
        for name, x in COLUMNS.items():
            axes.text(x, -0.6, name, color=FAINT, ha="right" if name in ("paper", "ours/paper") else "left")
        top = 0.0
        for about, rows in groups:
            heading = caption(about, bool((rows["data"] == "generated").any()))
            axes.text(0, top + 0.7 * HEADING, heading, fontsize=10.5, fontweight="bold", va="center")
            top += HEADING
            for row in rows.itertuples():
                _draw_claim(axes, row, wrapped[row.id], top + heights[row.id] / 2)
                top += heights[row.id]
                axes.axhline(top, color="#E5E5E5", linewidth=0.8)
        seen = "; † about a corpus that the encoder was trained on" if shown["claim"].str.endswith("†").any() else ""
        axes.set_title(PARTS[part] + seen, loc="left", fontsize=13)
    return finish(figure)


def _draw_claim(axes: Axes, row: Any, texts: list[str], middle: float) -> None:
    sign, color = LOOKS[outcome(row.reading)]
    chip = {"boxstyle": "round,pad=0.25", "facecolor": color, "edgecolor": "none"}
    ours, interval, theirs, size = _figures(row)
    words, claim = texts
    after = row.after_holm if row.after_holm != row.reading else ""
    cells = [f"{sign} {words}", claim, f"{ours} ({interval})" if interval else ours, theirs, size, after]
    for (name, x), cell in zip(COLUMNS.items(), cells, strict=True):
        look: dict[str, Any] = {"bbox": chip, "color": "white"} if name == "verdict" else {}
        side = "right" if name in ("paper", "ours/paper") else "left"
        axes.text(x, middle, cell, va="center", linespacing=1.2, ha=side, **look)


def _judged(row: dict[str, Any]) -> dict[str, Any]:
    """Judge a recorded estimate by today's threshold; empty where another rule, or none declared, was recorded."""
    known = next(stated for stated in CLAIMS if stated.id == row["id"])
    if known.rule in ("external", "untested"):  # never tested, so never stale
        return claim(known.id)
    if row["rule"] != known.rule or row.get("declared") != known.version:
        return {}
    flags = {name: row.get(name) for name in ("above_majority", "by_selection", "p")}
    return claim(row["id"], row["ours"], *(row["interval"] or (None, None)), **flags)


def _read(path: Path, profile: str) -> Result:
    """Read one file, or raise a ValueError that says what is wrong with it."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        claims = [row | {field: row[field] for field in NEEDED} for row in facts["claims"]]
        is_generated = {"generated": True, "real": False}[facts["data"]]
        notebook, encoder = facts["notebook"], facts["encoder"]
        tables = {name: [dict(row) for row in rows] for name, rows in facts["tables"].items()}
        if not (isinstance(notebook, str) and isinstance(encoder, str)):
            raise TypeError(f"notebook and encoder are no names: {shown([notebook, encoder])}")
        result = Result(notebook, encoder, is_generated, claims, tables)
        recorded_profile = facts["profile"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"is no readable record of a notebook ({type(error).__name__}: {error})") from error
    if recorded_profile != profile:
        raise ValueError(f"is of profile {recorded_profile!r}, not of {profile!r}")
    return result


def _wrong_field(row: dict[str, Any]) -> str:
    """Which field of a recorded claim cannot be judged, and what it holds instead; or nothing ("")."""
    ours, interval, p = row["ours"], row["interval"], row.get("p")
    ends = interval if isinstance(interval, list) else []
    is_interval = len(ends) == 2 and all(map(_is_number, ends)) and ends[0] <= ends[1]
    fits = {
        "id": isinstance(row["id"], str),
        "ours": ours is None or _is_number(ours),
        "interval": is_interval if ours is not None else interval is None,
        "p": p is None or (_is_number(p) and 0 <= p <= 1),
    }
    fits |= {flag: isinstance(row.get(flag), bool | None) for flag in ("above_majority", "by_selection")}
    return next((f"{field} is {shown(row.get(field), 40)}" for field, right in fits.items() if not right), "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def encoders(results: Sequence[Result]) -> str:
    """The encoders of all records in one string; what no encoder reads, a toy and printed tables, does not count."""
    return ", ".join(sorted({result.encoder for result in results} - {"none"})) or "none"


def generated(results: Sequence[Result]) -> bool:
    """Whether an encoder read generated data; Figure 1's toy, which no encoder reads, does not count."""
    return any(result.generated for result in results if result.encoder != "none")


def findings(results: Sequence[Result]) -> str:
    """What the audit of the printed tables (notebook 09) found, as a list; empty without its record."""
    found = [row["finding"] for result in results for row in result.tables.get("findings", [])]
    return "\n".join(f"- {text}" for text in found) or "Notebook 09 has no results yet."


def _data(result: Result | None) -> str:
    if result is None:
        return ""
    return "generated" if result.generated else "real"


def _wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width))


def _figures(row: Any) -> tuple[str, str, str, str]:
    """Ours, its interval, the paper's and the size in words, empty where there is none."""
    facts = {"ours": row.ours, "interval": None if pd.isna(row.ours) else [row.low, row.high]}
    ours, interval = figures(facts)
    theirs, size = (
        "" if pd.isna(value) else form.format(value) for value, form in ((row.paper, "{:g}"), (row.size, "{:.2f}"))
    )
    return ours, interval, theirs, size
