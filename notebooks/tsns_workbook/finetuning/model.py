"""A pretrained encoder with a head on one of its layers and, where wanted, bottleneck adapters.

This module imports torch, so others import it inside their functions only.
"""

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from tsns_lib.encoders import Encoder

ADAPTER_SIZE = 64  # of the bottleneck (Houlsby et al. 2019)


class Head(nn.Module):
    """Dropout → dense → tanh → dropout → linear, on one state (arXiv 2210.10041)."""

    def __init__(self, hidden_size: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.tanh = nn.Tanh()
        self.linear = nn.Linear(hidden_size, n_classes)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """Logits of shape (rows, n_classes) from states of shape (rows, hidden_size)."""
        return self.linear(self.dropout(self.tanh(self.dense(self.dropout(state)))))


class Adapter(nn.Module):
    """A bottleneck with a skip connection; before training it is the identity.

    These few lines are our own: peft has no bottleneck adapters, and the library adapters needs another version of
    transformers.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.down = nn.Linear(hidden_size, ADAPTER_SIZE)
        self.up = nn.Linear(ADAPTER_SIZE, hidden_size)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """States of the same shape."""
        return states + self.up(nn.functional.gelu(self.down(states)))


def _adapted(adapter: Adapter, module: nn.Module, inputs: Any, states: torch.Tensor) -> torch.Tensor:
    """What leaves a module when an adapter follows it; a forward hook."""
    return adapter(states)


class TunedModel(nn.Module):
    """An encoder up to its layer `head_layer`, adapters in the layers `adapted`, and a head on the first token.

    The higher layers of `encoder` are dropped in place, so nothing else may use it. A layer in `adapted` gets two
    adapters, after its attention and after its feed-forward half. `seed` determines all new weights.
    """

    def __init__(
        self, encoder: nn.Module, *, head_layer: int, n_classes: int, adapted: Collection[int], seed: int
    ) -> None:
        super().__init__()
        self.encoder: Any = encoder
        layers = layers_of(encoder)
        encoder.get_submodule("encoder").layer = layers[: head_layer + 1]
        config: Any = self.encoder.config
        config.num_hidden_layers = head_layer + 1
        with torch.random.fork_rng(devices=[]):  # what torch draws here is overwritten below
            self.head = Head(config.hidden_size, n_classes, config.hidden_dropout_prob)
            # beside the encoder and not in it, so that its tensors keep the names by which any other program reads them
            self.adapters = nn.ModuleDict()
            for number in sorted(adapted):
                for place in ("attention.output", "output"):
                    adapter = self.adapters[f"{number}_{place.replace('.', '_')}"] = Adapter(config.hidden_size)
                    # the last step before the sum with the skipped states and its LayerNorm
                    layers[number].get_submodule(f"{place}.dropout").register_forward_hook(partial(_adapted, adapter))
        generator = torch.Generator().manual_seed(seed)
        for name, tensor in [*self.head.named_parameters(), *self.adapters.named_parameters()]:
            if name.endswith("bias") or "up." in name:
                nn.init.zeros_(tensor)
            else:
                nn.init.normal_(tensor, 0.0, config.initializer_range, generator=generator)

    # No **kwargs here: Trainer takes them for a model that averages its loss over several batches itself.
    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Logits of shape (rows, n_classes) and, given class numbers, their mean cross-entropy."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        logits = self.head(states[:, 0]).float()
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    def train_only(self, method: str, tuned_layers: Collection[int] | None) -> None:
        """Freeze everything but the head and what `method` tunes in these layers (None: everywhere)."""
        layers = layers_of(self.encoder)
        self.requires_grad_(method == "full" and tuned_layers is None)
        self.head.requires_grad_(True)
        self.adapters.requires_grad_(True)
        if method == "full":
            for number in tuned_layers or ():
                layers[number].requires_grad_(True)
        elif method == "adapter":
            for number in range(len(layers)) if tuned_layers is None else tuned_layers:
                for module in layers[number].modules():
                    if isinstance(module, nn.LayerNorm):
                        module.requires_grad_(True)


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The list of layers of BERT and its like."""
    layers = getattr(getattr(model, "encoder", None), "layer", None)
    if not isinstance(layers, nn.ModuleList):
        raise ValueError(f"{type(model).__name__}: has no encoder.layer, which BERT, RoBERTa and ELECTRA have")
    return layers


def fresh_model(encoder: Encoder) -> nn.Module:
    """The encoder's weights in single precision, in a model that nothing else uses."""
    return cast(nn.Module, replace(encoder, dtype="float32").model)
