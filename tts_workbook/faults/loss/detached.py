"""loss.detached: a term of the loss does not reach the weights."""

from __future__ import annotations

from torch import Tensor

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.loss._terms import (
    EXPERIMENT,
    NOT_FINITE,
    WEIGHTED,
    TermNorms,
    norms_by_name,
    term_norms,
)
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.subject.clip_data import mean_l1
from tts_workbook.subject.subject import Subject


def decide(numbers: TermNorms) -> Decision | None:
    """Pure: the total, or a term that is meant to be optimised, has no gradient."""
    if not numbers.finite:
        return Decision("undecided", reason="not finite")
    if numbers.norms["total"] == 0.0:
        return Decision("confirmed", "losses['total']", 1.0, "total")
    dead = [name for name in numbers.dead if name not in numbers.frozen]
    cut = [name for name in dead if abs(numbers.weights.get(name, 0.0)) > WEIGHTED]
    if cut:
        return Decision("confirmed", f"losses[{cut[0]!r}]", 0.9, "a term")
    if dead:  # it is not in total either
        return Decision("question", f"losses[{dead[0]!r}]", 0.9, "a figure")
    if numbers.dead:
        return Decision("question", f"losses[{numbers.dead[0]!r}]", 0.5, "frozen")
    return Decision("excluded", reason="every term")


ASK = {
    "a figure": "is this meant? nothing learns this term; name a figure that is only shown after"
    " something else than mel, duration, stop or gate",
    "frozen": "is this meant? all that this term would move is frozen: declare Subject.frozen",
}


def tell(numbers: TermNorms, decision: Decision) -> Telling:
    experiment = NOT_FINITE if decision.reason == "not finite" else EXPERIMENT
    evidence = norms_by_name(numbers)
    evidence |= {f"weight of {name} in total": at for name, at in numbers.weights.items()}
    return Telling(experiment, evidence, ASK.get(decision.reason, ""))


def plant(build: Build, setting: Setting) -> Subject:
    """The mel term is computed from a detached prediction."""

    def of_detached(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
        return mean_l1(prediction.detach(), target, lengths)

    return build(setting, mel_loss=of_detached)


CAUSE = Cause(
    id="loss.detached",
    title="a term of the loss does not reach the weights",
    experiment="gradient of each term",
    fix="keep the graph: no detach(), item() or argmax between weights and loss",
    experiments=(Experiment(term_norms, decide, tell),),
    plant=plant,
)
