"""Progress bars as text, which notebooks, terminals and logs show alike."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def bar(items: Iterable | None = None, *, show: bool, **options: Any) -> tqdm:
    """A bar over the items that vanishes when done; `TQDM_DISABLE` hides it where it would be shown."""
    if not show:
        options["disable"] = True  # and never False, which would overrule the environment
    return tqdm(items, leave=False, **options)
