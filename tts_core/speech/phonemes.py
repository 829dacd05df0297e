"""Phonemes: symbols to ids and back, labels of TextGrids, the user's own dictionary.

English is ARPAbet without stress; other languages have the symbols of their TextGrids, or
espeak-ng's. N phonemes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from tts_core.errors import WorkbookError

PAD = "<pad>"  # id 0, fills batches
PAUSE = "SIL"  # silence is a token like any other
# fmt: off
ARPABET = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY",
    "F", "G", "HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY",
    "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)
# fmt: on
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

    def __init__(self, symbols: Sequence[str]) -> None:
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
        indices = [int(index) for index in ids]
        if indices and not 0 <= min(indices) <= max(indices) < len(self.symbols):
            raise WorkbookError(
                f"phoneme ids {min(indices)} to {max(indices)} go beyond the"
                f" {len(self.symbols)} symbols"
            )
        return [self.symbols[index] for index in indices]


def guess_language(text: str) -> str:
    """`ru` for text whose letters are mostly Cyrillic, else `en`."""
    letters = [character for character in text if character.isalpha()]
    cyrillic = [letter for letter in letters if "\u0400" <= letter <= "\u04ff"]
    return "ru" if 2 * len(cyrillic) > len(letters) else "en"


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
    if language != "en":
        return label
    symbol = label.rstrip("012")
    if symbol not in ARPABET:
        raise WorkbookError(
            f"unknown phoneme {label!r}: English must be ARPAbet (MFA model english_us_arpa); to"
            " use other symbols as they are, write a code such as en-us into language.txt"
        )
    return symbol


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
