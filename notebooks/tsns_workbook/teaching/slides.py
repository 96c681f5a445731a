"""Make slides of the lessons: python -m tsns_workbook.teaching.slides [FOLDER].

A slide is a section of a lesson: its heading, the questions that it asks, and then its answers and pictures. So slides
and lessons cannot drift. They need no network, and the arrow keys turn them.
"""

import re

import nbformat
from nbformat import NotebookNode

from tsns_workbook.project import project_root
from tsns_workbook.teaching.build import SOLUTION
from tsns_workbook.teaching.site import EXTENSIONS, SETTINGS, cells_to_read, fresh, make

HEADING = re.compile(r"^#+ .*$", flags=re.MULTILINE)
ANSWER = re.compile(r"\s*<details>.*?</details>\s*", flags=re.DOTALL)
LOOKS = {
    "extensions": [*EXTENSIONS, "sphinx_revealjs"],
    "revealjs_style_theme": "white",
    "revealjs_script_conf": {"slideNumber": True, "hash": True, "width": 1100},
    "include_patterns": ["*"],
    "exclude_patterns": [],
    "nb_mime_priority_overrides": [
        ("revealjs", "image/png", 1),
        ("revealjs", "text/html", 2),
        ("revealjs", "text/plain", 3),
    ],
}


def lesson_slides(solution: NotebookNode) -> NotebookNode:
    """The cells of a lesson as slides: headings, questions, answers and pictures; the other code runs unseen."""
    cells, follows = [], False
    for cell, tags in cells_to_read(solution):
        if cell.cell_type == "markdown":
            cell.source = slide_text(cell.source)
        else:
            if follows:  # the answer is the next slide
                cells.append(nbformat.v4.new_markdown_cell("### Answer", id=f"{cell.id}-answer"))
            elif "mystnb" in cell.metadata and cells[-1].cell_type == "code":  # one picture a slide
                cells.append(nbformat.v4.new_markdown_cell("### In a picture", id=f"{cell.id}-picture"))
            shown = follows or "mystnb" in cell.metadata  # what a guess is compared with, or a picture
            cell.metadata["tags"], follows = ["remove-input" if shown else "remove-cell"], SOLUTION in tags
        if cell.source:
            cells.append(cell)
    return nbformat.from_dict({**solution, "cells": cells})


def slide_text(text: str) -> str:
    r"""Keep the heading of a cell, its formulas, and the paragraphs that ask something, without the answers of a quiz.

    Examples
    --------
    >>> print(slide_text("## By hand\nThe recipe is this.\n\nThree sources, and L = 200. How high is the water?"))
    ## By hand
    <BLANKLINE>
    Three sources, and L = 200. How high is the water?
    """
    heading = HEADING.match(text)
    paragraphs = ANSWER.sub("\n\n", HEADING.sub("", text)).split("\n\n")
    kept = [part.strip() for part in paragraphs if ("?" in part and not part.strip().startswith("**")) or "$$" in part]
    return "\n\n".join([*([heading[0]] if heading else []), *kept])


def main() -> None:
    """Build the slides of every lesson, and a page that lists them."""
    folder, source = fresh("slides")
    source.mkdir(parents=True)
    lessons = sorted((project_root() / "notebooks/lessons/solutions").glob("*.ipynb"))
    for path in lessons:
        nbformat.write(lesson_slides(nbformat.read(path, as_version=4)), source / path.name)
    contents = ["# The lessons", *(f"* [{path.stem.replace('_', ' ')}]({path.name})" for path in lessons)]
    hidden = ["```{toctree}", ":hidden:", *(path.stem for path in lessons), "```"]
    (source / "index.md").write_text("\n".join([*contents, "", *hidden, ""]), encoding="utf-8")
    make(source, folder, "revealjs", SETTINGS | LOOKS)


if __name__ == "__main__":
    main()
