"""How alike the sources of one task are, and those of two.

The diagonal of the empirical Fisher information of a model's components, from whole batches at a time.

TaskEmb: a task as the Fisher information of a model fine-tuned on it, and how rankings are fused.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tsns_lib.executors import bar
from tsns_lib.extraction import GPU_TOKEN_BUDGET, TOKEN_BUDGET, batches, texts_hash, texts_of
from tsns_lib.sampling import derive_seed
from tsns_lib.store import Store
from tsns_workbook.finetuning.finetune import FineTuned, padded, rows_of
from tsns_workbook.statistics import PERCENTILES, Interval

if TYPE_CHECKING:
    from torch import Tensor

    from tsns_workbook.finetuning.model import TunedModel

N_PERMUTATIONS = 4_999


def similarity_frame(names: Sequence[str], similarity: Callable[[str, str], float]) -> pd.DataFrame:
    """A similarity of every two sources as a matrix.

    Parameters
    ----------
    names : sequence of str
        Sources.
    similarity : callable
        Takes two names.

    Returns
    -------
    pandas.DataFrame
        Sources down and across.

    Examples
    --------
    >>> similarity_frame(["a", "b"], lambda x, y: float(x == y)).to_numpy().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return pd.DataFrame([[similarity(a, b) for b in names] for a in names], list(names), list(names))


def kinship(similarity: pd.DataFrame, tasks: Mapping[str, str], *, seed: int = 0) -> Interval:
    """Mean similarity of two sources of one task less that of two tasks, times 100.

    The interval is the estimate less the middle 95 % of what permuted tasks give: it lies above 0 where the estimate
    exceeds 97.5 % of them.

    Parameters
    ----------
    similarity : pandas.DataFrame
        As `similarity_frame` gives it.
    tasks : mapping of str to str
        Task of every source.
    seed : int
        Of the permutations.

    Returns
    -------
    Interval

    Raises
    ------
    ValueError
        If there are not two tasks, or none has two sources.
    """
    _, numbers = np.unique([tasks[name] for name in similarity.index], return_inverse=True)
    pairs = np.triu_indices(len(numbers), 1)
    together = numbers[pairs[0]] == numbers[pairs[1]]
    if together.all() or not together.any():
        raise ValueError(f"tasks: need two, one of them with two sources, got {sorted(set(tasks.values()))}")
    values = 100 * similarity.to_numpy()[pairs]
    rng = np.random.default_rng(derive_seed(seed, "kinship"))
    orders = rng.permuted(np.tile(numbers, (N_PERMUTATIONS, 1)), axis=1)
    kin = orders[:, pairs[0]] == orders[:, pairs[1]]
    null = (kin * values).sum(axis=1) / kin.sum(axis=1) - (~kin * values).sum(axis=1) / (~kin).sum(axis=1)
    estimate = float(values[together].mean() - values[~together].mean())
    low, high = np.percentile(null, PERCENTILES)
    return Interval(estimate, float(estimate - high), float(estimate - low))


FORMS = ("paper", "released")


def fisher(model: "TunedModel", inputs: "Iterable[dict[str, Tensor]]", *, form: str = "paper") -> dict[str, np.ndarray]:
    """Squared gradients of every component, from one backward pass a batch.

    Parameters
    ----------
    model : TunedModel
        In evaluation mode; its weights are not changed.
    inputs : iterable of dict
        Padded batches with class numbers under ``"labels"``.
    form : {"paper", "released"}
        As in `task_embedding`.

    Returns
    -------
    dict of str to ndarray
        As `task_embedding`.
    """
    import torch

    from tsns_workbook.finetuning.model import layers_of

    model.requires_grad_(True)
    outputs: dict[str, Tensor] = {}
    entering: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, args: tuple[torch.Tensor, ...], output: Any) -> None:
            outputs[name] = output[0] if isinstance(output, tuple) else output
            if name.endswith(".weight"):
                entering[name] = args[0].detach()

        return hook

    handles = [model.head.tanh.register_forward_hook(keep("pooled"))]
    for number, layer in enumerate(layers_of(model.encoder)):
        handles.append(layer.register_forward_hook(keep(f"layer.{number}.output")))
        for name, module in layer.named_modules():
            if isinstance(module, torch.nn.Linear):
                handles.append(module.register_forward_hook(keep(f"layer.{number}.{name}.weight")))
    sums: dict[str, Tensor] = {}
    n_rows = n_batches = 0
    try:
        for batch in inputs:
            size, mask = len(batch["labels"]), batch["attention_mask"]
            # the sum's gradient at a row's own states is that of its own loss
            loss = model(**batch)["loss"] * size
            for name, gradient in zip(outputs, torch.autograd.grad(loss, list(outputs.values())), strict=True):
                squares = _squares(gradient, entering.get(name), mask, form)
                sums[name] = sums[name] + squares if name in sums else squares
            n_rows, n_batches = n_rows + size, n_batches + 1
    finally:
        for handle in handles:
            handle.remove()
    count = {name: n_batches if form == "released" and name in entering else n_rows for name in sums}
    return {name: (total / count[name]).flatten().cpu().numpy() for name, total in sorted(sums.items())}


def _squares(gradient: "Tensor", entering: "Tensor | None", mask: "Tensor", form: str) -> "Tensor":
    """Sum over a batch of what one component contributes, given the gradient of the summed loss at its output."""
    import torch

    size = len(gradient)
    if form == "released":
        gradient = gradient / size
    if entering is None:
        squares = gradient.square()
        if gradient.ndim == 3:
            squares = torch.einsum("rth,rt->rh", squares, mask / mask.sum(dim=1, keepdim=True))
        return squares.sum(dim=0)
    if form == "released":
        return torch.einsum("rto,rti->oi", gradient, entering).square()
    return torch.einsum("rto,rti->roi", gradient, entering).square().sum(dim=0)


CURVE_POSITIONS = (0.1, 0.2, 0.3, 0.5, 0.7)  # of training
FUSION = 60


def task_embedding(
    finetuned: FineTuned,
    source: Any,
    *,
    form: str = "paper",
    components: Sequence[str] | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> dict[str, np.ndarray]:
    """Diagonal of the empirical Fisher information of a fine-tuned model on its task (arXiv 2005.00770).

    The gradient is that of the log likelihood of the true label, with dropout off and in single precision.

    Parameters
    ----------
    finetuned : FineTuned
        As `fine_tune` gives it.
    source : Source
        Labelled rows, of the classes it was trained on; take some with ``load_source(..., limit=...)``.
    form : {"paper", "released"}
        Squares of each row's gradient, averaged over rows; or, as the released code does, squares of the gradient
        of a batch's mean loss, averaged over batches: its value depends on the batches, which here are the
        recipe's ``batch_size`` rows in the source's order.
    components : sequence of str, optional
        Which to return. Default: all, see Returns.
    store : Store or path, optional
        Default: ``Store()``.
    progress : bool
        Whether to show a bar over the rows.

    Returns
    -------
    dict of str to ndarray
        ``"layer.0.attention.self.query.weight"`` and every other weight matrix of a layer, flat;
        ``"layer.0.output"`` and every other layer's output, averaged over the tokens of a row: (hidden,);
        ``"pooled"``, the head's state after its tanh: (hidden,). Which of a layer's outputs the paper takes, and
        that it averages their squares over tokens, is from memory and not verified.

    Raises
    ------
    ValueError
        If `form` or a component is unknown, or a label is none of the model's.
    StoreError
        If the cache is damaged or cannot be written.

    Examples
    --------
    >>> from tsns_lib import load_encoder, load_source
    >>> from tsns_workbook.finetuning.finetune import Recipe, fine_tune
    >>> books, recipe = load_source("miniature:books", limit=16), Recipe(epochs=1, max_length=16)
    >>> tuned = fine_tune(books, load_encoder(), recipe, seed=0, method="head", progress=False)
    >>> task_embedding(tuned, books, components=["pooled"], progress=False)["pooled"].shape
    (384,)
    """
    if form not in FORMS:
        raise ValueError(f"form={form!r}: expected 'paper' or 'released'")
    texts, pairs = texts_of(source, None)
    labels = source.frame["label"].to_numpy()
    if len(strange := np.setdiff1d(labels, finetuned.classes)):
        raise ValueError(f"{source.name}: label {strange[0]} is none of the model's, {finetuned.classes.tolist()}")
    numbers = np.searchsorted(finetuned.classes, labels)
    identity = {
        "finetuned": finetuned.entry.key,
        "texts": texts_hash(texts, pairs),
        "classes": numbers.tolist(),
        "form": form,
    }
    entry = (store if isinstance(store, Store) else Store(store)).entry("task_embeddings", identity)
    if not entry.is_finished(1):
        tokens = rows_of(finetuned.start, texts, pairs, finetuned.recipe.max_length)
        rows = [{**row, "labels": int(number)} for row, number in zip(tokens, numbers, strict=True)]
        found = _embedding_of(finetuned, rows, form, progress)
        entry.write(0, np.concatenate(list(found.values())))
        entry.finish(1, sizes={name: len(vector) for name, vector in found.items()})
    sizes: dict[str, int] = entry.facts()["sizes"]
    vectors = dict(zip(sizes, np.split(entry.read(), np.cumsum(list(sizes.values()))[:-1]), strict=True))
    for name in components or ():
        if name not in vectors:
            raise ValueError(f"components: {name!r} is none of {', '.join(vectors):.200}")
    return vectors if components is None else {name: vectors[name] for name in components}


def _embedding_of(finetuned: FineTuned, rows: list[dict[str, Any]], form: str, progress: bool) -> dict[str, np.ndarray]:
    encoder = finetuned.start
    lengths = np.array([len(row["input_ids"]) for row in rows])
    budget = GPU_TOKEN_BUDGET if encoder.device.startswith("cuda") else TOKEN_BUDGET["float32"]
    # for the paper's form batches are a matter of speed only
    size = finetuned.recipe.batch_size
    groups = (
        list(batches(lengths, budget))
        if form == "paper"
        else [np.arange(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
    )
    with bar(groups, show=progress, desc="Fisher information", unit="batch") as shown:
        return fisher(finetuned.model, (padded(encoder, [rows[row] for row in group]) for group in shown), form=form)


def rank_sources(target: Mapping[str, np.ndarray], sources: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Rank sources by the cosine of each component's vectors, and fuse the components' rankings.

    Parameters
    ----------
    target : mapping of str to ndarray
        Task embedding of the target.
    sources : mapping of str to mapping
        Task embeddings by name, with the target's components.

    Returns
    -------
    dict of str to float
        Fused score by name, the best first.

    Examples
    --------
    >>> near, far = {"pooled": np.array([1.0, 0.1])}, {"pooled": np.array([0.0, 1.0])}
    >>> list(rank_sources({"pooled": np.array([1.0, 0.0])}, {"far": far, "near": near}))
    ['near', 'far']
    """
    cosines = {
        name: {part: _cosine(vector, embedding[part]) for part, vector in target.items()}
        for name, embedding in sources.items()
    }
    return reciprocal_rank_fusion([sorted(sources, key=lambda name: -cosines[name][part]) for part in target])


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), np.finfo(float).tiny))


def reciprocal_rank_fusion(rankings: Iterable[Sequence[str]]) -> dict[str, float]:
    """Fuse rankings: Σ 1 / (60 + rank), where the best has rank 1 (arXiv 2005.00770).

    Parameters
    ----------
    rankings : iterable of sequences
        Names of sources, the best first.

    Returns
    -------
    dict of str to float
        The best first.

    Raises
    ------
    ValueError
        If there is no ranking, or two rank different names.

    Examples
    --------
    >>> reciprocal_rank_fusion([["a", "b", "c"], ["b", "a", "c"], ["b", "c", "a"]])
    {'b': 0.0489..., 'a': 0.0483..., 'c': 0.0478...}
    """
    lists = [list(ranking) for ranking in rankings]
    if not lists:
        raise ValueError("rankings: there is none")
    for ranking in lists:
        if len(set(ranking)) != len(ranking) or set(ranking) != set(lists[0]):
            raise ValueError(f"rankings: {ranking} does not rank the same names once as {lists[0]}")
    scores = {name: sum(1 / (FUSION + 1 + ranking.index(name)) for ranking in lists) for name in lists[0]}
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def curve_gradient(losses: ArrayLike) -> np.ndarray:
    """Slope of a loss curve at 10, 20, 30, 50 and 70 % of training (CurveGrad).

    The slope is that of a straight line fitted to the tenth of the steps around the position, since single batches
    are noisy (our choice).

    Parameters
    ----------
    losses : array of shape (steps,)
        Training loss of every step, such as ``FineTuned.losses``.

    Returns
    -------
    ndarray of shape (5,)
        Change of the loss over a whole training at that pace.

    Raises
    ------
    ValueError
        If there are fewer than 20 steps, or one is not finite.

    Examples
    --------
    >>> curve_gradient(np.linspace(3.0, 1.0, 100)).round(2)
    array([-2.02, -2.02, -2.02, -2.02, -2.02])
    """
    curve = np.asarray(losses, dtype=float)
    if curve.ndim != 1 or len(curve) < 20:
        raise ValueError(f"losses: need at least 20 steps, got shape {curve.shape}")
    if not np.isfinite(curve).all():
        raise ValueError(f"losses: step {np.isfinite(curve).argmin()} is not finite")
    time = (np.arange(len(curve)) + 0.5) / len(curve)
    around = [np.abs(time - position) <= 0.05 + 1e-9 for position in CURVE_POSITIONS]
    return np.array([np.polyfit(time[chosen], curve[chosen], 1)[0] for chosen in around])
