"""Fine-tuning an encoder: the recipe, the training, and the trained model in the store.

Everything that determines a trained model is its key, so a model that was trained before is read.
"""

import logging
import os
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from filelock import FileLock

from tsns_lib.corpora.sources import Source
from tsns_lib.encoders import DTYPES, Encoder, check_encoder, own_dtype, quiet_transformers
from tsns_lib.extraction import GPU_TOKEN_BUDGET, TOKEN_BUDGET, batches, encoded, texts_digest, texts_of
from tsns_lib.loaded import changed, remember
from tsns_lib.sampling import derive_seed
from tsns_lib.store import Entry, Store, StoreError, atomic, content_hash, sha256_of
from tsns_lib.store.files import once
from tsns_lib.validation import class_numbers, one_each, one_of, positive, whole_number
from tsns_workbook.finetuning.prepared import as_keyed, discard, drawn_by, identity_of, stored_encoder, writing

if TYPE_CHECKING:
    from torch import Tensor

    from tsns_workbook.finetuning.model import TunedModel
    from tsns_workbook.finetuning.prepared import Prepare

# Counts up when the same key would give another model than before.
FINETUNING_VERSION = 1
METHODS = ("full", "adapter", "head")
MOST_EPOCHS = 10_000  # a slip of the keys would train for years (our choice)
TENSORS = "tensors.safetensors"
CHECKPOINTS = "checkpoints"
# A model's hooks, gradients and mode are seen by all threads, so one at a time works with a trained model.
IN_USE = threading.RLock()
os.register_at_fork(after_in_child=IN_USE._at_fork_reinit)  # type: ignore[attr-defined]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: AdamW without weight decay or warm-up, a rate that falls linearly to 0.

    The defaults are those of arXiv 2004.14975 but for the precision, which is ours. `batch_size` counts rows (on two
    CPU cores 32 are trained twice as fast as 8, which is another recipe), `max_length` the tokens kept of one input;
    `clip` is the greatest norm of a gradient. `dtype` is the precision of the matrix products; "auto" is bfloat16 on a
    GPU or processor that computes in it. Weights and optimizer are kept in float32.
    """

    epochs: int = 3
    learning_rate: float = 2e-5
    batch_size: int = 8
    max_length: int = 128
    clip: float = 1.0
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        for name, most in (("epochs", MOST_EPOCHS), ("batch_size", None), ("max_length", None)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), most=most))
        for name in ("learning_rate", "clip"):
            object.__setattr__(self, name, positive(name, getattr(self, name)))
        dtype = one_of("dtype", self.dtype, (*DTYPES, "auto"))
        object.__setattr__(self, "dtype", own_dtype() if dtype == "auto" else dtype)


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A trained model in the store; made by `fine_tune`.

    Its folder holds the tensors that training or preparation changed; the others are in the folder of the encoder
    `start`. `shape` are the arguments of `TunedModel`, `classes` the labels of `source` in the order of the logits.
    """

    entry: Entry
    source: Source
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

        Only one model stays in memory, the last that was asked for. A ValueError says that it was changed since.
        """
        with IN_USE:  # its own hooks are no change
            loaded = _loaded(self)
            if changed(loaded):
                fault = "the model was changed after it was loaded; call fine_tune again, and change a copy"
                raise ValueError(f"{self.source.name}: {fault}")
            return loaded.model

    @property
    def is_trained(self) -> bool:
        """Whether it is in the store with its tensors, and these are as they were written."""
        return self.entry.is_finished(1) and self._has_its_tensors()

    def knows(self, source: Any) -> bool:
        """Whether the predictions for these texts are in the store, tensors or not."""
        return self.entry.is_finished(1) and self._predictions(*texts_of(source, None)).is_finished(1)

    def logits(self, source: Any) -> np.ndarray:
        """Outputs of the head for every text, (n, n_classes) float32, read from the store where they are known."""
        texts, pairs = texts_of(source, None)
        entry = self._predictions(texts, pairs)
        if not entry.is_finished(1):
            rows = rows_of(self.start, texts, pairs, self.recipe.max_length)
            with IN_USE:
                entry.write(0, self._compute_logits(self.model, rows))
            entry.finish(1)
        return entry.read()

    def predict(self, source: Any) -> np.ndarray:
        """The label of every text."""
        return self.classes[self.logits(source).argmax(axis=1)]

    def encoder(self) -> Encoder:
        """The trained layers as an encoder like any other: for extraction, or to train on."""
        if self.shape["adapted"]:
            raise ValueError("encoder: a model with adapters is no plain encoder; tune with method='full'")
        with IN_USE:  # before the lock of `quiet_transformers`, as everywhere
            return stored_encoder(self.start, lambda: self.model.encoder, {"finetuned": self.entry.key}, self.store)

    def _predictions(self, texts: list[str], pairs: list[str] | None) -> Entry:
        return self.store.entry("predictions", {"finetuned": self.entry.key, "texts": texts_digest(texts, pairs)})

    def _has_its_tensors(self) -> bool:
        try:
            return once(sha256_of, self.folder / TENSORS) == self.entry.facts().get("sha256")
        except OSError:
            return False

    def _compute_logits(self, model: "TunedModel", rows: list[dict[str, Any]]) -> np.ndarray:
        import torch

        device = self.start.device.partition(":")[0]
        lengths = np.array([len(row["input_ids"]) for row in rows])
        values = np.empty((len(rows), self.shape["n_classes"]), np.float32)
        budget = GPU_TOKEN_BUDGET if device == "cuda" else TOKEN_BUDGET[self.recipe.dtype]
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, self.recipe.dtype == "bfloat16"):
            for batch in batches(lengths, budget):
                inputs = padded(self.start, [rows[row] for row in batch])
                values[batch] = model(**inputs)["logits"].cpu().numpy()
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            reason = f"learning_rate={self.recipe.learning_rate}: the model's output for row {finite.argmin()}"
            raise ValueError(f"{reason} is not finite; take a smaller one")
        return values


@lru_cache(maxsize=1)
def _loaded(finetuned: FineTuned) -> Any:
    """The model as it was loaded, for `changed`."""
    import torch
    from safetensors.torch import load_file

    from tsns_workbook.finetuning.model import TunedModel, fresh_model

    path = finetuned.folder / TENSORS
    if not finetuned.is_trained:
        raise StoreError(f"{path}: is missing or not as it was written; call fine_tune again, which trains it again")
    with quiet_transformers(), torch.inference_mode(False):  # of the caller: its tensors count no writes
        model = TunedModel(fresh_model(finetuned.start), **finetuned.shape, seed=0)
        model.load_state_dict(model.state_dict() | load_file(path))
        vars(model)["config"] = model.encoder.config  # which `remember` reads, too
        loaded = SimpleNamespace(model=model.to(finetuned.start.device).eval())
    remember(loaded, "model")
    return loaded


def rows_of(encoder: Encoder, texts: list[str], pairs: list[str] | None, max_length: int) -> list[dict[str, list[int]]]:
    """Tokens of every row, as a model takes them, without padding."""
    tokens = encoded(encoder, texts, pairs, max_length)
    if encoder.config.get("type_vocab_size", 0) < 2:
        tokens.pop("token_type_ids", None)
    return [dict(zip(tokens, values, strict=True)) for values in zip(*tokens.values(), strict=True)]


def padded(encoder: Encoder, rows: list[dict[str, Any]]) -> "dict[str, Tensor]":
    """One batch of rows, on the encoder's device."""
    with quiet_transformers():  # the tokenizer warns that tokenising and padding at once would be faster
        batch = encoder.tokenizer.pad(rows, return_tensors="pt")
    return dict(batch.to(encoder.device))


@dataclass(frozen=True, eq=False)
class Training:
    """What a model is trained on, and how; `planned` checks all of it before any work."""

    source: Source
    encoder: Encoder
    recipe: Recipe
    texts: list[str]
    pairs: list[str] | None
    labels: np.ndarray
    seed: int
    method: str
    head_layer: int
    tuned_layers: list[int] | None
    prepare: "Prepare | None"

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the trained model."""
        return {
            "encoder": self.encoder.digest,
            "texts": texts_digest(self.texts, self.pairs),
            "labels": labels_digest(self.labels),
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "method": self.method,
            "head_layer": self.head_layer,
            "tuned_layers": self.tuned_layers,
            "prepare": identity_of(self.prepare),
            "finetuning_version": FINETUNING_VERSION,
            "versions": drawn_by(),
        }

    def model_in(self, store: Store) -> FineTuned:
        """The model that comes of it, trained or not."""
        classes = np.unique(self.labels)
        adapted: Sequence[int] = []
        if self.method == "adapter":
            adapted = list(range(self.head_layer + 1)) if self.tuned_layers is None else self.tuned_layers
        shape = {"head_layer": self.head_layer, "adapted": adapted, "n_classes": len(classes)}
        entry = store.entry("finetuned", self.identity)
        return FineTuned(entry, self.source, self.encoder, self.recipe, shape, classes, store)


def planned(
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
) -> Training:
    """Check the arguments of `fine_tune`, and say what it will train; nothing is loaded or written."""
    check_encoder(encoder)
    if not isinstance(recipe, Recipe):
        raise ValueError(f"recipe: expected a Recipe, got {type(recipe).__name__}")
    if not isinstance(source, Source):
        raise ValueError(
            f"source: expected texts with labels, as load_source returns them, got {type(source).__name__}"
        )
    labels = labels_of(source)
    seed, method = whole_number("seed", seed, least=0), one_of("method", method, METHODS)
    top = encoder.n_layers - 1
    head_layer = top if head_layer is None else whole_number("head_layer", head_layer, 0, top)
    tuned = None
    if tuned_layers is not None:
        if method == "head":
            raise ValueError("tuned_layers: method='head' tunes none")
        several = isinstance(tuned_layers, Collection) and np.iterable(tuned_layers)  # no generator: it is read twice
        if isinstance(tuned_layers, str) or not several or not len(tuned_layers):
            raise ValueError(f"tuned_layers: must be layers from 0 to the head's, {head_layer}, got {tuned_layers!r}")
        tuned = sorted({whole_number("tuned_layers", number, 0, head_layer) for number in tuned_layers})
    if not 6 <= recipe.max_length <= encoder.max_tokens:
        raise ValueError(f"max_length={recipe.max_length}: expected 6 to {encoder.max_tokens} for {encoder.name}")
    identity_of(prepare)
    sample = _sample(source, labels, n_rows, seed)
    return Training(source, encoder, recipe, *sample, seed, method, head_layer, tuned, prepare)


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
    options: dict[str, Any] = {"tuned_layers": tuned_layers, "method": method, "prepare": prepare, "n_rows": n_rows}
    training = planned(source, encoder, recipe, seed=seed, head_layer=head_layer, **options)
    finetuned = training.model_in(Store(store))

    def is_known() -> bool:
        return (only_for is not None and finetuned.knows(only_for)) or finetuned.is_trained

    if not is_known():
        with writing(finetuned.entry):
            if not is_known():
                _train(finetuned, training, only_for, progress)
    elif (checkpoints := finetuned.folder / CHECKPOINTS).is_dir():  # of a training killed at its end, or going on
        with suppress(OSError), FileLock(finetuned.folder / ".lock", timeout=0):
            discard(checkpoints)
    return finetuned


def labels_of(source: Any) -> np.ndarray:
    """The labels of a source: whole numbers or words, none of them missing, of two classes at least."""
    frame = getattr(source, "frame", None)
    if not isinstance(frame, pd.DataFrame) or "label" not in frame:
        kind = type(source).__name__
        raise ValueError(f"source: expected texts with labels, as load_source returns them, got {kind}")
    try:
        labels = one_each("label", frame["label"], len(frame), "label")
        class_numbers(labels, len(labels))
    except ValueError as error:
        raise ValueError(f"{source.name}: {error}") from None
    return labels


def labels_digest(labels: np.ndarray) -> str:
    """sha256 of labels by their content: the same for 1, 1.0 and True, another for "1"."""
    if labels.dtype.kind in "biuf":
        with np.errstate(invalid="ignore"):
            whole = labels.astype("<i8")
        if np.array_equal(whole, labels):  # else they are beyond 64 bits
            return content_hash([whole.tobytes()])
    return content_hash([repr(labels.tolist()).encode()])


def _sample(
    source: Any, labels: np.ndarray, n_rows: int | None, seed: int
) -> tuple[list[str], list[str] | None, np.ndarray]:
    """Texts, pairs and labels to train on, in the source's order."""
    texts, pairs = texts_of(source, None)
    if n_rows is not None and whole_number("n_rows", n_rows) > len(texts):
        raise ValueError(f"n_rows={n_rows}: expected 1 to {len(texts)}, the rows of {source.name}")
    order = np.random.default_rng(derive_seed(seed, "rows")).permutation(len(texts))
    drawn = np.sort(order[:n_rows])
    classes = np.unique(labels[drawn])
    if len(classes) < 2:
        raise ValueError(f"{source.name}: the {len(drawn)} rows have one class only ({classes[0]}); two are needed")
    return [texts[row] for row in drawn], pairs and [pairs[row] for row in drawn], labels[drawn]


def _train(finetuned: FineTuned, training: Training, only_for: Any, progress: bool) -> None:
    """Train, and write what was asked for: tensors or predictions first, then the losses, and the manifest last."""
    import torch
    from safetensors.torch import save

    from tsns_workbook.finetuning.model import TunedModel, fresh_model
    from tsns_workbook.finetuning.training import train

    entry, encoder, recipe = finetuned.entry, training.encoder, training.recipe
    path, checkpoints = entry.path / TENSORS, entry.path / CHECKPOINTS
    if path.is_dir():
        raise StoreError(f"{path}: is a folder where a file is to be written; delete it and run again")
    if checkpoints.exists() and not checkpoints.is_dir():
        raise StoreError(f"{checkpoints}: is a file where a folder is to be made; delete it and run again")
    if path.is_file():  # were it what the manifest says, there would be nothing to train
        if entry.is_finished(1) and "sha256" in entry.facts():  # else it was killed before it could promise them
            log.warning("%s: is not as it was written; the model is trained again", path)
        path.unlink()
    tokens = rows_of(encoder, training.texts, training.pairs, recipe.max_length)
    numbers = np.searchsorted(finetuned.classes, training.labels).tolist()
    rows: list[dict[str, Any]] = [{**row, "labels": number} for row, number in zip(tokens, numbers, strict=True)]
    unseen = None if only_for is None else texts_of(only_for, None)
    tried = tokens[: recipe.batch_size] if unseen is None else rows_of(encoder, *unseen, recipe.max_length)
    # Other threads wait here: PyTorch's generator, which training seeds, is theirs too. A caller may compute without
    # gradients.
    with quiet_transformers(), torch.inference_mode(False), torch.enable_grad():
        start = fresh_model(encoder)
        pretrained = {f"encoder.{name}": tensor.clone() for name, tensor in start.state_dict().items()}
        if training.prepare is not None:
            start = as_keyed(training.prepare)(start)
        model = TunedModel(start, **finetuned.shape, seed=derive_seed(training.seed, "head"))
        model.to(encoder.device).train_only(training.method, training.tuned_layers)
        options: dict[str, Any] = {"seed": training.seed, "checkpoints": checkpoints, "progress": progress}
        try:
            losses, seconds = train(model, rows, encoder, recipe, **options)
            outputs = finetuned._compute_logits(model.eval(), tried)
        except ValueError:  # something is not finite, and from a checkpoint it would be so again
            discard(checkpoints)
            raise
    # What the encoder's own folder holds is not stored again.
    changed = {
        name: tensor.cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name not in pretrained or not torch.equal(pretrained[name], tensor)
    }
    facts: dict[str, Any] = {"seconds": sum(seconds), "n_rows": len(rows), "tensors": sorted(changed)}
    if unseen is None:
        try:
            with atomic(path) as file:
                file.write(save(changed))
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}; make room or set TSNS_CACHE to another folder") from error
        facts["sha256"] = sha256_of(path)
    else:  # the model itself never reaches the disk, so that a kill leaves none
        predictions = finetuned._predictions(*unseen)
        predictions.write(0, outputs)
        predictions.finish(1)
    entry.write(0, np.array(losses))
    entry.finish(1, **facts)
    discard(checkpoints)
