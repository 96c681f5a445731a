"""Encoders that a function makes from another, kept in the store as folders that load like any other's."""

import functools
import itertools
import json
import logging
import pkgutil
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import SourceFileLoader
from importlib.metadata import version
from inspect import isclass, isfunction, ismodule, unwrap
from os import PathLike
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from filelock import FileLock, Timeout

from tsns_lib.encoders import SEAL, WEIGHTS_INDEX, Encoder, check_encoder, load_encoder, quiet_transformers, seal
from tsns_lib.store import Entry, Store, StoreError, code_digest, content_hash
from tsns_lib.store.files import once
from tsns_lib.store.manifest import plain

if TYPE_CHECKING:
    from torch import nn

    Prepare = Callable[[nn.Module], nn.Module]

log = logging.getLogger(__name__)


def prepared_encoder(
    encoder: Encoder, prepare: "Prepare", *, store: Store | str | PathLike[str] | None = None
) -> Encoder:
    """The encoder with something done to its model, such as layers re-initialised or put in another order.

    `prepare` is a ``functools.partial`` of a function of a module; it takes a model and returns another, and its
    arguments are plain JSON.

    Examples
    --------
    >>> from functools import partial
    >>> from tsns_lib.encoders import load_encoder
    >>> from tsns_lib.transferability.reinitialization import reinitialize
    >>> prepared = prepared_encoder(load_encoder(), partial(reinitialize, layers=[4, 5], seed=1))
    >>> prepared.n_neurons, prepared.digest == load_encoder().digest
    (2304, False)
    """
    from tsns_workbook.finetuning.model import fresh_model

    check_encoder(encoder)
    identity = {"encoder": encoder.digest, "prepare": identity_of(prepare)}
    return stored_encoder(encoder, lambda: as_keyed(prepare)(fresh_model(encoder)), identity, Store(store))


def stored_encoder(
    encoder: Encoder, altered: "Callable[[], nn.Module]", identity: dict[str, Any], store: Store
) -> Encoder:
    """The encoder with another model in it; `altered` makes the model where the store has no sound folder of it.

    The seal is written last. So a folder without it was left by a writer that was killed, and is filled again.
    """
    entry = store.entry("encoders", identity)

    def kept() -> Encoder | None:
        if not (entry.path / SEAL).is_file():
            return None
        found = load_encoder(entry.path, device=encoder.requested_device, dtype=encoder.dtype)
        if _of_the_tokenizer(found) != _of_the_tokenizer(encoder):
            raise StoreError(f"{entry.path}: has another tokenizer than {encoder.name}")
        return found

    if (entry.path / SEAL).is_file() and not entry.is_claimed():
        log.warning("%s: its identity is another; this encoder is made again", entry.path)
        (entry.path / SEAL).unlink()
    with suppress(StoreError):
        if found := kept():
            return found
    with writing(entry):
        try:
            found = kept()
        except StoreError as error:
            found = None
            log.warning("%s: is not as it was written (%s); this encoder is made again", entry.path, error)
        if found is None:
            _fill(entry.path, encoder, altered)
            found = kept()
    assert found is not None
    return found


def _fill(folder: Path, encoder: Encoder, altered: "Callable[[], nn.Module]") -> None:
    """Write the encoder's files and seal them; whoever still reads old ones keeps them, as they are not overwritten."""
    from safetensors import SafetensorError

    with quiet_transformers():
        model: Any = altered()
        try:
            for path in folder.iterdir():
                if path.name not in ("identity.json", ".lock"):
                    path.unlink()
            model.save_pretrained(folder)
            for name in _of_the_tokenizer(encoder):
                shutil.copy(encoder.folder / name, folder)
            seal(folder)
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{folder}: {error}; make room or set TSNS_CACHE to another folder") from error


def _of_the_tokenizer(encoder: Encoder) -> dict[str, str]:
    """sha256 of the files that say how texts become tokens: all that are neither configuration nor weights."""
    others = ("config.json", WEIGHTS_INDEX)
    named = encoder.files.items()
    return {name: digest for name, digest in named if name not in others and not name.endswith(".safetensors")}


@contextmanager
def writing(entry: Entry) -> Iterator[None]:
    """Claim an entry and let one process at a time fill its folder: whoever else asks waits."""
    entry.claim()
    lock = FileLock(entry.path / ".lock")
    try:
        lock.acquire()
    except OSError as error:
        advice = "; delete it and run again" if isinstance(error, IsADirectoryError) else ""
        raise StoreError(f"{lock.lock_file}: {error.strerror}{advice}") from error
    try:
        yield
    finally:
        lock.release()


def discard(folder: Path) -> None:
    """Remove checkpoints, their seals first: what has one is whole, for whoever looks on."""
    for path in folder.rglob(SEAL):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def temporary_store() -> Iterator[Store]:
    """A store for what is needed only once; those of processes that were killed are removed first.

    A process holds the lock beside its folder as long as it lives.
    """
    place = Path(tempfile.gettempdir())
    for left in place.glob("tsns_store_*.lock"):
        with suppress(Timeout, OSError), FileLock(left, timeout=0):
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
            left.unlink()
    folder = place / f"tsns_store_{uuid4().hex}"
    lock = Path(f"{folder}.lock")
    with FileLock(lock):
        folder.mkdir(mode=0o700)
        try:
            yield Store(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def drawn_by() -> dict[str, str]:
    """Versions of what makes tokens, draws new weights, orders rows and trains: another one may do it otherwise."""
    packages = ("torch", "transformers", "tokenizers", "accelerate")
    return {package: version(package).partition("+")[0] for package in packages}


def identity_of(prepare: Callable[..., Any] | None) -> dict[str, Any] | None:
    """The path of the function, its arguments in JSON and what it draws with, as they stand in keys of the store."""
    if prepare is None:
        return None
    function = getattr(prepare, "func", None)
    module, path = getattr(function, "__module__", None), getattr(function, "__qualname__", "<")
    if not isinstance(prepare, functools.partial) or module == "__main__" or _found(module, path) is not function:
        raise ValueError(f"prepare: expected functools.partial of a function of a module, got {prepare!r:.80}")
    try:
        named = plain({"function": f"{module}.{path}", "args": prepare.args, "keywords": prepare.keywords})
    except (TypeError, ValueError) as error:
        raise ValueError(f"prepare: the arguments of {module}.{path} are not plain JSON: {error}") from None
    return named | {"versions": drawn_by(), "code": _code_of(str(module))}


def as_keyed(prepare: Callable[..., Any]) -> Callable[..., Any]:
    """The same with its arguments as they stand in the key, so that what is done is what the key says."""
    named: Any = identity_of(prepare)
    if named is None:
        raise ValueError("prepare: expected functools.partial of a function of a module, got None")
    return functools.partial(prepare.func, *named["args"], **named["keywords"])  # type: ignore[attr-defined]


def _code_of(name: str) -> dict[str, list[str]]:
    """Digests of what runs: of a module and of the modules of the user's that it imports, their files and constants.

    A ValueError says where a function is not as the file has it now: the digest would be of code that does not run.
    """
    found: dict[str, list[str]] = {}
    left = [name]
    while left:
        name = left.pop()
        values = {key: value for key, value in vars(sys.modules[name]).items() if not key.startswith("__")}
        read = _names_read(sys.modules[name], values.values())
        kept = [(key, _constant(value)) for key, value in values.items() if key in read or isfunction(_inner(value))]
        found[name] = [code_digest(name), content_hash([json.dumps(kept).encode()])]  # the file may have others by now
        used = {str(getattr(each, "__name__" if ismodule(each) else "__module__", None)) for each in values.values()}
        left = [each for each in {*left, *used} - found.keys() if _is_the_users(each)]
    return found


def _constant(value: Any) -> str:
    """A value in JSON, if it has one; of a function the values of its arguments, which are no part of its code."""
    if isfunction(inner := _inner(value)):
        value = inner.__defaults__, inner.__kwdefaults__
    try:
        return json.dumps(value, default=lambda _: None, skipkeys=True)
    except (ValueError, RecursionError):  # it holds itself, or is too deep or too long
        return ""


def _inner(value: Any) -> Any:
    """The function within what decorates it."""
    try:
        return unwrap(value)
    except ValueError:  # a stand-in that has every attribute
        return None


def _is_the_users(name: str) -> bool:
    """Whether a module is neither of Python nor installed nor of this project, whose versions stand for its code."""
    file = Path(getattr(sys.modules.get(name), "__file__", None) or "")
    if not file.is_file() or name.partition(".")[0] in ("tsns_lib", "tsns_workbook"):
        return False
    places = map(sysconfig.get_path, ("stdlib", "platstdlib"))
    installed = {"site-packages", "dist-packages"} & set(file.parts)
    return not installed and not any(file.is_relative_to(folder) for folder in places if folder)


def _names_read(module: ModuleType, values: Collection[Any]) -> set[str]:
    """The names that functions of a module read; a ValueError where one is not as the file has it now."""
    file = str(module.__file__)
    if not isinstance(module.__loader__, SourceFileLoader):  # pytest writes the code of tests anew
        return set(vars(module))
    codes = once(_codes, Path(file))
    known = set(map(_essence, codes))
    methods = [vars(each).values() for each in values if isclass(each)]
    for each in map(_inner, itertools.chain(values, *methods)):
        code = getattr(each, "__code__", None)
        if isinstance(code, CodeType) and code.co_filename == file and _essence(code) not in known:
            raise ValueError(f"prepare: {file} was edited after it was imported; restart the kernel")
    return {name for code in codes for name in code.co_names}


def _codes(file: Path) -> list[CodeType]:
    """The code of every function and class in a file as it is now."""
    try:
        codes = [SourceFileLoader("", str(file)).source_to_code(file.read_bytes(), str(file))]
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"prepare: {file} was edited after it was imported, and is no Python now: {error}") from None
    for code in codes:  # it grows meanwhile
        codes += [each for each in code.co_consts if isinstance(each, CodeType)]
    return codes[1:]


def _essence(code: CodeType) -> tuple[Any, ...]:
    """What code does, without the numbers of its lines; two NaN are equal here."""
    constants: list[Any] = []
    for each in code.co_consts:
        if isinstance(each, frozenset):  # its order is chance
            constants.append(sorted(map(repr, each)))
        else:
            constants.append(_essence(each) if isinstance(each, CodeType) else each)
    arguments = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    return code.co_qualname, code.co_code, code.co_names, code.co_varnames, arguments, repr(constants)


def _found(module: str | None, path: str) -> Any:
    """What a module holds under a name, as another process would find it."""
    try:
        return pkgutil.resolve_name(f"{module}:{path}")
    except (ImportError, AttributeError, ValueError):
        return None
