"""model.text_ignored: the text does not reach the prediction."""

from __future__ import annotations

from dataclasses import dataclass

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.model._hearing import DEAF, EXPERIMENT, Hearing, hearing
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
    """Pure: other text moves the prediction of the trained model."""
    heard = numbers.heard
    if heard is None:
        return Decision("undecided", reason="no text")
    if heard.heard_when_initialised:
        return None  # its initialisation is another cause
    if heard.deaf:
        return Decision("confirmed", numbers.entry, 1.0, "deaf")
    if heard.trained < DEAF:
        return Decision("undecided", reason="given up")
    return Decision("excluded", reason="heard")


def tell(numbers: TextPath, decision: Decision) -> Telling:
    if numbers.heard is None:
        return Telling("next: no nn.Embedding is given whole numbers; is the text in the batch?")
    experiment = EXPERIMENT
    if decision.reason == "given up":
        experiment += (
            "; the text reached the fresh model and was given up in "
            "training; next: what drove it out (memory scale, dead units)"
        )
    return Telling(experiment, numbers.heard.evidence)


CAUSE = Cause(
    id="model.text_ignored",
    title="the text does not reach the prediction",
    experiment="wrong text must change the prediction",
    fix="mend the path from memory to decoder (cross-attention, its mask and its gate)",
    experiments=(Experiment(measure, decide, tell, finite=True),),
)
