"""The training itself: the train step over a corpus, with a checkpoint from which a killed run goes
on to the same bits.

What a step does depends on the checkpoint and the step number alone: clips, learning rate and the
seed of dropout are functions of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tts_core.atomic_files import sweep, write_json
from tts_core.environment import versions
from tts_core.errors import WorkbookError, or_reason
from tts_core.folder_lock import lock_folder
from tts_core.model.tts import build_model
from tts_core.speech.batch import Batch
from tts_core.training.checkpoint import load_training, save_training
from tts_core.training.corpus.extensions import Extensions, installed_extensions
from tts_core.training.corpus.feature_cache import FeatureCache
from tts_core.training.corpus.options import RunConfig, TrainConfig
from tts_core.training.corpus.prepared_corpus import Item, TrainingCorpus, load_ahead, open_corpus
from tts_core.training.corpus.processes import ALONE, Place
from tts_core.training.corpus.sampler import BatchPlan
from tts_core.training.corpus.samples import DrawSample, write_samples
from tts_core.training.corpus.schedule import learning_rate
from tts_core.training.corpus.training_log import Logs
from tts_core.training.corpus.validation import Validation, validate
from tts_core.training.distributed import across_processes
from tts_core.training.precision import choose_precision
from tts_core.training.state import Training, start_training
from tts_core.training.step import StepReport, train_step

CHECKPOINT, BEST = "last.safetensors", "best.safetensors"
# s to wait for OUT: the loader processes of a killed training hold it for 5 s longer
PATIENCE = 15
Say = Callable[[str], None]


def train_on_corpus(
    train: TrainConfig,
    run: RunConfig,
    place: Place = ALONE,
    say: Say = print,
    extensions: Extensions | None = None,
) -> Training:
    """Train to `train.steps`, from OUT/last.safetensors where there is one, and return the trained
    state.

    Every process of `place` calls this; the first one writes. Raises WorkbookError for data that
    cannot be trained on, for a checkpoint of another configuration or other data, for processes
    that found different ones, and for what the train step raises.
    """
    say = say if place.leads else lambda line: None
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    if extensions is None:
        extensions = installed_extensions(pictures=run.figures)
    audio = train.experiment(vocab_size=2).audio
    corpus = open_corpus(
        run.data,
        audio,
        FeatureCache(run.cache, extensions.aligner, extensions.phonemizer),
        language=run.language,
        ids=run.ids,
        held_out=run.held_out,
        held_out_clips=run.held_out_clips,
        workers=run.workers,
        place=place,
    )
    plan = BatchPlan(
        [item.n_frames for item in corpus.train], train.batch_clips, train.pool_batches, train.seed
    )
    draw = extensions.draw_sample if run.figures else None
    if run.figures and draw is None:
        say("no pictures: nothing that is installed draws them; audio and arrays are written")
    logs = None
    with ExitStack() as closing:
        hold_folder(run.out, place, closing)
        training = start_or_continue(train, run, corpus, place.device)
        require_agreement(run.out / CHECKPOINT, training.notes["step"], place)
        say(
            f"{len(corpus.train)} clips to train on, {len(corpus.held_out)} held out,"
            f" {len(corpus.rejected)} rejected; {plan.steps_per_epoch} steps an epoch; from step"
            f" {training.notes['step']} to {train.steps} on {place.world} x {place.device}"
        )
        for warning in corpus.warnings:
            say(warning)
        if place.leads:
            sweep(run.out)  # half-written files of a killed run
            if (
                training.notes["best"] is not None
                and training.notes["best"]["step"] == training.notes["step"]
            ):
                # a kill may have come between the two: see _Loop._save
                save_training(run.out / BEST, training)
            logs = Logs(run.out, training.notes["step"], run.tensorboard)
            closing.callback(logs.close)
            write_json(
                run.out / "run.json",
                {
                    "train": dataclasses.asdict(train),
                    "run": {
                        name: value if isinstance(value, int | None) else str(value)
                        for name, value in vars(run).items()
                    },
                    "processes": place.world,
                    "device": place.device,
                    "pid": os.getpid(),
                    "versions": versions(),
                    "content_hash": corpus.content_hash,
                    "warnings": corpus.warnings,
                    "rejected": [
                        f"{left_out.id}: {left_out.reason}" for left_out in corpus.rejected
                    ],
                },
            )
        with torch.random.fork_rng(
            devices=[place.device] if place.device.startswith("cuda") else []
        ):
            _Loop(train, run, place, corpus, training, plan, logs, say, draw).go()
    return training


def hold_folder(out: Path, place: Place, closing: ExitStack) -> None:
    """The first process makes `out` its own until `closing` closes; only then may any read the
    checkpoint there: no other training will replace it. Raises WorkbookError, on every process,
    where another one holds it.
    """

    def hold() -> None:
        out.mkdir(parents=True, exist_ok=True)
        closing.callback(lock_folder(out, "training", PATIENCE).release)

    _, refusal = or_reason(hold) if place.leads else (None, "")
    if refusal := place.gather(refusal)[0]:
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
            f"process {rank}"
            f" {'found none' if digest is None else f'is at step {step} (sha256 {digest[:12]})'}"
            for rank, (step, digest) in enumerate(found)
        )
        raise WorkbookError(
            f"{path}: the processes did not load the same checkpoint: {seen}. Give them one --out"
            " on a disk that all of them see, or copy the right file to each"
        )


def start_or_continue(
    train: TrainConfig, run: RunConfig, corpus: TrainingCorpus, device: str
) -> Training:
    """A fresh training, or the one of OUT/last.safetensors; `notes` hold its step and what it
    belongs to.
    """
    experiment = train.experiment(corpus.vocabulary.get_vocab_size())
    model = build_model(
        experiment.model, experiment.audio, [corpus.mel_mean.expand(2, -1)], train.seed
    )
    model.set_mel_statistics(corpus.mel_mean, corpus.mel_std)
    training = start_training(experiment, model, device)
    belongs = {"train": dataclasses.asdict(train), "content_hash": corpus.content_hash}
    path = run.out / CHECKPOINT
    if path.is_file():
        load_training(path, training)
        # A setting that the checkpoint does not know yet was its default; one that is known no more
        # is a difference.
        found = {
            "content_hash": training.notes.get("content_hash"),
            **dataclasses.asdict(TrainConfig()),
            **(training.notes.get("train") or {}),
        }
        wanted = {"content_hash": corpus.content_hash, **belongs["train"]}
        differences = [
            f"{name} was {value!r}, is"
            f" {repr(wanted[name]) if name in wanted else 'no setting any more'}"
            for name, value in found.items()
            if name not in wanted or wanted[name] != value
        ]
        if differences:
            raise WorkbookError(
                f"{path}: a checkpoint of another training: {'; '.join(differences)} (content_hash:"
                " of the clips, their features and the packages that compute them). Give what it"
                " was started with, or another --out"
            )
    else:
        training.notes = {
            "step": 0,
            "best": None,
            "symbols": list(corpus.vocabulary.symbols),
            "preset": train.preset,
            **belongs,
        }
    model.train()
    return training


def _seed_step(seed: int, step: int, rank: int) -> None:
    """Dropout of a step depends on its number and the process alone: there is no generator state to
    keep.
    """
    torch.manual_seed(
        int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])
    )


class _Loop:
    """One run of the steps that are left."""

    def __init__(
        self,
        train: TrainConfig,
        run: RunConfig,
        place: Place,
        corpus: TrainingCorpus,
        training: Training,
        plan: BatchPlan,
        logs: Logs | None,
        say: Say,
        draw: DrawSample | None,
    ) -> None:
        self.train, self.run, self.place, self.corpus, self.training = (
            train,
            run,
            place,
            corpus,
            training,
        )
        self.plan, self.logs, self.say, self.draw = plan, logs, say, draw
        self.trained: nn.Module = (
            across_processes(training.model) if place.world > 1 else training.model
        )
        self.precision = choose_precision(train.precision, place.device)
        # of the steps since the last line of the log
        self.seconds, self.waited, self.frames = 0.0, 0.0, 0
        self.clip_set = hashlib.sha256(
            "\n".join(item.entry.id for item in self._validated()).encode()
        ).hexdigest()[:12]

    def go(self) -> None:
        first, last = self.training.notes["step"], self.train.steps
        parts = self.plan.parts(
            first, last, self.place.rank, self.place.world, self.run.micro_batches
        )
        batches = load_ahead(self.corpus, parts, self.run.workers)
        for step in range(first, last):
            report = self._step(step, batches)
            done = self.training.notes["step"] = step + 1
            end = done == last
            if done % self.run.log_every == 0 or end or done == 1:
                self._log(done, report)
            better = (done % self.run.validate_every == 0 or end) and self._validate(done)
            if self.place.leads and (done % self.run.sample_every == 0 or end):
                write_samples(
                    self.training.model,
                    self.corpus,
                    self.corpus.held_out[: self.run.sample_clips],
                    self.run.out / "samples" / f"step_{done:07d}",
                    self.place.device,
                    self.draw,
                )
            if self.place.leads and (done % self.run.checkpoint_every == 0 or end or better):
                self._save(better)

    def _step(self, step: int, batches: Iterator[Batch]) -> StepReport:
        start = time.perf_counter()
        parts = [next(batches).to(self.place.device) for _ in range(self.run.micro_batches)]
        self.waited += time.perf_counter() - start
        experiment, training = self.training.experiment, self.training
        for group in training.optimizer.param_groups:
            group["lr"] = learning_rate(self.train, experiment.optimizer.lr, step)
        _seed_step(self.train.seed, step, self.place.rank)
        report = train_step(
            self.trained,
            training.optimizer,
            parts,
            experiment.loss,
            self.precision,
            training.scaler,
            experiment.optimizer.clip_norm,
        )
        self.frames += report.valid_frames
        self.seconds += time.perf_counter() - start
        return report

    def _log(self, done: int, report: StepReport) -> None:
        seconds, rate, waited = self.seconds, self.frames / self.seconds, self.waited / self.seconds
        self.seconds, self.waited, self.frames = 0.0, 0.0, 0
        lr = self.training.optimizer.param_groups[0]["lr"]
        if self.logs is not None:
            self.logs.write(
                "train",
                done,
                {
                    **report.to_dict(),
                    "lr": lr,
                    "epoch": done / self.plan.steps_per_epoch,
                    "seconds": seconds,
                    "frames_per_second": rate,
                    "wait_share": waited,
                },
            )
        self.say(
            f"step {done}/{self.train.steps}: mel L1 {report.mel_l1:.3f}, gradient norm"
            f" {report.gradient_norm:.2f}, lr {lr:.2e}, {rate:.0f} frames/s, {waited:.0%} waiting"
            " for data"
        )

    def _save(self, better: bool) -> None:
        """CHECKPOINT comes after the logs and samples of its step, which it vouches for; what is
        behind it is done again. BEST comes after CHECKPOINT, which then holds the same weights:
        where a kill leaves the older BEST, the next start writes it anew from CHECKPOINT. The other
        way round a BEST could stay that neither log nor notes know of.
        """
        save_training(self.run.out / CHECKPOINT, self.training)
        if better:
            save_training(self.run.out / BEST, self.training)

    def _validated(self) -> list[Item]:
        return self.corpus.held_out[: self.run.validation_clips]

    def _validate(self, done: int) -> bool:
        """Whether the model is the best so far, which the notes then say: lower free-running error,
        on the same clips.
        """
        found: Validation = validate(
            self.trained, self.corpus, self._validated(), self.place.device, self.place.rank
        )
        self.say(
            f"step {done}, {found.clips} held-out clips: free-running {found.fr_l1:.3f} (best"
            f" constant {found.best_constant_l1:.3f}, copy previous {found.copy_previous_l1:.3f}),"
            f" teacher-forced {found.tf_l1:.3f}, text use {found.text_use:.2f}"
        )
        if self.logs is None:
            return False
        self.logs.write("validation", done, {**found.to_dict(), "clip_set": self.clip_set})
        best = self.training.notes["best"]
        # older checkpoints do not say
        comparable = best is not None and best.get("clip_set", self.clip_set) == self.clip_set
        better = math.isfinite(found.fr_l1) and not (comparable and best["fr_l1"] <= found.fr_l1)
        if better:
            self.training.notes["best"] = {
                "step": done,
                "fr_l1": found.fr_l1,
                "clip_set": self.clip_set,
            }
        return better
