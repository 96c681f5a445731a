"""Table 1 as typed values; the facts themselves are in `table1.yaml`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from tsns_lib.corpora import readers

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Hub:
    """Where a corpus lies on the Hugging Face hub, and how its columns and labels read there.

    `files` are what is read of each split at `commit`: Parquet, JSONL, or the archive that the corpus's own reader
    reads. `labels` maps the hub's label to ours, or to the reason why the row is skipped. `quoted` says that its texts
    still have the CSV quoting of the original.
    """

    repository: str
    commit: str
    files: Mapping[str, tuple[str, ...]]
    columns: tuple[str, str | None, str] = ("text", None, "label")
    labels: Mapping[int | str, int | str] = field(default_factory=lambda: {0: 0, 1: 1})
    quoted: bool = False


@dataclass(frozen=True)
class Corpus:
    """One row of Table 1; `table1.yaml` says what its fields mean. `classes` names labels 0 and 1.

    The last of the `files` is a folder with the hub's files of that split, where the original cannot be had.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    read: Callable[[Path], readers.Reading]
    files: Mapping[str, tuple[str, ...]]
    official: Mapping[str, int]
    paper: Mapping[str, int]
    hub: Hub
    target: str | None = None
    copy: str | None = None


@cache
def read_yaml(name: str) -> Any:
    """Read a YAML file beside this module, once per process; callers must not change the value."""
    return yaml.safe_load(files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _corpus(name: str, facts: dict[str, Any]) -> Corpus:
    read = getattr(readers, facts["reader"])
    hub = facts["hub"]
    return Corpus(
        name=name,
        task=facts["task"],
        classes=tuple(read_yaml("table1.yaml")["classes"][facts["task"]]),
        read=partial(read, domain=facts["domain"]) if "domain" in facts else read,
        files={split: (*places, f"hub/{name}/{split}") for split, places in facts["files"].items()},
        official=facts["official"],
        paper=facts["paper"],
        hub=Hub(**hub | {"columns": tuple(hub.get("columns", Hub.columns))}),
        target=facts.get("target"),
        copy=facts.get("copy"),
    )


REGISTRY = {name: _corpus(name, facts) for name, facts in read_yaml("table1.yaml")["corpora"].items()}
