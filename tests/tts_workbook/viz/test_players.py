"""What is heard is what was handed over: level, samples and length; labels are text."""

import base64
import io
import re

import numpy as np
import pytest
import soundfile

from tts_core import WorkbookError
from tts_workbook.viz import play, play_row

RATE = 22_050
TONE = 0.5 * np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)


def heard(player):
    """(samples, rate) of each audio element, decoded as a browser would."""
    sources = re.findall(r'<audio [^>]*src="data:audio/flac;base64,([^"]+)"', player._repr_html_())
    return [soundfile.read(io.BytesIO(base64.b64decode(source))) for source in sources]


def rms(samples):
    return np.sqrt(np.mean(samples**2))


def test_decoded_audio_equals_the_input_within_sixteen_bits():
    ((samples, rate),) = heard(play(TONE, RATE, "tone"))
    assert rate == RATE and len(samples) == len(TONE)
    assert np.abs(samples - TONE).max() <= 0.5 / 32768 + 1e-9


def test_two_clips_60_db_apart_stay_60_db_apart_alone_and_in_a_row():
    quiet = TONE / 1000
    alone = [heard(play(samples, RATE, "x"))[0][0] for samples in (TONE, quiet)]
    row = [samples for samples, _ in heard(play_row({"loud": TONE, "quiet": quiet}, RATE))]
    for loud, soft in (alone, row):
        # 16 bits are that exact
        assert 20 * np.log10(rms(loud) / rms(soft)) == pytest.approx(60, abs=0.3)


def test_level_peak_and_duration_are_shown():
    page = play(TONE, RATE, "tone").html
    assert "1.00 s, level −9.0 dBFS rms, peak 0.500" in page
    assert "attenuated" not in page
    assert "digital silence" in play(np.zeros(100), RATE, "nothing").html
    assert repr(play(TONE, RATE, "tone")) == "tone: 1.00 s, level −9.0 dBFS rms, peak 0.500"


def test_beyond_full_scale_is_refused_or_attenuated_alike_and_said():
    with pytest.raises(WorkbookError, match=r"samples of 'hot': peak 2.000.*pass peak=0.95"):
        play_row({"hot": 4 * TONE, "tone": TONE}, RATE)
    player = play_row({"hot": 4 * TONE, "tone": TONE}, RATE, peak=0.5)
    (hot, _), (tone, _) = heard(player)
    assert np.abs(hot).max() == pytest.approx(0.5, abs=1e-4)
    assert rms(hot) / rms(tone) == pytest.approx(4, rel=1e-3)
    assert player.html.count("attenuated by 12.0 dB") == 2


def test_nothing_is_ever_raised():
    ((samples, _),) = heard(play(TONE / 10, RATE, "soft", peak=1.0))
    assert np.abs(samples).max() == pytest.approx(0.05, abs=1e-4)


def test_bad_input_is_refused_by_name():
    bad = TONE.copy()
    bad[7] = np.nan
    with pytest.raises(
        WorkbookError, match=r"samples of 'mine': 1 of 22050 values are not finite.*\(7,\)"
    ):
        play(bad, RATE, "mine")
    with pytest.raises(WorkbookError, match="samples of 'empty': shape"):
        play([], RATE, "empty")
    with pytest.raises(WorkbookError, match="1 axes are wanted"):
        play(np.zeros((2, 100)), RATE, "stereo")
    with pytest.raises(WorkbookError, match="sample_rate = 0 Hz"):
        play(TONE, 0, "x")
    with pytest.raises(WorkbookError, match=r"peak = 1\.5"):
        play(TONE, RATE, "x", peak=1.5)


def test_size_is_bounded_and_a_cut_is_said():
    # the worst case: noise does not compress
    noise = np.random.default_rng(0).uniform(-1, 1, 61 * RATE)
    player = play(noise, RATE, "long")
    ((samples, _),) = heard(player)
    assert len(samples) == 30 * RATE
    assert "first 30 s of 61.0 s" in player.html
    assert len(player.html) < 1.02 * 30 * RATE * 2 * 4 / 3


def test_speech_like_audio_costs_less_than_a_wav():
    assert len(play(TONE, RATE, "tone").html) < 0.7 * RATE * 2 * 4 / 3


def test_labels_are_text_not_markup():
    page = play(TONE, RATE, '"><script>alert(1)</script>').html
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert 'aria-label="&quot;&gt;' in page


def test_one_sample_plays():
    ((samples, _),) = heard(play([0.25], RATE, "click"))
    assert samples.tolist() == [0.25]
