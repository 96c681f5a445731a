"""The diagonal of the empirical Fisher information of a model's components, from whole batches at a time."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from tsns_lib.transferability.tuned_model import TunedModel

FORMS = ("paper", "released")


def fisher(model: "TunedModel", inputs: "Iterable[dict[str, Tensor]]", *, form: str = "paper") -> dict[str, np.ndarray]:
    """Squared gradients of every component, from one backward pass a batch.

    Parameters
    ----------
    model : TunedModel
        In evaluation mode; its weights are not changed.
    inputs : iterable of dict
        Padded batches with class numbers under ``"labels"``.
    form : {"paper", "released"}
        As in `task_embedding`.

    Returns
    -------
    dict of str to ndarray
        As `task_embedding`.
    """
    import torch

    from tsns_lib.transferability.tuned_model import layers_of

    model.requires_grad_(True)
    outputs: dict[str, Tensor] = {}
    entering: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, args: tuple[torch.Tensor, ...], output: Any) -> None:
            outputs[name] = output[0] if isinstance(output, tuple) else output
            if name.endswith(".weight"):
                entering[name] = args[0].detach()

        return hook

    handles = [model.head.tanh.register_forward_hook(keep("pooled"))]
    for number, layer in enumerate(layers_of(model.encoder)):
        handles.append(layer.register_forward_hook(keep(f"layer.{number}.output")))
        for name, module in layer.named_modules():
            if isinstance(module, torch.nn.Linear):
                handles.append(module.register_forward_hook(keep(f"layer.{number}.{name}.weight")))
    sums: dict[str, Tensor] = {}
    n_rows = n_batches = 0
    try:
        for batch in inputs:
            size, mask = len(batch["labels"]), batch["attention_mask"]
            # the sum's gradient at a row's own states is that of its own loss
            loss = model(**batch)["loss"] * size
            for name, gradient in zip(outputs, torch.autograd.grad(loss, list(outputs.values())), strict=True):
                squares = _squares(gradient, entering.get(name), mask, form)
                sums[name] = sums[name] + squares if name in sums else squares
            n_rows, n_batches = n_rows + size, n_batches + 1
    finally:
        for handle in handles:
            handle.remove()
    count = {name: n_batches if form == "released" and name in entering else n_rows for name in sums}
    return {name: (total / count[name]).flatten().cpu().numpy() for name, total in sorted(sums.items())}


def _squares(gradient: "Tensor", entering: "Tensor | None", mask: "Tensor", form: str) -> "Tensor":
    """Sum over a batch of what one component contributes, given the gradient of the summed loss at its output."""
    import torch

    size = len(gradient)
    if form == "released":
        gradient = gradient / size
    if entering is None:
        squares = gradient.square()
        if gradient.ndim == 3:
            squares = torch.einsum("rth,rt->rh", squares, mask / mask.sum(dim=1, keepdim=True))
        return squares.sum(dim=0)
    if form == "released":
        return torch.einsum("rto,rti->oi", gradient, entering).square()
    return torch.einsum("rto,rti->roi", gradient, entering).square().sum(dim=0)
