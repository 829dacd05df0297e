"""Faults in the data code that both held-out architectures stand on. Ranges that severities are
drawn from stand beside each plant.

`written` and `waves` stay true. `features` is the extraction of today's code: the wrong one where
the extraction is the fault, another than that of the stored mels where these are stale.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tests.tts_workbook.diagnosis.vits_like_data import (
    AUDIO,
    BINS,
    FILL,
    TABLE,
    UNKNOWN,
    Item,
    SpeechBatch,
)
from tests.tts_workbook.diagnosis.vits_like_kit import Kit
from tts_core.config import AudioConfig
from tts_core.speech.audio import log_mel, resample
from tts_core.speech.dataset import Clip
from tts_core.speech.phonemes import PAUSE
from tts_workbook.faults.planting import Setting, rescaled
from tts_workbook.subject.subject import Subject


def text_audio_pairing(kit: Kit, setting: Setting) -> Subject:
    """The list of texts is sorted otherwise than the list of sounds: every clip has the text of
    another one, a drawn number of places away.
    """
    step = setting.random.randrange(1, len(setting.clips))

    class Shifted(kit.data):  # type: ignore[name-defined, misc]
        def conditioned(self, items: list[Item]) -> list[Item]:
            paired = []
            for item, other in zip(items, items[step:] + items[:step], strict=True):
                frames = torch.from_numpy(rescaled(other.frames.numpy(), len(item.mel)))
                paired.append(replace(item, written=other.written, ids=other.ids, frames=frames))
            return super().conditioned(paired)

    return kit.build(setting, Shifted(setting))


def token_collapse(kit: Kit, setting: Setting) -> Subject:
    """The table was made for another alphabet: 90 to 100 % of the symbols become <unknown>."""
    dice = setting.random
    symbols = TABLE[1:-1]
    lost = set(dice.sample(symbols, round(dice.uniform(0.9, 1.0) * len(symbols))))

    class Foreign(kit.data):  # type: ignore[name-defined, misc]
        def encode(self, symbols: Sequence[str]) -> Tensor:
            return super().encode([UNKNOWN if symbol in lost else symbol for symbol in symbols])

    return kit.build(setting, Foreign(setting))


def mel_recipe(kit: Kit, setting: Setting) -> Subject:
    """Mels that the vocoder does not invert (drawn): decibels, a power spectrogram, the HTK scale,
    a floor of 0.03 to 0.3, a band limit of 4 kHz, or no logarithm.
    """
    dice = setting.random
    kind = dice.choice(("decibels", "power", "htk", "floor", "band", "linear"))
    recipes = {
        "power": replace(AUDIO, power=2.0),
        "htk": replace(AUDIO, mel_scale="htk", mel_norm="none"),
        "floor": replace(AUDIO, log_floor=0.03 * 10 ** dice.random()),
        "band": replace(AUDIO, f_max=4_000.0),
    }
    recipe = recipes.get(kind, AUDIO)

    class OtherRecipe(kit.data):  # type: ignore[name-defined, misc]
        def extract(self, samples: np.ndarray) -> Tensor:
            mel = log_mel(samples, recipe)
            if kind == "decibels":
                return mel * 20 / math.log(10)
            return mel.exp() if kind == "linear" else mel

    return kit.build(setting, OtherRecipe(setting))


def sample_rate(kit: Kit, setting: Setting) -> Subject:
    """The sounds are read at 12, 16, 32, 44.1 or 48 kHz, and nobody tells the extraction."""
    rate = setting.random.choice((12_000, 16_000, 32_000, 44_100, 48_000))

    class OtherRate(kit.data):  # type: ignore[name-defined, misc]
        def extract(self, samples: np.ndarray) -> Tensor:
            return super().extract(resample(samples, AUDIO.sample_rate, rate))

        def item(self, clip: Clip) -> Item:
            item = super().item(clip)
            frames = torch.from_numpy(rescaled(clip.durations, len(item.mel)))
            return replace(item, frames=frames)

    return kit.build(setting, OtherRate(setting))


def unnormalised_target(kit: Kit, setting: Setting) -> Subject:
    """No standardisation: ln units (factor 1) to decibels and tenths of them (up to 87)."""
    factor = setting.log_uniform(1.0, 87)

    class Raw(kit.data):  # type: ignore[name-defined, misc]
        def scale(self, mel: Tensor) -> Tensor:
            return factor * mel

        def unscale(self, mel: Tensor) -> Tensor:
            return mel / factor

    return kit.build(setting, Raw(setting))


def duration_sum(kit: Kit, setting: Setting) -> Subject:
    """Frames counted with another hop than the mel's: 0.5 to 0.8, or 1.25 to 2 times as many."""
    dice = setting.random
    factor = dice.uniform(1.25, 2.0)
    factor = dice.choice((factor, 1 / factor))

    class OtherHop(kit.data):  # type: ignore[name-defined, misc]
        def item(self, clip: Clip) -> Item:
            item = super().item(clip)
            return replace(item, frames=(item.frames * factor).round().long().clamp(min=1))

    return kit.build(setting, OtherHop(setting))


def stale_features(kit: Kit, setting: Setting) -> Subject:
    """Mels of a cache (drawn): of the recipe before, of the sounds before 6 to 20 frames of their
    start were cut, or written (M, T) and read as (T, M).
    """
    dice = setting.random
    kind, n_cut = dice.choice(("recipe", "cut", "transposed")), dice.randint(6, 20)

    class Cached(kit.data):  # type: ignore[name-defined, misc]
        def item(self, clip: Clip) -> Item:
            item = super().item(clip)
            if kind == "recipe":
                return replace(item, mel=log_mel(clip.samples, AudioConfig.seed()))
            if kind == "transposed":
                return replace(item, mel=item.mel.T.reshape(-1, BINS))
            before = clip.samples[: n_cut * AUDIO.hop_length][::-1]
            longer = self.extract(np.concatenate([before, clip.samples]))
            return replace(item, mel=longer[: len(item.mel)])

    return kit.build(setting, Cached(setting))


def silence(kit: Kit, setting: Setting) -> Subject:
    """Nobody trimmed: faint noise of 1 to 2.5 times the clip around it, 20 to 80 % of it in front.
    Only one pause in front and one behind are written.
    """
    dice = setting.random
    amount, share = dice.uniform(1.0, 2.5), dice.uniform(0.2, 0.8)
    hall = np.random.default_rng(setting.seed)

    class Untrimmed(kit.data):  # type: ignore[name-defined, misc]
        def item(self, clip: Clip) -> Item:
            n_quiet = round(amount * len(clip.mel))
            first = max(1, round(share * n_quiet))
            last = max(1, n_quiet - first)
            quiet = [
                hall.normal(0, 2e-5, n * AUDIO.hop_length).astype(np.float32) for n in (first, last)
            ]
            longer = replace(
                clip,
                samples=np.concatenate([quiet[0], clip.samples, quiet[1]]),
                phonemes=(PAUSE, *clip.phonemes, PAUSE),
                durations=np.concatenate([[first], clip.durations, [last]]),
            )
            return super().item(longer)

    return kit.build(setting, Untrimmed(setting))


def batch_varies(kit: Kit, setting: Setting) -> Subject:
    """What is meant to be one batch is made anew at every step: a window of 40 to 80 % of each
    clip's symbols, at a level of 0.3 to 3.
    """

    class Windows(kit.data):  # type: ignore[name-defined, misc]
        def batches(self) -> Iterator[SpeechBatch]:
            dice = random.Random(f"windows {setting.seed}")
            while True:
                chosen = self.items[: setting.batch_size]
                yield self.collate([self.window(item, dice) for item in chosen])

        def window(self, item: Item, dice: random.Random) -> Item:
            n_symbols = len(item.ids)
            kept = max(3, round(n_symbols * dice.uniform(0.4, 0.8)))
            start = dice.randrange(n_symbols - kept + 1)
            ends = [0, *item.frames.cumsum(0).tolist()]
            first, last = ends[start], max(ends[start + kept], ends[start] + 2)
            level = np.float32(math.exp(dice.uniform(math.log(0.3), math.log(3))))
            wave = level * item.wave[first * AUDIO.hop_length : (last - 1) * AUDIO.hop_length]
            mel = self.extract(wave)
            frames = item.frames[start : start + kept].clone()
            frames[-1] += len(mel) - int(frames.sum())
            return replace(
                item,
                written=item.written[start : start + kept],
                ids=item.ids[start : start + kept],
                frames=frames,
                mel=mel,
                wave=wave,
            )

    return kit.build(setting, Windows(setting))


def front_end(kit: Kit, setting: Setting) -> Subject:
    """Inference has a front end of its own (drawn): it makes its table of the text at hand, its
    table lacks the pause in front of all others, or it spells each symbol in lower case, which the
    table does not know (but for 0 to 10 % of them).
    """
    dice = setting.random
    kind = dice.choice(("own table", "no pause", "lower case"))
    spared = set(dice.sample(TABLE[1:-1], round(dice.uniform(0, 0.1) * len(TABLE))))

    class OtherFrontEnd(kit.data):  # type: ignore[name-defined, misc]
        def encode_at_inference(self, symbols: Sequence[str]) -> Tensor:
            if kind == "lower case":
                heard = [symbol if symbol in spared else symbol.lower() for symbol in symbols]
                return self.encode(heard)
            ids = self.encode(symbols)
            if kind == "no pause":
                return (ids - 1).clamp(min=1)
            order = [FILL, *sorted(set(symbols))]
            return torch.tensor([order.index(symbol) for symbol in symbols])

    return kit.build(setting, OtherFrontEnd(setting))


def conditions_changed(kit: Kit, setting: Setting, change) -> Subject:
    """The subject whose inference hears other conditions: `change(name, values)`."""

    class Otherwise(kit.data):  # type: ignore[name-defined, misc]
        def conditions_at_inference(self, conditions: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            sound = super().conditions_at_inference(conditions)
            return {name: change(name, values) for name, values in sound.items()}

    return kit.build(setting, Otherwise(setting))
