"""Checks of the losses: identity, permutation, padding, and whether what is shown is what is
optimised. No training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from tts_core.speech.batch import lengths_to_mask
from tts_workbook.faults.checks.registry import check
from tts_workbook.faults.finding import Finding
from tts_workbook.faults.loss._identity import SAME, identity, tell_about
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import anatomy, movement
from tts_workbook.measure.optimizer_parity import nudged
from tts_workbook.measure.prediction import eval_losses
from tts_workbook.measure.term_gradients import span, term_gradients, term_weights
from tts_workbook.subject.isolation import without_dropout
from tts_workbook.subject.module_calls import output_changed, with_noise
from tts_workbook.subject.tensor_math import tensors_norm

UNSHOWN_SHARE = 0.1  # squared share of total's gradient outside the span of the terms' gradients
# convolutions may look past the end of a text, as Tacotron 2's do: they move a frame by 0.013
TEXT_SAME = 0.1
# at most, of a leak at the text alone: an unstable model makes much of what a convolution lets
# through
TEXT_STRENGTH = 0.3
FLOORS = 10.0  # how many times what rounding does a broken equivalence has to exceed
UNWEIGHTED = 1e-3  # weight of a term in total's gradient below which it is none
# a mel term that makes less of total's gradient is no part of it; what is merely dominated makes
# more
IGNORED = 3e-5
PADDED = 0.5  # padding appended, as a share of the batch's frames


@check("loss.wrong_reduction", finite=True)
def loss_of_the_target_itself(lab: Lab) -> Iterable[Finding]:
    """The model is made to predict the target, its frames in disorder, its bins in disorder, and a
    wrong level.
    """
    found = identity(lab)
    if not found.reached:
        yield Finding(
            "loss.wrong_reduction",
            "undecided",
            "next: the last layer could not be made to give the target; compute the "
            "loss of the target itself by hand",
        )
        return
    experiment = (
        "the model made to predict the target, its frames in disorder, its bins in disorder, and"
        " the target off by one deviation"
    )
    deaf = [
        name for name, values in found.terms.items() if "mel" in name.lower() and not values.heard
    ]
    if deaf:
        yield Finding(
            "loss.logged_not_optimised",
            "confirmed",
            experiment,
            strength=1.0,
            where=f"losses[{deaf[0]!r}]",
            evidence={f"{name}, whatever is predicted": found.terms[name].own for name in deaf},
        )
    if not found.distances:
        return
    name = found.broken or found.distances[-1]
    values = found.terms[name]
    evidence = {
        f"{name} of its own prediction": values.own,
        "of the target": values.target,
        "of the target's frames in disorder": values.disorder,
        "of its bins in disorder": values.rebinned,
        "of a level off by one deviation": values.level,
    }
    if not found.broken:
        yield Finding("loss.wrong_reduction", "excluded", experiment, evidence)
    elif reason := tell_about(found):
        yield Finding(
            "loss.wrong_reduction",
            "undecided",
            f"{experiment}; {reason}",
            evidence,
            f"losses[{name!r}]",
        )
    else:
        yield Finding(
            "loss.wrong_reduction", "confirmed", experiment, evidence, f"losses[{name!r}]", 1.0
        )


@check("loss.padding_included", "model.padding_mask", needs=("pad",), finite=True)
def appended_padding(lab: Lab) -> Iterable[Finding]:
    """Padding is appended: neither valid frames nor losses may move."""
    n_padded = max(8, int(PADDED * lab.target.shape[1]))
    padded = lab.subject.pad(lab.batch, n_padded)
    n_frames = lab.target.shape[1]
    experiment = f"{n_padded} padded frames appended"
    with without_dropout(lab.model):
        before, after = lab.predict(lab.model), lab.predict(lab.model, padded)[:, :n_frames]
    moved = {
        "largest move of a valid frame, target deviations": float(
            movement(before, after, lab).max()
        )
    }
    bars = [max(SAME, FLOORS * rounding_floor(lab))]
    for name, value in disturbed_padding(lab).items():
        moved[f"the same when the padding at {name} is disturbed"] = value
        bars.append(bars[0] if name == anatomy(lab).memory else TEXT_SAME)
    broken = [name for (name, value), bar in zip(moved.items(), bars) if value > bar]
    if broken:
        where = broken[0].partition("padding at ")[2].partition(" ")[0] or "predict_frames"
        only_text = len(broken) == 1 and where in anatomy(lab).embeddings
        yield Finding(
            "model.padding_mask",
            "confirmed",
            experiment + "; noise on what pads text and memory",
            moved,
            where,
            min(TEXT_STRENGTH if only_text else 1.0, max(moved.values())),
        )
        yield Finding(
            "loss.padding_included",
            "undecided",
            "next: mend the padding mask first, the prediction moves",
        )
        return
    yield Finding("model.padding_mask", "excluded", experiment, moved)
    short, long = eval_losses(lab, lab.model), eval_losses(lab, lab.model, padded)
    misled = tell_about(identity(lab))
    changes = {name: (long[name] - short[name]) / (abs(short[name]) + 1e-9) for name in short}
    worst = max(
        (name for name in changes if name != "total"),
        key=lambda name: abs(changes[name]),
        default="total",
    )
    evidence = {f"relative change of {name}": change for name, change in changes.items()}
    level = (
        "excluded"
        if max(map(abs, changes.values())) <= 10 * SAME
        else "undecided"
        if misled
        else "confirmed"
    )
    yield Finding(
        "loss.padding_included",
        level,
        "; ".join(filter(None, (experiment, misled))),
        evidence,
        f"losses[{worst!r}]" if level == "confirmed" else "",
        min(1.0, abs(changes[worst])),
    )


def disturbed_padding(lab: Lab) -> dict[str, float]:
    """How far valid frames move when noise is put on what lies behind each clip's end: at the text
    embedding, at the memory.

    Empty where no clip of the batch is padded there. Text lengths come from Subject.symbols, or
    from Subject.durations.
    """
    parts, moved = anatomy(lab), {}
    text = text_lengths(lab)
    for name in dict.fromkeys((*parts.embeddings[:1], parts.memory)):
        call = next(
            (call for call in parts.calls if call.name == name and call.outputs[0].ndim == 3), None
        )
        if call is None:
            continue
        n_places = call.outputs[0].shape[1]
        lengths = (
            lab.lengths
            if n_places == lab.target.shape[1]
            else text
            if text is not None and n_places == int(text.max())
            else None
        )
        if lengths is not None and bool((lengths < n_places).any()):
            moved[name] = _moved_by(lab, name, ~lengths_to_mask(lengths, n_places))
    return moved


def text_lengths(lab: Lab) -> Tensor | None:
    """(B,) text positions of each row of the text embedding's input, whose order need not be the
    batch's; None where unclear.
    """
    lengths_of, parts = lab.subject.symbols or lab.subject.durations, anatomy(lab)
    if lengths_of is None or not parts.embeddings:
        return None
    ids = next(call.inputs[0] for call in parts.calls if call.name == parts.embeddings[0])
    if ids.ndim != 2:
        return None
    rows = [
        len(row) if lab.subject.symbols else int((torch.as_tensor(row) > 0).sum())
        for row in lengths_of(lab.batch)
    ]
    for pad in sorted(set(ids[:, -1].tolist())):
        runs = [
            (
                int((values.flip(0) != pad).int().argmax())
                if bool((values != pad).any())
                else len(values)
            )
            for values in ids
        ]
        lengths = torch.tensor([ids.shape[1] - run for run in runs])
        inside = ids[lengths_to_mask(lengths, ids.shape[1])]
        if sorted(lengths.tolist()) == sorted(rows) and not bool((inside == pad).any()):
            return lengths
    return torch.tensor(rows) if len(set(rows)) == 1 else None


def _moved_by(lab: Lab, name: str, padding: Tensor) -> float:
    model = lab.model
    with without_dropout(model):
        before = lab.predict(model)
        with output_changed(
            dict(model.named_modules())[name],
            lambda tensor: with_noise(tensor, 5, padding[..., None]),
        ):
            return float(movement(before, lab.predict(model), lab).max())


def rounding_floor(lab: Lab) -> float:
    """How far a valid frame moves when every parameter is off by a rounding: what no equivalence
    can be closer than.
    """
    off = nudged(lab.model)
    with without_dropout(lab.model), without_dropout(off):
        return float(movement(lab.predict(lab.model), lab.predict(off), lab).max())


@check("loss.detached", "loss.logged_not_optimised")
def gradient_of_each_term(lab: Lab) -> Iterable[Finding]:
    """Each term's gradient: is it there, and is total's made of them?"""
    gradients = term_gradients(lab)
    norms = {name: tensors_norm(gradient.values()) for name, gradient in gradients.items()}
    if not all(map(math.isfinite, norms.values())):
        for cause in ("loss.detached", "loss.logged_not_optimised"):
            yield Finding(
                cause,
                "undecided",
                "gradients are not finite; next: mend that, and diagnose again",
                {f"gradient norm of {name}": norm for name, norm in norms.items()},
            )
        return
    weights = term_weights(lab)
    experiment = (
        "gradient of each term at every parameter, and the span of the terms' gradients against"
        " total's"
    )
    evidence = {f"gradient norm of {name}": norm for name, norm in norms.items()}
    dead = [
        name
        for name in norms
        if name != "total"
        and norms[name] == 0.0
        and (
            abs(weights.get(name, 0.0)) > 1e-3
            or name.lower() in ("mel", "duration", "stop", "gate")
        )
    ]
    if norms["total"] == 0.0:
        yield Finding("loss.detached", "confirmed", experiment, evidence, "losses['total']", 1.0)
        return
    if dead:
        yield Finding(
            "loss.detached", "confirmed", experiment, evidence, f"losses[{dead[0]!r}]", 0.9
        )
    else:
        yield Finding("loss.detached", "excluded", experiment, evidence)
    alive = [name for name in norms if name != "total" and norms[name] > 0.0]
    if not alive:
        return
    coefficients, unshown = span(gradients["total"], [gradients[name] for name in alive])
    evidence = {
        f"weight of {name} in total's gradient": weight for name, weight in zip(alive, coefficients)
    }
    evidence["share of total's gradient that no term explains"] = unshown
    mel = [name for name in alive if "mel" in name.lower()]
    ignored = mel and all(
        abs(coefficients[alive.index(name)]) < UNWEIGHTED
        and abs(coefficients[alive.index(name)]) * norms[name] < IGNORED * norms["total"]
        for name in mel
    )
    if not dead and (unshown > UNSHOWN_SHARE or ignored):
        yield Finding(
            "loss.logged_not_optimised", "confirmed", experiment, evidence, "losses['total']", 0.9
        )
    elif not dead:
        yield Finding("loss.logged_not_optimised", "excluded", experiment, evidence)
