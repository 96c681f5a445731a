"""What guesses and checks have in common: whether something was answered, and how a number is written."""

from typing import Any


def unanswered(answer: Any) -> bool:
    """Whether the three dots still stand where the answer belongs, alone or in a list of answers."""
    if isinstance(answer, dict):
        answer = list(answer.values())
    return answer is ... or (isinstance(answer, list | tuple) and any(item is ... for item in answer))


def number(value: float) -> str:
    """Write a number with four digits that count, and a large one with all before its point.

    Examples
    --------
    >>> number(72.2512), number(2304), number(0.00043391)
    ('72.25', '2,304', '0.0004339')
    """
    return f"{value:.4g}" if abs(value) < 1_000 else f"{value:,.0f}"
