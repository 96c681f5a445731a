"""Make the student's copy of every lesson: python -m tsns_workbook.teaching.build.

The source of a lesson is the copy with the answers, in `notebooks/lessons/solutions`. The student's copy, beside that
folder, is the same notebook without what only a teacher needs: a cell tagged `teacher` is left out, and in a cell
tagged `solution` the answer becomes three dots.
"""

import ast
from itertools import takewhile
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tsns_workbook.project import project_root

TEACHER, SOLUTION = "teacher", "solution"


def without_answer(source: str) -> str:
    r"""Keep the comments that open a solution and the name it gives its answer, which the student finds.

    Examples
    --------
    >>> print(without_answer("# the level, in rows\nlargest = 120\nlevel = largest // 3"))
    # the level, in rows
    level = ...
    """
    last = ast.parse(source).body[-1]
    if not (isinstance(last, ast.Assign) and isinstance(last.targets[0], ast.Name)):
        raise ValueError(f"a solution must end with its answer, name = value: {source!r}")
    comments = takewhile(lambda line: line.startswith("#"), source.splitlines())
    return "\n".join([*comments, f"{last.targets[0].id} = ..."])


def student_copy(solution: NotebookNode) -> NotebookNode:
    """The lesson as a student gets it."""
    cells = []
    for cell in solution.cells:
        tags = cell.metadata.get("tags", [])
        if TEACHER in tags:
            continue
        cell = cell.copy()
        if SOLUTION in tags:
            try:
                cell.source = without_answer(cell.source)
            except (ValueError, SyntaxError, IndexError) as error:
                raise ValueError(f"cell {cell.id}: {error}") from None
        cells.append(cell)
    return nbformat.from_dict({**solution, "cells": cells})


def student_copies(lessons: Path) -> dict[Path, str]:
    """The text of the student's copy of every lesson, by the path where it belongs."""
    copies = {}
    for path in sorted((lessons / "solutions").glob("*.ipynb")):
        try:
            copy = student_copy(nbformat.read(path, as_version=4))
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from None
        copies[lessons / path.name] = nbformat.writes(copy) + "\n"
    return copies


def main() -> None:
    """Write the student's copies, and remove those that no longer have a source."""
    lessons = project_root() / "notebooks" / "lessons"
    copies = student_copies(lessons)
    for stale in set(lessons.glob("*.ipynb")) - set(copies):
        stale.unlink()
    for path, text in copies.items():
        path.write_text(text, encoding="utf-8")
    print(f"{len(copies)} lessons in {lessons}")


if __name__ == "__main__":
    main()
