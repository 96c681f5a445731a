"""Files that are damaged, hostile or merely unusual: read right, or refused in one line that says where."""

import gzip
import io
import json
import lzma
import os
import tarfile
import time
import zipfile

import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from tsns_lib import load_source
from tsns_lib.corpora import readers
from tsns_lib.corpora.hub import read_rows
from tsns_lib.corpora.registry import REGISTRY

GOOD = '{"gold_label": "neutral", "sentence1": "a", "sentence2": "b"}\n'
MATCH = GOOD.replace("neutral", "entailment")


@pytest.fixture
def snli(tmp_path):
    """A function that writes the training file of SNLI and loads it."""

    def load(content):
        path = tmp_path / "snli_1.0/snli_1.0_train.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_source("snli", data_dir=tmp_path)

    return load


def member(name, content=b"good", **facts):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for fact, value in facts.items():
        setattr(info, fact, value)
    return info, io.BytesIO(content)


def archive(path, *members):
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, content)
    return path


# Your own files


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label,text\nx,0,y\nz,1,w\n"),
        ("a.csv", "text,label,Label\nx,0,5\nz,1,6\n"),
        ("a.tsv", "text\tlabel\tlabel\nx\t0\t5\nz\t1\t6\n"),
        ("a.csv", "text,note,label,note\nx,a,0,b\nz,a,1,b\n"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "y", "text": "z", "label": 0}\n'),
    ],
)
def test_a_column_that_stands_twice_is_named(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name}.*the column '(text|label|note)' stands twice"):
        load_source(tmp_path / name)


def test_a_column_that_stands_twice_in_parquet_is_named(tmp_path):
    table = pyarrow.table([["a", "b"], [0, 1], [1, 0]], names=["text", "label", "label"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: not readable as Parquet \(.*label"):
        load_source(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "Text, LABEL ,note\nx,1,n\ny,0,n\n"),
        ("a.tsv", "TEXT\tLabel\nx\t1\ny\t0\n"),
        ("a.jsonl", '{"Text": "x", "LABEL": 1}\n\n{"text": "y", "label": 0}\n\n\n'),
        ("a.csv", "\ufefftext,label\r\nx,1\r\n\r\ny,0\r\n\r\n"),
        ("a.csv", "text,label\rx,1\ry,0\r"),
        ("a.csv", "text,label,,\nx,1,,\ny,0,,\n"),
    ],
)
def test_headings_in_upper_case_empty_lines_and_ends_of_lines_are_fine(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode())
    assert load_source(tmp_path / name).frame[["text", "label"]].to_numpy().tolist() == [["x", 1], ["y", 0]]


def test_a_quoted_text_keeps_its_line_ends(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'text,label\r\n"one\r\ntwo",1\r\nx,0\r\n')
    assert load_source(tmp_path / "a.csv").frame["text"].tolist() == ["one\r\ntwo", "x"]


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.tsv", "\t")])
def test_a_text_longer_than_the_limit_of_csv_is_read(tmp_path, name, mark):
    (tmp_path / name).write_text(f"text{mark}label\n{'word ' * 100_000}{mark}0\nshort{mark}1\n")
    assert load_source(tmp_path / name).frame["text"].str.len().tolist() == [499_999, 5]


@pytest.mark.parametrize(
    ("name", "start", "place"),
    [
        ("a.csv", "text,label\nx,1\n", "line 3: longer than 16,000,000 bytes"),
        ("a.tsv", "text\tlabel\n", "line 2: longer than"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "', "line 2: longer than"),
    ],
)
def test_an_endless_row_is_refused_at_its_bound(tmp_path, name, start, place):
    with (tmp_path / name).open("w") as file:
        file.write(start)
        file.write("word " * 3_400_000)
    with pytest.raises(ValueError, match=f"{name}, {place}"):
        load_source(tmp_path / name)


def test_an_open_quotation_mark_swallows_no_more_than_a_text(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\nx,1\n"' + ("word " * 200 + "\n") * 20_000)
    with pytest.raises(ValueError, match=r"a\.csv, row 2: not readable as CSV \(field larger than field limit"):
        load_source(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.csv", b"text,label\nx,1\ncaf\xe9,0\n", "line 3: not UTF-8 at byte 3"),
        ("a.tsv", b"text\tlabel\nx\t1\ncaf\xe9\t0\n", "line 3: not UTF-8 at byte 3"),
        ("a.jsonl", b'{"text": "x", "label": 1}\n{"text": "\xe9", "label": 0}\n', "line 2: not UTF-8 at byte 10"),
        ("a.csv", "text,label\nx,1\n".encode("utf-16"), "line 1: not UTF-8 at byte 0"),
    ],
)
def test_a_bad_byte_is_named_by_its_line(tmp_path, name, content, place):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}, {place}"):
        load_source(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "[" * 100_000 + "\n", "line 1: not a JSON object"),
        ("a.jsonl", '[["text", "a"], ["label", 1]]\n', "line 1: not a JSON object"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "\\ud800", "label": 0}\n', "row 2, column 'text': not valid"),
        ("a.csv", 'text,label\nx,1\n"y" z,0\n', "row 2: not readable as CSV"),
        ("a.csv", '"text"x,label\ny,0\n', "header: not readable as CSV"),
        ("a.parquet", "PAR1 and no more PAR1", "not readable as Parquet"),
    ],
)
def test_what_is_no_row_is_named_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name}.*{message}") as error:
        load_source(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_null_in_parquet_is_named_by_its_row(tmp_path):
    pd.DataFrame({"text": ["a", None, "b"], "label": [0, 1, 1]}).to_parquet(tmp_path / "a.parquet")
    with pytest.warns(UserWarning, match=r"a\.parquet: 1 of 3 .*: empty text in 1 \(first: row 2\)"):
        assert load_source(tmp_path / "a.parquet").frame["text"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    "value", [3, None, b"a.csv", {"text": ["a"]}, ["a.csv"]], ids=lambda value: type(value).__name__
)
def test_what_is_no_path_is_one_line(value):
    with pytest.raises(ValueError, match="name_or_path: must be a name, a path or a frame, got "):
        load_source(value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": 3}, "name: must be text, got 3"),
        ({"name": " "}, "name: must be text, got ' '"),
        ({"split": None}, "split: must be text, got None"),
        ({"split": ["train"]}, r"split: must be text, got \['train'\]"),
        ({"seed": True}, "seed: must be a whole number, got True"),
        ({"limit": True}, "limit: must be a whole number, got True"),
        ({"data_dir": 3}, "data_dir: must be a path, got int"),
    ],
)
def test_a_bad_option_is_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        load_source("sst" if "data_dir" in options else "miniature:sst", **options)


def test_a_text_in_place_of_a_path_is_no_such_file():
    with pytest.raises(FileNotFoundError, match="no such file, nor a corpus of Table 1"):
        load_source("a long sentence that somebody passed instead of a path " * 20)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    (tmp_path / "data/SST").mkdir(parents=True)
    (tmp_path / "data/SST/stsa.binary.train").write_text("1 good film\n0 bad film\n")
    (tmp_path / "own.csv").write_text("text,label\na,0\nb,1\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_source("~/own.csv").n_rows == 2
    assert load_source("sst", data_dir="~/data").n_rows == 2
    monkeypatch.setenv("TSNS_DATA", "~/data")
    assert load_source("sst").n_rows == 2


def test_a_pipe_in_the_place_of_an_official_file_is_no_reason_to_wait(tmp_path):
    (tmp_path / "SST").mkdir()
    os.mkfifo(tmp_path / "SST/stsa.binary.train")
    with pytest.raises(ValueError, match="stsa.binary.train: is a pipe or device, and a file is needed"):
        load_source("sst", data_dir=tmp_path)


# Official files


@pytest.mark.parametrize(
    "line",
    [
        '{"gold_label": "neutral", "sentence1": null, "sentence2": "b"}',
        '{"gold_label": "neutral", "sentence1": "a", "sentence2": null}',
        '{"gold_label": "neutral", "sentence1": 3, "sentence2": "b"}',
        '{"gold_label": ["neutral"], "sentence1": "a", "sentence2": "b"}',
        "[" * 100_000,
    ],
    ids=lambda line: line[:60],
)
def test_a_line_that_is_no_row_is_named(snli, line):
    with pytest.raises(ValueError, match=r"snli_1\.0_train\.jsonl, line 3: not an SNLI/MNLI row"):
        snli(GOOD + MATCH + line + "\n")


def test_empty_lines_are_no_rows(snli):
    source = snli(GOOD + "\n" + MATCH + "\n\n")
    assert (source.n_rows, source.origin["rows_read"], source.origin["skipped"]) == (2, 2, {})


def test_one_class_is_named(snli):
    with pytest.raises(ValueError, match=r"snli_1\.0_train\.jsonl: one class only, 'no match', in all 2 usable rows"):
        snli(GOOD + GOOD)


def test_a_bad_byte_of_an_official_file_is_named_by_its_line(snli):
    with pytest.raises(ValueError, match=r"snli_1\.0_train\.jsonl, line 2: not UTF-8 at byte 3"):
        snli(GOOD.encode() + b"caf\xe9\n")


def test_a_lone_surrogate_is_repaired_and_counted(snli):
    source = snli(GOOD + MATCH.replace('"a"', '"a\\ud800b"'))
    assert source.frame["text"].tolist() == ["a", "a b"]
    assert source.origin["repaired"] == {"unreadable characters": 1}


def test_tags_that_are_never_closed_take_linear_time(tmp_path):
    folder = tmp_path / "sorted_data_acl/books"
    folder.mkdir(parents=True)
    (folder / "positive.review").write_text("<review><review_text>good</review_text></review>\n")
    (folder / "negative.review").write_text("<review>" + "<review_text>" * 200_000 + "<br" * 200_000)
    start = time.perf_counter()
    with pytest.raises(ValueError, match="one class only, 'positive'"):
        load_source("books", data_dir=tmp_path)
    assert time.perf_counter() - start < 5


def test_links_and_outside_paths_in_an_archive_are_counted_and_not_read(tmp_path):
    link = {"type": tarfile.SYMTYPE, "linkname": "/etc/hostname"}
    hard = {"type": tarfile.LNKTYPE, "linkname": "train/pos/0_9.txt"}
    path = archive(
        tmp_path / "aclImdb_v1.tar.gz",
        member("train/pos/0_9.txt"),
        member("train/neg/0_1.txt", b"bad"),
        member("train/pos/1_9.txt", b"", **link),
        member("train/pos/2_9.txt", b"", **hard),
        member("../train/pos/3_9.txt"),
        member("/train/pos/4_9.txt"),
    )
    reading = readers.read_imdb(path)
    assert reading.frame["text"].tolist() == ["bad", "good"]
    assert (reading.skipped, reading.rows_read) == ({"link or outside path in the archive": 4}, 6)


def test_an_outside_copy_does_not_hide_the_files_of_a_domain(tmp_path):
    review = b"<review><review_text>x</review_text></review>"
    names = ("books/negative.review", "books/positive.review", "../books/positive.review")
    path = archive(tmp_path / "a.tar.gz", *(member(name, review) for name in names))
    reading = readers.read_amazon(path, "books")
    assert (len(reading.frame), reading.skipped) == (2, {"link or outside path in the archive": 1})


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_a_member_of_600_megabytes_is_refused_by_its_name(tmp_path, form):
    size = 600 * 1024 * 1024
    if form == "archive":
        path = tmp_path / "a.tar"
        info, _ = member("train/pos/0_9.txt")
        info.size = size
        path.write_bytes(info.tobuf())
    else:
        path = tmp_path / "aclImdb"
        (path / "train/pos").mkdir(parents=True)
        with (path / "train/pos/0_9.txt").open("wb") as file:
            file.truncate(size)
    with pytest.raises(ValueError, match=r"train/pos/0_9\.txt: 629,145,600 bytes, at most 100,000,000 are read"):
        readers.read_imdb(path)


@pytest.mark.parametrize("place", ["in a member that is not read", "after the end"])
def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path, monkeypatch, place):
    monkeypatch.setattr(readers, "MAX_MEMBER", 1_000_000)
    zeros, rows = bytes(20_000_000), [member("train/pos/0_9.txt"), member("train/neg/0_1.txt", b"bad")]
    path = archive(tmp_path / "a.tar.gz", *rows, *([member("a", zeros)] if place.startswith("in") else []))
    if place == "after the end":
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + zeros))
    with pytest.raises(ValueError, match=r"a\.tar\.gz: unpacks to more than 100 times its size"):
        readers.read_imdb(path)


@pytest.mark.parametrize(
    ("name", "header", "row"),
    [
        ("own.csv.gz", "text,label\n", "good,1\n"),
        ("own.tsv.xz", "text\tlabel\n", "good\t1\n"),
        ("own.jsonl.zip", "", '{"text": "good", "label": 1}\n'),
    ],
)
def test_a_packed_table_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path, monkeypatch, name, header, row):
    monkeypatch.setattr(readers, "MAX_MEMBER", 1_000_000)
    path, content = tmp_path / name, (header + row * 500_000).encode()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr(path.stem, content)
    else:
        path.write_bytes({".gz": gzip, ".xz": lzma}[path.suffix].compress(content))
    with pytest.raises(ValueError, match=r"own\.\w+\.\w+, line \d+: unpacks to more than 100 times its size"):
        load_source(path)


def test_every_stream_of_an_xz_file_is_read_or_its_damage_is_named(tmp_path):
    path, content = tmp_path / "own.csv.xz", "text,label\n" + "good,1\nbad,0\n" * 20
    first, second = (lzma.compress(part.encode()) for part in (content, "fine,1\n" * 10))
    for between in (b"", bytes(8), bytes(2 << 20)):  # zeros may stand between two streams
        path.write_bytes(first + between + second + between)
        assert load_source(path).n_rows == 50
    path.write_bytes(
        lzma.compress(b"text,label\n") + b"".join(lzma.compress(b"good,%d\n" % (i % 2)) for i in range(3_000))
    )
    started = time.perf_counter()
    assert load_source(path).n_rows == 3_000
    assert time.perf_counter() - started < 10  # each stream is read once, whatever follows it
    for where in range(12):  # of the second stream's header
        damaged = bytearray(second)
        damaged[where] ^= 1
        path.write_bytes(first + damaged)
        with pytest.raises(ValueError, match=r"own\.csv\.xz: cannot be read to its end"):
            load_source(path)
    for wrong in (first + b"garbage", first + second[:-4], first[:-1]):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"own\.csv\.xz: cannot be read to its end"):
            load_source(path)


def test_a_text_beyond_all_bounds_is_counted(tmp_path):
    reading = readers.collect([("word " * 3_400_000, None, 1), ("x", None, 0)])
    assert (len(reading.frame), reading.skipped) == (1, {"text of more than 16,000,000 characters": 1})


def test_a_damaged_archive_is_named(tmp_path):
    path = archive(tmp_path / "a.tar.gz", member("train/pos/0_9.txt", b"good film " * 5_000))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tar\.gz: not a whole tar archive"):
        readers.read_imdb(path)


# Rows of the hub


@pytest.mark.parametrize("column", ["premise", "hypothesis"])
def test_a_null_of_the_hub_is_counted(column):
    row = {"premise": "a", "hypothesis": "b", "label": 0}
    reading = read_rows(REGISTRY["snli"], [row, row | {column: None}])
    assert (len(reading.frame), reading.skipped, reading.rows_read) == (1, {"missing text": 1}, 2)


def test_a_null_of_the_hub_is_counted_in_single_texts_too():
    rows = [{"text": "a", "label": 0}, {"text": None, "label": 1}, {"text": "c", "label": [1]}]
    assert read_rows(REGISTRY["sst"], rows).skipped == {"missing text": 1, "malformed row": 1}


def test_a_column_that_the_hub_lacks_is_named():
    rows = [{"premise": "a", "hypothesis": "b", "label": 0}, {"sentence1": "a", "hypothesis": "b", "label": 0}]
    message = "hub:snli, row 2: no column 'premise'; found: sentence1, hypothesis, label"
    with pytest.raises(ValueError, match=message):
        read_rows(REGISTRY["snli"], rows)


def test_json_of_many_rows_is_read_as_before(snli):
    lines = [
        json.dumps({"gold_label": g, "sentence1": "a\u2028b", "sentence2": "c"}) for g in ("neutral", "entailment")
    ]
    source = snli("\r\n".join(lines))
    assert source.frame.to_numpy().tolist() == [["a b", "c", 0], ["a b", "c", 1]]


def test_an_empty_cell_in_quotation_marks_is_empty(tmp_path):
    path = tmp_path / "own.tsv"
    path.write_text('text\tlabel\na\tpos\n""\tneg\nb\t""\nc\tneg\n')
    with pytest.warns(UserWarning, match="2 of 4 rows are not used"):
        source = load_source(path)
    assert source.frame["text"].tolist() == ["a", "c"] and source.classes == ("neg", "pos")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("5", "line 2: not a JSON object"),
        ("null", "line 2: not a JSON object"),
        ('["text", "label"]', "line 2: not a JSON object"),
        ("[" * 100_000, "line 2: not a JSON object"),
        ('{"text": "a", "text": "b", "label": 0}', "line 2: not a JSON object .*'text' stands twice"),
        ('{"text": "a"', "line 2: not a JSON object"),
    ],
)
def test_a_copy_of_the_hubs_file_names_the_line_that_is_no_row(tmp_path, line, message):
    folder = tmp_path / "hub/sst/train"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text(f'{{"text": "a", "label": 0}}\n{line}\n')
    with pytest.raises(ValueError, match=rf"train\.jsonl, {message}"):
        load_source("sst", data_dir=tmp_path)


@pytest.mark.parametrize("is_file", [True, False])
def test_a_copy_of_the_hubs_files_is_a_folder_that_holds_some(tmp_path, is_file):
    place = tmp_path / "hub/sst/train"
    place.parent.mkdir(parents=True)
    place.write_text("") if is_file else place.mkdir()
    with pytest.raises(FileNotFoundError, match=r"hub/sst/train: must be a folder with the hub's files"):
        load_source("sst", data_dir=tmp_path)


def test_an_official_row_that_has_a_key_twice_is_refused(snli):
    with pytest.raises(ValueError, match="line 2: not an SNLI/MNLI row .*'gold_label' stands twice"):
        snli(GOOD + MATCH.replace("{", '{"gold_label": "neutral", '))


def test_keys_of_objects_inside_a_row_are_its_own(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"text": "a", "label": "x", "more": {"Text": 1, "text": 2}}\n{"text": "b", "label": "y"}\n')
    assert load_source(path).n_rows == 2


def test_a_name_that_is_not_utf_8_is_a_name(tmp_path):
    path = tmp_path / "name_\udce9.csv"
    path.write_text("text,label\n" + "a,x\nb,y\n" * 5)
    assert load_source(path, limit=4).n_rows == 4
