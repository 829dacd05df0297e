"""model.no_right_shift: the decoder sees the frame that it predicts."""

from __future__ import annotations

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.model._sight import NO_HISTORY, NOT_FED_BACK, NOT_HEARD, Sight, sight


def decide(numbers: Sight) -> Decision | None:
    """Pure: frame t does not move when it alone changes."""
    if not numbers.spots:
        return Decision("undecided", reason="no history")
    if not numbers.heard:
        return Decision("not applicable", reason="not heard")
    if numbers.sees_later and numbers.autoregressive is False:
        return Decision("not applicable", reason="not fed back")
    if numbers.sees_later and not numbers.judged_before:
        return Decision("undecided", reason="sees later frames")
    if not numbers.sees_itself:
        return Decision("excluded", strength=1.0, reason="does not see itself")
    if numbers.autoregressive is False:
        return Decision("not applicable", reason="not fed back")
    if numbers.autoregressive is None:
        return Decision("suspected", "predict_mel", 1.0, "nobody says it is fed back")
    return Decision("confirmed", "predict_frames", 1.0, "sees itself")


def tell(numbers: Sight, decision: Decision) -> Telling:
    if decision.reason == "no history":
        return Telling(NO_HISTORY)
    if decision.reason == "not heard":
        return Telling(NOT_HEARD)
    if decision.reason == "not fed back":
        return Telling(NOT_FED_BACK)
    if decision.reason == "sees later frames":
        if numbers.may_be_a_post_net:
            return Telling("next: supply Subject.predict_frames, what stands before the post-net")
        return Telling("next: mend the causal mask first, every frame sees itself through it")
    if decision.reason == "nobody says it is fed back":
        return Telling(
            f"{numbers.experiment}; next: supply Subject.generate, which shows whether frames are"
            " fed back",
            numbers.evidence,
        )
    return Telling(numbers.experiment, numbers.evidence)


CAUSE = Cause(
    id="model.no_right_shift",
    title="the decoder sees the frame that it predicts",
    experiment="change frame t alone and watch its own prediction",
    fix="shift the decoder input right by one frame behind a go frame",
    experiments=(Experiment(sight, decide, tell, finite=True),),
)
