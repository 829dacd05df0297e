"""Where the gradient of one step goes: norm and update size per module.

Modules are those of the findings' next step 3: encoder layers, duration predictor, `mel_projection_in`, every decoder
block (self, cross, feed-forward), `mel_projection_out`, stop head.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from tts_core.config import ExperimentConfig
from tts_core.speech.batch import Batch
from tts_core.training.loop import start_training
from tts_core.training.losses import losses
from tts_core.training.precision import choose_precision
from tts_core.training.step import train_step


def audited_modules(model: nn.Module) -> dict[str, list[str]]:
    """Parameter names by module path, in network order; together they are every parameter of the model.

    A sub-layer owns the norm in front of it: `decoder.layers.0.cross_attention` includes `cross_attention_norm`.
    """
    names = ["text_embedding"]
    for index in range(len(model.encoder.layers)):
        names += [f"encoder.layers.{index}.{part}" for part in ("self_attention", "feed_forward")]
    names += ["encoder.memory_norm", "duration_predictor", "mel_projection_in"]
    for index in range(len(model.decoder.layers)):
        names += [f"decoder.layers.{index}.{part}" for part in ("self_attention", "cross_attention", "feed_forward")]
    names += ["decoder.norm", "mel_projection_out", "stop_token_predictor"]
    owned = {name: [parameter for parameter, _ in model.named_parameters() if parameter.startswith(name)] for name in names}
    return {name: parameters for name, parameters in owned.items() if parameters}


def _norm(tensors: list[torch.Tensor]) -> float:
    return float(torch.stack([tensor.double().square().sum() for tensor in tensors]).sum().sqrt()) if tensors else 0.0


@dataclass(frozen=True)
class StepAudit:
    """One train step, seen from every module. Keys are module paths."""

    gradient_norm: dict[str, float]        # of the total loss, fp32, before any clip
    mel_gradient_norm: dict[str, float]    # of the mel loss alone
    update_ratio: dict[str, float]         # norm of the weights' change in the step over norm of the weights
    losses: dict[str, float]
    total_gradient_norm: float

    @property
    def unreached(self) -> list[str]:
        """Modules whose gradient of the total loss is exactly zero or absent."""
        return [name for name, norm in self.gradient_norm.items() if norm == 0.0]


def gradient_norms(model: nn.Module, batch: Batch, experiment: ExperimentConfig, term: str = "total") -> dict[str, float]:
    """Gradient norm per audited module of one loss term; the model's gradients are cleared before and after."""
    model.zero_grad(set_to_none=True)
    losses(model, batch, experiment.loss)[term].backward()
    norms = {path: _norm([g for g in (model.get_parameter(name).grad for name in names) if g is not None])
             for path, names in audited_modules(model).items()}
    model.zero_grad(set_to_none=True)
    return norms


def text_share(norms: dict[str, float]) -> float:
    """Share in [0, 1] of a gradient (norms by module path) that reaches the text side: embedding and encoder."""
    squares = {path: norm ** 2 for path, norm in norms.items()}
    text = sum(square for path, square in squares.items() if path.startswith(("text_embedding", "encoder.")))
    return (text / max(sum(squares.values()), 1e-300)) ** 0.5


def share_shift(a: dict[str, float], b: dict[str, float]) -> float:
    """How differently two steps spread their gradient: the largest factor, at least 1, by which any module's share changes.

    `a` and `b` are gradient norms by module path; a share is a norm over the root of the sum of squares. Only modules
    that both have and both reach are compared.
    """
    common = [path for path in a if a[path] > 0 and b.get(path, 0) > 0]
    scale = {id(norms): sum(norms[path] ** 2 for path in common) ** 0.5 for norms in (a, b)}
    factors = [(a[path] / scale[id(a)]) / (b[path] / scale[id(b)]) for path in common]
    return max((max(factor, 1 / factor) for factor in factors), default=1.0)


def audit_step(model: nn.Module, batch: Batch, experiment: ExperimentConfig) -> StepAudit:
    """Measure one step on a copy of `model`, which stays as it was. Dropout is drawn from the experiment's seed."""
    model = copy.deepcopy(model).train()
    with torch.random.fork_rng():
        torch.manual_seed(experiment.fit.seed)
        mel_norms = gradient_norms(model, batch, experiment, "mel")
        torch.manual_seed(experiment.fit.seed)
        norms = gradient_norms(model, batch, experiment)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        training = start_training(experiment, model)
        torch.manual_seed(experiment.fit.seed)
        report = train_step(model, training.optimizer, batch, experiment.loss, choose_precision(experiment.fit.precision),
                            training.scaler, experiment.optimizer.clip_norm)
    ratios = {}
    for path, names in audited_modules(model).items():
        change = _norm([model.get_parameter(name).detach() - before[name] for name in names])
        ratios[path] = change / max(_norm([before[name] for name in names]), 1e-12)
    terms = {name: getattr(report, name) for name in ("mel", "mel_l1", "duration", "stop", "total")}
    return StepAudit(norms, mel_norms, ratios, terms, report.gradient_norm)
