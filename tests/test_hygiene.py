"""A notebook explains and the packages compute: what a notebook must contain, and what its outputs must not."""

import ast
import html
import re
from pathlib import Path

import nbformat
import papermill
import pytest

from tsns_lib import load_source
from tsns_lib.corpora.registry import REGISTRY

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXECUTED = sorted([*(ROOT / "outputs/reference").glob("*.ipynb"), *(ROOT / "outputs/local").glob("*.ipynb")])
PATH = re.compile(r"[/~].*|\.\.?/.*|[\w.-]+(/[\w.-]+)+/?|.*\\.*|[A-Za-z]:.*[/\\].*")
RUN = 6  # words in a row that make a quotation
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells_of(path, kind="code"):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def has(cell, tag):
    return tag in cell.metadata.get("tags", [])


def nodes_of(path, *types):
    return [node for cell in cells_of(path) for node in ast.walk(ast.parse(cell.source)) if isinstance(node, types)]


# what every notebook contains


@every_notebook
def test_it_opens_with_a_title_and_a_claim_and_then_its_parameters(path):
    title, parameters = nbformat.read(path, as_version=4).cells[:2]
    assert title.cell_type == "markdown" and re.match(r"# \S.*\n\n\*\*", title.source)
    assert has(parameters, "parameters")


@every_notebook
def test_each_parameter_is_annotated_and_commented(path):
    (cell,) = [cell for cell in cells_of(path) if has(cell, "parameters")]
    statements = ast.parse(cell.source).body
    shown = papermill.inspect_notebook(path)  # as papermill --help-notebook shows them
    assert list(shown) == [ast.unparse(s.target) for s in statements if isinstance(s, ast.AnnAssign) and s.value]
    assert len(shown) == len(statements)
    assert [name for name, facts in shown.items() if not facts["help"] or facts["inferred_type_name"] == "None"] == []


@every_notebook
def test_versions_and_profile_are_printed_first(path):
    versions = cells_of(path)[1]
    assert "profile" in versions.source and "version(" in versions.source and "python_version()" in versions.source
    assert has(versions, "nbval-ignore-output")


@every_notebook
def test_the_method_is_explained_with_a_formula_before_the_verdict(path):
    texts = [cell.source for cell in cells_of(path, "markdown")]
    (verdict,) = [place for place, text in enumerate(texts) if text.startswith("## Verdict")]
    assert any(re.search(r"\$[^$]*[=<>\\][^$]*\$", text) for text in texts[:verdict])


@every_notebook
def test_it_ends_with_a_verdict_and_a_record_of_its_own_name(path):
    assert any(cell.source.startswith("## Verdict") for cell in cells_of(path, "markdown"))
    record = cells_of(path)[-1]
    assert f'report.record(\n    "{path.stem}",' in record.source and has(record, "nbval-ignore-output")


# no logic and no paths


@every_notebook
def test_no_statement_is_longer_than_five_lines_of_logic(path):
    logic = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.With, ast.Try, ast.Lambda)
    assert [ast.unparse(node) for node in nodes_of(path, *logic) if node.end_lineno - node.lineno >= 5] == []


@every_notebook
def test_cells_are_short(path):
    assert [
        cell.source for cell in cells_of(path) if len(cell.source.splitlines()) > 15 and not has(cell, "parameters")
    ] == []


@every_notebook
def test_no_path_is_written_and_no_file_opened(path):
    texts = [node.value for node in nodes_of(path, ast.Constant) if isinstance(node.value, str)]
    assert [text for text in texts if PATH.fullmatch(text.strip())] == []
    assert {node.id for node in nodes_of(path, ast.Name)} & {"open", "Path", "os"} == set()


@pytest.mark.parametrize("text", ["outputs/mini", "../x", "./x", "/tmp", "~/x", "C:\\x", "a/b.csv"])
def test_a_path_is_recognised(text):
    assert PATH.fullmatch(text)


@pytest.mark.parametrize("text", ["builtin:minilm", "E(q) / spread", "miniature:books", "ours and/or paper's"])
def test_other_text_is_no_path(text):
    assert not PATH.fullmatch(text)


# no sentence of a corpus


def words_of(text):
    return re.findall(r"\w+", text.lower())


def runs_of_words(path):
    """Every six words in a row that the outputs of an executed notebook show."""
    texts = []
    for cell in cells_of(path):
        for output in cell.outputs:
            shown = [
                output.get("text", ""),
                *(v for k, v in output.get("data", {}).items() if not k.startswith("image/p")),
            ]
            texts += [re.sub(r"<[^>]+>", " ", html.unescape(str(text))) for text in shown]
    return {run for text in texts for run in zip(*(words_of(text)[n:] for n in range(RUN)), strict=False)}


def quotations(source, shown):
    """Sentences of a source whose first six words are shown."""
    texts = [*source.frame["text"], *source.frame["text_pair"].dropna()]
    openings = {tuple(words_of(sentence)[:RUN]) for text in texts for sentence in re.split(r"[.!?\n]+", text)}
    return openings & shown


@pytest.fixture(scope="module")
def shown():
    return set().union(*map(runs_of_words, EXECUTED)) if EXECUTED else set()


@pytest.mark.parametrize("name", REGISTRY)
def test_no_output_quotes_a_generated_corpus(shown, name):
    assert quotations(load_source(f"miniature:{name}"), shown) == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", REGISTRY)
def test_no_output_quotes_a_real_corpus(real_data, shown, name):
    assert quotations(load_source(name, data_dir=real_data), shown) == set()


def test_a_quotation_is_found(tmp_path):
    books = load_source("miniature:books", limit=3)
    cell = nbformat.v4.new_code_cell(
        "x", outputs=[nbformat.v4.new_output("stream", text=f"row 1: {books.frame['text'][1]}")]
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "quotes.ipynb")
    quoted = quotations(books, runs_of_words(tmp_path / "quotes.ipynb"))
    words = words_of(books.frame["text"][1])
    assert quoted and quoted <= set(zip(*(words[n:] for n in range(RUN)), strict=False))
