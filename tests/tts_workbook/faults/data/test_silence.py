"""data.silence fires where the ends of the clip are silent for long, and only there."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.planted.architecture import draw_setting, short_clips
from benchmarks.planted.ours_twin import build
from tests.tts_workbook.faults.examined import examined, level
from tts_workbook.faults.data.silence import SILENT_SHARE, Silence, Twins, decide, plant
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.seen_clips import clips_of
from tts_workbook.measure.silent_ends import silent_ends
from tts_workbook.subject import clip_batch

CAUSE = "data.silence"


@pytest.fixture(scope="module")
def clean():
    return build(draw_setting(0))


def silence(on_all, on_speech, trimmed):
    """Of a subject whose best constants are 1 over all frames and 2 on the speech."""
    return Silence(0.5, Twins(1.0, 2.0, on_all, on_speech, trimmed))


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (Silence(0.34, None), ("excluded", "audio", 0.0, "little")),
        (Silence(0.4, None), ("suspected", "audio", 0.4, "no twin")),
        # the figure flatters: 0.5 of the constant on the speech, 0.4 over all
        (silence(0.4, 1.0, 1.0), ("confirmed", "audio", 0.5, "twins")),
        # the speech is learnt worse than without the silence
        (silence(0.5, 1.0, 0.9), ("confirmed", "audio", 0.5, "twins")),
        (silence(0.5, 1.0, 1.0), ("suspected", "audio", 0.5, "twins")),
    ],
)
def test_decide(numbers, wanted):
    decision = decide(numbers)
    assert (decision.level, decision.where, decision.strength, decision.reason) == wanted


def test_silence_fires_only_where_it_is_long(clean):
    entry = examined(plant(build, draw_setting(0, batch_size=1)), CAUSE)
    assert entry.level == "confirmed" and entry.evidence["silent share at the ends"] > 0.4
    lab = Lab(clean)
    assert examined(clean, CAUSE, lab).level == "excluded" and not lab.courses


@pytest.mark.parametrize(
    "part, loudness",
    ((slice(1, 3), 0.0), (slice(0, 2), 0.03)),
    ids=("a pause", "a quiet first half"),
)
def test_silence_is_that_at_the_ends_and_no_quiet_speech(clean, part, loudness):
    def changed(batch):
        clips = []
        for samples, rate in clip_batch.audio(batch):
            quarters = np.array_split(samples.copy(), 4)
            for quarter in quarters[part]:
                quarter *= loudness
            clips.append((np.concatenate(quarters), rate))
        return clips

    assert level(replace(clean, audio=changed), CAUSE) == "excluded"


def test_bundled_clips_have_less_silence_than_the_threshold():
    lab = Lab(build(draw_setting(0, n_clips=2)))
    for clip in short_clips()[::4]:
        batch = clip_batch.gather([clip])
        first, last = silent_ends(clips_of(lab, batch)[0])
        assert (first + last) / len(clip.mel) < 0.7 * SILENT_SHARE
