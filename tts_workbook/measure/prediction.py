"""Make a model predict a given mel, by what its last layers give: the loss then says what it thinks
of that mel.

Shapes: B batch, T frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tts_core.model.modes import evaluating
from tts_workbook.bars import Bar
from tts_workbook.measure.anatomy import anatomy
from tts_workbook.subject.isolation import unchanged_randomness, without_dropout
from tts_workbook.subject.module_calls import change_output, output_changed, trace
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.subject import Batch

question = "What does a loss say when the model is made to predict a given mel?"

CLOSE = Bar(0.01, control="of the target's own spread")
FLAT = Bar(
    1e-6, control="what a unit at the last layer moves the prediction by; rounding is a tenth"
)


def eval_losses(
    opened: OpenSubject, model: nn.Module, batch: Batch | None = None
) -> dict[str, float]:
    """Each term of `model` on the subject's batch, or on `batch`, in eval mode without dropout."""
    if batch is None:
        batch = opened.batch
    with unchanged_randomness(opened.seed), without_dropout(model), evaluating(model):
        terms = opened.subject.losses(model, batch)
        return {name: float(term.detach()) for name, term in terms.items()}


def losses_of_prediction(
    opened: OpenSubject, model: nn.Module, prediction: Tensor
) -> dict[str, float] | None:
    """`eval_losses` on the subject's batch as if `model` had predicted `prediction` (B, T, M). None
    where it cannot be made to predict that.
    """
    with predicting(opened, model, prediction) as reached:
        return eval_losses(opened, model) if reached else None


@contextmanager
def predicting(opened: OpenSubject, model: nn.Module, prediction: Tensor) -> Iterator[bool]:
    """Inside, `model` in eval mode predicts `prediction` (B, T, M) on the subject's batch; False
    where that cannot be done.

    What the last layer gives is shifted by (wanted - own) / slope, the slope measured by a probe:
    exact where the prediction depends affinely on it. With a post-net, first the frames before it
    are set, then the mel behind it.
    """
    with ExitStack() as stack:
        yield all(_set(opened, model, prediction, field, stack) for field in opened.fields)


def _set(
    opened: OpenSubject, model: nn.Module, prediction: Tensor, field: str, stack: ExitStack
) -> bool:
    name = anatomy(opened).outputs[field]
    if not name:
        return False
    module = dict(model.named_modules())[name]
    with without_dropout(model):
        own = opened.predict(model, field=field)
        with output_changed(module, lambda output: output + 1.0):
            slope = opened.predict(model, field=field) - own
        shapes = [
            call.outputs[0].shape
            for call in trace(model, lambda: opened.predict(model, field=field))
            if call.name == name
        ]
    shift = torch.where(slope.abs() > FLAT, (prediction - own) / slope, torch.zeros_like(own))
    order = _order(opened, model, module, field, own, shapes)
    if order is None or _part(shift[order], shapes, 0) is None:
        return False
    shift = shift[order]
    n_calls = 0

    def shifted(output: Tensor) -> Tensor:
        nonlocal n_calls
        part = _part(shift, shapes, n_calls % len(shapes))
        n_calls += 1
        if part is None or part.shape != output.shape:
            return output
        return output + part.to(output)

    stack.callback(change_output(module, shifted).remove)
    with without_dropout(model):
        reached = opened.predict(model, field=field)
    n_calls = 0
    missed = (reached - prediction).abs()[opened.mask].mean()
    return float(missed) < CLOSE * float(opened.frames.std())


def _order(
    opened: OpenSubject,
    model: nn.Module,
    module: nn.Module,
    field: str,
    own: Tensor,
    shapes: list[torch.Size],
) -> list[int] | None:
    """The clip behind each row of the layer's output, or behind each of its calls: models may sort
    their clips.
    """
    n_clips = len(own)
    if n_clips == 1:
        return [0]
    by_call = len(shapes) == n_clips and all(shape[0] == 1 for shape in shapes)
    order: list[int] = []
    for row in range(n_clips):
        raised = _raised_at_call(row, len(shapes)) if by_call else _raised_row(row, n_clips)
        with without_dropout(model), output_changed(module, raised):
            apart = (opened.predict(model, field=field) - own).abs()
        moved = (apart.amax(dim=2) * opened.mask).amax(dim=1)
        clip = int(moved.argmax())
        if float(moved[clip]) == 0.0 or clip in order:
            return None
        order.append(clip)
    return order


def _raised_at_call(row: int, n_calls: int) -> Callable[[Tensor], Tensor]:
    """Adds 1 to the output of one call of every `n_calls`."""
    seen = 0

    def raised(output: Tensor) -> Tensor:
        nonlocal seen
        mine = seen % n_calls == row
        seen += 1
        return output + 1.0 if mine else output

    return raised


def _raised_row(row: int, n_rows: int) -> Callable[[Tensor], Tensor]:
    """Adds 1 to one row of an output of `n_rows`."""

    def raised(output: Tensor) -> Tensor:
        if output.shape[0] != n_rows:
            return output
        output = output.clone()
        output[row] += 1.0
        return output

    return raised


def _part(shift: Tensor, shapes: list[torch.Size], call: int) -> Tensor | None:
    """What of `shift` (B, T, M) belongs to one call of the layer: all of it, one clip, or one
    frame; None if none fits.
    """
    shape, n_clips = shapes[call], len(shift)
    for flipped in (False, True):
        whole = shift.transpose(1, 2) if flipped else shift
        if len(shapes) == 1 and shape == whole.shape:
            return whole
        # more frames than the target has: a step of several frames was begun
        axis = 2 if flipped else 1
        behind = shape[axis] - whole.shape[axis] if len(shape) == 3 else 0
        if len(shapes) == 1 and behind > 0:
            longer = F.pad(shift, (0, 0, 0, behind))
            longer = longer.transpose(1, 2) if flipped else longer
            if longer.shape == shape:
                return longer
        # one clip after another, without padding
        if len(shapes) == n_clips and len(shape) == 3 and shape[0] == 1:
            length = shape[2] if flipped else shape[1]
            row = shift[call : call + 1, :length]
            row = row.transpose(1, 2) if flipped else row
            if row.shape == shape:
                return row
    return _part_of_steps(shift, shapes, call)


def _part_of_steps(shift: Tensor, shapes: list[torch.Size], call: int) -> Tensor | None:
    """What belongs to a layer that gives r frames at once, r = 1 too: all steps in one call, (B, S,
    r M), or one step after another, B rows of r M. Frames behind the last are not asked for.
    """
    shape, (n_clips, n_frames, n_bins) = shapes[call], shift.shape
    n_steps = len(shapes)
    if n_steps == 1:
        if len(shape) != 3 or shape[0] != n_clips or shape[2] % n_bins:
            return None
        n_steps = shape[1]
    per_step = -(-n_frames // n_steps)
    if (n_steps - 1) * per_step >= n_frames:
        return None  # a step beyond the last frame
    behind = n_steps * per_step - n_frames
    steps = F.pad(shift, (0, 0, 0, behind)).reshape(n_clips, n_steps, per_step * n_bins)
    if len(shapes) == 1:
        return steps if steps.shape == shape else None
    rows = steps[:, call]
    return rows.reshape(shape) if shape[0] == n_clips and shape.numel() == rows.numel() else None
