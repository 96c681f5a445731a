"""Activations as bytes: every neuron cut into quantile bins, from memory or from the store.

The edges of the bins follow from the whole source, so that all its resamples share them; the rows are cut in blocks,
so that a source larger than memory can be resampled.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from joblib import effective_n_jobs
from numba import njit

from tsns_lib.forest import N_BINS
from tsns_lib.runtime.store import Entry

# Quantiles of a larger source come from this many of its rows, evenly spaced (our choice): a bin holds 1/64 of the
# rows, and its edge is then off by a thousandth of them.
EDGE_ROWS = 65_536
BLOCK_ROWS = 2_048
BLOCK_NEURONS = 64  # small enough for the cache, large enough for the threads
BLOCK_BYTES = 256_000_000  # of a source in the store, held at once

HALVES = tuple(N_BINS >> k for k in range(1, N_BINS.bit_length()))  # 32, 16, ..., 1

Activations = np.ndarray | Entry


def row_blocks(X: Activations, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Some rows of the activations, or all, in blocks of 2,048.

    Parameters
    ----------
    X : ndarray or Entry of shape (n, N)
        Activations in memory or in the store.
    rows : ndarray of int, optional
        Row numbers; default: all.
    """
    for first in range(0, X.shape[0] if rows is None else len(rows), BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, X.shape[0])
        if isinstance(X, Entry):
            yield X.read(rows=np.arange(first, last) if rows is None else rows[first : first + BLOCK_ROWS])
        else:
            yield X[first:last] if rows is None else X[rows[first : first + BLOCK_ROWS]]


def bin_edges(X: Activations, n_jobs: int = -1) -> np.ndarray:
    """Where every neuron is cut: at most 63 edges for 64 bins of equal share.

    A neuron with at most 64 distinct values keeps them all, so its splits stay exact. Of a source of more than
    65,536 rows that many are looked at, evenly spaced.

    Parameters
    ----------
    X : ndarray or Entry of shape (n, N)
        Finite activations.
    n_jobs : int
        Threads; -1 is all cores.

    Returns
    -------
    ndarray of shape (N, 63)
        Ascending; a value lies in the bin that is numbered by how many edges it reaches. Unused edges are infinite.
    """
    n, n_neurons = X.shape
    rows = np.arange(n) if n <= EDGE_ROWS else np.arange(EDGE_ROWS) * n // EDGE_ROWS
    kind = np.result_type(X.dtype, np.float32)  # the compiler knows no half precision
    edges = np.full((n_neurons, N_BINS - 1), np.inf, kind)
    at_once = max(BLOCK_NEURONS, BLOCK_BYTES // (len(rows) * X.dtype.itemsize)) if isinstance(X, Entry) else n_neurons

    with ThreadPoolExecutor(effective_n_jobs(n_jobs)) as pool:
        for start in range(0, n_neurons, at_once):
            columns = np.arange(start, min(start + at_once, n_neurons))
            part = X.read(rows=rows, columns=columns) if isinstance(X, Entry) else X
            part = part[rows] if part.shape[0] > len(rows) else part

            def find(first: int, part: np.ndarray = part, start: int = start) -> None:
                block = part[:, first : first + BLOCK_NEURONS].T.astype(kind)
                block.sort(axis=1)
                _find_edges(block, edges[start + first : start + first + len(block)])

            list(pool.map(find, range(0, len(columns), BLOCK_NEURONS)))
    return edges


def bin_activations(X: Activations, edges: np.ndarray, rows: np.ndarray | None = None, n_jobs: int = -1) -> np.ndarray:
    """Cut every neuron of some rows, or of all, at its edges.

    Parameters
    ----------
    X : ndarray or Entry of shape (n, N)
        Activations.
    edges : ndarray of shape (N, 63)
        As `bin_edges` gives them.
    rows : ndarray of int, optional
        Row numbers; default: all.
    n_jobs : int
        Threads; -1 is all cores.

    Returns
    -------
    ndarray of shape (N, rows) and dtype uint8
        Neuron-major.
    """
    bins = np.empty((len(edges), X.shape[0] if rows is None else len(rows)), np.uint8)
    start = 0
    with ThreadPoolExecutor(effective_n_jobs(n_jobs)) as pool:
        for block in row_blocks(X, rows):
            stop = start + len(block)

            def cut(first: int, block: np.ndarray = block, start: int = start, stop: int = stop) -> None:
                neurons = slice(first, first + BLOCK_NEURONS)
                _cut(block[:, neurons].T.astype(edges.dtype), edges[neurons], bins[neurons, start:stop])

            list(pool.map(cut, range(0, len(edges), BLOCK_NEURONS)))
            start = stop
    return bins


@njit(cache=True, nogil=True)
def _find_edges(ordered, edges):
    n = ordered.shape[1]
    for f in range(len(ordered)):
        values, found = ordered[f], edges[f]
        n_edges = 0  # the distinct values after the first, while they fit
        for i in range(1, n):
            if values[i] != values[i - 1]:
                if n_edges == N_BINS - 1:
                    n_edges += 1
                    break
                found[n_edges] = values[i]
                n_edges += 1
        if n_edges == N_BINS:
            found[:] = np.inf
            n_edges = 0
            for k in range(1, N_BINS):
                value = values[k * n // N_BINS]
                if value > values[0] and (n_edges == 0 or value > found[n_edges - 1]):
                    found[n_edges] = value
                    n_edges += 1


@njit(cache=True, nogil=True)
def _cut(block, edges, bins):
    """How many edges each value reaches: halving without a branch, so that the compiler does many values at once."""
    for f in range(len(block)):
        values, cuts, found = block[f], edges[f], bins[f]
        for i in range(values.size):
            reached = 0
            for step in HALVES:
                reached += step * (cuts[reached + step - 1] <= values[i])
            found[i] = reached
