"""Re-initialising layers changes what it should, by as much as it should, and nothing else."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from tsns_lib import load_encoder, load_source
from tsns_lib.extraction import extract
from tsns_lib.transferability.reinitialization import changes, reinitialize, scramble
from tsns_lib.transferability.text_embedding import text_embedding


@pytest.fixture(scope="module")
def model():
    size = {"hidden_size": 32, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    return BertModel(BertConfig(vocab_size=50, **size), add_pooling_layer=False).eval()


@pytest.fixture(scope="module")
def drawn(model):
    return changes(model, reinitialize(model, [1, 4]))


def test_every_weight_of_the_chosen_layers_changed_and_no_other(drawn):
    chosen = drawn["layer"].isin([1, 4])
    weights = drawn["kind"] == "weight"
    assert drawn[chosen & weights]["changed"].all() and (chosen & weights).sum() == 2 * 6
    assert not drawn[~chosen]["changed"].any()


def test_no_bias_changed(drawn):
    assert not drawn[drawn["kind"] == "bias"]["changed"].any()


def test_norms_are_one_and_zero(model):
    norm = reinitialize(model, [2]).encoder.layer[2].output.LayerNorm
    assert (norm.weight == 1).all() and (norm.bias == 0).all()


def test_the_model_itself_is_left_alone(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    reinitialize(model, range(6))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("init", "deviation"), [("paper", 0.0176), ("released", 0.00046)])
def test_the_draws_have_the_moments_of_their_cut(init, deviation):
    model = load_encoder().model
    drawn = reinitialize(model, [0, 5], init=init)
    found = changes(model, drawn)
    weights = found[(found["kind"] == "weight") & found["layer"].isin([0, 5])]["deviation"]
    assert weights.to_numpy() == pytest.approx([deviation] * 12, rel=0.01)
    largest = drawn.encoder.layer[0].output.dense.weight.abs().max()
    assert largest <= {"paper": 0.04, "released": 0.0008}[init]


def test_a_layers_draw_belongs_to_its_number_and_the_seed(model):
    def weight(layers, seed):
        return reinitialize(model, layers, seed=seed).encoder.layer[3].output.dense.weight

    assert torch.equal(weight([3], 0), weight([0, 3, 5], 0))
    assert not torch.equal(weight([3], 0), weight([3], 1))


def test_scrambling_moves_layers_whole(model):
    order = [2, 0, 1, 5, 3, 4]
    found = scramble(model, order)
    for place, number in enumerate(order):
        moved = found.encoder.layer[place].output.dense.weight
        assert torch.equal(moved, model.encoder.layer[number].output.dense.weight)


def test_scrambling_back_gives_the_same_states(model):
    order, back = [2, 0, 1, 5, 3, 4], [1, 2, 0, 4, 5, 3]
    ids = torch.tensor([[1, 23, 40, 2]])
    with torch.inference_mode():
        there_and_back = scramble(scramble(model, order), back)(input_ids=ids).last_hidden_state
        assert torch.equal(there_and_back, model(input_ids=ids).last_hidden_state)
        assert not torch.equal(scramble(model, order)(input_ids=ids).last_hidden_state, there_and_back)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: reinitialize(model, [6]), "layers: 6 is not one of the 6 layers 0 to 5"),
        (lambda model: reinitialize(model, [0], init="bert"), "init='bert': expected 'paper' or 'released'"),
        (lambda model: scramble(model, [0, 1, 2, 3, 4, 4]), "is no permutation of the layers 0 to 5"),
        (lambda model: reinitialize(torch.nn.Linear(2, 2), [0]), "Linear: has no encoder.layer"),
        (lambda model: reinitialize(model, [0, -1]), "layers: must be at least 0, got -1"),
        (lambda model: reinitialize(model, [1.0]), "layers: must be a whole number, got 1.0"),
        (lambda model: reinitialize(model, [True]), "layers: must be a whole number, got True"),
        (lambda model: reinitialize(model, "12"), "layers: must be a whole number, got '1'"),
        (lambda model: reinitialize(model, 5), "layers: expected numbers of layers, got 5"),
        (lambda model: reinitialize(model, [0], init=["paper"]), "init=.*: expected 'paper' or 'released'"),
        (lambda model: reinitialize(model, [0], seed=0.5), "seed: must be a whole number, got 0.5"),
        (lambda model: scramble(model, [0.0, 1, 2, 3, 4, 5]), "order: must be a whole number, got 0.0"),
        (lambda model: scramble(model, {0, 1, 2, 3, 4, 5}), "is no permutation of the layers 0 to 5"),
        (lambda model: scramble(model, None), "order: expected numbers of layers, got None"),
        (lambda model: scramble(torch.nn.Linear(2, 2), [0]), "Linear: has no encoder.layer"),
        (lambda model: changes(model, torch.nn.Linear(2, 2)), "after: its tensors have other names or shapes"),
    ],
)
def test_what_is_wrong_is_named_before_any_copy(model, call, message, monkeypatch):
    monkeypatch.setattr("copy.deepcopy", lambda thing: pytest.fail("copied"))
    with pytest.raises(ValueError, match=message):
        call(model)


def test_numbers_of_numpy_are_numbers(model):
    plain, given = reinitialize(model, [1, 4], seed=3), reinitialize(model, np.array([1, 4], np.int8), seed=np.int64(3))
    assert not changes(plain, given)["changed"].any()
    order = [2, 0, 1, 5, 3, 4]
    assert not changes(scramble(model, order), scramble(model, np.array(order)))["changed"].any()


def test_a_corpus_is_the_mean_of_its_texts_last_states(tmp_path):
    source, encoder = load_source("miniature:books", limit=6), load_encoder()
    settings = {"max_length": 32, "store": tmp_path, "progress": False}
    states = extract(source, encoder, pooling="mean", **settings)
    found = text_embedding(source, encoder, **settings)
    assert found.shape == (384,)
    assert np.allclose(found, states[:, -384:].mean(axis=0), atol=1e-6)
