"""Fetch the corpora into a folder, and an encoder into the hub's cache: `tsns get`.

What is fetched, from where and under which terms is in `downloads.yaml`. A file is streamed into a part, which a later
call continues, and gets its place only when its bytes are right. Nothing that lies in the folder is overwritten.
"""

import http.client
import os
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml
from filelock import FileLock, Timeout
from huggingface_hub import constants, try_to_load_from_cache

from tsns_lib.corpora.registry import REGISTRY
from tsns_lib.corpora.sources import load_source
from tsns_lib.encoders import load_encoder
from tsns_lib.executors import bar
from tsns_lib.store import sha256_of
from tsns_workbook.project import ProjectError

WEIGHTS = "model.safetensors"
STAGING = ".tsns-get"  # in the folder: parts, and the hub's files of a split until all are there
CHUNK = 1 << 20
TRIES = 3  # connections in a row that bring nothing, before the next address is tried
PAUSE = 2.0  # seconds between two of them
TIMEOUT = 60.0  # seconds without a byte
MOST_BYTES = 1_000_000_000  # of a file whose size is not known and of a member; the largest member has half of that


class Unavailable(ProjectError):
    """An address that does not give what it should; another one may."""


class _Cut(Exception):
    """The connection broke; what came is kept."""


@dataclass(frozen=True)
class Wanted:
    """A file: its place in the folder, the addresses to try, and its size and sha256 where they are known."""

    place: str
    urls: Sequence[str]
    n_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Release:
    """Files that belong together; `members` are the places of what is unpacked from its archive into `unpack`."""

    corpora: Sequence[str]
    release: str
    terms: str
    files: tuple[Wanted, ...]
    unpack: str | None = None

    @property
    def splits(self) -> list[tuple[str, str]]:
        """Every corpus with each of its splits."""
        return [(name, split) for name in self.corpora for split in REGISTRY[name].files]

    @property
    def members(self) -> list[str]:
        """What is unpacked, by its place in the folder."""
        return [] if self.unpack is None else [REGISTRY[name].files[split][0] for name, split in self.splits]

    @property
    def is_the_hubs(self) -> bool:
        """Whether its files are the hub's in the first place."""
        return list(self.files[0].urls) == hub_urls(self.corpora[0], "train")

    def is_there(self, folder: Path) -> bool:
        """Whether every split has its files, in the original form or in another."""
        return all(any((folder / p).exists() for p in REGISTRY[name].files[split]) for name, split in self.splits)


@dataclass(frozen=True)
class Weights:
    """An encoder on the hub: the commit, and the size and sha256 of its `model.safetensors`."""

    repository: str
    commit: str
    terms: str
    n_bytes: int
    sha256: str


@cache
def downloads() -> tuple[list[Release], dict[str, Weights]]:
    """Everything of `downloads.yaml`: the releases, and the encoders by name."""
    facts = yaml.safe_load(files(__package__).joinpath("downloads.yaml").read_text(encoding="utf-8"))
    return [_release(**release) for release in facts["releases"]], {
        name: Weights(**encoder) for name, encoder in facts["encoders"].items()
    }


def _release(files: list[dict[str, Any]], **facts: Any) -> Release:
    on_the_hub = {"urls": hub_urls(facts["corpora"][0], "train")}
    return Release(files=tuple(Wanted(**on_the_hub | file) for file in files), **facts)


def hub_urls(name: str, split: str) -> list[str]:
    """Where the files of a split lie on the hub, at the pinned commit."""
    hub = REGISTRY[name].hub
    return [f"{constants.ENDPOINT}/datasets/{hub.repository}/resolve/{hub.commit}/{file}" for file in hub.files[split]]


def get(
    folder: Path, names: Sequence[str] = (), *, encoder: str | None = None, accept: bool = False, dry_run: bool = False
) -> int:
    """Fetch corpora, by default all, and return the exit status: 0 if every split is there and is as it should be.

    Terms, sizes and sources are printed first; only with `accept` is anything fetched.
    """
    for name in names:
        if name not in REGISTRY:
            raise ProjectError(f"{name!r} is not a corpus of Table 1: {', '.join(REGISTRY)}")
    known, encoders = downloads()
    chosen = [release for release in known if not names or set(names) & set(release.corpora)]
    if encoder is not None and encoder not in encoders:
        raise ProjectError(f"--encoder {encoder}: must be one of {', '.join(encoders)}")
    for release in chosen:
        _say(release, folder)
    if encoder is not None:
        _say_encoder(encoder, encoders[encoder])
    if dry_run:
        return 0
    if not accept:
        raise ProjectError("nothing was fetched: --accept says that you accept these terms")
    faults = []
    with _staging(folder) as staging:
        for release in chosen:
            try:
                _obtain(release, folder, staging)
            except Unavailable as error:
                faults.append(f"{', '.join(release.corpora)}: {error}")
    if encoder is not None:
        faults += _obtain_encoder(encoders[encoder])
    faults += _compare(chosen, folder)
    for fault in faults:
        print(fault)
    return int(bool(faults))


# before


def _say(release: Release, folder: Path) -> None:
    size = f"{sum(file.n_bytes for file in release.files if file.n_bytes) / 1e6:.1f} MB"
    known = all(file.n_bytes for file in release.files)
    state = "is there" if release.is_there(folder) else "to be fetched"
    print(f"{', '.join(release.corpora)}: {size if known else 'size not known'}; {state}")
    print(f"  release  {release.release}")
    print(f"  terms    {release.terms}")
    for file in release.files:
        print(f"  from     {' or '.join(file.urls)}")
    if not release.is_the_hubs:
        hub = REGISTRY[release.corpora[0]].hub
        print(f"  or else  {constants.ENDPOINT}/datasets/{hub.repository} at {hub.commit}")


def _say_encoder(name: str, wanted: Weights) -> None:
    there = isinstance(try_to_load_from_cache(wanted.repository, WEIGHTS, revision=wanted.commit), str)
    print(f"{name}: {wanted.n_bytes / 1e6:.1f} MB; {'is there' if there else 'to be fetched'}")
    print(f"  terms    {wanted.terms}\n  from     {constants.ENDPOINT}/{wanted.repository} at {wanted.commit}")


# one release


def _obtain(release: Release, folder: Path, staging: Path) -> None:
    """Bring a release into the folder: what is there is checked, what is missing fetched, from the hub if need be."""
    whole = release.is_there(folder)
    for file in release.files:
        if (folder / file.place).exists():
            _check_present(folder / file.place, file)
    try:
        for file in release.files:
            if not whole and not (folder / file.place).exists():
                digest = fetch(file, staging / file.place)
                (folder / file.place).parent.mkdir(parents=True, exist_ok=True)
                os.replace(staging / file.place, folder / file.place)
                print(f"{file.place}: fetched, sha256 {digest}")
    except Unavailable as error:
        if release.is_the_hubs:
            raise
        print(f"{', '.join(release.corpora)}: {error}; taken from the hub instead")
        for name, split in release.splits:
            _copy_from_hub(name, split, folder, staging)
        return
    if release.unpack is not None and (folder / release.files[0].place).exists():
        unpack(folder / release.files[0].place, folder, release.unpack, release.members, staging)


def _check_present(path: Path, file: Wanted) -> None:
    size = path.stat().st_size
    if (file.n_bytes and size != file.n_bytes) or (file.sha256 and sha256_of(path) != file.sha256):
        raise Unavailable(f"{path}: is another file ({size:,} bytes); move it away, and this one will be fetched")


def _copy_from_hub(name: str, split: str, folder: Path, staging: Path) -> None:
    """Fetch the hub's files of a split; the folder they lie in comes into being when all are there."""
    place = REGISTRY[name].files[split][-1]
    if (folder / place).exists():
        return
    urls = hub_urls(name, split)
    for url in urls:
        path = staging / place / PurePosixPath(urlsplit(url).path).name
        if not path.exists():
            print(f"{place}/{path.name}: fetched, sha256 {fetch(Wanted(place, (url,)), path)}")
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    os.replace(staging / place, folder / place)


# one file


def fetch(file: Wanted, path: Path) -> str:
    """Stream a file to `path` from the first address that gives the right bytes; return their sha256.

    A part that is left from before is continued. Raises Unavailable where no address serves.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    faults = []
    for url in file.urls:
        try:
            begun = part.exists()
            digest = _fetched(url, file, part)
            if digest is None and begun:  # the part may have been of another file
                digest = _fetched(url, file, part)
            if digest is not None:
                os.replace(part, path)
                return digest
            faults.append(f"{url}: gives other bytes than those of the release (sha256)")
        except Unavailable as error:
            faults.append(f"{url}: {error}")
        except OSError as error:
            stays = "what came stays, and the same command continues there"
            raise ProjectError(f"{part}: {error.strerror or error}; {stays}") from error
    raise Unavailable("; ".join(faults))


def _fetched(url: str, file: Wanted, part: Path) -> str | None:
    """The sha256 of what an address gave; None, and no part, if it is not the one that it should be."""
    promised = _stream(url, part, file.n_bytes)
    digest, expected = sha256_of(part), file.sha256 or promised
    if expected in (None, digest):
        return digest
    part.unlink()
    return None


def _stream(url: str, part: Path, n_bytes: int | None) -> str | None:
    """Bring all of a file into its part, over as many connections as it takes; what the hub says is its sha256."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        if n_bytes and before >= n_bytes:
            if before == n_bytes:
                return None
            part.unlink()
        try:
            return _connect(url, part, n_bytes)
        except _Cut as cut:
            failures = 0 if part.exists() and part.stat().st_size > before else failures + 1
            if failures == TRIES:
                raise Unavailable(f"{TRIES} connections in a row brought nothing ({cut})") from None
            time.sleep(PAUSE)


def _connect(url: str, part: Path, n_bytes: int | None) -> str | None:
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "tsns", "Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    hub = _HubDigest()
    try:
        response = urllib.request.build_opener(hub).open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # the part is not of this file
                part.unlink()
                raise _Cut("the part did not fit") from None
            if error.code == 429 or error.code >= 500:
                raise _Cut(f"HTTP {error.code}") from None
            raise Unavailable(f"HTTP {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:  # of the network: URLError, a timeout
        raise _Cut(str(error) or type(error).__name__) from None
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise Unavailable("continues at another byte than the one asked for")
        start = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = n_bytes if length is None else start + int(length)
        if n_bytes and total != n_bytes:
            raise Unavailable(f"has {total:,} bytes, expected {n_bytes:,}")
        most = total or MOST_BYTES
        with (
            part.open("ab" if resumed else "wb") as target,
            bar(total=total, initial=start, desc=part.stem, unit="B", unit_scale=True, show=True) as progress,
        ):
            while chunk := _read(response):
                start += len(chunk)
                if start > most:
                    raise Unavailable(f"gives more than {most:,} bytes")
                target.write(chunk)
                progress.update(len(chunk))
        if total is not None and start < total:
            raise _Cut(f"cut at byte {start:,} of {total:,}")
        return hub.digest


def _read(response: Any) -> bytes:
    try:
        return bytes(response.read(CHUNK))
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(str(error) or type(error).__name__) from None


class _HubDigest(urllib.request.HTTPRedirectHandler):
    """Notes the sha256 that the hub names of a large file when it sends one on to where the file lies."""

    digest: str | None = None

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        named = headers.get("X-Linked-Etag", "").strip('"')
        self.digest = named if len(named) == 64 else self.digest
        return super().redirect_request(req, fp, code, msg, headers, newurl)


# an archive


def unpack(path: Path, folder: Path, into: str, places: Sequence[str], staging: Path) -> None:
    """Unpack the members that are read, each to its place; one that is there already must be the same."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            for name in members:
                if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
                    raise Unavailable(f"{path}: names a place outside of itself, {name!r:.80}")
            for place in places:
                name = str(PurePosixPath(place).relative_to(into))
                if name not in members:
                    raise Unavailable(f"{path}: has no member {name}")
                _unpack_member(archive, members[name], folder / place, staging / place)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise Unavailable(f"{path}: not a whole zip archive ({error})") from error


def _unpack_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, part: Path) -> None:
    where = f"{archive.filename}, {info.filename}"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG) or info.is_dir():
        raise Unavailable(f"{where}: is a link or no file")
    if info.file_size > MOST_BYTES:
        raise Unavailable(f"{where}: unpacks to {info.file_size:,} bytes, at most {MOST_BYTES:,} are taken")
    if path.exists():
        if (path.stat().st_size, _crc32(path)) != (info.file_size, info.CRC):
            raise Unavailable(f"{path}: is not the member of {archive.filename}; move it away, and it will be unpacked")
        return
    try:
        for file in (part, path):
            file.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as member, part.open("wb") as target:  # its size and checksum are compared at its end
            shutil.copyfileobj(member, target, CHUNK)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ProjectError(f"{path}: {error.strerror or error}; make room, and the same command goes on") from error
    print(f"{path}: unpacked")


def _crc32(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """The folder for parts, for one process at a time; it goes when no part is left in it."""
    staging = folder / STAGING
    staging.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(staging / "lock", timeout=0):
            yield staging
    except Timeout:
        raise ProjectError(f"{folder}: another tsns get is at work in it") from None
    if not any(path.is_file() for path in staging.rglob("*") if path.name != "lock"):
        shutil.rmtree(staging, ignore_errors=True)


# an encoder, and the counts


def _obtain_encoder(wanted: Weights) -> list[str]:
    found = load_encoder(
        wanted.repository, revision=wanted.commit
    )  # fetched by the hub's own client, which resumes too
    if (digest := found.files.get(WEIGHTS)) != wanted.sha256:
        return [f"{found.folder / WEIGHTS}: sha256 is {digest}, and should be {wanted.sha256}; delete it"]
    print(f"{wanted.repository}: sha256 {digest}, as it should be")
    return []


def _compare(chosen: Sequence[Release], folder: Path) -> list[str]:
    """Read every split, print its usable rows, and return what is not as in the official release."""
    faults = []
    for name, split in (pair for release in chosen for pair in release.splits):
        official = REGISTRY[name].official[split]
        try:
            source = load_source(name, split=split, data_dir=folder)
        except (OSError, ValueError) as error:
            faults.append(f"{name} {split}: {error}")
            continue
        print(f"{name} {split}: {source.n_rows:,} rows in {source.origin['path']}")
        if source.n_rows != official:
            faults.append(f"{name} {split}: {source.n_rows:,} rows, the official release has {official:,}")
    return faults
