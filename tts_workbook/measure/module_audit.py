"""One step of any subject, module by module: which loss reaches it, who pulls harder, how far the
optimiser moves it.

Every share is taken of the weighted losses, as the total holds them: a norm over the sum of the
losses' norms, so that the shares of one module add up to 1 whatever multiplies them all, a global
clip included. A cosine is only there where both losses reach: zeros have no direction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import nn

from tts_workbook.measure.module_groups import PerModule, module_norms, modules_of
from tts_workbook.measure.term_gradients import declared, gradient_weights, term_gradients
from tts_workbook.subject.interventions import kept_scalers
from tts_workbook.subject.isolation import private_copy, unchanged_randomness
from tts_workbook.subject.opened import OpenSubject, once_per_subject
from tts_workbook.subject.tensor_math import Named, dot_product
from tts_workbook.subject.training_step import all_parameters, plain_step

question = "In one step: what reaches each module, which loss pulls it, and how far does it move?"

# a step may wait for an accumulation, or for a loss scaler to back off from 2^16 to 2^-8
MAX_CALLS = 24


@dataclass(frozen=True)
class ModuleAudit:
    """One step on fresh weights, without dropout but for the update. Norms by module, in the
    model's order, fp32, before any clip.
    """

    modules: Mapping[str, list[str]]  # module -> names of its parameters
    # loss ("total" too) -> norm of its gradient, the term as the subject gives it
    norm: Mapping[str, PerModule]
    # with which each term enters the total's gradient
    weights: Mapping[str, float]
    # squared share of the total's gradient that no term explains
    unshown: float
    # term -> its part of the sum of the weighted terms' norms, where one reaches
    share: Mapping[str, PerModule]
    cosine: Mapping[tuple[str, str], PerModule]  # of two terms' gradients, where both reach
    # trained tensors without a gradient of the total, but for declared ones
    unreached: tuple[str, ...]
    # tensors that require a gradient and are not declared frozen
    n_trained: int
    # ‖Δw‖ / ‖w‖ of the first step; empty where the optimiser never steps
    update_ratio: PerModule

    @property
    def terms(self) -> list[str]:
        """The losses but for the total."""
        return [name for name in self.norm if name != "total"]

    @property
    def mel_terms(self) -> list[str]:
        """Those that are called after the mel."""
        return [name for name in self.terms if "mel" in name.lower()]

    @property
    def mel_norm(self) -> PerModule:
        """Norms of the mel term's gradient; of the total's where no term is called after it."""
        return self.norm[self.mel_terms[0] if self.mel_terms else "total"]

    @property
    def total_norm(self) -> float:
        """Norm of the total's whole gradient."""
        return math.hypot(*self.norm["total"].values())

    @property
    def unreached_modules(self) -> list[str]:
        """Modules whose gradient of the total is exactly zero or absent."""
        return [path for path, norm in self.norm["total"].items() if norm == 0.0]

    @property
    def shared(self) -> list[str]:
        """Modules that more than one term reaches and pulls at."""
        if not self.share:
            return []
        pulled = set.intersection(*(set(share) for share in self.share.values()))
        reaching = {
            path: sum(self.norm[term][path] > 0 for term in self.terms) for path in self.modules
        }
        return [path for path in self.modules if path in pulled and reaching[path] > 1]


@once_per_subject
def audit_modules(opened: OpenSubject) -> ModuleAudit:
    """The gradient of every loss, and one train step of a model of its own. Nothing changes in
    `opened.model`.
    """
    gradients = term_gradients(opened)
    parameters = dict(all_parameters(opened.model))
    modules = modules_of(opened.model)
    norm = {name: module_norms(modules, gradient) for name, gradient in gradients.items()}
    entered = gradient_weights(opened)
    terms = [name for name in gradients if name != "total"]
    weights = {term: entered.weights.get(term, 0.0) for term in terms}
    trained = [
        name
        for name, parameter in parameters.items()
        if parameter.requires_grad and not declared(name, opened.subject.frozen)
    ]
    total = gradients["total"]
    unreached = [name for name in trained if name not in total or not total[name].any()]
    return ModuleAudit(
        modules=modules,
        norm=norm,
        weights=weights,
        unshown=entered.unshown,
        share=shares(norm, weights),
        cosine=cosines(modules, gradients),
        unreached=tuple(unreached),
        n_trained=len(trained),
        update_ratio=_update_ratio(opened, modules),
    )


def shares(norm: Mapping[str, PerModule], weights: Mapping[str, float]) -> dict[str, PerModule]:
    """Term -> its part of the sum of the weighted terms' norms, by module, where one reaches."""
    pulls = {
        term: {path: abs(weight) * size for path, size in norm[term].items()}
        for term, weight in weights.items()
    }
    sums = {path: sum(pull[path] for pull in pulls.values()) for path in norm["total"]}
    reached = [path for path, total in sums.items() if total > 0]
    return {
        term: {path: pull[path] / sums[path] for path in reached} for term, pull in pulls.items()
    }


def cosines(
    modules: Mapping[str, list[str]], gradients: Mapping[str, Named]
) -> dict[tuple[str, str], PerModule]:
    """Cosine between the gradients of two terms, by module, where both reach."""
    terms = [name for name in gradients if name != "total"]
    return {(a, b): _cosine(modules, gradients[a], gradients[b]) for a, b in combinations(terms, 2)}


def _cosine(modules: Mapping[str, list[str]], a: Named, b: Named) -> PerModule:
    norm_a, norm_b = module_norms(modules, a), module_norms(modules, b)
    found = {}
    for path, names in modules.items():
        size = norm_a[path] * norm_b[path]
        if size > 0:
            both = [name for name in names if name in a and name in b]
            found[path] = dot_product(a, b, both) / size
    return found


def _update_ratio(opened: OpenSubject, modules: Mapping[str, list[str]]) -> PerModule:
    """Train a fresh model until its optimiser has stepped once, as the subject does it, dropout and
    all. Empty where it never steps, and where the step raises.
    """
    model = opened.build()
    before = {name: parameter.detach().clone() for name, parameter in all_parameters(model)}
    try:
        stepped = train_until_moved(opened, model)
    except Exception:
        # the subject's code may raise anything: a loss that is not finite, first of all
        return {}
    if not stepped:
        return {}
    moved = {name: parameter.detach() - before[name] for name, parameter in all_parameters(model)}
    size, change = module_norms(modules, before), module_norms(modules, moved)
    return {path: change[path] / size[path] for path in modules if size[path] > 0}


def train_until_moved(opened: OpenSubject, model: nn.Module) -> bool:
    """Call the subject's train step on `model` until a weight has moved: a step may wait for an
    accumulation, and a loss scaler may skip it. False where the optimiser never steps.
    """
    before = [parameter.detach().clone() for _, parameter in all_parameters(model)]
    subject, steps = opened.subject, []
    with unchanged_randomness(opened.seed), kept_scalers():
        optimizer = subject.make_optimizer(model)
        optimizer.register_step_post_hook(lambda *_: steps.append(1))
        for _ in range(MAX_CALLS):
            model.train()
            batch = private_copy(opened.batch)
            if subject.train_step is None:
                plain_step(model, optimizer, batch, subject.losses)
            else:
                subject.train_step(model, optimizer, batch)
            now = [parameter.detach() for _, parameter in all_parameters(model)]
            if steps and not all(map(torch.equal, now, before)):
                return True
    return bool(steps)
