"""One object to fit, keep and use: it agrees with the grid, comes back from disk, and refuses what differs."""

import json
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from sklearn.exceptions import NotFittedError

from tsns_lib import TransferModel, fingerprint, load_encoder, load_source, transfer_grid
from tsns_lib.model import FACTS, TENSORS, _sealed
from tsns_lib.store import StoreError

FEW = {"n_resamples": 9, "n_trees": 40, "max_length": 48, "progress": False}


@pytest.fixture(scope="module")
def encoder():
    return load_encoder()


@pytest.fixture(scope="module")
def mr():
    return load_source("miniature:mr", limit=300)


@pytest.fixture(scope="module")
def books():
    return load_source("miniature:books", limit=160)


@pytest.fixture(scope="module")
def model(mr, encoder, own_cache):
    return TransferModel().fit(mr, encoder, n_neurons=60, **FEW)


def test_it_transfers_far_above_chance(model, books):
    assert model.score(books) > 0.65
    assert model.C_ in (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    assert model.classes_ == ("negative", "positive")


@pytest.mark.parametrize("n_sources", [1, 3])
def test_it_agrees_with_the_grid_to_the_last_digit(mr, books, encoder, n_sources):
    sources = [mr, *(load_source(f"miniature:{name}", limit=60) for name in ("kitchen", "electronics"))][:n_sources]
    settings = FEW | {"n_resamples": 2, "seed": 3, "budget": 90, "tol": None}
    model = TransferModel().fit(sources if n_sources > 1 else mr, encoder, 50, C=0.02, **settings)
    grid = transfer_grid([tuple(sources)], [books], encoder, neurons=[50], runs=1, C=0.02, **settings)
    row = grid[grid["method"].isin(["tsns", "multi_tsns"])].iloc[0]
    assert model.score(books) == row["accuracy"]
    assert np.array_equal((model.selected_[:, 0] - 1) * 384 + model.selected_[:, 1], row["selected"])
    assert np.array_equal(model.pipeline_[-1].coef_, row["model"][-1].coef_)
    assert model.stability_ == pytest.approx(row["stability"], nan_ok=True)
    right = model.predict(books) == np.array(model.classes_)[books.frame["label"]]
    assert np.array_equal(right, row["correct"])


def test_a_selected_neuron_is_found_in_transformers(model, encoder):
    layer, neuron = model.selected_[0]
    assert model.selected_.shape == (60, 2)
    assert (model.selected_.min(axis=0) >= [1, 0]).all() and (model.selected_.max(axis=0) <= [6, 383]).all()
    assert np.array_equal(model.fingerprint_, fingerprint((model.selected_ - [1, 0]) @ [384, 1], 6, 2304))
    import torch

    tokens = encoder.tokenizer("A moving story.", return_tensors="pt")
    with torch.no_grad():
        state = encoder.model(**tokens, output_hidden_states=True).hidden_states[layer][0, 0, neuron]
    assert model._read(["A moving story."])[0, 0] == pytest.approx(float(state), abs=1e-5)


def test_it_comes_back_from_disk_as_it_was(model, books, tmp_path):
    model.save(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["model.json", "model.safetensors"]
    again = TransferModel.load(tmp_path / "saved")
    assert np.array_equal(again.predict_proba(books), model.predict_proba(books))
    assert again.predict(["A fine story."]).tolist() == model.predict(["A fine story."]).tolist()
    for name in ("classes_", "C_", "stability_", "settings_"):
        assert getattr(again, name) == getattr(model, name)
    assert again.score(books) == model.score(books)
    again.save(tmp_path / "twice")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "saved" / name).read_bytes()


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_damage_is_one_line(model, tmp_path, name):
    model.save(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StoreError, match="is not as it was saved; save the model again"):
        TransferModel.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"no saved model, which is model\.json and model\.safetensors"):
        TransferModel.load(tmp_path)


@pytest.mark.parametrize(("step", "kept"), [("tsns_lib.store.files.to_disk", "old"), ("os.replace", "new")])
def test_an_end_between_two_files_leaves_the_old_model_or_the_new_one(
    model, mr, encoder, tmp_path, monkeypatch, step, kept
):
    other = TransferModel().fit(mr, encoder, n_neurons=20, **FEW)
    model.save(tmp_path)

    def end_at_the_facts(first, *_):
        if "model.json" in first.name or step == "os.replace":
            raise SystemExit

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(step, end_at_the_facts)
        other.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "model.safetensors", "next.safetensors"}
    left = {"old": model, "new": other}[kept]
    assert np.array_equal(TransferModel.load(tmp_path).selected_, left.selected_)
    other.save(tmp_path)
    assert np.array_equal(TransferModel.load(tmp_path).selected_, other.selected_)
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "model.safetensors"}


def test_two_ends_one_after_the_other_lose_no_model(model, mr, encoder, tmp_path, monkeypatch):
    other = TransferModel().fit(mr, encoder, n_neurons=20, **FEW)
    third = TransferModel().fit(mr, encoder, n_neurons=30, **FEW)
    model.save(tmp_path)
    for saved, step in ((other, "os.replace"), (third, "tsns_lib.store.files.to_disk")):

        def end_at_the_facts(first, *_, step=step):
            if "model.json" in first.name or step == "os.replace":
                raise SystemExit

        with monkeypatch.context() as patched, pytest.raises(SystemExit):
            patched.setattr(step, end_at_the_facts)
            saved.save(tmp_path)
        assert np.array_equal(TransferModel.load(tmp_path).selected_, other.selected_)


def test_another_encoder_is_refused(model, tmp_path):
    model.save(tmp_path)
    with pytest.raises(ValueError, match="was fitted with builtin:minilm in float32 with the digest .*; here it is"):
        TransferModel.load(tmp_path, load_encoder(random_weights=True))


def test_labels_of_another_file_meet_by_name_or_in_one_line(model):
    frame = pd.DataFrame({"text": ["Good.", "Bad.", "So so."], "label": ["positive", "negative", "neutral"]})
    with pytest.raises(ValueError, match="'neutral' has no partner; load_source.*labels="):
        model.score(load_source(frame))
    assert model.score(load_source(frame[:2])) in (0.0, 0.5, 1.0)


def test_a_score_on_rows_that_it_was_fitted_on_says_so(model, mr, books, tmp_path):
    model.save(tmp_path)
    seen = pd.concat([mr.frame[:3], books.frame[:5]], ignore_index=True)
    target = replace(books, name="mixed", frame=seen)
    for each in (model, TransferModel.load(tmp_path)):
        with pytest.warns(UserWarning, match="target: 3 of the 8 rows of 'mixed' are rows that the model was"):
            each.score(target)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            each.score(books)


def test_a_model_of_an_older_version_is_read_and_warns_of_no_rows(model, mr, tmp_path):
    model.save(tmp_path)
    facts, tensors = json.loads((tmp_path / FACTS).read_text()), load_tensors((tmp_path / TENSORS).read_bytes())
    content = save_tensors({name: tensor for name, tensor in tensors.items() if name != "rows"})
    (tmp_path / TENSORS).write_bytes(content)
    (tmp_path / FACTS).write_bytes(_sealed({name: fact for name, fact in facts.items() if name != "digest"}, content))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TransferModel.load(tmp_path).score(mr) > 0.65


def test_a_fit_that_is_interrupted_leaves_the_model_as_it_was(mr, books, encoder, monkeypatch):
    model = TransferModel().fit(mr, encoder, 20, **FEW)
    before, settings = model.predict_proba(books), model.settings_

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("tsns_lib.model.fit_classifier", interrupt)
        model.fit(mr, encoder, 30, pooling="mean", **FEW)
    assert model.settings_ == settings and (model.predict_proba(books) == before).all()


def test_a_model_that_is_fitted_again_meanwhile_answers_as_one_of_the_two(mr, books, encoder):
    own = [(20, "cls"), (30, "mean")]
    model = TransferModel().fit(mr, encoder, 20, **FEW)
    answers = [TransferModel().fit(mr, encoder, k, pooling=p, **FEW).predict_proba(books) for k, p in own]
    with ThreadPoolExecutor(1) as pool:
        refits = pool.submit(lambda: [model.fit(mr, encoder, k, pooling=p, **FEW) for k, p in own * 4])
        while not refits.done():
            found = model.predict_proba(books)
            assert any((found == answer).all() for answer in answers)
        refits.result()


def test_three_classes_and_pairs_and_numbers(encoder):
    words = ["dull and slow", "plain and square", "warm and bright"]
    rows = [{"text": f"{words[i % 3]} {i}", "text_pair": f"item {i}", "label": 10 * (i % 3)} for i in range(60)]
    source = load_source(pd.DataFrame(rows))
    model = TransferModel().fit(source, encoder, 20, **FEW)
    assert model.classes_ == ("0", "10", "20")
    assert model.predict_proba(source).shape == (60, 3)
    with pytest.warns(UserWarning, match="target: 60 of the 60 rows"):
        assert model.score(source) > 0.9
    assert set(model.predict(["warm and bright 5"], ["item 5"])) <= {"0", "10", "20"}
    with pytest.raises(ValueError, match="texts: the model was fitted on pairs"):
        model.predict(["warm and bright 5"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "books"}, r"source_or_sources: must be what load_source gives, or a list of it, got \['books'\]"),
        ({"source": []}, "source_or_sources: must be what load_source gives"),
        ({"encoder": "minilm"}, "encoder: must be what load_encoder gives, got str"),
        ({"n_neurons": 0}, "n_neurons: must be between 1 and the 2304"),
        ({"C": "best"}, "C: must be positive, got 'best'"),
        ({"C": 0}, "C: must be positive, got 0"),
        ({"n_trees": 0}, "n_trees: must be at least 1"),
        ({"max_length": 1}, "max_length=1"),
        ({"tol": 2}, "tol: must be in"),
    ],
)
def test_no_argument_is_refused_after_work_has_begun(mr, encoder, tmp_path, change, message):
    arguments = {"source": mr, "encoder": encoder} | FEW | {"store": tmp_path / "store"} | change
    with pytest.raises(ValueError, match=message) as error:
        TransferModel().fit(arguments.pop("source"), arguments.pop("encoder"), **arguments)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "store").exists()


def test_a_class_of_one_row_needs_a_number_for_C(encoder):
    source = load_source(pd.DataFrame({"text": [f"text {i}" for i in range(12)], "label": [0] * 11 + [1]}))
    with pytest.raises(ValueError, match="C: cross-validation needs two rows of every class; give a number"):
        TransferModel().fit(source, encoder, 5, **FEW | {"fraction": 1.0, "n_resamples": 1, "seed": 1})


def test_a_class_that_is_not_among_the_rows_of_a_cross_validation_is_said_before_any_work(encoder, tmp_path):
    rows = pd.DataFrame({"text": [f"text {i}" for i in range(4_400)], "label": ["a"] * 4_398 + ["c"] * 2})
    few = FEW | {"fraction": 1.0, "n_resamples": 1, "seed": 1}
    with pytest.raises(ValueError, match="C: .* two rows of every class among the 4,000 rows drawn for it; give a nu"):
        TransferModel().fit(load_source(rows), encoder, 5, **few, store=tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_not_fitted_says_so(books):
    for use in (TransferModel().predict, TransferModel().score, TransferModel().save):
        with pytest.raises(NotFittedError, match="this TransferModel is not fitted yet: call fit or load first"):
            use(books if use.__name__ != "save" else "folder")


def test_the_cost_of_the_paper_is_said(mr, encoder, capfd, monkeypatch):
    monkeypatch.setattr("tsns_lib.executors.WORTH_SAYING", 0)
    TransferModel().fit(mr, encoder, 60, **FEW | {"progress": True})
    assert "the paper's 100 forests of 1,000 trees: about " in capfd.readouterr().err


def test_the_model_is_plain_json(model, tmp_path):
    model.save(tmp_path)
    facts = json.loads((tmp_path / "model.json").read_text())
    assert facts["settings"]["sources"] == ["miniature:mr"]
    assert facts["encoder"]["name"] == "builtin:minilm"


def test_the_recipes_of_the_readme_run_and_beat_chance(tmp_path, monkeypatch, capsys):
    mr, books = (load_source(f"miniature:{name}").frame for name in ("mr", "books"))
    stars = [(1, 2, 4, 5)[2 * label + row % 2] if row % 9 else 3 for row, label in enumerate(mr["label"])]
    mr.assign(review=mr["text"], stars=stars)[["review", "stars"]][:240].to_csv(tmp_path / "reviews.csv", sep=";")
    feelings = books["label"].map({0: "neg", 1: "pos"})
    pd.DataFrame({"Text": books["text"], "Sentiment": feelings})[:120].to_csv(tmp_path / "other.csv")
    monkeypatch.chdir(tmp_path)
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    found = {}
    for recipe in re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL):
        exec(recipe, found)
    assert found["model"].score(found["target"]) > 0.65
    assert found["pipeline"].score(found["Z"], found["source"].labels_of(found["target"])) > 0.65
    assert len(found["selector"].get_support(indices=True)) == 300


def test_a_source_does_not_count_twice(mr, encoder):
    frame = pd.DataFrame({"text": ["good", "bad"] * 20, "label": ["p", "n"] * 20})
    for sources in ([mr, mr], [load_source(frame), load_source(frame[::-1])]):
        with pytest.raises(ValueError, match=r"sources: a name stands twice .*; load_source\(\.\.\., name="):
            TransferModel().fit(sources, encoder, 20, **FEW)


def test_a_class_of_one_row_is_refused_before_any_work(encoder, tmp_path):
    frame = pd.DataFrame({"text": [f"row {n}" for n in range(40)], "label": ["a"] * 20 + ["b"] * 19 + ["c"]})
    with pytest.raises(ValueError, match="C: cross-validation needs two rows of every class; give a number"):
        TransferModel().fit(load_source(frame), encoder, 20, store=tmp_path, **FEW)
    assert not any(tmp_path.iterdir())


def test_numbers_of_numpy_are_saved(mr, encoder, tmp_path):
    model = TransferModel().fit(mr, encoder, 20, budget=np.int64(90), fraction=np.float32(0.5), **FEW)
    model.save(tmp_path)
    assert TransferModel.load(tmp_path).settings_["budget"] == 90


def test_it_says_that_it_was_fitted_on_generated_data(model, tmp_path):
    model.save(tmp_path)
    assert json.loads((tmp_path / "model.json").read_bytes())["settings"]["generated"] is True


def test_it_predicts_with_the_store_that_it_was_fitted_with(mr, encoder, own_cache, tmp_path):
    few = {"n_resamples": 2, "n_trees": 10, "max_length": 16, "progress": False}
    fitted = TransferModel().fit(mr, encoder, n_neurons=20, C=0.01, store=tmp_path, **few)
    before = set(own_cache.rglob("*"))
    fitted.predict(["A text that no other test has read, so that it is new."])
    assert set(own_cache.rglob("*")) == before


def test_a_file_in_the_place_of_its_folder_is_one_line(model, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match="taken: cannot hold the model"):
        model.save(tmp_path / "taken")


def test_a_model_is_read_whole_while_others_save_it(model, mr, encoder, tmp_path):
    other = TransferModel().fit(mr, encoder, n_neurons=20, **FEW)
    model.save(tmp_path)
    known = {model.selected_.tobytes(), other.selected_.tobytes()}

    def save_often(mine):
        for _ in range(20):
            mine.save(tmp_path)

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(save_often, mine) for mine in (model, other)]
        while not all(writer.done() for writer in writers):
            assert TransferModel.load(tmp_path, encoder).selected_.tobytes() in known
        assert [writer.result() for writer in writers] == [None, None]
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "model.safetensors"}


def test_a_folder_that_cannot_be_read_is_one_line(model, tmp_path, monkeypatch):
    model.save(tmp_path)

    def refused(place):
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr("tsns_lib.model.locked", refused)  # whoever runs tests as root may read everything
    with pytest.raises(StoreError, match=f"^{tmp_path}: cannot be read: "):
        TransferModel.load(tmp_path)
