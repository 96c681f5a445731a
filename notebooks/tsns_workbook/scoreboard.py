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

from tsns_workbook.paper import CLAIMS
from tsns_workbook.plots import FAINT, STYLE
from tsns_workbook.report import CLAIM_FIELDS, VERDICTS, caption

NOT_RUN = "not run"
OUTCOMES = (*VERDICTS, NOT_RUN)
# Okabe and Ito's palette, dark enough for white letters; a sign and the word besides: nothing hangs on colour alone
LOOKS = {
    "reproduced": ("✓", "#007A5A"),
    "direction only": ("≈", "#0072B2"),
    "not reproduced": ("✗", "#B84E00"),
    "not testable here": ("–", "#666666"),
    NOT_RUN: ("·", "#999999"),
}
COLUMNS = {"verdict": 0.6, "claim": 13, "where": 55, "rule": 75, "ours (95 % interval)": 82, "paper": 99.5}
HEADING = 1.6  # height of a group's heading, in lines


@dataclass(frozen=True)
class Result:
    """What one notebook recorded: its name, its encoder, whether its data were generated, its judged claims."""

    notebook: str
    encoder: str
    generated: bool
    claims: list[dict[str, Any]]


def read_results(folder: Path, profile: str) -> tuple[list[Result], list[str]]:
    """Read the `results.json` of every notebook of a profile.

    Parameters
    ----------
    folder : Path
        Where the profile's executed notebooks lie.
    profile : str
        The profile that they must be of.

    Returns
    -------
    results : list of Result
        Of the notebooks that judge a claim, in the order of their names.
    problems : list of str
        One line for each file that could not be read or is of another profile (its claims are missing from the
        results), for each claim that is not the paper's or was judged before, and for each notebook whose
        latest run failed, so that these are the figures of an earlier one.
    """
    results: list[Result] = []
    problems: list[str] = []
    judged = {claim.id: "" for claim in CLAIMS}  # by which notebook
    for path in sorted(folder.glob("*.results.json")):
        name = path.name.removesuffix(".results.json")
        try:
            result = _read(path, profile)
        except ValueError as error:
            problems.append(f"{path.name}: {error}")
            continue
        for claim in list(result.claims):
            if judged.get(claim["id"], "unknown"):
                why = f"was judged by {judged[claim['id']]}" if claim["id"] in judged else "is none of the paper's"
                problems.append(f"{path.name}: left out claim {claim['id']!r}, which {why}")
                result.claims.remove(claim)
            else:
                judged[claim["id"]] = name
        if not result.claims:
            continue
        results.append(result)
        if path.with_name(f"{name}.failed.ipynb").exists():
            problems.append(f"{path.name}: the latest run failed; these are the figures of an earlier one")
    return results, problems


def scoreboard(results: Sequence[Result]) -> pd.DataFrame:
    """Set every claim of the paper beside what was found.

    Parameters
    ----------
    results : sequence of Result
        As `read_results` gives them.

    Returns
    -------
    pandas.DataFrame
        One row for each of `paper.CLAIMS`, grouped by table, figure or section, in columns `about` (the group),
        `id`, `claim` (in our words), `where` (in the paper), `rule`, `ours`, `low`, `high`, `paper`, `verdict`
        (a claim that no result judges is "not run"), `notebook`, `data`.
    """
    found = {claim["id"]: (result, claim) for result in results for claim in result.claims}
    rows = []
    for claim in CLAIMS:
        result, judged = found.get(claim.id, (None, {}))
        low, high = judged.get("interval") or (None, None)
        rows.append(
            {
                "about": _about(claim.id),
                "id": claim.id,
                "claim": claim.statement,
                "where": claim.paper_ref,
                "rule": claim.rule,
                "ours": judged.get("ours"),
                "low": low,
                "high": high,
                "paper": claim.paper,
                "verdict": judged.get("verdict", NOT_RUN),
                "notebook": result.notebook if result else "",
                "data": "" if result is None else "generated" if result.generated else "real",
            }
        )
    # "Table 1" … "Figure 2", then the rest as they come
    order = {about: (about[:5] != "Table", about[:6] != "Figure", about) for about in (row["about"] for row in rows)}
    rows.sort(key=lambda row: order[row["about"]])
    return pd.DataFrame(rows).astype(dict.fromkeys(["ours", "low", "high", "paper"], float))


def readable(board: pd.DataFrame) -> pd.DataFrame:
    """Lay out a scoreboard for reading; strings only.

    Parameters
    ----------
    board : pandas.DataFrame
        As `scoreboard` gives it.

    Returns
    -------
    pandas.DataFrame
        Columns claim, where, rule, ours, 95 % interval, paper, verdict, data; indexed by table, figure or section.
        What was counted and not estimated has no interval.
    """
    figures = [_figures(row) for row in board.itertuples()]
    ours, interval, theirs = ([*column] for column in zip(*figures, strict=True))
    columns = {"ours": ours, "95 % interval": interval, "paper": theirs}
    table = board[["claim", "where", "rule"]].assign(**columns, **board[["verdict", "data"]])
    return table.set_index(board["about"].rename(None))


def count_verdicts(board: pd.DataFrame) -> pd.DataFrame:
    """Count the claims by table or figure and by verdict, with the sums.

    Parameters
    ----------
    board : pandas.DataFrame
        As `scoreboard` gives it.

    Returns
    -------
    pandas.DataFrame
        Groups down and "all" last; the verdicts and "claims" across.
    """
    counts = pd.crosstab(board["about"], board["verdict"])
    counts = counts.reindex(index=board["about"].unique(), columns=list(OUTCOMES), fill_value=0)
    counts.loc["all"] = counts.sum()
    return counts.assign(claims=counts.sum(axis=1)).rename_axis(index=None, columns=None)


def scoreboard_figure(board: pd.DataFrame, *, title: str = "What holds of the papers' claims") -> Figure:
    """Draw a scoreboard as one page: a line for each claim, with its verdict as a sign, a word and a colour.

    Parameters
    ----------
    board : pandas.DataFrame
        As `scoreboard` gives it.
    title : str
        Title; what is measured on generated data is marked group by group.

    Returns
    -------
    matplotlib.figure.Figure
        Groups under their own heading; opaque white, for light and dark pages and for print.
    """
    groups = list(board.groupby("about", sort=False))
    wrapped = {row.id: [_wrap(row.claim, 78), _wrap(row.where, 36)] for row in board.itertuples()}
    heights = {id: 0.6 + 0.7 * (1 + max(text.count("\n") for text in texts)) for id, texts in wrapped.items()}
    total = sum(heights.values()) + HEADING * len(groups)
    with plt.rc_context(STYLE | {"font.size": 8.5}):
        figure, axes = plt.subplots(figsize=(12, 0.7 + 0.2 * total), layout="constrained")
        axes.set(xlim=(0, 100), ylim=(total, -1.6))
        axes.axis("off")
        for name, x in COLUMNS.items():
            axes.text(x, -0.6, name, color=FAINT, ha="right" if name == "paper" else "left")
        top = 0.0
        for about, rows in groups:
            heading = caption(about, ["miniature:"] if (rows["data"] == "generated").any() else [])
            axes.text(0, top + 0.7 * HEADING, heading, fontsize=10.5, fontweight="bold", va="center")
            top += HEADING
            for row in rows.itertuples():
                _draw_claim(axes, row, wrapped[row.id], top + heights[row.id] / 2)
                top += heights[row.id]
                axes.axhline(top, color="#E5E5E5", linewidth=0.8)
        axes.set_title(title, loc="left", fontsize=13)
    plt.close(figure)
    return figure


def _draw_claim(axes: Axes, row: Any, texts: list[str], middle: float) -> None:
    sign, color = LOOKS[row.verdict]
    chip = {"boxstyle": "round,pad=0.25", "facecolor": color, "edgecolor": "none"}
    ours, interval, theirs = _figures(row)
    cells = [f"{sign} {row.verdict}", *texts, row.rule, f"{ours} ({interval})" if interval else ours, theirs]
    for (name, x), cell in zip(COLUMNS.items(), cells, strict=True):
        look: dict[str, Any] = {"bbox": chip, "color": "white"} if name == "verdict" else {}
        axes.text(x, middle, cell, va="center", linespacing=1.2, ha="right" if name == "paper" else "left", **look)


def _read(path: Path, profile: str) -> Result:
    """One file; ValueError with what is wrong with it."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        claims = [{field: row[field] for field in CLAIM_FIELDS} for row in facts["claims"]]
        result = Result(facts["notebook"], facts["encoder"], facts["data"] == "generated", claims)
        found = facts["profile"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"is no readable record of a notebook ({type(error).__name__}: {error})") from error
    if found != profile:
        raise ValueError(f"is of profile {found!r}, not of {profile!r}")
    strange = [row["id"] for row in claims if row["verdict"] not in VERDICTS]
    if strange:
        raise ValueError(f"has an unknown verdict for {', '.join(strange)}")
    return result


def _about(id: str) -> str:
    """Group of a claim, from its name: "table2.gain" is about "Table 2"."""
    group = id.partition(".")[0]
    name = group.rstrip("0123456789")
    return f"{name.replace('_', ' ').capitalize()} {group[len(name) :]}".strip()


def _wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width))


def _figures(row: Any) -> tuple[str, str, str]:
    """Ours, its interval and the paper's in words, empty where there is none."""
    values = [value for value in (row.ours, row.low, row.high, row.paper) if value == value]
    whole = all(value == round(value) for value in values)
    digits = 0 if whole else 2 if max(map(abs, values), default=1) < 1 else 1  # a correlation needs two
    ours, low, high, theirs = (
        "" if value != value else f"{value:.{digits}f}" for value in (row.ours, row.low, row.high, row.paper)
    )
    return ours, "" if not low or low == high else f"{low} to {high}", theirs
