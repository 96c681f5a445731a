"""The twelve known sources as figures, no text of them: what a corpus of one's own is compared with (notebook 30).

`make picture` writes `known_sources.yaml` from the records of notebooks 03 and 13 on the real corpora. The text
embeddings are no part of a record: they are computed where TSNS_DATA is set, and else stay as they are.
"""

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from tsns_lib import fingerprint_similarity, load_encoder, load_source
from tsns_lib.corpora.sources import Source
from tsns_lib.encoders import Encoder
from tsns_lib.fingerprints import cosine, fingerprint_frame
from tsns_lib.transferability.text_embedding import text_embedding

FILE = Path(__file__).with_name("known_sources.yaml")
PRINTS, PREDICTORS = "03_figure2_fingerprints", "13_what_predicts_transfer"
ROWS, MAX_LENGTH = 500, 128  # of a text embedding, as in notebook 13 on the real corpora
SHUFFLES = 4  # of the labels, for the null of the fingerprints
DIGITS = 4  # of a text embedding, whose cosines then move by less than 0.001
JUDGED_BY = "selection, AUC"  # the transfers by which notebook 13 judges a predictor
COLUMNS = {"text_embedding": "cosine of the texts", "fingerprint": "cosine of the fingerprints"}


class Known(NamedTuple):
    """What was recorded: the encoder's name and digest, K, NDCG of both predictors, and the figures of each source."""

    encoder: str
    digest: str
    k: int
    ndcg: dict[str, list[float]]
    sources: dict[str, dict[str, Any]]


@cache
def known_sources() -> Known:
    """The file, read once a process."""
    return Known(**yaml.safe_load(FILE.read_text(encoding="utf-8")))


def known_table(source: Source, target: Source | None, encoder: Encoder, **forest: Any) -> pd.DataFrame:
    """How like each known source is to the texts to predict and to the task of a source, the nearest texts first.

    The texts are those of the target, if there is one. The fingerprint of the source has the K of the known ones; under
    "labels shuffled" its labels were permuted four times, and the largest cosine stands there. What it has in common
    with a known fingerprint then, no task explains. The table is empty where the known sources had another encoder.
    """
    known = known_sources()
    columns = ["known source", "task", *COLUMNS.values(), "the same, labels shuffled"]
    if encoder.digest != known.digest:
        return pd.DataFrame(columns=columns)
    mine = text_embedding(target or source, encoder, max_length=forest["max_length"], progress=False)
    own, *null = (
        shares
        for labels, runs in (("true", 1), ("shuffled", SHUFFLES))
        for shares in fingerprint_frame([source], encoder, **forest | {"k": known.k, "labels": labels, "runs": runs})[
            "shares"
        ]
    )
    rows = []
    for name, facts in known.sources.items():
        if name in (source.name, target and target.name):
            continue
        like, *chance = (fingerprint_similarity(shares, facts["fingerprint"]) for shares in (own, *null))
        rows.append((name, facts["task"], cosine(mine, np.array(facts["text_embedding"])), like, max(chance)))
    return pd.DataFrame(rows, columns=columns).sort_values(columns[2], ascending=False, ignore_index=True)


def first_to_try(table: pd.DataFrame, source: Source, target: Source | None) -> str:
    """Say which known source to try first for a target, by which likeness, and how far notebook 13 trusts it."""
    known = known_sources()
    if table.empty:
        return f"None is compared: {known.encoder} has read the known sources, and another encoder yours."
    same = table[(table["task"] != "sentiment") == source.is_pair]
    form = "pairs of texts" if source.is_pair else "single texts"
    order = max(COLUMNS, key=lambda name: known.ndcg.get(name, [0.0])[0])
    first = same.loc[same[COLUMNS[order]].idxmax(), "known source"]
    above = table[table[COLUMNS["fingerprint"]] > table["the same, labels shuffled"]]
    trust = " · ".join(
        f"{COLUMNS[name]} {value:.2f} ({low:.2f} to {high:.2f})" for name, (value, low, high) in known.ndcg.items()
    )
    judged = f" NDCG of both orders in notebook 13 (0: chance, 1: the best order): {trust}." if trust else ""
    return (
        f"To predict texts like those of {(target or source).name}, **{first}** is the known source of {form} to try "
        f"first, by the {COLUMNS[order]}.{judged} With {len(above)} of {len(table)} the fingerprint has more in common "
        f"than with each of {SHUFFLES} shuffles of the labels; by chance it would be {len(table) / (1 + SHUFFLES):.0f}."
    )


def recorded(folder: Path, params: Mapping[str, Any]) -> dict[str, Any]:
    """What the records say: encoder, K, the NDCG of both predictors, and task and fingerprint of every source."""
    prints, judged = (json.loads((folder / f"{name}.results.json").read_bytes()) for name in (PRINTS, PREDICTORS))
    shares, scores = pd.DataFrame(prints["tables"]["shares"]), pd.DataFrame(judged["tables"]["scores"])
    sources = {
        name: {"task": rows["task"].iloc[0], "fingerprint": rows.sort_values("layer")["share"].tolist()}
        for name, rows in shares.groupby("source", sort=False)
    }
    scores = scores[(scores["outcome"] == JUDGED_BY) & (scores["measure"] == "ndcg")].set_index("predictor")
    ndcg = {
        name: scores.loc[name, ["estimate", "low", "high"]].astype(float).tolist()
        for name in COLUMNS
        if name in scores.index
    }
    return {"encoder": prints["encoder"], "k": params["k"], "ndcg": ndcg, "sources": sources}


def write(root: Path) -> None:
    """Write the file from the records, with the text embeddings that it has, or with new ones of the corpora."""
    params = yaml.safe_load((root / f"params/local/{PRINTS}.yaml").read_text(encoding="utf-8"))
    facts = recorded(root / "outputs/local", params)
    encoder = load_encoder(facts["encoder"])
    for name, source in facts["sources"].items():
        if os.environ.get("TSNS_DATA"):
            rows = load_source(name, limit=ROWS)
            vector = text_embedding(rows, encoder, max_length=MAX_LENGTH).round(DIGITS).tolist()
        else:
            vector = known_sources().sources[name]["text_embedding"]
        source["text_embedding"] = vector
    head = "# Figures of the known sources, written by `make picture`; their text embeddings need TSNS_DATA.\n"
    body = yaml.safe_dump(facts | {"digest": encoder.digest}, default_flow_style=None, sort_keys=False, width=120)
    FILE.write_text(head + body, encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).parents[2])
