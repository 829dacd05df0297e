"""Pictures of a training's samples: what `tts_core` is handed as its entry point `draw_sample`."""

from __future__ import annotations

from collections.abc import Iterator

from tts_core.training.corpus.samples import Sample
from tts_workbook.viz.attention_plots import plot_alignment
from tts_workbook.viz.mel_plots import plot_mels


def draw_sample(sample: Sample) -> Iterator[tuple[str, bytes]]:
    """`mels`: target, teacher-forced and free-running; `alignment`: cross-attention with the true
    durations. Both as PNG. Raises WorkbookError for values that are not finite.
    """
    mels = plot_mels(
        {
            "target": sample.target,
            "teacher-forced": sample.teacher_forced,
            "free-running": sample.free_running,
        },
        sample.hop_seconds,
        sample.clip_id,
        alignment=sample.alignment,
    )
    yield "mels", mels.png()
    maps = plot_alignment(
        sample.attention,
        sample.durations,
        sample.phonemes,
        sample.alignment,
        sample.hop_seconds,
        sample.clip_id,
    )
    yield "alignment", maps.png()
