"""What `soak.py` kills: five pieces of work, all tiny. Each takes a folder of inputs and a scheduler.

They give their results as arrays, or the exit status of a command.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

WORDS = ["bim", "tak", "sel", "ora", "ven", "quu", "dar", "mip", "lo"]
Results = dict[str, np.ndarray]


def extract(inputs: Path, scheduler: str | None) -> Results:
    """Activations in many shards, and some columns of them."""
    from tsns_lib import extraction, load_encoder, load_source

    extraction.SHARD_ROWS = 16
    source, encoder = load_source(inputs / "rows.csv"), load_encoder(inputs / "encoder")
    entry = extraction.stored_activations(source, encoder, max_length=16, scheduler=scheduler, progress=False)
    return {"activations": entry.read(), "columns": entry.columns([1, 30, 17])}


def resampled_importance(inputs: Path, scheduler: str | None) -> Results:
    """Forests on activations that are large enough for a pool to share them through /dev/shm."""
    from tsns_lib import resampled_importance

    X, y, _ = activations()
    settings = {"n_resamples": 8, "n_trees": 12, "tol": 0.01, "neurons": [X.shape[1] // 2]}  # two looks
    return {"q": resampled_importance(X, y, **settings, scheduler=scheduler)}


def multi(inputs: Path, scheduler: str | None) -> Results:
    """Three sources, and a learner for each pair of two and one."""
    from tsns_lib import MultiTSNS

    X, y, groups = activations()
    settings = {"n_resamples": 4, "n_trees": 20, "alphas": [0.5, 1.0], "gamma": 0.5, "scheduler": scheduler}
    fitted = MultiTSNS(n_neurons=20, **settings).fit(X, y, groups=groups)
    return {"selected": fitted.selected_, "h": fitted.meta_importances_, "alphas": np.array(fitted.alphas_)}


def fine_tune(inputs: Path, scheduler: None) -> Results:
    """A model that becomes an encoder; one for its predictions only, kept later. Each step has a checkpoint."""
    from tsns_workbook.finetuning import training
    from tsns_workbook.finetuning.finetune import Recipe, fine_tune

    from tsns_lib import extract, load_encoder, load_source

    training.CHECKPOINT_SECONDS = 0.0
    source, encoder = load_source(inputs / "rows.csv", limit=32), load_encoder(inputs / "encoder")
    recipe = Recipe(epochs=2, learning_rate=1e-2, max_length=16, dtype="float32")
    kept = fine_tune(source, encoder, recipe, seed=0, progress=False)
    other = {"seed": 1, "method": "head", "n_rows": 8, "progress": False}
    predictions = fine_tune(source, encoder, recipe, only_for=source, **other).logits(source)
    same = fine_tune(source, encoder, recipe, **other).logits(load_source(inputs / "rows.csv", limit=20, seed=1))
    tuned = kept.encoder()
    return {
        "losses": kept.losses,
        "logits": kept.logits(source),
        "predictions": predictions,
        "logits of the same": same,
        "digest": np.array([tuned.digest]),
        "activations": extract(source, tuned, max_length=16, progress=False),
    }


def run(inputs: Path, scheduler: str | None) -> int:
    """The command, on a project of two notebooks."""
    from tsns_workbook import cli

    return cli.main(["run", *(["--scheduler", scheduler] if scheduler else [])])


WORKLOADS: dict[str, Callable[[Path, str | None], Results | int]] = {
    "run": run,
    "extract": extract,
    "resampled_importance": resampled_importance,
    "MultiTSNS": multi,
    "fine_tune": fine_tune,
}


def activations() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of 1,000 made-up neurons, some of which know the class; labels; the source of each row."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 1_500)
    X = rng.normal(size=(1_500, 1_000)) + y[:, None] * (np.arange(1_000) % 50 == 4)
    return X.astype(np.float32), y, np.repeat(["books", "dvd", "music"], 500)


def make_inputs(folder: Path) -> None:
    """BERT of two layers of 16 neurons with random weights, and 400 rows of made-up words in two classes."""
    import torch
    import transformers as hf

    pieces = {piece: number for number, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    size = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
    torch.manual_seed(5)
    config = hf.BertConfig(vocab_size=len(pieces), max_position_embeddings=32, initializer_range=0.3, **size)
    hf.AutoModel.from_config(config).save_pretrained(folder / "encoder")
    hf.BertTokenizer(vocab=pieces).save_pretrained(folder / "encoder")
    rng = np.random.default_rng(3)
    words = [rng.choice(WORDS[row % 2 : row % 2 + 7], size=1 + row % 9) for row in range(400)]
    lines = [f"{' '.join(line)} {row},{'good' if row % 2 else 'bad'}" for row, line in enumerate(words)]
    (folder / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n")


FORESTS = """import numpy as np
import pandas as pd
from tsns_lib import resampled_importance
from tsns_workbook import report
X, y = np.random.default_rng(0).normal(size=(80, 30)), np.arange(80) % 2
settings = {"n_resamples": 6, "n_trees": 10, "scheduler": scheduler or None}
q = np.vstack([resampled_importance(X + run, y, **settings) for run in range(runs)])
report.record("01_forests", "mini", True, "none", [], {"q": pd.DataFrame({"q": q.max(axis=1)})})"""
BOARD = """import json, pathlib
record = json.loads(pathlib.Path("../outputs/mini/01_forests.results.json").read_text())
print(sum(row["q"] for row in record["tables"]["q"]))"""


def make_project(root: Path) -> None:
    """Two notebooks, of which the second reads the results of the first."""
    import nbformat

    for folder in ("notebooks", "params/mini"):
        (root / folder).mkdir(parents=True)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    parameters = "runs: int = 1  # how often\nscheduler: str = ''  # where"
    for name, code in (("01_forests", FORESTS), ("00_board", BOARD)):
        cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}, id="parameters")]
        cells += [nbformat.v4.new_code_cell(code, id="work"), nbformat.v4.new_code_cell("print('end')", id="end")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), root / f"notebooks/{name}.ipynb")
        (root / f"params/mini/{name}.yaml").write_text("runs: 3\n")
