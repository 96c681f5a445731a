"""Controls that act (notebook 14): each changes one thing whose effect is known beforehand, or asks what it is."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, nan
from typing import Any
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.base import clone

from tsns_lib import transfer
from tsns_lib.classifier import computable, fit_classifier
from tsns_lib.fingerprints import fingerprint
from tsns_lib.ranking import order_neurons
from tsns_lib.sampling import derive_seed, run_seed
from tsns_workbook.few_runs import contrast, tuned_accuracy
from tsns_workbook.plots import BLUE, FAINT, GREEN, INK, ORANGE, PINK, STYLE, finish
from tsns_workbook.report import DOES_NOT_HOLD, HOLDS, INCONCLUSIVE, Interval, caption, label

INTACT, SKIPPED, ROTATED = "as it is", "near copies skipped", "neurons rotated"
RANDOM, SHUFFLED, BY_IMPORTANCE = "random weights", "labels shuffled", "by importance"
COLORS = {INTACT: BLUE, ROTATED: GREEN, RANDOM: PINK, SHUFFLED: ORANGE}
KINDS = ("embeddings", "LayerNorm", "attention")  # of tensors, by a part of the name
PLANTED_ROWS, PLANTED, COPIES, NOISE, SEPARATION = 600, 20, 8, 340, 0.8  # of `planted_copies`


@dataclass(frozen=True)
class Study:
    """One source, one target and one selector, on which the controls act; the runs have the seeds of Table 2."""

    selector: Any
    source: Any
    target: Any
    seed: int

    def fit(self, run: int, X: np.ndarray, y: ArrayLike, **changes: Any) -> Any:
        """Fit the selector of one run; `changes` are parameters of it."""
        own = run_seed(self.seed, run, self.source.name)
        return clone(self.selector).set_params(random_state=own, **changes).fit(X, y)

    def trial(
        self, control: str, run: int, X: np.ndarray, Z: np.ndarray, y: ArrayLike, **changes: Any
    ) -> list[dict[str, Any]]:
        """Train on the K neurons and on all, test on the target: rows of a grid whose `source` is the control."""
        fitted = self.fit(run, X, y, **changes)
        choices = {"tsns": fitted.selected_, "all": np.arange(X.shape[1])}
        if control == SKIPPED:  # nothing changes for all neurons
            choices = {"tsns": choose_distinct(fitted.importances_, X, len(fitted.selected_))}
        rows, truth = [], self.source.labels_of(self.target)
        for method, chosen in choices.items():
            predicted = fit_classifier(X[:, chosen], y).predict(computable(Z[:, chosen]))
            facts = {"source": control, "target": self.target.name, "method": method, "k": len(chosen), "run": run}
            rows.append(facts | {"correct": predicted == truth, "selected": chosen})
        return rows


# what a control changes


def shuffled(y: ArrayLike, seed: int) -> np.ndarray:
    """Permute labels: as many of each, at other rows."""
    return np.random.default_rng(derive_seed(seed, "labels shuffled")).permutation(np.asarray(y))


def rotated(X: np.ndarray, Z: np.ndarray, n_layers: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardise source and target on the source, then turn each layer's neurons by one random orthogonal matrix.

    Neither the forest nor the classifier sees the scale of a neuron; without the first step a rotation would, and
    the few neurons of large variance would be mixed into all others.
    """
    mean, scale = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1
    turned = np.empty(X.shape, X.dtype), np.empty(Z.shape, Z.dtype)
    for layer, columns in enumerate(np.split(np.arange(X.shape[1]), n_layers)):
        rng = np.random.default_rng(derive_seed(seed, "rotation", layer))
        q, r = np.linalg.qr(rng.normal(size=(len(columns), len(columns))))
        matrix = q * np.sign(np.diag(r))  # with these signs every rotation is equally likely
        for before, after in zip((X, Z), turned, strict=True):
            after[:, columns] = (before[:, columns] - mean[columns]) / scale[columns] @ matrix
    return turned


def choose_distinct(importances: np.ndarray, X: np.ndarray, k: int, limit: float = 0.95) -> np.ndarray:
    """Take neurons by importance, but skip one whose absolute correlation with a chosen one is above the limit.

    The numbers come sorted; they are fewer than K if the neurons do not suffice.

    Examples
    --------
    >>> X = np.array([[0.0, 0.1, 1.0], [1.0, 1.1, 0.0], [2.0, 2.0, 2.0], [3.0, 3.1, 1.0]])
    >>> choose_distinct(np.array([0.5, 0.4, 0.1]), X, 2).tolist()
    [0, 2]
    """
    centred = X - X.mean(axis=0, dtype=np.float64)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=0), np.finfo(float).tiny)
    chosen: list[int] = []
    for neuron in order_neurons(importances):
        if len(chosen) == k:
            break
        if np.abs(unit[:, chosen].T @ unit[:, neuron]).max(initial=0) <= limit:
            chosen.append(int(neuron))
    return np.sort(chosen)


def planted_copies(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make 600 rows of 20 equally good neurons, 8 copies of each side by side, and 340 of noise; and their labels."""
    rng = np.random.default_rng(derive_seed(seed, "planted copies"))
    y = rng.permutation(np.arange(PLANTED_ROWS) % 2)
    planted, noise = (rng.normal(size=(PLANTED_ROWS, n)) for n in (PLANTED, NOISE))
    copies = np.repeat(planted + SEPARATION * y[:, None], COPIES, axis=1)
    return np.concatenate([copies, noise], axis=1).astype(np.float32), y


def with_planted(X: np.ndarray, y: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Append one neuron: noise of variance 1, whose class means lie `strength` apart."""
    noise = np.random.default_rng(derive_seed(seed, "planted neuron")).normal(size=len(X))
    return np.column_stack([X, (noise + strength * (y == np.max(y))).astype(X.dtype)])


def changed_pairs(source: Any, target: Any, seed: int) -> dict[str, tuple[Any, Any]]:
    """Source and target as they are, with a target that was tampered with, and with one other label in the source."""
    rng = np.random.default_rng(derive_seed(seed, "target"))
    taught, tested = source.frame, target.frame
    flips = [_next_class(frame["label"]) for frame in (taught, tested)]
    one_flip = taught["label"].where(taught.index > 0, flips[0])
    targets = {
        "nothing": tested,
        "target: order of the rows": tested.sample(frac=1, random_state=rng).reset_index(drop=True),
        "target: all labels flipped": tested.assign(label=flips[1]),
        "target: labels permuted": tested.assign(label=rng.permutation(tested["label"])),
    }
    pairs = {change: (source, replace(target, frame=frame)) for change, frame in targets.items()}
    return pairs | {"source: one label flipped": (replace(source, frame=taught.assign(label=one_flip)), target)}


def _next_class(labels: pd.Series) -> pd.Series:
    """Move every label to the next class, and the last to the first: of two, each to the other."""
    classes, numbers = np.unique(labels, return_inverse=True)
    return pd.Series(np.roll(classes, -1)[numbers], labels.index)


# what came of it


def tensor_table(trained: Any, random: Any) -> pd.DataFrame:
    """Compare two encoders tensor by tensor: how many differ, and the share of their numbers that does, by kind."""
    ours, theirs = trained.model.state_dict(), random.model.state_dict()
    kinds = [next((kind for kind in KINDS if kind in name), "feed-forward") for name in ours]
    counts = [int((tensor != theirs[name]).sum()) for name, tensor in ours.items()]
    facts = {"tensors of": kinds, "tensors": 1, "differ": np.array(counts) > 0}
    table = pd.DataFrame(facts | {"numbers": [t.numel() for t in ours.values()], "numbers that differ": counts})
    table = table.groupby("tensors of", sort=False).sum()
    table.loc["all"] = table.sum()
    return table


def grid_digests(source: Any, target: Any, encoder: Any, **settings: Any) -> dict[str, Any]:
    """Run a transfer grid and digest, byte for byte, every choice of neurons and every classifier that it fits."""
    fitted = hashlib.sha256()

    def watched(*arguments: Any) -> Any:
        model = fit_classifier(*arguments)
        for values in (model[0].mean_, model[0].scale_, model[1].coef_, model[1].intercept_):
            fitted.update(np.ascontiguousarray(values).tobytes())
        return model

    with mock.patch.object(transfer, "fit_classifier", watched):
        grid = transfer.transfer_grid([source], [target], encoder, runs=1, **settings)
    chosen = hashlib.sha256(b"".join(neurons.tobytes() for neurons in grid["selected"].dropna()))
    accuracy = 100 * grid.loc[grid["method"] == "tsns", "accuracy"].iloc[0]
    return {"neurons": chosen.hexdigest()[:12], "classifiers": fitted.hexdigest()[:12], "accuracy": accuracy}


def overlap_table(grid: pd.DataFrame, n_layers: int, n_neurons: int) -> pd.DataFrame:
    """Percent of the K neurons of the first intact run that other runs and shuffled labels choose, and chance.

    Chance knows nothing (K/N), or how many neurons of each layer both have chosen and not which.
    """
    chosen = grid[grid["method"] == "tsns"]
    first = chosen[(chosen["source"] == INTACT)].iloc[0]
    others = chosen[chosen["source"].isin([INTACT, SHUFFLED])].drop(index=first.name)
    share, k = fingerprint(first["selected"], n_layers, n_neurons), first["k"]
    table = others[["source", "run"]].rename(columns={"source": "control"})
    table["overlap"] = [100 * len(np.intersect1d(chosen, first["selected"])) / k for chosen in others["selected"]]
    table["chance"] = 100 * k / n_neurons
    by_layer = [n_layers * share @ fingerprint(chosen, n_layers, n_neurons) for chosen in others["selected"]]
    return table.assign(**{"by layer": by_layer * table["chance"]})


def share_table(grid: pd.DataFrame, n_layers: int, n_neurons: int) -> pd.DataFrame:
    """Percent of the K neurons in each layer, mean of the runs: controls down, layers across."""
    chosen = grid[(grid["method"] == "tsns") & (grid["source"] != SKIPPED)]
    shares = [100 * fingerprint(neurons, n_layers, n_neurons) for neurons in chosen["selected"]]
    return pd.DataFrame(shares, columns=range(1, n_layers + 1)).groupby(chosen["source"].to_numpy(), sort=False).mean()


def copies_of(neurons: np.ndarray) -> list[int]:
    """How many copies of each planted neuron of `planted_copies` are among the chosen; noise is not counted."""
    return np.bincount(neurons // COPIES, minlength=PLANTED)[:PLANTED].tolist()


def verdict_table(
    grid: pd.DataFrame,
    overlap: pd.DataFrame,
    tensors: pd.DataFrame,
    choices: Mapping[str, Sequence[np.ndarray]],
    ranks: pd.DataFrame,
    leaks: pd.DataFrame,
    *,
    chance: float,
) -> pd.DataFrame:
    """Judge every control from the tables above: our figure and its interval, and within what it must lie."""
    cell = tuple(grid.loc[grid["method"] == "tsns", ["target", "method", "k"]].iloc[0])
    accuracy = tuned_accuracy(grid).set_index(["source", "method"])[["accuracy", "low", "high"]]
    at_chance = Interval(*accuracy.loc[SHUFFLED, "tsns"] - chance)
    lost = {
        c: contrast(grid, [([(INTACT, *cell)], [(c, *cell)])]) or Interval(nan, -inf, inf) for c in (ROTATED, RANDOM)
    }
    met = overlap[overlap["control"] == SHUFFLED]
    distinct = {choice: [np.count_nonzero(copies_of(draw)) for draw in draws] for choice, draws in choices.items()}
    weakest, *_, strongest = [rows["rank"] for _, rows in ranks.groupby("strength")]
    changed = (leaks != leaks.iloc[0])[["neurons", "classifiers"]].any(axis=1)
    of_target = changed.index.str.startswith("target")
    rows = [
        ("labels shuffled: accuracy minus the majority class's, points", at_chance, (-5, 5)),
        ("labels shuffled: overlap minus chance given the layers, points", met["overlap"] - met["by layer"], (-5, 5)),
        ("random weights: tensors that equal the trained ones", tensors["tensors"] - tensors["differ"], (0, 0)),
        ("random weights: accuracy lost, points", lost[RANDOM], (0, inf)),
        ("neurons rotated: accuracy lost, points", lost[ROTATED], (0, inf)),
        (f"copies: distinct neurons among {PLANTED}, by importance", distinct[BY_IMPORTANCE], (1, PLANTED - 1)),
        (f"copies: the same, {SKIPPED}", distinct[SKIPPED], (PLANTED, PLANTED)),
        ("planted neuron of noise alone: its rank minus K", weakest - cell[2], (1, inf)),
        ("planted neuron, the strongest: its rank", strongest, (1, 1)),
        ("target changed in three ways: how many show in a digest", [changed[of_target].sum()], (0, 0)),
        ("source changed in one label: shows in a digest", [changed.iloc[-1]], (1, 1)),
    ]
    return pd.DataFrame([judged(*row) for row in rows])


def judged(statement: str, values: Interval | ArrayLike, bounds: tuple[float, float]) -> dict[str, Any]:
    """Judge an interval, or the mean and range of runs, by whether all of it lies within the bounds or outside.

    Examples
    --------
    >>> [judged("", runs, (0, 5))["verdict"] for runs in ([0, 2], [-1, 2], [-2, -1])]
    ['holds', 'inconclusive', 'does not hold']
    """
    runs, (least, most) = np.asarray(values, dtype=float), bounds
    estimate, low, high = values if isinstance(values, Interval) else (runs.mean(), runs.min(), runs.max())
    outside = high < least or low > most
    verdict = DOES_NOT_HOLD if outside else HOLDS if least <= low and high <= most else INCONCLUSIVE
    limits = f"{least:g} or more" if np.isinf(most) else f"{least:g} to {most:g}" if least < most else f"{least:g}"
    shown = {"ours": round(estimate, 1), "interval": f"{low:.1f} to {high:.1f}" if low < high else ""}
    return {"control": statement, **shown, "holds if": limits, "verdict": verdict}


def controls_answer(verdicts: pd.DataFrame) -> str:
    """Say how many controls act as they must, and name those that do not or are open, each with its figure.

    Examples
    --------
    >>> rows = [judged("a", [1, 1], (0, 2)), judged("b", [0, 3], (0, 2))]
    >>> controls_answer(pd.DataFrame(rows))
    'Of 2 controls 1 hold. **Inconclusive**: b (1.5, 0.0 to 3.0, holds if 0 to 2).'
    """
    sentences = [f"Of {len(verdicts)} controls {int((verdicts['verdict'] == HOLDS).sum())} hold."]
    for word in (DOES_NOT_HOLD, INCONCLUSIVE):
        named = []
        for row in verdicts[verdicts["verdict"] == word].to_dict("records"):
            figures = ", ".join(filter(None, [str(row["ours"]), row["interval"]]))
            named.append(f"{row['control']} ({figures}, holds if {row['holds if']})")
        sentences += [f"**{word.capitalize()}**: {'; '.join(named)}."] if named else []
    return " ".join(sentences)


def draw_controls(
    accuracy: pd.DataFrame,
    shares: pd.DataFrame,
    copies: Mapping[str, Sequence[int]],
    ranks: pd.DataFrame,
    *,
    k: int,
    chance: float,
    generated: bool,
) -> Figure:
    """Draw what every control changes: accuracy, layers, copies among the chosen, and the rank of a planted neuron."""
    with plt.rc_context(STYLE | {"axes.titlelocation": "left"}):
        figure, panels = plt.subplots(2, 2, figsize=(10.4, 6.6), layout="constrained", width_ratios=[1.15, 1])
        scores, layers, counted, planted = panels.flat
        controls = accuracy["source"].unique().tolist()
        for offset, method, color, marker in ((-0.14, "tsns", BLUE, "o"), (0.14, "all", INK, "D")):
            rows = accuracy[accuracy["method"] == method]
            at = [controls.index(control) + offset for control in rows["source"]]
            scores.hlines(at, rows["accuracy"].iloc[0], rows["accuracy"], color=color, alpha=0.25, linewidth=4)
            spread = [rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]]
            look: dict[str, Any] = {"fmt": marker, "color": color, "capsize": 2, "label": label(method, 0)}
            scores.errorbar(rows["accuracy"], at, xerr=spread, **look)
        scores.set_yticks(range(len(controls)), controls)
        scores.set_ylim(len(controls), -0.5)
        scores.axvline(chance, color=FAINT, linestyle=":", label="majority class")
        scores.set(xlabel="accuracy on the target (%)", title="Transfer before and after")
        sns.lineplot(shares.T, palette=COLORS, dashes=False, markers=True, ax=layers)
        layers.axhline(100 / shares.shape[1], color=FAINT, linestyle=":", label="even")
        layers.set_xticks(shares.columns)
        layers.set(xlabel="layer", ylabel="share of the K neurons (%)", ylim=0, title="Layers of the chosen neurons")
        pale = sns.light_palette("#8AB8DC", as_cmap=True)  # dark digits are read on all of it
        digits = {"size": 9, "color": INK}
        look = {"cmap": pale, "vmin": 0, "vmax": COPIES, "annot_kws": digits, "annot": True, "cbar": False}
        sns.heatmap(pd.DataFrame(copies, range(1, PLANTED + 1)).T, ax=counted, linewidths=1, **look)
        counted.tick_params(length=0, labelrotation=0)
        counted.set(xlabel=f"planted neuron, each there {COPIES} times", title=f"Copies among the {PLANTED} chosen")
        middle = {"estimator": "median", "errorbar": ("pi", 100), "label": "median and range"}
        sns.lineplot(ranks, x="strength", y="rank", marker="o", color=BLUE, ax=planted, **middle)
        planted.axhline(k, color=INK, linestyle=":", label=f"K = {k}")
        planted.set(xlabel="distance of the class means (standard deviations)", ylabel="rank", yscale="log")
        planted.set_title("A planted neuron among the real ones")
        planted.invert_yaxis()
        for panel, place in ((scores, "lower center"), (layers, "best"), (planted, "upper left")):
            panel.legend(frameon=False, loc=place, ncols=3 if panel is scores else 1)
        figure.suptitle(caption("Controls that act", generated), x=0.01, ha="left", fontsize=12)
    return finish(figure)
