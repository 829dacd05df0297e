"""data.conditioning: another condition reaches the model in generation than in training."""

from __future__ import annotations

import math

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.data.front_end import removes
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.condition_paths import Conditions, OtherCondition, conditions

# a predicted condition is of training's kind within these; beyond, a paired generation decides
OFFSET = Bar(3.0, control="deviations of the same condition in training")
SCALE = Bar(3.0, control="the deviation of the same condition in training, and its inverse")
# a prediction that turns training's values round is none of them
TURNED = Bar(-0.5, control="correlation with the same condition in training: 1 of the same")


def measure(lab: Lab) -> Conditions | None:
    """Conditions on both paths, of the trained model; where they differ, generation with
    training's. None where the subject does not generate.
    """
    if not lab.subject.has("generate") and not lab.subject.has("infer"):
        return None
    return conditions(lab, lab.trained)


def counts(other: OtherCondition) -> bool:
    """Whether a difference is more than a prediction: pitch and energy are predicted by design."""
    if not other.predicted:
        return True
    near = abs(other.offset) < OFFSET and 1 / SCALE < other.scale < SCALE
    turned = other.correlation < TURNED
    return (turned or not near) and math.isfinite(other.scale)


def decide(numbers: Conditions | None) -> Decision:
    """Pure: which of the ends it is."""
    if numbers is None:
        return Decision("not applicable", reason="no path")
    others = [other for other in numbers.others if counts(other)]
    for other in others:
        if removes(other.errors) and other.errors is not None:
            lost = 1 - (other.errors.swapped or 0.0) / max(other.errors.own, 1e-9)
            return Decision("confirmed", other.name, min(1.0, max(0.0, lost)), "removes harm")
    given = [other for other in others if not other.predicted]
    if given:
        return Decision("question", given[0].name, reason="no harm")
    if not numbers.n_found:
        return Decision("excluded", reason="no condition")
    if not numbers.n_matched:
        return Decision("undecided", reason="not matched")
    return Decision("excluded", reason="the same")


COMPARED = "what enters the modules from the batch alone, in training and in generation"
SAID = {
    "no path": "not applicable: supply Subject.infer or Subject.generate",
    "removes harm": f"{COMPARED}; generation with training's as the one factor",
    "no harm": f"{COMPARED}: they differ, and training's own in generation removes no harm",
    "no condition": "nothing but text, target and noise enters the modules in training",
    "not matched": f"{COMPARED}: generation gives none of them in the same shape; compare yourself",
    "the same": COMPARED,
}


def tell(numbers: Conditions | None, decision: Decision) -> Telling:
    if numbers is None:
        return Telling(SAID[decision.reason])
    evidence: dict[str, float | str] = {
        "conditions in training": numbers.n_found,
        "of them in generation, all paths": numbers.n_matched,
    }
    named = [other for other in numbers.others if other.name == decision.where]
    shown = [other for other in named if removes(other.errors)] or named
    for other in shown[:1]:
        evidence |= _table(other)
    if decision.reason == "no harm":
        return Telling(
            SAID[decision.reason],
            evidence,
            fix="is this meant? then it needs no mending; else give generation training's",
        )
    return Telling(SAID[decision.reason], evidence)


def _table(other: OtherCondition) -> dict[str, float | str]:
    table: dict[str, float | str] = {
        "path": other.path,
        "largest difference / scale": other.difference,
        "difference of the means, in deviations": other.offset,
        "predicted from the text": "yes" if other.predicted else "no",
    }
    if math.isfinite(other.scale):
        table["deviation in generation / in training"] = other.scale
    if math.isfinite(other.correlation):
        table["correlation of the values"] = other.correlation
    if other.errors is not None:
        table[f"error of {other.path} / best constant"] = other.errors.own
        table["of teacher forcing"] = other.errors.control
        if other.errors.swapped is not None:
            table["with training's condition"] = other.errors.swapped
    return table


CAUSE = Cause(
    id="data.conditioning",
    title="another condition reaches the model in generation than in training",
    experiment="the condition's tensor by both paths; training's in generation as the one factor",
    fix="one table of speakers, languages and scales, read by training and generation alike",
    experiments=(Experiment(measure, decide, tell),),
    for_the_ear=True,
)
