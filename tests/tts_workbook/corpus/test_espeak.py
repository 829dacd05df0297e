"""Phonemes of other languages from espeak-ng, and what is said where it has none."""

import builtins

import pytest

from tts_core.errors import WorkbookError
from tts_core.speech.phonemes import PAUSE
from tts_workbook.corpus import espeak
from tts_workbook.corpus.espeak import espeak_phonemes


def test_russian_phonemes_have_pauses_at_ends_and_punctuation():
    phonemes = espeak_phonemes("Спасибо. До свидания!", "ru")
    assert phonemes[0] == phonemes[-1] == PAUSE and phonemes.count(PAUSE) == 3
    assert phonemes[1:8] == ("s", "p", "a", "sʲ", "i", "b", "ʌ")
    assert not any(" " in symbol or "|" in symbol or not symbol for symbol in phonemes)


@pytest.mark.parametrize(
    ("text", "language", "message"),
    [("...", "ru", "no phonemes in the text"), ("привет", "qq", "language 'qq'.*its codes are ru")],
)
def test_what_espeak_cannot_do_is_said(text, language, message):
    with pytest.raises(WorkbookError, match=message):
        espeak_phonemes(text, language)


def test_missing_extra_names_the_command(monkeypatch):
    real_import = builtins.__import__

    def without_phonemizer(name, *arguments, **keywords):
        if name.startswith("phonemizer"):
            raise ImportError("No module named 'phonemizer'")
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_phonemizer)
    espeak._backend.cache_clear()
    with pytest.raises(
        WorkbookError, match=r"pip install 'tts-overfit-workbook\[phonemes\]', or supply TextGrids"
    ):
        espeak_phonemes("Спасибо.", "ru")
