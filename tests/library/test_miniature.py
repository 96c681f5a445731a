"""The built-in corpora: the same bits everywhere, balanced, noisy, learnable, and never perfectly so."""

import hashlib
import json

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tsns_lib.corpora.miniature import generate
from tsns_lib.corpora.registry import REGISTRY

EVERY = [(name, split) for name, corpus in REGISTRY.items() for split in corpus.files]
SENTIMENT = [name for name, corpus in REGISTRY.items() if corpus.task == "sentiment"]


def digest(frame):
    return hashlib.sha256(json.dumps(frame.to_numpy().tolist()).encode()).hexdigest()


def accuracy(train, test):
    model = make_pipeline(CountVectorizer(), LogisticRegression(C=0.3, max_iter=1000))
    return model.fit(train["text"], train["label"]).score(test["text"], test["label"])


def test_every_corpus_of_table_1_has_a_counterpart_with_the_same_bits_everywhere():
    bits = "".join(digest(generate(name, split)) for name, split in EVERY)
    assert (
        hashlib.sha256(bits.encode()).hexdigest() == "40e625d56bf3602fe91151356706108a7438e3295330ae8828aab67793145c27"
    )


@pytest.mark.parametrize("name", ["books", "qqp"])
def test_the_seed_and_the_split_each_give_another_text(name):
    texts = [generate(name, **kw)["text"].tolist() for kw in ({}, {"seed": 1}, {"split": "test"})]
    assert texts[0] != texts[1]
    assert texts[0][:240] != texts[2]


@pytest.mark.parametrize(("name", "split"), EVERY)
def test_no_class_is_below_35_percent(name, split):
    assert generate(name, split)["label"].value_counts(normalize=True).min() >= 0.35


@pytest.mark.parametrize(("name", "split"), EVERY)
def test_columns_are_those_of_a_source(name, split):
    frame = generate(name, split)
    assert frame.columns.tolist() == ["text", "text_pair", "label"]
    assert frame["text_pair"].notna().all() == (REGISTRY[name].task != "sentiment")
    assert frame["text"].str.strip().eq(frame["text"]).all()
    assert not frame["text"].str.contains("[{}]").any()


@pytest.mark.parametrize(("name", "wrong"), [("books", 22), ("mr", 36)])
def test_nine_percent_of_the_labels_are_wrong(name, wrong):
    noisy, clean = generate(name), generate(name, noise=0)
    assert noisy["text"].equals(clean["text"])
    assert (noisy["label"] != clean["label"]).sum() == wrong
    assert clean["label"].mean() == 0.5


@pytest.mark.parametrize("name", ["scitail", "snli", "mnli", "rte", "qqp", "mrpc"])
def test_both_classes_of_pairs_overlap_in_words(name):
    frame = generate(name, noise=0)
    words = [[set(text.lower().strip("?. ").split()) for text in frame[c]] for c in ("text", "text_pair")]
    frame["overlap"] = [len(a & b) / len(b) for a, b in zip(*words, strict=True)]
    means = frame.groupby("label")["overlap"].mean()
    assert means.min() > 0.4
    assert 0 < means[1] - means[0] < 0.25


def test_words_teach_a_domain_better_than_they_transfer():
    train = {name: generate(name, n_rows=400) for name in SENTIMENT}
    test = {name: generate(name, "test", n_rows=400) for name in SENTIMENT}
    for source in ("books", "dvd", "electronics", "kitchen"):
        within = accuracy(train[source], test[source])
        across = [accuracy(train[source], test[t]) for t in ("books", "dvd", "electronics", "kitchen") if t != source]
        assert 0.7 < within < 0.92
        assert 0.52 < sum(across) / 3 < within - 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "poems"}, "'poems' is not a built-in corpus: books, dvd"),
        ({"name": "sst", "n_rows": 1}, "n_rows: must be at least 2, got 1"),
        ({"name": "sst", "noise": 0.7}, "noise: must be at most 0.5, got 0.7"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(**arguments)
