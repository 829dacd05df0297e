"""The rule of notebook 08: what two diagnoses of a model that is not ours say on the diagnosis."""

from __future__ import annotations

from dataclasses import dataclass

from tts_workbook.lab.short_run import LEARNT
from tts_workbook.runner.verdicts import Item
from tts_workbook.trials.statistics import Verdict


@dataclass(frozen=True)
class DiagnosisNumbers:
    """A sound model diagnosed as it is, and with one planted fault."""

    sound_passed: bool  # the overfit gate; a sound twin that learns its batch comes first
    sound_healthy: bool  # so the diagnosis says
    sound_findings: int  # causes named in the sound model
    planted_named_first: bool  # the planted cause, confirmed, at its place
    planted_rank: int  # of the planted cause, from 1; 0 where it is not named
    planted_passed: bool  # the overfit gate, with the fault
    planted_tf_over_constant: float  # TF L1 / best constant at the end, with the fault


def rule(numbers: DiagnosisNumbers, part: str, provenance: str) -> list[Item]:
    """The items on the diagnosis. `part` is what the optimiser never got; all stay undecided where
    the sound model does not learn its batch.
    """

    def ruled(holds: bool) -> Verdict:
        if not numbers.sound_passed:
            return "undecided"
        return "supported" if holds else "refuted"

    return [
        Item(
            id="diagnosis_healthy",
            claim="the diagnosis finds nothing wrong with a sound model that is not ours",
            verdict=ruled(numbers.sound_healthy),
            effect=numbers.sound_findings,
            unit="causes named",
            threshold=0,
            n=1,
            unit_of_replication="run",
            provenance=provenance,
            refuting_experiment=(
                "a cause named in it, at other seeds, or one whose repair makes it learn faster"
            ),
        ),
        Item(
            id="diagnosis_planted",
            claim=f"an {part} that the optimiser never got is named first, confirmed, at its place",
            verdict=ruled(numbers.planted_named_first),
            effect=numbers.planted_rank,
            unit="rank of the planted cause",
            threshold=1,
            n=1,
            unit_of_replication="run",
            provenance=provenance,
            refuting_experiment=(
                "the same fault in another module or model, named second or not at all"
            ),
        ),
        Item(
            id="diagnosis_planted_is_silent",
            claim=(
                "the loss alone does not tell that model from the sound one: both pass the overfit"
                " gate"
            ),
            verdict=ruled(numbers.planted_passed),
            effect=numbers.planted_tf_over_constant,
            unit="TF L1 / best constant with the fault",
            threshold=LEARNT,
            n=1,
            unit_of_replication="run",
            provenance=provenance,
            refuting_experiment=(
                "a training so long that the model without its encoder falls behind"
            ),
        ),
    ]
