"""Which loss pulls each module, and what AdamW would do without it, or without the clip.

Every loss is taken with its weight, as the total holds it. A share is a norm over the sum of the
losses' norms, so that shares of one module add up to 1 whatever multiplies them all, a global clip
included.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from tts_core.config import ExperimentConfig, OptimizerConfig
from tts_core.errors import WorkbookError
from tts_core.speech.batch import Batch
from tts_core.training.precision import choose_precision
from tts_core.training.state import start_training
from tts_core.training.step import train_step
from tts_workbook.measure.gradients import audited_modules, module_norms, term_gradients
from tts_workbook.subject.tensor_math import dot_product

TERMS = ("mel", "duration", "stop")
PAIRS = tuple(combinations(TERMS, 2))
CLIP = "clip"  # the fourth thing that can be left out of a step


@dataclass(frozen=True)
class LossShares:
    """The weighted losses' gradients in one step, per module; keys are losses (or pairs of them),
    then module paths.
    """

    norm: dict[str, dict[str, float]]
    # of the sum of the norms; 0 where no loss reaches
    share: dict[str, dict[str, float]]
    cosine: dict[tuple[str, str], dict[str, float]]  # only modules that both losses reach

    @property
    def shared(self) -> list[str]:
        """Modules that more than one loss reaches, in network order."""
        return [
            path
            for path in self.norm["mel"]
            if sum(self.norm[term][path] > 0 for term in TERMS) > 1
        ]


def weighted_gradients(
    model: nn.Module, batch: Batch, experiment: ExperimentConfig
) -> dict[str, dict[str, Tensor]]:
    """Gradient of each loss times its weight: loss -> parameter name -> tensor. They add up to that
    of the total.
    """
    weights = {
        "mel": 1.0,
        "duration": experiment.loss.duration_weight,
        "stop": experiment.loss.stop_weight,
    }
    return {
        term: {name: weights[term] * tensor for name, tensor in gradients.items()}
        for term, gradients in term_gradients(model, batch, experiment, TERMS).items()
    }


def shares_of(model: nn.Module, gradients: Mapping[str, Mapping[str, Tensor]]) -> LossShares:
    """Norms, shares and cosines of `gradients` (loss -> parameter name -> tensor)."""
    norm = {term: module_norms(model, gradients[term]) for term in TERMS}
    total = {path: sum(norm[term][path] for term in TERMS) for path in norm["mel"]}
    share = {
        term: {path: norm[term][path] / total[path] if total[path] > 0 else 0.0 for path in total}
        for term in TERMS
    }
    cosine = {}
    for pair in PAIRS:
        a, b = (gradients[term] for term in pair)
        sizes = {path: norm[pair[0]][path] * norm[pair[1]][path] for path in total}
        cosine[pair] = {
            path: dot_product(a, b, names) / sizes[path]
            for path, names in audited_modules(model).items()
            if sizes[path] > 0
        }
    return LossShares(norm, share, cosine)


def measure_loss_shares(model: nn.Module, batch: Batch, experiment: ExperimentConfig) -> LossShares:
    """One forward pass, one backward pass per loss; the model stays as it was."""
    return shares_of(model, weighted_gradients(model, batch, experiment))


class ShadowAdamW:
    """AdamW's moments for gradients of one's choosing, without weights: what it *would* do.

    Weight decay, which no loss moves, is left out; so an update is a function of the gradients
    alone.
    """

    def __init__(self, like: Mapping[str, Tensor], options: OptimizerConfig) -> None:
        self.places = {name: torch.zeros_like(tensor) for name, tensor in like.items()}
        self.clip_norm = options.clip_norm
        self.optimizer = torch.optim.AdamW(
            self.places.values(),
            lr=options.lr,
            weight_decay=0.0,
            betas=options.betas,
            eps=options.eps,
            fused=True,
        )

    def update(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Clip by the global norm of these gradients, take them into the moments, and return the
        update by name.
        """
        for name, place in self.places.items():
            place.zero_()
            place.grad = gradients[name].detach().clone()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.places.values(), self.clip_norm)
        self.optimizer.step()
        return {name: place.clone() for name, place in self.places.items()}


@dataclass(frozen=True)
class UpdateWithout:
    """AdamW's update without one loss, or without the clip, beside the update with all.

    Keys: what is left out, `TERMS` and `CLIP`; then module paths.
    """

    # 1 is the first, where every update has the size of the learning rate
    step: int
    size: dict[str, dict[str, float]]  # norm without it over norm with all
    # norm of the difference over norm with all: 0 same, √2 unrelated
    change: dict[str, dict[str, float]]


def measure_updates_without(
    model: nn.Module,
    batch: Batch,
    experiment: ExperimentConfig,
    at_steps: tuple[int, ...] = (1, 16),
) -> dict[int, UpdateWithout]:
    """Leave each loss, then the clip, out of AdamW along one and the same training, on a copy of
    `model`.

    The weights go the way of all losses. Beside them each alternative keeps moments of its own from
    the first step on, so it shows the update that would follow a history without that loss, clipped
    by its own norm. The first step is degenerate: Adam moves every weight by the learning rate,
    whatever the gradient's size, so only directions can differ. Returns step -> comparison; raises
    WorkbookError for steps below 1.
    """
    if not at_steps or min(at_steps) < 1:
        raise WorkbookError(
            f"at_steps = {at_steps}, but steps count from 1 and there must be one at least"
        )
    model, device = copy.deepcopy(model).train(), next(model.parameters()).device
    training = start_training(experiment, model, str(device))
    precision = choose_precision(experiment.fit.precision, device)
    kept = {
        left_out: tuple(term for term in TERMS if term != left_out)
        for left_out in ("", *TERMS, CLIP)
    }
    options, weights = (
        experiment.optimizer,
        {name: p.detach() for name, p in model.named_parameters()},
    )
    shadows = {left_out: ShadowAdamW(weights, options) for left_out in kept}
    shadows[CLIP] = ShadowAdamW(weights, dataclasses.replace(options, clip_norm=None))
    found = {}
    for step in range(1, max(at_steps) + 1):
        gradients = weighted_gradients(model, batch, experiment)
        updates = {
            left_out: shadow.update(added({term: gradients[term] for term in kept[left_out]}))
            for left_out, shadow in shadows.items()
        }
        if step in at_steps:
            found[step] = _compare(step, model, updates)
        with torch.random.fork_rng():
            # the dropout that the gradients above were taken with
            torch.manual_seed(experiment.fit.seed)
            train_step(
                model,
                training.optimizer,
                batch,
                experiment.loss,
                precision,
                training.scaler,
                experiment.optimizer.clip_norm,
            )
    return found


def added(gradients: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Sum over the losses, parameter by parameter."""
    terms = list(gradients.values())
    return {name: sum((term[name] for term in terms[1:]), terms[0][name]) for name in terms[0]}


def _compare(
    step: int, model: nn.Module, updates: Mapping[str, Mapping[str, Tensor]]
) -> UpdateWithout:
    whole, sizes, changes = module_norms(model, updates[""]), {}, {}
    for left_out in (*TERMS, CLIP):
        differences = {
            name: updates[left_out][name] - update for name, update in updates[""].items()
        }
        norms, apart = module_norms(model, updates[left_out]), module_norms(model, differences)
        sizes[left_out] = {path: norms[path] / max(whole[path], 1e-30) for path in whole}
        changes[left_out] = {path: apart[path] / max(whole[path], 1e-30) for path in whole}
    return UpdateWithout(step, sizes, changes)
