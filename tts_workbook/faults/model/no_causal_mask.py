"""model.no_causal_mask: the decoder sees future frames."""

from __future__ import annotations

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.model._sight import NO_HISTORY, Sight, sight

LOCAL = 48  # frames: a look-ahead no longer than this may be an undeclared post-net


def decide(numbers: Sight) -> Decision | None:
    """Pure: frames up to t do not move when later ones change."""
    if not numbers.spots:
        return Decision("undecided", reason="no history")
    if not numbers.sees_later:
        return Decision("excluded", reason="does not see later frames")
    if numbers.reach < LOCAL and not numbers.frames_given:
        return Decision("suspected", "predict_frames", 1.0, "may be a post-net")
    return Decision("confirmed", "predict_frames", 1.0, "sees later frames")


def tell(numbers: Sight, decision: Decision) -> Telling:
    if decision.reason == "no history":
        return Telling(NO_HISTORY)
    experiment = numbers.experiment
    if decision.reason == "may be a post-net":
        experiment += (
            "; the look-ahead is short: supply Subject.predict_frames if a post-net does it"
        )
    return Telling(experiment, numbers.evidence)


CAUSE = Cause(
    id="model.no_causal_mask",
    title="the decoder sees future frames",
    experiment="change frames after t and watch the prediction of frame t",
    fix="give the decoder's self-attention a causal mask",
    experiments=(Experiment(sight, decide, tell, finite=True),),
)
