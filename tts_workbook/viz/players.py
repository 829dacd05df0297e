"""Audio players for notebooks and the report that never lie about level.

`IPython.display.Audio` scales every clip to full scale, so two clips 60 dB apart sound alike, and
one NaN silences a clip. These players write the samples as they are into a 16-bit FLAC file inside
the page, show the level, and refuse what cannot be played honestly. They are plain HTML: a static
export plays too.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import soundfile

from tts_core.errors import WorkbookError
from tts_workbook.viz.inputs import finite_array, finite_number, named

LONGEST_PLAYED = 30.0  # seconds; longer clips are cut, and the label says so
LOWEST_RATE, HIGHEST_RATE = 4_000, 192_000  # Hz; what browsers decode
FULL_SCALE = 1.0  # samples beyond cannot be stored
CARD = (
    "display:inline-block;vertical-align:top;box-sizing:border-box;width:290px;max-width:100%;"
    "color:inherit;margin:3px 10px 8px 0;padding:5px 8px;border:1px solid #9a9a9a;"
    "border-radius:5px;font:12px/1.45 sans-serif"
)


class Player:
    """One or several players side by side; Jupyter shows it as the last expression of a cell or
    through `display`.
    """

    def __init__(self, cards: list[str], lines: list[str]) -> None:
        self._cards, self._lines = cards, lines

    @property
    def html(self) -> str:
        """The players as an HTML fragment that loads nothing from elsewhere; labels are escaped."""
        return '<div class="tts-players">' + "".join(self._cards) + "</div>"

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return "\n".join(self._lines)


def play(samples: Any, sample_rate: int, label: str, peak: float | None = None) -> Player:
    """A player of `samples` (L,), floats in [-1, 1], at `sample_rate` Hz, with label, duration,
    level and peak.

    The level is never raised. Samples beyond ±1 are refused, unless `peak` in (0, 1] says how far
    down to bring a louder clip: the label then states the attenuation. More than 30 s are cut, and
    the label says that too. Raises WorkbookError for empty or non-finite samples, samples beyond
    full scale and rates that browsers do not play.
    """
    return play_row({label: samples}, sample_rate, peak)


def play_row(clips: Mapping[str, Any], sample_rate: int, peak: float | None = None) -> Player:
    """Players side by side, one per label, all with the same gain, so that what sounds softer is
    softer.

    With `peak` in (0, 1] the loudest clip is brought down to it where it is louder, and every other
    clip by as many dB; otherwise samples beyond ±1 are refused. The rest is as in `play`.
    """
    sample_rate = _rate(sample_rate)
    clips = {
        str(label): finite_array(f"samples of {label!r}", samples, dimensions=1)
        for label, samples in named("clips", clips).items()
    }
    loudest = max(clips, key=lambda label: np.abs(clips[label]).max())
    gain = _gain_of_row(loudest, float(np.abs(clips[loudest]).max()), peak)
    cards, lines = [], []
    for label, samples in clips.items():
        facts = sound_facts(samples * gain, sample_rate, gain)
        kept = samples[: int(LONGEST_PLAYED * sample_rate)] * gain
        cards.append(_card(label, facts, flac_bytes(kept, sample_rate)))
        lines.append(f"{label}: {facts}")
    return Player(cards, lines)


def level_db(samples: np.ndarray) -> float:
    """Root mean square in dB re full scale (a full-scale sine is -3.0 dBFS); -inf for digital
    silence.
    """
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    return 20 * np.log10(rms) if rms > 0 else -np.inf


def sound_facts(samples: np.ndarray, sample_rate: int, gain: float = 1.0) -> str:
    """Duration, level and peak of what is played, in words, with whatever was done to it."""
    seconds = len(samples) / sample_rate
    kept = samples[: int(LONGEST_PLAYED * sample_rate)]
    level = level_db(kept)
    length = f"{seconds:.2f} s"
    if len(kept) < len(samples):
        length = f"first {LONGEST_PLAYED:.0f} s of {seconds:.1f} s"
    loudness = "digital silence" if np.isinf(level) else f"level {level:.1f} dBFS rms"
    facts = [length, loudness, f"peak {np.abs(kept).max():.3f}"]
    if gain < 1:
        facts.append(f"attenuated by {-20 * np.log10(gain):.1f} dB")
    return ", ".join(facts).replace("-", "−")


def flac_bytes(samples: np.ndarray, sample_rate: int) -> bytes:
    """`samples` (L,) in [-1, 1] as a 16-bit FLAC file: lossless but for the rounding, about half a
    WAV's size.
    """
    integers = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
    target = io.BytesIO()
    soundfile.write(target, integers, sample_rate, format="FLAC", subtype="PCM_16")
    return target.getvalue()


def _card(label: str, facts: str, flac: bytes) -> str:
    name = html.escape(label, quote=True)
    source = "data:audio/flac;base64," + base64.b64encode(flac).decode("ascii")
    return (
        f'<div style="{CARD}"><div style="font-weight:bold;overflow-wrap:anywhere">{name}</div>'
        f'<audio controls preload="metadata" aria-label="{name}" style="width:100%;height:34px" '
        f'src="{source}"></audio>'
        f'<div style="opacity:.8">{html.escape(facts)}</div></div>'
    )


def _gain_of_row(label: str, loudest: float, peak: float | None) -> float:
    """What every clip of a row is multiplied by; `loudest` is the peak of the clip `label`, `peak`
    what it may have.
    """
    if peak is not None:
        peak = finite_number("peak", peak)
        if not 0 < peak <= FULL_SCALE:
            raise WorkbookError(
                f"peak = {peak:g}, but it must lie in (0, 1]; a louder clip is brought down to it"
            )
        return min(1.0, peak / loudest) if loudest > 0 else 1.0
    if loudest > FULL_SCALE:
        raise WorkbookError(
            f"samples of {label!r}: peak {loudest:.3f}, but a player holds at most 1.0; pass"
            " peak=0.95 to have every clip of the row attenuated alike, and the label say so"
        )
    return 1.0


def _rate(sample_rate: Any) -> int:
    rate = finite_number("sample_rate", sample_rate)
    if rate != int(rate) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise WorkbookError(
            f"sample_rate = {rate:g} Hz, but players take whole rates from {LOWEST_RATE:,} to "
            f"{HIGHEST_RATE:,} Hz"
        )
    return int(rate)
