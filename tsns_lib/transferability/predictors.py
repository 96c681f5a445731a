"""Predictors of transfer: a number for every ordered pair of sources, and what it costs to know."""

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsns_lib.extraction import stored_activations
from tsns_lib.runtime.store import Store
from tsns_lib.transferability.finetuned import FineTuned
from tsns_lib.transferability.logme import logme
from tsns_lib.transferability.task_embedding import rank_sources

Relation = Callable[[str, str], float]


def pair_frame(groups: Mapping[str, Sequence[str]], relations: Mapping[str, Relation]) -> pd.DataFrame:
    """Every ordered pair of sources of a group, with what each relation says of it.

    Parameters
    ----------
    groups : mapping of str to sequence of str
        Names of sources by task.
    relations : mapping of str to callable
        Take the names of a source and a target.

    Returns
    -------
    pandas.DataFrame
        Columns task, source, target, and one for each relation.

    Raises
    ------
    ValueError
        If a relation has the name of one of the first three columns.

    Examples
    --------
    >>> pair_frame({"letters": ["a", "b"]}, {"equal": lambda source, target: float(source == target)})
          task source target  equal
    0  letters      b      a    0.0
    1  letters      a      b    0.0
    """
    if taken := {"task", "source", "target"} & set(relations):
        raise ValueError(f"relations: {min(taken)!r} is the name of another column")
    pairs = [(task, a, b) for task, names in groups.items() for b in names for a in names if a != b]
    columns = {name: [relation(source, target) for _, source, target in pairs] for name, relation in relations.items()}
    return pd.DataFrame(pairs, columns=["task", "source", "target"]).assign(**columns)


def nearest_sources(names: Sequence[str], relations: Mapping[str, Relation]) -> pd.DataFrame:
    """The source that each relation puts first for each target.

    Parameters
    ----------
    names : sequence of str
        Sources, each of which is a target too.
    relations : mapping of str to callable
        Take the names of a source and a target.

    Returns
    -------
    pandas.DataFrame
        Column target, and one for each relation.

    Examples
    --------
    >>> nearest_sources(["aa", "b"], {"by length": lambda source, target: len(source)})
      target by length
    0     aa         b
    1      b        aa
    """
    rows = [
        {"target": target}
        | {
            title: max((name for name in names if name != target), key=lambda name: relation(name, target))
            for title, relation in relations.items()
        }
        for target in names
    ]
    return pd.DataFrame(rows)


def fused_likeness(vectors: Mapping[str, Mapping[str, np.ndarray]], groups: Iterable[Sequence[str]]) -> Relation:
    """The fused ranking of task embeddings as a relation: a target's sources are ranked among those of its group.

    Parameters
    ----------
    vectors : mapping of str to mapping
        Task embeddings by source.
    groups : iterable of sequences of str
        Names of sources that are ranked together.

    Returns
    -------
    callable
        Takes the names of a source and a target.
    """
    scores = {
        target: rank_sources(vectors[target], {name: vectors[name] for name in names if name != target})
        for names in groups
        for target in names
    }
    return lambda source, target: scores[target][source]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two vectors.

    Examples
    --------
    >>> cosine(np.array([1.0, 0.0]), np.array([1.0, 1.0]))
    0.707...
    """
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def profile_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """How alike two profiles of hidden-state variability are: the distance of their logarithms, negative (our choice).

    Examples
    --------
    >>> round(profile_similarity(np.array([1.0, 10.0]), np.array([1.0, 1.0])), 4)
    -2.3026
    """
    return -float(np.linalg.norm(np.log(a) - np.log(b)))


def source_model_logme(tuned: FineTuned, target: Any, **options: Any) -> float:
    """LogME of a source's fine-tuned model for a target: of its last layer's first token, with the target's labels.

    Parameters
    ----------
    tuned : FineTuned
        As `tsns_lib.transferability.finetuning.fine_tune` gives it.
    target : Source
        Labelled rows of the target, of its training split.
    **options
        Of `tsns_lib.extract`.

    Returns
    -------
    float
    """
    encoder = tuned.encoder()
    last_layer = np.arange(encoder.n_neurons - encoder.hidden_size, encoder.n_neurons)
    return logme(stored_activations(target, encoder, **options).columns(last_layer), target.frame["label"])


def seconds_anew(work: Callable[[Store], Any]) -> float:
    """Time some work in an empty store, where nothing is known yet.

    Parameters
    ----------
    work : callable
        Takes the store.

    Returns
    -------
    float
        Seconds.

    Examples
    --------
    >>> seconds_anew(lambda store: None) < 1
    True
    """
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        work(Store(folder))
        return time.perf_counter() - start
