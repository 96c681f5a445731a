"""Nothing that is read can run code: no pickle, no code from a hub, no YAML beyond plain values."""

import ast
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    [*(ROOT / "tsns_lib").rglob("*.py"), *(ROOT / "notebooks").rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb")]
)
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
CALLS = {"eval", "exec", "compile", "__import__", "read_pickle", "unsafe_load", "full_load"}


def trees_of(path):
    if path.suffix == ".py":
        return [ast.parse(path.read_text(encoding="utf-8"))]
    return [ast.parse(cell.source) for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def name_of(call):
    """ "torch.load" of torch.load(...), "eval" of eval(...)."""
    return ast.unparse(call.func)


def faults_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"imports {name}" for name in names if name.partition(".")[0] in UNPICKLERS)
        if isinstance(node, ast.Call):
            name, options = name_of(node), {option.arg: option.value for option in node.keywords}
            if name in CALLS or name.rpartition(".")[2] in {"read_pickle", "unsafe_load", "full_load"}:
                yield f"calls {name}"
            if name in {"torch.load", "joblib.load"}:
                yield f"calls {name}, which unpickles"
            if name == "yaml.load" and ast.unparse(options.get("Loader", ast.Constant(None))) != "_Yaml12":
                yield "loads YAML by another loader than the safe one of parameter files"
            if (
                name in {"np.load", "numpy.load"}
                and ast.unparse(options.get("allow_pickle", ast.Constant(None))) != "False"
            ):
                yield "np.load without allow_pickle=False"
            for option in ("allow_pickle", "trust_remote_code", "shell"):
                if option in options and ast.unparse(options[option]) != "False":
                    yield f"{option} is not False"
            if name.endswith((".from_pretrained", ".from_config")) and not {"trust_remote_code", None} & set(options):
                yield f"{name} does not say trust_remote_code=False"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_path_runs_what_it_reads(path):
    assert [fault for tree in trees_of(path) for fault in faults_of(tree)] == []


def test_the_loader_of_parameters_is_a_safe_one():
    import yaml
    from tsns_workbook.project import ProjectError, _read_yaml, _Yaml12

    assert issubclass(_Yaml12, yaml.SafeLoader)
    with pytest.raises(ProjectError):
        _read_yaml("x: !!python/object/apply:os.getcwd []", "params/mini/01.yaml")


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import pickle", "imports pickle"),
        ("torch.load(path)", "calls torch.load, which unpickles"),
        ("np.load(path)", "np.load without allow_pickle=False"),
        ("yaml.load(text)", "loads YAML by another loader than the safe one of parameter files"),
        ("AutoModel.from_pretrained(name)", "AutoModel.from_pretrained does not say trust_remote_code=False"),
        ("f(trust_remote_code=True)", "trust_remote_code is not False"),
        ("eval(text)", "calls eval"),
    ],
)
def test_what_would_run_code_is_found(code, fault):
    assert list(faults_of(ast.parse(code))) == [fault]
