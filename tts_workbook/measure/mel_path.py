"""The way of the mel gradient through the decoder: is every tensor on it reached, and where is it
thin?

The decoder is what the history enters and what comes after it, found by running the model. Shapes:
B batch, T frames, M mel bins, D width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tts_core.model.tts import TTSModel
from tts_workbook.measure.anatomy import anatomy
from tts_workbook.measure.step_parity import comparable
from tts_workbook.measure.supply import NotMeasured
from tts_workbook.measure.term_gradients import mel_gradient
from tts_workbook.subject.isolation import unchanged_randomness, without_dropout
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.training_step import all_parameters

question = "Does the mel gradient reach every tensor of the decoder, and where is it thin?"

OWN_PATH = ("mel_projection_in", "decoder.", "mel_projection_out")  # of the workbook's model


def mel_path_norms(opened: OpenSubject) -> dict[str, float]:
    """Norm of the mel loss's gradient at every parameter of input projection, decoder and output
    projection.

    Key biases are left out: softmax is blind to them, so what they get is rounding. Raises
    NotMeasured where no history enters the model.
    """
    gradient = mel_gradient(opened)
    starts = decoder_modules(opened)
    parameters = [name for name, _ in all_parameters(opened.model) if name.startswith(starts)]
    return {
        name: float(gradient[name].double().norm()) if name in gradient else 0.0
        for name in comparable(parameters)
    }


def decoder_modules(opened: OpenSubject) -> tuple[str, ...]:
    """What the names of the decoder's parameters start with: the outermost modules that run from
    where the history enters to the output layer. Raises NotMeasured where either was not found.
    """
    if isinstance(opened.model, TTSModel):
        return OWN_PATH
    parts = anatomy(opened)
    if not parts.history_in or not parts.output:
        raise NotMeasured("supply a model that reads the frames before: no history was found")
    names = [call.name for call in parts.calls]
    first = names.index(parts.history_in[0])
    last = len(names) - names[::-1].index(parts.output)
    text_side = set(parts.text_side)
    between = [name for name in names[first:last] if name and name not in text_side]
    outermost = dict.fromkeys(name.partition(".")[0] for name in between)
    return tuple(f"{name}." for name in outermost)


def dead_tensors(norms: Mapping[str, float]) -> list[str]:
    """Parameters whose gradient is exactly zero or not finite."""
    return [name for name, norm in norms.items() if not 0.0 < norm < math.inf]


def thinnest(norms: Mapping[str, float], reference: Mapping[str, float]) -> tuple[str, float]:
    """Weight matrix whose share of the path's gradient falls furthest behind its share in
    `reference`, and the factor.

    A share is a norm over the root of the sum of squares, so that the scale of the targets does not
    count. A factor below 1 is a thinner share than in the reference; of two steps alike it is 1
    everywhere.
    """
    common = [
        name
        for name in norms
        if name.endswith("weight") and "norm" not in name and reference.get(name, 0.0) > 0
    ]
    ours = sum(norms[name] ** 2 for name in common) ** 0.5
    theirs = sum(reference[name] ** 2 for name in common) ** 0.5
    factors = {
        name: (norms[name] / max(ours, 1e-300)) / (reference[name] / theirs) for name in common
    }
    weakest = min(factors, key=factors.__getitem__)
    return weakest, factors[weakest]


def gradient_of_a_still_decoder(
    opened: OpenSubject, kept: Sequence[float] = (1.0, 0.2, 0.0)
) -> dict[float, float]:
    """Norm of the mel gradient at the output layer as the decoder stands still, predictions centred
    on the medians.

    Each frame that enters the output layer becomes the mean frame plus `kept` times what it differs
    by (B, T, D), and a constant is added so that the mean frame gives each bin's median: the best
    constant. With `kept` 0 as many errors are positive as negative and the gradient cancels,
    whatever the model is like. Works on copies, dropout off. Raises NotMeasured where the output
    layer is no linear one with a bias that is handed frames.
    """
    return {share: _still_gradient(opened, share) for share in kept}


def _still_gradient(opened: OpenSubject, share: float) -> float:
    model = copy.deepcopy(opened.model).eval()
    modules = dict(model.named_modules())
    layer = modules.get(anatomy(opened).outputs["frames" if len(opened.fields) > 1 else "mel"])
    if not isinstance(layer, nn.Linear) or layer.bias is None:
        raise NotMeasured("supply a model whose output layer is nn.Linear with a bias")
    layer.register_forward_pre_hook(
        lambda module, inputs: (_slowed(inputs[0], opened.mask, share), *inputs[1:])
    )
    median = opened.frames.median(dim=0).values
    with torch.no_grad():
        layer.bias.add_(median - _predicted(opened, model).mean(dim=0))
    error = (_predicted(opened, model) - opened.frames).abs().mean()
    weight, bias = torch.autograd.grad(error, [layer.weight, layer.bias])
    return float((weight.double().square().sum() + bias.double().square().sum()).sqrt())


def _predicted(opened: OpenSubject, model: nn.Module) -> Tensor:
    """Valid frames (K, M) of the prediction before a post-net, with its graph."""
    predict = opened.subject.predict_frames or opened.subject.predict_mel
    with unchanged_randomness(opened.seed), without_dropout(model):
        return predict(model, opened.batch).float()[opened.mask]


def _slowed(frames: Tensor, mask: Tensor, share: float) -> Tensor:
    """What enters the output layer (B, T, D), drawn towards its mean over all valid frames; `share`
    1 leaves it.
    """
    if frames.shape[:2] != mask.shape:
        raise NotMeasured("supply a model whose output layer is handed all frames at once")
    mean = frames[mask].mean(dim=0)
    return mean + share * (frames - mean)
