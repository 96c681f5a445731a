"""Leakage: rows that stand, letter for letter, in two splits."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from tsns_lib.corpora.source import shared_rows
from tsns_lib.reporting.datasets import printed_counts
from tsns_lib.reporting.report import bare


def leakage_table(sources: Sequence[Any]) -> pd.DataFrame:
    """Every two splits, of one corpus or of two, that share rows letter for letter.

    Parameters
    ----------
    sources : sequence of Source
        Splits.

    Returns
    -------
    pandas.DataFrame
        Columns `one`, `other` ("scitail train"), `shared` (different texts or pairs of texts), `share`
        (percent of the different rows of the smaller one). Empty if nothing is shared.
    """
    rows = []
    for i, one in enumerate(sources):
        for other in sources[i + 1 :]:
            shared = shared_rows(one, other) if one.is_pair == other.is_pair else 0
            if shared:
                smaller = min(s.origin["rows_kept"] - s.origin["repeated_rows"] for s in (one, other))
                names = (f"{s.name} {s.split}" for s in (one, other))
                rows.append((*names, shared, round(100 * shared / smaller, 2)))
    return pd.DataFrame(rows, columns=["one", "other", "shared", "share"])


def leakage_matrix(sources: Sequence[Any]) -> pd.DataFrame:
    """Rows that each training split shares with each split that the paper tests on.

    Parameters
    ----------
    sources : sequence of Source
        Splits.

    Returns
    -------
    pandas.DataFrame
        Training splits down, target splits across; "—" for the split itself.
    """
    counts = printed_counts()
    transferring = counts[counts["printed as"] == "transferring"]
    tested = set(zip(transferring["corpus"], transferring["split"], strict=True))
    targets = [source for source in sources if (bare(source.name), source.split) in tested]
    cells = {
        f"{bare(target.name)} {target.split}": {
            bare(source.name): "—" if source is target else str(shared_rows(source, target))
            for source in sources
            if source.split == "train"
        }
        for target in targets
    }
    return pd.DataFrame(cells).rename_axis(index="source (train)")
