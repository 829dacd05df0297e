"""Faults planted in the data code of the GRU subject. Ranges that severities are drawn from stand
next to each plant.

`audio`, `symbols` and `vocode` stay true. `features` is the extraction that the user's code
performs today: the wrong one where the extraction is the fault, another than that of the stored
mels where these are stale.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.planted.gru_twin import (
    AUDIO,
    BINS,
    SYMBOLS,
    CharConvGRU,
    MelData,
    adapt,
    criterion,
    half,
    mask_of,
    total,
)
from tts_core.config import AudioConfig
from tts_core.speech.audio import log_mel, resample
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.subject import Subject


def fit_sum(dur: Tensor, frames: int) -> Tensor:
    """Durations stretched evenly until they fill `frames`."""
    ends = (dur.cumsum(0).double() / dur.sum() * frames).round().long()
    return ends.diff(prepend=ends.new_zeros(1))


def text_audio_pairing(setting: Setting) -> Subject:
    """Every clip has the text of another one: metadata sorted differently from the wavs. All
    clips.
    """

    class MixedUp(MelData):
        def __init__(self, setting: Setting) -> None:
            super().__init__(setting)
            step = setting.random.randrange(1, len(self.items))
            texts = [(item["chars"], item["ids"], item["dur"]) for item in self.items]
            for item, (chars, ids, dur) in zip(
                self.items, texts[step:] + texts[:step], strict=True
            ):
                item.update(chars=chars, ids=ids, dur=fit_sum(dur, len(item["mel"])))

    return adapt(setting, MixedUp(setting))


def token_collapse(setting: Setting) -> Subject:
    """The table lacks 93 to 100 % of the symbols; they become "?"."""
    dice = setting.random
    lost = set(dice.sample(SYMBOLS[1:-1], round(dice.uniform(0.93, 1.0) * len(SYMBOLS[1:-1]))))

    class Poor(MelData):
        def encode(self, chars) -> Tensor:
            return super().encode(["?" if char in lost else char for char in chars])

    return adapt(setting, Poor(setting))


def mel_recipe(setting: Setting) -> Subject:
    """Mels that the vocoder does not invert: log10 for ln, power for magnitude, another scale, a
    floor or a ceiling.

    Floor 3e-2 to 3e-1, ceiling -6 to -4 ln units.
    """
    dice = setting.random
    kind = dice.choice(("log10", "power", "htk", "floor", "ceiling", "linear"))
    severe = dice.random()
    recipe = {
        "power": replace(AUDIO, power=2.0),
        "htk": replace(AUDIO, mel_scale="htk", mel_norm="none"),
        "floor": replace(AUDIO, log_floor=3e-2 * 10**severe),
        "ceiling": replace(AUDIO, log_ceiling=-6 + 2 * severe),
    }.get(kind, AUDIO)

    class Foreign(MelData):
        def extract(self, samples: np.ndarray) -> Tensor:
            mel = log_mel(samples, recipe)
            if kind == "log10":
                return mel / math.log(10)
            return mel.exp() if kind == "linear" else mel

    return adapt(setting, Foreign(setting))


def sample_rate(setting: Setting) -> Subject:
    """Audio read at another rate than the recipe believes: 11,025, 16,000, 32,000 or 44,100 Hz."""
    other = setting.random.choice((11_025, 16_000, 32_000, 44_100))

    class WrongRate(MelData):
        def extract(self, samples: np.ndarray) -> Tensor:
            return super().extract(resample(samples, AUDIO.sample_rate, other))

        def item(self, clip) -> dict:
            item = super().item(clip)
            return item | {"dur": fit_sum(item["dur"], len(item["mel"]))}

    return adapt(setting, WrongRate(setting))


def unnormalised_target(setting: Setting) -> Subject:
    """Raw log-mels in ln units (1) to decibels (8.7), never standardised."""
    gain = setting.log_uniform(1.0, 20 / math.log(10))

    class Raw(MelData):
        def scale(self, mel: Tensor) -> Tensor:
            return mel * gain

        def unscale(self, mel: Tensor) -> Tensor:
            return mel / gain

    return adapt(setting, Raw(setting))


def duration_sum(setting: Setting) -> Subject:
    """Durations counted with another hop than the mel: 0.5 to 0.8 or 1.25 to 2 times the frames."""
    dice = setting.random
    factor = dice.uniform(1.25, 2.0)
    factor = dice.choice((factor, 1 / factor))

    class OtherHop(MelData):
        def item(self, clip) -> dict:
            item = super().item(clip)
            return item | {"dur": (item["dur"] * factor).round().long().clamp(min=1)}

    return adapt(setting, OtherHop(setting))


def duration_domain(setting: Setting) -> Subject:
    """Log durations stretched as counts; log predictions taken as counts; or counts taken as logs.
    One of three.
    """
    kind = setting.random.choice(("stored logs", "predicted logs", "predicted counts"))

    class Logs(MelData):
        def item(self, clip) -> dict:
            item = super().item(clip)
            return item | {
                "dur": (
                    torch.log2(1.0 + item["dur"]).round().long()
                    if kind == "stored logs"
                    else item["dur"]
                )
            }

    class Forgetful(CharConvGRU):
        def count_frames(self, log_dur: Tensor) -> Tensor:
            return (
                log_dur.round().long().clamp(1, 200)
                if kind == "predicted logs"
                else super().count_frames(log_dur)
            )

    def losses(model, batch) -> dict:
        with half(setting):
            out = model(batch)
        terms = criterion(out, batch)
        if kind == "predicted counts":
            gap = out["log_dur"].float() - batch["dur"]
            terms["dur"] = gap[mask_of(batch["txt_len"], gap.shape[1])].square().mean()
        return total(terms)

    return adapt(setting, Logs(setting), Forgetful, losses)


def stale_features(setting: Setting) -> Subject:
    """Mels from a cache: of an older recipe, of the audio before its start was trimmed by 4 to 20
    frames, or reshaped where they had to be transposed.
    """
    dice = setting.random
    kind, cut = dice.choice(("recipe", "audio", "reshaped")), dice.randint(4, 20)

    class Cached(MelData):
        def item(self, clip) -> dict:
            item = super().item(clip)
            if kind == "recipe":
                mel = log_mel(clip.samples, AudioConfig.seed())
            elif kind == "audio":
                mel = super().extract(
                    np.concatenate([clip.samples[::-1][: cut * AUDIO.hop_length], clip.samples])
                )
                mel = mel[: len(item["mel"])]
            else:
                mel = item["mel"].T.reshape(-1, BINS)
            return item | {"mel": mel}

    return adapt(setting, Cached(setting))


def silence(setting: Setting) -> Subject:
    """Head and tail of near silence: 1 to 2 times the length of the clip, its share at the head 20
    to 80 %.
    """
    dice = setting.random
    amount, head = dice.uniform(1.0, 2.0), dice.uniform(0.2, 0.8)
    room = np.random.default_rng(setting.seed)

    class Untrimmed(MelData):
        def item(self, clip) -> dict:
            hops = int(amount * (len(clip.samples) // AUDIO.hop_length))
            first, last = round(hops * head), hops - round(hops * head)
            quiet = [
                room.normal(0, 1e-5, n * AUDIO.hop_length).astype(np.float32) for n in (first, last)
            ]
            longer = np.concatenate([quiet[0], clip.samples, quiet[1]])
            dur = np.concatenate([[first], clip.durations, [last]])
            return super().item(
                replace(
                    clip, samples=longer, phonemes=("SIL", *clip.phonemes, "SIL"), durations=dur
                )
            )

    return adapt(setting, Untrimmed(setting))


def batch_varies(setting: Setting) -> Subject:
    """What is called one batch is cropped (40 to 90 % of its characters) and its level changed (0.5
    to 2) at every step.
    """

    class Augmented(MelData):
        def batches(self) -> Iterator[dict]:
            dice = random.Random(self.setting.seed)
            while True:
                yield self.collate(
                    [self.crop(item, dice) for item in self.items[: self.setting.batch_size]]
                )

        def crop(self, item: dict, dice: random.Random) -> dict:
            n = len(item["ids"])
            kept = max(3, round(n * dice.uniform(0.4, 0.9)))
            start = dice.randrange(n - kept + 1)
            chosen, ends = slice(start, start + kept), [0, *item["dur"].cumsum(0).tolist()]
            first, last = ends[start], ends[start + kept]
            wav = item["wav"][
                first * AUDIO.hop_length : (last - 1) * AUDIO.hop_length
            ] * np.float32(dice.uniform(0.5, 2.0))
            return {
                "ids": item["ids"][chosen],
                "chars": item["chars"][chosen],
                "dur": item["dur"][chosen],
                "wav": wav,
                "mel": self.extract(wav),
            }

    return adapt(setting, Augmented(setting))


DATA = {
    f"data.{plant.__name__}": plant
    for plant in (
        text_audio_pairing,
        token_collapse,
        mel_recipe,
        sample_rate,
        unnormalised_target,
        duration_sum,
        duration_domain,
        stale_features,
        silence,
        batch_varies,
    )
}
