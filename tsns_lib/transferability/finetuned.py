"""A fine-tuned model as it lies in the store: its losses, its predictions, and its encoder."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tsns_lib.encoders import Encoder, _quiet
from tsns_lib.forward import GPU_TOKEN_BUDGET, TOKEN_BUDGET, batches
from tsns_lib.runtime.files import sha256_of
from tsns_lib.runtime.store import Entry, Store, StoreError
from tsns_lib.texts import content_hash, texts_of
from tsns_lib.transferability.own_encoders import stored_encoder

if TYPE_CHECKING:
    from torch import Tensor

    from tsns_lib.transferability.tuned_model import TunedModel

TENSORS = "tensors.safetensors"


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A trained model in the store; made by `fine_tune`.

    Its folder holds the tensors that training or preparation changed; the others are in the encoder's.

    Attributes
    ----------
    entry : Entry
        Where it lies.
    start : Encoder
        What training started from.
    recipe : Recipe
        How it was trained.
    shape : dict
        `head_layer`, the layers `adapted` and `n_classes`.
    classes : ndarray
        Labels in the order of the logits.
    store : Store
        Where predictions and the encoder are kept as well.
    """

    entry: Entry
    start: Encoder
    recipe: Any
    shape: dict[str, Any]
    classes: np.ndarray
    store: Store

    @property
    def folder(self) -> Path:
        """The folder in the store."""
        return self.entry.path

    @cached_property
    def losses(self) -> np.ndarray:
        """Training loss of every step, in order: shape (steps,)."""
        return self.entry.read()

    @property
    def seconds(self) -> float:
        """What training took."""
        return float(self.entry.facts()["seconds"])

    @property
    def model(self) -> "TunedModel":
        """The trained model in evaluation mode and single precision, on the encoder's device.

        Of all models the one that was asked for last stays in memory.

        Raises
        ------
        StoreError
            If its file is missing or altered.
        """
        return _loaded(self)

    @property
    def is_trained(self) -> bool:
        """Whether it is in the store with its tensors."""
        return self.entry.is_finished(1) and (self.folder / TENSORS).is_file()

    def knows(self, source: Any) -> bool:
        """Whether the predictions for these texts are in the store, tensors or not."""
        return self.entry.is_finished(1) and self._predictions(*texts_of(source, None)).is_finished(1)

    def logits(self, source: Any) -> np.ndarray:
        """Outputs of the head for every text, read from the store where they are known.

        Parameters
        ----------
        source : Source, or sequence of str
            As `tsns_lib.extract` takes it.

        Returns
        -------
        ndarray of shape (n, n_classes), float32
        """
        texts, pairs = texts_of(source, None)
        entry = self._predictions(texts, pairs)
        if not entry.is_finished(1):
            entry.write(0, self._computed(rows_of(self.start, texts, pairs, self.recipe.max_length)))
            entry.finish(1)
        return entry.read()

    def predict(self, source: Any) -> np.ndarray:
        """The label of every text.

        Parameters
        ----------
        source : Source, or sequence of str
            As `tsns_lib.extract` takes it.

        Returns
        -------
        ndarray of shape (n,)
        """
        return self.classes[self.logits(source).argmax(axis=1)]

    def encoder(self) -> Encoder:
        """The trained layers as an encoder like any other: for extraction, or to train on.

        Raises
        ------
        ValueError
            If it has adapters, for which an encoder's folder has no place.
        """
        if self.shape["adapted"]:
            raise ValueError("encoder: a model with adapters is no plain encoder; tune with method='full'")
        return stored_encoder(self.start, lambda: self.model.encoder, {"finetuned": self.entry.key}, self.store)

    def _predictions(self, texts: list[str], pairs: list[str] | None) -> Entry:
        return self.store.entry("predictions", {"finetuned": self.entry.key, "texts": content_hash(texts, pairs)})

    def _computed(self, rows: list[dict[str, list[int]]]) -> np.ndarray:
        import torch

        device = self.start.device.partition(":")[0]
        lengths = np.array([len(row["input_ids"]) for row in rows])
        values = np.empty((len(rows), self.shape["n_classes"]), np.float32)
        budget = GPU_TOKEN_BUDGET if device == "cuda" else TOKEN_BUDGET[self.recipe.dtype]
        model = self.model  # loaded out here: a tensor made in inference mode could never have a gradient
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, self.recipe.dtype == "bfloat16"):
            for batch in batches(lengths, budget):
                inputs = padded(self.start, [rows[row] for row in batch])
                values[batch] = model(**inputs)["logits"].cpu().numpy()
        return values


@lru_cache(maxsize=1)
def _loaded(finetuned: FineTuned) -> "TunedModel":
    from safetensors.torch import load_file

    from tsns_lib.transferability.tuned_model import TunedModel, fresh_model

    path = finetuned.folder / TENSORS
    if not path.is_file() or sha256_of(path) != finetuned.entry.facts()["sha256"]:
        raise StoreError(f"{path}: is missing or not as it was written; delete {finetuned.folder} and run again")
    with _quiet():
        model = TunedModel(fresh_model(finetuned.start), **finetuned.shape, seed=0)
    model.load_state_dict(model.state_dict() | load_file(path))
    return model.to(finetuned.start.device).eval()


def rows_of(encoder: Encoder, texts: list[str], pairs: list[str] | None, max_length: int) -> list[dict[str, list[int]]]:
    """Tokens of every row, as a model takes them, without padding."""
    tokens = encoder.tokenizer(texts, pairs, truncation="longest_first", max_length=max_length)
    if encoder.config.get("type_vocab_size", 0) < 2:
        tokens.pop("token_type_ids", None)
    return [dict(zip(tokens, values, strict=True)) for values in zip(*tokens.values(), strict=True)]


def padded(encoder: Encoder, rows: list[dict[str, Any]]) -> "dict[str, Tensor]":
    """One batch of rows, on the encoder's device."""
    with _quiet():  # it would rather tokenise and pad at once
        batch = encoder.tokenizer.pad(rows, return_tensors="pt")
    return dict(batch.to(encoder.device))
