"""What the optimiser's update owes to each loss, and to the clip: each is left out of the moments
along one and the same training.

Every loss is taken with its weight, as the total holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_core.errors import WorkbookError
from tts_workbook.bars import Bar
from tts_workbook.measure.module_groups import PerModule, module_norms, modules_of
from tts_workbook.measure.supply import NotMeasured
from tts_workbook.measure.term_gradients import gradient_weights, term_gradients
from tts_workbook.subject.isolation import private_copy, unchanged_randomness
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.presets import PresetSubject
from tts_workbook.subject.tensor_math import Named, tensors_norm
from tts_workbook.subject.training_step import all_parameters, plain_step

question = "What would the optimiser's update be without one of the losses, or without the clip?"

CLIP = "clip"  # what can be left out of a step beside the losses
OWN_CLIP_NORM = 1.0  # of `plain_step`
ROUNDING = Bar(
    1e-6, control="of the total's gradient: what a fit of 32-bit gradients cannot tell from none"
)
UNSHOWN = Bar(0.01, control="squared share of the total's own gradient")
OPTIMISERS = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


@dataclass(frozen=True)
class UpdateWithout:
    """The optimiser's update without one loss, or without the clip, beside the update with all.

    Keys: what is left out, the losses and `CLIP` (where the clip is known); then module paths.
    """

    # 1 is the first, where every update of Adam has the size of the learning rate
    step: int
    size: dict[str, PerModule]  # norm without it over norm with all
    # norm of the difference over norm with all: 0 same, √2 unrelated
    change: dict[str, PerModule]


class ShadowOptimizer:
    """The moments of a subject's optimiser for gradients of one's choosing, without weights: what
    it *would* do.

    Weight decay, which no loss moves, is left out; so an update is a function of the gradients
    alone.
    """

    def __init__(self, opened: OpenSubject, clip_norm: float | None) -> None:
        model = opened.build()
        self.places = dict(all_parameters(model))
        self.clip_norm = clip_norm
        self.optimizer = opened.subject.make_optimizer(model)
        for group in self.optimizer.param_groups:
            group["weight_decay"] = 0.0

    def update(self, gradients: Mapping[str, Tensor]) -> Named:
        """Clip by the global norm of these gradients, take them into the moments, and return the
        update by name.
        """
        for name, place in self.places.items():
            with torch.no_grad():
                place.zero_()
            given = gradients.get(name)
            place.grad = torch.zeros_like(place) if given is None else given.detach().clone()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(list(self.places.values()), self.clip_norm)
        self.optimizer.step()
        return {name: place.detach().clone() for name, place in self.places.items()}


def measure_updates_without(
    opened: OpenSubject, at_steps: tuple[int, ...] = (1, 16)
) -> dict[int, UpdateWithout]:
    """Leave each loss, then the clip, out of the optimiser along one and the same training of a
    fresh model.

    The weights go the way of all losses. Beside them each alternative keeps moments of its own from
    the first step on, so it shows the update that would follow a history without that loss, clipped
    by its own norm. The first step of Adam is degenerate: it moves every weight by the learning
    rate, whatever the gradient's size, so only directions can differ. Returns step -> comparison;
    raises WorkbookError for steps below 1, NotMeasured where there is nothing to leave out or the
    optimiser is none of `OPTIMISERS`.
    """
    if not at_steps or min(at_steps) < 1:
        raise WorkbookError(
            f"at_steps = {at_steps}, but steps count from 1 and there must be one at least"
        )
    entered = gradient_weights(opened)
    weights = _felt(term_gradients(opened), entered.weights)
    _check(opened, weights, entered.unshown)
    clip_norm = clip_norm_of(opened)
    kept = {"": list(weights), **{term: [t for t in weights if t != term] for term in weights}}
    shadows = {left_out: ShadowOptimizer(opened, clip_norm) for left_out in kept}
    if isinstance(opened.subject, PresetSubject) or opened.subject.train_step is None:
        kept[CLIP] = list(weights)
        shadows[CLIP] = ShadowOptimizer(opened, None)
    model = opened.build()
    modules = modules_of(model)
    with unchanged_randomness(opened.seed):
        optimizer = opened.subject.make_optimizer(model)
    found = {}
    for step in range(1, max(at_steps) + 1):
        gradients = weighted_gradients(opened, model, weights)
        updates = {
            left_out: shadow.update(added([gradients[term] for term in kept[left_out]]))
            for left_out, shadow in shadows.items()
        }
        if step in at_steps:
            found[step] = _compare(step, modules, updates)
        _train(opened, model, optimizer)
    return found


def _felt(gradients: Mapping[str, Named], weights: Mapping[str, float]) -> dict[str, float]:
    """Weight of each term, 0 where what it adds to the total's gradient is a rounding: Adam would
    make a full step of it.
    """
    norms = {name: tensors_norm(gradient.values()) for name, gradient in gradients.items()}
    least = ROUNDING * norms.pop("total")
    found = {term: weights.get(term, 0.0) for term in norms}
    return {
        term: weight if abs(weight) * norms[term] > least else 0.0 for term, weight in found.items()
    }


def clip_norm_of(opened: OpenSubject) -> float | None:
    """The global norm at which the subject's step clips, where that is known; None: not, or it does
    not clip.
    """
    if isinstance(opened.subject, PresetSubject):
        return opened.subject.experiment.optimizer.clip_norm
    return OWN_CLIP_NORM if opened.subject.train_step is None else None


def weighted_gradients(
    opened: OpenSubject, model: nn.Module, weights: Mapping[str, float]
) -> dict[str, Named]:
    """Gradient of each loss times its weight: loss -> parameter name -> tensor. They add up to that
    of the total.
    """
    gradients = opened.gradients(model, terms=list(weights))
    return {
        term: {name: weights[term] * tensor for name, tensor in gradients[term].items()}
        for term in weights
    }


def added(gradients: list[Named]) -> Named:
    """Sum of gradients, parameter by parameter; what one of them lacks counts as zero."""
    total: Named = {}
    for gradient in gradients:
        for name, tensor in gradient.items():
            total[name] = total[name] + tensor if name in total else tensor
    return total


def _check(opened: OpenSubject, weights: Mapping[str, float], unshown: float) -> None:
    if len(weights) < 2:
        raise NotMeasured("supply a second loss beside the total: with one, none can be left out")
    if unshown > UNSHOWN:
        raise NotMeasured(
            f"supply all terms of the total: {unshown:.1%} of its gradient's square is none's"
        )
    with unchanged_randomness(opened.seed):
        optimizer = opened.subject.make_optimizer(opened.build())
    if type(optimizer) not in OPTIMISERS:
        names = ", ".join(kind.__name__ for kind in OPTIMISERS)
        raise NotMeasured(f"supply one of {names}: {type(optimizer).__name__} may read the weights")


def _train(opened: OpenSubject, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One train step of the subject; dropout is drawn from the subject's seed."""
    subject = opened.subject
    model.train()
    with unchanged_randomness(opened.seed):
        batch = private_copy(opened.batch)
        if subject.train_step is None:
            plain_step(model, optimizer, batch, subject.losses)
        else:
            subject.train_step(model, optimizer, batch)


def _compare(
    step: int, modules: Mapping[str, list[str]], updates: Mapping[str, Named]
) -> UpdateWithout:
    whole = updates[""]
    sizes, changes = module_norms(modules, whole), {}
    size = {}
    for left_out, update in updates.items():
        if not left_out:
            continue
        differences = {name: update[name] - tensor for name, tensor in whole.items()}
        norms, apart = module_norms(modules, update), module_norms(modules, differences)
        size[left_out] = {path: norms[path] / max(sizes[path], 1e-30) for path in sizes}
        changes[left_out] = {path: apart[path] / max(sizes[path], 1e-30) for path in sizes}
    return UpdateWithout(step, size, changes)
