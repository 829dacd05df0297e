"""loss.imbalance: one term dominates the gradient of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.faults.selection import paired
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change, Losses
from tts_workbook.measure.term_gradients import gradient_weights, term_gradients
from tts_workbook.subject.clip_data import clipped_step
from tts_workbook.subject.isolation import private_copy, unchanged_randomness, without_dropout
from tts_workbook.subject.opened import once_per_subject
from tts_workbook.subject.subject import Batch, Subject
from tts_workbook.subject.tensor_math import Named, difference, only, tensors_norm
from tts_workbook.subject.training_step import all_parameters, plain_step

DOMINANT = Bar(
    200.0,
    control="times the mel term's gradient on the parameters that both reach; it only proposes, and"
    " a paired run decides. Sound terms have 1 to 130",
)
DROWNED_OUT = Bar(
    3e4,
    control="times the mel term's gradient: from here on the mel may be without any say, and steps"
    " with and without it are taken",
)
LARGEST = Bar(
    1e10,
    control="times the mel term's gradient: above this it is a rounding of the other, or none: its"
    " way is cut, which is another fault",
)
MUTE = Bar(1e-3, control="of the movement of the shared parameters: the part that is the mel's")
N_STEPS = 3


# --- the terms ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SharedTerm:
    """A term beside the mel, on the parameters that both have a gradient at."""

    name: str
    mel: str
    weight: float  # in total
    ratio: float  # norm of its weighted gradient over that of the mel's
    shared: frozenset[str]  # names of the parameters


@once_per_subject
def weighted_terms(lab: Lab) -> tuple[str, dict[str, float], dict[str, Named]]:
    """Name of the mel term ("" where there is none, or a gradient is not finite), weights of the
    terms in total, and their gradients at fresh weights.
    """
    weights = dict(gradient_weights(lab).weights)
    mel = next((name for name in weights if "mel" in name.lower()), "")
    if not mel:
        return "", {}, {}
    return mel, weights, term_gradients(lab)


def shared_terms(lab: Lab) -> list[SharedTerm]:
    """The terms that share parameters with the mel."""
    mel, weights, gradients = weighted_terms(lab)
    found = []
    for name in weights:
        shared = gradients[name].keys() & gradients[mel].keys()
        own, its = (
            abs(weights[term]) * tensors_norm(only(gradients[term], shared).values())
            for term in (name, mel)
        )
        if name != mel and its > 0.0:
            found.append(SharedTerm(name, mel, weights[name], own / its, frozenset(shared)))
    return found


def without_term(lab: Lab, name: str) -> Change:
    """The losses without a term in total, as the sum of the others, for a difference would leave
    the rounding of the large.
    """
    weights = weighted_terms(lab)[1]

    def change(losses: Losses) -> Losses:
        def dropped(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
            found = dict(losses(model, batch))
            total: Any = sum(weights[other] * found[other] for other in weights if other != name)
            return {**found, "total": total}

        return dropped

    return Change("without_term", (name,), "weight of {} set to 0".format, losses=change)


# --- the say of the mel ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Say:
    """The term with the loudest gradient on the parameters that it shares with the mel."""

    loudest: str = ""  # empty where no term shares parameters with the mel
    mel: str = ""
    weight: float = 0.0  # of the loudest, in total
    ratio: float = 0.0  # norm of its weighted gradient over that of the mel's
    # share of the shared parameters' movement that is the mel's; None where the loudest is not
    # overwhelming
    say: float | None = None
    # whether the subject passes the overfit gate all the same; asked where the mel has no say
    learns: bool = False


def measure(lab: Lab) -> Say:
    """Where another term's gradient is overwhelming: the shared parameters after a few steps with
    and without the mel term.
    """
    loudest = max(shared_terms(lab), key=lambda term: term.ratio, default=None)
    if loudest is None:
        return Say()
    numbers = Say(loudest.name, loudest.mel, loudest.weight, loudest.ratio)
    if not DROWNED_OUT < loudest.ratio < LARGEST:
        return numbers
    losses = lab.subject.losses
    without_mel = without_term(lab, loudest.mel).losses
    assert without_mel is not None
    whole = _moved(lab, losses, loudest.shared)
    without = _moved(lab, without_mel(losses), loudest.shared)
    say = difference(without, whole)
    return replace(numbers, say=say, learns=say < MUTE and lab.course().learnt)


def _moved(lab: Lab, losses: Losses, names: frozenset[str]) -> dict[str, Tensor]:
    """How far N_STEPS of the workbook's own steps move these parameters."""
    model = lab.build()
    with unchanged_randomness(lab.seed), without_dropout(model):
        optimizer = lab.subject.make_optimizer(model)
        parameters = {name: weight for name, weight in all_parameters(model) if name in names}
        before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        for _ in range(N_STEPS):
            plain_step(model, optimizer, private_copy(lab.batch), losses)
    return {name: parameter.detach() - before[name] for name, parameter in parameters.items()}


def decide(numbers: Say) -> Decision:
    """Pure: which of the ends it is."""
    if numbers.say is None:
        return Decision("excluded", reason="not overwhelming")
    where = f"losses[{numbers.loudest!r}]"
    if numbers.say < MUTE and numbers.learns:
        return Decision("question", where, 0.5, "mute, and learns")
    if numbers.say < MUTE:
        return Decision("confirmed", where, 0.5, "mute")
    return Decision("excluded", where, 0.5, "heard")


ASK = "is this weight meant? the mel has no say where both have a gradient, and is learnt elsewhere"


def tell(numbers: Say, decision: Decision) -> Telling:
    ratio = f"gradient of {numbers.loudest} over that of {numbers.mel}"
    if numbers.say is None:
        return Telling(
            "gradients of the terms on the parameters that they share with the mel term",
            {ratio: numbers.ratio} if numbers.loudest else {},
        )
    return Telling(
        f"the parameters that {numbers.loudest} and {numbers.mel} share, after "
        f"{N_STEPS} of the workbook's own steps with and without {numbers.mel}, same seeds",
        {
            f"{ratio}, shared parameters": numbers.ratio,
            f"share of their movement that is {numbers.mel}'s": numbers.say,
            f"weight of {numbers.loudest} in total": numbers.weight,
        },
        ASK if decision.reason == "mute, and learns" else "",
    )


# --- a term that dominates ------------------------------------------------------------------------


def propose(lab: Lab) -> Iterable[Suspect]:
    """A term whose weighted gradient dwarfs the mel's on the parameters that both reach; its weight
    set to 0.
    """
    for term in shared_terms(lab):
        if term.ratio > DOMINANT:
            ratio = f"gradient of {term.name} over that of {term.mel}, shared parameters"
            yield Suspect(
                CAUSE.id,
                without_term(lab, term.name),
                {ratio: term.ratio, f"weight of {term.name} in total": term.weight},
                f"losses[{term.name!r}]",
            )


def plant(build: Build, setting: Setting, term: str | None = None) -> Subject:
    """An auxiliary term (`term`, by default the first that is not the mel) weighs 1e4 to 1e6 times
    the rest.
    """
    weight, subject = setting.log_uniform(1e4, 1e6), build(setting)

    def losses(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        terms = dict(subject.losses(model, batch))
        chosen = term or next(name for name in terms if name not in ("mel", "total"))
        return {
            **terms,
            chosen: weight * terms[chosen],
            "total": terms["total"] + (weight - 1) * terms[chosen],
        }

    return replace(subject, losses=losses, train_step=clipped_step(losses))


CAUSE = Cause(
    id="loss.imbalance",
    title="one term dominates the gradient of the others",
    experiment="the term's weight set to 0 as the one factor, same seeds",
    fix="weigh the terms so that none has more than its share of the shared gradient",
    experiments=(Experiment(measure, decide, tell), paired("loss.imbalance")),
    propose=propose,
    upstream=5,
    plant=plant,
)
