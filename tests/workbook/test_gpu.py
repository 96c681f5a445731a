"""A GPU computes what the CPU does: the whole path from texts to activations, chosen neurons and a tuned model."""

import numpy as np
import pytest
import torch
from tsns_workbook import benchmarks, forecast
from tsns_workbook.finetuning.finetune import Recipe, fine_tune

from tsns_lib import extract, load_encoder, load_source
from tsns_lib.importance import resampled_importance
from tsns_lib.transferability.reinitialization import reinitialize

pytestmark = pytest.mark.skipif(not benchmarks.has_device("cuda"), reason="needs a GPU")


def on_both(name, store, **options):
    """Activations of a corpus by either device, each into a store of its own."""
    source = load_source(f"miniature:{name}")
    return [extract(source, load_encoder(device=on), store=store / on, **options) for on in ("cpu", "cuda")]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("name", ["books", "mrpc"])
def test_activations_are_those_of_the_cpu(name, pooling, tmp_path):
    expected, actual = on_both(name, tmp_path, pooling=pooling, max_length=64)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() < 1e-4


def test_bfloat16_is_as_near_as_on_the_cpu(tmp_path):
    source = load_source("miniature:books")
    exact = extract(source, load_encoder(device="cpu"), store=tmp_path / "exact")
    for device in ("cpu", "cuda"):
        rounded = extract(source, load_encoder(device=device, dtype="bfloat16"), store=tmp_path / device)
        assert np.linalg.norm(rounded - exact) < 0.02 * np.linalg.norm(exact)


def test_the_same_neurons_are_chosen(tmp_path):
    labels, chosen = load_source("miniature:books").frame["label"], []
    for X in on_both("books", tmp_path):
        q = resampled_importance(X, labels, n_resamples=10, n_trees=100, store=tmp_path)
        chosen.append(set(np.argsort(-q.mean(axis=0))[:300]))
    assert len(chosen[0] & chosen[1]) >= 0.95 * 300


def test_a_second_extraction_has_the_same_bits(tmp_path):
    source, encoder = load_source("miniature:sst"), load_encoder(device="cuda", dtype="bfloat16")
    first, second = (extract(source, encoder, store=tmp_path / str(turn)) for turn in range(2))
    assert first.tobytes() == second.tobytes()


def test_a_model_is_tuned_there(tmp_path):
    source, recipe = load_source("miniature:books", limit=200), Recipe(epochs=3, max_length=32, learning_rate=1e-4)
    tuned = fine_tune(source, load_encoder(device="cuda"), recipe, seed=0, store=tmp_path, progress=False)
    assert np.isfinite(tuned.losses).all()
    assert (tuned.predict(source) == source.frame["label"]).mean() > 0.8


def test_weights_are_re_initialised_as_on_the_cpu():
    expected, actual = (
        reinitialize(load_encoder(device=device).model, [4, 5], seed=3).state_dict() for device in ("cpu", "cuda")
    )
    assert all(torch.equal(tensor, actual[name].cpu()) for name, tensor in expected.items())


def test_the_forecast_names_the_device():
    assert "GB, bfloat16" in forecast.device_line(load_encoder(dtype="auto"))
