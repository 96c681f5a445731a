"""A project of tiny notebooks, for the tests of the command `tsns`."""

from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest


@dataclass(frozen=True)
class TinyProject:
    """A folder with notebooks/ and params/; `project / "name"` is a path in it."""

    root: Path

    def __truediv__(self, name):
        return self.root / name

    def write(self, name, *cells, parameters="runs = 1  # how often\nwhere = ''", yaml="runs: 2\n"):
        """Write a notebook of these cells, and its parameter file unless `yaml` is None."""
        first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}, id="parameters")
        rest = [nbformat.v4.new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(cells)]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        notebook = nbformat.v4.new_notebook(cells=[first, *rest], metadata=kernel)
        nbformat.write(notebook, self / f"notebooks/{name}.ipynb")
        if yaml is not None:
            (self / f"params/mini/{name}.yaml").write_text(yaml)

    def text(self, name, profile="mini"):
        """Everything that the executed notebook printed."""
        notebook = nbformat.read(self / f"outputs/{profile}/{name}.ipynb", as_version=4)
        return "".join(o.get("text", "") for c in notebook.cells if c.cell_type == "code" for o in c.outputs)


@pytest.fixture
def project(tmp_path, monkeypatch):
    for folder in ("notebooks", "params/mini", "params/paper"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setenv("TSNS_ROOT", str(tmp_path))
    monkeypatch.delenv("TSNS_DATA", raising=False)
    return TinyProject(tmp_path)
