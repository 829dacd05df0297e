"""Corpora with everything in place: the bundled voices load whole, and clips without TextGrids are
aligned or phonemized on the fly.
"""

import shutil

import numpy as np
import pytest

from tests.corpora import ID_0930, LIBRIVOX, TEXT_0880, int16, make_corpus, tone, wav_bytes
from tts_core.config import AudioConfig
from tts_core.errors import WorkbookError
from tts_core.speech.phonemes import PAUSE
from tts_workbook.corpus.reading import read_corpus

SAMPLES = LIBRIVOX.parent


@pytest.mark.parametrize("voice", ["librivox", "allison", "russian"])
def test_bundled_voices_load_whole(voice):
    corpus = read_corpus(SAMPLES / voice, AudioConfig())
    assert corpus.rejected == [] and corpus.name == voice
    assert len(corpus.clips) == {"librivox": 5, "allison": 64, "russian": 12}[voice]
    for clip in corpus.clips:
        assert clip.durations.sum() == len(clip.mel) == 1 + len(clip.samples) // 256
        assert (
            clip.mel.shape[1] == 80
            and clip.samples.dtype == np.float32
            and clip.sample_rate == 22_050
        )
        assert len(clip.phonemes) == len(clip.phoneme_ids) == len(clip.durations)
        assert corpus.vocabulary.decode(clip.phoneme_ids) == list(clip.phonemes)
        assert clip.phonemes[0] == clip.phonemes[-1] == PAUSE or voice == "allison"
        assert clip.alignment == ("uniform" if voice == "russian" else "textgrid")


def test_russian_without_textgrids_warns_loudly():
    corpus = read_corpus(SAMPLES / "russian", AudioConfig())
    assert corpus.language == "ru" and PAUSE in corpus.vocabulary.symbols
    [warning] = corpus.warnings
    assert (
        warning.startswith("UNIFORM DURATIONS in 12 of 12 clips (ru)")
        and "Montreal Forced Aligner" in warning
    )
    for clip in corpus.clips:
        assert np.ptp(clip.durations) <= 1


def test_each_broken_clip_is_listed_and_the_others_are_loaded(tmp_path):
    names = ["good", "stereo", "short", "html", "word", "overlap", "spn"]
    root = make_corpus(
        tmp_path / "c",
        "".join(f"{name}|{TEXT_0880}\n" for name in names if name not in ("html", "word"))
        + "html|<b>he</b> was not <script>alert(1)</script>\nword|he was zorblax\n",
        *names,
        textgrids=True,
    )
    (root / "wavs" / "stereo.wav").write_bytes(wav_bytes(np.repeat(int16(tone()), 2), channels=2))
    (root / "wavs" / "short.wav").write_bytes(wav_bytes(int16(tone(0.1))))
    (root / "alignments" / "word.TextGrid").unlink()
    for name, old, new in (("overlap", "xmax = 0.", "xmax = 1."), ("spn", '"HH"', '"spn"')):
        path = root / "alignments" / f"{name}.TextGrid"
        path.write_text(path.read_text().replace(old, new, 6))
    corpus = read_corpus(root, AudioConfig())
    assert [clip.id for clip in corpus.clips] == ["good", "html"]
    reasons = {rejection.id: rejection.reason for rejection in corpus.rejected}
    assert reasons.keys() == set(names) - {"good", "html"}
    for name, words in {
        "stereo": "mono",
        "short": "0.10 s",
        "word": "dictionary.txt",
        "overlap": "overlap",
        "spn": "'spn'",
    }.items():
        assert words in reasons[name] and f"{name}." in reasons[name]
    assert any(
        "5 clips were left out; `tts-workbook check" in warning for warning in corpus.warnings
    )


def test_corpus_without_a_usable_clip_says_why(tmp_path):
    root = make_corpus(tmp_path / "c", "one|zorblax\n", "one")
    with pytest.raises(WorkbookError, match=r"no usable clip; .*one.wav.*unknown word 'zorblax'"):
        read_corpus(root, AudioConfig())


def test_english_without_textgrid_is_aligned_on_the_fly_as_align_folder_would(tmp_path, librivox):
    root = make_corpus(tmp_path / "c", f"one|{TEXT_0880}\n", "one")
    [clip] = read_corpus(root, AudioConfig()).clips
    bundled = librivox.clip("0880")
    assert (clip.alignment, bundled.alignment) == ("forced", "textgrid")
    assert clip.phonemes == bundled.phonemes
    np.testing.assert_array_equal(clip.durations, bundled.durations)


def test_content_hash_follows_audio_text_and_alignment(corpus_of_two):
    hashes = [read_corpus(corpus_of_two, AudioConfig()).content_hash]
    assert read_corpus(corpus_of_two, AudioConfig()).content_hash == hashes[0]
    (corpus_of_two / "metadata.csv").write_text(f"one|{TEXT_0880}!\ntwo|{TEXT_0880}\n")
    hashes.append(read_corpus(corpus_of_two, AudioConfig()).content_hash)
    (corpus_of_two / "alignments" / "two.TextGrid").unlink()
    hashes.append(read_corpus(corpus_of_two, AudioConfig()).content_hash)
    shutil.copyfile(LIBRIVOX / "wavs" / f"{ID_0930}.wav", corpus_of_two / "wavs" / "two.wav")
    hashes.append(read_corpus(corpus_of_two, AudioConfig()).content_hash)
    assert len(set(hashes)) == 4 and all(len(value) == 64 for value in hashes)
