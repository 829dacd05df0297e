"""The parameters of a model by the module that they belong to: the rows of every figure that goes
module by module.

Our own model is divided as the findings' next step 3 asks; any other by the longest common paths
that are few enough for a figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from tts_core.model.tts import TTSModel
from tts_workbook.subject.tensor_math import tensors_norm
from tts_workbook.subject.training_step import all_parameters

question = "Which parameters belong to which module?"

MOST_MODULES = 36  # rows of a figure

PerModule = dict[str, float]


def modules_of(model: nn.Module) -> dict[str, list[str]]:
    """Module path -> names of its parameters, in the model's order; together they are all of
    them.
    """
    if isinstance(model, TTSModel):
        return audited_modules(model)
    return grouped(name for name, _ in all_parameters(model))


def audited_modules(model: TTSModel) -> dict[str, list[str]]:
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


def grouped(names: Iterable[str], most: int = MOST_MODULES) -> dict[str, list[str]]:
    """Parameter names by module path, cut to the greatest depth at which there are at most `most`
    of them.
    """
    owners = {name: name.rpartition(".")[0] or name for name in names}
    depth = max((path.count(".") + 1 for path in owners.values()), default=1)
    while True:
        groups: dict[str, list[str]] = {}
        for name, path in owners.items():
            groups.setdefault(".".join(path.split(".")[:depth]), []).append(name)
        if len(groups) <= most or depth == 1:
            return groups
        depth -= 1


def module_norms(modules: Mapping[str, list[str]], tensors: Mapping[str, Tensor]) -> PerModule:
    """Norm per module of one tensor per parameter, by name: gradients, updates or differences of
    them. An absent tensor counts as zero.
    """
    return {
        path: tensors_norm([tensors[name] for name in names if name in tensors])
        for path, names in modules.items()
    }
