"""Compiled code: kept where nothing else can be written, never an old number of bins, nothing from another file."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tsns_lib import forest

LIBRARY = Path(forest.__file__).parent
BIN = (
    "import numpy as np; from numba import config; from tsns_lib import forest\n"
    "X = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)\n"
    "bins = forest.bin_activations(X, forest.bin_edges(X, 1), n_jobs=1)\n"
    "print(forest.N_BINS, bins.max(), forest.COMPILED['cache'], config.CACHE_DIR)"
)


@pytest.fixture
def copy(tmp_path):
    """The library in a folder of its own, with nothing compiled."""
    shutil.copytree(LIBRARY, tmp_path / "tsns_lib", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(folder, code=BIN, **environment):
    """What a fresh Python says with the library of a folder, and no setting of numba's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    return done.stdout.split() or [done.stderr]


def write_protect(folder):
    for path in [folder / "tsns_lib", *(folder / "tsns_lib").rglob("*/")]:
        (path / "__pycache__").write_text("a file in the place of a folder that may not be written")


NO_HOME = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/none"}


def test_nothing_need_be_writable(copy):
    write_protect(copy)
    (copy / "store").write_text("no folder")
    assert run(copy, TSNS_CACHE=str(copy / "store"), **NO_HOME) == ["64", "63", "False"]


def test_machine_code_is_kept_in_the_store_where_neither_the_package_nor_the_home_can_be_written(copy):
    write_protect(copy)
    store = copy / "store"
    assert run(copy, TSNS_CACHE=str(store), **NO_HOME) == ["64", "63", "True", str(store / "numba")]
    assert list((store / "numba").rglob("*.nbc"))
    assert (store / "numba").stat().st_mode & 0o777 == 0o700


def test_machine_code_in_a_folder_that_others_can_write_is_not_read(copy):
    write_protect(copy)
    (copy / "numba").mkdir()
    (copy / "numba").chmod(0o777)
    code = "from tsns_lib import forest; print(forest.COMPILED['cache'])"
    assert run(copy, code, TSNS_CACHE=str(copy), **NO_HOME) == ["False"]


def test_another_number_of_bins_is_another_compilation(copy):
    assert run(copy)[:3] == ["64", "63", "True"]
    path = copy / "tsns_lib/forest.py"
    path.write_text(path.read_text().replace("N_BINS = 64", "N_BINS = 32"))
    assert run(copy)[:3] == ["32", "31", "True"]


def test_old_machine_code_refuses_another_number_of_bins(monkeypatch):
    X = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    edges = forest.bin_edges(X, 1)
    bins, classes = forest.bin_activations(X, edges, n_jobs=1), (X[:, 0] > 0).astype(np.int64)
    forest.grow_trees(bins, classes, 0, 2, 5, 0, 1)
    few = edges[:, :31].copy()
    monkeypatch.setattr(forest, "N_BINS", 32)  # the compiled code keeps 64
    for use in (
        lambda: forest.bin_edges(X, 1),
        lambda: forest.bin_activations(X, few, n_jobs=1),
        lambda: forest.grow_trees(bins, classes, 0, 2, 5, 0, 1),
    ):
        with pytest.raises(ValueError, match="machine code .* has another number of bins"):
            use()


def test_compiled_functions_read_no_constant_of_another_file():
    """numba looks at the file of a function to see whether it has changed, and at no other."""
    found = {}
    for path in LIBRARY.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            alias.asname or alias.name
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and "njit" in "".join(map(ast.unparse, node.decorator_list)):
                names = {part.id for part in ast.walk(ast.Module(node.body, [])) if isinstance(part, ast.Name)}
                found[node.name] = (path.name, names & imported)
    assert len(found) == 14
    assert {(file, *sorted(names)) for file, names in found.values()} <= {("forest.py",), ("forest.py", "np")}


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_machine_code_that_was_cut_short_is_compiled_again(copy, ending, share):
    whole = run(copy)
    for path in (found := list(copy.rglob(f"forest.*.{ending}"))):
        os.truncate(path, int(path.stat().st_size * share))
    assert len(found) >= 2
    done = run(copy, "import logging; logging.basicConfig(level=40)\n" + BIN)
    assert done == whole == run(copy)
