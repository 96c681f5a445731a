"""Numbers that would take for ever, or outgrow the machine, are refused in a line before any work."""

import time

import numpy as np
import pytest

from tsns_lib import (
    MultiTSNS,
    SingleTSNS,
    fingerprint,
    forest_importance,
    load_encoder,
    load_source,
    resampled_importance,
    source_pairs,
    transfer_grid,
    water_fill,
)
from tsns_lib.executors import check_scheduler
from tsns_lib.importance import Forest

X = np.random.default_rng(0).normal(size=(40, 4))
y = np.arange(40) % 2


def books(name="books"):
    return load_source(f"miniature:{name}", limit=20)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: transfer_grid([books()], [books("dvd")], load_encoder(), runs=10**12), "runs: must be at most 10,000"),
        (lambda: transfer_grid([books()], [books("dvd")], load_encoder(), seed=10**5000), "seed: must be at most"),
        (lambda: Forest(n_trees=10**12), "n_trees: must be at most 1,000,000, got 1,000,000,000,000"),
        (lambda: forest_importance(X, y, n_trees=1e12), "n_trees: must be a whole number, got 1000000000000.0"),
        (lambda: resampled_importance(X, y, n_resamples=10**9), "n_resamples: must be at most 100,000, got"),
        (lambda: SingleTSNS(2, max_depth=10**30).fit(X, y), "max_depth: must be at most 2,147,483,647, got"),
        (lambda: forest_importance(X, y, seed=2**64), "seed: must be at most 9,223,372,036,854,775,807, got"),
        (lambda: SingleTSNS(2, random_state=10**30).fit(X, y), "random_state: must be at most"),
        (lambda: forest_importance(X, y, n_jobs=10**9), "n_jobs: must be at most 10,000, got"),
        (lambda: source_pairs(20, "disjoint"), "pairing: 'disjoint' of 20 sources makes more than 100,000 pairs"),
        (lambda: source_pairs(1_000, "bipartitions"), "pairing: 'bipartitions' of 1000 sources makes more than"),
        (lambda: source_pairs(10**9), "n_sources: must be at most 1,000, got"),
        (
            lambda: MultiTSNS(2, pairing="disjoint").fit(X, y, groups=np.arange(40) % 20),
            "pairing: 'disjoint' of 20 sources",
        ),
        (
            lambda: MultiTSNS(2).fit(np.ones((2_002, 2)), np.arange(2_002) % 2, groups=np.arange(2_002) // 2),
            "groups: names 1,001 sources; at most 1,000 can be paired",
        ),
        (lambda: MultiTSNS(2, alphas=np.linspace(0, 1, 10**6)).fit(X, y), "alphas: must be 'log' or numbers"),
        (lambda: forest_importance(np.ones((2_000, 2)), np.arange(2_000)), "y: has 2,000 classes, more than 1,000"),
        (lambda: resampled_importance(X, y, tol=0.1, neurons=range(10**7)), "n_neurons: must be between 1 and the 4"),
        (lambda: fingerprint([0], 10**12, 10**12), "n_layers: must be at most 10,000, got"),
        (lambda: water_fill([2**62] * 4, 5), "sizes: must be at most"),
        (lambda: check_scheduler("processes:99999"), "scheduler: the number of processes: must be at most 1,000, got"),
    ],
)
def test_what_would_not_end_is_refused_at_once(use, message):
    start = time.monotonic()
    with pytest.raises(ValueError, match=message):
        use()
    assert time.monotonic() - start < 5


def test_the_bounds_leave_room():
    assert Forest(n_trees=10**6, n_resamples=10**5, max_depth=2**31 - 1).n_trees == 10**6
    assert len(source_pairs(10, "disjoint")) == 57_002
    assert len(source_pairs(16, "bipartitions")) == 65_534
    assert len(source_pairs(1_000)) == 1_000
    assert water_fill([2**60, 2**60], 2**70).tolist() == [2**60, 2**60]
