"""What held-out clips sound and look like at a step: audio, mels, alignments, as files.

T frames, M mel bins, L decoder layers. For each clip, in OUT/samples/step_NNNNNNN/: ID.npz with
`target`, `teacher_forced` and `free_running` (T, M) in ln units, `attention` (L, T, T), `durations`
and `phonemes`; ID.target.wav, ID.free_running.wav and, where the predicted durations allow it,
ID.inference.wav; and ID.mels.png and ID.alignment.png.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from tts_core.atomic_files import write_bytes, write_json
from tts_core.errors import WorkbookError, or_reason
from tts_core.metrics.free_running import measure_gap
from tts_core.model.tts import TTSModel
from tts_core.speech.audio import atomic_path, griffin_lim, save_wav
from tts_core.training.corpus.prepared_corpus import Item, LoadedClip, TrainingCorpus
from tts_workbook.measure.activations import cross_attention_maps
from tts_workbook.measure.full_inference import attempt_full_inference


def require_figures() -> tuple[Callable, Callable]:
    """plot_mels and plot_alignment. Raises WorkbookError where they are not installed: at the
    start, not at the first sample.
    """
    try:
        from tts_workbook.viz.attention_plots import plot_alignment
        from tts_workbook.viz.mel_plots import plot_mels
    except ImportError as error:
        raise WorkbookError(
            f"figures need {error.name}: pip install 'tts-overfit-workbook[notebooks]', or give"
            " --no-figures; audio and arrays are written anyway"
        ) from error
    return plot_mels, plot_alignment


def write_samples(
    model: TTSModel,
    corpus: TrainingCorpus,
    items: Sequence[Item],
    folder: Path,
    device: str,
    figures: bool,
) -> None:
    """Synthesise `items` with `model` into `folder`; what cannot be made is named in its
    notes.json, and stops nothing.
    """
    notes = {}
    for item in items:
        clip = corpus.load(item)
        batch = corpus.batch([item]).to(device)
        gap, attention = measure_gap(model, batch), cross_attention_maps(model, batch)
        inferred, reason = attempt_full_inference(model, batch)
        mels = {
            "target": clip.mel,
            "free_running": gap.fr_mel[0],
            "inference": None if inferred is None else inferred.mel,
        }
        stem = folder / re.sub(r"[^\w.-]", "_", clip.id)
        notes[clip.id] = {
            "tf_l1": gap.tf_l1,
            "fr_l1": gap.fr_l1,
            **_write_audio(stem, mels, corpus),
            **({"inference": reason} if reason else {}),
        }
        with atomic_path(f"{stem}.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                target=clip.mel.numpy(),
                teacher_forced=gap.tf_mel[0].numpy(),
                free_running=gap.fr_mel[0].numpy(),
                attention=attention.numpy().astype(np.float16),
                durations=clip.durations,
                phonemes=np.array(clip.phonemes),
            )
        if figures:
            _, problem = or_reason(
                lambda: _write_figures(stem, clip, gap.tf_mel[0], gap.fr_mel[0], attention, corpus)
            )
            notes[clip.id] |= {"figures": problem} if problem else {}
    write_json(
        folder / "notes.json",
        {
            name: {key: _number_or_text(value) for key, value in note.items()}
            for name, note in notes.items()
        },
    )


def _number_or_text(value: float | str) -> float | str:
    return value if isinstance(value, str) or np.isfinite(value) else str(value)


def _write_audio(
    stem: Path, mels: dict[str, Tensor | None], corpus: TrainingCorpus
) -> dict[str, str]:
    """Griffin-Lim of each mel beside `stem`; returns what could not be made, and why."""
    problems = {}
    for name, mel in mels.items():
        if mel is None:
            continue
        _, reason = or_reason(
            lambda: save_wav(
                f"{stem}.{name}.wav", griffin_lim(mel, corpus.audio), corpus.audio.sample_rate
            )
        )
        if reason:
            problems[f"{name}.wav"] = reason
    return problems


def _write_figures(
    stem: Path,
    clip: LoadedClip,
    tf_mel: Tensor,
    fr_mel: Tensor,
    attention: Tensor,
    corpus: TrainingCorpus,
) -> None:
    plot_mels, plot_alignment = require_figures()
    hop = corpus.audio.hop_seconds
    mels = plot_mels(
        {"target": clip.mel, "teacher-forced": tf_mel, "free-running": fr_mel},
        hop,
        clip.id,
        alignment=clip.alignment,
    )
    write_bytes(f"{stem}.mels.png", mels.png())
    maps = plot_alignment(attention, clip.durations, clip.phonemes, clip.alignment, hop, clip.id)
    write_bytes(f"{stem}.alignment.png", maps.png())
