"""Cards of encoders: how one was trained, and on what; a corpus that it has seen is marked wherever it is shown."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml


def card(encoder: Any) -> dict[str, Any] | None:
    """What `encoder_cards.yaml` says of an encoder (or of its name); None where it knows neither name nor weights."""
    if getattr(encoder, "random_seed", None) is not None:
        return None
    name = encoder if isinstance(encoder, str) else encoder.name
    weights = getattr(encoder, "files", {}).get("model.safetensors", name)
    return next((card for card in _cards().values() if name in card["names"] or card.get("weights") == weights), None)


def seen_in_training(encoder: Any, source: str) -> bool:
    """Say whether an encoder (or its name) was trained on a source or, of a union, on one of its members.

    A generated source was seen by nobody, and of an encoder without a card nothing is known: both are False.

    Examples
    --------
    >>> seen_in_training("builtin:minilm", "qqp"), seen_in_training("builtin:minilm", "miniature:qqp")
    (True, False)
    >>> seen_in_training("builtin:minilm", "rte+mnli"), seen_in_training("bert-large-uncased", "qqp")
    (True, False)
    """
    known = card(encoder)
    return known is not None and any(name.removeprefix("hub:") in known["seen"] for name in source.split("+"))


def marked(source: str, encoder: Any = None) -> str:
    """Write a source with † if the encoder was trained on it; of a union, each member.

    Examples
    --------
    >>> marked("rte+qqp", "builtin:minilm")
    'rte+qqp †'
    """
    if encoder is None:
        return source
    return "+".join(f"{name} †" if seen_in_training(encoder, name) else name for name in source.split("+"))


@cache
def _cards() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(files(__package__).joinpath("encoder_cards.yaml").read_text(encoding="utf-8"))
