"""What the paper's own run will cost on this machine, said and confirmed before it starts: `make paper`.

The device says what it is. How fast the encoder runs on it and what a tree costs are measured on a little of the work;
what is to be done is counted from the corpora in TSNS_DATA and the parameters of the profile.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsns_lib import load_encoder, load_source
from tsns_lib.corpora.sources import Source
from tsns_lib.encoders import Encoder
from tsns_lib.extraction import STORED_AS, activations, texts_of, tokenised
from tsns_lib.store import Store
from tsns_workbook.benchmarks import seconds_per_split_level, timed
from tsns_workbook.performance import RESAMPLES, RUNS, forest_hours, mean_tokens, paper_forests
from tsns_workbook.project import ProjectError, plan, project_root

CORPORA, SETTING = "01_table1_datasets", "04_table2_single_source_sentiment"  # whose parameters are read
ENOUGH_SECONDS = 2.0  # of the encoder at work, for a forecast
UNIT_ROWS = (1_400, 2_800)  # rows of the forests that the cost of a tree is measured on


def main(argv: Sequence[str] | None = None) -> int:
    """Print the forecast and ask; the exit status is 0 if the run is confirmed."""
    parser = argparse.ArgumentParser(prog="tsns_workbook.forecast", description=__doc__)
    parser.add_argument("--profile", default="paper", help="a folder in params/ (default: paper)")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    arguments = parser.parse_args(argv)
    try:
        jobs = {job.name: job.values for job in plan(project_root(), arguments.profile)}
        setting = jobs[SETTING]
        options = {"revision": setting["revision"] or None, "dtype": setting.get("dtype", "float32")}
        encoder = load_encoder(setting["encoder"], **options)
        sources = [load_source(name, split=s) for name, splits in jobs[CORPORA]["corpora"].items() for s in splits]
        print(device_line(encoder), flush=True)
        with pd.option_context("display.width", 120):
            print(forecast(sources, encoder, **{name: setting[name] for name in FORESTS}).to_string())
    except (ProjectError, OSError, ValueError, KeyError) as error:
        print(f"make {arguments.profile}: {error}", file=sys.stderr)
        return 2
    store = Store().root
    folder = next(path for path in (store, *store.parents) if path.exists())
    print(f"the store, {store}, has {shutil.disk_usage(folder).free / 1e9:.0f} GB left")
    print("what 10 to 13 train comes on top, with states pooled in other ways; an interrupted run goes on where it was")
    return 0 if arguments.yes or confirmed() else 1


FORESTS = ("n_trees", "n_resamples", "runs", "max_length")


def device_line(encoder: Encoder) -> str:
    """The device that the encoder runs on, its memory, and how it is used."""
    if not encoder.device.startswith("cuda"):
        return f"device: no GPU; {_n_cores()} cores, {encoder.dtype}"
    import torch

    facts = torch.cuda.get_device_properties(encoder.device)
    tokens = encoder.tokens_within(facts.total_memory)
    return f"device: {facts.name}, {facts.total_memory / 1e9:.0f} GB, {encoder.dtype}, {tokens:,} tokens at a time"


def forecast(
    sources: Sequence[Source], encoder: Encoder, *, n_trees: int, n_resamples: int, runs: int, max_length: int
) -> pd.DataFrame:
    """Hours on this machine and gigabytes, for the activations of all sources and the forests of every table.

    `sources` are all splits that are used; forests grow on the training rows, on all cores.
    """
    rows = sum(source.n_rows for source in sources)
    n_tokens = sum(source.n_rows * mean_tokens(source, encoder, max_length) for source in sources)
    speed = tokens_a_second(sources, encoder, max_length)
    forests = paper_forests({source.name: source.n_rows for source in sources if source.split == "train"})
    forests["forests"] = (forests["forests"] * runs * n_resamples / (RUNS * RESAMPLES)).round().astype(int)
    of_a_tree = max(0.0, seconds_per_split_level(UNIT_ROWS, n_neurons=encoder.n_neurons))
    by_table = forest_hours(forests, of_a_tree, n_trees) / _n_cores()
    counts = forests.groupby("what", sort=False)["forests"].sum()
    row_bytes = encoder.n_neurons * np.dtype(STORED_AS[encoder.dtype]).itemsize
    table = pd.DataFrame(
        {
            "units": [f"{rows:,} rows", *(f"{count:,} forests" for count in counts)],
            "hours": [n_tokens / speed / 3600, *by_table],
            "GB": [rows * row_bytes / 1e9, *(counts * encoder.n_neurons * 8 / 1e9)],
        },
        index=["activations", *by_table.index],
    )
    table.loc["all"] = ["", *table[["hours", "GB"]].sum()]
    return table.round(2)


def tokens_a_second(sources: Sequence[Source], encoder: Encoder, max_length: int) -> float:
    """The speed of the encoder on a few rows of each source, over and over until it has worked for some seconds."""
    samples: list[Any] = []
    for source in sources:
        texts, pairs = texts_of(source, None)
        step = max(1, source.n_rows // 4)
        samples.append(tokenised(encoder, texts[::step], pairs[::step] if pairs else None, max_length)[0])
    few = type(samples[0])(*(np.concatenate(parts) for parts in zip(*samples, strict=True)))
    timed(activations, few, encoder, "cls")  # loads the model
    times, seconds = 1, 0.0
    while True:
        many = type(few)(*(np.tile(part, times) for part in few))
        seconds, _ = timed(activations, many, encoder, "cls")
        if seconds >= ENOUGH_SECONDS:
            return float(many.lengths.sum() / seconds)
        times *= 4


def confirmed() -> bool:
    """Whether the answer at the terminal is yes; without a terminal it is no."""
    print("Start? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
