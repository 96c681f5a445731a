"""Rehearse the paper's own profile from end to end: `make rehearsal`.

The corpora are generated ones, written in the formats of the real files. The encoder has random weights and
BERT-large's shape, but narrow layers where there is no GPU, and lies where the hub's client keeps the real one, at its
commit. Parameters are the profile's, but for few trees, resamples, runs and training rows. So every notebook does what
it does in the paper's setting, in minutes and without a network; what it finds means nothing. `20_performance`, which
takes hours there, is left out.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import yaml
from tsns_workbook.benchmarks import BERT_LARGE

from tsns_lib import load_encoder, load_source
from tsns_lib.corpora.registry import REGISTRY

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = "20_performance"
SMALL = {
    **{
        "n_trees": 20,
        "n_resamples": 3,
        "null_resamples": 2,
        "fold_resamples": 2,
        "runs": 1,
        "null_runs": 1,
        "fraction": 0.7,
    },
    **{"max_length": 32, "forest_length": 32, "fingerprint_length": 32, "draws": 2, "n_boot": 20},
    **{"rows": 80, "n_rows": 160, "test_rows": 60, "fisher_rows": 16, "sizes": [32, 64], "epochs": 1},  # 20 steps of 8
}
NARROW = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "initializer_range": 0.1}
CLASSES = {"snli": ("neutral", "entailment"), "mnli": ("neutral", "entailment"), "scitail": ("neutral", "entails")}
CLASSES |= {"rte": ("not_entailment", "entailment")}
LINES = {  # of a text, a pair, a label and a number
    "sst": "{2} {0}",
    "scitail": "{0}\t{1}\t{2}",
    "rte": "{3}\t{0}\t{1}\t{2}",
    "qqp": "{3}\t0\t0\t{0}\t{1}\t{2}",
    "mrpc": "{2}\t0\t0\t{0}\t{1}",
}
HEADERS = {
    "rte": "index\tsentence1\tsentence2\tlabel",
    "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    "mrpc": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
}


def write_corpora(folder: Path) -> None:
    """Write a generated counterpart of every split of every corpus, in the format of the real one."""
    films: dict[str, str] = {}
    for name, corpus in REGISTRY.items():
        for split, places in corpus.files.items():
            frame = load_source(f"miniature:{name}", split=split).frame
            rows = list(zip(frame["text"], frame["text_pair"], frame["label"], range(len(frame)), strict=True))
            if corpus.task == "sentiment" and name not in ("mr", "sst"):
                domain = "kitchen_&_housewares" if name == "kitchen" else name
                for label, file in enumerate(("negative", "positive")):
                    reviews = [
                        f"<review><review_text>{row[0]}</review_text></review>" for row in rows if row[2] == label
                    ]
                    put(folder / places[0] / domain / f"{file}.review", "\n".join(reviews))
            elif name == "mr":
                films |= {f"aclImdb/train/{('neg', 'pos')[row[2]]}/{row[3]}_5.txt": row[0] for row in rows}
            elif places[0].endswith(".jsonl"):
                keys = ("sentence1", "sentence2", "gold_label")
                lines = [json.dumps(dict(zip(keys, (*row[:2], CLASSES[name][row[2]]), strict=True))) for row in rows]
                put(folder / places[0], "\n".join(lines) + "\n")
            else:
                labels = CLASSES.get(name, ("0", "1"))
                lines = [LINES[name].format(*row[:2], labels[row[2]], row[3]) for row in rows]
                put(folder / places[0], "\n".join([*([HEADERS[name]] if name in HEADERS else []), *lines]) + "\n")
    with tarfile.open(folder / REGISTRY["mr"].files["train"][1], "w:gz") as archive:
        for name, text in films.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_encoder(home: Path, repository: str, commit: str) -> None:
    """Put a BERT of 24 layers with random weights into the cache of the hub's client: a narrow one without a GPU."""
    import torch
    from transformers import BertConfig, BertModel

    folder = home / "hub" / f"models--{repository.replace('/', '--')}" / "snapshots" / commit
    folder.mkdir(parents=True)
    shape = BERT_LARGE if torch.cuda.is_available() else BERT_LARGE | NARROW
    torch.manual_seed(0)
    BertModel(BertConfig(**shape)).save_pretrained(folder)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(load_encoder().folder / name, folder)


def write_project(root: Path) -> tuple[str, str]:
    """Copy the notebooks and the profile's parameters, made small; return the encoder and its commit."""
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns("__pycache__"))
    for path in sorted((ROOT / "params/paper").glob("*.yaml")):
        facts = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.stem != LEFT_OUT:
            small = {key: SMALL.get(key, value) for key, value in facts.items()}
            put(root / "params/paper" / path.name, yaml.safe_dump(small, sort_keys=False))
        if facts.get("revision"):
            named = facts["encoder"], facts["revision"]
    return named


def main(names: list[str]) -> int:
    """Forecast the run, and run the notebooks that are named, or all; takes what `tsns run` takes."""
    with tempfile.TemporaryDirectory() as place:
        root, data = Path(place, "project"), Path(place, "data")
        write_corpora(data)
        write_encoder(Path(place, "hub"), *write_project(root))
        own = {"TSNS_ROOT": str(root), "TSNS_DATA": str(data), "TSNS_CACHE": str(Path(place, "cache"))}
        own |= {"HF_HOME": str(Path(place, "hub")), "HF_HUB_CACHE": str(Path(place, "hub/hub"))}
        own |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
        status = 0
        for module in (["forecast", "--yes"], ["cli", "run", "--profile", "paper", *names]):
            command = [sys.executable, "-m", f"tsns_workbook.{module[0]}", *module[1:]]
            status = status or subprocess.run(command, env=os.environ | own, cwd=root).returncode
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
