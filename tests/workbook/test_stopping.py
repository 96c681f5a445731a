"""The neurons chosen by fewer resamples beside those chosen by all J."""

import numpy as np
import pandas as pd
import pytest
from tsns_workbook.performance import overlap_curves, plot_overlap_curves, stopping_table


def grid(percent, selected, resamples):
    rows = [
        {
            "source": source, "target": "toy", "method": "tsns", "k": 4, "run": run,
            "n": 200, "accuracy": percent / 100, "correct": np.arange(200) < 2 * percent,
            "selected": np.array(selected), "resamples": resamples,
        }
        for source in ("books", "dvd")
        for run in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_savings_and_changes_on_literal_values():
    row = stopping_table(grid(70, [1, 2, 3, 4], 100), grid(60, [2, 3, 4, 5], 24)).iloc[0]
    assert (row["K"], row["resamples"], row["J"], row["overlap"], row["smallest"]) == (4, 24, 100, 0.75, 0.75)
    assert (row["accuracy"], row["accuracy with J resamples"], row["change"]) == (60, 70, -10)
    assert row["low"] < -10 < row["high"] < 0
    assert row["measurable change"] == "yes"


def test_the_same_choice_changes_nothing():
    same = grid(70, [1, 2, 3, 4], 100)
    row = stopping_table(same, same).iloc[0]
    assert (row["overlap"], row["change"], row["measurable change"]) == (1, 0, "no")


@pytest.fixture
def curves():
    rng = np.random.default_rng(0)
    return overlap_curves({name: rng.dirichlet(np.linspace(1, 9, 40), size=32) for name in ("books", "dvd")}, [5, 10])


def test_curves_name_their_source(curves):
    assert curves["source"].unique().tolist() == ["books", "dvd"]
    assert curves.groupby("source").size().tolist() == [10, 10]  # looks at 8, 12, 16, 24 and 32, two K


def test_every_k_is_a_panel_and_every_source_a_line(curves):
    figure = plot_overlap_curves(curves, 0.05, generated=True)
    assert [axes.get_title() for axes in figure.axes] == ["K = 5", "K = 10"]
    assert len(figure.axes[-1].lines) == 2 * 3 + 1
    assert figure.get_suptitle().endswith("(generated data)")
