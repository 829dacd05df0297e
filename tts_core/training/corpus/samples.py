"""What held-out clips sound and look like at a step: audio, mels, alignments, as files.

T frames, M mel bins, N phonemes, L decoder layers. For each clip, in OUT/samples/step_NNNNNNN/:

    ID.npz                 `target`, `teacher_forced` and `free_running` (T, M) in ln units,
                           `attention` (L, T, T), `durations` and `phonemes` (N,)
    ID.target.wav          the recording's mel made audible, and so ID.free_running.wav
    ID.inference.wav       where the predicted durations allow it
    ID.NAME.png            each picture of whoever draws, if the caller hands one over
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from tts_core.atomic_files import write_bytes, write_json
from tts_core.errors import or_reason
from tts_core.metrics.attention_maps import cross_attention_maps
from tts_core.metrics.free_running import measure_gap
from tts_core.metrics.full_inference import attempt_full_inference
from tts_core.model.tts import TTSModel
from tts_core.speech.audio import atomic_path, griffin_lim, save_wav
from tts_core.training.corpus.prepared_corpus import CorpusItem, TrainingCorpus

Note = dict[str, float | str]  # of one clip: its errors, and what could not be made and why


@dataclass(frozen=True)
class Sample:
    """One clip as the model renders it at a step; tensors on the CPU."""

    clip_id: str
    phonemes: tuple[str, ...]  # N symbols
    durations: np.ndarray  # (N,) int64 frames, Σ = T
    alignment: str  # where the durations come from: textgrid, forced or uniform
    hop_seconds: float  # between frames
    target: Tensor  # (T, M) ln units, of the recording
    teacher_forced: Tensor  # (T, M) ln units
    free_running: Tensor  # (T, M) ln units
    attention: Tensor  # (L, T, T) cross-attention, rows are decoder frames


# Sample -> (name, PNG) of each picture. Raises WorkbookError for what cannot be drawn.
DrawSample = Callable[[Sample], Iterable[tuple[str, bytes]]]


def write_samples(
    model: TTSModel,
    corpus: TrainingCorpus,
    items: Sequence[CorpusItem],
    folder: Path,
    device: str,
    draw: DrawSample | None,
) -> None:
    """Synthesise `items` with `model` into `folder`; what cannot be made is named in its
    notes.json, and stops nothing.
    """
    notes = {}
    for item in items:
        notes[item.entry.id] = _write_sample(model, corpus, item, folder, device, draw)
    write_json(folder / "notes.json", notes)


def _write_sample(
    model: TTSModel,
    corpus: TrainingCorpus,
    item: CorpusItem,
    folder: Path,
    device: str,
    draw: DrawSample | None,
) -> Note:
    clip = corpus.load(item)
    batch = corpus.batch([item]).to(device)
    gap = measure_gap(model, batch)
    inferred, no_inference = attempt_full_inference(model, batch)
    sample = Sample(
        clip.id,
        clip.phonemes,
        clip.durations,
        clip.alignment,
        corpus.audio.hop_seconds,
        clip.mel,
        gap.tf_mel[0],
        gap.fr_mel[0],
        cross_attention_maps(model, batch),
    )
    stem = folder / re.sub(r"[^\w.-]", "_", clip.id)
    note: Note = {"tf_l1": _json_number(gap.tf_l1), "fr_l1": _json_number(gap.fr_l1)}
    heard = {"target": sample.target, "free_running": sample.free_running}
    if inferred is not None:
        heard["inference"] = inferred.mel
    for name, mel in heard.items():
        problem = _write_audio(f"{stem}.{name}.wav", mel, corpus)
        if problem:
            note[f"{name}.wav"] = problem
    if no_inference:
        note["inference"] = no_inference
    _write_arrays(f"{stem}.npz", sample)
    if draw is not None:
        problem = _write_pictures(stem, sample, draw)
        if problem:
            note["figures"] = problem
    return note


def _json_number(value: float) -> float | str:
    """JSON has no infinity and no NaN: their name stands for them."""
    return value if np.isfinite(value) else str(value)


def _write_audio(path: str, mel: Tensor, corpus: TrainingCorpus) -> str:
    """Griffin-Lim of `mel`; returns why it could not be made, or ""."""

    def write() -> None:
        save_wav(path, griffin_lim(mel, corpus.audio), corpus.audio.sample_rate)

    _, reason = or_reason(write)
    return reason


def _write_arrays(path: str, sample: Sample) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            target=sample.target.numpy(),
            teacher_forced=sample.teacher_forced.numpy(),
            free_running=sample.free_running.numpy(),
            attention=sample.attention.numpy().astype(np.float16),
            durations=sample.durations,
            phonemes=np.array(sample.phonemes),
        )


def _write_pictures(stem: Path, sample: Sample, draw: DrawSample) -> str:
    """PNGs beside `stem`; returns why they could not be drawn, or ""."""

    def write() -> None:
        for name, png in draw(sample):
            write_bytes(f"{stem}.{name}.png", png)

    _, reason = or_reason(write)
    return reason
