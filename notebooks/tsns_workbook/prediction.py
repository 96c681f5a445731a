"""Does the similarity of two fingerprints predict the transfer between them? Correlations over pairs of sources.

A relation is a square matrix, sources down and targets across, whose diagonal is never read. Its pairs are not
independent observations, because every source stands in many of them. The null distribution is therefore made by
permuting the *sources* of one relation, rows and columns together (the quadratic assignment procedure), and the
correlation is repeated with each source left out in turn.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import spearmanr

from tsns_lib.corpora.sources import Source
from tsns_lib.encoders import Encoder
from tsns_lib.fingerprints import METRICS, fingerprint, fingerprint_similarity
from tsns_lib.sampling import derive_seed
from tsns_workbook.cards import marked
from tsns_workbook.dyads import CORRELATIONS, Correlation, correlate
from tsns_workbook.plots import BLUE, FAINT, INK, STYLE, finish, label_points
from tsns_workbook.report import Key, answer, caption, claim, short_name

OUTCOMES = {
    "accuracy": "accuracy (%)",
    "auc": "AUC (%)",
    "gain": "gain in accuracy over the last layer (points)",
    "auc_gain": "gain in AUC over the last layer (points)",
}
PREDICTORS = {
    "cosine": "cosine",
    "jensen_shannon": "Jensen–Shannon",
    "wasserstein": "Wasserstein",
    "random": "random neurons' cosine",
    "log_rows": "rows of the source (log)",
    "majority": "majority class of the target",
}
WITHIN = "within targets"  # all tasks together; sources are compared for the same target only


def pair_table(
    grids: Mapping[str, pd.DataFrame], sources: Sequence[Source], chosen: Key, last: Key, encoder: Encoder
) -> pd.DataFrame:
    """Every ordered pair of sources of a task: how well it transfers, and what might have predicted it.

    `grids` maps a task to its transfer grid, in which every source is a target too. `chosen` is the selection, such
    as ("tsns", 500), `last` the last layer. The fingerprints are means of the runs, a target's from the labels of its
    training split; `random` is the cosine of the fingerprints of K random neurons, `majority` the percentage of the
    target's larger class. Accuracy and AUC are in percent. Classes are not equally frequent in source and target, so
    accuracy also measures where a classifier has its threshold; the AUC does not.
    """
    n_rows = {source.name: source.n_rows for source in sources}
    majority = ("majority", 0)
    rows = []
    for task, grid in grids.items():
        means = grid.groupby(["source", "target", "method", "k"], sort=False)[["accuracy", "auc"]].mean().mul(100)
        fingerprints = _fingerprints(grid, chosen, encoder)
        random = _fingerprints(grid, ("random", chosen[1]), encoder)
        for source, target in [(a, b) for a in fingerprints for b in fingerprints if a != b]:
            for key in (chosen, last, majority):
                if (source, target, *key) not in means.index:
                    raise ValueError(f"grid {task!r} has no accuracy of {key} from {source!r} to {target!r}")
            ours, theirs = means.loc[(source, target, *chosen)], means.loc[(source, target, *last)]
            row = {"task": task, "source": source, "target": target, **ours}
            row |= {"gain": ours["accuracy"] - theirs["accuracy"], "auc_gain": ours["auc"] - theirs["auc"]}
            row |= {m: fingerprint_similarity(fingerprints[source], fingerprints[target], m) for m in METRICS}
            row["random"] = fingerprint_similarity(random[source], random[target])
            row["log_rows"] = np.log(n_rows[source])
            row["majority"] = means.loc[(source, target, *majority), "accuracy"]
            rows.append(row)
    return pd.DataFrame(rows)


def correlation_table(pairs: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Correlate every predictor of a `pair_table` with accuracy, AUC, and the gain in each.

    A scope is a task (all its pairs) or "within targets" (the pairs of all tasks, compared within each target).
    """
    by_task = {task: rows for task, rows in pairs.groupby("task", sort=False)}
    scopes = {task: [rows] for task, rows in by_task.items()} | {WITHIN: list(by_task.values())}
    rows = []
    for scope, groups in scopes.items():
        n_pairs = sum(map(len, groups))
        scope_seed = derive_seed(seed, scope)  # the same permutations for every predictor
        for outcome in OUTCOMES:
            for predictor in PREDICTORS:
                relations = [(_square(group, predictor), _square(group, outcome)) for group in groups]
                for name in CORRELATIONS:
                    correlation = correlate(relations, name, within=scope == WITHIN, seed=scope_seed)
                    rows.append((scope, outcome, predictor, name, *correlation, n_pairs))
    columns = ["scope", "outcome", "predictor", "correlation", *Correlation._fields, "pairs"]
    return pd.DataFrame(rows, columns=columns)


def prediction_table(correlations: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """Lay out the correlations with one outcome for reading.

    "by chance" is the middle 95 % of what permuted sources give, which a correlation must leave to be significant.
    """
    rows = correlations[correlations["outcome"] == outcome]
    rows = rows.assign(predictor=rows["predictor"].map(PREDICTORS)).set_index(["scope", "predictor"])
    spearman, pearson = (rows[rows["correlation"] == name] for name in CORRELATIONS)
    columns = {
        "Spearman": spearman["estimate"],
        "p": spearman["p"],
        "by chance": [
            "" if np.isnan(low) else f"{low:.2f} to {high:.2f}"
            for low, high in zip(spearman["null_low"], spearman["null_high"], strict=True)
        ],
        "without one source, least": spearman["left_out_low"],
        "without one source, most": spearman["left_out_high"],
        "Pearson": pearson["estimate"],
        "p (Pearson)": pearson["p"],
    }
    return pd.DataFrame(columns).round(2)


def correlation_by_K(
    grids: Mapping[str, pd.DataFrame],
    sources: Sequence[Source],
    ks: Sequence[int],
    last: Key,
    encoder: Encoder,
    seed: int,
) -> pd.DataFrame:
    """Correlate the cosine with accuracy and with AUC for other K: Spearman's ρ and p for each scope and K."""
    rows = {}
    for k in ks:
        table = correlation_table(pair_table(grids, sources, ("tsns", k), last, encoder), seed=seed)
        cosine = table[(table["predictor"] == "cosine") & (table["correlation"] == "spearman")]
        for scope, found in cosine.set_index("outcome").groupby("scope", sort=False):
            accuracy, auc = found.loc["accuracy"], found.loc["auc"]
            columns = {"ρ, accuracy": accuracy["estimate"], "p, accuracy": accuracy["p"]}
            rows[scope, k] = columns | {"ρ, AUC": auc["estimate"], "p, AUC": auc["p"]}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["scope", "K"]).sort_index()


def prediction_claims(
    correlations: pd.DataFrame, pairs: pd.DataFrame, tasks: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Judge the paper's headline by Spearman's correlation of the cosine with accuracy, and with the gain in it.

    The interval is the estimate less the middle 95 % of the correlations with permuted sources, so it lies above 0
    where the estimate exceeds 97.5 % of them. `tasks` gives the scope of each claim about one task. A claim is above
    the majority class if most of its pairs are.
    """
    rows = correlations[(correlations["predictor"] == "cosine") & (correlations["correlation"] == "spearman")]
    low = (rows["estimate"] - rows["null_high"]).clip(lower=-1)
    high = (rows["estimate"] - rows["null_low"]).clip(upper=1)
    found = rows.assign(low=low, high=high).set_index(["scope", "outcome"])[["estimate", "low", "high", "p"]]
    cells = {f"prediction.{name}": (scope, "accuracy") for name, scope in tasks.items()}
    cells |= {f"prediction.{outcome}": (WITHIN, outcome) for outcome in ("accuracy", "gain")}
    claims = []
    for id, cell in cells.items():
        if cell not in found.index or found.loc[cell].isna().any():
            claims.append(claim(id))
            continue
        *interval, p = found.loc[cell].tolist()
        of_scope = pairs if cell[0] == WITHIN else pairs[pairs["task"] == cell[0]]
        claims.append(claim(id, *interval, p=p, above_majority=below_majority(of_scope) < len(of_scope) / 2))
    return claims


def below_majority(pairs: pd.DataFrame) -> int:
    """How many pairs of a `pair_table` predict no better than the target's larger class."""
    return int((pairs["accuracy"] <= pairs["majority"]).sum())


def prediction_answer(claims: Sequence[Mapping[str, Any]], correlations: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """Say in a few sentences, from what was computed, whether similar fingerprints mean better transfer."""
    said = {
        "prediction.sentiment": "ρ over the pairs of sentiment sources",
        "prediction.pairs": "ρ over the pairs of sentence-pair sources",
        "prediction.accuracy": "ρ within targets, accuracy",
        "prediction.gain": "ρ within targets, gain over the last layer",
    }
    rows = correlations[(correlations["predictor"] == "cosine") & (correlations["correlation"] == "spearman")]
    least = rows.loc[rows["outcome"] == "accuracy", "null_high"]
    counts = [
        f"{below_majority(of_task)} of {len(of_task)} ({task})" for task, of_task in pairs.groupby("task", sort=False)
    ]
    return (
        f"{answer(claims, said)} With so few sources, a ρ below {least.min():.2f} to {least.max():.2f} could not have "
        f"been told from chance. Transfers that are no better than the majority class: {', '.join(counts)}."
    )


def similarity_scatter(
    pairs: pd.DataFrame, outcome: str, *, generated: bool, title: str, encoder: Encoder | None = None
) -> Figure:
    """Draw an outcome of a `pair_table` against the cosine, a panel for each target and a point for each source.

    The title of a panel has Spearman's ρ over its points; a dotted line is the majority class, where it is comparable.
    With an `encoder`, † marks a source or target that it was trained on.
    """
    by_task = {task: rows for task, rows in pairs.groupby("task", sort=False)}
    across = max(rows["target"].nunique() for rows in by_task.values())
    with plt.rc_context(STYLE):
        size = (0.9 + 1.85 * across, 0.7 + 2.35 * len(by_task))
        shape: dict[str, Any] = {"sharex": "row", "sharey": "row", "squeeze": False, "layout": "constrained"}
        figure, grid = plt.subplots(len(by_task), across, figsize=size, **shape)
        to_label = []
        for row, (task, of_task) in enumerate(by_task.items()):
            targets = list(of_task["source"].unique())
            for axes, target in zip(grid[row], targets, strict=False):
                points = of_task[of_task["target"] == target]
                axes.plot(points["cosine"], points[outcome], "o", color=BLUE, markersize=5)
                names = [short_name(marked(name, encoder)) for name in points["source"]]
                to_label.append((axes, points[["cosine", outcome]].to_numpy(), names))
                if outcome == "accuracy":
                    axes.axhline(points["majority"].iloc[0], color=FAINT, linestyle=":", linewidth=1.4)
                elif outcome != "auc":
                    axes.axhline(0, color=INK, linewidth=1)
                rho = spearmanr(points["cosine"], points[outcome]).statistic
                axes.set_title(f"{short_name(marked(target, encoder))}: ρ {rho:.2f}", loc="left", fontsize=9)
                axes.xaxis.set_major_locator(MaxNLocator(3))
                axes.margins(0.12)
            for axes in grid[row, len(targets) :]:
                axes.set_visible(False)
            grid[row, 0].set_ylabel(f"{task}\n{OUTCOMES[outcome]}")
        note = "; dotted: the target's majority class" if outcome == "accuracy" else ""
        if any("†" in marked(name, encoder) for name in pairs["source"]):
            note += "; † the encoder was trained on it"
        figure.supxlabel(f"similarity of the fingerprints of source and target (cosine{note})", fontsize=10)
        figure.suptitle(caption(title, generated), x=0.01, ha="left", fontsize=11)
        figure.draw_without_rendering()  # settles where the points are
        for axes, places, names in to_label:
            label_points(axes, places, names)
    return finish(figure)


def predictor_plot(correlations: pd.DataFrame, *, generated: bool, title: str) -> Figure:
    """Draw Spearman's correlation of every predictor, its range with a source left out, and what chance gives."""
    spearman = correlations[correlations["correlation"] == "spearman"].dropna(subset=["estimate"])
    scopes, predictors, outcomes = list(correlations["scope"].unique()), list(PREDICTORS), list(OUTCOMES)
    with plt.rc_context(STYLE):
        size = (2.6 + 2.6 * len(scopes), 1.2 + 1.55 * len(outcomes))
        shape: dict[str, Any] = {"sharex": True, "sharey": True, "squeeze": False, "layout": "constrained"}
        figure, grid = plt.subplots(len(outcomes), len(scopes), figsize=size, **shape)
        for (row, column), axes in np.ndenumerate(grid):
            rows = spearman[(spearman["scope"] == scopes[column]) & (spearman["outcome"] == outcomes[row])]
            heights = [predictors.index(name) for name in rows["predictor"]]
            chance = {"left": rows["null_low"], "height": 0.7, "color": "#DDDDDD", "label": "permuted sources, 95 %"}
            axes.barh(heights, rows["null_high"] - rows["null_low"], **chance)
            axes.axvline(0, color=INK, linewidth=1)
            ends = (rows["left_out_low"], rows["left_out_high"])
            axes.hlines(heights, *ends, color=BLUE, label="one source left out")
            axes.plot(rows["estimate"], heights, "o", color=BLUE, markersize=6, label="all sources")
            axes.set_yticks(range(len(predictors)), PREDICTORS.values())
            if row == 0:
                axes.set_title(scopes[column], loc="left")
            if column == 0:
                axes.set_ylabel(outcomes[row].replace("auc_gain", "gain in AUC").replace("auc", "AUC"))
        grid[0, 0].invert_yaxis()
        figure.supxlabel("Spearman's correlation", fontsize=10)
        figure.suptitle(caption(title, generated), x=0.01, ha="left", fontsize=11)
        grid[0, -1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    return finish(figure)


def _fingerprints(grid: pd.DataFrame, key: Key, encoder: Encoder) -> dict[str, np.ndarray]:
    """Mean fingerprint of the runs of every source of a grid."""
    rows = grid[(grid["method"] == key[0]) & (grid["k"] == key[1])].drop_duplicates(["source", "run"])
    if rows.empty or set(grid["source"]) != set(grid["target"]):
        raise ValueError(f"grid: every source must be a target too, and {key} be run")
    shares = rows["selected"].map(lambda selected: fingerprint(selected, encoder.n_layers, encoder.n_neurons))
    return {name: np.mean(runs.to_list(), axis=0) for name, runs in shares.groupby(rows["source"], sort=False)}


def _square(rows: pd.DataFrame, column: str) -> np.ndarray:
    """One column of the pairs as a matrix, sources down and targets across; its diagonal is missing."""
    names = list(rows["source"].unique())
    if len(names) < 4 or len(rows) != len(names) * (len(names) - 1):
        raise ValueError(f"pairs: need every pair of at least four sources, got {len(rows)} pairs of {names}")
    return rows.pivot(index="source", columns="target", values=column).loc[names, names].to_numpy()
