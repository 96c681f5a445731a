"""What every notebook shows and records: the sources and the encoder, ours beside the paper's, verdicts, the record.

The record is one JSON output, which the runner of the notebooks collects into `results.json`.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tsns_lib.corpora.registry import REGISTRY
from tsns_workbook.cards import card, marked, seen_in_training
from tsns_workbook.families import ERROR, adjusted_p, is_whole
from tsns_workbook.paper import CLAIMS, Claim

MIME = "application/vnd.tsns.result+json"
CLAIM_FIELDS = (
    *("id", "paper_ref", "rule", "ours", "interval", "paper", "verdict"),
    *("size", "above_majority", "by_selection", "family", "p", "declared"),
)
REPRODUCED, INCONCLUSIVE, CONTRADICTED, NOT_TESTABLE = VERDICTS = (
    "reproduced",
    "inconclusive",
    "contradicted",
    "not testable here",
)
HOLDS, DOES_NOT_HOLD = "holds", "does not hold"
# of a comparison that is ours, not a claim of the paper's
OUR_WORDS = {REPRODUCED: HOLDS, INCONCLUSIVE: INCONCLUSIVE, CONTRADICTED: DOES_NOT_HOLD}
YES_NO = {True: "yes", False: "no", None: ""}
DAGGER_MEANS = " († the encoder was trained on it)"
# columns that a table of claims leaves out if they are empty
OPTIONAL = ("size", "above majority", "by selection", "after Holm")
METHOD_LABELS = {
    "tsns": "TSNS",
    "multi_tsns": "MultiTSNS",
    "selected": "selected",  # by TSNS from one source, by MultiTSNS from several
    "last_layer": "last layer",
    "all": "all neurons",
    "random": "random neurons",
    "f_test": "F-test",
    "logistic": "logistic weights",
    "majority": "majority class",
}
ONE_SIZE = ("last_layer", "all", "majority")  # these have one K for an encoder, so K is not part of their label

Key = tuple[str, int]  # method, k


class Interval(NamedTuple):
    """An estimate with its 95 % interval; unpacks into estimate, low, high."""

    estimate: float
    low: float
    high: float

    def rounded(self) -> "Interval":
        """Round to one digit, without a minus before a zero."""
        return Interval(*(round(value, 1) + 0.0 for value in self))


# names


def check_count(name: str, values: Sequence[str], least: int, most: float = math.inf) -> None:
    """Refuse a parameter that lists too few different sources for a notebook, or too many, before any work."""
    if not least <= len(set(values)) <= most:
        wanted = f"{least}" if least == most else f"at least {least}"
        raise ValueError(f"{name}: this notebook needs {wanted} different ones, got {list(values)}")


def caption(title: str, generated: bool) -> str:
    """Append "(generated data)" to a title if the data are generated.

    Examples
    --------
    >>> caption("Table 2", True)
    'Table 2 (generated data)'
    """
    return f"{title} (generated data)" if generated else title


def short_name(name: str) -> str:
    """Strip "miniature:" and "hub:" from a source's name, or from every name in a union's."""
    return name.replace("miniature:", "").replace("hub:", "")


def label(method: str, k: int) -> str:
    """Name a method and its K as a reader wants it: "TSNS K=500", "last layer", "PBLM"."""
    name = METHOD_LABELS.get(method, method)
    return name if method in ONE_SIZE or k == 0 else f"{name} K={k}"


# what was loaded


def mark_seen(frame: pd.DataFrame, encoder: Any, sources: Iterable[Any]) -> pd.DataFrame:
    """Write † behind the name of every source that the encoder was trained on, in the cells and labels of a frame.

    `sources` are those that the frame is about, or their names.

    Examples
    --------
    >>> rows = pd.DataFrame({"source": ["rte+qqp", "miniature:qqp"]}, index=["snli → qqp", "mrpc"])
    >>> mark_seen(rows, "builtin:minilm", ["rte", "qqp", "snli", "mrpc", "miniature:qqp"])
                          source
    snli † → qqp †     rte+qqp †
    mrpc            miniature:qqp
    """
    seen = [getattr(source, "name", source) for source in sources if seen_in_training(encoder, source)]
    if not seen:
        return frame
    shown = "|".join(re.escape(name) for name in {*seen, *map(short_name, seen)})
    names = re.compile(rf"(?<![\w:/.-])({shown})(?!\w|[./-]\w)")  # and not in the name of a file

    def mark(value: Any) -> Any:
        return names.sub(r"\1 †", value) if isinstance(value, str) else value

    texts = frame.select_dtypes(exclude=["number", "bool"])
    return frame.assign(**{name: texts[name].map(mark) for name in texts}).rename(index=mark, columns=mark)


def sources_table(sources: Iterable[Any], encoder: Any = None) -> pd.DataFrame:
    """What was loaded, a row for each source: rows kept and skipped, official counts, share of the largest class.

    With an `encoder`, † marks a source that it was trained on.
    """
    rows = [
        {
            "source": marked(source, encoder),
            "task": source.task,
            "split": source.split,
            "rows": source.n_rows,
            "skipped": sum(source.origin["skipped"].values()),
            "official": source.origin["official_rows"],
            "paper": source.origin["paper_rows"],
            "largest class": f"{source.frame['label'].value_counts(normalize=True).max():.1%}",
            "data": "generated" if source.generated else f"real, {_provenance(source.origin)}",
        }
        for source in sources
    ]
    table = pd.DataFrame(rows).astype({"official": "Int64", "paper": "Int64"})
    return table.rename(columns={"source": f"source{DAGGER_MEANS}"}) if _any_marked(table["source"]) else table


def _provenance(origin: Mapping[str, Any]) -> str:
    if origin["kind"] == "hub":
        return f"{origin['repository']} at commit {origin['commit']}"
    if origin["kind"] == "own":
        return "own file"
    hubs = origin["path"].startswith("hub/")
    return "the hub's files" if hubs else REGISTRY[origin["corpus"]].copy or "official files"


def encoder_table(encoder: Any) -> pd.DataFrame:
    """Which encoder this is: its shape, what identifies its weights, and what its card says of its training."""
    facts = {
        "encoder": encoder.name,
        "layers × neurons": f"{encoder.n_layers} × {encoder.hidden_size:,} = {encoder.n_neurons:,}",
        "dtype": encoder.dtype,
        "commit": encoder.revision or "not from a hub",
        "digest": encoder.digest[:16],
    }
    known = card(encoder)
    if known is None:
        untrained = encoder.random_seed is not None
        facts["card"] = (
            "random weights, trained on nothing" if untrained else "no card: what it was trained on is unknown"
        )
    else:
        words = ("pooling", "objective", "trained on", "before that")
        facts |= {f"card: {name}": known[name] for name in words if name in known}
        facts["card: marked † here"] = ", ".join(known["seen"]) or "nothing"
        facts["card: source"] = known["source"]
    return pd.DataFrame({"": facts}).rename_axis("fact").rename(columns={"": "value"}).reset_index()


def _any_marked(names: Iterable[str]) -> bool:
    return any("†" in name for name in names)


# ours beside the paper's


def beside_paper(
    grid: pd.DataFrame, paper: pd.DataFrame, *, columns: Sequence[Key] | None = None, encoder: Any = None
) -> pd.DataFrame:
    """Set our accuracies beside the paper's, pair by pair, in percent: (method and K) x (ours, paper, difference).

    `grid` is a transfer grid, its runs are averaged; `paper` is one of `paper.table2` ... `table5` (of the last, the
    rows of one budget). `columns` says what to show, by default every method and K that both have; what only one side
    has is shown alone. Pairs stand in the paper's order, then those that only we have; the last row is the average
    over the pairs that have all figures of that method and K. A difference is taken between the two figures shown.
    With the `encoder` of the grid, † marks what it was trained on.
    """
    if paper.duplicated(["source", "target", "method", "k"]).any():
        raise ValueError("paper holds a cell twice; choose one budget of Table 5")
    generated = bool(grid["generated"].any())
    names: dict[tuple[frozenset, str], str] = {}
    theirs, ours = _cells(paper, 1, names), _cells(grid, 100, names)
    shown = [name for name in theirs if name in ours] if columns is None else [label(*key) for key in columns]
    pairs = pd.Index(names.values(), name="source → target")
    sides = {"ours (generated)" if generated else "ours": ours, "paper": theirs}
    table, compared = {}, set()
    for name in shown:
        figures = {side: cells[name].reindex(pairs) for side, cells in sides.items() if name in cells}
        if not figures:
            raise ValueError(f"neither the grid nor the paper has {name!r}")
        values = pd.DataFrame(figures)
        compared.add(len(values.dropna()))
        values.loc["average"] = values.dropna().mean()
        values = values.round(1)
        if len(figures) == 2:
            values["difference"] = (values.iloc[:, 0] - values["paper"]).round(1)
        table[name] = values
    if not table:
        raise ValueError("the grid and the paper have no method and k in common; say what to show with columns")
    wide = pd.concat(table, axis=1)
    if encoder is not None and not generated:
        wide.index = wide.index.map(
            lambda pair: " → ".join(marked(name, encoder) for name in pair.split(" → "))
        ).rename(f"source → target{DAGGER_MEANS}")
    # where a method lacks some pairs, no one number of pairs would be true
    return wide.rename(index={"average": f"average of {compared.pop()} pairs"}) if len(compared) == 1 else wide


def _cells(frame: pd.DataFrame, scale: float, names: dict[tuple[frozenset, str], str]) -> pd.DataFrame:
    """Mean accuracy in percent, pairs down, labels across; adds to names how each pair is written.

    A pair is known by the set of its sources and its target: the order within a union does not matter.
    """
    rows = frame.dropna(subset=["accuracy"])
    written = []
    for source, sources, target in zip(rows["source"], rows["members"], rows["target"], strict=True):
        pair = frozenset(map(short_name, sources)), short_name(target)
        written.append(names.setdefault(pair, f"{short_name(source)} → {pair[1]}"))
    labels = [label(method, k) for method, k in zip(rows["method"], rows["k"], strict=True)]
    tidy = pd.DataFrame({"pair": written, "label": labels, "accuracy": scale * rows["accuracy"].to_numpy()})
    return tidy.pivot_table(index="pair", columns="label", values="accuracy", sort=False)


# verdicts


def verdict(estimate: float | None, low: float | None, high: float | None, *, threshold: float = 0.0) -> str:
    """Judge the claim that something lies above the threshold, from its interval alone.

    Reproduced: the whole interval lies above. Contradicted: the whole interval lies below. Inconclusive: the interval
    reaches the threshold. Three times None: not testable here.

    Examples
    --------
    >>> verdict(4.1, 3.2, 5.0), verdict(0.4, -0.5, 1.3), verdict(-1.0, -2.0, -0.1), verdict(None, None, None)
    ('reproduced', 'inconclusive', 'contradicted', 'not testable here')
    """
    if estimate is None and low is None and high is None:
        return NOT_TESTABLE
    if estimate is None or low is None or high is None or math.isnan(estimate) or not low <= high:
        raise ValueError(f"estimate, low, high must be three numbers with low <= high, not {estimate}, {low}, {high}")
    if low > threshold:
        return REPRODUCED
    return CONTRADICTED if high < threshold else INCONCLUSIVE


def claim(
    id: str,
    estimate: float | None = None,
    low: float | None = None,
    high: float | None = None,
    *,
    above_majority: bool | None = None,
    by_selection: bool | None = None,
    p: float | None = None,
) -> dict[str, Any]:
    """Judge one claim of `paper.CLAIMS` by the estimate that its rule asks for: a row of `results.json`.

    Without an estimate the claim is not testable here. `above_majority` says whether the claimed winner does better
    than the majority class, `by_selection` whether it is clearly more than every control shows (layer-matched random
    neurons, the F-test), which is kept only of what is reproduced; None where the question does not arise. `p` is the
    exact two-sided p value where there is one; else Holm's correction takes it from the interval.

    Examples
    --------
    >>> row = claim("table2.gain", 12.1, 11.0, 13.2, above_majority=True, by_selection=False)
    >>> row["verdict"], reading(row), row["size"]
    ('reproduced', 'reproduced, not by selection', 2.6889)
    """
    stated = _stated(id)
    if stated.rule in ("external", "untested") and estimate is not None:
        raise ValueError(f"claim {id!r} is not tested here (rule {stated.rule}); give no estimate")
    judged = verdict(estimate, low, high, threshold=stated.threshold)
    values = (
        *(id, stated.paper_ref, stated.rule, estimate, None if estimate is None else [low, high], stated.paper, judged),
        estimate / stated.paper if estimate is not None and stated.paper else None,
        *(above_majority, by_selection if judged == REPRODUCED else None, stated.family, p, stated.version),
    )
    return plain(dict(zip(CLAIM_FIELDS, values, strict=True)), id)


def _stated(id: str) -> Claim:
    stated = next((known for known in CLAIMS if known.id == id), None)
    if stated is None:
        raise ValueError(f"no claim {id!r}; there are {', '.join(known.id for known in CLAIMS)}")
    return stated


def reading(row: Mapping[str, Any]) -> str:
    """The verdict as tables show it: what is reproduced says so if it is below the majority class or not by selection.

    Examples
    --------
    >>> reading(claim("table3.gain_qqp", 5.0, 4.0, 6.0, above_majority=False))
    'reproduced, below the majority class'
    """
    reservations = {"above_majority": ", below the majority class", "by_selection": ", not by selection"}
    if row["verdict"] != REPRODUCED:
        return row["verdict"]
    return REPRODUCED + "".join(words for field, words in reservations.items() if row[field] is False)


def claims_table(claims: Sequence[Mapping[str, Any]], *, generated: bool = False, encoder: Any = None) -> pd.DataFrame:
    """Lay out judged claims for reading: the paper's statement and figure, ours with its interval, the verdict.

    `size` is ours over the paper's. "after Holm" is the verdict that is left once the family of the claim (its table
    or figure) shares the error of 5 %; of a family that is not wholly among these claims, the scoreboard has it. With
    an `encoder`, † marks a claim about corpora that it was trained on.
    """
    rows = [
        {
            "claim": _stated(row["id"]).statement + (" †" if about_seen(row["id"], encoder, generated) else ""),
            "where": row["paper_ref"],
            "paper": "" if row["paper"] is None else f"{row['paper']:g}",
            caption("ours", generated): figures(row)[0],
            "95 % interval": figures(row)[1],
            "size": "" if row["size"] is None else f"{row['size']:.2f}",
            "above majority": YES_NO[row["above_majority"]],
            "by selection": YES_NO[row["by_selection"]],
            "verdict": reading(row),
            "after Holm": after if is_whole(row["family"], claims) else "",
        }
        for row, after in zip(claims, after_holm(claims), strict=True)
    ]
    table = pd.DataFrame(rows)
    if _any_marked(table["claim"]):
        table = table.rename(columns={"claim": f"claim{DAGGER_MEANS.replace('it)', 'a corpus of it)')}"})
    return table.drop(columns=[name for name in OPTIONAL if not table[name].any()])


def answer(claims: Sequence[Mapping[str, Any]], said: Mapping[str, str]) -> str:
    """Say which of some claims are reproduced, contradicted or open, each with its estimate and interval.

    `said` gives the few words for each claim that is to be named, by its id. What Holm's correction leaves open is
    named last, for families that are wholly among these claims.

    Examples
    --------
    >>> rows = [claim("table2.gain", 4.0, 3.0, 5.0), claim("table2.wins", 7, 5, 9)]
    >>> answer(rows, {"table2.gain": "the gain", "table2.wins": "most pairs"})
    '**Reproduced**: the gain (4, 3 to 5). **Inconclusive**: most pairs (7, 5 to 9).'
    """
    named = [row for row in claims if row["id"] in said]
    readings = sorted(dict.fromkeys(map(reading, named)), key=lambda words: VERDICTS.index(words.split(",")[0]))
    sentences = []
    for words in readings:
        parts = [
            said[row["id"]] + (f" ({', '.join(figures(row))})" if row["interval"] else "")
            for row in named
            if reading(row) == words
        ]
        sentences.append(f"**{words[0].upper()}{words[1:]}**: {'; '.join(parts)}.")
    left = [pair for pair in zip(claims, after_holm(claims), strict=True) if is_whole(pair[0]["family"], claims)]
    open_after = [said[row["id"]] for row, after in left if row["id"] in said and after != reading(row)]
    if open_after:
        sentences.append(
            f"Once these claims share one error of 5 % (Holm), inconclusive, too: {'; '.join(open_after)}."
        )
    return " ".join(sentences)


def about_seen(id: str, encoder: Any, generated: bool = False) -> bool:
    """Say whether a claim is about a corpus that the encoder was trained on; never where the data are generated."""
    if encoder is None or generated:
        return False
    return any(seen_in_training(encoder, corpus) for corpus in _stated(id).corpora)


def after_holm(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """The readings that are left once each family shares the error of 5 %: inconclusive where Holm's p is above it."""
    return [
        reading(row) if p is None or p <= ERROR else INCONCLUSIVE
        for row, p in zip(claims, adjusted_p(claims), strict=True)
    ]


def figures(row: Mapping[str, Any]) -> tuple[str, str]:
    """Ours and its interval in words: counts as they are, points with one digit, what lies below 1 with two.

    Examples
    --------
    >>> figures(claim("table2.gain", 4.04, 0.95, 7.0)), figures(claim("prediction.pairs", 0.3, -0.1, 0.682))
    (('4.0', '0.9 to 7.0'), ('0.30', '-0.10 to 0.68'))
    >>> figures(claim("table1.amazon", 8, 8, 8)), figures(claim("table4.state_of_the_art"))
    (('8', ''), ('', ''))
    """
    if row["interval"] is None:
        return "", ""
    values = (row["ours"], *row["interval"])
    digits = 0 if all(value == round(value) for value in values) else 1 if max(map(abs, values)) >= 1 else 2
    ours, low, high = (f"{round(value, digits) + 0.0:.{digits}f}" for value in values)  # + 0.0: no minus before a zero
    return ours, "" if row["interval"][0] == row["interval"][1] else f"{low} to {high}"


# the record


def record(
    notebook: str,
    profile: str,
    generated: bool,
    encoder: str,
    claims: Sequence[Mapping[str, Any]],
    tables: Mapping[str, pd.DataFrame],
) -> None:
    """Display what a notebook computed as one machine-readable output: judged claims and tidy tables by name."""
    from IPython.display import display

    contents = result(notebook, profile, generated, encoder, claims, tables)
    text = f"recorded {len(claims)} claims and {len(tables)} tables ({contents['data']} data)"
    display({MIME: contents, "text/plain": text}, raw=True)


def result(
    notebook: str,
    profile: str,
    generated: bool,
    encoder: str,
    claims: Sequence[Mapping[str, Any]],
    tables: Mapping[str, pd.DataFrame],
) -> dict[str, Any]:
    """Check and return what `record` displays."""
    for name, value in (("notebook", notebook), ("profile", profile), ("encoder", encoder)):
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name} must be a non-empty string, not {value!r}")
    for row in claims:
        if set(row) != set(CLAIM_FIELDS) or row["verdict"] not in VERDICTS:
            raise ValueError(f"not a judged claim, make it with report.claim: {dict(row)}")
    return {
        "notebook": notebook,
        "profile": profile,
        "data": "generated" if generated else "real",
        "encoder": encoder,
        "claims": [plain(row, row["id"]) for row in claims],
        "tables": {name: plain(frame.to_dict("records"), name) for name, frame in tables.items()},
    }


def plain(value: Any, where: str) -> Any:
    """Turn numpy and pandas values into what JSON knows: floats with four digits, None for what is missing."""
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if value is None or value is pd.NA:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return round(float(value), 4) if math.isfinite(value) else None
    raise ValueError(f"{where} is a {type(value).__name__}, which does not fit into results.json")
