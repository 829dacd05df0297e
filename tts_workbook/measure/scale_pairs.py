"""What the memory's scale does to a fresh model: a sound one, a sick one, and the sick one with its
memory at scale 1.

One pair is one clip and one set of weights. Every measure is a difference that is 0 where nothing
differs, so that the pairs can be put to a test; ratios are counted in orders of magnitude (log10),
entropies in shares of ln T.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import cast

from tts_core.model.tts import TTSModel
from tts_workbook.measure.gradient_spread import text_share
from tts_workbook.measure.mel_path import mel_path_norms, thinnest
from tts_workbook.measure.memory_response import cross_attention_state, with_memory_scale
from tts_workbook.measure.module_groups import module_norms, modules_of
from tts_workbook.measure.step_parity import (
    compare_steps,
    in_precision,
    measure_step,
    with_dropout,
    without_clip,
)
from tts_workbook.measure.supply import own_parts
from tts_workbook.measure.term_gradients import mel_gradient
from tts_workbook.subject.opened import OpenSubject

question = "What does the scale of the memory alone do to a fresh model?"


@dataclass(frozen=True)
class ScalePair:
    """`scaled` is the sick model with its memory divided by its own standard deviation, all else
    alike.
    """

    # share of the mel gradient on the text side, sick over sound, orders of magnitude
    text_beside_sound: float
    text_by_scale: float  # the same, sick over scaled
    thinnest: float  # smallest share of a weight matrix on the mel path, sick over sound
    regained: float  # how much of that `scaled` wins back
    # entropy of cross-attention, scaled minus sick, mean over layers, shares of ln T
    sharpened: float
    # output of the first cross-attention over the stream it is added to, sick: 0 as loud
    drowned: float
    # error of the gradient at mel_projection_in in bf16 against fp32, sick over scaled
    coarsened: float


def measure_scale_pair(sound: OpenSubject, sick: OpenSubject) -> ScalePair:
    """Measure both as they are, and `sick` with its memory at scale 1; nothing changes in either.
    Raises NotMeasured where one is no preset.
    """
    model, batch, experiment = own_parts(sick)
    state = cross_attention_state(model, batch, experiment)
    scaled = at_memory_scale(sick, model.config.memory_scale / state.memory_std)
    at_one = cross_attention_state(*own_parts(scaled))
    three = {"sound": sound, "sick": sick, "scaled": scaled}
    text = {}
    for name, one in three.items():
        text[name] = text_share(module_norms(modules_of(one.model), mel_gradient(one)))
    path = {name: mel_path_norms(one) for name, one in three.items()}
    thin, regained = (
        math.log10(thinnest(path[name], path["sound"])[1]) for name in ("sick", "scaled")
    )
    return ScalePair(
        text_beside_sound=math.log10(text["sick"] / text["sound"]),
        text_by_scale=math.log10(text["sick"] / text["scaled"]),
        thinnest=thin,
        regained=regained - thin,
        sharpened=_mean(at_one.entropy) - _mean(state.entropy),
        drowned=math.log10(state.over_stream[0]),
        coarsened=math.log10(_bf16_error(sick) / _bf16_error(scaled)),
    )


def at_memory_scale(opened: OpenSubject, factor: float) -> OpenSubject:
    """The same preset, same weights, whose memory is multiplied by `factor`."""
    build = opened.subject.build_model

    def scaled() -> TTSModel:
        return with_memory_scale(cast(TTSModel, build()), factor)

    return OpenSubject(replace(opened.subject, build_model=scaled), opened.seed)


def _bf16_error(one: OpenSubject) -> float:
    """Relative error of the gradient at `mel_projection_in` in bf16, dropout and clip off."""
    model, batch, experiment = own_parts(one)
    still, unclipped = with_dropout(model, 0.0), without_clip(experiment)
    low = measure_step(still, batch, in_precision(unclipped, "bf16"))
    reference = measure_step(still, batch, in_precision(unclipped, "fp32"))
    return compare_steps(still, low, reference).modules["mel_projection_in"]


def columns(pairs: Sequence[ScalePair]) -> dict[str, list[float]]:
    """Measure -> its value in each pair."""
    return {
        field.name: [getattr(pair, field.name) for pair in pairs] for field in fields(ScalePair)
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
