"""Which layers to tune, as hidden-state variability chooses them, and the rival choices of as many."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tsns_lib.sampling import derive_seed
from tsns_lib.transferability.variability import layer_variability

KINDS = {"full": "", "adapter": ", adapters"}
EVERYTHING: dict[str, dict[str, Any]] = {"all layers": {"method": "full"}}


def block_trials(chosen: int, n_layers: int, n_tuned: int, method: str = "full") -> dict[str, dict[str, Any]]:
    """Two blocks of layers to tune: that which ends at the chosen layer, and as many top layers.

    Parameters
    ----------
    chosen : int
        Layer of least variability, counted from 0: the head stands on it, and those above are dropped.
    n_layers : int
        Layers of the encoder.
    n_tuned : int
        Layers of a block; where fewer lie below the chosen one, both blocks have those.
    method : {"full", "adapter"}
        What is tuned in a block.

    Returns
    -------
    dict of str to dict
        Options of `tsns_lib.transferability.finetuning.fine_tune` by name.

    Raises
    ------
    ValueError
        If the chosen layer is none, no layer is to be tuned, or the method is unknown.

    Examples
    --------
    >>> for name, options in block_trials(3, 6, 2).items():
    ...     print(name, options)
    ν block {'method': 'full', 'head_layer': 3, 'tuned_layers': [2, 3]}
    top block {'method': 'full', 'head_layer': 5, 'tuned_layers': [4, 5]}
    """
    if not 0 <= chosen < n_layers:
        raise ValueError(f"chosen={chosen}: expected 0 to {n_layers - 1}")
    if n_tuned < 1:
        raise ValueError(f"n_tuned={n_tuned}: expected at least 1")
    if method not in KINDS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(KINDS)}")
    size = min(n_tuned, chosen + 1)
    return {
        name + KINDS[method]: {
            "method": method,
            "head_layer": last,
            "tuned_layers": list(range(last + 1 - size, last + 1)),
        }
        for name, last in (("ν block", chosen), ("top block", n_layers - 1))
    }


def agreement_of_few(X: ArrayLike, y: ArrayLike, n_layers: int, *, share: float, draws: int, seed: int) -> np.ndarray:
    """Whether the layer of least variability is the same when only few rows are known.

    Parameters
    ----------
    X, y, n_layers
        As in `layer_variability`.
    share : float in (0, 1]
        Of the rows, drawn without replacement.
    draws : int
        Draws.
    seed : int
        Of the draws.

    Returns
    -------
    ndarray of bool of shape (draws,)

    Raises
    ------
    ValueError
        If the share is not in (0, 1], or as `layer_variability`.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 6))
    >>> X[:20, 2:4] += 5
    >>> agreement_of_few(X, np.arange(40) < 20, 3, share=0.25, draws=2, seed=0)
    array([ True,  True])
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: expected a number above 0 and at most 1")
    states, labels = np.asarray(X), np.asarray(y)
    chosen = layer_variability(states, labels, n_layers).argmin()
    found = []
    for draw in range(draws):
        order = np.random.default_rng(derive_seed(seed, "few rows", draw)).permutation(len(labels))
        rows = order[: max(1, round(share * len(labels)))]
        found.append(layer_variability(states[rows], labels[rows], n_layers).argmin() == chosen)
    return np.array(found)
