"""Task embeddings (notebook 12): Fisher information of tuned models, learning curves, and what is near to what."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from tsns_lib.executors import bar
from tsns_lib.extraction import GPU_TOKEN_BUDGET, TOKEN_BUDGET, batches, texts_digest, texts_of
from tsns_lib.fingerprints import cosine
from tsns_lib.sampling import derive_seed
from tsns_lib.store import Store
from tsns_lib.validation import matrix, numbers, one_of
from tsns_workbook.dyads import N_PERMUTATIONS, Measured
from tsns_workbook.families import ERROR
from tsns_workbook.finetuning.finetune import IN_USE, FineTuned, padded, rows_of
from tsns_workbook.plots import BLUE, INK, ORANGE, STYLE, finish
from tsns_workbook.report import answer, caption, claim, short_name
from tsns_workbook.statistics import PERCENTILES

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tsns_workbook.finetuning.model import TunedModel

FORMS = ("paper", "released")
CURVE_POSITIONS = (0.1, 0.2, 0.3, 0.5, 0.7)  # of training
FUSION = 60
# what the texts are about, from the descriptions of the corpora (our assignment); a corpus of its own kind has no kin
DOMAINS = {
    **dict.fromkeys(["books", "dvd", "electronics", "kitchen"], "product reviews"),
    **dict.fromkeys(["mr", "sst"], "film reviews"),
    **dict.fromkeys(["rte", "mrpc"], "news"),
}
DOMAIN, TASK, FORM = "a domain", "a task, pairs alone", "a task, single texts and pairs together"
PAIRS = "pairs"

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
    labels = finetuned.source.labels_of(source).tolist()
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
    import torch

    with IN_USE, torch.autocast(next(model.parameters()).device.type, enabled=False):  # of the caller
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


def kinship_within(
    similarity: pd.DataFrame, groups: Mapping[str, str], strata: Mapping[str, str], *, seed: int = 0
) -> tuple[Measured, float]:
    """Mean similarity of two sources of a group minus that of two of different groups, times 100, within strata.

    Only sources of one stratum are compared, and groups are permuted among the sources of a stratum; a stratum without
    both kinds of pairs says nothing. Besides the estimate: the smallest p value that any order of the groups can have,
    which is 1, and the estimate NaN, where no stratum has both.
    """
    alike = matrix("similarity", similarity, "sources × sources")
    rng = np.random.default_rng(derive_seed(seed, "kinship within"))
    values, together = [], []
    for stratum in dict.fromkeys(strata[name] for name in similarity.index):
        places = np.array([place for place, name in enumerate(similarity.index) if strata[name] == stratum])
        labels = np.array([groups[similarity.index[place]] for place in places])
        first, second = np.triu_indices(len(labels), 1)
        if len(set(labels)) in (1, len(labels)):
            continue
        orders = np.concatenate([[labels], rng.permuted(np.tile(labels, (N_PERMUTATIONS, 1)), axis=1)])
        of_pairs = 100 * alike[places[first], places[second]]
        values.append(of_pairs - of_pairs.mean())  # else the strata would be compared with each other
        together.append(orders[:, first] == orders[:, second])
    if not values:
        return Measured(*[float("nan")] * 4), 1.0
    pairs, same = np.concatenate(values), np.concatenate(together, axis=1)
    estimate, *null = (same @ pairs / same.sum(axis=1) - ~same @ pairs / (~same).sum(axis=1)).round(9)
    low, high = np.percentile(null, PERCENTILES)
    p = min(1.0, 2 * min(np.mean(null >= estimate), np.mean(null <= estimate)))
    least = min(1.0, 2 * float(np.mean(np.array(null) == max(null))))
    return Measured(float(estimate), float(estimate - high), float(estimate - low), float(p)), least


def kin_table(
    likeness: Mapping[str, pd.DataFrame], tasks: Mapping[str, str], forms: Mapping[str, str], *, seed: int = 0
) -> pd.DataFrame:
    """What each embedding calls alike: a row for each embedding and question, with p and the least possible p.

    Single texts and pairs differ in so much that they are compared apart: `forms` says which is which.
    """
    domains = {name: DOMAINS.get(short_name(name), name) for name in tasks}
    questions = {
        DOMAIN: (domains, forms),
        TASK: (tasks, {name: form for name, form in forms.items() if form == PAIRS}),
        FORM: (tasks, dict.fromkeys(tasks, "all")),
    }
    rows = []
    for embedding, matrix_ in likeness.items():
        for question, (groups, strata) in questions.items():
            compared = matrix_.loc[[*strata], [*strata]]
            found, least = kinship_within(compared, groups, strata, seed=seed)
            rows.append({"embedding": embedding, "more alike within": question} | found._asdict() | {"least p": least})
    return pd.DataFrame(rows)


def form_of(source: Any) -> str:
    """Whether a source holds single texts or pairs."""
    return PAIRS if source.frame["text_pair"].notna().any() else "single texts"


def embedding_claims(kin: pd.DataFrame) -> list[dict[str, Any]]:
    """Judge what arXiv 2005.00770 says of embeddings, from a `kin_table` of the embeddings "text" and "task"."""
    return [
        kin_claim("embeddings.text_kin", kin, "text", DOMAIN),
        kin_claim("embeddings.task_kin", kin, "task", TASK),
        claim("embeddings.small_sources"),
        claim("embeddings.other_classes"),
    ]


def kin_claim(id: str, kin: pd.DataFrame, embedding: str, question: str) -> dict[str, Any]:
    """Judge one row of a `kin_table`; not testable where no order of the groups could have shown it."""
    row = kin[(kin["embedding"] == embedding) & (kin["more alike within"] == question)].iloc[0]
    if row["least p"] > ERROR:
        return claim(id)
    return claim(id, row["estimate"], row["low"], row["high"], p=row["p"])


def embedding_answer(claims: Sequence[Mapping[str, Any]], kin: pd.DataFrame) -> str:
    """Say what is left of the claims, and what the embeddings do tell."""
    said = {
        "embeddings.text_kin": "two sources of a domain are more alike by TextEmb",
        "embeddings.task_kin": "two pairs of a task are more alike by TaskEmb",
    }
    rows = kin[kin["embedding"] == "task"].set_index("more alike within")
    return (
        f"{answer(claims, said)} Among pairs alone, no way to assign the tasks could have p below "
        f"{rows.loc[TASK, 'least p']:.2f} (here {rows.loc[TASK, 'p']:.2f}); with single texts among them p is "
        f"{rows.loc[FORM, 'p']:.3f}, but that may tell single texts from pairs rather than tasks."
    )


def range_sentence(likeness: pd.DataFrame) -> str:
    """Say between what two different sources are least and most alike.

    Examples
    --------
    >>> names = ["aa", "b", "c"]
    >>> range_sentence(pd.DataFrame([[1, -0.2, 0.5], [-0.2, 1, 0.1], [0.5, 0.1, 1]], names, names))
    'The cosines run from -0.20 (aa and b) to 0.50 (aa and c); their median is 0.10.'
    """
    first, second = np.triu_indices(len(likeness), 1)
    values, names = likeness.to_numpy()[first, second], [short_name(name) for name in likeness.index]
    least, most = (
        f"{values[at]:.2f} ({names[first[at]]} and {names[second[at]]})" for at in (values.argmin(), values.argmax())
    )
    return f"The cosines run from {least} to {most}; their median is {np.median(values):.2f}."


def kin_figure(table: pd.DataFrame, names: Mapping[str, str], *, generated: bool, title: str) -> Figure:
    """Draw a `kin_table`: how much more alike two sources are within a group, less the middle 95 % of chance."""
    rows = table.dropna(subset=["estimate"]).reset_index(drop=True)
    words = {DOMAIN: "of a domain", TASK: "of a task, among pairs", FORM: "of a task, among all (form differs, too)"}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.2, 1.4 + 0.36 * len(rows)), layout="constrained")
        axes.axvline(0, color=INK, linewidth=1)
        for embedding, color, marker in zip(names, (BLUE, ORANGE), "os", strict=True):
            own = rows[rows["embedding"] == embedding]
            axes.hlines(own.index, own["low"], own["high"], color=color)
            axes.plot(own["estimate"], own.index, marker, color=color, markersize=6, label=names[embedding])
        said = [
            f"{words[question]}  (p = {p:.3f})"
            for question, p in zip(rows["more alike within"], rows["p"], strict=True)
        ]
        axes.set_yticks(rows.index, said)
        axes.invert_yaxis()
        axes.set_xlabel("cosine of two sources within a group minus between groups, times 100")
        axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        axes.set_title(caption(title, generated), loc="left")
    return finish(figure)
