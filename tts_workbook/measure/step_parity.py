"""One step done two ways: precision, checkpointing, loss scale, accumulation; and what rounding
alone would do to it.

Key biases are left out of every comparison: softmax is blind to them, so their gradient is
rounding, which Adam's first step turns into full steps.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from tts_core.config import ExperimentConfig
from tts_core.errors import WorkbookError
from tts_core.model.attention import MultiHeadAttention
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch
from tts_core.training.precision import DTYPES, choose_precision
from tts_core.training.state import start_training
from tts_core.training.step import StepReport, train_step
from tts_workbook.measure.module_groups import audited_modules
from tts_workbook.measure.supply import own_parts
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.tensor_math import cosine, difference

question = "Is a step in another precision, or made in another way, the same step?"

AnyModel = TypeVar("AnyModel", bound=nn.Module)
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]

SIXTEEN_BITS: tuple[PrecisionName, ...] = ("bf16", "fp16")

MAX_SKIPPED_STEPS = 20  # a loss scale of 65,536 halved so often is below 1
FLOORS = ("gradient rounded", "output rounded", "weights rounded")
WEIGHT_ROUNDINGS = 5


@dataclass(frozen=True)
class MeasuredStep:
    """One train step on a copy of a model, by parameter name."""

    report: StepReport
    gradient: dict[str, Tensor]  # as the optimiser got it: unscaled, then clipped
    update: dict[str, Tensor]  # change of the weights

    @property
    def loss(self) -> float:
        return self.report.total


@dataclass(frozen=True)
class StepDifference:
    """A step beside a reference step. Errors are norms of differences over norms of the
    reference.
    """

    loss: float  # relative
    gradient: float  # over all parameters
    gradient_cosine: float
    update: float
    modules: dict[str, float]  # gradient error per audited module
    module_cosines: dict[str, float]


def without_clip(experiment: ExperimentConfig) -> ExperimentConfig:
    """The same experiment with the gradient clip off."""
    return dataclasses.replace(
        experiment, optimizer=dataclasses.replace(experiment.optimizer, clip_norm=None)
    )


def in_precision(experiment: ExperimentConfig, name: PrecisionName) -> ExperimentConfig:
    """The same experiment in fp32, bf16 or fp16."""
    fit = dataclasses.replace(experiment.fit, precision=name)
    return dataclasses.replace(experiment, fit=fit)


def with_checkpointing(model: TTSModel, on: bool) -> TTSModel:
    """A copy of `model`, same weights, with gradient checkpointing on or off."""
    model = copy.deepcopy(model)
    model.config = dataclasses.replace(model.config, gradient_checkpointing=on)
    return model


def with_dropout(model: AnyModel, probability: float) -> AnyModel:
    """A copy of `model`, same weights, with every dropout at `probability`.

    Precisions are compared at 0: another type draws other masks from one and the same random state.
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        elif isinstance(module, MultiHeadAttention):
            module.dropout = probability
    return model


def measure_step(
    model: TTSModel,
    batches: Batch | Sequence[Batch],
    experiment: ExperimentConfig,
    loss_scale: float | None = None,
) -> MeasuredStep:
    """One train step of `experiment` on a copy of `model`, over a batch or micro-batches; dropout
    from its seed.

    `loss_scale` sets the scaler, in any precision, and an overflow is then reported as a skipped
    step. None takes the precision's own, and repeats a skipped step at its lower scale, as training
    would.
    """
    model, device = copy.deepcopy(model).train(), next(model.parameters()).device
    training = start_training(experiment, model, str(device))
    precision = choose_precision(experiment.fit.precision, device)
    scaler = training.scaler
    if loss_scale is not None:
        scaler = torch.amp.GradScaler(device.type, init_scale=loss_scale)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    seen: dict[str, Tensor] = {}

    def keep(optimizer, args, kwargs):
        seen.update({name: p.grad.detach().clone() for name, p in model.named_parameters()})

    training.optimizer.register_step_pre_hook(keep)
    for _ in range(MAX_SKIPPED_STEPS if loss_scale is None else 1):
        with torch.random.fork_rng():
            torch.manual_seed(experiment.fit.seed)
            report = train_step(
                model,
                training.optimizer,
                batches if isinstance(batches, Batch) else list(batches),
                experiment.loss,
                precision,
                scaler,
                experiment.optimizer.clip_norm,
            )
        if not report.skipped:
            break
    update = {name: p.detach() - before[name] for name, p in model.named_parameters()}
    return MeasuredStep(report, seen, update)


def compare_steps(model: TTSModel, step: MeasuredStep, reference: MeasuredStep) -> StepDifference:
    """`step` against `reference`, per audited module of `model` and over all."""
    owned = {path: comparable(names) for path, names in audited_modules(model).items()}
    every = comparable(step.gradient)
    a, b = step.gradient, reference.gradient
    return StepDifference(
        loss=abs(step.loss - reference.loss) / abs(reference.loss),
        gradient=relative_error(a, b, every),
        gradient_cosine=direction(a, b, every),
        update=relative_error(step.update, reference.update, every),
        modules={path: relative_error(a, b, names) for path, names in owned.items()},
        module_cosines={path: direction(a, b, names) for path, names in owned.items()},
    )


def comparable(names: Sequence[str] | Mapping[str, Tensor]) -> list[str]:
    """Parameter names without the key biases of attention."""
    return [name for name in names if not name.endswith("key.bias")]


def relative_error(a: Mapping[str, Tensor], b: Mapping[str, Tensor], names: Sequence[str]) -> float:
    """Norm of a - b over norm of b, both over the tensors in `names`, in fp64; 0 where both are
    zero.
    """
    return difference(_in_fp64(a, names), _in_fp64(b, names))


def direction(a: Mapping[str, Tensor], b: Mapping[str, Tensor], names: Sequence[str]) -> float:
    """Cosine of the angle between two sets of tensors, at most 1; 0 where one is zero: zeros have
    no direction.
    """
    return min(cosine(_in_fp64(a, names), _in_fp64(b, names)), 1.0)


def _in_fp64(tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    return {name: tensors[name].double() for name in names}


def rounding_floors(
    model: TTSModel, batch: Batch, experiment: ExperimentConfig, precision: PrecisionName
) -> dict[str, StepDifference]:
    """What one rounding to `precision` (bf16, fp16) does to an otherwise fp32 step, by the place of
    the rounding.

    `gradient rounded`: the reference gradient, after the fact; `output rounded`: the predictions,
    before the losses, so that an L1 error near zero changes sign; `weights rounded`: every weight
    once, which is the least that a matrix product in 16 bits does to its inputs. Of the weights it
    is the worst of `WEIGHT_ROUNDINGS`, to nearest and at random up or down: where a unit sits near
    its kink, one of them turns it off and another does not.
    """
    dtype = DTYPES[precision]
    if dtype is None:
        raise WorkbookError(f"precision {precision!r}: it rounds nothing; use bf16 or fp16")
    experiment = in_precision(experiment, "fp32")
    reference = measure_step(model, batch, experiment)

    def nearest(tensor: Tensor) -> Tensor:
        return tensor.to(dtype).to(tensor.dtype)

    gradient = {name: nearest(tensor) for name, tensor in reference.gradient.items()}
    rounded = {"gradient rounded": _with_gradient(model, reference, gradient, experiment)}
    heads = copy.deepcopy(model)
    for head in (heads.mel_projection_out, heads.stop_token_predictor, heads.duration_predictor):
        head.register_forward_hook(
            lambda module, inputs, output: output + (nearest(output) - output).detach()
        )
    rounded["output rounded"] = measure_step(heads, batch, experiment)
    found = {name: compare_steps(model, step, reference) for name, step in rounded.items()}
    drawn = []
    for draw in range(WEIGHT_ROUNDINGS):
        step = measure_step(_rounded_weights(model, dtype, draw), batch, experiment)
        drawn.append(compare_steps(model, step, reference))
    return {**found, "weights rounded": max(drawn, key=lambda difference: difference.gradient)}


def _rounded_weights(model: TTSModel, dtype: torch.dtype, draw: int) -> TTSModel:
    """A copy of `model` whose weights fit `dtype`: draw 0 rounds to nearest, any other moves half a
    step first, at random.
    """
    generator, model = torch.Generator().manual_seed(draw), copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            moved: Tensor = parameter
            if draw:
                offset = torch.rand(parameter.shape, generator=generator).to(parameter) - 0.5
                exponent = parameter.abs().clamp(min=1e-30).log2().floor()
                step = torch.finfo(dtype).eps * 2.0**exponent
                moved = parameter + offset * step
            parameter.copy_(moved.to(dtype).to(parameter.dtype))
    return model


def _with_gradient(
    model: TTSModel,
    reference: MeasuredStep,
    gradient: dict[str, Tensor],
    experiment: ExperimentConfig,
) -> MeasuredStep:
    """The reference step as the optimiser would have made it from another gradient."""
    places = {name: p.detach().clone() for name, p in model.named_parameters()}
    options = experiment.optimizer
    optimizer = torch.optim.AdamW(
        places.values(),
        lr=options.lr,
        weight_decay=options.weight_decay,
        betas=options.betas,
        eps=options.eps,
        fused=True,
    )
    for name, place in places.items():
        place.grad = gradient[name]
    optimizer.step()
    update = {name: place - model.get_parameter(name).detach() for name, place in places.items()}
    return MeasuredStep(reference.report, gradient, update)


def measure_precision(
    opened: OpenSubject,
) -> dict[str, tuple[StepDifference, dict[str, StepDifference]]]:
    """Precision -> one step of a preset in it against fp32, and the floors of its rounding; dropout
    and clip off. Raises NotMeasured for any other subject.
    """
    fresh, batch, experiment = own_parts(opened)
    model, plain = with_dropout(fresh, 0.0), without_clip(experiment)
    reference = measure_step(model, batch, in_precision(plain, "fp32"))
    found: dict[str, tuple[StepDifference, dict[str, StepDifference]]] = {}
    for low in SIXTEEN_BITS:
        step = measure_step(model, batch, in_precision(plain, low))
        difference = compare_steps(model, step, reference)
        found[low] = (difference, rounding_floors(model, batch, plain, low))
    return found


def measure_accumulation(
    model: TTSModel, batch: Batch, experiment: ExperimentConfig, parts: Sequence[Batch]
) -> StepDifference:
    """One step over micro-batches against one over the whole batch, fp32, dropout and clip off."""
    still, plain = with_dropout(model, 0.0), in_precision(without_clip(experiment), "fp32")
    whole = measure_step(still, batch, plain)
    return compare_steps(still, measure_step(still, parts, plain), whole)


def alternative_steps(
    model: TTSModel, batch: Batch, experiment: ExperimentConfig
) -> dict[str, StepDifference]:
    """Ways of making one and the same fp32 step, against the plain one: checkpointing, loss scales.

    Checkpointing is tried without dropout and with; there it must restore the random state before
    it recomputes.
    """
    experiment = in_precision(experiment, "fp32")
    found = {}
    for dropout in (0.0, 0.1):
        plain = with_checkpointing(with_dropout(model, dropout), False)
        reference = measure_step(plain, batch, experiment)
        step = measure_step(with_checkpointing(plain, True), batch, experiment)
        found[f"checkpointing, dropout {dropout:g}"] = compare_steps(model, step, reference)
        if dropout == 0.0:
            for scale in (2**10, 2**16):
                step = measure_step(plain, batch, experiment, scale)
                found[f"loss scale {scale:,}"] = compare_steps(model, step, reference)
    return found


def fp16_by_loss_scale(
    model: TTSModel,
    batch: Batch,
    experiment: ExperimentConfig,
    scales: Sequence[int] = (1, 2**10, 2**14, 2**16),
) -> dict[int, float | None]:
    """Relative gradient error of an fp16 step against fp32, by loss scale; None where the scaled
    gradient overflows.
    """
    still = with_dropout(model, 0.0)
    reference = measure_step(still, batch, in_precision(experiment, "fp32"))
    steps = {
        scale: measure_step(still, batch, in_precision(experiment, "fp16"), scale)
        for scale in scales
    }
    errors: dict[int, float | None] = {}
    for scale, step in steps.items():
        overflowed = step.report.skipped
        errors[scale] = None if overflowed else compare_steps(model, step, reference).gradient
    return errors
