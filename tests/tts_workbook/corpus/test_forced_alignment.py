"""Forced alignment of English: it makes what is bundled, and names what it cannot align."""

import numpy as np
import pytest

from tests.corpora import ID_0880, ID_0930, LIBRIVOX, RATE, TEXT_0880, make_corpus, tone
from tts_core.errors import WorkbookError
from tts_core.speech.alignment import read_textgrid
from tts_core.speech.audio import read_wav
from tts_workbook.corpus.forced_alignment import align_english, align_folder


def test_bundled_textgrid_is_what_the_aligner_makes():
    samples, rate = read_wav(LIBRIVOX / "wavs" / f"{ID_0930}.wav")
    alignment = align_english(samples, rate, "he might even have been made amiable himself")
    bundled = read_textgrid(LIBRIVOX / "alignments" / f"{ID_0930}.TextGrid", len(samples) / rate)
    assert [word.label for word in alignment.words] == [
        "he",
        "might",
        "even",
        "have",
        "been",
        "made",
        "amiable",
        "himself",
    ]
    assert alignment == bundled


def test_alignment_does_not_depend_on_what_was_aligned_before():
    samples, rate = read_wav(LIBRIVOX / "wavs" / f"{ID_0880}.wav")
    first = align_english(samples, rate, TEXT_0880)
    align_english(
        *read_wav(LIBRIVOX / "wavs" / f"{ID_0930}.wav"),
        "he might even have been made amiable himself",
    )
    assert align_english(samples, rate, TEXT_0880) == first


def test_speech_starts_and_ends_where_the_energy_does():
    samples, rate = read_wav(LIBRIVOX / "wavs" / f"{ID_0880}.wav")
    silence = np.random.default_rng(0).normal(0, 1e-4, rate // 2).astype(np.float32)
    alignment = align_english(np.concatenate([silence, samples, silence]), rate, TEXT_0880)
    plain = align_english(samples, rate, TEXT_0880)
    assert alignment.words[0].start == pytest.approx(plain.words[0].start + 0.5, abs=0.05)
    assert alignment.words[-1].end == pytest.approx(plain.words[-1].end + 0.5, abs=0.08)


def test_recording_that_does_not_hold_the_text_is_refused():
    with pytest.raises(WorkbookError, match="does the recording say"):
        align_english(
            tone(0.3),
            RATE,
            "this is far too long a sentence to be spoken in a third of a second " * 3,
        )


def test_align_folder_reports_each_clip_and_goes_on(tmp_path):
    root = make_corpus(
        tmp_path / "corpus",
        f"good|{TEXT_0880}\nword|he was zorblax\nabsent|no recording\n",
        "good",
        "word",
    )
    results = {result.id: result for result in align_folder(root)}
    assert {name: result.status for name, result in results.items()} == {
        "good": "written",
        "word": "failed",
        "absent": "failed",
    }
    assert "zorblax" in results["word"].reason and "absent.wav" in results["absent"].reason
    assert [path.name for path in (root / "alignments").iterdir()] == ["good.TextGrid"]


def test_align_folder_keeps_what_is_there_unless_told_otherwise(corpus_of_two):
    path = corpus_of_two / "alignments" / "one.TextGrid"
    path.write_text("mine")
    assert [result.status for result in align_folder(corpus_of_two)] == ["kept", "kept"]
    assert path.read_text() == "mine"
    assert [result.status for result in align_folder(corpus_of_two, overwrite=True)] == [
        "written",
        "written",
    ]
    assert path.read_bytes() == (LIBRIVOX / "alignments" / f"{ID_0880}.TextGrid").read_bytes()


def test_user_dictionary_is_used_for_alignment(tmp_path):
    root = make_corpus(tmp_path / "corpus", "one|he was not an ill disposed zorblax\n", "one")
    (root / "dictionary.txt").write_text("zorblax  Y AH1 NG M AE1 N\n")
    [result] = align_folder(root)
    assert result.status == "written"
    assert read_textgrid(result.path).words[-1].label == "zorblax"


def test_other_languages_are_pointed_to_the_montreal_forced_aligner(corpus_of_two):
    (corpus_of_two / "language.txt").write_text("ru")
    with pytest.raises(WorkbookError, match=r"language 'ru'.*Montreal Forced Aligner"):
        align_folder(corpus_of_two)
