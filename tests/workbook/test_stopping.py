"""The neurons chosen by fewer trees beside those chosen by all."""

import numpy as np
import pandas as pd
import pytest
from tsns_workbook.performance import looked_at, overlap_curves, plot_overlap_curves, stopping_table


def grid(percent, selected, trees):
    rows = [
        {
            "source": source, "target": "toy", "method": "tsns", "k": 4, "run": run,
            "n": 200, "accuracy": percent / 100, "correct": np.arange(200) < 2 * percent,
            "selected": np.array(selected), "trees": trees,
        }
        for source in ("books", "dvd")
        for run in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_savings_and_changes_on_literal_values():
    row = stopping_table(grid(70, [1, 2, 3, 4], 1000), grid(60, [2, 3, 4, 5], 240)).iloc[0]
    assert (row["K"], row["trees"], row["T"], row["overlap"], row["smallest"]) == (4, 240, 1000, 0.75, 0.75)
    assert (row["accuracy"], row["accuracy with T trees"], row["change"]) == (60, 70, -10)
    assert row["low"] < -10 < row["high"] < 0
    assert row["measurable change"] == "yes"


def test_the_same_choice_changes_nothing():
    same = grid(70, [1, 2, 3, 4], 100)
    row = stopping_table(same, same).iloc[0]
    assert (row["overlap"], row["change"], row["measurable change"]) == (1, 0, "no")


@pytest.fixture
def curves(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = {name: rng.normal(size=(60, 40)) + y[:, None] * np.linspace(0, 1, 40) for name in ("books", "dvd")}
    monkeypatch.setenv("TSNS_CACHE", str(tmp_path))
    return overlap_curves({name: looked_at(X[name], y, n_resamples=8, n_trees=32) for name in X}, [5, 10])


def test_curves_name_their_source(curves):
    assert curves["source"].unique().tolist() == ["books", "dvd"]
    assert curves[curves["source"] == "dvd"]["trees"].tolist() == [n for n in (8, 12, 16, 24, 32) for _ in (5, 10)]


def test_the_last_look_has_all_trees(curves):
    last = curves[curves["trees"] == 32]
    assert (last[["expected", "low", "found"]] == 1).all(axis=None)
    assert (curves.groupby("trees")["found"].mean().diff().dropna() > -0.1).all()


def test_every_k_is_a_panel_and_every_source_a_line(curves):
    figure = plot_overlap_curves(curves, 0.05, generated=True)
    assert [axes.get_title() for axes in figure.axes] == ["K = 5", "K = 10"]
    assert len(figure.axes[-1].lines) == 2 * 3 + 1
    assert figure.get_suptitle().endswith("(generated data)")
