"""Build pages to read, without a network: python -m tsns_workbook.teaching.site [FOLDER].

A copy of what is to be read is laid out as in the repository, so that relative links hold, and Sphinx makes it into
pages with search, formulas and pictures. The lessons are executed on the way; the notebooks of `outputs/local` are
shown as they were executed. No page asks for anything from the network.

With REPOSITORY, the public address of this repository, every page links to its source there and, where it is a
notebook, to Binder and Colab, which run it in a browser. Binder installs `environment.yml`; Colab needs the package
installed in its first cell.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
from nbformat import NotebookNode

import tsns_lib
from tsns_workbook.project import project_root
from tsns_workbook.teaching.build import SOLUTION, TEACHER

WIDGET = "widget"  # tag of a cell whose widget needs a kernel; the picture beside it stays
FRONT = "outputs/local/00_scoreboard.ipynb"
GUIDES = ["README.md", "CLUSTER.md", "CONTRIBUTING.md", "CHANGELOG.md"]
FILES = [*GUIDES, "LICENSE", "CITATION.cff", "pyproject.toml", "requirements.lock"]
EXTENSIONS = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx-mathjax-offline"]
SETTINGS: dict[str, Any] = {
    "project": "TSNS workbook",
    "extensions": EXTENSIONS,
    "root_doc": "index",
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {
        "show_toc_level": 2,
        "use_download_button": False,
        "use_fullscreen_button": False,
        "navbar_persistent": [],  # the search is in the sidebar
    },
    "html_title": "TSNS workbook",
    "html_show_sourcelink": False,
    "html_show_search_summary": False,  # a page that is read from a file may not read others
    "html_context": {"default_mode": "auto"},
    "include_patterns": ["index.ipynb", "api.md", *GUIDES, "notebooks/lessons/*", "outputs/local/*.ipynb"],
    "exclude_patterns": [FRONT],
    "myst_enable_extensions": ["dollarmath"],
    "myst_heading_anchors": 4,
    "myst_dmath_double_inline": True,
    "nb_execution_mode": "cache",
    "nb_execution_excludepatterns": ["index.ipynb", "outputs/local/*"],
    "nb_execution_timeout": 600,
    "nb_execution_raise_on_error": True,
    "nb_code_prompt_show": "One answer",
    "nb_ipywidgets_js": {},  # it would be fetched from the network
    "autodoc_typehints": "none",
    "suppress_warnings": ["mystnb.unknown_mime_type", "myst.xref_missing"],  # links are checked below, all of them
}


def public_links(repository: str) -> dict[str, Any]:
    """Options of the theme that link each page to its source in a public repository, to Binder and to Colab."""
    launch = {"binderhub_url": "https://mybinder.org", "colab_url": "https://colab.research.google.com"}
    source = {"repository_url": repository, "repository_branch": "main", "use_source_button": True}
    return source | {"use_repository_button": True, "launch_buttons": launch} if repository else {}


def cells_to_read(solution: NotebookNode) -> Iterator[tuple[NotebookNode, set[str]]]:
    """Copy the cells, with their tags, that are read without a kernel: neither widgets nor teacher's notes."""
    for cell in solution.cells:
        tags = set(cell.metadata.get("tags", []))
        if not tags & {TEACHER, WIDGET}:
            yield nbformat.from_dict(cell), tags


def lesson_page(solution: NotebookNode) -> NotebookNode:
    """The copy with answers as it is read without a kernel, with the answers folded."""
    cells, follows = [], False
    for cell, tags in cells_to_read(solution):
        if cell.cell_type == "code":
            fold = {"hide-input"} if SOLUTION in tags else {"hide-output"} if follows else set()
            cell.metadata["tags"], follows = sorted(tags | fold), SOLUTION in tags
        cells.append(cell)
    return nbformat.from_dict({**solution, "cells": cells})


def results_page(executed: NotebookNode) -> NotebookNode:
    """An executed notebook with its code folded, so that question, answer and picture are on the first screen."""
    page = nbformat.from_dict(executed)
    for cell in page.cells:
        if cell.cell_type == "code":
            cell.metadata |= {"tags": [*cell.metadata.get("tags", []), "hide-input"]}
            cell.metadata["mystnb"] = {"code_prompt_show": "The code", "code_prompt_hide": "Hide the code"}
    return page


def lay_out(root: Path, folder: Path) -> None:
    """Copy into an empty folder what is to be read."""
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(root / name, folder / name)
    leave_out = shutil.ignore_patterns("__pycache__", "solutions", ".*")
    for name in ("notebooks", "outputs/local", "params", "tests", "tsns_lib"):
        shutil.copytree(root / name, folder / name, ignore=leave_out)
    lessons = folder / "notebooks/lessons"
    for path in sorted((root / "notebooks/lessons/solutions").glob("*.ipynb")):
        nbformat.write(lesson_page(nbformat.read(path, as_version=4)), lessons / path.name)
    (folder / "api.md").write_text(_reference(), encoding="utf-8")
    for path in (folder / "outputs/local").glob("*.ipynb"):
        nbformat.write(results_page(nbformat.read(path, as_version=4)), path)
    front = nbformat.read(folder / FRONT, as_version=4)
    results = sorted(path.stem for path in (root / "outputs/local").glob("*.ipynb") if path.name != Path(FRONT).name)
    numbered = sorted(path.stem for path in lessons.glob("*.ipynb"))
    chapters = {
        "Lessons": [f"notebooks/lessons/{name}" for name in ("README", *numbered)],
        "Results on real corpora": [f"outputs/local/{name}" for name in results],
        "Guides": [Path(name).stem for name in GUIDES] + ["notebooks/lessons/glossary", "api"],
    }
    contents = "\n\n".join(_contents(caption, pages) for caption, pages in chapters.items())
    front.cells.append(nbformat.v4.new_markdown_cell(contents, id="contents"))
    nbformat.write(front, folder / "index.ipynb")


def problems(site: Path) -> list[str]:
    """Every link that leads nowhere, and everything that a page would fetch from the network."""
    found = []
    for page in sorted(set(site.rglob("*.html")) - set(site.rglob("_static/**/*.html"))):
        parser = _Links()
        parser.feed(page.read_text(encoding="utf-8"))
        for kind, link in parser.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if kind == "fetched" and parts.scheme != "data":
                    found.append(f"{page.relative_to(site)} fetches {link}")
            elif parts.path and not (page.parent / unquote(parts.path)).exists():
                found.append(f"{page.relative_to(site)}: no {link}")
    return found


class _Links(HTMLParser):
    """Collect what a page fetches by itself, and what it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Keep the address of one element."""
        values = dict(attributes)
        if tag == "a" and values.get("href"):
            self.links.append(("linked", str(values["href"])))
        elif tag == "link" and values.get("href") and values.get("rel") in ("stylesheet", "preload", "icon"):
            self.links.append(("fetched", str(values["href"])))
        elif tag in ("script", "img", "iframe", "source") and values.get("src"):
            self.links.append(("fetched", str(values["src"])))


def _contents(caption: str, pages: list[str]) -> str:
    return "\n".join([f"```{{toctree}}\n:caption: {caption}\n:hidden:", *pages, "```"])


def _reference() -> str:
    names = [name for name in tsns_lib.__all__ if name != "__version__"]
    entries = []
    for name in names:
        thing = getattr(tsns_lib, name)
        kind = "autoclass" if isinstance(thing, type) else "autofunction"
        members = "\n   :members: fit\n" if isinstance(thing, type) else ""
        entries.append(f"```{{eval-rst}}\n.. {kind}:: {thing.__module__}.{name}{members}\n```")
    return "\n\n".join(["# Reference of `tsns_lib`", *entries]) + "\n"


def _escape_bars(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Let a |Y| of the text stand as it is: to Sphinx, bars outside of code ask for a substitution."""
    lines[:] = [line if ">>>" in line or "``" in line else line.replace("|", "\\|") for line in lines]


def fresh(default: str) -> tuple[Path, Path]:
    """The folder to build into, from the command line or in `build`, and one for its sources; neither exists now."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else project_root() / "build" / default).resolve()
    source = folder.with_name(folder.name + "-source")
    for old in (folder, source):
        shutil.rmtree(old, ignore_errors=True)
    return folder, source


def make(source: Path, folder: Path, builder: str, settings: dict[str, Any]) -> None:
    """Build and check the pages; end the program with 1 if a link is broken or a page would ask the network."""
    try:
        from sphinx.application import Sphinx
    except ImportError:
        raise SystemExit("pages and slides need the extra 'site': pip install -e '.[site]'") from None
    os.environ["TQDM_DISABLE"] = "1"
    executed = {"nb_execution_cache_path": str(folder.with_name("executed-lessons"))}  # of pages and slides alike
    trees = folder.with_name(folder.name + "-trees")
    app = Sphinx(source, None, folder, trees, builder, settings | executed, status=None, freshenv=True)
    app.connect("autodoc-process-docstring", _escape_bars)
    app.build()
    found = problems(folder)
    print(*found, f"{len(found)} problems; the front page is {folder / 'index.html'}", sep="\n")
    raise SystemExit(bool(found or app.statuscode))


def main() -> None:
    """Build the site."""
    folder, source = fresh("site")
    lay_out(project_root(), source)
    theme = SETTINGS["html_theme_options"] | public_links(os.environ.get("REPOSITORY", ""))
    make(source, folder, "html", SETTINGS | {"html_theme_options": theme})


if __name__ == "__main__":
    main()
