"""Examine a cause in a laboratory: its experiments one by one, each answered for even where it
cannot run.
"""

from __future__ import annotations

from collections.abc import Iterable

from tts_workbook.faults.cause import Cause, Experiment
from tts_workbook.faults.finding import Finding, strongest
from tts_workbook.lab.lab import BudgetSpent, Lab

NOT_FINITE = "the prediction of a fresh model is not finite; next: mend that, and diagnose again"


def examine(cause: Cause, lab: Lab, confirmed: Iterable[str] = ()) -> Finding:
    """The strongest answer that the experiments of `cause` give. `confirmed` are the causes that
    are known, for a cause that is decided after the others.
    """
    answers = []
    for experiment in cause.experiments:
        answer = _answer(cause, experiment, lab, frozenset(confirmed))
        if answer is not None:
            answers.append(answer)
    if not answers:
        return Finding(cause.id, "undecided", f"next: {cause.experiment}")
    return strongest(answers)


def _answer(
    cause: Cause, experiment: Experiment, lab: Lab, confirmed: frozenset[str]
) -> Finding | None:
    missing = [part for part in experiment.needs if not lab.subject.has(part)]
    if missing:
        supply = " and Subject.".join(missing)
        return Finding(cause.id, "not applicable", f"not applicable: supply Subject.{supply}")
    try:
        if experiment.finite and not lab.predicts_numbers:
            return Finding(cause.id, "undecided", NOT_FINITE)
        known = (confirmed - {cause.id},) if cause.after_others else ()
        numbers = experiment.measure(lab, *known)
        decision = experiment.decide(numbers)
        if decision is None:
            return None
        telling = experiment.tell(numbers, decision)
    except BudgetSpent as spent:
        return Finding(cause.id, "undecided", str(spent))
    except Exception as error:
        # the subject's code may raise anything; it is said, and the other causes go on
        return Finding(
            cause.id, "undecided", f"{cause.id} could not run: {type(error).__name__}: {error}"
        )
    return Finding(
        cause.id,
        decision.level,
        telling.experiment,
        telling.evidence,
        decision.where,
        decision.strength,
        telling.fix,
        telling.mended_by,
    )
