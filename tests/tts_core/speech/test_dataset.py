"""Corpora: what is whole is loaded, what is broken is listed with its reason; durations always sum
to the frames.
"""

import shutil
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
    make_corpus,
)
from tts_core.config import AudioConfig
from tts_core.errors import WorkbookError
from tts_core.speech.alignment import Alignment, Interval
from tts_core.speech.dataset import load_corpus, with_recipe
from tts_core.speech.folder import read_id_list
from tts_core.speech.phonemes import ARPABET, PAUSE

SAMPLES = LIBRIVOX.parent


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


# --- broken corpora -------------------------------------------------------------------------------


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


def test_rejected_clip_asked_for_by_name_says_why(tmp_path):
    root = make_corpus(tmp_path / "c", "one|text\n|broken\ntwo|\n", "one")
    with pytest.raises(WorkbookError, match=r"it was left out: .*line 3: the text is empty"):
        load_corpus(root, AudioConfig(), only="two")


# --- alignments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("language", "helper"), [("en", "an aligner"), ("de", "a phonemizer")])
def test_a_clip_without_textgrid_names_what_is_missing_and_the_way_out(
    corpus_of_two, language, helper
):
    (corpus_of_two / "language.txt").write_text(language)
    (corpus_of_two / "alignments" / "one.TextGrid").unlink()
    corpus = load_corpus(corpus_of_two, AudioConfig())
    [rejection] = corpus.rejected
    assert [clip.id for clip in corpus.clips] == ["two"]
    assert rejection.reason.startswith(str(corpus_of_two / "alignments" / "one.TextGrid"))
    assert f"needs {helper}" in rejection.reason
    assert "pip install" in rejection.reason and "Montreal Forced Aligner" in rejection.reason


def test_whoever_aligns_is_handed_recording_text_and_the_users_words(corpus_of_two):
    (corpus_of_two / "dictionary.txt").write_text("zorblax  Y AH1 NG M AE1 N\n")
    (corpus_of_two / "alignments" / "one.TextGrid").unlink()
    asked = []

    class Halves:
        packages = ()

        def align(self, samples, sample_rate, text, dictionary):
            asked.append((sample_rate, text, dictionary))
            end = len(samples) / sample_rate
            halves = (Interval(0.0, end / 2, "AH"), Interval(end / 2, end, "T"))
            return Alignment((), halves, end)

    clip = load_corpus(corpus_of_two, AudioConfig(), aligner=Halves()).clip("one")
    assert asked == [(RATE, TEXT_0880, {"zorblax": (("Y", "AH", "NG", "M", "AE", "N"),)})]
    assert (clip.alignment, clip.phonemes) == ("forced", ("AH", "T"))
    assert clip.durations.sum() == len(clip.mel) and np.ptp(clip.durations) <= 1


def test_whoever_phonemizes_gives_symbols_of_equal_length(corpus_of_two):
    (corpus_of_two / "language.txt").write_text("de")
    (corpus_of_two / "alignments" / "one.TextGrid").unlink()

    class Spelling:
        packages = ()

        def phonemes(self, text, language):
            return (PAUSE, *text.split(), PAUSE)

    corpus = load_corpus(corpus_of_two, AudioConfig(), phonemizer=Spelling())
    clip = corpus.clip("one")
    assert clip.alignment == "uniform" and clip.phonemes[1:-1] == tuple(TEXT_0880.split())
    assert np.ptp(clip.durations) <= 1 and corpus.warnings[0].startswith("UNIFORM DURATIONS in 1")


def test_textgrid_of_another_recording_is_refused(tmp_path):
    root = make_corpus(tmp_path / "c", f"one|{TEXT_0880}\n", "one", textgrids=True)
    shutil.copyfile(
        LIBRIVOX / "alignments" / f"{ID_0930}.TextGrid", root / "alignments" / "one.TextGrid"
    )
    with pytest.raises(
        WorkbookError, match=r"end at 3.290 s, but the audio ends at 2.990 s.*another recording"
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
        WorkbookError, match=r"0930: 284 frames at 22050 Hz, but .* load the corpus again"
    ):
        with_recipe(librivox.default_clip, AudioConfig(**change))
