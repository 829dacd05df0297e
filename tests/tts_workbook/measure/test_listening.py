"""One judge: the copy-synthesis is its own best, lengths decide what is measured, phases are
counted.
"""

import dataclasses

import numpy as np
import pytest

from tts_core.config import AudioConfig
from tts_core.speech.audio import griffin_lim, log_mel
from tts_workbook.measure.intelligibility import word_error_rate
from tts_workbook.measure.listening import Judge, Judged, ranked, ranking_lines


@pytest.fixture(scope="module")
def judge(librivox):
    return Judge(librivox.clip("0930"), AudioConfig())


def test_the_recordings_mel_is_the_copy_synthesis_itself(judge):
    found = judge(judge.clip.mel, n_phases=0, warped=True)
    assert found.stoi == found.stoi_warped == pytest.approx(1.0, abs=1e-6) and found.mcd == 0.0
    assert found.heard == found.rates == () and found.wer() is None and found.says == ""
    assert np.array_equal(found.samples, judge.copy)


def test_words_are_counted_per_phase_and_averaged_over_the_first_ones(judge):
    found = judge(judge.clip.mel, n_phases=2)
    assert len(found.heard) == 2
    assert found.rates == tuple(word_error_rate(judge.clip.text, words) for words in found.heard)
    assert found.wer(1) == found.rates[0] and found.wer(0) is None
    assert found.wer() == pytest.approx(np.mean(found.rates))
    assert found.wer() <= 0.5 and found.says in found.heard


def test_another_length_has_no_aligned_numbers_and_still_a_warped_one(judge):
    slow = judge.clip.mel.repeat_interleave(2, dim=0)
    found = judge(slow, n_phases=0, warped=True)
    assert found.stoi is None and found.mcd is None and found.stoi_warped > 0.95
    assert len(found.samples) == (len(slow) - 1) * 256


def test_what_is_too_short_for_audio_has_no_numbers(judge):
    short = judge(judge.clip.mel[:3], warped=True)
    assert (
        short.samples is short.stoi is short.stoi_warped is short.mcd is short.wer() is None
        and short.heard == ()
    )
    assert judge(judge.clip.mel[:4], n_phases=0).samples is not None


def test_another_recipe_goes_through_the_vocoder_in_its_own_units(judge):
    seed = AudioConfig.seed()
    mel = log_mel(judge.clip.samples, seed)
    found = judge(mel, n_phases=0, recipe=seed)
    assert found.mcd is None and 0.5 < found.stoi < 0.8
    assert np.array_equal(found.samples, griffin_lim(mel, seed))


def test_other_languages_are_not_recognised(librivox):
    foreign = dataclasses.replace(librivox.clip("0930"), language="ru")
    found = Judge(foreign, AudioConfig())(foreign.mel, n_phases=2)
    assert found.heard == () and found.wer() is None and found.stoi == pytest.approx(1.0, abs=1e-6)


def made(stoi, warped=None, rates=()):
    return Judged(None, None, stoi, warped, None, ("x",) * len(rates), rates)


def test_the_worst_stands_first_and_the_warped_number_counts_where_there_is_one():
    judged = {
        "good": made(0.9),
        "late": made(0.2, 0.85),
        "bad": made(0.4, rates=(0.5, 1.0)),
        "nothing": made(None),
    }
    assert ranked(judged) == {"bad": 0.4, "late": 0.85, "good": 0.9}
    lines = ranking_lines(judged, n_phases=1)
    assert [line.split()[0] for line in lines] == ["bad", "late", "good", "nothing"]
    assert (
        "STOI 0.400" in lines[0]
        and "WER 0.500" in lines[0]
        and "warped 0.850" in lines[1]
        and "WER   -" in lines[2]
    )
