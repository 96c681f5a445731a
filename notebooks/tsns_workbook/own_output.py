"""What `tsns analyse` and `tsns predict` write: one offline page, neurons, predictions and the model."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsns_lib import TransferModel
from tsns_lib.corpora.own import read_texts
from tsns_workbook.own_text import CV, TSNS, Corpora, Judged, neuron_table

PAGE_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;font-size:.9rem;margin:1rem 0;display:block;overflow-x:auto}"
    "th,td{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:left}img{max-width:100%}"
    ".anchor-link,.jp-OutputPrompt,.prompt{display:none}pre{white-space:pre-wrap}"
)


def predictions(corpora: Corpora, model: TransferModel, judged: Sequence[Judged]) -> pd.DataFrame:
    """What the model says of the target; without one, what TSNS said of each row of the source in cross-validation."""
    if corpora.target is not None:
        chances = model.predict_proba(corpora.target)
        table = predicted_table(corpora.target.frame, chances, model.classes_)
        if corpora.labelled:
            names = {number: name for name, number in corpora.source.numbers.items()}
            table["label"] = [names[number] for number in corpora.source.labels_of(corpora.target)]
        return table
    own = next(each for each in judged if each.method == TSNS and each.place == CV)
    names = {number: name for name, number in corpora.source.numbers.items()}
    table = predicted_table(corpora.source.frame, own.probabilities, model.classes_)
    return table.assign(label=[names[number] for number in own.truth])


def predicted_table(frame: pd.DataFrame, chances: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """Texts with the predicted class and the probability of each."""
    texts = frame[["text", "text_pair"]].dropna(axis="columns", how="all").reset_index(drop=True)
    table = texts.assign(predicted=np.array(classes)[chances.argmax(axis=1)])
    return table.assign(**{f"p({name})": chances[:, number].round(4) for number, name in enumerate(classes)})


def keep(out: str, corpora: Corpora, model: TransferModel, judged: Sequence[Judged]) -> str:
    """Write neurons, predictions and the model into a folder, and say so; without a folder, nothing."""
    if not out:
        return "nothing was written: out names no folder"
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    neuron_table(model).to_csv(folder / "neurons.csv", index=False)
    predictions(corpora, model, judged).to_csv(folder / "predictions.csv", index=False)
    model.save(folder / "model")
    return "neurons.csv, predictions.csv and the folder model were written"


def predict(model: str, file: str, out: str, **columns: Any) -> str:
    """Predict the texts of a file with a saved model, write a CSV, and say what was written."""
    frame, facts = read_texts(Path(file).expanduser(), **columns)
    saved = TransferModel.load(model)
    pairs = None if frame["text_pair"].isna().all() else frame["text_pair"].tolist()
    table = predicted_table(frame, saved.predict_proba(frame["text"].tolist(), pairs), saved.classes_)
    table.insert(0, "row", frame.index)
    table.to_csv(out, index=False)
    counts = ", ".join(f"{name} {n}" for name, n in table["predicted"].value_counts().items())
    return f"{out}: {len(table)} of {facts['rows_read']} rows predicted ({counts})"


def html_page(notebook: Any, title: str) -> str:
    """An executed notebook as one page that asks for nothing from elsewhere: text, tables and pictures, no code."""
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    remove = {"enabled": True, "remove_cell_tags": ["parameters", "not-in-report"]}
    config = Config(TagRemovePreprocessor=remove, HTMLExporter={"exclude_input": True, "embed_images": True})
    config.HTMLExporter.preprocessors = ["nbconvert.preprocessors.TagRemovePreprocessor"]
    body, _ = HTMLExporter(config=config, template_name="basic").from_notebook_node(notebook)
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{PAGE_STYLE}</style></head><body>{body}</body></html>\n'
    )
