"""How a gradient is spread over the modules of a model: its share on the text side, and how two
steps differ.
"""

from __future__ import annotations

from torch import nn

from tts_core.model.tts import TTSModel
from tts_workbook.measure.anatomy import anatomy
from tts_workbook.measure.module_groups import PerModule, module_norms, modules_of
from tts_workbook.subject.opened import OpenSubject

question = (
    "How is one gradient spread over text side and decoder, and do two steps spread it alike?"
)

OWN_TEXT_SIDE = ("text_embedding", "encoder.")  # of the workbook's model


def gradient_norms(opened: OpenSubject, model: nn.Module, term: str = "total") -> PerModule:
    """Gradient norm per module of one loss term at the weights of `model`, without dropout."""
    return module_norms(modules_of(model), opened.gradient(model, term=term))


def text_modules(opened: OpenSubject) -> tuple[str, ...]:
    """What the paths of modules on the text side start with: embeddings and encoder, up to the
    memory that the decoder reads.
    """
    if isinstance(opened.model, TTSModel):
        return OWN_TEXT_SIDE
    parts = anatomy(opened)
    names = list(parts.text_side)
    if parts.memory in names:
        names = names[: names.index(parts.memory) + 1]
    return (*parts.embeddings, *names)


def text_share(norms: PerModule, text_side: tuple[str, ...] = OWN_TEXT_SIDE) -> float:
    """Share in [0, 1] of a gradient's squared norm (norms by module path) that lies on embedding
    and encoder.
    """
    squares = {path: norm**2 for path, norm in norms.items()}
    text = sum(square for path, square in squares.items() if path.startswith(text_side))
    return text / max(sum(squares.values()), 1e-300)


def share_shift(a: PerModule, b: PerModule) -> float:
    """How differently two steps spread their gradient: the largest factor, at least 1, by which any
    module's share changes.

    `a` and `b` are gradient norms by module path; a share is a norm over the root of the sum of
    squares. Only modules that both have and both reach are compared.
    """
    common = [path for path in a if a[path] > 0 and b.get(path, 0) > 0]
    size_a = sum(a[path] ** 2 for path in common) ** 0.5
    size_b = sum(b[path] ** 2 for path in common) ** 0.5
    factors = [(a[path] / size_a) / (b[path] / size_b) for path in common]
    return max((max(factor, 1 / factor) for factor in factors), default=1.0)
