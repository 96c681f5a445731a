"""Break important lines one at a time, and require that a test notices: `make mutants`.

Each mutant is made in a copy of the two packages and tested there, with the test files that are about the line, which
have to pass without it. It is a failure if a mutant survives, if a line is no longer there, or if a test hangs.
"""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 600  # seconds for the tests of one mutant
HANGS = 124  # the exit status of tests that were stopped for this


class Mutant(NamedTuple):
    """What is broken, in which file, by which change of a line, and the tests that have to notice."""

    name: str
    file: str
    line: str
    broken: str
    tests: str


LIB, BOOK, FIT = "tsns_lib/", "notebooks/tsns_workbook/", "notebooks/tsns_workbook/finetuning/"
IMPORTANCE = "tests/library/test_importance.py"
MUTANTS = [
    Mutant(
        "equation 1: a sign",
        LIB + "importance.py",
        "m = alpha * mean + (1 - alpha)",
        "m = alpha * mean - (1 - alpha)",
        IMPORTANCE,
    ),
    Mutant(
        "standardisation left out",
        LIB + "classifier.py",
        "make_pipeline(StandardScaler(), LogisticRegression(",
        "make_pipeline(LogisticRegression(",
        "tests/library/test_multi.py tests/library/test_transfer.py",
    ),
    Mutant(
        "target rows in the scaler",
        LIB + "transfer.py",
        "else model.predict(Z[:, choice.selected])",
        "else model[-1].predict(type(model[0])().fit_transform(Z[:, choice.selected]))",
        "tests/library/test_transfer.py",
    ),
    Mutant(
        "ranks off by one",
        LIB + "aggregation.py",
        "(2 * n - rankdata(",
        "(2 * n - 1 - rankdata(",
        "tests/library/test_multi.py",
    ),
    Mutant(
        "padding in the mean",
        LIB + "extraction.py",
        'weights = inputs["attention_mask"].float()',
        'weights = torch.ones_like(inputs["attention_mask"]).float()',
        "tests/library/test_extraction.py",
    ),
    Mutant(
        "layers in another order",
        LIB + "extraction.py",
        "torch.cat(pooled, dim=1)",
        "torch.cat(pooled[::-1], dim=1)",
        "tests/library/test_extraction.py",
    ),
    Mutant(
        "beta ignored",
        LIB + "sampling.py",
        "round(resample_fraction(n_rows, fraction) * n_rows)",
        "n_rows",
        IMPORTANCE,
    ),
    Mutant(
        "budget ignored",
        LIB + "transfer.py",
        "shares = sizes if budget is None else",
        "shares = sizes if True else",
        "tests/library/test_transfer.py",
    ),
    Mutant(
        "ties by index",
        LIB + "ranking.py",
        'np.random.default_rng(derive_seed(0, "ties", len(m))).permutation(len(m))',
        "np.arange(len(m))",
        IMPORTANCE,
    ),
    Mutant(
        "one seed for all runs",
        LIB + "sampling.py",
        'derive_seed(seed, "run", run)',
        'derive_seed(seed, "run", 0)',
        "tests/library/test_transfer.py tests/library/test_fingerprints.py",
    ),
    Mutant(
        "a download's bytes not compared",
        BOOK + "get.py",
        "if expected in (None, digest):",
        "if True:",
        "tests/workbook/test_get.py",
    ),
    Mutant(
        "fetched without consent",
        BOOK + "get.py",
        "if not accept:",
        "if False:",
        "tests/workbook/test_get.py",
    ),
    Mutant(
        "a download that begins again",
        BOOK + "get.py",
        'f"bytes={start}-"} if start else {}',
        'f"bytes={start}-"} if False else {}',
        "tests/workbook/test_get.py",
    ),
    Mutant(
        "an archive that reaches out",
        BOOK + "get.py",
        'or ".." in PurePosixPath(name).parts',
        "or False",
        "tests/workbook/test_get.py",
    ),
    Mutant(
        "the hub's quotes",
        LIB + "corpora/hub.py",
        "doubled_quotes=corpus.hub.quoted",
        "doubled_quotes=False",
        "tests/library/test_sources.py",
    ),
    Mutant(
        "order of NDCG",
        BOOK + "ranking.py",
        "ndcg_score([2**reached - 1], [predicted])",
        "ndcg_score([2**reached - 1], [-predicted])",
        "tests/workbook/test_ranking.py",
    ),
    Mutant(
        "bootstrap over the wrong axis",
        BOOK + "statistics.py",
        "_interval(point.mean(), draws.mean(axis=1))",
        "_interval(point.mean(), draws.mean(axis=0))",
        "tests/workbook/test_statistics.py",
    ),
    Mutant(
        "receipt always true",
        BOOK + "receipts.py",
        '("out of date" if changes else "up to date")',
        '"up to date"',
        "tests/workbook/test_run.py tests/faults/test_receipts.py",
    ),
    Mutant(
        "code missing from a receipt",
        BOOK + "receipts.py",
        'for package in ("tsns_lib", "tsns_workbook"):',
        'for package in ("tsns_workbook",):',
        "tests/workbook/test_run.py tests/faults/test_receipts.py",
    ),
    Mutant(
        "importance key without max_depth",
        LIB + "importance.py",
        '"max_depth": forest.max_depth,\n            "engine"',
        '"max_depth": 0,\n            "engine"',
        IMPORTANCE,
    ),
    Mutant(
        "checksum skipped",
        LIB + "store/__init__.py",
        'return "" if sha256 == promise.sha256 else',
        'return "" if True else',
        "tests/library/test_store.py tests/faults/test_damage.py",
    ),
    *(
        Mutant(
            f"fine-tuning key without {field}",
            FIT + "finetune.py",
            line,
            line.partition(":")[0] + ": 0,",
            "tests/faults/test_training.py",
        )
        for field, line in {
            "labels": '"labels": labels_digest(self.labels),',
            "recipe": '"recipe": asdict(self.recipe),',
            "prepare": '"prepare": identity_of(self.prepare),',
        }.items()
    ),
    *(
        Mutant(
            f"importance key without {field}", LIB + "importance.py", line, line.partition(":")[0] + ": 0,", IMPORTANCE
        )
        for field, line in {
            "activations": '"activations": _array_hash(self._activations),',
            "classes": '"classes": _array_hash(self._classes),',
            "fraction": '"fraction": resample_fraction(len(self._classes), forest.fraction),',
            "n_trees": '"n_trees": forest.n_trees,',
            "engine": '"engine": _engine_version(forest.engine),',
            "seed": '"seed": forest.seed,',
        }.items()
    ),
]


def fault(mutant: Mutant) -> str:
    """Test a mutant in a copy of the packages; what is wrong with that, or nothing ("")."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(folder)
        file = folder / mutant.file
        text = file.read_text(encoding="utf-8")
        if text.count(mutant.line) != 1:
            return f"its line stands {text.count(mutant.line)} times in {mutant.file}"
        if status := passes(mutant.tests):
            return f"its tests fail without it, with exit status {status}"
        file.write_text(text.replace(mutant.line, mutant.broken), encoding="utf-8")
        status = tested(folder, mutant.tests)
    words = {0: "survives", 1: "", HANGS: f"its tests hang for more than {LIMIT} s"}
    return words.get(status, f"its tests end with exit status {status}")


def copied(folder: Path) -> None:
    """Copy what the tests need of the repository."""
    for name in ("tsns_lib", "notebooks/tsns_workbook", "tests", "params"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in [ROOT / "pyproject.toml", *(ROOT / "notebooks").glob("*.ipynb")]:
        shutil.copy(file, folder / file.relative_to(ROOT))


@functools.cache
def passes(tests: str) -> int:
    """The exit status of tests when nothing is broken: they are run once."""
    with tempfile.TemporaryDirectory() as name:
        copied(Path(name))
        return tested(Path(name), tests)


def tested(folder: Path, tests: str) -> int:
    """The exit status of pytest in a copy."""
    paths = os.pathsep.join([str(folder), str(folder / "notebooks")])
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests.split()]
    environment = os.environ | {"PYTHONPATH": paths, "TSNS_ROOT": str(folder)}
    try:
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=LIMIT).returncode
    except subprocess.TimeoutExpired:
        return HANGS


def main(words: list[str]) -> int:
    """Test all mutants, or those whose names contain one of the words; 1 if one survives."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    faults = 0
    for mutant in chosen:
        start = time.perf_counter()
        wrong = fault(mutant)
        faults += bool(wrong)
        print(f"{mutant.name}: {wrong or 'noticed'} ({time.perf_counter() - start:.0f} s)", flush=True)
    print(f"{len(chosen) - faults} of {len(chosen)} mutants noticed")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
