"""A seeded subset of rows with the classes in proportion."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def stratified_rows(labels: ArrayLike, limit: int, *, seed: int, name: str) -> NDArray[np.intp]:
    """Choose exactly `limit` rows at random, the classes in proportion, and return their indices in order.

    Parameters
    ----------
    labels : array-like of shape (n,)
    limit : int
        Rows to choose: from the number of classes up to n.
    seed : int
    name : str
        What the rows belong to; part of the seed, so that two corpora do not share a stream.

    Returns
    -------
    ndarray of shape (limit,), ascending

    Examples
    --------
    >>> rows = stratified_rows([0, 0, 0, 0, 0, 0, 1, 1, 1, 1], 5, seed=0, name="books/train")
    >>> len(rows), sum(rows >= 6)
    (5, np.int64(2))
    """
    labels = np.asarray(labels)
    classes, sizes = np.unique(labels, return_counts=True)
    # Largest remainders: a class gets its share rounded down, but at least one row; the rest by remainder.
    shares = sizes * limit / sizes.sum()
    counts = np.maximum(shares.astype(int), 1)
    while counts.sum() < limit:
        counts[np.argmax(shares - counts)] += 1
    while counts.sum() > limit:
        counts[np.argmax(counts)] -= 1
    stream = np.random.default_rng(np.random.SeedSequence([seed, *name.encode()]))
    chosen = [stream.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, counts, strict=True)]
    return np.sort(np.concatenate(chosen))
