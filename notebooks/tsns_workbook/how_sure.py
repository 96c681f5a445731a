"""How sure the other notebooks are (notebook 15): studies repeated as a whole, C and K varied, labels shuffled."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.feature_selection import f_classif

from tsns_lib import extract
from tsns_lib.classifier import C_GRID, computable, cv_best_C, fit_classifier, one_thread
from tsns_lib.executors import bar, run_units
from tsns_lib.fingerprints import fingerprint
from tsns_lib.importance import forest_importance, resampled_importance
from tsns_lib.ranking import order_neurons
from tsns_lib.sampling import derive_seed, resample_rows, run_seed
from tsns_lib.transfer import Choice, Pool, random_neurons
from tsns_workbook.controls import shuffled
from tsns_workbook.crossed import corpus_weights
from tsns_workbook.ladder import Resampled, Rung, judge_rung
from tsns_workbook.report import METHOD_LABELS
from tsns_workbook.statistics import average_table, bootstrap, crossed, difference

TARGET_ROWS, CROSSED = "target rows only", "crossed bootstrap"
CONTRASTS = [("tsns", "last_layer"), ("tsns", "all"), ("tsns", "f_test"), ("tsns", "random"), ("all", "last_layer")]
INTACT, RANKS, PERMUTED = "as they are", "ranks", "each permuted on its own"
SHARES = (0.005, 0.02, 0.05, 0.1, 0.22, 0.5, 1.0)  # of all neurons; the paper's 500 of 24,576 are 2 %


@dataclass(frozen=True)
class Domain:
    """Rows of a corpus: activations (n, N) of layers of equal size, and labels (n,)."""

    name: str
    X: np.ndarray
    y: np.ndarray
    layer_size: int
    generated: bool
    split: str = "rows"

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return len(self.y)

    def drawn(self, n: int, seed: int) -> "Domain":
        """Draw n rows with replacement."""
        rows = np.random.default_rng(derive_seed(seed, "rows", self.name)).integers(self.n_rows, size=n)
        return replace(self, X=self.X[rows], y=self.y[rows])


@dataclass(frozen=True)
class Plan:
    """What every simulated study does: n rows a domain, K, the forests of a run, runs, draws and replicates.

    With `shuffled` the labels of the rows it draws are shuffled, so that no method knows anything.
    """

    n_rows: int
    k: int
    n_resamples: int
    fraction: float
    n_trees: int
    runs: int
    draws: int
    n_boot: int
    seed: int
    shuffled: bool = False


# one study, and many


def crossed_grid(
    domains: Sequence[Domain], choose: Callable[[Pool], Iterable[Choice]], n_boot: int, seed: int
) -> pd.DataFrame:
    """Test what `choose` selects on each domain on every other: a grid with the replicates of the crossed bootstrap."""
    weights = corpus_weights(domains, n_boot, seed)
    rows = []
    for source in domains:
        of_row = np.repeat(source.name, source.n_rows)
        pool = Pool(source.name, (source.name,), source.generated, source.X, source.y, of_row)
        texts = pd.Series(dtype=str)  # no rung reads them
        tests = [
            (target, target.y, Resampled(texts, target.X, weights[target.name, target.split]))
            for target in domains
            if target.name != source.name
        ]
        for method, k, run, selected, *_ in choose(pool):
            with one_thread():
                rung = Rung(method, k, run, fit_classifier(pool.X[:, selected], pool.y), selected)
                tried = judge_rung(rung, pool, texts, weights[source.name, source.split], tests)
                rows += [{"source": source.name} | row for row in tried]
    return pd.DataFrame(rows)


def choices(
    pool: Pool, ks: Iterable[int], layer_size: int, runs: Sequence[np.ndarray], draws: int, seed: int
) -> Iterator[Choice]:
    """The last layer, all neurons, and of each K the F-test's, TSNS's by the importances of its runs, random ones."""
    n_neurons = pool.X.shape[1]
    yield Choice("last_layer", layer_size, 0, np.arange(n_neurons - layer_size, n_neurons))
    yield Choice("all", n_neurons, 0, np.arange(n_neurons))
    f_value = np.nan_to_num(f_classif(pool.X.astype(np.float64), pool.y)[0])
    for k in ks:
        yield Choice("f_test", k, 0, _most_important(f_value, k))
        for run, importance in enumerate(runs):
            yield Choice("tsns", k, run, _most_important(importance, k))
        for run in range(draws):
            yield Choice("random", k, run, random_neurons(pool, k, run, seed))


def _most_important(importance: np.ndarray, k: int) -> np.ndarray:
    """K neurons as `ranking.select_neurons` chooses them, which warns of neurons without any importance.

    K goes up to all neurons here, and few trees leave many without.
    """
    return np.sort(order_neurons(importance)[:k])


def study(number: int, domains: Sequence[Domain], plan: Plan) -> list[dict[str, Any]]:
    """Draw rows of every domain, select and fit from them, and estimate each contrast with both intervals."""
    seed = derive_seed(plan.seed, "study", number)
    drawn = [domain.drawn(plan.n_rows, seed) for domain in domains]
    if plan.shuffled:
        drawn = [replace(domain, y=shuffled(domain.y, derive_seed(seed, domain.name))) for domain in drawn]

    def choose(pool: Pool) -> Iterator[Choice]:
        runs = [_importance(pool, plan, run_seed(seed, run, pool.name)) for run in range(plan.runs)]
        return choices(pool, [plan.k], domains[0].layer_size, runs, plan.draws, seed)

    grid = crossed_grid(drawn, choose, plan.n_boot, seed)
    rows = []
    for kind, boot in {TARGET_ROWS: bootstrap(grid, seed=seed), CROSSED: crossed(grid, seed=seed)}.items():
        sizes = dict(boot.point.index.droplevel(["source", "target"]))
        for a, b in CONTRASTS:
            name = f"{METHOD_LABELS[a]} − {METHOD_LABELS[b]}"
            found = difference(boot, (a, sizes[a]), (b, sizes[b]))
            rows.append({"study": number, "contrast": name, "interval": kind} | found._asdict())
    return rows


def _importance(pool: Pool, plan: Plan, seed: int) -> np.ndarray:
    """Importance by the forests of one run; nobody asks for them again, so the store does not keep them."""
    forests = []
    for j in range(plan.n_resamples):
        own = derive_seed(seed, "resample", j)
        rows = resample_rows(len(pool.y), plan.fraction, own)
        forests.append(forest_importance(pool.X[rows], pool.y[rows], n_trees=plan.n_trees, seed=own, n_jobs=1))
    return np.mean(forests, axis=0)


def studies(domains: Sequence[Domain], plan: Plan, n_studies: int, scheduler: str | None = None) -> pd.DataFrame:
    """Repeat the study: a row for each study, contrast and kind of interval, in points."""
    done = run_units(study, range(n_studies), shared=(domains, plan), scheduler=scheduler)
    by_number = dict(bar(done, desc="studies", total=n_studies, show=True))
    return pd.DataFrame([row for number in sorted(by_number) for row in by_number[number]])


# C and K


def domains_of(corpora: Sequence[Any], encoder: Any, **settings: Any) -> list[Domain]:
    """Extract the activations of corpora with the same classes; the settings are those of `tsns_lib.extract`."""
    return [
        Domain(
            corpus.name,
            computable(extract(corpus, encoder, **settings)),
            corpora[0].labels_of(corpus),
            encoder.hidden_size,
            corpus.generated,
        )
        for corpus in corpora
    ]


def importances_of(domains: Sequence[Domain], seed: int, **settings: Any) -> dict[str, np.ndarray]:
    """Importance of every neuron for each domain, as the first run of Table 2 has it; settings of the forests."""
    seeds = {domain.name: run_seed(seed, 0, domain.name) for domain in domains}
    grown = [resampled_importance(domain.X, domain.y, seed=seeds[domain.name], **settings) for domain in domains]
    return {name: q.mean(axis=0) for name, q in zip(seeds, grown, strict=True)}


def accuracy_by_K(
    domains: Sequence[Domain], importances: dict[str, np.ndarray], draws: int, n_boot: int, seed: int
) -> pd.DataFrame:
    """Accuracy by method and K, mean over the pairs, with crossed intervals: as `statistics.average_table` gives it."""

    def choose(pool: Pool) -> Iterator[Choice]:
        sizes = sizes_of(pool.X.shape[1])
        return choices(pool, sizes, domains[0].layer_size, [importances[pool.name]], draws, seed)

    return average_table(crossed(crossed_grid(domains, choose, n_boot, seed), seed=seed))


def accuracy_by_C(domains: Sequence[Domain], importances: dict[str, np.ndarray], k: int, seed: int) -> pd.DataFrame:
    """Accuracy in percent of all neurons and of TSNS's K for each C; `chosen`: the C with the best cross-validation."""
    rows = []
    for source in domains:
        selections = {"all": np.arange(source.X.shape[1]), "tsns": _most_important(importances[source.name], k)}
        for method, selected in selections.items():
            X, folds = source.X[:, selected], derive_seed(seed, "folds", source.name)
            best = cv_best_C(X, source.y, folds)
            for C in C_GRID:
                model = fit_classifier(X, source.y, C)
                for target in domains:
                    if target.name != source.name:
                        row = {"source": source.name, "target": target.name, "method": method, "C": C}
                        accuracy = 100 * model.score(target.X[:, selected], target.y)
                        rows.append(row | {"accuracy": accuracy, "chosen": best == C})
    return pd.DataFrame(rows)


def sizes_of(n_neurons: int) -> list[int]:
    """K for each of `SHARES`.

    Examples
    --------
    >>> sizes_of(2304)
    [12, 46, 115, 230, 507, 1152, 2304]
    """
    return list(dict.fromkeys(max(1, round(share * n_neurons)) for share in SHARES))


def fingerprints_by_K(importances: dict[str, np.ndarray], layer_size: int, named: str) -> pd.DataFrame:
    """Percent of the K neurons in each layer, mean of the sources, as `plots.fingerprint_heatmap` takes it."""
    n_neurons = len(next(iter(importances.values())))
    rows = []
    for k in sizes_of(n_neurons):
        chosen = [_most_important(importance, k) for importance in importances.values()]
        shares = 100 * np.mean([fingerprint(c, n_neurons // layer_size, n_neurons) for c in chosen], axis=0)
        name = f"{named}, K = {k} ({k / n_neurons:.1%})"
        rows += [{"source": name, "layer": layer, "share": value} for layer, value in enumerate(shares, start=1)]
    return pd.DataFrame(rows)


# labels shuffled


def disturbed(X: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Activations as they are; each neuron's values as ranks; and each neuron's rows permuted on their own."""
    rng = np.random.default_rng(derive_seed(seed, "each neuron permuted"))
    ranks = rankdata(X, axis=0).astype(np.float32)
    return {INTACT: X, RANKS: ranks, PERMUTED: rng.permuted(X, axis=0)}


def correlation_by_layer(X: np.ndarray, layer_size: int) -> np.ndarray:
    """Mean absolute correlation of two neurons of one layer, for each layer; a constant neuron has none."""
    means = []
    for layer in np.split(X.astype(np.float64), X.shape[1] // layer_size, axis=1):
        r = np.abs(np.corrcoef(layer[:, layer.std(axis=0) > 0].T))
        means.append((r.sum() - len(r)) / (len(r) * (len(r) - 1)))
    return np.array(means)


def shares_of_chance(source: Domain, k: int, seed: int, **settings: Any) -> pd.DataFrame:
    """Select by forests on shuffled labels, of `disturbed` activations: columns values, layer, share, correlation.

    The settings are those of `tsns_lib.resampled_importance`.
    """
    n_layers, n_neurons = source.X.shape[1] // source.layer_size, source.X.shape[1]
    y, own_seed = shuffled(source.y, seed), run_seed(seed, 0, source.name)
    rows = []
    for values, X in disturbed(source.X, seed).items():
        q = resampled_importance(X, y, seed=own_seed, **settings)
        shares = 100 * fingerprint(_most_important(q.mean(axis=0), k), n_layers, n_neurons)
        facts = zip(range(1, n_layers + 1), shares, correlation_by_layer(X, source.layer_size), strict=True)
        rows += [{"values": values, "layer": layer, "share": share, "correlation": r} for layer, share, r in facts]
    return pd.DataFrame(rows)
