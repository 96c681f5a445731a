"""Predict, then reveal: set a reader's guess beside the value that the lesson has computed."""

from typing import Any, NamedTuple

from tsns_workbook.teaching.words import number, unanswered


class Reveal(NamedTuple):
    """A guess, the computed value, and how far apart they are in words; the last is what a notebook shows.

    Without a guess, `answer` is still there, but the words keep it back.
    """

    guess: float | None
    answer: float
    words: str

    def __repr__(self) -> str:
        return self.words


def reveal(guess: Any, answer: float, unit: str = "") -> Reveal:
    """Compare a guess with the computed answer.

    Examples
    --------
    >>> reveal(60, 72.25, "%")
    Your guess: 60 %. Computed: 72.25 %. You were 12.25 too low.
    >>> reveal(..., 72.25, "%")
    No guess yet: write a number in the place of the three dots above, run that cell, and then this one.
    """
    answer = float(answer)
    if unanswered(guess):
        blank = "No guess yet: write a number in the place of the three dots above, run that cell, and then this one."
        return Reveal(None, answer, blank)
    try:
        guessed = float(guess)
    except (TypeError, ValueError):
        return Reveal(None, answer, f"A guess is one number; this is {str(guess)[:40]!r}.")
    said, found = (f"{number(value)} {unit}".strip() for value in (guessed, answer))
    return Reveal(guessed, answer, f"Your guess: {said}. Computed: {found}. {_difference(guessed, answer)}")


def _difference(guess: float, answer: float) -> str:
    if number(guess) == number(answer):
        return "Exactly."
    return f"You were {number(abs(guess - answer))} too {'high' if guess > answer else 'low'}."
