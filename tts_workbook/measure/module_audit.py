"""One step of any model, module by module: which loss reaches it, who pulls harder, how far the
optimiser moves it.

Modules are those that own parameters; where they are more than a figure has rows for, they are
taken together by the longest common paths that are few enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from torch import Tensor

from tts_workbook.measure.observed_steps import observe_steps
from tts_workbook.measure.term_gradients import declared, span, term_gradients
from tts_workbook.subject.interventions import kept_scalers
from tts_workbook.subject.isolation import private_copy, unchanged_randomness
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.tensor_math import dot_product, tensors_norm
from tts_workbook.subject.training_step import all_parameters, plain_step

MOST_MODULES = 36  # rows of a figure

PerModule = dict[str, float]


@dataclass(frozen=True)
class ModuleAudit:
    """One step on fresh weights, without dropout but for the update. Norms by module, in the
    model's order.
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
    def shared(self) -> list[str]:
        """Modules that more than one term reaches and pulls at."""
        pulled = (
            set.intersection(*(set(share) for share in self.share.values()))
            if self.share
            else set()
        )
        return [
            path
            for path in self.modules
            if path in pulled and sum(self.norm[term][path] > 0 for term in self.terms) > 1
        ]


def audit_modules(opened: OpenSubject) -> ModuleAudit:
    """One forward pass per loss, and one train step of a model of its own."""
    gradients = term_gradients(opened)
    parameters = dict(all_parameters(opened.model))
    modules = grouped(parameters)
    norm = {name: _norms(modules, gradient) for name, gradient in gradients.items()}
    alive = [
        name for name in gradients if name != "total" and tensors_norm(gradients[name].values()) > 0
    ]
    sizes = [tensors_norm(gradients[name].values()) for name in (*alive, "total")]
    explained = alive and sizes[-1] > 0 and all(map(math.isfinite, sizes))
    coefficients, unshown = (
        span(gradients["total"], [gradients[name] for name in alive]) if explained else ([], 0.0)
    )
    weights = {name: 0.0 for name in gradients if name != "total"} | dict(zip(alive, coefficients))
    trained = [
        name
        for name, parameter in parameters.items()
        if parameter.requires_grad and not declared(name, opened.subject.frozen)
    ]
    return ModuleAudit(
        modules,
        norm,
        weights,
        unshown,
        _shares(norm, weights),
        _cosines(modules, gradients, norm),
        tuple(
            name
            for name in trained
            if not gradients["total"].get(name, parameters[name].new_zeros(1)).any()
        ),
        len(trained),
        _update_ratio(opened, modules),
    )


def grouped(names: Iterable[str], most: int = MOST_MODULES) -> dict[str, list[str]]:
    """Parameter names by module path, cut to the greatest depth at which there are at most `most`
    of them.
    """
    owners = {name: name.rpartition(".")[0] or name for name in names}
    depth = max((path.count(".") + 1 for path in owners.values()), default=1)
    while True:
        groups: dict[str, list[str]] = {}
        for name, path in owners.items():
            groups.setdefault(".".join(path.split(".")[:depth]), []).append(name)
        if len(groups) <= most or depth == 1:
            return groups
        depth -= 1


def _norms(modules: Mapping[str, list[str]], tensors: Mapping[str, Tensor]) -> PerModule:
    return {
        path: tensors_norm([tensors[name] for name in names if name in tensors])
        for path, names in modules.items()
    }


def _shares(norm: Mapping[str, PerModule], weights: Mapping[str, float]) -> dict[str, PerModule]:
    pulls = {
        term: {path: abs(weight) * norm[term][path] for path in norm[term]}
        for term, weight in weights.items()
    }
    sums = {path: sum(pull[path] for pull in pulls.values()) for path in norm["total"]}
    return {
        term: {path: pull[path] / total for path, total in sums.items() if total > 0}
        for term, pull in pulls.items()
    }


def _cosines(
    modules: Mapping[str, list[str]],
    gradients: Mapping[str, Mapping[str, Tensor]],
    norm: Mapping[str, PerModule],
) -> dict[tuple[str, str], PerModule]:
    found = {}
    for a, b in combinations([name for name in gradients if name != "total"], 2):
        both = gradients[a].keys() & gradients[b].keys()
        found[a, b] = {
            path: (
                dot_product(gradients[a], gradients[b], [name for name in names if name in both])
                / (norm[a][path] * norm[b][path])
            )
            for path, names in modules.items()
            if norm[a][path] > 0 and norm[b][path] > 0
        }
    return found


def _update_ratio(opened: OpenSubject, modules: Mapping[str, list[str]]) -> PerModule:
    """Train a fresh model until its optimiser has stepped once, as the subject does it, dropout and
    all.
    """
    seen = observe_steps(opened)
    if seen.step is None:
        return {}
    model = opened.build()
    before = {name: parameter.detach().clone() for name, parameter in all_parameters(model)}
    with unchanged_randomness(opened.seed), kept_scalers():
        optimizer = opened.subject.make_optimizer(model)
        for _ in range(seen.steps[0].call):
            model.train()
            if opened.subject.train_step is None:
                plain_step(model, optimizer, private_copy(opened.batch), opened.subject.losses)
            else:
                opened.subject.train_step(model, optimizer, private_copy(opened.batch))
    moved = {name: parameter.detach() - before[name] for name, parameter in all_parameters(model)}
    size, change = _norms(modules, before), _norms(modules, moved)
    return {path: change[path] / size[path] for path in modules if size[path] > 0}
