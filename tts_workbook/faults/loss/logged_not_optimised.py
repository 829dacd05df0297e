"""loss.logged_not_optimised: the curve that is shown is not what is optimised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.loss._identity import EXPERIMENT as PREDICTIONS
from tts_workbook.faults.loss._identity import Identity, where_it_can_be_asked
from tts_workbook.faults.loss._terms import (
    EXPERIMENT,
    NOT_FINITE,
    TermNorms,
    norms_by_name,
    term_norms,
)
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.subject.clip_data import clipped_step
from tts_workbook.subject.subject import Subject

UNSHOWN_SHARE = 0.1  # squared share of total's gradient outside the span of the terms' gradients
UNWEIGHTED = 1e-3  # weight of a term in total's gradient below which it is none
# a mel term that makes less of total's gradient is no part of it; what is merely dominated makes
# more
IGNORED = 3e-5


# --- a term that hears no prediction --------------------------------------------------------------


def deaf(numbers: Identity) -> list[str]:
    """Mel terms that are the same whatever is predicted."""
    return [
        name for name, values in numbers.terms.items() if "mel" in name.lower() and not values.heard
    ]


def decide_deaf(numbers: Identity) -> Decision | None:
    """Pure: a mel term does not depend on what is predicted."""
    names = deaf(numbers)
    return Decision("confirmed", f"losses[{names[0]!r}]", 1.0, "deaf") if names else None


def tell_deaf(numbers: Identity, decision: Decision) -> Telling:
    return Telling(
        PREDICTIONS,
        {f"{name}, whatever is predicted": numbers.terms[name].own for name in deaf(numbers)},
    )


# --- a total that is not made of the terms --------------------------------------------------------


def _ignored(numbers: TermNorms) -> bool:
    """Whether the total holds no mel term, though there is one with a gradient."""
    mel = [name for name in numbers.coefficients if "mel" in name.lower()]
    if not mel:
        return False
    total = numbers.norms["total"]
    for name in mel:
        weight = abs(numbers.coefficients[name])
        if weight >= UNWEIGHTED or weight * numbers.norms[name] >= IGNORED * total:
            return False
    return True


def decide(numbers: TermNorms) -> Decision | None:
    """Pure: total's gradient is made of the terms', and of the mel's."""
    if not numbers.finite:
        return Decision("undecided", reason="not finite")
    if not numbers.coefficients or numbers.dead:
        return None  # a term that does not reach the weights is another cause
    if numbers.unshown > UNSHOWN_SHARE:
        return Decision("confirmed", "losses['total']", 0.9, "not shown")
    if _ignored(numbers):
        return Decision("confirmed", "losses['total']", 0.9, "mel ignored")
    return Decision("excluded", reason="made of the terms")


def tell(numbers: TermNorms, decision: Decision) -> Telling:
    if decision.reason == "not finite":
        return Telling(NOT_FINITE, norms_by_name(numbers))
    evidence: dict[str, float | str] = {
        f"weight of {name} in total's gradient": weight
        for name, weight in numbers.coefficients.items()
    }
    evidence["share of total's gradient that no term explains"] = numbers.unshown
    return Telling(EXPERIMENT, evidence)


def plant(build: Build, setting: Setting, terms: Sequence[str] = ("mel",)) -> Subject:
    """`total` leaves the mel out, while the curve of the mel is still shown; `terms` enter the
    total with weight 1.
    """
    subject = build(setting)

    def losses(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        shown = dict(subject.losses(model, batch))
        left_out = sum(shown[name] for name in terms)
        return {**shown, "total": shown["total"] - left_out}

    return replace(subject, losses=losses, train_step=clipped_step(losses))


CAUSE = Cause(
    id="loss.logged_not_optimised",
    title="the curve that is shown is not what is optimised",
    experiment="recompute the term from the tensors; gradient of total against that of the term",
    fix="log the very tensor that backward() is called on",
    experiments=(
        Experiment(where_it_can_be_asked, decide_deaf, tell_deaf),
        Experiment(term_norms, decide, tell),
    ),
    plant=plant,
)
