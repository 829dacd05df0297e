"""data.token_collapse: different symbols become the same token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tts_core.speech.dataset import Clip
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Level, Telling
from tts_workbook.faults.planting import Build, Setting, with_clips
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.text_tokens import Token, symbol_tokens
from tts_workbook.subject.subject import Subject

# of the text positions whose symbol cannot be told from its token
COLLAPSED_SHARE = Bar(0.02, control="all positions of the same texts: two rare symbols are less")
N_NAMED = 12  # symbols that a finding names


@dataclass(frozen=True)
class Tokens:
    """Which symbols share a token that a cleaner does not merge on purpose."""

    where: str  # where the ids enter; empty where none line up with the symbols
    n_symbols: int  # different ones
    n_tokens: int
    lost: float  # share of the positions whose symbol cannot be told from its token
    merged: tuple[str, ...]  # the largest group of symbols that share a token, sorted


def measure(lab: Lab) -> Tokens:
    """Symbols as written against the ids that enter the text embeddings (else, that the batch
    holds): one id, one symbol.
    """
    seen = symbol_tokens(lab)
    if not seen.counts or not seen.where:
        return Tokens("", 0, 0, 0.0, ())
    of_token = _by_token(seen.counts)
    merged = [symbols for symbols in of_token.values() if _kinds(symbols) > 1]
    n_positions = sum(sum(symbols.values()) for symbols in of_token.values())
    # all but the most frequent symbol of each group
    n_lost = sum(sum(symbols.values()) - max(symbols.values()) for symbols in merged)
    largest = max(merged, key=len, default={})
    return Tokens(
        where=seen.where,
        n_symbols=len(seen.counts),
        n_tokens=len(of_token),
        lost=n_lost / n_positions,
        merged=tuple(sorted(largest)),
    )


def _by_token(counts: Mapping[str, Mapping[Token, int]]) -> dict[Token, dict[str, int]]:
    """The symbols of each token, with their positions; a symbol goes by its most frequent token."""
    found: dict[Token, dict[str, int]] = {}
    for symbol, tokens in counts.items():
        token = max(tokens, key=lambda one: tokens[one])
        found.setdefault(token, {})[symbol] = sum(tokens.values())
    return found


def _kinds(symbols: Mapping[str, int]) -> int:
    return len({_kind(symbol) for symbol in symbols})


def _kind(symbol: str) -> str:
    """What a cleaner may merge on purpose: case, stress digits, and punctuation of any kind."""
    if not any(letter.isalnum() for letter in symbol):
        return ""
    return symbol.casefold().rstrip("0123456789")


def decide(numbers: Tokens) -> Decision:
    """Pure: which of the ends it is."""
    if not numbers.where:
        return Decision("undecided", reason="no ids")
    if not numbers.merged:
        return Decision("excluded", numbers.where, reason="one id, one symbol")
    many = len(numbers.merged) > 2 or numbers.lost > COLLAPSED_SHARE
    level: Level = "confirmed" if many else "suspected"
    return Decision(level, numbers.where, min(1.0, 2 * numbers.lost), "merged")


def tell(numbers: Tokens, decision: Decision) -> Telling:
    if decision.reason == "no ids":
        return Telling(
            "no whole numbers line up with the symbols: the text enters neither by an nn.Embedding"
            " nor as ids in the batch"
        )
    evidence: dict[str, float | str] = {
        "different symbols": numbers.n_symbols,
        "different tokens": numbers.n_tokens,
        "positions that cannot be told apart": numbers.lost,
    }
    if numbers.merged:
        evidence["merged"] = " ".join(numbers.merged[:N_NAMED])
    return Telling("symbols as written against the ids of the same positions", evidence)


def plant(build: Build, setting: Setting) -> Subject:
    """70 to 100 % of the symbols (drawn, which too) become one id, as an unknown-token rule makes
    them.
    """
    vocabulary = Vocabulary.arpabet()
    symbols = list(vocabulary.symbols[2:])
    generator = setting.random
    share = generator.uniform(0.7, 1.0)
    generator.shuffle(symbols)
    unknown = vocabulary.encode(symbols[:1])[0]
    collapsed = vocabulary.encode(symbols[: max(2, round(share * len(symbols)))])

    def spoilt(clip: Clip) -> Clip:
        gone = np.isin(clip.phoneme_ids, collapsed)
        return replace(clip, phoneme_ids=np.where(gone, unknown, clip.phoneme_ids))

    return build(with_clips(setting, spoilt))


CAUSE = Cause(
    id="data.token_collapse",
    title="different symbols become the same token",
    experiment="compare the ids that enter the embedding with the symbols as written",
    fix="extend the vocabulary or mend the cleaner; unknown symbols must raise",
    experiments=(Experiment(measure, decide, tell, needs=("symbols",)),),
    plant=plant,
)
