"""How the model does on clips it never saw: free-running error and text use, beside the baselines
of the same clips.

Means run over all valid frames of all clips; errors are mean absolute differences in ln units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from tts_core.metrics.baselines import best_constant_l1, copy_previous_l1
from tts_core.metrics.free_running import measure_gap
from tts_core.metrics.text_use import measure_text_use
from tts_core.model.modes import evaluating
from tts_core.model.tts import TTSModel
from tts_core.speech.batch import Batch
from tts_core.training.corpus.prepared_corpus import CorpusItem, TrainingCorpus
from tts_core.training.distributed import bare_model, n_processes, summed
from tts_core.training.losses import losses

BATCH_CLIPS = 8  # clips generated side by side
# what is averaged over the frames
AVERAGED = (
    "tf_l1",
    "fr_l1",
    "shuffled_tf_l1",
    "best_constant_l1",
    "copy_previous_l1",
    "duration",
    "stop",
)


@dataclass(frozen=True)
class Validation:
    clips: int
    frames: int
    tf_l1: float  # teacher-forced
    fr_l1: float  # free-running, true durations: what the model is judged by
    # teacher-forced error with shuffled phonemes over that with the right ones; 1.0: text ignored
    text_use: float
    best_constant_l1: float  # one spectrum for every frame of a clip, its median
    copy_previous_l1: float  # the true previous frame again
    fr_over_constant: float  # fr_l1 / best_constant_l1: below 1, better than one spectrum for all
    duration: float  # MSE of log1p frames
    stop: float  # BCE, nats

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def validate(
    model: nn.Module,
    corpus: TrainingCorpus,
    items: Iterable[CorpusItem],
    device: str,
    rank: int = 0,
) -> Validation:
    """Judge `model` on `items`; inside DDP every process calls this, takes its share, and gets the
    result for all.

    The result does not depend on the number of processes: clips are batched before they are shared
    out.
    """
    tts = bare_model(model)
    by_length = sorted(items, key=lambda item: item.n_frames)
    starts = range(0, len(by_length), BATCH_CLIPS)
    chunks = [by_length[start : start + BATCH_CLIPS] for start in starts]
    sums = [0.0] * (2 + len(AVERAGED))
    for chunk in chunks[rank :: n_processes(model)]:
        batch = corpus.batch(chunk).to(device)
        found = _sums(tts, batch, corpus.vocabulary.pause_id)
        sums = [a + b for a, b in zip(sums, found, strict=True)]
    clips, frames, *totals = summed(sums, model)
    means = {term: total / frames for term, total in zip(AVERAGED, totals, strict=True)}
    return Validation(
        clips=int(clips),
        frames=int(frames),
        tf_l1=means["tf_l1"],
        fr_l1=means["fr_l1"],
        text_use=means["shuffled_tf_l1"] / means["tf_l1"],
        best_constant_l1=means["best_constant_l1"],
        copy_previous_l1=means["copy_previous_l1"],
        fr_over_constant=means["fr_l1"] / means["best_constant_l1"],
        duration=means["duration"],
        stop=means["stop"],
    )


def _sums(model: TTSModel, batch: Batch, pause_id: int) -> list[float]:
    """Clips, frames, and each of AVERAGED times the frames."""
    gap = measure_gap(model, batch)
    use = measure_text_use(model, batch, pause_id)
    terms = _losses_in_eval_mode(model, batch)
    lengths = batch.mel_lengths.tolist()
    mels = [mel[:length].cpu() for mel, length in zip(batch.mel, lengths, strict=True)]
    means = {
        "tf_l1": gap.tf_l1,
        "fr_l1": gap.fr_l1,
        "shuffled_tf_l1": use.shuffled_tf_l1,
        "best_constant_l1": _mean_over_frames(best_constant_l1, mels),
        "copy_previous_l1": _mean_over_frames(copy_previous_l1, mels),
        "duration": terms["duration"],
        "stop": terms["stop"],
    }
    frames = sum(lengths)
    return [len(mels), frames, *(means[term] * frames for term in AVERAGED)]


def _mean_over_frames(measure: Callable[[Tensor], float], mels: Sequence[Tensor]) -> float:
    """`measure` of each mel (T, M), weighed by its frames."""
    return sum(measure(mel) * len(mel) for mel in mels) / sum(len(mel) for mel in mels)


def _losses_in_eval_mode(model: TTSModel, batch: Batch) -> dict[str, float]:
    with evaluating(model):
        return {name: float(value) for name, value in losses(model, batch).items()}
