"""English words to ARPAbet: pocketsphinx's dictionary, and the user's own before it."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from tts_core.errors import WorkbookError
from tts_core.speech.phonemes import NO_WORDS, Dictionary, parse_dictionary


@functools.lru_cache(maxsize=1)
def english_dictionary() -> Dictionary:
    """The 126,000 words of the dictionary that comes with pocketsphinx (CMUdict without stress)."""
    from pocketsphinx import get_model_path

    path = Path(get_model_path("en-us/cmudict-en-us.dict"))
    return parse_dictionary(path.read_text(encoding="utf-8").splitlines(), str(path))


def english_pronunciations(word: str, user: Dictionary = NO_WORDS) -> tuple[tuple[str, ...], ...]:
    """Pronunciations of a lower-case word, the user's first. Raises WorkbookError saying how to add
    an unknown word.
    """
    found = user.get(word) or english_dictionary().get(word)
    if not found:
        raise WorkbookError(
            f"unknown word {word!r}: add a line `{word}  P H O N E S` to dictionary.txt beside "
            "metadata.csv (ARPAbet, e.g. `speech  S P IY CH`); write numbers out in the transcript"
        )
    return found


def english_words(text: str, user: Dictionary = NO_WORDS) -> list[str]:
    """Words of a text as the dictionary spells them, without punctuation. Raises WorkbookError for
    unknown ones.
    """
    words = []
    for token in re.findall(r"[\w']+", text.lower().replace("\u2019", "'")):
        known = token in user or token in english_dictionary()
        word = token if known else token.strip("'")
        if word:
            english_pronunciations(word, user)  # raises for an unknown one
            words.append(word)
    if not words:
        raise WorkbookError(f"no words in the text {text!r}; write what the recording says")
    return words
