"""loss.wrong_reduction: the loss broadcasts or reduces over the wrong axis."""

from __future__ import annotations

from torch import Tensor

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.loss._identity import EXPERIMENT, Identity, identity, tell_about
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.subject.subject import Subject


def decide(numbers: Identity) -> Decision | None:
    """Pure: a term that has to be a distance to the target sees its frames, bins and clips. A loss
    of the target itself alone accuses nobody: a likelihood has one, and padding makes one.
    """
    if not numbers.reached:
        return Decision("undecided", reason="not reached")
    if not numbers.distances:
        return None
    if not numbers.broken:
        return Decision("excluded", reason="a distance")
    where = f"losses[{numbers.broken!r}]"
    if numbers.about != "the target":
        return Decision("undecided", where, reason=numbers.about)
    if not numbers.terms[numbers.broken].blind:
        return Decision("excluded", where, reason="a distance and a constant")
    return Decision("confirmed", where, 1.0, "no distance")


def tell(numbers: Identity, decision: Decision) -> Telling:
    if decision.reason == "not reached":
        return Telling(
            "next: the last layer could not be made to give the target; compute the "
            "loss of the target itself by hand"
        )
    name = numbers.broken or numbers.distances[-1]
    values = numbers.terms[name]
    evidence: dict[str, float | str] = {
        f"{name} of its own prediction": values.own,
        "of the target": values.target,
        "of the target's frames in disorder": values.disorder,
        "of its bins in disorder": values.rebinned,
        "of a level off by one deviation": values.level,
    }
    if values.clips is not None:
        evidence["of its clips exchanged"] = values.clips
    if decision.level == "undecided":
        return Telling(f"{EXPERIMENT}; {tell_about(numbers)}", evidence)
    return Telling(EXPERIMENT, evidence)


def plant(build: Build, setting: Setting) -> Subject:
    """Drawn: the mean over time taken before the difference, or a broadcast of every frame against
    every frame.
    """

    def averaged_first(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        return (prediction.float().mean(dim=1) - target.mean(dim=1)).abs().mean()

    def broadcast(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        return (prediction.float()[:, None] - target[:, :, None]).abs().mean()

    return build(setting, mel_loss=setting.random.choice([averaged_first, broadcast]))


CAUSE = Cause(
    id="loss.wrong_reduction",
    title="the loss broadcasts or reduces over the wrong axis",
    experiment="the loss of the target itself, and of its frames permuted",
    fix="compare tensors of equal shape elementwise, then average",
    experiments=(Experiment(identity, decide, tell, finite=True),),
    explains=("loss.padding_included",),
    plant=plant,
)
