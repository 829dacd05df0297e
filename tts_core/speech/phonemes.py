"""Text to phonemes to ids and back. English is ARPAbet without stress, other languages have
espeak-ng's symbols.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from tts_core.errors import WorkbookError

PAD = "<pad>"  # id 0, fills batches
PAUSE = "SIL"  # silence is a token like any other
ARPABET = tuple(
    [
        "AA",
        "AE",
        "AH",
        "AO",
        "AW",
        "AY",
        "B",
        "CH",
        "D",
        "DH",
        "EH",
        "ER",
        "EY",
        "F",
        "G",
        "HH",
        "IH",
        "IY",
        "JH",
        "K",
        "L",
        "M",
        "N",
        "NG",
        "OW",
        "OY",
        "P",
        "R",
        "S",
        "SH",
        "T",
        "TH",
        "UH",
        "UW",
        "V",
        "W",
        "Y",
        "Z",
        "ZH",
    ]
)
# lower case, in the tiers of MFA and Praat
PAUSE_LABELS = frozenset({"", "sp", "sil", "<sil>", "<eps>", "pau"})
# MFA: speech for which it had no phonemes
UNKNOWN_LABELS = frozenset({"spn", "<unk>"})

# lower-case word -> its pronunciations, the commonest first
Dictionary = Mapping[str, tuple[tuple[str, ...], ...]]
NO_WORDS: Dictionary = MappingProxyType({})


class Vocabulary:
    """Symbols <-> ids: id 0 is padding, id 1 the pause."""

    pad_id, pause_id = 0, 1

    def __init__(self, symbols: Sequence[str]):
        self.symbols = tuple(symbols)
        self._ids = {symbol: index for index, symbol in enumerate(self.symbols)}
        if self.symbols[:2] != (PAD, PAUSE) or len(self._ids) != len(self.symbols):
            raise WorkbookError(
                f"vocabulary: {self.symbols[:4]} ... must be distinct and begin with {PAD}, {PAUSE}"
            )

    @classmethod
    def arpabet(cls) -> Vocabulary:
        return cls((PAD, PAUSE, *ARPABET))

    @classmethod
    def from_symbols(cls, symbols: Iterable[str]) -> Vocabulary:
        """The vocabulary of a corpus in another alphabet: its symbols, sorted."""
        return cls((PAD, PAUSE, *sorted(set(symbols) - {PAD, PAUSE})))

    def get_vocab_size(self) -> int:
        return len(self.symbols)

    def encode(self, phonemes: Sequence[str]) -> np.ndarray:
        """(N,) symbols -> (N,) int64 ids. Raises WorkbookError naming the symbols that the
        vocabulary lacks.
        """
        unknown = sorted(set(phonemes) - self._ids.keys())
        if unknown:
            raise WorkbookError(
                f"unknown phoneme {' '.join(map(repr, unknown))}; known:"
                f" {' '.join(self.symbols[1:])}"
            )
        return np.array([self._ids[symbol] for symbol in phonemes], dtype=np.int64)

    def decode(self, ids: Iterable[int]) -> list[str]:
        """(N,) ids -> (N,) symbols. Raises WorkbookError for an id outside the vocabulary."""
        ids = [int(index) for index in ids]
        if not all(0 <= index < len(self.symbols) for index in ids):
            raise WorkbookError(
                f"phoneme ids {min(ids)} to {max(ids)} go beyond the {len(self.symbols)} symbols"
            )
        return [self.symbols[index] for index in ids]


def guess_language(text: str) -> str:
    """`ru` for text whose letters are mostly Cyrillic, else `en`."""
    letters = [character for character in text if character.isalpha()]
    return (
        "ru"
        if 2 * sum("\u0400" <= letter <= "\u04ff" for letter in letters) > len(letters)
        else "en"
    )


def symbol_of_label(label: str, language: str) -> str:
    """The vocabulary symbol of a TextGrid's phone label: pauses become SIL, English loses its
    stress digits.

    Raises WorkbookError for MFA's `spn` and for an English label that is not ARPAbet.
    """
    label = label.strip()
    if label.lower() in PAUSE_LABELS or label == PAUSE:
        return PAUSE
    if label.lower() in UNKNOWN_LABELS:
        raise WorkbookError(
            f"phone {label!r}: the aligner did not know a word; add it to its dictionary, align"
            " again"
        )
    symbol = label.rstrip("012") if language == "en" else label
    if language == "en" and symbol not in ARPABET:
        raise WorkbookError(
            f"unknown phoneme {label!r}: English must be ARPAbet (MFA model english_us_arpa); to"
            " use other symbols as they are, write a code such as en-us into language.txt"
        )
    return symbol


# --- English --------------------------------------------------------------------------------------


def parse_dictionary(lines: Iterable[str], name: str) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Lines `word  P H O N E S`, variants as `word(2)`, as in CMUdict. Raises WorkbookError naming
    the faulty line.
    """
    found: dict[str, tuple[tuple[str, ...], ...]] = {}
    known = frozenset(ARPABET)
    for number, line in enumerate(lines, start=1):
        word, *phones = line.split() or ["#"]
        if word.startswith(("#", ";;;")):
            continue
        phones = [phone.rstrip("012") for phone in phones]
        if not phones or not known.issuperset(phones):
            raise WorkbookError(
                f"{name}, line {number}: {line.strip()!r} is not `word  P H O N E S`; phones are "
                f"{' '.join(ARPABET)}"
            )
        word = word.lower().partition("(")[0]
        found[word] = (*found.get(word, ()), tuple(phones))
    return found


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
        word = token if token in user or token in english_dictionary() else token.strip("'")
        if word and english_pronunciations(word, user):
            words.append(word)
    if not words:
        raise WorkbookError(f"no words in the text {text!r}; write what the recording says")
    return words


# --- other languages ------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def _espeak(language: str):
    try:
        import espeakng_loader
        from phonemizer.backend import EspeakBackend
        from phonemizer.backend.espeak.wrapper import EspeakWrapper
    except ImportError as error:
        raise WorkbookError(
            f"phonemes for language {language!r} need espeak-ng ({error}): "
            "pip install 'tts-overfit-workbook[phonemes]', or supply TextGrids"
        ) from error
    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    try:
        return EspeakBackend(language, language_switch="remove-flags", with_stress=False)
    except RuntimeError as error:
        raise WorkbookError(
            f"language {language!r}: {error}; its codes are ru, de, fr-fr, en-us ..."
        ) from error


def espeak_phonemes(text: str, language: str) -> tuple[str, ...]:
    """espeak-ng's symbols for a text, with a pause at both ends and at punctuation. Raises
    WorkbookError.
    """
    backend = _espeak(language)
    from phonemizer.separator import Separator

    phrases = [phrase for phrase in re.split(r"[^\w\s'\u2019-]+", text) if re.search(r"\w", phrase)]
    separator = Separator(phone=" ", word="|")
    spoken = [
        phones.replace("|", " ").split()
        for phones in backend.phonemize(phrases, separator=separator)
    ]
    if not any(spoken):
        raise WorkbookError(
            f"no phonemes in the text {text!r} (language {language!r}); write what the recording"
            " says"
        )
    return (PAUSE, *(symbol for phones in spoken if phones for symbol in (*phones, PAUSE)))
