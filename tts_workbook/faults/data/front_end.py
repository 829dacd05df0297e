"""data.front_end: generation maps text to ids otherwise than training, or symbols reach neither."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tts_core.speech.phonemes import PAUSE_LABELS
from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import LEARNT
from tts_workbook.measure.paths import PathErrors
from tts_workbook.measure.text_paths import PathIds, WrittenAndRead, path_ids, written_and_read
from tts_workbook.subject.subject import Subject

REMOVED = Bar(0.5, control="what the path loses against teacher forcing, by the same measure")
GAIN = Bar(0.1, control="the path's own error: a smaller gain is not the harm")
HARMED = Bar(1.5, control="the teacher-forced error, by the same measure")
BY_CHANCE = Bar(0.05, control="the same ids, shuffled: how often they could be read so too")
NOISE = Bar(3.0, control="the difference between two random states of the same path")

# --- by both paths --------------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoPaths:
    """The ids of the batch in training and in generation."""

    generates: bool  # there is a path of generation
    infers: bool  # and that of full inference, by which a text is really spoken
    ids: tuple[PathIds, ...]  # of every text embedding on every path
    forced: float  # teacher-forced error over the best constant

    @property
    def other(self) -> PathIds | None:
        """The path whose ids differ, the one whose harm is seen best."""
        differ = [ids for ids in self.ids if ids.errors is not None]
        return max(differ, key=lambda ids: removes(ids.errors), default=None)


def measure(lab: Lab) -> TwoPaths:
    """Ids by both paths, of the trained model; where they differ, generation with training's."""
    if not lab.subject.has("generate") and not lab.subject.has("infer"):
        return TwoPaths(False, False, (), math.nan)
    model = lab.trained
    forced = lab.error(lab.predict(model, field="mel"))
    ids = tuple(path_ids(lab, model))
    return TwoPaths(True, lab.subject.infer is not None, ids, forced)


def removes(errors: PathErrors | None) -> bool:
    """Whether what entered in training removes the harm of a path."""
    if errors is None or errors.swapped is None or not math.isfinite(errors.gain):
        return False
    beyond_noise = errors.own - errors.swapped > NOISE * errors.noise
    return errors.removed > REMOVED and errors.gain > GAIN and beyond_noise


def decide(numbers: TwoPaths) -> Decision:
    """Pure: which of the ends it is."""
    if not numbers.generates:
        return Decision("not applicable", reason="no path")
    other = numbers.other
    if other is not None and other.errors is not None:
        strength = _strength(other.errors)
        if removes(other.errors):
            return Decision("confirmed", other.path, strength, "removes harm")
        learnt = numbers.forced < LEARNT
        harmed = other.errors.own > HARMED * other.errors.control
        if other.errors.swapped is None and learnt and harmed:
            return Decision("confirmed", other.path, strength, "other ids, harm")
        return Decision("suspected", other.path, strength, "other ids")
    if not numbers.ids:
        return Decision("undecided", reason="no ids")
    if any(ids.alike == "not matched" for ids in numbers.ids):
        return Decision("undecided", reason="not matched")
    if not numbers.infers:
        return Decision("undecided", reason="no inference")
    return Decision("excluded", numbers.ids[0].name, reason="the same")


def _strength(errors: PathErrors) -> float:
    best = errors.control if errors.swapped is None else errors.swapped
    lost = 1 - best / max(errors.own, 1e-9)
    return min(1.0, max(0.0, lost)) if math.isfinite(lost) else 0.0


COMPARED = "ids of the same texts in training and in generation"
SAID = {
    "no path": "not applicable: supply Subject.infer or Subject.generate",
    "no ids": "no embedding reads whole numbers that follow the text: compare the ids yourself",
    "not matched": (
        "the ids of generation could not be matched with the clips of the batch: compare them"
        " yourself"
    ),
    "no inference": (
        "Subject.generate reads the ids of training; supply Subject.infer, which maps the text"
        " itself"
    ),
    "the same": COMPARED,
    "removes harm": f"{COMPARED}; generation with training's ids as the one factor",
    "other ids, harm": f"{COMPARED}: they differ, and the model speaks what it has learnt wrongly",
    "other ids": f"{COMPARED}: they differ; next: generate with training's ids and compare",
}


def tell(numbers: TwoPaths, decision: Decision) -> Telling:
    other = numbers.other
    evidence: dict[str, float | str] = {}
    for ids in numbers.ids:
        evidence[f"{ids.path} at {ids.name}"] = ids.alike
    if other is not None and other.errors is not None:
        evidence |= _table(other, other.errors)
    return Telling(SAID[decision.reason], evidence)


def _table(other: PathIds, errors: PathErrors) -> dict[str, float | str]:
    table: dict[str, float | str] = {
        "ids in training": other.lengths[0],
        "ids in generation": other.lengths[1],
        f"error of {other.path} / best constant": errors.own,
        "of teacher forcing": errors.control,
        "between two random states": errors.noise,
    }
    if errors.swapped is not None:
        table["with training's ids"] = errors.swapped
    if other.first is not None:
        clip, position, mine, theirs = other.first
        table["first difference"] = f"clip {clip}, position {position}: {mine} became {theirs}"
    return table


# --- symbols that reach neither -------------------------------------------------------------------


def measure_symbols(lab: Lab) -> WrittenAndRead | None:
    """Symbols as written against the ids that training reads."""
    return written_and_read(lab)


def decide_symbols(numbers: WrittenAndRead | None) -> Decision | None:
    """Pure: which of the ends it is; None where nothing is missing, or where it cannot be told."""
    if numbers is None or not numbers.readings:
        return None
    lost = 1 - numbers.n_ids / max(1, numbers.n_symbols)
    strength = min(1.0, max(0.0, 2 * lost))
    if all(is_silent(symbol) for symbol in numbers.dropped):
        return Decision("question", "symbols", strength, "pauses dropped")
    if numbers.by_chance > BY_CHANCE:
        return Decision("undecided", "symbols", strength, "by chance")
    return Decision("confirmed", "symbols", strength, "dropped")


def is_silent(symbol: str) -> bool:
    """Whether a symbol is punctuation or a pause, which a front end may leave out on purpose."""
    if not any(letter.isalnum() for letter in symbol):
        return True
    return symbol.lower() in PAUSE_LABELS


def tell_symbols(numbers: WrittenAndRead | None, decision: Decision) -> Telling:
    assert numbers is not None
    evidence: dict[str, float | str] = {
        "symbols as written": numbers.n_symbols,
        "ids that training reads": numbers.n_ids,
        "kinds without an id": " ".join(numbers.dropped),
        "ways to read it": len(numbers.readings),
        "share of shuffled ids that read so too": numbers.by_chance,
    }
    said = "symbols as written against the ids that training reads, in order"
    if decision.reason == "pauses dropped":
        return Telling(
            said, evidence, fix="is this meant? then leave them out of Subject.symbols too"
        )
    if decision.reason == "by chance":
        return Telling(f"{said}: too little text to tell; supply a batch with more", evidence)
    return Telling(
        said, evidence, fix="give every symbol an id; a symbol that is unknown must raise"
    )


# --- planted --------------------------------------------------------------------------------------


def plant(build: Build, setting: Setting) -> Subject:
    """Generation builds its table of symbols in another order (drawn), as from a set."""
    subject = build(setting)
    n_symbols = 1 + max(int(max(clip.phoneme_ids)) for clip in setting.clips)
    order = list(range(1, n_symbols))
    setting.random.shuffle(order)
    table = torch.tensor([0, *order])

    def read(batch: Any) -> Any:
        return replace(batch, phonemes=table[batch.phonemes])

    changed: dict[str, Any] = {}
    for name in ("generate", "infer"):
        own = getattr(subject, name)
        if own is not None:
            changed[name] = lambda model, batch, own=own: own(model, read(batch))
    if subject.continue_from is not None:
        proceed = subject.continue_from

        def continue_from(model: nn.Module, batch: Any, history: Tensor) -> Tensor:
            return proceed(model, read(batch), history)

        changed["continue_from"] = continue_from
    return replace(subject, **changed)


CAUSE = Cause(
    id="data.front_end",
    title="generation maps text to ids otherwise than training",
    experiment="ids of one text by both paths; generation with training's ids as the one factor",
    fix="one table and one function from text to ids, stored beside the weights",
    experiments=(
        Experiment(measure, decide, tell),
        Experiment(measure_symbols, decide_symbols, tell_symbols, needs=("symbols",)),
    ),
    for_the_ear=True,
    explains=("generation.layout", "generation.exposure_gap"),
    plant=plant,
)
