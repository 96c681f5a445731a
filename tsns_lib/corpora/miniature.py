"""The built-in corpora: a grammar and a seed generate a counterpart of each corpus of Table 1, offline.

They resemble the real corpora in what matters to the method. Domains share some opinion words and disagree about
others, reviews contain sentences of the wrong polarity, both classes of pairs overlap in words, and one label in eleven
is wrong, so that no method can score 100 %. The words are in `vocabulary.yaml`.
"""

import random
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from tsns_lib.corpora.readers import as_frame
from tsns_lib.corpora.registry import read_yaml
from tsns_lib.validation import share, whole_number

NOISE = 0.09  # share of wrong labels
TRAIN_ROWS = {"mr": 400, "sst": 320, "scitail": 360, "snli": 400, "mnli": 400, "rte": 240, "qqp": 400, "mrpc": 300}
DOMAIN_ROWS = 240  # training rows of each Amazon domain
TARGET_ROWS = 240  # rows of every "dev" and "test"
OPINIONS = {"mr": (4, 5, 6), "sst": (1, 2)}  # number of opinions in a review, each equally likely
FEW_OPINIONS = (2, 3)  # in the other corpora

# Probabilities.
AGREES = 0.95  # an opinion has the polarity of its review
SHARED = 0.5  # an opinion word is one that every domain shares
NEGATED = 0.08  # an opinion is said by negating its opposite
CONTRASTED = 0.12  # an opinion is said beside its opposite
REWORDED = 0.5  # a slot of the second text has its other wording
DETAILED = 0.5  # the first text carries a detail
REPEATED = 0.5  # the second text keeps this detail
ADDED = 0.5  # a pair does not match because of a new detail; otherwise one slot has another meaning

T = TypeVar("T")


class Dice:
    """A seeded stream on `random.Random.random`, the one method whose values Python promises never to change."""

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
    """Generate one split of the counterpart of a corpus, half of the rows in each class before the noise.

    The same arguments give the same bits on every machine. Each split has its own stream of the same grammar. `n_rows`
    (at least 2) is 240 to 400 by default, our choice: small enough for minutes. `noise` is the share of labels that are
    flipped, at most 0.5; the texts do not depend on it. `text_pair` is None for sentiment.
    """
    reviews, pairs = _vocabulary()["reviews"], _vocabulary()["pairs"]
    if name not in reviews and name not in pairs:
        raise ValueError(f"{name!r} is not a built-in corpus: {', '.join([*reviews, *pairs])}")
    if n_rows is None:
        n_rows = TRAIN_ROWS.get(name, DOMAIN_ROWS) if split == "train" else TARGET_ROWS
    n_rows, seed = whole_number("n_rows", n_rows, least=2), whole_number("seed", seed, least=0)
    if share("noise", noise, zero=True) > 0.5:
        raise ValueError(f"noise: must be at most 0.5, got {noise}")
    dice = Dice(seed, name, split, "texts")
    write = _review if name in reviews else _pair
    labels = dice.shuffled([row % 2 for row in range(n_rows)])
    texts = [write(name, label == 1, dice) for label in labels]
    order = Dice(seed, name, split, "noise").shuffled(range(n_rows))
    wrong = set(order[: round(noise * n_rows)])
    labels = [1 - label if row in wrong else label for row, label in enumerate(labels)]
    return as_frame((*text, label) for text, label in zip(texts, labels, strict=True))


def _vocabulary() -> dict[str, Any]:
    return read_yaml("vocabulary.yaml")


def _review(name: str, positive: bool, dice: Dice) -> tuple[str, None]:
    words = _vocabulary()["reviews"][name]
    n_opinions = dice.pick(OPINIONS.get(name, FEW_OPINIONS))
    opinions = [_opinion(words, positive == dice.chance(AGREES), dice) for _ in range(n_opinions)]
    n_fillers = 0 if name == "sst" else dice.pick((1, 2))
    fillers = [dice.pick(words["filler"]) for _ in range(n_fillers)]
    return _joined(name, dice.shuffled(opinions + fillers)), None


def _opinion(words: dict[str, Any], positive: bool, dice: Dice) -> str:
    shared, patterns = _vocabulary()["shared"], _vocabulary()["patterns"]

    def word(positive: bool) -> str:
        domain = shared if dice.chance(SHARED) else words
        return dice.pick(domain["good" if positive else "bad"])

    thing, other = dice.shuffled(words["things"])[:2]
    if dice.chance(NEGATED):
        return dice.pick(patterns["negated"]).format(thing=thing, word=word(not positive))
    pattern = dice.pick(patterns["contrasts" if dice.chance(CONTRASTED) else "opinions"])
    return pattern.format(thing=thing, other=other, word=word(positive), opposite=word(not positive))


def _pair(name: str, matches: bool, dice: Dice) -> tuple[str, str]:
    words = _vocabulary()["pairs"][name]
    slots = [list(slot.items()) for slot in words["slots"]]
    meanings = [dice.pick(slot) for slot in slots]  # (plain wording, other wording) each
    detail, new_detail = dice.shuffled(words["details"])[:2]
    details = [detail] if dice.chance(DETAILED) else []
    first = _sentence(name, [plain for plain, _ in meanings], details, dice)
    details = details if dice.chance(REPEATED) else []
    if not matches and dice.chance(ADDED):
        details = [new_detail]
    elif not matches:
        i = dice.pick(range(len(meanings)))
        meanings[i] = dice.pick([meaning for meaning in slots[i] if meaning != meanings[i]])
    wordings = [meaning[dice.chance(REWORDED)] for meaning in meanings]
    return first, _sentence(name, wordings, details, dice)


def _sentence(name: str, wordings: list[str], details: list[str], dice: Dice) -> str:
    *others, last = wordings
    pattern = dice.pick(_vocabulary()["pairs"][name]["patterns"])
    return _joined(name, [pattern.format(*others, " ".join([last, *details]))])


def _joined(name: str, sentences: list[str]) -> str:
    """Join sentences to a text; SST and MRPC are tokenised, SST is in lower case, like the real corpora."""
    stop = " ." if name in ("sst", "mrpc") else "."
    text = " ".join(s[0].upper() + s[1:] + ("" if s.endswith("?") else stop) for s in sentences)
    return text.lower() if name == "sst" else text
