"""Planted faults of the data, for any model: the clips of the setting are spoilt before the subject
is built from them.

A `Clip` keeps what is true beside what is encoded: `samples` and `phonemes` stay as recorded and
written while `mel`, `phoneme_ids` or `durations` go wrong. The range that a severity is drawn from
stands beside each plant. Shapes: T frames, M mel bins, N phonemes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tts_core.config import AudioConfig
from tts_core.speech.audio import log_mel, resample
from tts_core.speech.dataset import Clip
from tts_core.speech.phonemes import PAUSE, Vocabulary
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.subject.clip_batch import ClipBatch, gather, trim_clip
from tts_workbook.subject.subject import Subject

STANDARD = AudioConfig()


def with_clips(setting: Setting, change: Callable[[Clip], Clip]) -> Setting:
    """The setting with every clip changed."""
    return replace(setting, clips=tuple(change(clip) for clip in setting.clips))


def rescaled(durations: np.ndarray, n_frames: int) -> np.ndarray:
    """Durations (N,) stretched to sum to `n_frames`, rounded at the borders, so that the sum is
    exact.
    """
    ends = np.cumsum(durations)
    return np.diff(np.round(ends * n_frames / ends[-1]).astype(np.int64), prepend=0)


def text_audio_pairing(build: Build, setting: Setting) -> Subject:
    """Every clip has another clip's text: a rotation by 1 to all-but-one places (drawn), durations
    stretched to the frames.
    """
    clips = setting.clips
    shift = setting.random.randint(1, len(clips) - 1)
    wrong = [clips[(index + shift) % len(clips)] for index in range(len(clips))]
    return build(
        replace(
            setting,
            clips=tuple(
                replace(
                    clip,
                    text=other.text,
                    phonemes=other.phonemes,
                    phoneme_ids=other.phoneme_ids,
                    durations=rescaled(other.durations, len(clip.mel)),
                )
                for clip, other in zip(clips, wrong)
            ),
        )
    )


def token_collapse(build: Build, setting: Setting) -> Subject:
    """70 to 100 % of the symbols (drawn, which too) become one id, as an unknown-token rule makes
    them.
    """
    symbols = list(Vocabulary.arpabet().symbols[2:])
    generator = setting.random
    share = generator.uniform(0.7, 1.0)
    generator.shuffle(symbols)
    unknown = Vocabulary.arpabet().encode(symbols[:1])[0]
    collapsed = Vocabulary.arpabet().encode(symbols[: max(2, round(share * len(symbols)))])
    return build(
        with_clips(
            setting,
            lambda clip: replace(
                clip,
                phoneme_ids=np.where(
                    np.isin(clip.phoneme_ids, collapsed), unknown, clip.phoneme_ids
                ),
            ),
        )
    )


RECIPES = {  # each differs from what the vocoder inverts by one decision, as found in the wild
    "power": lambda samples: log_mel(samples, replace(STANDARD, power=2.0)),
    "decibels": lambda samples: log_mel(samples, STANDARD) * (20 / math.log(10)),
    "base 10": lambda samples: log_mel(samples, STANDARD) / math.log(10),
    "scale and norm": lambda samples: log_mel(
        samples, replace(STANDARD, mel_scale="htk", mel_norm="none")
    ),
    "ceiling": lambda samples: log_mel(samples, AudioConfig.seed()),
}


def mel_recipe(build: Build, setting: Setting) -> Subject:
    """One of RECIPES (drawn) in the targets and in today's extraction; the vocoder inverts the
    standard one.
    """
    recipe = RECIPES[setting.random.choice(sorted(RECIPES))]
    return build(
        with_clips(setting, lambda clip: replace(clip, mel=recipe(clip.samples))),
        extract=lambda samples, rate: recipe(samples),
    )


def sample_rate(build: Build, setting: Setting) -> Subject:
    """Audio at another rate (16, 32 or 44.1 kHz, drawn) is analysed as if it were 22.05 kHz;
    durations follow its frames.
    """
    rate = setting.random.choice([16_000, 32_000, 44_100])

    def extract(samples: np.ndarray, given: int) -> Tensor:
        return log_mel(resample(samples, given, rate), STANDARD)

    def spoilt(clip: Clip) -> Clip:
        mel = extract(clip.samples, clip.sample_rate)
        return replace(clip, mel=mel, durations=rescaled(clip.durations, len(mel)))

    return build(with_clips(setting, spoilt), extract=extract)


def duration_sum(build: Build, setting: Setting) -> Subject:
    """Durations counted with another hop: all of them 0.5 to 0.8 or 1.25 to 2 times too long
    (drawn), rounded.
    """
    ratio = setting.log_uniform(1.25, 2.0)
    ratio = ratio if setting.random.randint(0, 9) % 2 else 1 / ratio
    return build(
        with_clips(
            setting,
            lambda clip: replace(
                clip, durations=np.maximum(1, np.round(clip.durations * ratio)).astype(np.int64)
            ),
        )
    )


def stale_features(build: Build, setting: Setting) -> Subject:
    """Mels from a cache: of an older recipe, or of audio that began 10 to 40 frames earlier
    (drawn).
    """
    shift, older = setting.random.randint(10, 40), replace(STANDARD, power=2.0, f_max=11_025.0)
    moved = setting.random.random() < 0.5
    return build(
        with_clips(
            setting,
            lambda clip: replace(
                clip,
                mel=(
                    clip.mel.roll(min(shift, len(clip.mel) // 2), dims=0)
                    if moved
                    else log_mel(clip.samples, older)
                ),
            ),
        )
    )


def silence(build: Build, setting: Setting) -> Subject:
    """Untrimmed silence before and after the speech, together 1 to 2 times as long as it, with a
    noise floor of -70 dB.
    """
    share = setting.random.uniform(1.0, 2.0)
    pause = Vocabulary.arpabet().encode([PAUSE])

    def spoilt(clip: Clip) -> Clip:
        noise = np.random.default_rng(setting.seed)
        n_samples = round(share / 2 * len(clip.mel)) * STANDARD.hop_length
        quiet = [noise.normal(0, 10 ** (-70 / 20), n_samples).astype(np.float32) for _ in range(2)]
        samples = np.concatenate([quiet[0], clip.samples, quiet[1]])
        mel = log_mel(samples, STANDARD)
        first = n_samples // STANDARD.hop_length
        frames = np.array(
            [first, *clip.durations, len(mel) - first - clip.durations.sum()], dtype=np.int64
        )
        return replace(
            clip,
            samples=samples,
            mel=mel,
            durations=frames,
            phonemes=(PAUSE, *clip.phonemes, PAUSE),
            phoneme_ids=np.concatenate([pause, clip.phoneme_ids, pause]),
        )

    return build(with_clips(setting, spoilt))


def batch_varies(build: Build, setting: Setting) -> Subject:
    """What should be one fixed batch changes at every step: random crops to 40 to 80 % of each
    clip, or noise of 1 to 3 ln units on its mel (drawn).
    """
    subject = build(setting)
    share, loudness, crops = (
        setting.random.uniform(0.4, 0.8),
        setting.log_uniform(1, 3),
        setting.random.random() < 0.5,
    )

    def batches() -> Iterator[ClipBatch]:
        draw, noise = random.Random(setting.seed), torch.Generator().manual_seed(setting.seed)
        while True:
            clips = []
            for clip in subject.batch.clips:
                spare = round(len(clip.mel) * (1 - share))
                first = draw.randint(0, spare)
                clips.append(
                    trim_clip(clip, first, spare - first)
                    if crops
                    else replace(
                        clip, mel=clip.mel + loudness * torch.randn(clip.mel.shape, generator=noise)
                    )
                )
            yield gather(clips, subject.batch.pad_value)

    return replace(subject, batches=batches)
