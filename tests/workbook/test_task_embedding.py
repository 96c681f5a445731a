"""Fisher information against row after row of autograd; rankings and curves on literal numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_encoders import tiny_folder
from tsns_workbook.embeddings import curve_gradient, fisher, rank_sources, reciprocal_rank_fusion, task_embedding
from tsns_workbook.finetuning.finetune import Recipe, fine_tune, padded
from tsns_workbook.finetuning.model import TunedModel, fresh_model

from tsns_lib import load_encoder, load_source
from tsns_lib.sampling import derive_seed

ROWS = [
    {"input_ids": [2, *tokens, 3], "token_type_ids": [0] * (len(tokens) + 2), "labels": label}
    for tokens, label in (([5, 6], 0), ([7, 8, 9, 10], 1), ([11], 1), ([5, 9, 6], 0), ([12, 6, 7, 7, 8], 1))
]
RECIPE = Recipe(epochs=1, max_length=20)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return load_encoder(tiny_folder("bert", tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def model(tiny):
    return TunedModel(fresh_model(tiny), head_layer=2, n_classes=2, adapted=[], seed=0).eval()


@pytest.fixture(scope="module")
def in_batches(tiny, model):
    def in_batches(size, form="paper"):
        batches = (padded(tiny, ROWS[start : start + size]) for start in range(0, len(ROWS), size))
        return fisher(model, batches, form=form)

    return in_batches


def weight_gradients(model, batch):
    """Gradient of the batch's mean loss, by autograd, for every weight matrix of a layer."""
    model.zero_grad()
    model(**batch)["loss"].backward()
    return {
        name.removeprefix("encoder.encoder."): tensor.grad.flatten().numpy().copy()
        for name, tensor in model.named_parameters()
        if ".layer." in name and tensor.ndim == 2
    }


def test_weights_are_a_loop_over_rows(tiny, model, in_batches):
    information = in_batches(5)
    loop = [weight_gradients(model, padded(tiny, [row])) for row in ROWS]
    assert len(loop[0]) == 3 * 6 and set(information) - set(loop[0]) == {f"layer.{n}.output" for n in range(3)} | {
        "pooled"
    }
    for name in loop[0]:
        expected = np.mean([row[name] ** 2 for row in loop], axis=0)
        assert expected.max() > 0
        np.testing.assert_allclose(information[name], expected, rtol=1e-3, atol=1e-6 * expected.max(), err_msg=name)


def test_the_released_form_squares_the_gradient_of_a_batch(tiny, model, in_batches):
    information = in_batches(2, "released")
    loop = [weight_gradients(model, padded(tiny, ROWS[start : start + 2])) for start in (0, 2, 4)]
    for name in loop[0]:
        expected = np.mean([batch[name] ** 2 for batch in loop], axis=0)
        np.testing.assert_allclose(information[name], expected, rtol=1e-3, atol=1e-6 * expected.max(), err_msg=name)


def test_a_layers_output_is_averaged_over_the_tokens_of_a_row(tiny, model, in_batches):
    squares = []
    for row in ROWS:
        batch = padded(tiny, [row])
        labels = batch.pop("labels")
        states = model.encoder(**batch, output_hidden_states=True).hidden_states[2]
        states.retain_grad()
        above = model.encoder.encoder.layer[2](states)
        above = above[0] if isinstance(above, tuple) else above
        torch.nn.functional.cross_entropy(model.head(above[:, 0]), labels).backward()
        squares.append(states.grad[0].square().mean(dim=0).numpy())
    expected = np.mean(squares, axis=0)
    np.testing.assert_allclose(in_batches(5)["layer.1.output"], expected, rtol=1e-3, atol=1e-6 * expected.max())


def test_the_heads_state_by_hand(tiny, model, in_batches):
    squares = []
    for row in ROWS:
        batch = padded(tiny, [row])
        with torch.inference_mode():
            chances = torch.softmax(model(**batch)["logits"][0], dim=0).numpy()
        error = chances - np.eye(2)[row["labels"]]
        squares.append((error @ model.head.linear.weight.detach().numpy()) ** 2)
    np.testing.assert_allclose(in_batches(2)["pooled"], np.mean(squares, axis=0), rtol=1e-3)


def test_the_papers_form_does_not_depend_on_the_batches_and_the_released_does(in_batches):
    one, two, five = (in_batches(size) for size in (1, 2, 5))
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-3, atol=1e-6 * one[name].max())
        np.testing.assert_allclose(one[name], five[name], rtol=1e-3, atol=1e-6 * one[name].max())
        np.testing.assert_allclose(one[name], in_batches(1, "released")[name], rtol=1e-3, atol=1e-6 * one[name].max())
        assert not np.allclose(in_batches(5, "released")[name], one[name], rtol=0.1, atol=0)


def test_a_task_is_embedded_once(tiny, tmp_path):
    books = load_source("miniature:books", limit=24)
    options = {"store": tmp_path, "progress": False}
    tuned = fine_tune(books, tiny, RECIPE, seed=0, **options)
    embedding = task_embedding(tuned, books, **options)
    assert len(embedding) == 3 * 6 + 3 + 1
    assert embedding["layer.2.intermediate.dense.weight"].shape == (48 * 32,)
    assert all(vector.min() >= 0 and vector.max() > 0 for vector in embedding.values())
    (manifest,) = tmp_path.glob("task_embeddings/*/manifest.json")
    written = manifest.stat().st_mtime_ns
    again = task_embedding(tuned, books, components=["pooled", "layer.0.output"], **options)
    assert list(again) == ["pooled", "layer.0.output"] and np.array_equal(again["pooled"], embedding["pooled"])
    assert manifest.stat().st_mtime_ns == written
    assert not np.allclose(task_embedding(tuned, books, form="released", **options)["pooled"], embedding["pooled"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "batch"}, "form: must be 'paper' or 'released', got 'batch'"),
        ({"components": ["pooler"]}, r"components: 'pooler' is none of layer\.0\.attention\.output\.dense\.weight"),
        ({"components": "pooled"}, "components: expected a list of names, got 'pooled'"),
    ],
)
def test_what_is_wrong_is_named(tiny, options, message):
    books = load_source("miniature:books", limit=24)
    tuned = fine_tune(books, tiny, RECIPE, seed=0, progress=False)
    with pytest.raises(ValueError, match=message):
        task_embedding(tuned, books, progress=False, **options)


def test_a_label_that_the_model_does_not_know_is_named(tiny):
    books = load_source("miniature:books", limit=24)
    rare = replace(books, frame=books.frame.assign(label=[2, 0, 1] + [0, 1, 0] * 7), classes=("bad", "good", "mixed"))
    seed = next(seed for seed in range(9) if 0 not in drawn_of(24, 6, seed))  # the one row of its class is not drawn
    tuned = fine_tune(rare, tiny, RECIPE, seed=seed, n_rows=6, progress=False)
    with pytest.raises(ValueError, match=r"^miniature:books: row 0, label 2 is none of the model's, \[0, 1\]$"):
        task_embedding(tuned, rare, progress=False)


def drawn_of(n, n_rows, seed):
    return np.random.default_rng(derive_seed(seed, "rows")).permutation(n)[:n_rows]


def test_the_labels_of_another_source_are_joined_by_name(tiny, tmp_path):
    books, dvd = (load_source(f"miniature:{name}", limit=24) for name in ("books", "dvd"))
    other = replace(dvd, frame=dvd.frame.assign(label=1 - dvd.frame["label"]), classes=dvd.classes[::-1])
    tuned = fine_tune(books, tiny, RECIPE, seed=0, store=tmp_path, progress=False)
    ours, theirs = (task_embedding(tuned, rows, store=tmp_path, progress=False)["pooled"] for rows in (dvd, other))
    assert np.array_equal(ours, theirs)


def test_rankings_are_fused_by_their_reciprocal_ranks():
    fused = reciprocal_rank_fusion([["a", "b", "c"], ["b", "a", "c"], ["b", "c", "a"]])
    assert list(fused) == ["b", "a", "c"]
    assert fused == pytest.approx({"a": 1 / 61 + 1 / 62 + 1 / 63, "b": 1 / 62 + 2 / 61, "c": 2 / 63 + 1 / 62})


def test_sources_are_ranked_by_every_component():
    target = {"p": np.array([1.0, 0.0]), "q": np.array([0.0, 1.0])}
    sources = {
        "neither": {"p": np.array([0.0, 1.0]), "q": np.array([1.0, 0.0])},
        "both": {"p": np.array([2.0, 0.0]), "q": np.array([0.0, 3.0])},
        "one": {"p": np.array([1.0, 0.2]), "q": np.array([1.0, 0.2])},
    }
    ranked = rank_sources(target, sources)
    assert list(ranked) == ["both", "one", "neither"]
    assert ranked["both"] == pytest.approx(2 / 61)


@pytest.mark.parametrize("rankings", [[], [["a", "b"], ["a"]], [["a", "a"]]])
def test_rankings_must_rank_the_same(rankings):
    with pytest.raises(ValueError, match="^rankings: "):
        reciprocal_rank_fusion(rankings)


def test_a_straight_curve_has_one_slope():
    assert curve_gradient(3 - 2 * np.arange(200) / 200) == pytest.approx([-2] * 5)


def test_slopes_are_those_at_10_20_30_50_and_70_percent():
    time = (np.arange(1_000) + 0.5) / 1_000
    assert curve_gradient(time**2) == pytest.approx([0.2, 0.4, 0.6, 1.0, 1.4])


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (np.ones(19), r"losses: need at least 20 steps, got shape \(19,\)"),
        (np.where(np.arange(30) == 4, np.nan, 1), "losses: step 4 is not finite"),
    ],
)
def test_a_curve_needs_its_steps(losses, message):
    with pytest.raises(ValueError, match=message):
        curve_gradient(losses)
