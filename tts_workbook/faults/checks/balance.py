"""Checks of how the terms share the gradient: does the mel term have a say on the parameters that
another term reaches too?
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from tts_workbook.faults.checks.registry import check
from tts_workbook.faults.finding import Finding
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.term_gradients import span, term_gradients
from tts_workbook.subject.isolation import private_copy, unchanged_randomness, without_dropout
from tts_workbook.subject.opened import once_per_subject
from tts_workbook.subject.tensor_math import Named, difference, only, tensors_norm
from tts_workbook.subject.training_step import all_parameters, plain_step

# a term's weighted gradient over the mel's from which on the mel may be without any say; sound ones
# have 1 to 130
DROWNED_OUT = 3e4
# above this the mel's gradient is a rounding, or none: its way is cut, which is another fault
LARGEST = 1e10
MUTE = 1e-3  # of the movement of the shared parameters that is the mel's
N_STEPS = 3


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
    gradients = dict(term_gradients(lab))
    total = gradients.pop("total")
    terms = [name for name, gradient in gradients.items() if gradient]
    mel = next((name for name in terms if "mel" in name.lower()), "")
    if (
        not mel
        or not total
        or not all(
            math.isfinite(tensors_norm(gradient.values()))
            for gradient in (total, *gradients.values())
        )
    ):
        return "", {}, {}
    return mel, dict(zip(terms, span(total, [gradients[name] for name in terms])[0])), gradients


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


def without_term(lab: Lab, name: str) -> Callable[[Callable], Callable]:
    """Change of the losses: total without the term, as the sum of the others, for a difference
    would leave the rounding of the large.
    """
    weights = weighted_terms(lab)[1]

    def change(losses: Callable) -> Callable:
        def dropped(model, batch):
            found = dict(losses(model, batch))
            return {
                **found,
                "total": sum(weights[other] * found[other] for other in weights if other != name),
            }

        return dropped

    return change


@check("loss.imbalance")
def say_of_the_mel(lab: Lab) -> Iterable[Finding]:
    """Where another term's gradient is overwhelming: the shared parameters after a few steps with
    and without the mel term.
    """
    loudest = max(shared_terms(lab), key=lambda term: term.ratio, default=None)
    if loudest is None or not DROWNED_OUT < loudest.ratio < LARGEST:
        yield Finding(
            "loss.imbalance",
            "excluded",
            "gradients of the terms on the parameters that they share with the mel term",
            (
                {}
                if loudest is None
                else {f"gradient of {loudest.name} over that of {loudest.mel}": loudest.ratio}
            ),
        )
        return
    whole, without = (
        _moved(lab, losses, loudest.shared)
        for losses in (lab.subject.losses, without_term(lab, loudest.mel)(lab.subject.losses))
    )
    say = difference(without, whole)
    yield Finding(
        "loss.imbalance",
        "confirmed" if say < MUTE else "excluded",
        f"the parameters that {loudest.name} and {loudest.mel} share, after "
        f"{N_STEPS} of the workbook's own steps with and without {loudest.mel}, same seeds",
        {
            f"gradient of {loudest.name} over that of {loudest.mel}, shared parameters": (
                loudest.ratio
            ),
            f"share of their movement that is {loudest.mel}'s": say,
            f"weight of {loudest.name} in total": loudest.weight,
        },
        f"losses[{loudest.name!r}]",
        0.5,
    )


def _moved(lab: Lab, losses: Callable, names: frozenset[str]) -> dict[str, Tensor]:
    model = lab.build()
    with unchanged_randomness(lab.seed), without_dropout(model):
        optimizer = lab.subject.make_optimizer(model)
        before = {
            name: parameter.detach().clone()
            for name, parameter in all_parameters(model)
            if name in names
        }
        for _ in range(N_STEPS):
            plain_step(model, optimizer, private_copy(lab.batch), losses)
    return {
        name: parameter.detach() - before[name]
        for name, parameter in all_parameters(model)
        if name in names
    }
