"""Task embeddings (notebook 12): Fisher information of tuned models, learning curves, and what is near to what."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tsns_lib.executors import bar
from tsns_lib.extraction import GPU_TOKEN_BUDGET, TOKEN_BUDGET, batches, texts_digest, texts_of
from tsns_lib.fingerprints import cosine
from tsns_lib.sampling import derive_seed
from tsns_lib.store import Store
from tsns_lib.validation import matrix, numbers, one_of
from tsns_workbook.finetuning.finetune import IN_USE, FineTuned, padded, rows_of
from tsns_workbook.report import Interval
from tsns_workbook.statistics import PERCENTILES

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tsns_workbook.finetuning.model import TunedModel

FORMS = ("paper", "released")
CURVE_POSITIONS = (0.1, 0.2, 0.3, 0.5, 0.7)  # of training
FUSION = 60
N_PERMUTATIONS = 4_999

Relation = Callable[[str, str], float]  # of the names of a source and a target


# the vectors of a task


def task_embedding(
    finetuned: FineTuned,
    source: Any,
    *,
    form: str = "paper",
    components: Sequence[str] | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> dict[str, np.ndarray]:
    """Diagonal of the empirical Fisher information of a fine-tuned model on labelled rows (arXiv 2005.00770).

    The gradient is taken of the log likelihood of the true label, with dropout off and in single precision. The
    paper's form squares the gradient of each row and averages over rows. The released code squares the gradient of a
    batch's mean loss and averages over batches, so its value depends on the batches: here the recipe's
    ``batch_size`` rows in the source's order. Components are every weight matrix of a layer, flat, such as
    ``"layer.0.attention.self.query.weight"``; every layer's output, such as ``"layer.0.output"``, averaged over the
    tokens of a row; and ``"pooled"``, the head's state after its tanh. Which of a layer's outputs the paper takes, and
    that it averages their squares over tokens, is from memory and not verified.

    Examples
    --------
    >>> from tsns_lib import load_encoder, load_source
    >>> from tsns_workbook.finetuning.finetune import Recipe, fine_tune
    >>> books, recipe = load_source("miniature:books", limit=16), Recipe(epochs=1, max_length=16)
    >>> tuned = fine_tune(books, load_encoder(), recipe, seed=0, method="head", progress=False)
    >>> task_embedding(tuned, books, components=["pooled"], progress=False)["pooled"].shape
    (384,)
    """
    one_of("form", form, FORMS)
    texts, pairs = texts_of(source, None)
    known = {label: number for number, label in enumerate(finetuned.classes.tolist())}
    labels = source.frame["label"].tolist()
    for row, label in enumerate(labels):
        if label not in known:
            raise ValueError(f"{source.name}: row {row}, label {label!r:.40} is none of the model's, {[*known]}")
    classes = [known[label] for label in labels]
    identity = {
        "finetuned": finetuned.entry.key,
        "texts": texts_digest(texts, pairs),
        "classes": classes,
        "form": form,
    }
    entry = Store(store).entry("task_embeddings", identity)
    if not entry.is_finished(1):
        _check_components(components, _modules(finetuned.model))
        tokens = rows_of(finetuned.start, texts, pairs, finetuned.recipe.max_length)
        rows = [{**row, "labels": number} for row, number in zip(tokens, classes, strict=True)]
        computed = _fisher_of_rows(finetuned, rows, form, progress)
        entry.write(0, np.concatenate(list(computed.values())))
        entry.finish(1, sizes={name: len(vector) for name, vector in computed.items()})
    sizes: dict[str, int] = entry.facts()["sizes"]
    _check_components(components, sizes)
    vectors = dict(zip(sizes, np.split(entry.read(), np.cumsum(list(sizes.values()))[:-1]), strict=True))
    return vectors if components is None else {name: vectors[name] for name in components}


def _check_components(components: Sequence[str] | None, known: Iterable[str]) -> None:
    names = sorted(known)
    if isinstance(components, str):
        raise ValueError(f"components: expected a list of names, got {components!r}")
    for name in components or ():
        if name not in names:
            raise ValueError(f"components: {name!r} is none of {', '.join(names):.200}")


def _fisher_of_rows(
    finetuned: FineTuned, rows: list[dict[str, Any]], form: str, progress: bool
) -> dict[str, np.ndarray]:
    encoder, size = finetuned.start, finetuned.recipe.batch_size
    if form == "paper":  # the batches are a matter of speed only
        budget = GPU_TOKEN_BUDGET if encoder.device.startswith("cuda") else TOKEN_BUDGET["float32"]
        groups = list(batches(np.array([len(row["input_ids"]) for row in rows]), budget))
    else:
        groups = np.split(np.arange(len(rows)), range(size, len(rows), size))
    with bar(groups, show=progress, desc="Fisher information", unit="batch") as shown:
        return fisher(finetuned.model, (padded(encoder, [rows[row] for row in group]) for group in shown), form=form)


def fisher(model: "TunedModel", inputs: "Iterable[dict[str, Tensor]]", *, form: str = "paper") -> dict[str, np.ndarray]:
    """Squared gradients of every component of `task_embedding`, from one backward pass for each padded batch.

    The model is put in evaluation mode; a batch holds class numbers under ``"labels"``. Other threads wait: the hooks
    would note their states too.
    """
    with IN_USE:
        return _fisher(model.eval().requires_grad_(True), inputs, form)


def _modules(model: "TunedModel") -> "dict[str, nn.Module]":
    """The module whose output every component of `task_embedding` is taken at."""
    import torch

    from tsns_workbook.finetuning.model import layers_of

    modules: dict[str, nn.Module] = {"pooled": model.head.tanh}
    for number, layer in enumerate(layers_of(model.encoder)):
        modules[f"layer.{number}.output"] = layer
        for name, module in layer.named_modules():
            if isinstance(module, torch.nn.Linear):
                modules[f"layer.{number}.{name}.weight"] = module
    return modules


def _fisher(model: "TunedModel", inputs: "Iterable[dict[str, Tensor]]", form: str) -> dict[str, np.ndarray]:
    import torch

    outputs: dict[str, Tensor] = {}
    entering: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, args: tuple[torch.Tensor, ...], output: Any) -> None:
            outputs[name] = output[0] if isinstance(output, tuple) else output
            if name.endswith(".weight"):
                entering[name] = args[0].detach()

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in _modules(model).items()]
    sums: dict[str, Tensor] = {}
    n_rows = n_batches = 0
    try:
        for batch in inputs:
            size, mask = len(batch["labels"]), batch["attention_mask"]
            # at the states of one row, the gradient of the summed loss is the gradient of that row's loss
            loss = model(**batch)["loss"] * size
            for name, gradient in zip(outputs, torch.autograd.grad(loss, list(outputs.values())), strict=True):
                squares = _squares(gradient, entering.get(name), mask, form)
                sums[name] = sums[name] + squares if name in sums else squares
            n_rows, n_batches = n_rows + size, n_batches + 1
    finally:
        for handle in handles:
            handle.remove()
    if not n_batches:
        raise ValueError("inputs: no batch")
    for name, total in sums.items():
        if not torch.isfinite(total).all():
            raise ValueError(f"{name}: a squared gradient is not finite; the model's values are too large")
    count = {name: n_batches if form == "released" and name in entering else n_rows for name in sums}
    return {name: (total / count[name]).flatten().cpu().numpy() for name, total in sorted(sums.items())}


def _squares(gradient: "Tensor", entering: "Tensor | None", mask: "Tensor", form: str) -> "Tensor":
    """Sum over a batch of the squares of one component, given the gradient of the summed loss at its output."""
    import torch

    if form == "released":
        gradient = gradient / len(gradient)
    if entering is None:
        squares = gradient.square()
        if gradient.ndim == 3:
            squares = torch.einsum("rth,rt->rh", squares, mask / mask.sum(dim=1, keepdim=True))
        return squares.sum(dim=0)
    if form == "released":
        return torch.einsum("rto,rti->oi", gradient, entering).square()
    return torch.einsum("rto,rti->roi", gradient, entering).square().sum(dim=0)


def curve_gradient(losses: ArrayLike) -> np.ndarray:
    """Slope of a loss curve at 10, 20, 30, 50 and 70 % of training (CurveGrad), in loss per whole training.

    Single batches are noisy, so a straight line is fitted to the tenth of the steps around each position (our choice).

    Examples
    --------
    >>> curve_gradient(np.linspace(3.0, 1.0, 100)).round(2)
    array([-2.02, -2.02, -2.02, -2.02, -2.02])
    """
    curve = numbers("losses", losses, "the loss of every step").astype(float)
    if curve.ndim != 1 or len(curve) < 20:
        raise ValueError(f"losses: need at least 20 steps, got shape {curve.shape}")
    if not np.isfinite(curve).all():
        raise ValueError(f"losses: step {np.isfinite(curve).argmin()} is not finite")
    time = (np.arange(len(curve)) + 0.5) / len(curve)
    around = [np.abs(time - position) <= 0.05 + 1e-9 for position in CURVE_POSITIONS]
    slopes = np.array([np.polyfit(time[steps], curve[steps], 1)[0] for steps in around])
    if not np.isfinite(slopes).all():
        raise ValueError("losses: are too large for a slope")
    return slopes


# what is near to what


def mean_cosine(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> float:
    """The cosine of two task embeddings, averaged over their components."""
    if not a:
        raise ValueError("embeddings: there is no component")
    return float(np.mean([_likeness(component, vector, b) for component, vector in a.items()]))


def _likeness(component: str, vector: np.ndarray, other: Mapping[str, np.ndarray]) -> float:
    """Cosine of one component of two embeddings, whatever its scale."""
    if component not in other or np.shape(other[component]) != np.shape(vector):
        raise ValueError(f"embeddings: {component} is not in both, or of two sizes")
    scaled = []
    for values in (np.asarray(vector), np.asarray(other[component])):
        if values.ndim != 1 or not np.isfinite(values).all():
            raise ValueError(f"embeddings: {component} is no vector of finite numbers")
        # a power of two changes no digit, and no square then overflows or vanishes
        scaled.append(np.ldexp(values, -np.frexp(np.abs(values).max())[1]))
    return cosine(*scaled)


def rank_sources(target: Mapping[str, np.ndarray], sources: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Rank the sources by the cosine to the target in each component, and fuse the rankings: scores, the best first.

    Examples
    --------
    >>> near, far = {"pooled": np.array([1.0, 0.1])}, {"pooled": np.array([0.0, 1.0])}
    >>> list(rank_sources({"pooled": np.array([1.0, 0.0])}, {"far": far, "near": near}))
    ['near', 'far']
    """
    rankings = []
    for component, vector in target.items():
        cosines = {name: _likeness(component, vector, embedding) for name, embedding in sources.items()}
        rankings.append(sorted(cosines, key=lambda name: -cosines[name]))
    return reciprocal_rank_fusion(rankings)


def reciprocal_rank_fusion(rankings: Iterable[Sequence[str]]) -> dict[str, float]:
    """Fuse rankings, the best name first: Σ 1 / (60 + rank), where the best has rank 1 (arXiv 2005.00770).

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


def fused_likeness(vectors: Mapping[str, Mapping[str, np.ndarray]], groups: Iterable[Sequence[str]]) -> Relation:
    """The fused ranking as a relation: for each target, its sources are ranked among those of its group."""
    scores = {
        target: rank_sources(vectors[target], {name: vectors[name] for name in names if name != target})
        for names in groups
        for target in names
    }
    return lambda source, target: scores[target][source]


def nearest_sources(names: Sequence[str], relations: Mapping[str, Relation]) -> pd.DataFrame:
    """The source that each relation puts first for each target: a column for each relation.

    Examples
    --------
    >>> nearest_sources(["aa", "b"], {"by length": lambda source, target: len(source)})
      target by length
    0     aa         b
    1      b        aa
    """
    if len(set(names)) != len(names) or len(names) < 2:
        raise ValueError(f"names: need at least two, all different, got {list(names)}")

    def nearest(target: str, title: str) -> str:
        return max((name for name in names if name != target), key=lambda name: said(relations, title, name, target))

    columns = {title: [nearest(target, title) for target in names] for title in relations}
    return pd.DataFrame({"target": list(names)} | columns)


def said(relations: Mapping[str, Relation], title: str, source: str, target: str) -> float:
    """What a relation says of two sources; a ValueError if that is no finite number."""
    value = relations[title](source, target)
    if not np.isfinite(value):
        raise ValueError(f"{title}: is {value} for {source} and {target}")
    return value


def similarity_frame(names: Sequence[str], similarity: Relation) -> pd.DataFrame:
    """The similarity of every two sources as a matrix, sources down and across.

    Examples
    --------
    >>> similarity_frame(["a", "b"], lambda x, y: float(x == y)).to_numpy().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return pd.DataFrame([[similarity(a, b) for b in names] for a in names], list(names), list(names))


def kinship(similarity: pd.DataFrame, tasks: Mapping[str, str], *, seed: int = 0) -> Interval:
    """Mean similarity of two sources within a task minus the mean between tasks, times 100.

    The interval is the estimate minus the middle 95 % of what permuted tasks give: it lies above 0 where the estimate
    exceeds 97.5 % of them.
    """
    if lacking := [name for name in similarity.index if name not in tasks]:
        raise ValueError(f"tasks: says nothing of {lacking[0]}")
    alike = matrix("similarity", similarity, "sources × sources")
    _, groups = np.unique([tasks[name] for name in similarity.index], return_inverse=True)
    first, second = np.triu_indices(len(groups), 1)
    within = groups[first] == groups[second]
    if within.all() or not within.any():
        raise ValueError(f"tasks: need two, one of them with two sources, got {sorted(set(tasks.values()))}")
    values = 100 * alike[first, second]
    rng = np.random.default_rng(derive_seed(seed, "kinship"))
    permuted = rng.permuted(np.tile(groups, (N_PERMUTATIONS, 1)), axis=1)
    together = permuted[:, first] == permuted[:, second]
    null = (together * values).sum(axis=1) / together.sum(axis=1)
    null -= (~together * values).sum(axis=1) / (~together).sum(axis=1)
    estimate = float(values[within].mean() - values[~within].mean())
    low, high = np.percentile(null, PERCENTILES)
    return Interval(estimate, float(estimate - high), float(estimate - low))
