"""Check the answer to a lesson's exercise: say what is wrong with it, never what is right.

The right answer is computed by the library from the same numbers as the lesson shows. Beside it stand the slips that
are easy to make; an answer that equals one of them gets the hint that belongs to it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from tsns_lib.aggregation import aggregate, half_overlap, meta_importance
from tsns_lib.fingerprints import fingerprint
from tsns_lib.sampling import water_fill
from tsns_lib.transferability.variability import hidden_state_variability
from tsns_workbook.report import VERDICTS, verdict
from tsns_workbook.teaching.words import unanswered

CLOSE = 2e-3  # a relative difference that rounding to three digits explains
EPS = 1e-6  # of equation 1

# what the exercises are about; the lessons show these values
LAYERS, HIDDEN = 6, 384  # lesson 1
LEFT, RIGHT = np.array([0, 0, 0, 0, 1, 1]), np.array([1, 1, 1, 1])  # lesson 2: labels on both sides of a cut
FOUR_RESAMPLES = np.array(  # lesson 3: q of six neurons
    [
        [0.07, 0.29, 0.11, 0.12, 0.09, 0.32],
        [0.05, 0.32, 0.27, 0.09, 0.15, 0.12],
        [0.08, 0.27, 0.18, 0.2, 0.16, 0.11],
        [0.09, 0.17, 0.29, 0.18, 0.18, 0.09],
    ]
)
LARGE, STEADY = np.array([0.002, 0.010, 0.004, 0.008]), np.array([0.0024, 0.0026, 0.0025, 0.0025])  # lesson 4
SOURCE_VALUES, TARGET_VALUES = np.array([1.0, 2.0, 3.0, 6.0]), np.array([4.0, 5.0, 9.0])  # lesson 5: one neuron
THREE_LEARNERS = np.array(  # lesson 6: m of four neurons
    [[0.90, 0.04, 0.04, 0.02], [0.05, 0.20, 0.30, 0.45], [0.10, 0.25, 0.60, 0.05]]
)
SIZES, BUDGET = np.array([400, 90, 250, 60]), 500  # lesson 7: rows of four sources, and L
CHOSEN, TOY_LAYERS, TOY_HIDDEN = np.array([0, 4, 5, 9, 10, 11, 12, 19]), 4, 5  # lesson 8
GAINS = ((3.1, 1.2, 5.0), (2.4, -0.6, 5.4), (-1.5, -2.8, -0.2))  # lesson 9: estimate, low, high
STATES, CLASSES = np.array([1.0, 3.0, 5.0, 7.0, 9.0, 11.0]), np.array([0, 0, 0, 1, 1, 1])  # lesson 10


class Outcome(NamedTuple):
    """Whether an answer is right, and what to say; a notebook shows the words."""

    right: bool
    words: str

    def __repr__(self) -> str:
        return self.words


RIGHT_ANSWER = Outcome(True, "Right.")
NOTHING_YET = Outcome(False, "No answer yet: write it in the place of the three dots above, and run both cells.")


def exercise_1(answer: Any) -> Outcome:
    """Lesson 1: the number of unit 5 of layer 4, both counted from 1."""
    slips = [
        (4 * HIDDEN + 4, "One layer too high: how many layers lie below layer 4?"),
        (3 * HIDDEN + 5, "The right layer, one unit too far: what is the number of a layer's first unit?"),
        (4 * HIDDEN + 5, "Both numbers are counted from 1 there, and the neurons from 0."),
        (4 * LAYERS + 3, "That would be right if the layers of one unit stood side by side. Here a layer stays whole."),
    ]
    return _judged(
        answer, 3 * HIDDEN + 4, slips, f"Not this one: divide it by {HIDDEN} to see in which layer it lives."
    )


def exercise_2(answer: Any) -> Outcome:
    """Lesson 2: by how much a cut lowers gini."""
    both = np.concatenate([LEFT, RIGHT])
    before, left, right = _gini(both), _gini(LEFT), _gini(RIGHT)
    after = (len(LEFT) * left + len(RIGHT) * right) / len(both)
    slips = [
        (after, "That is the impurity that is left after the cut. How much went away?"),
        (before - (left + right) / 2, "Both sides count alike there, but one side has more rows."),
        (before - (left + right), "The impurities of the two sides are averaged, not added."),
        (before, "That is the impurity before the cut."),
    ]
    words = "Not yet: gini of all ten rows, less the average of both sides weighted by their rows."
    return _judged(answer, before - after, slips, words)


def exercise_3(answer: Any) -> Outcome:
    """Lesson 3: the share of K = 3 neurons that the even and the odd resamples have in common."""
    q, k = FOUR_RESAMPLES, 3

    def common(a: np.ndarray, b: np.ndarray) -> int:
        first, second = (np.argsort(-half.mean(axis=0))[:k] for half in (a, b))
        return len(np.intersect1d(first, second))

    shared, first_second = common(q[::2], q[1::2]), common(q[:2], q[2:])
    slips = [
        (shared, "That is a number of neurons. Which share of the K is it?"),
        (shared / (2 * k - shared), "That divides by all neurons that either half chose. Divide by K."),
        (first_second / k, "Those halves are the first and the last two resamples. Take every second one."),
    ]
    words = "Not yet: average q over each half, take the three largest of each, and count those in both."
    return _judged(answer, half_overlap([q], k, [1.0]), slips, words)


def exercise_4(answer: Any) -> Outcome:
    """Lesson 4: 1 - α where the large and the steady neuron have the same m."""
    right = _crossing(LARGE.std(), STEADY.std())
    slips = [
        (1 - right, "That is α. The question asks how far below 1 it is."),
        (
            _crossing(LARGE.std(ddof=1), STEADY.std(ddof=1)),
            "Your spread divides by J - 1. Equation 1 takes the deviation over J, as numpy does by default.",
        ),
        (_crossing(LARGE.var(), STEADY.var()), "You divided by the variance. Equation 1 divides by its square root."),
    ]
    words = "Not yet: write m of both neurons as α·E + (1-α)·E/(σ+ε), set them equal, and solve for 1-α."
    return _judged(answer, right, slips, words)


def exercise_5(answer: Any) -> Outcome:
    """Lesson 5: what the classifier sees of the target's value 5."""
    source, target, value = SOURCE_VALUES, TARGET_VALUES, 5.0
    pooled = np.concatenate([source, target])
    slips = [
        ((value - target.mean()) / target.std(), "You scaled by the target's own rows, which nobody may look at."),
        ((value - pooled.mean()) / pooled.std(), "You scaled by both domains together: the target leaks in."),
        (value - source.mean(), "Centred, but not divided by the spread."),
        ((value - source.mean()) / source.std(ddof=1), "Your spread divides by n - 1. StandardScaler divides by n."),
    ]
    words = "Not yet: take away the source's mean, and divide by the source's standard deviation."
    return _judged(answer, (value - source.mean()) / source.std(), slips, words)


def exercise_6(answer: Any) -> Outcome:
    """Lesson 6: h of four neurons from the m of three learners."""
    m, n = THREE_LEARNERS, THREE_LEARNERS.shape[1]
    ranks = rankdata(-m, axis=1)
    strict = rankdata(-m, axis=1, method="ordinal")
    slips = [
        (
            ((2 * n - rankdata(m, axis=1)) / n).sum(axis=0),
            "Your rank 1 is the least important neuron. Turn them round.",
        ),
        (ranks.sum(axis=0), "Those are sums of ranks, so the best neuron has the least. Turn each r into (2N - r)/N."),
        (m.sum(axis=0), "Those are sums of m: a learner with large numbers would have more to say than the others."),
        (
            ((2 * n - strict) / n).sum(axis=0),
            "Two neurons are equally important to one learner: they share their rank.",
        ),
    ]
    words = "Not yet: rank the neurons of each learner, turn each rank r into (2N - r)/N, and add up the learners."
    return _judged(answer, aggregate(meta_importance(m)), slips, words)


def exercise_7(answer: Any) -> Outcome:
    """Lesson 7: the rows that each of four sources gives to a budget of 500."""
    equal = np.full(len(SIZES), BUDGET / len(SIZES))
    slips = [
        (BUDGET * SIZES / SIZES.sum(), "Those are shares in proportion to the sizes. Water does not know them."),
        (
            np.round(BUDGET * SIZES / SIZES.sum()),
            "Those are shares in proportion to the sizes. Water does not know them.",
        ),
        (equal, "The same for all: but then some vessel gives more rows than it has."),
        (np.minimum(SIZES, equal), "No vessel overflows, but rows are left over. Who still has room for them?"),
    ]
    outcome = _judged(answer, water_fill(SIZES, BUDGET), slips, "")
    if outcome.words:
        return outcome
    rows = np.asarray(answer, dtype=float)
    if rows.sum() != BUDGET:
        return Outcome(False, f"These are {rows.sum():,.0f} rows; the budget is {BUDGET}.")
    if (rows > SIZES).any():
        return Outcome(False, "A source gives more rows than it has.")
    return Outcome(False, "The sum is right, but the sources that are not full must all stand at one level.")


def exercise_8(answer: Any) -> Outcome:
    """Lesson 8: the fingerprint of eight neurons in an encoder of four layers of five."""
    right = fingerprint(CHOSEN, TOY_LAYERS, TOY_LAYERS * TOY_HIDDEN)
    counts = right * len(CHOSEN)
    from_one = np.bincount(np.maximum(CHOSEN - 1, 0) // TOY_HIDDEN, minlength=TOY_LAYERS) / len(CHOSEN)
    by_unit = np.bincount(CHOSEN % TOY_LAYERS, minlength=TOY_LAYERS) / len(CHOSEN)
    slips = [
        (counts, "Those are numbers of neurons; a fingerprint sums to 1."),
        (counts / TOY_HIDDEN, "Divide by the neurons that were chosen, not by those that a layer has."),
        (from_one, "A neuron on a border is in the wrong layer: the first neuron has the number 0."),
        (by_unit, "That is the remainder of a division. The layer is its whole part."),
    ]
    words = "Not yet: find the layer of each neuron, count the neurons of each layer, and divide by K."
    return _judged(answer, right, slips, words)


def exercise_9(answer: Any) -> Outcome:
    """Lesson 9: a verdict for each of three intervals."""
    if unanswered(answer):
        return NOTHING_YET
    right = [verdict(*gain) for gain in GAINS]
    yes, doubt, no, _ = VERDICTS
    if isinstance(answer, str) or not np.iterable(answer) or len(given := [str(word).strip() for word in answer]) != 3:
        return Outcome(False, "A list of three words is asked for, one for each interval.")
    if strange := [word for word in given if word not in VERDICTS]:
        return Outcome(False, f"{strange[0]!r} is not one of the words: {', '.join(VERDICTS)}.")
    if given == right:
        return RIGHT_ANSWER
    hints: dict[tuple[str, ...], str] = {
        (yes, yes, no): "You judged by the estimate. What does the interval of the second say?",
        (yes, no, no): "An interval that reaches both sides is no evidence against the claim.",
        (yes, doubt, doubt): "Look at the third again: is there a value of its interval on the claim's side?",
        (doubt, doubt, doubt): "Look at the first again: is there a value of its interval on the other side?",
    }
    words = "Not yet: ask of each interval whether all of it lies above 0, all of it below, or neither."
    return Outcome(False, hints.get(tuple(given), words))


def exercise_10(answer: Any) -> Outcome:
    """Lesson 10: the variability ν of six states of one neuron."""
    first, second = STATES[CLASSES == 0], STATES[CLASSES == 1]
    within, between = first.var(), np.array([first.mean(), second.mean()]).var()
    slips = [
        (within / between, "Divide by the number of classes, too."),
        (between / within, "Upside down: low means that the classes lie apart."),
        (between / within / 2, "Upside down: within the classes over between them."),
        (first.var(ddof=1) / between / 2, "Your variance within a class divides by n - 1. Here it divides by n."),
    ]
    words = (
        "Not yet: the variance within a class, over the variance of the two class means, over the number of classes."
    )
    return _judged(answer, hidden_state_variability(STATES[:, None], CLASSES), slips, words)


def exercise_11(answer: Any) -> Outcome:
    """Lesson 11: a table of your own that can be a source."""
    if unanswered(answer):
        return NOTHING_YET
    if not isinstance(answer, pd.DataFrame):
        return Outcome(False, f"A pandas DataFrame is asked for; this is a {type(answer).__name__}.")
    if missing := [column for column in ("text", "label") if column not in answer]:
        return Outcome(
            False, f"There is no column {missing[0]!r}; the columns are {', '.join(map(str, answer.columns))}."
        )
    if answer["label"].isna().any() or answer["text"].isna().any():
        row = int((answer["label"].isna() | answer["text"].isna()).to_numpy().argmax())
        return Outcome(False, f"Row {row} lacks its text or its label.")
    if answer["label"].nunique() < 2:
        return Outcome(False, "All labels are the same: there is nothing to tell apart.")
    if not answer["text"].map(lambda text: isinstance(text, str) and bool(text.strip())).all():
        return Outcome(False, "A text is empty, or is no text.")
    if (rows := answer["label"].value_counts()).min() < 5:
        return Outcome(False, f"The class {rows.index[-1]!r} has {rows.min()} rows; write at least 5 of each class.")
    return RIGHT_ANSWER


def _judged(answer: Any, right: Any, slips: Sequence[tuple[Any, str]], otherwise: str) -> Outcome:
    """Compare numbers with the right ones, and then with the slips in their order."""
    if unanswered(answer):
        return NOTHING_YET
    try:
        values = np.asarray(answer, dtype=float)
    except (TypeError, ValueError):
        return Outcome(False, f"The answer is made of numbers; this is {str(answer)[:40]!r}.")
    if values.shape != np.shape(right):
        wanted = f"{np.size(right)} numbers in a list" if np.ndim(right) else "one number"
        return Outcome(False, f"The answer is {wanted}; this has {values.size}.")
    close = 0 if np.asarray(right).dtype.kind == "i" else CLOSE  # whole numbers are not rounded
    if np.allclose(values, right, rtol=close, atol=1e-9):
        return RIGHT_ANSWER
    hints = (hint for slip, hint in slips if np.allclose(values, slip, rtol=close, atol=1e-9))
    return Outcome(False, next(hints, otherwise))


def _gini(labels: np.ndarray) -> float:
    shares = np.bincount(labels) / len(labels)
    return float(1 - (shares**2).sum())


def _crossing(spread_of_large: float, spread_of_steady: float) -> float:
    """1 - α at which both neurons have the same m, with these spreads."""
    gap = LARGE.mean() - STEADY.mean()
    turned = STEADY.mean() / (spread_of_steady + EPS) - LARGE.mean() / (spread_of_large + EPS)
    return float(gap / (gap + turned))
