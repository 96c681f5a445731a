"""The known sources: their file is what the records say, and they are compared without any corpus."""

from pathlib import Path

import pytest
import yaml
from tsns_workbook import known

from tsns_lib import load_encoder, load_source
from tsns_lib.corpora.registry import REGISTRY

ROOT = Path(__file__).parents[2]
FOREST = {"max_length": 32, "n_resamples": 2, "n_trees": 20, "k": 50}


def test_the_file_holds_what_the_records_say():
    params = yaml.safe_load((ROOT / f"params/local/{known.PRINTS}.yaml").read_text(encoding="utf-8"))
    facts, found = known.recorded(ROOT / "outputs/local", params), known.known_sources()
    assert (found.encoder, found.k, found.ndcg) == (facts["encoder"], facts["k"], facts["ndcg"])
    assert list(found.sources) == list(facts["sources"]) == list(REGISTRY)
    for name, source in facts["sources"].items():
        assert {key: found.sources[name][key] for key in source} == source


def test_there_is_one_text_embedding_for_each_source():
    found = known.known_sources()
    assert found.digest == load_encoder(found.encoder).digest
    vectors = {name: tuple(source["text_embedding"]) for name, source in found.sources.items()}
    assert {len(vector) for vector in vectors.values()} == {384}
    assert len(set(vectors.values())) == 12


@pytest.mark.parametrize(("name", "kin"), [("books", {"books", "dvd", "mr", "sst"}), ("mrpc", {"mrpc", "rte"})])
def test_a_corpus_is_compared_without_any_other(name, kin, monkeypatch):
    monkeypatch.delenv("TSNS_DATA", raising=False)
    source = load_source(f"miniature:{name}", limit=60)
    table = known.known_table(source, None, load_encoder(), **FOREST)
    assert len(table) == 12 and table["cosine of the texts"].is_monotonic_decreasing
    assert table.iloc[:, 2:].to_numpy().min() > -1 and table.iloc[:, 2:].to_numpy().max() <= 1
    said = known.first_to_try(table, source, None)
    assert any(f"**{each}** is the known source of" in said for each in kin)


def test_the_texts_to_predict_decide_which_source_is_first():
    source, target = (load_source(f"miniature:{name}", limit=60) for name in ("books", "kitchen"))
    table = known.known_table(source, target, load_encoder(), **FOREST)
    assert known.first_to_try(table, source, target).startswith(
        "To predict texts like those of miniature:kitchen, **kit"
    )


def test_another_encoder_is_not_compared():
    source = load_source("miniature:books", limit=20)
    table = known.known_table(source, None, load_encoder(random_weights=True), **FOREST)
    assert table.empty
    assert known.first_to_try(table, source, None).startswith(
        "None is compared: builtin:minilm has read the known sources"
    )
