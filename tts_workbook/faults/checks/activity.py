"""Checks of activity: units that never fire, normalisation that differs between the modes,
activations that grow.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Container, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_workbook.faults.checks.registry import check
from tts_workbook.faults.finding import Finding
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change
from tts_workbook.subject.isolation import unchanged_randomness, without_dropout
from tts_workbook.subject.module_calls import rms

# share of a layer's units that are zero on every valid frame; clean ReLU layers stay below 0.4
DEAD_SHARE = 0.6
REVIVED = 0.5  # a re-initialisation has to bring the share below this part of what it was
# in best constants: what it may cost where the units stay dead, and has to gain where training
# wakes them
NO_WORSE, GAIN = 0.02, 0.1
MODE_GAP = 0.1  # in best constants: running statistics worse than batch statistics by more
MODE_RATIO = 1.3
# forwards in training mode after which running statistics have caught up, times their momentum
SETTLING, MOST_FORWARDS = 6.0, 600
MIN_UNITS = 8
# weights this many times larger or smaller than the module's default initialisation are odd
INITIAL = 3.0


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
    places = {
        lab.target.shape[1],
        *(
            call.outputs[0].shape[1]
            for call in calls
            if isinstance(modules.get(call.name), nn.Embedding) and call.outputs[0].ndim == 3
        ),
    }
    for call in calls:
        for side, tensors in (("", call.outputs[:1]), ("input of ", call.inputs[:1])):
            for tensor in tensors:
                if tensor.ndim < 2 or not tensor.is_floating_point() or not tensor.numel():
                    continue
                if bool((tensor < 0).any()):
                    # no rectified layer, though a first step may give zeros
                    signed.add(side + call.name)
                elif (
                    share := dead_share(
                        tensor, channel_axis(tensor, modules.get(call.name), places)
                    )
                ) is not None:
                    shares[side + call.name] = min(share, shares.get(side + call.name, 1.0))
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
        shares = [
            share for share in (dead_share(tensor, 1), dead_share(tensor, 2)) if share is not None
        ]
        return min(shares, default=None)
    rows = tensor.movedim(axis, -1).reshape(-1, tensor.shape[axis])
    if min(rows.shape) < MIN_UNITS or (
        bool((rows == 1).any()) and bool(((rows == 0) | (rows == 1)).all())
    ):
        return None
    return float((rows == 0).all(dim=0).float().mean())


@check("model.dead_units", finite=True)
def units_that_never_fire(lab: Lab) -> Iterable[Finding]:
    """Layers whose units are zero on every frame; the layer before them is re-initialised as the
    one factor.

    Units that training wakes up, or a layer that starts at zero on purpose, are blamed for nothing
    unless the change gains much.
    """
    fresh = dead_shares(lab, lab.model)
    trained = dead_shares(lab, lab.course().model)
    worst = max(fresh, key=lambda name: fresh[name] + 1e-3 * trained.get(name, 0.0), default="")
    experiment = "zero units over all valid frames, fresh and after training"
    evidence = {
        "dead share of the worst layer, fresh": fresh.get(worst, 0.0),
        "after training": trained.get(worst, 0.0),
    }
    if not worst or fresh[worst] < DEAD_SHARE:
        yield Finding("model.dead_units", "excluded", experiment, evidence)
        return
    source = source_of(lab, worst.removeprefix("input of "))
    if source and not any(
        bool((parameter != 0).any())
        for parameter in dict(lab.model.named_modules())[source].parameters()
    ):
        yield Finding(
            "model.dead_units",
            "excluded",
            f"{experiment}; {source} starts with weights of zero, which is no dead ReLU",
            evidence,
        )
        return
    change = reinitialise([source]) if source else None
    if change is None:
        yield Finding("model.dead_units", "suspected", experiment, evidence, worst, 0.3)
        return
    again = lab.build()
    change.model(again)
    revived = dead_shares(lab, again).get(worst, 0.0)
    base, repaired = lab.course(), lab.course(change)
    evidence |= {
        "after re-initialising": revived,
        "outcome as it is": base.outcome,
        "outcome re-initialised": repaired.outcome,
    }
    stays, gain = trained.get(worst, 0.0) >= DEAD_SHARE, base.outcome - repaired.outcome
    better = revived < REVIVED * fresh[worst] and (gain > -NO_WORSE if stays else gain > GAIN)
    yield Finding(
        "model.dead_units",
        "confirmed" if better else "excluded",
        f"default initialisation of {source} as the one factor, same seeds",
        evidence,
        source,
        max(0.1, gain),
        mended_by=(change.name,),
    )


def source_of(lab: Lab, name: str) -> str:
    """The last leaf module with parameters that ran before `name` (or is it): what feeds its
    activation.
    """
    model = lab.model
    modules = dict(model.named_modules())
    last = ""
    for call in lab.calls(model):
        module = modules.get(call.name)
        leaf = module is not None and not any(True for _ in module.children())
        if (
            call.name == name
            and last
            and not (
                leaf
                and any(True for _ in module.parameters())
                and any(dead_share(t) is not None and bool((t >= 0).all()) for t in call.outputs)
            )
        ):
            return last
        if leaf and hasattr(module, "reset_parameters") and any(True for _ in module.parameters()):
            last = call.name
        if call.name == name:
            return last
    return last


def reinitialise(names: Iterable[str]) -> Change:
    """Change: these modules get PyTorch's default initialisation, drawn from a stream of its
    own.
    """
    chosen = list(names)

    def change(model: nn.Module) -> None:
        modules = dict(model.named_modules())
        with torch.random.fork_rng():
            torch.manual_seed(11)
            for name in chosen:
                modules[name].reset_parameters()

    return Change(
        f"default initialisation of {', '.join(chosen[:3])}{' …' if len(chosen) > 3 else ''}",
        model=change,
    )


def odd_weights(lab: Lab) -> dict[str, float]:
    """Modules whose weights are far from their default initialisation: size over the default's, the
    oddest first.
    """
    odd: dict[str, float] = {}
    for name, module in lab.build().named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not hasattr(module, "reset_parameters") or not any(
            weight.ndim > 1 and weight.is_floating_point() for weight in own.values()
        ):
            continue
        twin = copy.deepcopy(module)
        with unchanged_randomness(lab.seed):
            twin.reset_parameters()
        ratios = [
            _size_over_default(weight, default)
            for weight, default in zip(own.values(), twin.parameters(recurse=False))
        ]
        ratio = max(ratios, key=lambda ratio: abs(math.log(ratio)))
        if not 1 / INITIAL < ratio < INITIAL:
            odd[name] = ratio
    return dict(sorted(odd.items(), key=lambda item: -abs(math.log(item[1]))))


def _size_over_default(weight: Tensor, default: Tensor) -> float:
    """RMS over that of the default; a vector (a bias) counts where it is larger than 1 and the
    default is not, else as 1.
    """
    size, usual = rms(weight), rms(default)
    if weight.ndim > 1:
        return (size + 1e-9) / (usual + 1e-9)
    return INITIAL * size if size > 1.0 > usual else 1.0


@check("model.norm_mode")
def running_against_batch_statistics(lab: Lab) -> Iterable[Finding]:
    """The trained model judged with its running statistics, and with those of the batch."""
    model = lab.course().model
    norms = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    if not norms:
        yield Finding("model.norm_mode", "excluded", "no module keeps running statistics")
        return
    running, batch = _in_both_modes(lab, model, norms)
    evidence = {
        "TF L1 / best constant with running statistics": running,
        "with batch statistics": batch,
    }
    experiment = "one trained model, one batch, running against batch statistics"
    if not _apart(running, batch):
        yield Finding("model.norm_mode", "excluded", experiment, evidence)
        return
    settled, n_forwards = (
        copy.deepcopy(model).train(),
        forwards_to_settle(dict(model.named_modules())[name] for name in norms),
    )
    with unchanged_randomness(lab.seed), torch.no_grad():
        for _ in range(n_forwards):
            lab.subject.losses(settled, lab.batch)
    running, batch = _in_both_modes(lab, settled, norms)
    evidence |= {
        f"with running statistics after {n_forwards} forwards more": running,
        "with batch statistics then": batch,
    }
    stays = _apart(running, batch)
    yield Finding(
        "model.norm_mode",
        "confirmed" if stays else "excluded",
        f"{experiment}; again after {n_forwards} forwards in training mode with the weights held:"
        f" the gap {'stays' if stays else 'closes, the statistics only lagged'}",
        evidence,
        norms[0] if stays else "",
        min(1.0, running - batch),
    )


def forwards_to_settle(norms: Iterable[nn.Module]) -> int:
    """Forwards in training mode after which the statistics of weights that are held are those of
    the batch: 60 for PyTorch's momentum of 0.1; a cumulative average (momentum None), or statistics
    that take longer still, are given the most.
    """
    slowest = min(norm.momentum or 0.0 for norm in norms)
    return min(MOST_FORWARDS, math.ceil(SETTLING / max(slowest, 1e-9)))


def _in_both_modes(lab: Lab, model: nn.Module, norms: list[str]) -> tuple[float, float]:
    """Teacher-forced error over the best constant with running statistics, and with those of the
    batch.
    """
    twin = copy.deepcopy(model)
    modules = dict(twin.named_modules())
    with without_dropout(twin):
        running = lab.error(lab.predict(twin, field="mel"))
        for name in norms:
            (
                modules[name].track_running_stats,
                modules[name].running_mean,
                modules[name].running_var,
            ) = (False, None, None)
        return running, lab.error(lab.predict(twin, field="mel"))


def _apart(running: float, batch: float) -> bool:
    return running - batch > MODE_GAP and running > MODE_RATIO * batch


@dataclass(frozen=True)
class Stack:
    """Modules of one kind in a row, by its last member."""

    last: str
    growth: float  # RMS of the last member's output over that of the first
    loudness: float  # RMS of the last member's output


def stacks_of(lab: Lab, model: nn.Module) -> list[Stack]:
    """The stacks of two and more members."""
    stacks: dict[tuple, list[tuple[str, float]]] = {}
    modules = dict(model.named_modules())
    for call in lab.calls(model):
        parent, _, last = call.name.rpartition(".")
        if last.isdigit() and call.outputs and call.outputs[0].is_floating_point():
            key = (parent, type(modules[call.name]), tuple(call.outputs[0].shape))
            stacks.setdefault(key, []).append((call.name, rms(call.outputs[0])))
    return [
        Stack(rows[-1][0], rows[-1][1] / (rows[0][1] + 1e-12), rows[-1][1])
        for rows in stacks.values()
        if len(rows) > 1
    ]
