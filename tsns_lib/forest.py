"""Impurity importance by a random forest: activations cut into bins, and the compiled kernel.

The idea. Importance needs only the splits of a forest, and a split needs only the coarse order of the activations.

1. Every neuron is cut once into at most 64 quantile bins, one byte each, in neuron-major order. All trees and all
   resamples share them: the edges follow from the whole source. Rows are cut in blocks, so a source may exceed memory.
2. A node fills one histogram for each of its √N candidate neurons. A cell packs the weighted count and the count of
   class 1 in one integer, so that a row costs one addition.
3. For two classes the best gini cut maximises d²/(n_l·n_r), where d is an integer. The search runs over all 64 bins
   without a branch, and the compiler turns it into a few vector instructions.
4. A bootstrap is a set of weights on the distinct rows. A stable partition keeps a node's rows together and in order.
5. Bins larger than the caches cost memory latency, not counting. So all candidates are drawn before the first is
   searched, and each one's bins are prefetched in time. Where rows are many, small nodes read a second copy of the
   bins, in which the neurons of a row lie side by side.
6. Trees run in threads without the interpreter lock, each seeded by its number. They add fixed-point integers, whose
   sum does not depend on the order: the same bits for any number of threads.
"""

import functools
import logging
import os
import pickletools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from llvmlite import ir  # type: ignore[import-untyped]
from numba import config, njit, types
from numba.extending import intrinsic, overload

from tsns_lib.sampling import derive_seed
from tsns_lib.store import Entry, Store

log = logging.getLogger(__name__)


def prefetch(array: Any, index: Any) -> None:
    """Ask the memory for ``array[index]`` before it is needed; an index outside the array does no harm.

    Compiled code gets the processor's instruction, for which numba has no name. Plain Python does nothing.
    """


@overload(prefetch)
def _compiled(array: Any, index: Any) -> Any:
    def ask(array: Any, index: Any) -> None:
        _instruction(array, index)  # type: ignore[call-arg]

    return ask


@intrinsic
def _instruction(typing_context: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        cells = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address, number = builder.gep(cells, [arguments[1]]), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        flags = [number(0), number(3), number(1)]  # to be read (0), kept in every cache (3), data (1)
        builder.call(builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind), [address, *flags])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


def _can_be_kept() -> bool:
    """Whether numba finds a folder for its machine code: beside this file, in the home, else below the store.

    numba unpickles what lies in that folder, so it must belong to this user alone.
    """
    settings: Any = config
    if settings.DISABLE_JIT:  # nothing is compiled
        return False
    with suppress(RuntimeError):  # numba's word for no folder that it may write
        _remove_cut_short(Path(str(njit(cache=True)(prefetch).stats.cache_path)))
        return True
    folder, usual = Store().root / "numba", settings.CACHE_DIR
    with suppress(RuntimeError, OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.stat()
        if facts.st_uid == os.getuid() and not facts.st_mode & 0o022:
            settings.CACHE_DIR = str(folder)
            _remove_cut_short(Path(str(njit(cache=True)(prefetch).stats.cache_path)))
            return True
    settings.CACHE_DIR = usual
    return False


def _remove_cut_short(folder: Path) -> None:
    """Delete files of machine code that a crash has cut short, on which numba would fail for ever.

    They are pickles, an index two of them; here they are parsed only, which runs nothing.
    """
    for path in folder.glob("forest.*.nb[ic]"):
        with suppress(OSError), path.open("rb") as file:  # another process may have removed it
            try:
                for _ in range(2 if path.suffix == ".nbi" else 1):
                    deque(pickletools.genops(file), maxlen=0)
            except ValueError:
                log.warning("%s: is cut short; it is compiled again", path)
                path.unlink()


COMPILED: dict[str, Any] = {"cache": _can_be_kept(), "nogil": True}

N_BINS = 64  # a power of two; agreement with exact splits is measured in the tests and outputs
LINE = 64  # bytes of a cache line
AHEAD = 2  # neurons or rows that are prefetched in advance (measured)
COPY_BYTES = 1 << 29  # bins up to this size may be kept twice (our choice: both copies fit in 1.1 GB)
SMALL = 8  # a node with less than 1/8 of the rows is small (measured)
_ONE = 1 << 40  # fixed point: the total importance of one tree
_LOW = (1 << 32) - 1
_n_threads = functools.cache(effective_n_jobs)  # asked once, as it reads the limits of the system
OTHER_CODE = "forest: the machine code of numba has another number of bins; delete the __pycache__ beside forest.py"


def grow_trees(
    bins: np.ndarray, classes: np.ndarray, first: int, stop: int, max_depth: int, seed: int, n_jobs: int, every: int = 1
) -> np.ndarray:
    """Summed importance of shape (N,) by the trees first, first + every, … below stop, on bins of n rows, (N, n).

    Whole numbers: a tree that splits adds 2⁴⁰ in all.
    """
    step = every * max(1, -(-(stop - first) // (4 * every * _n_threads(n_jobs))))
    copied = bins.shape[1] > bins.shape[0] and bins.nbytes <= COPY_BYTES
    by_row = np.ascontiguousarray(bins.T) if copied else bins[:0]
    data = bins, by_row, classes, int(classes.max()) + 1, np.uint64(seed)

    def grow(start: int) -> np.ndarray:
        return _grow_trees(*data, start, min(start + step, stop), every, max_depth, N_BINS)

    return sum(_pool(n_jobs).map(grow, range(first, stop, step)), start=np.zeros(len(bins), np.int64))


@functools.cache
def _pool(n_jobs: int) -> ThreadPoolExecutor:
    """Threads that stay: on a busy machine it takes as long to start some as to grow a small forest."""
    return ThreadPoolExecutor(_n_threads(n_jobs))


os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has no threads but its own


@njit(**COMPILED)
def _random(state):
    """The next 32 random bits, by splitmix64."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((z ^ (z >> np.uint64(31))) >> np.uint64(32))


@njit(**COMPILED)
def _below(state, n):
    return (_random(state) * np.int64(n)) >> 32


@njit(**COMPILED)
def _fetch_neuron(bins, base, n, rows, start, stop):
    """Prefetch the bins of a node's rows: one by one if they are few, else the whole neuron by cache lines."""
    if stop - start < n // LINE:
        for i in range(start, stop):
            prefetch(bins, base + rows[i])
    else:
        for first in range(0, n, LINE):
            prefetch(bins, base + np.uint64(first))


@njit(**COMPILED)
def _fill(bins, base, rows, packed, start, stop, hist):
    """Fill the histogram of one neuron."""
    for i in range(start, stop):
        hist[bins[base + rows[i]]] += packed[i]


@njit(**COMPILED)
def _fill_all(by_row, neurons, rows, packed, start, stop, hists):
    """Fill the histograms of all candidate neurons, row by row."""
    n_neurons, cells = neurons.size, hists.reshape(-1)
    for i in range(start, stop):
        base = np.uint64(rows[i]) * np.uint64(n_neurons)
        if i + AHEAD < stop:
            following = np.uint64(rows[i + AHEAD]) * np.uint64(n_neurons)
            for first in range(0, n_neurons, LINE):
                prefetch(by_row, following + np.uint64(first))
        value = packed[i]
        for c in range(len(hists)):
            cells[np.uint64(c * N_BINS) + by_row[base + np.uint64(neurons[c])]] += value


@njit(**COMPILED, error_model="numpy")
def _best_cut(total, hist, scores, bits):
    """Two classes: the best d²/(n_l·n_r) and the bin behind which it cuts; -1 if there is one bin. Empties `hist`."""
    left = 0
    for b in range(N_BINS):
        left += hist[b]
        hist[b] = left
    n, ones = np.float64(total & _LOW), np.float64(total >> 32)
    for b in range(N_BINS):
        n_left, ones_left = np.float64(hist[b] & _LOW), np.float64(hist[b] >> 32)
        hist[b] = 0
        d = ones_left * n - n_left * ones
        both = n_left * (n - n_left)
        scores[b] = d * d / both if both > 0 else -1.0
    best = -1  # scores are not negative, so their bits are ordered as the scores; the lowest six bits carry the bin
    for b in range(N_BINS):
        key = (bits[b] & -N_BINS) | (N_BINS - 1 - b)
        if key > best:
            best = key
    cut = N_BINS - 1 - (best & (N_BINS - 1))
    return scores[cut], cut


@njit(**COMPILED, error_model="numpy")
def _best_cut_of_many(bins, base, rows, packed, start, stop, counts, hist, left):
    """Three classes or more: the best Σl²/n_l + Σr²/n_r - Σc²/n; the packed high half is the class."""
    n_classes = counts.size
    for i in range(start, stop):
        hist[bins[base + rows[i]] * n_classes + (packed[i] >> 32)] += packed[i] & _LOW
    n = counts.sum()
    parent = (counts.astype(np.float64) ** 2).sum() / n
    left[:] = 0
    n_left, best, best_bin = 0, -1.0, 0
    for b in range(N_BINS):
        squares_left, squares_right = 0.0, 0.0
        for c in range(n_classes):
            here = hist[b * n_classes + c]
            hist[b * n_classes + c] = 0
            n_left += here
            left[c] += here
            squares_left += np.float64(left[c]) ** 2
            squares_right += np.float64(counts[c] - left[c]) ** 2
        if 0 < n_left < n:
            score = max(0.0, squares_left / n_left + squares_right / (n - n_left) - parent)
            if score > best:
                best, best_bin = score, b
    return best, best_bin


@njit(**COMPILED)
def _draw(neurons, seen, state):
    """Draw one of the neurons behind the first `seen`, and move it to their end."""
    pick = seen + _below(state, neurons.size - seen)
    neurons[seen], neurons[pick] = neurons[pick], neurons[seen]


@njit(**COMPILED)
def _bootstrap(classes, n_classes, state, rows, packed):
    """Draw n rows with replacement; keep the distinct ones, each with its weight and class in one integer."""
    packed[:] = 0
    for _ in range(classes.size):
        packed[_below(state, classes.size)] += 1
    size = 0
    for row in range(classes.size):
        weight = packed[row]
        if weight:
            rows[size] = row
            high = weight * classes[row] if n_classes == 2 else classes[row]
            packed[size] = weight | (high << 32)
            size += 1
    return size


@njit(**COMPILED)
def _partition(bins, base, cut, rows, packed, start, stop, spare_rows, spare_packed):
    """Move rows in bins up to the cut to the left, keeping both orders; return where the right side begins."""
    middle, n_right = start, 0
    for i in range(start, stop):
        row, value = rows[i], packed[i]
        right = bins[base + row] > cut
        rows[middle], packed[middle] = row, value
        spare_rows[n_right], spare_packed[n_right] = row, value
        middle += not right
        n_right += right
    rows[middle:stop] = spare_rows[:n_right]
    packed[middle:stop] = spare_packed[:n_right]
    return middle


@njit(**COMPILED)
def _count(packed, start, stop, counts):
    """Count the classes of a node; for two classes also give their packed total."""
    total = 0
    if counts.size == 2:
        for i in range(start, stop):
            total += packed[i]
        counts[1] = total >> 32
        counts[0] = (total & _LOW) - counts[1]
    else:
        counts[:] = 0
        for i in range(start, stop):
            counts[packed[i] >> 32] += packed[i] & _LOW
    return total


@njit(**COMPILED)
def _grow_trees(matrix, copy, classes, n_classes, seed, first, last, every, max_depth, n_bins):
    """Grow the trees first, first + every, … below last; sum their importances, 2**40 in all for each."""
    if n_bins != N_BINS:  # machine code of another number of bins would write outside its histograms
        raise ValueError(OTHER_CODE)
    n_neurons, n = matrix.shape
    bins, by_row = matrix.reshape(-1), copy.reshape(-1)
    n_candidates = int(np.sqrt(n_neurons))
    importance = np.zeros(n_neurons, np.int64)
    neurons = np.empty(n_neurons, np.int64)
    rows, spare_rows = np.empty(n, np.uint32), np.empty(n, np.uint32)
    packed, spare_packed = np.empty(n, np.int64), np.empty(n, np.int64)
    stack = np.empty((n + 1, 3), np.int64)  # start, stop, depth of the nodes still to be split
    split_neuron, split_gain = np.empty(n, np.int64), np.empty(n, np.float64)
    counts, left = np.zeros(n_classes, np.int64), np.zeros(n_classes, np.int64)
    hist = np.zeros(N_BINS * (1 if n_classes == 2 else n_classes), np.int64)
    scores = np.zeros(N_BINS)
    bits = scores.view(np.int64)
    hists = np.zeros((n_candidates, N_BINS), np.int64)
    state = np.empty(1, np.uint64)
    for tree in range(first, last, every):
        state[0] = seed + np.uint64(tree) * np.uint64(0xD1342543DE82EF95)
        for f in range(n_neurons):
            neurons[f] = f
        stack[0] = 0, _bootstrap(classes, n_classes, state, rows, packed), 0
        n_open, n_splits, tree_gain = 1, 0, 0.0
        while n_open:
            n_open -= 1
            start, stop, depth = stack[n_open]
            total = _count(packed, start, stop, counts)
            size = counts.sum()
            if counts.max() == size or depth >= max_depth:
                continue
            # √N neurons drawn without replacement, and more as long as all of them are constant in this node
            for seen in range(n_candidates):
                _draw(neurons, seen, state)
            small = n_classes == 2 and len(copy) > 0 and (stop - start) * SMALL < n
            if small:
                _fill_all(by_row, neurons, rows, packed, start, stop, hists)
            best, best_bin, best_neuron, seen = -1.0, 0, -1, 0
            # no cut is better than one that separates the classes
            ceiling = np.float64(counts[0]) * np.float64(counts[1]) if n_classes == 2 else np.inf
            while seen < n_neurons and (seen < n_candidates or best_neuron < 0) and best < ceiling:
                if seen >= n_candidates:
                    _draw(neurons, seen, state)
                elif seen + AHEAD < n_candidates and not small:
                    _fetch_neuron(bins, np.uint64(neurons[seen + AHEAD] * n), n, rows, start, stop)
                neuron = neurons[seen]
                base = np.uint64(neuron * n)
                if n_classes > 2:
                    score, cut = _best_cut_of_many(bins, base, rows, packed, start, stop, counts, hist, left)
                elif small and seen < n_candidates:
                    score, cut = _best_cut(total, hists[seen], scores, bits)
                else:
                    _fill(bins, base, rows, packed, start, stop, hist)
                    score, cut = _best_cut(total, hist, scores, bits)
                seen += 1
                if score > best:
                    best, best_bin, best_neuron = score, cut, neuron
            if small:
                hists[seen:] = 0
            if best_neuron < 0:
                continue
            base = np.uint64(best_neuron * n)
            middle = _partition(bins, base, best_bin, rows, packed, start, stop, spare_rows, spare_packed)
            gain = 2 * best / size if n_classes == 2 else best
            split_neuron[n_splits], split_gain[n_splits] = best_neuron, gain
            n_splits += 1
            tree_gain += gain
            stack[n_open] = start, middle, depth + 1
            stack[n_open + 1] = middle, stop, depth + 1
            n_open += 2
        if tree_gain > 0:
            for s in range(n_splits):
                importance[split_neuron[s]] += np.int64(split_gain[s] / tree_gain * _ONE)
    return importance


# A larger source is cut by the quantiles of this number of its rows, drawn at random (our choice): a bin holds 1/64 of
# the rows, and its edge is then off by about two thousandths of them.
EDGE_ROWS = 65_536
BLOCK_ROWS = 2_048
BLOCK_NEURONS = 64  # small enough for the cache, large enough for the threads
BLOCK_BYTES = 256_000_000  # of a source in the store, held in memory at once

HALVES = tuple(N_BINS >> k for k in range(1, N_BINS.bit_length()))  # 32, 16, ..., 1

Activations = np.ndarray | Entry


def row_blocks(X: Activations, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """The given rows of the activations, or all, in blocks of 2,048."""
    for first in range(0, X.shape[0] if rows is None else len(rows), BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, X.shape[0])
        if isinstance(X, Entry):
            yield X.read(rows=np.arange(first, last) if rows is None else rows[first : first + BLOCK_ROWS])
        else:
            yield X[first:last] if rows is None else X[rows[first : first + BLOCK_ROWS]]


def bin_edges(X: Activations, n_jobs: int = -1) -> np.ndarray:
    """Where every neuron is cut: at most 63 edges for 64 bins of equal share, ascending, of shape (N, 63).

    A value lies in the bin whose number is the count of edges that it reaches; unused edges are infinite. A neuron with
    at most 64 distinct values in the rows looked at keeps them all, so its splits stay exact.
    """
    n, n_neurons = X.shape
    rng = np.random.default_rng(derive_seed(0, "edges", n))  # rows that are evenly spaced may be all of one class
    rows = np.arange(n) if n <= EDGE_ROWS else np.sort(rng.choice(n, EDGE_ROWS, replace=False))
    kind = np.result_type(X.dtype, np.float32)  # numba knows no half precision
    edges = np.full((n_neurons, N_BINS - 1), np.inf, kind)
    at_once = max(BLOCK_NEURONS, BLOCK_BYTES // (len(rows) * X.dtype.itemsize)) if isinstance(X, Entry) else n_neurons

    for start in range(0, n_neurons, at_once):
        columns = np.arange(start, min(start + at_once, n_neurons))
        part = X.read(rows=rows, columns=columns) if isinstance(X, Entry) else X
        part = part[rows] if part.shape[0] > len(rows) else part

        def find(first: int, part: np.ndarray = part, start: int = start) -> None:
            block = part[:, first : first + BLOCK_NEURONS].T.astype(kind)
            block.sort(axis=1)
            _find_edges(block, edges[start + first : start + first + len(block)])

        list(_pool(n_jobs).map(find, range(0, len(columns), BLOCK_NEURONS)))
    return edges


def bin_activations(X: Activations, edges: np.ndarray, rows: np.ndarray | None = None, n_jobs: int = -1) -> np.ndarray:
    """The bins of the given rows, or of all: neuron-major, of shape (N, rows) and dtype uint8."""
    bins = np.empty((len(edges), X.shape[0] if rows is None else len(rows)), np.uint8)
    start = 0
    for block in row_blocks(X, rows):
        stop = start + len(block)

        def cut(first: int, block: np.ndarray = block, start: int = start, stop: int = stop) -> None:
            neurons = slice(first, first + BLOCK_NEURONS)
            _cut(block[:, neurons].T.astype(edges.dtype), edges[neurons], bins[neurons, start:stop])

        list(_pool(n_jobs).map(cut, range(0, len(edges), BLOCK_NEURONS)))
        start = stop
    return bins


@njit(**COMPILED)
def _find_edges(ordered, edges):
    if edges.shape[1] != N_BINS - 1:
        raise ValueError(OTHER_CODE)
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


@njit(**COMPILED)
def _cut(block, edges, bins):
    """Count the edges that each value reaches, by halving without a branch, so that many values are done at once."""
    if edges.shape[1] != N_BINS - 1:
        raise ValueError(OTHER_CODE)
    for f in range(len(block)):
        values, cuts, found = block[f], edges[f], bins[f]
        for i in range(values.size):
            reached = 0
            for step in HALVES:
                reached += step * (cuts[reached + step - 1] <= values[i])
            found[i] = reached
