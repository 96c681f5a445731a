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


def seen_in_training(encoder: Any, source: Any) -> bool:
    """Say whether an encoder (or its name) was trained on a source or, of a union, on one of its members.

    A `Source` is known by its corpus, whatever it is called; of a name alone, the corpora of Table 1 are known. A
    generated source was seen by nobody, and of an encoder without a card nothing is known: both are False.

    Examples
    --------
    >>> seen_in_training("builtin:minilm", "qqp"), seen_in_training("builtin:minilm", "miniature:qqp")
    (True, False)
    >>> seen_in_training("builtin:minilm", "rte+mnli"), seen_in_training("bert-large-uncased", "qqp")
    (True, False)
    """
    known = card(encoder)
    if known is None:
        return False
    if isinstance(source, str):
        return any(name.removeprefix("hub:") in known["seen"] for name in source.split("+"))
    return not source.generated and source.origin.get("corpus", "").removeprefix("hub:") in known["seen"]


def marked(source: Any, encoder: Any = None) -> str:
    """Write a source, or a name, with † if the encoder was trained on it; of a union, each member.

    Examples
    --------
    >>> marked("rte+qqp", "builtin:minilm")
    'rte+qqp †'
    """
    if not isinstance(source, str):
        return f"{source.name} †" if encoder is not None and seen_in_training(encoder, source) else source.name
    if encoder is None:
        return source
    return "+".join(f"{name} †" if seen_in_training(encoder, name) else name for name in source.split("+"))


@cache
def _cards() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(files(__package__).joinpath("encoder_cards.yaml").read_text(encoding="utf-8"))
