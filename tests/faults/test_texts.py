"""What is no sequence of texts is refused in one line, before any work."""

import numpy as np
import pandas as pd
import pytest

from tsns_lib import extract, load_encoder, load_source
from tsns_lib.extraction import texts_of
from tsns_lib.transferability.text_embedding import text_embedding

FRAME = pd.DataFrame({"text": ["first row", "second row"], "label": [0, 1]})
NO_SEQUENCE = "s: expected a sequence of texts, such as a list or one column of a frame, got "
BAD = [
    (FRAME, NO_SEQUENCE + "DataFrame"),
    (FRAME[["text"]], NO_SEQUENCE + "DataFrame"),
    (FRAME.rename(columns={"label": "frame"}), NO_SEQUENCE + "DataFrame"),
    (FRAME.to_dict("list"), NO_SEQUENCE + "dict"),
    ({"a", "b"}, NO_SEQUENCE + "set"),
    (frozenset(["a", "b"]), NO_SEQUENCE + "frozenset"),
    ({"a": 1}.keys(), NO_SEQUENCE + "dict_keys"),
    ("one text", NO_SEQUENCE + "one string"),
    (b"bytes", NO_SEQUENCE + "bytes"),
    (bytearray(b"bytes"), NO_SEQUENCE + "bytearray"),
    (3, NO_SEQUENCE + "int"),
    (np.array("text"), NO_SEQUENCE + "ndarray"),
    (object, NO_SEQUENCE + "type"),
    (np.array(["a", None], dtype=object), ", row 1: expected a string, got NoneType None"),
    (np.array([["a", "b"], ["c", "d"]]), ", row 0: expected a string, got ndarray array(['a', 'b'], dtype='<U1')"),
    ((number for number in (1, 2)), ", row 0: expected a string, got int 1"),
    (["a", b"b"], ", row 1: expected a string, got bytes b'b'"),
    (["a", float("nan")], ", row 1: expected a string, got float nan"),
    (["a", pd.NA], ", row 1: expected a string, got NAType <NA>"),
    (["a", pd.NaT], ", row 1: expected a string, got NaTType NaT"),
    (["a", ["b"]], ", row 1: expected a string, got list ['b']"),
    (["a", FRAME], ", row 1: expected a string, got DataFrame text label 0 first row 0 1 second row 1"),
    (pd.Series(["a", None]), ", row 1: expected a string, got"),
    (pd.Series(["a", None], dtype="string"), ", row 1: expected a string, got NAType <NA>"),
    (pd.Categorical(["a", None]), ", row 1: expected a string, got float nan"),
    ([], ": no rows"),
    ((), ": no rows"),
    (["a", ""], ", row 1: empty"),
    (["a", "\n\t "], ", row 1: empty"),
    (["a", "\udcff"], ", row 1: not valid Unicode (a lone surrogate)"),
]


def message(call):
    with pytest.raises(ValueError) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    return str(caught.value)


@pytest.mark.parametrize(("texts", "words"), BAD)
def test_no_texts(texts, words, tmp_path):
    said = message(lambda: extract(texts, load_encoder(), store=tmp_path, progress=False))
    assert said.startswith("text" + words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("pairs", "words"), [case for case in BAD if not hasattr(case[0], "send")])
def test_no_pairs(pairs, words, tmp_path):
    options = {"text_pairs": pairs, "store": tmp_path, "progress": False}
    assert message(lambda: extract(["a", "b"], load_encoder(), **options)).startswith("text_pair" + words)
    assert list(tmp_path.iterdir()) == []


def test_every_sequence_of_texts_is_read():
    texts = ["first row", "second row"]
    lists = [texts, tuple(texts), iter(texts), (text for text in texts), dict(enumerate(texts)).values()]
    arrays = [np.array(texts), np.array(texts, object), pd.Index(texts), FRAME["text"].astype("category")]
    for given in (*lists, *arrays, FRAME["text"]):
        assert texts_of(given, None) == (texts, None)


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
@pytest.mark.parametrize("column", ["text", "text_pair"])
def test_a_source_with_a_null_text_names_itself_and_the_row(missing, column, tmp_path):
    source = load_source("miniature:mrpc", limit=4)
    source.frame[column] = source.frame[column].astype(object)
    source.frame.loc[source.frame.index[2], column] = missing
    for work in (extract, text_embedding):
        said = message(lambda work=work: work(source, load_encoder(), store=tmp_path, progress=False))
        assert said.startswith(f"source 'miniature:mrpc', {column}, row 2: expected a string, got ")
    assert list(tmp_path.iterdir()) == []


def test_a_source_without_its_columns():
    source = load_source("miniature:mrpc", limit=4)
    del source.frame["text_pair"]
    with pytest.raises(ValueError, match="source 'miniature:mrpc', frame: no column 'text_pair'"):
        texts_of(source, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_length": 513}, "max_length=513: expected 3 to 512 for builtin:minilm"),
        ({"max_length": 2}, "max_length=2: expected 3 to 512 for builtin:minilm"),
        ({"max_length": -1}, "max_length: must be at least 1, got -1"),
        ({"max_length": "128"}, "max_length: must be a whole number, got '128'"),
        ({"max_length": None}, "max_length: must be a whole number, got None"),
        ({"max_length": np.float64(16)}, "max_length: must be a whole number, got np.float64(16.0)"),
        ({"max_length": np.True_}, "max_length: must be a whole number, got np.True_"),
        ({"pooling": "CLS"}, "pooling: must be 'cls', 'mean' or 'content', got 'CLS'"),
        ({"pooling": None}, "pooling: must be 'cls', 'mean' or 'content', got None"),
        ({"pooling": ["cls"]}, "pooling: must be 'cls', 'mean' or 'content', got ['cls']"),
        ({"encoder": "builtin:minilm"}, "encoder: must be what load_encoder gives, got str"),
        ({"encoder": None}, "encoder: must be what load_encoder gives, got NoneType"),
        ({"scheduler": 3}, "scheduler: must be 'processes', "),
    ],
)
def test_no_argument_for_it(options, words, tmp_path):
    options = {"encoder": load_encoder(), "store": tmp_path, "progress": False} | options
    assert message(lambda: extract(["a", "b"], **options)).startswith(words)
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_are_numbers(tmp_path):
    options = {"store": tmp_path, "progress": False}
    encoder = load_encoder()
    plain = extract(["a", "b"], encoder, max_length=16, **options)
    for kind in (np.int64, np.uint8, np.int32):
        np.testing.assert_array_equal(extract(["a", "b"], encoder, max_length=kind(16), **options), plain)
    assert len(list((tmp_path / "activations").iterdir())) == 1
