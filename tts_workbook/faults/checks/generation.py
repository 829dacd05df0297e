"""Checks of generation: is it fed what training fed, does it drift when it hears itself?

Both are judged on the trained model. Shapes: B clips, T frames, M mel bins. Errors are over the
best constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_core.errors import WorkbookError
from tts_core.model.modes import evaluating
from tts_workbook.faults.checks.registry import check
from tts_workbook.faults.finding import Finding
from tts_workbook.faults.registry import CATALOGUE
from tts_workbook.lab.lab import BudgetSpent, Lab
from tts_workbook.lab.short_run import LEARNT
from tts_workbook.measure.anatomy import find_history, movement, with_frames_changed
from tts_workbook.measure.headline import generated
from tts_workbook.subject.isolation import unchanged_randomness, without_dropout
from tts_workbook.subject.opened import once_per_subject

# of the best constant, mean over a frame: bf16 autocast with a cache stays below 0.004
PARITY = 0.01
# what rounding or eval mode's own randomness may make, for a frame to be compared
STEADY = 0.01
BROKEN = 0.06  # and a history that is laid out otherwise moves the worst frame by more
# or by this, where another history altogether changes no more than twice as much
UNLIKE, HALF = 0.02, 0.5
SHARE = 0.2  # of what another history altogether changes: rounding is far less
BLIND = 1e-3  # another history changes less than that: nothing can be judged
# of the history: a model that makes much of it is chaotic, and no two ways of computing it agree
JITTER = 1e-5
# movement of a prediction, in deviations of the target, by frames that it should not have seen
LEAK = 1e-3
DRIFT_FREE = 0.6  # free-running below this is no gap worth a name
DRIFTED = 0.8  # free-running above this, although teacher-forced it is learnt …
# … and still this share of it after a longer training: in clean models it falls, by half or more
STAYS = 0.8
LONGER, LONG_STEPS = 3, 400  # that is so many times the course, and so many steps at least


@dataclass(frozen=True)
class Layout:
    """Generation code on the true history, against teacher forcing."""

    difference: dict[int, float]  # by frame, mean |difference| over the best constant
    rounding: dict[int, float]  # the same for a history that is JITTER off
    sensitivity: float  # the same for another history in the middle: a yardstick
    # mean |difference| of two teacher-forced predictions from other random states
    unsteady: float
    # how far frames from t on move the teacher-forced frame t; None where that cannot be tried
    leaks: float | None
    looks_like: str

    @property
    def worst(self) -> float:
        """Largest difference over the frames that can be compared; infinite where none after the
        first can.
        """
        return max((self.difference[frame] for frame in self.comparable), default=math.inf)

    @property
    def comparable(self) -> list[int]:
        """Frames at which rounding does not decide; none where only the first, that has no history,
        is left.
        """
        steady = [frame for frame in self.difference if self.rounding[frame] < STEADY]
        return steady if steady != [0] else []

    @property
    def holds(self) -> bool:
        """Parity."""
        return self.worst < min(PARITY, SHARE * self.sensitivity)

    @property
    def broken(self) -> bool:
        """A difference that no rounding makes."""
        return bool(self.comparable) and (
            self.worst > BROKEN or UNLIKE < self.worst > HALF * self.sensitivity
        )

    @property
    def judged(self) -> bool:
        """Whether these weights decide; others may, for the code that generates is the same
        whatever they are.
        """
        return (
            self.sensitivity >= BLIND
            and self.unsteady <= STEADY
            and (self.broken or (bool(self.comparable) and self.holds))
        )

    @property
    def evidence(self) -> dict[str, float | str]:
        """The numbers in words."""
        return {
            **{f"difference at frame {frame}": value for frame, value in self.difference.items()},
            "difference by another history": self.sensitivity,
            **(
                {}
                if self.comparable == [*self.difference]
                else {"difference by rounding": max(self.rounding.values())}
            ),
            **({"difference between random states": self.unsteady} if self.unsteady else {}),
            **(
                {}
                if self.leaks is None
                else {"teacher-forced frame moved by later frames": self.leaks}
            ),
            **({"nearest": self.looks_like} if self.looks_like else {}),
        }


@check("generation.layout", needs=("continue_from",))
def layout(lab: Lab) -> Iterable[Finding]:
    """The generation code on the true history of t frames against the teacher-forced frame t."""
    found = layout_of(lab)
    experiment = (
        "the generation code on the true history against the teacher-forced output, dropout off"
    )
    if found.leaks is not None and found.leaks > LEAK:
        level, experiment = (
            "undecided",
            "teacher forcing sees frames that generation cannot have: mend that first",
        )
    elif found.sensitivity < BLIND:
        level, experiment = (
            "undecided",
            "the prediction does not depend on the history: nothing to compare",
        )
    elif not found.comparable:
        level, experiment = (
            "undecided",
            f"the prediction moves when the history is {JITTER} off: too chaotic to compare",
        )
    elif found.unsteady > STEADY:
        level, experiment = (
            "undecided",
            "eval mode draws at random even with dropout off: mend that first, then compare again",
        )
    elif found.holds:
        level = "excluded"
    elif not found.broken:
        level, experiment = (
            "undecided",
            f"{experiment}: a small difference, as of rounding; compare in fp32",
        )
    else:
        level = "confirmed" if found.leaks is not None else "suspected"
    return [
        Finding(
            "generation.layout",
            level,
            experiment,
            found.evidence,
            "continue_from",
            min(1.0, found.worst),
        )
    ]


@once_per_subject
def layout_of(lab: Lab) -> Layout:
    """On the trained model if its predictions are finite and decide, else on a fresh one. Computed
    once per lab.
    """
    first = None
    for model in (lab.trained, lab.model):
        if lab.predict(model)[lab.mask].isfinite().all():
            with without_dropout(model):
                found = _layout(lab, model)
            if found.judged:
                return found
            first = first or found
    if first is None:
        raise WorkbookError("the predictions are not finite")
    return first


def _layout(lab: Lab, model: nn.Module) -> Layout:
    forced = lab.predict(model)
    shortest = int(lab.lengths.min())
    frames = sorted({0, 1, 2, shortest // 2, shortest - 1} & set(range(shortest)))

    def continued(history: Tensor) -> Tensor:
        with unchanged_randomness(lab.seed), evaluating(model):
            return (
                lab.subject.continue_from(model, lab.batch, history.contiguous()).detach().float()
            )

    def distance(a: Tensor, b: Tensor) -> float:
        value = float((a - b).abs().mean()) / lab.best_constant
        return value if math.isfinite(value) else 10.0

    own = {frame: continued(lab.target[:, :frame]) for frame in frames}
    difference = {frame: distance(own[frame], forced[:, frame]) for frame in frames}
    rounding = {
        frame: distance(continued(lab.target[:, :frame] * (1 + JITTER)), own[frame])
        for frame in frames
    }
    middle = shortest // 2
    noise = torch.randn(
        lab.target[:, :middle].shape, generator=torch.Generator().manual_seed(0)
    ).to(lab.target)
    sensitivity = distance(
        continued(lab.target[:, :middle] + lab.frames.std() * noise), own[middle]
    )
    with unchanged_randomness(lab.seed + 1), evaluating(model):
        again = (
            (lab.subject.predict_frames or lab.subject.predict_mel)(model, lab.batch)
            .detach()
            .float()
        )
    unsteady = distance(again[lab.mask], forced[lab.mask])
    histories = find_history(lab)
    leaks = None
    if histories:
        moved = movement(
            lab.predict(model, with_frames_changed(lab, histories, slice(middle, None))),
            forced,
            lab,
        )
        leaks = float(moved[:, : middle + 1].max())
    looks_like = (
        ""
        if max(difference.values()) < PARITY or middle < 2
        else _nearest(own[middle], forced, middle, distance)
    )
    return Layout(difference, rounding, sensitivity, unsteady, leaks, looks_like)


def _nearest(
    own: Tensor, forced: Tensor, frame: int, distance: Callable[[Tensor, Tensor], float]
) -> str:
    """Which teacher-forced frame the generation code predicts at `frame`."""
    shifts = {
        shift: distance(own, forced[:, frame + shift])
        for shift in (-2, -1, 0, 1, 2)
        if frame + shift < forced.shape[1]
    }
    best = min(shifts, key=shifts.get)
    if best == 0:
        return "the same frame, from another history"
    return f"the teacher-forced frame {abs(best)} {'later' if best > 0 else 'earlier'}"


# --- drift ----------------------------------------------------------------------------------------


@check("generation.exposure_gap", needs=("generate",))
def exposure_gap(lab: Lab) -> Iterable[Finding]:
    """Free-running error by the number of self-fed frames; where it is large, again after a longer
    training.
    """
    cause = "generation.exposure_gap"
    curve, forced, free = drift(lab, lab.trained)
    evidence = {"TF L1 / best constant": forced, "FR L1 / best constant": free, **curve}
    experiment = "error against the number of self-fed frames"
    if not forced < LEARNT:
        return [
            Finding(
                cause,
                "undecided",
                "the batch is not learnt teacher-forced: train longer first",
                evidence,
            )
        ]
    if free < DRIFT_FREE:
        return [Finding(cause, "excluded", experiment, evidence, "generate")]
    if lab.subject.continue_from is None:
        return [
            Finding(
                cause,
                "undecided",
                "supply Subject.continue_from: it tells whether generation is fed as training was",
                evidence,
            )
        ]
    parity = layout_of(lab)
    if not parity.holds or parity.leaks is None or parity.leaks > LEAK:
        return [
            Finding(
                cause,
                "undecided",
                "generation is not fed as training was, or training sees the future: mend that",
                evidence | {"largest difference on the true history": parity.worst},
            )
        ]
    if mended_first := [known for known in lab.confirmed if CATALOGUE[known].defect]:
        return [
            Finding(
                cause,
                "undecided",
                f"mend {' and '.join(mended_first)} first, then compare again",
                evidence,
            )
        ]
    if lab.subject.checkpoint is not None:
        return [
            Finding(
                cause,
                "suspected" if free > DRIFTED else "undecided",
                f"{experiment}, of the checkpoint; it is fed as in training",
                evidence,
                "generate",
                0.3,
            )
        ]
    times = max(LONGER, math.ceil(LONG_STEPS / lab.n_steps))
    try:
        longer = lab.course(times=times)
    except BudgetSpent as spent:
        return [
            Finding(
                cause,
                "undecided",
                f"next: train {times * lab.n_steps} steps, then compare again, for an early gap"
                f" closes by itself in a healthy model ({spent})",
                evidence,
            )
        ]
    curve, later_forced, later = drift(lab, longer.model)
    evidence |= {
        f"TF after {times} times the steps": later_forced,
        f"FR after {times} times the steps": later,
    }
    experiment += f", and after {times} times the training; generation is fed as training was"
    if later_forced < LEARNT and later > DRIFTED and later > STAYS * free:
        return [Finding(cause, "confirmed", experiment, evidence, "generate", 0.3)]
    return [
        Finding(
            cause,
            "excluded" if later < DRIFT_FREE else "undecided",
            experiment,
            evidence,
            "generate",
        )
    ]


def drift(lab: Lab, model: nn.Module) -> tuple[dict[str, float], float, float]:
    """Free-running error by frame over growing spans, then teacher-forced and free-running error as
    a whole.
    """
    forced, free = lab.predict(model, field="mel"), generated(lab, model)
    length = min(forced.shape[1], free.shape[1])
    error = (free[:, :length] - lab.target[:, :length]).abs().mean(dim=2) / lab.best_constant
    mask, curve, start = lab.mask[:, :length], {}, 0
    for stop in (1, 4, 16, 64, length):
        if start < stop <= length and mask[:, start:stop].any():
            curve[f"FR at frames {start} to {stop - 1}"] = float(
                error[:, start:stop][mask[:, start:stop]].mean()
            )
            start = stop
    return curve, lab.error(forced), float(error[mask].mean()) if length else math.inf
