"""A corpus of Table 1 from the Hugging Face hub, with the commit that it was read at."""

import re
from pathlib import Path

from tsns_lib.corpora.readers import MALFORMED, Reading, collect
from tsns_lib.corpora.registry import Corpus


def read_hub(corpus: Corpus, split: str, revision: str | None = None) -> tuple[Reading, str]:
    """Read one split of a corpus from the hub.

    Parameters
    ----------
    corpus : Corpus
        A corpus of the registry.
    split : str
        `"train"`, `"dev"` or `"test"`.
    revision : str, optional
        Branch, tag or commit; a whole commit needs no question to the hub. Default: the newest commit.

    Returns
    -------
    reading : Reading
    commit : str
        The 40 hex digits that the revision resolved to, as the hub says.

    Raises
    ------
    ImportError
        If `datasets` (or `huggingface_hub`) is not installed.
    ConnectionError
        If the hub does not answer, or does not know the repository or the revision.
    """
    hub = corpus.hub
    try:
        import huggingface_hub

        if hub.archive is None:
            import datasets
    except ImportError as error:
        raise ImportError(f"hub:{corpus.name}: needs {error.name!r}: pip install 'tsns_lib[hub]'") from error
    try:
        pinned = revision is not None and re.fullmatch("[0-9a-f]{40}", revision)
        found = revision if pinned else huggingface_hub.HfApi().dataset_info(hub.repository, revision=revision).sha
        commit = str(found)
        if hub.archive is not None:
            fetched = huggingface_hub.hf_hub_download(hub.repository, hub.archive, repo_type="dataset", revision=commit)
        else:
            fetched = datasets.load_dataset(hub.repository, hub.config, split=hub.splits[split], revision=commit)
    # Whatever the client library throws (its own errors, httpx's, timeouts), one line of it says enough.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        place = f"{hub.repository} at {revision or 'its newest commit'}"
        raise ConnectionError(f"hub:{corpus.name}: cannot read {place} ({type(error).__name__}: {reason})") from error
    return (corpus.read(Path(fetched)) if hub.archive else read_rows(corpus, fetched)), commit


def read_rows(corpus: Corpus, rows) -> Reading:  # type: ignore[no-untyped-def]
    """Turn the hub's rows (an iterable of mappings) into ours: columns and labels as the registry says."""
    text, text_pair, label = corpus.hub.columns
    labels = corpus.hub.labels
    return collect((r[text], r[text_pair] if text_pair else None, labels.get(r[label], MALFORMED)) for r in rows)
