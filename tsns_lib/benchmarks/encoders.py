"""The extraction beside its peers: rows a second, and the share of the processor's own speed that it reaches."""

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsns_lib.benchmarks.forests import timed
from tsns_lib.encoders import Encoder, load_encoder
from tsns_lib.extraction import extract
from tsns_lib.forward import activations, tokenised

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
        "tsns_lib, bfloat16": ("torch", "", lambda rows: _ours(encoders["bfloat16"], rows, max_length)),
        "tsns_lib, float32": ("torch", "", lambda rows: _ours(encoders["float32"], rows, max_length)),
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


def _ours(encoder: Encoder, texts: list[str], max_length: int) -> np.ndarray:
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
