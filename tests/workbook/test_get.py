"""`tsns get` against a server on this machine: every way in which a download goes well or wrong."""

import hashlib
import io
import json
import os
import re
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
import yaml
from tiny_encoders import tiny_folder
from tsns_workbook import get as module
from tsns_workbook.cli import main
from tsns_workbook.get import Release, Unavailable, Wanted, downloads, fetch, get, unpack
from tsns_workbook.project import ProjectError

from tsns_lib.corpora.registry import REGISTRY

GLUE, REVIEWS = REGISTRY["rte"].hub, REGISTRY["books"].hub


class Server(ThreadingHTTPServer):
    """Files by path; `cuts` are the bytes that its next answers give before they break off."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.moved, self.cuts, self.asked, self.resumes = {}, {}, [], [], True
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        if self.path in server.moved:  # as the hub does with a large file
            self.send_response(302)
            self.send_header("Location", server.moved[self.path])
            digest = hashlib.sha256(server.content[server.moved[self.path]]).hexdigest()
            self.send_header("X-Linked-Etag", f'"{digest}"')
            return self.end(b"")
        content = server.content.get(self.path.partition("?")[0])
        if content is None:
            self.send_response(404)
            return self.end(b"")
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1]) if self.headers["Range"] else 0
        if start >= len(content):
            self.send_response(416)
            return self.end(b"")
        if start and server.resumes:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            content = content[start:]
        else:
            self.send_response(200)
        self.end(content, server.cuts.pop(0) if server.cuts else len(content))

    def end(self, content, n_bytes=None):
        self.send_header("Content-Length", str(len(content)))
        if "/resolve/" in self.path:  # as the hub's client wants it
            self.send_header("X-Repo-Commit", GLUE.commit)
            self.send_header("ETag", f'"{hashlib.sha1(self.path.encode()).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:n_bytes])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


BYTES = bytes(range(256)) * 40  # 10,240


def file(server, *paths, content=BYTES, **facts):
    """A file that the paths of a server hold, and what is known of it."""
    server.content |= dict.fromkeys(paths, content)
    known = {"n_bytes": len(content), "sha256": sha256(content)} | facts
    return Wanted("x.bin", [server.url + path for path in paths], **known)


# One file


def test_a_file_comes_whole(server, tmp_path):
    assert fetch(file(server, "/a"), tmp_path / "in/x.bin") == sha256(BYTES)
    assert (tmp_path / "in/x.bin").read_bytes() == BYTES
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["x.bin"]
    assert server.asked == [("/a", None)]


def test_a_cut_connection_is_continued(server, tmp_path):
    server.cuts = [4_000, 0, 0, 5_000]
    fetch(file(server, "/a"), tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == BYTES
    assert [asked for _, asked in server.asked] == [None, *["bytes=4000-"] * 3, "bytes=9000-"]


def test_a_server_that_cannot_continue_begins_again(server, tmp_path):
    server.cuts, server.resumes = [4_000], False
    fetch(file(server, "/a"), tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == BYTES


def test_what_was_left_by_a_killed_call_is_continued(server, tmp_path):
    (tmp_path / "x.bin.part").write_bytes(BYTES[:7_000])
    fetch(file(server, "/a"), tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == BYTES
    assert server.asked == [("/a", "bytes=7000-")]


@pytest.mark.parametrize("left", [b"other" * 100, bytes(10_240), bytes(10_241)], ids=["begun", "whole", "longer"])
def test_a_part_of_another_file_is_thrown_away(server, tmp_path, left):
    (tmp_path / "x.bin.part").write_bytes(left)
    fetch(file(server, "/a"), tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == BYTES


def test_an_address_that_ends_without_a_byte_gives_way_to_the_next(server, tmp_path):
    server.cuts = [0] * 3
    fetch(file(server, "/a", "/b"), tmp_path / "x.bin")
    assert [path for path, _ in server.asked] == ["/a", "/a", "/a", "/b"]


def test_after_404_the_mirror_is_asked(server, tmp_path):
    wanted = file(server, "/a", "/b")
    del server.content["/a"]
    fetch(wanted, tmp_path / "x.bin")
    assert server.asked == [("/a", None), ("/b", None)]


def test_other_bytes_are_never_taken(server, tmp_path):
    wanted = file(server, "/a", "/b")
    server.content |= {"/a": BYTES[::-1], "/b": BYTES + b"more"}
    with pytest.raises(Unavailable) as error:
        fetch(wanted, tmp_path / "x.bin")
    assert str(error.value) == (
        f"{server.url}/a: gives other bytes than those of the release (sha256); "
        f"{server.url}/b: has 10,244 bytes, expected 10,240"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_hub_vouches_for_its_bytes(server, tmp_path):
    wanted = file(server, "/resolve", n_bytes=None, sha256=None)
    server.content["/far"] = server.content.pop("/resolve")
    server.moved["/resolve"] = "/far"
    assert fetch(wanted, tmp_path / "x.bin") == sha256(BYTES)
    (tmp_path / "x.bin.part").write_bytes(b"other" * 100)
    assert fetch(wanted, tmp_path / "x.bin") == sha256(BYTES)


def test_a_full_disk_is_said_and_the_same_command_goes_on(server, small_disk):
    wanted = file(server, "/a", content=BYTES * 20)
    (small_disk / "filler").write_bytes(bytes(150_000))
    with pytest.raises(ProjectError, match=r"x\.bin\.part: No space left on device; what came stays, and the same"):
        fetch(wanted, small_disk / "x.bin")
    (small_disk / "filler").unlink()
    fetch(wanted, small_disk / "x.bin")
    assert (small_disk / "x.bin").read_bytes() == BYTES * 20
    assert re.fullmatch(r"bytes=\d{5,}-", server.asked[-1][1])


# An archive


def packed(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def unpacked(path, folder, names=("RTE/train.tsv",)):
    unpack(path, folder, "GLUE", [f"GLUE/{name}" for name in names], folder / "staging")


def test_only_what_is_read_is_unpacked(tmp_path):
    path = packed(tmp_path / "RTE.zip", {"RTE/train.tsv": "a", "RTE/dev.tsv": "b", "RTE/test.tsv": "c"})
    unpacked(path, tmp_path, ["RTE/train.tsv", "RTE/dev.tsv"])
    unpacked(path, tmp_path, ["RTE/train.tsv", "RTE/dev.tsv"])
    assert {p.name: p.read_text() for p in (tmp_path / "GLUE/RTE").iterdir()} == {"train.tsv": "a", "dev.tsv": "b"}


def test_an_own_file_is_not_overwritten(tmp_path):
    (tmp_path / "GLUE/RTE").mkdir(parents=True)
    (tmp_path / "GLUE/RTE/train.tsv").write_text("mine")
    with pytest.raises(Unavailable, match=r"GLUE/RTE/train\.tsv: is not the member of .*RTE\.zip; move it away"):
        unpacked(packed(tmp_path / "RTE.zip", {"RTE/train.tsv": "a"}), tmp_path)
    assert (tmp_path / "GLUE/RTE/train.tsv").read_text() == "mine"


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({"RTE/train.tsv": "a", "RTE/../../evil": "b"}, r"names a place outside of itself, 'RTE/\.\./\.\./evil'"),
        ({"RTE/train.tsv": "a", "/tmp/evil": "b"}, "names a place outside of itself, '/tmp/evil'"),
        ({link("RTE/train.tsv"): "/etc/passwd"}, "RTE/train.tsv: is a link or no file"),
        ({"RTE/dev.tsv": "a"}, r"RTE\.zip: has no member RTE/train\.tsv"),
    ],
)
def test_an_archive_that_reaches_out_is_refused(tmp_path, members, fault):
    with pytest.raises(Unavailable, match=fault):
        unpacked(packed(tmp_path / "RTE.zip", members), tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["RTE.zip"]


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1_000_000)
    path = packed(tmp_path / "RTE.zip", {"RTE/train.tsv": bytes(1_000_001)})
    with pytest.raises(Unavailable, match=r"train\.tsv: unpacks to 1,000,001 bytes, at most 1,000,000 are taken"):
        unpacked(path, tmp_path)
    content = path.read_bytes().replace((1_000_001).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(content)  # it says that it is small
    with pytest.raises(Unavailable, match="not a whole zip archive"):
        unpacked(path, tmp_path)
    assert not (tmp_path / "GLUE/RTE/train.tsv").exists()


def test_a_cut_archive_is_named(tmp_path):
    path = packed(tmp_path / "RTE.zip", {"RTE/train.tsv": "a" * 1_000})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(Unavailable, match=r"RTE\.zip: not a whole zip archive"):
        unpacked(path, tmp_path)


# The whole command


def rte_rows(split):
    n_rows = {"train": 2_490, "dev": 277}[split]
    lines = (f"{i}\tIt rained {i}.\tIt was wet.\t{'not_' * (i % 2)}entailment" for i in range(n_rows))
    return "index\tsentence1\tsentence2\tlabel\n" + "".join(f"{line}\n" for line in lines)


def reviews():
    """The archive of the reviews, made up: 1,000 a file."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for domain in ("books", "dvd", "electronics", "kitchen_&_housewares"):
            for label in ("negative", "positive"):
                texts = (f"<review><review_text>{domain} {i}</review_text></review>" for i in range(1_000))
                content = "\n".join(texts).encode()
                member = tarfile.TarInfo(f"sorted_data_acl/{domain}/{label}.review")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


@pytest.fixture
def offered(server, monkeypatch, tmp_path):
    """Made-up releases on the server: RTE in a zip, SST in three files, the reviews on the hub."""
    sst = {s: "".join(f"{i % 2} words {i}\n" for i in range(n)) for s, n in REGISTRY["sst"].official.items()}
    files = {f"/sst/{split}": lines.encode() for split, lines in sst.items()}
    files["/RTE.zip"] = packed(
        tmp_path / "made.zip", {f"RTE/{s}.tsv": rte_rows(s) for s in ("train", "dev")}
    ).read_bytes()
    server.content |= files | {"/far": reviews()}
    server.moved[f"/datasets/{REVIEWS.repository}/resolve/{REVIEWS.commit}/{REVIEWS.files['train'][0]}"] = "/far"

    def wanted(place, path):
        return Wanted(place, [server.url + path], len(files[path]), sha256(files[path]))

    tar = Wanted("domain_sentiment_data.tar", module.hub_urls("books", "train"))
    releases = [
        Release(["books", "dvd", "electronics", "kitchen"], "R", "T", [tar]),
        Release(["sst"], "R", "T", [wanted(f"SST/stsa.binary.{split}", f"/sst/{split}") for split in sst]),
        Release(["rte"], "GLUE", "none found", [wanted("GLUE/RTE.zip", "/RTE.zip")], "GLUE"),
    ]
    monkeypatch.setattr(module, "downloads", lambda: (releases, {}))
    return server


def test_nothing_is_fetched_unasked(offered, tmp_path, capsys):
    folder = tmp_path / "corpora"
    assert main(["get", str(folder), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "rte: 0.0 MB; to be fetched\n  release  GLUE\n  terms    none found\n" in said
    assert f"  from     {offered.url}/RTE.zip\n  or else  {offered.url}/datasets/nyu-mll/glue at {GLUE.commit}" in said
    assert main(["get", str(folder)]) == 2
    assert capsys.readouterr().err == "tsns: nothing was fetched: --accept says that you accept these terms\n"
    assert offered.asked == [] and not folder.exists()


def test_the_whole_of_get(offered, tmp_path, capsys):
    folder = tmp_path / "corpora"
    offered.cuts = [100_000, 50]
    assert main(["get", str(folder), "--accept"]) == 0
    said = capsys.readouterr().out
    assert "kitchen train: 2,000 rows in domain_sentiment_data.tar" in said
    assert "sst test: 1,821 rows in SST/stsa.binary.test" in said
    assert "rte dev: 277 rows in GLUE/RTE/dev.tsv" in said
    assert f"domain_sentiment_data.tar: fetched, sha256 {sha256(offered.content['/far'])}" in said
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "GLUE/RTE.zip", "GLUE/RTE/dev.tsv", "GLUE/RTE/train.tsv", "SST/stsa.binary.dev", "SST/stsa.binary.test",
        "SST/stsa.binary.train", "domain_sentiment_data.tar",
    ]  # fmt: skip
    before = len(offered.asked)
    assert main(["get", str(folder), "--accept"]) == 0
    assert len(offered.asked) == before


def test_an_original_that_is_gone_is_taken_from_the_hub(offered, tmp_path, capsys):
    del offered.content["/RTE.zip"]
    for split, n_rows in {"train": 2_490, "validation": 277}.items():
        rows = {"sentence1": ["It rained."] * n_rows, "sentence2": ["Wet."] * n_rows}
        target = io.BytesIO()
        pd.DataFrame(rows | {"label": [i % 2 for i in range(n_rows)], "idx": range(n_rows)}).to_parquet(target)
        place = f"/datasets/nyu-mll/glue/resolve/{GLUE.commit}/rte/{split}-00000-of-00001.parquet"
        offered.content[place] = target.getvalue()
    folder = tmp_path / "corpora"
    assert main(["get", str(folder), "rte", "--accept"]) == 0
    said = capsys.readouterr().out
    assert f"rte: {offered.url}/RTE.zip: HTTP 404 Not Found; taken from the hub instead" in said
    assert "rte train: 2,490 rows in hub/rte/train" in said and "rte dev: 277 rows in hub/rte/dev" in said
    assert main(["get", str(folder), "rte", "--accept"]) == 0


def test_what_is_nowhere_is_named_and_the_rest_is_fetched(offered, tmp_path, capsys):
    del offered.content["/RTE.zip"]
    folder = tmp_path / "corpora"
    assert main(["get", str(folder), "rte", "sst", "--accept"]) == 1
    said = capsys.readouterr().out
    assert "sst dev: 872 rows" in said
    assert (
        "rte: http" in said
        and "HTTP 404 Not Found" in said
        and "rte dev: rte: no GLUE/RTE/dev.tsv or hub/rte/dev" in said
    )
    assert list(folder.glob(".*")) == []


def test_a_slice_is_not_the_release(offered, tmp_path, capsys):
    folder = tmp_path / "corpora"
    (folder / "GLUE/RTE").mkdir(parents=True)
    for split in ("train", "dev"):
        (folder / f"GLUE/RTE/{split}.tsv").write_text("\n".join(rte_rows(split).splitlines()[:51]))
    (folder / "SST").mkdir()
    (folder / "SST/stsa.binary.dev").write_text("1 mine\n0 not theirs\n")
    assert main(["get", str(folder), "rte", "sst", "--accept"]) == 1
    said = capsys.readouterr().out
    assert "rte train: 50 rows, the official release has 2,490" in said
    assert "SST/stsa.binary.dev: is another file (20 bytes); move it away, and this one will be fetched" in said
    assert (folder / "SST/stsa.binary.dev").read_text() == "1 mine\n0 not theirs\n"


def test_two_calls_do_not_mix(offered, tmp_path):
    with module._staging(tmp_path), pytest.raises(ProjectError, match="another tsns get is at work in it"):
        get(tmp_path, ["sst"], accept=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ss"], "'ss' is not a corpus of Table 1: books, dvd, electronics"),
        (["sst", "--encoder", "gpt2"], "--encoder gpt2: must be one of bert-large-uncased, bert-base-uncased"),
    ],
)
def test_a_wrong_word_is_named(tmp_path, capsys, words, message):
    assert main(["get", str(tmp_path / "corpora"), *words]) == 2
    assert message in capsys.readouterr().err


# An encoder, by the hub's own client


@pytest.mark.parametrize("is_right", [True, False])
def test_an_encoder_is_fetched_at_its_commit_and_checked(server, tmp_path, is_right):
    folder = tiny_folder("bert", tmp_path / "tiny")
    names = [path.name for path in folder.iterdir() if path.suffix in (".json", ".txt", ".safetensors")]
    for name in names:
        server.content[f"/made-up/tiny/resolve/{GLUE.commit}/{name}"] = (folder / name).read_bytes()
    about = {"id": "made-up/tiny", "sha": GLUE.commit, "siblings": [{"rfilename": name} for name in names]}
    server.content[f"/api/models/made-up/tiny/revision/{GLUE.commit}"] = json.dumps(about).encode()
    tree = [{"type": "file", "path": n, "size": (folder / n).stat().st_size, "oid": "0" * 40} for n in names]
    server.content[f"/api/models/made-up/tiny/tree/{GLUE.commit}"] = json.dumps(tree).encode()
    digest = sha256((folder / "model.safetensors").read_bytes()) if is_right else "0" * 64
    run = (
        "import pathlib, sys; from tsns_workbook import get; "
        f"tiny = get.Weights('made-up/tiny', '{GLUE.commit}', 'Apache-2.0', 1, '{digest}'); "
        "get.downloads = lambda: ([], {'tiny': tiny}); "
        "sys.exit(get.get(pathlib.Path(sys.argv[1]), encoder='tiny', accept=True))"
    )
    own = {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", run, str(tmp_path / "corpora")], env=os.environ | own, capture_output=True, text=True
    )
    assert done.returncode == (not is_right), done.stderr
    assert f"tiny: 0.0 MB; to be fetched\n  terms    Apache-2.0\n  from     {server.url}/made-up/tiny at" in done.stdout
    expected = f"made-up/tiny: sha256 {digest}, as it should be" if is_right else f"and should be {digest}; delete it"
    assert expected in done.stdout


# What is offered in truth


def test_every_corpus_has_its_release():
    releases, encoders = downloads()
    assert [name for release in releases for name in release.corpora] == list(REGISTRY)
    for release in releases:
        assert (release.unpack is not None) == release.files[0].place.endswith(".zip")
        assert set(release.members) <= {
            places[0] for name in release.corpora for places in REGISTRY[name].files.values()
        }
        for wanted in release.files:
            assert wanted.n_bytes is None or wanted.n_bytes > 90_000
            assert wanted.sha256 is None or re.fullmatch("[0-9a-f]{64}", wanted.sha256)
            places = [p for name in release.corpora for places in REGISTRY[name].files.values() for p in places]
            assert release.unpack is not None or wanted.place in places
    assert [release.corpora[0] for release in releases if release.is_the_hubs] == ["books"]
    assert {name: wanted.commit for name, wanted in encoders.items()} == {
        "bert-large-uncased": "6da4b6a26a1877e173fca3225479512db81a5e5b",
        "bert-base-uncased": "86b5e0934494bd15c9632b12f734a8a67f723594",
    }


def test_the_paper_runs_on_the_encoder_that_is_offered():
    wanted = downloads()[1]["bert-large-uncased"]
    for path in (Path(__file__).parents[2] / "params/paper").glob("*.yaml"):
        facts = yaml.safe_load(path.read_text(encoding="utf-8"))
        if facts.get("encoder", "builtin:minilm") != "builtin:minilm":
            assert (facts["encoder"], facts["revision"]) == (wanted.repository, wanted.commit)
