"""What a label is, in files of your own, and how the labels of two sources meet: by name, or in one clear line."""

import json
import warnings
from dataclasses import replace
from decimal import Decimal
from enum import Enum
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from tsns_lib import TransferModel, extract, load_encoder, load_source, transfer_grid

SMALL = {"neurons": [4], "runs": 1, "n_resamples": 2, "n_trees": 5, "max_length": 8, "progress": False}


@pytest.fixture(scope="module")
def encoder():
    return load_encoder()


@pytest.fixture
def corpus(tmp_path):
    """A function that writes a CSV of 20 rows with these labels in turn and loads it."""

    def write(place, labels, **options):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"a {labels[i % len(labels)]} thing,{labels[i % len(labels)]}" for i in range(20)]
        path.write_text("text,label\n" + "\n".join(rows) + "\n")
        return load_source(path, **options)

    return write


# What a label is


@pytest.mark.parametrize(
    ("labels", "numbers", "classes"),
    [
        (["9007199254740992", "9007199254740993", "0"], [2**53, 2**53 + 1, 0], ("0", str(2**53), str(2**53 + 1))),
        (["9007199254740993.0", "0"], [2**53 + 1, 0], ("0", str(2**53 + 1))),
        (["010", "10"], [0, 1], ("010", "10")),
        (["010", "011"], [0, 1], ("010", "011")),
        (["1e3", "-2.0", "+3"], [1000, -2, 3], ("-2", "3", "1000")),
        (["1_0", "1"], [1, 0], ("1", "1_0")),
        (["none", "nan", "for"], [2, 1, 0], ("for", "nan", "none")),
        (["1", "2", "other"], [0, 1, 2], ("1", "2", "other")),
        (["true", "false"], [1, 0], ("false", "true")),
        (["9223372036854775807", "-9223372036854775807"], [2**63 - 1, 1 - 2**63], (str(1 - 2**63), str(2**63 - 1))),
    ],
)
def test_labels_in_text_keep_their_value_or_their_name(tmp_path, labels, numbers, classes):
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"x,{label}\n" for label in labels))
    source = load_source(tmp_path / "a.csv")
    assert source.frame["label"].tolist() == numbers
    assert source.classes == classes
    assert [source.numbers[name] for name in source.classes] == sorted(numbers)


@pytest.mark.parametrize(
    ("labels", "row", "reason"),
    [
        ("0 1 nan", 3, "'nan' among numbers is no class"),
        ("0 None 1", 2, "'None' among numbers is no class"),
        ("0 1 NULL", 3, "'NULL' among numbers is no class"),
        ("0 1 -inf", 3, "'-inf' among numbers is no class"),
        ("1 0 true", 3, "'true' among numbers is no class"),
        ("0 0.5 1", 2, "'0.5' is a quantity, and labels are classes"),
        ("1e-3 1", 1, "'1e-3' is a quantity"),
        ("99999999999999999999 0", 1, "'99999999999999999999' is too large for a label"),
        ("0 9223372036854775808", 2, "is too large for a label"),
        ("1e999999999999999999999 0", 1, "is too large for a label"),
        ("1e99999 0", 1, "is too large for a label"),
    ],
)
def test_no_class_in_a_csv_is_named_by_file_and_row(tmp_path, labels, row, reason):
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"x,{label}\n" for label in labels.split()))
    with pytest.raises(ValueError, match=rf"a\.csv, row {row}, column 'label': .*{reason}"):
        load_source(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("labels", "row", "reason"),
    [
        ("[1,2] [0]", 1, r"\[1, 2\] is no label; write text, a whole number, or true and false"),
        ('{"a":1} 0', 1, r"\{'a': 1\} is no label"),
        ("0 1 true", 3, "True is a truth value, but row 1 has a number; labels are all of one kind"),
        ('0 "0"', 2, "'0' is text, but row 1 has a number"),
        (f"1{'0' * 400} 0", 1, "10{59} is too large for a label"),
        ("0.5 1", 1, "0.5 is a quantity"),
        ("9007199254740993.0 1", 1, "is too large to be exact"),
        ("9007199254740994.0 1", 1, "is too large to be exact"),
        (r'"a" "a\u0000"', 2, "the label ends with a NUL, which numpy drops"),
        ("Infinity 1", 1, "inf is no class"),
    ],
)
def test_no_class_in_a_jsonl_is_named_by_file_and_row(tmp_path, labels, row, reason):
    lines = [f'{{"text": "x", "label": {label}}}' for label in labels.split()]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=rf"a\.jsonl, row {row}, column 'label': .*{reason}"):
        load_source(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("labels", "row", "reason"),
    [
        (pd.to_datetime(["2020-01-01", None, "2020-01-02"]), 1, "is no label"),
        ([[1], [2], [3]], 1, "is no label"),
        ([b"a", b"b", b"c"], 1, "b'a' is no label"),
        ([0.0, 1.0, 0.25], 3, "0.25 is a quantity"),
    ],
)
def test_no_class_in_a_parquet_is_named_by_file_and_row(tmp_path, labels, row, reason):
    pd.DataFrame({"text": ["a", "b", "c"], "label": labels}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=rf"a\.parquet, row {row}, column 'label': .*{reason}"):
        load_source(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "labels", [["0", None, "1"], [0, np.nan, 1], [0, pd.NA, 1], ["0", " ", "1"], [True, None, False]]
)
@pytest.mark.parametrize("ending", ["jsonl", "parquet", "frame"])
def test_a_missing_label_is_never_a_class(tmp_path, labels, ending):
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": pd.Series(labels, dtype=object).convert_dtypes()})
    if ending == "parquet":
        frame.to_parquet(tmp_path / "a.parquet")
    elif ending == "jsonl":
        frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    with pytest.warns(UserWarning, match=r"1 of 3 rows are not used: missing label in 1 \(first: row 2\)"):
        source = load_source(frame if ending == "frame" else tmp_path / f"a.{ending}")
    assert (source.frame["text"].tolist(), len(source.classes)) == (["a", "c"], 2)


def test_what_no_label_can_be_is_one_line_in_a_frame():
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": [Fraction(10**400), 0, 1]})
    with pytest.raises(ValueError, match="frame, row 1, column 'label': .* is too large for a label"):
        load_source(frame)
    with pytest.raises(ValueError, match="frame: labels= leaves out every class, and no row is left"):
        load_source(frame.assign(label=[0, 1, 1]), labels={0: None, 1: None})
    with pytest.raises(ValueError, match="name: must be text, got"):
        load_source(frame.assign(label=[0, 1, 1]), name="a\0")
    source = load_source(frame.assign(label=[0, 1, 1]))
    for column in ("label", "text_pair"):
        with pytest.raises(ValueError, match=f"frame: lacks the column '{column}'"):
            replace(source, frame=source.frame.drop(columns=column))


@pytest.mark.parametrize("dtype", ["int8", "uint64", "float32", "Int64"])
def test_whole_numbers_of_every_type_are_kept(tmp_path, dtype):
    pd.DataFrame({"text": ["a", "b"], "label": pd.array([3, 7], dtype)}).to_parquet(tmp_path / "a.parquet")
    source = load_source(tmp_path / "a.parquet")
    assert (source.frame["label"].tolist(), source.classes) == ([3, 7], ("3", "7"))


# How labels meet


def test_classes_meet_by_name_whatever_their_numbers(corpus):
    two, three = corpus("two.csv", ["neg", "pos"]), corpus("three.csv", ["neg", "neutral", "pos"])
    assert (two.numbers, three.numbers) == ({"neg": 0, "pos": 1}, {"neg": 0, "neutral": 1, "pos": 2})
    with pytest.warns(UserWarning, match="rows predicted as the class 'neutral' count as wrong"):
        assert three.labels_of(two).tolist() == [0, 2] * 10
    with pytest.raises(ValueError, match="'neg', 'pos', and .* has 'neg', 'neutral', 'pos'; names must agree, case"):
        two.labels_of(three)


def test_a_target_numbered_in_another_order_is_scored_by_name(corpus, encoder):
    source, same = corpus("a.csv", ["bad", "good"]), corpus("b.csv", ["good", "bad"])
    turned = replace(same, classes=("good", "bad"), frame=same.frame.assign(label=1 - same.frame["label"]))
    turned = replace(turned, origin=same.origin | {"labels": {"good": 0, "bad": 1}})
    first, second = (transfer_grid([source], [target], encoder, **SMALL) for target in (same, turned))
    assert first["accuracy"].tolist() == second["accuracy"].tolist()
    assert first.set_index("method").at["all", "accuracy"] == 1.0


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        (["yes", "no"], ["Yes", "no"], "'no', 'yes', and .* has 'Yes', 'no'; names must agree.*'Yes' has no partner"),
        ([-1, 1], [0, 1], "'-1', '1', and .* has '0', '1'; .*'0' has no partner"),
        ([1, 2, 3, 4, 5], [0, 1], "'0' has no partner"),
        ([0, 1], [0, 1, 2], "'2' has no partner"),
        (["bad", "good"], [0, 1], "'0', '1' has no partner"),
    ],
)
@pytest.mark.filterwarnings("ignore:labels")
def test_names_that_do_not_match_are_one_line_before_any_work(corpus, encoder, tmp_path, theirs, ours, message):
    source, target = corpus("source.csv", theirs), corpus("target.csv", ours)
    for sources, targets in (([source], [target]), ([(corpus("third.csv", ours), source)], [target])):
        with pytest.raises(ValueError, match="labels: ") as error:
            transfer_grid(sources, targets, encoder, store=tmp_path / "store", **SMALL)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=message):
        source.labels_of(target)
    assert not (tmp_path / "store").exists()


def test_members_of_a_union_have_the_same_classes(corpus, encoder):
    three, two, target = corpus("a.csv", [0, 1, 2]), corpus("b.csv", [0, 1]), corpus("c.csv", [0, 1])
    for union in ((three, two), (two, three)):
        with pytest.raises(ValueError, match="'2' has no partner"):
            transfer_grid([union], [target], encoder, **SMALL)


def test_numbers_without_names_are_those_of_table_1_and_a_warning_says_so(corpus):
    books, mine = load_source("miniature:books", limit=20), corpus("mine.csv", [0, 1])
    with pytest.warns(UserWarning, match="'negative', 'positive', and .* has '0', '1'; they are compared by number"):
        assert books.labels_of(mine).tolist() == [0, 1] * 10
    with pytest.raises(ValueError, match="'2' has no partner"):
        books.labels_of(corpus("other.csv", [0, 1, 2]))


def test_corpora_of_table_1_meet_without_a_word_where_their_classes_have_one_name():
    rte, mrpc = load_source("miniature:rte", limit=20), load_source("miniature:mrpc", limit=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rte.labels_of(mrpc).tolist() == mrpc.frame["label"].tolist()


@pytest.mark.parametrize(
    ("label", "shown"), [(np.nan, "nan"), (None, "nan"), (pd.NA, "<NA>"), (7, "7"), (0.5, "0.5")], ids=str
)
def test_a_frame_with_what_is_no_class_is_refused_before_any_work(encoder, tmp_path, label, shown):
    books, dvd = (load_source(f"miniature:{name}", limit=20) for name in ("books", "dvd"))
    column = "Int64" if label is pd.NA else None
    labels = pd.Series([*books.frame["label"][:19], label], dtype=column)
    broken = replace(books, frame=books.frame.assign(label=labels))
    for sources, targets in (([broken], [dvd]), ([dvd], [broken])):
        with pytest.raises(ValueError, match=f"miniature:books: the label of row 19, {shown}, is none of 'negative'"):
            transfer_grid(sources, targets, encoder, store=tmp_path / "store", **SMALL)
    assert not (tmp_path / "store").exists()


# Names as identity


def test_two_files_of_one_name_are_two_sources(corpus, encoder):
    shop, forum = corpus("shop/train.csv", [0, 1]), corpus("forum/train.csv", [0, 1])
    assert (shop.name, forum.name) == ("shop/train.csv", "forum/train.csv")
    grid = transfer_grid([shop], [forum], encoder, **SMALL)
    assert set(grid["target"]) == {"forum/train.csv"}


def test_two_corpora_of_one_name_are_never_taken_for_one(corpus, encoder):
    first, second = corpus("1/shop/train.csv", [0, 1]), corpus("2/shop/train.csv", [0, 1])
    for sources, targets in (([first], [second]), ([first, second], [corpus("c.csv", [0, 1])])):
        with pytest.raises(ValueError, match=r"are both called 'shop/train.csv'; give one another name: load_source"):
            transfer_grid(sources, targets, encoder, **SMALL)
    renamed = corpus("2/shop/train.csv", [0, 1], name="other shop")
    assert set(transfer_grid([first], [renamed], encoder, **SMALL)["target"]) == {"other shop"}
    with pytest.raises(ValueError, match="books and .*c.csv are both called 'miniature:books'"):
        books = load_source("miniature:books", limit=20)
        transfer_grid([books], [corpus("c.csv", [0, 1], name="miniature:books")], encoder, **SMALL)


def test_the_same_file_by_two_paths_is_one_corpus(corpus, encoder, tmp_path):
    first = corpus("shop/train.csv", [0, 1])
    again = load_source(tmp_path / "shop" / ".." / "shop" / "train.csv")
    with pytest.raises(ValueError, match="no pair of different names"):
        transfer_grid([first], [again], encoder, **SMALL)


def test_a_plus_in_a_name_is_no_union(corpus, encoder):
    a, b, both = (corpus(f"{name}.csv", [0, 1], name=name) for name in ("a", "b", "a+b"))
    target = corpus("t.csv", [0, 1])
    assert set(transfer_grid([both], [target], encoder, **SMALL)["members"]) == {("a+b",)}
    with pytest.raises(ValueError, match=r"\['a', 'b'\] and \['a\+b'\] are both called 'a\+b'"):
        transfer_grid([(a, b), both], [target], encoder, **SMALL)


def test_a_source_without_a_target_is_said(corpus, encoder):
    a, b = corpus("a.csv", [0, 1], name="a"), corpus("b.csv", [0, 1], name="b")
    with pytest.warns(UserWarning, match="source b: every target is one of its own corpora; left out"):
        grid = transfer_grid([a, b], [b], encoder, **SMALL)
    assert set(grid["source"]) == {"a"}


# Arguments of the grid


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neurons": 4}, "neurons: must be a list of whole numbers, got 4"),
        ({"neurons": "44"}, "neurons: must be a list of whole numbers, got '44'"),
        ({"neurons": [4, 4]}, r"neurons: must be one K or more, none of them twice, got \[4, 4\]"),
        ({"neurons": []}, r"neurons: must be one K or more"),
        ({"neurons": [2.0]}, "n_neurons: must be a whole number, got 2.0"),
        ({"budget": 0}, "budget: must be at least 1, got 0"),
        ({"budget": 2.5}, "budget: must be a whole number, got 2.5"),
        ({"budget": 1}, "miniature:books: the rows used have one class only"),
        ({"runs": True}, "runs: must be a whole number, got True"),
        ({"pooling": "max"}, "pooling"),
        ({"max_length": 100_000}, "max_length"),
        ({"pairing": "all"}, "pairing: must be"),
        ({"gamma": 0}, "gamma: must be in"),
        ({"scheduler": "here"}, "scheduler: must be"),
        ({"sources": "books"}, "sources: must be a list of what load_source gives, got str"),
        ({"sources": ["books"]}, "sources: must be what load_source gives, or tuples of it in sources, got str"),
        ({"targets": [["x"]]}, "targets: must be what load_source gives, .* got list"),
        ({"sources": [()]}, "no pair of different names"),
        ({"encoder": "bert"}, "encoder: must be what load_encoder gives, got str"),
    ],
)
def test_no_argument_is_refused_after_work_has_begun(encoder, tmp_path, change, message):
    books, dvd = (load_source(f"miniature:{name}", limit=20) for name in ("books", "dvd"))
    arguments = {"sources": [books], "targets": [dvd], "encoder": encoder, **SMALL, **change}
    with pytest.raises(ValueError, match=message) as error:
        transfer_grid(**arguments, store=tmp_path / "store")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "store").exists()


def test_a_budget_that_loses_a_class_is_refused(encoder, corpus, tmp_path):
    labels = ["a", "b"] * 9 + ["c", "c"]
    ours, theirs = (corpus(name, labels) for name in ("my/ours.csv", "my/theirs.csv"))
    with pytest.raises(ValueError, match="ours.csv: none of the rows within budget=6 has the label 'c'"):
        transfer_grid([ours], [theirs], encoder, **SMALL, budget=6, seed=1, store=tmp_path / "store")
    with pytest.raises(ValueError, match="ours.csv: none of the rows within budget=6 has the label 'c'"):
        TransferModel().fit(ours, encoder, 4, budget=6, seed=1, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_rows_of_the_source_under_another_name_are_said(encoder, corpus, tmp_path):
    ours = corpus("ours.csv", ["yes", "no"])
    texts = ours.frame["text"][::-1]
    copy = load_source(pd.DataFrame({"text": texts, "label": texts.str.split().str[1]}), name="copy")
    with pytest.warns(UserWarning, match="20 of the 20 rows of 'copy' are rows of the source '.*ours.csv' too; what"):
        transfer_grid([ours], [copy], encoder, **SMALL, store=tmp_path)


def test_a_file_that_was_written_again_is_not_the_one_that_was_loaded(encoder, corpus):
    first, again = corpus("a.csv", ["yes", "no"]), corpus("a.csv", ["no", "yes"])
    with pytest.raises(ValueError, match=r"a.csv are both called '.*a.csv'; the file was written again meanwhile;"):
        transfer_grid([first], [again], encoder, **SMALL)


def test_a_budget_below_the_members_loses_none_of_them(encoder):
    books, dvd, kitchen = (load_source(f"miniature:{name}", limit=20) for name in ("books", "dvd", "kitchen"))
    with pytest.raises(ValueError, match="budget: must be at least 2, got 1"):
        transfer_grid([(books, dvd)], [kitchen], encoder, **SMALL, budget=1)


def test_numpy_numbers_are_numbers(encoder):
    books, dvd = (load_source(f"miniature:{name}", limit=20) for name in ("books", "dvd"))
    settings = SMALL | {"neurons": np.array([2, 4]), "runs": np.int64(1)}
    grid = transfer_grid([books], [dvd], encoder, **settings)
    assert sorted(set(grid.query("method == 'tsns'")["k"])) == [2, 4]


def test_a_text_that_is_no_text_is_refused_before_any_work(encoder, tmp_path):
    books, dvd = (load_source(f"miniature:{name}", limit=20) for name in ("books", "dvd"))
    broken = replace(books, frame=books.frame.assign(text=[*books.frame["text"][:19], None]))
    with pytest.raises(ValueError, match="row 19"):
        transfer_grid([dvd, broken], [books, dvd][:1], encoder, store=tmp_path / "store", **SMALL)
    assert not (tmp_path / "store").exists()


def test_json_of_a_label_space_survives_a_round_trip(tmp_path):
    rows = [{"TEXT": "a", "Label": "é"}, {"TEXT": "b", "Label": "z"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load_source(tmp_path / "a.jsonl").origin["labels"] == {"z": 0, "é": 1}


@pytest.mark.parametrize("kind", [bool, float, "Int64", "category", object])
def test_labels_of_every_kind_of_column_meet(encoder, kind):
    books, dvd = (load_source(f"miniature:{name}", limit=40) for name in ("books", "dvd"))
    other = replace(dvd, frame=dvd.frame.assign(label=dvd.frame["label"].astype(kind)))
    assert books.labels_of(other).tolist() == dvd.frame["label"].tolist()


def test_what_is_no_source_is_one_line():
    with pytest.raises(ValueError, match="labels: must be of what load_source gives, got list"):
        load_source("miniature:books", limit=40).labels_of(["a"])


def test_a_letter_with_its_accent_is_one_however_it_was_typed():
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": ["caf\u00e9", "cafe\u0301", "bar"]})
    assert load_source(frame).classes == ("bar", "caf\u00e9")
    assert load_source(frame, labels={"cafe\u0301": "good", "bar": "bad"}).classes == ("bad", "good")


@pytest.mark.parametrize("invisible", ["\u200b", "\ufeff", "\u00ad", " \u2060 ", "\u00a0\u200d"])
def test_what_nobody_sees_makes_no_class_and_no_text(encoder, tmp_path, invisible):
    labels = ["good", f"good{invisible}", f"{invisible}bad", "bad"]
    frame = pd.DataFrame({"text": ["a", "b", "c", invisible], "label": labels})
    source = load_source(frame)
    assert source.classes == ("bad", "good") and source.origin["skipped"] == {"empty text": 1}
    with pytest.raises(ValueError, match="text, row 1: empty"):
        extract(["a", invisible], encoder, store=tmp_path, progress=False)


def test_a_sign_without_width_within_a_word_is_kept():
    frame = pd.DataFrame({"text": ["\u0645\u06cc\u200c\u0631\u0648\u0645", "b"], "label": ["a\u200cb", "c"]})
    source = load_source(frame)
    assert source.classes == ("a\u200cb", "c") and source.frame["text"][0] == frame["text"][0]


def test_a_member_of_an_enum_of_text_is_its_text():
    class Kind(str, Enum):  # noqa: UP042 (str() of it is "Kind.GOOD")
        GOOD = "good"

    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": pd.Series([Kind.GOOD, "good", "bad"], dtype=object)})
    assert load_source(frame).classes == ("bad", "good")


def test_a_meaning_may_name_numbers_as_floats_but_none_twice():
    frame = pd.DataFrame({"text": list("abc"), "label": [1.0, 2.0, 3.0]})
    assert load_source(frame, labels={1.0: "low", 2.0: "high", 3.0: ""}).classes == ("high", "low")
    with pytest.raises(ValueError, match="labels: names a class twice"):
        load_source(frame, labels={1: "low", " 1": "high", 2: "high", 3: None})


@pytest.mark.parametrize("mark", ["#N/A", "-", "?", ".", "n.a.", "missing", "undefined", "1.#QNAN", "nan(ind)"])
def test_a_mark_for_what_is_missing_is_no_class_among_numbers(tmp_path, mark):
    with pytest.raises(ValueError, match="row 3, column 'label': .* among numbers is no class"):
        load_source(pd.DataFrame({"text": ["a", "b", "c", "d"], "label": ["0", "1", mark, "1"]}))
    assert load_source(pd.DataFrame({"text": ["a", "b"], "label": ["yes", mark]})).classes == tuple(
        sorted(["yes", mark])
    )


def test_a_decimal_that_signals_is_missing():
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": [Decimal(0), Decimal(1), Decimal("sNaN")]})
    with pytest.warns(UserWarning, match="missing label in 1"):
        assert load_source(frame).n_rows == 2


def test_one_corpus_under_two_names_is_not_tested_on_its_own_rows(encoder):
    books, again = (load_source("miniature:books", limit=20, name=name) for name in ("books", "again"))
    with pytest.raises(ValueError, match="targets: 'again' has the rows of the source 'books'; give both one name"):
        transfer_grid([books], [again], encoder, neurons=[20], runs=1, n_resamples=2, n_trees=10, progress=False)
