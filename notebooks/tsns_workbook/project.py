"""Where the workbook lies, and what a profile runs: notebooks, parameter files and their checks."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tsns_lib.executors import check_scheduler

# YAML 1.1 reads 1e-3 as text, because its numbers need a point: a silent trap for a learning rate.
_TEXT_THAT_MEANS_A_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


class ProjectError(ValueError):
    """One line that says what is wrong with the project, a profile or a parameter."""


@dataclass(frozen=True)
class Job:
    """One notebook of one profile with its parameters, and the files that belong to it.

    Parameters
    ----------
    root : Path
        The project's folder.
    profile : str
        The folder of `params/` that the parameters come from.
    name : str
        The notebook's file name without its suffix.
    parameters : dict
        What is injected after the notebook's `parameters` cell.
    scheduler : str, optional
        Where the notebook's units of work are computed; no part of what its output is made of.
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
        """Where this profile's executed notebooks lie."""
        return self.root / "outputs" / self.profile

    @property
    def output(self) -> Path:
        """The executed notebook, there only when every cell ran."""
        return self.folder / f"{self.name}.ipynb"

    @property
    def part(self) -> Path:
        """The notebook while it is being executed."""
        return self.folder / f".{self.name}.part.ipynb"

    @property
    def failed(self) -> Path:
        """The notebook as far as it came when it failed."""
        return self.folder / f"{self.name}.failed.ipynb"

    @property
    def results(self) -> Path:
        """The notebook's figures as JSON."""
        return self.folder / f"{self.name}.results.json"

    @property
    def gathers(self) -> bool:
        """Whether it reads the figures of the profile's other notebooks: those numbered 00 do, and come last."""
        return self.name.startswith("00_")

    @property
    def receipt(self) -> Path:
        """What the output was made of; written last."""
        return self.folder / ".receipts" / f"{self.name}.json"


def project_root() -> Path:
    """Find the project's folder: the one that holds `notebooks/` and `params/`.

    Returns
    -------
    Path
        The folder that TSNS_ROOT names; else the first such folder from the current one upwards; else the one
        above the package, where it is installed from a checkout.

    Raises
    ------
    ProjectError
        None of these holds `notebooks/` and `params/`.
    """
    named = os.environ.get("TSNS_ROOT")
    here = Path.cwd()
    candidates = [Path(named).resolve()] if named else [here, *here.parents, Path(__file__).resolve().parents[2]]
    for folder in candidates:
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    where = f"TSNS_ROOT={named}" if named else f"{here} and the folders above it"
    raise ProjectError(f"no project found: {where} hold no notebooks/ and params/ (set TSNS_ROOT to a checkout)")


def plan(
    root: Path,
    profile: str,
    names: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    scheduler: str | None = None,
) -> list[Job]:
    """List the notebooks of a profile with their checked parameters.

    Parameters
    ----------
    root : Path
        The project's folder.
    profile : str
        A folder of `params/`.
    names : sequence of str
        Notebooks by name or by its beginning, such as "04". Default: every notebook that has a parameter file
        in this profile.
    overrides : mapping, optional
        Parameters that win over those of the file.
    scheduler : str, optional
        For every notebook that has a parameter of this name; wins, too.

    Returns
    -------
    list of Job
        In the order of the notebooks' names, those that gather the others' figures last.

    Raises
    ------
    ProjectError
        An unknown profile, notebook or parameter; a parameter file that is no mapping or has no notebook.
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
    return sorted(jobs, key=lambda job: job.gathers)


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """Read `key=value` pairs, each value as YAML.

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
    import papermill  # 0.5 s, and a notebook that asks for the root should not pay it

    file = root / "params" / profile / f"{name}.yaml"
    where = f"params/{profile}/{name}.yaml"
    given = _read_yaml(file.read_text(encoding="utf-8"), where)
    if not isinstance(given, dict | None):
        raise ProjectError(f"{where} is not a mapping of parameter: value, but a {type(given).__name__}")
    try:
        known = list(papermill.inspect_notebook(root / "notebooks" / f"{name}.ipynb"))
    except ValueError as error:  # not JSON, or no kernel named
        raise ProjectError(f"notebooks/{name}.ipynb is not a readable notebook: {error}") from error
    for origin, parameters in ((where, given or {}), ("--param", overrides)):
        for key, value in parameters.items():
            if key not in known:
                raise _unknown(f"parameter of {name} in {origin}:", str(key), known)
            if isinstance(value, str) and _TEXT_THAT_MEANS_A_NUMBER.fullmatch(value):
                raise ProjectError(f"{origin}: {key}: {value} is text in YAML; write it with a point, as in 1.0e-3")
    parameters = {**(given or {}), **overrides}
    own = parameters.pop("scheduler", None)
    chosen = scheduler or own
    if chosen:
        try:
            check_scheduler(chosen)
        except ValueError as error:
            raise ProjectError(str(error)) from None
    return Job(root, profile, name, parameters, chosen if "scheduler" in known else None)


def _read_yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ProjectError(f"{where} is not readable YAML: {' '.join(str(error).split())}") from error


def _unknown(what: str, word: str, known: Sequence[str]) -> ProjectError:
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ProjectError(f"unknown {what} {word!r}{hint} (there are: {', '.join(known) or 'none'})")
