"""The paper's statements about the regions of the fingerprints (§4.3), judged by rule."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from tsns_lib.reporting.fingerprint_tables import around, evenness, mean_fingerprint
from tsns_lib.reporting.report import bare, claim, verdict
from tsns_lib.reporting.statistics import Interval

LAYERS = 24  # of the paper's encoder; its layers are met by depth, layer / number of layers
LATE, MIDDLE = (19, 24), (14, 20)  # "last six" (§4.3) and "14th-20th" (§4.4) of the 24
REGIONS = {
    **dict.fromkeys(["books", "dvd", "electronics", "kitchen", "mr", "sst"], LATE),
    **dict.fromkeys(["scitail", "mnli", "qqp"], MIDDLE),
}
SPREAD = ("snli", "rte", "mrpc")  # "almost all layers" (§4.3)
WORDS = {"reproduced": "holds", "not reproduced": "does not hold"}


def region(source: str, n_layers: int) -> tuple[int, int] | None:
    """First and last layer (from 1) in which the paper sees the fingerprint of a source; None for no region.

    Examples
    --------
    >>> region("books", 24), region("qqp", 24), region("miniature:qqp", 6), region("rte", 24)
    ((19, 24), (14, 20), (4, 5), None)
    """
    if bare(source) not in REGIONS:
        return None
    first, last = REGIONS[bare(source)]
    inside = [layer for layer in range(1, n_layers + 1) if first * n_layers <= LAYERS * layer <= last * n_layers]
    if not inside or len(inside) == n_layers:
        raise ValueError(f"an encoder of {n_layers} layers is too shallow for the paper's regions")
    return inside[0], inside[-1]


def region_margin(shares: np.ndarray, first: int, last: int) -> np.ndarray:
    """Share in the layers first..last minus that in the best other block of as many adjacent layers, in points.

    Parameters
    ----------
    shares : ndarray of shape (..., n_layers)
        Fingerprints.
    first, last : int
        Layers, from 1.

    Returns
    -------
    ndarray of shape (...)

    Examples
    --------
    >>> region_margin(np.array([0.1, 0.2, 0.4, 0.3]), 3, 4).round(6).item()
    10.0
    """
    blocks = np.lib.stride_tricks.sliding_window_view(shares, last - first + 1, axis=-1).sum(axis=-1)
    return 100 * (blocks[..., first - 1] - np.delete(blocks, first - 1, axis=-1).max(axis=-1))


def region_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Test the paper's statement about every source (§4.3).

    Parameters
    ----------
    frame : pandas.DataFrame
        As `fingerprint_frame` gives it.

    Returns
    -------
    pandas.DataFrame
        `source`, the paper's `statement` with the layers that it means here, `margin` with its interval (points:
        `region_margin`, or for the spread ones evenness less the mean of the sources of the middle layers), and
        the `verdict` ("holds", "direction only", "does not hold"). Sources of which the paper says nothing
        are left out.
    """
    rows = []
    for source in frame["source"].unique():
        margin = _margin(frame, source)
        if margin is None:
            continue
        layers = region(source, len(frame["shares"].iloc[0]))
        statement = "spread over almost all layers" if layers is None else "most in layers {} to {}".format(*layers)
        judged = verdict(*(interval := _interval(*margin)))
        points = (round(value, 1) + 0.0 for value in interval)  # + 0.0: no minus before a zero
        rows.append((source, statement, *points, WORDS.get(judged, judged)))
    return pd.DataFrame(rows, columns=["source", "statement", "margin", "low", "high", "verdict"])


def figure2_claims(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Judge what the paper says of Figure 2; a group of which no source is there is not testable.

    Parameters
    ----------
    frame : pandas.DataFrame
        As `fingerprint_frame` gives it.

    Returns
    -------
    list of dict
        As `report.claim` gives them.
    """
    groups = {
        "figure2.sentiment_late": [name for name, layers in REGIONS.items() if layers == LATE],
        "figure2.middle": [name for name, layers in REGIONS.items() if layers == MIDDLE],
        "figure2.spread": SPREAD,
    }
    claims = []
    for id, names in groups.items():
        margins = [_margin(frame, source) for source in frame["source"].unique() if bare(source) in names]
        found = [margin for margin in margins if margin is not None]
        means = (np.mean(values, axis=0) for values in zip(*found, strict=True))
        claims.append(claim(id, *_interval(*means)) if found else claim(id))
    tasks = frame.drop_duplicates("source").set_index("source")["task"]
    same = [tasks[a] == tasks[b] for a, b in combinations(tasks.index, 2)]
    gaps = (
        _gap(shares, np.array(same)) for shares in zip(*(mean_fingerprint(frame, s) for s in tasks.index), strict=True)
    )
    claims.append(claim("figure2.tasks", *_interval(*gaps)) if len(set(same)) == 2 else claim("figure2.tasks"))
    return claims


def _margin(frame: pd.DataFrame, source: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Margin of the paper's statement about a source, and of every draw; None if it says or compares nothing."""
    both = mean_fingerprint(frame, source)
    layers = region(source, both[0].shape[-1])
    if layers is not None:
        first, second = (region_margin(shares, *layers) for shares in both)
        return first, second
    middle = [other for other in frame["source"].unique() if REGIONS.get(bare(other)) == MIDDLE]
    if bare(source) not in SPREAD or not middle:
        return None
    others = zip(*(mean_fingerprint(frame, other) for other in middle), strict=True)
    own, drawn = (
        evenness(shares) - np.mean([evenness(other) for other in group], axis=0)
        for shares, group in zip(both, others, strict=True)
    )
    return own, drawn


def _gap(fingerprints: tuple[np.ndarray, ...], same: np.ndarray) -> np.ndarray:
    """Mean cosine of the pairs of one task minus that of the other pairs, in points."""
    units = [shares / np.linalg.norm(shares, axis=-1, keepdims=True) for shares in fingerprints]
    cosines = np.array([(a * b).sum(axis=-1) for a, b in combinations(units, 2)])
    return 100 * (cosines[same].mean(axis=0) - cosines[~same].mean(axis=0))


def _interval(estimate: np.ndarray, draws: np.ndarray) -> Interval:
    low, high = around(estimate, draws)
    return Interval(float(estimate), float(low), float(high))
