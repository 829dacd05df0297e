"""data.token_collapse fires on symbols that share an id, and lets a cleaner merge what it may."""

from dataclasses import replace

import pytest
import torch

from benchmarks.planted.architecture import draw_setting
from benchmarks.planted.ours_twin import build
from tests.tts_workbook.faults.examined import examined, level
from tts_workbook.faults.data import text_audio_pairing
from tts_workbook.faults.data.token_collapse import Tokens, decide, plant
from tts_workbook.measure.text_tokens import lined_up
from tts_workbook.subject import clip_batch

CAUSE = "data.token_collapse"


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (Tokens("", 0, 0, 0.0, ()), ("undecided", "", 0.0, "no ids")),
        (
            Tokens("embedding", 30, 30, 0.0, ()),
            ("excluded", "embedding", 0.0, "one id, one symbol"),
        ),
        # two rare ones
        (Tokens("embedding", 30, 29, 0.01, ("a", "b")), ("suspected", "embedding", 0.02, "merged")),
        (Tokens("embedding", 30, 29, 0.03, ("a", "b")), ("confirmed", "embedding", 0.06, "merged")),
        (
            Tokens("batch", 30, 28, 0.01, ("a", "b", "c")),
            ("confirmed", "batch", 0.02, "merged"),
        ),
        (Tokens("batch", 30, 2, 0.7, tuple("abcdef")), ("confirmed", "batch", 1.0, "merged")),
    ],
)
def test_decide(numbers, wanted):
    decision = decide(numbers)
    assert (decision.level, decision.where, decision.strength, decision.reason) == wanted


def test_token_collapse_fires_and_names_the_embedding():
    entry = examined(plant(build, draw_setting(0)), CAUSE)
    assert entry.level == "confirmed" and entry.where == "text_embedding"
    assert entry.evidence["different tokens"] < entry.evidence["different symbols"]
    assert level(build(draw_setting(0)), CAUSE) == "excluded"
    assert level(text_audio_pairing.plant(build, draw_setting(0)), CAUSE) == "excluded"


def test_a_cleaner_may_merge_case_stress_and_punctuation():
    def spelt(batch):
        numbers = iter(range(10**6))
        return [
            [
                symbol.lower() + str(next(numbers) % 3) if symbol.isalpha() else symbol
                for symbol in text
            ]
            for text in clip_batch.symbols(batch)
        ]

    assert level(replace(build(draw_setting(0)), symbols=spelt), CAUSE) == "excluded"


def test_tokens_line_up_behind_a_start_token_and_with_blanks_in_between():
    texts = [("a", "b", "a"), ("b", "c")]
    assert lined_up(torch.tensor([[9, 1, 2, 1], [9, 2, 3, 0]]), texts) == [[1, 2, 1], [2, 3]]
    blanks = torch.tensor([[0, 1, 0, 2, 0, 1, 0], [0, 2, 0, 3, 0, 0, 0]])
    assert lined_up(blanks, texts) == [[1, 2, 1], [2, 3]]
    # durations, say
    assert lined_up(torch.tensor([[3, 4, 5], [6, 7, 0]]), texts) is None
