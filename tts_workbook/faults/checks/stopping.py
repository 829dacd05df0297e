"""The check of stopping: which pattern the loss wants of the stop head, and whether the trained
head tells the last frame.

Shapes: B clips, T frames.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tts_core.model.modes import evaluating
from tts_workbook.faults.checks.registry import check
from tts_workbook.faults.finding import Finding
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import LEARNT
from tts_workbook.subject.isolation import unchanged_randomness, without_dropout
from tts_workbook.subject.module_calls import output_changed, recorded_calls

FIRES = 0.5  # where generation stops
# a stop head that has learnt anything gives the last frame this many times the rate of the others
TELLS = 3.0
# a total loss that a sure stop pattern moves by less does not depend on the head that was found
MATTERS = 1e-4
SURE = 8.0  # logit of a sure answer; probability 0.9997


@check("generation.stopping", needs=("stop",))
def stopping(lab: Lab) -> Iterable[Finding]:
    """The stop head at the last frame and before, and which stop pattern the loss wants: right,
    never or inverted.
    """
    model, cause = lab.trained, "generation.stopping"
    probability = stop_probability(lab, model)
    lengths = lab.lengths.tolist()
    last = statistics.fmean(float(row[length - 1]) for row, length in zip(probability, lengths))
    others = statistics.fmean(
        float(row[: max(1, length - 1)].mean()) for row, length in zip(probability, lengths)
    )
    evidence = {
        "stop probability at the last frame": last,
        "elsewhere, mean": others,
        "constant rate": len(lengths) / float(sum(lengths)),
    }
    wanted = losses_of_patterns(lab, probability)
    if wanted:
        evidence |= {f"loss with the stop {name}": value for name, value in wanted.items()}
        best = min(wanted, key=wanted.get)
        experiment = (
            "loss of the right stop pattern put in place of the head's output, against never and"
            " inverted"
        )
        if best != "at the last frame":
            return [
                Finding(
                    cause,
                    "confirmed",
                    f"{experiment}: the loss wants it {best}",
                    evidence | _inferred(lab),
                    "losses",
                    1.0,
                )
            ]
        if last > TELLS * others:
            return [Finding(cause, "excluded", experiment, evidence, "stop")]
    elif last > TELLS * others:
        return [
            Finding(
                cause,
                "excluded",
                "stop probabilities at the last frame and before",
                evidence,
                "stop",
            )
        ]
    elif others > FIRES and lab.error(lab.predict(model, field="mel")) < LEARNT:
        return [
            Finding(
                cause,
                "confirmed",
                "the mel is learnt, and the stop head fires at once",
                evidence | _inferred(lab),
                "stop",
                1.0,
            )
        ]
    return [
        Finding(
            cause,
            "undecided",
            "the head does not tell the last frame yet: train longer, then compare again",
            evidence,
            "stop",
        )
    ]


def stop_probability(lab: Lab, model: nn.Module) -> Tensor:
    """(B, T) teacher-forced, eval mode, without dropout."""
    with unchanged_randomness(lab.seed), evaluating(model), without_dropout(model):
        return lab.subject.stop(model, lab.batch).detach().float()


def _inferred(lab: Lab) -> dict[str, float]:
    """Length of full inference over the true one."""
    if lab.subject.infer is None:
        return {}
    try:
        with unchanged_randomness(lab.seed), evaluating(lab.trained):
            clips = lab.subject.infer(lab.trained, lab.batch)
    except Exception:  # it may never end, and say so; the finding stands without its length
        return {}
    return {
        "frames of full inference / true frames": sum(map(len, clips)) / float(lab.lengths.sum())
    }


def losses_of_patterns(lab: Lab, probability: Tensor) -> dict[str, float]:
    """Total loss with the stop head's output replaced: firing at the last frame, never, or
    everywhere but there.

    The head is the last module whose outputs are the logits, or the probabilities, that
    `Subject.stop` gives (B, T), at once or frame by frame. Empty where there is none, or where the
    loss does not depend on it.
    """
    model = copy.deepcopy(lab.trained)
    with recorded_calls(model) as calls:
        probability = stop_probability(lab, model)
    outputs: dict[str, list[Tensor]] = {}
    for call in calls:
        if call.name and call.outputs and call.outputs[0].is_floating_point():
            outputs.setdefault(call.name, []).append(call.outputs[0].detach().float())
    for name in reversed(outputs):
        for kind, wanted in (("logit", probability.logit(eps=1e-7)), ("probability", probability)):
            rows = _rows(outputs[name], wanted, lab.mask)
            if rows is not None:
                found = {
                    pattern: _loss_with(lab, model, name, kind, rows, fired)
                    for pattern, fired in _patterns(lab).items()
                }
                if (
                    all(map(math.isfinite, found.values()))
                    and max(found.values()) - min(found.values()) > MATTERS
                ):
                    return found
    return {}


def _patterns(lab: Lab) -> dict[str, Tensor]:
    """(B, T) bool: where the stop fires."""
    frames = torch.arange(lab.target.shape[1], device=lab.lengths.device)
    last = frames == (lab.lengths - 1)[:, None]
    return {
        "at the last frame": last,
        "never": torch.zeros_like(last),
        "everywhere but at the last frame": ~last,
    }


def _rows(outputs: list[Tensor], wanted: Tensor, mask: Tensor) -> list[int] | None:
    """Order of the clips in which the module's outputs, (B, T) at once or (B,) by frame, are
    `wanted`; else None.
    """
    shape = tuple(wanted.shape)
    if (
        len(outputs) == 1
        and outputs[0].numel() == wanted.numel()
        and {size for size in outputs[0].shape} >= set(shape) - {1}
    ):
        seen = outputs[0].reshape(shape)
    elif len(outputs) == shape[1] and all(output.numel() == shape[0] for output in outputs):
        seen = torch.stack([output.flatten() for output in outputs], dim=1)
    else:
        return None
    differences = [
        [
            float(((seen[row] - wanted[clip]).abs() / (1 + wanted[clip].abs()))[mask[clip]].mean())
            for clip in range(shape[0])
        ]
        for row in range(shape[0])
    ]
    order = [min(range(shape[0]), key=row.__getitem__) for row in differences]
    fits = all(row[clip] < 0.02 for row, clip in zip(differences, order))
    return order if fits and sorted(order) == list(range(shape[0])) else None


def _loss_with(
    lab: Lab, model: nn.Module, name: str, kind: str, rows: list[int], fired: Tensor
) -> float:
    """Total loss with the head's output replaced by a sure answer."""
    on, off = (
        (SURE, -SURE) if kind == "logit" else (1 / (1 + math.exp(-SURE)), 1 / (1 + math.exp(SURE)))
    )
    answer = torch.where(fired[rows], on, off)
    position = 0

    def replaced(output: Tensor) -> Tensor:
        nonlocal position
        if output.numel() == answer.numel():
            return answer.to(output).reshape(output.shape)
        position += 1
        return answer[:, (position - 1) % answer.shape[1]].to(output).reshape(output.shape)

    with (
        output_changed(dict(model.named_modules())[name], replaced),
        without_dropout(model),
        unchanged_randomness(lab.seed),
        evaluating(model),
    ):
        return float(lab.subject.losses(model, lab.batch)["total"])
