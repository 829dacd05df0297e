"""model.text_ignored: the text does not reach the prediction."""

from __future__ import annotations

from dataclasses import dataclass

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.model._hearing import EXPERIMENT, Hearing, hearing
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import anatomy


@dataclass(frozen=True)
class TextPath:
    """Whether the prediction hears its text, and where the text enters the decoder."""

    heard: Hearing | None  # None where no module reads text
    entry: str  # the memory, else the first text embedding


def measure(lab: Lab) -> TextPath:
    """What the text embeddings give is disturbed, before and after training."""
    parts, heard = anatomy(lab), hearing(lab)
    first = parts.embeddings[0] if parts.embeddings else ""
    return TextPath(heard, parts.memory or first)


def decide(numbers: TextPath) -> Decision | None:
    """Pure: other text moves the prediction by more than rounding does.

    That it reaches it at all is exact, and needs no training. That it is given up in training is
    said only of a model that has learnt: a young one listens to little.
    """
    heard = numbers.heard
    if heard is None:
        return Decision("undecided", reason="no text")
    if not heard.acted:
        return Decision("undecided", reason="not disturbed")
    if heard.heard_when_initialised:
        return None  # its initialisation is another cause
    if not heard.fresh.finite or not heard.trained.finite:
        return Decision("undecided", reason="not finite")
    if heard.deaf and not heard.updated:
        return Decision("undecided", numbers.entry, reason="not trained")
    if heard.deaf:
        return Decision("confirmed", numbers.entry, 1.0, "deaf")
    if heard.trained.deaf or heard.trained.faint:
        if heard.learnt:
            return Decision("suspected", numbers.entry, 0.5, "given up")
        return Decision("undecided", numbers.entry, reason="not learnt")
    return Decision("excluded", reason="heard")


NEXT = {
    "not disturbed": "next: the text embedding gave what it gives all the same; is it compiled, or"
    " are its weights read by other code? Supply Subject.shuffle_text",
    "not finite": "next: a prediction is not finite; mend that first",
    "not trained": "the text does not reach the fresh model, and no step moves a weight; next: mend"
    " the training step, which may wake what starts at zero",
    "not learnt": "the text reaches the fresh model, and hardly this one, which has not learnt yet;"
    " next: judge it when teacher-forced L1 is clearly below the copied frame",
    "given up": "the text reached the fresh model and was given up in training; next: what drove it"
    " out (memory scale, dead units)",
}


def tell(numbers: TextPath, decision: Decision) -> Telling:
    if numbers.heard is None:
        return Telling("next: no nn.Embedding is given whole numbers; is the text in the batch?")
    experiment = EXPERIMENT
    if decision.reason in NEXT:
        experiment = f"{EXPERIMENT}; {NEXT[decision.reason]}"
    return Telling(experiment, numbers.heard.evidence)


CAUSE = Cause(
    id="model.text_ignored",
    title="the text does not reach the prediction",
    experiment="wrong text must change the prediction",
    fix="mend the path from memory to decoder (cross-attention, its mask and its gate)",
    experiments=(Experiment(measure, decide, tell, finite=True),),
)
