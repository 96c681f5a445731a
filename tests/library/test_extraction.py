import logging
import shutil
import signal
import subprocess
import sys
import threading
from functools import cache
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from tiny_encoders import FAMILIES, WORDS, tiny_folder

from tsns_lib import extraction
from tsns_lib.encoders import Encoder, load_encoder
from tsns_lib.executors import RUNNER
from tsns_lib.extraction import extract, stored_activations
from tsns_lib.store import Store

ROOT = Path(__file__).parents[2]
TEXTS = [
    "tak",
    "bim tak selora ven",
    "quulo dar mip bim bim tak",
    "ven ven",
    "tak selora quulo mip dar bim tak ven ora lo",
    "dar sel! Mip, tak?",
    "zzz unknown bim",
]
PAIRS = ["bim", "dar mip", "ven tak sel", "tak tak tak tak tak tak tak tak", "lo", "sel", "quulo"]
POOLED = ["mean", "cls", "content"]
# Long enough for several shards of 16 rows, every length several times.
MANY = [" ".join(WORDS[(row + step) % 4] for step in range(1 + row % 9)) + f" {row}" for row in range(50)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoders")
    tiny = {family: tiny_folder(family, root / family) for family in FAMILIES}
    return tiny | {"builtin:minilm": load_encoder("builtin:minilm").folder}


@pytest.fixture(scope="module")
def tiny(folders):
    return load_encoder(folders["bert"])


@cache
def loaded(folder):
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    return AutoTokenizer.from_pretrained(folder), model


def hugging_face(folder, text, pair=None, *, max_length=128, pooling="cls"):
    """One text alone, without padding: what transformers itself gives, layer after layer."""
    import torch

    tokenizer, model = loaded(folder)
    options = {"truncation": True, "max_length": max_length, "return_special_tokens_mask": True}
    inputs = tokenizer(text, pair, return_tensors="pt", **options)
    framing = inputs.pop("special_tokens_mask")[0].numpy().astype(bool)
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    pool = {
        "cls": lambda tokens: tokens[0],
        "mean": lambda tokens: tokens.mean(axis=0),
        "content": lambda tokens: tokens[~framing].mean(axis=0),
    }[pooling]
    return np.concatenate([pool(layer[0].numpy()) for layer in states[1:]])


@pytest.mark.parametrize("pooling", ["cls", "mean", "content"])
@pytest.mark.parametrize("family", [*FAMILIES, "builtin:minilm"])
def test_activations_equal_hugging_face(family, pooling, folders, tmp_path):
    encoder = load_encoder(folders[family])
    settings = {"pooling": pooling, "max_length": 20, "store": tmp_path, "progress": False}
    together = extract(TEXTS, encoder, **settings)
    in_pairs = extract(TEXTS, encoder, text_pairs=PAIRS, **settings)
    assert together.shape == (7, encoder.n_neurons)
    assert together.dtype == in_pairs.dtype == np.float32
    for row in (0, 2, 4):
        text, pair = TEXTS[row], PAIRS[row]
        expected = hugging_face(folders[family], text, max_length=20, pooling=pooling)
        alone = extract([text], encoder, **settings)[0]
        np.testing.assert_allclose(alone, expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(together[row], expected, rtol=0, atol=1e-5)
        expected = hugging_face(folders[family], text, pair, max_length=20, pooling=pooling)
        np.testing.assert_allclose(in_pairs[row], expected, rtol=0, atol=1e-5)
        assert np.abs(in_pairs[row] - together[row]).max() > 1e-2


def test_rows_keep_their_order_in_every_batch(tiny, tmp_path, monkeypatch):
    settings = {"max_length": 12, "progress": False}
    wide = extract(MANY, tiny, store=tmp_path / "wide", **settings)
    monkeypatch.setitem(extraction.TOKEN_BUDGET, "float32", 30)
    narrow = extract(MANY, tiny, store=tmp_path / "narrow", **settings)
    np.testing.assert_allclose(wide, narrow, rtol=0, atol=1e-5)
    reverse = extract(MANY[::-1], tiny, store=tmp_path / "wide", **settings)
    np.testing.assert_allclose(reverse[::-1], wide, rtol=0, atol=1e-5)


def watched(model, call):
    """Call before every pass of a model by a hook of all modules: with one of its own it would count as changed."""
    import torch
    from torch.nn.modules.module import register_module_forward_pre_hook

    def hook(module, _):
        if module is model and torch.is_inference_mode_enabled():  # as in extraction, and not in a check of the model
            call()

    return register_module_forward_pre_hook(hook)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_pass_stores_several_poolings_with_the_same_bits(dtype, folders, tmp_path, monkeypatch):
    tiny = load_encoder(folders["bert"], dtype=dtype)
    monkeypatch.setattr(extraction, "SHARD_ROWS", 16)
    settings = {"max_length": 12, "progress": False}
    alone = {pooling: extract(MANY, tiny, pooling=pooling, store=tmp_path / pooling, **settings) for pooling in POOLED}
    passes = []
    with watched(tiny.model, lambda: passes.append(1)):
        first, *others = POOLED
        extraction.stored_activations(MANY, tiny, pooling=first, also=others, store=tmp_path / "all", **settings)
        n_passes = len(passes)
        for pooling in POOLED:
            together = extract(MANY, tiny, pooling=pooling, store=tmp_path / "all", **settings)
            np.testing.assert_array_equal(together, alone[pooling])
    assert len(passes) == n_passes > 0


def test_batches_hold_each_row_once_within_the_budget():
    lengths = np.array([3, 9, 5, 50, 5, 4])
    assert [batch.tolist() for batch in extraction.batches(lengths, 20)] == [[3], [1, 2], [4, 5, 0]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_threads_change_no_bit_and_are_given_back(dtype, folders, monkeypatch):
    import torch

    encoder = load_encoder(folders["bert"], dtype=dtype)
    tokens, _ = extraction.tokenised(encoder, MANY, None, 12)
    monkeypatch.setattr(extraction, "TOKENS_AT_ONCE", 30)
    before, in_each = torch.get_num_threads(), []
    values = {}
    try:
        with watched(encoder.model, lambda: in_each.append(torch.get_num_threads())):
            for n_threads in (1, 3):
                torch.set_num_threads(n_threads)
                values[n_threads] = extraction.activations(tokens, encoder, "cls")
                assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(values[1], values[3])
    assert len(in_each) > 20
    assert set(in_each) == {1}


def test_a_model_is_loaded_before_the_threads_begin(folders, monkeypatch):
    loaded_in, load = [], Encoder._trained
    monkeypatch.setattr(Encoder, "_trained", lambda *a: loaded_in.append(threading.current_thread()) or load(*a))
    encoder = load_encoder(folders["bert"])
    tokens, _ = extraction.tokenised(encoder, MANY, None, 12)
    monkeypatch.setattr(extraction, "TOKENS_AT_ONCE", 30)
    extraction.activations(tokens, encoder, "mean")
    assert loaded_in == [threading.main_thread()]


def test_bert_large_has_24576_neurons(tmp_path):
    import transformers as hf

    tokenizer = hf.BertTokenizer.from_pretrained(tiny_folder("bert", tmp_path))
    config = hf.BertConfig(
        vocab_size=len(tokenizer), num_hidden_layers=24, hidden_size=1024, num_attention_heads=16,
        intermediate_size=4096, max_position_embeddings=32,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, random_weights=True)
    activations = extract(TEXTS[1:3], encoder, store=tmp_path, max_length=16, progress=False)
    assert activations.shape == (2, 24_576)
    assert not np.allclose(activations[0], activations[1])


def test_a_source_brings_its_texts_and_pairs(tiny, tmp_path):
    settings = {"max_length": 20, "store": tmp_path, "progress": False}
    single = SimpleNamespace(frame=pd.DataFrame({"text": TEXTS, "text_pair": None, "label": 0}))
    np.testing.assert_array_equal(extract(single, tiny, **settings), extract(TEXTS, tiny, **settings))
    paired = SimpleNamespace(frame=pd.DataFrame({"text": TEXTS, "text_pair": PAIRS, "label": 0}))
    expected = extract(TEXTS, tiny, text_pairs=PAIRS, **settings)
    np.testing.assert_array_equal(extract(paired, tiny, **settings), expected)
    with pytest.raises(ValueError, match="text_pairs: a Source brings its own pairs"):
        extract(paired, tiny, text_pairs=PAIRS, **settings)


def test_everything_that_matters_has_its_own_key(tiny, folders, tmp_path, monkeypatch):
    def count(texts=TEXTS, encoder=tiny, **settings):
        settings = {"max_length": 20} | settings
        extract(texts, encoder, store=Store(tmp_path), progress=False, **settings)
        return len(list((tmp_path / "activations").iterdir()))

    assert [count(), count()] == [1, 1]
    assert count(pooling="mean") == 2
    assert count(max_length=19) == 3
    assert count(text_pairs=PAIRS) == 4
    assert count(TEXTS + PAIRS) == 5
    assert count([TEXTS[0] + TEXTS[1], *TEXTS[2:]]) == 6
    assert count(encoder=load_encoder(folders["bert"], dtype="bfloat16")) == 7
    assert count(encoder=load_encoder(folders["bert"], random_weights=True)) == 8
    assert count(encoder=load_encoder(folders["bert"], random_weights=True, seed=1)) == 9
    assert count(list(TEXTS)) == 9
    version = metadata.version
    for number, package in enumerate(("torch", "transformers", "tokenizers"), 10):
        monkeypatch.setattr(metadata, "version", lambda name, newer=package: "99.0" if name == newer else version(name))
        assert count() == number


def test_bfloat16_is_stored_as_float16(tiny, folders, tmp_path):
    settings = {"max_length": 20, "store": tmp_path, "progress": False}
    half = extract(TEXTS, load_encoder(folders["bert"], dtype="bfloat16"), **settings)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, extract(TEXTS, tiny, **settings), rtol=0, atol=0.15)


def test_truncated_rows_are_counted_and_said(tiny, tmp_path, caplog):
    settings = {"store": tmp_path, "progress": False}
    with caplog.at_level(logging.WARNING):
        extract(TEXTS, tiny, max_length=20, **settings)
        assert caplog.messages == []
        extract(TEXTS, tiny, max_length=6, **settings)
        extract(TEXTS, tiny, max_length=6, **settings)
        extract(TEXTS, tiny, text_pairs=PAIRS, max_length=13, **settings)
    said = "the texts: {} of 7 texts were cut to max_length={} tokens"
    assert caplog.messages == [said.format(4, 6), said.format(1, 13)]  # each once


def test_a_second_call_reads_and_needs_no_torch(tiny, folders, tmp_path):
    first = extract(TEXTS, tiny, max_length=20, store=tmp_path, progress=False)
    script = (
        "import sys; from tsns_lib.encoders import load_encoder; from tsns_lib.extraction import extract\n"
        f"activations = extract({TEXTS!r}, load_encoder(sys.argv[1]), max_length=20, store=sys.argv[2])\n"
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)\n"
        "sys.stdout.buffer.write(activations.tobytes())"
    )
    command = [sys.executable, "-c", script, str(folders["bert"]), str(tmp_path)]
    assert subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout == first.tobytes()


def test_a_killed_call_resumes_to_the_same_bytes(tiny, folders, tmp_path, monkeypatch):
    script = f"""
import os, signal, sys
from tsns_lib import extraction
from tsns_lib.encoders import load_encoder
from tsns_lib.store import Entry
write = Entry.write
def write_and_die(self, index, array):
    write(self, index, array)
    os.kill(os.getpid(), signal.SIGKILL)
Entry.write = write_and_die
extraction.SHARD_ROWS = 16
extraction.extract({MANY!r}, load_encoder(sys.argv[1]), max_length=8, store=sys.argv[2])
"""
    command = [sys.executable, "-c", script, str(folders["bert"]), str(tmp_path / "killed")]
    died = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert died.returncode == -signal.SIGKILL
    (folder,) = (tmp_path / "killed" / "activations").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["00000.npy", "identity.json"]
    written = (folder / "00000.npy").stat().st_mtime_ns

    monkeypatch.setattr(extraction, "SHARD_ROWS", 16)
    settings = {"max_length": 8, "progress": False}
    resumed = extract(MANY, tiny, store=tmp_path / "killed", **settings)
    whole = extract(MANY, tiny, store=tmp_path / "whole", **settings)
    assert resumed.shape == (50, 96)
    assert resumed.tobytes() == whole.tobytes()
    assert (folder / "00000.npy").stat().st_mtime_ns == written
    manifest = (folder / "manifest.json").read_bytes()
    assert manifest == (tmp_path / "whole" / "activations" / folder.name / "manifest.json").read_bytes()
    assert b'"n_truncated": 20' in manifest


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_processes_give_the_same_bytes(folders, tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(extraction, "SHARD_ROWS", 16)
    encoder = load_encoder(folders["builtin:minilm"], dtype=dtype)
    here = extract(MANY, encoder, text_pairs=MANY[::-1], store=tmp_path / "here", progress=False)
    settings = {"store": tmp_path / "there", "scheduler": "processes:2", "progress": False}
    assert extract(MANY, encoder, text_pairs=MANY[::-1], **settings).tobytes() == here.tobytes()
    manifests = [path.read_bytes() for path in sorted(tmp_path.rglob("manifest.json"))]
    assert manifests[0] == manifests[1] and len(manifests) == 2


def test_another_encoder_in_a_process_is_said(tmp_path):
    encoder = load_encoder(tiny_folder("bert", tmp_path))
    assert encoder.digest and encoder.tokenizer
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"layer_norm_eps": 1e-12', '"layer_norm_eps": 1e-06'))
    settings = {"max_length": 20, "store": tmp_path / "store", "scheduler": "processes:2", "progress": False}
    with pytest.raises(ValueError, match="the worker has another one"):
        extract(TEXTS, encoder, **settings)


def test_an_entry_is_what_extract_reads(tiny, tmp_path):
    settings = {"max_length": 20, "store": tmp_path, "progress": False}
    entry = stored_activations(TEXTS, tiny, **settings)
    whole = extract(TEXTS, tiny, **settings)
    assert (entry.shape, entry.dtype) == ((7, 96), np.float32)
    np.testing.assert_array_equal(entry.read(rows=[6, 0], columns=[95, 1]), whole[[6, 0]][:, [95, 1]])
    np.testing.assert_array_equal(entry.columns([95, 1]), whole[:, [95, 1]])


def test_a_damaged_shard_is_said_and_computed_again(tiny, tmp_path, caplog):
    whole = extract(TEXTS, tiny, max_length=20, store=tmp_path, progress=False)
    (shard,) = tmp_path.rglob("00000.npy")
    shard.write_bytes(shard.read_bytes()[:-8])
    again = extract(TEXTS, tiny, max_length=20, store=tmp_path, progress=False)
    assert again.tobytes() == whole.tobytes()
    assert [str(shard) in message for message in caplog.messages if "has to be written again" in message] == [True]


def test_the_progress_bar_is_plain_and_leaves_nothing(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(RUNNER, "1")  # elsewhere it is shown in a terminal alone
    extract(TEXTS, tiny, max_length=20, store=tmp_path)
    said = capsys.readouterr().err
    assert "activations" in said and said.endswith("\r")
    extract(TEXTS, tiny, max_length=20, store=tmp_path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        ([], {}, "text: no rows"),
        (["bim", 3], {}, "text, row 1: expected a string, got int 3"),
        (["bim", None], {}, "text, row 1: expected a string, got NoneType None"),
        (["bim", " \t"], {}, "text, row 1: empty"),
        (["bim", "\ud800"], {}, "text, row 1: not valid Unicode"),
        ("bim", {}, "texts: expected a sequence of texts, .* got one string"),
        (["bim"], {"text_pairs": ["tak", "ven"]}, "text_pairs: 2 rows for 1 texts"),
        (["bim"], {"text_pairs": [""]}, "text_pair, row 0: empty"),
        (["bim"], {"pooling": "max"}, "pooling: must be 'cls', 'mean' or 'content', got 'max'"),
        (["bim"], {"max_length": 2}, "max_length=2: expected 3 to 24 for "),
        (["bim"], {"max_length": 25}, "max_length=25: expected 3 to 24 for "),
        (["bim"], {"max_length": 16.0}, "max_length: must be a whole number, got 16.0"),
        (["bim"], {"max_length": True}, "max_length: must be a whole number, got True"),
        (["bim"], {"scheduler": "threads"}, "scheduler: must be 'processes'.* got 'threads'"),
        (
            ["bim"],
            {"max_length": 5, "text_pairs": ["tak"]},
            "max_length=5: expected 6 to 24 for .* and pairs",
        ),
    ],
)
def test_bad_input(tiny, tmp_path, texts, settings, message):
    settings = {"max_length": 20} | settings
    with pytest.raises(ValueError, match=message):
        extract(texts, tiny, store=tmp_path, progress=False, **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_source_with_a_missing_pair_names_the_row(tiny, tmp_path):
    frame = pd.DataFrame({"text": ["bim", "tak"], "text_pair": ["ven", None], "label": 0})
    with pytest.raises(ValueError, match="text_pair, row 1: expected a string"):
        extract(SimpleNamespace(frame=frame), tiny, max_length=20, store=tmp_path)


def test_roberta_keeps_two_positions_for_itself(folders, tmp_path):
    encoder = load_encoder(folders["roberta"])
    settings = {"store": tmp_path, "progress": False}
    assert extract(["tak " * 40], encoder, max_length=22, **settings).shape == (1, 96)
    with pytest.raises(ValueError, match="max_length=23: expected 3 to 22"):
        extract(["tak"], encoder, max_length=23, **settings)


@pytest.mark.parametrize("text", ["\u0301", "\ufffd", "\ue000", "\u200b\u0301", "[SEP]", "[CLS] [SEP]"])
@pytest.mark.parametrize("also", [False, True])
def test_a_text_of_framing_alone_is_named_before_the_model_runs(tiny, tmp_path, monkeypatch, text, also):
    monkeypatch.setattr(extraction, "SHARD_ROWS", 16)
    settings = {"pooling": "mean", "also": ["content"]} if also else {"pooling": "content"}
    settings |= {"max_length": 12, "store": tmp_path, "progress": False}
    with pytest.raises(ValueError) as caught:
        stored_activations([*MANY[:37], text, *MANY[37:], text], tiny, **settings)
    assert str(caught.value) == "text, row 37: has no token but the special ones, and pooling='content' needs one"
    assert list(tmp_path.rglob("*.npy")) == []
    pairs = {"text_pairs": ["bim"] * 2}  # one of the two texts is enough
    assert np.isfinite(stored_activations([text, "tak"], tiny, **settings | pairs).read()).all()
    assert np.isfinite(extract([text], tiny, max_length=12, store=tmp_path, progress=False)).all()


def test_values_that_are_not_finite_name_the_row(folders, tmp_path):
    folder = shutil.copytree(folders["bert"], tmp_path / "encoder")
    tensors = load_file(folder / "model.safetensors")
    (name,) = (name for name in tensors if name.endswith("word_embeddings.weight"))
    tensors[name] = tensors[name].copy()
    encoder = load_encoder(folder)
    tensors[name][encoder.tokenizer.convert_tokens_to_ids("quu")] = np.finfo(np.float32).max  # its square is infinite
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    encoder = load_encoder(folder)
    with pytest.raises(ValueError, match="text, row 1: .* gave values not finite"):
        extract(["tak", "quu", "bim"], encoder, max_length=20, store=tmp_path, progress=False)
