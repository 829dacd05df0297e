"""Changes to a training run that hold whatever the subject's train step does: learning rate, decay,
clipping, precision, initialisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tts_workbook.lab.short_run import Change
from tts_workbook.subject.interventions import HALVES, in_fp32, replaced
from tts_workbook.subject.training_step import all_parameters

Optimizer = torch.optim.Optimizer
Scaler = torch.amp.GradScaler


def lr_times(factor: float) -> Change:
    """Every step is taken at `factor` times the learning rate of its group, whatever schedule sets
    that rate. A rate of 0 stays 0.
    """
    return Change(
        "learning_rate",
        (factor,),
        "learning rate × {:g}".format,
        optimizer=lambda optimizer: _step_at(optimizer, lambda index, rate: rate * factor),
    )


def held_rates(rates: tuple[float, ...]) -> Change:
    """Every step is taken at these learning rates, one for each group, whatever schedule sets
    others. Groups that are added later keep theirs.
    """

    def held(index: int, rate: float) -> float:
        return rates[index] if index < len(rates) else rate

    return Change(
        "held_rate",
        rates,
        lambda *rates: f"learning rate held at {max(rates):.3g}",
        optimizer=lambda optimizer: _step_at(optimizer, held),
    )


def _step_at(optimizer: Optimizer, changed: Callable[[int, float], float]) -> None:
    """Steps at `changed(number of the group, its rate)`: set when a step begins and put back when
    it ends, so that schedulers find what they left.
    """
    set_by_us: dict[int, tuple[Any, Any]] = {}  # group -> (as it was found, as it was set)

    def before(optimizer: Optimizer, *_: Any) -> None:
        for index, group in enumerate(optimizer.param_groups):
            # a hook that runs later may have written our own value back: it is set already
            if index not in set_by_us or group["lr"] is not set_by_us[index][1]:
                set_by_us[index] = group["lr"], changed(index, group["lr"])
                group["lr"] = set_by_us[index][1]

    def after(optimizer: Optimizer, *_: Any) -> None:
        for index, group in enumerate(optimizer.param_groups):
            # else a hook that ran before this one has set it
            if group["lr"] is set_by_us[index][1]:
                group["lr"] = set_by_us[index][0]

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def no_weight_decay() -> Change:
    """Weight decay 0 in every group at every step, also where the train step sets it anew."""

    def change(optimizer: Optimizer) -> None:
        def before(optimizer: Optimizer, *_: Any) -> None:
            for group in optimizer.param_groups:
                if "weight_decay" in group:
                    group["weight_decay"] = 0.0

        optimizer.register_step_pre_hook(before)

    return Change("no_weight_decay", (), "weight decay 0".format, optimizer=change)


def unclipped(clip_norm: float | None = None) -> Change:
    """The optimiser is given each gradient as the last backward pass left it, a loss scale undone:
    whatever happens to it in between (clipping by norm or value, in the train step or by hand) is
    without effect. With `clip_norm` they are then clipped at that global norm: plain SGD may need
    it.
    """
    # id of a parameter -> (it, its gradient after the last backward pass)
    left: dict[int, tuple[Tensor, Tensor]] = {}
    # id of an optimiser -> what its gradients were divided by since then
    scales: dict[int, float] = {}
    handles: list[Any] = []

    def keep(parameter: Tensor) -> None:
        assert parameter.grad is not None  # the hook runs right after it was accumulated
        left[id(parameter)] = parameter, parameter.grad.detach().clone()

    def give_back(optimizer: Optimizer, *_: Any) -> None:
        scale = scales.pop(id(optimizer), 1.0)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and id(parameter) in left:
                    with torch.no_grad():
                        parameter.grad.copy_(left[id(parameter)][1] / scale)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(
                [parameter for group in optimizer.param_groups for parameter in group["params"]],
                clip_norm,
            )
        left.clear()

    def change(optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            handles.extend(
                parameter.register_post_accumulate_grad_hook(keep)
                for parameter in group["params"]
                if parameter.requires_grad
            )
        handles.append(optimizer.register_step_pre_hook(give_back))

    @contextmanager
    def around(_: Any) -> Iterator[None]:
        unscale = Scaler.unscale_

        def noted(scaler: Scaler, optimizer: Optimizer) -> None:
            unscale(scaler, optimizer)
            scales[id(optimizer)] = scaler.get_scale()

        try:
            with replaced(Scaler, unscale_=noted):
                yield
        finally:
            for handle in handles:
                handle.remove()
            handles.clear()
            left.clear()
            scales.clear()

    return Change("unclipped", (clip_norm,), _unclipped_name, optimizer=change, around=around)


def _unclipped_name(clip_norm: float | None) -> str:
    if clip_norm is None:
        return "gradients not clipped"
    return f"gradients clipped at norm {clip_norm:g} instead"


def fp32_weights(casts: bool = False) -> Change:
    """Weights and buffers in fp32; with `casts`, autocast is off and the subject's own casts to 16
    bits are without effect.
    """
    return Change(
        "fp32_weights",
        (casts,),
        lambda casts: "weights in fp32, no 16-bit casts" if casts else "weights in fp32",
        model=to_fp32,
        around=(lambda model: in_fp32()) if casts else None,
    )


def to_fp32(model: nn.Module) -> nn.Module:
    """The model itself with every 16-bit weight and buffer in fp32, those of unregistered modules
    too.
    """
    model.float()
    for _, parameter in all_parameters(model):
        if parameter.dtype in HALVES:
            parameter.data = parameter.data.float()
    return model


def reinitialise(names: Iterable[str]) -> Change:
    """These modules get PyTorch's default initialisation, drawn from a stream of its own."""
    chosen = tuple(names)

    def change(model: nn.Module) -> None:
        modules = dict(model.named_modules())
        with torch.random.fork_rng():
            torch.manual_seed(11)
            for name in chosen:
                modules[name].reset_parameters()

    return Change("default_initialisation", chosen, _reinitialised_name, model=change)


def _reinitialised_name(*names: str) -> str:
    more = " …" if len(names) > 3 else ""
    return f"default initialisation of {', '.join(names[:3])}{more}"
