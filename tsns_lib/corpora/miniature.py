"""The built-in corpora: a grammar and a seed, one counterpart for each corpus of Table 1, all offline.

They look like the real ones in what matters to the method: domains share some opinion words and contradict
each other in some, sentences of the wrong polarity stand in between, both classes of pairs overlap in words,
and one label in eleven is wrong, so that nothing scores 100 %.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pandas as pd

from tsns_lib.corpora.readers import as_frame
from tsns_lib.corpora.vocabulary import BAD, CONTRASTS, GOOD, NEGATED, OPINIONS, PAIRS, REVIEWS, Pairs, Reviews

NOISE = 0.09  # share of wrong labels
TRAIN_ROWS = {
    "mr": 400,
    "sst": 320,
    "scitail": 360,
    "snli": 400,
    "mnli": 400,
    "rte": 240,
    "qqp": 400,
    "mrpc": 300,
}
DOMAIN_ROWS = 240  # each Amazon domain
TARGET_ROWS = 240  # every "dev" and "test"
SENTENCES = {"mr": (4, 5, 6), "sst": (1, 2)}  # opinions a review; elsewhere:
FEW_SENTENCES = (2, 3)

AGREES = 0.95  # an opinion has the polarity of its review
SHARED = 0.5  # an opinion word is one of those that every domain shares
NEGATES = 0.08
CONTRASTED = 0.12
REWORDED = 0.5  # a slot of a matching pair is said in its other wording
DETAILED = 0.5  # the first text carries a detail
ADDED = 0.5  # a pair that does not match: a new detail, or else another meaning in one slot

T = TypeVar("T")


class Dice:
    """A seeded stream on `random.Random.random`, the one method that Python promises never to change."""

    def __init__(self, seed: int, *parts: str):
        words = np.random.SeedSequence([seed, *"/".join(parts).encode()]).generate_state(2, np.uint64)
        self._stream = random.Random(int(words[0]) << 64 | int(words[1]))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._stream.random() < probability

    def pick(self, choices: Sequence[T]) -> T:
        """Choose one."""
        return choices[int(self._stream.random() * len(choices))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in random order."""
        keys = [self._stream.random() for _ in items]
        return [items[i] for i in sorted(range(len(items)), key=keys.__getitem__)]


def generate(
    name: str, split: str = "train", *, n_rows: int | None = None, noise: float = NOISE, seed: int = 0
) -> pd.DataFrame:
    """Generate one split of the counterpart of a corpus.

    Parameters
    ----------
    name : str
        A corpus of Table 1, e.g. `"books"` or `"qqp"`.
    split : str, default "train"
        Each split has its own stream of the same grammar.
    n_rows : int, optional
        Rows to generate, at least 2. Default: 240 to 400 (our choice: small enough for minutes).
    noise : float, default 0.09
        Share of labels that are flipped (our choice). The texts do not depend on it.
    seed : int, default 0
        The same seed gives the same bits on every machine.

    Returns
    -------
    DataFrame
        Columns `text`, `text_pair` (None for sentiment), `label` (0 or 1, half each before the noise).

    Raises
    ------
    ValueError
        For an unknown name, fewer than 2 rows, or a noise outside [0, 0.5].

    Examples
    --------
    >>> generate("sst", n_rows=4, seed=1)["label"].sum()
    np.int64(2)
    >>> generate("rte", n_rows=4).equals(generate("rte", n_rows=4))
    True
    """
    if name not in REVIEWS and name not in PAIRS:
        raise ValueError(f"{name!r} is not a built-in corpus: {', '.join([*REVIEWS, *PAIRS])}")
    if n_rows is None:
        n_rows = TRAIN_ROWS.get(name, DOMAIN_ROWS) if split == "train" else TARGET_ROWS
    if n_rows < 2:
        raise ValueError(f"n_rows={n_rows}: needs at least 2")
    if not 0 <= noise <= 0.5:
        raise ValueError(f"noise={noise}: needs a share from 0 to 0.5")
    dice = Dice(seed, name, split, "texts")
    labels = dice.shuffled([i % 2 for i in range(n_rows)])
    if name in REVIEWS:
        texts = [_review(name, REVIEWS[name], label == 1, dice) for label in labels]
    else:
        texts = [_pair(name, PAIRS[name], label == 1, dice) for label in labels]
    wrong = set(Dice(seed, name, split, "noise").shuffled(range(n_rows))[: round(noise * n_rows)])
    labels = [1 - label if row in wrong else label for row, label in enumerate(labels)]
    return as_frame((*text, label) for text, label in zip(texts, labels, strict=True))


def _review(name: str, words: Reviews, positive: bool, dice: Dice) -> tuple[str, str | None]:
    n_opinions = dice.pick(SENTENCES.get(name, FEW_SENTENCES))
    opinions = [_opinion(words, positive == dice.chance(AGREES), dice) for _ in range(n_opinions)]
    n_fillers = 0 if name == "sst" else dice.pick((1, 2))
    fillers = [dice.pick(words.filler) for _ in range(n_fillers)]
    return _joined(name, dice.shuffled(opinions + fillers)), None


def _opinion(words: Reviews, positive: bool, dice: Dice) -> str:
    def word(positive: bool) -> str:
        good, bad = (GOOD, BAD) if dice.chance(SHARED) else (words.good, words.bad)
        return dice.pick(good if positive else bad)

    thing, other = dice.shuffled(words.things)[:2]
    if dice.chance(NEGATES):
        return dice.pick(NEGATED).format(thing=thing, word=word(not positive))
    pattern = dice.pick(CONTRASTS if dice.chance(CONTRASTED) else OPINIONS)
    return pattern.format(thing=thing, other=other, word=word(positive), opposite=word(not positive))


def _pair(name: str, pairs: Pairs, matches: bool, dice: Dice) -> tuple[str, str | None]:
    meanings = [dice.pick(slot) for slot in pairs.slots]
    carried, new = dice.shuffled(pairs.details)[:2]
    details = [carried] if dice.chance(DETAILED) else []
    first = _sentence(name, pairs, [meaning[0] for meaning in meanings], details, dice)
    details = details if dice.chance(0.5) else []
    if not matches and dice.chance(ADDED):
        details = [new]
    elif not matches:
        i = dice.pick(range(len(meanings)))
        meanings[i] = dice.pick([meaning for meaning in pairs.slots[i] if meaning != meanings[i]])
    wordings = [meaning[dice.chance(REWORDED)] for meaning in meanings]
    return first, _sentence(name, pairs, wordings, details, dice)


def _sentence(name: str, pairs: Pairs, wordings: list[str], details: list[str], dice: Dice) -> str:
    wordings[-1] = " ".join([wordings[-1], *details])
    return _joined(name, [dice.pick(pairs.patterns).format(*wordings)])


def _joined(name: str, sentences: list[str]) -> str:
    """Put sentences together; SST and MRPC are tokenised, SST in lower case, as the real ones are."""
    stop = " ." if name in ("sst", "mrpc") else "."
    text = " ".join(s[0].upper() + s[1:] + ("" if s.endswith("?") else stop) for s in sentences)
    return text.lower() if name == "sst" else text
