"""What padding does to valid frames: model.padding_mask decides by it, and loss.padding_included
only where the prediction stays.

Shapes: B batch, T frames, M mel bins, N text positions, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tts_core.speech.batch import lengths_to_mask
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import anatomy, movement
from tts_workbook.measure.optimizer_parity import nudged
from tts_workbook.subject.isolation import without_dropout
from tts_workbook.subject.module_calls import output_changed, with_noise
from tts_workbook.subject.opened import once_per_subject
from tts_workbook.subject.subject import Batch

# of the target's deviation: what rounding, bf16 autocast and another order of summation may move
SAME = 1e-3
FLOORS = 10.0  # how many times what rounding does a broken equivalence has to exceed
# convolutions may look past the end of a text, as Tacotron 2's do: they move a frame by 0.013
TEXT_SAME = 0.1
PADDED = 0.5  # padding appended, as a share of the batch's frames
LEAST_PADDED = 8  # frames
NOISE_SEED = 5


@dataclass(frozen=True)
class PaddingMoves:
    """The largest move of a valid frame, in target deviations, without dropout."""

    n_padded: int  # frames appended
    appended: float  # when they are appended
    # module -> when noise is put on what it gives behind each clip's end
    disturbed: Mapping[str, float]
    rounding: float  # when every parameter is off by a rounding
    memory: str  # the module that is the memory
    embeddings: tuple[str, ...]  # those that read text

    @property
    def bar(self) -> float:
        """What no equivalence can be closer than."""
        return max(SAME, FLOORS * self.rounding)

    @property
    def broken(self) -> list[str]:
        """Where padding moves valid frames: "" for the appended one, then modules."""
        found = [""] if self.appended > self.bar else []
        for name, move in self.disturbed.items():
            bar = self.bar if name == self.memory else TEXT_SAME
            if move > bar:
                found.append(name)
        return found


@once_per_subject
def padding_moves(lab: Lab) -> PaddingMoves:
    """Append padding, and disturb what pads text and memory already."""
    n_frames = lab.target.shape[1]
    n_padded = max(LEAST_PADDED, int(PADDED * n_frames))
    padded = with_padding(lab, n_padded)
    with without_dropout(lab.model):
        before = lab.predict(lab.model)
        after = lab.predict(lab.model, padded)[:, :n_frames]
    parts = anatomy(lab)
    return PaddingMoves(
        n_padded=n_padded,
        appended=float(movement(before, after, lab).max()),
        disturbed=_disturbed(lab),
        rounding=_rounding(lab),
        memory=parts.memory,
        embeddings=parts.embeddings,
    )


def with_padding(lab: Lab, n_frames: int) -> Batch:
    """The subject's batch with that many frames of padding; Subject.pad has to be there."""
    assert lab.subject.pad is not None
    return lab.subject.pad(lab.batch, n_frames)


def _rounding(lab: Lab) -> float:
    off = nudged(lab.model)
    with without_dropout(lab.model), without_dropout(off):
        return float(movement(lab.predict(lab.model), lab.predict(off), lab).max())


def _disturbed(lab: Lab) -> dict[str, float]:
    """How far valid frames move when noise is put on what lies behind each clip's end: at the text
    embedding, at the memory.

    Empty where no clip of the batch is padded there. Text lengths come from Subject.symbols, or
    from Subject.durations.
    """
    parts, moved = anatomy(lab), {}
    text = text_lengths(lab)
    for name in dict.fromkeys((*parts.embeddings[:1], parts.memory)):
        n_places = _places(lab, name)
        if n_places is None:
            continue
        if n_places == lab.target.shape[1]:
            lengths = lab.lengths
        elif text is not None and n_places == int(text.max()):
            lengths = text
        else:
            continue
        if bool((lengths < n_places).any()):
            moved[name] = _moved_by(lab, name, ~lengths_to_mask(lengths, n_places))
    return moved


def _places(lab: Lab, name: str) -> int | None:
    """The length of the sequence (B, length, D) that a module gives first."""
    for call in anatomy(lab).calls:
        if call.name == name and call.outputs[0].ndim == 3:
            return call.outputs[0].shape[1]
    return None


def _moved_by(lab: Lab, name: str, padding: Tensor) -> float:
    """How far valid frames move under noise on a module's output, where `padding` (B, length)."""
    model = lab.model

    def disturb(tensor: Tensor) -> Tensor:
        return with_noise(tensor, NOISE_SEED, padding[..., None])

    with without_dropout(model):
        before = lab.predict(model)
        with output_changed(dict(model.named_modules())[name], disturb):
            return float(movement(before, lab.predict(model), lab).max())


def text_lengths(lab: Lab) -> Tensor | None:
    """(B,) text positions of each row of the text embedding's input, whose order need not be the
    batch's; None where unclear.
    """
    parts = anatomy(lab)
    rows = _written_lengths(lab)
    if rows is None or not parts.embeddings:
        return None
    ids = next(call.inputs[0] for call in parts.calls if call.name == parts.embeddings[0])
    if ids.ndim != 2:
        return None
    for pad in sorted(set(ids[:, -1].tolist())):
        lengths = torch.tensor([ids.shape[1] - _run_at_end(row, pad) for row in ids])
        inside = ids[lengths_to_mask(lengths, ids.shape[1])]
        if sorted(lengths.tolist()) == sorted(rows) and not bool((inside == pad).any()):
            return lengths
    return torch.tensor(rows) if len(set(rows)) == 1 else None


def _written_lengths(lab: Lab) -> list[int] | None:
    """Text positions of each clip of the batch, as the subject says; None where it does not."""
    if lab.subject.symbols is not None:
        return [len(row) for row in lab.subject.symbols(lab.batch)]
    if lab.subject.durations is not None:
        rows = lab.subject.durations(lab.batch)
        return [int((torch.as_tensor(row) > 0).sum()) for row in rows]
    return None


def _run_at_end(row: Tensor, value: int) -> int:
    """How many places at the end of `row` hold `value`."""
    other = row.flip(0) != value
    return int(other.int().argmax()) if bool(other.any()) else len(row)
