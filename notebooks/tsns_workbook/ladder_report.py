"""The ladder of baselines as a table, a picture and a sentence: what stands on the first screen of tables 2 to 5."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tsns_workbook.ladder import TRANSDUCTIVE
from tsns_workbook.plots import BLUE, ORANGE, STYLE, finish
from tsns_workbook.report import Key, caption, label
from tsns_workbook.statistics import METRICS, PERCENTILES, Bootstrap, crossed, difference, over_sources

POOLING_NAMES = {"cls": "[CLS], the paper's", "mean": "mean pooling", "content": "mean pooling of the text's tokens"}
METRIC_NAMES = {"accuracy": "accuracy", "balanced_accuracy": "balanced", "auc": "AUC"}
LEADS = {"accuracy": "ahead", "auc": "ahead_auc"}  # the columns that say how far the selection is ahead by a metric
# the order of a ladder, from the bottom up
RUNGS = [
    "majority", "TF-IDF", "last_layer", "layer", "best layer", "random", "random of the same layers", "all",
    "all with C by CV", "f_test", "logistic", "tsns", "multi_tsns", "selected",
    f"best layer{TRANSDUCTIVE}", f"TSNS{TRANSDUCTIVE}",
]  # fmt: skip


def crossed_by_metric(grid: pd.DataFrame, seed: int) -> dict[str, Bootstrap]:
    """`statistics.crossed` of every metric."""
    return {metric: crossed(grid, metric=metric, seed=seed) for metric in METRICS}


def ladder_frame(ladders: Mapping[str, Mapping[str, Bootstrap]], chosen: Key) -> pd.DataFrame:
    """Every rung under every pooling, mean over the pairs: a row each, in percent and points.

    `ladders` holds `crossed_by_metric` by pooling. Columns pooling, method, k; each metric with its low and high;
    `ahead` with low and high: how far the chosen selection is ahead in accuracy, and `ahead_auc`; `ahead_sources_low`
    and `ahead_sources_high`, and the same of `ahead_auc`: its t interval over sources. Unions share corpora, so that
    there is none over these.
    """
    rows = []
    for pooling, boots in ladders.items():
        keys = [key for key in boots["accuracy"].point.index.droplevel(["source", "target"]).unique()]
        sizes = {method: {k for name, k in keys if name == method} for method, _ in keys}
        for method, k in keys:
            if len(sizes[method]) > 1 and k != chosen[1]:
                continue
            row = {"pooling": pooling, "method": method, "k": k}
            for metric, boot in boots.items():
                cells = [(*pair, method, k) for pair in boot.pairs]
                draws = boot.draws[cells].mean(axis=1)
                low, high = np.percentile(draws, PERCENTILES)
                row |= {metric: boot.point[cells].mean(), f"{metric}_low": low, f"{metric}_high": high}
            for metric, name in LEADS.items():
                values = difference(boots[metric], chosen, (method, k))
                row |= dict(zip([name, f"{name}_low", f"{name}_high"], values, strict=True))
                if not any("+" in source for source, _ in boots[metric].pairs):
                    _, low, high = over_sources(boots[metric], chosen, (method, k))
                    row |= {f"{name}_sources_low": low, f"{name}_sources_high": high}
            rows.append(row)
    frame = pd.DataFrame(rows)
    order = {method: place for place, method in enumerate(RUNGS)}
    place = frame["method"].str.replace(r"layer \d+", "layer", regex=True).map(order)
    return frame.assign(place=place).sort_values(["place", "pooling"], kind="stable").drop(columns="place")


def ladder_table(frame: pd.DataFrame, chosen: Key, *, generated: bool, metric: str = "accuracy") -> pd.DataFrame:
    """Lay out `ladder_frame` for reading: methods down; by pooling accuracy, balanced accuracy, AUC and the lead.

    The lead is that of the chosen selection by `metric` ("accuracy" or "auc"), in points with its interval, and where
    there is one with the interval over sources.
    """
    lead = LEADS[metric]
    ahead, of_sources = f"{label(*chosen)} ahead by ({METRIC_NAMES[metric]})", "the same over sources"
    blocks = {}
    for pooling, rows in frame.groupby("pooling", sort=False):
        names = [label(method, k) for method, k in zip(rows["method"], rows["k"], strict=True)]
        cells = {name: rows[metric].map("{:.1f}".format) for metric, name in METRIC_NAMES.items()}
        is_chosen = (rows["method"] == chosen[0]) & (rows["k"] == chosen[1])
        cells[ahead] = [
            "" if own else _points(*values)
            for own, values in zip(is_chosen, rows[[lead, f"{lead}_low", f"{lead}_high"]].to_numpy(), strict=True)
        ]
        if f"{lead}_sources_low" in rows:
            ends = rows[[f"{lead}_sources_low", f"{lead}_sources_high"]].to_numpy()
            cells[of_sources] = [
                "" if own else "{:+.1f} to {:+.1f}".format(*values.round(1) + 0.0)
                for own, values in zip(is_chosen, ends, strict=True)
            ]
        blocks[caption(POOLING_NAMES[str(pooling)], generated)] = pd.DataFrame(cells).set_axis(names)
    return pd.concat(blocks, axis=1)


def _points(value: float, low: float, high: float) -> str:
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(
        *(round(each, 1) + 0.0 for each in (value, low, high))
    )  # no minus zero


def ladder_answer(frame: pd.DataFrame, chosen: Key, *, metric: str = "accuracy") -> str:
    """Say in one sentence for each pooling what the selection reaches, and which rungs it is ahead of.

    `metric` is "accuracy" or "auc".
    """
    ahead = LEADS[metric]
    sentences = []
    for pooling, rows in frame.groupby("pooling", sort=False):
        own = rows[(rows["method"] == chosen[0]) & (rows["k"] == chosen[1])].iloc[0]
        last = rows[rows["method"] == "last_layer"].iloc[0]
        others = rows[(rows["method"] != chosen[0]) & ~rows["method"].str.contains(TRANSDUCTIVE, regex=False)]
        low, high = others[f"{ahead}_low"], others[f"{ahead}_high"]
        groups = {
            "clearly ahead of": others[low > 0],
            "not clearly apart from": others[(low <= 0) & (high >= 0)],
            "clearly behind": others[high < 0],
        }
        lists = [
            f"{words} {', '.join(label(row.method, 0) for row in group.itertuples())}"
            for words, group in groups.items()
            if len(group)
        ]
        reached = {"accuracy": "is right on {} % of the rows", "auc": "reaches an AUC of {} %"}[metric]
        gain = _points(last[ahead], last[f"{ahead}_low"], last[f"{ahead}_high"])
        sentences.append(
            f"**{POOLING_NAMES[str(pooling)]}**: {label(*chosen)} {reached.format(f'{own[metric]:.1f}')}"
            f" ({own[f'{metric}_low']:.1f} to {own[f'{metric}_high']:.1f});"
            f" its lead over the last layer is {gain} points. It is {'; '.join(lists)}."
        )
    return "\n\n".join(sentences)


def plot_ladder(frame: pd.DataFrame, chosen: Key, title: str, *, generated: bool, metric: str = "accuracy") -> Figure:
    """Draw every rung with its interval: methods down, a colour for each pooling, the selection's level dashed."""
    names = list(dict.fromkeys(zip(frame["method"], frame["k"], strict=True)))
    heights = {key: -place for place, key in enumerate(names)}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.6, 1.3 + 0.27 * len(names)), layout="constrained")
        poolings = list(dict.fromkeys(frame["pooling"]))
        for place, pooling in enumerate(poolings):
            rows = frame[frame["pooling"] == pooling]
            shift = 0.14 * (len(poolings) - 1) * (1 - 2 * place)
            y = [heights[key] + shift for key in zip(rows["method"], rows["k"], strict=True)]
            spread = [rows[metric] - rows[f"{metric}_low"], rows[f"{metric}_high"] - rows[metric]]
            look: dict[str, Any] = {
                "fmt": ("o", "D")[place % 2],
                "color": (BLUE, ORANGE)[place % 2],
                "markersize": 4,
                "capsize": 2,
            }
            axes.errorbar(rows[metric], y, xerr=spread, label=POOLING_NAMES[pooling], **look)
            own = rows.loc[(rows["method"] == chosen[0]) & (rows["k"] == chosen[1]), metric].iloc[0]
            axes.axvline(own, color=look["color"], linestyle="--", linewidth=1)
        axes.set_yticks(list(heights.values()), [label(*key) for key in names])
        axes.set(
            xlabel=f"{METRIC_NAMES[metric]} (%), mean over the pairs, 95 % interval", ylim=(-len(names) + 0.4, 0.6)
        )
        axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        axes.set_title(caption(title, generated), loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return finish(figure)
