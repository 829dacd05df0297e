"""generation.exposure_gap: errors grow while the model hears itself.

Judged on the trained model. Errors are over the best constant.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Level, Telling
from tts_workbook.faults.generation.layout import LEAK
from tts_workbook.lab.fed_as_trained import fed_as_trained
from tts_workbook.lab.lab import BudgetSpent, Lab
from tts_workbook.lab.short_run import LEARNT
from tts_workbook.measure.history_parity import HistoryParity
from tts_workbook.measure.own_history import OwnHistory, hears_history, own_history
from tts_workbook.measure.self_feeding import Drift, measure_drift

# free-running below this is no gap worth a name
DRIFT_FREE = Bar(0.6, control="the error of the best constant, which hears nothing at all")
# free-running above this, although teacher-forced it is learnt …
DRIFTED = Bar(0.8, control="the error of the best constant, which hears nothing at all")
# … and still this share of it after a longer training: in clean models it falls, by half or more
STAYS = Bar(0.8, control="the free-running error of the same subject after a course")
# It is found in full inference alone: free running has the true number of frames, whatever the stop
# head says.
NOT_HEARD = ("generation.stopping",)
STRENGTH = Bar(0.3, absolute="ranks drift, which is no defect, decides nothing")


@dataclass(frozen=True)
class SelfFedGap:
    """What is asked one after another, until something decides; None: it was not asked."""

    drift: Drift
    hears: bool | None  # a history: what hears none does not hear itself; None: it cannot be told
    continues: bool  # the subject has the part that tells whether generation is fed as training was
    from_checkpoint: bool  # its weights are a checkpoint's, which is not trained further
    parity: HistoryParity | None = None
    # what generation itself says of it, where the subject lacks that part
    own: OwnHistory | None = None
    mend_first: tuple[str, ...] = ()  # confirmed causes that make a gap by themselves
    times: int = 0  # the steps of the longer training, over those of a course
    n_steps: int = 0  # its steps
    longer: Drift | None = None  # after it
    no_time: str = ""  # why there was no longer training


def measure(lab: Lab, confirmed: Collection[str]) -> SelfFedGap:
    """Free-running error by the number of self-fed frames; where it is large and nothing else
    makes it, again after a longer training.
    """
    numbers = SelfFedGap(
        drift=measure_drift(lab, lab.trained),
        hears=hears_history(lab, lab.trained),
        continues=lab.subject.continue_from is not None,
        from_checkpoint=lab.subject.checkpoint is not None,
    )
    if _by_itself(numbers) is not None:
        return numbers
    if numbers.continues:
        numbers = replace(numbers, parity=fed_as_trained(lab))
    elif numbers.hears and lab.subject.predict_frames is None:
        numbers = replace(numbers, own=own_history(lab, lab.trained))
    if _by_parity(numbers) is not None:
        return numbers
    numbers = replace(numbers, mend_first=tuple(sorted(set(confirmed) - set(NOT_HEARD))))
    if _by_what_is_known(numbers) is not None:
        return numbers
    times = lab.long_times
    numbers = replace(numbers, times=times, n_steps=times * lab.n_steps)
    try:
        longer = lab.course(times=times)
    except BudgetSpent as spent:
        return replace(numbers, no_time=str(spent))
    return replace(numbers, longer=measure_drift(lab, longer.model))


def decide(numbers: SelfFedGap) -> Decision:
    """Pure: which of the ends it is, in the order in which they are asked for."""
    early = _by_itself(numbers) or _by_parity(numbers) or _by_what_is_known(numbers)
    if early is not None:
        return early
    if numbers.longer is None:
        return Decision("undecided", reason="no time")
    stays = numbers.longer.free > DRIFTED and numbers.longer.free > STAYS * numbers.drift.free
    if numbers.longer.forced < LEARNT and stays:
        return Decision("confirmed", "generate", STRENGTH, "stays")
    level: Level = "excluded" if numbers.longer.free < DRIFT_FREE else "undecided"
    return Decision(level, "generate", reason="closes")


def _by_itself(numbers: SelfFedGap) -> Decision | None:
    if numbers.hears is False:
        return Decision("excluded", "generate", reason="hears nothing")
    if not numbers.drift.forced < LEARNT:
        return Decision("undecided", reason="not learnt")
    if numbers.drift.free < DRIFT_FREE:
        return Decision("excluded", "generate", reason="no gap")
    return None


def _by_parity(numbers: SelfFedGap) -> Decision | None:
    parity, own = numbers.parity, numbers.own
    if not numbers.continues:
        if own is None or not own.judged:
            return Decision("undecided", reason="no parity")
        fed_alike = own.holds and own.leaks <= LEAK
        return None if fed_alike else Decision("undecided", reason="fed otherwise")
    if parity is None or not parity.holds or parity.leaks is None or parity.leaks > LEAK:
        return Decision("undecided", reason="fed otherwise")
    return None


def _by_what_is_known(numbers: SelfFedGap) -> Decision | None:
    if numbers.mend_first:
        return Decision("undecided", reason="mend first")
    if not numbers.from_checkpoint:
        return None
    if numbers.drift.free > DRIFTED:
        return Decision("suspected", "generate", STRENGTH, "of a checkpoint")
    return Decision("undecided", "generate", STRENGTH, "of a checkpoint")


COUNTED = "error against the number of self-fed frames"
SAID = {
    "hears nothing": "no prediction follows the frames of the batch: the model never hears itself",
    "not learnt": "the batch is not learnt teacher-forced: train longer first",
    "no gap": COUNTED,
    "no parity": "supply Subject.continue_from: it tells whether generation is fed as training was",
    "fed otherwise": (
        "generation is not fed as training was, or training sees the future: mend that"
    ),
    "of a checkpoint": f"{COUNTED}, of the checkpoint; it is fed as in training",
}


def tell(numbers: SelfFedGap, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {
        "TF L1 / best constant": numbers.drift.forced,
        "FR L1 / best constant": numbers.drift.free,
    }
    for (first, last), error in numbers.drift.by_span.items():
        evidence[f"FR at frames {first} to {last}"] = error
    if decision.reason == "fed otherwise":
        if numbers.parity is not None:
            evidence["largest difference on the true history"] = numbers.parity.worst
        if numbers.own is not None:
            evidence["largest difference on its own history"] = numbers.own.worst
    if decision.reason in SAID:
        return Telling(SAID[decision.reason], evidence)
    if decision.reason == "mend first":
        known = " and ".join(numbers.mend_first)
        return Telling(f"mend {known} first, then compare again", evidence)
    if decision.reason == "no time":
        return Telling(
            f"next: train {numbers.n_steps} steps, then compare again, for an early gap"
            f" closes by itself in a healthy model ({numbers.no_time})",
            evidence,
        )
    times, longer = numbers.times, numbers.longer
    if longer is not None:
        evidence[f"TF after {times} times the steps"] = longer.forced
        evidence[f"FR after {times} times the steps"] = longer.free
    return Telling(
        f"{COUNTED}, and after {times} times the training; generation is fed as training was",
        evidence,
    )


CAUSE = Cause(
    id="generation.exposure_gap",
    title="errors grow while the model hears itself",
    experiment="error against the number of self-fed frames",
    fix="noise or dropout on the history, scheduled sampling, or a coarser reduction factor",
    experiments=(Experiment(measure, decide, tell, needs=("generate",)),),
    defect=False,
    after_others=True,
)
