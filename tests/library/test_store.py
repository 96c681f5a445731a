import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tsns_workbook.cli import prune

from tsns_lib.store import _USED, Store, StoreError, atomic, files
from tsns_lib.store.files import remembered
from tsns_lib.store.manifest import Shard, _signed

ROOT = Path(__file__).parents[2]
WHOLE = np.arange(30, dtype=np.float32).reshape(6, 5)


@pytest.fixture
def entry(tmp_path):
    return Store(tmp_path).entry("activations", {"encoder": "toy", "rows": 6})


@pytest.fixture
def finished(entry):
    entry.write(0, WHOLE[:4])
    entry.write(1, WHOLE[4:])
    entry.finish(2, n_truncated=1)
    return entry


def test_reads_what_was_written(finished):
    np.testing.assert_array_equal(finished.read(), WHOLE)
    assert finished.read().dtype == np.float32


def test_the_folder_is_readable_by_people(finished):
    names = sorted(path.name for path in finished.path.iterdir())
    assert names == ["00000.npy", "00001.npy", "identity.json", "manifest.json"]
    assert json.loads((finished.path / "identity.json").read_text()) == {"encoder": "toy", "rows": 6}
    assert finished.facts() == {"n_truncated": 1}


def test_the_key_is_the_identity_and_the_kind(tmp_path):
    store = Store(tmp_path)
    one = store.entry("activations", {"a": 1, "b": [2.5, None]})
    assert one.key == store.entry("activations", {"b": [2.5, None], "a": 1}).key
    assert one.key != store.entry("activations", {"a": 1, "b": [2.5, 0]}).key
    assert one.key != store.entry("importance", {"a": 1, "b": [2.5, None]}).key
    assert one.path == tmp_path / "activations" / one.key


def test_naming_an_entry_writes_nothing(tmp_path):
    Store(tmp_path / "new").entry("importance", {}).missing(3)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("identity", [{"x": np.float32(1)}, {"x": float("nan")}, {"x": {1, 2}}])
def test_an_identity_is_plain_json(tmp_path, identity):
    with pytest.raises(ValueError, match="identity of 'importance' is not plain JSON"):
        Store(tmp_path).entry("importance", identity)


def test_a_fact_is_plain_json(tmp_path):
    entry = Store(tmp_path).entry("importance", {})
    entry.write(0, np.ones(2))
    with pytest.raises(ValueError, match=r"np.float32\(0.5\): is not a number, text or list of Python's"):
        entry.finish(1, note=np.float32(0.5))
    entry.finish(1, note=np.int8(5))
    assert entry.facts() == {"note": 5}


def test_a_kind_is_a_word(tmp_path):
    with pytest.raises(ValueError, match="kind='../up'"):
        Store(tmp_path).entry("../up", {})


def test_the_root_is_the_argument_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TSNS_CACHE", str(tmp_path / "env"))
    assert Store().root == tmp_path / "env"
    assert Store(tmp_path / "own").root == tmp_path / "own"
    monkeypatch.delenv("TSNS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert Store().root.name == "tsns"


def test_finished_shards_count_without_a_manifest(entry):
    entry.write(1, WHOLE)
    assert entry.missing(3) == [0, 2]
    assert not entry.is_finished(1)


def test_a_second_writer_changes_nothing(finished):
    finished.write(0, -WHOLE[:4])
    np.testing.assert_array_equal(finished.read(), WHOLE)


def test_finish_extends_and_never_shrinks(finished):
    finished.write(2, WHOLE[:1])
    assert finished.is_finished(2) and not finished.is_finished(3)
    finished.finish(3, n_truncated=2)
    assert finished.is_finished(3)
    finished.finish(1)
    assert finished.is_finished(3)
    assert finished.read(2).shape == (6, 5)
    assert finished.read().shape == (7, 5)


def test_fortran_order_is_stored_in_rows(entry):
    entry.write(0, np.asfortranarray(WHOLE))
    entry.finish(1)
    assert np.load(entry.path / "00000.npy").flags.c_contiguous
    np.testing.assert_array_equal(entry.read(), WHOLE)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 6), max_size=3),
    rows=st.none() | st.lists(st.integers(0, 5), max_size=8),
    columns=st.none() | st.lists(st.integers(0, 4), max_size=6),
)
def test_rows_and_columns_equal_indexing_the_whole(tmp_path_factory, cuts, rows, columns):
    entry = Store(tmp_path_factory.mktemp("store")).entry("activations", {})
    pieces = np.split(WHOLE, sorted(cuts))
    for index, piece in enumerate(pieces):
        entry.write(index, piece)
    entry.finish(len(pieces))
    expected = WHOLE if rows is None else WHOLE[np.array(rows, dtype=int)]
    expected = expected if columns is None else expected[:, np.array(columns, dtype=int)]
    np.testing.assert_array_equal(entry.read(rows=rows, columns=columns), expected)


def test_a_partial_read_stays_small(entry):
    for index in range(4):
        entry.write(index, np.ones((1_000, 500)))
    entry.finish(4)
    tracemalloc.start()
    assert entry.read(rows=[0, 3_999], columns=[7]).tolist() == [[1.0], [1.0]]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_shape_and_dtype_come_from_the_manifest(finished):
    assert (finished.shape, finished.dtype) == ((6, 5), np.float32)


def test_an_unfinished_entry_has_no_shape(entry):
    entry.write(0, WHOLE)
    with pytest.raises(StoreError, match="no manifest"):
        _ = entry.shape


def test_only_shards_with_a_wanted_row_are_opened(finished):
    (finished.path / "00001.npy").unlink()
    np.testing.assert_array_equal(finished.read(rows=[3, 0]), WHOLE[[3, 0]])


def test_columns_get_an_entry_of_their_own(finished):
    np.testing.assert_array_equal(finished.columns([4, 0]), WHOLE[:, [4, 0]])
    np.testing.assert_array_equal(finished.columns([0, 4]), WHOLE[:, [0, 4]])
    root = finished.path.parents[1]
    assert len(list((root / "columns").iterdir())) == 2
    kept = [json.loads(path.read_text()) for path in root.glob("columns/*/identity.json")]
    assert [(each["entry"], each["n_columns"]) for each in kept] == [(finished.key, 2)] * 2


def test_columns_are_read_where_they_are_kept(finished):
    first = finished.columns(np.array([1, 3]))
    for shard in finished.path.glob("*.npy"):
        shard.unlink()
    np.testing.assert_array_equal(finished.columns([1, 3]), first)


def test_columns_follow_their_entry(finished):
    finished.columns([1])
    finished.write(2, -WHOLE[:1])
    finished.finish(3)
    assert finished.columns([1])[:, 0].tolist() == [1.0, 6.0, 11.0, 16.0, 21.0, 26.0, -1.0]


def test_columns_of_an_altered_shard_are_not_kept(finished):
    np.save(finished.path / "00001.npy", WHOLE[4:] + 1)
    with pytest.raises(StoreError, match=r"00001.npy: checksum differs"):
        finished.columns([1])
    with pytest.raises(StoreError, match=r"00001.npy: shard is missing"):
        finished.columns([1])


def test_kept_columns_that_are_damaged_are_read_again(finished, caplog):
    finished.columns([1])
    (kept,) = finished.path.parents[1].glob("columns/*/00000.npy")
    np.save(kept, np.zeros((4, 1), dtype=np.float32))
    np.testing.assert_array_equal(finished.columns([1]), WHOLE[:, [1]])
    (warning,) = caplog.messages
    assert str(kept) in warning and "checksum differs" in warning


@pytest.mark.parametrize("numbers", [[5], [-1], [0.5]])
def test_columns_to_keep_are_checked(finished, numbers):
    with pytest.raises(ValueError, match="columns: "):
        finished.columns(numbers)
    assert not (finished.path.parents[1] / "columns").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([6], "rows: 6 is outside 0..5"),
        ([-1], "rows: -1 is outside"),
        ([0.5], "rows: expected a 1-D sequence of integers, got float64"),
        (np.ones(6, dtype=bool), "rows: expected a 1-D sequence of integers, got bool"),
    ],
)
def test_rows_that_are_not_there(finished, rows, message):
    with pytest.raises(ValueError, match=message):
        finished.read(rows=rows)


def test_columns_that_are_not_there(finished):
    with pytest.raises(ValueError, match="columns: 5 is outside 0..4"):
        finished.read(columns=[5])


def test_no_manifest(entry):
    entry.write(0, WHOLE)
    with pytest.raises(StoreError, match=r"manifest.json: no manifest, the entry is unfinished; run the step"):
        entry.read()
    with pytest.raises(StoreError, match="no manifest"):
        entry.facts()


def test_an_unreadable_manifest(finished):
    (finished.path / "manifest.json").write_text('{"shards"')
    with pytest.raises(StoreError, match=r"manifest.json: is not the manifest that was written; run the step"):
        finished.read()
    assert not finished.is_finished(2) and finished.missing(2) == []  # the shards vouch for themselves
    finished.finish(2)
    np.testing.assert_array_equal(finished.read(), WHOLE)


def test_a_manifest_without_one_of_its_lines_is_not_believed(finished):
    finished.write(2, -WHOLE[:1])
    finished.finish(3)
    path = finished.path / "manifest.json"
    content = json.loads(path.read_text())
    del content["shards"][1]
    path.write_text(json.dumps(content, indent=1))
    assert not finished.is_finished(2)
    with pytest.raises(StoreError, match=r"manifest.json: no manifest"):
        finished.read(rows=[4])


def test_fewer_shards_than_asked_for(finished):
    with pytest.raises(StoreError, match=r"manifest.json: lists 2 shards, not 3"):
        finished.read(3)


@pytest.mark.parametrize("length", [0, 100, 140])
def test_a_truncated_shard(finished, length):
    os.truncate(finished.path / "00001.npy", length)
    with pytest.raises(StoreError, match=r"00001.npy: checksum differs from the manifest's; run the step"):
        finished.read(rows=[5])
    with pytest.raises(StoreError, match=r"00001.npy: shard is missing; run the step"):
        finished.read()
    assert finished.missing(2) == [1]


def test_a_truncated_shard_is_not_promised(entry):
    entry.write(0, WHOLE)
    os.truncate(entry.path / "00000.npy", 150)
    with pytest.raises(StoreError, match=r"00000.npy: neither a manifest nor its own checksum confirms it; run"):
        entry.finish(1)
    assert entry.missing(1) == [0]


@pytest.mark.parametrize("part", [{}, {"rows": [0]}, {"columns": [2]}, {"rows": [1], "columns": [2]}])
def test_an_altered_shard_is_noticed_whatever_is_read(finished, part, caplog):
    np.save(finished.path / "00000.npy", WHOLE[:4] + 1)
    with pytest.raises(StoreError, match=r"00000.npy: checksum differs from the manifest's; run the step"):
        finished.read(**part)
    assert caplog.messages == [
        f"{finished.path}/00000.npy: checksum differs from the manifest's; it is not used and has to be written again"
    ]
    assert len(list(finished.path.glob(".00000.npy.*.damaged"))) == 1
    assert finished.missing(2) == [0]
    finished.write(0, WHOLE[:4])
    np.testing.assert_array_equal(finished.read(), WHOLE)
    assert not list(finished.path.glob(".*"))


def test_a_shard_is_verified_once_a_process(finished):
    time.sleep(0.03)  # a file that has just changed is not remembered
    finished.read(rows=[0, 5])
    verified = remembered.cache_info().misses
    for column in range(5):
        finished.read(rows=[1, 4], columns=[column])
    assert finished.is_finished(2) and finished.read().shape == (6, 5)
    assert remembered.cache_info().misses == verified


def test_a_missing_shard(finished):
    (finished.path / "00001.npy").unlink()
    assert not finished.is_finished(2)
    with pytest.raises(StoreError, match=r"00001.npy: shard is missing; run the step"):
        finished.read()


def test_an_entry_of_the_first_format_is_written_again(finished):
    """It had no trailers, and a manifest without a sha256: a fact in it could change unnoticed."""
    lines = []
    for path in sorted(finished.path.glob("*.npy")):
        array = np.load(path)
        np.save(path, array)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append({"file": path.name, "sha256": digest, "shape": list(array.shape), "dtype": array.dtype.str})
    content = {"format": 1, "shards": lines, "facts": {"n_truncated": 3}}
    (finished.path / "manifest.json").write_text(json.dumps(content, indent=1) + "\n")
    with pytest.raises(StoreError, match="is not the manifest that was written; run the step"):
        finished.facts()
    assert not finished.is_finished(2) and finished.missing(2) == [0, 1]
    finished.write(0, WHOLE[:4])
    finished.write(1, WHOLE[4:])
    finished.finish(2, n_truncated=1)
    assert finished.facts() == {"n_truncated": 1}
    np.testing.assert_array_equal(finished.read(), WHOLE)


def test_a_fact_that_was_changed_is_not_believed(finished):
    path = finished.path / "manifest.json"
    path.write_text(path.read_text().replace('"n_truncated": 1', '"n_truncated": 3'))
    with pytest.raises(StoreError, match="is not the manifest that was written"):
        finished.facts()


@pytest.mark.parametrize("number", [2, 4])
def test_a_manifest_of_another_format_is_not_read(finished, number):
    path = finished.path / "manifest.json"
    path.write_text(path.read_text().replace('"format": 3', f'"format": {number}'))
    assert not finished.is_finished(2)
    path.write_bytes(
        _signed({"format": number, "shards": [vars(Shard.measured(finished.path / "00000.npy"))]}, finished.key)
    )
    assert not finished.is_finished(1)


def test_shards_that_do_not_fit_together(entry):
    entry.write(0, WHOLE)
    entry.write(1, WHOLE[:, :2])
    with pytest.raises(StoreError, match=r"00001.npy: holds <f4 \(6, 2\), the first shard <f4 \(6, 5\)"):
        entry.finish(2)


def test_a_pickle_is_refused(entry, finished):
    with pytest.raises(ValueError, match="shard 3: cannot store shape .* dtype object"):
        entry.write(3, np.array([{"a": 1}], dtype=object))
    np.save(finished.path / "00000.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    content = json.loads((finished.path / "manifest.json").read_text())
    content["shards"][0]["sha256"] = hashlib.sha256((finished.path / "00000.npy").read_bytes()).hexdigest()
    (finished.path / "manifest.json").write_bytes(_signed(content, finished.key))
    with pytest.raises(StoreError, match=r"00000.npy: no .npy shard \(.*Python objects"):
        finished.read()


def test_a_lost_shard_that_is_written_again_gets_a_new_checksum(finished):
    (finished.path / "00001.npy").unlink()
    finished.write(1, WHOLE[4:] + 1e-3)
    assert finished.is_finished(2) and finished.facts() == {"n_truncated": 1}
    np.testing.assert_array_equal(finished.read()[4:], WHOLE[4:] + np.float32(1e-3))


def test_a_disk_that_refuses(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"identity.json: .*set TSNS_CACHE to another folder"):
        Store(tmp_path / "file").entry("importance", {}).write(0, WHOLE)


def test_leftovers_of_killed_writers_go_and_those_of_living_ones_stay(entry):
    entry.write(0, WHOLE)
    dead = entry.path / ".00001.npy.a.part"
    dead.touch()
    with atomic(entry.path / "00001.npy") as file:
        file.write(b"half")
        entry.finish(1)
        assert not dead.exists() and Path(file.name).exists()
        assert entry.missing(2) == [1]


def test_the_slower_of_two_writers_replaces_nothing(entry, tmp_path, monkeypatch):
    other = Store(tmp_path).entry("activations", {"encoder": "toy", "rows": 6})
    save = np.save

    def slow_save(file, values, **options):
        monkeypatch.undo()
        other.write(0, WHOLE)
        other.finish(1, n_truncated=0)
        save(file, values, **options)

    monkeypatch.setattr(np, "save", slow_save)
    entry.write(0, WHOLE + 1e-7)
    np.testing.assert_array_equal(entry.read(), WHOLE)
    assert sorted(path.name for path in entry.path.iterdir()) == ["00000.npy", "identity.json", "manifest.json"]


def test_a_slower_finish_does_not_shorten(finished):
    finished.write(2, WHOLE[:1])
    finished.finish(3, n_truncated=2)
    finished.finish(1, n_truncated=0)
    assert finished.shape == (7, 5) and finished.facts() == {"n_truncated": 2}


def test_files_have_the_permissions_of_the_user(tmp_path):
    before = os.umask(0o027)
    try:
        entry = Store(tmp_path / "new").entry("importance", {})
        entry.write(0, WHOLE)
        entry.finish(1)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in entry.path.iterdir()} == {0o640}
    assert entry.path.stat().st_mode & 0o777 == 0o750


def test_numbers_of_numpy_give_the_same_key(tmp_path):
    store = Store(tmp_path)
    plain = store.entry("importance", {"seed": 3, "tied": True, "share": 0.7, "of": [1, {"k": 2}]})
    numbers = {
        "seed": np.int64(3),
        "tied": np.bool_(True),
        "share": np.float64(0.7),
        "of": (np.uint8(1), {"k": np.int32(2)}),
    }
    assert store.entry("importance", numbers) == plain
    assert plain.key == "5c7543deef437a1779b4fe6a1dc37c48666ce5f9f25fd58829e8e59719121bbe"


def test_a_home_that_is_nobodys_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Store("~nobody-at-all/cache").root == tmp_path / "~nobody-at-all/cache"


def test_a_store_of_a_store_is_the_same(tmp_path):
    store = Store(tmp_path)
    assert Store(store).root == store.root == tmp_path
    with pytest.raises(ValueError, match="store: must be a Store or a path, got int 5"):
        Store(5)


def test_entries_are_listed_by_their_last_use_and_nothing_else_is(tmp_path):
    store = Store(tmp_path)
    first, second = store.entry("activations", {"n": 1}), store.entry("importance", {"n": 2})
    for age, entry in ((200, first), (100, second)):
        entry.write(0, WHOLE)
        entry.finish(1)
        os.utime(entry.path / "identity.json", (time.time() - age,) * 2)
    stranger = tmp_path / "activations" / ("0" * 64)  # named like an entry, but not by its own identity
    stranger.mkdir()
    (stranger / "identity.json").write_text('{"n": 1}')
    (tmp_path / "activations" / ("1" * 64)).mkdir()
    (tmp_path / "documents").mkdir()
    assert [(entry.kind, entry.key) for entry in store.entries()] == [
        ("activations", first.key), ("importance", second.key),
    ]  # fmt: skip
    assert first.size() == sum(path.stat().st_size for path in first.path.iterdir())
    _USED.clear()  # as another process
    assert first.read().shape == (6, 5)
    assert [entry.key for entry in store.entries()] == [second.key, first.key]


def test_pruning_goes_from_the_oldest_and_spares_what_is_needed(tmp_path):
    store = Store(tmp_path)
    entries = [store.entry("importance", {"n": n}) for n in range(4)]
    for age, entry in enumerate(entries):
        entry.write(0, WHOLE)
        os.utime(entry.path / "identity.json", (time.time() - 1000 + age,) * 2)
    size = entries[0].size()
    assert prune(store, 4 * size, ()) == []
    removed = prune(store, 2 * size, needed_keys={entries[0].key})
    assert [(entry.key, freed) for entry, freed in removed] == [(entries[1].key, size), (entries[2].key, size)]
    assert {entry.key for entry in store.entries()} == {entries[0].key, entries[3].key}
    with entries[3].turn():
        assert [entry.key for entry, _ in prune(store, 0, ())] == [entries[0].key]
    assert entries[3].remove() and store.entries() == []


def test_what_a_killed_removal_leaves_is_an_entry(finished):
    script = (
        "import os, pathlib, signal, sys; from tsns_lib.store import Store\n"
        "unlink = pathlib.Path.unlink\n"
        "def unlink_and_die(*a, **k): unlink(*a, **k); os.kill(os.getpid(), signal.SIGKILL)\n"
        "pathlib.Path.unlink = unlink_and_die\n"
        "Store(sys.argv[1]).entries()[0].remove()"
    )
    store = Store(finished.path.parents[1])
    died = subprocess.run([sys.executable, "-c", script, str(store.root)], cwd=ROOT, capture_output=True)
    assert died.returncode == -signal.SIGKILL
    assert [entry.key for entry in store.entries()] == [finished.key]
    assert store.entries()[0].remove() and not finished.path.exists()


def test_verify_names_all_damage_and_changes_nothing(finished):
    assert finished.verify() == []
    np.save(finished.path / "00000.npy", WHOLE[:4] + 1)
    (finished.path / "00001.npy").unlink()
    names = sorted(finished.path.iterdir())
    assert finished.verify() == [
        f"{finished.path}/00000.npy: checksum differs from the manifest's",
        f"{finished.path}/00001.npy: shard is missing",
    ]
    (finished.path / "manifest.json").write_text("{}")
    assert finished.verify() == [
        f"{finished.path}/manifest.json: is not the manifest that was written",
        f"{finished.path}/00000.npy: neither a manifest nor its own checksum confirms it",
    ]
    assert sorted(finished.path.iterdir()) == names


def test_concurrent_writers_are_harmless(tmp_path):
    script = (
        "import sys, numpy as np; from tsns_lib.store import Store\n"
        "entry = Store(sys.argv[1]).entry('importance', {'seed': 0})\n"
        "for index in range(40): entry.write(index, np.full((1, 2_000), index))\n"
        "entry.finish(40); assert entry.read().sum() == 780 * 2_000"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    writers = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    entry = Store(tmp_path).entry("importance", {"seed": 0})
    assert entry.read().sum() == 780 * 2_000
    assert len(list(entry.path.iterdir())) == 42


def test_a_manifest_lists_only_what_is_on_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(files, "to_disk", lambda path: synced.append(path.name))
    entry = Store(tmp_path).entry("importance", {"n": 1})
    for index in range(3):
        entry.write(index, WHOLE)
    assert not any(
        name.endswith(".npy") for name in synced
    )  # what is written survives a kill; the disk is for a power cut
    entry.finish(3)
    of_manifest = next(place for place, name in enumerate(synced) if name.startswith(".manifest.json"))
    assert synced[of_manifest - 3 : of_manifest] == ["00000.npy", "00001.npy", "00002.npy"]
    assert synced[-1] == entry.path.name
    (entry.path / "00001.npy").unlink()
    entry.write(1, WHOLE)
    assert "00001.npy" in synced[of_manifest:]
