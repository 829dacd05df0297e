"""generation.stopping: the stop head never or always fires.

Shapes: B clips, T frames.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tts_core.model.modes import evaluating
from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import LEARNT
from tts_workbook.measure.stop_head import stop_of_clips
from tts_workbook.measure.stop_pattern import Pattern, losses_of_stop_patterns
from tts_workbook.subject.isolation import unchanged_randomness

FIRES = Bar(0.5, convention="Tacotron 2 (Shen et al. 2018): generation stops above one half")
# a stop head that has learnt anything gives the last frame so many times the rate of the others
TELLS = Bar(3.0, control="the head's own mean probability before the last frame")


@dataclass(frozen=True)
class Stops:
    """The trained stop head, and what the loss asks of it."""

    at_last: float  # probability at the last frame, mean over the clips
    elsewhere: float  # before it, mean over the clips of the mean over their frames
    constant_rate: float  # one stop in so many frames
    losses: Mapping[Pattern, float]  # by the pattern put in the head's place; empty without a head
    mel_error: float | None  # teacher-forced, of a head that fires everywhere; None: not asked
    inferred: float | None  # frames of full inference over the true ones; None: not asked or broke

    @property
    def wanted(self) -> Pattern | None:
        """The pattern that the loss likes best."""
        return min(self.losses, key=lambda pattern: self.losses[pattern], default=None)

    @property
    def tells(self) -> bool:
        """Whether the head tells the last frame from the others."""
        return self.at_last > TELLS * self.elsewhere

    @property
    def fires(self) -> bool:
        """Whether it stops before the end."""
        return self.elsewhere > FIRES


def measure(lab: Lab) -> Stops:
    """The stop head at the last frame and before, and which stop pattern the loss wants: right,
    never or inverted. How long full inference is, is asked where something is wrong.
    """
    model = lab.trained
    said = stop_of_clips(lab, model)
    numbers = Stops(
        at_last=statistics.fmean(one.at_last for one in said),
        elsewhere=statistics.fmean(one.mean_elsewhere for one in said),
        constant_rate=len(said) / float(lab.lengths.sum()),
        losses=losses_of_stop_patterns(lab, model),
        mel_error=None,
        inferred=None,
    )
    if not numbers.losses and not numbers.tells and numbers.fires:
        error = lab.error(lab.predict(model, field="mel"))
        numbers = replace(numbers, mel_error=error)
    if decide(numbers).level == "confirmed":
        return replace(numbers, inferred=_inferred(lab))
    return numbers


def _inferred(lab: Lab) -> float | None:
    """Length of full inference over the true one."""
    if lab.subject.infer is None:
        return None
    try:
        with unchanged_randomness(lab.seed), evaluating(lab.trained):
            mels = lab.subject.infer(lab.trained, lab.batch)
    except Exception:  # it may never end, and say so; the finding stands without its length
        return None
    return sum(map(len, mels)) / float(lab.lengths.sum())


def decide(numbers: Stops) -> Decision:
    """Pure: which of the ends it is."""
    if numbers.losses and numbers.wanted != "right":
        return Decision("confirmed", "losses", 1.0, "another pattern wanted")
    if numbers.tells:
        return Decision("excluded", "stop", reason="tells the last frame")
    if numbers.mel_error is not None and numbers.mel_error < LEARNT:
        return Decision("confirmed", "stop", 1.0, "fires at once")
    return Decision("undecided", "stop", reason="not trained yet")


PLACES: Mapping[Pattern, str] = {
    "right": "at the last frame",
    "never": "never",
    "inverted": "everywhere but at the last frame",
}
REPLACED = (
    "loss of the right stop pattern put in place of the head's output, against never and inverted"
)
COMPARED = "stop probabilities at the last frame and before"


def tell(numbers: Stops, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {
        "stop probability at the last frame": numbers.at_last,
        "elsewhere, mean": numbers.elsewhere,
        "constant rate": numbers.constant_rate,
    }
    for pattern, loss in numbers.losses.items():
        evidence[f"loss with the stop {PLACES[pattern]}"] = loss
    if numbers.inferred is not None:
        evidence["frames of full inference / true frames"] = numbers.inferred
    match decision.reason:
        case "another pattern wanted":
            wanted = PLACES[numbers.wanted] if numbers.wanted else ""
            return Telling(f"{REPLACED}: the loss wants it {wanted}", evidence)
        case "tells the last frame":
            return Telling(REPLACED if numbers.losses else COMPARED, evidence)
        case "fires at once":
            return Telling("the mel is learnt, and the stop head fires at once", evidence)
    return Telling(
        "the head does not tell the last frame yet: train longer, then compare again", evidence
    )


CAUSE = Cause(
    id="generation.stopping",
    title="the stop head never or always fires",
    experiment=(
        "its probabilities at the last frame and before; length of full inference against the"
        " frames"
    ),
    fix="weigh the one positive frame, train longer, or bound the length by the durations",
    experiments=(Experiment(measure, decide, tell, needs=("stop",)),),
    for_the_ear=True,
)
