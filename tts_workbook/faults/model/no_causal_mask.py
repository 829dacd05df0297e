"""model.no_causal_mask: the decoder sees future frames."""

from __future__ import annotations

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.model._sight import NO_HISTORY, NOT_FED_BACK, NOT_HEARD, Sight, sight


def decide(numbers: Sight) -> Decision | None:
    """Pure: frames up to t do not move when later ones change."""
    if not numbers.spots:
        return Decision("undecided", reason="no history")
    if not numbers.heard:
        return Decision("not applicable", reason="not heard")
    if not numbers.sees_later:
        return Decision("excluded", reason="does not see later frames")
    if numbers.autoregressive is False:
        return Decision("not applicable", reason="not fed back")
    if numbers.judged_before:
        return Decision("excluded", numbers.before, reason="a post-net looks ahead")
    if numbers.may_be_a_post_net:
        return Decision("question", "predict_frames", 1.0, "may be a post-net")
    if numbers.autoregressive is None:
        return Decision("suspected", "predict_mel", 1.0, "nobody says it is fed back")
    return Decision("confirmed", "predict_frames", 1.0, "sees later frames")


def tell(numbers: Sight, decision: Decision) -> Telling:
    if decision.reason == "no history":
        return Telling(NO_HISTORY)
    if decision.reason == "not heard":
        return Telling(NOT_HEARD)
    if decision.reason == "not fed back":
        return Telling(NOT_FED_BACK)
    if decision.reason == "may be a post-net":
        return Telling(
            f"{numbers.experiment}; the look-ahead is short",
            numbers.evidence,
            fix="is this meant? declare Subject.predict_frames, what stands before the post-net",
        )
    if decision.reason == "nobody says it is fed back":
        return Telling(
            f"{numbers.experiment}; next: supply Subject.generate, which shows whether frames are"
            " fed back",
            numbers.evidence,
        )
    return Telling(numbers.experiment, numbers.evidence)


CAUSE = Cause(
    id="model.no_causal_mask",
    title="the decoder sees future frames",
    experiment="change frames after t and watch the prediction of frame t",
    fix="give the decoder's self-attention a causal mask",
    experiments=(Experiment(sight, decide, tell, finite=True),),
)
