"""Table 1 as data: the nine corpora (Amazon as four domains), their files, counts and places on the hub."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tsns_lib.corpora import readers
from tsns_lib.corpora.readers import Reading


@dataclass(frozen=True)
class Hub:
    """Where a corpus lies on the Hugging Face hub, and how its labels read there.

    `labels` maps the hub's label to ours, or to the reason why the row is skipped. `archive` names the one
    file that holds the official layout, where a repository keeps that instead of tables.
    """

    repository: str
    config: str | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train"})
    columns: tuple[str, str | None, str] = ("text", None, "label")
    labels: Mapping[int | str, int | str] = field(default_factory=lambda: {0: 0, 1: 1})
    archive: str | None = None


@dataclass(frozen=True)
class Corpus:
    """One row of Table 1.

    `files` lists, per split, the official places in the data folder (the first that exists is read);
    `official` has the usable rows of the official release, `paper` the rows that the paper prints, both per
    split; `target` is the split that the paper transfers to.
    """

    name: str
    task: str
    read: Callable[[Path], Reading]
    files: Mapping[str, tuple[str, ...]]
    official: Mapping[str, int]
    paper: Mapping[str, int]
    hub: Hub
    target: str | None = None


def _amazon(name: str, folder: str) -> Corpus:
    places = ("sorted_data_acl", "domain_sentiment_data.tar.gz", "domain_sentiment_data.tar")
    return Corpus(
        name=name,
        task="sentiment",
        read=partial(readers.read_amazon, domain=folder),
        files={"train": places},
        official={"train": 2_000},
        paper={"train": 2_000},
        # Its dataset viewer shows the official folder names and the official first reviews.
        hub=Hub("JSSICE/Multi-Domain-Sentiment-Dataset", archive="domain_sentiment_data.tar"),
        target="train",
    )


def _named(pattern: str, **splits: str) -> dict[str, tuple[str, ...]]:
    return {split: (pattern.format(part),) for split, part in splits.items()}


_NLI_ON_HUB: dict[int | str, int | str] = {0: 1, 1: 0, 2: "contradiction", -1: "no gold label"}
_PAIR = ("sentence1", "sentence2", "label")

_CORPORA = [
    _amazon("books", "books"),
    _amazon("dvd", "dvd"),
    _amazon("electronics", "electronics"),
    _amazon("kitchen", "kitchen_&_housewares"),
    Corpus(
        name="mr",
        task="sentiment",
        read=readers.read_imdb,
        files={"train": ("aclImdb", "aclImdb_v1.tar.gz")},
        official={"train": 25_000},
        paper={"train": 25_000},
        hub=Hub("stanfordnlp/imdb"),
    ),
    Corpus(
        name="sst",
        task="sentiment",
        read=readers.read_sst,
        files=_named("SST/stsa.binary.{}", train="train", dev="dev", test="test"),
        official={"train": 6_920, "dev": 872, "test": 1_821},
        paper={"train": 6_920},
        # GLUE's SST-2 is another release (67,349 phrases); this one holds the 6,920 sentences.
        hub=Hub("SetFit/sst2", splits={"train": "train", "dev": "validation", "test": "test"}),
    ),
    Corpus(
        name="scitail",
        task="nli",
        read=readers.read_scitail,
        files=_named("SciTailV1.1/tsv_format/scitail_1.0_{}.tsv", train="train", dev="dev", test="test"),
        official={"train": 23_596, "dev": 1_304, "test": 2_126},
        paper={"train": 23_596, "test": 2_126},
        # Not "tsv_format": on the hub that one has lost the 499 rows that CSV quoting swallows.
        hub=Hub(
            "allenai/scitail",
            "snli_format",
            splits={"train": "train", "dev": "validation", "test": "test"},
            columns=("sentence1", "sentence2", "gold_label"),
            labels={"entailment": 1, "neutral": 0},
        ),
        target="test",
    ),
    Corpus(
        name="snli",
        task="nli",
        read=readers.read_nli,
        files=_named("snli_1.0/snli_1.0_{}.jsonl", train="train", dev="dev", test="test"),
        official={"train": 366_180, "dev": 6_564, "test": 6_587},
        paper={"train": 366_180},
        hub=Hub(
            "stanfordnlp/snli",
            splits={"train": "train", "dev": "validation", "test": "test"},
            columns=("premise", "hypothesis", "label"),
            labels=_NLI_ON_HUB,
        ),
    ),
    Corpus(
        name="mnli",
        task="nli",
        read=readers.read_nli,
        files=_named("multinli_1.0/multinli_1.0_{}.jsonl", train="train", dev="dev_matched"),
        official={"train": 261_799, "dev": 6_602},
        paper={"train": 261_799},
        hub=Hub(
            "nyu-mll/multi_nli",
            splits={"train": "train", "dev": "validation_matched"},
            columns=("premise", "hypothesis", "label"),
            labels=_NLI_ON_HUB,
        ),
    ),
    Corpus(
        name="rte",
        task="nli",
        read=readers.read_rte,
        files=_named("GLUE/RTE/{}.tsv", train="train", dev="dev"),
        official={"train": 2_490, "dev": 277},
        paper={"train": 2_490},
        # On the hub 0 is entailment and 1 is not_entailment.
        hub=Hub("nyu-mll/glue", "rte", {"train": "train", "dev": "validation"}, _PAIR, {0: 1, 1: 0}),
    ),
    Corpus(
        name="qqp",
        task="similarity",
        read=readers.read_qqp,
        files=_named("GLUE/QQP/{}.tsv", train="train", dev="dev"),
        official={"train": 363_846, "dev": 40_430},
        paper={"train": 363_177, "dev": 40_371},
        hub=Hub(
            "nyu-mll/glue",
            "qqp",
            splits={"train": "train", "dev": "validation"},
            columns=("question1", "question2", "label"),
        ),
        target="dev",
    ),
    Corpus(
        name="mrpc",
        task="similarity",
        read=readers.read_mrpc,
        files=_named("MRPC/msr_paraphrase_{}.txt", train="train", test="test"),
        official={"train": 4_076, "test": 1_725},
        paper={"train": 3_917},
        # GLUE cut the official training file in two: 3,668 + 408.
        hub=Hub("nyu-mll/glue", "mrpc", {"train": "train+validation", "test": "test"}, _PAIR),
    ),
]

REGISTRY: dict[str, Corpus] = {corpus.name: corpus for corpus in _CORPORA}
