"""Fine-tuning loses nothing and says what went wrong: keys, values that are not finite, damage, kills and threads."""

import dataclasses
import gc
import importlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_encoders import tiny_folder
from tsns_workbook import cli, embeddings, layers, ranking
from tsns_workbook.finetuning import grids, prepared, training
from tsns_workbook.finetuning.finetune import (
    IN_USE,
    TENSORS,
    Recipe,
    _loaded,
    fine_tune,
    labels_digest,
    padded,
    planned,
)
from tsns_workbook.finetuning.model import TunedModel, fresh_model
from tsns_workbook.finetuning.prepared import prepared_encoder, temporary_store

from tsns_lib import load_encoder, load_source
from tsns_lib.corpora.sources import Source
from tsns_lib.encoders import SEAL, seal
from tsns_lib.extraction import extract, texts_of
from tsns_lib.store import Store, StoreError
from tsns_lib.transferability.reinitialization import reinitialize, scramble

ROOT = Path(__file__).parents[2]
WORDS = ["bim tak", "ven quu dar", "sel", "mip lo ora bim"]
RECIPE = Recipe(epochs=2, max_length=16, batch_size=4, learning_rate=1e-3, dtype="float32")
QUIET = {"seed": 0, "progress": False}

pytestmark = pytest.mark.usefixtures("one_thread")


def source_of(labels=(0, 1) * 8, name="own", texts=None, pairs=None):
    texts = [f"{WORDS[row % 4]} {WORDS[row // 4 % 4]}" for row in range(len(labels))] if texts is None else texts
    frame = pd.DataFrame({"text": texts, "text_pair": pairs, "label": labels})
    classes = tuple(str(name) for name in sorted(set(frame["label"].dropna()), key=str))
    return Source(name, "own", "train", frame, {"kind": "own"}, classes)


OWN = source_of()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_encoder(tiny_folder("bert", tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def warned(caplog):
    """What our own loggers have warned of."""
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records if "cut to max_length" not in record.getMessage()]


def flip(path, position=0.5):
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 0x20
    path.write_bytes(content)


# keys


def key(encoder, source=OWN, recipe=RECIPE, **options):
    return Store("unused").entry("finetuned", planned(source, encoder, recipe, **({"seed": 0} | options)).identity).key


def test_another_value_of_every_argument_is_another_key(encoder):
    drawn = partial(reinitialize, layers=[1], seed=1)
    others = {
        "encoder": {"encoder": load_encoder(encoder.folder, random_weights=True)},
        "text": {"source": source_of(texts=["sel", *OWN.frame["text"][1:]])},
        "pair": {"source": source_of(pairs=["bim"] * 16)},
        "label": {"source": source_of((1, 0) * 8)},
        "order": {
            "source": source_of((1, 0) * 8, texts=[text for row in range(16) for text in OWN.frame["text"][[row ^ 1]]])
        },
        "words": {"source": source_of(("a", "b") * 8)},
        "epochs": {"recipe": dataclasses.replace(RECIPE, epochs=3)},
        "learning_rate": {"recipe": dataclasses.replace(RECIPE, learning_rate=2e-3)},
        "batch_size": {"recipe": dataclasses.replace(RECIPE, batch_size=8)},
        "max_length": {"recipe": dataclasses.replace(RECIPE, max_length=17)},
        "clip": {"recipe": dataclasses.replace(RECIPE, clip=2.0)},
        "dtype": {"recipe": dataclasses.replace(RECIPE, dtype="bfloat16")},
        "seed": {"seed": 1},
        "method": {"method": "head"},
        "adapter": {"method": "adapter"},
        "head_layer": {"head_layer": 1},
        "tuned_layers": {"tuned_layers": [1]},
        "prepare": {"prepare": drawn},
        "its seed": {"prepare": partial(reinitialize, layers=[1], seed=2)},
        "its layers": {"prepare": partial(reinitialize, layers=[2], seed=1)},
        "its function": {"prepare": partial(scramble, order=[2, 1, 0])},
        "its arguments": {"prepare": partial(scaled, 2)},
        "their values": {"prepare": partial(scaled, 3)},
        "another function": {"prepare": partial(shifted, 3)},
        "n_rows": {"n_rows": 9},
    }
    assert {field.name for field in dataclasses.fields(Recipe)} <= set(others)
    assert {"encoder", "seed", "method", "head_layer", "tuned_layers", "prepare", "n_rows"} <= set(others)
    keys = {name: key(**({"encoder": encoder} | changes)) for name, changes in others.items()}
    assert len({key(encoder), *keys.values()}) == 1 + len(others)


def scaled(factor, model):
    """Something to prepare a model by, with an argument before it."""
    return model


def shifted(factor, model):
    """Something else, with the same arguments."""
    return model


@pytest.mark.parametrize("package", ["torch", "transformers", "tokenizers", "accelerate"])
def test_another_version_of_what_draws_is_another_key(encoder, monkeypatch, package):
    prepare = partial(reinitialize, layers=[1], seed=1)
    before = key(encoder), prepared.identity_of(prepare)
    monkeypatch.setattr(prepared, "version", lambda name: "9.9" if name == package else version(name))
    assert key(encoder) != before[0] and prepared.identity_of(prepare) != before[1]
    monkeypatch.setattr(prepared, "version", lambda name: f"{version(name).partition('+')[0]}+cu999")
    assert (key(encoder), prepared.identity_of(prepare)) == before  # the same, built for another device


def test_the_key_of_known_input_is_what_it_was(monkeypatch):
    for module in (prepared, grids):
        monkeypatch.setattr(module, "version", lambda package: "1.0")
    books, recipe = load_source("miniature:books", limit=16), Recipe(epochs=1, max_length=16)
    assert labels_digest(np.array([0, 1, 1, -7])) == "f3f8d410383537c0cf55162569296b8b90f33018355c1fdf5dded96ea34e7c72"
    assert (
        key(load_encoder(), books, recipe, tuned_layers=[4, 5])
        == "7f1a86a72a73a86039552b7303327bf045a010e354f7404ba652bed8d81259d6"
    )

    dvd, neurons = load_source("miniature:dvd", limit=16), np.arange(5)
    identity = grids._identity(load_encoder(), None, 0.01, 16, books, dvd, neurons)
    digest = "522dc9f40338f0c4babc0a780fd552c93e79d7bee6b0f8db2ee9a792fdf4bff8"
    assert Store("unused").entry("predictions", identity).key == digest


def test_another_value_of_every_argument_is_another_key_of_re_initialised_predictions(encoder):
    known = {"encoder": encoder, "prepare": None, "C": 0.01, "max_length": 16, "source": OWN, "target": OWN}
    known["neurons"] = np.arange(5)
    others = [
        {"encoder": load_encoder(encoder.folder, random_weights=True)},
        {"encoder": load_encoder(encoder.folder, dtype="bfloat16")},
        {"prepare": partial(reinitialize, layers=[1], seed=1)},
        {"C": 0.1},
        {"max_length": 17},
        {"source": source_of((1, 0) * 8)},
        {"source": source_of(texts=["sel", *OWN.frame["text"][1:]])},
        {"target": source_of(texts=["sel", *OWN.frame["text"][1:]])},
        {"neurons": np.arange(1, 6)},
    ]
    keys = [Store("unused").entry("predictions", grids._identity(**(known | changes))).key for changes in [{}, *others]]
    assert len(set(keys)) == 10


@pytest.mark.parametrize("package", ["torch", "transformers", "tokenizers", "numpy", "scikit-learn"])
def test_another_version_of_what_predicts_is_another_key_of_the_intact_encoders_predictions(
    encoder, monkeypatch, package
):
    known = encoder, None, 0.01, 16, OWN, OWN, np.arange(5)
    before = grids._identity(*known)
    assert grids._identity(*known) == before
    monkeypatch.setattr(grids, "version", lambda name: "9.9" if name == package else version(name))
    assert grids._identity(*known) != before


def test_predictions_and_embeddings_belong_to_a_model_and_to_texts(encoder, whole, tmp_path):
    options = {"store": tmp_path, "progress": False}
    other = fine_tune(OWN, encoder, RECIPE, method="head", store=whole.store, **QUIET)
    texts = source_of(texts=["sel", *OWN.frame["text"][1:]])
    assert (
        len({model._predictions(*texts_of(rows, None)).key for model in (whole, other) for rows in (OWN, texts)}) == 4
    )
    for model in (whole, other):
        for rows in (OWN, texts, source_of((1, 0) * 8)):
            for form in embeddings.FORMS:
                embeddings.task_embedding(model, rows, form=form, **options)
    assert len(list(tmp_path.glob("task_embeddings/*"))) == 12


def test_equal_values_of_other_types_have_one_key(encoder):
    drawn = {"layers": [1], "seed": 1}
    plain = key(encoder, head_layer=1, tuned_layers=[0, 1], n_rows=8, prepare=partial(reinitialize, **drawn))
    recipe = Recipe(
        epochs=np.int64(2),
        max_length=np.int32(16),
        batch_size=np.uint8(4),
        learning_rate=np.float64(1e-3),
        clip=1,
        dtype=np.str_("float32"),
    )
    options = {"tuned_layers": np.array([1, 0]), "n_rows": np.int64(8), "seed": np.int64(0)}
    prepare = partial(reinitialize, layers=[np.int64(1)], seed=np.int64(1))
    assert (
        key(encoder, source_of(np.array((0.0, 1.0) * 8)), recipe, head_layer=np.int64(1), prepare=prepare, **options)
        == plain
    )
    assert Recipe(learning_rate=np.float32(0.5)) == Recipe(learning_rate=0.5)


def test_what_is_prepared_is_what_the_key_says(encoder, tmp_path):
    a = prepared_encoder(encoder, partial(reinitialize, layers=[1], seed=1), store=tmp_path / "a")
    b = prepared_encoder(encoder, partial(reinitialize, layers=(np.int64(1),), seed=np.int64(1)), store=tmp_path / "b")
    assert (a.digest, a.folder.name) == (b.digest, b.folder.name)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((0.2, 0.7) * 8, "own: y: row 0 is 0.2; labels are classes, not quantities"),
        ((0, None) * 8, "own: label: the label of row 1 is missing"),
        ((0.0, np.nan) * 8, "own: label: the label of row 1 is missing"),
        (pd.array([0, pd.NA] * 8, dtype="Int64"), "own: label: the label of row 1 is missing"),
        ((0, "a") * 8, "own: label: mixes labels that cannot be compared"),
        ((1, 1) * 8, "own: y: has one class only"),
    ],
)
def test_what_is_no_label_trains_nothing(encoder, tmp_path, labels, message):
    with pytest.raises(ValueError, match=message):
        fine_tune(source_of(labels), encoder, RECIPE, store=tmp_path, **QUIET)
    with pytest.raises(ValueError, match=message):
        grids.probing_grid([source_of(labels)], [OWN], encoder, max_length=16, store=tmp_path, progress=False)
    assert not any(tmp_path.iterdir())


def test_labels_are_known_by_their_content():
    whole = labels_digest(np.array([0, 1]))
    assert whole == labels_digest(np.array([0.0, 1.0])) == labels_digest(np.array([False, True]))
    others = [["0", "1"], ["a", "b"], ["b", "a"], ["a", "', 'b"], [1e19, 2e19], [2e19, 1e19], [2**63, 2**63 + 1]]
    assert len({whole, *(labels_digest(np.array(labels)) for labels in others)}) == 8


def test_sources_of_one_name_are_told_apart_or_refused(encoder):
    sources = [source_of(name="same"), source_of((1, 0) * 8, name="same")]
    tests = [source_of(name="one"), source_of(name="two")]
    for grid in (partial(grids.probing_grid, max_length=16), partial(grids.reinitialized_grid, selected={}, blocks={})):
        with pytest.raises(ValueError, match="sources: two are called same"):
            grid(sources, tests, encoder)
    with pytest.raises(ValueError, match="sources: two are called same"):
        grids.tuning_grid(sources, tests, encoder, RECIPE, lambda source, seed: {"all": {}})


def test_a_grid_names_what_is_wrong_with_its_last_training_before_the_first(encoder, tmp_path):
    def trials(source, seed):
        return {"right": {"method": "head"}, "wrong": {"head_layer": 3}}

    with pytest.raises(ValueError, match="head_layer: must be at most 2, got 3"):
        grids.tuning_grid([OWN], [source_of(name="test")], encoder, RECIPE, trials, store=tmp_path, progress=False)
    blocks, selected = {"right": [0], "wrong": [3]}, {"own": [1, 2]}
    with pytest.raises(ValueError, match="blocks, wrong: must be at most 2, got 3"):
        grids.reinitialized_grid([OWN], [source_of(name="test")], encoder, selected, blocks, store=tmp_path)
    with pytest.raises(ValueError, match=r"selected, own: must be a whole number, got .*0\.5"):
        grids.reinitialized_grid([OWN], [source_of(name="test")], encoder, {"own": [0.5]}, {}, store=tmp_path)
    assert not any(tmp_path.iterdir())


# what is not finite


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(epochs=4, max_length=16, learning_rate=1e30), "the (loss|grad_norm) of step [1-9]"),
        (
            Recipe(epochs=1, max_length=16, batch_size=16, learning_rate=1e39, dtype="float32"),
            "after the last step, encoder",
        ),
    ],
)
def test_what_is_not_finite_is_not_kept(encoder, tmp_path, monkeypatch, recipe, message):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    for only_for in (None, OWN):
        with pytest.raises(ValueError, match=f"learning_rate=.*: {message}.* is not finite; take a smaller one"):
            fine_tune(OWN, encoder, recipe, store=tmp_path, only_for=only_for, **QUIET)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {".lock", "identity.json"}


def test_outputs_that_are_not_finite_are_not_kept(encoder, tmp_path):
    tuned = fine_tune(OWN, encoder, RECIPE, method="head", store=tmp_path, **QUIET)
    with torch.no_grad():
        tuned.model.head.linear.bias[1] = torch.inf
    vars(_loaded(tuned)).pop("model as loaded")  # else it is refused, as it was changed
    with pytest.raises(ValueError, match="the model's output for row 0 is not finite"):
        tuned.logits(["bim"])
    with pytest.raises(ValueError, match="query.weight: a squared gradient is not finite"):
        embeddings.task_embedding(tuned, OWN, store=tmp_path, progress=False)
    assert not list(tmp_path.glob("predictions/*/*.npy")) and not list(tmp_path.glob("task_embeddings/*/*.npy"))


NAN, ONES = {"a": np.array([1.0, np.nan])}, {"a": np.ones(2)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: embeddings.mean_cosine(NAN, ONES), "embeddings: a is no vector of finite numbers"),
        (lambda: embeddings.mean_cosine(ONES, {"a": np.array([1.0, np.inf])}), "embeddings: a is no vector of finite"),
        (lambda: embeddings.mean_cosine(ONES, {"b": np.ones(2)}), "embeddings: a is not in both"),
        (lambda: embeddings.mean_cosine(ONES, {"a": np.ones(3)}), "embeddings: a is not in both, or of two sizes"),
        (lambda: embeddings.mean_cosine({}, ONES), "embeddings: there is no component"),
        (lambda: embeddings.rank_sources(ONES, {"s": NAN}), "embeddings: a is no vector of finite numbers"),
        (lambda: embeddings.curve_gradient(["1"] * 30), "losses: must be the loss of every step"),
        (lambda: embeddings.curve_gradient([1e308, -1e308] * 40), "losses: are too large for a slope"),
        (lambda: embeddings.nearest_sources("ab", {"r": lambda a, b: np.nan}), "r: is nan for b and a"),
        (lambda: embeddings.nearest_sources("a", {}), r"names: need at least two, all different, got \['a'\]"),
        (lambda: ranking.pair_frame({"t": "ab"}, {"r": lambda a, b: -np.inf}), "r: is -inf for b and a"),
        (lambda: ranking.profile_similarity([1.0, 0.0], [1.0, 2.0]), r"profiles: must be positive and finite"),
        (lambda: ranking.profile_similarity([1.0], [1.0, 2.0]), r"profiles: need a number for each layer"),
        (lambda: ranking.ranking_measures([1, 2], [50, 60]), "outcomes: must be from 0 to 1, got 50.0 to 60.0"),
        (lambda: ranking.ranking_measures(["1", "2"], [0.5, 0.6]), "scores: must be a number for each source"),
        (lambda: layers.strongest_block([0.5, np.nan], {}), "shares: layer 2 is not finite"),
        (lambda: layers.agreement_of_few(np.eye(9), [0] + [1] * 8, 3, share=0.2, draws=50, seed=0), "have one class"),
        (lambda: layers.agreement_of_few(np.eye(4), [0, None] * 2, 2, share=1, draws=1, seed=0), "row 1 is missing"),
        (lambda: layers.agreement_of_few(np.eye(4), [0, 1] * 2, 2, share=1, draws=0.5, seed=0), "draws: must be a"),
    ],
)  # fmt: skip
def test_no_score_is_made_of_what_is_none(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_a_cosine_does_not_depend_on_the_scale(scale):
    a, b = np.array([3.0, 4.0], np.float32), np.array([4.0, 3.0], np.float32)
    tiny = {"a": (a * np.float32(scale)).astype(np.float32)}
    assert embeddings.mean_cosine(tiny, {"a": b}) == pytest.approx(0.96)
    assert embeddings.mean_cosine({"a": a}, {"a": b}) == pytest.approx(0.96)


# damage


class Stop(Exception):
    pass


@pytest.fixture
def cut_short(encoder, tmp_path, monkeypatch):
    """A training that stopped after five of its eight steps; returns its last checkpoint and the one before."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    begin, old = training.Course.on_step_begin, tmp_path / "old"

    def stopping(self, args, state, control, **kwargs):
        if state.global_step == 4:
            (last,) = Path(args.output_dir).iterdir()
            shutil.copytree(last, old)
        if state.global_step == 5:
            raise Stop
        begin(self, args, state, control, **kwargs)

    with monkeypatch.context() as stopped, pytest.raises(Stop):
        stopped.setattr(training.Course, "on_step_begin", stopping)
        fine_tune(OWN, encoder, RECIPE, store=tmp_path / "cut", **QUIET)
    (last,) = tmp_path.glob("cut/finetuned/*/checkpoints/checkpoint-5")
    shutil.move(old, last.with_name("checkpoint-4"))
    for checkpoint in (last, last.with_name("checkpoint-4")):  # shows which of them is read
        state = checkpoint / training.STATE
        content = json.loads(state.read_text())
        content["log_history"][0]["loss"] = float(checkpoint.name[-1])
        state.write_text(json.dumps(content))
        training.seal(checkpoint)
    return last


@pytest.fixture(scope="module")
def whole(encoder, tmp_path_factory):
    return fine_tune(OWN, encoder, RECIPE, store=tmp_path_factory.mktemp("whole"), **QUIET)


def resumed(encoder, last, whole):
    """Go on, and return the number of the checkpoint that was read (0 for none)."""
    tuned = fine_tune(OWN, encoder, RECIPE, store=last.parents[3], **QUIET)
    assert np.array_equal(tuned.losses[1:], whole.losses[1:])
    assert tuned.entry.facts()["sha256"] == whole.entry.facts()["sha256"]
    assert not last.parent.exists()
    return int(tuned.losses[0]) if tuned.losses[0] >= 4 else 0


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def test_a_checkpoint_is_read(encoder, cut_short, whole, warned):
    assert resumed(encoder, cut_short, whole) == 5
    assert warned() == []


@pytest.mark.parametrize("harm", [flip, cut, os.unlink])
@pytest.mark.parametrize("name", [training.MODEL, training.OPTIMIZER, training.STATE, training.SEAL])
def test_a_damaged_checkpoint_is_not_read_and_the_one_before_is(encoder, cut_short, whole, warned, name, harm):
    harm(cut_short / name)
    assert resumed(encoder, cut_short, whole) == 4
    unsealed = harm is os.unlink and name == training.SEAL  # as a kill leaves it
    assert [f"{cut_short}: is not as it was written" in line for line in warned()] == ([] if unsealed else [True])


def test_a_checkpoint_of_another_training_is_not_read(encoder, cut_short, whole, warned, tmp_path):
    """It has the same files, sizes and shapes, and its own seal: the key that it says it belongs to is another."""
    other = tmp_path / "other/finetuned" / f"{0:064x}" / "checkpoints" / cut_short.name
    shutil.copytree(cut_short, other)
    facts = {"schedule": json.dumps({"last_epoch": 5}), "training": f"{0:064x}"}
    save_file(load_file(cut_short / training.OPTIMIZER), other / training.OPTIMIZER, facts)
    training.seal(other)
    shutil.rmtree(cut_short)
    shutil.copytree(other, cut_short)
    assert resumed(encoder, cut_short, whole) == 4
    assert [f"{cut_short}: is not as it was written" in line for line in warned()] == [True]


def test_without_a_sound_checkpoint_training_starts_over(encoder, cut_short, whole):
    flip(cut_short / training.MODEL)
    shutil.rmtree(cut_short.with_name("checkpoint-4"))
    assert resumed(encoder, cut_short, whole) == 0


def test_a_pickle_beside_a_checkpoint_is_not_read(encoder, cut_short, whole, tmp_path):
    evil = f"cos\nsystem\n(S'touch {tmp_path / 'unpickled'}'\ntR."
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin", "training_args.bin"):
        (cut_short / name).write_text(evil)
    assert resumed(encoder, cut_short, whole) == 4
    assert not (tmp_path / "unpickled").exists()


def test_a_folder_in_the_place_of_a_lock_is_named(encoder, tmp_path):
    tuned = planned(OWN, encoder, RECIPE, seed=0).model_in(Store(tmp_path))
    shuffled = partial(reinitialize, layers=[1], seed=1)
    identity = {"encoder": encoder.digest, "prepare": prepared.identity_of(shuffled)}
    altered = Store(tmp_path).entry("encoders", identity)
    for entry in (tuned.entry, altered):
        (entry.path / ".lock").mkdir(parents=True)
    with pytest.raises(StoreError, match=f"^{tuned.folder}/.lock: Is a directory; delete it and run again$"):
        fine_tune(OWN, encoder, RECIPE, seed=0, store=tmp_path, progress=False)
    with pytest.raises(StoreError, match=f"^{altered.path}/.lock: Is a directory; delete it and run again$"):
        prepared_encoder(encoder, shuffled, store=tmp_path)


def test_a_damaged_model_is_trained_again(encoder, tmp_path, whole, warned):
    store = shutil.copytree(whole.store.root, tmp_path / "copy")
    tuned = fine_tune(OWN, encoder, RECIPE, store=store, **QUIET)
    flip(tuned.folder / TENSORS)
    with pytest.raises(StoreError, match=f"{TENSORS}: is missing or not as it was written; call fine_tune again"):
        _ = tuned.model
    again = fine_tune(OWN, encoder, RECIPE, store=store, **QUIET)
    assert warned() == [f"{tuned.folder / TENSORS}: is not as it was written; the model is trained again"]
    assert np.array_equal(again.logits(OWN), whole.logits(OWN))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", SEAL])
def test_a_damaged_encoder_is_made_again(encoder, tmp_path, warned, name):
    def states():
        prepared = prepared_encoder(encoder, partial(reinitialize, layers=[1], seed=1), store=tmp_path / "encoders")
        return extract(WORDS, prepared, max_length=16, store=tmp_path / "states", progress=False), prepared.digest

    (first, digest) = states()
    (path,) = tmp_path.glob(f"encoders/encoders/*/{name}")
    flip(path)
    shutil.rmtree(tmp_path / "states")
    (again, same) = states()
    assert digest == same and np.array_equal(first, again)
    assert len(warned()) == 1 and f"{path.parent}: is not as it was written" in warned()[0]


# kills, and two at once


def zeroed(model):
    model.encoder.encoder.layer[0].output.dense.weight.data.zero_()


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.train(),
        zeroed,
        lambda model: model.head.linear.weight.data.mul_(2),
        lambda model: model.head.register_forward_hook(lambda module, args, output: -output),
        lambda model: setattr(model.head, "tanh", torch.nn.ReLU()),
    ],
)
def test_a_tuned_model_that_was_changed_in_place_is_refused(encoder, whole, tmp_path, change):
    tuned = fine_tune(OWN, encoder, RECIPE, store=tmp_path, **QUIET)
    change(tuned.model)
    for call in (
        lambda: tuned.logits(["bim tak"]),
        lambda: tuned.predict(OWN),
        tuned.encoder,
        lambda: embeddings.task_embedding(tuned, OWN, store=tmp_path, progress=False),
    ):
        with pytest.raises(ValueError, match="^own: the model was changed after it was loaded; call fine_tune again"):
            call()
    assert not [*tmp_path.glob("predictions/*/*.npy"), *tmp_path.glob("encoders/*/*.safetensors")]
    assert not list(tmp_path.glob("task_embeddings/*/*.npy"))
    again = fine_tune(OWN, encoder, RECIPE, store=tmp_path, **QUIET)
    assert np.array_equal(again.logits(OWN), whole.logits(OWN))


@pytest.mark.parametrize("method", ["full", "adapter"])
def test_what_works_with_a_tuned_model_does_not_change_it(encoder, tmp_path, method):
    tuned = fine_tune(OWN, encoder, RECIPE, method=method, store=tmp_path, **QUIET)
    for _ in range(2):
        embeddings.task_embedding(tuned, OWN, store=tmp_path / "states", progress=False)
        tuned.logits(OWN)
        shutil.rmtree(tmp_path / "predictions"), shutil.rmtree(tmp_path / "states")
    if method == "full":
        assert tuned.encoder().n_layers == encoder.n_layers and tuned.model is tuned.model


def test_a_byte_of_any_shard_of_an_encoder_is_noticed(encoder, tmp_path):
    folder = shutil.copytree(encoder.folder, tmp_path / "sharded")
    (folder / "model.safetensors").unlink()
    fresh_model(encoder).save_pretrained(folder, max_shard_size="20KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    digest = load_encoder(folder).digest
    for shard in shards:
        before, content = load_encoder(folder), shard.read_bytes()
        flip(shard, 0.9)
        with pytest.raises(ValueError, match=f"{shard.name}: has changed since load_encoder"):
            before.model  # noqa: B018
        assert load_encoder(folder).digest != digest
        shard.write_bytes(content)
    seal(folder)
    flip(shards[1], 0.9)
    with pytest.raises(StoreError, match=f"{shards[1].name}: is not as it was written"):
        load_encoder(folder)


def test_a_verification_beside_a_training_sees_no_damage(encoder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setenv("TSNS_CACHE", str(tmp_path))
    recipe = dataclasses.replace(RECIPE, epochs=8)
    with ThreadPoolExecutor(1) as pool:
        trained = pool.submit(fine_tune, OWN, encoder, recipe, **QUIET)
        seen = 0
        while not trained.done():
            seen += bool(list(tmp_path.glob(f"finetuned/*/checkpoints/*/{training.SEAL}")))
            assert cli.main(["cache", "--verify"]) == 0, capsys.readouterr().out
    assert trained.result().is_trained and seen > 3


def run(code, *arguments, **options):
    script = "import os, signal, sys\nfrom functools import partial\n" + code
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], cwd=ROOT, **options)


HALF_AN_ENCODER = """
from tsns_lib import encoders, load_encoder
from tsns_lib.transferability.reinitialization import reinitialize
from tsns_workbook.finetuning import prepared
prepared.seal = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
prepared.prepared_encoder(load_encoder(sys.argv[1]), partial(reinitialize, layers=[1], seed=1), store=sys.argv[2])
"""


def test_an_encoder_that_a_kill_left_is_filled_again(encoder, tmp_path, warned):
    assert run(HALF_AN_ENCODER, encoder.folder, tmp_path / "killed").wait() == -signal.SIGKILL
    (left,) = tmp_path.glob("killed/encoders/*")
    (left / "model.safetensors").write_bytes(b"half")
    (left / "more.safetensors").write_bytes(b"half")
    prepared, whole = (
        prepared_encoder(encoder, partial(reinitialize, layers=[1], seed=1), store=tmp_path / name)
        for name in ("killed", "whole")
    )
    assert prepared.digest == whole.digest and warned() == []
    assert sorted(path.name for path in prepared.folder.iterdir()) == sorted(
        path.name for path in whole.folder.iterdir()
    )


ONLY_PREDICTIONS = """
from tsns_lib import load_encoder, load_source
from tsns_lib.store import Entry
from tsns_workbook.finetuning.finetune import Recipe, fine_tune
finish = Entry.finish
def killed(self, *shards, **facts):
    if self.kind == "predictions":
        os.kill(os.getpid(), signal.SIGKILL)
    finish(self, *shards, **facts)
Entry.finish = killed
books = load_source("miniature:books", limit=16)
fine_tune(books, load_encoder(sys.argv[1]), Recipe(epochs=1, max_length=16), seed=0, only_for=books, store=sys.argv[2],
          progress=False)
"""


def test_a_kill_leaves_no_model_that_was_not_to_be_kept(encoder, tmp_path):
    assert run(ONLY_PREDICTIONS, encoder.folder, tmp_path).wait() == -signal.SIGKILL
    assert not list(tmp_path.rglob(TENSORS))
    books = load_source("miniature:books", limit=16)
    for _ in range(2):
        tuned = fine_tune(books, encoder, Recipe(epochs=1, max_length=16), only_for=books, store=tmp_path, **QUIET)
        assert tuned.knows(books) and not tuned.is_trained
    assert {path.name for path in tuned.folder.iterdir()} == {".lock", "00000.npy", "identity.json", "manifest.json"}


HOLDS_LOCKS = """
from filelock import FileLock
from tsns_workbook.finetuning.prepared import temporary_store
with FileLock(sys.argv[1]), temporary_store() as store:
    (store.root / "large").write_bytes(bytes(1000))
    print(store.root, flush=True)
    sys.stdin.read()
"""


def test_the_locks_and_folders_of_a_dead_process_do_not_stay(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    store = Store(tmp_path / "store")
    entry = planned(OWN, encoder, RECIPE, seed=0, method="head").model_in(store).entry
    entry.claim()
    process = run(HOLDS_LOCKS, entry.path / ".lock", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    left = Path(process.stdout.readline().strip())
    with temporary_store() as own:
        assert left.is_dir() and own.root.is_dir()  # both live
    assert not own.root.exists()
    process.kill()
    process.communicate()
    assert (left / "large").is_file() and (entry.path / ".lock").is_file()
    start = time.perf_counter()
    assert fine_tune(OWN, encoder, RECIPE, method="head", store=store, **QUIET).is_trained
    assert time.perf_counter() - start < 60
    with temporary_store():
        assert not left.exists()
    assert not list(tmp_path.glob("tsns_store_*"))


def test_two_at_once_make_one_encoder_and_one_model(encoder, tmp_path):
    def work(_):
        prepared = prepared_encoder(encoder, partial(scramble, order=[2, 1, 0]), store=tmp_path)
        return prepared.digest, fine_tune(OWN, encoder, RECIPE, method="head", store=tmp_path, **QUIET).logits(OWN)

    with ThreadPoolExecutor(3) as pool:
        (first, logits), *others = pool.map(work, range(3))
    assert all(digest == first and np.array_equal(logits, values) for digest, values in others)
    assert len(list(tmp_path.glob("encoders/*"))) == len(list(tmp_path.glob("finetuned/*"))) == 1


# threads


def test_threads_train_as_if_alone(encoder, tmp_path):
    """Dropout is drawn from a generator that all threads share."""
    alone = [fine_tune(OWN, encoder, RECIPE, seed=n, store=tmp_path / "alone", progress=False).losses for n in range(3)]

    def losses(seed):
        return fine_tune(OWN, encoder, RECIPE, seed=seed, store=tmp_path / "together", progress=False).losses

    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(losses, range(3)))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_threads_share_a_model_without_mixing_gradients(encoder):
    model = TunedModel(fresh_model(encoder), head_layer=2, n_classes=2, adapted=[], seed=0).eval()
    rows = [
        {"input_ids": [2, *tokens, 3], "labels": label} for tokens, label in (([5, 6], 0), ([7, 8, 9], 1), ([11], 1))
    ]

    def information(row):
        return embeddings.fisher(model, [padded(encoder, [row])] * 20)

    alone = [information(row) for row in rows]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(information, rows))
    for a, b in zip(alone, together, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_predicting_beside_fisher_information_changes_neither(encoder, whole, tmp_path):
    tuned = fine_tune(OWN, encoder, RECIPE, store=whole.store, **QUIET)
    texts = [f"{WORDS[n % 4]} bim {' '.join(['tak'] * n)}" for n in range(10)]

    def embedding(folder):
        return np.concatenate([*embeddings.task_embedding(tuned, OWN, store=folder, progress=False).values()])

    def logits(model):
        return np.concatenate([model.logits([text]) for text in texts])

    expected = embedding(tmp_path / "alone"), logits(dataclasses.replace(tuned, store=Store(tmp_path / "one")))
    with ThreadPoolExecutor(2) as pool:
        found = [
            pool.submit(embedding, tmp_path / "beside"),
            pool.submit(logits, dataclasses.replace(tuned, store=Store(tmp_path / "two"))),
        ]
        assert all(np.array_equal(a, b.result()) for a, b in zip(expected, found, strict=True))


def test_the_environment_does_not_change_the_precision(encoder, tmp_path, monkeypatch):
    plain = fine_tune(OWN, encoder, RECIPE, store=tmp_path / "plain", **QUIET)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert fine_tune(OWN, encoder, RECIPE, store=tmp_path / "other", **QUIET).losses.tolist() == plain.losses.tolist()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "callers", [partial(torch.autocast, "cpu", torch.bfloat16), torch.no_grad, torch.inference_mode]
)
def test_what_the_caller_does_with_torch_does_not_change_a_training(encoder, tmp_path, callers, dtype):
    recipe = dataclasses.replace(RECIPE, dtype=dtype)
    plain = fine_tune(OWN, encoder, recipe, store=tmp_path / "plain", **QUIET)
    expected = plain.losses.tolist(), plain.logits(OWN).tolist()
    with callers():
        within = fine_tune(OWN, load_encoder(encoder.folder), recipe, store=tmp_path / "within", **QUIET)
        assert (within.losses.tolist(), within.logits(OWN).tolist()) == expected


def test_bfloat16_is_that_of_the_recipe(encoder, tmp_path):
    """Without it, the trainer's own autocast would be lost in ours."""
    losses = [
        fine_tune(OWN, encoder, dataclasses.replace(RECIPE, dtype=dtype), store=tmp_path, **QUIET).losses
        for dtype in ("float32", "bfloat16")
    ]
    assert 0 < np.abs(losses[0] - losses[1]).max() < 0.1


def test_a_forked_child_does_not_wait_for_a_model_in_use(tmp_path):
    with ThreadPoolExecutor(1) as pool, IN_USE:
        assert not pool.submit(IN_USE.acquire, blocking=False).result()
        child = pool.submit(_forked).result()
    assert child == 0


def _forked():
    """The exit status of a child that takes the lock which another thread of its parent holds."""
    child = os.fork()
    if not child:
        os._exit(not IN_USE.acquire(timeout=5))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_leaves_nothing_in_memory(encoder, tmp_path, dtype):
    kinds = TunedModel, training.SafeTrainer, torch.optim.Optimizer
    gc.collect()
    before = {id(each) for each in gc.get_objects() if isinstance(each, kinds)}
    gc.disable()  # what is left would be found at some time, and until then a hundred models fill the memory
    try:
        fine_tune(OWN, encoder, dataclasses.replace(RECIPE, dtype=dtype), store=tmp_path, **QUIET)
        left = [type(each) for each in gc.get_objects() if isinstance(each, kinds) and id(each) not in before]
    finally:
        gc.enable()
    assert left == []


def test_training_leaves_the_callers_random_numbers_alone(encoder, tmp_path):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.random(), float(torch.rand(1))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    fine_tune(OWN, encoder, RECIPE, store=tmp_path, **QUIET)
    assert (random.random(), np.random.random(), float(torch.rand(1))) == expected


def test_other_code_of_a_prepare_function_is_another_encoder(encoder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    digests = []
    for factor in (2, 3):
        (tmp_path / "own_prepare.py").write_text(
            f"import torch\ndef scale(model):\n    with torch.no_grad():\n"
            f"        [p.mul_({factor}) for p in model.parameters()]\n    return model\n"
        )
        sys.modules.pop("own_prepare", None)
        importlib.invalidate_caches()
        module = importlib.import_module("own_prepare")
        digests.append(prepared_encoder(encoder, partial(module.scale), store=tmp_path / "store").digest)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    assert digests[0] != digests[1]


PREPARES = """import torch
from own_helper import power
FACTOR = 2
@torch.no_grad()
def scale(model, times=1):
    for parameter in model.parameters():
        parameter.mul_(power(FACTOR, times))
    return model
"""
HELPS = "def power(base, times):\n    return base**times\n"


@pytest.fixture
def prepares(tmp_path, monkeypatch):
    """A function that imports a module of a user's and its helper, as a new process does."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def imported(module=PREPARES, helper=HELPS):
        for name, text in (("own_prepares", module), ("own_helper", helper)):
            (tmp_path / f"{name}.py").write_text(text)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module("own_prepares")

    yield imported
    for name in ("own_prepares", "own_helper"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("file", "was", "now"),
    [
        ("own_prepares", "mul_(", "div_("),
        ("own_prepares", "def scale", "if scale:"),  # no Python any more
        ("own_helper", "base**times", "base*times"),
    ],
)
def test_code_that_was_edited_after_its_import_is_refused(encoder, prepares, tmp_path, file, was, now):
    prepare, path = partial(prepares().scale), tmp_path / f"{file}.py"
    before = prepared_encoder(encoder, prepare, store=tmp_path / "before").digest
    path.write_text(path.read_text().replace(was, now))
    for call in (
        lambda: prepared_encoder(encoder, prepare, store=tmp_path / "after"),
        lambda: fine_tune(OWN, encoder, RECIPE, prepare=prepare, store=tmp_path / "after", **QUIET),
    ):
        with pytest.raises(ValueError, match=f"^prepare: {path} was edited after it was imported.*$"):
            call()
    assert not (tmp_path / "after").exists()
    path.write_text(path.read_text().replace(now, was))
    assert prepared_encoder(encoder, prepare, store=tmp_path / "before").digest == before


@pytest.mark.parametrize(("was", "now"), [("FACTOR = 2", "FACTOR = 3"), ("times=1", "times=2")])
def test_a_constant_that_was_edited_after_its_import_is_not_what_runs(encoder, prepares, tmp_path, was, now):
    """The key is that of the file as it is now with the constants that the kernel has."""
    module, path = prepares(), tmp_path / "own_prepares.py"
    path.write_text(PREPARES.replace(was, now))
    old = prepared_encoder(encoder, partial(module.scale), store=tmp_path / "store").digest
    new = prepared_encoder(encoder, partial(prepares(path.read_text()).scale), store=tmp_path / "store").digest
    assert old != new


def test_what_a_prepare_function_does_not_read_is_not_in_its_key(prepares):
    others = """
import os, time
from unittest.mock import call
ITSELF = []
ITSELF.append(ITSELF)
STARTED, DIGITS, DEEP = time.time(), 2**20000, []
for _ in range(3000):
    DEEP = [DEEP]
def unknown(x, among=frozenset("abc")):
    return x in {"a", "b", "c"} or 1e999 - 1e999
"""
    keys = [prepared.identity_of(partial(prepares(PREPARES + others).scale)) for _ in range(2)]
    assert keys[0] == keys[1]  # another import, at another time


def test_a_line_above_a_prepare_function_is_no_edit_of_it(encoder, prepares, tmp_path):
    prepare, path = partial(prepares().scale), tmp_path / "own_prepares.py"
    path.write_text(f"# A comment.\n{PREPARES}")
    assert prepared_encoder(encoder, prepare, store=tmp_path / "store").n_neurons == encoder.n_neurons


def test_other_code_of_what_a_prepare_function_imports_is_another_encoder(encoder, prepares, tmp_path):
    helpers = HELPS, HELPS.replace("**", "*"), f"{HELPS}\n"
    keys = [prepared.identity_of(partial(prepares(helper=helper).scale, times=3)) for helper in helpers]
    assert keys[0] not in keys[1:] and keys[1] != keys[2]
    assert set(keys[0]["code"]) == {"own_prepares", "own_helper"}  # not torch's, not Python's
    assert prepared.identity_of(partial(prepares().scale, times=3)) == keys[0]


def test_another_encoders_folder_is_filled_again(encoder, tmp_path):
    one, two = (partial(reinitialize, layers=[1], seed=seed) for seed in (1, 2))
    first, second = (prepared_encoder(encoder, each, store=tmp_path) for each in (one, two))
    digest = first.digest
    shutil.rmtree(first.folder)
    shutil.move(second.folder, first.folder)
    assert prepared_encoder(encoder, one, store=tmp_path).digest == digest
