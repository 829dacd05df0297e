"""Which frames a prediction sees: what model.no_causal_mask and model.no_right_shift decide by.

Shapes: B batch, T frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from tts_core.model.modes import evaluating
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import anatomy, movement, rounding, with_frames_changed
from tts_workbook.subject.isolation import unchanged_randomness, without_dropout
from tts_workbook.subject.module_calls import Call, outputs_changed, with_noise
from tts_workbook.subject.opened import once_per_subject
from tts_workbook.subject.subject import Batch

NO_HISTORY = (
    "nothing in the batch is the target mel, so its frames cannot be disturbed; next: put"
    " the decoder's input, or the target itself, into the batch as a tensor"
)
NOT_HEARD = "not applicable: nothing that the target says reaches the prediction"
NOT_FED_BACK = (
    "not applicable: generation feeds no frame back, so that what reads the target in training"
    " may read all of it"
)
FED_BACK_CALLS = 2  # a module that generation calls more often is given one frame after another
NOISE_SEED = 9
# frames: a look-ahead no longer than this may be an undeclared post-net; those of Tacotron 2 and
# SpeechT5 look ahead by ten
LOCAL = 48


@dataclass(frozen=True)
class Sight:
    """Moves of the prediction when frames of the target are disturbed, in target deviations."""

    spots: tuple[int, ...]  # the frames t that were tried; empty: the batch holds no target
    later: float  # of frames up to t, when the frames after it change
    reach: int  # frames: how far before t the earliest of them that moves is
    own: float  # of frame t, when it alone changes
    frames_given: bool  # whether the subject says what stands before a post-net
    rounding: float  # what a rounding of the weights does, times its margin
    heard: bool = True  # whether the prediction moves at all when the whole target changes
    # whether generation feeds frames back; None where the subject has none that could say it
    fed_back: bool | None = None
    # where the look-ahead is short and undeclared: the module that is given or gives the frames
    # before it, and the same two moves there; empty where there is none
    before: str = ""
    later_before: float = 0.0
    own_before: float = 0.0

    @property
    def sees_later(self) -> bool:
        return self.later > self.rounding

    @property
    def sees_itself(self) -> bool:
        return (self.own_before if self.judged_before else self.own) > self.rounding

    @property
    def may_be_a_post_net(self) -> bool:
        """A look-ahead that is short, and of which the subject says nothing."""
        return self.sees_later and self.reach < LOCAL and not self.frames_given

    @property
    def judged_before(self) -> bool:
        """Whether the frames before what may be a post-net are known, and see no later ones."""
        return bool(self.may_be_a_post_net and self.before) and self.later_before <= self.rounding

    @property
    def autoregressive(self) -> bool | None:
        """Whether frames are predicted from those before them; None where nobody says it.
        `predict_frames` is what stands before a post-net that is not causal: it says so.
        """
        return True if self.frames_given else self.fed_back

    @property
    def experiment(self) -> str:
        spots = ", ".join(str(spot) for spot in self.spots)
        judged = f", judged at {self.before}" if self.judged_before else ""
        return f"noise on frames after t, and on frame t alone, at t = {spots}{judged}"

    @property
    def evidence(self) -> dict[str, float | str]:
        found: dict[str, float | str] = {
            "move of frames up to t when later ones change, target deviations": self.later,
            "look-ahead, frames": float(self.reach),
            "move of frame t when it alone changes": self.own,
            "bar: ten times what a rounding of the weights does": self.rounding,
        }
        if self.before:
            found[f"the first at {self.before}"] = self.later_before
            found[f"the last at {self.before}"] = self.own_before
        return found


Frames = Callable[[Batch | None], Tensor]  # of the batch, or of the subject's own: (B, T, M)


@once_per_subject
def sight(lab: Lab) -> Sight:
    """Disturb the frames after t, and then frame t alone, at three places of the shortest clip."""
    given = lab.subject.predict_frames is not None
    if not anatomy(lab).histories:
        return Sight((), 0.0, 0, 0.0, given, 0.0)
    n_frames = int(lab.lengths.min())
    spots = sorted({n_frames // 4, n_frames // 2, 3 * n_frames // 4})

    def predicted(batch: Batch | None) -> Tensor:
        return lab.predict(lab.model, batch)

    bar = rounding(lab).moved
    with without_dropout(lab.model):
        later, reach, own = _moves(lab, predicted, spots, bar)
        heard = float(_moved(lab, predicted, predicted(None), slice(None)).max()) > bar
    found = Sight(tuple(spots), later, reach, own, given, bar, heard, fed_back(lab))
    if not found.may_be_a_post_net:
        return found
    before = _before_post_net(lab)
    if before is None:
        return found
    name, frames = before
    with without_dropout(lab.model):
        later_before, _, own_before = _moves(lab, frames, spots, bar)
    return replace(found, before=name, later_before=later_before, own_before=own_before)


def _moves(lab: Lab, frames: Frames, spots: list[int], bar: float) -> tuple[float, int, float]:
    """(move of frames up to t, how far it reaches, move of frame t alone), of the worst place."""
    before = frames(None)
    later = {t: _moved(lab, frames, before, slice(t + 1, None))[:, : t + 1] for t in spots}
    own = [float(_moved(lab, frames, before, slice(t, t + 1))[:, t].max()) for t in spots]
    reaches = [_reach(moved, t, bar) for t, moved in later.items() if bool((moved > bar).any())]
    return max(float(moved.max()) for moved in later.values()), max(reaches, default=0), max(own)


def _moved(lab: Lab, frames: Frames, before: Tensor, changed: slice) -> Tensor:
    """(B, T) how far every frame moves when these frames of the target change."""
    batch = with_frames_changed(lab, list(anatomy(lab).histories), changed)
    return movement(before, frames(batch), lab)


def _reach(moved: Tensor, spot: int, bar: float) -> int:
    """How far before frame `spot` the earliest frame that moves is."""
    return spot - int((moved > bar).any(dim=0).nonzero().min())


def fed_back(lab: Lab) -> bool | None:
    """Whether generation gives one frame after another to the module that the history enters; None
    where the subject has no generation, or it fails.
    """
    if lab.subject.continue_from is not None:
        return True
    entry = anatomy(lab).history_in
    generate = lab.subject.generate or lab.subject.infer
    if not entry or generate is None:
        return None
    n_calls = 0

    def count(*_: object) -> None:
        nonlocal n_calls
        n_calls += 1

    model = lab.model
    handle = dict(model.named_modules())[entry[0]].register_forward_hook(count)
    try:
        with unchanged_randomness(lab.seed), evaluating(model):
            generate(model, lab.batch)
    except Exception:
        return None  # the subject's code may raise anything
    finally:
        handle.remove()
    return n_calls > FED_BACK_CALLS


def _before_post_net(lab: Lab) -> tuple[str, Frames] | None:
    """The last tensor on the way to the prediction that has the shape of the mel, hangs on text and
    history, and whose first frame sees no later one: the module that it belongs to, and how it is
    had. None where there is none.
    """
    parts, model = anatomy(lab), lab.model
    histories = list(parts.histories)
    runs = [
        list(parts.calls),
        _with_other_text(lab),
        lab.calls(model, with_frames_changed(lab, histories, slice(None))),
        lab.calls(model, with_frames_changed(lab, histories, slice(1, None))),
    ]
    found: tuple[int, str, int] | None = None
    for number, calls in enumerate(zip(*runs, strict=False)):
        if not calls[0].name or len({call.name for call in calls}) > 1:
            continue
        for side in ("inputs", "outputs"):
            for index, tensors in enumerate(zip(*(getattr(c, side) for c in calls), strict=False)):
                if _is_before_post_net(tensors, lab):
                    found = number, side, index
    if found is None:
        return None
    number, side, index = found

    def frames(batch: Batch | None) -> Tensor:
        call = lab.calls(model, batch)[number]
        return as_frames(getattr(call, side)[index], lab)

    return parts.calls[number].name, frames


def _with_other_text(lab: Lab) -> list[Call]:
    modules = dict(lab.model.named_modules())
    changes = [(modules[name], _disturb) for name in anatomy(lab).embeddings]
    with outputs_changed(changes):
        return lab.calls(lab.model)


def _disturb(tensor: Tensor) -> Tensor:
    return with_noise(tensor, NOISE_SEED)


def _is_before_post_net(tensors: tuple[Tensor, ...], lab: Lab) -> bool:
    """Of one tensor as it is, under another text, another history, and another history from frame 1
    on.
    """
    if not all(is_like_frames(tensor, lab) for tensor in tensors):
        return False
    own, text, history, later = (as_frames(tensor, lab) for tensor in tensors)
    hears_both = not own.equal(text) and not own.equal(history)
    return hears_both and own[:, :1].equal(later[:, :1])


def is_like_frames(tensor: Tensor, lab: Lab) -> bool:
    """Whether a tensor is (B, T, M) or (B, M, T) in the numbers of the target."""
    n_clips, n_frames, n_bins = lab.target.shape
    shapes = ((n_clips, n_frames, n_bins), (n_clips, n_bins, n_frames))
    return tensor.is_floating_point() and tuple(tensor.shape) in shapes


def as_frames(tensor: Tensor, lab: Lab) -> Tensor:
    """(B, T, M) of one that is like frames."""
    if tensor.shape == lab.target.shape:
        return tensor.float()
    return tensor.transpose(1, 2).float()
