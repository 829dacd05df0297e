"""data.duration_sum and data.duration_domain fire on sums that miss and on logarithms taken for
counts.
"""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.planted import ours
from benchmarks.planted.architecture import draw_setting
from benchmarks.planted.ours_twin import build
from tests.tts_workbook.faults.examined import examined, fresh, level
from tts_core.config import AudioConfig
from tts_core.speech.audio import log_mel, resample
from tts_workbook.faults.data import duration_domain, duration_sum, text_audio_pairing
from tts_workbook.faults.data.duration_domain import Expanded, Inferred
from tts_workbook.faults.data.duration_sum import Sums
from tts_workbook.faults.planting import with_clips
from tts_workbook.measure.duration_head import DurationHead
from tts_workbook.measure.duration_layout import DurationLayout
from tts_workbook.subject import clip_batch

SUM, DOMAIN = "data.duration_sum", "data.duration_domain"


# --- sums -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "numbers, level, strength, reason",
    [
        (Sums((100.0, 51.0), (100, 50), ""), "excluded", 0.0, "add up"),
        (Sums((20.0, 11.0), (100, 50), "expm1"), "excluded", 0.0, "logarithms"),
        (Sums((50.0, 25.0), (100, 50), ""), "undecided", 0.0, "groups"),
        (Sums((33.0, 17.0), (100, 50), ""), "undecided", 0.0, "groups"),
        (Sums((100.0, 52.0), (100, 50), ""), "confirmed", 0.04, "miss"),
        (Sums((300.0, 50.0), (100, 50), ""), "confirmed", 1.0, "miss"),
    ],
)
def test_decide_on_sums(numbers, level, strength, reason):
    decision = duration_sum.decide(numbers)
    assert (decision.level, decision.where, decision.reason) == (level, "durations", reason)
    assert decision.strength == pytest.approx(strength)


@pytest.mark.parametrize("seed", (0, 1))
def test_duration_sum_fires(seed):
    assert level(duration_sum.plant(build, draw_setting(seed)), SUM) == "confirmed"
    assert level(build(draw_setting(0)), SUM) == "excluded"


def test_duration_sum_is_silent_on_logs_one_frame_and_groups_of_frames():
    def given(change):
        return replace(
            build(draw_setting(0)),
            durations=lambda batch: [change(np.array(row)) for row in clip_batch.durations(batch)],
        )

    assert level(given(np.log1p), SUM) == "excluded"
    assert level(given(lambda row: row + (np.arange(len(row)) == 0)), SUM) == "excluded"
    assert level(given(lambda row: row / 3), SUM) == "undecided"


# --- recordings that are longer, and durations under other symbols --------------------------------

WHOLE = Sums((50.0, 60.0), (50, 60), "", whole=(100, 121))


@pytest.mark.parametrize(
    "numbers, level, reason",
    [
        (WHOLE, "confirmed", "another rate"),
        (replace(WHOLE, whole=(85, 102)), "undecided", "cut"),  # 1.7: no two rates
        (replace(WHOLE, whole=(100, 90)), "undecided", "cut"),  # not alike
        (replace(WHOLE, whole=()), "excluded", "add up"),
    ],
)
def test_decide_on_recordings_that_are_longer(numbers, level, reason):
    decision = duration_sum.decide(numbers)
    assert (decision.level, decision.reason) == (level, reason)


EXPLAINED = {-2: 0.05, -1: 0.1, 0: 0.4, 1: 0.15, 2: 0.05}
RIGHT = DurationLayout(12, EXPLAINED, -0.1, 0.04)
MOVED = DurationLayout(12, {-1: 0.4, 0: 0.1, 1: 0.05}, -0.1, 0.04)


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (RIGHT, None),
        (MOVED, ("confirmed", "other places")),
        (replace(MOVED, deviation=0.07), None),  # 4.3 deviations
        (replace(RIGHT, repaired=0.3), ("undecided", "foretells nothing")),
        (replace(MOVED, n_clips=5), ("undecided", "few clips")),
        (DurationLayout(0, {}, 0.0, 0.0), None),
    ],
)
def test_decide_on_places(numbers, wanted):
    decision = duration_sum.decide_places(numbers)
    assert wanted == (decision and (decision.level, decision.reason))


def misplaced(subject, places):
    """The subject whose durations are moved along the text of each clip."""

    def moved(batch):
        clips = [replace(clip, durations=np.roll(clip.durations, places)) for clip in batch.clips]
        return clip_batch.gather(clips, batch.pad_value)

    return replace(
        subject,
        batch=moved(subject.batch),
        batches=lambda: (moved(batch) for batch in subject.batches()),
    )


@pytest.mark.parametrize("places", (1, -1))
@pytest.mark.parametrize("written", (True, False))
def test_durations_under_other_symbols_are_confirmed(places, written):
    """By the symbols, and by the ids that the model reads where there are none."""
    subject = misplaced(build(draw_setting(2)), places)
    if not written:
        subject = replace(subject, symbols=None)
    entry = examined(subject, SUM)
    assert entry.level == "confirmed"
    best = max(entry.evidence, key=lambda name: places_of(entry.evidence, name))
    assert best == f"variance explained, moved by {-places}"
    # the right text all the same
    assert level(subject, "data.text_audio_pairing") in ("excluded", "not applicable")


def places_of(evidence, name):
    return evidence[name] if name.startswith("variance") else -1.0


def test_a_few_clips_say_nothing_of_places():
    entry = examined(replace(build(draw_setting(0)), batches=None), SUM)
    assert entry.level == "undecided" and "Subject.batches" in entry.experiment
    # other texts are another cause
    swapped = text_audio_pairing.plant(build, draw_setting(0))
    assert level(swapped, SUM) in ("excluded", "undecided")


def test_a_mel_cut_to_durations_of_another_rate_is_confirmed():
    """Features at 44.1 kHz, durations counted at 22.05 kHz, mels cut to their sum."""
    recipe = AudioConfig(sample_rate=44_100, f_max=8000.0)

    def features(samples, rate):
        return log_mel(resample(samples, rate, 44_100), recipe)

    def cut(clip):
        mel = features(clip.samples, clip.sample_rate)
        return replace(clip, mel=mel[: int(clip.durations.sum())])

    setting = with_clips(draw_setting(0), cut)
    subject = build(setting, extract=features)
    entry = examined(subject, SUM)
    assert entry.level == "confirmed" and entry.where == "durations"
    assert entry.evidence["frames of the recordings / Σ durations"] == pytest.approx(2, rel=0.02)
    assert level(subject, "data.stale_features") == "excluded"


# --- counts and logarithms ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (Expanded(100, 100.0, None, "", False, True), None),
        (
            Expanded(100, 20.0, None, "expm1", False, True),
            ("suspected", "durations", 0.0, "logarithms"),
        ),
        (
            Expanded(100, 20.0, 20, "expm1", False, True),
            ("confirmed", "durations", 0.8, "logs as counts"),
        ),
        (
            Expanded(100, 100.0, 20, "", True, False),
            ("confirmed", "durations", 0.8, "logs as counts"),
        ),
        # short, and no logarithm explains it
        (Expanded(100, 100.0, 20, "", False, False), None),
        (
            Expanded(100, 100.0, 99, "", False, False),
            ("excluded", "durations", 0.0, "long enough"),
        ),
        # inference has to tell
        (Expanded(100, 100.0, 99, "", False, True), None),
    ],
)
def test_decide_on_training(numbers, wanted):
    decision = duration_domain.decide_training(numbers)
    said = decision and (decision.level, decision.where, decision.strength, decision.reason)
    assert said == wanted


def head(learnt, taken_for):
    return DurationHead("predictor", learnt, taken_for, 0.1, 0.5, (1.0, 2.0))


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (Inferred(False, None), None),
        (Inferred(True, None), ("undecided", "", 0.0, "no head")),
        (Inferred(True, head("", "frames")), ("undecided", "", 0.0, "no head")),
        (Inferred(True, head("frames", "")), ("undecided", "", 0.0, "no head")),
        (Inferred(True, head("frames", "frames")), ("excluded", "predictor", 0.0, "one domain")),
        (
            Inferred(True, head("log frames", "frames")),
            ("confirmed", "predictor", 1.0, "two domains"),
        ),
    ],
)
def test_decide_on_inference(numbers, wanted):
    decision = duration_domain.decide_inference(numbers)
    said = decision and (decision.level, decision.where, decision.strength, decision.reason)
    assert said == wanted


def domain_setting(predictor: bool):
    """A setting for which the plant draws the predictor, or the batch."""
    return next(
        setting
        for setting in (draw_setting(seed, batch_size=1) for seed in range(20))
        if (setting.random.random() < 0.5) == predictor
    )


@pytest.mark.parametrize("predictor, where", ((False, "durations"), (True, "duration_predictor")))
def test_duration_domain_fires_in_training_and_in_inference(predictor, where):
    entry = examined(ours.PLANTS[DOMAIN](domain_setting(predictor)), DOMAIN)
    assert entry.level == "confirmed" and entry.where == where


@pytest.mark.parametrize("plant", ("clean", "data.duration_sum"))
def test_duration_domain_is_silent_on_clean_and_on_wrong_sums(plant):
    setting = draw_setting(1, batch_size=1)
    subject = build(setting) if plant == "clean" else ours.PLANTS[plant](setting)
    assert level(subject, DOMAIN) == "excluded"


def test_an_untrained_duration_head_is_not_accused():
    subject = build(draw_setting(1, batch_size=1))
    assert examined(subject, DOMAIN, fresh(subject)).level == "undecided"
