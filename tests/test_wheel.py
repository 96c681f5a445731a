"""A wheel, installed where there is no repository: what it contains, and that it works."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
TRANSFER = """
import tsns_lib
assert tsns_lib.__file__.startswith(r"{environment}"), tsns_lib.__file__
books, dvd = (tsns_lib.load_source(f"miniature:{{name}}", limit=40) for name in ("books", "dvd"))
settings = dict(neurons=(20,), runs=1, n_resamples=3, n_trees=5, progress=False)
grid = tsns_lib.transfer_grid([books], [dvd], tsns_lib.load_encoder(), **settings)
print(*sorted(set(grid["method"])), grid["accuracy"].between(0, 100).all())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, as setuptools leaves a folder build/ beside the sources."""
    copy = tmp_path_factory.mktemp("repository") / "copy"
    ignored = shutil.ignore_patterns(".*", "outputs", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=ignored)
    words = ["wheel", str(copy), "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(copy / "dist")]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
    (path,) = (copy / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A new environment with the wheel, which finds the packages that it depends on in this one."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # a folder named in a .pth file has its own .pth files ignored, so the editable installation stays invisible
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in sorted(folders)))
    return folder


@pytest.fixture
def run(environment, tmp_path):
    """Run a program of the environment in an empty folder."""
    hidden = ("PYTHONPATH", "TSNS_ROOT", "TSNS_DATA")
    variables = {key: value for key, value in os.environ.items() if key not in hidden}

    def run(program, *words):
        command = [environment / "bin" / program, *words]
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)

    return run


def test_it_contains_both_packages_and_no_notebook_or_test(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"tsns_lib", "tsns_workbook"}
    assert {"tsns_lib/py.typed", "tsns_workbook/py.typed", "tsns_workbook/paper_claims.yaml"} <= set(names)
    assert {Path(name).suffix for name in names if ".dist-info/" not in name} == {".py", ".yaml", ".typed"}
    data = [*(ROOT / "tsns_lib").rglob("*.yaml"), *(ROOT / "notebooks/tsns_workbook").rglob("*.yaml")]
    assert {path.name for path in data} <= {Path(name).name for name in names}


def test_the_command_explains_itself_and_says_that_there_is_no_project(run):
    for words in (["tsns", "--help"], ["python", "-m", "tsns_workbook.cli", "--help"]):
        done = run(*words)
        assert done.returncode == 0 and "execute notebooks" in done.stdout
    done = run("tsns", "run")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("tsns: no project found: ")


def test_a_miniature_transfer_works(run, environment):
    done = run("python", "-c", TRANSFER.format(environment=environment))
    assert done.returncode == 0, done.stderr
    methods = done.stdout.split()
    assert "tsns" in methods and methods[-1] == "True"
