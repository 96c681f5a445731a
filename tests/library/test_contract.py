"""The public names: there, documented, light to import."""

import subprocess
import sys

import pytest

import tsns_lib


@pytest.mark.parametrize("name", [name for name in tsns_lib.__all__ if not name.startswith("_")])
def test_a_public_name_is_there_and_shows_an_example(name):
    assert "Examples\n" in getattr(tsns_lib, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'tsns_lib' has no attribute 'importance_of'"):
        _ = tsns_lib.importance_of


def test_the_importance_path_runs_without_torch():
    code = (
        "import sys, numpy as np, tsns_lib\n"
        "X = np.random.default_rng(0).normal(size=(40, 6))\n"
        "tsns_lib.SingleTSNS(2, n_resamples=2, n_trees=5).fit(X, X[:, 0] > 0)\n"
        "tsns_lib.load_source('miniature:books', limit=10); tsns_lib.load_encoder()\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "False False\n"
