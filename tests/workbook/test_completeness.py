"""Nothing of the paper is left out: each table, figure and claim has its notebook, parameters, outputs and row."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from tsns_workbook.paper import CLAIMS

ROOT = Path(__file__).parents[2]
PARTS = [*(f"table{n}" for n in range(1, 6)), *(f"figure{n}" for n in range(1, 3))]
SCOREBOARD = "00_scoreboard"


def missing_files(notebook):
    wanted = [
        f"notebooks/{notebook}.ipynb",
        *(f"params/{profile}/{notebook}.yaml" for profile in ("mini", "local", "paper")),
        *(f"outputs/reference/{notebook}{ending}" for ending in (".ipynb", ".results.json")),
    ]
    return [name for name in wanted if not (ROOT / name).exists()]


def results():
    """Records by notebook's name."""
    paths = (ROOT / "outputs/reference").glob("*.results.json")
    return {path.name.split(".")[0]: json.loads(path.read_text()) for path in paths}


def judges(claim_id):
    """The notebooks whose committed copy judges a claim."""
    return [name for name, record in results().items() if claim_id in [c["id"] for c in record["claims"]]]


@pytest.mark.parametrize("part", PARTS)
def test_a_table_or_figure_has_its_notebook_parameters_and_outputs(part):
    (notebook,) = [path.stem for path in (ROOT / "notebooks").glob(f"??_{part}_*.ipynb")]
    assert missing_files(notebook) == []


@pytest.mark.parametrize("part", PARTS)
def test_a_table_or_figure_has_a_claim(part):
    assert [claim.id for claim in CLAIMS if claim.id.startswith(f"{part}.")]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_a_claim_is_judged_by_one_notebook_that_has_all_its_files(claim):
    (notebook,) = judges(claim.id)
    assert missing_files(notebook) == []


def test_the_scoreboard_has_a_row_for_each_claim_and_all_were_run():
    assert missing_files(SCOREBOARD) == []
    rows = {row["id"]: row["verdict"] for row in results()[SCOREBOARD]["tables"]["scoreboard"]}
    assert sorted(rows) == sorted(claim.id for claim in CLAIMS)
    assert [id for id, verdict in rows.items() if verdict == "not run"] == []


def test_the_scoreboard_shows_the_verdicts_of_the_other_copies():
    records = results()
    judged = {claim["id"]: claim["verdict"] for record in records.values() for claim in record["claims"]}
    shown = {row["id"]: row["verdict"] for row in records[SCOREBOARD]["tables"]["scoreboard"]}
    assert {id: verdict for id, verdict in shown.items() if verdict != "not run"} == judged


@pytest.mark.parametrize("folder", ["notebooks", "outputs/reference", "outputs/local"])
def test_every_link_of_a_notebook_leads_to_a_file(folder):
    broken, glossary = [], []
    for path in sorted((ROOT / folder).glob("*.ipynb")):
        text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
        links = re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", text)
        broken += [f"{path.name}: {link}" for link in links if not (path.parent / link).exists()]
        glossary += [path.name for link in links if link.endswith("glossary.md")]
    assert broken == []
    assert folder != "notebooks" or len(glossary) == len(list((ROOT / folder).glob("*.ipynb")))
