"""model.no_right_shift: the decoder sees the frame that it predicts."""

from __future__ import annotations

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.model._sight import NO_HISTORY, Sight, sight


def decide(numbers: Sight) -> Decision | None:
    """Pure: frame t does not move when it alone changes."""
    if not numbers.spots:
        return Decision("undecided", reason="no history")
    if numbers.sees_later:
        return Decision("undecided", reason="sees later frames")
    if numbers.sees_itself:
        return Decision("confirmed", "predict_frames", 1.0, "sees itself")
    return Decision("excluded", strength=1.0, reason="does not see itself")


def tell(numbers: Sight, decision: Decision) -> Telling:
    if decision.reason == "no history":
        return Telling(NO_HISTORY)
    if decision.reason == "sees later frames":
        return Telling("next: mend the causal mask first, every frame sees itself through it")
    return Telling(numbers.experiment, numbers.evidence)


CAUSE = Cause(
    id="model.no_right_shift",
    title="the decoder sees the frame that it predicts",
    experiment="change frame t alone and watch its own prediction",
    fix="shift the decoder input right by one frame behind a go frame",
    experiments=(Experiment(sight, decide, tell, finite=True),),
)
