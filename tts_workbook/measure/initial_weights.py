"""How large a model's weights are at the start, beside what PyTorch would have drawn."""

from __future__ import annotations

import copy
import math

from torch import Tensor, nn

from tts_workbook.bars import Bar
from tts_workbook.subject.isolation import unchanged_randomness
from tts_workbook.subject.module_calls import rms
from tts_workbook.subject.opened import OpenSubject, once_per_subject

question = "Which modules start with weights of another size than their default initialisation?"

INITIAL = Bar(3.0, control="times the size that the module's own default initialisation draws")
ALIKE = Bar(
    1.15, control="between the sizes of the model's own matrices: drawn alike, they differ by less"
)
WIDER = Bar(1.9, control="inputs of the model's widest over those of its narrowest matrix")


@once_per_subject
def odd_weights(opened: OpenSubject) -> dict[str, float]:
    """Modules whose weights are far from their default initialisation: size over the default's, the
    oddest first.
    """
    odd: dict[str, float] = {}
    model = opened.build()
    chosen = common_size(model)
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        has_matrix = any(weight.ndim > 1 and weight.is_floating_point() for weight in own)
        if not hasattr(module, "reset_parameters") or not has_matrix:
            continue
        twin = copy.deepcopy(module)
        with unchanged_randomness(opened.seed):
            twin.reset_parameters()
        defaults = twin.parameters(recurse=False)
        ratios = [_size_over_default(*pair) for pair in zip(own, defaults, strict=True)]
        ratio = max(ratios, key=_oddness)
        if chosen is not None and _is_of_size(module, chosen):
            continue
        if not 1 / INITIAL < ratio < INITIAL:
            odd[name] = ratio
    return dict(sorted(odd.items(), key=lambda item: -_oddness(item[1])))


def common_size(model: nn.Module) -> float | None:
    """The RMS that most weight matrices of a model start with whatever their width is: a scheme of
    its author's (transformers draws all from N(0, 0.02), as BERT does), and no module's oddity.
    None where there is none.
    """
    sizes: list[tuple[float, int]] = []  # RMS and inputs of every matrix
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            if weight.ndim > 1 and weight.is_floating_point():
                sizes.append((rms(weight), weight[0].numel()))
    for size, _ in sizes:
        alike = [inputs for other, inputs in sizes if _near(other, size)]
        if len(alike) > len(sizes) / 2 and max(alike) > WIDER * min(alike):
            return size
    return None


def _is_of_size(module: nn.Module, size: float) -> bool:
    own = [weight for weight in module.parameters(recurse=False) if weight.ndim > 1]
    return all(_near(rms(weight), size) for weight in own)


def _near(a: float, b: float) -> bool:
    return b > 0 and 1 / ALIKE < a / b < ALIKE


def _oddness(ratio: float) -> float:
    return abs(math.log(ratio))


def _size_over_default(weight: Tensor, default: Tensor) -> float:
    """RMS over that of the default; a vector (a bias) counts where it is larger than 1 and the
    default is not, else as 1.
    """
    size, usual = rms(weight), rms(default)
    if weight.ndim > 1:
        return (size + 1e-9) / (usual + 1e-9)
    return INITIAL * size if size > 1.0 > usual else 1.0
