"""Limits that keep the library thin, and the documentation that every public name has."""

import inspect
import re
from pathlib import Path

import pytest

import tsns_lib

ROOT = Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "tsns_lib").rglob("*.py"))
WORKBOOK = sorted((ROOT / "notebooks/tsns_workbook").rglob("*.py"))
PUBLIC = [name for name in tsns_lib.__all__ if name != "__version__"]


def n_lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_library_is_thin():
    # 6,000 for the method, the rest for one's own text and for refusing what is wrong
    assert sum(map(n_lines, LIBRARY)) <= 7120
    assert len(LIBRARY) <= 40
    assert len([path for path in LIBRARY if path.parent.name == "tsns_lib"]) <= 17


def test_no_module_is_long():
    assert {path.name: n_lines(path) for path in LIBRARY + WORKBOOK if n_lines(path) > 480} == {}


def sections_of(docstring):
    """The sections of a numpydoc docstring by name."""
    pieces = re.split(r"^([A-Z][A-Za-z ]+)\n-{3,}$", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_documented(name):
    thing = getattr(tsns_lib, name)
    sections = sections_of(thing.__doc__)
    listed = re.findall(r"^(\w[\w, *]*?)(?: : .*)?$", sections.get("Parameters", ""), flags=re.MULTILINE)
    documented = {word.strip(" *") for line in listed for word in line.split(",")}
    assert set(inspect.signature(thing).parameters) - documented == set()
    assert inspect.isclass(thing) or "Returns" in sections
    assert ">>> " in sections["Examples"]
