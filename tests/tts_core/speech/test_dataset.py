"""Corpora: what is whole is loaded, what is broken is listed with its reason; durations always sum
to the frames.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.corpora import (
    ID_0880,
    ID_0930,
    LIBRIVOX,
    RATE,
    TEXT_0880,
    int16,
    make_corpus,
    tone,
    wav_bytes,
)
from tts_core.config import AudioConfig
from tts_core.errors import WorkbookError
from tts_core.speech.dataset import load_corpus, with_recipe
from tts_core.speech.folder import read_id_list
from tts_core.speech.phonemes import ARPABET, PAUSE

SAMPLES = LIBRIVOX.parent


@pytest.mark.parametrize("voice", ["librivox", "allison", "russian"])
def test_bundled_voices_load_whole(voice):
    corpus = load_corpus(SAMPLES / voice, AudioConfig())
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


def test_default_clip_is_0930(librivox):
    assert librivox.default_clip.id == ID_0930
    assert librivox.default_clip.text == "he might even have been made amiable himself"
    assert librivox.default_clip.phonemes == tuple(
        [
            "SIL",
            "HH",
            "IY",
            "M",
            "AY",
            "T",
            "IY",
            "V",
            "IH",
            "N",
            "HH",
            "AE",
            "V",
            "B",
            "IH",
            "N",
            "M",
            "EY",
            "D",
            "EY",
            "M",
            "IY",
            "AH",
            "B",
            "AH",
            "L",
            "HH",
            "IH",
            "M",
            "S",
            "EH",
            "L",
            "F",
            "SIL",
        ]
    )


def test_train_and_held_out_lists_divide_the_english_prompts():
    root = SAMPLES / "allison"
    train, held_out = (read_id_list(root / f"{name}.txt") for name in ("train", "held_out"))
    assert len(train) == len(held_out) == 32 and len({*train, *held_out}) == 64
    corpora = [load_corpus(root, AudioConfig(), ids=ids) for ids in (train, held_out)]
    assert [[clip.id for clip in corpus.clips] for corpus in corpora] == [train, held_out]
    seen = [{symbol for clip in corpus.clips for symbol in clip.phonemes} for corpus in corpora]
    assert seen[1] <= seen[0] and len(seen[0] & set(ARPABET)) >= 38
    assert corpora[0].vocabulary.symbols == corpora[1].vocabulary.symbols


def test_russian_without_textgrids_warns_loudly():
    corpus = load_corpus(SAMPLES / "russian", AudioConfig())
    assert corpus.language == "ru" and PAUSE in corpus.vocabulary.symbols
    [warning] = corpus.warnings
    assert (
        warning.startswith("UNIFORM DURATIONS in 12 of 12 clips (ru)")
        and "Montreal Forced Aligner" in warning
    )
    for clip in corpus.clips:
        assert np.ptp(clip.durations) <= 1


def test_bundle_is_small_and_carries_licences_and_sources():
    size = sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file())
    assert size <= 12_000_000
    for voice, licence in (
        ("librivox", "public domain"),
        ("allison", "CC-BY-SA-3.0"),
        ("russian", "CC-BY-3.0"),
    ):
        assert licence in (SAMPLES / voice / "LICENSE").read_text()
        assert "version" in (SAMPLES / voice / "SOURCE").read_text()


# --- one clip, some clips -------------------------------------------------------------------------


def test_only_loads_one_clip_by_a_unique_ending(librivox):
    corpus = load_corpus(LIBRIVOX, AudioConfig(), only="0880")
    assert [clip.id for clip in corpus.clips] == [ID_0880] == [corpus.default_clip.id]
    assert torch.equal(corpus.clips[0].mel, librivox.clip("0880").mel)
    assert len(load_corpus(LIBRIVOX, AudioConfig(), limit=2).clips) == 2


def test_unknown_id_lists_what_there_is(librivox):
    for ask in (
        lambda: librivox.clip("9999"),
        lambda: load_corpus(LIBRIVOX, AudioConfig(), only="9999"),
    ):
        with pytest.raises(WorkbookError, match=f"no clips have an id like '9999'.*{ID_0930}"):
            ask()


def test_id_list_that_names_an_unknown_clip_is_said(corpus_of_two):
    corpus = load_corpus(corpus_of_two, AudioConfig(), ids=["two", "three"])
    assert [clip.id for clip in corpus.clips] == ["two"]
    assert "names 'three', metadata.csv does not" in corpus.rejected[0].reason


def test_content_hash_follows_audio_text_and_alignment(corpus_of_two):
    hashes = [load_corpus(corpus_of_two, AudioConfig()).content_hash]
    assert load_corpus(corpus_of_two, AudioConfig()).content_hash == hashes[0]
    (corpus_of_two / "metadata.csv").write_text(f"one|{TEXT_0880}!\ntwo|{TEXT_0880}\n")
    hashes.append(load_corpus(corpus_of_two, AudioConfig()).content_hash)
    (corpus_of_two / "alignments" / "two.TextGrid").unlink()
    hashes.append(load_corpus(corpus_of_two, AudioConfig()).content_hash)
    shutil.copyfile(LIBRIVOX / "wavs" / f"{ID_0930}.wav", corpus_of_two / "wavs" / "two.wav")
    hashes.append(load_corpus(corpus_of_two, AudioConfig()).content_hash)
    assert len(set(hashes)) == 4 and all(len(value) == 64 for value in hashes)


# --- broken corpora -------------------------------------------------------------------------------


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
    corpus = load_corpus(root, AudioConfig())
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


def test_html_in_texts_and_ids_survives_as_text(tmp_path):
    name, text = (
        "<img src=x onerror=alert(1)>",
        "<script>alert('he was')</script> & \u201cnot\u201d",
    )
    corpus = load_corpus(
        make_corpus(tmp_path / "c", f"{name}|{text}\n", name, textgrids=True), AudioConfig()
    )
    assert (corpus.clips[0].id, corpus.clips[0].text) == (name, text)


def test_unreadable_file_is_listed_like_any_other_fault(corpus_of_two, monkeypatch):
    real_open = Path.open

    def denied(path, *arguments, **keywords):
        if path.name == "one.wav":
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", denied)
    corpus = load_corpus(corpus_of_two, AudioConfig())
    assert [clip.id for clip in corpus.clips] == ["two"] and "Permission denied" in corpus.rejected[
        0
    ].reason


def test_corpus_without_a_usable_clip_says_why(tmp_path):
    root = make_corpus(tmp_path / "c", "one|zorblax\n", "one")
    with pytest.raises(WorkbookError, match="no usable clip; .*one.wav.*unknown word 'zorblax'"):
        load_corpus(root, AudioConfig())


def test_rejected_clip_asked_for_by_name_says_why(tmp_path):
    root = make_corpus(tmp_path / "c", "one|text\n|broken\ntwo|\n", "one")
    with pytest.raises(WorkbookError, match="it was left out: .*line 3: the text is empty"):
        load_corpus(root, AudioConfig(), only="two")


# --- alignments -----------------------------------------------------------------------------------


def test_english_without_textgrid_is_aligned_on_the_fly_as_align_folder_would(tmp_path, librivox):
    root = make_corpus(tmp_path / "c", f"one|{TEXT_0880}\n", "one")
    [clip] = load_corpus(root, AudioConfig()).clips
    bundled = librivox.clip("0880")
    assert (clip.alignment, bundled.alignment) == ("forced", "textgrid")
    assert clip.phonemes == bundled.phonemes
    np.testing.assert_array_equal(clip.durations, bundled.durations)


def test_textgrid_of_another_recording_is_refused(tmp_path):
    root = make_corpus(tmp_path / "c", f"one|{TEXT_0880}\n", "one", textgrids=True)
    shutil.copyfile(
        LIBRIVOX / "alignments" / f"{ID_0930}.TextGrid", root / "alignments" / "one.TextGrid"
    )
    with pytest.raises(
        WorkbookError, match="end at 3.290 s, but the audio ends at 2.990 s.*another recording"
    ):
        load_corpus(root, AudioConfig())


def test_other_languages_take_the_symbols_of_their_textgrids(corpus_of_two):
    (corpus_of_two / "language.txt").write_text("de")
    path = corpus_of_two / "alignments" / "one.TextGrid"
    path.write_text(path.read_text().replace('"HH"', '"\u00e7"'), encoding="utf-8")
    corpus = load_corpus(corpus_of_two, AudioConfig())
    assert "\u00e7" in corpus.vocabulary.symbols and corpus.clips[0].phonemes[1] == "\u00e7"
    assert corpus.warnings == [] and corpus.vocabulary.get_vocab_size() < 30


def test_unknown_phoneme_rejects_the_clip_by_name(corpus_of_two):
    path = corpus_of_two / "alignments" / "one.TextGrid"
    path.write_text(path.read_text().replace('"HH"', '"QX"'))
    corpus = load_corpus(corpus_of_two, AudioConfig())
    assert [clip.id for clip in corpus.clips] == ["two"]
    assert (
        "unknown phoneme 'QX'" in corpus.rejected[0].reason and "one" in corpus.rejected[0].reason
    )


# --- recipes --------------------------------------------------------------------------------------


def test_other_recipe_keeps_frames_and_durations(librivox):
    clip = with_recipe(librivox.default_clip, AudioConfig.seed())
    assert clip.mel.shape == librivox.default_clip.mel.shape and clip.mel.max() == 0.0
    assert clip.durations is librivox.default_clip.durations
    assert torch.equal(with_recipe(clip, AudioConfig()).mel, librivox.default_clip.mel)


@pytest.mark.parametrize("change", [{"hop_length": 512}, {"sample_rate": RATE, "f_max": 8_000.0}])
def test_recipe_of_other_frames_is_refused(change, librivox):
    with pytest.raises(
        WorkbookError, match="0930: 284 frames at 22050 Hz, but .* load the corpus again"
    ):
        with_recipe(librivox.default_clip, AudioConfig(**change))


# --- dependencies ---------------------------------------------------------------------------------


def test_speech_imports_with_torch_torchaudio_soundfile_and_numpy_alone():
    """The core stays light: recogniser, TextGrid parser, phonemizer and metrics are imported where
    they are used.
    """
    code = """
import importlib, pkgutil, sys
blocked = {"librosa", "praatio", "pocketsphinx", "phonemizer", "espeakng_loader", "pystoi", "jiwer", "scipy"}
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Block())
import tts_core.speech
for module in pkgutil.iter_modules(tts_core.speech.__path__):
    importlib.import_module(f"tts_core.speech.{module.name}")
from tts_core.config import AudioConfig
from tts_core.speech.audio import griffin_lim, load_wav, log_mel
griffin_lim(log_mel(load_wav(sys.argv[1]), AudioConfig()), AudioConfig(), n_iterations=1)
"""
    wav = LIBRIVOX / "wavs" / f"{ID_0880}.wav"
    done = subprocess.run(
        [sys.executable, "-c", code, str(wav)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
