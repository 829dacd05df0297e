"""Full inference: text alone in, speech out, judged by its length beside the free-running output.

Shapes: N phonemes, T frames of the recording, T' generated frames, M mel bins.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tts_core.errors import WorkbookError, or_reason
from tts_core.model.generation import infer
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch

question = "What comes out of text alone, and how long is it?"

RUNAWAY = 3  # times the recording's length; predicted durations beyond are a failure, not speech


@dataclass(frozen=True)
class FullInference:
    """What came out for one clip, in its own length; tensors on the CPU."""

    mel: Tensor  # (T', M) ln units
    stop_logits: Tensor  # (T',)
    n_frames: int  # T'
    n_true: int  # T
    predicted_frames: int  # sum of the predicted durations, T' or more
    stopped: bool  # the stop head ended it; otherwise the memory ran out

    @property
    def length_error(self) -> int:
        """T' - T in frames: negative where speech was cut."""
        return self.n_frames - self.n_true

    @property
    def length_error_share(self) -> float:
        """(T' - T) / T."""
        return self.length_error / self.n_true

    @property
    def duration_error(self) -> int:
        """Sum of the predicted durations minus T, in frames: the duration predictor's part of the
        length error.
        """
        return self.predicted_frames - self.n_true


def measure_full_inference(
    model: TTSModel, batch: Batch, layout: str | None = None
) -> FullInference:
    """Full inference of the one clip in `batch`: its phonemes in, predicted durations and stop head
    decide the rest.

    Raises WorkbookError for more than one clip, and where the predicted durations exceed RUNAWAY
    times the recording.
    """
    if len(batch.mel) != 1:
        raise WorkbookError(
            f"full inference: {len(batch.mel)} clips, wanted one; lengths differ from clip to clip"
        )
    n_true = int(batch.mel_lengths[0])
    generated = infer(
        model, batch.phonemes, batch.phoneme_lengths, layout=layout, max_frames=RUNAWAY * n_true
    )
    n_frames = int(generated.lengths[0])
    logits = generated.stop_logits[0, :n_frames].cpu()
    return FullInference(
        generated.mel[0, :n_frames].cpu(),
        logits,
        n_frames,
        n_true,
        predicted_frames=generated.mel.shape[1],
        stopped=bool(logits[-1] > 0),
    )


def attempt_full_inference(model: TTSModel, batch: Batch) -> tuple[FullInference | None, str]:
    """(result, "") or (None, why there is none): an untrained duration predictor is a finding, not
    a crash.
    """
    return or_reason(lambda: measure_full_inference(model, batch))
