"""Damage at rest: a flipped byte, a full disk, a folder that cannot be written. No value is used that is another."""

import os
import shutil
import subprocess

import numpy as np
import pytest

from tsns_lib import resampled_importance
from tsns_lib.store import Store, StoreError

FLIPS = int(os.environ.get("TSNS_FLIPS", "60"))
WHOLE = np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32)
LABELS = (WHOLE[:, 3] > 0).astype(int)
SHARDS = np.split(WHOLE, [20, 40])
CHOSEN = [7, 3]


def finished(entry, shards, **facts):
    """What every user of the store does: compute what it lacks, and promise it."""
    if not entry.is_finished(len(shards)):
        for index in entry.missing(len(shards)):
            entry.write(index, shards[index])
        entry.finish(len(shards), **facts)
    return entry


def entries_of(root):
    store = Store(root)
    return store.entry("activations", {"encoder": "toy"}), store.entry("predictions", {"finetuned": "toy"})


def written(root):
    activations, predictions = entries_of(root)
    finished(activations, SHARDS, n_truncated=1)
    finished(predictions, [WHOLE[:5] * 2], classes=["no", "yes"])
    activations.columns(CHOSEN)
    return activations, predictions


def what_is_read(activations, predictions):
    """Parts first, so that nothing has been verified by a read of the whole."""
    return {
        "rows": activations.read(rows=[45, 2]).tolist(),
        "columns": activations.columns(CHOSEN).tolist(),
        "part": activations.read(rows=[21], columns=[0, 11]).tolist(),
        "whole": activations.read().tolist(),
        "predictions": predictions.read().tolist(),
        "facts": [activations.facts(), predictions.facts()],
        "shape": [activations.shape, predictions.shape],
    }


EXPECTED = {
    "rows": WHOLE[[45, 2]].tolist(),
    "columns": WHOLE[:, CHOSEN].tolist(),
    "part": WHOLE[[21]][:, [0, 11]].tolist(),
    "whole": WHOLE.tolist(),
    "predictions": (WHOLE[:5] * 2).tolist(),
    "facts": [{"n_truncated": 1}, {"classes": ["no", "yes"]}],
    "shape": [(50, 12), (5, 12)],
}


def flipped(path, rng):
    """Change one byte of a file, at a random place."""
    content = bytearray(path.read_bytes())
    place = int(rng.integers(len(content)))
    content[place] ^= int(rng.integers(1, 256))
    path.write_bytes(content)
    return place


def test_a_flipped_byte_is_noticed_before_its_value_is_used(tmp_path, caplog):
    written(tmp_path / "sound")
    names = sorted(p.relative_to(tmp_path / "sound") for p in (tmp_path / "sound").rglob("*") if p.is_file())
    assert {path.suffix for path in names} == {".npy", ".json"} and len(names) == 5 + 5 + 3
    for number in range(FLIPS):
        rng = np.random.default_rng(number)
        root = shutil.copytree(tmp_path / "sound", tmp_path / str(number))
        name = names[rng.integers(len(names))]
        where = f"flip {number} at byte {flipped(root / name, rng)} of {name}"
        caplog.clear()
        try:  # who cannot compute it again; columns are read again from what is sound
            assert what_is_read(*entries_of(root)) == EXPECTED, where
        except StoreError as error:
            assert str(root / name) in str(error), where
        assert any(message.startswith(str(root / name)) for message in caplog.messages), where
        assert what_is_read(*written(root)) == EXPECTED, where  # who can
        assert [entry.verify() for entry in Store(root).entries()] == [[]] * 3, where
        shutil.rmtree(root)


@pytest.mark.parametrize("place", [30, 200, -60, -1])  # numpy's header, a value, the trailer
def test_out_of_core_importance_verifies_what_it_reads(tmp_path, place):
    activations, _ = written(tmp_path)
    shard = activations.path / "00001.npy"
    content = bytearray(shard.read_bytes())
    content[place] ^= 0x40
    shard.write_bytes(content)
    with pytest.raises(StoreError, match=r"00001.npy: checksum differs from the manifest's; run the step"):
        resampled_importance(activations, LABELS, n_resamples=2, n_trees=5, n_jobs=1, store=tmp_path)


def test_a_shard_damaged_before_its_manifest_is_written_is_grown_again(tmp_path, caplog):
    settings = {"n_resamples": 3, "n_trees": 10, "n_jobs": 1, "store": tmp_path}
    q = resampled_importance(WHOLE, LABELS, **settings)
    (folder,) = (tmp_path / "importance").iterdir()
    (folder / "manifest.json").unlink()  # as a kill leaves it
    content = bytearray((folder / "00001.npy").read_bytes())
    content[150] ^= 0x40
    (folder / "00001.npy").write_bytes(content)
    kept = (folder / "00000.npy").stat().st_mtime_ns
    assert resampled_importance(WHOLE, LABELS, **settings).tobytes() == q.tobytes()
    assert (folder / "00000.npy").stat().st_mtime_ns == kept
    (warning,) = caplog.messages
    assert f"{folder}/00001.npy: neither a manifest nor its own checksum confirms it" in warning


def test_a_full_disk_is_said_and_leaves_nothing_half_written(small_disk):
    entry = Store(small_disk).entry("activations", {"encoder": "toy"})
    entry.write(0, WHOLE)
    with pytest.raises(StoreError, match=r"00001.npy: .*disk may be full.*set TSNS_CACHE to another folder"):
        entry.write(1, np.ones((5_000, 12)))
    assert sorted(path.name for path in entry.path.iterdir()) == ["00000.npy", "identity.json"]
    (small_disk / "filler").write_bytes(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize))
    with pytest.raises(StoreError, match=r"manifest.json: No space left on device; make room"):
        entry.finish(1)
    assert sorted(path.name for path in entry.path.iterdir()) == ["00000.npy", "identity.json"]
    (small_disk / "filler").unlink()
    assert finished(entry, [WHOLE]).read().tolist() == WHOLE.tolist()


def test_a_store_that_cannot_be_written_is_read(small_disk):
    activations, predictions = written(small_disk)
    shutil.rmtree(small_disk / "columns")
    before = sorted(small_disk.rglob("*"))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert what_is_read(activations, predictions) == EXPECTED
    with pytest.raises(StoreError, match=r"00003.npy: Read-only file system; make room or set TSNS_CACHE to another"):
        activations.write(3, WHOLE)
    with pytest.raises(StoreError, match=r"manifest.json: Read-only file system"):
        activations.finish(3)
    with pytest.raises(StoreError, match=r"identity.json: Read-only file system"):
        Store(small_disk).entry("importance", {}).write(0, WHOLE)
    with pytest.raises(StoreError, match=r"cannot be removed \(Read-only file system\)"):
        activations.remove()
    assert sorted(small_disk.rglob("*")) == before


def test_a_store_behind_a_link_and_an_entry_that_was_moved_to_another_disk(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to("here")
    activations, _ = written(tmp_path / "link")
    elsewhere, keep = tmp_path / "elsewhere", tmp_path / "keep.txt"
    shutil.move(activations.path, elsewhere)
    activations.path.symlink_to(elsewhere)
    keep.write_text("mine")
    (elsewhere / "mine.txt").symlink_to(keep)
    assert what_is_read(*entries_of(tmp_path / "here")) == EXPECTED
    assert len(Store(tmp_path / "link").entries()) == 3 and activations.verify() == []
    assert activations.remove()
    assert not activations.path.is_symlink() and not elsewhere.exists() and keep.read_text() == "mine"
    assert finished(activations, SHARDS, n_truncated=1).read().tolist() == WHOLE.tolist()


def test_a_damaged_shard_of_a_store_that_cannot_be_written_is_not_used(small_disk):
    activations, _ = written(small_disk)
    flipped(activations.path / "00002.npy", np.random.default_rng(0))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"00002.npy: checksum differs"):
            activations.read(rows=[45])
    assert activations.missing(3) == [2]


def other(root):
    """Entries of the same shapes with other values."""
    entry = Store(root).entry("activations", {"encoder": "another toy"})
    return finished(entry, [shard + 1 for shard in SHARDS], n_truncated=1)


def move_the_folder(here, there):
    shutil.rmtree(here.path)
    there.path.rename(here.path)


def copy_all_but_the_identity(here, there):
    for path in there.path.glob("[0-9m]*"):
        shutil.copy(path, here.path)


def copy_a_shard_without_a_manifest(here, there):
    (here.path / "manifest.json").unlink()
    shutil.copy(there.path / "00001.npy", here.path)


def exchange_two_shards_without_a_manifest(here, there):
    (here.path / "manifest.json").unlink()
    first, second = (here.path / f"0000{number}.npy" for number in (0, 1))
    first.rename(here.path / "aside")
    second.rename(first)
    (here.path / "aside").rename(second)


@pytest.mark.parametrize(
    "attack",
    [
        move_the_folder,
        copy_all_but_the_identity,
        copy_a_shard_without_a_manifest,
        exchange_two_shards_without_a_manifest,
    ],
)
def test_sound_files_of_another_entry_or_place_are_not_believed(tmp_path, attack):
    entry, _ = written(tmp_path)
    attack(entry, other(tmp_path))
    assert not entry.is_finished(len(SHARDS))
    assert np.array_equal(finished(entry, SHARDS, n_truncated=1).read(), WHOLE)
    assert entry.verify() == []


def test_json_that_is_nested_without_end_is_damage_like_any_other(tmp_path, caplog):
    activations, predictions = written(tmp_path)
    (activations.path / "manifest.json").write_bytes(b"[" * 200_000)
    (predictions.path / "identity.json").write_bytes(b"[" * 200_000)
    assert predictions.path not in [entry.path for entry in Store(tmp_path).entries()]
    assert not activations.is_finished(len(SHARDS))
    assert what_is_read(*written(tmp_path)) == EXPECTED


def test_a_pipe_in_the_place_of_a_shard_is_no_reason_to_wait(tmp_path):
    entry = Store(tmp_path).entry("importance", {"forest": "toy"})
    entry.write(0, np.eye(2))
    entry.finish(1)
    (entry.path / "00000.npy").unlink()
    os.mkfifo(entry.path / "00000.npy")
    with pytest.raises(StoreError, match=r"00000\.npy: cannot be read \(is no file\)"):
        entry.read()
    entry.write(0, np.eye(2))
    assert np.array_equal(entry.read(), np.eye(2))
