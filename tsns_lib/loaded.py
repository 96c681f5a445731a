"""Whether a tokenizer and a model that were loaded fit each other, and are still what was loaded."""

import json
from typing import Any

import numpy as np


def fits(tokenizer: Any, config: Any) -> None:
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
        found = f"found {type(tokenizer).__name__} with {max(numbers)}"
        raise ValueError(f"its tokens must have numbers below {config.vocab_size}, {found}")
    used = n_types > 1 and "token_type_ids" in tokenizer.model_input_names
    if max(types) >= (allowed := n_types if used else 128):  # they are kept as int8
        raise ValueError(f"its types of tokens must be below {allowed}, found {max(types)}")


def try_out(model: Any, n_layers: int) -> None:
    """Let a model read three tokens: what does not run, or lacks a layer, raises an error now and not among texts."""
    row = next(model.parameters()).new_zeros((1, 3)).long()
    model(input_ids=row, attention_mask=row + 1, output_hidden_states=True).hidden_states[n_layers]


def state_of(loaded: Any) -> Any:
    """What moves if the configuration, the tokenizer or the model of an encoder is changed in place, by whatever means.

    That of a model is its modules with their settings and with hooks of others, and sums over the bits of all tensors,
    as torch does not count what is written to them through `.data` or numpy.
    """
    if isinstance(loaded, dict):
        return json.dumps(loaded, default=repr)
    if not hasattr(loaded, "parameters"):
        lasting = loaded.backend_tokenizer.to_str().partition('"added_tokens"')[2]  # before it: what each call sets
        sides = loaded.truncation_side, loaded.padding_side, loaded.split_special_tokens
        return hash(lasting), sides, loaded.all_special_tokens, list(loaded.model_input_names)
    modules = list(loaded.modules())
    named = [(each, name, value) for each in modules for name, value in list(vars(each).items()) if name[0] != "_"]
    settings = [one for one in named if callable(one[-1]) or isinstance(one[-1], float | int | str)]
    kept = [hooks for each in modules for hooks in (each._forward_hooks, each._forward_pre_hooks)]
    own = ("transformers.", "tsns_lib.")
    hooks = [hook for hooks in kept for hook in list(hooks.values()) if not str(hook.__module__).startswith(own)]
    tensors = [(each.data_ptr(), each._version, *_bits(each)) for each in (*loaded.parameters(), *loaded.buffers())]
    return modules, settings, hooks, tensors, state_of(vars(loaded.config))


def _bits(tensor: Any) -> tuple[int, int]:
    """The sum of a tensor's bits as whole numbers, and that of neighbours' products: it sees values change places."""
    values = np.ascontiguousarray(tensor.detach().float().cpu()).ravel()
    numbers: Any = values.view(np.int32 if values.size % 2 else np.int64)  # half as many are twice as fast
    return int(numbers.sum()), int(numbers[:-1] @ numbers[1:])
