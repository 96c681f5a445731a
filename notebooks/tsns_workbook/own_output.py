"""What `tsns analyse` and `tsns predict` read and write: notebook 30 as one offline page, tables, and the model."""

import csv
import html
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import nbformat
import numpy as np
import pandas as pd

from tsns_lib import TransferModel
from tsns_lib.corpora.own import read_texts
from tsns_lib.model import FACTS, TENSORS
from tsns_lib.store import StoreError, atomic
from tsns_workbook.own_text import CV, TSNS, Corpora, Judged, load, neuron_table
from tsns_workbook.project import ProjectError

NOTEBOOK = "30_your_own_text"
# For a minute on 1,000 short texts; notebook 30 of the profile local has the paper's forests.
SETTINGS = {"profile": "own", "max_length": 128, "n_resamples": 100, "n_trees": 100, "fold_resamples": 8}
COLUMNS = ("text", "text_pair", "label", "labels")
PAGE, EXECUTED, NEURONS, PREDICTIONS, MODEL = "report.html", "report.ipynb", "neurons.csv", "predictions.csv", "model"
PAGE_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;font-size:.9rem;margin:1rem 0;display:block;overflow-x:auto}"
    "th,td{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:left}img{max-width:100%}"
    ".anchor-link,.jp-OutputPrompt,.prompt{display:none}pre{white-space:pre-wrap}"
)


def parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of notebook 30 for the words of `tsns analyse`, with whole paths."""
    found: dict[str, Any] = {role: _whole(given[role]) for role in ("source", "target")}
    for name in (*COLUMNS, *(f"target_{name}" for name in COLUMNS)):
        found[name] = meaning(given[name], name) if name.endswith("labels") else given[name]
    if given["encoder"]:
        found["encoder"] = _whole(given["encoder"])
    stem = Path(given["source"]).name.partition(".")[0]
    found["out"] = os.path.abspath(os.path.expanduser(given["out"] or f"{stem}-report"))
    return SETTINGS | found


def _whole(name: str) -> str:
    """The whole path of what is a file or folder here; any other name as it is."""
    path = os.path.expanduser(name)
    return os.path.abspath(path) if name and os.path.exists(path) else name


def meaning(text: str, option: str) -> dict[str, str | None]:
    """What labels mean, from words such as "1=neg,2=,3=pos"; nothing after "=" leaves a label out.

    Examples
    --------
    >>> meaning("1=neg,2=,3=pos", "labels")
    {'1': 'neg', '2': None, '3': 'pos'}
    """
    said: dict[str, str | None] = {}
    for pair in filter(None, text.split(",")):
        label, equals, name = (part.strip() for part in pair.partition("="))
        if not equals or not label or label in said:
            raise ProjectError(f"--{option.replace('_', '-')} {text}: must be like 1=neg,2=,3=pos, every label once")
        said[label] = name or None
    return said


def check_out(parameters: Mapping[str, Any]) -> None:
    """Raise a ProjectError where the folder for the results has the place of what is read."""
    out = Path(parameters["out"])
    for read in filter(None, map(parameters.get, ("source", "target", "encoder"))):
        for name in (PAGE, EXECUTED, NEURONS, PREDICTIONS, MODEL):
            if _lies_in(Path(read), out / name):
                raise ProjectError(f"--out: {read} lies where results are written; name another folder")


def _lies_in(path: Path, place: Path) -> bool:
    """Whether both are one file or folder, by whatever name, or the first lies in the second."""
    return path.exists() and place.exists() and any(place.samefile(each) for each in (path, *path.resolve().parents))


def opening(parameters: Mapping[str, Any]) -> str:
    """Read the files once before any work, so that what is wrong with them is one line, and say what was read."""
    columns = {name: value for name, value in parameters.items() if name.removeprefix("target_") in COLUMNS}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            corpora = load(parameters["source"], parameters["target"], **columns)
        except ValueError as error:
            raise ProjectError(as_options(str(error), parameters["target"])) from error
    lines = [str(warning.message) for warning in said]
    for corpus in filter(None, corpora[:2]):
        unlabelled = corpus is corpora.target and not corpora.labelled
        classes = f"classes {', '.join(corpus.classes)}"
        if unlabelled:
            others = ", ".join(map(str, corpus.origin["ignored_columns"])) or "none"
            classes = f"no labels (other columns: {others}; --target-label names one)"
        lines.append(f"{corpus.name}: {corpus.n_rows} rows, {classes}{_left_out(corpus.origin)}")
    return "\n".join(lines)


def _left_out(facts: Mapping[str, Any]) -> str:
    reasons = ", ".join(f"{reason} {n}" for reason, n in facts["skipped"].items())
    return f"; {sum(facts['skipped'].values())} of {facts['rows_read']} not used ({reasons})" if reasons else ""


def as_options(message: str, target: str = "") -> str:
    """The message of a wrong file with the options of `tsns` in place of the arguments of `load_source`."""
    role = "target-" if target and message.startswith(target) else ""
    message = re.sub(
        r"name yours with (\w+)=$", lambda found: f"name yours with --{role}{found[1].replace('_', '-')}", message
    )
    message = message.replace(
        "labels= must name every class, with None", f"--{role}labels must name every class, with 3="
    )
    example = "--labels 1=neg,2=neg,3=,4=pos,5=pos (3 is left out) or --target-labels renames them"
    return re.sub(r"load_source\(\.\.\., labels=.*\) renames them", example, message)


def finish(notebook: nbformat.NotebookNode, out: Path) -> str:
    """Write the notebook and its page; return what it advises and what was written."""
    advice = next(cell for cell in notebook.cells if cell.get("id") == "short-answer").outputs[0].data["text/markdown"]
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if "text/markdown" in output.get("data", {}):
            output.data["text/markdown"] = _inert(output.data["text/markdown"])
    for name, text in ((EXECUTED, nbformat.writes(notebook)), (PAGE, page(notebook))):
        with written(out / name) as file:
            file.write(text.encode())
    files = f"{PAGE}, {EXECUTED}, {NEURONS}, {PREDICTIONS} and {MODEL}"
    return f"{advice.replace('**', '')}\n{out}: {files}"


def _inert(markdown: str) -> str:
    """Markdown of a cell without HTML, links, pictures and formulas, none of which we write: names of files may."""
    return re.sub(r"[\\[\]$]", r"\\\g<0>", html.escape(markdown, quote=False))


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """A file that is there when it is whole; an error names it."""
    try:
        is_device = path.exists() and not path.is_file()  # such as /dev/stdout
        with path.open("wb") if is_device else atomic(path.resolve()) as file:
            yield file
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}; make room, or name another place with --out") from error


def page(notebook: nbformat.NotebookNode) -> str:
    """An executed notebook as one page that asks for nothing from elsewhere: text, tables and pictures, no code."""
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    shown = nbformat.from_dict(notebook)
    for cell in shown.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    config = Config(TagRemovePreprocessor={"enabled": True, "remove_cell_tags": ["parameters", "not-in-report"]})
    config.HTMLExporter.preprocessors = ["nbconvert.preprocessors.TagRemovePreprocessor"]
    config.HTMLExporter |= {"exclude_input": True, "exclude_input_prompt": True, "exclude_output_prompt": True}
    body, _ = HTMLExporter(config=config, template_name="basic").from_notebook_node(shown)
    head = f'<meta charset="utf-8"><title>Your own text</title><style>{PAGE_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def keep(out: str, corpora: Corpora, model: TransferModel, judged: Sequence[Judged]) -> str:
    """Write neurons, predictions and the model into a folder, and say so; without a folder, nothing."""
    if not out:
        return "Nothing was written: `out` names no folder."
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    neurons, table = neuron_table(model), predictions(corpora, model, judged)
    for name in (PAGE, NEURONS, PREDICTIONS):  # of an earlier run: what lies here must be of one, wherever it ends
        (folder / name).unlink(missing_ok=True)
    with written(folder / NEURONS) as file:
        neurons.to_csv(file, index=False)
    write_table(table, folder / PREDICTIONS)
    model.save(folder / MODEL)
    return (
        f"Beside this page lie `{NEURONS}`, `{PREDICTIONS}` and `{MODEL}`. The model is that of TSNS, whatever "
        "the rule advises; `tsns predict model FILE` predicts other texts with it."
    )


def predictions(corpora: Corpora, model: TransferModel, judged: Sequence[Judged]) -> pd.DataFrame:
    """What the model says of the target; without one, what TSNS said of each row of the source in cross-validation."""
    names = {number: name for name, number in corpora.source.numbers.items()}
    if corpora.target is None:
        own = next(each for each in judged if each.method == TSNS and each.place == CV)
        table = predicted_table(corpora.source.frame, own.probabilities, model.classes_)
        return table.assign(label=[names[number] for number in own.truth])
    table = predicted_table(corpora.target.frame, model.predict_proba(corpora.target), model.classes_)
    if not corpora.labelled:
        return table
    return table.assign(label=[names[number] for number in corpora.source.labels_of(corpora.target)])


def predicted_table(frame: pd.DataFrame, chances: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """Texts with the predicted class and the probability of each."""
    texts = frame[["text", "text_pair"]].dropna(axis="columns", how="all").reset_index(drop=True)
    table = texts.assign(predicted=np.array(classes)[chances.argmax(axis=1)])
    return table.assign(**{f"p({name})": chances[:, number].round(4) for number, name in enumerate(classes)})


def write_table(table: pd.DataFrame, file: Path) -> None:
    """Write a CSV whose texts stand in quotation marks: without them, a lone carriage return would end a row."""
    with written(file) as opened:
        table.to_csv(opened, index=False, quoting=csv.QUOTE_NONNUMERIC)


def predict(model: str, file: str, out: str, **columns: Any) -> str:
    """Predict the texts of a file with a saved model, write a CSV, and say what was written."""
    out = os.path.expanduser(out)
    if not Path(out).absolute().parent.is_dir():
        raise FileNotFoundError(f"--out: {Path(out).parent} is no folder")
    for read in (Path(file).expanduser(), *(Path(model).expanduser() / name for name in (FACTS, TENSORS))):
        if _lies_in(Path(out), read):
            raise ValueError(f"--out: {out} is the file that is read; name another")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*rows are not used")  # the sentence below counts them
        frame, facts = read_texts(Path(file).expanduser(), **columns)
    saved = TransferModel.load(model)
    pairs = None if frame["text_pair"].isna().all() else frame["text_pair"].tolist()
    table = predicted_table(frame, saved.predict_proba(frame["text"].tolist(), pairs), saved.classes_)
    table.insert(0, "row", frame.index)
    write_table(table, Path(out))
    counts = ", ".join(f"{name} {n}" for name, n in table["predicted"].value_counts().items())
    return f"{out}: {len(table)} of {facts['rows_read']} rows predicted ({counts}){_left_out(facts)}"
