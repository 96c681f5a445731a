"""One split of one corpus, as a plain value."""

from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Source:
    """One split of one corpus.

    Attributes
    ----------
    name : str
        `"books"`, `"miniature:books"`, `"hub:books"` or `"my.csv"`.
    task : str
        `"sentiment"`, `"nli"`, `"similarity"` or `"own"`.
    split : str
        `"train"`, `"dev"` or `"test"`.
    frame : DataFrame
        Columns `text` (str), `text_pair` (str or None), `label` (int); rows numbered from 0.
    origin : dict
        `kind` (`"files"`, `"hub"`, `"miniature"`, `"own"`); `path`, or `repository` and `commit`;
        `rows_read`, `rows_kept` and `skipped` ({reason: count}), which add up (before any limit); `repaired`
        ({repair: rows}); `repeated_rows`; `official_rows` and `paper_rows` (None where there is no such
        figure); `limit` where one was asked for.
    """

    name: str
    task: str
    split: str
    frame: pd.DataFrame
    origin: dict[str, Any]

    @property
    def n_rows(self) -> int:
        """Number of rows in `frame`, after any limit."""
        return len(self.frame)

    @property
    def is_pair(self) -> bool:
        """Whether rows are pairs of texts."""
        return bool(self.frame["text_pair"].notna().all())

    @property
    def generated(self) -> bool:
        """Whether the corpus is built in and generated, not real."""
        return self.origin["kind"] == "miniature"


def shared_rows(a: Source, b: Source) -> int:
    """Count the different texts (or pairs of texts) that stand, letter for letter, in both sources.

    Examples
    --------
    >>> from tsns_lib.corpora.sources import load_source
    >>> books = load_source("miniature:books")
    >>> shared_rows(books, books) == len(books.frame.drop_duplicates(["text", "text_pair"]))
    True
    """
    first, second = (set(zip(s.frame["text"], s.frame["text_pair"], strict=True)) for s in (a, b))
    return len(first & second)
