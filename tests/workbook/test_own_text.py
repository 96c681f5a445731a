"""Your own text: what is read and said of it, the scores against scikit-learn's, the rule, and both commands."""

import html
import json
import os
import re
import resource
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score
from tsns_workbook import own_output, own_text
from tsns_workbook.cli import main
from tsns_workbook.own_text import CV, JUDGE, METHODS, METRICS, Corpora, Judged
from tsns_workbook.project import ProjectError, plan

from tsns_lib import load_encoder, load_source
from tsns_lib.store import StoreError

GOOD, BAD = "a warm and bright thing", "a dull and slow thing"


def write(path, rows, header="review;stars"):
    path.write_text(header + "\n" + "".join(f"{row}\n" for row in rows))
    return str(path)


@pytest.fixture
def stars(tmp_path):
    rows = [f"{(BAD, BAD, 'a thing', GOOD, GOOD)[i % 5]} {i};{i % 5 + 1}" for i in range(50)]
    return write(tmp_path / "reviews.csv", rows)


@pytest.fixture
def feelings(tmp_path):
    rows = [f"{(BAD, GOOD)[i % 2]} no {i},{('neg', 'pos')[i % 2]}" for i in range(20)]
    return write(tmp_path / "other.csv", rows, "Text,Sentiment")


MEANING = {"1": "neg", "2": "neg", "3": None, "4": "pos", "5": "pos"}
STARS = {"text": "review", "label": "stars", "labels": MEANING}


# what is read


def test_a_target_has_its_own_columns_and_the_labels_of_the_source(stars, feelings):
    corpora = own_text.load(stars, feelings, **STARS, target_label="Sentiment")
    assert (corpora.source.n_rows, corpora.target.n_rows, corpora.labelled) == (40, 20, True)
    assert corpora.source.labels_of(corpora.target).tolist() == [0, 1] * 10


def test_a_target_without_a_column_of_labels_is_predicted_only(stars, feelings):
    corpora = own_text.load(stars, feelings, **STARS)
    assert (corpora.target.n_rows, corpora.labelled) == (20, False)
    table = own_text.reading_table(corpora, load_encoder(), 16)
    assert "other.csv has no labels: its rows are predicted" in " ".join(own_text.warnings_of(corpora, table))


def test_rows_of_a_target_without_labels_are_drawn_at_random(tmp_path, stars):
    write(tmp_path / "plain.csv", [f"text {row}" for row in range(100)], "review")
    drawn = [
        own_text.load(stars, str(tmp_path / "plain.csv"), rows=20, seed=seed, **STARS).target for seed in (0, 0, 1)
    ]
    first, again, other = ([int(text.split()[1]) for text in target.frame["text"]] for target in drawn)
    assert first == again != other and first == sorted(first) and max(first) > 50


def test_an_entity_of_thousands_of_digits_is_left_as_it_is(tmp_path):
    rows = [f"a {i},x" for i in range(5)] + [f"b {i},y" for i in range(5)] + [f"&#{'9' * 5000};,x", "c &amp; d,y"]
    source = load_source(write(tmp_path / "a.csv", rows, "text,label"))
    assert own_text.reading_table(Corpora(source), load_encoder(), 16).iloc[:, 0]["with HTML entities"] == 1


def test_what_is_wrong_with_the_data_is_said(tmp_path):
    rows = ["a,x"] * 3 + ["a,y"] + [f"b &amp; {i},x" for i in range(36)] + [f"c {i},y" for i in range(3)]
    source = load_source(write(tmp_path / "a.csv", rows, "text,label"))
    target = load_source(write(tmp_path / "b.csv", ["a,x", "d,x", "e,y", "f,y"], "text,label"))
    corpora = Corpora(source, target, True)
    table = own_text.reading_table(corpora, load_encoder(), 16)
    facts = table.iloc[:, 0]
    assert (facts["repeated texts"], facts["texts with two labels"], facts["with HTML entities"]) == (3, 1, 36)
    assert facts["classes"] == "x: 90.7%, y: 9.3%"
    assert table.iloc[:, 1]["texts that the other file has, too"] == 1
    said = " ".join(own_text.warnings_of(corpora, table))
    assert "a.csv has 9% of the rows only: accuracy says little" in said
    assert "1 texts that the other file has, too" in said
    assert "43 rows: the intervals are wide" in said


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        ("stars", "", {}, "no column 'text'; found: review, stars; name yours with --text"),
        (
            "stars",
            "feelings",
            {"text": "review", "label": "stars", "target_label": "mood"},
            "yours with --target-label",
        ),
        (
            "stars",
            "feelings",
            {"text": "review", "label": "stars", "target_label": "Sentiment"},
            r"'1', '2', '3', '4', '5', and .* has 'neg', 'pos'; .*; --labels 1=neg,2=neg,3=,4=pos,5=pos",
        ),
        ("stars", "stars", STARS, "source and target are the same"),
    ],
)
def test_a_wrong_file_is_one_line_before_any_work(request, source, target, options, message):
    files = {
        role: request.getfixturevalue(name) if name else "" for role, name in (("source", source), ("target", target))
    }
    with pytest.raises(ProjectError, match=message) as error:
        own_output.opening(files | options)
    assert "\n" not in str(error.value)


def test_a_class_of_few_rows_is_refused_by_its_name(tmp_path):
    path = write(tmp_path / "a.csv", [f"x {i},0" for i in range(9)] + ["y,1"] * 9, "text,label")
    with pytest.raises(ValueError, match="the class '1' has 1 different texts; at least 4 are needed"):
        own_text.load(path)


def test_rows_that_are_not_used_are_said_once(tmp_path, recwarn):
    path = write(
        tmp_path / "a.csv", [row for i in range(4) for row in (f"x{i},0", f"y{i},1", ",1", "z,")], "text,label"
    )
    said = own_output.opening({"source": path, "target": ""})
    assert said.endswith("a.csv: 8 rows, classes 0, 1; 8 of 16 not used (empty text 4, missing label 4)")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("name", "key"), [("04", "sources"), ("03", "null_sources"), ("05", "targets"), ("12", "sources")]
)
def test_a_notebook_of_the_paper_refuses_own_text_before_any_work(name, key):
    root = Path(__file__).parents[2]
    with pytest.raises(ProjectError, match=f"{key} of {name}.*'a.csv' is no corpus of the paper.*20 take your own"):
        plan(root, "mini", [name], {key: {"a.csv": "train"} if key == "targets" else ["miniature:sst", "a.csv"]})


@pytest.mark.parametrize("text", ["1", "1=neg,1=pos", "=neg"])
def test_a_meaning_that_is_none_is_refused(text):
    with pytest.raises(ProjectError, match="--target-labels .*: must be like 1=neg,2=,3=pos, every label once"):
        own_output.meaning(text, "target_labels")


# what is scored


def drawn(n_classes, place=CV, method="TF-IDF", skill=1.0, n=90):
    rng = np.random.default_rng(n_classes)
    truth = np.arange(n) % n_classes
    scores = rng.normal(size=(n, n_classes)).round(1) + skill * np.eye(n_classes)[truth]
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return Judged(place, method, truth, chances.argmax(axis=1), chances, np.arange(n_classes))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_measures_are_those_of_scikit_learn(n_classes):
    judged = drawn(n_classes)
    weights = np.random.default_rng(0).integers(0, 4, size=(3, 90))
    found = own_text.measures(judged, weights)
    chances = judged.probabilities[:, 1] if n_classes == 2 else judged.probabilities
    for row, weight in enumerate(weights):
        right = {"sample_weight": weight}
        assert found["accuracy"][row] == pytest.approx(
            100 * np.average(judged.truth == judged.predicted, weights=weight)
        )
        balanced = balanced_accuracy_score(judged.truth, judged.predicted, **right)
        assert found["balanced accuracy"][row] == pytest.approx(100 * balanced)
        assert found["macro F1"][row] == pytest.approx(
            100 * f1_score(judged.truth, judged.predicted, average="macro", **right)
        )
        area = roc_auc_score(judged.truth, chances, multi_class="ovr", **right)
        assert found["ROC AUC"][row] == pytest.approx(100 * area)


def test_a_table_has_every_method_and_metric_with_its_interval():
    judged = [drawn(2, method=method, skill=number / 2) for number, method in enumerate(METHODS)]
    scores = own_text.score_table(judged, 0)
    assert len(scores) == len(METHODS) * len(METRICS)
    assert ((scores["low"] <= scores["value"]) & (scores["value"] <= scores["high"])).all()
    assert own_text.readable(scores, CV).index.tolist() == list(METHODS)
    assert own_text.score_figure(scores, generated=True).axes[0].get_title(loc="left").endswith("(generated data)")


# the rule


def scored(place=CV, **behind):
    """Scores in which every method is surely behind the best but those named: (points behind, lower end)."""
    rows = []
    for method in METHODS:
        points, low = behind.get(method.split("-")[0].split()[0], (20, 10))
        facts = {
            "place": place,
            "method": method,
            "metric": JUDGE,
            "n": 100,
            "value": 80 - points,
            "low": 0,
            "high": 99,
        }
        rows.append(facts | {"behind": points, "behind_low": low, "behind_high": points + 5})
    return pd.DataFrame(rows)


def test_the_cheapest_of_those_that_tie_is_taken():
    scores = scored(TSNS=(0, 0), all=(1, -1), best=(2, 0.5))
    choice = own_text.choose(scores)
    assert (choice.method, choice.best) == ("all neurons", "TSNS")
    assert own_text.advice(choice, scores).startswith("**Use all neurons, not TSNS**")
    assert choice.comparison["ties"].tolist() == ["no", "no", "no", "no", "yes", "no", "yes"]


def test_tsns_is_advised_where_nothing_cheaper_ties():
    scores = scored(TSNS=(0, 0))
    assert own_text.advice(own_text.choose(scores), scores).startswith("**Use TSNS**: ")


def test_none_is_advised_where_chance_ties():
    scores = scored(TSNS=(0, 0), majority=(3, -1))
    assert own_text.advice(own_text.choose(scores), scores).startswith("**Use none of them**")


def test_the_target_decides_where_it_has_labels():
    scores = pd.concat([scored(TSNS=(0, 0)), scored("mine", TSNS=(3, 1), TF=(0, 0))])
    assert own_text.choose(scores)[:3] == ("TF-IDF", "TF-IDF", "mine")


# both commands


@pytest.mark.slow
def test_from_two_files_to_a_page_and_predictions_on_new_text(tmp_path, monkeypatch, capsys, stars, feelings):
    monkeypatch.delenv("TSNS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    columns = ["--text", "review", "--label", "stars", "--labels", "1=neg,2=neg,3=,4=pos,5=pos"]
    small = ["--param", "k=20", "--param", "n_trees=20", "--param", "n_resamples=8", "--param", "folds=2"]
    arguments = ["analyse", "reviews.csv", *columns, "--target", "other.csv", "--target-label", "Sentiment", *small]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"reviews\.csv: 40 rows, classes neg, pos; 10 of 50 not used .*\n.*other\.csv: 20 rows, classes neg, pos\nUse ",
        said,
    )
    folder = tmp_path / "reviews-report"
    page = (folder / "report.html").read_text()
    order = ["In short", "What was read", "What one can expect", "Verdict", "Which neurons", "Known sources"]
    places = [page.index(f'<h2 id="{title.split()[0]}') for title in order]
    assert places == sorted(places)
    assert "<script" not in page and "http" not in page and "own_text." not in page
    assert len(pd.read_csv(folder / "neurons.csv")) == 20
    predicted = pd.read_csv(folder / "predictions.csv")
    assert (predicted["predicted"] == predicted["label"]).mean() > 0.9
    assert json.loads((folder / "model/model.json").read_text())["settings"]["n_neurons"] == 20
    write(tmp_path / "new.csv", [f"{GOOD} again", f"{BAD} again"], "TEXT")
    assert main(["predict", "reviews-report/model", "new.csv"]) == 0
    assert "predictions.csv: 2 of 2 rows predicted" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert table[["row", "predicted"]].to_numpy().tolist() == [[1, "pos"], [2, "neg"]]
    for out, why in [("new.csv", "is the file that is read; name another"), ("no/x.csv", "no is no folder")]:
        assert main(["predict", "reviews-report/model", "new.csv", "--out", out]) == 2
        assert why in capsys.readouterr().err
    saved = folder / "model/model.json"
    assert main(["predict", "reviews-report/model", "new.csv", "--out", str(saved)]) == 2
    assert json.loads(saved.read_text()) and "is the file that is read" in capsys.readouterr().err
    (tmp_path / "new.jsonl").write_text('{"text": "so\\rso"}\n')
    assert main(["predict", "reviews-report/model", "new.jsonl", "--out", "one.csv"]) == 0
    assert len(pd.read_csv(tmp_path / "one.csv")) == 1
    assert main(["predict", "nowhere", "new.csv"]) == 2
    assert main(["predict", "reviews-report/model", "reviews.csv"]) == 2
    assert "found: review, stars; name yours with --text\n" in capsys.readouterr().err
    assert main(["analyse", "reviews.csv", *columns, "--param", "resamples=8"]) == 2
    assert "did you mean 'n_resamples'" in capsys.readouterr().err


def test_a_tilde_in_an_output_is_the_home_folder(tmp_path, monkeypatch, stars):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = dict.fromkeys(["source", "target", "encoder", *own_output.COLUMNS], "")
    given |= {f"target_{name}": "" for name in own_output.COLUMNS}
    assert own_output.parameters(given | {"source": str(stars), "out": "~/report"})["out"] == str(tmp_path / "report")
    with pytest.raises(FileNotFoundError, match=f"--out: {tmp_path}/nowhere is no folder"):
        own_output.predict("model", str(stars), "~/nowhere/a.csv")


# what is written


@pytest.mark.parametrize("role", ["source", "target"])
@pytest.mark.parametrize("name", ["predictions.csv", "neurons.csv", "model/model.json", "model/mine.csv", "link.csv"])
def test_analyse_does_not_write_over_what_it_reads(tmp_path, monkeypatch, capsys, feelings, role, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    path = tmp_path / ("predictions.csv" if name == "link.csv" else name)
    os.rename(feelings, path)
    if name == "link.csv":
        (tmp_path / name).symlink_to(path)
    before, other = path.read_bytes(), write(tmp_path / "another.csv", [])
    arguments = {"source": [name], "target": [other, "--target", name]}[role]
    assert main(["analyse", *arguments, "--out", "."]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(rf"tsns: --out: {tmp_path / name} lies where results are written; name another folder\n", said)
    assert path.read_bytes() == before and not (tmp_path / "report.ipynb").exists()


@contextmanager
def room_for(n_bytes):
    """Files cannot grow beyond this, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def executed(*said):
    """A notebook as `tsns analyse` executes it, with these sentences in it; the first is the short answer."""
    cells = [nbformat.v4.new_code_cell(id=name) for name in ("short-answer", *(f"c{n}" for n in range(1, len(said))))]
    for cell, text in zip(cells, said, strict=True):
        cell.outputs = [nbformat.v4.new_output("display_data", {"text/markdown": text})]
    return nbformat.v4.new_notebook(cells=cells)


def test_a_full_disk_leaves_the_files_that_were_there(tmp_path):
    table, notebook = pd.DataFrame({"text": ["a text"] * 9000}), executed("a text " * 9000)
    writes = {
        "mine.csv": lambda: own_output.write_table(table, tmp_path / "mine.csv"),
        "report.ipynb": lambda: own_output.finish(notebook, tmp_path),
    }
    for name, call in writes.items():
        for before in (None, b"whole"):
            if before:
                (tmp_path / name).write_bytes(before)
            with room_for(20_000), pytest.raises(StoreError, match=rf"^{tmp_path / name}: File too large; make room"):
                call()
            assert [path.name for path in tmp_path.iterdir()] == ([name] if before else [])
            assert not before or (tmp_path / name).read_bytes() == before
        (tmp_path / name).unlink()


def test_a_table_goes_through_a_link_and_into_a_pipe(tmp_path):
    table = pd.DataFrame({"text": ["a"]})
    (tmp_path / "link.csv").symlink_to(tmp_path / "file.csv")
    own_output.write_table(table, tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "file.csv").read_text() == '"text"\n"a"\n'
    own_output.write_table(table, Path("/dev/null"))
    assert Path("/dev/null").is_char_device()


def test_the_page_of_an_earlier_run_goes_before_new_tables_come(tmp_path, monkeypatch):
    for name in ("report.html", "neurons.csv", "predictions.csv"):
        (tmp_path / name).write_text("of an earlier run")

    def killed(table, file):
        assert [path.name for path in tmp_path.iterdir()] == ["neurons.csv"]
        raise KeyboardInterrupt

    monkeypatch.setattr(own_output, "neuron_table", lambda model: pd.DataFrame({"layer": [1]}))
    monkeypatch.setattr(own_output, "predictions", lambda *of: pd.DataFrame({"text": ["a"]}))
    monkeypatch.setattr(own_output, "write_table", killed)
    with pytest.raises(KeyboardInterrupt):
        own_output.keep(str(tmp_path), None, None, [])
    assert (tmp_path / "neurons.csv").read_text() == "layer\n1\n"


HOSTILE = "a<svg onload=alert(4)>[x](javascript:alert(2))![y](//example.org/z)$<b>$`<i>`\\<u>&lt;.csv"


def test_a_name_of_a_file_is_text_in_the_page(tmp_path):
    source = load_source(write(tmp_path / "a.csv", [f"{'xy'[i % 2]} {i},{i % 2}" for i in range(9)], "text,label"))
    source = replace(source, name=HOSTILE)
    corpora = Corpora(source, replace(source, name=f"b{HOSTILE}"), False)
    reading = own_text.reading_table(corpora, load_encoder(), 16)
    scores = scored(HOSTILE, TSNS=(0, 0))
    answer = own_text.advice(own_text.choose(scores), scores)
    notebook = executed(answer, *own_text.warnings_of(corpora, reading), f"**{HOSTILE}**, 9 rows; `model` and 'it'")
    assert HOSTILE in own_output.finish(notebook, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"<(svg|img|[biu])\b|<a [^>]*javascript", page)
    shown = html.unescape(re.sub(r"<[^>]*>", "", page))
    assert "a<svg onload=alert(4)>[x](javascript:alert(2))![y](//example.org/z)$<b>$" in shown
    assert "<code>model</code> and 'it'" in page and "<strong>Use TSNS</strong>: balanced" in page
    saved = nbformat.read(tmp_path / "report.ipynb", as_version=4)
    assert all("<" not in output.data["text/markdown"] for cell in saved.cells for output in cell.outputs)


def test_a_formula_in_the_name_of_a_file_is_drawn_as_it_is():
    rows = pd.concat([scored(), scored(r"$\nothing{$.csv", TSNS=(0, 0))])
    figure = own_text.score_figure(rows, generated=False)
    assert figure.axes[0].get_legend().get_texts()[1].get_text() == r"\$\nothing{\$.csv"
    figure.canvas.draw()
