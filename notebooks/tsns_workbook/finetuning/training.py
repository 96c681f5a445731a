"""Training by transformers' Trainer, with checkpoints from which a killed run goes on to the same bits.

This file imports torch; it is reached from inside functions only, so that importing the package stays light.
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
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from tsns_lib.executors import bar
from tsns_lib.sampling import derive_seed

CHECKPOINT_SECONDS = 60.0
OPTIMIZER = "optimizer.safetensors"


class SafeTrainer(Trainer):
    """A Trainer whose checkpoints are safetensors and JSON.

    Its own would hold the optimizer, the schedule, the generators' states and the arguments as pickles. The first
    two are written here, as tensors and as JSON; the generators need no file, because `Course` seeds every step.
    """

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write weights and optimizer; Trainer adds its state, with the losses, as JSON when this is done."""
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
    """What accompanies a training: seeds of its own for every epoch and step, checkpoints by the clock, a bar."""

    def __init__(self, seed: int, checkpoint: Path | None, shown: tqdm) -> None:
        self.seed, self.checkpoint, self.shown = seed, checkpoint, shown
        self.started = self.saved = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go on with the optimizer of the checkpoint; Trainer itself has read its weights and its state."""
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
        """Ask for a checkpoint when it is time."""
        self.shown.update()
        control.should_save = time.perf_counter() - self.saved >= CHECKPOINT_SECONDS

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the step's time beside its loss: it outlives a kill with it."""
        state.log_history[-1]["seconds"] = time.perf_counter() - self.started

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock anew."""
        self.saved = time.perf_counter()


def train(
    model: torch.nn.Module,
    rows: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    recipe: Any,
    *,
    seed: int,
    folder: Path,
    device: str,
    progress: bool,
) -> tuple[list[float], list[float]]:
    """Train what is not frozen, in place, going on from a checkpoint in `folder` where there is one.

    Parameters
    ----------
    model : TunedModel
        Gives a loss for a batch of rows.
    rows : sequence of dict
        Tokens of each row and its class number under ``"labels"``.
    tokenizer : PreTrainedTokenizerBase
        Pads a batch to its longest row; a batch has rows of like length.
    recipe : Recipe
        How long and how fast.
    seed : int
        Of the order of the rows and of dropout.
    folder : Path
        For checkpoints; the caller removes it when it has written the result.
    device : str
        Of the encoder: the CPU, or else the first GPU.
    progress : bool
        Whether to show a bar over the steps.

    Returns
    -------
    losses, seconds : list of float
        Of every step, those before a kill too.
    """
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        max_grad_norm=recipe.clip,
        train_sampling_strategy="group_by_length",
        bf16=recipe.dtype == "bfloat16",
        optim="adamw_torch_fused",
        use_cpu=device == "cpu",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        save_strategy="no",  # Course asks for them
        save_only_model=True,
        save_total_limit=1,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
    )
    checkpoint = _newest(folder)
    with bar(show=progress, desc="fine-tuning", unit="step") as shown, torch.random.fork_rng():
        trainer = SafeTrainer(
            model,
            arguments,
            data_collator=DataCollatorWithPadding(tokenizer),
            train_dataset=rows,
            callbacks=[Course(seed, checkpoint, shown)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    steps = [line for line in trainer.state.log_history if "loss" in line]
    return [line["loss"] for line in steps], [line["seconds"] for line in steps]


def _newest(folder: Path) -> Path | None:
    """The last checkpoint that was written whole: Trainer's state is its last file."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.partition("-")[2])):
        with suppress(OSError, ValueError):
            json.loads((path / "trainer_state.json").read_text())
            return path
        shutil.rmtree(path)
    return None
