"""Wav files in and out: every fault is refused with file, value and remedy, and nothing is lost on
the way.
"""

import numpy as np
import pytest

from tests.corpora import LIBRIVOX, RATE, int16, tone, wav_bytes
from tts_core.errors import WorkbookError
from tts_core.speech.audio import (
    MAX_SECONDS,
    atomic_path,
    load_wav,
    read_wav,
    resample,
    save_wav,
    wav_info,
)

WAVS = sorted((LIBRIVOX / "wavs").glob("*.wav"))
BAD_WAVS = {
    # name: (bytes of the file, what the message must say)
    "empty": (b"", "empty"),
    "not WAV": (b"ID3\x04" + bytes(5000), "not a WAV file.*ffmpeg"),
    "text": (b"hello, I am no audio", "not a WAV file.*ffmpeg"),
    "header only": (wav_bytes(int16(tone()))[:30], "no data chunk.*export"),
    "truncated": (
        wav_bytes(int16(tone()))[:20_000],
        "declares 32,000 bytes.*holds 19,956.*truncated",
    ),
    "header promises more": (
        wav_bytes(int16(tone()), declared=64_000),
        "declares 64,000 bytes.*holds 32,000",
    ),
    "header promises less": (
        wav_bytes(int16(tone()), declared=8_000),
        "lies about the length.*ffmpeg",
    ),
    "less, silence follows": (
        wav_bytes(np.r_[int16(tone()), np.zeros(9_000, "<i2")], declared=32_000),
        "lies about the length",
    ),
    "streaming header": (wav_bytes(int16(tone()), declared=0xFFFFFFFF), "header lies.*ffmpeg"),
    "stereo": (wav_bytes(np.repeat(int16(tone()), 2), channels=2), "2 channels.*mono.*ffmpeg"),
    "rate too low": (wav_bytes(int16(tone()), rate=4_000), "4,000 Hz.*8,000 to 192,000.*resample"),
    "rate absurd": (wav_bytes(int16(tone()), rate=4_000_000_000), "rate|header cannot be read"),
    "rate of no recorder": (wav_bytes(int16(tone()), rate=22_051), "22,051 Hz.*resample"),
    "rate zero": (wav_bytes(int16(tone()), rate=0), "rate|header cannot be read"),
    "NaN": (
        wav_bytes(np.full(16_000, np.nan, np.float32), code=3),
        "16,000 samples are NaN.*16-bit",
    ),
    "one infinity": (
        wav_bytes(np.r_[tone(), np.float32(np.inf)], code=3),
        "1 samples are NaN or infinite",
    ),
    "silent": (wav_bytes(np.zeros(16_000, np.int16)), "silent.*record"),
    "clipped": (
        wav_bytes(int16(np.clip(tone(amplitude=3.0), -1, 1))),
        r"\d+% of the samples are clipped.*lower level",
    ),
    "0.1 s": (wav_bytes(int16(tone(0.1))), "0.10 s long.*0.2 to 60 s.*leave it out"),
    "10 min": (wav_bytes(np.tile(int16(tone()), 600)), "600.00 s long.*cut it into sentences"),
    "compressed": (wav_bytes(np.zeros(16_000, np.uint8), code=7), "compressed.*pcm_s16le"),
}


@pytest.mark.parametrize("name", BAD_WAVS)
def test_bad_wav_is_refused_with_file_and_remedy(name, tmp_path):
    path, (content, message) = tmp_path / "clip.wav", BAD_WAVS[name]
    path.write_bytes(content)
    with pytest.raises(WorkbookError, match=message) as caught:
        load_wav(path)
    assert str(caught.value).startswith(str(path))


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(WorkbookError, match=r"nowhere.wav: no such audio file"):
        load_wav(tmp_path / "nowhere.wav")


def test_length_is_refused_from_the_header_without_reading_samples(tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    path.write_bytes(wav_bytes(np.tile(int16(tone()), 600)))
    monkeypatch.setattr("soundfile.read", lambda *_, **__: pytest.fail("ten minutes were read"))
    with pytest.raises(WorkbookError, match=r"600.00 s"):
        load_wav(path)


@pytest.mark.parametrize(
    "rate", [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000, 192_000]
)
def test_rates_of_recorders_are_resampled(rate, tmp_path):
    path = tmp_path / "tone.wav"
    path.write_bytes(wav_bytes(int16(tone(1.0, rate)), rate=rate))
    samples = load_wav(path, 22_050)
    assert samples.dtype == np.float32 and len(samples) == 22_050
    np.testing.assert_allclose(samples[2000:-2000], tone(1.0, 22_050)[2000:-2000], atol=2e-3)


@pytest.mark.parametrize(("dtype", "code"), [("<i2", 1), ("<i4", 1), ("<f4", 3), ("<f8", 3)])
def test_uncompressed_encodings_agree(dtype, code, tmp_path):
    full_scale = {"<i2": 2**15 - 1, "<i4": 2**31 - 1}.get(dtype, 1.0)
    path = tmp_path / "tone.wav"
    path.write_bytes(wav_bytes((tone().astype(np.float64) * full_scale).astype(dtype), code=code))
    np.testing.assert_allclose(read_wav(path)[0], tone(), atol=1e-4)


def test_chunks_before_and_after_the_audio_are_allowed(tmp_path):
    plain = wav_bytes(int16(tone()))
    path = tmp_path / "tagged.wav"
    path.write_bytes(plain[:36] + b"LIST\x05\0\0\0title\0" + plain[36:] + b"id3 \x04\0\0\0abcd")
    assert wav_info(path).n_samples == RATE


def test_save_and_load_are_inverse_for_16_bit_audio(tmp_path):
    samples, rate = read_wav(WAVS[0])
    save_wav(tmp_path / "copy.wav", samples, rate)
    again, rate_again = read_wav(tmp_path / "copy.wav")
    assert rate_again == rate
    np.testing.assert_array_equal(again, samples)


@pytest.mark.parametrize(
    "samples", [np.array([0.1, np.nan]), np.array([np.inf]), np.zeros((2, 100))]
)
def test_save_refuses_what_is_no_audio(samples, tmp_path):
    with pytest.raises(WorkbookError, match="refusing"):
        save_wav(tmp_path / "bad.wav", samples, RATE)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "clip.wav"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_resample_keeps_samples_at_equal_rates_and_level_otherwise():
    samples = tone()
    assert resample(samples, RATE, RATE) is samples
    assert np.sqrt(np.square(resample(samples, RATE, 22_050)).mean()) == pytest.approx(
        np.sqrt(np.square(samples).mean()), rel=1e-2
    )


def test_limits_are_those_of_the_error_message(tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(wav_bytes(np.tile(int16(tone()), int(MAX_SECONDS))))
    assert wav_info(path).seconds == MAX_SECONDS
