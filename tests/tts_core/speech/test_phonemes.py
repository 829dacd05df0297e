"""Text to phonemes and back: nothing unknown slips through, every refusal says how to go on."""

import builtins

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_core.errors import WorkbookError
from tts_core.speech.phonemes import (
    ARPABET,
    PAD,
    PAUSE,
    Vocabulary,
    _espeak,
    english_dictionary,
    english_pronunciations,
    english_words,
    espeak_phonemes,
    guess_language,
    parse_dictionary,
    symbol_of_label,
)


@settings(max_examples=50)
@given(st.lists(st.sampled_from((PAUSE, *ARPABET)), max_size=40))
def test_ids_decode_back_to_symbols(phonemes):
    vocabulary = Vocabulary.arpabet()
    ids = vocabulary.encode(phonemes)
    assert ids.dtype == np.int64 and vocabulary.decode(ids) == phonemes


def test_arpabet_has_padding_pause_and_39_phonemes_at_fixed_ids():
    vocabulary = Vocabulary.arpabet()
    assert vocabulary.get_vocab_size() == 41
    assert (
        (vocabulary.symbols[vocabulary.pad_id], vocabulary.symbols[vocabulary.pause_id])
        == (PAD, PAUSE)
        == vocabulary.symbols[:2]
    )
    assert len(set(vocabulary.encode(vocabulary.symbols).tolist())) == 41


def test_dictionary_and_vocabulary_agree():
    used = {
        phone
        for variants in english_dictionary().values()
        for phones in variants
        for phone in phones
    }
    assert used == set(ARPABET)


def test_other_alphabets_are_sorted_and_free_of_duplicates():
    vocabulary = Vocabulary.from_symbols(["ʒ", "a", "ʒ", PAUSE])
    assert vocabulary.symbols == (PAD, PAUSE, "a", "ʒ")


def test_unknown_phoneme_and_id_are_named():
    with pytest.raises(WorkbookError, match="unknown phoneme 'XX'"):
        Vocabulary.arpabet().encode(["AA", "XX"])
    with pytest.raises(WorkbookError, match="-1 to 41 go beyond the 41 symbols"):
        Vocabulary.arpabet().decode([-1, 41])


def test_vocabulary_refuses_repeated_symbols_and_a_missing_pause():
    for symbols in ((PAD, PAUSE, "a", "a"), ("a", "b"), ()):
        with pytest.raises(WorkbookError, match="must be distinct and begin with"):
            Vocabulary(symbols)


# --- English --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("He might even, have been -- made!", ["he", "might", "even", "have", "been", "made"]),
        ("\u2018Don\u2019t\u2019 re-record 'twas", ["don't", "re", "record", "'twas"]),
        ("the user's  mail-box...", ["the", "user's", "mail", "box"]),
    ],
)
def test_words_of_a_text(text, words):
    assert english_words(text) == words


@pytest.mark.parametrize("text", ["he said zorblax", "press 42", "caf\u00e9 noir"])
def test_unknown_word_is_named_with_the_way_to_add_it(text):
    unknown = text.split()[-1] if text.endswith(("zorblax", "42")) else "caf\u00e9"
    with pytest.raises(
        WorkbookError,
        match=rf"unknown word '{unknown}': add a line `{unknown}  P H O N E S` to dictionary.txt",
    ):
        english_words(text)


@pytest.mark.parametrize("text", ["", "...", "' ' -"])
def test_text_without_words_is_refused(text):
    with pytest.raises(WorkbookError, match="no words in the text"):
        english_words(text)


def test_user_dictionary_adds_words_and_goes_before_the_built_in_one():
    user = parse_dictionary(
        ["zorblax  Z AO1 R B L AE0 K S", "", "# comment", "HE  HH AA", "he(2)  HH IY"],
        "dictionary.txt",
    )
    assert english_words("he Zorblax", user) == ["he", "zorblax"]
    assert english_pronunciations("zorblax", user) == (("Z", "AO", "R", "B", "L", "AE", "K", "S"),)
    assert english_pronunciations("he", user) == (("HH", "AA"), ("HH", "IY"))
    assert english_pronunciations("he") == (("HH", "IY"),)


@pytest.mark.parametrize("line", ["zorblax", "zorblax Q R", "zorblax z ao"])
def test_faulty_dictionary_line_is_named(line):
    with pytest.raises(
        WorkbookError, match=f"dictionary.txt, line 2: '{line}' is not `word  P H O N E S`"
    ):
        parse_dictionary(["he HH IY", line], "dictionary.txt")


# --- labels of TextGrids --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "language", "symbol"),
    [
        ("AH0", "en", "AH"),
        ("IY1", "en", "IY"),
        ("T", "en", "T"),
        ("", "en", PAUSE),
        ("sp", "en", PAUSE),
        ("sil", "ru", PAUSE),
        ("SIL", "en", PAUSE),
        ("<eps>", "de", PAUSE),
        ("tʲ", "ru", "tʲ"),
        ("a1", "cmn", "a1"),
        ("ə", "en-us", "ə"),
    ],
)
def test_labels_become_symbols(label, language, symbol):
    assert symbol_of_label(label, language) == symbol


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("spn", "the aligner did not know a word"),
        ("ə", "unknown phoneme 'ə'.*language.txt"),
        ("hello", "unknown phoneme 'hello'.*ARPAbet"),
        ("ah", "unknown phoneme 'ah'"),
    ],
)
def test_labels_that_are_no_english_phoneme_are_refused(label, message):
    with pytest.raises(WorkbookError, match=message):
        symbol_of_label(label, "en")


# --- other languages ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Спасибо.", "ru"),
        ("thank you", "en"),
        ("", "en"),
        ("123 ...", "en"),
        ("Нажмите OK", "ru"),
        ("press кнопка one two", "en"),
    ],
)
def test_language_is_guessed_from_the_letters(text, language):
    assert guess_language(text) == language


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
    _espeak.cache_clear()
    with pytest.raises(
        WorkbookError, match=r"pip install 'tts-overfit-workbook\[phonemes\]', or supply TextGrids"
    ):
        espeak_phonemes("Спасибо.", "ru")
