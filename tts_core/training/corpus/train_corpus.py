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
from typing import Any

import numpy as np
import torch
from torch import nn

from tts_core.atomic_files import sweep, write_json
from tts_core.environment import versions
from tts_core.speech.batch import Batch
from tts_core.training.checkpoint import save_training
from tts_core.training.corpus.continuation import (
    BEST,
    CHECKPOINT,
    hold_folder,
    require_agreement,
    start_or_continue,
)
from tts_core.training.corpus.extensions import Extensions, installed_extensions
from tts_core.training.corpus.feature_cache import FeatureCache
from tts_core.training.corpus.options import RunConfig, TrainConfig
from tts_core.training.corpus.prepared_corpus import (
    CorpusItem,
    TrainingCorpus,
    load_ahead,
    open_corpus,
)
from tts_core.training.corpus.processes import ALONE, Place
from tts_core.training.corpus.sampler import BatchPlan
from tts_core.training.corpus.samples import DrawSample, write_samples
from tts_core.training.corpus.training_log import Logs
from tts_core.training.corpus.validation import Validation, validate
from tts_core.training.corpus.warm_up import learning_rate
from tts_core.training.distributed import across_processes
from tts_core.training.precision import choose_precision
from tts_core.training.state import Training
from tts_core.training.step import StepReport, train_step

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

    Every process of `place` calls this; the first one writes. `extensions` align, phonemize and
    draw (None: what is installed). Raises WorkbookError for data that cannot be trained on, for a
    checkpoint of another configuration or other data, for processes that found different ones, and
    for what the train step raises.
    """
    if not place.leads:
        say = _nothing
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    if extensions is None:
        extensions = installed_extensions(pictures=run.figures)
    draw = extensions.draw_sample if run.figures else None
    if run.figures and draw is None:
        say("no pictures: nothing that is installed draws them; audio and arrays are written")
    corpus = open_corpus(
        run.data,
        train.experiment(vocab_size=2).audio,
        FeatureCache(run.cache, extensions.aligner, extensions.phonemizer),
        language=run.language,
        ids=run.ids,
        held_out=run.held_out,
        held_out_clips=run.held_out_clips,
        workers=run.workers,
        place=place,
    )
    lengths = [item.n_frames for item in corpus.train]
    plan = BatchPlan(lengths, train.batch_clips, train.pool_batches, train.seed)

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
        logs = None
        if place.leads:
            logs = _prepare_folder(train, run, place, corpus, training)
            closing.callback(logs.close)
        loop = _Loop(train, run, place, corpus, training, plan, logs, say, draw)
        on_cuda = place.device.startswith("cuda")
        with torch.random.fork_rng(devices=[place.device] if on_cuda else []):
            loop.go()
    return training


def _nothing(line: str) -> None:
    """What the processes say that do not lead."""


def _prepare_folder(
    train: TrainConfig, run: RunConfig, place: Place, corpus: TrainingCorpus, training: Training
) -> Logs:
    """What a killed run left half-written is cleared, run.json says what is trained, and the logs
    go on from the step of the checkpoint.
    """
    sweep(run.out)
    step, best = training.notes["step"], training.notes["best"]
    if best is not None and best["step"] == step:
        # a kill may have come between the two: see _Loop._save
        save_training(run.out / BEST, training)
    logs = Logs(run.out, step, run.tensorboard)
    write_json(run.out / "run.json", _record(train, run, place, corpus))
    return logs


def _record(
    train: TrainConfig, run: RunConfig, place: Place, corpus: TrainingCorpus
) -> dict[str, Any]:
    """run.json: what is trained, on what, with what."""
    settings = {}
    for name, value in vars(run).items():
        settings[name] = value if isinstance(value, int | None) else str(value)
    return {
        "train": dataclasses.asdict(train),
        "run": settings,
        "processes": place.world,
        "device": place.device,
        "pid": os.getpid(),
        "versions": versions(),
        "content_hash": corpus.content_hash,
        "warnings": corpus.warnings,
        "rejected": [f"{left_out.id}: {left_out.reason}" for left_out in corpus.rejected],
    }


# --- the steps ------------------------------------------------------------------------------------


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
        self.train = train
        self.run = run
        self.place = place
        self.corpus = corpus
        self.training = training
        self.plan = plan
        self.logs = logs  # of the process that leads
        self.say = say
        self.draw = draw
        self.model: nn.Module = training.model
        if place.world > 1:
            self.model = across_processes(training.model)
        self.precision = choose_precision(train.precision, place.device)
        self.validated = corpus.held_out[: run.validation_clips]
        self.clip_set = _digest_of_ids(self.validated)
        # of the steps since the last line of the log
        self.seconds, self.waited, self.frames = 0.0, 0.0, 0

    def go(self) -> None:
        first, last = self.training.notes["step"], self.train.steps
        place, run = self.place, self.run
        parts = self.plan.parts(first, last, place.rank, place.world, run.micro_batches)
        batches = load_ahead(self.corpus, parts, run.workers)
        for step in range(first, last):
            report = self._step(step, batches)
            done = step + 1
            at_end = done == last
            self.training.notes["step"] = done
            if done % run.log_every == 0 or at_end or done == 1:
                self._log(done, report)
            better = False
            if done % run.validate_every == 0 or at_end:
                better = self._validate(done)
            if place.leads and (done % run.sample_every == 0 or at_end):
                self._sample(done)
            if place.leads and (done % run.checkpoint_every == 0 or at_end or better):
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
            self.model,
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
        seconds = self.seconds
        frames_per_second = self.frames / seconds
        wait_share = self.waited / seconds
        self.seconds, self.waited, self.frames = 0.0, 0.0, 0
        lr = self.training.optimizer.param_groups[0]["lr"]
        if self.logs is not None:
            line = report.to_dict()
            line["lr"] = lr
            line["epoch"] = done / self.plan.steps_per_epoch
            line["seconds"] = seconds
            line["frames_per_second"] = frames_per_second
            line["wait_share"] = wait_share
            self.logs.write("train", done, line)
        self.say(
            f"step {done}/{self.train.steps}: mel L1 {report.mel_l1:.3f}, gradient norm"
            f" {report.gradient_norm:.2f}, lr {lr:.2e}, {frames_per_second:.0f} frames/s,"
            f" {wait_share:.0%} waiting for data"
        )

    def _validate(self, done: int) -> bool:
        """Whether the model is the best so far, which the notes then say: lower free-running error,
        on the same clips.
        """
        found: Validation = validate(
            self.model, self.corpus, self.validated, self.place.device, self.place.rank
        )
        self.say(
            f"step {done}, {found.clips} held-out clips: free-running {found.fr_l1:.3f} (best"
            f" constant {found.best_constant_l1:.3f}, copy previous {found.copy_previous_l1:.3f}),"
            f" teacher-forced {found.tf_l1:.3f}, text use {found.text_use:.2f}"
        )
        if self.logs is None:
            return False
        self.logs.write("validation", done, {**found.to_dict(), "clip_set": self.clip_set})
        if not self._is_best(found.fr_l1):
            return False
        self.training.notes["best"] = {
            "step": done,
            "fr_l1": found.fr_l1,
            "clip_set": self.clip_set,
        }
        return True

    def _is_best(self, fr_l1: float) -> bool:
        if not math.isfinite(fr_l1):
            return False
        best = self.training.notes["best"]
        # older checkpoints do not say on which clips
        if best is None or best.get("clip_set", self.clip_set) != self.clip_set:
            return True
        return bool(fr_l1 < best["fr_l1"])

    def _sample(self, done: int) -> None:
        write_samples(
            self.training.model,
            self.corpus,
            self.corpus.held_out[: self.run.sample_clips],
            self.run.out / "samples" / f"step_{done:07d}",
            self.place.device,
            self.draw,
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


def _seed_step(seed: int, step: int, rank: int) -> None:
    """Dropout of a step depends on its number and the process alone: there is no generator state to
    keep.
    """
    state = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]))


def _digest_of_ids(items: list[CorpusItem]) -> str:
    """12 hex digits: which clips an error was measured on."""
    ids = "\n".join(item.entry.id for item in items)
    return hashlib.sha256(ids.encode()).hexdigest()[:12]
