"""The offline recogniser: words without marks, the same on every call, and a closed set of
texts.
"""

import numpy as np
import pytest

from tests.corpora import ID_0880, ID_0930, LIBRIVOX, RATE
from tts_core.speech.audio import read_wav
from tts_workbook.corpus.data_report import recogniser_word_error_rate
from tts_workbook.corpus.recogniser import boundary_seconds, recognise, recognise_one_of


def sentence(clip_id: str) -> np.ndarray:
    return read_wav(LIBRIVOX / "wavs" / f"{clip_id}.wav")[0]


def test_words_of_the_default_clip():
    assert recognise(sentence(ID_0930), RATE) == "he might even have been made the amiable himself"


def test_words_do_not_depend_on_what_was_heard_before():
    rng = np.random.default_rng(0)
    first = recognise(sentence(ID_0880), RATE)
    recognise(rng.normal(0, 0.1, RATE).astype(np.float32), RATE)
    assert recognise(sentence(ID_0880), RATE) == first


def test_bundled_sentences_are_recognised_as_measured(librivox):
    """The transcripts belong to the recordings; over all five sentences the rate is 0.12 to 0.38,
    mean 0.27.
    """
    rates = [
        recogniser_word_error_rate(clip.text, sentence(clip.id), RATE)
        for clip in librivox.clips[1:3]
    ]
    assert rates == [pytest.approx(0.375), pytest.approx(0.286, abs=0.01)]


def test_noise_has_no_words():
    assert recognise(np.random.default_rng(0).normal(0, 1e-4, RATE).astype(np.float32), RATE) == ""


def test_closed_set_identification(librivox):
    texts = [clip.text for clip in librivox.clips]
    assert [recognise_one_of(sentence(clip.id), RATE, texts) for clip in librivox.clips] == texts


def test_boundaries_lie_between_the_centres_of_acoustic_frames():
    centres = [frame * 0.010 + 0.0256 / 2 for frame in range(3)]
    assert boundary_seconds(1) == pytest.approx((centres[0] + centres[1]) / 2)
    assert boundary_seconds(2) == pytest.approx((centres[1] + centres[2]) / 2)
    assert boundary_seconds(0) == 0.0
