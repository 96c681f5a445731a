"""What is tried on an encoder's layers, and the grids of accuracies that come of it.

A grid has one row for each source, method and run, like that of `tsns_lib.transfer_grid`.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import matthews_corrcoef

from tsns_lib.classifier import computable, fit_classifier, scores
from tsns_lib.encoders import Encoder
from tsns_lib.executors import announce, bar, is_shown
from tsns_lib.extraction import COMPUTED_BY, EXTRACTION_VERSION, stored_activations, texts_digest, texts_of
from tsns_lib.sampling import derive_seed, run_seed
from tsns_lib.store import Store, content_hash
from tsns_lib.transferability.reinitialization import reinitialize, scramble
from tsns_lib.validation import one_of, positive, whole_number
from tsns_workbook.finetuning.finetune import Recipe, fine_tune, labels_digest, labels_of, planned
from tsns_workbook.finetuning.prepared import identity_of, prepared_encoder, temporary_store

COLUMNS = ["source", "target", "method", "k", "run", "accuracy", "matthews", "auc", "n", "correct", "seconds"]
KINDS = {"full": "", "adapter": ", adapters"}
MOST_RUNS = 10_000  # all are planned before the first is trained (our choice)
INTACT, RANDOM_NEURONS = "intact", ", random neurons"
# Counts up when the same seeds and texts would give other predictions than before.
REINITIALIZED_VERSION = 1

Layers = Mapping[str, Sequence[int]]  # blocks of layers, counted from 0, by a name that counts from 1
Trials = Callable[[str, int], Mapping[str, Mapping[str, Any]]]  # options of `fine_tune` by name, for a source and seed


# which layers


def progressive(n_layers: int) -> dict[str, list[int]]:
    """The layers from each height to the top.

    Examples
    --------
    >>> progressive(3)
    {'intact': [], 'from layer 3': [2], 'from layer 2': [1, 2], 'from layer 1': [0, 1, 2]}
    """
    heights = {f"from layer {first + 1}": list(range(first, n_layers)) for first in reversed(range(n_layers))}
    return {INTACT: [], **heights}


def windows(n_layers: int, width: int = 3) -> dict[str, list[int]]:
    """Every block of adjacent layers.

    Examples
    --------
    >>> windows(4)
    {'layers 1-3': [0, 1, 2], 'layers 2-4': [1, 2, 3]}
    """
    width = whole_number("width", width, 1, n_layers)
    starts = range(n_layers - width + 1)
    return {f"layers {first + 1}-{first + width}": list(range(first, first + width)) for first in starts}


def all_but(blocks: Layers, n_layers: int) -> dict[str, list[int]]:
    """The layers outside each block, so that only the block stays pretrained.

    Examples
    --------
    >>> all_but({"layers 1-3": [0, 1, 2]}, 4)
    {'only layers 1-3 kept': [3]}
    """
    return {
        f"only {name} kept": [layer for layer in range(n_layers) if layer not in block]
        for name, block in blocks.items()
    }


# what is done to them


def block_trials(chosen: Mapping[str, int], n_layers: int, n_tuned: int, method: str = "full") -> Trials:
    """Tune the block that ends at a source's chosen layer, and a top block of the same size.

    The head stands on the last layer of the block and the layers above are dropped. Below a low layer there may be
    fewer than `n_tuned`: then both blocks have that size. Whole layers (``"full"``) are compared with all layers too.

    Examples
    --------
    >>> for name, options in block_trials({"books": 3}, 6, 2)("books", 0).items():
    ...     print(name, options)
    ν block {'method': 'full', 'head_layer': 3, 'tuned_layers': [2, 3]}
    top block {'method': 'full', 'head_layer': 5, 'tuned_layers': [4, 5]}
    all layers {'method': 'full'}
    """
    chosen = {name: whole_number("chosen", layer, 0, n_layers - 1) for name, layer in chosen.items()}
    n_tuned, method = whole_number("n_tuned", n_tuned), one_of("method", method, list(KINDS))

    def trials(source: str, seed: int) -> dict[str, dict[str, Any]]:
        size = min(n_tuned, chosen[source] + 1)
        blocks: dict[str, dict[str, Any]] = {
            name + KINDS[method]: {
                "method": method,
                "head_layer": last,
                "tuned_layers": list(range(last + 1 - size, last + 1)),
            }
            for name, last in (("ν block", chosen[source]), ("top block", n_layers - 1))
        }
        return blocks | ({"all layers": {"method": "full"}} if method == "full" else {})

    return trials


def reinitialized_trials(blocks: Layers, init: str = "paper") -> Trials:
    """Re-initialise each block by the seed of the run, then tune; an empty block leaves the encoder as it is."""

    def trials(source: str, seed: int) -> dict[str, dict[str, Any]]:
        return {
            name: {"prepare": partial(reinitialize, layers=list(layers), init=init, seed=seed)} if layers else {}
            for name, layers in blocks.items()
        }

    return trials


def scrambled_trials(n_layers: int) -> Trials:
    """Put the layers in a random order, another one in each run, then tune."""

    def trials(source: str, seed: int) -> dict[str, dict[str, Any]]:
        order = np.random.default_rng(derive_seed(seed, "order")).permutation(n_layers).tolist()
        return {"scrambled": {"prepare": partial(scramble, order=order)}}

    return trials


# what comes of it


def tuning_grid(
    sources: Sequence[Any],
    tests: Sequence[Any],
    encoder: Encoder,
    recipe: Recipe,
    trials: Trials,
    *,
    n_rows: int | None = None,
    runs: int = 3,
    seed: int = 0,
    store: Store | str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Tune an encoder on every source in every way that is tried, and test each model on the source's test.

    All trials of a run train on the same sample of `n_rows` rows. Three runs are the number of arXiv 2004.14975. In the
    grid, `method` is the name of the trial, `k` the number of rows trained on, `accuracy` a share from 0 to 1,
    `matthews` Matthews' correlation, `auc` the area under the ROC curve, `correct` a boolean array over the target's
    rows, and `seconds` the duration of the training. The store keeps the predictions and not the models, which would be
    hundreds of GB for BERT-large.

    Examples
    --------
    >>> from tsns_lib import load_encoder, load_source
    >>> books, dvd = (load_source(f"miniature:{name}", limit=16) for name in ("books", "dvd"))
    >>> probing = lambda source, seed: {"probing": {"method": "head"}}
    >>> recipe = Recipe(epochs=1, max_length=16)
    >>> grid = tuning_grid([books], [dvd], load_encoder(), recipe, probing, runs=1, progress=False)
    >>> grid[["source", "target", "k", "n"]]
                source         target   k   n
    0  miniature:books  miniature:dvd  16  16
    """
    runs, seed = whole_number("runs", runs, most=MOST_RUNS), whole_number("seed", seed, least=0)
    jobs = []
    for source, target, truth in _tested(sources, tests):
        for run in range(runs):
            training_seed = run_seed(seed, run, source.name)
            for method, options in trials(source.name, training_seed).items():
                options = {"seed": training_seed, "n_rows": n_rows, **options}
                training = planned(source, encoder, recipe, **options)  # what is wrong with the last is said at once
                jobs.append((source, target, truth, run, method, options, training.model_in(Store(store))))
    rows, announced = [], not is_shown(progress)
    for done, job in enumerate(bar(jobs, desc="trainings", show=progress), 1):
        source, target, truth, run, method, options, model = job
        start, was_known = time.perf_counter(), model.knows(target)
        tuned = fine_tune(source, encoder, recipe, **options, only_for=target, store=store, progress=progress)
        logits = tuned.logits(target)
        seconds = time.perf_counter() - start
        # the first training that was not in the store tells what the others will cost
        if not announced and not was_known and done < len(jobs):
            announce(f"at most {len(jobs) - done:,} more trainings", (len(jobs) - done) * seconds, 0)
            announced = True
        key = source.name, target.name, method, n_rows or source.n_rows, run
        rows.append((*key, *judge(truth, logits, tuned.classes).values(), tuned.seconds))
    return pd.DataFrame(rows, columns=COLUMNS)


def probing_grid(
    sources: Sequence[Any],
    tests: Sequence[Any],
    encoder: Encoder,
    *,
    C: float = 0.01,
    max_length: int = 128,
    store: Store | str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Accuracy of a logistic regression on every layer's first token: what a layer holds before any tuning.

    The columns are those of `tuning_grid` without `seconds`; `k` is the layer, the first being 1.

    Examples
    --------
    >>> from tsns_lib import load_encoder, load_source
    >>> books, dvd = (load_source(f"miniature:{name}", limit=40) for name in ("books", "dvd"))
    >>> probing_grid([books], [dvd], load_encoder(), max_length=16, progress=False)["k"].tolist()
    [1, 2, 3, 4, 5, 6]
    """
    C = positive("C", C)
    options: dict[str, Any] = {"max_length": max_length, "store": store, "progress": progress}
    rows = []
    for source, target, truth in _tested(sources, tests):
        known, unknown = (stored_activations(texts, encoder, **options) for texts in (source, target))
        labels = labels_of(source)
        for layer in range(encoder.n_layers):
            neurons = np.arange(layer * encoder.hidden_size, (layer + 1) * encoder.hidden_size)
            X, Z = (computable(entry.read(columns=neurons)) for entry in (known, unknown))
            model = fit_classifier(X, labels, C)
            judged = judge(truth, model.predict_log_proba(Z), model.classes_).values()
            rows.append((source.name, target.name, "probe", layer + 1, 0, *judged))
    return pd.DataFrame(rows, columns=COLUMNS[:-1])


def reinitialized_grid(
    sources: Sequence[Any],
    tests: Sequence[Any],
    encoder: Encoder,
    selected: Mapping[str, ArrayLike],
    blocks: Layers,
    *,
    runs: int = 3,
    C: float = 0.01,
    max_length: int = 128,
    seed: int = 0,
    store: Store | str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Accuracy of selected neurons when a block of layers is re-initialised and nothing is tuned.

    `selected` holds the neurons that were selected for each source on the intact encoder; a classifier is trained on
    their new states. A source has a row for ``"intact"`` and one for each block and run; `k` is the number of neurons.
    Besides, each has a row for as many neurons drawn at random from all layers, others in each run, whose method ends
    in ``", random neurons"``. The store keeps the predictions, but neither the re-initialised encoders nor their
    states.
    """
    store, C, max_length = Store(store), positive("C", C), whole_number("max_length", max_length)
    runs, seed = whole_number("runs", runs, most=MOST_RUNS), whole_number("seed", seed, least=0)
    blocks = {
        name: [whole_number(f"blocks, {name}", layer, 0, encoder.n_layers - 1) for layer in layers]
        for name, layers in blocks.items()
    }
    tested = _tested(sources, tests)
    if lacking := [source.name for source in sources if source.name not in selected]:
        raise ValueError(f"selected: has no neurons of {lacking[0]}")
    of_name = {
        name: [whole_number(f"selected, {name}", neuron, 0, encoder.n_neurons - 1) for neuron in np.asarray(neurons)]
        for name, neurons in selected.items()
    }
    prepares: dict[tuple[str, int], Any] = {(INTACT, 0): None}
    for name, layers in blocks.items():
        for run in range(runs):
            weights_seed = derive_seed(seed, "redrawn", run)
            prepares[name, run] = partial(reinitialize, layers=list(layers), seed=weights_seed)
    rows = []
    for (name, run), prepare in bar(prepares.items(), desc="re-initialised", show=progress):
        options: dict[str, Any] = {"max_length": max_length, "progress": progress}
        cases = [(source, target, truth, name, np.array(of_name[source.name])) for source, target, truth in tested]
        seeds = [derive_seed(seed, "random neurons", source.name, run) for source, *_ in cases]
        cases += [
            (source, target, truth, name + RANDOM_NEURONS, _as_many(neurons, encoder, own))
            for (source, target, truth, _, neurons), own in zip(cases, seeds, strict=True)
        ]
        inputs = [(source, target, neurons) for source, target, _, _, neurons in cases]
        predictions = _case_predictions(inputs, encoder, prepare, C, store, **options)
        for (source, target, truth, method, neurons), predicted in zip(cases, predictions, strict=True):
            correct = predicted == truth
            rows.append((source.name, target.name, method, len(neurons), run, correct.mean(), len(correct), correct))
    return pd.DataFrame(rows, columns=[name for name in COLUMNS if name not in ("matthews", "auc", "seconds")])


def _as_many(neurons: np.ndarray, encoder: Encoder, seed: int) -> np.ndarray:
    """As many neurons, drawn evenly from all layers, sorted."""
    return np.sort(np.random.default_rng(seed).choice(encoder.n_neurons, len(neurons), replace=False))


def _tested(sources: Sequence[Any], tests: Sequence[Any]) -> list[tuple[Any, Any, np.ndarray]]:
    """Every source with its test, and the test's labels in the numbers of the source."""
    if len(sources) != len(tests):
        raise ValueError(f"tests: need one for each of the {len(sources)} sources, got {len(tests)}")
    of_name: dict[str, Any] = {}
    pairs = set()
    for source, target in zip(sources, tests, strict=True):
        labels_of(source)
        if of_name.setdefault(source.name, source) is not source or (source.name, target.name) in pairs:
            raise ValueError(f"sources: two are called {source.name}")
        pairs.add((source.name, target.name))
    return [(source, target, source.labels_of(target)) for source, target in zip(sources, tests, strict=True)]


def _case_predictions(
    cases: Sequence[tuple[Any, Any, np.ndarray]], encoder: Encoder, prepare: Any, C: float, store: Store, **options: Any
) -> list[np.ndarray]:
    """Labels predicted for every target by the neurons of its source, in the encoder after `prepare`."""
    entries = [
        store.entry("predictions", _identity(encoder, prepare, C, options["max_length"], *case)) for case in cases
    ]
    missing = [number for number, entry in enumerate(entries) if not entry.is_finished(1)]
    if missing:
        # A re-initialised encoder and its states are needed only once: a hundred of them would fill the store.
        with temporary_store() as once:
            altered = prepared_encoder(encoder, prepare, store=once) if prepare else encoder
            states_store = once if prepare else store
            for number in missing:
                source, target, neurons = cases[number]
                known, unknown = (
                    stored_activations(texts, altered, store=states_store, **options) for texts in (source, target)
                )
                entries[number].write(0, _predictions(known, labels_of(source), unknown, neurons, C))
                entries[number].finish(1)
    return [entry.read() for entry in entries]


def _identity(
    encoder: Encoder, prepare: Any, C: float, max_length: int, source: Any, target: Any, neurons: np.ndarray
) -> dict[str, Any]:
    return {
        "encoder": encoder.digest,
        "dtype": encoder.dtype,
        "prepare": identity_of(prepare),
        "C": C,
        "max_length": max_length,
        "source": texts_digest(*texts_of(source, None)),
        "target": texts_digest(*texts_of(target, None)),
        "extraction_version": EXTRACTION_VERSION[encoder.dtype],
        "redrawn_version": REINITIALIZED_VERSION,
        "versions": {package: version(package) for package in (*COMPUTED_BY, "numpy", "scikit-learn")},
        "labels": labels_digest(labels_of(source)),
        "neurons": content_hash([neurons.astype("<i8").tobytes()]),
    }


def _predictions(known: Any, labels: np.ndarray, unknown: Any, neurons: np.ndarray, C: float) -> np.ndarray:
    """Labels of unknown rows, by a classifier on some neurons of the known rows."""
    X, Z = (computable(entry.read(columns=neurons)) for entry in (known, unknown))
    return fit_classifier(X, labels, C).predict(Z)


def judge(truth: np.ndarray, decision: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """Accuracy, Matthews' correlation, AUC, rows, and which of them are correct; `decision` has a column a class."""
    predicted = classes[decision.argmax(axis=1)]
    columns = decision[:, 1] - decision[:, 0] if len(classes) == 2 else decision
    judged = scores(truth, predicted, columns, classes) | {"matthews": matthews_corrcoef(truth, predicted)}
    return {name: judged[name] for name in ("accuracy", "matthews", "auc", "n", "correct")}
