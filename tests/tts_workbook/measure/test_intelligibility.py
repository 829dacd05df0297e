"""The judges: word error rate, closed-set identification, STOI, MCD."""

import math

import numpy as np
import pytest
import torch

from tts_core.config import AudioConfig
from tts_core.errors import WorkbookError
from tts_core.speech.audio import griffin_lim
from tts_workbook.measure.intelligibility import (
    bundled_texts,
    identify_text,
    mel_cepstral_distortion,
    mel_word_error_rate,
    recognise,
    stoi,
    stoi_if_possible,
    word_error_rate,
)


@pytest.fixture(scope="module")
def clip(librivox):
    return librivox.clip("0930")


def test_word_error_rate_of_known_edits():
    assert word_error_rate("he might even have", "he might even have") == 0.0
    assert word_error_rate("He might, even have!", "he MIGHT even") == 0.25
    assert word_error_rate("he might", "") == 1.0
    with pytest.raises(WorkbookError, match="holds no words"):
        word_error_rate("...", "he might")


def test_the_recogniser_understands_the_recording_and_not_a_collapsed_mel(clip):
    assert word_error_rate(clip.text, recognise(clip.samples, clip.sample_rate)) <= 0.4
    collapsed = clip.mel.median(dim=0).values.expand_as(clip.mel)
    rate, heard = mel_word_error_rate(collapsed, AudioConfig(), clip.text, n_seeds=2)
    assert rate >= 0.9 and len(heard) == 2


def test_recognition_does_not_depend_on_what_was_heard_before(clip, librivox):
    first = recognise(clip.samples, clip.sample_rate)
    recognise(librivox.clip("0880").samples, clip.sample_rate)
    assert recognise(clip.samples, clip.sample_rate) == first


def test_closed_set_identification_picks_each_recording_and_leaves_the_recogniser_usable(
    librivox, clip
):
    texts = bundled_texts(clip)
    assert len(texts) == 69
    before = recognise(clip.samples, clip.sample_rate)
    picked = [identify_text(c.samples, c.sample_rate, texts) for c in librivox.clips]
    own = [name == c.id for name, c in zip(picked, librivox.clips, strict=True)]
    assert sum(own) >= 4
    assert recognise(clip.samples, clip.sample_rate) == before


def test_stoi_falls_with_noise_and_wants_alignment(clip):
    noise = np.random.default_rng(0).standard_normal(len(clip.samples)).astype(np.float32)
    clean, noisy = (
        stoi(clip.samples, clip.samples, clip.sample_rate),
        stoi(clip.samples + 0.2 * noise, clip.samples, clip.sample_rate),
    )
    assert clean == pytest.approx(1.0, abs=1e-6) and noisy < 0.7
    with pytest.raises(WorkbookError, match="time-aligned"):
        stoi(clip.samples[:-10_000], clip.samples, clip.sample_rate)


def test_mcd_of_known_distortions(clip):
    assert mel_cepstral_distortion(clip.mel, clip.mel) == 0.0
    # level is c0, left out
    assert mel_cepstral_distortion(clip.mel + 3.0, clip.mel) == pytest.approx(0.0, abs=1e-6)
    # second coefficient, unit norm
    basis = torch.cos(torch.pi * (torch.arange(80) + 0.5) * 2 / 80) * (2 / 80) ** 0.5
    expected = 10 / np.log(10) * np.sqrt(2) * 0.7
    assert mel_cepstral_distortion(clip.mel + 0.7 * basis, clip.mel) == pytest.approx(
        expected, rel=1e-4
    )
    with pytest.raises(WorkbookError, match="equal shapes"):
        mel_cepstral_distortion(clip.mel[:-1], clip.mel)


def test_copy_synthesis_is_understood_like_the_recording(clip):
    copy = griffin_lim(clip.mel, AudioConfig())
    assert stoi(copy, clip.samples, clip.sample_rate) >= 0.95
    rate, _ = mel_word_error_rate(clip.mel, AudioConfig(), clip.text, n_seeds=2)
    assert rate <= word_error_rate(clip.text, recognise(clip.samples, clip.sample_rate)) + 2 / len(
        clip.text.split()
    )


def test_where_no_stoi_is_possible_it_is_no_number(clip):
    samples, rate = clip.samples, clip.sample_rate
    silent = np.full_like(samples, np.nan)
    assert stoi_if_possible(samples, rate, samples, rate) == pytest.approx(1.0)
    others = [(samples, 2 * rate), (samples[:-10_000], rate), (silent, rate), (samples[:900], rate)]
    for other, own_rate in others:
        assert math.isnan(stoi_if_possible(other, own_rate, samples, rate))
    assert math.isnan(stoi_if_possible(samples[:4000], rate, samples[:4000], rate))
