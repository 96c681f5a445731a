"""A corpus of Table 1 from the Hugging Face hub: the named files of one commit, or copies of them in a folder."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyarrow import parquet

from tsns_lib.corpora.readers import MALFORMED, Reading, Row, collect, json_object, raw_lines, row_of
from tsns_lib.corpora.registry import Corpus


def read_hub(corpus: Corpus, split: str, revision: str | None = None) -> tuple[Reading, str]:
    """Read one split of a corpus from the hub; also return the commit (40 hex digits) that the revision resolved to.

    `revision` is a branch, tag or commit, by default the registry's commit. A whole commit is used without asking the
    hub, and what the hub's cache holds of it is read without a network. Raises ConnectionError where the hub does not
    answer, or does not know the repository, the revision or a file of it.
    """
    import huggingface_hub

    repository, commit = corpus.hub.repository, revision or corpus.hub.commit
    try:
        if not re.fullmatch("[0-9a-f]{40}", commit):
            commit = str(huggingface_hub.HfApi().dataset_info(repository, revision=commit).sha)
        place: dict[str, Any] = {"repo_type": "dataset", "revision": commit}
        files = [huggingface_hub.hf_hub_download(repository, file, **place) for file in corpus.hub.files[split]]
    # The client library may raise its own errors, httpx's, or timeouts; the first line of any of them is enough.
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise ConnectionError(f"hub:{corpus.name}: cannot read {repository} at {commit} ({reason})") from error
    return read_copies(corpus, [_checked(Path(file)) for file in files]), commit


def _checked(file: Path) -> Path:
    """A file of the hub's cache, which links to what is named by its checksum: sha256, or git's of small files."""
    name, content = file.resolve().name, file.read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", name) and name not in (git, hashlib.sha256(content).hexdigest()):
        raise ValueError(f"{file}: is not what the hub gave; delete {file.resolve()}, and it is fetched again")
    return file


def read_copies(corpus: Corpus, files: Sequence[Path]) -> Reading:
    """Read the hub's files of one split, wherever they lie."""
    if files[0].suffix == ".tar":
        return corpus.read(files[0])
    return read_rows(corpus, (row for file in files for row in _rows_of(file)))


def _rows_of(file: Path) -> Iterator[Mapping[str, Any]]:
    if file.suffix == ".jsonl":
        yield from (json_object(line, f"{file}, line {number}") for number, line in raw_lines(file) if line.strip())
        return
    try:
        for batch in parquet.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        raise ValueError(f"{file}: not readable ({str(error).partition(chr(10))[0]})") from error


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

    return collect((ours(number, row) for number, row in enumerate(rows, 1)), doubled_quotes=corpus.hub.quoted)
