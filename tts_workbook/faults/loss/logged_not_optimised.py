"""loss.logged_not_optimised: the curve that is shown is not what is optimised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.loss._identity import EXPERIMENT as PREDICTIONS
from tts_workbook.faults.loss._identity import where_it_can_be_asked
from tts_workbook.faults.loss._terms import (
    EXPERIMENT,
    NOT_FINITE,
    WEIGHTED,
    TermNorms,
    norms_by_name,
    term_norms,
)
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.faults.selection import OWN_STEP
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import LEARNT, Change, Losses
from tts_workbook.measure.observed_steps import observe_steps
from tts_workbook.measure.term_gradients import span, term_gradients
from tts_workbook.subject.clip_data import clipped_step
from tts_workbook.subject.subject import Batch, Subject
from tts_workbook.subject.tensor_math import only, tensors_norm

UNSHOWN_SHARE = Bar(
    0.1,
    absolute="squared share of total's gradient outside the span of the terms' gradients; it only"
    " decides whether to ask, and never accuses",
)
FLOORS = Bar(
    10.0,
    control="times what weights that are off by a rounding do to the same weight or share",
)
RESOLVED = Bar(
    1e-3,
    control="of total: where a rounding does more than this to the weight of the mel, nothing is"
    " said of it",
)


# --- a term that hears no prediction --------------------------------------------------------------


@dataclass(frozen=True)
class Deaf:
    """Mel terms that are the same whatever is predicted."""

    values: Mapping[str, float]
    # those of them that reach the weights all the same: they are computed from another output
    attached: tuple[str, ...]
    heard: tuple[str, ...]  # mel terms that hear the prediction


def measure_deaf(lab: Lab) -> Deaf:
    """The model made to predict this and that, and the gradients of the terms."""
    terms = where_it_can_be_asked(lab).terms
    named = [name for name in terms if "mel" in name.lower()]
    deaf = {name: terms[name].own for name in named if not terms[name].heard}
    norms = term_norms(lab).norms if deaf else {}
    return Deaf(
        deaf,
        tuple(name for name in deaf if norms[name] > 0.0),
        tuple(name for name in named if name not in deaf),
    )


def decide_deaf(numbers: Deaf) -> Decision | None:
    """Pure: a mel term depends neither on what is predicted nor on a weight."""
    if not all(map(math.isfinite, numbers.values.values())):
        return Decision("undecided", reason="not finite")
    constant = [name for name in numbers.values if name not in numbers.attached]
    if constant:
        return Decision("confirmed", f"losses[{constant[0]!r}]", 1.0, "deaf")
    if numbers.attached and not numbers.heard:
        return Decision("undecided", f"losses[{numbers.attached[0]!r}]", reason="another output")
    return None


def tell_deaf(numbers: Deaf, decision: Decision) -> Telling:
    experiment = PREDICTIONS
    if decision.reason == "not finite":
        experiment = NOT_FINITE
    if decision.reason == "another output":
        experiment = (
            "the mel term reaches the weights, and is the same whatever `predict_mel` gives; next:"
            " compute it from the prediction that `predict_mel` returns"
        )
    return Telling(
        experiment, {f"{name}, whatever is predicted": at for name, at in numbers.values.items()}
    )


# --- a total that is not made of the terms --------------------------------------------------------


def _unlisted(numbers: TermNorms) -> bool:
    """Whether total holds something that no term explains, and that is worth a question."""
    return numbers.unshown > max(UNSHOWN_SHARE, FLOORS * numbers.unshown_rounding)


def _ignored(numbers: TermNorms) -> bool:
    """Whether the total leaves the mel terms alone where nothing else could hide them."""
    return bool(numbers.mels) and all(
        part.alone and abs(part.weight) <= FLOORS * part.rounding and part.rounding < RESOLVED
        for part in numbers.mels.values()
    )


def _opposed(numbers: TermNorms) -> bool:
    """Whether descending the total climbs every mel term."""
    return bool(numbers.mels) and all(
        part.alone and part.weight < -FLOORS * part.rounding for part in numbers.mels.values()
    )


def decide(numbers: TermNorms) -> Decision | None:
    """Pure: total's gradient is made of the terms', and of the mel's."""
    if not numbers.finite:
        return Decision("undecided", reason="not finite")
    if not numbers.coefficients or numbers.dead:
        return None  # a term that does not reach the weights is another cause
    if _ignored(numbers):
        return Decision("confirmed", "losses['total']", 0.9, "mel ignored")
    if _opposed(numbers) and not _unlisted(numbers):
        return Decision("confirmed", "losses['total']", 0.9, "mel opposed")
    if _unlisted(numbers):
        return Decision("question", "losses['total']", numbers.unshown, "not listed")
    return Decision("excluded", reason="made of the terms")


LIST_IT = (
    "is this meant? list the rest of `total` in Subject.losses under a name of its own, so that"
    " each part can be judged"
)


def tell(numbers: TermNorms, decision: Decision) -> Telling:
    if decision.reason == "not finite":
        return Telling(NOT_FINITE, norms_by_name(numbers))
    evidence: dict[str, float | str] = {
        f"weight of {name} in total's gradient": weight
        for name, weight in numbers.coefficients.items()
    }
    for name, part in numbers.mels.items():
        if part.alone:
            evidence[f"weight of {name} where it alone has a gradient"] = part.weight
            evidence["what a rounding does to it"] = part.rounding
    evidence["share of total's gradient that no term explains"] = numbers.unshown
    return Telling(EXPERIMENT, evidence, LIST_IT if decision.reason == "not listed" else "")


# --- whether what is not listed does harm ---------------------------------------------------------


@dataclass(frozen=True)
class Harm:
    """Paired runs with total as it is, and with the listed terms alone."""

    unshown: float  # squared share of total's gradient that no term explains
    learns: bool | None  # the subject as it is, with as many steps as it takes; None: not asked
    before: tuple[float, ...] = ()  # last TF L1 / best constant as it is, by seed
    after: tuple[float, ...] = ()  # with the listed terms alone


def measure_harm(lab: Lab) -> Harm:
    """Two seeds, the workbook's own step on both sides; only where total holds something unlisted
    and the subject does not learn.
    """
    numbers = term_norms(lab)
    if not numbers.finite or not numbers.coefficients or not _unlisted(numbers):
        return Harm(numbers.unshown, None)
    if lab.learns:
        return Harm(numbers.unshown, True)
    listed, before, after = _listed_alone(numbers), [], []
    for seed in (lab.seed, lab.seed + 1):
        before.append(lab.course(OWN_STEP, seed=seed).final)
        after.append(lab.course(listed, seed=seed).final)
        if after[-1] >= LEARNT:
            break
    return Harm(numbers.unshown, False, tuple(before), tuple(after))


def _listed_alone(numbers: TermNorms) -> Change:
    """The total as the sum of the listed terms, with the weights that they have in it."""
    weights = {name: max(at, 0.0) or 1.0 for name, at in numbers.coefficients.items()}

    def change(losses: Losses) -> Losses:
        def listed(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
            found = dict(losses(model, batch))
            total: Any = sum(weight * found[name] for name, weight in weights.items())
            return {**found, "total": total}

        return listed

    return Change("listed_terms", tuple(weights), lambda *_: "only the listed terms", losses=change)


def decide_harm(numbers: Harm) -> Decision | None:
    """Pure: a run that fails with what is not listed passes the overfit gate without it, on every
    seed. A run that is only faster without it accuses nobody: each part of a loss costs steps.
    """
    if len(numbers.after) < 2 or min(numbers.before) < LEARNT or max(numbers.after) >= LEARNT:
        return None
    gain = min(before - after for before, after in zip(numbers.before, numbers.after, strict=True))
    return Decision("confirmed", "losses['total']", min(gain, 1.0), "unlisted does harm")


def tell_harm(numbers: Harm, decision: Decision) -> Telling:
    return Telling(
        "only the listed terms as the one factor, two seeds",
        {
            "share of total's gradient that no term explains": numbers.unshown,
            "last TF L1 / best constant as it is": max(numbers.before),
            "with the listed terms alone": max(numbers.after),
        },
        "look at what `total` holds beside the listed terms: without it the subject learns",
    )


# --- a step that follows something else -----------------------------------------------------------


@dataclass(frozen=True)
class StepParts:
    """The gradient that the train step makes, beside that of `total`."""

    stepped: bool  # whether there is such a gradient to compare
    # term -> its weight in the step's gradient over that in total's; the largest is 1
    kept: Mapping[str, float]


def measure_step(lab: Lab) -> StepParts:
    """Weights, batch and random state are the same on both sides, dropout is off."""
    numbers, step = term_norms(lab), observe_steps(lab).step
    if step is None or not step.held or not numbers.coefficients:
        return StepParts(False, {})
    gradients = term_gradients(lab)
    names = list(numbers.coefficients)
    parts = [only(gradients[name], step.held) for name in names]
    if not all(tensors_norm(part.values()) for part in parts):
        return StepParts(False, {})
    if not all(gradient.isfinite().all() for gradient in step.held.values()):
        return StepParts(False, {})
    weights, _ = span(step.held, parts)
    kept = {
        name: weight / numbers.coefficients[name]
        for name, weight in zip(names, weights, strict=True)
        if abs(numbers.coefficients[name]) > WEIGHTED
    }
    largest = max((abs(share) for share in kept.values()), default=0.0)
    return StepParts(bool(largest), {name: share / largest for name, share in kept.items()})


def decide_step(numbers: StepParts) -> Decision | None:
    """Pure: the step follows the mel as `total` does."""
    mel = [name for name in numbers.kept if "mel" in name.lower()]
    if not numbers.stepped or not mel or len(mel) == len(numbers.kept):
        return None
    if all(abs(numbers.kept[name]) < RESOLVED for name in mel):
        return Decision("confirmed", "train_step", 0.9, "step leaves the mel out")
    return None


def tell_step(numbers: StepParts, decision: Decision) -> Telling:
    return Telling(
        "the gradient that the train step makes against that of `total`, same weights and batch",
        {
            f"weight of {name} in the step over that in total, the largest is 1": share
            for name, share in numbers.kept.items()
        },
        "call backward() in the train step on the total that `losses` shows",
    )


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
        Experiment(measure_deaf, decide_deaf, tell_deaf),
        Experiment(term_norms, decide, tell),
        Experiment(measure_step, decide_step, tell_step),
        Experiment(measure_harm, decide_harm, tell_harm),
    ),
    plant=plant,
)
