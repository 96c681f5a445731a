"""What the notebook on performance measures: forests, extraction and workers, each beside other software.

All ways of doing the same take turns in one process, so that a slow minute of the machine strikes them all; seconds are
the medians of the turns. Software that is not installed is named and not judged.

Why the forest cuts activations into 64 bins (the kernel is compiled for one number, so this was measured once, on 1,400
reviews × 2,304 neurons, 1,000 trees, two cores; overlap of the top 100, 300 and 500 with scikit-learn's, mean of three
of our seeds against two of scikit-learn's):

    bins      16                 32                 64                 128                256
    seconds   0.42               0.51               0.47               0.47               0.63
    overlap   0.82, 0.81, 0.78   0.83, 0.81, 0.78   0.82, 0.82, 0.78   0.84, 0.81, 0.79   0.83, 0.82, 0.79

The two seeds of scikit-learn share 0.81, 0.83 and 0.79. From 16 to 256 bins the choice is the same within that noise,
and up to 128 bins the time hardly differs: 64, in the middle, is as good as any.
"""

import copy
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsns_lib import extract, forest_importance, load_encoder, resampled_importance
from tsns_lib.encoders import Encoder
from tsns_lib.extraction import activations, tokenised
from tsns_lib.ranking import order_neurons

OURS, REFERENCE = "tsns_lib", "RandomForestClassifier"
BORUTA_ROUNDS = 3  # at most; every round grows a forest on twice the neurons
BATCH = 32  # rows of the plain loop and of the pipeline, in the order given
MATMUL = (2_048, 1_024, 4_096)  # a product of BERT-large's feed-forward half
GPU_MATMUL = (8_192, 8_192, 8_192)  # large enough for the full speed of a GPU
SMALL, LARGE = "MiniLM (6 × 384)", "BERT-large's shape (24 × 1,024)"
DEVICES = {"cpu": "", "cuda": ", GPU"}  # what follows an encoder's name in the table of speeds
GPU_TURNS = {"cuda": 50}  # the same texts as often, so that there is work for some seconds
BERT_LARGE = {"num_hidden_layers": 24, "hidden_size": 1_024, "num_attention_heads": 16, "intermediate_size": 4_096}
PAPER_NEURONS = BERT_LARGE["num_hidden_layers"] * BERT_LARGE["hidden_size"]


def timed(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[float, Any]:
    """Seconds of one call, and what it returns."""
    start = time.perf_counter()
    result = function(*args, **options)
    return time.perf_counter() - start, result


def in_turns(runs: Mapping[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Call all runs in turn, several times over: the median seconds and the last result of each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    results = {}
    for _ in range(repeats):
        for name, run in runs.items():
            spent, results[name] = timed(run)
            seconds[name].append(spent)
    return {name: float(np.median(turns)) for name, turns in seconds.items()}, results


def evenly(X: np.ndarray, y: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Take n rows at even distances: a corpus may stand class by class."""
    rows = np.arange(n) * len(y) // n
    return X[rows], y[rows]


def overlap(a: np.ndarray, b: np.ndarray, k: int) -> float:
    """Share of the K most important neurons that two importances have in common."""
    return len(np.intersect1d(order_neurons(a)[:k], order_neurons(b)[:k])) / k


# forests


def _histogram(X: np.ndarray, y: np.ndarray, n_trees: int, seed: int) -> np.ndarray:
    return forest_importance(X, y, n_trees=n_trees, seed=seed)


def _reference(X: np.ndarray, y: np.ndarray, n_trees: int, seed: int) -> np.ndarray:
    return forest_importance(X, y, n_trees=n_trees, engine="sklearn", seed=seed)


def _extra_trees(X: np.ndarray, y: np.ndarray, n_trees: int, seed: int) -> np.ndarray:
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(n_trees, random_state=seed, n_jobs=-1).fit(X, y).feature_importances_


def _intelex(X: np.ndarray, y: np.ndarray, n_trees: int, seed: int) -> np.ndarray:
    from sklearnex.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_trees, random_state=seed, n_jobs=-1).fit(X, y).feature_importances_


def _ydf(X: np.ndarray, y: np.ndarray, n_trees: int, seed: int) -> np.ndarray:
    import ydf

    ydf.verbose(0)
    settings = {"num_trees": n_trees, "max_depth": 200, "min_examples": 1, "compute_oob_performances": False}
    learner = ydf.RandomForestLearner(label="label", random_seed=seed, **settings)
    names = [f"n{i}" for i in range(X.shape[1])]
    model = learner.train({name: X[:, i] for i, name in enumerate(names)} | {"label": y.astype(str)})
    scores = {name: score for score, name in model.variable_importances()["SUM_SCORE"]}
    return np.array([scores.get(name, 0.0) for name in names])


def _boruta(X: np.ndarray, y: np.ndarray, n_trees: int, seed: int) -> np.ndarray:
    from boruta import BorutaPy
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_trees, n_jobs=-1)
    boruta = BorutaPy(forest, n_estimators=n_trees, max_iter=BORUTA_ROUNDS, random_state=seed)
    return -boruta.fit(X, y).ranking_.astype(float)


# The name shown, the module that it needs, and a function that measures importance.
PEERS: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]]] = {
    OURS: ("tsns_lib", _histogram),
    REFERENCE: ("sklearn", _reference),
    "ExtraTreesClassifier": ("sklearn", _extra_trees),
    "scikit-learn-intelex": ("sklearnex", _intelex),
    "ydf": ("ydf", _ydf),
    "Boruta": ("boruta", _boruta),
}


def compare_forests(
    X: np.ndarray,
    y: np.ndarray,
    *,
    n_trees: int = 1000,
    neurons: Sequence[int] = (100, 300, 500),
    repeats: int = 1,
    peers: Iterable[str] = tuple(PEERS),
) -> pd.DataFrame:
    """Grow one forest with every peer, and compare seconds and chosen neurons with scikit-learn's.

    `ratio` is scikit-learn's seconds divided by these. `K=…` is the share of the K most important neurons that are
    scikit-learn's too, mean of its two seeds; in its own row, what its two seeds share with each other.
    """
    wanted = {name: PEERS[name] for name in dict.fromkeys([OURS, REFERENCE, *peers])}
    forests = {name: forest for name, (module, forest) in wanted.items() if find_spec(module)}
    for forest in forests.values():  # compile, import, start threads
        forest(*evenly(X[:, :50], y, min(200, len(y))), 2, 0)
    runs = {name: partial(forest, X, y, n_trees, 0) for name, forest in forests.items()}
    seconds, importance = in_turns(runs, repeats)
    reseeded = _reference(X, y, n_trees, 1)
    rows: list[dict[str, Any]] = []
    for name in wanted:
        if name not in forests:
            rows.append({"forest": name, "note": "not installed"})
            continue
        references = [reseeded] if name == REFERENCE else [importance[REFERENCE], reseeded]
        shared = {
            f"K={k}": float(np.mean([overlap(importance[name], reference, k) for reference in references]))
            for k in neurons
        }
        note = f"at most {BORUTA_ROUNDS} rounds; its ranks have ties" if name == "Boruta" else ""
        ratio = seconds[REFERENCE] / seconds[name]
        rows.append({"forest": name, "seconds": seconds[name], "ratio": ratio, **shared, "note": note})
    return pd.DataFrame(rows)


def scaling(X: np.ndarray, y: np.ndarray, vary: dict[str, Sequence[int]], *, n_trees: int) -> pd.DataFrame:
    """Seconds of our forest and of scikit-learn's while one size varies and the others keep their full value.

    `vary` holds the values of "rows", "neurons", "trees" or "threads"; `n_trees` counts where trees do not vary.
    """
    rows = []
    for varied, values in vary.items():
        for value in values:
            sizes = {"rows": len(y), "neurons": X.shape[1], "trees": n_trees, "threads": -1} | {varied: value}
            sample, labels = evenly(X[:, : sizes["neurons"]], y, sizes["rows"])
            settings: dict[str, Any] = {"n_trees": sizes["trees"], "n_jobs": sizes["threads"]}
            for name, engine in ((OURS, "histogram"), (REFERENCE, "sklearn")):
                seconds, _ = timed(forest_importance, sample, labels, engine=engine, **settings)
                rows.append({"varied": varied, "value": value, "forest": name, "seconds": seconds})
    return pd.DataFrame(rows)


def seconds_per_split_level(rows: Sequence[int], *, n_trees: int = 200, n_neurons: int = PAPER_NEURONS) -> float:
    """Core-seconds of one tree in one thread, divided by n·log2(n) of its n rows.

    Of the given row counts the dearest is returned, so that a forecast is not too low. The neurons are noise with a
    weak signal. The difference between two forests leaves out what all trees share; some hundred trees make it larger
    than the noise of the clock.
    """
    rng = np.random.default_rng(0)
    costs = []
    for n in rows:
        y = rng.integers(0, 2, n)
        X = rng.normal(size=(n, n_neurons)).astype(np.float32) + np.float32(0.2) * y[:, None].astype(np.float32)
        few, many = (timed(forest_importance, X, y, n_trees=trees, n_jobs=1)[0] for trees in (1, 1 + n_trees))
        costs.append((many - few) / n_trees / (n * np.log2(n)))
    return float(max(costs))


# extraction


def compare_extraction(texts: Sequence[str], *, max_length: int = 128, repeats: int = 1) -> pd.DataFrame:
    """Extract every layer of the built-in encoder on the CPU in several ways, from text to array or file.

    `ratio` is the plain loop's seconds divided by these; `note` says what is not installed or not the same work.
    Loading the model is not counted.
    """
    one_line_texts = [" ".join(text.split()) for text in texts]  # NeuroX reads a file of lines
    exact, halved = (load_encoder(dtype=dtype, device="cpu") for dtype in ("float32", "bfloat16"))
    ways: dict[str, tuple[str, str, Callable[[list[str]], Any]]] = {
        "tsns_lib, bfloat16": ("torch", "", partial(our_extraction, halved, max_length)),
        "tsns_lib, float32": ("torch", "", partial(our_extraction, exact, max_length)),
        "plain loop, float32": ("torch", "", partial(plain_loop, exact, max_length)),
        "transformers pipeline": ("torch", "last layer only", _pipeline(exact, max_length)),
        "NeuroX to HDF5": ("neurox", "every word, not only [CLS]", partial(_neurox, exact)),
    }
    installed = {name: run for name, (module, _, run) in ways.items() if find_spec(module)}
    for run in installed.values():  # import, start threads
        run(one_line_texts[:4])
    seconds, _ = in_turns({name: partial(run, one_line_texts) for name, run in installed.items()}, repeats)
    rows: list[dict[str, Any]] = []
    for name, (_, note, _) in ways.items():
        row = {"way": name, "rows": len(texts)}
        if name in installed:
            ratio = seconds["plain loop, float32"] / seconds[name]
            speed = len(texts) / seconds[name]
            rows.append(row | {"seconds": seconds[name], "rows a second": speed, "ratio": ratio, "note": note})
        else:
            rows.append(row | {"note": "not installed"})
    return pd.DataFrame(rows)


def our_extraction(encoder: Encoder, max_length: int, texts: list[str]) -> np.ndarray:
    """Into a store that is empty, so that nothing is read."""
    with tempfile.TemporaryDirectory() as store:
        return extract(texts, encoder, max_length=max_length, store=store, progress=False)


def plain_loop(encoder: Encoder, max_length: int, texts: list[str]) -> np.ndarray:
    """What one would write by hand: padded batches in the order given."""
    import torch

    options: dict[str, Any] = {"padding": True, "truncation": True, "max_length": max_length, "return_tensors": "pt"}
    batches = []
    with torch.no_grad():
        for first in range(0, len(texts), BATCH):
            inputs = encoder.tokenizer(texts[first : first + BATCH], **options)
            layers = encoder.model(**inputs, output_hidden_states=True).hidden_states[1:]
            batches.append(torch.cat([layer[:, 0] for layer in layers], dim=1).numpy())
    return np.concatenate(batches)


def _pipeline(encoder: Encoder, max_length: int) -> Callable[[list[str]], Any]:
    from transformers import pipeline

    cut: dict[str, Any] = {"truncation": True, "max_length": max_length}
    options: dict[str, Any] = {"tokenizer": encoder.tokenizer, "device": encoder.device, "tokenize_kwargs": cut}
    run: Any = pipeline("feature-extraction", encoder.model, **options)
    return lambda texts: [np.asarray(row[0][0]) for row in run(texts, batch_size=BATCH)]


def _neurox(encoder: Encoder, texts: list[str]) -> int:
    """Every layer of every word to HDF5. NeuroX would load the model by name; here it gets the loaded one."""
    import neurox.data.extraction.transformers_extractor as extractor

    model = copy.deepcopy(encoder.model)
    model.config.output_hidden_states = True
    load_by_name = extractor.get_model_and_tokenizer
    extractor.get_model_and_tokenizer = lambda *args, **options: (model, encoder.tokenizer)
    try:
        with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
            lines, target = Path(folder, "texts.txt"), Path(folder, "activations.hdf5")
            lines.write_text("\n".join(texts) + "\n", encoding="utf-8")
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                extractor.extract_representations("built in", str(lines), str(target), "cpu", output_type="hdf5")
            return target.stat().st_size
    finally:
        extractor.get_model_and_tokenizer = load_by_name


def share_of_peak(texts: Sequence[str], *, max_length: int = 128, repeats: int = 2) -> pd.DataFrame:
    """Which share of the bfloat16 matrix speed, measured in the same run, the extraction reaches.

    The built-in encoder encodes all texts, BERT-large's shape with random weights one in ten of them; a GPU does so
    many times over, and without one its lines are empty. `GFLOP/s` counts the real tokens and no padding. Of both
    speeds the best of all turns is taken.
    """
    rows = []
    with _large_folder() as folder:
        for device in DEVICES:
            for name, options in {SMALL: {}, LARGE: {"name": folder, "random_weights": True}}.items():
                encoder = load_encoder(dtype="bfloat16", device=device, **options)
                sample = list(texts if name == SMALL else texts[::10]) * GPU_TURNS.get(device, 1)
                measured = _speeds(encoder, sample, max_length, repeats) if has_device(device) else {}
                rows.append({"encoder": name + DEVICES[device]} | measured)
    return pd.DataFrame(rows, columns=["encoder", "tokens a second", "GFLOP/s", "matrix GFLOP/s", "share"])


def has_device(device: str) -> bool:
    """Whether torch can compute there."""
    import torch

    return device == "cpu" or torch.cuda.is_available()


def _speeds(encoder: Encoder, texts: list[str], max_length: int, repeats: int) -> dict[str, float]:
    tokens, _ = tokenised(encoder, texts, None, max_length)
    activations(tokens, encoder, "cls")
    best, peak = np.inf, matrix_speed(encoder.device)
    for _ in range(repeats):
        best = min(best, timed(activations, tokens, encoder, "cls")[0])
        peak = max(peak, matrix_speed(encoder.device))
    speed = operations(tokens.lengths, encoder) / best / 1e9
    n_tokens = round(tokens.lengths.sum() / best)
    return {"tokens a second": n_tokens, "GFLOP/s": speed, "matrix GFLOP/s": peak, "share": speed / peak}


def operations(lengths: np.ndarray, encoder: Encoder) -> float:
    """Floating-point operations of the products in every layer, for inputs of these lengths."""
    hidden, inner, layers = encoder.hidden_size, encoder.config["intermediate_size"], encoder.n_layers
    n = lengths.astype(float)
    return float(layers * (2 * n * (4 * hidden * hidden + 2 * hidden * inner) + 4 * n * n * hidden).sum())


def matrix_speed(device: str = "cpu", turns: int = 5) -> float:
    """GFLOP/s of one large bfloat16 product on this machine, the best of some turns."""
    import torch

    rows, inner, columns = MATMUL if device == "cpu" else GPU_MATMUL
    options: dict[str, Any] = {"dtype": torch.bfloat16, "device": device}
    a, b = torch.ones(rows, inner, **options), torch.ones(inner, columns, **options)

    def product() -> None:
        torch.mm(a, b)
        if device != "cpu":
            torch.cuda.synchronize()

    product()
    return 2 * rows * inner * columns / min(timed(product)[0] for _ in range(turns)) / 1e9


@contextmanager
def _large_folder() -> Iterator[Path]:
    """A folder with BERT-large's shape and the built-in encoder's tokenizer, without weights."""
    encoder = load_encoder()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in encoder.folder.iterdir():
            if file.suffix in (".json", ".txt"):
                shutil.copy(file, folder)
        (folder / "config.json").write_text(json.dumps(encoder.config | BERT_LARGE))
        yield folder


# workers


def compare_workers(X: np.ndarray, y: np.ndarray, *, n_resamples: int = 24, n_trees: int = 1000) -> pd.DataFrame:
    """Grow the same resamples in one thread and in two, and on Dask clusters of one and of two single-thread workers.

    `ratio` is the seconds of one thread (or worker) divided by these; `same bits` compares with one thread. Starting a
    cluster and its first unit are not counted. Two threads in one process show what this machine can gain at all: its
    two processors may share one core.
    """
    from distributed import LocalCluster

    measured: dict[str, tuple[float, np.ndarray]] = {}
    forests: dict[str, Any] = {"n_trees": n_trees, "n_resamples": n_resamples}

    def grow(where: str, **options: Any) -> None:
        with tempfile.TemporaryDirectory() as store:
            measured[where] = timed(resampled_importance, X, y, store=store, **forests, **options)

    for threads in (1, 2):
        grow(f"here, {threads} thread{'s' * (threads > 1)}", n_jobs=threads)
    logging.getLogger("distributed").setLevel(logging.ERROR)  # some peers set every logger to talk
    settings: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": logging.ERROR}
    for workers in (1, 2):
        with LocalCluster(n_workers=workers, host="127.0.0.1", **settings) as cluster:
            for _ in range(2):  # the first compiles and imports
                grow(f"{workers} worker{'s' * (workers > 1)}", scheduler=cluster.scheduler_address)
    bits = measured["here, 1 thread"][1].tobytes()
    rows = [
        {
            "where": where,
            "seconds": seconds,
            "ratio": measured["here, 1 thread" if "thread" in where else "1 worker"][0] / seconds,
            "same bits": importance.tobytes() == bits,
        }
        for where, (seconds, importance) in measured.items()
    ]
    return pd.DataFrame(rows)
