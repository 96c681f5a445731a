import json

import pytest
from test_encoders import tiny_folder

from tsns_lib.encoders import encoder_of, load_encoder, recipe_of


def test_a_recipe_makes_the_same_encoder_once():
    encoder = load_encoder(dtype="bfloat16", random_weights=True, seed=3, device="cpu")
    made = encoder_of(recipe_of(encoder))
    assert (made.name, made.dtype, made.random_seed, made.device) == ("builtin:minilm", "bfloat16", 3, "cpu")
    assert made.fingerprint == encoder.fingerprint
    assert encoder_of(recipe_of(encoder)) is made


def test_a_folder_is_named_from_anywhere(tmp_path, monkeypatch):
    tiny_folder("bert", tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of(load_encoder("tiny"))
    monkeypatch.chdir("/")
    assert encoder_of(recipe).n_neurons == 96


def test_another_encoder_on_the_worker_is_said(tmp_path):
    recipe = recipe_of(load_encoder(tiny_folder("bert", tmp_path)))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layer_norm_eps": 1e-6}))
    with pytest.raises(ValueError, match=r"the worker has another one \(fingerprint \w{12}, the caller's is \w{12}\)"):
        encoder_of(recipe)
