"""Task-specific neuron selection: from texts to the neurons that matter, and to another domain.

The names below are the public ones. They load on first use, so that importing the package costs next to
nothing. Only the extraction of activations needs torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "load_source": "corpora.sources",
    "list_sources": "corpora.sources",
    "load_encoder": "encoders",
    "extract": "extraction",
    "forest_importance": "importance",
    "resampled_importance": "importance",
    "cumulative_importance": "importance",
    "meta_importance": "aggregation",
    "aggregate": "aggregation",
    "source_pairs": "aggregation",
    "water_fill": "sampling",
    "SingleTSNS": "selectors",
    "MultiTSNS": "selectors",
    "fingerprint": "fingerprints",
    "fingerprint_similarity": "fingerprints",
    "transfer_grid": "transfer",
    "TransferModel": "model",
    "hidden_state_variability": "transferability.variability",
    "logme": "transferability.logme",
    "text_embedding": "transferability.text_embedding",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tsns_lib' has no attribute {name!r}")
    return getattr(import_module(f"tsns_lib.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
