"""The official formats, with every trap of the real files, in small files of our own making."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from tsns_lib.corpora import readers
from tsns_lib.corpora.readers import collect, undouble
from tsns_lib.corpora.registry import REGISTRY


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def rows(reading):
    return list(reading.frame.itertuples(index=False, name=None))


def review(body: str) -> str:
    return f"<review>\n<title>\nA & B < C\n</title>\n<review_text>\n{body}\n</review_text>\n</review>\n"


NEGATIVE = (review("It broke.\nTwice.") + review("The lid\x1as loose.")).encode()
POSITIVE = (review("A fine pan.") + "<review>\n<title>\nno body\n</title>\n</review>\n" + review("\x1a ")).encode()


def test_amazon_cuts_bodies_out_of_pseudo_xml_and_counts(tmp_path):
    put(tmp_path / "acl/pans/negative.review", NEGATIVE)
    put(tmp_path / "acl/pans/positive.review", POSITIVE)
    reading = readers.read_amazon(tmp_path / "acl", "pans")
    assert rows(reading) == [
        ("It broke.\nTwice.", None, 0),
        ("The lid s loose.", None, 0),
        ("A fine pan.", None, 1),
    ]
    assert reading.skipped == {"malformed row": 1, "empty text": 1}
    assert reading.rows_read == 5
    assert reading.repaired == {"unreadable characters": 1}


def test_amazon_reads_the_official_archive_alike(tmp_path):
    files = {
        "acl/pans/negative.review": NEGATIVE,
        "acl/pans/positive.review": POSITIVE,
        "acl/x/positive.review": b"",
    }
    reading = readers.read_amazon(tar(tmp_path / "reviews.tar.gz", files), "pans")
    assert (len(reading.frame), reading.rows_read) == (3, 5)


def test_amazon_replaces_bytes_that_are_not_utf8_and_counts_them(tmp_path):
    put(tmp_path / "pans/negative.review", review("Cold caf\xe9 lid").encode("latin-1"))
    put(tmp_path / "pans/positive.review", review("Warm."))
    reading = readers.read_amazon(tmp_path, "pans")
    assert rows(reading)[0] == ("Cold caf  lid", None, 0)
    assert reading.repaired == {"unreadable characters": 1}


def test_amazon_needs_both_files(tmp_path):
    put(tmp_path / "pans/negative.review", NEGATIVE)
    with pytest.raises(FileNotFoundError, match="needs pans/negative.review and pans/positive.review"):
        readers.read_amazon(tmp_path, "pans")


IMDB = {
    "aclImdb/train/pos/10_9.txt": b"Late<br /><br />but good.",
    "aclImdb/train/pos/2_7.txt": "Early and g\xf6\xf6d.".encode(),
    "aclImdb/train/neg/0_1.txt": b"Bad\x85 very bad.",
    "aclImdb/train/unsup/0_0.txt": b"No label.",
    "aclImdb/test/pos/0_9.txt": b"Not for training.",
    "aclImdb/README": b"",
}
IMDB_ROWS = [("Bad  very bad.", None, 0), ("Early and g\xf6\xf6d.", None, 1), ("Late  but good.", None, 1)]


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_imdb_reads_archive_and_folder_alike(tmp_path, form):
    files = IMDB | {"aclImdb/train/neg/0_1.txt": "Bad\x85 very bad.".encode()}
    if form == "archive":
        path = tar(tmp_path / "aclImdb_v1.tar.gz", files)
    else:
        path = [put(tmp_path / name, content) for name, content in files.items()] and tmp_path / "aclImdb"
    reading = readers.read_imdb(path)
    assert rows(reading) == IMDB_ROWS
    assert reading.repaired == {"line breaks": 1, "unreadable characters": 1}


def test_imdb_names_the_text_that_is_not_utf8(tmp_path):
    with pytest.raises(ValueError, match=r"neg/0_1\.txt: not UTF-8 at byte 3"):
        readers.read_imdb(tar(tmp_path / "aclImdb_v1.tar.gz", IMDB))


def test_imdb_without_training_texts_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no train/pos"):
        readers.read_imdb(tar(tmp_path / "a.tar.gz", {"aclImdb/README": b""}))


def test_an_archive_without_compression_is_read_to_the_mark_of_its_end(tmp_path):
    path = tar(tmp_path / "aclImdb_v1.tar", IMDB | {"aclImdb/train/neg/0_1.txt": "Bad\x85 very bad.".encode()})
    assert rows(readers.read_imdb(path)) == IMDB_ROWS
    whole = path.read_bytes()
    header = whole.index(b"aclImdb/README")  # tarfile takes a later header that is damaged for the end
    for damaged in (whole[:header] + b"b" + whole[header + 1 :], whole[:header]):
        put(path, damaged)
        with pytest.raises(ValueError, match=r"aclImdb_v1\.tar: not a whole tar archive \(the mark of its end"):
            readers.read_imdb(path)


def test_a_cut_archive_is_named(tmp_path):
    path = tar(tmp_path / "a.tar.gz", IMDB)
    put(path, path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"a\.tar\.gz: not a whole tar archive"):
        readers.read_imdb(path)


def test_sst_splits_label_and_text(tmp_path):
    reading = readers.read_sst(put(tmp_path / "stsa.binary.dev", "1 a warm , `` odd '' film\n0 dull .\n2 so so .\n"))
    assert rows(reading) == [("a warm , `` odd '' film", None, 1), ("dull .", None, 0)]
    assert (reading.skipped, reading.rows_read) == ({"malformed row": 1}, 3)


def test_scitail_keeps_every_row_with_quotation_marks(tmp_path):
    lines = [
        '"Ice is ""solid"" water."\tIce is solid.\tentails',
        '"Once more, it froze.\tIt froze once.\tneutral',  # CSV quoting would swallow the next row
        'So called dry"" ice."\tIce is dry.\tneutral',
        "Plain water.\tWater.\tentails",
    ]
    reading = readers.read_scitail(put(tmp_path / "scitail.tsv", "\n".join(lines) + "\n"))
    assert rows(reading) == [
        ('Ice is "solid" water.', "Ice is solid.", 1),
        ('"Once more, it froze.', "It froze once.", 0),
        ('So called dry" ice."', "Ice is dry.", 0),
        ("Plain water.", "Water.", 1),
    ]
    assert (reading.skipped, reading.repaired) == ({}, {"doubled quotes": 2})


def test_nli_removes_contradiction_and_unlabelled_rows_and_counts_them(tmp_path):
    labels = ["entailment", "neutral", "contradiction", "-", "contradiction", "maybe"]
    lines = [
        json.dumps({"gold_label": g, "sentence1": f"a {i}\u2028", "sentence2": "n/a"}) for i, g in enumerate(labels)
    ]
    reading = readers.read_nli(put(tmp_path / "snli.jsonl", "\r\n".join(lines)))
    assert rows(reading) == [("a 0", "n/a", 1), ("a 1", "n/a", 0)]
    assert reading.skipped == {"contradiction": 2, "no gold label": 1, "malformed row": 1}
    assert reading.rows_read == 6


@pytest.mark.parametrize("line", ['{"gold_label": "neutral"', '{"gold_label": "neutral"}', "3"])
def test_nli_names_the_line_that_is_no_row(tmp_path, line):
    good = '{"gold_label": "neutral", "sentence1": "a", "sentence2": "b"}'
    with pytest.raises(ValueError, match=r"snli\.jsonl, line 2: not a(n SNLI/MNLI row| JSON object)"):
        readers.read_nli(put(tmp_path / "snli.jsonl", f"{good}\n{line}\n"))


def test_rte_leaves_quotation_marks_alone(tmp_path):
    lines = [
        "index\tsentence1\tsentence2\tlabel",
        '0\t"To begin.\tIt began.\tnot_entailment',
        '1\tIt ""ended"".\tEnd.\tentailment',
    ]
    reading = readers.read_rte(put(tmp_path / "train.tsv", "\n".join(lines) + "\n"))
    assert rows(reading) == [('"To begin.', "It began.", 0), ('It ""ended"".', "End.", 1)]


def test_qqp_skips_and_counts_the_malformed_row(tmp_path):
    lines = [
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        "1\t3\t4\tWhy rain?\tWhy does it rain? 0",
        '2\t5\t6\t"Is ""tea"" hot?"\tIs tea hot?\t1',
        "3\t7\t8\tWhat is tea?\tWho is Tea?\t0",
    ]
    reading = readers.read_qqp(put(tmp_path / "train.tsv", "\n".join(lines) + "\n"))
    assert rows(reading) == [('Is "tea" hot?', "Is tea hot?", 1), ("What is tea?", "Who is Tea?", 0)]
    assert (reading.skipped, reading.rows_read) == ({"malformed row": 1}, 3)
    assert reading.repaired == {"doubled quotes": 1}


def test_mrpc_survives_the_byte_order_mark_and_unbalanced_quotes(tmp_path):
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    lines = [
        header,
        '1\t1\t2\t" We won , he said .\tHe said they won .',
        '0\t3\t4\tIt rose .\t" It fell .',
        "",
    ]
    reading = readers.read_mrpc(put(tmp_path / "msr.txt", "\ufeff" + "\r\n".join(lines)))
    assert rows(reading) == [
        ('" We won , he said .', "He said they won .", 1),
        ("It rose .", '" It fell .', 0),
    ]


@pytest.mark.parametrize("reader", [readers.read_rte, readers.read_qqp, readers.read_mrpc])
def test_a_wrong_header_is_named(tmp_path, reader):
    with pytest.raises(ValueError, match=r"x\.tsv, line 1: header is 'a\\tb', expected"):
        reader(put(tmp_path / "x.tsv", "a\tb\n1\t2\n"))


def test_not_utf8_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"x, line 1: not UTF-8 at byte 5"):
        readers.read_sst(put(tmp_path / "x", b"1 caf\xe9"))


def test_counts_add_up():
    reading = collect([("a", "b", 1), ("a", " ", 1), ("", "b", 0), ("a", "b", "malformed row")])
    assert (len(reading.frame), reading.skipped, reading.rows_read) == (
        1,
        {"empty text": 2, "malformed row": 1},
        4,
    )


@pytest.mark.parametrize(
    ("field", "text"),
    [('"a ""b"""', 'a "b"'), ('"""b"" a"', '"b" a'), ('"a" and "b"', '"a" and "b"'), ('"', '"'), ("", "")],
)
def test_undouble(field, text):
    assert undouble(field) == text


REAL = [  # corpus, split, rows kept, skipped, repaired
    ("books", "train", 2_000, {}, {"unreadable characters": 14}),
    ("dvd", "train", 2_000, {}, {"unreadable characters": 26}),
    ("electronics", "train", 2_000, {}, {"unreadable characters": 7}),
    ("kitchen", "train", 2_000, {}, {"unreadable characters": 6}),
    ("mr", "train", 25_000, {}, {"line breaks": 14_665, "unreadable characters": 813}),
    ("sst", "train", 6_920, {}, {}),
    ("sst", "dev", 872, {}, {}),
    ("sst", "test", 1_821, {}, {}),
    ("scitail", "train", 23_596, {}, {"doubled quotes": 144, "line breaks": 2}),
    ("scitail", "dev", 1_304, {}, {}),
    ("scitail", "test", 2_126, {}, {}),
    ("snli", "train", 13_229, {"contradiction": 6_771}, {}),
    ("snli", "dev", 6_564, {"contradiction": 3_278}, {}),
    ("mnli", "train", 21_358, {"contradiction": 10_756}, {}),
    ("mnli", "dev", 6_602, {"contradiction": 3_213}, {}),
    ("rte", "train", 2_490, {}, {"unreadable characters": 1}),
    ("rte", "dev", 277, {}, {"unreadable characters": 1}),
    ("qqp", "train", 25_378, {"malformed row": 1}, {"doubled quotes": 888}),
    ("qqp", "dev", 7_600, {}, {"doubled quotes": 270}),
    ("mrpc", "train", 4_076, {}, {}),
    ("mrpc", "test", 1_725, {}, {}),
]


@pytest.mark.parametrize(("name", "split", "kept", "skipped", "repaired"), REAL, ids=lambda value: str(value)[:12])
def test_the_real_files_hold_what_they_should(real_data, name, split, kept, skipped, repaired):
    corpus = REGISTRY[name]
    place = next(p for p in corpus.files[split] if (real_data / p).exists())
    reading = corpus.read(real_data / place)
    if name in ("snli", "mnli", "qqp") and len(reading.frame) == corpus.official[split]:
        return  # whole; the figures below are those of a part
    assert (len(reading.frame), reading.skipped, reading.repaired) == (kept, skipped, repaired)
    if name not in ("snli", "mnli", "qqp"):
        assert kept == corpus.official[split]
