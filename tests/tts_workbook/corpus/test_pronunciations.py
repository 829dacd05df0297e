"""English words: found in the dictionary, the user's own first; an unknown one is named."""

import pytest

from tts_core.errors import WorkbookError
from tts_core.speech.phonemes import ARPABET, parse_dictionary
from tts_workbook.corpus.pronunciations import (
    english_dictionary,
    english_pronunciations,
    english_words,
)


def test_dictionary_and_vocabulary_agree():
    used = {
        phone
        for variants in english_dictionary().values()
        for phones in variants
        for phone in phones
    }
    assert used == set(ARPABET)


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
