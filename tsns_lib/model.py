"""A transfer model: one object that is fitted on a source (paper §3), predicts other texts, is saved and loaded."""

import json
import os
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from copy import copy
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from tsns_lib.aggregation import source_pairs
from tsns_lib.classifier import SCALER, computable, cv_best_C, cv_rows, fit_classifier
from tsns_lib.corpora.sources import Source
from tsns_lib.encoders import Encoder, check_encoder, load_encoder
from tsns_lib.executors import announce, is_shown
from tsns_lib.extraction import check_settings, extract, texts_of
from tsns_lib.fingerprints import fingerprint
from tsns_lib.importance import Forest, check_threads, forest_importance, seconds_of_trees
from tsns_lib.ranking import check_n_neurons
from tsns_lib.sampling import derive_seed, resample_fraction
from tsns_lib.selectors import MultiTSNS
from tsns_lib.store import Store, StoreError, atomic, content_hash
from tsns_lib.store.files import locked
from tsns_lib.transfer import check_learners, parts_of, pool_of, row_hashes, tsns_choices, union_name
from tsns_lib.validation import MOST_SEED, path, positive, share, shown, whole_number

FACTS, TENSORS = "model.json", "model.safetensors"  # of a saved model
NEXT = "next.safetensors"  # its tensors until its facts are written, so that a kill leaves the old model or the new one
PAPER_FORESTS, PAPER_TREES = 100, 1_000  # of one source (paper §4.2)
_CLASSIFIER = "coef_", "intercept_", "classes_"


class TransferModel:
    """K neurons of an encoder and a classifier on them, fitted on one source or several (paper §3).

    Attributes
    ----------
    classes_ : tuple of str
        Names of the classes that the source has, in the order of `predict_proba`.
    selected_ : ndarray of shape (K, 2)
        Layer and neuron of each choice, sorted: in transformers, `hidden_states[layer][..., neuron]`, so layers count
        from 1 and neurons from 0.
    fingerprint_ : ndarray of shape (n_layers,)
        Share of the chosen neurons in each layer.
    stability_ : float
        Share of the K neurons that two halves of the resamples have in common.
    C_ : float
        Inverse strength of the classifier's penalty.
    pipeline_ : Pipeline
        Scaling and classifier, on the activations of the chosen neurons.
    settings_ : dict
        What `fit` was given.

    Examples
    --------
    >>> import tempfile, tsns_lib
    >>> mr, books = (tsns_lib.load_source(f"miniature:{name}", limit=240) for name in ("mr", "books"))
    >>> few = {"n_resamples": 8, "n_trees": 50, "max_length": 64, "progress": False}
    >>> model = tsns_lib.TransferModel().fit(mr, tsns_lib.load_encoder(), n_neurons=100, **few)
    >>> model.score(books) > 0.65
    True
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(folder)
    ...     again = tsns_lib.TransferModel.load(folder)
    >>> again.score(books) == model.score(books), len(again.predict(["A fine, moving story."]))
    (True, 1)
    """

    _store: Store | str | os.PathLike | None = None  # that of `fit`; of a loaded model the environment's
    _rows: NDArray[Any] = np.zeros(0, np.uint64)  # hashes of the rows that it was fitted on, which older files lack

    def fit(
        self,
        source_or_sources: Any,
        encoder: Encoder,
        n_neurons: int = 300,
        C: float | str = "cv",
        *,
        n_resamples: int = 100,
        fraction: float | str = "auto",
        alpha: float = 1.0,
        budget: int | None = None,
        pairing: str = "leave_one_out",
        gamma: float = 0.1,
        n_trees: int = 200,
        max_depth: int = 200,
        engine: str = "histogram",
        tol: float | None = 0.05,
        pooling: str = "cls",
        max_length: int = 128,
        seed: int = 0,
        n_jobs: int = -1,
        store: Store | str | os.PathLike | None = None,
        scheduler: str | None = None,
        progress: bool = True,
    ) -> Self:
        """Select K neurons by TSNS, of several sources by MultiTSNS, and train a logistic regression on them.

        The settings are those of `tsns_lib.transfer_grid`, with which the first run agrees to the last digit for the
        same C. The defaults are for minutes, 200 trees and a `tol` of 0.05; a line says what the paper's 100 forests of
        1,000 trees would cost. With `C="cv"` the best of 1e-4, 1e-3, ... 1 is taken, by five-fold cross-validation on
        the rows of the source that the neurons were chosen on. Raises a ValueError as `transfer_grid` does.
        """
        sources = source_or_sources if isinstance(source_or_sources, list | tuple) else [source_or_sources]
        if not sources or not all(isinstance(source, Source) for source in sources):
            wanted = "what load_source gives, or a list of it"
            raise ValueError(f"source_or_sources: must be {wanted}, got {shown(sources)}")
        check_encoder(encoder)
        if len({source.is_pair for source in sources}) > 1:
            raise ValueError("source_or_sources: single texts and pairs cannot be mixed")
        k = check_n_neurons(n_neurons, encoder.n_neurons)
        given_C = None if isinstance(C, str) and C == "cv" else positive("C", C)
        alpha, gamma = share("alpha", alpha, zero=True), share("gamma", gamma)
        seed = whole_number("seed", seed, least=0, most=MOST_SEED)
        budget = None if budget is None else whole_number("budget", budget)
        source_pairs(2, pairing)
        check_threads(n_jobs)
        check_settings(pooling, max_length, encoder, sources[0].is_pair)
        forest = Forest(n_resamples, fraction, n_trees, max_depth, engine, tol)
        where: dict[str, Any] = {"store": store, "scheduler": scheduler}
        measured = {name: value for name, value in vars(forest).items() if name != "seed"}
        compute = where | {"n_jobs": n_jobs}
        multi = MultiTSNS(pairing=pairing, gamma=gamma, C=given_C or 0.01, verbose=progress, **measured, **compute)
        reading: dict[str, Any] = {"pooling": pooling, "max_length": int(max_length)}
        parts = parts_of(sources, budget, pairing, seed)
        check_learners(parts, 1, seed, pairing, forest)
        folds = derive_seed(seed, "folds", union_name(part.source.name for part in parts))
        if given_C is None:
            cv_rows(np.concatenate([part.y for part in parts]), folds)
        pool = pool_of(parts, lambda each: computable(extract(each, encoder, progress=progress, **reading, **where)))
        if is_shown(progress) and n_resamples * n_trees < PAPER_FORESTS * PAPER_TREES:
            options: dict[str, Any] = {"max_depth": forest.max_depth, "engine": forest.engine, "n_jobs": n_jobs}
            _, seconds = seconds_of_trees(lambda n: forest_importance(pool.X, pool.y, n_trees=n, **options))
            trees = PAPER_FORESTS * PAPER_TREES * resample_fraction(len(pool.y), forest.fraction)  # costly as its rows
            work = f"the paper's {PAPER_FORESTS} forests of {PAPER_TREES:,} trees"
            announce(work, seconds * trees, PAPER_FORESTS * encoder.n_neurons * 8)
        choice = next(tsns_choices(pool, [k], 1, seed, alpha, multi, forest, compute, progress))
        assert choice.selected is not None
        X = pool.X[:, choice.selected]
        best_C = given_C or cv_best_C(X, pool.y, folds)
        facts: dict[str, Any] = {"sources": list(pool.members), "rows": len(pool.y), "n_neurons": k, "seed": seed}
        facts |= {"alpha": alpha, "budget": budget, "pairing": pairing, "gamma": gamma, "generated": pool.generated}
        first = parts[0].source
        known = first.frame.drop_duplicates("label").sort_values("label").assign(text="")
        answers = Source(pool.name, first.task, "train", known, first.origin, first.classes)
        rows = np.concatenate([row_hashes(part.source)[part.rows] for part in parts])
        found = encoder, choice.selected, choice.stability, answers, fit_classifier(X, pool.y, best_C)
        whole = TransferModel()._keep(*found, best_C, facts | reading | measured, rows)
        vars(self).update(vars(whole), _store=store)  # at once: an end before it leaves the model as it was
        return self

    def _keep(
        self,
        encoder: Encoder,
        selected: NDArray[Any],
        stability: float,
        answers: Source,
        pipeline: Pipeline,
        C: float,
        settings: dict[str, Any],
        rows: NDArray[Any],
    ) -> Self:
        """What a fitted and a loaded model have; `answers` has a row of each class, by which others are matched."""
        self.encoder_, self._selected, self._answers, self.pipeline_ = encoder, selected, answers, pipeline
        self.selected_ = np.stack([selected // encoder.hidden_size + 1, selected % encoder.hidden_size], axis=1)
        self.fingerprint_ = fingerprint(selected, encoder.n_layers, encoder.n_neurons)
        self.stability_, self.C_, self.settings_, self._rows = stability, C, settings, rows
        names = {number: name for name, number in answers.numbers.items()}
        self.classes_ = tuple(names[number] for number in pipeline[-1].classes_.tolist())
        return self

    def predict(self, texts_or_source: Any, text_pairs: Sequence[str] | None = None) -> NDArray[Any]:
        """The name of the most probable class of every text, pair, or row of a Source: shape (n,)."""
        model = self._now()
        return np.array(model.classes_)[model.predict_proba(texts_or_source, text_pairs).argmax(axis=1)]

    def predict_proba(self, texts_or_source: Any, text_pairs: Sequence[str] | None = None) -> NDArray[Any]:
        """The probability of every class, shape (n, len(classes_)), in the order of `classes_`."""
        model = self._now()
        return model.pipeline_.predict_proba(model._read(texts_or_source, text_pairs))

    def score(self, target: Source) -> float:
        """Accuracy on a source with labels, whose classes are matched by name; warns of rows that it was fitted on."""
        model = self._now()
        truth = model._answers.labels_of(target)
        if shared := int(np.isin(row_hashes(target), model._rows).sum()):
            both = f"{shared} of the {len(truth)} rows of {target.name!r} are rows that the model was fitted on"
            warnings.warn(f"target: {both}; what is reached on them is no transfer", stacklevel=2)
        return float((model.pipeline_.predict(model._read(target)) == truth).mean())

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model as JSON and safetensors; the encoder is named by its digest, and its weights stay out."""
        model, place = self._now(), path("folder", folder)
        scaler, classifier = model.pipeline_
        encoder, answers = model.encoder_, model._answers
        tensors = {name: np.asarray(getattr(scaler, name)) for name in SCALER} | {"rows": model._rows}
        tensors |= {name: np.asarray(getattr(classifier, name)) for name in _CLASSIFIER} | {"selected": model._selected}
        content = save_tensors({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
        is_named = encoder.name.startswith("builtin:") or encoder.revision is not None
        facts = {
            "encoder": {"name": encoder.name if is_named else str(encoder.folder)}
            | {name: getattr(encoder, name) for name in ("digest", "dtype", "revision", "random_seed")},
            "answers": {"name": answers.name, "task": answers.task, "classes": answers.classes}
            | {"labels": answers.origin.get("labels"), "present": answers.frame["label"].tolist()},
            "pairs": answers.is_pair,
            "settings": model.settings_,
            "stability": model.stability_ if np.isfinite(model.stability_) else None,
            "C": model.C_,
        }
        try:
            place.mkdir(parents=True, exist_ok=True)
            with locked(place):
                with suppress(FileNotFoundError, StoreError):  # a save that was killed before its last step is finished
                    if _saved(place)[1] == (place / NEXT).read_bytes():
                        os.replace(place / NEXT, place / TENSORS)
                for name, whole in ((NEXT, content), (FACTS, _sealed(facts, content))):
                    with atomic(place / name) as file:
                        file.write(whole)
                os.replace(place / NEXT, place / TENSORS)
        except OSError as error:
            raise StoreError(f"{place}: cannot hold the model: {error}") from error

    @classmethod
    def load(cls, folder: str | os.PathLike[str], encoder: Encoder | None = None) -> Self:
        """Read a saved model; `encoder` is needed where its folder is another one on this machine.

        Raises FileNotFoundError where there is none, StoreError where it is not as it was written, and ValueError where
        the encoder is not the one of the model.
        """
        place = path("folder", folder)
        if encoder is not None:
            check_encoder(encoder)
        try:
            with locked(place) if place.is_dir() else nullcontext():
                facts, content = _saved(place)
        except PermissionError as error:
            raise StoreError(f"{place}: cannot be read: {error}") from error
        theirs = facts["encoder"]
        if encoder is None:
            options: dict[str, Any] = {name: theirs[name] for name in ("dtype", "revision")}
            seed = theirs["random_seed"]
            encoder = load_encoder(theirs["name"], random_weights=seed is not None, seed=seed or 0, **options)
        if (encoder.digest, encoder.dtype) != (theirs["digest"], theirs["dtype"]):
            own = f"{theirs['name']} in {theirs['dtype']} with the digest {theirs['digest'][:12]}"
            raise ValueError(f"{place}: was fitted with {own}; here it is {encoder.digest[:12]} in {encoder.dtype}")
        tensors, answers = load_tensors(content), facts["answers"]
        model, scaler, classifier = cls(), StandardScaler(), LogisticRegression(C=facts["C"])
        vars(scaler).update({name: tensors[name] for name in SCALER}, n_features_in_=len(tensors["selected"]))
        vars(classifier).update({name: tensors[name] for name in _CLASSIFIER}, n_features_in_=len(tensors["selected"]))
        rows = pd.DataFrame({"text": "", "text_pair": "" if facts["pairs"] else None, "label": answers["present"]})
        origin = {"kind": "saved", "labels": answers["labels"]}
        known = Source(answers["name"], answers["task"], "train", rows, origin, tuple(answers["classes"]))
        stability = float("nan") if facts["stability"] is None else facts["stability"]
        found = encoder, tensors["selected"], stability, known, make_pipeline(scaler, classifier)
        return model._keep(*found, facts["C"], facts["settings"], tensors.get("rows", cls._rows))

    def _now(self) -> Self:
        """A copy of the model as it is now, whatever another thread fits meanwhile."""
        if not hasattr(self, "pipeline_"):
            raise NotFittedError("this TransferModel is not fitted yet: call fit or load first")
        return copy(self)

    def _read(self, texts_or_source: Any, text_pairs: Sequence[str] | None = None) -> NDArray[Any]:
        """Activations of the chosen neurons."""
        texts, pairs = texts_of(texts_or_source, text_pairs)
        if (pairs is not None) != self._answers.is_pair:
            raise ValueError(f"texts: the model was fitted on {'pairs' if self._answers.is_pair else 'single texts'}")
        reading = {name: self.settings_[name] for name in ("pooling", "max_length")} | {"store": self._store}
        activations = extract(texts, self.encoder_, text_pairs=pairs, progress=False, **reading)
        return computable(activations[:, self._selected])


def _saved(place: Path) -> tuple[dict[str, Any], bytes]:
    """The facts of a saved model, and the tensors that belong to them; a StoreError where none do."""
    found = [(place / name).read_bytes() for name in (TENSORS, NEXT) if (place / name).is_file()]
    if not (place / FACTS).is_file() or not found:
        raise FileNotFoundError(f"{place}: no saved model, which is {FACTS} and {TENSORS}")
    try:
        facts = json.loads(written := (place / FACTS).read_bytes())
        sealed = {name: value for name, value in facts.items() if name != "digest"}
        return facts, next(tensors for tensors in found if written == _sealed(sealed, tensors))
    except (ValueError, AttributeError, StopIteration, RecursionError):
        raise StoreError(f"{place}: is not as it was saved; save the model again") from None


def _sealed(facts: dict[str, Any], content: bytes) -> bytes:
    """The facts of a model as JSON, with a digest of them and of its tensors."""
    digest = content_hash([json.dumps(facts, sort_keys=True).encode(), content])
    return (json.dumps(facts | {"digest": digest}, sort_keys=True, indent=1) + "\n").encode()
