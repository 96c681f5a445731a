"""The direction of imports, drawn from the source of both packages: every `import`, also inside functions."""

import ast
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"tsns_lib": ROOT / "tsns_lib", "tsns_workbook": ROOT / "notebooks/tsns_workbook"}

# A module of tsns_lib imports only what stands before it, and METHOD and DATA know nothing of each other.
BASE = ("validation", "store", "executors")
METHOD = ("sampling", "ranking", "stability", "forest", "importance", "aggregation", "classifier", "selectors")
DATA = ("loaded", "encoders", "extraction")
TOP = ("fingerprints", "transfer", "transferability")
ALLOWED = {module: BASE[:n] for n, module in enumerate(BASE)}
ALLOWED |= {module: BASE + METHOD[:n] for n, module in enumerate(METHOD)}
ALLOWED |= {module: BASE + DATA[:n] for n, module in enumerate(DATA)}
ALLOWED |= {module: BASE + METHOD + DATA + TOP[:n] for n, module in enumerate(TOP)}
ALLOWED |= {"corpora": ("validation",), "model": BASE + METHOD + DATA + TOP + ("corpora",), "__init__": ()}

# In tsns_workbook, these serve all topics and import none of them.
COMMON = ("paper", "families", "cards", "project", "statistics", "plots", "report", "dyads")
RUNNER = ("project", "receipts", "run", "get", "cli")

USES_TORCH = {
    *("tsns_lib.encoders", "tsns_lib.extraction", "tsns_lib.loaded"),
    *("tsns_lib.transferability.reinitialization", "tsns_lib.transferability.text_embedding"),
    *("tsns_workbook.embeddings", "tsns_workbook.benchmarks", "tsns_workbook.forecast"),
    *(f"tsns_workbook.finetuning.{path.stem}" for path in SOURCES["tsns_workbook"].glob("finetuning/*.py")),
}
HEAVY = ("torch", "transformers", "accelerate")


@dataclass(frozen=True)
class Arrow:
    """One import: `eager` where it runs when the module is imported."""

    start: str
    end: str
    eager: bool


def modules_of(package):
    """Module names with their trees: tsns_lib.corpora.sources, and tsns_lib.corpora for its __init__.py."""
    folder = SOURCES[package]
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        yield ".".join((package, *parts)).removesuffix(".__init__"), ast.parse(path.read_text(encoding="utf-8"))


MODULES = {name: tree for package in SOURCES for name, tree in modules_of(package)}


def arrows_of(start, node, eager=True):
    """Every import below a node; those in functions and under TYPE_CHECKING do not run at once."""
    for child in ast.iter_child_nodes(node):
        lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        lazy |= isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        if isinstance(child, ast.Import):
            yield from (Arrow(start, alias.name, eager) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{start} imports by a relative name: write the whole one"
            for alias in child.names:  # "from tsns_lib.corpora import readers" names a module
                module = f"{child.module}.{alias.name}"
                yield Arrow(start, module if module in MODULES else str(child.module), eager)
        yield from arrows_of(start, child, eager and not lazy)


ARROWS = sorted({arrow for name, tree in MODULES.items() for arrow in arrows_of(name, tree)}, key=str)


def room(module):
    """The first part below the package: "corpora" for tsns_lib.corpora.sources."""
    return [*module.split("."), "__init__"][1]


def inside(package):
    return [a for a in ARROWS if a.start.split(".")[0] == package and a.end.split(".")[0] == package]


def shown(arrows):
    return [f"{arrow.start} imports {arrow.end}" for arrow in arrows]


def test_the_library_knows_nothing_of_the_workbook():
    assert shown(a for a in ARROWS if a.start.startswith("tsns_lib") and a.end.startswith("tsns_workbook")) == []


def test_every_module_of_the_library_has_its_place():
    assert {room(name) for name in MODULES if name.startswith("tsns_lib")} == set(ALLOWED)


def test_the_library_imports_in_one_direction():
    across = [a for a in inside("tsns_lib") if room(a.start) != room(a.end)]
    assert shown(a for a in across if room(a.end) not in ALLOWED[room(a.start)]) == []


def test_what_all_topics_share_imports_no_topic():
    own = COMMON + RUNNER[:-1]  # the last is the command itself, whose words may start a topic
    assert shown(a for a in inside("tsns_workbook") if room(a.start) in own and room(a.end) not in own) == []


def test_no_topic_imports_the_runner():
    targets = ("tsns_workbook.run", "tsns_workbook.cli")
    assert shown(a for a in inside("tsns_workbook") if a.end in targets and room(a.start) not in RUNNER) == []


@pytest.mark.parametrize("package", SOURCES)
def test_there_is_no_circle(package):
    graph = {name: {a.end for a in inside(package) if a.start == name and a.end != name} for name in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)  # raises CycleError for a circle


def test_only_some_modules_import_torch():
    assert {a.start for a in ARROWS if a.end.split(".")[0] in HEAVY} <= USES_TORCH


def test_importing_a_module_imports_torch_only_for_what_trains():
    eager = {a.start for a in ARROWS if a.eager and a.end.split(".")[0] in HEAVY}
    while added := {a.start for a in ARROWS if a.eager and a.end in eager} - eager:
        eager |= added
    assert {name for name in eager if not name.startswith("tsns_workbook.finetuning.")} == set()


def test_a_computed_name_hides_no_arrow():
    calls = {
        (name, ast.unparse(node.func))
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__")
    }
    # the public names of the library; the functions that notebook 02 prints
    assert calls <= {("tsns_lib", "import_module"), ("tsns_workbook.figure1", "import_module")}


def test_arrows_are_found_wherever_they_stand():
    text = """
import a.b
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import c
class K:
    from d import e
    def f(self):
        if self:
            from tsns_lib import store, SingleTSNS
"""
    arrows = [(arrow.end, arrow.eager) for arrow in arrows_of("x", ast.parse(text))]
    lazily = [("tsns_lib.store", False), ("tsns_lib", False)]
    assert arrows == [("a.b", True), ("typing", True), ("c", False), ("d", True), *lazily]
