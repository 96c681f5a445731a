"""Find the project's folder, and list the notebooks of a profile with their checked parameters."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tsns_lib.executors import check_scheduler

# YAML 1.1 reads 1e-3 as text because it wants a point in a number; a learning rate would silently become a string
_TEXT_THAT_MEANS_A_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


class ProjectError(ValueError):
    """One line that says what is wrong with the project, a profile or a parameter."""


@dataclass(frozen=True)
class Job:
    """A notebook of a profile: its parameters, where its work is computed, and the files that belong to it.

    `name` is the notebook's file name without the suffix. `scheduler` is kept apart from the parameters because
    results do not depend on it.
    """

    root: Path
    profile: str
    name: str
    parameters: dict[str, Any]
    scheduler: str | None = None

    @property
    def source(self) -> Path:
        """The notebook without outputs."""
        return self.root / "notebooks" / f"{self.name}.ipynb"

    @property
    def folder(self) -> Path:
        """Where the executed notebooks of this profile are."""
        return self.root / "outputs" / self.profile

    @property
    def output(self) -> Path:
        """The executed notebook; it exists only if every cell ran."""
        return self.folder / f"{self.name}.ipynb"

    @property
    def part(self) -> Path:
        """The notebook while it is being executed."""
        return self.folder / f".{self.name}.part.ipynb"

    @property
    def failed(self) -> Path:
        """A failed notebook, executed up to the cell that failed."""
        return self.folder / f"{self.name}.failed.ipynb"

    @property
    def results(self) -> Path:
        """The record that the notebook displays, as JSON."""
        return self.folder / f"{self.name}.results.json"

    @property
    def receipt(self) -> Path:
        """The hashes of everything that went into the output; written last."""
        return self.folder / ".receipts" / f"{self.name}.json"

    @property
    def reads_results(self) -> bool:
        """Whether it reads the results of the profile's other notebooks, as those numbered 00 do; it runs last."""
        return self.name.startswith("00_")


@dataclass(frozen=True)
class Outcome:
    """How a job ended: `status` is "ran", "up to date" or "failed"; `message` says why it failed."""

    job: Job
    status: str
    seconds: float
    message: str = ""

    @property
    def path(self) -> Path:
        """The notebook to open."""
        return self.job.failed if self.job.failed.exists() else self.job.output


def project_root() -> Path:
    """Return the folder that holds `notebooks/` and `params/`.

    It is the folder that TSNS_ROOT names. Without TSNS_ROOT it is the current folder or the nearest one above it,
    or else the checkout that the package is installed from.
    """
    named = os.environ.get("TSNS_ROOT")
    here = Path.cwd()
    candidates = [Path(named).resolve()] if named else [here, *here.parents, Path(__file__).resolve().parents[2]]
    for folder in candidates:
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    where = f"TSNS_ROOT={named} does" if named else f"{here} and the folders above it do"
    raise ProjectError(f"no project found: {where} not hold notebooks/ and params/ (set TSNS_ROOT to a checkout)")


def plan(
    root: Path,
    profile: str,
    names: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    scheduler: str | None = None,
) -> list[Job]:
    """List the notebooks of a profile in the order in which they run.

    A name may be the beginning of one, such as "04"; without names, every notebook with a parameter file is listed.
    `overrides` and `scheduler` win over the parameter file.
    """
    profiles = sorted(p.name for p in (root / "params").iterdir() if p.is_dir())
    if profile not in profiles:
        raise _unknown("profile", profile, profiles)
    notebooks = sorted(p.stem for p in (root / "notebooks").glob("*.ipynb"))
    members = sorted(p.stem for p in (root / "params" / profile).glob("*.yaml"))
    for stray in set(members) - set(notebooks):
        raise ProjectError(f"params/{profile}/{stray}.yaml has no notebook notebooks/{stray}.ipynb")
    chosen = set() if names else set(members)
    for name in names:
        matches = [name] if name in notebooks else [n for n in notebooks if n.startswith(name)]
        if not matches:
            raise _unknown("notebook", name, notebooks)
        chosen.update(matches)
    for name in sorted(chosen - set(members)):
        raise ProjectError(f"{name} is not part of profile {profile!r}: there is no params/{profile}/{name}.yaml")
    jobs = [_job(root, profile, name, overrides or {}, scheduler) for name in sorted(chosen)]
    return sorted(jobs, key=lambda job: job.reads_results)


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """Read `key=value` pairs; each value is YAML.

    Examples
    --------
    >>> parse_overrides(["runs=5", "neurons=[100, 300]", "encoder=builtin:minilm"])
    {'runs': 5, 'neurons': [100, 300], 'encoder': 'builtin:minilm'}
    """
    overrides = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise ProjectError(f"--param {pair!r} is not of the form key=value")
        overrides[key] = _read_yaml(text, f"--param {pair}")
    return overrides


def _job(root: Path, profile: str, name: str, overrides: Mapping[str, Any], scheduler: str | None) -> Job:
    import papermill  # takes 0.5 s, which a notebook that only asks for the root should not pay

    where = f"params/{profile}/{name}.yaml"
    from_file = _read_yaml((root / where).read_text(encoding="utf-8"), where)
    if not isinstance(from_file, dict | None):
        raise ProjectError(f"{where} is not a mapping of parameter: value, but a {type(from_file).__name__}")
    try:
        known = list(papermill.inspect_notebook(root / "notebooks" / f"{name}.ipynb"))
    except ValueError as error:  # not JSON, or it names no kernel
        raise ProjectError(f"notebooks/{name}.ipynb is not a readable notebook: {error}") from error
    _check_parameters(from_file or {}, known, name, where)
    _check_parameters(overrides, known, name, "--param")
    parameters = {**(from_file or {}), **overrides}
    scheduler_from_file = parameters.pop("scheduler", None)
    scheduler = scheduler or scheduler_from_file
    if scheduler:
        try:
            check_scheduler(scheduler)
        except ValueError as error:
            raise ProjectError(str(error)) from None
    return Job(root, profile, name, parameters, scheduler if "scheduler" in known else None)


def _check_parameters(parameters: Mapping[Any, Any], known: list[str], name: str, where: str) -> None:
    for key, value in parameters.items():
        if key not in known:
            raise _unknown(f"parameter of {name} in {where}:", str(key), known)
        if isinstance(value, str) and _TEXT_THAT_MEANS_A_NUMBER.fullmatch(value):
            raise ProjectError(f"{where}: {key}: {value} is text in YAML; write it with a point, as in 1.0e-3")


def _read_yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ProjectError(f"{where} is not readable YAML: {' '.join(str(error).split())}") from error


def _unknown(what: str, word: str, known: Sequence[str]) -> ProjectError:
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ProjectError(f"unknown {what} {word!r}{hint} (there are: {', '.join(known) or 'none'})")
