"""generation.layout: generation feeds another history than training."""

from __future__ import annotations

from tts_workbook.faults.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Level, Telling
from tts_workbook.lab.fed_as_trained import fed_as_trained
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.history_parity import BLIND, JITTER, STEADY, HistoryParity

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


COMPARED = "the generation code on the true history against the teacher-forced output, dropout off"
EXPERIMENTS = {
    "sees the future": "teacher forcing sees frames that generation cannot have: mend that first",
    "blind": "the prediction does not depend on the history: nothing to compare",
    "chaotic": (f"the prediction moves when the history is {JITTER} off: too chaotic to compare"),
    "random": (
        "eval mode draws at random even with dropout off: mend that first, then compare again"
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
    experiments=(Experiment(measure, decide, tell, needs=("continue_from",)),),
    for_the_ear=True,
)
