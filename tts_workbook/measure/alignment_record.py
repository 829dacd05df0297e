"""Cross-attention at several steps of a training, kept while it runs: the model of step 20 is gone
at step 400.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from tts_core.metrics.attention_maps import cross_attention_maps
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch
from tts_core.training.step import StepReport

question = "How did cross-attention look at several steps of a training?"


def record_alignments(
    model: TTSModel,
    batch: Batch,
    steps: Sequence[int],
    also: Callable[[int, StepReport], bool | None] | None = None,
) -> tuple[dict[int, Tensor], Callable[[int, StepReport], bool | None]]:
    """Step -> maps (layers, T, T) of the first clip, to be filled, and the `on_step` callback for
    `fit` that fills it.

    One more forward pass in eval mode at each of `steps`; the training does not notice. `also` is
    called at every step and decides whether to stop.
    """
    maps: dict[int, Tensor] = {}

    def on_step(step: int, report: StepReport) -> bool | None:
        """What `fit` calls after every step."""
        if step in steps:
            maps[step] = cross_attention_maps(model, batch)
        return also(step, report) if also is not None else None

    return maps, on_step
