"""The forest beside its peers: seconds, and whether they choose the same neurons.

Why 64 bins (the kernel is compiled for one number, so this was measured once, on 1,400 reviews × 2,304 neurons, 1,000
trees, two cores; overlap of the top 100, 300 and 500 with scikit-learn's, mean of three seeds against two):

    bins      16                 32                 64                 128                256
    seconds   0.42               0.51               0.47               0.47               0.63
    overlap   0.82, 0.81, 0.78   0.83, 0.81, 0.78   0.82, 0.82, 0.78   0.84, 0.81, 0.79   0.83, 0.82, 0.79

scikit-learn's own two seeds share 0.81, 0.83 and 0.79: from 16 to 256 bins the choice is the same within that noise,
and 64 is the most that costs nothing.

The extraction beside its peers: rows a second, and the share of the processor's own speed that it reaches.

Forests on a Dask cluster of this machine: how much the second worker adds, and whether the bits stay.

What the paper's own setting costs: counted units times unit costs measured here.
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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsns_lib.aggregation import order_neurons, source_pairs
from tsns_lib.encoders import Encoder, load_encoder
from tsns_lib.extraction import activations, extract, tokenised
from tsns_lib.importance import forest_importance, resampled_importance
from tsns_lib.sampling import resample_fraction, water_fill

OURS, REFERENCE = "tsns_lib", "RandomForestClassifier"
BORUTA_ROUNDS = 3  # of at most; it needs a forest of twice the neurons for each

Forest = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]


def _our_forest(X: np.ndarray, y: np.ndarray, n_trees: int, seed: int) -> np.ndarray:
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
    learner = ydf.RandomForestLearner(
        label="label",
        num_trees=n_trees,
        max_depth=200,
        min_examples=1,
        random_seed=seed,
        compute_oob_performances=False,
    )
    names = [f"n{i}" for i in range(X.shape[1])]
    model = learner.train({name: X[:, i] for i, name in enumerate(names)} | {"label": y.astype(str)})
    found = {name: score for score, name in model.variable_importances()["SUM_SCORE"]}
    return np.array([found.get(name, 0.0) for name in names])


def _boruta(X: np.ndarray, y: np.ndarray, n_trees: int, seed: int) -> np.ndarray:
    from boruta import BorutaPy
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_trees, n_jobs=-1)
    found = BorutaPy(forest, n_estimators=n_trees, max_iter=BORUTA_ROUNDS, random_state=seed).fit(X, y)
    return -found.ranking_.astype(float)


# The name shown, the module that it needs, and how it gives an importance.
PEERS: dict[str, tuple[str, Forest]] = {
    OURS: ("tsns_lib", _our_forest),
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
    """Grow a forest with every peer, in turns, and compare seconds and chosen neurons with scikit-learn's.

    Parameters
    ----------
    X : ndarray of shape (n, N)
        Activations.
    y : ndarray of shape (n,)
        Labels.
    n_trees : int
        Trees of every forest.
    neurons : sequence of int
        The values of K whose overlap is shown.
    repeats : int
        Turns; seconds are the median.
    peers : iterable of str
        Names in `PEERS`.

    Returns
    -------
    DataFrame
        One row for each peer in columns `forest`, `seconds`, `ratio` (scikit-learn's seconds divided by these) and
        `K=…` (share of the K most important neurons that are scikit-learn's, too, mean of two seeds; in its own row,
        what its two seeds share). A peer that is not installed has "not installed" in column `note`.
    """
    chosen = {name: PEERS[name] for name in dict.fromkeys([OURS, REFERENCE, *peers])}
    there = {name: forest for name, (module, forest) in chosen.items() if find_spec(module)}
    for forest in there.values():  # compile, import, start threads
        forest(*evenly(X[:, :50], y, min(200, len(y))), 2, 0)
    seconds: dict[str, list[float]] = {name: [] for name in there}
    importance: dict[str, np.ndarray] = {}
    for _ in range(repeats):
        for name, forest in there.items():
            spent, importance[name] = timed(forest, X, y, n_trees, 0)
            seconds[name].append(spent)
    bar = _reference(X, y, n_trees, 1)
    rows: list[dict[str, Any]] = []
    for name in chosen:
        if name not in there:
            rows.append({"forest": name, "note": "not installed"})
            continue
        median = float(np.median(seconds[name]))
        ratio = float(np.median(seconds[REFERENCE])) / median
        others = [bar] if name == REFERENCE else [importance[REFERENCE], bar]
        shared = {f"K={k}": float(np.mean([overlap(importance[name], other, k) for other in others])) for k in neurons}
        note = f"at most {BORUTA_ROUNDS} rounds; its ranks have ties" if name == "Boruta" else ""
        rows.append({"forest": name, "seconds": median, "ratio": ratio, **shared, "note": note})
    return pd.DataFrame(rows)


def scaling(X: np.ndarray, y: np.ndarray, vary: dict[str, Sequence[int]], *, n_trees: int) -> pd.DataFrame:
    """Seconds of our forest and of scikit-learn's while one size varies and the others stay.

    Parameters
    ----------
    X, y : ndarray
        Activations and labels; rows and neurons beyond their number are not asked for.
    vary : dict
        "rows", "neurons", "trees" or "threads", and the values of each.
    n_trees : int
        Trees where they do not vary.

    Returns
    -------
    DataFrame
        Columns `varied`, `value`, `forest`, `seconds`.
    """
    rows = []
    for varied, values in vary.items():
        for value in values:
            part, labels = evenly(X, y, value if varied == "rows" else len(y))
            part = part[:, : value if varied == "neurons" else None]
            settings = {
                "n_trees": value if varied == "trees" else n_trees,
                "n_jobs": value if varied == "threads" else -1,
            }
            for name, engine in ((OURS, "histogram"), (REFERENCE, "sklearn")):
                spent, _ = timed(forest_importance, part, labels, engine=engine, **settings)
                rows.append({"varied": varied, "value": value, "forest": name, "seconds": spent})
    return pd.DataFrame(rows)


def overlap(a: np.ndarray, b: np.ndarray, k: int) -> float:
    """Share of the K most important neurons that two importances have in common."""
    return len(np.intersect1d(order_neurons(a)[:k], order_neurons(b)[:k])) / k


def timed(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[float, Any]:
    """Seconds of one call, and what it returns."""
    start = time.perf_counter()
    result = function(*args, **options)
    return time.perf_counter() - start, result


def evenly(X: np.ndarray, y: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows at even distances: a corpus may stand class by class."""
    rows = np.arange(n) * len(y) // n
    return X[rows], y[rows]


BATCH = 32  # rows of the plain loop and of the pipeline, in the order given
MATMUL = (2_048, 1_024, 4_096)  # of BERT-large's feed-forward half


def compare_extraction(texts: Sequence[str], *, max_length: int = 128, repeats: int = 1) -> pd.DataFrame:
    """Extract every layer of the built-in encoder in several ways, in turns, from text to array or file.

    Parameters
    ----------
    texts : sequence of str
        What is encoded.
    max_length : int
        Tokens kept.
    repeats : int
        Turns; seconds are the median.

    Returns
    -------
    DataFrame
        Columns `way`, `rows`, `seconds`, `rows a second`, `ratio` (the plain loop's seconds divided by these) and
        `note`, which says what is not installed or not the same. Loading the model is not counted.
    """
    text_list = [" ".join(text.split()) for text in texts]  # one line each: NeuroX reads a file of lines
    encoders = {dtype: load_encoder(dtype=dtype) for dtype in ("float32", "bfloat16")}
    ways: dict[str, tuple[str, str, Callable[[list[str]], Any]]] = {
        "tsns_lib, bfloat16": ("torch", "", lambda rows: _our_extraction(encoders["bfloat16"], rows, max_length)),
        "tsns_lib, float32": ("torch", "", lambda rows: _our_extraction(encoders["float32"], rows, max_length)),
        "plain loop, float32": ("torch", "", lambda rows: _plain(encoders["float32"], rows, max_length)),
        "transformers pipeline": ("torch", "last layer only", _pipeline(encoders["float32"], max_length)),
        "NeuroX to HDF5": ("neurox", "every word, not only [CLS]", lambda rows: _neurox(encoders["float32"], rows)),
    }
    there = {name: run for name, (module, _, run) in ways.items() if find_spec(module)}
    for run in there.values():
        run(text_list[:4])
    seconds: dict[str, list[float]] = {name: [] for name in there}
    for _ in range(repeats):
        for name, run in there.items():
            seconds[name].append(timed(run, text_list)[0])
    plain = float(np.median(seconds["plain loop, float32"]))
    rows = []
    for name, (_, note, _) in ways.items():
        if name in there:
            median = float(np.median(seconds[name]))
            figures = {"seconds": median, "rows a second": len(texts) / median, "ratio": plain / median}
            rows.append({"way": name, "rows": len(texts), **figures, "note": note})
        else:
            rows.append({"way": name, "rows": len(texts), "note": "not installed"})
    return pd.DataFrame(rows)


def share_of_peak(texts: Sequence[str], *, max_length: int = 128, repeats: int = 2) -> pd.DataFrame:
    """Which share of the bfloat16 matrix speed, measured in the same run, the extraction reaches.

    Parameters
    ----------
    texts : sequence of str
        Encoded by the built-in encoder; one in ten of them by BERT-large's shape with random weights.
    max_length : int
        Tokens kept.
    repeats : int
        Turns; the best of both sides.

    Returns
    -------
    DataFrame
        Columns `encoder`, `tokens a second`, `GFLOP/s` (of the real tokens: padding counts as nothing), `matrix
        GFLOP/s` and `share`.
    """
    rows = []
    with _large_folder() as folder:
        shapes = {
            "MiniLM (6 × 384)": (load_encoder(dtype="bfloat16"), list(texts)),
            "BERT-large's shape (24 × 1,024)": (
                load_encoder(folder, dtype="bfloat16", random_weights=True),
                list(texts)[::10],
            ),
        }
        for name, (encoder, part) in shapes.items():
            tokens, _ = tokenised(encoder, part, None, max_length)
            activations(tokens, encoder, "cls")
            best, peak = np.inf, 0.0
            for _ in range(repeats):
                peak = max(peak, matrix_speed())
                best = min(best, timed(activations, tokens, encoder, "cls")[0])
            peak = max(peak, matrix_speed())
            speed = operations(tokens.lengths, encoder) / best / 1e9
            n_tokens = round(tokens.lengths.sum() / best)
            figures = {"GFLOP/s": speed, "matrix GFLOP/s": peak, "share": speed / peak}
            rows.append({"encoder": name, "tokens a second": n_tokens, **figures})
    return pd.DataFrame(rows)


def operations(lengths: np.ndarray, encoder: Encoder) -> float:
    """Floating-point operations of every layer's products for inputs of these lengths."""
    hidden, inner, layers = encoder.hidden_size, encoder.config["intermediate_size"], encoder.n_layers
    n = lengths.astype(float)
    return float(layers * (2 * n * (4 * hidden * hidden + 2 * hidden * inner) + 4 * n * n * hidden).sum())


def matrix_speed(turns: int = 5) -> float:
    """GFLOP/s of one large bfloat16 product here, best of some turns."""
    import torch

    rows, inner, columns = MATMUL
    a, b = torch.ones(rows, inner, dtype=torch.bfloat16), torch.ones(inner, columns, dtype=torch.bfloat16)
    torch.mm(a, b)
    return 2 * rows * inner * columns / min(timed(torch.mm, a, b)[0] for _ in range(turns)) / 1e9


def _our_extraction(encoder: Encoder, texts: list[str], max_length: int) -> np.ndarray:
    with tempfile.TemporaryDirectory() as store:
        return extract(texts, encoder, max_length=max_length, store=store, progress=False)


def _plain(encoder: Encoder, texts: list[str], max_length: int) -> np.ndarray:
    import torch

    batches = []
    with torch.no_grad():
        for first in range(0, len(texts), BATCH):
            inputs = encoder.tokenizer(
                texts[first : first + BATCH], padding=True, truncation=True, max_length=max_length, return_tensors="pt"
            )
            layers = encoder.model(**inputs, output_hidden_states=True).hidden_states[1:]
            batches.append(torch.cat([layer[:, 0] for layer in layers], dim=1).numpy())
    return np.concatenate(batches)


def _pipeline(encoder: Encoder, max_length: int) -> Callable[[list[str]], Any]:
    from transformers import pipeline

    options: dict[str, Any] = {"truncation": True, "max_length": max_length}
    run: Any = pipeline("feature-extraction", encoder.model, tokenizer=encoder.tokenizer, tokenize_kwargs=options)  # type: ignore[call-overload]
    return lambda texts: [np.asarray(row[0][0]) for row in run(texts, batch_size=BATCH)]


def _neurox(encoder: Encoder, texts: list[str]) -> int:
    """Every layer of every word to HDF5; the model is given, as it is to the others."""
    import neurox.data.extraction.transformers_extractor as extractor

    loaded, extractor.get_model_and_tokenizer = extractor.get_model_and_tokenizer, _loaded(encoder)
    try:
        with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
            lines, target = Path(folder, "texts.txt"), Path(folder, "activations.hdf5")
            lines.write_text("\n".join(texts) + "\n", encoding="utf-8")
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                extractor.extract_representations("built in", str(lines), str(target), "cpu", output_type="hdf5")
            return target.stat().st_size
    finally:
        extractor.get_model_and_tokenizer = loaded


def _loaded(encoder: Encoder) -> Callable[..., Any]:
    model = copy.deepcopy(encoder.model)
    model.config.output_hidden_states = True
    return lambda *args, **options: (model, encoder.tokenizer)


@contextmanager
def _large_folder() -> Iterator[Path]:
    """A folder with BERT-large's shape and the built-in encoder's tokenizer; its weights are drawn."""
    source = load_encoder()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in source.folder.iterdir():
            if file.suffix in (".json", ".txt"):
                shutil.copy(file, folder)
        shape = {"num_hidden_layers": 24, "hidden_size": 1_024, "num_attention_heads": 16, "intermediate_size": 4_096}
        (folder / "config.json").write_text(json.dumps(source.config | shape))
        yield folder


def compare_workers(X: np.ndarray, y: np.ndarray, *, n_resamples: int = 24, n_trees: int = 1000) -> pd.DataFrame:
    """Grow the same resamples here in one thread and in two, and on clusters of one and of two single-thread workers.

    Parameters
    ----------
    X : ndarray of shape (n, N)
        Activations.
    y : ndarray of shape (n,)
        Labels.
    n_resamples, n_trees : int
        Forests, and trees of each.

    Returns
    -------
    DataFrame
        Columns `where`, `seconds`, `ratio` (the seconds of one divided by these, threads and workers apart) and
        `same bits` (as one thread here). Starting a cluster and its first unit are not counted. Two threads in one
        process are what the machine itself gives: its two processors may share one core.
    """
    from distributed import LocalCluster

    found: dict[str, tuple[float, np.ndarray]] = {}
    few = {"n_trees": n_trees, "n_resamples": n_resamples}

    def grow(where: str, **options: object) -> None:
        with tempfile.TemporaryDirectory() as store:
            found[where] = timed(resampled_importance, X, y, store=store, **few, **options)

    for threads in (1, 2):
        grow(f"here, {threads} thread{'s' * (threads > 1)}", n_jobs=threads)
    logging.getLogger("distributed").setLevel(logging.ERROR)  # some peers make every logger talk
    for workers in (1, 2):
        settings = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": logging.ERROR}
        with LocalCluster(n_workers=workers, host="127.0.0.1", **settings) as cluster:
            for _ in range(2):  # the first compiles and imports
                grow(f"{workers} worker{'s' * (workers > 1)}", scheduler=cluster.scheduler_address)
    seconds = pd.Series({where: spent for where, (spent, _) in found.items()}, name="seconds")
    one = [seconds["here, 1 thread"]] * 2 + [seconds["1 worker"]] * 2
    bits = found["here, 1 thread"][1].tobytes()
    same = [importance.tobytes() == bits for _, importance in found.values()]
    return pd.DataFrame(
        {"where": seconds.index, "seconds": seconds.values, "ratio": one / seconds.values, "same bits": same}
    )


RUNS, RESAMPLES, TREES, NEURONS = 5, 100, 1_000, 24_576  # paper §4.2, BERT-large
AMAZON = ("books", "dvd", "electronics", "kitchen")
COMBINATIONS = ("qqp", "mnli", "snli", "qqp+rte", "qqp+mnli", "qqp+mnli+rte", "qqp+mnli+rte+mrpc", "qqp+snli",
                "qqp+mnli+snli")  # fmt: skip
BUDGETS = (20_000, 100_000, 200_000, 300_000)


def paper_forests(rows_of: Mapping[str, int]) -> pd.DataFrame:
    """The forests of every table and figure; equal ones are grown once.

    Parameters
    ----------
    rows_of : mapping of str to int
        Training rows of each source of Table 1.

    Returns
    -------
    DataFrame
        One row for each set of rows: `what`, `source rows`, `resample rows` and `forests` (resamples × runs).
    """
    found = {}
    for name, rows in rows_of.items():
        found["Tables 2 and 3, Figure 2", name, rows] = resample_fraction(rows)
    for left_out in source_pairs(len(AMAZON) - 1):
        found["Table 4", f"{len(left_out[0])} domains of three", 2 * rows_of["books"]] = 0.7
    unions = {}
    for budget, combination in ((budget, names.split("+")) for budget in BUDGETS for names in COMBINATIONS):
        shares = dict(
            zip(combination, water_fill([rows_of[name] for name in combination], budget).tolist(), strict=True)
        )
        learners = [s1 for s1, _ in source_pairs(len(combination))] if len(combination) > 1 else [(0,)]
        for s1 in learners:
            members = tuple(sorted((combination[m], shares[combination[m]]) for m in s1))
            unions[members] = sum(rows for _, rows in members)
    for members, rows in unions.items():
        found["Table 5", "+".join(f"{name} {share:,}" for name, share in members), rows] = 0.1
    table = [
        (what, name, rows, round(rows * fraction), RUNS * RESAMPLES * (6 if what == "Table 4" else 1))
        for (what, name, rows), fraction in found.items()
    ]
    return pd.DataFrame(table, columns=["what", "source", "source rows", "resample rows", "forests"])


def seconds_per_split_level(rows: Sequence[int], *, n_trees: int = 20, n_neurons: int = NEURONS) -> float:
    """Core-seconds of one tree, divided by n·log2(n) of its rows, for forests of that many neurons.

    Parameters
    ----------
    rows : sequence of int
        Sizes of a resample; the dearest by row counts, so that a forecast is not too low.
    n_trees : int
        Trees of the larger of two forests at each size; their difference leaves out what trees share.
    n_neurons : int
        Neurons; they are noise with a weak signal, in one thread.
    """
    rng = np.random.default_rng(0)
    costs = []
    for n in rows:
        y = rng.integers(0, 2, n)
        X = rng.normal(size=(n, n_neurons)).astype(np.float32) + np.float32(0.2) * y[:, None].astype(np.float32)
        few, many = (timed(forest_importance, X, y, n_trees=trees, n_jobs=1)[0] for trees in (1, 1 + n_trees))
        costs.append((many - few) / n_trees / (n * np.log2(n)))
    return float(max(costs))


def paper_cost(
    forests: pd.DataFrame, of_a_tree: float, tokens: Mapping[str, float], tokens_a_core_second: float, rows: int
) -> pd.DataFrame:
    """Core-hours and disk of the whole paper, and hours on 1, 16 and 128 cores.

    Parameters
    ----------
    forests : DataFrame
        As `paper_forests` gives it.
    of_a_tree : float
        As `seconds_per_split_level` gives it.
    tokens : mapping of str to float
        Tokens of all rows of each corpus.
    tokens_a_core_second : float
        What one core encodes of them with BERT-large.
    rows : int
        Rows of all corpora, encoded once.

    Returns
    -------
    DataFrame
        Rows: activations, the forests of each table, and all. The hours on several cores are the core-hours divided:
        units are independent, and there are far more of them than cores.
    """
    n = forests["resample rows"].to_numpy(float)
    hours = forests["forests"] * TREES * of_a_tree * n * np.log2(n) / 3600
    parts = hours.groupby(forests["what"], sort=False).sum()
    counts = forests.groupby("what", sort=False)["forests"].sum()
    table = pd.DataFrame(
        {
            "units": [f"{rows:,} rows", *(f"{count:,} forests" for count in counts)],
            "core-hours": [sum(tokens.values()) / tokens_a_core_second / 3600, *parts],
            "GB": [rows * NEURONS * 2 / 1e9, *(counts * NEURONS * 8 / 1e9)],
        },
        index=["activations", *parts.index],
    )
    table.loc["all"] = ["", *table[["core-hours", "GB"]].sum()]
    for cores in (1, 16, 128):
        table[f"hours on {cores} core{'s' * (cores > 1)}"] = table["core-hours"] / cores
    return table.round(1)
