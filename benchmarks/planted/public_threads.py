"""Faults that people had and reported in public, planted in small. Each names its thread; the cause
is what the thread came to.

`anywhere` are those that go on top of any build over `ClipBatch`es. Shapes: B batch, N phonemes, T
frames, M mel bins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.planted.architecture import Thread
from benchmarks.planted.side_inputs import pitch_of_clip
from tts_core.config import AudioConfig
from tts_core.speech.audio import log_mel, resample
from tts_core.speech.dataset import Clip
from tts_core.speech.phonemes import PAUSE, Vocabulary
from tts_workbook.faults.planting import Build, Setting, with_clips
from tts_workbook.subject.clip_batch import ClipBatch, gather
from tts_workbook.subject.clip_data import clipped_step
from tts_workbook.subject.subject import Subject, supplied

FULL_BAND = AudioConfig(sample_rate=44_100)  # the hop in samples is that of the standard recipe
N_LOST = 3  # symbols that the table of a front end does not know


def symbol_order(build: Build) -> Build:
    """Symbols are numbered in the order of a set, which is another one in the process that
    synthesises.
    """

    def plant(setting: Setting) -> Subject:
        n_symbols = Vocabulary.arpabet().get_vocab_size()
        drawn = torch.Generator().manual_seed(setting.seed)
        order = torch.arange(n_symbols)
        order[1:] = 1 + torch.randperm(n_symbols - 1, generator=drawn)
        return inferring_from(build(setting), lambda batch: with_ids(batch, order))

    return plant


def decay_at_every_iteration(build: Build) -> Build:
    """A decay that is meant for every epoch is applied at every iteration (as strong as a short run
    needs to show it).
    """

    def plant(setting: Setting) -> Subject:
        subject = build(setting)
        sound_step = supplied(subject.train_step, "train_step")

        def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
            optimizer: Any = subject.make_optimizer(model)
            optimizer.schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.85)
            return optimizer

        def train_step(model: nn.Module, optimizer: Any, batch: Any) -> Any:
            seen = sound_step(model, optimizer, batch)
            optimizer.schedule.step()
            return seen

        return replace(subject, make_optimizer=make_optimizer, train_step=train_step)

    return plant


def time_base(build: Build) -> Build:
    """Audio and features at 44.1 kHz; durations in frames of a constant 22.05 kHz, and the mel cut
    to their sum: each clip has the first half of its frames.
    """

    def features(samples: np.ndarray, rate: int) -> Tensor:
        return log_mel(resample(samples, rate, FULL_BAND.sample_rate), FULL_BAND)

    def spoilt(clip: Clip) -> Clip:
        samples = resample(clip.samples, clip.sample_rate, FULL_BAND.sample_rate)
        mel = features(samples, FULL_BAND.sample_rate)[: int(clip.durations.sum())]
        return replace(clip, samples=samples, sample_rate=FULL_BAND.sample_rate, mel=mel)

    return lambda setting: build(with_clips(setting, spoilt), extract=features, audio=FULL_BAND)


def half_precision_norm(build: Build) -> Build:
    """A distance of energies in half precision, with 1e-9 under the root: it rounds to zero, where
    the root has no gradient.
    """

    def plant(setting: Setting) -> Subject:
        subject = build(replace(setting, bf16=False))

        def energy(mel: Tensor) -> Tensor:
            return (mel.half().square().mean(dim=2) + 1e-9).sqrt()

        def losses(model: nn.Module, batch: ClipBatch) -> Mapping[str, Tensor]:
            with torch.autocast("cpu", dtype=torch.float16):
                terms = subject.losses(model, batch)
                predicted = subject.predict_mel(model, batch)
            mask = batch.mel_mask
            target, _ = subject.target_mel(batch)
            off = energy(predicted * mask[..., None]) - energy(target * mask[..., None])
            norm = off.abs()[mask].float().mean()
            return {**terms, "norm": norm, "total": terms["total"] + norm}

        return replace(subject, losses=losses, train_step=clipped_step(losses))

    return plant


def logarithm_of_no_pitch(build: Build) -> Build:
    """The logarithm of the pitch, taken of unvoiced phonemes too: log 0."""

    def of_clip(clip: Clip) -> Tensor:
        return pitch_of_clip(clip).log()

    return lambda setting: build(setting, pitch=of_clip)


def dropped_symbols(build: Build) -> Build:
    """The three most frequent symbols are unknown to the front end and are left out; their frames
    go to the next one that is kept.
    """

    def plant(setting: Setting) -> Subject:
        heard = Counter(symbol for clip in setting.clips for symbol in clip.phonemes)
        del heard[PAUSE]
        lost = {symbol for symbol, _ in heard.most_common(N_LOST)}

        def spoilt(clip: Clip) -> Clip:
            kept = np.array([symbol not in lost for symbol in clip.phonemes])
            ends = np.cumsum(clip.durations)[kept]
            ends[-1] = clip.durations.sum()
            durations = np.diff(ends, prepend=0)
            return replace(clip, phoneme_ids=clip.phoneme_ids[kept], durations=durations)

        return replace(build(with_clips(setting, spoilt)), shuffle_text=shuffle_ids)

    return plant


def shuffle_ids(batch: ClipBatch, generator: torch.Generator) -> ClipBatch:
    """Wrong text where written symbols and ids are not as many: each clip's ids permuted."""
    clips = []
    for clip in batch.clips:
        order = torch.randperm(len(clip.phoneme_ids), generator=generator).numpy()
        clips.append(replace(clip, phoneme_ids=clip.phoneme_ids[order]))
    return gather(clips, batch.pad_value, batch.mel.shape[1])


def anywhere(build: Build) -> dict[str, Thread]:
    """Threads whose fault any architecture can have."""
    return {
        "symbol_order": Thread(
            ("data.front_end",), "ming024/FastSpeech2 #109", symbol_order(build)
        ),
        "decay_at_every_iteration": Thread(
            ("optimizer.schedule",),
            "PaddlePaddle/PaddleSpeech #3186",
            decay_at_every_iteration(build),
        ),
    }


def with_durations(build: Build) -> dict[str, Thread]:
    """Threads whose fault sits where durations are."""
    return {
        "time_base": Thread(
            ("data.duration_sum", "data.sample_rate"),
            "ming024/FastSpeech2 #213",
            time_base(build),
        ),
        "dropped_symbols": Thread(
            ("data.front_end", "data.token_collapse"), "NVIDIA/NeMo #5466", dropped_symbols(build)
        ),
    }


def with_pitch(build: Build) -> dict[str, Thread]:
    """Threads whose fault sits where the pitch is, or that any model in half precision can have."""
    return {
        "half_precision_norm": Thread(
            ("precision.half_range",),
            "espnet/espnet #4236",
            half_precision_norm(build),
            needs={"batch_size": 2},
        ),
        "logarithm_of_no_pitch": Thread(
            ("data.side_input",), "the logarithm of an unvoiced pitch", logarithm_of_no_pitch(build)
        ),
    }


# --- what inference is handed ---------------------------------------------------------------------


def with_ids(batch: ClipBatch, order: Tensor) -> ClipBatch:
    """The batch with other ids; padding stays padding."""
    return replace(batch, phonemes=order[batch.phonemes] * batch.phoneme_mask)


def inferring_from(subject: Subject, change: Callable[[Any], Any]) -> Subject:
    """The subject whose inference gets `change(batch)`; training and teacher forcing do not."""

    def of_changed(part: Any) -> Any:
        if part is None:
            return None
        return lambda model, batch, *rest: part(model, change(batch), *rest)

    fields = ("generate", "continue_from", "infer")
    return replace(subject, **{field: of_changed(getattr(subject, field)) for field in fields})
