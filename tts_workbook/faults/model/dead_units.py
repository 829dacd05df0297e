"""model.dead_units: units that are zero on every frame."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace

from torch import Tensor, nn

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.run_changes import reinitialise
from tts_workbook.lab.short_run import ChangeKey

DEAD_SHARE = Bar(
    0.6,
    control="the units of the same layer: so many zero on every valid frame are looked into; the"
    " default initialisation as the one factor decides",
)
REVIVED = Bar(
    0.5, control="the dead share as it is: a default initialisation has to bring it below"
)
GAIN = Bar(
    0.1,
    control="the course as it is, in best constants: what a default initialisation has to gain",
)
NO_WORSE = Bar(
    0.02, control="the course as it is, in best constants: what it may cost units that stay dead"
)
MIN_UNITS = 8


@dataclass(frozen=True)
class Redrawn:
    """The layer before the dead units with its default initialisation, as the one factor."""

    revived: float  # share of dead units, fresh
    outcome: float  # mean TF L1 over the best constant, as it is
    outcome_redrawn: float
    mended_by: tuple[ChangeKey, ...] = ()  # what was changed in that run


@dataclass(frozen=True)
class Units:
    """The layer with the largest share of dead units."""

    worst: str = ""  # "input of …" where the units are what a module is given
    fresh: float = 0.0  # its share of units that are zero on every valid frame
    trained: float = 0.0
    source: str = (
        ""  # the last layer with parameters before it; empty where it cannot be drawn anew
    )
    starts_at_zero: bool = False  # all weights of that layer
    redrawn: Redrawn | None = None


def measure(lab: Lab) -> Units:
    """Layers whose units are zero on every frame; the layer before them is re-initialised as the
    one factor.
    """
    fresh = dead_shares(lab, lab.model)
    trained = dead_shares(lab, lab.course().model)
    if not fresh:
        return Units()
    worst = max(fresh, key=lambda name: fresh[name] + 1e-3 * trained.get(name, 0.0))
    units = Units(worst, fresh[worst], trained.get(worst, 0.0))
    if units.fresh < DEAD_SHARE:
        return units
    source = source_of(lab, worst.removeprefix("input of "))
    if not source:
        return units
    weights = dict(lab.model.named_modules())[source].parameters()
    if not any(bool((weight != 0).any()) for weight in weights):
        return replace(units, source=source, starts_at_zero=True)
    return replace(units, source=source, redrawn=_redrawn(lab, worst, source))


def _redrawn(lab: Lab, worst: str, source: str) -> Redrawn:
    change = reinitialise([source])
    assert change.model is not None
    again = lab.build()
    change.model(again)
    revived = dead_shares(lab, again).get(worst, 0.0)
    own, redrawn = lab.course().outcome, lab.course(change).outcome
    return Redrawn(revived, own, redrawn, (change.key,))


def dead_shares(lab: Lab, model: nn.Module) -> dict[str, float]:
    """Module name -> share of its output's (or its input's) units that are exactly zero everywhere,
    where zeros are a ReLU's.

    Of a module that is called for every step the least share counts: at its first step a recurrent
    decoder has heard nothing.
    """
    shares: dict[str, float] = {}
    signed: set[str] = set()
    modules = dict(model.named_modules())
    calls = lab.calls(model)
    places = {lab.target.shape[1]}
    for call in calls:
        if isinstance(modules.get(call.name), nn.Embedding) and call.outputs[0].ndim == 3:
            places.add(call.outputs[0].shape[1])
    for call in calls:
        for side, tensors in (("", call.outputs[:1]), ("input of ", call.inputs[:1])):
            for tensor in tensors:
                if tensor.ndim < 2 or not tensor.is_floating_point() or not tensor.numel():
                    continue
                name = side + call.name
                if bool((tensor < 0).any()):
                    # no rectified layer, though a first step may give zeros
                    signed.add(name)
                    continue
                share = dead_share(tensor, channel_axis(tensor, modules.get(call.name), places))
                if share is not None:
                    shares[name] = min(share, shares.get(name, 1.0))
    return {name: share for name, share in shares.items() if name not in signed}


def channel_axis(tensor: Tensor, module: nn.Module | None, places: Container[int]) -> int | None:
    """The axis of a (B, C, T) or (B, T, C) tensor that counts units, by the kind of the module that
    gives or takes it, else by which of the two is as long as text or mel (`places`); None where
    neither tells.
    """
    if tensor.ndim != 3:
        return tensor.ndim - 1
    if isinstance(module, nn.Conv1d | nn.ConvTranspose1d | nn.modules.batchnorm._BatchNorm):
        return 1
    if isinstance(module, nn.Linear | nn.LayerNorm | nn.RNNBase):
        return 2
    long = [axis for axis in (1, 2) if tensor.shape[axis] in places]
    return 3 - long[0] if len(long) == 1 else None


def dead_share(tensor: Tensor, axis: int | None = -1) -> float | None:
    """Share of units along `axis` that are zero on every place; None where it is no layer: too few
    units or places, or a code of zeros and ones. Where the axis is not known, the lesser share of
    the two.
    """
    if axis is None:
        both = (dead_share(tensor, 1), dead_share(tensor, 2))
        return min((share for share in both if share is not None), default=None)
    rows = tensor.movedim(axis, -1).reshape(-1, tensor.shape[axis])
    if min(rows.shape) < MIN_UNITS:
        return None
    is_code = bool((rows == 1).any()) and bool(((rows == 0) | (rows == 1)).all())
    return None if is_code else float((rows == 0).all(dim=0).float().mean())


def source_of(lab: Lab, name: str) -> str:
    """The last leaf module with parameters that ran before `name` (or is it): what feeds its
    activation.
    """
    modules = dict(lab.model.named_modules())
    last = ""
    for call in lab.calls(lab.model):
        module = modules.get(call.name)
        is_leaf = module is not None and not any(True for _ in module.children())
        has_parameters = is_leaf and module is not None and any(True for _ in module.parameters())
        if call.name == name and last:
            # a layer that is its own activation has its zeros from its own parameters
            rectifies_itself = has_parameters and any(map(_is_rectified, call.outputs))
            if not rectifies_itself:
                return last
        if has_parameters and hasattr(module, "reset_parameters"):
            last = call.name
        if call.name == name:
            return last
    return last


def _is_rectified(tensor: Tensor) -> bool:
    return dead_share(tensor) is not None and bool((tensor >= 0).all())


def decide(numbers: Units) -> Decision:
    """Pure: which of the ends it is.

    Units that training wakes up, or a layer that starts at zero on purpose, are blamed for nothing
    unless the change gains much.
    """
    if not numbers.worst or numbers.fresh < DEAD_SHARE:
        return Decision("excluded", reason="alive")
    if numbers.starts_at_zero:
        return Decision("excluded", reason="starts at zero")
    if numbers.redrawn is None:
        return Decision("suspected", numbers.worst, 0.3, "cannot be drawn anew")
    gain = numbers.redrawn.outcome - numbers.redrawn.outcome_redrawn
    stays_dead = numbers.trained >= DEAD_SHARE
    revives = numbers.redrawn.revived < REVIVED * numbers.fresh
    if revives and gain > GAIN:
        return Decision("confirmed", numbers.source, gain, "revived")
    # dead, and living units would cost nothing: an oddity that harms nothing in this run
    if revives and stays_dead and gain > -NO_WORSE:
        return Decision("suspected", numbers.source, max(0.1, gain), "revived, no harm")
    return Decision("excluded", numbers.source, max(0.1, gain), "redrawn in vain")


def tell(numbers: Units, decision: Decision) -> Telling:
    experiment = "zero units over all valid frames, fresh and after training"
    evidence: dict[str, float | str] = {
        "dead share of the worst layer, fresh": numbers.fresh,
        "after training": numbers.trained,
    }
    if decision.reason == "starts at zero":
        return Telling(
            f"{experiment}; {numbers.source} starts with weights of zero, which is no dead ReLU",
            evidence,
        )
    if numbers.redrawn is None:
        return Telling(experiment, evidence)
    evidence |= {
        "after re-initialising": numbers.redrawn.revived,
        "outcome as it is": numbers.redrawn.outcome,
        "outcome re-initialised": numbers.redrawn.outcome_redrawn,
    }
    return Telling(
        f"default initialisation of {numbers.source} as the one factor, same seeds",
        evidence,
        mended_by=numbers.redrawn.mended_by if decision.level == "confirmed" else (),
    )


CAUSE = Cause(
    id="model.dead_units",
    title="units that are zero on every frame",
    experiment="re-initialise the dead layer as the one factor, same seeds",
    fix="default initialisation, a smaller learning rate or a leaky activation",
    experiments=(Experiment(measure, decide, tell, finite=True),),
)
