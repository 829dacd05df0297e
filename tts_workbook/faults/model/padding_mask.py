"""model.padding_mask: a padding mask is missing or inverted."""

from __future__ import annotations

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.model._padding import FADED, PaddingMoves, padding_moves

TEXT_STRENGTH = Bar(
    0.3,
    control="the largest strength of a finding, 1: of a leak at the text alone, for an unstable"
    " model makes much of little; ranks, and decides nothing",
)
WHERE = {"frames": "predict_frames", "frames text": "predict_frames"}


def decide(numbers: PaddingMoves) -> Decision | None:
    """Pure: padding moves no valid frame, neither what is appended nor what is disturbed, of the
    text, of the frames, and of both.
    """
    if numbers.heard_near and numbers.not_held:
        return Decision("undecided", reason="noise")
    far, near = numbers.heard_far, numbers.heard_near
    if far:
        first = far[0]
        where = WHERE.get(first, numbers.memory if first == "text" else first)
        only_text = far == ["text"]
        strength = min(TEXT_STRENGTH if only_text else 1.0, numbers.largest)
        return Decision("confirmed", where, strength, "heard far")
    if near:
        where = WHERE.get(near[0], numbers.embeddings[0] if near[0] == "text" else near[0])
        strength = min(TEXT_STRENGTH, numbers.largest)
        if "text" not in numbers.far and numbers.faded > FADED:
            return Decision("suspected", where, strength, "does not fade")
        return Decision("question", where, strength, "heard near")
    if not numbers.appended and not numbers.failed and not numbers.disturbed:
        return Decision("not applicable", reason="nothing padded")
    if "frames" not in numbers.appended or not numbers.text_tried:
        return Decision("undecided", reason="path not tried")
    return Decision("excluded", reason="stays")


def tell(numbers: PaddingMoves, decision: Decision) -> Telling:
    if decision.reason == "nothing padded":
        return Telling("not applicable: supply Subject.pad and Subject.pad_text")
    evidence: dict[str, float | str] = {}
    for path, move in numbers.appended.items():
        name = path.replace(" ", " and ")
        evidence[f"largest move of a valid frame, {name} padded, target deviations"] = move
        evidence[f"the same, {name} padded far behind every end"] = numbers.far[path]
    for name, move in numbers.disturbed.items():
        evidence[f"the same when the padding at {name} is disturbed"] = move
    evidence["bar: ten times what a rounding of the weights does"] = numbers.bar
    experiment = (
        f"{numbers.n_padded} padded frames or text positions appended, and padding far behind every"
        " end; noise on what pads text and memory"
    )
    if decision.reason == "noise":
        experiment += (
            "; the model draws noise that padding changes, and it could not be held still"
            f" ({', '.join(numbers.not_held)}); next: give predict_mel the same noise each time"
        )
    if decision.reason == "path not tried":
        experiment += f"; not tried everywhere; next: {_what_to_supply(numbers)}"
    if decision.reason == "heard near":
        return Telling(
            f"{experiment}: only what follows the end at once is heard, as by a convolution without"
            " masks between its layers",
            evidence,
            fix=_is_it_meant(decision.where),
        )
    if decision.reason == "does not fade":
        experiment += "; next: supply Subject.pad_text, which tells a convolution from a mask"
    return Telling(experiment, evidence)


def _what_to_supply(numbers: PaddingMoves) -> str:
    if numbers.failed:
        return "mend " + "; ".join(f"{path}: {said}" for path, said in numbers.failed.items())
    return " and ".join(f"supply Subject.{part}" for part in numbers.missing)


def _is_it_meant(where: str) -> str:
    if where == "predict_frames":
        return "is this meant? declare Subject.predict_frames, what stands before a post-net"
    return "is this meant? else multiply by the mask before every convolution"


CAUSE = Cause(
    id="model.padding_mask",
    title="a padding mask is missing or inverted",
    experiment="append padding and watch the valid frames",
    fix="build masks from lengths, True where valid, and check the sign that each module wants",
    experiments=(Experiment(padding_moves, decide, tell, finite=True),),
    # one clip alone is not padded, two may be of one length
    plant_needs={"batch_size": 4},
)
