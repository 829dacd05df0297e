"""model.bad_initialisation: an initialisation that starves or saturates a branch."""

from __future__ import annotations

from collections.abc import Iterable

from tts_workbook.faults.cause import Cause, Decision, Experiment, Telling
from tts_workbook.faults.model._hearing import EXPERIMENT, Hearing, hearing
from tts_workbook.faults.selection import paired
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.run_changes import reinitialise
from tts_workbook.measure.initial_weights import odd_weights


def measure(lab: Lab) -> Hearing | None:
    """Whether a model that is deaf to its text hears it once its odd weights are drawn anew."""
    return hearing(lab) if lab.predicts_numbers else None


def decide(numbers: Hearing | None) -> Decision | None:
    """Pure: confirmed where the initialisation alone makes it deaf; else the paired runs decide."""
    if numbers is None or not numbers.heard_when_initialised:
        return None
    return Decision("confirmed", numbers.oddest, 1.0, "heard again")


def tell(numbers: Hearing, decision: Decision) -> Telling:
    assert numbers.redrawn is not None
    return Telling(
        f"{EXPERIMENT}; and with {numbers.oddest} and others of odd size drawn anew as the one"
        " factor",
        {**numbers.evidence, "move by default initialisation, fresh": numbers.redrawn},
    )


def propose(lab: Lab) -> Iterable[Suspect]:
    """Modules whose weights are far from their default initialisation in size; all of them drawn
    anew.
    """
    odd = odd_weights(lab)
    if odd:
        worst = next(iter(odd))
        yield Suspect(
            CAUSE.id,
            reinitialise(odd),
            {
                "modules far from their default": float(len(odd)),
                f"size of {worst} over its default": odd[worst],
            },
            worst,
            always=False,
        )


CAUSE = Cause(
    id="model.bad_initialisation",
    title="an initialisation that starves or saturates a branch",
    experiment="the module's default initialisation as the one factor, same seeds",
    fix="leave PyTorch's default initialisation, or scale by the fan",
    experiments=(Experiment(measure, decide, tell), paired("model.bad_initialisation")),
    propose=propose,
    upstream=7,
)
