"""Progress as text, which notebooks, terminals and logs show alike: what work will cost, then a bar over it."""

import io
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def bar(items: Iterable | None = None, *, show: bool, **options: Any) -> tqdm:
    """A bar over the items that vanishes when done; `TQDM_DISABLE` hides it where it would be shown."""
    if not show:
        options["disable"] = True  # and never False, which would overrule the environment
    return tqdm(items, leave=False, **options)


def is_shown(show: bool) -> bool:
    """Whether a bar would be seen; a probe of what work costs is worth its time only then."""
    with bar(show=show, file=io.StringIO()) as probe:
        return not probe.disable


def announce(work: str, seconds: float, n_bytes: float) -> None:
    """Say in one line, before long work starts, what it will cost.

    Parameters
    ----------
    work : str
        What and how much: "100 forests of 1,000 trees".
    seconds : float
        Forecast from a measured probe.
    n_bytes : float
        What will be kept on disk.
    """
    hours, minutes = seconds / 3600, seconds / 60
    time = f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
    size = f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"
    # a carriage return marks the line as progress, which does not stay in an executed notebook
    print(f"\r{work}: about {time}, {size} on disk", file=sys.stderr, flush=True)
