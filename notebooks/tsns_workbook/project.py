"""Find the project's folder, and list the notebooks of a profile with their checked parameters."""

import ast
import difflib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from tsns_lib.corpora.registry import REGISTRY
from tsns_lib.executors import check_scheduler

# what a parameter may be declared as in a notebook; "float or str" allows both
_TYPES = {"bool": bool, "int": int, "float": int | float, "str": str, "list": list, "dict": dict}

# Notebooks that compare with figures which the paper has of its own corpora only.
OF_THE_PAPER = ("01_table1", "03_figure2", "04_table2", "05_table3", "06_table4", "07_table5", "12_task")


class ProjectError(ValueError):
    """One line that says what is wrong with the project, a profile or a parameter."""


@dataclass(frozen=True)
class Job:
    """A notebook of a profile: its parameters, where its work is computed, and the files that belong to it.

    `name` is the notebook's file name without the suffix. `defaults` are the values that the notebook itself gives to
    its parameters. `scheduler` is kept apart from the parameters because results do not depend on it. `changed` says
    that `--param` changed a parameter: such a run has files of its own and leaves those of the profile alone.
    """

    root: Path
    profile: str
    name: str
    parameters: dict[str, Any]
    scheduler: str | None = None
    changed: bool = False
    defaults: dict[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Any]:
        """The value of every parameter, the notebook's own where the profile says nothing."""
        return self.defaults | self.parameters

    @property
    def source(self) -> Path:
        """The notebook without outputs."""
        return self.root / "notebooks" / f"{self.name}.ipynb"

    @property
    def folder(self) -> Path:
        """Where the executed notebooks of this profile are: outputs/mini, and outputs/mini+ for changed parameters."""
        return self.root / "outputs" / (f"{self.profile}+" if self.changed else self.profile)

    @property
    def parameter_file(self) -> Path:
        """What the profile says of this notebook."""
        return self.root / "params" / self.profile / f"{self.name}.yaml"

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
    *,
    unreadable: list[Outcome] | None = None,
) -> list[Job]:
    """List the notebooks of a profile in the order in which they run.

    A name may be the beginning of one, such as "04"; without names, every notebook with a parameter file is listed.
    `overrides` and `scheduler` win over the parameter file. A notebook or parameter file that is wrong in itself is a
    ProjectError; with `unreadable`, its outcome is put there, and the other notebooks are listed.
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
    jobs = []
    for name in sorted(chosen):
        job = Job(root, profile, name, {})
        try:
            declared, from_file = _read_files(job)
        except ProjectError as error:
            if unreadable is None:
                raise
            unreadable.append(Outcome(job, "failed", 0.0, str(error)))
            continue
        jobs.append(_with_parameters(job, declared, from_file, overrides or {}, scheduler))
    return sorted(jobs, key=lambda job: job.reads_results)


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """Read `key=value` pairs; each value is YAML.

    Examples
    --------
    >>> parse_overrides(["runs=5", "neurons=[100, 300]", "encoder=builtin:minilm", "rate=1e-3"])
    {'runs': 5, 'neurons': [100, 300], 'encoder': 'builtin:minilm', 'rate': 0.001}
    """
    overrides = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise ProjectError(f"--param {pair!r} is not of the form key=value")
        if key in overrides:
            raise ProjectError(f"--param {pair}: {key} is given twice")
        overrides[key] = _read_yaml(text, f"--param {pair}")
    return overrides


def _read_files(job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a notebook declares, as papermill finds it, and its parameter file, checked against that."""
    import papermill  # takes 0.5 s, which a notebook that only asks for the root should not pay

    where = job.parameter_file.relative_to(job.root).as_posix()
    from_file = _read_yaml(_read_text(job.parameter_file, where), where)
    if not isinstance(from_file, dict | None):
        raise ProjectError(f"{where} is not a mapping of parameter: value, but a {type(from_file).__name__}")
    try:
        declared = papermill.inspect_notebook(job.source)
    except Exception as error:  # not JSON, not UTF-8, no notebook in some other way, or it names no kernel
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ProjectError(f"notebooks/{job.name}.ipynb is not a readable notebook: {reason:.200}") from error
    _check_parameters(from_file or {}, declared, job.name, where)
    return declared, from_file or {}


def _with_parameters(
    job: Job, declared: dict[str, Any], from_file: dict[str, Any], overrides: Mapping[str, Any], scheduler: str | None
) -> Job:
    _check_parameters(overrides, declared, job.name, "--param")
    parameters = {**from_file, **overrides}
    _refuse_own_text(job.name, parameters)
    scheduler = scheduler or parameters.pop("scheduler", None)
    if scheduler:
        try:
            check_scheduler(scheduler)
        except ValueError as error:
            raise ProjectError(str(error)) from None
    parameters.pop("scheduler", None)
    others = overrides.keys() - {"scheduler"}
    changed = any(repr(from_file.get(key, ...)) != repr(overrides[key]) for key in others)  # 1.0 equals 1, as a value
    place = scheduler if "scheduler" in declared else None
    defaults = {name: _literal(facts["default"]) for name, facts in declared.items()}
    return replace(job, parameters=parameters, scheduler=place, changed=changed, defaults=defaults)


def _refuse_own_text(name: str, parameters: Mapping[str, Any]) -> None:
    """Raise a ProjectError where a notebook that stands beside the paper's figures is given other corpora."""
    if not name.startswith(OF_THE_PAPER):
        return
    for key in ("sources", "targets", "null_sources"):
        for corpus in parameters.get(key) or ():
            known = str(corpus).partition("@")[0].rpartition(":")[2] in REGISTRY
            if not known:
                fault = f"{corpus!r} is no corpus of the paper, whose figures and domains this notebook compares"
                raise ProjectError(f"{key} of {name}: {fault}; 30 and 08, 10, 11, 13, 14, 15, 20 take your own")


def _literal(code: str) -> Any:
    """The value of a default that a notebook gives to a parameter; an expression stays text."""
    try:
        return ast.literal_eval(code)
    except (ValueError, SyntaxError):
        return code


def _check_parameters(parameters: Mapping[Any, Any], declared: Mapping[str, Any], name: str, where: str) -> None:
    for key, value in parameters.items():
        if key not in declared:
            raise _unknown(f"parameter of {name} in {where}:", str(key), list(declared))
        kinds = declared[key]["inferred_type_name"].split(" or ")
        if set(kinds) <= _TYPES.keys() and not any(_is_a(kind, value) for kind in kinds):
            raise ProjectError(f"{where}: {key} of {name} must be {' or '.join(kinds)}, not {value!r:.80}")
        own = _literal(declared[key]["default"])
        for stray in _strays(value, own):
            kind = f"is of another kind than what the notebook itself has, {own!r:.60}"
            raise ProjectError(f"{where}: {key} of {name}: {stray!r:.60} {kind}")


def _is_a(kind: str, value: Any) -> bool:
    if isinstance(value, bool):  # which Python counts among the whole numbers
        return kind == "bool"
    return isinstance(value, _TYPES[kind])


def _strays(value: Any, own: Any) -> Iterator[Any]:
    """What stands in a list or mapping, at any depth, where the notebook's own value has nothing of its kind."""
    for elements, models in zip(_elements(value), _elements(own), strict=False):
        for element in elements if models else []:
            alike = [model for model in models if _is_a(type(model).__name__, element)]
            if not alike:
                yield element
            for model in alike[:1]:
                yield from _strays(element, model)


def _elements(value: Any) -> list[list[Any]]:
    if isinstance(value, dict):
        return [list(value), list(value.values())]
    return [value] if isinstance(value, list) else []


def _read_text(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProjectError(f"{where} is not in UTF-8: {error}") from error
    except OSError as error:
        raise ProjectError(f"{where} cannot be read: {error.strerror}") from error


class _Yaml12(yaml.SafeLoader):
    """YAML 1.2, without what YAML 1.1 reads in another way.

    PyYAML follows YAML 1.1, where no is False, 010 is 8, 1:30 is 90, 2020-01-01 is a date and 1e-3 is text. Here
    numbers are decimal, such a word is refused, and so are a key that stands twice, a tag, which brings the rules of
    YAML 1.1 back, and an alias, of which a few lines can make more than fits in memory.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # those of YAML 1.2 are added below

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ConstructorError(None, None, "an alias (*) is not read; write it out", self.peek_event().start_mark)
        if tag := getattr(self.peek_event(), "tag", None):
            named = tag.replace("tag:yaml.org,2002:", "!!")
            reason = f"a tag ({named:.40}) is not read; write the value without it"
            raise ConstructorError(None, None, reason, self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise ConstructorError(None, None, f"the key {key!r} stands twice", node.value[number][0].start_mark)
        return super().construct_mapping(node, deep)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        word = node.value
        rules = [rule for _, rule in yaml.SafeLoader.yaml_implicit_resolvers.get(word[:1], [])]
        if node.style is None and any(rule.fullmatch(word) for rule in [*rules, re.compile(r"[-+]?0o?\d+")]):
            reason = f"{word} is text for some readers of YAML and not for others; for text, write {word!r}"
            raise ConstructorError(None, None, reason, node.start_mark)
        return str(self.construct_scalar(node))

    def construct_real(self, node: yaml.ScalarNode) -> float:
        number = self.construct_yaml_float(node)
        if math.isinf(number) and node.value[-1].isdigit():
            raise ConstructorError(None, None, f"{node.value:.40} is too large for a number", node.start_mark)
        return number


_Yaml12.add_constructor("tag:yaml.org,2002:str", _Yaml12.construct_text)
_Yaml12.add_constructor("tag:yaml.org,2002:float", _Yaml12.construct_real)
_WHOLE, _EXPONENT = "(0|[1-9][0-9]*)", "[eE][-+]?[0-9]+"
for _kind, _pattern in {
    "null": "~|null|Null|NULL|",
    "bool": "true|True|TRUE|false|False|FALSE",
    "int": f"[-+]?{_WHOLE}",
    "float": rf"[-+]?({_WHOLE}\.[0-9]*|\.[0-9]+)({_EXPONENT})?|[-+]?{_WHOLE}{_EXPONENT}|[-+]?\.inf|\.nan",
}.items():
    _Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"({_pattern})$"), None)


def _read_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Yaml12)  # noqa: S506 - a subclass of the safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error)
        place = f"line {mark.line + 1}: " if mark else ""
        raise ProjectError(f"{where} is not readable YAML: {place}{' '.join(reason.split())}") from error


def _unknown(what: str, word: str, known: Sequence[str]) -> ProjectError:
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ProjectError(f"unknown {what} {word!r}{hint} (there are: {', '.join(known) or 'none'})")
