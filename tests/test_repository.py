"""What must hold of the repository's own files: lock, environment, notebooks and their executed copies."""

import json
import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from compare_results import differences
from mutants import MUTANTS
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from processor import rounding
from tsns_workbook.project import plan
from tsns_workbook.run import RECORD

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REFERENCE = ROOT / "outputs/reference"
# of the notebooks that measure time, the tables that hold none
TIMELESS = {"20_performance": {"stopping", "overlap"}, "13_what_predicts_transfer": {"transfers", "scores", "targets"}}
FRESH = sorted(p for p in (ROOT / "outputs/mini").glob("*.results.json") if (REFERENCE / p.name).exists())
COMMITTED = sorted([*REFERENCE.glob("[!.]*.ipynb"), *(ROOT / "outputs/local").glob("[!.]*.ipynb")])


def name_of(path):
    return path.name


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def locked():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_environment_yml_agrees_with_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [Requirement(spec) for spec in environment["dependencies"] if isinstance(spec, str)]
    assert [str(r.specifier) for r in conda if r.name == "python"] == [PROJECT["requires-python"]]
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    (extra,) = re.fullmatch(r"-e \.\[(\w+)\]", pip[0]).groups()
    assert len(pip) == 1 and extra in PROJECT["optional-dependencies"]


def test_the_lock_holds_exact_versions_and_nothing_else():
    assert [line for line in locked() if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_the_lock_satisfies_every_range():
    versions = {canonicalize_name(name): version for name, version in (line.split("==") for line in locked())}
    wanted = [Requirement(r) for r in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]
    wrong = [str(r) for r in wanted if versions.get(canonicalize_name(r.name), "0") not in r.specifier]
    assert wrong == []


def test_importing_the_library_is_quick_and_without_torch():
    code = (
        "import sys, time; start = time.perf_counter(); import tsns_lib; "
        "print(time.perf_counter() - start, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(3)
    ]
    assert min(float(seconds) for seconds, *_ in runs) < 1
    assert runs[0][1:] == ["False", "False"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_source_notebook_is_without_outputs_and_has_its_parameters(path):
    cells = code_cells(path)
    assert [cell.source for cell in cells if cell.outputs or cell.execution_count is not None] == []
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
    metadata = nbformat.read(path, as_version=4).metadata
    assert metadata.kernelspec.name == "python3"
    assert "papermill" not in metadata and "widgets" not in metadata


@pytest.mark.parametrize("profile", sorted(p.name for p in (ROOT / "params").iterdir() if p.is_dir()))
def test_every_parameter_file_is_readable_and_known_to_its_notebook(profile):
    assert [job.profile for job in plan(ROOT, profile)]


def test_every_notebook_of_the_mini_profile_has_an_executed_copy():
    assert {p.stem for p in (ROOT / "params/mini").glob("*.yaml")} == {p.stem for p in REFERENCE.glob("*.ipynb")}


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("*.ipynb")), ids=name_of)
def test_an_executed_copy_is_of_the_present_source(path):
    source = [cell.source for cell in code_cells(ROOT / "notebooks" / path.name)]
    executed = [c.source for c in code_cells(path) if "injected-parameters" not in c.metadata.get("tags", [])]
    assert executed == source


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_committed_copy_is_whole_and_of_no_machine(path):
    cells = [cell for cell in code_cells(path) if cell.source.strip()]
    outputs = [output for cell in cells for output in cell.outputs]
    assert all(cell.execution_count for cell in cells)
    assert not [output for output in outputs if output.output_type == "error"]
    assert re.findall(r'"/(?:home|root|Users|work|tmp|opt|usr)/[^"]*', json.dumps(outputs)) == []


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("*.ipynb")), ids=name_of)
def test_the_record_is_compared_with_a_tolerance_and_not_by_nbval(path):
    records = [cell for cell in code_cells(path) if any(RECORD in o.get("data", {}) for o in cell.outputs)]
    assert len(records) == 1
    assert "nbval-ignore-output" in records[0].metadata.get("tags", [])


@pytest.fixture(scope="module")
def same():
    """How a fresh result is compared: where the processor rounds as the references' did, else by its parts alone."""
    is_theirs = rounding() == (ROOT / "tests/processor.txt").read_text().strip()
    return alike if is_theirs else lambda fresh, committed, where: True


@pytest.mark.parametrize("path", FRESH, ids=name_of)
def test_a_fresh_run_agrees_with_the_committed_results(path, same):
    fresh, committed = (json.loads(p.read_text()) for p in (path, REFERENCE / path.name))
    for record in (fresh, committed):
        del record["versions"], record["seconds"]
        names = TIMELESS.get(record["notebook"], record["tables"])
        record["tables"] = {name: record["tables"][name] for name in names}
    assert differences(fresh, committed, same=same) == []


def alike(fresh, committed, where):
    """Whether two values differ by no more than the last bits of an activation explain.

    They can move a neuron across a bin's edge, and with it a forest, a selection and a small corpus' accuracy: by 2
    points, or by 0.3 for what is below 1, such as a correlation. A verdict may change with them. Another kind of
    processor moves more than that.
    """
    if where.endswith(".verdict"):
        return isinstance(fresh, str) and isinstance(committed, str)
    if isinstance(fresh, int | float) and isinstance(committed, int | float):
        size = max(abs(fresh), abs(committed))
        return math.isclose(fresh, committed, rel_tol=0.05, abs_tol=2 if size > 1 else 0.3)
    return fresh == committed


def test_small_differences_are_allowed_at_any_depth():
    fresh = {"a": [{"accuracy": 70.0, "verdict": "holds"}, {"accuracy": 60.0}], "r": 0.1, "n": 240}
    committed = {"a": [{"accuracy": 71.0, "verdict": "does not hold"}, {"accuracy": 70.0}], "r": 0.5, "n": 200}
    assert differences(fresh, committed, same=alike) == [
        "results.a[1].accuracy: 60.0 before, 70.0 after",
        "results.r: 0.1 before, 0.5 after",
        "results.n: 240 before, 200 after",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS + COMMITTED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_answer_stands_on_the_first_screen_and_what_leads_to_it_is_folded(path):
    cells = nbformat.read(path, as_version=4).cells
    headings = [n for n, cell in enumerate(cells) if cell.source.startswith("## The answer")]
    before = [cell for cell in cells[: headings[0] if headings else 0] if cell.cell_type == "code"]
    parameters = [cell for cell in cells if {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", []))]
    assert parameters and all(cell.metadata["jupyter"]["source_hidden"] for cell in before + parameters)


def test_every_mutant_finds_its_line_once():
    lost = [each.name for each in MUTANTS if (ROOT / each.file).read_text(encoding="utf-8").count(each.line) != 1]
    assert lost == []
