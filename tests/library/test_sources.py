"""Corpora by name, path and hub id: what loads, what is counted, and every line that a mistake gives."""

import gzip
import hashlib
import io
import json
import lzma
import re
import tarfile
import time
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsns_lib.corpora import readers
from tsns_lib.corpora.hub import read_rows
from tsns_lib.corpora.registry import REGISTRY
from tsns_lib.corpora.sources import list_sources, load_source, stratified_rows

SST = "1 warm and odd .\n0 dull .\n1 bright .\n0 slow .\n0 dull .\nnonsense\n"


@pytest.fixture(autouse=True)
def no_data(monkeypatch, request):
    """Only the tests that ask for the real corpora see TSNS_DATA."""
    if "real_data" not in request.fixturenames:
        monkeypatch.delenv("TSNS_DATA", raising=False)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "SST").mkdir()
    (tmp_path / "SST/stsa.binary.train").write_text(SST)
    return tmp_path


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text('text,label,note\n"Good, ""really"".",yes,a\nBad.,no,b\nn/a,no,c\n')
    return path


# By name


def test_a_registry_name_reads_the_folder_and_counts(folder):
    source = load_source("sst", data_dir=folder)
    assert (source.name, source.task, source.split, source.n_rows) == ("sst", "sentiment", "train", 5)
    assert source.frame["text"].tolist() == ["warm and odd .", "dull .", "bright .", "slow .", "dull ."]
    assert source.frame["text_pair"].tolist() == [None] * 5
    assert source.frame["label"].tolist() == [1, 0, 1, 0, 0]
    assert not source.is_pair
    assert not source.generated
    assert source.origin == {
        "kind": "files",
        "corpus": "sst",
        "path": "SST/stsa.binary.train",
        "rows_read": 6,
        "rows_kept": 5,
        "skipped": {"malformed row": 1},
        "repaired": {},
        "repeated_rows": 1,
        "official_rows": 6920,
        "paper_rows": 6920,
    }


def test_the_environment_variable_names_the_folder(folder, monkeypatch):
    monkeypatch.setenv("TSNS_DATA", str(folder))
    assert load_source("sst").n_rows == 5


def test_miniature_is_generated():
    source = load_source("miniature:qqp", split="dev")
    assert (source.name, source.task, source.generated, source.is_pair) == (
        "miniature:qqp",
        "similarity",
        True,
        True,
    )
    assert source.origin["official_rows"] is None


def test_without_a_folder_three_ways_are_named():
    with pytest.raises(FileNotFoundError, match="set TSNS_DATA or pass data_dir, or load 'hub:sst' or 'miniature:sst'"):
        load_source("sst")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="data_dir='.*nowhere': no such folder"):
        load_source("sst", data_dir=tmp_path / "nowhere")


def test_the_variable_is_named_when_its_folder_is_not_there(monkeypatch):
    monkeypatch.setenv("TSNS_DATA", "nowhere")
    with pytest.raises(FileNotFoundError, match="TSNS_DATA='nowhere': no such folder"):
        list_sources()


def test_a_file_that_is_not_in_the_folder_is_named(folder):
    with pytest.raises(FileNotFoundError, match="mr: no aclImdb or aclImdb_v1.tar.gz or hub/mr/train in "):
        load_source("mr", data_dir=folder)


def test_a_file_without_a_usable_row_is_an_error(folder):
    (folder / "SST/stsa.binary.dev").write_text("nonsense\n")
    with pytest.raises(ValueError, match=r"stsa.binary.dev: no usable row \(skipped: {'malformed row': 1}\)"):
        load_source("sst", split="dev", data_dir=folder)


def test_an_unknown_split_lists_those_there_are():
    with pytest.raises(ValueError, match="qqp: no split 'test'; there is train, dev"):
        load_source("miniature:qqp", split="test")


@pytest.mark.parametrize("name", ["miniature:book", "hub:book"])
def test_an_unknown_corpus_lists_those_there_are(name):
    with pytest.raises(ValueError, match="'book' is not a corpus of Table 1: books, dvd, "):
        load_source(name)


def test_revision_is_for_the_hub_only():
    with pytest.raises(ValueError, match="revision='v1' pins a hub corpus, and 'miniature:sst' is none"):
        load_source("miniature:sst", revision="v1")


@pytest.mark.parametrize(("seed", "fault"), [(-1, "at least 0, got -1"), (0.5, "a whole number, got 0.5")])
def test_a_wrong_seed_is_named(seed, fault):
    with pytest.raises(ValueError, match=f"seed: must be {fault}"):
        load_source("miniature:sst", seed=seed)


# Limit


def test_limit_keeps_the_exact_number_of_rows_in_order_and_proportion(folder):
    whole = load_source("sst", data_dir=folder)
    part = load_source("sst", data_dir=folder, limit=3, seed=1)
    assert part.n_rows == 3
    assert sorted(part.frame["label"]) == [0, 0, 1]
    texts = iter(whole.frame["text"])
    assert all(text in texts for text in part.frame["text"])
    assert part.frame.index.tolist() == [0, 1, 2]
    assert part.origin["limit"] == "3 of 5 rows, classes in proportion, seed 1"
    assert part.origin["rows_kept"] == 5


def test_limit_is_seeded(csv):
    def texts(seed):
        return load_source("miniature:sst", limit=40, seed=seed).frame["text"].tolist()

    assert texts(3) == texts(3)
    assert texts(3) != texts(4)


def test_a_limit_above_the_rows_keeps_everything_and_says_so(folder):
    source = load_source("sst", data_dir=folder, limit=9)
    assert (source.n_rows, source.origin["limit"]) == (5, "9 asked for, all 5 rows kept")


@pytest.mark.parametrize(
    ("limit", "fault"),
    [
        (1, "at least 2, the number of classes of miniature:sst, got 1"),
        (0, "at least 1, got 0"),
        (2.5, "a whole number"),
    ],
)
def test_a_limit_below_the_classes_is_an_error(limit, fault):
    with pytest.raises(ValueError, match=f"limit: must be {fault}"):
        load_source("miniature:sst", limit=limit)


def test_a_name_changes_nothing_but_the_name():
    plain, named = (load_source("miniature:sst", limit=9, name=name) for name in (None, "short reviews"))
    assert named.name == "short reviews"
    assert named.origin == plain.origin
    assert named.frame.equals(plain.frame)


@pytest.mark.parametrize(("limit", "fault"), [(1, "from 2 \\(classes\\) to 3 \\(rows\\), got 1"), (4, "from 2")])
def test_a_subset_of_no_size_is_refused(limit, fault):
    with pytest.raises(ValueError, match=f"limit: must be {fault}"):
        stratified_rows([0, 1, 1], limit, seed=0, name="x")


def test_subset_has_the_classes_in_proportion():
    rows = stratified_rows([0, 0, 0, 0, 0, 0, 1, 1, 1, 1], 5, seed=0, name="books/train")
    assert (len(rows), sum(rows >= 6)) == (5, 2)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.data())
def test_subset_is_exact_and_holds_every_class(sizes, data):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    limit = data.draw(st.integers(len(sizes), len(labels)))
    rows = stratified_rows(labels, limit, seed=0, name="x")
    assert len(set(rows)) == limit
    assert np.all(np.diff(rows) > 0)
    assert set(labels[rows]) == set(range(len(sizes)))


# Your own file


def test_csv_maps_string_labels_in_sorted_order(csv):
    source = load_source(csv)
    assert source.frame["text"].tolist() == ['Good, "really".', "Bad.", "n/a"]
    assert source.frame["label"].tolist() == [1, 0, 0]
    assert (source.name, source.task) == (f"{csv.parent.name}/my.csv", "own")
    assert source.origin["corpus"] == str(csv.resolve())
    assert source.origin["labels"] == {"no": 0, "yes": 1}
    assert source.origin["ignored_columns"] == ["note"]


def test_tsv_quotes_never_join_rows(tmp_path):
    path = tmp_path / "my.tsv"
    path.write_text('text\ttext_pair\tlabel\n"To be\tor\t1\n"a ""b"""\t"not\t0\n')
    source = load_source(path)
    assert source.is_pair
    assert source.frame["text"].tolist() == ['"To be', 'a "b"']
    assert source.frame["label"].tolist() == [1, 0]
    assert source.origin["labels"] == {}


def test_jsonl_reads_whole_number_labels_as_they_are(tmp_path):
    path = tmp_path / "my.jsonl"
    path.write_text('{"text": "a\u2028b", "label": 2}\n\n{"text": "c", "label": 5.0}\n')
    assert load_source(str(path)).frame["label"].tolist() == [2, 5]


def test_parquet(tmp_path):
    path = tmp_path / "my.parquet"
    pd.DataFrame({"text": ["a", "b"], "label": [True, False]}).to_parquet(path)
    source = load_source(path)
    assert source.frame["label"].tolist() == [1, 0]
    assert source.origin["labels"] == {"False": 0, "True": 1}


BAD = [
    ("a.csv", "text,klass\nx,1\n", r"a\.csv: no column 'label'; found: text, klass"),
    ("a.csv", "txt,label\nx,1\n", r"a\.csv: no column 'text'; found: txt, label; name yours with text="),
    ("a.csv", "text,label\n ,1\nx,\n", r"none of the 2 rows .*: empty text in 1 \(first: row 1\), missing label in 1 "),
    ("a.csv.gz", "text,label\nx,1\n", r"a\.csv\.gz: cannot be read to its end \(Not a gzipped file"),
    ("a.csv.xz", "text,label\nx,1\n", r"a\.csv\.xz: cannot be read to its end"),
    ("a.csv.zip", "text,label\nx,1\n", r"a\.csv\.zip: cannot be read to its end \(File is not a zip file"),
    ("a.parquet.gz", "text", r"a\.parquet\.gz: ending '\.gz' is not one of"),
    ("a.csv", "text,label\nx,1\ny,1\n", r"a\.csv: one class only, '1', in all 2 rows"),
    ("a.csv", "text,label\n", r"a\.csv: no rows"),
    ("a.csv", "", r"a\.csv: no rows"),
    ("a.csv", "text,label\nwell, it broke,1\n", r"a\.csv, row 1: 3 fields, but the header has 2"),
    ("a.csv", 'text,label\n"x,1\ny,0\n', r"a\.csv, row 1: not readable as CSV \(unexpected end of data\)"),
    ("a.tsv", "text\tlabel\nx\n", r"a\.tsv, row 1: 1 fields, but the header has 2"),
    ("a.jsonl", '{"text": "x", "label": 1}\n{"text"\n', r"a\.jsonl, line 2: not a JSON object"),
    ("a.jsonl", '{"text": "x", "label": 1}\n3\n', r"a\.jsonl, line 2: not a JSON object"),
    ("a.jsonl", '{"text": 7, "label": 1}\n', r"a\.jsonl, row 1, column 'text': 7 is not text"),
    ("a.parquet", "text", r"a\.parquet: not readable as Parquet"),
    ("a.xlsx", "text", r"a\.xlsx: ending '\.xlsx' is not one of \.csv, \.tsv, \.jsonl, \.parquet"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_a_bad_file_gives_one_clear_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        load_source(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "skipped", "said"),
    [
        ("a.csv", "text,label\nx,1\n ,0\ny,0\n", {"empty text": 1}, r"empty text in 1 \(first: row 2\)"),
        ("a.csv", "text,text_pair,label\nx,y,1\nx,,0\ny,z,0\n", {"empty text": 1}, "empty text in 1"),
        (
            "a.csv",
            "text,label\nx,1\n,\ny,0\nz,\n",
            {"empty text": 1, "missing label": 1},
            r"label in 1 \(first: row 4\)",
        ),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"label": 0}\n{"text": "y", "label": 0}\n', {"empty text": 1}, "row 2"),
    ],
)
def test_a_row_that_lacks_a_text_or_a_label_is_counted_and_said(tmp_path, name, content, skipped, said):
    (tmp_path / name).write_text(content)
    with pytest.warns(UserWarning, match=rf"{name}: . of . rows are not used: .*{said}"):
        source = load_source(tmp_path / name)
    assert source.frame[["text", "label"]].to_numpy().tolist() == [["x", 1], ["y", 0]]
    assert source.origin["skipped"] == skipped
    assert source.origin["rows_read"] == source.n_rows + sum(skipped.values())


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("pack", ["", ".gz", ".xz", ".zip"])
def test_files_as_people_have_them(tmp_path, mark, pack):
    content = f'Stars{mark}Review{mark}text\n4{mark}"good{mark} indeed"{mark}n\n1{mark}bad{mark}n\n'
    path = tmp_path / f"reviews.csv{pack}"
    if pack == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("reviews.csv", content)
            archive.writestr("__MACOSX/._reviews.csv", "x")
    else:
        path.write_bytes({"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[pack](content.encode()))
    source = load_source(path, text="review", label="stars")
    assert source.frame[["text", "label"]].to_numpy().tolist() == [[f"good{mark} indeed", 4], ["bad", 1]]
    assert source.origin["ignored_columns"] == ["text"]


def test_an_archive_of_two_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.csv.zip", "w") as archive:
        archive.writestr("a.csv", "text,label\n")
        archive.writestr("b.csv", "text,label\n")
    with pytest.raises(ValueError, match=r"a\.csv\.zip: holds 2 files; it must be one"):
        load_source(tmp_path / "a.csv.zip")


def test_a_frame_is_a_corpus_by_its_content():
    frame = pd.DataFrame({"Text": [" a ", "b", None], "klass": ["x", "y", "x"], 3: [1, 2, 3]}, index=[7, 7, 7])
    with pytest.warns(UserWarning, match=r"^frame: 1 of 3 rows are not used: empty text in 1 \(first: row 3\)"):
        source = load_source(frame, label="klass", name="mine")
    assert (source.name, source.task, source.split, source.classes) == ("mine", "own", "train", ("x", "y"))
    assert source.frame.to_numpy().tolist() == [["a", None, 0], ["b", None, 1]]
    assert frame["Text"].tolist()[:2] == [" a ", "b"]
    other = load_source(frame[:2].assign(klass=["y", "x"]), label="klass")
    assert other.name == "frame" and other.origin["corpus"] != source.origin["corpus"]


class Rows:
    """What datasets.Dataset has: to_pandas, and features that know the names of classes."""

    features = {"review": None, "label": type("ClassLabel", (), {"names": ["bad", "good"]})}

    def to_pandas(self):
        return pd.DataFrame({"review": ["a", "b", "c"], "label": [1, 0, -1]})


@pytest.mark.filterwarnings("ignore:frame. 1 of 3")
def test_the_classes_of_a_dataset_have_their_names():
    source = load_source(Rows(), text="review")
    assert source.frame["label"].tolist() == [1, 0]
    assert (source.classes, source.origin["skipped"]) == (("bad", "good"), {"missing label": 1})


def test_labels_say_what_a_class_means(tmp_path):
    path = tmp_path / "stars.csv"
    path.write_text("text,label\n" + "".join(f"x{star},{star}\n" for star in "1235"))
    source = load_source(path, labels={1: "negative", "2": "negative", 3: None, 5: "positive"})
    assert source.frame["text"].tolist() == ["x1", "x2", "x5"]
    assert (source.numbers, source.frame["label"].tolist()) == ({"negative": 0, "positive": 1}, [0, 0, 1])
    assert source.origin["skipped"] == {"class left out": 1}
    assert load_source(path, labels={1: 0, 2: 0, 3: 1, 5: 1}).frame["label"].tolist() == [0, 0, 1, 1]
    assert load_source("miniature:books").labels_of(source).tolist() == [0, 0, 1]
    with pytest.raises(
        ValueError, match="must name every class, .*: it names '1', '6', and there are '1', '2', '3', '5'"
    ):
        load_source(path, labels={1: 0, 6: 1})


def test_html_entities_are_kept_unless_asked(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nfish &amp; chips,1\nx,0\n")
    assert load_source(tmp_path / "a.csv").frame["text"][0] == "fish &amp; chips"
    source = load_source(tmp_path / "a.csv", unescape=True)
    assert (source.frame["text"][0], source.origin["repaired"]) == ("fish & chips", {"HTML entities": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"split": "test"},
            "split='test': your own rows are all 'train'; keep those to test on in a file of their own",
        ),
        ({"text": "note", "label": "note"}, r"my\.csv: one column cannot be two of text"),
        ({"text_pair": "other"}, r"my\.csv: no column 'other'; found: text, label, note; name yours with text_pair="),
        ({"text": 3}, "text: must be text, got 3"),
        ({"labels": {"yes": 1, "no": 1}}, "one class only"),
        ({"labels": {"yes": 1, "no": 0.5}}, r"my\.csv, row 2, column 'label': 0.5 is a quantity"),
    ],
)
def test_a_wrong_option_of_an_own_file_is_one_line(csv, options, message):
    with pytest.raises(ValueError, match=message):
        load_source(csv, **options)


@pytest.mark.parametrize("options", [{"text": "x"}, {"labels": {0: 1}}, {"unescape": True}], ids=str)
def test_columns_and_labels_are_for_own_rows(options):
    with pytest.raises(
        ValueError, match=f"{next(iter(options))}: is for your own rows, and 'miniature:sst' is a corpus"
    ):
        load_source("miniature:sst", **options)


def test_not_utf8_is_one_line_too(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,label\ncaf\xe9,1\n")
    with pytest.raises(ValueError, match=r"a\.csv, line 2: not UTF-8 at byte 3"):
        load_source(tmp_path / "a.csv")


def test_neither_file_nor_corpus():
    with pytest.raises(
        FileNotFoundError, match="bokks: no such file, nor a corpus of Table 1: books, dvd.*; did you mean 'books'"
    ):
        load_source("bokks")


def test_a_folder_is_no_corpus(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_source(tmp_path)


# The hub


def put_on_the_hub(cache, corpus, rows_of, commit):
    """What the hub's client keeps of some files at a commit, made up."""
    name = "datasets--" + corpus.hub.repository.replace("/", "--")
    for file, rows in rows_of.items():
        path = cache / name / "snapshots" / commit / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            pd.DataFrame(rows).to_parquet(path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_hub_corpus_is_read_from_the_cache_at_its_pinned_commit(hub):
    mrpc = REGISTRY["mrpc"]
    row = {"sentence1": "It rose .", "sentence2": 'Up it "" went .', "label": 1, "idx": 7}
    first, second = mrpc.hub.files["train"]
    put_on_the_hub(hub, mrpc, {first: [row, row | {"label": 0}], second: [row | {"label": -1}]}, mrpc.hub.commit)
    source = load_source("hub:mrpc")
    assert source.frame.to_numpy().tolist() == [
        ["It rose .", 'Up it "" went .', 1],
        ["It rose .", 'Up it "" went .', 0],
    ]
    assert (source.name, source.origin["skipped"], source.origin["rows_read"]) == ("hub:mrpc", {"malformed row": 1}, 3)
    assert (source.origin["repository"], source.origin["commit"]) == ("nyu-mll/glue", mrpc.hub.commit)


@pytest.mark.parametrize("name_of", ["sha256", "git"])
def test_damage_in_the_hubs_cache_is_named(hub, name_of):
    sst = REGISTRY["sst"]
    rows = [{"text": "Good .", "label": 1}, {"text": "Bad .", "label": 0}]
    files = sst.hub.files["train"]
    put_on_the_hub(hub, sst, dict.fromkeys(files, rows), sst.hub.commit)
    for file in files:  # the cache links to a file that is named by its checksum
        (path,) = hub.rglob(file)
        content = path.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        blob = hub / {"sha256": hashlib.sha256(content).hexdigest(), "git": git}[name_of]
        path.rename(blob)
        path.symlink_to(blob)
    assert load_source("hub:sst").n_rows == 2 * len(files)
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="is not what the hub gave; delete .*, and it is fetched again"):
        load_source("hub:sst")


def test_a_name_pins_another_commit(hub):
    sst, commit = REGISTRY["sst"], "0123456789abcdef" * 2 + "01234567"
    rows = [{"text": "warm", "label": 1, "label_text": "positive"}, {"text": "dull", "label": 0, "label_text": ""}]
    put_on_the_hub(hub, sst, {"dev.jsonl": rows}, commit)
    for name, revision in ((f"hub:sst@{commit}", None), ("hub:sst", commit)):
        source = load_source(name, split="dev", revision=revision)
        assert (source.name, source.origin["commit"]) == ("hub:sst", commit)
        assert source.frame["text"].tolist() == ["warm", "dull"]
    with pytest.raises(ValueError, match=f"revision='v1' pins a hub corpus, and 'hub:sst@{commit}' names its own"):
        load_source(f"hub:sst@{commit}", revision="v1")
    with pytest.raises(
        ConnectionError, match="hub:sst: cannot read SetFit/sst2 at 00ea8ccb7a54b4e3780a3e51aa3f80361ff"
    ):
        load_source("hub:sst", split="dev")


def test_the_hub_keeps_an_archive_of_the_reviews(hub, tmp_path):
    books, (file,) = REGISTRY["books"], REGISTRY["books"].hub.files["train"]
    put_on_the_hub(hub, books, {file: []}, books.hub.commit)
    path = next(hub.rglob("sorted_data_acl.tar"))
    with tarfile.open(path, "w") as archive:
        for label in ("negative", "positive"):
            review = f"<review><review_text>{label} words</review_text></review>".encode()
            member = tarfile.TarInfo(f"sorted_data_acl/books/{label}.review")
            member.size = len(review)
            archive.addfile(member, io.BytesIO(review))
    assert load_source("hub:books").frame.to_numpy().tolist() == [
        ["negative words", None, 0],
        ["positive words", None, 1],
    ]


def test_a_copy_of_the_hub_s_files_serves_in_a_folder(tmp_path):
    folder = tmp_path / "hub/qqp/dev"
    folder.mkdir(parents=True)
    row = {"question1": '"Is ""tea"" hot?"', "question2": "Is tea hot?", "label": 1}
    pd.DataFrame([row, row | {"label": 0}]).to_parquet(folder / "validation-00000-of-00001.parquet")
    source = load_source("qqp", split="dev", data_dir=tmp_path)
    assert source.frame["text"].tolist() == ['Is "tea" hot?'] * 2
    assert (source.origin["path"], source.origin["repaired"]) == ("hub/qqp/dev", {"doubled quotes": 2})


def test_every_pin_is_a_whole_commit():
    assert {corpus.hub.repository for corpus in REGISTRY.values()} == {
        "JSSICE/Multi-Domain-Sentiment-Dataset", "stanfordnlp/imdb", "SetFit/sst2", "allenai/scitail",
        "stanfordnlp/snli", "nyu-mll/multi_nli", "nyu-mll/glue",
    }  # fmt: skip
    for corpus in REGISTRY.values():
        assert re.fullmatch("[0-9a-f]{40}", corpus.hub.commit)


def test_hub_labels_become_ours():
    nli = [(0, "a"), (1, "b"), (2, "c"), (-1, "d"), (7, "e")]
    reading = read_rows(REGISTRY["snli"], [{"premise": t, "hypothesis": "h", "label": n} for n, t in nli])
    assert reading.frame["label"].tolist() == [1, 0]
    assert reading.skipped == {"contradiction": 1, "no gold label": 1, "malformed row": 1}


@pytest.mark.parametrize(
    ("name", "label", "ours"),
    [("rte", 0, 1), ("rte", 1, 0), ("mrpc", 1, 1), ("scitail", "entailment", 1), ("scitail", "neutral", 0)],
)
def test_hub_label_spaces(name, label, ours):
    text, pair, column = REGISTRY[name].hub.columns
    assert read_rows(REGISTRY[name], [{text: "a", pair: "b", column: label}]).frame["label"].tolist() == [ours]


def test_every_split_on_disk_is_on_the_hub():
    for corpus in REGISTRY.values():
        assert set(corpus.hub.files) == set(corpus.files)


# Names of the labels


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("books", ("negative", "positive")),
        ("snli", ("no match", "match")),
        ("mrpc", ("no match", "match")),
    ],
)
def test_classes_of_table_1_go_by_the_task(name, classes):
    assert REGISTRY[name].classes == classes
    assert load_source(f"miniature:{name}", limit=10).classes == classes


def test_official_files_have_the_same_classes(folder):
    assert load_source("sst", data_dir=folder).classes == ("negative", "positive")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["yes", "no", "yes"], ("no", "yes")),
        (["1", "0", "1"], ("0", "1")),
        (["1.0", "10", "2"], ("1", "2", "10")),
        (["5", "-2", "5"], ("-2", "5")),
    ],
)
def test_classes_of_an_own_file_are_in_the_order_of_their_numbers(tmp_path, labels, classes):
    path = tmp_path / "my.csv"
    path.write_text("text,label\n" + "".join(f"x,{label}\n" for label in labels))
    assert load_source(path).classes == classes


# Table 1


def test_list_sources_has_the_counts_of_table_1():
    table = list_sources().set_index("name")
    assert table["paper_training"].tolist() == [2000] * 4 + [
        25000,
        6920,
        23596,
        366180,
        261799,
        2490,
        363177,
        3917,
    ]
    assert table["paper_transferring"].dropna().to_dict() == {
        "books": 2000,
        "dvd": 2000,
        "electronics": 2000,
        "kitchen": 2000,
        "scitail": 2126,
        "qqp": 40371,
    }
    assert table["loaded_train"].isna().all()


def test_list_sources_counts_what_is_there(folder):
    table = list_sources(folder).set_index("name")
    assert table["loaded_train"].dropna().to_dict() == {"sst": 5}
    assert table["loaded_dev"].isna().all()


def test_a_class_that_is_missing_or_unknown_in_a_dataset():
    class Some(Rows):
        def to_pandas(self):
            return pd.DataFrame({"review": ["a", "b", "c", "d"], "label": [0, 1, None, 1]})

    with pytest.warns(UserWarning, match="missing label in 1"):
        assert load_source(Some(), text="review").classes == ("bad", "good")
    Some.to_pandas = lambda self: pd.DataFrame({"review": ["a", "b"], "label": [0, 7]})
    with pytest.raises(ValueError, match="column 'label': 7 is no number of the 2 classes"):
        load_source(Some(), text="review")


def test_more_rows_than_bytes_are_refused(tmp_path):
    rows = {"text": ["a good book"] * 120_000, "label": np.arange(120_000) % 2}
    pd.DataFrame(rows).to_parquet(tmp_path / "b.parquet", compression="zstd")
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"b.parquet: not readable as Parquet \(120,000 rows in [\d,]+ bytes"):
        load_source(tmp_path / "b.parquet")
    assert time.monotonic() - began < 5


def test_an_entity_of_thousands_of_digits_stays_as_it_is(tmp_path):
    long = "&#" + "9" * 5000 + ";"
    pd.DataFrame({"text": [f"a {long}", "b &amp; c"], "label": [0, 1]}).to_csv(tmp_path / "e.csv")
    assert load_source(tmp_path / "e.csv", unescape=True).frame["text"].tolist() == [f"a {long}", "b & c"]


def test_a_folder_in_the_place_of_a_corpus_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="is a folder, and a file is needed"):
        list(readers.raw_lines(tmp_path))
