"""The lessons: the copies are those of the build, the checks know right from wrong, and every cell runs."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from tsns_workbook.teaching import check
from tsns_workbook.teaching.build import SOLUTION, student_copies, student_copy, without_answer
from tsns_workbook.teaching.guess import reveal
from tsns_workbook.teaching.site import lesson_page, problems, public_links, results_page
from tsns_workbook.teaching.slides import lesson_slides

LESSONS = Path(__file__).parents[2] / "notebooks/lessons"
SOLUTIONS = sorted((LESSONS / "solutions").glob("*.ipynb"))
every_lesson = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
OWN = pd.DataFrame({"text": ["a good day"] * 5 + ["a bad day"] * 5, "label": [1] * 5 + [0] * 5})

# exercise: the right answer, and wrong ones that a student may give
ANSWERS = {
    1: (1156, [1540, 1157, 27, 5]),
    2: (0.2133, [0.2667, 0.2578, 0.48, 0.1]),
    3: (1 / 3, [1, 0.2, 2 / 3, 0.9]),
    4: (1.0616e-04, [0.999894, 1.2234e-04, 1.8022e-06, 0.5]),
    5: (1.0690, [-0.4629, 0.2868, 2, 0.9258, 5]),
    6: (
        [4.0, 4.125, 4.625, 3.75],
        [[4.25, 4.125, 3.625, 4.5], [8.0, 7.5, 5.5, 9.0], [1.05, 0.49, 0.94, 0.52], [1] * 4],
    ),
    7: ([175, 90, 175, 60], [[250, 56.25, 156.25, 37.5], [125] * 4, [125, 90, 125, 60], [180, 90, 170, 60], [1] * 4]),
    8: ([0.25, 0.25, 0.375, 0.125], [[2, 2, 3, 1], [0.4, 0.4, 0.6, 0.2], [0.375, 0.25, 0.25, 0.125], [0.25] * 4]),
    9: (
        ["reproduced", "inconclusive", "contradicted"],
        [
            ["reproduced", "reproduced", "contradicted"],
            ["reproduced", "contradicted", "contradicted"],
            ["reproduced", "inconclusive", "inconclusive"],
            ["yes", "maybe", "no"],
        ],
    ),
    10: (0.14815, [0.2963, 3.375, 0.2222, 1]),
    11: (OWN, [OWN["text"], OWN.rename(columns={"text": "words"}), OWN.assign(label=1), OWN[2:]]),
}
ALL_WRONG = [(number, wrong) for number, (_, answers) in ANSWERS.items() for wrong in answers]


def ask(number, answer):
    return getattr(check, f"exercise_{number}")(answer)


# checks and guesses


@pytest.mark.parametrize("number", ANSWERS)
def test_a_right_answer_passes(number):
    assert ask(number, ANSWERS[number][0]) == (True, "Right.")


@pytest.mark.parametrize("number", ANSWERS)
def test_each_wrong_answer_gets_a_hint_of_its_own(number):
    outcomes = [ask(number, wrong) for wrong in ANSWERS[number][1]]
    assert not any(outcome.right for outcome in outcomes)
    assert len({outcome.words for outcome in outcomes}) == len(outcomes) >= 3


@pytest.mark.parametrize(("number", "wrong"), ALL_WRONG, ids=str)
def test_a_hint_does_not_give_the_answer_away(number, wrong):
    right = np.ravel(np.asarray(ANSWERS[number][0], dtype=object)) if number in (1, 2, 3, 4, 5, 10) else []
    assert not any(f"{value:.4g}" in ask(number, wrong).words for value in right)


@pytest.mark.parametrize("number", ANSWERS)
@pytest.mark.parametrize("answer", [..., [...], (1, ...)], ids=str)
def test_three_dots_are_no_answer(number, answer):
    assert ask(number, answer) == check.NOTHING_YET


@pytest.mark.parametrize("number", [number for number in ANSWERS if number not in (9, 11)])
def test_text_and_the_wrong_length_are_no_answer(number):
    assert "made of numbers" in ask(number, "many").words
    assert "this has 3" in ask(number, [1, 2, 3]).words


def test_a_guess_is_set_beside_the_computed_value():
    assert repr(reveal(60, 72.25, "%")) == "Your guess: 60 %. Computed: 72.25 %. You were 12.25 too low."
    assert repr(reveal(80, 72.25)) == "Your guess: 80. Computed: 72.25. You were 7.75 too high."
    assert repr(reveal(2304, 2304)) == "Your guess: 2,304. Computed: 2,304. Exactly."
    assert repr(reveal("many", 3)) == "A guess is one number; this is 'many'."


def test_nothing_is_revealed_without_a_guess():
    revealed = reveal(..., 72.25, "%")
    assert revealed.answer == 72.25 and "72" not in repr(revealed)


# the two copies


def test_the_committed_students_copies_are_those_of_the_build():
    assert {p.name: p.read_text(encoding="utf-8") for p in LESSONS.glob("*.ipynb")} == {
        path.name: text for path, text in student_copies(LESSONS).items()
    }


def test_an_answer_becomes_three_dots_and_a_teachers_cell_goes():
    new = nbformat.v4
    solution = new.new_notebook(
        cells=[
            new.new_markdown_cell("note", metadata={"tags": ["teacher"]}),
            new.new_code_cell("# in rows\nlargest = 120\nlevel = largest // 3", metadata={"tags": ["solution"]}),
            new.new_code_cell("level"),
        ]
    )
    assert [cell.source for cell in student_copy(solution).cells] == ["# in rows\nlevel = ...", "level"]
    assert solution.cells[1].source.endswith("largest // 3")


@pytest.mark.parametrize("source", ["print(1)", "", "a, b = 1, 2", "x ="])
def test_a_solution_without_an_answer_is_refused(source, tmp_path):
    with pytest.raises((ValueError, SyntaxError, IndexError)):
        without_answer(source)
    (tmp_path / "solutions").mkdir()
    cell = nbformat.v4.new_code_cell(source, id="guess", metadata={"tags": ["solution"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "solutions/02_x.ipynb")
    with pytest.raises(ValueError, match=r"02_x\.ipynb: cell guess: "):
        student_copies(tmp_path)


# what a lesson contains


def cells(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


@every_lesson
def test_a_lesson_has_its_parts(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    number = int(path.stem[:2])
    assert text.startswith(f"# Lesson {number} · ")
    assert all(part in text for part in ("**You will", "**You need", "**Time", "## Exercise", "## Quiz", "glossary.md"))
    quiz = text.split("## Quiz")[1]
    assert quiz.count("<details>") == quiz.count("</details>") == 3
    code = "\n".join(cell.source for cell in cells(path, "code"))
    assert f"check.exercise_{number}(" in code and "reveal(" in code


@every_lesson
def test_a_lesson_is_without_outputs_and_its_cells_are_short(path):
    code = cells(path, "code")
    assert [cell.source for cell in code if cell.outputs or cell.execution_count is not None] == []
    assert [cell.source for cell in code if len(cell.source.splitlines()) > 15] == []


@every_lesson
def test_a_link_of_a_lesson_leads_to_a_file(path):
    for cell in cells(path, "markdown"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", cell.source):
            assert (LESSONS / target).exists(), target


# the site


def test_a_page_folds_answers_and_leaves_out_what_needs_a_kernel_or_a_teacher():
    new, tagged = nbformat.v4, lambda tag: {"tags": [tag]}
    solution = new.new_notebook(
        cells=[
            new.new_markdown_cell("note", metadata=tagged("teacher")),
            new.new_code_cell("guess = 3", metadata=tagged("solution")),
            new.new_code_cell("reveal(guess, 4)"),
            new.new_code_cell("explorer", metadata=tagged("widget")),
            new.new_code_cell("figure"),
        ]
    )
    page = lesson_page(solution)
    assert [cell.source for cell in page.cells] == ["guess = 3", "reveal(guess, 4)", "figure"]
    assert [cell.metadata["tags"] for cell in page.cells] == [["hide-input", "solution"], ["hide-output"], []]
    assert solution.cells[2].metadata == {}


def test_a_page_of_results_folds_its_code():
    new = nbformat.v4
    cells = [new.new_markdown_cell("# Table"), new.new_code_cell("k = 1", metadata={"tags": ["parameters"]})]
    page = results_page(new.new_notebook(cells=[*cells, new.new_code_cell("table")]))
    assert [cell.metadata.get("tags") for cell in page.cells] == [None, ["parameters", "hide-input"], ["hide-input"]]
    assert page.cells[2].metadata["mystnb"]["code_prompt_show"] == "The code"


def test_pages_link_to_a_public_repository_only_if_there_is_one():
    assert public_links("") == {}
    options = public_links("https://example.org/tsns")
    assert options["repository_url"] == "https://example.org/tsns"
    assert sorted(options["launch_buttons"]) == ["binderhub_url", "colab_url"]


def test_a_slide_has_the_heading_the_questions_and_the_pictures():
    new = nbformat.v4
    solution = new.new_notebook(
        cells=[
            new.new_markdown_cell("## By hand\n\nAll is said.\n\nL = 0.5. How high\nis it?\n\n$$x$$"),
            new.new_markdown_cell(
                "1. Why?\n   <details><summary>Answer</summary>\n\n   So.\n   </details>\n\n**Next**?"
            ),
            new.new_markdown_cell("No question."),
            new.new_code_cell("guess = 3", metadata={"tags": ["solution"]}),
            new.new_code_cell("reveal(guess, 4)"),
            new.new_code_cell("figure", metadata={"mystnb": {"image": {"alt": "A picture."}}}),
        ]
    )
    slides = lesson_slides(solution)
    assert [cell.source for cell in slides.cells] == [
        *("## By hand\n\nL = 0.5. How high\nis it?\n\n$$x$$", "1. Why?"),
        *("guess = 3", "### Answer", "reveal(guess, 4)", "### In a picture", "figure"),
    ]
    shown = [cell.metadata["tags"] for cell in slides.cells if cell.cell_type == "code"]
    assert shown == [["remove-cell"], ["remove-input"], ["remove-input"]]


def test_broken_links_and_requests_are_found(tmp_path):
    (tmp_path / "there.html").write_text('<a href="#part">x</a><a href="https://example.org">x</a>')
    links = '<a href="there.html#part">x</a><a href="gone.html">x</a><img src="gone.png">'
    (tmp_path / "page.html").write_text(links + '<script src="https://example.org/x.js"></script>')
    assert problems(tmp_path) == [
        "page.html: no gone.html",
        "page.html: no gone.png",
        "page.html fetches https://example.org/x.js",
    ]


# every cell runs


def both_copies(solution):
    """The code of a lesson, in which the cell after each solution runs twice: with the student's dots, then with it."""
    cells, waiting = [], None
    for cell in (cell for cell in solution.cells if cell.cell_type == "code"):
        if SOLUTION in cell.metadata.get("tags", []):
            waiting = cell
        elif waiting is None:
            cells.append(cell)
        else:
            dots = nbformat.v4.new_code_cell(without_answer(waiting.source))
            cells += [dots, nbformat.v4.new_code_cell(cell.source), waiting, cell]
            waiting = None
    return nbformat.from_dict({**solution, "cells": cells})


@pytest.mark.slow
@every_lesson
def test_every_cell_runs_with_and_without_answers(path):
    lesson = both_copies(nbformat.read(path, as_version=4))
    NotebookClient(lesson, timeout=600, resources={"metadata": {"path": str(LESSONS)}}).execute()
    shown = [output.get("data", {}).get("text/plain", "") for cell in lesson.cells for output in cell.outputs]
    assert "Right." in shown and repr(check.NOTHING_YET) in shown
    assert repr(reveal(..., 0)) in shown and any("Computed: " in words for words in shown)
    assert not [cell.id for cell in lesson.cells for output in cell.outputs if output.get("name") == "stderr"]
