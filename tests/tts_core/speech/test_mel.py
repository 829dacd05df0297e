"""The log-mel is librosa's in every recipe, and its inverse gives intelligible speech."""

import dataclasses
import re

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pystoi import stoi

from tests.corpora import LIBRIVOX, tone
from tts_core.config import AudioConfig
from tts_core.errors import WorkbookError
from tts_core.speech.audio import griffin_lim, load_wav, log_mel, mel_to_magnitude

RECIPES = {
    "default": AudioConfig(),
    "seed": AudioConfig.seed(),
    "power, slaney, 16 kHz": AudioConfig(
        sample_rate=16_000, n_fft=512, win_length=400, hop_length=160, power=2.0
    ),
}
WAVS = sorted((LIBRIVOX / "wavs").glob("*.wav"))


# --- log-mels -------------------------------------------------------------------------------------


def librosa_mel(samples: np.ndarray, config: AudioConfig) -> np.ndarray:
    """The same recipe by an independent implementation: (M, T), linear."""
    return librosa.feature.melspectrogram(
        y=samples,
        sr=config.sample_rate,
        n_fft=config.n_fft,
        win_length=config.win_length,
        hop_length=config.hop_length,
        n_mels=config.n_mels,
        fmin=config.f_min,
        fmax=config.f_max,
        power=config.power,
        htk=config.mel_scale == "htk",
        norm=None if config.mel_norm == "none" else config.mel_norm,
        center=True,
        pad_mode="reflect",
    )


@pytest.mark.parametrize("wav", WAVS, ids=lambda wav: wav.stem[-4:])
@pytest.mark.parametrize("recipe", RECIPES)
def test_log_mel_equals_librosa(recipe, wav):
    config = RECIPES[recipe]
    samples = load_wav(wav, config.sample_rate)
    mel = log_mel(samples, config)
    ours, theirs = mel.exp().T.numpy(), np.maximum(librosa_mel(samples, config), config.log_floor)
    if config.log_ceiling is not None:
        theirs = np.minimum(theirs, np.exp(config.log_ceiling))
    assert mel.dtype == torch.float32
    # 1e-5 in linear magnitude; power mels reach the thousands, so theirs is relative to the value
    # as well
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0 if config.power == 1.0 else 1e-4)


@settings(max_examples=40, deadline=None)
@given(length=st.integers(513, 20_000))
def test_frames_are_one_plus_length_over_hop(length):
    mel = log_mel(tone(1.0, 20_000)[:length], AudioConfig())
    assert mel.shape == (1 + length // 256, 80)


def test_floor_and_ceiling_clamp():
    silence = log_mel(np.zeros(4000, np.float32), AudioConfig())
    assert torch.all(silence == torch.tensor(1e-5).log())
    seed = AudioConfig.seed()
    loud = log_mel(tone(amplitude=1.0), seed)
    assert loud.max() == 0.0 and loud.min() >= -11.5 - 1e-5
    assert log_mel(tone(amplitude=1.0), dataclasses.replace(seed, log_ceiling=None)).max() > 5.0


def test_filterbank_depends_on_the_whole_recipe():
    samples = tone()
    mels = [
        log_mel(samples, dataclasses.replace(AudioConfig(), **change))
        for change in (
            {},
            {"f_max": 7_000.0},
            {"mel_norm": "none"},
            {"mel_scale": "htk"},
            {"power": 2.0},
            {"sample_rate": 24_000},
        )
    ]
    for i, first in enumerate(mels):
        assert not any(torch.allclose(first, second) for second in mels[i + 1 :])


@pytest.mark.parametrize("samples", [np.zeros(512, np.float32), np.zeros((1, 4000), np.float32)])
def test_log_mel_names_an_impossible_shape(samples):
    with pytest.raises(WorkbookError, match=re.escape(str(samples.shape))):
        log_mel(samples, AudioConfig())


# --- inverse --------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_inverted_mel_has_the_mel_it_was_made_from(recipe):
    config = RECIPES[recipe]
    mel = log_mel(load_wav(WAVS[1], config.sample_rate), config)
    magnitude = mel_to_magnitude(mel, config)
    filters = torch.from_numpy(
        librosa.filters.mel(
            sr=config.sample_rate,
            n_fft=config.n_fft,
            n_mels=config.n_mels,
            fmin=config.f_min,
            fmax=config.f_max,
            htk=config.mel_scale == "htk",
            norm=None if config.mel_norm == "none" else config.mel_norm,
        )
    )
    energies = filters @ magnitude**config.power
    assert magnitude.shape == (config.n_fft // 2 + 1, len(mel)) and magnitude.min() >= 0
    assert torch.linalg.norm(energies - mel.exp().T) < 5e-3 * torch.linalg.norm(mel.exp())


@pytest.mark.parametrize("wav", WAVS, ids=lambda wav: wav.stem[-4:])
def test_copy_synthesis_is_intelligible_whatever_the_phases(wav):
    config = AudioConfig()
    samples = load_wav(wav)
    mel = log_mel(samples, config)
    for phase_seed in range(2):
        copy = griffin_lim(mel, config, phase_seed=phase_seed)
        assert len(copy) == (len(mel) - 1) * config.hop_length
        assert stoi(samples[: len(copy)], copy, config.sample_rate) >= 0.95


def test_recipe_of_the_findings_is_inverted_up_to_its_ceiling():
    """Without the ceiling the power recipe copies as well as the default one; its clamp at 0.0
    loses the speech.
    """
    samples = load_wav(WAVS[1])
    scores = {}
    for ceiling in (None, 0.0):
        config = dataclasses.replace(AudioConfig.seed(), log_ceiling=ceiling)
        copy = griffin_lim(log_mel(samples, config), config)
        scores[ceiling] = stoi(samples[: len(copy)], copy, config.sample_rate)
    assert scores[None] >= 0.95 and scores[0.0] < 0.85


@pytest.mark.parametrize("mel", [torch.full((3, 80), -5.0), torch.full((50, 80), torch.nan)])
def test_mel_that_cannot_be_heard_is_refused(mel):
    with pytest.raises(WorkbookError, match="griffin_lim: a log-mel of shape"):
        griffin_lim(mel, AudioConfig())


def test_phases_follow_their_seed_and_nothing_else():
    config = AudioConfig()
    mel = log_mel(load_wav(WAVS[1]), config)[:60]
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = griffin_lim(mel, config, n_iterations=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, griffin_lim(mel, config, n_iterations=4))
    assert not np.allclose(first, griffin_lim(mel, config, n_iterations=4, phase_seed=1))
