"""Text to phonemes and back: nothing unknown slips through, every refusal says how to go on."""

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


# --- the user's dictionary ------------------------------------------------------------------------


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
