"""Partial reinitialization: layers re-initialised or put in another order, and a proof of what that changed."""

import copy
import re
from collections.abc import Iterable, Sequence, Set
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tsns_lib.sampling import derive_seed
from tsns_lib.validation import whole_number

if TYPE_CHECKING:
    from torch import nn

SIGMA = 0.02  # of BERT's own initialisation
CUTS = {"paper": 2 * SIGMA, "released": 0.04 * SIGMA}


def reinitialize(model: "nn.Module", layers: Iterable[int], *, init: str = "paper", seed: int = 0) -> "nn.Module":
    """A copy of an encoder with some of its layers re-initialised (arXiv 2004.14975).

    Every weight matrix of a layer (query, key, value, attention output, intermediate, output) is drawn from a
    truncated normal of σ = 0.02 around 0; its biases are kept; layer norms are set to 1 and 0.

    Parameters
    ----------
    model : torch.nn.Module
        With its layers in ``encoder.layer``, as BERT and RoBERTa have them; it is not changed.
    layers : iterable of int
        Layers, counted from 0.
    init : {"paper", "released"}
        Cut at ±2σ as the paper writes (standard deviation 0.0176), or by mistake at ±0.04σ as its code does (0.00046).
    seed : int
        Seed of the weights; those of a layer depend on its number and not on which others are re-initialised.

    Raises
    ------
    ValueError
        If the model has no such layers, a layer is not among them, or `init` is unknown.

    Examples
    --------
    >>> from tsns_lib.encoders import load_encoder
    >>> model = load_encoder().model
    >>> changes(model, reinitialize(model, [5])).query("changed and kind == 'weight'")["layer"].unique().tolist()
    [5]
    """
    import torch

    if init not in tuple(CUTS):
        raise ValueError(f"init={init!r}: expected 'paper' or 'released'")
    seed, chosen = whole_number("seed", seed, least=0), _numbers("layers", layers)
    n_layers = len(_layers(model))
    for number in chosen:
        if not 0 <= number < n_layers:
            raise ValueError(f"layers: {number} is not one of the {n_layers} layers 0 to {n_layers - 1}")
    drawn = copy.deepcopy(model)
    stack = _layers(drawn)
    for number in chosen:
        generator = torch.Generator().manual_seed(derive_seed(seed, "layer", number))
        for module in stack[number].modules():
            if isinstance(module, torch.nn.Linear):
                weight = torch.empty_like(module.weight, device="cpu")  # the same draws for every device
                torch.nn.init.trunc_normal_(weight, 0.0, SIGMA, -CUTS[init], CUTS[init], generator=generator)
                module.weight.data.copy_(weight)
            elif isinstance(module, torch.nn.LayerNorm):
                torch.nn.init.ones_(module.weight)
                torch.nn.init.zeros_(module.bias)
    return drawn


def scramble(model: "nn.Module", order: Sequence[int]) -> "nn.Module":
    """A copy of an encoder with its layers in another order.

    Parameters
    ----------
    model : torch.nn.Module
        As in `reinitialize`.
    order : sequence of int
        A permutation of the layers: place i gets layer ``order[i]``.

    Raises
    ------
    ValueError
        If the model has no such layers, or `order` is no permutation of them.

    Examples
    --------
    >>> from tsns_lib.encoders import load_encoder
    >>> model = load_encoder().model
    >>> bool(changes(model, scramble(scramble(model, [5, 4, 3, 2, 1, 0]), [5, 4, 3, 2, 1, 0]))["changed"].any())
    False
    """
    import torch

    places, n_layers = _numbers("order", order), len(_layers(model))
    if isinstance(order, Set) or sorted(places) != list(range(n_layers)):
        raise ValueError(f"order: {places} is no permutation of the layers 0 to {n_layers - 1}")
    scrambled = copy.deepcopy(model)
    stack = _layers(scrambled)
    scrambled.get_submodule("encoder").layer = torch.nn.ModuleList(stack[number] for number in places)
    return scrambled


def changes(before: "nn.Module", after: "nn.Module") -> pd.DataFrame:
    """Compare two models of one shape, tensor by tensor.

    One row for each tensor in columns `tensor`, `layer` (-1 outside the layers), `kind` ("weight", "bias" or "norm"),
    `changed` and `deviation` (the standard deviation afterwards).
    """
    import torch

    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    if [(name, tensor.shape) for name, tensor in old.items()] != [(name, tensor.shape) for name, tensor in new.items()]:
        raise ValueError("after: its tensors have other names or shapes than those of before")
    rows = []
    for name, tensor in new.items():
        layer = re.search(r"\blayer\.(\d+)\.", name)
        kind = "norm" if "norm" in name.lower() else name.rpartition(".")[2]
        place = int(layer[1]) if layer else -1
        rows.append((name, place, kind, not torch.equal(old[name], tensor), float(tensor.detach().float().std())))
    return pd.DataFrame(rows, columns=["tensor", "layer", "kind", "changed", "deviation"])


def _layers(model: "nn.Module") -> "nn.ModuleList":
    stack = getattr(getattr(model, "encoder", None), "layer", None)
    if stack is None:
        raise ValueError(f"{type(model).__name__}: has no encoder.layer, which BERT and RoBERTa have")
    return stack


def _numbers(name: str, values: Iterable[int]) -> list[int]:
    """Numbers of layers as plain integers, in their order."""
    if not np.iterable(values):
        raise ValueError(f"{name}: expected numbers of layers, got {values!r}")
    return [whole_number(name, number, least=0) for number in values]
