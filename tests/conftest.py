"""What every test shares: a cache of its own, and the real corpora where there are any."""

import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep every test away from the user's cache."""
    folder = tmp_path_factory.mktemp("tsns-cache")
    os.environ["TSNS_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="module")
def one_thread():
    """One thread for PyTorch: small models are slower in several, and far slower on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real corpora; skips where TSNS_DATA is not set (listed in tests/SKIPS.md)."""
    folder = os.environ.get("TSNS_DATA")
    if not folder:
        pytest.skip("TSNS_DATA is not set: no real corpora on this machine")
    return Path(folder).resolve()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KB; skips where none may be mounted (listed in tests/SKIPS.md)."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tsns", folder], capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
