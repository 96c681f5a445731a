"""Texts as an encoder takes them: unpacked from what brings them, checked row by row, named by their content."""

import hashlib
from collections.abc import Sequence
from typing import Any


def texts_of(texts_or_source: Any, text_pairs: Sequence[str] | None) -> tuple[list[str], list[str] | None]:
    """Unpack and check; every fault is named by its row."""
    if hasattr(texts_or_source, "frame"):
        if text_pairs is not None:
            raise ValueError("text_pairs: a Source brings its own pairs, pass one or the other")
        frame = texts_or_source.frame
        texts_or_source = frame["text"]
        text_pairs = None if frame["text_pair"].isna().all() else frame["text_pair"]
    if isinstance(texts_or_source, str) or isinstance(text_pairs, str):
        raise ValueError("texts: expected a sequence of texts, got one string")
    texts = _checked("text", texts_or_source)
    if text_pairs is None:
        return texts, None
    pairs = _checked("text_pair", text_pairs)
    if len(pairs) != len(texts):
        raise ValueError(f"text_pairs: {len(pairs)} rows for {len(texts)} texts")
    return texts, pairs


def _checked(name: str, values: Any) -> list[str]:
    texts = list(values)
    if not texts:
        raise ValueError(f"{name}: no rows")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{name}, row {row}: expected a string, got {type(text).__name__} {text!r}")
        if not text.strip():
            raise ValueError(f"{name}, row {row}: empty")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name}, row {row}: not valid Unicode (a lone surrogate)") from None
    return texts


def content_hash(texts: list[str], pairs: list[str] | None) -> str:
    """sha256 over all rows; lengths keep apart what concatenation would join."""
    digest = hashlib.sha256(b"singles" if pairs is None else b"pairs")
    for column in (texts, pairs or []):
        for text in column:
            content = text.encode()
            digest.update(len(content).to_bytes(8, "little"))
            digest.update(content)
    return digest.hexdigest()
