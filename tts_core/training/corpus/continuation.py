"""Before the first step: whose folder it is, and which checkpoint the training goes on from."""

from __future__ import annotations

import dataclasses
import hashlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tts_core.errors import WorkbookError, or_reason
from tts_core.folder_lock import lock_folder
from tts_core.model.tts import build_model
from tts_core.training.checkpoint import load_training
from tts_core.training.corpus.options import RunConfig, TrainConfig
from tts_core.training.corpus.prepared_corpus import TrainingCorpus
from tts_core.training.corpus.processes import Place
from tts_core.training.state import Training, start_training

CHECKPOINT, BEST = "last.safetensors", "best.safetensors"  # in OUT
# s to wait for OUT: where the lock is handed on to forks, the loader processes of a killed training
# hold it for 5 s longer
LOCK_PATIENCE = 15


def hold_folder(out: Path, place: Place, closing: ExitStack) -> None:
    """The first process makes `out` its own until `closing` closes; only then may any read the
    checkpoint there: no other training will replace it. Raises WorkbookError, on every process,
    where another one holds it.
    """

    def hold() -> None:
        out.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(out, "training", LOCK_PATIENCE)
        closing.callback(lock.release)

    refusal = ""
    if place.leads:
        _, refusal = or_reason(hold)
    refusal = place.gather(refusal)[0]
    if refusal:
        raise WorkbookError(refusal)


def require_agreement(path: Path, step: int, place: Place) -> None:
    """WorkbookError, on every process, where they did not load the same checkpoint: DDP would go on
    with the first one's weights, but with each one's own optimiser and step.
    """
    digest = None
    if path.is_file():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    found = place.gather((step, digest))
    if len(set(found)) > 1:
        seen = "; ".join(
            f"process {rank} {_in_words(step, digest)}" for rank, (step, digest) in enumerate(found)
        )
        raise WorkbookError(
            f"{path}: the processes did not load the same checkpoint: {seen}. Give them one --out"
            " on a disk that all of them see, or copy the right file to each"
        )


def _in_words(step: int, digest: str | None) -> str:
    if digest is None:
        return "found none"
    return f"is at step {step} (sha256 {digest[:12]})"


def start_or_continue(
    train: TrainConfig, run: RunConfig, corpus: TrainingCorpus, device: str
) -> Training:
    """A fresh training, or the one of OUT/last.safetensors; `notes` hold its step and what it
    belongs to.
    """
    experiment = train.experiment(corpus.vocabulary.get_vocab_size())
    placeholder = corpus.mel_mean.expand(2, -1)  # the statistics of the corpus come next
    model = build_model(experiment.model, experiment.audio, [placeholder], train.seed)
    model.set_mel_statistics(corpus.mel_mean, corpus.mel_std)
    training = start_training(experiment, model, device)
    path = run.out / CHECKPOINT
    if path.is_file():
        load_training(path, training)
        _require_same_training(path, training, train, corpus)
    else:
        training.notes = {
            "step": 0,
            "best": None,
            "symbols": list(corpus.vocabulary.symbols),
            "preset": train.preset,
            "train": dataclasses.asdict(train),
            "content_hash": corpus.content_hash,
        }
    model.train()
    return training


def _require_same_training(
    path: Path, training: Training, train: TrainConfig, corpus: TrainingCorpus
) -> None:
    """WorkbookError where the checkpoint belongs to other settings or other data.

    A setting that the checkpoint does not know yet was its default; one that is known no more is a
    difference.
    """
    saved = training.notes.get("train") or {}
    found: dict[str, Any] = {"content_hash": training.notes.get("content_hash")}
    found |= dataclasses.asdict(TrainConfig()) | saved
    wanted = {"content_hash": corpus.content_hash, **dataclasses.asdict(train)}
    differences = []
    for name, value in found.items():
        if name not in wanted:
            differences.append(f"{name} was {value!r}, is no setting any more")
        elif wanted[name] != value:
            differences.append(f"{name} was {value!r}, is {wanted[name]!r}")
    if differences:
        raise WorkbookError(
            f"{path}: a checkpoint of another training: {'; '.join(differences)} (content_hash:"
            " of the clips, their features and the packages that compute them). Give what it"
            " was started with, or another --out"
        )
