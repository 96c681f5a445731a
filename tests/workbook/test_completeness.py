"""Nothing of the paper is left out: each table, figure and claim has its notebook, parameters, outputs and row."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest
from tsns_workbook.own_text import Corpora
from tsns_workbook.paper import CLAIMS

from tsns_lib import load_source

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


def statements(notebook, target):
    """The code of a notebook that gives a name its value."""
    cells = nbformat.read(ROOT / f"notebooks/{notebook}.ipynb", as_version=4).cells
    nodes = [node for cell in cells if cell.cell_type == "code" for node in ast.walk(ast.parse(cell.source))]
    return [
        ast.unparse(node) for node in nodes if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == target
    ]


@pytest.mark.parametrize("generated", ["source", "target", ""])
def test_ones_own_text_is_generated_if_one_of_both_is(tmp_path, generated):
    (tmp_path / "own.csv").write_text("text,label\na,1\nb,0\n")
    both = [
        load_source("miniature:books" if role == generated else tmp_path / "own.csv") for role in ("source", "target")
    ]
    (line,) = statements("30_your_own_text", "generated")
    for corpora, expected in ((Corpora(*both, True), generated != ""), (Corpora(both[0]), generated == "source")):
        found = {"corpora": corpora}
        exec(line, found)
        assert found["generated"] is expected


@pytest.mark.parametrize("generated", ["corpora", "joined", "short_source", ""])
def test_the_notebook_on_performance_asks_all_its_corpora(tmp_path, generated):
    (tmp_path / "own.csv").write_text("text,label\na,1\nb,0\n")
    (line,) = statements("20_performance", "generated")
    read = {
        name: load_source("miniature:books" if name == generated else tmp_path / "own.csv")
        for name in ("corpora", "joined", "short_source")
    }
    found = {"corpora": [read["corpora"]], "joined": [read["joined"]], "short_source": read["short_source"]}
    exec(line, found)
    assert found["generated"] is (generated != "")


@pytest.mark.parametrize("notebook", ["03_figure2_fingerprints", "14_controls"])
def test_random_weights_are_compared_in_the_precision_of_the_trained_ones(notebook):
    loads = [statements(notebook, name) for name in ("language_model", "untrained")]
    assert [len(lines) for lines in loads] == [1, 1]
    assert all("dtype=dtype" in line for (line,) in loads)


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
