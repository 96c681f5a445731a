"""Arrays larger than memory, on a small scale: each step runs in its own process, which reports its peak memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_encoders import tiny_folder

from tsns_lib.store import Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads a process's peak from /proc")

ROOT = Path(__file__).parents[2]
MB = 1e6
SHARD = 2_048 * 2_304 * 2 / MB
WHOLE = 40_000 * 2_304 * 2 / MB
SLACK = 12  # MB: allocator, page tables, manifests

# VmHWM is the peak of this process alone; getrusage would start at the peak of its parent.
START = """
import re, sys, numpy as np
from tsns_lib.store import Store
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024 / 1e6
entry = Store(sys.argv[1]).entry("activations", {"scaled": 40_000})
def shard(index):
    rows = min(2_048, 40_000 - 2_048 * index)
    bits = np.random.default_rng(index).integers(0, 0x7C00, (rows, 2_304), dtype=np.uint16)
    return bits.view(np.float16)
before = peak()
"""


def grown_by(step, *arguments):
    """MB that a step adds to the peak of its process."""
    script = f"{START}{step}\nprint(peak() - before)"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return float(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)


@pytest.fixture(scope="module")
def scaled(tmp_path_factory):
    """184 MB in 20 shards, written by a process that never holds more than two of them."""
    root = tmp_path_factory.mktemp("scaled")
    assert (
        grown_by("for index in range(20): entry.write(index, shard(index))\nentry.finish(20)", root) < 2 * SHARD + SLACK
    )
    return root


def test_an_entry_knows_its_shape_without_being_read(scaled):
    step = "assert (entry.shape, entry.dtype) == ((40_000, 2_304), np.float16)"
    assert grown_by(step, scaled) < SLACK


def test_a_tenth_of_the_rows_costs_their_size(scaled):
    step = "assert entry.read(rows=np.arange(3, 40_000, 10)).shape == (4_000, 2_304)"
    assert grown_by(step, scaled) < WHOLE / 10 + 2 * SHARD + SLACK


def test_some_columns_cost_their_size(scaled):
    step = "assert entry.read(columns=np.arange(0, 2_304, 8)).shape == (40_000, 288)"
    assert grown_by(step, scaled) < WHOLE / 8 + 2 * SHARD + SLACK


def test_columns_are_kept(scaled, tmp_path):
    step = "assert entry.columns(np.arange(2_303, 0, -8)).shape == (40_000, 288)"
    assert grown_by(step, scaled) < WHOLE / 8 + 2 * SHARD + SLACK
    entry = Store(scaled).entry("activations", {"scaled": 40_000})
    expected = entry.read(columns=np.arange(2_303, 0, -8))
    shards = list(entry.path.glob("*.npy"))
    for path in shards:
        path.rename(tmp_path / path.name)
    try:
        np.testing.assert_array_equal(entry.columns(np.arange(2_303, 0, -8)), expected)
    finally:
        for path in shards:
            (tmp_path / path.name).rename(path)


def test_the_whole_array_is_read_once(scaled):
    assert grown_by("assert entry.read().shape == entry.shape", scaled) < WHOLE + 2 * SHARD + SLACK


def test_extraction_never_holds_all_rows(tmp_path):
    import transformers as hf

    folder = tiny_folder("bert", tmp_path / "encoder")
    config = hf.BertConfig(
        vocab_size=16, num_hidden_layers=36, hidden_size=64, num_attention_heads=4, intermediate_size=16,
        max_position_embeddings=24,
    )  # fmt: skip
    config.save_pretrained(folder)
    step = """
import torch
torch.set_num_threads(1)
from tsns_lib import load_encoder
from tsns_lib.extraction import stored_activations
encoder = load_encoder(sys.argv[2], dtype="bfloat16", random_weights=True, device="cpu")
stored_activations(["bim tak"] * 2_048, encoder, max_length=8, store=sys.argv[1], progress=False)
before = peak()
many = stored_activations(["bim", "tak sel"] * 10_000, encoder, max_length=8, store=sys.argv[1], progress=False)
assert many.shape == (20_000, 2_304)
"""
    assert grown_by(step, tmp_path, folder) < 2 * SHARD + 3 * SLACK
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.npy")) > 20_000 * 2_304 * 2


def test_importance_costs_the_rows_of_a_resample(scaled, tmp_path):
    step = """
from tsns_lib import forest, resampled_importance
forest.BLOCK_BYTES = 8_000_000
few = np.random.default_rng(0).normal(size=(50, 2_304)).astype(np.float16)
settings = {"n_resamples": 1, "n_trees": 2, "n_jobs": 1, "store": sys.argv[2]}
resampled_importance(few, np.arange(50) % 2, **settings)  # imports and compiles
before = peak()
resampled_importance(entry, np.arange(40_000) % 2, fraction=0.1, **settings)
"""
    bins, block_of_neurons = 4_000 * 2_304 / MB, 8 + 64 * 40_000 * 8 / MB
    assert grown_by(step, scaled, tmp_path) < bins + block_of_neurons + 2 * SHARD + SLACK
