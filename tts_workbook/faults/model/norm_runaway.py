"""model.norm_runaway: activations grow from layer to layer and through training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause
from tts_workbook.faults.selection import paired
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change
from tts_workbook.subject.module_calls import change_output, rms

GROWTH = Bar(
    1.5,
    control="RMS of the first member of the same stack; only proposes, and the paired run decides",
)
RUNAWAY = Bar(
    4.0,
    control="RMS of the first member of the same stack: looked into even where the subject learns",
)
LOUD_STACK = Bar(
    10.0,
    convention="RMS of a growing stack's output; a LayerNorm's has 1 (Ba et al. 2016), and the"
    " paired run decides",
)


@dataclass(frozen=True)
class Stack:
    """Modules of one kind in a row, by its last member."""

    last: str
    growth: float  # RMS of the last member's output over that of the first
    loudness: float  # RMS of the last member's output

    @property
    def path(self) -> str:
        """The module whose members they are."""
        return self.last.rpartition(".")[0]


def propose(lab: Lab) -> Iterable[Suspect]:
    """Activations that grow from layer to layer of a stack; the RMS of every member's output held
    at 1 at most.
    """
    grown = [stack for stack in stacks_of(lab, lab.model) if stack.growth > GROWTH]
    if not grown:
        return
    worst = max(grown, key=lambda stack: stack.growth)
    loudest = max(stack.loudness for stack in grown)
    yield Suspect(
        CAUSE.id,
        held_at_unit_scale({stack.path for stack in grown}),
        {"RMS of the last layer over the first": worst.growth, "RMS of the loudest": loudest},
        worst.path,
        always=worst.growth > RUNAWAY or loudest > LOUD_STACK,
    )


def held_at_unit_scale(stacks: Iterable[str]) -> Change:
    """The RMS of every member's output of these stacks is held at 1 at most."""
    paths = tuple(sorted(stacks))

    def held(x: Tensor) -> Tensor:
        return x / x.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1.0)

    def hold(model: nn.Module) -> None:
        for name, module in model.named_modules():
            parent, _, last = name.rpartition(".")
            if parent in paths and last.isdigit():
                change_output(module, held)

    return Change(
        "held_at_unit_scale",
        paths,
        lambda *paths: f"outputs of {' and '.join(paths)} held at unit scale",
        model=hold,
    )


def stacks_of(lab: Lab, model: nn.Module) -> list[Stack]:
    """The stacks of two and more members."""
    stacks: dict[tuple, list[tuple[str, float]]] = {}
    modules = dict(model.named_modules())
    for call in lab.calls(model):
        parent, _, last = call.name.rpartition(".")
        if last.isdigit() and call.outputs and call.outputs[0].is_floating_point():
            key = (parent, type(modules[call.name]), tuple(call.outputs[0].shape))
            stacks.setdefault(key, []).append((call.name, rms(call.outputs[0])))
    found = []
    for rows in stacks.values():
        if len(rows) > 1:
            (_, first_rms), (last, last_rms) = rows[0], rows[-1]
            found.append(Stack(last, last_rms / (first_rms + 1e-12), last_rms))
    return found


CAUSE = Cause(
    id="model.norm_runaway",
    title="activations grow from layer to layer and through training",
    experiment="normalise the growing branch, and warm up, each as the one factor",
    fix="normalise before each sub-layer (pre-norm) and warm the learning rate up",
    experiments=(paired("model.norm_runaway"),),
    propose=propose,
    upstream=2,
)
