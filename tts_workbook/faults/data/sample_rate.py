"""data.sample_rate: features were made at another sample rate or hop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from tts_core.config import AudioConfig
from tts_core.speech.audio import log_mel, resample
from tts_core.speech.dataset import Clip
from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.data._heard import Heard, heard_table, heard_targets
from tts_workbook.faults.planting import Build, Setting, rescaled, with_clips
from tts_workbook.lab.lab import Lab
from tts_workbook.subject.subject import Subject

SHIFTED = Bar(0.03, control="the recording's own frequency scale: half a semitone")
# correlation at the best frequency scale: good enough to believe it; as good as a right one
MATCH = Bar(
    0.85, absolute="a correlation, 1 for a perfect copy: other clips of one voice reach 0.5"
)
CLEAR_MATCH = Bar(0.93, absolute="a correlation, 1 for a perfect copy: right copies reach 0.95")
# frequency scale times length is 1 within this where the rate alone is wrong
RATE_ALONE = Bar(0.05, control="frequency scale times length of a copy of another rate, 1 exactly")
RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # Hz
# a scale within this of a ratio of two of them is that ratio
IS_RATIO = Bar(0.012, convention="sampling rates in use (RATES): half of what parts two ratios")


def measure(lab: Lab) -> Heard:
    """Targets through the vocoder: their length and frequency scale speak of rate and hop."""
    return heard_targets(lab)


def decide(numbers: Heard) -> Decision:
    """Pure: which of the ends it is."""
    shifted = abs(numbers.frequency - 1) > SHIFTED
    if numbers.seconds_off and numbers.match > MATCH:
        return Decision("confirmed", numbers.source, 1.0, _off(numbers, shifted))
    clear = numbers.match > CLEAR_MATCH and _ratio_of_rates(numbers.frequency)
    if shifted and clear:
        return Decision("confirmed", numbers.source, 1.0, "mel filters")
    if numbers.seconds_off or (shifted and numbers.match <= MATCH):
        return Decision("undecided", reason="too unlike")
    return Decision("excluded", numbers.source, reason="as recorded")


def _off(numbers: Heard, shifted: bool) -> str:
    if abs(numbers.frequency * numbers.seconds - 1) < RATE_ALONE:
        return "rate"
    return "rate and hop" if shifted else "hop"


def _ratio_of_rates(ratio: float) -> bool:
    return any(abs(ratio * a / b - 1) < IS_RATIO for a in RATES for b in RATES if a != b)


COMPARED = "duration and frequency scale of the copy-synthesis against the recording"
OFF = {
    "rate": "sample rate",
    "rate and hop": "sample rate and hop",
    "hop": "hop",
    "mel filters": "sample rate of the mel filters",
}


def tell(numbers: Heard, decision: Decision) -> Telling:
    evidence = heard_table(numbers)
    if decision.reason == "too unlike":
        return Telling(f"{COMPARED}: the copy is too unlike the recording to tell", evidence)
    if decision.reason in OFF:
        evidence["off"] = OFF[decision.reason]
    return Telling(COMPARED, evidence)


def plant(build: Build, setting: Setting) -> Subject:
    """Audio at another rate (16, 32 or 44.1 kHz, drawn) is analysed as if it were 22.05 kHz;
    durations follow its frames.
    """
    rate = setting.random.choice([16_000, 32_000, 44_100])

    def extract(samples: np.ndarray, given: int) -> Tensor:
        return log_mel(resample(samples, given, rate), AudioConfig())

    def spoilt(clip: Clip) -> Clip:
        mel = extract(clip.samples, clip.sample_rate)
        return replace(clip, mel=mel, durations=rescaled(clip.durations, len(mel)))

    return build(with_clips(setting, spoilt), extract=extract)


CAUSE = Cause(
    id="data.sample_rate",
    title="features were made at another sample rate or hop",
    experiment="duration and pitch of the copy-synthesis against the recording",
    fix="resample the audio to the recipe's rate before the features",
    experiments=(Experiment(measure, decide, tell, needs=("audio", "vocode")),),
    for_the_ear=True,
    plant=plant,
)
