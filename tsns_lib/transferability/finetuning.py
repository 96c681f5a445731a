"""Fine-tuning: what a model is trained from is its key, and a trained model is read and not trained again."""

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from tsns_lib.encoders import Encoder, _quiet
from tsns_lib.runtime.files import atomic, sha256_of
from tsns_lib.runtime.store import Store, StoreError
from tsns_lib.sampling import derive_seed
from tsns_lib.texts import content_hash, texts_of
from tsns_lib.transferability.finetuned import TENSORS, FineTuned, rows_of
from tsns_lib.transferability.own_encoders import identity_of

if TYPE_CHECKING:
    from torch import nn

# Counts up when the same key would give another model than before.
FINETUNING_VERSION = 1
METHODS = ("full", "adapter", "head")


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: AdamW without weight decay or warm-up, a rate that falls linearly to 0.

    The defaults are those of arXiv 2004.14975 but for the precision, which is ours.

    Attributes
    ----------
    epochs : int
        Passes over the rows.
    learning_rate : float
        At the start.
    batch_size : int
        Rows a step. (On 2 CPU cores 32 are trained twice as fast as 8, which is another recipe.)
    max_length : int
        Tokens kept of one input.
    clip : float
        Greatest norm of a gradient.
    dtype : {"bfloat16", "float32"}
        Precision of the matrix products; weights and optimizer are kept in float32.
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


def fine_tune(
    source: Any,
    encoder: Encoder,
    recipe: Recipe,
    *,
    seed: int,
    head_layer: int | None = None,
    tuned_layers: Sequence[int] | None = None,
    method: str = "full",
    prepare: "Callable[[nn.Module], nn.Module] | None" = None,
    n_rows: int | None = None,
    only_for: Any = None,
    store: Store | str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> FineTuned:
    """Train an encoder with a new head on a source, or read what was trained so before.

    A call that is killed goes on at its last checkpoint, of which there is one a minute, when it is repeated, and
    ends with the same bits. It trains on one device: where there are several GPUs, show it one.

    Parameters
    ----------
    source : Source
        Texts and labels.
    encoder : Encoder
        Where training starts; a copy is trained.
    recipe : Recipe
        How long and how fast.
    seed : int
        Of the head's weights, the sample of rows, their order and the dropout.
    head_layer : int, optional
        Layer, counted from 0, on whose first token the head stands; those above are dropped. Default: the last.
    tuned_layers : sequence of int, optional
        Layers that `method` tunes. Default: all that are kept and, for ``"full"``, the embeddings.
    method : {"full", "adapter", "head"}
        What is trained beside the head: whole layers; bottleneck adapters and LayerNorms of layers; or nothing
        (probing).
    prepare : functools.partial, optional
        What is done to the encoder first, such as ``partial(reinitialize, layers=[3, 4], seed=1)``: a function of
        a module that takes a model and returns another, with arguments that are JSON.
    n_rows : int, optional
        Train on as many rows, drawn by `seed`; fewer are some of more. Default: all.
    only_for : Source, or sequence of str, optional
        Keep the predictions for these texts in the place of the model, which takes 1.3 GB at BERT-large's size.
        Whoever asks for more later has it trained again. Default: keep the model.
    store : Store or path, optional
        Default: ``Store()``.
    progress : bool
        Whether to show a bar over the steps.

    Returns
    -------
    FineTuned

    Raises
    ------
    ValueError
        If an argument is not usable, the rows hold one class only, or a loss is not finite.
    StoreError
        If the cache is damaged or cannot be written.

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
    adapted = [] if method != "adapter" else tuned if tuned is not None else list(range(head_layer + 1))
    shape = {"head_layer": head_layer, "adapted": adapted, "n_classes": len(classes)}
    identity = {
        "encoder": encoder.fingerprint,
        "texts": content_hash(texts, pairs),
        "labels": hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest(),
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
    kept = np.sort(order[:n_rows])
    if len(found := np.unique(labels[kept])) < 2:
        raise ValueError(f"{source.name}: the {len(kept)} rows have one class only ({found[0]}); two are needed")
    return [texts[row] for row in kept], pairs and [pairs[row] for row in kept], labels[kept]


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
    prepare: "Callable[[nn.Module], nn.Module] | None",
    seed: int,
    progress: bool,
) -> None:
    """Train and write: tensors first, the losses, and the manifest last."""
    import torch
    from safetensors.torch import save

    from tsns_lib.transferability.training import train
    from tsns_lib.transferability.tuned_model import TunedModel, fresh_model

    entry, encoder = finetuned.entry, finetuned.start
    with _quiet():
        pristine = fresh_model(encoder)
        own = {f"encoder.{name}": tensor for name, tensor in pristine.state_dict().items()}
        start = fresh_model(encoder) if prepare is None else prepare(fresh_model(encoder))
        model = TunedModel(start, **finetuned.shape, seed=derive_seed(seed, "head"))
        model.to(encoder.device).train_only(method, tuned)
        checkpoints = entry.path / "checkpoints"
        options: dict[str, Any] = {"folder": checkpoints, "device": encoder.device, "progress": progress}
        losses, seconds = train(model, rows, encoder.tokenizer, finetuned.recipe, seed=seed, **options)
    if not np.isfinite(losses).all():
        shutil.rmtree(checkpoints, ignore_errors=True)
        raise ValueError(f"learning_rate={finetuned.recipe.learning_rate}: the loss is not finite; take a smaller one")
    # What the encoder's own folder holds is not stored again.
    changed = {
        name: tensor.cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name not in own or not torch.equal(own[name], tensor)
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
