"""An encoder on its way to another process: how to load it there, and how it is recognised."""

from functools import lru_cache
from typing import NamedTuple

from tsns_lib.encoders import Encoder, load_encoder


class Recipe(NamedTuple):
    """The arguments of `load_encoder`, and the fingerprint that has to come out."""

    name: str
    device: str
    dtype: str
    revision: str | None
    random_weights: bool
    seed: int
    fingerprint: str


def recipe_of(encoder: Encoder) -> Recipe:
    """What a worker needs to load this encoder itself; ``device="auto"`` is settled there."""
    own_folder = encoder.revision is None and not encoder.name.startswith("builtin:")
    return Recipe(
        str(encoder.folder) if own_folder else encoder.name,
        encoder._device,
        encoder.dtype,
        encoder.revision,
        encoder.random_seed is not None,
        encoder.random_seed or 0,
        encoder.fingerprint,
    )


@lru_cache(maxsize=1)
def encoder_of(recipe: Recipe) -> Encoder:
    """Load the encoder of a recipe, once in a process.

    Raises
    ------
    ValueError
        If the files or library versions found here make another encoder.
    """
    encoder = load_encoder(
        recipe.name,
        device=recipe.device,
        dtype=recipe.dtype,
        revision=recipe.revision,
        random_weights=recipe.random_weights,
        seed=recipe.seed,
    )
    if encoder.fingerprint != recipe.fingerprint:
        found = f"fingerprint {encoder.fingerprint[:12]}, the caller's is {recipe.fingerprint[:12]}"
        raise ValueError(f"encoder {recipe.name!r}: the worker has another one ({found}); give both the same files")
    return encoder
