"""The way of the mel gradient through the decoder: is every tensor on it reached, and where is it
thin?

Shapes: B batch, T frames, M mel bins, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tts_core.config import ExperimentConfig
from tts_core.speech.batch import Batch
from tts_workbook.measure.gradients import term_gradients
from tts_workbook.measure.step_parity import comparable

PATH = ("mel_projection_in", "decoder.", "mel_projection_out")


def mel_path_norms(
    model: nn.Module, batch: Batch, experiment: ExperimentConfig
) -> dict[str, float]:
    """Norm of the mel loss's gradient at every parameter of input projection, decoder and output
    projection.

    Key biases are left out: softmax is blind to them, so what they get is rounding.
    """
    gradients = term_gradients(model, batch, experiment, ("mel",))["mel"]
    return {
        name: float(gradients[name].double().norm())
        for name in comparable(gradients)
        if name.startswith(PATH)
    }


def dead_tensors(norms: dict[str, float]) -> list[str]:
    """Parameters whose gradient is exactly zero or not finite."""
    return [name for name, norm in norms.items() if not 0.0 < norm < float("inf")]


def thinnest(norms: dict[str, float], reference: dict[str, float]) -> tuple[str, float]:
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
    ours, theirs = (sum(side[name] ** 2 for name in common) ** 0.5 for side in (norms, reference))
    factors = {
        name: (norms[name] / max(ours, 1e-300)) / (reference[name] / theirs) for name in common
    }
    weakest = min(factors, key=factors.__getitem__)
    return weakest, factors[weakest]


def gradient_of_a_still_decoder(
    model: nn.Module,
    batch: Batch,
    experiment: ExperimentConfig,
    kept: Sequence[float] = (1.0, 0.2, 0.0),
) -> dict[float, float]:
    """Norm of the mel gradient at `mel_projection_out` as the decoder stands still, predictions
    centred on the medians.

    Each decoded frame becomes the mean frame plus `kept` times what it differs by (B, T, D), and
    the output bias is set so that the mean frame gives each bin's median: the best constant. With
    `kept` 0 as many errors are positive as negative and the gradient cancels, whatever the model is
    like. Works on copies, dropout off.
    """
    found = {}
    for share in kept:
        still = copy.deepcopy(model).eval()
        still.decoder.register_forward_hook(
            lambda module, inputs, output, share=share: _slowed(output, batch, share)
        )
        with torch.no_grad():
            target = still.normaliser.normalise(batch.mel)[batch.mel_mask]
            predicted = still(batch).model_mel[batch.mel_mask]
            still.mel_projection_out.bias += target.median(dim=0).values - predicted.mean(dim=0)
        output = still(batch)
        error = (
            (output.model_mel - still.normaliser.normalise(batch.mel))[batch.mel_mask].abs().mean()
        )
        weight, bias = torch.autograd.grad(
            error, [still.mel_projection_out.weight, still.mel_projection_out.bias]
        )
        found[share] = float((weight.double().square().sum() + bias.double().square().sum()).sqrt())
    return found


def _slowed(decoded: Tensor, batch: Batch, share: float) -> Tensor:
    """Decoder output (B, T, D) drawn towards its mean over all valid frames; `share` 1 leaves
    it.
    """
    mean = decoded[batch.mel_mask].mean(dim=0)
    return mean + share * (decoded - mean)
