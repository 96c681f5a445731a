"""Table 1: counts beside the printed and the official ones, balance, lengths, leakage, and where 3,917 comes from."""

import json

import pandas as pd
import pytest
from tsns_workbook import table1

from tsns_lib.corpora.sources import Source, load_source


def make_source(name, split="train", *, rows=None, kept=None, kind="files", task="nli", origin=None):
    frame = pd.DataFrame(rows or [("a b", "c", 1), ("d", "e f g", 0)], columns=["text", "text_pair", "label"])
    counts = {"rows_kept": len(frame) if kept is None else kept, "repeated_rows": 0, "rows_read": len(frame)}
    extra = {"official_rows": 4_076, "skipped": {}, "repaired": {}}
    origin = {"kind": kind, **counts, **extra, **(origin or {})}
    return Source(name, task, split, frame, origin, classes=("no match", "match"))


def test_every_printed_count_has_its_official_one():
    counts = table1.printed_counts()
    wrong = counts[counts["paper"] != counts["official"]]
    assert len(counts) == 18
    assert wrong[["corpus", "split", "paper", "official"]].to_numpy().tolist() == [
        ["qqp", "train", 363_177, 363_846],
        ["mrpc", "train", 3_917, 4_076],
        ["qqp", "dev", 40_371, 40_430],
    ]


@pytest.mark.parametrize(
    ("source", "here", "verdict"),
    [
        (make_source("mrpc", kept=4_076), "whole", "not met"),
        (make_source("mrpc", kept=3_917, origin={"official_rows": 3_917}), "whole", "met"),
        (make_source("mrpc", kept=3_917), "part of the official", "not testable here"),
        (make_source("miniature:mrpc", kind="miniature"), "generated", "not testable here"),
        (make_source("mrpc", "test"), "not loaded", "not testable here"),
    ],
)
def test_a_count_is_judged_only_where_the_corpus_is_whole(source, here, verdict):
    row = table1.counts_table([source]).set_index("corpus").loc["mrpc"]
    assert (row["here"], row["verdict"]) == (here, verdict)


def judged(counts):
    return {claim["id"]: (claim["ours"], claim["verdict"]) for claim in table1.table1_claims(counts)}


def test_a_row_of_the_printed_table_is_reproduced_if_all_its_counts_are_met():
    counts = table1.counts_table([]).assign(verdict="met")
    assert judged(counts)["table1.amazon"] == (8, "reproduced")
    counts.loc[counts["corpus"] == "dvd", "verdict"] = "not met"
    assert judged(counts)["table1.amazon"] == (6, "contradicted")


def test_a_row_with_an_untestable_count_is_not_judged():
    counts = table1.counts_table([]).assign(verdict="met")
    counts.loc[counts["printed as"] == "transferring", "verdict"] = "not testable here"
    assert judged(counts)["table1.scitail"] == (None, "not testable here")
    assert judged(counts)["table1.mr"] == (1, "reproduced")


def test_every_row_of_the_printed_table_is_claimed():
    assert len(judged(table1.counts_table([]))) == 9


def test_splits_and_changes():
    source = make_source("mrpc", origin={"skipped": {"malformed row": 2}, "repaired": {"line breaks": 1}})
    row = table1.splits_table([source]).iloc[0]
    assert (row["rows"], row["positive"], row["here"]) == (2, 50.0, "part of the official")
    assert table1.changes_table([source])[["what", "reason", "rows"]].to_numpy().tolist() == [
        ["skipped", "malformed row", 2],
        ["repaired", "line breaks", 1],
    ]


def test_shared_rows_counts_pairs_that_stand_in_both(tmp_path):
    def source(name, pairs):
        lines = [json.dumps({"text": a, "text_pair": b, "label": i % 2}) for i, (a, b) in enumerate(pairs)]
        (tmp_path / name).write_text("\n".join(lines))
        return load_source(tmp_path / name)

    a = source("a.jsonl", [("x", "y"), ("x", "y"), ("x", "z"), ("v", "w")])
    b = source("b.jsonl", [("x", "y"), ("z", "x"), ("v", "w")])
    assert table1.shared_rows(a, b) == 2


def test_scitail_leaks_ten_pairs(real_data):
    train, test = (load_source("scitail", split=split, data_dir=real_data) for split in ("train", "test"))
    assert table1.shared_rows(train, test) == 10


def test_leakage_counts_different_shared_rows():
    one = make_source("scitail", rows=[("a", "b", 1), ("c", "d", 0), ("c", "d", 1)], origin={"repeated_rows": 1})
    other = make_source("scitail", "test", rows=[("c", "d", 0), ("d", "c", 0)])
    single = make_source("sst", rows=[("c", None, 0)], task="sentiment")
    table = table1.leakage_table([one, other, single])
    assert table.to_numpy().tolist() == [["scitail train", "scitail test", 1, 50.0]]


def test_leakage_matrix_has_sources_down_and_targets_across():
    train = make_source("scitail", rows=[("a", "b", 1), ("c", "d", 0)])
    test = make_source("scitail", "test", rows=[("c", "d", 0)])
    books = make_source("books", rows=[("x", None, 0)], task="sentiment")
    matrix = table1.leakage_matrix([train, test, books])
    assert matrix.columns.tolist() == ["scitail test", "books train"]
    assert matrix.loc["scitail"].tolist() == ["1", "0"]
    assert matrix.loc["books", "books train"] == "—"


def test_lengths_count_the_words_of_both_texts():
    quantiles = table1.length_quantiles([make_source("mrpc")])
    assert quantiles.loc[0, ["p5", "p50", "p95"]].tolist() == pytest.approx([3.05, 3.5, 3.95])


def test_the_figure_of_lengths_draws_training_splits_and_marks_generated_data():
    sources = [load_source("miniature:scitail", split=split) for split in ("train", "test")]
    axes = table1.length_plot(table1.length_quantiles(sources), generated=True).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["scitail"]
    assert axes.get_title(loc="left").endswith("(generated data)")


MADE_UP = "\n".join(
    [
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        "1\t1\t2\tA cat sat.\tA cat was sitting.",
        '0\t3\t4\t"It rains, he said.\tIt is dry.',  # opened and never closed: swallows the next two line ends
        "1\t5\t6\tOne went.\tOne left.",
        '0\t7\t8\tHe came.\t"He did not come.',
        "1\t9\t10\tThey won.\tThey did win.",
    ]
)


@pytest.fixture
def made_up_mrpc(tmp_path, monkeypatch):
    place = tmp_path / "MRPC" / "msr_paraphrase_train.txt"
    place.parent.mkdir()
    place.write_text(MADE_UP + "\n", encoding="utf-8")
    monkeypatch.setenv("TSNS_DATA", str(tmp_path))
    return place


def test_quoting_swallows_rows(made_up_mrpc):
    assert table1.count_with_quoting(made_up_mrpc) == {
        "in the file": 5,
        "read with quoting on": 3,
        "complete": 2,
    }


def test_the_explanation_of_mrpc_is_recounted_on_the_file(made_up_mrpc):
    table = table1.mrpc_explained([load_source("mrpc")])
    assert table["count"].tolist() == [3_917, 5, 3, 2, "no"]


def test_without_the_official_file_mrpc_is_not_explained():
    table = table1.mrpc_explained([load_source("miniature:mrpc")])
    assert table["count"].tolist() == [3_917, "not testable here"]


def test_the_official_file_gives_the_printed_count(real_data):
    counts = table1.count_with_quoting(real_data / "MRPC" / "msr_paraphrase_train.txt")
    assert counts == {"in the file": 4_076, "read with quoting on": 3_938, "complete": 3_917}


def test_ten_scitail_pairs_leak(real_data):
    sources = [load_source("scitail", split=split, data_dir=real_data) for split in ("train", "test")]
    assert table1.leakage_table(sources)["shared"].tolist() == [10]
