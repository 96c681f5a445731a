"""Whether a tokenizer and a model that were loaded fit each other, and are still what was loaded."""

import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

_ORIGIN = os.getpid()  # a child that was forked from it lacks PyTorch's threads, for which it would wait
SAVED = ("architectures", "dtype", "_name_or_path")  # what saving a model writes into its configuration


def check_tokenizer(tokenizer: Any, config: Any) -> None:
    """Raise a ValueError unless a tokenizer knows words, and what it makes of a text is what the model can read."""
    vocabulary = tokenizer.get_vocab()
    if not tokenizer.is_fast or vocabulary.keys() <= set(tokenizer.all_special_tokens):
        reason = "knows no words but the special tokens; a file of its vocabulary is missing or of another kind"
        raise ValueError(f"{type(tokenizer).__name__} {reason if tokenizer.is_fast else 'is not a fast tokenizer'}")
    numbers, types, n_types = list(vocabulary.values()), [0], getattr(config, "type_vocab_size", 0)
    for pair in (None, "Two."):
        (row,) = tokenizer(["One, 𓀀."], pair and [pair]).encodings  # no vocabulary knows this sign
        if not (row.special_tokens_mask and row.special_tokens_mask[0]):
            raise ValueError("it puts no token such as [CLS] before a text, and the first token stands for the text")
        numbers, types = numbers + row.ids, types + row.type_ids
    if max(numbers) >= config.vocab_size:
        found = f"found the number {max(numbers)} in {type(tokenizer).__name__}"
        raise ValueError(f"its tokens must have numbers below {config.vocab_size}, {found}")
    used = n_types > 1 and "token_type_ids" in tokenizer.model_input_names
    if max(types) >= (allowed := n_types if used else 128):  # they are kept as int8
        raise ValueError(f"its types of tokens must be below {allowed}, found {max(types)}")


def try_out(model: Any, n_layers: int) -> np.ndarray:
    """What a model makes of three tokens, so that what does not run is an error now; attention can hide a NaN."""
    states = answer_of(model)
    if (found := len(states) - 1) != n_layers:
        raise ValueError(f"config.json names {n_layers} layers, and the model has {found}")
    if lost := [name for name, tensor in model.named_parameters() if not tensor.isfinite().all()]:
        raise ValueError(f"{lost[0]} holds numbers that are not finite")
    return states


def answer_of(model: Any) -> np.ndarray:
    """Every layer's states of three tokens, or a ValueError where torch rounds what it multiplies.

    They show what no attribute of a model does: hooks on all modules, and functions of torch that were replaced.
    """
    import torch

    fine = torch.full((64, 64), 1 + 2**-12, device=model.device)  # in bfloat16 or TF32 it is 1
    with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
        if os.getpid() == _ORIGIN and (fine @ torch.eye(64, device=model.device) != fine).any():
            how = 'torch.set_float32_matmul_precision("highest") ends that'
            raise ValueError(f"torch is set to multiply in less than single precision; {how}")
        row = torch.arange(3, device=model.device)[None]
        states = model(input_ids=row, attention_mask=row.new_ones(row.shape), output_hidden_states=True).hidden_states
        return torch.stack(states).float().cpu().numpy()


def check_blobs(folder: Path, digests: dict[str, str]) -> None:
    """Raise a ValueError where a file of the hub's cache is not what it links to says: the sha256 of large files."""
    for name, digest in digests.items():
        blob = (folder / name).resolve()
        if blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name) and blob.name != digest:
            raise ValueError(f"{folder / name}: is not what the hub gave; delete {blob}, and it is fetched again")


def check_answer(model: Any, known: np.ndarray) -> None:
    """Raise a ValueError where `answer_of` a model has moved since it was loaded; threads move the last bits alone.

    A child that was forked is not asked.
    """
    if os.getpid() != _ORIGIN:
        return
    tolerance = 2e-2 if any(weights.itemsize == 2 for weights in model.parameters()) else 1e-4  # bfloat16 or not
    try:
        moved = float(np.abs(answer_of(model) - known).max() / np.abs(known).max())
    except Exception as error:  # whatever a hook or a patch does
        raise ValueError(f"encoder: its model does not run as it was loaded: {error}") from error
    if not moved <= tolerance:
        reason = "is there a hook on all modules, or a function of torch or transformers that was replaced?"
        raise ValueError(f"encoder: its model gives other numbers than when it was loaded; {reason}")


def remember(owner: Any, name: str) -> None:
    """Keep how an attribute is now that it is loaded, for `changed`."""
    value = vars(owner)[name]
    vars(owner).setdefault(f"{name} as loaded", (state_of(value), content_of(value)))


def changed(owner: Any) -> str | None:
    """The name of an attribute that is not as it was loaded: 14 to 46 ms for MiniLM, 0.2 s for BERT-large's size."""
    for name in ("model", "tokenizer"):
        known, now = vars(owner).get(f"{name} as loaded"), vars(owner).get(name)
        if known and known != (state_of(now), content_of(now)):
            return name
    return None


def state_of(loaded: Any) -> Any:
    """What moves if a tokenizer or a model is changed in place, as far as that is soon said.

    That of a model is its modules with their code and settings, the hooks of others, and torch's count of writes.
    """
    if not hasattr(loaded, "parameters"):
        sides = loaded.truncation_side, loaded.padding_side, loaded.split_special_tokens
        kind, functions = type(loaded), filter(callable, vars(loaded).values())
        code = kind.__call__, getattr(kind, "_encode_plus", None), *functions
        return len(loaded), sides, loaded.all_special_tokens, list(loaded.model_input_names), code
    modules = list(loaded.modules())
    named = [(each, name, value) for each in modules for name, value in list(vars(each).items()) if name[0] != "_"]
    settings = [one for one in named if callable(one[-1]) or isinstance(one[-1], float | int | str)]
    kept = [hooks for each in modules for hooks in (each._forward_hooks, each._forward_pre_hooks)]
    own = ("transformers.", "tsns_lib.")
    hooks = [hook for hooks in kept for hook in list(hooks.values()) if not str(hook.__module__).startswith(own)]
    tensors = [(each.data_ptr(), each._version) for each in (*loaded.parameters(), *loaded.buffers())]
    config = {name: value for name, value in vars(loaded.config).items() if name not in SAVED}
    return [(each, type(each).forward) for each in modules], settings, hooks, tensors, json.dumps(config, default=repr)


def content_of(loaded: Any) -> int:
    """A checksum of a tokenizer or of weights: torch does not count what is written through `.data` or numpy."""
    if not hasattr(loaded, "parameters"):
        # what stands before the tokens that were added, each call sets
        return zlib.crc32(loaded.backend_tokenizer.to_str().partition('"added_tokens"')[2].encode())
    checksum = 0
    for tensor in (*loaded.parameters(), *loaded.buffers()):
        checksum = zlib.crc32(np.ascontiguousarray(tensor.detach().float().cpu()).data, checksum)
    return checksum
