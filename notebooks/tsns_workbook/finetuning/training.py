"""Training by transformers' Trainer, with checkpoints from which a killed run goes on to the same bits.

This module imports torch, so others import it inside their functions only.
"""

import gc
import json
import logging
import math
import os
import random
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from tsns_lib.encoders import Encoder
from tsns_lib.executors import bar
from tsns_lib.sampling import derive_seed
from tsns_lib.store import StoreError, atomic, sha256_of
from tsns_workbook.finetuning.prepared import discard

CHECKPOINT_SECONDS = 60.0
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "trainer_state.json"
SEAL = "sha256.json"  # what the files of a checkpoint were when it was complete

log = logging.getLogger(__name__)


class SafeTrainer(Trainer):
    """A Trainer whose checkpoints are safetensors and JSON.

    A Trainer pickles the optimizer, the schedule, the states of the random generators and the arguments. Here the
    optimizer is written as tensors and the schedule as JSON; the generators need no file, because `Course` seeds
    every step.
    """

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write weights and optimizer; afterwards Trainer adds its own state, with the losses, as JSON."""
        assert output_dir is not None and self.model and self.optimizer and self.lr_scheduler
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        moments = {
            f"{parameter}.{name}": tensor
            for parameter, values in self.optimizer.state_dict()["state"].items()
            for name, tensor in values.items()
        }
        facts = {"schedule": json.dumps(self.lr_scheduler.state_dict()), "training": _training(folder)}
        save_file(moments, folder / OPTIMIZER, facts)
        save_file(self.model.state_dict(), folder / MODEL)


class Course(TrainerCallback):
    """What runs beside a training: a seed for every epoch and step, a checkpoint every minute, a progress bar."""

    def __init__(self, seed: int, checkpoint: Path | None, shown: tqdm) -> None:
        self.seed, self.checkpoint, self.shown = seed, checkpoint, shown
        self.started = self.saved = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore optimizer and schedule from the checkpoint; Trainer itself has read the weights and its state."""
        self.shown.total = state.max_steps
        self.shown.update(state.global_step)
        if self.checkpoint is not None:
            optimizer, schedule = kwargs["optimizer"], kwargs["lr_scheduler"]
            values: dict[int, dict[str, torch.Tensor]] = {}
            for key, tensor in load_file(self.checkpoint / OPTIMIZER).items():
                parameter, _, name = key.partition(".")
                values.setdefault(int(parameter), {})[name] = tensor
            optimizer.load_state_dict(optimizer.state_dict() | {"state": values})
            with safe_open(self.checkpoint / OPTIMIZER, "pt") as file:
                schedule.load_state_dict(json.loads(file.metadata()["schedule"]))
            for group, rate in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
                group["lr"] = rate

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seed the order of the rows, which Trainer draws next."""
        torch.manual_seed(derive_seed(self.seed, "epoch", int(state.epoch or 0)))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seed the dropout."""
        self.started = time.perf_counter()
        torch.manual_seed(derive_seed(self.seed, "step", state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint when the last one is a minute old."""
        self.shown.update()
        control.should_save = time.perf_counter() - self.saved >= CHECKPOINT_SECONDS

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop where a value is not finite; log the step's time beside its loss, so that a checkpoint holds both."""
        step = state.log_history[-1]
        for name in ("loss", "grad_norm"):
            if not math.isfinite(step.get(name, 0.0)):
                raise _diverged(args.learning_rate, f"the {name} of step {state.global_step}")
        step["seconds"] = time.perf_counter() - self.started

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seal the checkpoint, now complete; remove those before it and restart the clock."""
        newest = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        seal(newest)
        for path in _checkpoints(newest.parent):
            if path != newest:
                discard(path)
        self.saved = time.perf_counter()


def train(
    model: torch.nn.Module,
    rows: Sequence[dict[str, Any]],
    encoder: Encoder,
    recipe: Any,
    *,
    seed: int,
    checkpoints: Path,
    progress: bool,
) -> tuple[list[float], list[float]]:
    """Train in place what is not frozen, from the last checkpoint where there is one: loss and seconds of every step.

    A row holds its tokens, and its class number under ``"labels"``. The steps before a kill are part of the result.
    A ValueError says where a loss or a weight is not finite. The caller removes the folder `checkpoints` when the
    result is written, and after a ValueError. Training runs on the encoder's device: the CPU, or else the first GPU.
    """
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]  # these change the precision, also against `recipe`
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        max_grad_norm=recipe.clip,
        train_sampling_strategy="group_by_length",
        bf16=recipe.dtype == "bfloat16",
        optim="adamw_torch_fused",
        use_cpu=encoder.device == "cpu",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        save_strategy="no",  # Course asks for checkpoints
        save_only_model=True,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it reports the mean of the steps before, at first 0
        report_to="none",
        disable_tqdm=True,
        log_level="error",
    )
    checkpoint = _newest(checkpoints)
    # A caller's autocast is not the recipe's. What the trainer's own casts is not kept from step to step: PyTorch
    # forgets it only where the outermost autocast ends, and by then the weights are others.
    kind = encoder.device.partition(":")[0]
    with (
        torch.autocast(kind, enabled=False, cache_enabled=False),
        bar(show=progress, desc="fine-tuning", unit="step") as shown,
        _callers_streams(),
        _few_objects(encoder),
    ):
        try:
            trainer = SafeTrainer(
                model,
                arguments,
                data_collator=DataCollatorWithPadding(encoder.tokenizer),
                train_dataset=rows,
                callbacks=[Course(seed, checkpoint, shown)],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{checkpoints}: {error}; make room or set TSNS_CACHE to another folder") from error
        steps = [line for line in trainer.state.log_history if "loss" in line]
        assert len(steps) == trainer.state.max_steps
    for name in ("forward", "_original_forward"):  # with bfloat16 they hold the model, which then nothing frees
        vars(model).pop(name, None)
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise _diverged(recipe.learning_rate, f"after the last step, {name}")
    return [line["loss"] for line in steps], [line["seconds"] for line in steps]


@contextmanager
def _callers_streams() -> Iterator[None]:
    """Give the caller's random numbers back, which the trainer seeds: torch's, numpy's and Python's."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(of_python)
    np.random.set_state(of_numpy)


@contextmanager
def _few_objects(encoder: Encoder) -> Iterator[None]:
    """Spare what is there from the trainer's search for garbage: of a notebook's objects it takes half a second.

    On a GPU it goes on looking, as what it finds may hold memory there.
    """
    if encoder.device == "cpu":
        gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _diverged(learning_rate: float, what: str) -> ValueError:
    return ValueError(f"learning_rate={learning_rate}: {what} is not finite; take a smaller one")


def seal(checkpoint: Path) -> None:
    """Write down what the files of a checkpoint are, as its last file."""
    digests = {path.name: sha256_of(path) for path in checkpoint.iterdir() if path.name != SEAL}
    with atomic(checkpoint / SEAL) as file:
        file.write(json.dumps(digests).encode())


def _checkpoints(folder: Path) -> list[Path]:
    """All checkpoints, complete or not, the newest first."""
    found = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in folder.glob("checkpoint-*")}
    return sorted((path for path, match in found.items() if match), key=lambda path: -int(path.name[11:]))


def _newest(folder: Path) -> Path | None:
    """The last checkpoint that is complete and as it was written; what is newer and is not is removed."""
    for path in _checkpoints(folder):
        if (path / SEAL).is_file():
            if _is_sound(path):
                return path
            log.warning("%s: is not as it was written; training goes on from before it", path)
        discard(path)
    return None


def _training(checkpoint: Path) -> str:
    """The key of the training that a checkpoint belongs to, which names the folder of its entry."""
    return checkpoint.parents[1].name


def _is_sound(checkpoint: Path) -> bool:
    """Whether the files are those that were sealed, no others, and of one step of the training that they lie with."""
    try:
        digests = json.loads((checkpoint / SEAL).read_bytes())
        if digests != {path.name: sha256_of(path) for path in checkpoint.iterdir() if path.name != SEAL}:
            return False
        state = json.loads((checkpoint / STATE).read_bytes())
        n_losses = sum("loss" in line for line in state["log_history"])
        with safe_open(checkpoint / OPTIMIZER, "pt") as file:
            if file.metadata()["training"] != _training(checkpoint):
                return False
        return {MODEL, OPTIMIZER, STATE} == set(digests) and state["global_step"] == n_losses
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return False
