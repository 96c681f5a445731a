"""Training by transformers' Trainer, with checkpoints from which a killed run goes on to the same bits.

This module imports torch, so others import it inside their functions only.
"""

import json
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from tsns_lib.encoders import Encoder
from tsns_lib.executors import bar
from tsns_lib.sampling import derive_seed

CHECKPOINT_SECONDS = 60.0
OPTIMIZER = "optimizer.safetensors"


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
        save_file(moments, folder / OPTIMIZER, {"schedule": json.dumps(self.lr_scheduler.state_dict())})
        save_file(self.model.state_dict(), folder / "model.safetensors")


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
        """Log the step's time beside its loss, so that a checkpoint holds both."""
        state.log_history[-1]["seconds"] = time.perf_counter() - self.started

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restart the clock."""
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
    The caller removes the folder `checkpoints` when the result is written. Training runs on the encoder's device: the
    CPU, or else the first GPU.
    """
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
        save_total_limit=1,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
    )
    checkpoint = _newest(checkpoints)
    with bar(show=progress, desc="fine-tuning", unit="step") as shown, torch.random.fork_rng():
        trainer = SafeTrainer(
            model,
            arguments,
            data_collator=DataCollatorWithPadding(encoder.tokenizer),
            train_dataset=rows,
            callbacks=[Course(seed, checkpoint, shown)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    steps = [line for line in trainer.state.log_history if "loss" in line]
    return [line["loss"] for line in steps], [line["seconds"] for line in steps]


def _newest(folder: Path) -> Path | None:
    """The last complete checkpoint: the file that Trainer writes last can be read."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.partition("-")[2])):
        with suppress(OSError, ValueError):
            json.loads((path / "trainer_state.json").read_text())
            return path
        shutil.rmtree(path)
    return None
