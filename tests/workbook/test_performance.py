"""The frames that the benchmarks return, and what is made of them; no time is asserted."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tsns_workbook import benchmarks, forecast, paper, performance

from tsns_lib import load_encoder, load_source


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 60)
    return (rng.normal(size=(120, 60)) + 2 * y[:, None] * (np.arange(60) < 6)).astype(np.float32), y


@pytest.fixture(scope="module")
def compared(data):
    return benchmarks.compare_forests(*data, n_trees=20, neurons=[6], peers=["ExtraTreesClassifier"])


def test_every_forest_stands_beside_scikit_learn(compared):
    assert compared["forest"].tolist() == ["tsns_lib", "RandomForestClassifier", "ExtraTreesClassifier"]
    assert compared.set_index("forest").at["RandomForestClassifier", "ratio"] == 1
    assert (compared["K=6"] >= 0.8).all()  # the six planted neurons


def test_a_peer_that_is_missing_is_named(data, monkeypatch):
    monkeypatch.setitem(benchmarks.PEERS, "a forest of tomorrow", ("not_yet_written", benchmarks.PEERS["ydf"][1]))
    table = benchmarks.compare_forests(*data, n_trees=5, neurons=[6], peers=["a forest of tomorrow"]).set_index(
        "forest"
    )
    assert table.at["a forest of tomorrow", "note"] == "not installed"
    assert np.isnan(table.at["a forest of tomorrow", "seconds"])


def test_scaling_varies_one_thing_at_a_time(data):
    measured = benchmarks.scaling(*data, {"rows": [60, 120], "threads": [1]}, n_trees=5)
    assert measured[["varied", "value"]].drop_duplicates().values.tolist() == [
        ["rows", 60],
        ["rows", 120],
        ["threads", 1],
    ]
    assert set(measured["forest"]) == {"tsns_lib", "RandomForestClassifier"}
    figure = performance.scaling_plot(measured, title="made up")
    assert [axes.get_title() for axes in figure.axes] == ["rows", "threads"]


def test_ratios_are_drawn_for_what_was_measured(compared):
    missing = pd.DataFrame([{"forest": "a forest of tomorrow", "note": "not installed"}])
    figure = performance.ratio_plot(pd.concat([compared, missing]), "forest", title="made up", than="scikit-learn")
    assert len(figure.axes[0].patches) == len(compared)


def test_sources_are_stacked_by_the_names_of_their_classes():
    books, dvd = (load_source(f"miniature:{name}", limit=6) for name in ("books", "dvd"))
    other = replace(dvd, frame=dvd.frame.assign(label=1 - dvd.frame["label"]), classes=dvd.classes[::-1])
    X, y = performance.stacked([books, other], load_encoder(), 16, 12)
    assert X.shape == (12, 2304)
    assert y.tolist() == [*books.frame["label"], *dvd.frame["label"]]


def test_operations_of_one_token_are_two_for_each_weight():
    encoder = load_encoder()
    of_layer = 4 * 384 * 384 + 2 * 384 * 1_536
    assert benchmarks.operations(np.array([1]), encoder) == 6 * (2 * of_layer + 4 * 384)


def test_the_plain_loop_gives_the_same_activations():
    texts = ["a made-up line", "another one, of more words", "short"]
    encoder = load_encoder()
    assert np.allclose(
        benchmarks.plain_loop(encoder, 32, texts), benchmarks.our_extraction(encoder, 32, texts), atol=1e-5
    )


def test_the_papers_forests_are_counted():
    training = paper.table1().set_index("source")["training"].astype(int).to_dict()
    grown = performance.paper_forests(training)
    assert grown.groupby("what")["forests"].sum().to_dict() == {
        "Tables 2 and 3, Figure 2": 12 * 500, "Table 4": 6 * 500, "Table 5": 66 * 500
    }  # fmt: skip
    assert grown.set_index("source").at["snli", "resample rows"].max() == 36_618
    assert grown.loc[grown["what"] == "Table 4", "resample rows"].tolist() == [2_800]


def test_the_bill_is_units_times_their_cost():
    grown = pd.DataFrame({"what": ["Table 2"], "resample rows": [1024], "forests": [36]})
    bill = performance.paper_cost(grown, 1e-6, 7_200_000, 1_000, rows=100)
    assert bill.at["Table 2", "core-hours"] == pytest.approx(36 * 1_000 * 1e-6 * 1024 * 10 / 3600, abs=0.05)
    assert bill.at["activations", "core-hours"] == 2.0
    assert bill.at["all", "hours on 16 cores"] == pytest.approx(bill.at["all", "core-hours"] / 16, abs=0.05)


def test_copies_get_noisier(data):
    X, _ = data
    wide = performance.noisy_copies(X, 150)
    assert wide.shape == (120, 150)
    assert np.array_equal(wide[:, :60], X)
    near, far = (np.abs(wide[:, first : first + 30] - X[:, :30]).mean() for first in (60, 120))
    assert 0 < near < far


def test_what_was_not_measured_is_not_judged(compared):
    ways = pd.DataFrame({"way": ["tsns_lib, bfloat16", "plain loop, float32", "NeuroX to HDF5"], "rows": 200})
    ways["seconds"] = [1.0, 6.0, np.nan]
    peak = pd.DataFrame({"encoder": list(performance.PEAK_TARGETS), "share": [0.5, 0.5]})
    workers = pd.DataFrame({"where": ["here, 2 threads", "2 workers"], "ratio": [1.2, 1.9], "same bits": True})
    saved = pd.DataFrame({"change": [0.1, -0.7], "trees": [240, 320], "T": 1000})
    judged = performance.targets({"base": compared}, ways, peak, workers, saved).set_index("promise")["verdict"]
    assert judged["forest, tall"] == "not measured here"
    assert judged["extraction of 200 texts against plain loop, float32"] == "met"
    assert judged["extraction of 200 texts against NeuroX to HDF5"] == "not measured here"
    assert judged["share of the matrix speed, BERT-large's shape (24 × 1,024)"] == "not met"
    assert judged["from 1 to 2 workers"] == "met"
    assert judged["tol: largest change of an average, in points"] == "not met"
    assert judged["tol: share of the trees that was used"] == ""


@pytest.mark.skipif(benchmarks.has_device("cuda"), reason="there is a GPU")
def test_without_a_gpu_its_lines_are_empty(monkeypatch):
    monkeypatch.delitem(benchmarks.DEVICES, "cpu")
    peak = benchmarks.share_of_peak(["a made-up line"] * 10).set_index("encoder")
    assert peak.index.tolist() == ["MiniLM (6 × 384), GPU", "BERT-large's shape (24 × 1,024), GPU"]
    assert peak.isna().all(axis=None)


@pytest.fixture(scope="module")
def table1():
    names = paper.table1()["source"]
    return [load_source(f"miniature:{name}", name=name) for name in names]


def test_the_forecast_counts_what_the_parameters_ask_for(table1):
    table = forecast.forecast(table1, load_encoder(), n_trees=10, n_resamples=2, runs=1, max_length=32)
    n_rows = sum(source.n_rows for source in table1)
    assert table["units"].tolist() == [f"{n_rows:,} rows", "24 forests", "12 forests", "26 forests", ""]
    assert table.at["activations", "GB"] == round(n_rows * 2_304 * 4 / 1e9, 2)
    assert (table["hours"] >= 0).all()
    assert forecast.device_line(load_encoder(device="cpu")).startswith("device: no GPU; ")


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("YES\n", 0), ("\n", 1), ("", 1)])
def test_a_run_of_hours_is_confirmed(monkeypatch, answer, status):
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert forecast.confirmed() == (status == 0)


def test_a_forecast_without_the_corpora_says_what_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TSNS_DATA", str(tmp_path))
    assert forecast.main(["--profile", "local", "--yes"]) == 2
    assert capsys.readouterr().err.startswith("make local: books: no sorted_data_acl or ")
