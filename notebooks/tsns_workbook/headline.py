"""The README's results, written from the records of executed notebooks, so that no figure there is typed by hand."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from tsns_workbook.cards import card
from tsns_workbook.how_sure import CROSSED
from tsns_workbook.in_passing import claims_in_passing
from tsns_workbook.report import CONTRADICTED, INCONCLUSIVE, REPRODUCED, short_name
from tsns_workbook.scoreboard import RESERVED, SEEN_AS, Result, front_sentence, outcome, read_results, scoreboard

BEGIN, END = "<!-- results: written by `make picture` -->", "<!-- end of results -->"
TABLES = {
    "04_table2_single_source_sentiment": ("Table 2", "accuracy"),
    "06_table4_multi_source_sentiment": ("Table 4", "accuracy"),
    "05_table3_single_source_pairs": ("Table 3", "auc"),
    "07_table5_multi_source_scitail": ("Table 5", "auc"),
}
SELECTED = ("tsns", "multi_tsns", "selected")
SHOWN = {
    "majority": "majority class",
    "TF-IDF": "TF-IDF of words and pairs of words",
    "last_layer": "last layer",
    "best layer": "the best single layer, chosen on the source",
    "random": "K random neurons",
    "random of the same layers": "K random neurons of the same layers",
    "all": "all neurons",
    "f_test": "F-test, K",
}
TOLD = {
    REPRODUCED: "reproduced",
    RESERVED: "reproduced with a reservation",
    INCONCLUSIVE: "inconclusive",
    CONTRADICTED: "contradicted",
}
POOLINGS = {"cls": "`[CLS]`", "mean": "mean"}


def headline(folder: Path, profile: str = "local") -> str:
    """The README's results as Markdown: what became of the paper's claims, the ladders, and what they rest on."""
    results, _ = read_results(folder, profile)
    found = {result.notebook: result for result in results if "ladder" in result.tables}
    if not found:
        raise ValueError(f"{folder}: there is no notebook with a ladder among its results; run 04 to 07 first")
    encoder = found[min(found)].encoder
    board = scoreboard(results, claims_in_passing(results))
    parts = [front_sentence(board), _fingerprints(board), _ladders(found), _limits(results, encoder)]
    return "\n\n".join(parts)


def _fingerprints(board: pd.DataFrame) -> str:
    """What became of the paper's headline, and which claim is contradicted even once a table shares one error."""
    tests = board[board["id"].str.startswith("prediction.")]
    counts = [tests[column].map(outcome).value_counts() for column in SEEN_AS]
    found, left = (", ".join(f"{count[name]} {TOLD[name]}" for name in TOLD if name in count) for count in counts)
    firm = board[(board["part"] == "paper") & (board["after_holm"] == CONTRADICTED)]
    against = "; ".join(f"{row.claim} ({row.about})" for row in firm.itertuples())
    return (
        f"**Does the fingerprint predict which transfers work?** Of {len(tests)} tests of it, {found}; after Holm, "
        f"{left}. Contradicted also after Holm: {against or 'none'}."
    )


def _ladders(found: Mapping[str, Any]) -> str:
    columns: dict[str, dict[str, str]] = {}
    for notebook, (table, metric) in TABLES.items():
        rows = pd.DataFrame(found[notebook].tables["ladder"]) if notebook in found else pd.DataFrame()
        for pooling, rungs in rows.groupby("pooling", sort=False) if len(rows) else ():
            unit = {"accuracy": "%", "auc": "AUC, %"}[metric]
            columns[f"{table} {POOLINGS[str(pooling)]} ({unit})"] = _column(rungs, metric)
    names = [*SHOWN.values(), "**selected, K**", *LEADS]
    head = "| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns)
    lines = [f"| {name} | " + " | ".join(column[name] for column in columns.values()) + " |" for name in names]
    return "\n".join([head, *lines])


LEADS = {
    "… ahead of the last layer by": "last_layer",
    "… ahead of random neurons of its layers by": "random of the same layers",
    "… ahead of the F-test by": "f_test",
    "… ahead of all neurons by": "all",
    "… ahead of the best single layer by": "best layer",
}


def _column(rungs: pd.DataFrame, metric: str) -> dict[str, str]:
    by_method = rungs.drop_duplicates("method").set_index("method")
    column = {name: f"{by_method.at[method, metric]:.1f}" for method, name in SHOWN.items()}
    # of two selections on the same rows the last one is the table's: MultiTSNS, or "selected" of Table 5
    own = by_method.loc[[method for method in SELECTED if method in by_method.index][-1]]
    column["**selected, K**"] = f"**{own[metric]:.1f}** ({own[f'{metric}_low']:.1f} to {own[f'{metric}_high']:.1f})"
    ahead = "ahead" if metric == "accuracy" else "ahead_auc"
    for name, method in LEADS.items():
        lead = by_method.loc[method]
        estimate, low, high = (_signed(lead[field]) for field in (ahead, f"{ahead}_low", f"{ahead}_high"))
        column[name] = f"{estimate} ({low} to {high})"
    return column


def _signed(points: float) -> str:
    """With one decimal, or with two where one would leave 0: an interval's end shows on which side of 0 it lies."""
    return f"{points:+.1f}" if abs(points) >= 0.05 else f"{points:+.2f}"


def _limits(results: Sequence[Result], encoder: str) -> str:
    """What the figures rest on: encoder, pooling, share of K, contamination, slices of corpora."""
    known = card(encoder) or {}
    tables = [pd.DataFrame(result.tables["sources"]) for result in results if "sources" in result.tables]
    # a table that marks what the encoder has seen says so in the name of this column
    tables = [table.rename(columns=lambda name: "source" if name.startswith("source") else name) for table in tables]
    sources = pd.concat(tables).assign(name=lambda table: table["source"].str.replace(" †", ""))
    training = sources[sources["split"] == "train"].dropna(subset=["paper"])
    training = training.sort_values("rows").drop_duplicates("name", keep="last")  # Table 5 cuts small sources
    targets = sources[sources["split"] != "train"].dropna(subset=["paper"]).drop_duplicates("name")
    of_training, of_targets = (
        ", ".join(
            f"{short_name(row.name)} {100 * row.rows / row.paper:.1f} %"
            for row in rows[rows["rows"] < 0.9 * rows["paper"]].itertuples()
        )
        for rows in (training, targets)
    )
    shapes = [row["value"] for result in results for row in result.tables.get("encoder", []) if "value" in row]
    shape = next(value for value in shapes if "×" in str(value))
    total = int(shape.split("=")[1].replace(",", ""))
    return "\n".join(
        [
            "What these figures rest on:",
            "",
            f"- **One encoder**, {encoder} ({shape} neurons), not the paper's BERT-large. It was trained with "
            f"{known.get('pooling', 'unknown')} pooling: the `[CLS]` state of its last layer is a weak baseline.",
            f"- **K = 500** is {100 * 500 / total:.0f} % of its neurons, and 2 % of BERT-large's."
            f"{_with_fewer(results, total)}",
            f"- **It has seen** {', '.join(known.get('seen', [])) or 'none of the corpora'} in training: sources and "
            "targets of Tables 3 and 5 (marked † in the notebooks).",
            f"- **Slices**: of the paper's training rows there are {of_training}, of its targets' rows {of_targets}; "
            "the other corpora are whole. Table 5 cuts small sources to the share of the rows that they have in the "
            "paper.",
            f"- **Intervals** resample source rows, target rows and runs; corpora are fixed.{_coverage(results)}",
        ]
    )


def _coverage(results: Sequence[Result]) -> str:
    """What such intervals covered in the simulated studies of notebook 15."""
    rows = pd.DataFrame(next((r.tables["coverage"] for r in results if r.notebook.startswith("15_")), []))
    if rows.empty:
        return ""
    held = 100 * rows.loc[rows["interval"] == CROSSED, "coverage"]
    return (
        f" In {rows['studies'].iloc[0]} simulated studies of reviews they held the truth in {held.min():.0f} to "
        f"{held.max():.0f} % (95 % are promised; notebook `15`)."
    )


def _with_fewer(results: Sequence[Result], total: int) -> str:
    """How far the selection of Table 2 is ahead of its controls with the fewest neurons that were tried."""
    cells = pd.DataFrame(next((r.tables["accuracy"] for r in results if r.notebook.startswith("04_")), []))
    if cells.empty or (k := int(cells.loc[cells["method"] == "tsns", "k"].min())) >= 500:
        return ""
    means = cells[cells["k"] == k].groupby("method")["accuracy"].mean()
    ahead = [f"{round(means['tsns'] - means[name], 1) + 0.0:+.1f}" for name in ("random of the same layers", "f_test")]
    return (
        f" With K = {k} ({100 * k / total:.0f} %) Table 2's selection by `[CLS]` is ahead of random neurons of its "
        f"layers by {ahead[0]} points, and of the F-test by {ahead[1]}."
    )


def write(readme: Path, folder: Path) -> None:
    """Put the headline between its two marks in the README."""
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    readme.write_text(f"{before}{BEGIN}\n{headline(folder)}\n{END}{after}", encoding="utf-8")


def picture(notebook: Path) -> bytes:
    """The first figure of an executed notebook, a PNG."""
    cells = nbformat.read(notebook, as_version=4).cells
    shown = (output.get("data", {}) for cell in cells for output in cell.get("outputs", []))
    return base64.b64decode(next(data["image/png"] for data in shown if "image/png" in data))


if __name__ == "__main__":
    root = Path(__file__).parents[2]
    local = root / "outputs/local"
    write(root / "README.md", local)
    (local / "04_table2_ladder.png").write_bytes(picture(local / "04_table2_single_source_sentiment.ipynb"))
