"""The crossed bootstrap: its refits against real ones and its scores against scikit-learn's."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.preprocessing import normalize
from tsns_workbook import how_sure, how_sure_report
from tsns_workbook.crossed import _ascending, corpus_weights, refitted, replicated_scores
from tsns_workbook.statistics import bootstrap_weights


def rows_of(n, d, seed=0, share=1.0):
    """n rows of d features, of which a third say something of the labels; a share of the values is not 0."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    X = rng.normal(size=(n, d)) * (rng.random((n, d)) < share)
    X[:, : d // 3] += 0.3 * (y[:, None] - 0.5) * (X[:, : d // 3] != 0)
    return X, y


def unit_rows(X):
    """Sparse rows of length 1, as those of TF-IDF are."""
    return normalize(sparse.csr_matrix(X))


def test_every_corpus_is_resampled_once_and_all_its_rows_are_counted():
    books, dvd = (how_sure.Domain(name, *rows_of(30, 2), 1, True) for name in ("books", "dvd"))
    weights = corpus_weights([books, dvd, books], 4, seed=1)
    assert list(weights) == [("books", "rows"), ("dvd", "rows")]
    assert weights["books", "rows"].shape == (4, 30)
    assert weights["books", "rows"].sum(axis=1).tolist() == [30] * 4
    assert (weights["books", "rows"] != weights["dvd", "rows"]).any()
    assert (corpus_weights([books], 4, seed=1)["books", "rows"] == weights["books", "rows"]).all()
    assert (corpus_weights([books], 4, seed=2)["books", "rows"] != weights["books", "rows"]).any()


@pytest.mark.parametrize(("copies", "moved"), [(1, 0.841), (5, 1.065)], ids=["few rows", "many rows"])
def test_a_step_on_one_feature_is_what_the_algebra_gives(copies, moved):
    X, y = np.tile([[-2.0], [-1.0], [1.0], [2.0]], (copies, 1)), np.tile([0, 1, 0, 1], copies)
    model = LogisticRegression(C=1 / copies).fit(X, y)  # slope 0.2905, p = 0.5721 at 1 and 0.6413 at 2
    weights = np.tile([[2.0, 0.0, 0.0, 2.0], [1.0, 1.0, 1.0, 1.0]], (1, copies))
    (slope, intercept), (same, _) = refitted(X, y, model, weights)
    # gradient 2 (-2 × 0.3587 - 0.5721) = -2.579, curvature of all rows 1 + 2 (4 × 0.2300 + 0.2448) = 3.330 and of the
    # replicate's own 1 + 4 × 4 × 0.2300 = 4.680: 0.2905 + 0.7746 or 0.2905 + 0.5510
    assert (round(slope, 3), round(abs(intercept), 3)) == (moved, 0.0)
    assert same == pytest.approx(model.coef_[0, 0])


@pytest.mark.parametrize(
    ("n", "d", "C", "made"),
    [(120, 240, 0.01, np.asarray), (240, 80, 0.01, np.asarray), (400, 40, 0.01, np.asarray), (160, 400, 1, unit_rows)],
    ids=["fewer rows than features", "three rows for each feature", "ten rows for each feature", "sparse, as TF-IDF"],
)
def test_one_step_spreads_and_moves_as_a_real_refit_does(n, d, C, made):
    X, y = rows_of(n, d, share=0.1 if made is unit_rows else 1.0)
    X, Z, weights = made(X), rows_of(60, d, seed=1)[0], bootstrap_weights(n, 0, 40)

    def fit(weight):
        return LogisticRegression(C=C, max_iter=5000, tol=1e-6).fit(X, y, sample_weight=weight)

    model = fit(np.ones(n))
    step = refitted(X, y, model, weights)
    moved = Z @ step[:, :-1].T + step[:, -1]
    real = np.stack([fit(weight).decision_function(Z) for weight in weights], axis=1)
    base = model.decision_function(Z)[:, None]
    assert moved.std(axis=1).mean() / real.std(axis=1).mean() == pytest.approx(1, abs=0.05)
    assert np.corrcoef((moved - base).ravel(), (real - base).ravel())[0, 1] > (0.98 if n == 10 * d else 0.99)


def test_sparse_features_are_refitted_as_dense_ones():
    X, y = rows_of(80, 100, share=0.3)
    model, weights = LogisticRegression().fit(X, y), bootstrap_weights(80, 0, 10)
    dense, thin = refitted(X, y, model, weights), refitted(sparse.csr_matrix(X), y, model, weights)
    np.testing.assert_allclose(thin, dense, atol=0.01)


def test_replicated_scores_are_those_of_the_rows_repeated():
    rng = np.random.default_rng(0)
    truth, decision = np.arange(40) % 2, rng.normal(size=(3, 40))
    weights = bootstrap_weights(40, 1, 3)
    accuracy, balanced, area = replicated_scores(decision, truth, weights)
    for b in range(3):
        rows = np.repeat(np.arange(40), weights[b].astype(int))
        y, value = truth[rows], decision[b, rows]
        assert accuracy[b] == pytest.approx(((value > 0) == y).mean())
        assert balanced[b] == pytest.approx(balanced_accuracy_score(y, value > 0))
        assert area[b] == pytest.approx(roc_auc_score(y, value))


def test_equal_values_are_ordered_by_column_and_negative_ones_come_first():
    row = [0.5, -0.0, -2.0, 0.0, 1e-40, -2.0, -np.inf, np.inf, -1e-40, 0.5]
    assert _ascending(np.array([row, row[::-1]])).tolist() == [
        [6, 2, 5, 8, 1, 3, 4, 0, 9, 7],
        [3, 4, 7, 1, 6, 8, 5, 0, 9, 2],
    ]
    drawn = np.random.default_rng(0).normal(size=(3, 500)).astype(np.float32)
    assert (_ascending(drawn) == np.argsort(drawn, axis=1, kind="stable")).all()


@pytest.fixture(scope="module")
def coverage():
    """60 studies of 100 rows of two made-up corpora, in which half of the 40 neurons tell the classes apart."""
    corpora = []
    for seed, name in enumerate(["books", "kitchen"]):
        rng = np.random.default_rng(seed)
        y = rng.permutation(np.arange(4000) % 2)
        X = rng.normal(size=(4000, 40))
        X[:, 10:30] += np.random.default_rng(7).normal(0.35, 0.2, size=20) * (y[:, None] - 0.5)
        corpora.append(how_sure.Domain(name, X.astype(np.float32), y, 20, True))
    plan = how_sure.Plan(100, 10, n_resamples=2, fraction=0.7, n_trees=20, runs=2, draws=2, n_boot=100, seed=0)
    return how_sure_report.coverage_table(how_sure.studies(corpora, plan, 60).assign(pooling="made up"))


def test_crossed_intervals_cover_as_they_say_and_those_of_target_rows_only_do_not(coverage):
    held = coverage.pivot(index="contrast", columns="interval", values="coverage")
    assert held[how_sure.CROSSED].min() >= 0.88
    assert held[how_sure.CROSSED].mean() > held[how_sure.TARGET_ROWS].mean() + 0.03
