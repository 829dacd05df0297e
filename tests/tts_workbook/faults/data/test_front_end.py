"""data.front_end fires where generation maps a text to other ids, and where symbols have none."""

from dataclasses import replace

import pytest
import torch

from benchmarks.planted import tacotron
from benchmarks.planted.architecture import draw_setting
from benchmarks.planted.ours_twin import build
from tests.tts_workbook.faults.data import tiny_inputs as tiny
from tts_workbook.faults.data import front_end
from tts_workbook.faults.data.front_end import TwoPaths, decide, decide_symbols, is_silent
from tts_workbook.faults.examine import examine
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.paths import PathErrors
from tts_workbook.measure.text_paths import PathIds, WrittenAndRead, symbols_left_out

CAUSE = CAUSES["data.front_end"]
ORDER = torch.tensor([0, *torch.randperm(15, generator=torch.Generator().manual_seed(1)).add(1)])


def other_order(text):
    return ORDER[text]


def with_start(text):
    return torch.cat([torch.full_like(text[:, :1], 15), text], dim=1)


def with_blanks(text):
    return torch.stack([torch.full_like(text, 14), text], dim=2).flatten(1)


def merged(text):
    return torch.where(text > 5, 5, text)


# --- how the numbers decide -----------------------------------------------------------------------

SAME = PathIds("infer", "text", "the same", None, (0, 0), None)


def other(own=0.9, control=0.3, swapped=0.3, noise=0.0):
    errors = PathErrors("generate", own, control, noise, swapped)
    return PathIds("generate", "text", "blanks", (0, 0, 1, 2), (8, 8), errors)


def paths(*ids, infers=True, forced=0.3):
    return TwoPaths(True, infers, ids, forced)


@pytest.mark.parametrize(
    "numbers, level, reason",
    [
        (TwoPaths(False, False, (), float("nan")), "not applicable", "no path"),
        (paths(), "undecided", "no ids"),
        (paths(SAME), "excluded", "the same"),
        (paths(SAME, infers=False), "undecided", "no inference"),
        (paths(SAME, replace(SAME, alike="not matched")), "undecided", "not matched"),
        (paths(SAME, other()), "confirmed", "removes harm"),
        (paths(other(swapped=0.7)), "suspected", "other ids"),
        (paths(other(swapped=float("nan"))), "suspected", "other ids"),
        # a gain that another random state makes too
        (paths(other(noise=0.3)), "suspected", "other ids"),
        # a harm that is hardly one
        (paths(other(own=0.31, control=0.3, swapped=0.3)), "suspected", "other ids"),
        # ids of another length cannot be exchanged
        (paths(other(swapped=None)), "confirmed", "other ids, harm"),
        (paths(other(swapped=None, own=0.4)), "suspected", "other ids"),
        (paths(other(swapped=None), forced=0.6), "suspected", "other ids"),
    ],
)
def test_decide(numbers, level, reason):
    decision = decide(numbers)
    assert (decision.level, decision.reason) == (level, reason)
    if reason == "removes harm":
        assert decision.where == "generate" and decision.strength == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "numbers, level",
    [
        (None, None),
        (WrittenAndRead(20, 20, True, (), 0.0), None),
        (WrittenAndRead(20, 30, False, (), 0.0), None),
        (WrittenAndRead(20, 16, False, (("N",), ("N",)), 0.0), "confirmed"),
        (WrittenAndRead(20, 16, False, (("N",),), 0.3), "undecided"),
        (WrittenAndRead(20, 16, False, ((",", "SIL"),), 0.0), "question"),
    ],
)
def test_decide_on_symbols(numbers, level):
    decision = decide_symbols(numbers)
    assert (decision and decision.level) == level


def test_punctuation_and_pauses_are_silent():
    assert [is_silent(symbol) for symbol in (",", " ", "sp", "SIL", "N", "e", "5")] == [
        *[True] * 4,
        *[False] * 3,
    ]


def test_symbols_left_out():
    texts = [tuple("banana"), tuple("cabana")]
    ids = {"b": 3, "a": 1, "c": 7}
    rows = [[ids[letter] for letter in text if letter != "n"] for text in texts]
    assert symbols_left_out(texts, rows) == (("n",),)
    with_end = [[*row, 9] for row in rows]
    assert symbols_left_out(texts, with_end) == (("n",),)
    assert symbols_left_out(texts, [row[::-1] for row in rows]) == ()


# --- on subjects ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "read, alike",
    [(other_order, "another order of symbols"), (merged, "symbols merged")],
)
def test_other_ids_are_confirmed_by_training_s_own(read, alike):
    found = examine(CAUSE, tiny.lab(read=read))
    assert found.level == "confirmed" and found.strength > 0.3
    assert found.evidence["generate at text"] == found.evidence["infer at text"] == alike
    own = found.evidence[f"error of {found.where} / best constant"]
    assert found.evidence["with training's ids"] < 0.7 * own


@pytest.mark.parametrize(
    "read, alike", [(with_start, "start or end symbols"), (with_blanks, "blanks")]
)
def test_ids_of_another_length_are_confirmed_by_their_harm(read, alike):
    subject = tiny.subject(read=read)
    subject = replace(subject, generate=None)
    found = examine(CAUSE, Lab(subject, steps=tiny.STEPS))
    assert found.level in ("confirmed", "suspected")
    assert found.evidence["infer at text"] == alike
    assert found.evidence["ids in generation"] > found.evidence["ids in training"]


def test_a_clean_reader_is_not_accused():
    assert examine(CAUSE, tiny.lab()).level == "excluded"
    # another speaker, another pitch, no text
    assert examine(CAUSE, tiny.lab(speak_as=lambda speaker: 0 * speaker)).level == "excluded"
    # without full inference the path by which a text is really spoken was not tried
    entry = examine(CAUSE, tiny.lab(clip_by_clip=False))
    assert entry.level == "undecided" and "Subject.infer" in entry.experiment
    entry = examine(CAUSE, tiny.lab(clip_by_clip=False, generate=None))
    assert entry.level == "not applicable" and "Subject.infer" in entry.experiment


def test_symbols_without_an_id_are_confirmed():
    letters = "_abcdefghijkl"
    batch = tiny.make_batch()
    written = [[letters[token] for token in row if token] for row in batch["text"].tolist()]
    clean = tiny.subject(symbols=lambda batch: written)
    assert examine(CAUSE, Lab(clean, steps=tiny.STEPS)).level == "excluded"
    more = [[*row, "z", *row, "z"] for row in written]
    twice = torch.cat([batch["text"], batch["text"]], dim=1)
    for row, length in zip(range(3), tiny.LENGTHS, strict=True):
        own = batch["text"][row, :length]
        twice[row] = torch.cat([own, own, own.new_zeros(16 - 2 * length)])
    long = {
        **batch,
        "text": twice,
        "pitch": torch.zeros_like(twice, dtype=torch.float),
        "mel": batch["mel"].repeat(1, 2, 1),
    }
    dropping = tiny.subject(batch=long, symbols=lambda batch: more, shuffle_text=None)
    entry = examine(CAUSE, Lab(dropping, steps=16))
    assert entry.level == "confirmed" and entry.where == "symbols"
    assert entry.evidence["kinds without an id"] == "z"
    assert entry.evidence["symbols as written"] - entry.evidence["ids that training reads"] == 6


def test_on_real_speech():
    setting = draw_setting(0)
    found = examine(CAUSE, Lab(front_end.plant(build, setting), steps=64))
    assert found.level == "confirmed" and found.where in ("generate", "infer")
    assert examine(CAUSE, Lab(build(setting), steps=16)).level == "excluded"


def test_clips_in_another_order_are_the_same():
    """Tacotron 2 sorts its clips by length."""
    architecture = tacotron.ARCHITECTURE
    setting = draw_setting(0, max_seconds=architecture.max_seconds)
    lab = Lab(architecture.clean(setting), steps=16)
    lab.trained = lab.build()
    assert examine(CAUSE, lab).level == "excluded"
