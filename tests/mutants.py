"""Break important lines one at a time, and require that the test named for each notices: `make mutants`.

Each mutant is made in a copy of the two packages, tested there, and undone. The tests have to pass without it. It is a
failure if a mutant survives, if a line is no longer there, or if a test hangs. A process is forked from this one, which
has imported what takes long and has done nothing else; so a mutant takes a few seconds.
"""

import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 300  # seconds for the test of one mutant
HANGS = -1
SLOW_IMPORTS = ("numba", "pytest", "scipy.stats", "sklearn.ensemble", "sklearn.linear_model", "torch", "transformers")


class Mutant(NamedTuple):
    """What is broken, in which file, by which change of a line, and the test that has to notice."""

    name: str
    file: str
    line: str
    broken: str
    test: str


LIB, BOOK, FIT = "tsns_lib/", "notebooks/tsns_workbook/", "notebooks/tsns_workbook/finetuning/"
IMPORTANCE, EXTRACTION = "tests/library/test_importance.py::", "tests/library/test_extraction.py::"
RECEIPTS, TRAINING = "tests/faults/test_receipts.py::", "tests/faults/test_training.py::"
GET, STORE = "tests/workbook/test_get.py::", "tests/library/test_store.py::"
KEY = IMPORTANCE + "test_whatever_changes_a_number_changes_the_key"
TUNED = TRAINING + "test_another_value_of_every_argument_is_another_key"
STATES = EXTRACTION + "test_activations_equal_hugging_face"
ENGINE = """"engine": f"sklearn {metadata.version('scikit-learn')}" if forest.engine == "sklearn" else forest.engine,"""
NEVER_STOPS = "tests/library/test_stability.py::test_a_run_that_never_stops_has_the_bits_of_all_trees"
RECIPE = ("epochs", "learning_rate", "batch_size", "max_length", "clip", "dtype")
WAITS = "tests/faults/test_races.py::test_who_comes_second_waits_and_reads"
MUTANTS = [
    Mutant(
        "a forked child keeps the lock",
        LIB + "store/files.py",
        "os.register_at_fork(after_in_child=_let_go)",
        "",
        "tests/faults/test_races.py::test_a_child_that_was_forked_meanwhile_keeps_no_lock",
    ),
    Mutant(
        "activations' key without versions",
        LIB + "extraction.py",
        """        "versions": {package: metadata.version(package) for package in COMPUTED_BY},""",
        "",
        EXTRACTION + "test_everything_that_matters_has_its_own_key",
    ),
    Mutant(
        "a checkpoint of another training is read",
        FIT + "training.py",
        """if file.metadata()["training"] != _training(checkpoint):""",
        "if False:",
        TRAINING + "test_a_checkpoint_of_another_training_is_not_read",
    ),
    Mutant(
        "resamples are checked after the texts are read",
        LIB + "transfer.py",
        "        check_learners(parts, runs, seed, pairing, forest)",
        "",
        "tests/faults/test_arguments.py::test_a_wrong_argument_is_named_before_any_work[transfer_grid-fraction-8]",
    ),
    Mutant(
        "a branch of the hub is not in the receipt",
        BOOK + "receipts.py",
        "    found |= _branches(job)",
        "",
        RECEIPTS + "test_a_branch_of_a_hub_corpus_is_the_commit_at_which_it_stands",
    ),
    Mutant(
        "who comes second does not wait",
        LIB + "store/__init__.py",
        "        with files.locked(self.path):\n            yield",
        "        yield",
        WAITS,
    ),
    Mutant(
        "equation 1: a sign",
        LIB + "importance.py",
        "m = alpha * mean + (1 - alpha)",
        "m = alpha * mean - (1 - alpha)",
        IMPORTANCE + "test_equation_1_on_literal_values",
    ),
    Mutant(
        "standardisation left out",
        LIB + "classifier.py",
        "features = own.transform(computable(X.take(selected, axis=1)))",
        "features = computable(X.take(selected, axis=1))",
        "tests/library/test_multi.py::test_the_classifier_sees_standardised_activations",
    ),
    Mutant(
        "a hook on all modules unnoticed",
        LIB + "loaded.py",
        "if not moved <= tolerance:",
        "if moved is None:",
        "tests/library/test_encoders.py::test_what_is_changed_outside_of_the_model_is_noticed",
    ),
    Mutant(
        "the hub's cache unverified",
        LIB + "corpora/hub.py",
        "and name not in (git, ",
        "and not name and name not in (git, ",
        "tests/library/test_sources.py::test_damage_in_the_hubs_cache_is_named",
    ),
    Mutant(
        "an archive read to a damaged header",
        LIB + "corpora/readers.py",
        "if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):",
        "if archive.fileobj is None:",
        "tests/library/test_readers.py::test_an_archive_without_compression_is_read_to_the_mark_of_its_end",
    ),
    Mutant(
        "a tuned model changed in place",
        FIT + "finetune.py",
        "if changed(loaded):",
        "if loaded is None:",
        TRAINING + "test_a_tuned_model_that_was_changed_in_place_is_refused",
    ),
    Mutant(
        "target rows in the scaler",
        LIB + "transfer.py",
        "scores(truth, model.predict(Z), ",
        "scores(truth, model[-1].predict(type(model[0])().fit_transform(Z)), ",
        "tests/library/test_transfer.py::test_a_cell_is_the_classifier_on_its_neurons",
    ),
    Mutant(
        "ranks off by one",
        LIB + "aggregation.py",
        "(2 * n - rankdata(",
        "(2 * n - 1 - rankdata(",
        "tests/library/test_multi.py::test_meta_importance_on_literal_values_with_ties",
    ),
    Mutant(
        "the two texts of a pair swapped",
        LIB + "extraction.py",
        "return tokenizer(texts, pairs, ",
        "return tokenizer(pairs or texts, pairs and texts, ",
        STATES + "[bert-cls]",
    ),
    Mutant(
        "S1 and S2 swapped",
        LIB + "selectors.py",
        "for members in (first, second))",
        "for members in (second, first))",
        "tests/library/test_multi.py::test_it_agrees_with_a_plain_loop[leave_one_out]",
    ),
    Mutant(
        "padding in the mean",
        LIB + "extraction.py",
        'weights = inputs["attention_mask"].float()',
        'weights = torch.ones_like(inputs["attention_mask"]).float()',
        STATES + "[bert-mean]",
    ),
    Mutant(
        "layers in another order",
        LIB + "extraction.py",
        "torch.cat(pooled, dim=1)",
        "torch.cat(pooled[::-1], dim=1)",
        STATES + "[bert-cls]",
    ),
    Mutant(
        "beta ignored",
        LIB + "sampling.py",
        "round(resample_fraction(n_rows, fraction) * n_rows)",
        "n_rows",
        IMPORTANCE + "test_resample_rows_are_distinct_and_seeded",
    ),
    Mutant(
        "budget ignored",
        LIB + "transfer.py",
        "shares = sizes if budget is None else",
        "shares = sizes if True else",
        "tests/library/test_transfer.py::test_a_budget_is_shared_and_smaller_shares_are_part_of_larger_ones",
    ),
    Mutant(
        "ties by index",
        LIB + "ranking.py",
        'np.random.default_rng(derive_seed(0, "ties", n_neurons)).permutation(n_neurons)',
        "np.arange(n_neurons)",
        IMPORTANCE + "test_ties_are_not_ordered_by_index",
    ),
    Mutant(
        "one seed for all runs",
        LIB + "sampling.py",
        'derive_seed(seed, "run", run)',
        'derive_seed(seed, "run", 0)',
        IMPORTANCE + "test_every_run_and_every_source_has_a_seed_of_its_own",
    ),
    Mutant(
        "one seed for all sources",
        LIB + "sampling.py",
        "return of_run if source is None else",
        "return of_run if True else",
        IMPORTANCE + "test_every_run_and_every_source_has_a_seed_of_its_own",
    ),
    Mutant(
        "one seed for all resamples",
        LIB + "importance.py",
        'derive_seed(forest.seed, "resample", j, "rows")',
        'derive_seed(forest.seed, "resample", 0, "rows")',
        IMPORTANCE + "test_every_resample_has_rows_and_a_forest_of_its_own",
    ),
    Mutant(
        "a download's bytes not compared",
        BOOK + "get.py",
        "if expected in (None, digest):",
        "if True:",
        GET + "test_other_bytes_are_never_taken",
    ),
    Mutant(
        "fetched without consent",
        BOOK + "get.py",
        "if not accept:",
        "if False:",
        GET + "test_nothing_is_fetched_unasked",
    ),
    Mutant(
        "a download that begins again",
        BOOK + "get.py",
        'f"bytes={start}-"} if start else {}',
        'f"bytes={start}-"} if False else {}',
        GET + "test_a_cut_connection_is_continued",
    ),
    Mutant(
        "an archive that reaches out",
        BOOK + "get.py",
        'or ".." in PurePosixPath(name).parts',
        "or False",
        GET + "test_an_archive_that_reaches_out_is_refused",
    ),
    Mutant(
        "the hub's quotes",
        LIB + "corpora/hub.py",
        "doubled_quotes=corpus.hub.quoted",
        "doubled_quotes=False",
        "tests/library/test_sources.py::test_a_copy_of_the_hub_s_files_serves_in_a_folder",
    ),
    Mutant(
        "order of NDCG",
        BOOK + "ranking.py",
        "(rankdata(-scores, method",
        "(rankdata(scores, method",
        "tests/workbook/test_ranking.py::test_a_ranking_by_hand",
    ),
    Mutant(
        "bootstrap over the wrong axis",
        BOOK + "statistics.py",
        "_interval(point.mean(), draws.mean(axis=1))",
        "_interval(point.mean(), draws.mean(axis=0))",
        "tests/workbook/test_statistics.py::test_difference_is_paired",
    ),
    Mutant(
        "receipt always true",
        BOOK + "receipts.py",
        '("out of date" if changes else "up to date")',
        '"up to date"',
        RECEIPTS + "test_a_file_that_a_parameter_names",
    ),
    Mutant(
        "the library's code missing from a receipt",
        BOOK + "receipts.py",
        'for package in ("tsns_lib", "tsns_workbook"):',
        'for package in ("tsns_workbook",):',
        RECEIPTS + "test_each_input_counts_by_itself",
    ),
    Mutant(
        "the workbook's code missing from a receipt",
        BOOK + "receipts.py",
        'for package in ("tsns_lib", "tsns_workbook"):',
        'for package in ("tsns_lib",):',
        RECEIPTS + "test_each_input_counts_by_itself",
    ),
    Mutant(
        "a shard's checksum skipped",
        LIB + "store/__init__.py",
        'return "" if sha256 == promise.sha256 else',
        'return "" if True else',
        STORE + "test_an_altered_shard_is_noticed_whatever_is_read",
    ),
    Mutant(
        "a shard's own checksum skipped",
        LIB + "store/__init__.py",
        'return "" if vouches_for_itself else',
        'return "" if True else',
        "tests/faults/test_damage.py::test_a_shard_damaged_before_its_manifest_is_written_is_grown_again",
    ),
    Mutant(
        "a manifest's checksum skipped",
        LIB + "store/manifest.py",
        "or text != _signed(content, path.parent.name)",
        "or False",
        STORE + "test_a_fact_that_was_changed_is_not_believed",
    ),
    Mutant(
        "a manifest without its entry's key",
        LIB + "store/manifest.py",
        "content_hash([key.encode(), json",
        "content_hash([json",
        "tests/faults/test_damage.py::test_sound_files_of_another_entry_or_place_are_not_believed",
    ),
    Mutant(
        "a shard without its place",
        LIB + "store/files.py",
        'f"{path.parent.name}/{path.name} {sha256}"',
        'f"{sha256}"',
        "tests/faults/test_damage.py::test_sound_files_of_another_entry_or_place_are_not_believed",
    ),
    Mutant(
        "an encoder's checksums skipped",
        LIB + "encoders.py",
        'damaged = _other_file(folder, json.loads(path.read_text(encoding="utf-8")), weights=True)',
        "damaged = None",
        TRAINING + "test_a_damaged_encoder_is_made_again[model.safetensors]",
    ),
    Mutant(
        "a checkpoint's checksums skipped",
        FIT + "training.py",
        "if _is_sound(path):",
        "if True:",
        TRAINING + "test_a_damaged_checkpoint_is_not_read_and_the_one_before_is[model.safetensors-flip]",
    ),
    Mutant(
        "a tuned model's checksum skipped",
        FIT + "finetune.py",
        'return once(sha256_of, self.folder / TENSORS) == self.entry.facts().get("sha256")',
        "return (self.folder / TENSORS).is_file()",
        TRAINING + "test_a_damaged_model_is_trained_again",
    ),
    Mutant("importance key without n_trees", LIB + "importance.py", '| {"n_trees": n_trees}', '| {"n_trees": 0}', KEY),
    Mutant(
        "trees of an earlier look left out",
        LIB + "importance.py",
        "return sums if work.known is None else work.known[j] + sums",
        "return sums",
        NEVER_STOPS,
    ),
    Mutant(
        "trees of an earlier look grown twice",
        LIB + "importance.py",
        "work.n_jobs, work.n_known)",
        "work.n_jobs, 0)",
        NEVER_STOPS,
    ),
    Mutant(
        "a forecast of no further trees",
        LIB + "importance.py",
        "waiting, 1 - grown.n_trees / T,",
        "waiting, 0.0,",
        "tests/library/test_stability.py::test_a_run_stops_when_the_choice_is_clear_and_not_when_it_is_not",
    ),
    Mutant(
        "weights that were changed in place are used",
        LIB + "loaded.py",
        "known != (state_of(now), content_of(now))",
        "known[0] != state_of(now)",
        "tests/library/test_encoders.py::test_an_encoder_that_was_changed_in_place_is_used_for_nothing",
    ),
    Mutant(
        "a budget loses a class",
        LIB + "transfer.py",
        "if lacking := [name for name in known if numbers[name] not in used]:",
        "if lacking := []:",
        "tests/faults/test_labels.py::test_a_budget_that_loses_a_class_is_refused",
    ),
    Mutant(
        "LogME depends on the unit of the features",
        LIB + "transferability/logme.py",
        "eigenvalues = eigenvalues / eigenvalues.max()",
        "eigenvalues = eigenvalues",
        "tests/library/test_logme.py::test_the_unit_of_the_features_does_not_matter",
    ),
    Mutant(
        "importance key without the version of scikit-learn",
        LIB + "importance.py",
        'if forest.engine == "sklearn" else forest.engine,',
        "if False else forest.engine,",
        IMPORTANCE + "test_another_version_of_an_engine_is_another_key",
    ),
    *(
        Mutant(f"importance key without {field}", LIB + "importance.py", line, line.partition(":")[0] + ": 0,", test)
        for field, line, test in [
            ("version", '"version": VERSION,', IMPORTANCE + "test_another_version_of_an_engine_is_another_key"),
            ("activations", '"activations": _array_hash(self._activations),', KEY),
            ("classes", '"classes": _array_hash(self._classes),', KEY),
            ("fraction", '"fraction": resample_fraction(len(self._classes), forest.fraction),', KEY),
            ("max_depth", '"max_depth": forest.max_depth,\n', KEY),
            ("engine", ENGINE, KEY),
            ("seed", '"seed": forest.seed,', KEY),
        ]
    ),
    *(
        Mutant(f"fine-tuning key without {field}", FIT + "finetune.py", line, line.partition(":")[0] + ": 0,", test)
        for field, line, test in [
            ("encoder", '"encoder": self.encoder.digest,', TUNED),
            ("texts", '"texts": texts_digest(self.texts, self.pairs),', TUNED),
            ("labels", '"labels": labels_digest(self.labels),', TUNED),
            ("recipe", '"recipe": asdict(self.recipe),', TUNED),
            ("seed", '"seed": self.seed,', TUNED),
            ("method", '"method": self.method,', TUNED),
            ("head_layer", '"head_layer": self.head_layer,\n', TUNED),
            ("tuned_layers", '"tuned_layers": self.tuned_layers,', TUNED),
            ("prepare", '"prepare": identity_of(self.prepare),', TUNED),
            ("versions", '"versions": drawn_by(),', TRAINING + "test_another_version_of_what_draws_is_another_key"),
        ]
    ),
    *(
        Mutant(
            f"recipe's key without {field}",
            FIT + "finetune.py",
            '"recipe": asdict(self.recipe),',
            f'"recipe": asdict(self.recipe) | {{"{field}": 0}},',
            TUNED,
        )
        for field in RECIPE
    ),
    *(
        Mutant(f"prepare's key without {field}", FIT + "prepared.py", line, broken, test)
        for field, line, broken, test in [
            ("function", '"function": f"{module}.{path}"', '"function": ""', TUNED),
            ("args", '"args": prepare.args', '"args": []', TUNED),
            ("keywords", '"keywords": prepare.keywords', '"keywords": {}', TUNED),
            (
                "versions",
                '{"versions": drawn_by(), "code"',
                '{"code"',
                TRAINING + "test_another_version_of_what_draws_is_another_key",
            ),
        ]
    ),
    *(
        Mutant(
            f"activations' key without {field}",
            LIB + "extraction.py",
            line,
            line.partition(":")[0] + ": 0,",
            EXTRACTION + "test_everything_that_matters_has_its_own_key",
        )
        for field, line in {
            "encoder": '"encoder": encoder.digest,',
            "max_length": '"max_length": int(max_length),',
            "texts": '"texts": texts_digest(texts, pairs),',
        }.items()
    ),
    *(
        Mutant(
            f"predictions' key without {field}",
            FIT + file,
            line,
            line.partition(":")[0] + ": 0" + line.rstrip()[-1],
            TRAINING + test,
        )
        for field, file, line, test in [
            (
                "the model",
                "finetune.py",
                '"finetuned": self.entry.key, ',
                "test_predictions_and_embeddings_belong_to_a_model_and_to_texts",
            ),
            (
                "the versions",
                "grids.py",
                '"versions": {package: version(package) for package in (*COMPUTED_BY, "numpy", "scikit-learn")},',
                "test_another_version_of_what_predicts_is_another_key_of_the_intact_encoders_predictions",
            ),
        ]
    ),
]


def fault(mutant: Mutant, folder: Path) -> str:
    """Test a mutant in a copy of the packages; what is wrong with that, or nothing ("")."""
    file = folder / mutant.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.line) != 1:
        return f"its line stands {text.count(mutant.line)} times in {mutant.file}"
    file.write_text(text.replace(mutant.line, mutant.broken), encoding="utf-8")
    status, _ = tested(folder, [mutant.test], LIMIT)
    file.write_text(text, encoding="utf-8")
    for compiled in file.parent.glob(f"__pycache__/{file.stem}.*.pyc"):  # it knows a file by its second and size alone
        compiled.unlink()
    words = {0: "survives", 1: "", HANGS: f"its test hangs for more than {LIMIT} s"}
    return words.get(status, f"its test ends with exit status {status}")


def copied(folder: Path) -> Path:
    """A copy of what the tests need of the repository."""
    for name in ("tsns_lib", "notebooks/tsns_workbook", "tests", "params"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in [ROOT / "pyproject.toml", *(ROOT / "notebooks").glob("*.ipynb")]:
        shutil.copy(file, folder / file.relative_to(ROOT))
    return folder


def tested(folder: Path, tests: list[str], limit: float) -> tuple[int, str]:
    """The exit status of pytest in a copy, and what it says."""
    log = folder / "log.txt"
    if not (pid := os.fork()):
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT)
        for stream, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
            os.dup2(target, stream)
        os.chdir(folder)
        sys.path[:0] = paths = [str(folder), str(folder / "notebooks"), str(folder / "tests")]
        os.environ |= {"PYTHONPATH": os.pathsep.join(paths), "TSNS_ROOT": str(folder)}
        status = 2
        with suppress(BaseException):
            status = int(importlib.import_module("pytest").main(["-q", "-x", "-p", "no:cacheprovider", *tests]))
            sys.stdout.flush()
        os._exit(status)
    until = time.monotonic() + limit
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return HANGS, log.read_text(errors="replace")


def main(words: list[str]) -> int:
    """Test all mutants, or those whose names contain one of the words; 1 if one survives."""
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        folder = copied(Path(name))
        status, said = tested(folder, sorted({mutant.test for mutant in chosen}), LIMIT * len(chosen))
        if status:
            print(said, f"the tests fail without any mutant, with exit status {status}", sep="\n")
            return 1
        for mutant in chosen:
            start = time.perf_counter()
            wrong = fault(mutant, folder)
            faults += bool(wrong)
            print(f"{mutant.name}: {wrong or 'noticed'} ({time.perf_counter() - start:.0f} s)", flush=True)
    print(f"{len(chosen) - faults} of {len(chosen)} mutants noticed")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
