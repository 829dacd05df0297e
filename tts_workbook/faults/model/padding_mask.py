"""model.padding_mask: a padding mask is missing or inverted."""

from __future__ import annotations

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.model._padding import PaddingMoves, padding_moves

# at most, of a leak at the text alone: an unstable model makes much of what a convolution lets
# through
TEXT_STRENGTH = 0.3


def decide(numbers: PaddingMoves) -> Decision | None:
    """Pure: padding moves no valid frame, neither what is appended nor what is disturbed."""
    broken = numbers.broken
    if not broken:
        return Decision("excluded", reason="stays")
    where = broken[0] or "predict_frames"
    only_text = len(broken) == 1 and where in numbers.embeddings
    largest = max([numbers.appended, *numbers.disturbed.values()])
    return Decision("confirmed", where, min(TEXT_STRENGTH if only_text else 1.0, largest), "moves")


def tell(numbers: PaddingMoves, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {
        "largest move of a valid frame, target deviations": numbers.appended
    }
    for name, move in numbers.disturbed.items():
        evidence[f"the same when the padding at {name} is disturbed"] = move
    experiment = f"{numbers.n_padded} padded frames appended"
    if decision.reason == "moves":
        experiment += "; noise on what pads text and memory"
    return Telling(experiment, evidence)


CAUSE = Cause(
    id="model.padding_mask",
    title="a padding mask is missing or inverted",
    experiment="append padding and watch the valid frames",
    fix="build masks from lengths, True where valid, and check the sign that each module wants",
    experiments=(Experiment(padding_moves, decide, tell, needs=("pad",), finite=True),),
    # one clip alone is not padded, two may be of one length
    plant_needs={"batch_size": 4},
)
