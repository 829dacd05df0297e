"""loss.auxiliary_geometry: a guide of the attention is built for other lengths than the model's.

Shapes: B batch, H heads, S steps of the decoder, N text positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import anatomy, movement, rounding
from tts_workbook.measure.prediction import eval_losses
from tts_workbook.subject.isolation import without_dropout
from tts_workbook.subject.module_calls import output_changed
from tts_workbook.subject.opened import once_per_subject

# how far along the text a clip is read: at 1/2 only half of it, at 2 all of it by the middle
SLOPES = tuple(2.0 ** (half / 2) for half in range(-4, 5))
N_CLIPS = 2  # the shortest and the longest are asked, one by one
UNREAD = Bar(
    1e-3, control="of each step's attention: spread over the whole text, so that no weight is zero"
)
SHARE = Bar(
    0.1,
    control="of what the term moves over all slopes: what the diagonal costs more than the best"
    " slope, for the best to be another",
)
ACTED = Bar(
    1e-3, control="of a term's own value: what it has to move over the slopes to be a guide at all"
)


@dataclass(frozen=True)
class Guide:
    """One term when the attention of one clip runs along the text at each of SLOPES."""

    term: str
    clip: int
    values: Mapping[float, float]  # slope -> value

    @property
    def best(self) -> float:
        """The slope at which it is least."""
        return min(self.values, key=lambda slope: self.values[slope])

    @property
    def excess(self) -> float:
        """What the diagonal costs more than the best slope, as a share of all that it moves."""
        lowest, highest = min(self.values.values()), max(self.values.values())
        return (self.values[1.0] - lowest) / (highest - lowest)

    @property
    def wrong(self) -> bool:
        return self.best != 1.0 and self.excess > SHARE


@dataclass(frozen=True)
class Geometry:
    """What the terms of the loss want of the attention over the text."""

    found: bool  # whether attention over the text was seen
    # whether it may be worked out where it cannot be changed: inside a fused function that gives
    # its weights away
    hidden: bool
    # whether the prediction stood still, as it has to once every text position says the same
    still: bool
    n_steps: int  # of the decoder
    guides: tuple[Guide, ...]


@once_per_subject
def geometry(lab: Lab) -> Geometry:
    """Every text position made to say the same, so that attention matters to nothing but to what
    reads it directly; then attention made to run along the text of one clip at each slope.
    """
    shape, hidden = _seen(lab)
    if shape is None:
        return Geometry(False, hidden, False, 0, ())
    memory = dict(lab.model.named_modules()).get(anatomy(lab).memory)
    if memory is None:
        return Geometry(True, hidden, False, shape.n_steps, ())
    order = torch.argsort(lab.lengths).tolist()
    clips = list(dict.fromkeys([order[0], order[-1]]))[:N_CLIPS]
    with without_dropout(lab.model), output_changed(memory, _same_everywhere):
        still = _stands_still(lab, shape)
        guides = _guides(lab, shape, clips) if still else ()
    return Geometry(True, hidden, still, shape.n_steps, guides)


def _same_everywhere(memory: Tensor) -> Tensor:
    """(B, N, D) with every position the mean of all; what has no such positions stays."""
    if memory.ndim != 3 or not memory.is_floating_point():
        return memory
    return memory.mean(dim=1, keepdim=True).expand_as(memory)


def _stands_still(lab: Lab, shape: Shape) -> bool:
    """Whether the prediction does not hang on the attention."""
    predictions = []
    for slope in (SLOPES[0], 1.0):
        with Along(shape, {row: slope for row in range(len(lab.lengths))}):
            predictions.append(lab.predict(lab.model))
    moved = float(movement(predictions[0], predictions[1], lab).max())
    return moved <= max(rounding(lab).moved, torch.finfo(torch.float32).eps)


def _guides(lab: Lab, shape: Shape, clips: list[int]) -> tuple[Guide, ...]:
    found: list[Guide] = []
    for clip in clips:
        values: dict[float, dict[str, float]] = {}
        for slope in SLOPES:
            with Along(shape, {clip: slope}):
                values[slope] = eval_losses(lab, lab.model)
        for term in values[1.0]:
            if term == "total":
                continue
            row = {slope: values[slope][term] for slope in SLOPES}
            if not all(map(math.isfinite, row.values())):
                continue
            if max(row.values()) - min(row.values()) > ACTED * abs(row[1.0]):
                found.append(Guide(term, clip, row))
    return tuple(found)


# --- attention over the text ----------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """Where attention over the text is among the softmaxes of one evaluation of the losses."""

    n_text: int
    n_steps: int
    steps: Tensor  # (B,) of each clip
    places: Tensor  # (B,) text positions of each clip that may be attended to


def _seen(lab: Lab) -> tuple[Shape | None, bool]:
    """Run the losses and look at every softmax over as many places as the text has."""
    n_text = _text_places(lab)
    watch = Along(None, {}, n_text)
    with watch, without_dropout(lab.model):
        eval_losses(lab, lab.model)
    whole = [weights for weights in watch.seen if _steps_of(weights) > 1]
    single = [weights for weights in watch.seen if _steps_of(weights) == 1]
    # self-attention of the text has as many steps as places
    cross = [weights for weights in whole if _steps_of(weights) != n_text]
    n_clips, n_frames = len(lab.lengths), lab.target.shape[1]
    if cross:
        n_steps, last = _steps_of(cross[0]), cross[0]
    elif len(single) > 1:
        n_steps, last = len(single), single[-1]
    else:
        return None, watch.hidden
    if n_steps > n_frames or last.shape[0] % n_clips:
        return None, watch.hidden
    per_step = -(-n_frames // n_steps)
    steps = -(-lab.lengths // per_step)
    attended = (last.reshape(n_clips, -1, n_text) > 0).any(dim=1)
    places = torch.stack([row.nonzero().max() + 1 for row in attended])
    return Shape(n_text, n_steps, steps, places), watch.hidden


def _text_places(lab: Lab) -> int:
    """(B, N) text ids: N; 0 where no module reads text."""
    parts = anatomy(lab)
    if not parts.embeddings:
        return 0
    ids = next(call.inputs[0] for call in parts.calls if call.name == parts.embeddings[0])
    return ids.shape[1] if ids.ndim == 2 else 0


def _steps_of(weights: Tensor) -> int:
    """Steps in one call: (B, N) and (B, 1, N) hold one, (B H, S, N) and (B, H, S, N) hold S."""
    return 1 if weights.ndim == 2 else weights.shape[-2]


class Along(TorchFunctionMode):
    """Attention over the text runs along it, at a slope for each clip (1 where none is given). With
    no shape it only looks.
    """

    SOFTMAX = (torch.softmax, F.softmax, Tensor.softmax)

    def __init__(
        self, shape: Shape | None, slopes: Mapping[int, float], n_text: int | None = None
    ) -> None:
        super().__init__()
        self.shape, self.slopes = shape, slopes
        self.n_text = shape.n_text if shape is not None else n_text
        self.seen: list[Tensor] = []
        self.hidden = False
        self.n_calls = 0  # of a decoder that takes one step after another

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward and kwargs.get("need_weights", True):
            self.hidden = True
        given = func(*args, **kwargs)
        if func not in self.SOFTMAX or given.ndim < 2 or given.shape[-1] != self.n_text:
            return given
        if self.shape is None:
            self.seen.append(given.detach())
            return given
        return self._replaced(given)

    def _replaced(self, given: Tensor) -> Tensor:
        assert self.shape is not None
        n_steps = _steps_of(given)
        if n_steps == 1 and self.shape.n_steps > 1:
            steps = [self.n_calls % self.shape.n_steps]
            self.n_calls += 1
        elif n_steps == self.shape.n_steps and n_steps != self.shape.n_text:
            steps = list(range(n_steps))
        else:
            return given
        wanted = self._weights(steps).to(given)  # (B, steps, N)
        n_clips = len(self.shape.steps)
        per_clip = given.shape[0] // n_clips  # heads that stand beside the clips
        wanted = wanted.repeat_interleave(per_clip, dim=0)
        if given.ndim == 2:
            return wanted[:, 0]
        return wanted if given.ndim == 3 else wanted[:, None].expand_as(given)

    def _weights(self, steps: list[int]) -> Tensor:
        assert self.shape is not None
        rows = []
        pairs = zip(self.shape.steps.tolist(), self.shape.places.tolist(), strict=True)
        for clip, (n_steps, n_places) in enumerate(pairs):
            slope = self.slopes.get(clip, 1.0)
            row = torch.zeros(len(steps), self.shape.n_text)
            row[:, :n_places] = UNREAD / n_places
            for index, step in enumerate(steps):
                place = int(slope * (step + 0.5) / n_steps * n_places)
                row[index, min(place, n_places - 1)] += 1.0 - UNREAD
            rows.append(row)
        return torch.stack(rows)


# --- decided --------------------------------------------------------------------------------------


def decide(numbers: Geometry) -> Decision:
    """Pure: every guide is least where the attention runs along the whole text of every clip."""
    if not numbers.found:
        if numbers.hidden:
            return Decision("undecided", reason="hidden")
        return Decision("excluded", reason="no attention")
    if not numbers.still:
        return Decision("undecided", reason="not told apart")
    if not numbers.guides:
        return Decision("excluded", reason="no guide")
    wrong = [guide for guide in numbers.guides if guide.wrong]
    if not wrong:
        return Decision("excluded", reason="along the text")
    worst = max(wrong, key=lambda guide: guide.excess)
    return Decision("confirmed", f"losses[{worst.term!r}]", worst.excess, "another slope")


SAID = {
    "hidden": "next: work the attention's weights out by a softmax of its own, so that they can be"
    " changed",
    "no attention": "no attention over the text gives its weights to a loss",
    "not told apart": "the prediction moves with the attention even where every text position says"
    " the same; next: name the module that the decoder attends to: Subject.memory",
    "no guide": "no term reads the attention directly",
}


def tell(numbers: Geometry, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {}
    if numbers.found:
        evidence["steps of the decoder"] = float(numbers.n_steps)
    for guide in numbers.guides:
        name = f"{guide.term}, clip {guide.clip}"
        evidence[f"best slope of {name}"] = guide.best
        evidence[f"{name}, along the whole text"] = guide.values[1.0]
        evidence[f"{name}, at its best slope"] = guide.values[guide.best]
    if decision.reason in SAID:
        return Telling(SAID[decision.reason], evidence)
    return Telling(
        "attention made to run along the text of one clip at slopes from 1/4 to 4, every text"
        " position made to say the same",
        evidence,
    )


CAUSE = Cause(
    id="loss.auxiliary_geometry",
    title="a guide of the attention is built for other lengths than the model's",
    experiment="the guide of an attention that runs along the text: at which slope is it least?",
    fix="build the guide from the decoder's steps (frames over the reduction factor) and the"
    " lengths of each clip's own text",
    experiments=(Experiment(geometry, decide, tell),),
)
