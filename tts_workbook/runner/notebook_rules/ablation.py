"""The rule of notebook 06: what the recorded studies say on the findings' claims.

Claims stand here, verdicts come from the numbers. A study that is absent or half done leaves its
items undecided, with the reason: nothing is dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tts_core.errors import WorkbookError
from tts_workbook.runner.notebook_rules.effect_items import (
    any_of_item,
    effect_item,
    level_item,
    measure_of,
    sticking_item,
    unanimous_item,
)
from tts_workbook.runner.verdicts import Item
from tts_workbook.trials.paired_effects import (
    Effect,
    arm_values,
    by_pair,
    effect,
    effects,
    interaction_effect,
    layout_effect,
    paired_effect,
)
from tts_workbook.trials.statistics import Direction, Verdict
from tts_workbook.trials.studies import STUDIES
from tts_workbook.trials.study_records import read_study_record
from tts_workbook.trials.trial_result import TrialResult

Records = Mapping[str, Sequence[TrialResult]]  # study -> its results
Maker = Callable[[Records, str, str], Item]  # (records, id, claim) -> the item
# arms of `theories` that the findings' next step 2 proposes
STEP_2_REMEDIES = (
    "theory_1_four_copies",
    "theory_3_lr_4e-4",
    "theory_3_lr_5e-4",
    "theory_4_no_weight_decay",
)
MORE = (
    "the same pairs on more clips, voices and seeds, with an interval on the other side of the"
    " margin"
)
FULL_BUDGET = 800  # steps, at whose end the findings' loss still stuck


@dataclass(frozen=True)
class Claim:
    """A sentence that could be false, and how it is ruled on."""

    id: str
    text: str
    make: Maker


def rule(records: Records) -> list[Item]:
    """Every item that the recorded studies rule on; one that cannot be computed is undecided and
    says why.
    """
    return [_item(records, claim) for claim in CLAIMS]


def _item(records: Records, claim: Claim) -> Item:
    try:
        return claim.make(records, claim.id, claim.text)
    except (WorkbookError, KeyError) as error:
        return Item(
            id=claim.id,
            claim=claim.text,
            verdict="undecided",
            provenance=f"not measured: {error}",
            n=0,
            refuting_experiment="`make evidence`, which computes the study",
        )


def single_factors(
    records: Records, study: str, measure: str, direction: Direction
) -> dict[str, Item]:
    """Arm of `repairs` or `breaks` -> what that one switch does to one measure, strongest first.
    Empty where the study is not recorded.
    """
    if study not in records:
        return {}
    verb = {"breaks": "breaking", "repairs": "repairing"}[study]
    does = {"increase": "raises", "decrease": "lowers"}[direction]
    found = effects(records[study], against(study), measure)
    items = {}
    for arm, one in found.items():
        items[arm] = effect_item(
            f"{study}_{arm.replace(' ', '_')}_{measure}",
            f"{verb} {arm} alone {does} {measure.replace('_', ' ')}",
            one,
            direction,
            study,
            MORE,
        )
    return items


def answer(items: Sequence[Item], breaks: Mapping[str, Item], repairs: Mapping[str, Item]) -> str:
    """The notebook's answer in words: the strongest single break and repair that were confirmed,
    and how many of all claims were ruled on which way.
    """
    everything = [*items, *breaks.values(), *repairs.values()]
    counts = tally_verdicts(everything)
    return (
        f"{_strongest_break(breaks)} {_strongest_repair(repairs)} Of {len(everything)} claims"
        f" {counts['supported']} are supported, {counts['refuted']} refuted,"
        f" {counts['undecided']} undecided."
    )


def tally_verdicts(items: Sequence[Item]) -> dict[str, int]:
    """Verdict -> how many items have it."""
    verdicts = [item.verdict for item in items]
    return {name: verdicts.count(name) for name in ("supported", "refuted", "undecided")}


def _strongest_break(breaks: Mapping[str, Item]) -> str:
    for arm, item in breaks.items():
        if item.verdict == "supported" and item.interval is not None:
            low, high = item.interval
            return (
                f"The strongest single break is {_in_words(arm)}: it raises the free-running error"
                f" by {item.effect:.2f} of the best constant (95 %: {low:.2f} to {high:.2f})."
            )
    return "No single break was confirmed."


def _strongest_repair(repairs: Mapping[str, Item]) -> str:
    for arm, item in repairs.items():
        if item.verdict == "supported" and item.interval is not None:
            low, high = item.interval
            return (
                f"The repair that most makes the failing model read is {_in_words(arm)}: text use"
                f" {item.effect:+.2f} (95 %: {low:+.2f} to {high:+.2f})."
            )
    return "No single repair made the failing model read."


def _in_words(arm: str) -> str:
    return arm.replace("_", " ")


def against(study: str) -> dict[str, str]:
    """Arm -> the arm it is compared with, for every arm of a study that is compared with one."""
    arms, base = STUDIES[study].arms, STUDIES[study].base
    compared = {spec.against for spec in arms.values()}
    return {
        name: spec.against or base
        for name, spec in arms.items()
        if name != base and name not in compared
    }


# --- what was recorded ----------------------------------------------------------------------------


def recorded_studies(
    names: Iterable[str],
) -> tuple[dict[str, list[TrialResult]], dict[str, dict[str, Any]], dict[str, str]]:
    """(study -> results, study -> provenance, study -> why it is absent) of what `make evidence`
    recorded.

    A study that lacks an arm rules on nothing yet; one that lacks seeds does, with fewer pairs.
    """
    records, provenance, absent = {}, {}, {}
    for name in names:
        try:
            results, origin = read_study_record(name)
        except WorkbookError as error:
            absent[name] = str(error)
            continue
        there = {result.trial.name for result in results}
        lacking = sorted(set(STUDIES[name].arms) - there)
        if lacking:
            absent[name] = (
                f"half recorded, without {', '.join(lacking)}; `make evidence` goes on with it"
            )
            continue
        records[name], provenance[name] = results, origin
    return records, provenance, absent


# --- how an item is made --------------------------------------------------------------------------


def _paired(
    study: str, arm: str, direction: Direction, measure: str = "outcome", refuting: str = MORE
) -> Maker:
    """One arm against its base."""

    def make(records: Records, id: str, claim: str) -> Item:
        found = effect(records[study], arm, against(study)[arm], measure)
        return effect_item(id, claim, found, direction, study, refuting)

    return make


def _layout(measure: str, direction: Direction) -> Maker:
    """The seed's generation layout against that of training, on the same sound models."""

    def make(records: Records, id: str, claim: str) -> Item:
        found = layout_effect(records["breaks"], "base", measure)
        refuting = "the layout on models with another go frame"
        return effect_item(id, claim, found, direction, "breaks", refuting)

    return make


def _two_by_two(study: str, measure: str) -> Maker:
    """The interaction of memory norm and target standardisation."""

    def make(records: Records, id: str, claim: str) -> Item:
        found = interaction_effect(
            records[study],
            "base",
            "memory_norm",
            "standardise_targets",
            "memory_norm and standardise_targets",
            measure,
        )
        return effect_item(id, claim, found, "either", study, MORE)

    return make


def _norm_by_layout(records: Records, id: str, claim: str) -> Item:
    """Does the layout do the same harm where the memory norm is gone?"""
    differ = effect_item(id, claim, _harm_of_layout(records), "either", "breaks", MORE)
    # the claim is that they do not differ
    opposite: dict[Verdict, Verdict] = {
        "supported": "refuted",
        "refuted": "supported",
        "undecided": "undecided",
    }
    return replace(differ, verdict=opposite[differ.verdict])


def _harm_of_layout(records: Records) -> Effect:
    """The layout's harm without the memory norm against its harm with the norm."""
    with_norm = by_pair(records["breaks"], "base")
    without_norm = by_pair(records["breaks"], "memory_norm")
    pairs = [pair for pair in with_norm if pair in without_norm]
    if not pairs:
        raise WorkbookError("study breaks: no pair with and without the memory norm")

    def harm(result: TrialResult) -> float:
        wrong_layout = measure_of(result, "fr_seed_layout_over_constant")
        return wrong_layout - measure_of(result, "fr_over_constant")

    return paired_effect(
        "harm of the layout without the norm",
        "its harm with the norm",
        "fr_over_constant",
        before={pair: harm(with_norm[pair]) for pair in pairs},
        after={pair: harm(without_norm[pair]) for pair in pairs},
    )


def _best_remedy(records: Records, id: str, claim: str) -> Item:
    """The best of the findings' three remedies against half the best constant, free-running."""
    values, means = {}, {}
    for arm in STEP_2_REMEDIES:
        values[arm] = arm_values(records["theories"], arm, "fr_over_constant")
        means[arm] = sum(values[arm]) / len(values[arm])
    best = min(STEP_2_REMEDIES, key=lambda arm: means[arm])
    return level_item(
        id,
        claim,
        values[best],
        level=0.5,
        below=True,
        unit="FR L1 / best constant",
        source=f"study theories: the best of them, {best}",
        refuting=MORE,
    )


def _any_remedy_reads(records: Records, id: str, claim: str) -> Item:
    """Does one of the remedies raise text use?"""
    compared = against("theories")
    found = {
        arm: effect(records["theories"], arm, compared[arm], "text_use") for arm in STEP_2_REMEDIES
    }
    return any_of_item(id, claim, found, "increase", "theories", MORE)


def _still_at_the_line(records: Records, id: str, claim: str) -> Item:
    """Where the updated overfit test of the findings ends, at their own size."""
    return unanimous_item(
        id,
        claim,
        arm_values(records["seed_size"], "base", "final_over_constant"),
        level=0.95,
        unit="mel L1 / best constant, last tenth of the steps",
        source="study seed_size: base",
        refuting=MORE,
    )


def _sticks(records: Records, id: str, claim: str) -> Item:
    """The map of the dose study and of the full size: does anything stay on the line to the end?"""
    mapped = [*records["dose"], *records["seed_size"]]
    return sticking_item(id, claim, mapped, FULL_BUDGET, "studies dose and seed_size")


# --- the claims -----------------------------------------------------------------------------------

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "theory_1",
        "batch size 1 is the trouble: four copies of the clip a step lower the mel curve",
        _paired("theories", "theory_1_four_copies", "decrease"),
    ),
    Claim(
        "theory_2",
        "the custom duration initialisation (bias 1.79, weight x 0.01) raises the mel curve",
        _paired("theories", "theory_2_custom_initialisation", "increase"),
    ),
    Claim(
        "theory_3",
        (
            "the learning rate 7e-5 is too low for one clip: 4e-4 (7e-5 x sqrt 32) lowers the mel"
            " curve"
        ),
        _paired("theories", "theory_3_lr_4e-4", "decrease"),
    ),
    Claim(
        "theory_3_lr_5e_4",
        "a learning rate of 5e-4 lowers the mel curve",
        _paired("theories", "theory_3_lr_5e-4", "decrease"),
    ),
    Claim(
        "theory_3_free_running",
        "a learning rate of 5e-4 lowers the free-running error too",
        _paired("theories", "theory_3_lr_5e-4", "decrease", "fr_over_constant"),
    ),
    Claim(
        "theory_4",
        "weight decay 0.01 keeps the model from overfitting: none lowers the mel curve",
        _paired("theories", "theory_4_no_weight_decay", "decrease"),
    ),
    Claim(
        "theory_5",
        (
            "teacher forcing weakens the learning signal: hiding half of the teacher's frames"
            " lowers the mel curve"
        ),
        _paired("theories", "theory_5_half_the_frames_hidden", "decrease"),
    ),
    Claim(
        "theory_5_text_use",
        "hiding half of the teacher's frames makes the failing model read its text",
        _paired("repairs", "history_dropout", "increase", "text_use"),
    ),
    Claim(
        "step_1",
        (
            "the updated overfit test (default initialisation, at the findings' size) still ends at"
            " the best-constant line"
        ),
        _still_at_the_line,
    ),
    Claim(
        "step_2",
        (
            "one of the three remedies (higher learning rate, no weight decay, copies of the clip)"
            " brings the free-running error below half the best constant"
        ),
        _best_remedy,
    ),
    Claim(
        "question_4",
        "7e-5 is too low for one clip even for a sound model: it raises the mel curve against 1e-3",
        _paired(
            "breaks",
            "learning_rate",
            "increase",
            refuting="more steps: a low rate costs time and nothing else",
        ),
    ),
    Claim(
        "difference_initialisation",
        "the custom duration initialisation raises the mel curve of a sound model",
        _paired("breaks", "duration_initialisation", "increase"),
    ),
    Claim(
        "fixed_clipping_trained",
        "clipping at 1.0 changes the mel curve of the whole training",
        _paired("theories", "difference_no_clipping", "either"),
    ),
    Claim(
        "fixed_mixed_precision_trained",
        "bf16 changes the mel curve of the whole training",
        _paired("theories", "difference_bf16", "either"),
    ),
    Claim(
        "suspect_1",
        (
            "the path from text to decoder is the cause: normalising the memory, and nothing else,"
            " makes the failing model read its text"
        ),
        _paired(
            "repairs", "memory_norm", "increase", "text_use", "the norm without effect on text use"
        ),
    ),
    Claim(
        "suspect_1_scale",
        (
            "it is the memory's scale, not the norm as such: multiplying it by 1/13.9 makes the"
            " failing model read its text"
        ),
        _paired("repairs", "memory_scale", "increase", "text_use"),
    ),
    Claim(
        "suspect_2",
        (
            "learning rate or optimisation at batch size 1 is the cause: mending it makes the"
            " failing model read its text"
        ),
        _any_remedy_reads,
    ),
    Claim(
        "suspect_3",
        "an initialisation that the test introduced is the cause: it raises the mel curve",
        _paired("theories", "theory_2_custom_initialisation", "increase"),
    ),
    Claim(
        "memory_norm_at_7e_5",
        "at the findings' learning rate the memory norm lowers the mel curve",
        _paired("theories", "memory_norm", "decrease"),
    ),
    Claim(
        "garbage_audio",
        "taking the memory norm from a sound model makes its free-running error garbage",
        _paired(
            "breaks",
            "memory_norm",
            "increase",
            "fr_over_constant",
            "a sound model that survives the loss of the norm at this scale",
        ),
    ),
    Claim(
        "garbage_audio_words",
        "taking the memory norm from a sound model costs one word of eight or more",
        _paired("breaks", "memory_norm", "increase", "wer"),
    ),
    Claim(
        "garbage_audio_stoi",
        "taking the memory norm from a sound model lowers its intelligibility (STOI)",
        _paired("breaks", "memory_norm", "decrease", "stoi"),
    ),
    Claim(
        "garbage_audio_layout",
        "the seed's generation layout alone raises the free-running error of a sound model",
        _layout("fr", "increase"),
    ),
    Claim(
        "garbage_audio_layout_words",
        "the seed's generation layout alone costs one word of eight or more",
        _layout("wer", "increase"),
    ),
    Claim(
        "garbage_audio_layout_stoi",
        "the seed's generation layout alone lowers the intelligibility (STOI)",
        _layout("stoi", "decrease"),
    ),
    Claim(
        "garbage_audio_interaction",
        (
            "memory norm and layout are independent causes: the layout adds as much to the"
            " free-running error with the norm as without it"
        ),
        _norm_by_layout,
    ),
    Claim(
        "norm_by_standardisation_repair",
        "repairing norm and target standardisation together is not the sum of both (mel curve)",
        _two_by_two("repairs", "outcome"),
    ),
    Claim(
        "norm_by_standardisation_break",
        (
            "breaking norm and target standardisation together is not the sum of both (free-running"
            " error)"
        ),
        _two_by_two("breaks", "fr_over_constant"),
    ),
    Claim(
        "sticks_to_the_end",
        (
            "some mapped configuration is on the best-constant line at step 800 after a plateau, as"
            " the findings report"
        ),
        _sticks,
    ),
)
