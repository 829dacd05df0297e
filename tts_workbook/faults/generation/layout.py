"""generation.layout: generation feeds another history than training."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Level, Telling
from tts_workbook.lab.fed_as_trained import fed_as_trained
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.history_parity import BLIND, JITTER, STEADY, HistoryParity
from tts_workbook.measure.own_history import OwnHistory, hears_history, own_history

# movement of a prediction by frames that it should not have seen
LEAK = Bar(1e-3, control="the deviation of the target: rounding moves it by far less")


def measure(lab: Lab) -> HistoryParity:
    """The generation code on the true history, by weights that can tell."""
    return fed_as_trained(lab)


def decide(numbers: HistoryParity) -> Decision:
    """Pure: which of the ends it is. How far the two differ is its strength, whatever the end."""
    strength = min(1.0, numbers.worst)
    if numbers.leaks is not None and numbers.leaks > LEAK:
        return Decision("undecided", "continue_from", strength, "sees the future")
    if numbers.sensitivity < BLIND:
        return Decision("undecided", "continue_from", strength, "blind")
    if not numbers.comparable:
        return Decision("undecided", "continue_from", strength, "chaotic")
    if numbers.unsteady > STEADY:
        return Decision("undecided", "continue_from", strength, "random")
    if numbers.holds:
        return Decision("excluded", "continue_from", strength, "holds")
    if not numbers.broken:
        return Decision("undecided", "continue_from", strength, "small")
    level: Level = "suspected" if numbers.leaks is None else "confirmed"
    return Decision(level, "continue_from", strength, "broken")


# --- without continue_from ------------------------------------------------------------------------


@dataclass(frozen=True)
class Generated:
    """What `Subject.generate` alone can tell; None: it was not asked."""

    continues: bool  # the subject has the part that tells more
    refines: bool  # a post-net stands between what is fed back and what is given
    hears: bool | None  # a history; None where the batch holds none
    own: OwnHistory | None


def measure_generated(lab: Lab) -> Generated:
    """Teacher forcing on what the trained model generates, where nothing tells more."""
    numbers = Generated(
        continues=lab.subject.continue_from is not None,
        refines=lab.subject.predict_frames is not None,
        hears=None,
        own=None,
    )
    if numbers.continues:
        return numbers
    numbers = replace(numbers, hears=hears_history(lab, lab.trained))
    if not numbers.hears or numbers.refines:
        return numbers
    return replace(numbers, own=own_history(lab, lab.trained))


def decide_generated(numbers: Generated) -> Decision | None:
    """Pure: which of the ends it is; None where `continue_from` tells, or is what to supply."""
    if numbers.continues or numbers.hears is None:
        return None
    if not numbers.hears:
        return Decision("excluded", "generate", reason="hears nothing")
    own = numbers.own
    if own is None:
        return None
    if own.leaks > LEAK:
        return Decision("undecided", "generate", reason="sees the future")
    if not own.judged:
        return Decision("undecided", "generate", reason="cannot tell")
    strength = min(1.0, own.worst)
    if own.holds:
        return Decision("excluded", "generate", strength, "gives itself")
    if not own.broken:
        return Decision("undecided", "generate", strength, "small")
    return Decision("confirmed", "generate", strength, "gives another")


REPEATED = "teacher forcing on what generation gave, against what it gave, dropout off"
SAID = {
    "hears nothing": "no prediction follows the frames of the batch: there is no history",
    "cannot tell": (
        "what is generated follows no history enough, or draws at random: supply"
        " Subject.continue_from"
    ),
}


def tell_generated(numbers: Generated, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {}
    if numbers.own is not None:
        evidence = {
            "difference at the worst frame": numbers.own.worst,
            "by rounding": numbers.own.rounding,
            "by another history": numbers.own.sensitivity,
            "between two random states": numbers.own.unsteady,
        }
    said = SAID.get(decision.reason) or EXPERIMENTS.get(decision.reason)
    if decision.reason == "small":
        said = f"{REPEATED}: a small difference; compare in fp32, or supply Subject.continue_from"
    return Telling(said or REPEATED, evidence)


# --- with continue_from ---------------------------------------------------------------------------

COMPARED = "the generation code on the true history against the teacher-forced output, dropout off"
EXPERIMENTS = {
    "sees the future": "teacher forcing sees frames that generation cannot have: mend that first",
    "blind": "the prediction does not depend on the history: nothing to compare",
    "chaotic": (f"the prediction moves when the history is {JITTER} off: too chaotic to compare"),
    "random": (
        "eval mode draws at random even with dropout off: hold that noise still, then compare"
    ),
    "small": f"{COMPARED}: a small difference, as of rounding; compare in fp32",
}


def tell(numbers: HistoryParity, decision: Decision) -> Telling:
    return Telling(EXPERIMENTS.get(decision.reason, COMPARED), parity_table(numbers))


def parity_table(numbers: HistoryParity) -> dict[str, float | str]:
    """The numbers under their names."""
    table: dict[str, float | str] = {
        f"difference at frame {frame}": value for frame, value in numbers.difference.items()
    }
    table["difference by another history"] = numbers.sensitivity
    if numbers.comparable != [*numbers.difference]:
        table["difference by rounding"] = max(numbers.rounding.values())
    if numbers.unsteady:
        table["difference between random states"] = numbers.unsteady
    if numbers.leaks is not None:
        table["teacher-forced frame moved by later frames"] = numbers.leaks
    if numbers.nearest is not None:
        table["nearest"] = nearest_frame(numbers.nearest)
    return table


def nearest_frame(shift: int) -> str:
    """Which teacher-forced frame the generation code gives, in words."""
    if shift == 0:
        return "the same frame, from another history"
    return f"the teacher-forced frame {abs(shift)} {'later' if shift > 0 else 'earlier'}"


CAUSE = Cause(
    id="generation.layout",
    title="generation feeds another history than training",
    experiment="the generation code on the true history against the teacher-forced output",
    fix="build the history by one function in training and generation",
    experiments=(
        Experiment(measure, decide, tell, needs=("continue_from",)),
        Experiment(measure_generated, decide_generated, tell_generated, needs=("generate",)),
    ),
    for_the_ear=True,
)
