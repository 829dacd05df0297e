"""loop.weights_not_loaded: part of the checkpoint was not loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.lab.lab import Lab
from tts_workbook.subject.clip_data import clipped_step
from tts_workbook.subject.module_names import common_path
from tts_workbook.subject.subject import Subject

LOWER = Bar(
    0.9, control="of the loss as loaded: what the loss with the names mended has to be below"
)
LOADED = Bar(
    0.25,
    control="of the trained elements: the share that two fresh models have from the file, from"
    " which on the others are missed; a caller that loads later has none",
)


@dataclass(frozen=True)
class Mended:
    """What is lost, and the loss once its names are mended."""

    share: float  # of the trained elements that stay fresh
    counterpart: str  # of the first lost tensor in the checkpoint; empty where it has none
    n_renamed: int  # lost tensors that have a counterpart
    before: float  # loss as loaded
    after: float  # and with the names mended


@dataclass(frozen=True)
class Anew:
    """Of two fresh models, the tensors that are the file's, and those that are drawn anew."""

    n_loaded: int  # elements
    n_fresh: int
    fresh: tuple[str, ...]

    @property
    def share(self) -> float:
        """Of the elements, drawn anew."""
        return self.n_fresh / (self.n_loaded + self.n_fresh)


@dataclass(frozen=True)
class Arrivals:
    """The model's tensors against the checkpoint's."""

    n_tensors: int  # of the model
    n_common: int  # in the checkpoint under the same name and in the same shape
    lost: tuple[str, ...]  # parameters that stay fresh
    n_unexpected: int  # tensors of the checkpoint that nobody takes
    mended: Mended | None  # None: nothing is lost
    anew: Anew | None  # None: something is lost


def measure(lab: Lab) -> Arrivals:
    """Names and shapes of the checkpoint against the model's; tensors that stay fresh; the loss
    with the names mended.
    """
    model, saved = lab.build(), flat(lab.checkpoint_state)
    own, again = model.state_dict(), lab.build(lab.seed + 1).state_dict()
    common = {name for name in own if name in saved and saved[name].shape == own[name].shape}
    unexpected = [name for name in saved if name not in common]
    trained = dict(model.named_parameters())
    lost = [
        name
        for name, names in tied_names(model).items()
        if not common.intersection(names)
        # build_model may have loaded them under other names, which is as good
        and not any(arrived(own[name], saved[other]) for other in unexpected)
    ]
    renamed = counterparts(
        {name: own[name] for name in lost}, {name: saved[name] for name in unexpected}
    )
    # what every fresh model has is computed, unless the file holds another
    lost = [name for name in lost if name in renamed or not torch.equal(own[name], again[name])]
    numbers = Arrivals(len(own), len(common), tuple(lost), len(unexpected), None, None)
    if not lost:
        return replace(numbers, anew=_drawn_anew(model, again, saved, common))
    n_lost = sum(own[name].numel() for name in lost)
    share = n_lost / sum(parameter.numel() for parameter in trained.values())
    before = _loss_with(lab, model, {name: saved[name] for name in common})
    after = _loss_with(lab, model, {name: saved[other] for name, other in renamed.items()})
    return replace(
        numbers, mended=Mended(share, renamed.get(lost[0], ""), len(renamed), before, after)
    )


def _loss_with(lab: Lab, model: nn.Module, state: Mapping[str, Tensor]) -> float:
    """Total loss once these tensors are loaded too."""
    model.load_state_dict(state, strict=False)
    return float(lab.losses(model)["total"].detach())


def _drawn_anew(
    model: nn.Module,
    again: Mapping[str, Tensor],
    saved: Mapping[str, Tensor],
    common: Collection[str],
) -> Anew:
    """Every name fits. Did build_model load the file and then draw part of the weights anew? Only
    what is trained is asked: a table of sinusoids is the same in every model and every file, and a
    frozen part may be loaded from elsewhere.
    """
    own = {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and name in common
    }
    fresh = [name for name in own if not torch.equal(own[name], again[name])]
    loaded = [name for name in own if name not in fresh and arrived(own[name], saved[name])]
    return Anew(
        n_loaded=sum(own[name].numel() for name in loaded),
        n_fresh=sum(own[name].numel() for name in fresh),
        fresh=tuple(fresh),
    )


def tied_names(model: nn.Module) -> dict[str, list[str]]:
    """First name of each parameter -> all of its names: a file need hold only one of them."""
    first: dict[int, str] = {}
    found: dict[str, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found.setdefault(first.setdefault(id(parameter), name), []).append(name)
    return found


def flat(state: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """The tensors of nested mappings under dotted names."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            found[f"{prefix}{name}"] = value
    return found


def arrived(own: Tensor, saved: Tensor) -> bool:
    """Whether a tensor is the saved one; a constant proves nothing."""
    if own.shape != saved.shape or own.numel() <= 1 or not torch.equal(own, saved.to(own)):
        return False
    return bool((own != own.flatten()[0]).any())


def counterparts(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> dict[str, str]:
    """Each name of the model -> the saved one of its shape that ends most alike, each used once, in
    the order of the files.
    """
    pairs = [
        (_shared_ends(name, other), name, other)
        for name in own
        for other in saved
        if own[name].shape == saved[other].shape
    ]
    found: dict[str, str] = {}
    for score, name, other in sorted(pairs, key=lambda pair: -pair[0]):
        if score and name not in found and other not in found.values():
            found[name] = other
    return found


def _shared_ends(a: str, b: str) -> int:
    """How many parts of two dotted names are the same, from the end."""
    shared = 0
    for own, other in zip(reversed(a.split(".")), reversed(b.split(".")), strict=False):
        if own != other:
            break
        shared += 1
    return shared


def decide(numbers: Arrivals) -> Decision:
    """Pure: which of the ends it is."""
    mended, anew = numbers.mended, numbers.anew
    if mended is not None:
        where = common_path(list(numbers.lost)) or "checkpoint"
        if mended.n_renamed and mended.after < LOWER * mended.before:
            strength = max(0.0, 1.0 - mended.after / mended.before)
            return Decision("confirmed", where, strength, "lost")
        return Decision("suspected", where, 0.5, "lost")
    if anew is not None and anew.fresh and anew.n_loaded > LOADED * (anew.n_loaded + anew.n_fresh):
        where = common_path(list(anew.fresh)) or "build_model"
        return Decision("confirmed", where, anew.share, "drawn anew")
    return Decision("excluded", reason="arrived")


def tell(numbers: Arrivals, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {
        "tensors of the model": float(numbers.n_tensors),
        "in the checkpoint under the same name": float(numbers.n_common),
        "parameters that stay fresh": float(len(numbers.lost)),
        "tensors of the checkpoint that nobody takes": float(numbers.n_unexpected),
    }
    mended, anew = numbers.mended, numbers.anew
    if mended is not None:
        evidence |= {
            "share of the elements": mended.share,
            "first": numbers.lost[0],
            "its counterpart": mended.counterpart or "none",
            "loss as loaded": mended.before,
            "loss with the names mended": mended.after,
        }
        return Telling(
            "the checkpoint's tensors against the model's, and the loss with names mended", evidence
        )
    if anew is not None and decision.reason == "drawn anew":
        evidence |= {"share of elements drawn anew": anew.share, "first": anew.fresh[0]}
        return Telling(
            "tensors of two fresh models against the checkpoint's: some are the file's, others are"
            " drawn anew",
            evidence,
        )
    return Telling("every parameter of the model has its tensor in the checkpoint", evidence)


def plant(build: Build, setting: Setting, steps: int = 60) -> Subject:
    """Trained weights saved under `module.`, all or all but one child's (drawn), and loaded with
    strict=False: they stay fresh.

    The training is `steps` of the clean twin.
    """
    subject = build(setting)
    model = _trained(subject, setting.seed, steps)
    children = [
        name for name, child in model.named_children() if any(True for _ in child.parameters())
    ]
    spared = setting.random.choice([None, *children])
    checkpoint = {
        (key if key.split(".")[0] == spared else f"module.{key}"): value.detach().clone()
        for key, value in model.state_dict().items()
    }

    def build_model() -> nn.Module:
        fresh = subject.build_model()
        fresh.load_state_dict(checkpoint, strict=False)
        return fresh

    return replace(subject, build_model=build_model, checkpoint=checkpoint)


def _trained(subject: Subject, seed: int, steps: int) -> nn.Module:
    train_step = subject.train_step or clipped_step(subject.losses)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = subject.build_model()
        optimizer = subject.make_optimizer(model)
        for _ in range(steps):
            train_step(model, optimizer, subject.batch)
    return model


CAUSE = Cause(
    id="loop.weights_not_loaded",
    title="part of the checkpoint was not loaded",
    experiment="compare the model's tensors with the checkpoint's",
    fix="load with strict=True and mend the names",
    experiments=(Experiment(measure, decide, tell, needs=("checkpoint",)),),
    plant=plant,
)
