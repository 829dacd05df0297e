"""What padding does to valid frames: model.padding_mask decides by it, and loss.padding_included
only where the prediction stays.

Text, frames and both are padded. A convolution may look past an end by design, and hears the first
padded places; what is missing or inverted is a mask where padding far behind every end is heard,
beyond the reach of any convolution.

Shapes: B batch, T frames, M mel bins, N text positions, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tts_core.speech.batch import lengths_to_mask
from tts_workbook.bars import Bar
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import anatomy, movement, rounding_of
from tts_workbook.subject.interventions import HeldNoise
from tts_workbook.subject.isolation import private_copy, without_dropout
from tts_workbook.subject.module_calls import output_changed, with_noise
from tts_workbook.subject.opened import once_per_subject
from tts_workbook.subject.subject import Batch

FLOORS = Bar(
    10.0,
    control="the move of a valid frame when every weight is off by a rounding: padding that moves"
    " it by less does not reach it",
)
FADED = Bar(
    0.5,
    control="the move when the first padded place is disturbed: what an attention hears does not"
    " fade with the distance to the end",
)
PARTS_PADDED = 2  # padding appended: the batch's frames over this
LEAST_PADDED = 8  # frames
# places behind every end that no convolution reaches: a Conformer's of 31 in four layers reaches
# 60; fewer where a model has no positions for so many
FAR = (128, 48)
NOISE_SEED = 5
PATHS = ("frames", "text", "frames text")
PARTS_OF = {"frames": "pad", "text": "pad_text"}
PARTS = tuple(PARTS_OF.values())


@dataclass(frozen=True)
class PaddingMoves:
    """The largest move of a valid frame, in target deviations, without dropout, every draw of noise
    held still.
    """

    n_padded: int  # frames appended
    # path -> when so many are appended
    appended: Mapping[str, float]
    # path -> when padding is appended, or disturbed, far behind every end
    far: Mapping[str, float]
    # module -> when noise is put on what it gives behind each clip's end
    disturbed: Mapping[str, float]
    rounding: float  # when every parameter is off by a rounding
    memory: str  # the module that is the memory
    embeddings: tuple[str, ...]  # those that read text
    missing: tuple[str, ...] = ()  # parts of the subject without which a path was not tried
    failed: Mapping[str, str] = field(default_factory=dict)  # path -> what its padded batch raised
    faded: float = 0.0  # at the embedding: the last padded place over the first
    not_held: tuple[str, ...] = ()  # functions that draw noise which padding may change

    @property
    def bar(self) -> float:
        """What no equivalence can be closer than."""
        return FLOORS * self.rounding

    @property
    def heard_far(self) -> list[str]:
        """Paths whose padding is heard far behind every end, and the memory where it is."""
        found = [path for path, move in self.far.items() if move > self.bar]
        if self.disturbed.get(self.memory, 0.0) > self.bar:
            found.append(self.memory)
        return found

    @property
    def heard_near(self) -> list[str]:
        """Paths and modules whose padding moves something at all."""
        moves = {**self.appended, **self.disturbed}
        return [name for name, move in moves.items() if move > self.bar]

    @property
    def broken(self) -> list[str]:
        """Where appended frames move valid ones: a loss that changes with them may do so for that
        alone.
        """
        largest = max(self.appended.get("frames", 0.0), self.far.get("frames", 0.0))
        return ["frames"] if largest > self.bar else []

    @property
    def text_tried(self) -> bool:
        """Whether padding of the text was appended, or was there to be disturbed."""
        return "text" in self.appended or any(name in self.disturbed for name in self.embeddings)

    @property
    def largest(self) -> float:
        moves = (*self.appended.values(), *self.far.values(), *self.disturbed.values())
        return max(moves, default=0.0)


@once_per_subject
def padding_moves(lab: Lab) -> PaddingMoves:
    """Append padding, and disturb what pads text and memory already."""
    probe = _Probe(lab)
    n_padded = max(LEAST_PADDED, lab.target.shape[1] // PARTS_PADDED)
    appended: dict[str, float] = {}
    far: dict[str, float] = {}
    failed: dict[str, str] = {}
    for path in filter(probe.can_pad, PATHS):
        try:
            near_move, far_move = probe.appended(path, n_padded), probe.far(path)
        except Exception as error:  # a model may have no positions for so many
            failed[path] = f"{type(error).__name__}: {error}"
        else:
            appended[path], far[path] = near_move, far_move
    disturbed = probe.disturbed()
    parts = anatomy(lab)
    return PaddingMoves(
        n_padded=n_padded,
        appended=appended,
        far=far,
        disturbed=disturbed,
        rounding=rounding_of(lab, lab.model).largest,
        memory=parts.memory,
        embeddings=parts.embeddings,
        missing=tuple(part for part in PARTS if getattr(lab.subject, part) is None),
        failed=failed,
        faded=probe.faded(),
        not_held=tuple(sorted(probe.not_held)),
    )


def with_padding(lab: Lab, n_frames: int) -> Batch:
    """The subject's batch with that many frames of padding; Subject.pad has to be there."""
    assert lab.subject.pad is not None
    return lab.subject.pad(private_copy(lab.batch), n_frames)


class _Probe:
    """Predictions of a fresh model under padding, without dropout, each with the same noise."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.model = lab, lab.model
        self.not_held: set[str] = set()  # draws that could not be held still

    def predicted(self, batch: Batch | None = None) -> Tensor:
        """(B, T, M) of the frames that the batch as it is has."""
        with without_dropout(self.model), HeldNoise() as noise:
            predicted = self.lab.predict(self.model, batch)
        self.not_held |= noise.not_held
        return predicted[:, : self.lab.target.shape[1]]

    def move(self, before: Tensor, after: Tensor) -> float:
        return float(movement(before, after, self.lab).max())

    def can_pad(self, path: str) -> bool:
        """Whether the subject has the parts that this path needs."""
        return all(getattr(self.lab.subject, PARTS_OF[name]) is not None for name in path.split())

    def padded(self, path: str, n: int) -> Batch:
        """The batch with `n` more places of the frames, of the text, or of both."""
        batch = with_padding(self.lab, n) if "frames" in path else private_copy(self.lab.batch)
        if "text" in path:
            assert self.lab.subject.pad_text is not None
            batch = self.lab.subject.pad_text(batch, n)
        return batch

    def appended(self, path: str, n: int) -> float:
        """What `n` more places do."""
        return self.move(self.predicted(), self.predicted(self.padded(path, n)))

    def far(self, path: str) -> float:
        """What padding far behind every end does: appended there, and where it is text disturbed
        there. Raises what the model raises under the fewest places.
        """
        for n in FAR[:-1]:
            try:
                return self._far(path, n)
            except Exception:  # no positions for so many; then fewer
                continue
        return self._far(path, FAR[-1])

    def _far(self, path: str, n: int) -> float:
        batch = self.padded(path, 2 * n)
        before, after = self.predicted(self.padded(path, n)), self.predicted(batch)
        moves = [self.move(before, after)]
        if path == "text":
            n_near = self._text_places() + n
            moves.append(self._disturbed_behind(n_near, after, batch))
        return max(moves)

    def _text_places(self) -> int:
        embeddings = anatomy(self.lab).embeddings
        return (_places(self.lab, embeddings[0]) or 0) if embeddings else 0

    def _disturbed_behind(self, first: int, before: Tensor, batch: Batch) -> float:
        """What noise on the text embedding does from place `first` on."""
        embeddings = anatomy(self.lab).embeddings
        if not embeddings or not first:
            return 0.0

        def disturb(tensor: Tensor) -> Tensor:
            behind = torch.arange(tensor.shape[1], device=tensor.device) >= first
            return with_noise(tensor, NOISE_SEED, behind[:, None])

        with output_changed(dict(self.model.named_modules())[embeddings[0]], disturb):
            return self.move(before, self.predicted(batch))

    def disturbed(self) -> dict[str, float]:
        """How far valid frames move when noise is put on what lies behind each clip's end: at the
        text embedding, at the memory. Empty where no clip of the batch is padded there.
        """
        moved = {}
        for name in dict.fromkeys((*anatomy(self.lab).embeddings[:1], anatomy(self.lab).memory)):
            padding = padding_at(self.lab, name)
            if padding is not None:
                moved[name] = self._under_noise(name, padding)
        return moved

    def faded(self) -> float:
        """At the text embedding: what noise on the last padded place of the batch does, over what
        noise on the first one does; 0 where there are no two.
        """
        names = anatomy(self.lab).embeddings[:1]
        padding = padding_at(self.lab, names[0]) if names else None
        if padding is None or int(padding.sum(dim=1).max()) < 2:
            return 0.0
        row = int(padding.sum(dim=1).argmax())
        places = padding[row].nonzero().flatten()
        moves = []
        for place in (places[0], places[-1]):
            only = torch.zeros_like(padding)
            only[row, place] = True
            moves.append(self._under_noise(names[0], only))
        first, last = moves
        return last / first if first else 0.0

    def _under_noise(self, name: str, where: Tensor) -> float:
        """How far valid frames move under noise on what a module gives, at these places
        (B, length).
        """

        def disturb(tensor: Tensor) -> Tensor:
            return with_noise(tensor, NOISE_SEED, where[..., None])

        before = self.predicted()
        with output_changed(dict(self.model.named_modules())[name], disturb):
            return self.move(before, self.predicted())


def padding_at(lab: Lab, name: str) -> Tensor | None:
    """(B, length) True where what module `name` gives lies behind a clip's end; None where no clip
    is padded there, or it is not known. Text lengths come from Subject.symbols, or from
    Subject.durations.
    """
    n_places, text = _places(lab, name), text_lengths(lab)
    if n_places is None:
        return None
    if n_places == lab.target.shape[1]:
        lengths = lab.lengths
    elif text is not None and n_places == int(text.max()):
        lengths = text
    else:
        return None
    return ~lengths_to_mask(lengths, n_places) if bool((lengths < n_places).any()) else None


def _places(lab: Lab, name: str) -> int | None:
    """The length of the sequence (B, length, D) that a module gives first."""
    for call in anatomy(lab).calls:
        if call.name == name and call.outputs[0].ndim == 3:
            return call.outputs[0].shape[1]
    return None


def text_lengths(lab: Lab) -> Tensor | None:
    """(B,) text positions of each row of the text embedding's input, whose order need not be the
    batch's; None where unclear. Where the subject does not say them, what stands at a row's end
    under the embedding's own `padding_idx` is padding.
    """
    parts = anatomy(lab)
    if not parts.embeddings:
        return None
    ids = next(call.inputs[0] for call in parts.calls if call.name == parts.embeddings[0])
    if ids.ndim != 2:
        return None
    rows = _written_lengths(lab)
    if rows is None:
        pad_id = dict(lab.model.named_modules())[parts.embeddings[0]].padding_idx
        return None if pad_id is None else _lengths_without(ids, int(pad_id))
    for pad in sorted(set(ids[:, -1].tolist())):
        lengths = _lengths_without(ids, pad)
        inside = ids[lengths_to_mask(lengths, ids.shape[1])]
        if sorted(lengths.tolist()) == sorted(rows) and not bool((inside == pad).any()):
            return lengths
    return torch.tensor(rows) if len(set(rows)) == 1 else None


def _lengths_without(ids: Tensor, pad: int) -> Tensor:
    """(B,) the length of each row without what holds `pad` at its end."""
    return torch.tensor([ids.shape[1] - _run_at_end(row, pad) for row in ids])


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
