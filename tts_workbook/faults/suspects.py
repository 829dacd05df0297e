"""Suspicions that only a training run can decide, each with the one factor that would undo it.

A suspicion is a rule about numbers at the start; it proposes, and `checks/learning.py` lets a
paired run decide. Shapes: B batch, T frames, M mel bins, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tts_workbook.faults.checks.activity import odd_weights, reinitialise, stacks_of
from tts_workbook.faults.checks.balance import shared_terms, without_term
from tts_workbook.faults.checks.order import content_share
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.run_changes import lr_times, no_weight_decay, unclipped
from tts_workbook.lab.short_run import Change
from tts_workbook.measure.anatomy import anatomy, with_frames_changed
from tts_workbook.measure.observed_steps import observe_steps
from tts_workbook.subject.isolation import unchanged_randomness, without_dropout
from tts_workbook.subject.module_calls import change_output, outputs_changed, rms, with_noise

LOUD_MEMORY = 2.0  # RMS of the memory; a normalised one has 1, one behind tanh gates less
FACTOR_BEHIND = 2.0
OFFSET = 1.5  # |mean| of the targets over their deviation
SCALE = (0.3, 3.0)  # of the targets' standard deviation
# a term's weighted gradient over the mel term's, on the parameters that both reach; sound ones have
# 1 to 130
DOMINANT = 200.0
KEPT = 0.5  # a dropout probability above this keeps less than it drops
# RMS of the last member of a stack over the first; sound pre-norm stacks of two stay below 1.25
GROWTH = 1.5
RUNAWAY = 4.0  # growth that is looked into even where the subject learns
# RMS of a growing stack's output that is, too; embeddings times the root of the width have 14
# before a norm
LOUD_STACK = 10.0
# size of added positions over what they are added to; sinusoids on unit-scale embeddings have 0.7
LOUD_POSITIONS = 4.0
# share of the deviation at the first text-side module that the text itself makes
DROWNED = 0.15
USUAL_MOVE = 2e-3  # ‖Δw‖ / ‖w‖ of a step of a subject that learns (seen: 1.6e-3 to 1.1e-2)
USUAL_CLIP = 1.0  # global norm of the gradient
LAZY = 3e-4  # below this a subject that is only slow is asked too
# below the first no lower learning rate is tried, above the second no higher one
HARDLY_MOVES = (1e-3, 5e-3)
DECAYED = 0.02  # share of a weight that decay takes away during a course


def suspects(lab: Lab) -> list[Suspect]:
    """Everything suspicious about the subject at its start, what lies upstream first."""
    found: list[Suspect] = []
    for rule in (
        raw_targets,
        growing_stack,
        drowned_text,
        loud_memory,
        dominating_term,
        heavy_dropout,
        unusual_weights,
        weight_decay,
        tight_clip,
        learning_rate,
    ):
        found += rule(lab)
    return found


def loud_memory(lab: Lab) -> Iterable[Suspect]:
    """The memory's RMS, from its place between encoder and decoder."""
    parts = anatomy(lab)
    if not parts.memory:
        return
    size = max(
        (
            rms(tensor)
            for index in parts.memory_calls
            for tensor in parts.calls[index].outputs[:1]
            if tensor.is_floating_point()
        ),
        default=0.0,
    )
    behind = factor_behind(lab)
    if size * behind > LOUD_MEMORY:

        def normalise(tensor: Tensor) -> Tensor:
            return F.layer_norm(tensor, tensor.shape[-1:]) / behind

        def change(model: nn.Module) -> None:
            change_output(dict(model.named_modules())[parts.memory], normalise)

        yield Suspect(
            "model.memory_scale",
            Change(f"memory normalised at {parts.memory}", model=change),
            {
                "RMS of the memory": size,
                **({"multiplied behind that module by": behind} if behind > 1.0 else {}),
            },
            parts.memory,
        )


def factor_behind(lab: Lab) -> float:
    """How many times larger the memory is where the next module takes it in than where its own
    module gives it out: code between modules may multiply. 1 below FACTOR_BEHIND, which repetition,
    padding and concatenation make.
    """
    parts, model = anatomy(lab), lab.model
    with outputs_changed(
        [(dict(model.named_modules())[parts.memory], lambda tensor: with_noise(tensor, 8))]
    ):
        disturbed = lab.calls(model)
    given = None
    for old, new in zip(parts.calls, disturbed):
        if old.name == parts.memory:
            given = rms(new.outputs[0].float() - old.outputs[0].float())
        elif given:
            moved = [
                rms(b.float() - a.float())
                for a, b in zip(old.inputs, new.inputs)
                if a.is_floating_point() and a.shape == b.shape
            ]
            if max(moved, default=0.0) > 0.0:
                ratio = max(moved) / given
                return ratio if ratio > FACTOR_BEHIND else 1.0
    return 1.0


def target_scale(lab: Lab) -> tuple[float, float]:
    """|mean| over deviation, and deviation, of the targets; medians over the bins."""
    deviation = lab.frames.std(dim=0)
    return float((lab.frames.mean(dim=0).abs() / deviation.clamp(min=1e-6)).median()), float(
        deviation.median()
    )


def raw_targets(lab: Lab) -> Iterable[Suspect]:
    """Targets far from zero mean and unit scale, standardised by an affine map behind the output
    and before the history.
    """
    offset, deviation = target_scale(lab)
    if offset <= OFFSET and SCALE[0] < deviation < SCALE[1]:
        return
    parts = anatomy(lab)
    if not parts.output:
        return
    mean, std = lab.frames.mean(dim=0), lab.frames.std(dim=0).clamp(min=1e-3)
    corrections = {
        name
        for field, name in parts.outputs.items()
        if field == "mel" and _is_correction(lab, name)
    }

    def along(tensor: Tensor, statistic: Tensor) -> Tensor:
        statistic = statistic.to(tensor)
        return statistic if tensor.shape[-1] == len(statistic) else statistic[:, None]

    def standardise(model: nn.Module) -> None:
        modules = dict(model.named_modules())
        for name in dict.fromkeys(filter(None, parts.outputs.values())):
            offset_too = 0.0 if name in corrections else 1.0
            change_output(
                modules[name],
                lambda x, share=offset_too: x * along(x, std) + share * along(x, mean),
            )
        for name in parts.history_in:

            def before(_, args):
                first = args[0]
                if isinstance(first, Tensor) and len(mean) in first.shape[-2:]:
                    return ((first - along(first, mean)) / along(first, std), *args[1:])
                return None

            modules[name].register_forward_pre_hook(before)

    yield Suspect(
        "data.unnormalised_target",
        Change("targets standardised", model=standardise),
        {"|mean| / deviation of the targets": offset, "deviation of the targets": deviation},
        "target_mel",
    )


def _is_correction(lab: Lab, name: str) -> bool:
    """Whether a module's output is added to the frames, as a residual post-net's is: silenced, it
    leaves the frames alone.
    """
    if "frames" not in lab.fields:
        return False
    model = lab.build()
    change_output(dict(model.named_modules())[name], torch.zeros_like)
    with without_dropout(model):
        moved = lab.predict(model, field="mel") - lab.predict(model, field="frames")
        return rms(moved[lab.mask]) < 1e-4 * float(lab.frames.std())


def dominating_term(lab: Lab) -> Iterable[Suspect]:
    """A term whose weighted gradient dwarfs the mel's on the parameters that both reach; its weight
    set to 0.
    """
    for term in shared_terms(lab):
        if term.ratio > DOMINANT:
            yield Suspect(
                "loss.imbalance",
                Change(f"weight of {term.name} set to 0", losses=without_term(lab, term.name)),
                {
                    f"gradient of {term.name} over that of {term.mel}, shared parameters": (
                        term.ratio
                    ),
                    f"weight of {term.name} in total": term.weight,
                },
                f"losses[{term.name!r}]",
            )


@contextmanager
def recorded_dropout(found: list[float]):
    """The probabilities that dropout is called with while it is active, functional and in
    modules.
    """
    original = F.dropout

    def watch(input, p=0.5, training=True, inplace=False):
        if training:
            found.append(float(p))
        return original(input, p, training, inplace)

    F.dropout = watch
    try:
        yield
    finally:
        F.dropout = original


def heavy_dropout(lab: Lab) -> Iterable[Suspect]:
    """A dropout that drops more than half in training, or stays on in evaluation; all dropout
    off.
    """
    model = lab.build()
    in_training: list[float] = []
    with unchanged_randomness(lab.seed), recorded_dropout(in_training), torch.no_grad():
        lab.subject.losses(model.train(), lab.batch)
    highest = max(in_training, default=0.0)
    if highest > KEPT:
        yield Suspect(
            "model.dropout_always_on",
            Change("dropout off", around=without_dropout),
            {"largest share dropped in training": highest},
            "dropout",
        )


def growing_stack(lab: Lab) -> Iterable[Suspect]:
    """Activations that grow from layer to layer of a stack; the RMS of every member's output held
    at 1 at most.
    """
    grown = [stack for stack in stacks_of(lab, lab.model) if stack.growth > GROWTH]
    if not grown:
        return
    worst = max(grown, key=lambda stack: stack.growth)
    stacks = {stack.last.rpartition(".")[0] for stack in grown}
    loudest = max(stack.loudness for stack in grown)

    def hold(model: nn.Module) -> None:
        for name, module in model.named_modules():
            parent, _, last = name.rpartition(".")
            if parent in stacks and last.isdigit():
                change_output(
                    module,
                    lambda x: x / x.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1.0),
                )

    yield Suspect(
        "model.norm_runaway",
        Change(f"outputs of {' and '.join(sorted(stacks))} held at unit scale", model=hold),
        {"RMS of the last layer over the first": worst.growth, "RMS of the loudest": loudest},
        worst.last.rpartition(".")[0],
        always=worst.growth > RUNAWAY or loudest > LOUD_STACK,
    )


def drowned_text(lab: Lab) -> Iterable[Suspect]:
    """Positions that drown what they are added to: shrunk to its size where a module adds them;
    else the text enlarged.
    """
    parts = anatomy(lab)
    loud = {name: ratio for name, ratio in added_constants(lab).items() if ratio > LOUD_POSITIONS}
    if loud:
        worst = max(loud, key=loud.get)

        def shrink(model: nn.Module) -> None:
            modules = dict(model.named_modules())
            for name, ratio in loud.items():
                modules[name].register_forward_hook(
                    lambda _, args, output, ratio=ratio: args[0] + (output - args[0]) / ratio
                )

        yield Suspect(
            "model.positions",
            Change(f"what {', '.join(loud)} adds shrunk to the size of its input", model=shrink),
            {f"size of what {worst} adds over its input": loud[worst]},
            worst,
        )
        return
    for name, share in content_share(lab, parts).items():
        if share < DROWNED:
            factor = min(1e3, (1.0 - share**2) ** 0.5 / max(share, 1e-3))

            def enlarge(model: nn.Module, factor=factor) -> None:
                modules = dict(model.named_modules())
                for embedding in parts.embeddings:
                    change_output(modules[embedding], lambda x: x * factor)

            yield Suspect(
                "model.positions",
                Change(
                    f"text embedding {factor:.3g} times as large against the positions",
                    model=enlarge,
                ),
                {f"share of the input of {name} that the text makes": share},
                name,
            )


def added_constants(lab: Lab) -> dict[str, float]:
    """Modules that add the same to whatever they are given, as positions are: size of what is added
    over that of the input.
    """
    parts, model = anatomy(lab), lab.model
    modules = dict(model.named_modules())
    runs = [
        parts.calls,
        lab.calls(model, with_frames_changed(lab, list(parts.histories), slice(None))),
    ]
    with outputs_changed([(modules[name], lambda x: x.flip(1)) for name in parts.embeddings]):
        runs.append(lab.calls(model))
    found = {}
    for same in zip(*runs):
        shapes = {
            tensor.shape
            for call in same
            for tensor in (*call.inputs[:1], *call.outputs[:1])
            if tensor.is_floating_point()
        }
        if (
            len({call.name for call in same}) > 1
            or not same[0].name
            or len(shapes) != 1
            or len(next(iter(shapes))) != 3
        ):
            continue
        if any(not call.inputs or not call.inputs[0].is_floating_point() for call in same):
            continue
        added = [call.outputs[0].float() - call.inputs[0].float() for call in same]
        size, changed = rms(added[0]), max(rms(added[0] - other) for other in added[1:])
        moved = max(rms(same[0].inputs[0].float() - call.inputs[0].float()) for call in same[1:])
        if (
            size > 0
            and changed < 1e-3 * size
            and moved > 1e-3 * rms(same[0].inputs[0])
            and float(added[0].std(dim=1).max()) > 1e-3 * size
        ):
            found[same[0].name] = size / (rms(same[0].inputs[0]) + 1e-12)
    return found


def unusual_weights(lab: Lab) -> Iterable[Suspect]:
    """Modules whose weights are far from their default initialisation in size; all of them drawn
    anew.
    """
    odd = odd_weights(lab)
    if odd:
        worst = next(iter(odd))
        yield Suspect(
            "model.bad_initialisation",
            reinitialise(odd),
            {
                "modules far from their default": float(len(odd)),
                f"size of {worst} over its default": odd[worst],
            },
            worst,
            always=False,
        )


def weight_decay(lab: Lab) -> Iterable[Suspect]:
    """Decay that takes a visible share of the weights away during a course."""
    optimizer = lab.subject.make_optimizer(lab.build())
    taken = (
        max(
            (
                group.get("weight_decay", 0.0)
                * (group["lr"] if isinstance(optimizer, torch.optim.AdamW) else 1.0)
                for group in optimizer.param_groups
            ),
            default=0.0,
        )
        * lab.n_steps
    )
    if taken > DECAYED:
        yield Suspect(
            "optimizer.weight_decay",
            no_weight_decay(),
            {"decay over a course, weight decay × lr × steps": taken},
            "make_optimizer",
            always=taken > 0.5,
        )


def tight_clip(lab: Lab) -> Iterable[Suspect]:
    """A clip that shrinks the gradient far below what the loss gives, where steps are small:
    otherwise Adam has undone it.
    """
    seen = observe_steps(lab)
    if 0.0 < seen.clip_factor < 0.1 and lab.course().update_ratio < LAZY:
        for change in (unclipped(USUAL_CLIP), unclipped()):
            yield Suspect(
                "optimizer.clip_too_tight",
                change,
                {"gradient at the optimiser over the loss's own": seen.clip_factor},
                "train_step",
            )


def learning_rate(lab: Lab) -> Iterable[Suspect]:
    """The learning rate by powers of ten: up where a step hardly moves the weights, down where it
    moves them much.
    """
    base = lab.course()
    ratio = base.update_ratio
    evidence = {"‖Δw‖ / ‖w‖ of a step": ratio, "TF L1 / best constant at the end": base.final}
    if 0.0 < ratio < HARDLY_MOVES[1]:
        nearest = 10.0 ** max(1, math.floor(math.log10(USUAL_MOVE / ratio)))
        for factor in (nearest, 10.0 * nearest):
            yield Suspect(
                "optimizer.lr_too_small",
                lr_times(factor),
                evidence,
                "make_optimizer",
                general=True,
                always=ratio < LAZY and not base.learnt,
            )
    if not ratio <= HARDLY_MOVES[0]:
        for factor in (0.1, 0.01):
            yield Suspect(
                "optimizer.lr_too_large",
                lr_times(factor),
                evidence,
                "make_optimizer",
                general=True,
                always=False,
            )
