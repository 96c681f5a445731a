"""Every argument of every public function, with values it cannot have: one line that names it, before any work.

The other arguments ask for long work, and the store is looked at: nothing may have begun.
"""

import inspect
import signal
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from tiny_encoders import tiny_folder

import tsns_lib
from tsns_lib import (
    MultiTSNS,
    SingleTSNS,
    TransferModel,
    aggregate,
    cumulative_importance,
    extract,
    fingerprint,
    fingerprint_similarity,
    forest_importance,
    hidden_state_variability,
    list_sources,
    load_encoder,
    load_source,
    logme,
    meta_importance,
    resampled_importance,
    source_pairs,
    transfer_grid,
    water_fill,
)
from tsns_lib.transferability.text_embedding import text_embedding

X = np.random.default_rng(0).normal(size=(60, 96))
y = np.arange(60) % 2
ROWS = pd.DataFrame({"text": [f"bim tak {row}" for row in range(40)], "label": ["good", "bad"] * 20})
LONG = {"n_resamples": 500, "n_trees": 1_000}
SECONDS = 3.0  # in which a wrong argument is refused; the work would take minutes

NO_NUMBER = [None, "3", float("nan"), True]
COUNT = [*NO_NUMBER, 0, -1, 2.5]
SEED = [*NO_NUMBER, -1, 0.5]
SHARE = [*NO_NUMBER, -0.1, 1.5]
POSITIVE = [*NO_NUMBER, 0, -1, float("inf")]
WORD = [3, "", "nonsense", ["cls"]]
MATRIX = [None, "ab", {}, X[0], X * 1j, X[:0], np.where(X > 2, np.nan, X)]
LABELS = [None, "ab", y[:5], y * 0, np.where(y, np.nan, y), np.linspace(0, 1, 60)]
PLACE = [3, 2.5, ["folder"], b"folder"]
WHERE = [3, "", "threads", "processes:0", "processes:-1", "localhost"]
FLAG = [None, 3, "yes"]

FOREST = {
    "n_trees": [*COUNT, 10**12],
    "max_depth": [*COUNT, 2**40],
    "engine": WORD,
    "n_jobs": [*NO_NUMBER[1:], 0, 1.5, 10**9],
}
RESAMPLED = {
    **FOREST,
    "n_resamples": [*COUNT, 10**9],
    "fraction": [*SHARE, 0, "most", 1e-6],  # the last is a resample of one row
    "tol": [*NO_NUMBER[1:], 0, 1, -0.1],
    "store": PLACE,
    "scheduler": WHERE,
}
SELECTOR = {**RESAMPLED, "n_neurons": [*COUNT, 97], "random_state": SEED}
MULTI = {"pairing": WORD, "gamma": [*SHARE, 0], "C": POSITIVE}
READING = {"pooling": WORD, "max_length": [*COUNT, 2, 10**6], "store": PLACE, "scheduler": WHERE}
TEXTS = [None, 3, "one text", b"bytes", {"a": 1}, ROWS, [], [""], ["a", None], ["a", "\udcff"]]
SOURCES = [None, 3, "books", [], [3], ["books"], [ROWS]]
ENCODER = [None, "builtin:minilm", 3, object()]

BAD = {
    load_source: {
        "name_or_path": [None, 3, b"books", "no-such-corpus", "miniature:none", "hub:none", ROWS[:0], ROWS[["label"]]],
        "name": [3, "", b"a"],
        "text": [3, "", "nowhere"],
        "text_pair": [3, "", "nowhere"],
        "label": [3, "", "nowhere"],
        "labels": [3, "good", [1], {}, {"good": "a"}, {"good": 1, "bad": 1}, {"good": [1], "bad": 2}],
        "unescape": FLAG,
        "split": [None, 3, "", "dev", "nonsense"],
        "data_dir": [3, "/nowhere/at/all", ["folder"]],
        "limit": [*COUNT[1:], 1],
        "seed": SEED,
        "revision": [3, "", "main"],
    },
    list_sources: {"data_dir": [3, "/nowhere/at/all", ["folder"]]},
    load_encoder: {
        "name": [None, 3, "", "/nowhere/at/all", "builtin:none", b"folder", "../nowhere"],
        "device": [3, "", "nonsense", "gpu"],
        "dtype": [3, "", "float16", "int8", np.float32],
        "revision": [3, "", "main"],
        "random_weights": FLAG,
        "seed": SEED,
    },
    extract: {
        "texts_or_source": TEXTS,
        "encoder": ENCODER,
        "text_pairs": [3, "one text", ["a"], ["a", None], ["a", ""]],
        **READING,
    },
    text_embedding: {"source": TEXTS, "encoder": ENCODER, "max_length": READING["max_length"], "store": PLACE},
    forest_importance: {"X": MATRIX, "y": LABELS, **FOREST, "seed": SEED},
    resampled_importance: {
        "X": MATRIX,
        "y": LABELS,
        **RESAMPLED,
        "seed": SEED,
        "neurons": [None, 3, "ab", [], [0], [97], [2.5]],
    },
    cumulative_importance: {"q": MATRIX, "alpha": SHARE, "eps": POSITIVE},
    meta_importance: {"m": MATRIX},
    aggregate: {"h": MATRIX},
    source_pairs: {"n_sources": [*COUNT, 1, 10**9], "pairing": WORD},
    water_fill: {"sizes": [None, "a", [], [1.5], [-1], [True]], "budget": [*NO_NUMBER, -1, 2.5]},
    SingleTSNS: {"X": MATRIX, "y": LABELS, **SELECTOR, "alpha": SHARE},
    MultiTSNS: {
        "X": MATRIX,
        "y": LABELS,
        "groups": ["ab", ["a"], [None, "a"] * 30, [0.5, 1.5] * 30],
        **SELECTOR,
        **MULTI,
        "alphas": [None, 3, "linear", [], [2.0], [None], [float("nan")]],
    },
    fingerprint: {"selected": [None, "ab", [], [-1], [0, 0], [96], [0.5]], "n_layers": COUNT, "n_neurons": COUNT[1:]},
    fingerprint_similarity: {
        "a": [None, "ab", [], [-1, 2], [0, 0], [np.nan, 1]],
        "b": [None, "ab", [], [-1, 2], [0, 0], [1, 2, 3]],
        "metric": WORD,
    },
    transfer_grid: {
        "sources": SOURCES,
        "targets": SOURCES,
        "encoder": ENCODER,
        **RESAMPLED,
        **MULTI,
        **READING,
        "neurons": [None, 3, "ab", [], [0], [97], [2.5], [2, 2]],
        "also": [None, 3, "mean", iter(["mean"]), ["max"], [None]],
        "runs": COUNT,
        "alpha": SHARE,
        "budget": [*COUNT[1:]],
        "seed": SEED,
    },
    hidden_state_variability: {"X": MATRIX, "y": LABELS},
    logme: {"X": MATRIX, "y": LABELS, "intercept": FLAG},
    TransferModel.fit: {
        "source_or_sources": SOURCES,
        "encoder": ENCODER,
        **RESAMPLED,
        **MULTI,
        **READING,
        "n_neurons": [*COUNT, 97],
        "C": [*POSITIVE, "best"],
        "alpha": SHARE,
        "budget": [*COUNT[1:]],
        "seed": SEED,
    },
    TransferModel.load: {"folder": [None, 3, "/nowhere/at/all"], "encoder": ["builtin:minilm", 3]},
}
# what a message calls an argument; "" where it only shows the value
CALLED = {"texts_or_source": "text", "source": "text", "text_pairs": "text_pair", "name_or_path": "", "labels": ""}
SHOWN = {"progress", "verbose"}  # whatever is true shows a bar
CASES = [
    pytest.param(use, name, value, id=f"{use.__qualname__}-{name}-{number}")
    for use, arguments in BAD.items()
    for name, values in arguments.items()
    for number, value in enumerate(values)
]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Arguments that each function takes, of long work; for the checks alone."""
    encoder = load_encoder(tiny_folder("bert", tmp_path_factory.mktemp("bert")))
    one, other = load_source(ROWS, name="one"), load_source(ROWS[::-1], name="other")
    reading = {"encoder": encoder, "max_length": 16, "progress": False}
    matrix, texts = {"X": X, "y": y}, {"texts_or_source": ["bim", "tak"], **reading}
    study = {**reading, **LONG}
    return {
        load_source: {"name_or_path": ROWS},
        list_sources: {},
        load_encoder: {"name": encoder.folder},
        extract: texts,
        text_embedding: {"source": ["bim", "tak"], **reading},
        forest_importance: {**matrix, "n_trees": 1_000},
        resampled_importance: {**matrix, **LONG, "tol": 0.01, "neurons": [2]},
        cumulative_importance: {"q": X},
        meta_importance: {"m": X},
        aggregate: {"h": X},
        source_pairs: {"n_sources": 3},
        water_fill: {"sizes": [5, 5], "budget": 3},
        SingleTSNS: {**matrix, **LONG, "n_neurons": 2},
        MultiTSNS: {**matrix, **LONG, "n_neurons": 2, "groups": np.repeat(["a", "b", "c"], 20)},
        fingerprint: {"selected": [0, 5], "n_layers": 3, "n_neurons": 96},
        fingerprint_similarity: {"a": [1, 2], "b": [2, 1]},
        transfer_grid: {"sources": [one], "targets": [other], **study, "neurons": [2]},
        hidden_state_variability: matrix,
        logme: matrix,
        TransferModel.fit: {"source_or_sources": [one], **study, "n_neurons": 2},
        TransferModel.load: {"folder": "/nowhere/at/all"},
    }


def called(use, arguments):
    if use in (SingleTSNS, MultiTSNS):
        rows = {name: arguments.pop(name) for name in ("X", "y", "groups") if name in arguments}
        return use(**arguments).fit(**rows)
    return use(TransferModel(), **arguments) if use is TransferModel.fit else use(**arguments)


@contextmanager
def at_once():
    def too_late(*_):
        raise TimeoutError(f"not refused within {SECONDS} s: it works")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("use", "name", "value"), CASES)
def test_a_wrong_argument_is_named_before_any_work(good, use, name, value, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TSNS_CACHE", str(tmp_path / "store"))
    monkeypatch.delenv("TSNS_DATA", raising=False)
    with pytest.raises((ValueError, FileNotFoundError)) as error, at_once():
        called(use, good[use] | {name: value})
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    assert CALLED.get(name, name) in message or repr(value).strip("'") in message
    assert not (tmp_path / "store").exists()
    assert capfd.readouterr().err == ""


def test_every_argument_is_in_the_table():
    assert len(CASES) > 200
    public = {getattr(tsns_lib, name) for name in tsns_lib.__all__ if name != "__version__"}
    assert public <= {*BAD, TransferModel}
    for use, arguments in BAD.items():
        wanted = {*inspect.signature(use).parameters, *(("X", "y") if use in (SingleTSNS, MultiTSNS) else ())}
        assert wanted - SHOWN - {"self"} <= set(arguments), use.__qualname__
