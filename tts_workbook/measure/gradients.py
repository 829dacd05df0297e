"""Where the gradient of one step goes: norm and update size per module.

Modules are those of the findings' next step 3: encoder layers, duration predictor,
`mel_projection_in`, every decoder block (self, cross, feed-forward), `mel_projection_out`, stop
head.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from tts_core.config import ExperimentConfig
from tts_core.speech.batch import Batch
from tts_core.training.losses import losses
from tts_core.training.precision import choose_precision
from tts_core.training.state import start_training
from tts_core.training.step import train_step
from tts_workbook.subject.tensor_math import tensors_norm

MAX_SKIPPED_STEPS = 20  # a loss scale of 65,536 halved so often is below 1


def audited_modules(model: nn.Module) -> dict[str, list[str]]:
    """Parameter names by module path, in network order; together they are every parameter of the
    model.

    A sub-layer owns the norm in front of it: `decoder.layers.0.cross_attention` includes
    `cross_attention_norm`.
    """
    names = ["text_embedding"]
    for index in range(len(model.encoder.layers)):
        names += [f"encoder.layers.{index}.{part}" for part in ("self_attention", "feed_forward")]
    names += ["encoder.memory_norm", "duration_predictor", "mel_projection_in"]
    for index in range(len(model.decoder.layers)):
        names += [
            f"decoder.layers.{index}.{part}"
            for part in ("self_attention", "cross_attention", "feed_forward")
        ]
    names += ["decoder.norm", "mel_projection_out", "stop_token_predictor"]
    owned = {
        name: [parameter for parameter, _ in model.named_parameters() if parameter.startswith(name)]
        for name in names
    }
    return {name: parameters for name, parameters in owned.items() if parameters}


@dataclass(frozen=True)
class StepAudit:
    """One train step, seen from every module. Keys are module paths."""

    gradient_norm: dict[str, float]  # of the total loss, fp32, before any clip
    mel_gradient_norm: dict[str, float]  # of the mel loss alone
    # norm of the weights' change in the step over norm of the weights
    update_ratio: dict[str, float]
    total_gradient_norm: float

    @property
    def unreached(self) -> list[str]:
        """Modules whose gradient of the total loss is exactly zero or absent."""
        return [name for name, norm in self.gradient_norm.items() if norm == 0.0]


def term_gradients(
    model: nn.Module, batch: Batch, experiment: ExperimentConfig, terms: tuple[str, ...]
) -> dict[str, dict[str, torch.Tensor]]:
    """Gradients of some loss terms from one forward pass: term -> parameter name -> tensor of the
    parameter's shape.

    `terms` are keys of `losses`, unweighted; a parameter that a term does not reach has zeros.
    Training mode, the precision of the weights, dropout drawn from the experiment's seed, so the
    numbers are a function of the arguments; the model's own gradients and mode stay as they were.
    """
    was_training = model.training
    model.train()
    named = dict(model.named_parameters())
    with torch.random.fork_rng():
        torch.manual_seed(experiment.fit.seed)
        means = losses(model, batch, experiment.loss)
        gradients = {
            term: torch.autograd.grad(
                means[term],
                list(named.values()),
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            for term in terms
        }
    model.train(was_training)
    return {term: dict(zip(named, tensors, strict=True)) for term, tensors in gradients.items()}


def module_norms(model: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, float]:
    """Norm per audited module of one tensor per parameter, by name: gradients, updates or
    differences of them.
    """
    return {
        path: tensors_norm([tensors[name] for name in names])
        for path, names in audited_modules(model).items()
    }


def gradient_norms(
    model: nn.Module, batch: Batch, experiment: ExperimentConfig, term: str = "total"
) -> dict[str, float]:
    """Gradient norm per audited module of one loss term, taken as in `term_gradients`."""
    return module_norms(model, term_gradients(model, batch, experiment, (term,))[term])


def text_share(norms: dict[str, float]) -> float:
    """Share in [0, 1] of a gradient's squared norm (norms by module path) that lies on embedding
    and encoder.
    """
    squares = {path: norm**2 for path, norm in norms.items()}
    text = sum(
        square
        for path, square in squares.items()
        if path.startswith(("text_embedding", "encoder."))
    )
    return text / max(sum(squares.values()), 1e-300)


def share_shift(a: dict[str, float], b: dict[str, float]) -> float:
    """How differently two steps spread their gradient: the largest factor, at least 1, by which any
    module's share changes.

    `a` and `b` are gradient norms by module path; a share is a norm over the root of the sum of
    squares. Only modules that both have and both reach are compared.
    """
    common = [path for path in a if a[path] > 0 and b.get(path, 0) > 0]
    scale = {id(norms): sum(norms[path] ** 2 for path in common) ** 0.5 for norms in (a, b)}
    factors = [(a[path] / scale[id(a)]) / (b[path] / scale[id(b)]) for path in common]
    return max((max(factor, 1 / factor) for factor in factors), default=1.0)


def audit_step(model: nn.Module, batch: Batch, experiment: ExperimentConfig) -> StepAudit:
    """Measure one step on a copy of `model`, which stays as it was, on the model's own device.

    Gradient norms are taken without autocast. The step itself runs in the experiment's precision;
    one that a loss scaler skips is repeated with its lower scale, as training would. Dropout is
    drawn from the experiment's seed.
    """
    model, device = copy.deepcopy(model).train(), next(model.parameters()).device
    gradients = term_gradients(model, batch, experiment, ("mel", "total"))
    mel_norms, norms = (module_norms(model, gradients[term]) for term in ("mel", "total"))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    training = start_training(experiment, model, str(device))
    precision = choose_precision(experiment.fit.precision, device)
    for _ in range(MAX_SKIPPED_STEPS):
        with torch.random.fork_rng():
            torch.manual_seed(experiment.fit.seed)
            report = train_step(
                model,
                training.optimizer,
                batch,
                experiment.loss,
                precision,
                training.scaler,
                experiment.optimizer.clip_norm,
            )
        if not report.skipped:
            break
    changes = module_norms(
        model, {name: p.detach() - before[name] for name, p in model.named_parameters()}
    )
    sizes = module_norms(model, before)
    ratios = {path: change / max(sizes[path], 1e-12) for path, change in changes.items()}
    total = sum(norm**2 for norm in norms.values()) ** 0.5
    return StepAudit(norms, mel_norms, ratios, total)
