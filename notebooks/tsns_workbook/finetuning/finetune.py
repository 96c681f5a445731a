"""Fine-tuning an encoder: the recipe, the training, and the trained model in the store.

Everything that determines a trained model is its key, so a model that was trained before is read.
"""

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from tsns_lib.encoders import Encoder, quiet_transformers
from tsns_lib.extraction import GPU_TOKEN_BUDGET, TOKEN_BUDGET, batches, texts_digest, texts_of
from tsns_lib.sampling import derive_seed
from tsns_lib.store import Entry, Store, StoreError, atomic, content_hash, sha256_of
from tsns_workbook.finetuning.prepared import identity_of, stored_encoder

if TYPE_CHECKING:
    from torch import Tensor

    from tsns_workbook.finetuning.model import TunedModel
    from tsns_workbook.finetuning.prepared import Prepare

# Counts up when the same key would give another model than before.
FINETUNING_VERSION = 1
METHODS = ("full", "adapter", "head")
TENSORS = "tensors.safetensors"


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: AdamW without weight decay or warm-up, a rate that falls linearly to 0.

    The defaults are those of arXiv 2004.14975 but for the precision, which is ours. `batch_size` counts rows (on two
    CPU cores 32 are trained twice as fast as 8, which is another recipe), `max_length` the tokens kept of one input;
    `clip` is the greatest norm of a gradient. `dtype` is the precision of the matrix products; weights and optimizer
    are kept in float32.
    """

    epochs: int = 3
    learning_rate: float = 2e-5
    batch_size: int = 8
    max_length: int = 128
    clip: float = 1.0
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "max_length"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r}: expected a whole number of at least 1")
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"{name}={value!r}: expected a positive number")
        if self.dtype not in ("bfloat16", "float32"):
            raise ValueError(f"dtype={self.dtype!r}: expected 'bfloat16' or 'float32'")


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A trained model in the store; made by `fine_tune`.

    Its folder holds the tensors that training or preparation changed; the others are in the folder of the encoder
    `start`. `shape` are the arguments of `TunedModel`, `classes` the labels in the order of the logits.
    """

    entry: Entry
    start: Encoder
    recipe: Recipe
    shape: dict[str, Any]
    classes: np.ndarray
    store: Store

    @property
    def folder(self) -> Path:
        """The folder in the store."""
        return self.entry.path

    @cached_property
    def losses(self) -> np.ndarray:
        """Training loss of every step, in order."""
        return self.entry.read()

    @property
    def seconds(self) -> float:
        """How long training took."""
        return float(self.entry.facts()["seconds"])

    @property
    def model(self) -> "TunedModel":
        """The model in evaluation mode and single precision, on the encoder's device.

        Only one model stays in memory, the last that was asked for.
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
        """Outputs of the head for every text, (n, n_classes) float32, read from the store where they are known."""
        texts, pairs = texts_of(source, None)
        entry = self._predictions(texts, pairs)
        if not entry.is_finished(1):
            entry.write(0, self._compute_logits(rows_of(self.start, texts, pairs, self.recipe.max_length)))
            entry.finish(1)
        return entry.read()

    def predict(self, source: Any) -> np.ndarray:
        """The label of every text."""
        return self.classes[self.logits(source).argmax(axis=1)]

    def encoder(self) -> Encoder:
        """The trained layers as an encoder like any other: for extraction, or to train on."""
        if self.shape["adapted"]:
            raise ValueError("encoder: a model with adapters is no plain encoder; tune with method='full'")
        return stored_encoder(self.start, lambda: self.model.encoder, {"finetuned": self.entry.key}, self.store)

    def _predictions(self, texts: list[str], pairs: list[str] | None) -> Entry:
        return self.store.entry("predictions", {"finetuned": self.entry.key, "texts": texts_digest(texts, pairs)})

    def _compute_logits(self, rows: list[dict[str, list[int]]]) -> np.ndarray:
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

    from tsns_workbook.finetuning.model import TunedModel, fresh_model

    path = finetuned.folder / TENSORS
    if not path.is_file() or sha256_of(path) != finetuned.entry.facts()["sha256"]:
        raise StoreError(f"{path}: is missing or not as it was written; delete {finetuned.folder} and run again")
    with quiet_transformers():
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
    with quiet_transformers():  # the tokenizer warns that tokenising and padding at once would be faster
        batch = encoder.tokenizer.pad(rows, return_tensors="pt")
    return dict(batch.to(encoder.device))


def fine_tune(
    source: Any,
    encoder: Encoder,
    recipe: Recipe,
    *,
    seed: int,
    head_layer: int | None = None,
    tuned_layers: Sequence[int] | None = None,
    method: str = "full",
    prepare: "Prepare | None" = None,
    n_rows: int | None = None,
    only_for: Any = None,
    store: Store | str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> FineTuned:
    """Train a copy of an encoder with a new head on a source, or read the model where it was trained before.

    `seed` determines the head's weights, the sample of rows, their order and the dropout. The head reads the first
    token of `head_layer` (counted from 0; default: the last), and the layers above are dropped. `tuned_layers` are
    the layers that `method` tunes; default: all, and for ``"full"`` the embeddings too. ``"full"`` tunes whole layers,
    ``"adapter"`` bottleneck adapters and the LayerNorms, ``"head"`` the head alone (probing). `prepare` is done to
    the encoder first, as in `prepared_encoder`. `n_rows` draws a sample of the rows; a smaller sample is part of a
    larger one. With `only_for`, the predictions for its texts are kept and the model is not: at BERT-large's size
    it takes 1.3 GB, and it is trained again when other predictions are asked for. A checkpoint is written every
    minute; the same call after a kill goes on from the last one and ends with the same bits. Training uses one
    device: where there are several GPUs, make only one visible.

    Examples
    --------
    >>> from tsns_lib import load_encoder, load_source
    >>> books = load_source("miniature:books", limit=16)
    >>> tuned = fine_tune(books, load_encoder(), Recipe(epochs=1, max_length=16), seed=0, method="head", progress=False)
    >>> tuned.losses.shape, tuned.predict(books).shape
    ((2,), (16,))
    """
    texts, pairs, labels = _sample(source, n_rows, seed)
    head_layer = encoder.n_layers - 1 if head_layer is None else head_layer
    tuned = None if tuned_layers is None else sorted({int(number) for number in tuned_layers})
    _check(encoder, recipe, method, head_layer, tuned)
    classes = np.unique(labels)
    adapted: Sequence[int] = []
    if method == "adapter":
        adapted = list(range(head_layer + 1)) if tuned is None else tuned
    identity = {
        "encoder": encoder.digest,
        "texts": texts_digest(texts, pairs),
        "labels": content_hash([labels.astype("<i8").tobytes()]),
        "recipe": asdict(recipe),
        "seed": int(seed),
        "method": method,
        "head_layer": head_layer,
        "tuned_layers": tuned,
        "prepare": identity_of(prepare),
        "finetuning_version": FINETUNING_VERSION,
    }
    store = store if isinstance(store, Store) else Store(store)
    entry = store.entry("finetuned", identity)
    shape = {"head_layer": head_layer, "adapted": adapted, "n_classes": len(classes)}
    finetuned = FineTuned(entry, encoder, recipe, shape, classes, store)

    def is_known() -> bool:
        return finetuned.is_trained or (only_for is not None and finetuned.knows(only_for))

    if not is_known():
        entry.path.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.path / ".lock"):
            if not is_known():
                tokens = rows_of(encoder, texts, pairs, recipe.max_length)
                numbers = np.searchsorted(classes, labels).tolist()
                rows = [{**row, "labels": number} for row, number in zip(tokens, numbers, strict=True)]
                _train(finetuned, rows, method, tuned, prepare, int(seed), progress)
                if only_for is not None:
                    finetuned.logits(only_for)
                    (entry.path / TENSORS).unlink()
    return finetuned


def _sample(source: Any, n_rows: int | None, seed: int) -> tuple[list[str], list[str] | None, np.ndarray]:
    """Texts, pairs and labels to train on, in the source's order."""
    texts, pairs = texts_of(source, None)
    labels = source.frame["label"].to_numpy()
    if n_rows is not None and not 1 <= n_rows <= len(texts):
        raise ValueError(f"n_rows={n_rows}: expected 1 to {len(texts)}, the rows of {source.name}")
    order = np.random.default_rng(derive_seed(seed, "rows")).permutation(len(texts))
    drawn = np.sort(order[:n_rows])
    classes = np.unique(labels[drawn])
    if len(classes) < 2:
        raise ValueError(f"{source.name}: the {len(drawn)} rows have one class only ({classes[0]}); two are needed")
    return [texts[row] for row in drawn], pairs and [pairs[row] for row in drawn], labels[drawn]


def _check(encoder: Encoder, recipe: Recipe, method: str, head_layer: int, tuned: list[int] | None) -> None:
    if method not in METHODS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(METHODS)}")
    if not 0 <= head_layer < encoder.n_layers:
        raise ValueError(f"head_layer={head_layer}: expected 0 to {encoder.n_layers - 1} for {encoder.name}")
    if method == "head" and tuned is not None:
        raise ValueError("tuned_layers: method='head' tunes none")
    if tuned is not None and (not tuned or tuned[0] < 0 or tuned[-1] > head_layer):
        raise ValueError(f"tuned_layers={tuned}: expected layers from 0 to the head's, {head_layer}")
    if not 6 <= recipe.max_length <= encoder.max_tokens:
        raise ValueError(f"max_length={recipe.max_length}: expected 6 to {encoder.max_tokens} for {encoder.name}")


def _train(
    finetuned: FineTuned,
    rows: list[dict[str, Any]],
    method: str,
    tuned: list[int] | None,
    prepare: "Prepare | None",
    seed: int,
    progress: bool,
) -> None:
    """Train and write: tensors first, then the losses, and the manifest last."""
    import torch
    from safetensors.torch import save

    from tsns_workbook.finetuning.model import TunedModel, fresh_model
    from tsns_workbook.finetuning.training import train

    entry, encoder = finetuned.entry, finetuned.start
    checkpoints = entry.path / "checkpoints"
    with quiet_transformers():
        pretrained = {f"encoder.{name}": tensor for name, tensor in fresh_model(encoder).state_dict().items()}
        start = fresh_model(encoder) if prepare is None else prepare(fresh_model(encoder))
        model = TunedModel(start, **finetuned.shape, seed=derive_seed(seed, "head"))
        model.to(encoder.device).train_only(method, tuned)
        losses, seconds = train(
            model, rows, encoder, finetuned.recipe, seed=seed, checkpoints=checkpoints, progress=progress
        )
    if not np.isfinite(losses).all():
        shutil.rmtree(checkpoints, ignore_errors=True)
        raise ValueError(f"learning_rate={finetuned.recipe.learning_rate}: the loss is not finite; take a smaller one")
    # What the encoder's own folder holds is not stored again.
    changed = {
        name: tensor.cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name not in pretrained or not torch.equal(pretrained[name], tensor)
    }
    path = entry.path / TENSORS
    try:
        with atomic(path) as file:
            file.write(save(changed))
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; make room or set TSNS_CACHE to another folder") from error
    entry.write(0, np.array(losses))
    entry.finish(1, seconds=sum(seconds), n_rows=len(rows), tensors=sorted(changed), sha256=sha256_of(path))
    shutil.rmtree(checkpoints, ignore_errors=True)
