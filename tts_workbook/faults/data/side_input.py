"""data.side_input: a value that is not finite, or far from all others, in an input that is no mel.

Pitch, energy, durations, speaker vectors: what a batch holds beside text and mel. Shapes: B clips,
N text positions or frames.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.selection import paired
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change
from tts_workbook.measure.anatomy import find_history
from tts_workbook.measure.batch_fields import named_tensors
from tts_workbook.measure.non_finite import NonFinite, NonFiniteInputs, non_finite_inputs
from tts_workbook.subject.isolation import private_copy
from tts_workbook.subject.subject import Batch

# distance from the median of a field, in its own central spreads (10 to 90 %); a proposal alone: a
# paired run decides
FAR = Bar(30.0, control="the spread between the 10th and 90th percentile of the same field")
FEWEST_VALUES = 8  # of a field, for a spread

# --- values that are not finite -------------------------------------------------------------------


def measure(lab: Lab) -> NonFiniteInputs:
    """Fields of the batch that are not finite; where predictions, losses or gradients are not
    either, again with those values replaced by their field's median.
    """
    return non_finite_inputs(lab)


def decide(numbers: NonFiniteInputs) -> Decision:
    """Pure: which of the ends it is."""
    if not numbers.fields:
        return Decision("excluded", "batch", reason="finite")
    if numbers.harmless:
        return Decision("excluded", numbers.fields[0].name, reason="harmless")
    if not numbers.guilty:
        return Decision("undecided", numbers.fields[0].name, reason="not alone")
    return Decision("confirmed", numbers.guilty[0].name, 1.0, "mended")


SAID = {
    "finite": "every tensor of the batch is finite",
    "harmless": (
        "the batch holds values that are not finite, as masks do; predictions, losses and"
        " gradients are finite all the same"
    ),
    "not alone": (
        "the batch holds values that are not finite, and more than those is not; next: replace"
        " them, and diagnose again"
    ),
    "mended": (
        "values that are not finite replaced by their field's median, as the one factor:"
        " predictions, losses and gradients become finite"
    ),
}


def tell(numbers: NonFiniteInputs, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {"fields that are not finite": len(numbers.fields)}
    named = numbers.guilty or numbers.fields
    if named:
        evidence |= _place(named[0])
    return Telling(SAID[decision.reason], evidence)


def _place(found: NonFinite) -> dict[str, float | str]:
    place: dict[str, float | str] = {"field": found.name, "value": str(found.value)}
    if found.clip is not None:
        place["clip"] = found.clip
    if found.position is not None:
        place["position"] = found.position
    return place


# --- values that are far from all others ----------------------------------------------------------


def propose(lab: Lab) -> Iterable[Suspect]:
    """Fields that hold values far from the rest of the same field, held at its edge."""
    for name, (low, high), share in far_fields(lab):
        change = Change(
            "values_held",
            (name,),
            "values of {} held within reach of the others".format,
            batch=functools.partial(_held, name=name, low=low, high=high),
        )
        evidence = {"share of values far from the others": share}
        yield Suspect(CAUSE.id, change, evidence, name)


def far_fields(lab: Lab) -> list[tuple[str, tuple[float, float], float]]:
    """(name, range that is kept, share outside of it) of the finite float tensors that are no
    mel.
    """
    mels = {history.index for history in find_history(lab)}
    found = []
    for index, (name, tensor) in enumerate(named_tensors(lab.batch)):
        if index in mels or not tensor.is_floating_point() or tensor.ndim == 0:
            continue
        values = tensor.float().flatten()
        if len(values) < FEWEST_VALUES or not values.isfinite().all():
            continue
        low, middle, high = (float(torch.quantile(values, share)) for share in (0.1, 0.5, 0.9))
        reach = FAR * (high - low)
        outside = ((values - middle).abs() > reach).float().mean()
        if reach > 0 and float(outside) > 0:
            found.append((name, (low, high), float(outside)))
    return found


def _held(batch: Batch, name: str, low: float, high: float) -> Batch:
    twin = private_copy(batch)
    for known, tensor in named_tensors(twin):
        if known == name:
            tensor.clamp_(low, high)
    return twin


CAUSE = Cause(
    id="data.side_input",
    title="a value that is not finite, or far from all others, in an input that is no mel",
    experiment="the first tensor of the batch that is not finite, replaced as the one factor",
    fix="mend the feature: log F0 of voiced frames alone, no division by zero, no empty segment",
    experiments=(
        Experiment(measure, decide, tell),
        paired("data.side_input", only_accepted=True),
    ),
    propose=propose,
    upstream=0,
    explains=("precision.mask_overflow", "precision.scaler_skips", "data.unnormalised_target"),
)
