"""Which weights the subject is judged with, wherever they live: a copy beside the model, a module
inside it, or values that are swapped in while it predicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.optim.optimizer import register_optimizer_step_post_hook

Signature = tuple[tuple[str, tuple[int, ...]], ...]
Entry = tuple[nn.Module, str, Any]  # a module, the name of a parameter of it, and what was there


class OtherWeights:
    """The trained weights of a model, and what a prediction uses in their place.

    A module that a prediction calls is paired with one of the model's: itself, or the one with the
    same names and shapes. `trained` is refreshed after every step of an optimiser.
    """

    def __init__(self, model: nn.Module, swap: bool) -> None:
        self.model, self.swap = model, swap
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.n_calls = 0  # of modules that were looked at
        self.unpaired: list[str] = []  # kinds of called modules that are none of the model's
        self.distance = 0.0  # squared, of the weights that were used from the trained ones
        self.n_other = 0  # tensors that were used with other values
        # of each module that is running: whether it may be a copy, and what was taken out of it
        self.running: list[tuple[bool, list[Entry]]] = []
        self.trained: dict[str, Tensor] = {}
        self.remember()

    def remember(self, *_: Any) -> None:
        """The weights as they are now are the trained ones."""
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            if parameter.requires_grad:
                self.trained[name] = parameter.detach().clone()

    def enter(self, module: nn.Module, *_: Any) -> None:
        is_outermost, is_copy = not self.running, self._is_inner_copy(module)
        in_a_copy = any(running[0] for running in self.running)
        taken_out: list[Entry] = []
        self.running.append((is_copy, taken_out))
        if torch.is_grad_enabled() or in_a_copy or not (is_outermost or is_copy):
            return
        self.n_calls += 1
        for part, name, trained in self._paired(module):
            used = part._parameters[name]
            assert used is not None
            if not torch.equal(used.detach(), trained):
                self.n_other += 1
                self.distance += float((used.detach().float() - trained.float()).square().sum())
                if self.swap:
                    taken_out.append((part, name, used))
                    part._parameters[name] = nn.Parameter(trained, requires_grad=False)

    def leave(self, *_: Any) -> None:
        taken_out = self.running.pop()[1]
        for part, name, used in taken_out:
            part._parameters[name] = used

    def _paired(self, module: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
        """Each parameter below `module` that is the counterpart of one of the model's, as the
        module that holds it, its name there, and the trained values.
        """
        path = self.paths.get(id(module))
        if path is None or self._is_inner_copy(module):
            path = self._counterpart(module)
        if path is None:
            return []
        found = []
        for inner, part in module.named_modules(remove_duplicate=False):
            for name, parameter in part._parameters.items():
                trained = self.trained.get(".".join(filter(None, (path, inner, name))))
                if parameter is not None and trained is not None:
                    found.append((part, name, trained))
        return found

    def _is_inner_copy(self, module: nn.Module) -> bool:
        """Whether it may be a copy of its neighbours that is kept inside the model: nothing of it
        is trained.
        """
        parameters = list(module.parameters())
        is_inside = self.paths.get(id(module), "") != ""
        return is_inside and bool(parameters) and not any(p.requires_grad for p in parameters)

    def _counterpart(self, module: nn.Module) -> str | None:
        """Path of the model's module with the same names and shapes; None where there is none, or
        more than one.
        """
        signature = _signature(module.named_parameters())
        if not signature:
            return None
        fitting = []
        for path, part in self.model.named_modules():
            trained = [(name, p) for name, p in part.named_parameters() if p.requires_grad]
            if part is not module and signature in (_signature(trained), _all(part, trained)):
                fitting.append(path)
        if len(fitting) == 1:
            return fitting[0]
        if id(module) not in self.paths:  # else a frozen part of the model, and no copy
            self.unpaired.append(type(module).__name__)
        return None


def _signature(parameters: Iterable[tuple[str, Tensor]]) -> Signature:
    """Names and shapes, without the name that a wrapper puts before them."""
    return tuple((name.removeprefix("module."), tuple(value.shape)) for name, value in parameters)


def _all(part: nn.Module, trained: list[tuple[str, nn.Parameter]]) -> Signature:
    """Of all parameters of a module of which something is trained."""
    return _signature(part.named_parameters()) if trained else ()


@contextmanager
def watched_weights(model: nn.Module, swap: bool = False) -> Iterator[OtherWeights]:
    """What predictions inside use in place of the trained weights; with `swap`, they use the
    trained ones after all.
    """
    watch = OtherWeights(model, swap)
    handles = [
        register_module_forward_pre_hook(watch.enter),
        register_module_forward_hook(watch.leave, always_call=True),
        register_optimizer_step_post_hook(watch.remember),
    ]
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()
