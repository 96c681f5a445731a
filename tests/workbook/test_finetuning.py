"""A small encoder is really trained here: what changes, what does not, and what a kill leaves."""

import gc
import json
import shutil
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_encoders import tiny_folder
from tsns_workbook.finetuning import training
from tsns_workbook.finetuning.finetune import TENSORS, Recipe, fine_tune, planned
from tsns_workbook.finetuning.prepared import prepared_encoder
from tsns_workbook.ranking import tuned_scores

from tsns_lib import load_encoder, load_source
from tsns_lib.corpora.sources import Source
from tsns_lib.encoders import seal
from tsns_lib.extraction import extract
from tsns_lib.store import Store, StoreError
from tsns_lib.transferability.reinitialization import changes, reinitialize, scramble

ROOT = Path(__file__).parents[2]
BOOKS = load_source("miniature:books", limit=32)
RECIPE = Recipe(epochs=1, max_length=24, batch_size=16, dtype="float32")
LAYER_TENSORS = 16
pytestmark = pytest.mark.usefixtures("one_thread")
HEAD = {"head.dense.bias", "head.dense.weight", "head.linear.bias", "head.linear.weight"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_encoder(tiny_folder("bert", tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def tune(encoder, tmp_path_factory):
    """Train into one store, so that what several tests look at is trained once."""
    store = tmp_path_factory.mktemp("finetuned")

    def tune(**options):
        settings = {"seed": 0, "store": store, "progress": False} | options
        return fine_tune(BOOKS, encoder, RECIPE, **settings)

    return tune


def trained(finetuned):
    return set(finetuned.entry.facts()["tensors"])


def test_a_tuned_model_is_scored_by_the_names_of_the_classes(tune):
    target = load_source("miniature:dvd", limit=12)
    other = replace(target, frame=target.frame.assign(label=1 - target.frame["label"]), classes=target.classes[::-1])
    ours, theirs = (tuned_scores(tune(method="head", head_layer=1), each) for each in (target, other))
    assert ours["correct"].tolist() == theirs["correct"].tolist()
    assert (ours["accuracy"], ours["auc"]) == (theirs["accuracy"], theirs["auc"])


# what is trained


def test_full_tuning_changes_every_tensor(tune, encoder):
    finetuned = tune()
    assert trained(finetuned) == {f"encoder.{name}" for name in encoder.model.state_dict()} | HEAD
    assert finetuned.losses.shape == (2,) and 0 < finetuned.seconds < 60


def test_the_encoder_itself_is_left_alone(tune, encoder):
    before = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    tune(method="head", head_layer=1)
    after = encoder.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in after)


def test_a_block_of_layers_is_tuned_and_nothing_else(tune):
    finetuned = tune(head_layer=2, tuned_layers=[2, 1])
    assert trained(finetuned) - HEAD == {
        name for name in trained(finetuned) if name.startswith(("encoder.encoder.layer.1.", "encoder.encoder.layer.2."))
    }
    assert len(trained(finetuned)) == 2 * LAYER_TENSORS + len(HEAD)


def test_adapters_are_tuned_with_the_norms_of_their_layers(tune):
    finetuned = tune(head_layer=2, tuned_layers=[2], method="adapter")
    norms = {
        f"encoder.encoder.layer.2.{place}.LayerNorm.{kind}"
        for place in ("attention.output", "output")
        for kind in ("weight", "bias")
    }
    adapters = {
        f"adapters.2_{place}.{step}.{kind}"
        for place in ("attention_output", "output")
        for step in ("down", "up")
        for kind in ("weight", "bias")
    }
    assert trained(finetuned) == norms | adapters | HEAD


def test_probing_trains_the_head_alone(tune):
    assert trained(tune(method="head", head_layer=1)) == HEAD


def test_what_was_prepared_is_kept_with_what_was_trained(tune, encoder):
    finetuned = tune(method="head", head_layer=1, prepare=partial(reinitialize, layers=[0], seed=3))
    drawn = reinitialize(encoder.model, [0], seed=3).encoder.layer[0].output.dense.weight
    assert torch.equal(finetuned.model.encoder.encoder.layer[0].output.dense.weight, drawn)
    assert {name.split(".")[3] for name in trained(finetuned) - HEAD} == {"0"}
    assert finetuned.folder != tune(method="head", head_layer=1).folder


def test_adapters_begin_as_the_identity(encoder):
    from tsns_workbook.finetuning.model import TunedModel, fresh_model

    shape = {"head_layer": 2, "n_classes": 2, "seed": 1}
    ids = torch.tensor([[2, 5, 9, 3]])
    with torch.inference_mode():
        plain, adapted = (
            TunedModel(fresh_model(encoder), adapted=layers, **shape).eval()(ids, torch.ones_like(ids))["logits"]
            for layers in ([], [0, 2])
        )
    assert torch.equal(plain, adapted)


# the same again


def test_the_same_seed_gives_the_same_model(tune, tmp_path):
    options = {"head_layer": 2, "tuned_layers": [1, 2]}
    first, again, other = (
        tune(**options, seed=seed, store=store).logits(BOOKS)
        for seed, store in ((0, tmp_path / "a"), (0, tmp_path / "b"), (1, tmp_path / "a"))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_second_call_reads(tune):
    first = tune(method="head", head_layer=1)
    before = (first.folder / TENSORS).stat().st_mtime_ns
    start = time.perf_counter()
    again = tune(method="head", head_layer=1)
    assert time.perf_counter() - start < 1
    assert (first.folder / TENSORS).stat().st_mtime_ns == before
    assert np.array_equal(first.losses, again.losses)


def test_fewer_rows_are_some_of_more(encoder):
    def rows(n_rows, seed):
        return set(planned(BOOKS, encoder, RECIPE, n_rows=n_rows, seed=seed).texts)

    assert rows(10, 4) < rows(20, 4)
    assert rows(10, 4) != rows(10, 5)


@pytest.mark.parametrize("names", [(-3, 7), ("bad", "good"), (False, True)])
def test_labels_come_back_as_they_went_in(encoder, tmp_path, names):
    frame = BOOKS.frame.assign(text=["bim tak sel", "ven quu dar"] * 16, label=[*names] * 16)
    source = Source("own", "own", "train", frame, BOOKS.origin, classes=tuple(map(str, names)))
    recipe = Recipe(epochs=10, learning_rate=5e-3, max_length=16, dtype="float32")
    finetuned = fine_tune(source, encoder, recipe, seed=0, store=tmp_path, progress=False)
    assert finetuned.predict(source).tolist() == frame["label"].tolist()
    assert finetuned.losses[-4:].mean() < finetuned.losses[:4].mean()


# what is left behind


def test_it_is_quiet_and_writes_to_the_store_alone(tune, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    finetuned = tune(method="head", head_layer=0)
    finetuned.predict(BOOKS)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert {path.name for path in finetuned.folder.iterdir()} <= {
        ".lock", "00000.npy", "identity.json", "manifest.json", TENSORS,
    }  # fmt: skip


def test_the_generators_go_on_as_if_nothing_had_happened(tune, tmp_path):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    tune(method="head", head_layer=0, store=tmp_path)
    assert torch.rand(1) == expected


KILLED = """
import sys
from tsns_lib import load_encoder, load_source
from tsns_workbook.finetuning import training
from tsns_workbook.finetuning.finetune import Recipe, fine_tune
training.CHECKPOINT_SECONDS = 0
fine_tune(load_source("miniature:books", limit=32), load_encoder(sys.argv[2]), Recipe(epochs=4, max_length=24), seed=2,
          head_layer=1, tuned_layers=[1], store=sys.argv[1])
"""


def test_a_killed_training_goes_on_to_the_same_bits(encoder, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path, encoder.folder], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    while not list(tmp_path.glob("finetuned/*/checkpoints/checkpoint-6/trainer_state.json")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    written = {path.suffix for path in tmp_path.glob("finetuned/*/checkpoints/checkpoint-*/[!.]*")}
    assert written == {".safetensors", ".json"}
    for sealed in tmp_path.glob(f"finetuned/*/checkpoints/checkpoint-*/{training.SEAL}"):  # another was not finished
        state = sealed.with_name("trainer_state.json")
        content = json.loads(state.read_text())
        content["log_history"][0]["loss"] = 99.0  # shows whether it is read
        state.write_text(json.dumps(content))
        training.seal(state.parent)
    options = {"seed": 2, "head_layer": 1, "tuned_layers": [1], "progress": False}
    recipe = Recipe(epochs=4, max_length=24)
    resumed = fine_tune(BOOKS, encoder, recipe, store=tmp_path, **options)
    whole = fine_tune(BOOKS, encoder, recipe, store=tmp_path / "whole", **options)
    assert resumed.losses[0] == 99.0 and len(resumed.losses) == 16
    assert np.array_equal(resumed.losses[1:], whole.losses[1:])
    assert np.array_equal(resumed.logits(BOOKS), whole.logits(BOOKS))
    assert not (resumed.folder / "checkpoints").exists()


def test_an_altered_file_is_refused(tune, tmp_path):
    finetuned = tune(method="head", head_layer=0)
    shutil.copytree(finetuned.store.root, tmp_path / "copy")
    copy = tune(method="head", head_layer=0, store=tmp_path / "copy")
    with (copy.folder / TENSORS).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(StoreError, match=f"{TENSORS}: is missing or not as it was written"):
        _ = copy.model


def test_a_model_for_predictions_alone_is_not_kept_and_is_trained_again_for_more(tune, tmp_path):
    dvd = load_source("miniature:dvd", limit=40)
    options = {"method": "head", "head_layer": 0, "store": tmp_path}
    losses = tune(only_for=dvd, **options).losses
    tuned = tune(only_for=dvd, **options)
    assert tuned.knows(dvd) and not tuned.is_trained and tuned.predict(dvd).shape == (40,)
    assert not list(tmp_path.rglob(TENSORS))
    with pytest.raises(StoreError, match=f"{TENSORS}: is missing"):
        tuned.logits(["not yet read"])
    again = tune(**options)
    assert again.is_trained and np.array_equal(again.losses, losses)
    assert again.logits(["not yet read"]).shape == (1, 2)


def test_only_the_last_model_stays_in_memory(tune):
    first = weakref.ref(tune(method="head", head_layer=0).model)
    assert first() is not None
    _ = tune(method="head", head_layer=1).model
    gc.collect()
    assert first() is None


def test_what_has_predicted_still_has_gradients(tune):
    finetuned = tune()
    finetuned.logits(["not yet read"])
    finetuned.model.requires_grad_(True)


@pytest.mark.parametrize(
    ("name", "made", "message"),
    [
        ("checkpoints", Path.touch, "checkpoints: is a file where a folder is to be made; delete it and run again"),
        (TENSORS, Path.mkdir, f"{TENSORS}: is a folder where a file is to be written; delete it and run again"),
    ],
)
def test_what_stands_in_the_way_of_a_model_is_said_before_the_training(encoder, tmp_path, name, made, message):
    folder = tmp_path / "finetuned" / key_of(encoder)
    folder.mkdir(parents=True)
    made(folder / name)
    with pytest.raises(StoreError, match=f"{folder}/{message}"):
        fine_tune(BOOKS, encoder, RECIPE, seed=7, store=tmp_path, progress=False)
    assert not list(folder.glob("**/checkpoint-*")) and not list(folder.glob("*.npy"))


def key_of(encoder):
    return Store("unused").entry("finetuned", planned(BOOKS, encoder, RECIPE, seed=7).identity).key


# as encoders


def test_the_trained_layers_are_an_encoder(tune):
    finetuned = tune(head_layer=2, tuned_layers=[1, 2])
    layers = finetuned.encoder()
    assert (layers.n_layers, layers.hidden_size) == (3, 32)
    states = extract(BOOKS, layers, max_length=24, store=finetuned.store, progress=False)
    with torch.inference_mode():
        logits = finetuned.model.head(torch.from_numpy(states[:, -32:])).numpy()
    assert logits == pytest.approx(finetuned.logits(BOOKS), abs=1e-5)
    assert finetuned.encoder().digest == layers.digest


def test_a_model_with_adapters_is_no_encoder(tune):
    with pytest.raises(ValueError, match="encoder: a model with adapters is no plain encoder"):
        tune(head_layer=2, tuned_layers=[2], method="adapter").encoder()


@pytest.fixture
def versioned(tmp_path):
    """An encoder whose tokens come of a file that its tokenizer_config.json names for this version of transformers."""
    folder = tiny_folder("bert", tmp_path / "versioned")
    settings, plain = (json.loads((folder / name).read_text()) for name in ("tokenizer_config.json", "tokenizer.json"))
    vocabulary = plain["model"]["vocab"]
    vocabulary["bim"], vocabulary["tak"] = vocabulary["tak"], vocabulary["bim"]
    (folder / "tokenizer.4.0.0.json").write_text(json.dumps(plain))
    settings["fast_tokenizer_files"] = ["tokenizer.4.0.0.json", "tokenizer.json"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return load_encoder(folder)


def test_what_is_made_of_an_encoder_reads_its_tokens(encoder, versioned, tmp_path):
    ids = [each.tokenizer("bim tak sel")["input_ids"] for each in (encoder, versioned)]
    assert ids == [[2, 5, 6, 7, 3], [2, 6, 5, 7, 3]]
    drawn = partial(reinitialize, layers=[1], seed=2)
    options = {"seed": 0, "store": tmp_path / "store", "progress": False}
    prepared = prepared_encoder(versioned, drawn, store=tmp_path / "store")
    trained = fine_tune(BOOKS, versioned, RECIPE, **options).encoder()
    for made in (prepared, trained):
        assert made.tokenizer("bim tak sel")["input_ids"] == [2, 6, 5, 7, 3]
    # an encoder that was stored without the file is made again
    (prepared.folder / "tokenizer.4.0.0.json").unlink()
    seal(prepared.folder)
    again = prepared_encoder(versioned, drawn, store=tmp_path / "store")
    assert again.digest == prepared.digest and again.tokenizer("bim tak sel")["input_ids"] == [2, 6, 5, 7, 3]


def test_a_prepared_encoder_holds_what_was_prepared(encoder, tmp_path):
    order = [1, 0, 2]
    prepared = prepared_encoder(encoder, partial(scramble, order=order), store=tmp_path)
    assert not changes(scramble(encoder.model, order), prepared.model)["changed"].any()
    assert prepared.digest != encoder.digest


# what is wrong is named


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lora"}, "method: must be 'full', 'adapter' or 'head', got 'lora'"),
        ({"head_layer": 3}, "head_layer: must be at most 2, got 3"),
        ({"head_layer": 1.0}, "head_layer: must be a whole number, got 1.0"),
        ({"head_layer": 1, "tuned_layers": [2]}, "tuned_layers: must be at most 1, got 2"),
        ({"tuned_layers": [0.7]}, "tuned_layers: must be a whole number, got 0.7"),
        ({"tuned_layers": []}, r"tuned_layers: must be layers from 0 to the head's, 2, got \[\]"),
        ({"tuned_layers": "12"}, "tuned_layers: must be layers from 0 to the head's, 2, got '12'"),
        ({"tuned_layers": 1}, "tuned_layers: must be layers from 0 to the head's, 2, got 1"),
        ({"tuned_layers": iter([1])}, "tuned_layers: must be layers from 0 to the head's, 2, got <list_iterator"),
        ({"tuned_layers": np.array(1)}, r"tuned_layers: must be layers from 0 to the head's, 2, got array\(1\)"),
        ({"seed": 1.7}, "seed: must be a whole number, got 1.7"),
        ({"seed": True}, "seed: must be a whole number, got True"),
        ({"seed": -1}, "seed: must be at least 0, got -1"),
        ({"n_rows": 16.0}, "n_rows: must be a whole number, got 16.0"),
        ({"only_for": "one text"}, "texts: expected a sequence of texts"),
        ({"only_for": ["", "empty"]}, "text, row 0: empty"),
        ({"method": "head", "tuned_layers": [1]}, "tuned_layers: method='head' tunes none"),
        ({"n_rows": 33}, "n_rows=33: expected 1 to 32, the rows of miniature:books"),
        ({"n_rows": 1}, "miniature:books: the 1 rows have one class only"),
        ({"prepare": lambda model: model}, "prepare: expected functools.partial of a function of a module, got <func"),
        ({"prepare": partial(lambda model: model)}, "prepare: expected functools.partial of a function of a module"),
        ({"prepare": partial(reinitialize, layers={1})}, "prepare: the arguments of .* are not plain JSON"),
        ({"prepare": partial(load_encoder().model.eval)}, "prepare: expected functools.partial of a function"),
    ],
)
def test_a_wrong_argument_is_named(tune, options, message):
    with pytest.raises(ValueError, match=message):
        tune(**options)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"epochs": 0}, "epochs: must be at least 1, got 0"),
        ({"epochs": True}, "epochs: must be a whole number, got True"),
        ({"epochs": 10**15}, "epochs: must be at most 10,000, got 1,000,000,000,000,000"),
        ({"batch_size": 2.5}, "batch_size: must be a whole number, got 2.5"),
        ({"learning_rate": -1.0}, "learning_rate: must be positive, got -1.0"),
        ({"learning_rate": "1e-4"}, "learning_rate: must be positive, got '1e-4'"),
        ({"clip": float("nan")}, "clip: must be positive, got nan"),
        ({"dtype": "float16"}, "dtype: must be 'float32', 'bfloat16' or 'auto', got 'float16'"),
    ],
)
def test_a_recipe_names_what_is_wrong(field, message):
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **field)


def test_a_recipe_must_fit_the_encoder(encoder, tmp_path):
    with pytest.raises(ValueError, match="max_length=25: expected 6 to 24 for "):
        fine_tune(BOOKS, encoder, Recipe(max_length=25), seed=0, store=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a text"], None, RECIPE), "source: expected texts with labels, as load_source returns them, got list"),
        ((BOOKS, "builtin:minilm", RECIPE), "encoder: must be what load_encoder gives, got str"),
        ((BOOKS, None, {"epochs": 1}), "recipe: expected a Recipe, got dict"),
    ],
)
def test_what_is_no_source_encoder_or_recipe_is_named(encoder, arguments, message):
    source, other, recipe = arguments
    with pytest.raises(ValueError, match=message):
        fine_tune(source, encoder if other is None else other, recipe, seed=0)


def test_an_encoder_of_another_build_is_refused(tmp_path):
    tiny = load_encoder(tiny_folder("distilbert", tmp_path / "tiny"))
    with pytest.raises(ValueError, match="DistilBertModel: has no encoder.layer, which BERT, RoBERTa and ELECTRA have"):
        fine_tune(BOOKS, tiny, Recipe(max_length=16), seed=0, store=tmp_path, progress=False)


@pytest.mark.parametrize("family", ["roberta", "electra"])
def test_other_families_are_trained_too(family, tmp_path):
    tiny = load_encoder(tiny_folder(family, tmp_path / "tiny"))
    options = {"seed": 0, "method": "adapter", "store": tmp_path, "progress": False}
    finetuned = fine_tune(BOOKS, tiny, Recipe(epochs=1, max_length=16), **options)
    assert len(trained(finetuned)) == 3 * (4 + 8) + 4
    assert finetuned.predict(BOOKS).shape == (32,)


def test_importing_needs_no_torch():
    code = (
        "import sys\n"
        "from tsns_lib.transferability import reinitialization, text_embedding\n"
        "from tsns_workbook import embeddings, layers, ranking\n"
        "from tsns_workbook.finetuning import finetune, grids, prepared\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "False False\n"
