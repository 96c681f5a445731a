"""A corpus of Table 1 from the Hugging Face hub, with the commit that it was read at."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tsns_lib.corpora.readers import MALFORMED, Reading, Row, collect, row_of
from tsns_lib.corpora.registry import Corpus


def read_hub(corpus: Corpus, split: str, revision: str | None = None) -> tuple[Reading, str]:
    """Read one split of a corpus from the hub; also return the commit (40 hex digits) that the revision resolved to.

    `revision` is a branch, tag or commit, by default the newest commit. A whole commit is used without asking the hub.
    Raises ImportError where `datasets` or `huggingface_hub` is not installed, and ConnectionError where the hub does
    not answer or does not know the repository or the revision.
    """
    hub = corpus.hub
    fetched: Any  # the path of an archive, or rows
    try:
        import huggingface_hub

        if hub.archive is None:
            import datasets
    except ImportError as error:
        raise ImportError(f"hub:{corpus.name}: needs {error.name!r}: pip install 'tsns_lib[hub]'") from error
    try:
        if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
            commit = revision
        else:
            commit = str(huggingface_hub.HfApi().dataset_info(hub.repository, revision=revision).sha)
        if hub.archive is not None:
            fetched = huggingface_hub.hf_hub_download(hub.repository, hub.archive, repo_type="dataset", revision=commit)
        else:
            fetched = datasets.load_dataset(hub.repository, hub.config, split=hub.splits[split], revision=commit)
    # The client library may raise its own errors, httpx's, or timeouts; the first line of any of them is enough.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        place = f"{hub.repository} at {revision or 'its newest commit'}"
        raise ConnectionError(f"hub:{corpus.name}: cannot read {place} ({type(error).__name__}: {reason})") from error
    return (corpus.read(Path(fetched)) if hub.archive else read_rows(corpus, fetched)), commit


def read_rows(corpus: Corpus, rows: Iterable[Mapping[str, Any]]) -> Reading:
    """Turn the hub's rows into ours; the registry says which columns to take and what their labels mean.

    A row whose text is null is skipped; a column that is missing is a ValueError.
    """
    *texts, label = (column for column in corpus.hub.columns if column is not None)

    def ours(number: int, row: Mapping[str, Any]) -> Row:
        for column in (*texts, label):
            if column not in row:
                raise ValueError(f"hub:{corpus.name}, row {number}: no column {column!r}; found: {', '.join(row):.200}")
        theirs = row[label]
        known = isinstance(theirs, int | float | str)  # and can be looked up, unlike a list
        return row_of(corpus.hub.labels.get(theirs, MALFORMED) if known else MALFORMED, *(row[text] for text in texts))

    return collect(ours(number, row) for number, row in enumerate(rows, 1))
