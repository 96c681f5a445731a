"""Threads that share an encoder get what each would get alone, and leave the process as it was."""

import copy
import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers.utils import logging as transformers_logging

from tsns_lib import encoders, extract, extraction, load_encoder
from tsns_lib.encoders import quiet_transformers

ROOT = Path(__file__).parents[2]
TEXTS = [f"row {row} of a small made-up list" + " that goes on" * (row % 5) for row in range(24)]
quietly = partial(extract, max_length=16, progress=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT of 2 layers and 16 neurons with weights on disk, and MiniLM's tokenizer."""
    folder, known = tmp_path_factory.mktemp("tiny"), load_encoder().folder
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(known / name, folder)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = json.loads((known / "config.json").read_text()) | small | {"initializer_range": 0.3}
    (folder / "config.json").write_text(json.dumps(config))
    with quiet_transformers():
        load_encoder(folder, random_weights=True, seed=5).model.save_pretrained(folder)
    return folder


def in_threads(n_threads, call):
    """Results of `call(0)`, `call(1)`, … in threads that begin together."""
    together = threading.Barrier(n_threads)

    def work(number):
        together.wait()
        return call(number)

    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(work, range(n_threads)))


@pytest.fixture
def first_call_waits():
    """Let the first call of a model wait inside it until another is through."""
    begun, through = threading.Event(), threading.Event()

    def beside(model, first, other):
        def wait(module, inputs):
            check = not torch.is_grad_enabled() and not torch.is_inference_mode_enabled()  # whether it was changed
            if module is model.embeddings and not check and not begun.is_set():
                begun.set()
                assert through.wait(60)

        # a hook of all modules: with one of its own, the model would count as changed
        with register_module_forward_pre_hook(wait), ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(first)
            assert begun.wait(60)
            try:
                result = other()
            finally:
                through.set()
            return waiting.result(), result

    return beside


@pytest.mark.parametrize("poolings", [("cls", "mean"), ("mean", "cls")])
def test_the_mean_and_the_first_token_at_a_time(folder, tmp_path, poolings, first_call_waits):
    encoder = load_encoder(folder, dtype="bfloat16")
    first, other = (partial(quietly, TEXTS, encoder, pooling=pooling) for pooling in poolings)
    alone = first(store=tmp_path / "alone"), other(store=tmp_path / "alone")
    store = tmp_path / "beside"
    found = first_call_waits(encoder.model, lambda: first(store=store), lambda: other(store=store))
    kept = first(store=store), other(store=store)
    for expected, returned, read in zip(alone, found, kept, strict=True):
        np.testing.assert_array_equal(returned, expected)
        np.testing.assert_array_equal(read, expected)


def test_every_call_cuts_to_its_own_length(folder):
    encoder = load_encoder(folder)
    texts = [" ".join(f"word{row}x{step}" for step in range(60)) for row in range(30)]

    def lengths(number):
        limit = (16, 64)[number % 2]
        return {int(extraction.tokenised(encoder, texts, None, limit)[0].lengths.max()) for _ in range(12)}

    assert in_threads(8, lengths) == [{16}, {64}] * 4


def test_model_tokenizer_and_a_pickled_encoder_are_loaded_once(folder):
    encoder = load_encoder(folder)
    assert len(set(in_threads(6, lambda _: (id(encoder.model), id(encoder.tokenizer))))) == 1
    pickled = pickle.dumps(load_encoder(folder, dtype="bfloat16"))
    assert len({id(loaded) for loaded in in_threads(6, lambda _: pickle.loads(pickled))}) == 1


def test_random_weights_beside_a_thread_that_draws(folder):
    def weights(seed):
        state = load_encoder(folder, random_weights=True, seed=seed % 2).model.state_dict()
        return np.concatenate([tensor.numpy().ravel() for tensor in state.values()])

    alone = weights(0), weights(1)
    stop = threading.Event()

    def draw():
        while not stop.is_set():
            torch.rand(3)

    drawing = threading.Thread(target=draw)
    drawing.start()
    try:
        for number, found in enumerate(in_threads(4, weights)):
            np.testing.assert_array_equal(found, alone[number % 2])
    finally:
        stop.set()
        drawing.join()


def test_random_weights_are_those_of_transformers(folder):
    from transformers import AutoConfig, AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        expected = AutoModel.from_config(AutoConfig.from_pretrained(folder), add_pooling_layer=False).state_dict()
    found = load_encoder(folder, random_weights=True, seed=7).model.state_dict()
    assert found.keys() == expected.keys()
    assert all(tensor.equal(expected[name]) for name, tensor in found.items())


def test_what_transformers_says_is_as_before(folder):
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def first():
        with quiet_transformers():
            first_is_in.set()
            second_is_in.wait(0.3)  # it waits for the first one to leave
        first_is_out.set()

    def second():
        first_is_in.wait()
        with quiet_transformers():
            second_is_in.set()
            first_is_out.wait(0.3)
            assert transformers_logging.get_verbosity() == logging.ERROR

    in_threads(2, lambda number: (first, second)[number]())
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before


def test_torch_keeps_its_number_of_threads(folder, tmp_path, first_call_waits):
    def number_in_a_new_thread():
        return in_threads(1, lambda _: torch.get_num_threads())

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        encoder = load_encoder(folder)
        first = partial(quietly, TEXTS, encoder, store=tmp_path)
        assert first_call_waits(encoder.model, first, number_in_a_new_thread)[1] == [3]
        assert number_in_a_new_thread() == [3]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_autocast_does_not_leak_from_thread_to_thread(folder, first_call_waits):
    model = load_encoder(folder, dtype="bfloat16").model
    ids = torch.tensor([[101, 2023, 102]])

    def plain():
        model(input_ids=ids)
        return torch.is_autocast_enabled("cpu")

    def in_autocast():
        with torch.autocast("cpu", torch.bfloat16):
            model(input_ids=ids)
            return torch.is_autocast_enabled("cpu")

    assert first_call_waits(model, plain, in_autocast) == (False, True)


def test_a_copy_of_a_bfloat16_model_runs_itself(folder):
    model = load_encoder(folder, dtype="bfloat16").model
    changed = copy.deepcopy(model)
    ids = torch.tensor([[101, 2023, 102]])
    with torch.no_grad():
        changed.encoder.layer[1].output.LayerNorm.bias += 1
        difference = changed(input_ids=ids).last_hidden_state - model(input_ids=ids).last_hidden_state
    assert difference.numpy() == pytest.approx(1, abs=0.01)


@pytest.fixture(scope="module")
def threaded_worker():
    """The address of a Dask cluster whose one worker computes two units at a time, in threads of this process."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(protocol="tcp", **options) as cluster:
        yield cluster.scheduler_address


def test_a_dask_worker_of_two_threads(folder, tmp_path, monkeypatch, threaded_worker):
    monkeypatch.setattr(extraction, "SHARD_ROWS", 4)
    encoder = load_encoder(folder, dtype="bfloat16")
    calls = [("cls", 8), ("mean", 16), ("content", 8)]

    def call(number, **options):
        pooling, max_length = calls[number]
        return quietly(TEXTS, encoder, pooling=pooling, **{"max_length": max_length} | options).tobytes()

    here = [call(number, store=tmp_path / "here") for number in range(3)]
    assert in_threads(3, partial(call, store=tmp_path / "there", scheduler=threaded_worker)) == here
    kept = [call(number, store=tmp_path / "there") for number in range(3)]
    assert kept == here


@pytest.mark.parametrize("there", [False, True])
def test_what_float16_cannot_hold_is_not_stored(folder, tmp_path, threaded_worker, there):
    from safetensors.torch import load_file, save_file

    loud = shutil.copytree(folder, tmp_path / "loud")
    tensors = load_file(loud / "model.safetensors")
    tensors["encoder.layer.1.output.LayerNorm.bias"] += 1e6
    save_file(tensors, loud / "model.safetensors", metadata={"format": "pt"})
    scheduler = threaded_worker if there else None
    with pytest.raises(ValueError, match="text, row 0: .*loud gave values not finite"):
        quietly(TEXTS, load_encoder(loud, dtype="bfloat16"), store=tmp_path / "store", scheduler=scheduler)
    assert list((tmp_path / "store").rglob("*.npy")) == []


def test_a_child_that_is_forked_while_a_thread_reads_does_not_wait_for_ever(folder, tmp_path):
    reading, forked = threading.Event(), threading.Event()

    def hold():
        with extraction._TOKENISING, extraction._SETTING_UP, encoders._LOADING:
            reading.set()
            assert forked.wait(60)

    encoder = load_encoder(folder)
    extract(["a line"], encoder, max_length=8, progress=False, store=tmp_path / "parent")
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        assert reading.wait(60)
        child = os.fork()
        if not child:
            signal.alarm(20)
            for each in (encoder, load_encoder(folder)):
                extraction.encoded(each, ["a line"], None, 8)
            extract(["a line"], encoder, max_length=8, progress=False, store=tmp_path / "child")
            os._exit(0)
        forked.set()
        held.result()
    assert os.waitpid(child, 0)[1] == 0


def test_a_forked_process_grows_its_forests_in_threads_of_its_own():
    script = """
import os, sys
import numpy as np
from tsns_lib import forest_importance

X = np.random.default_rng(0).normal(size=(60, 5))
grow = lambda: forest_importance(X, X[:, 3] > 0, n_trees=20, n_jobs=2).tobytes()
expected = grow()
reader, writer = os.pipe()
if not os.fork():
    os.write(writer, grow())
    os._exit(0)
assert os.read(reader, len(expected)) == expected == grow()
os.wait()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=ROOT, check=True, timeout=120)
