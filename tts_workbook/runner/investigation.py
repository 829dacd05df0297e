"""The items of the findings that recorded studies rule on. Claims stand here, verdicts come from
the numbers.

A study that is absent or half done leaves its items undecided, with the reason: nothing is dropped
silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from tts_core.errors import WorkbookError, or_reason
from tts_workbook.runner.item_rulings import any_of, level_item, ruling, sticking_item, unanimous
from tts_workbook.runner.verdicts import Item
from tts_workbook.trials.paired_effects import (
    arm_values,
    by_pair,
    effect,
    effects,
    interaction_effect,
    layout_effect,
    paired_effect,
)
from tts_workbook.trials.studies import STUDIES
from tts_workbook.trials.study_records import read_study_record
from tts_workbook.trials.trial_result import TrialResult

Records = Mapping[str, Sequence[TrialResult]]
Maker = Callable[[Records, str, str], Item]  # (records, id, claim) -> the item
# next step 2
REMEDIES = (
    "theory_1_four_copies",
    "theory_3_lr_4e-4",
    "theory_3_lr_5e-4",
    "theory_4_no_weight_decay",
)
MORE = (
    "the same pairs on more clips, voices and seeds, with an interval on the other side of the"
    " margin"
)


def against(study: str) -> dict[str, str]:
    """Arm -> the arm it is compared with, for every arm of a study that is compared with one."""
    arms, base = STUDIES[study].arms, STUDIES[study].base
    compared = {spec.against for spec in arms.values()}
    return {
        name: spec.against or base
        for name, spec in arms.items()
        if name != base and name not in compared
    }


# --- how an item is made --------------------------------------------------------------------------


def paired(
    study: str, arm: str, direction: str, measure: str = "outcome", refuting: str = MORE
) -> Maker:
    """One arm against its base."""
    return lambda records, id, claim: ruling(
        id,
        claim,
        effect(records[study], arm, against(study)[arm], measure),
        direction,
        study,
        refuting,
    )


def layout(measure: str, direction: str) -> Maker:
    """The seed's generation layout against that of training, on the same sound models."""
    return lambda records, id, claim: ruling(
        id,
        claim,
        layout_effect(records["breaks"], "base", measure),
        direction,
        "breaks",
        "the layout on models with another go frame",
    )


def two_by_two(study: str, measure: str) -> Maker:
    """The interaction of memory norm and target standardisation."""
    return lambda records, id, claim: ruling(
        id,
        claim,
        interaction_effect(
            records[study],
            "base",
            "memory_norm",
            "standardise_targets",
            "memory_norm and standardise_targets",
            measure,
        ),
        "either",
        study,
        MORE,
    )


def norm_by_layout(records: Records, id: str, claim: str) -> Item:
    """Does the layout do the same harm where the memory norm is gone?"""
    found = {arm: by_pair(records["breaks"], arm) for arm in ("base", "memory_norm")}
    pairs = [pair for pair in found["base"] if pair in found["memory_norm"]]
    if not pairs:
        raise WorkbookError("study breaks: no pair with and without the memory norm")
    harm = {
        arm: {
            pair: (
                results[pair].measures["fr_seed_layout_over_constant"]
                - results[pair].measures["fr_over_constant"]
            )
            for pair in pairs
        }
        for arm, results in found.items()
    }
    differ = ruling(
        id,
        claim,
        paired_effect(
            "harm of the layout without the norm",
            "its harm with the norm",
            "fr_over_constant",
            harm["base"],
            harm["memory_norm"],
        ),
        "either",
        "breaks",
        MORE,
    )
    # the claim is that they do not differ
    opposite = {"supported": "refuted", "refuted": "supported", "undecided": "undecided"}
    return replace(differ, verdict=opposite[differ.verdict])


def best_remedy(records: Records, id: str, claim: str) -> Item:
    """The best of the findings' three remedies against half the best constant, free-running."""
    values = {arm: arm_values(records["theories"], arm, "fr_over_constant") for arm in REMEDIES}
    best = min(values, key=lambda arm: sum(values[arm]) / len(values[arm]))
    return level_item(
        id,
        claim,
        values[best],
        0.5,
        True,
        "FR L1 / best constant",
        f"study theories: the best of them, {best}",
        MORE,
    )


def any_remedy_reads(records: Records, id: str, claim: str) -> Item:
    """Does one of the remedies raise text use?"""
    found = {
        arm: effect(records["theories"], arm, against("theories")[arm], "text_use")
        for arm in REMEDIES
    }
    return any_of(id, claim, found, "increase", "theories", MORE)


def still_at_the_line(records: Records, id: str, claim: str) -> Item:
    """Where the updated overfit test of the findings ends, at their own size."""
    return unanimous(
        id,
        claim,
        arm_values(records["seed_size"], "base", "final_over_constant"),
        0.95,
        "mel L1 / best constant, last tenth of the steps",
        "study seed_size: base",
        MORE,
    )


def sticks(records: Records, id: str, claim: str) -> Item:
    """The map of the dose study and of the full size: does anything stay on the line to the end?"""
    return sticking_item(
        id, claim, [*records["dose"], *records["seed_size"]], 800, "studies dose and seed_size"
    )


# --- the items: id, a claim that could be false, how it is ruled on -------------------------------

CLAIMS: tuple[tuple[str, str, Maker], ...] = (
    (
        "theory_1",
        "batch size 1 is the trouble: four copies of the clip a step lower the mel curve",
        paired("theories", "theory_1_four_copies", "decrease"),
    ),
    (
        "theory_2",
        "the custom duration initialisation (bias 1.79, weight x 0.01) raises the mel curve",
        paired("theories", "theory_2_custom_initialisation", "increase"),
    ),
    (
        "theory_3",
        (
            "the learning rate 7e-5 is too low for one clip: 4e-4 (7e-5 x sqrt 32) lowers the mel"
            " curve"
        ),
        paired("theories", "theory_3_lr_4e-4", "decrease"),
    ),
    (
        "theory_3_lr_5e_4",
        "a learning rate of 5e-4 lowers the mel curve",
        paired("theories", "theory_3_lr_5e-4", "decrease"),
    ),
    (
        "theory_3_free_running",
        "a learning rate of 5e-4 lowers the free-running error too",
        paired("theories", "theory_3_lr_5e-4", "decrease", "fr_over_constant"),
    ),
    (
        "theory_4",
        "weight decay 0.01 keeps the model from overfitting: none lowers the mel curve",
        paired("theories", "theory_4_no_weight_decay", "decrease"),
    ),
    (
        "theory_5",
        (
            "teacher forcing weakens the learning signal: hiding half of the teacher's frames"
            " lowers the mel curve"
        ),
        paired("theories", "theory_5_half_the_frames_hidden", "decrease"),
    ),
    (
        "theory_5_text_use",
        "hiding half of the teacher's frames makes the failing model read its text",
        paired("repairs", "history_dropout", "increase", "text_use"),
    ),
    (
        "step_1",
        (
            "the updated overfit test (default initialisation, at the findings' size) still ends at"
            " the best-constant line"
        ),
        still_at_the_line,
    ),
    (
        "step_2",
        (
            "one of the three remedies (higher learning rate, no weight decay, copies of the clip)"
            " brings the free-running error below half the best constant"
        ),
        best_remedy,
    ),
    (
        "question_4",
        "7e-5 is too low for one clip even for a sound model: it raises the mel curve against 1e-3",
        paired(
            "breaks",
            "learning_rate",
            "increase",
            refuting="more steps: a low rate costs time and nothing else",
        ),
    ),
    (
        "difference_initialisation",
        "the custom duration initialisation raises the mel curve of a sound model",
        paired("breaks", "duration_initialisation", "increase"),
    ),
    (
        "fixed_clipping_trained",
        "clipping at 1.0 changes the mel curve of the whole training",
        paired("theories", "difference_no_clipping", "either"),
    ),
    (
        "fixed_mixed_precision_trained",
        "bf16 changes the mel curve of the whole training",
        paired("theories", "difference_bf16", "either"),
    ),
    (
        "suspect_1",
        (
            "the path from text to decoder is the cause: normalising the memory, and nothing else,"
            " makes the failing model read its text"
        ),
        paired(
            "repairs", "memory_norm", "increase", "text_use", "the norm without effect on text use"
        ),
    ),
    (
        "suspect_1_scale",
        (
            "it is the memory's scale, not the norm as such: multiplying it by 1/13.9 makes the"
            " failing model read its text"
        ),
        paired("repairs", "memory_scale", "increase", "text_use"),
    ),
    (
        "suspect_2",
        (
            "learning rate or optimisation at batch size 1 is the cause: mending it makes the"
            " failing model read its text"
        ),
        any_remedy_reads,
    ),
    (
        "suspect_3",
        "an initialisation that the test introduced is the cause: it raises the mel curve",
        paired("theories", "theory_2_custom_initialisation", "increase"),
    ),
    (
        "memory_norm_at_7e_5",
        "at the findings' learning rate the memory norm lowers the mel curve",
        paired("theories", "memory_norm", "decrease"),
    ),
    (
        "garbage_audio",
        "taking the memory norm from a sound model makes its free-running error garbage",
        paired(
            "breaks",
            "memory_norm",
            "increase",
            "fr_over_constant",
            "a sound model that survives the loss of the norm at this scale",
        ),
    ),
    (
        "garbage_audio_words",
        "taking the memory norm from a sound model costs one word of eight or more",
        paired("breaks", "memory_norm", "increase", "wer"),
    ),
    (
        "garbage_audio_stoi",
        "taking the memory norm from a sound model lowers its intelligibility (STOI)",
        paired("breaks", "memory_norm", "decrease", "stoi"),
    ),
    (
        "garbage_audio_layout",
        "the seed's generation layout alone raises the free-running error of a sound model",
        layout("fr", "increase"),
    ),
    (
        "garbage_audio_layout_words",
        "the seed's generation layout alone costs one word of eight or more",
        layout("wer", "increase"),
    ),
    (
        "garbage_audio_layout_stoi",
        "the seed's generation layout alone lowers the intelligibility (STOI)",
        layout("stoi", "decrease"),
    ),
    (
        "garbage_audio_interaction",
        (
            "memory norm and layout are independent causes: the layout adds as much to the"
            " free-running error with the norm as without it"
        ),
        norm_by_layout,
    ),
    (
        "norm_by_standardisation_repair",
        "repairing norm and target standardisation together is not the sum of both (mel curve)",
        two_by_two("repairs", "outcome"),
    ),
    (
        "norm_by_standardisation_break",
        (
            "breaking norm and target standardisation together is not the sum of both (free-running"
            " error)"
        ),
        two_by_two("breaks", "fr_over_constant"),
    ),
    (
        "sticks_to_the_end",
        (
            "some mapped configuration is on the best-constant line at step 800 after a plateau, as"
            " the findings report"
        ),
        sticks,
    ),
)


def recorded_studies(
    names: Iterable[str],
) -> tuple[dict[str, list[TrialResult]], dict[str, dict], dict[str, str]]:
    """(study -> results, study -> provenance, study -> why it is absent) of what `make evidence`
    recorded.

    A study that lacks an arm rules on nothing yet; one that lacks seeds does, with fewer pairs.
    """
    records, provenance, absent = {}, {}, {}
    for name in names:
        record, reason = or_reason(lambda: read_study_record(name))
        if record is None:
            absent[name] = reason
            continue
        results, origin = record
        if lacking := sorted(set(STUDIES[name].arms) - {result.trial.name for result in results}):
            absent[name] = (
                f"half recorded, without {', '.join(lacking)}; `make evidence` goes on with it"
            )
        else:
            records[name], provenance[name] = results, origin
    return records, provenance, absent


def investigation_items(records: Records) -> list[Item]:
    """Every item that the recorded studies rule on; one that cannot be computed is undecided and
    says why.
    """
    return [_item(records, id, claim, maker) for id, claim, maker in CLAIMS]


def _item(records: Records, id: str, claim: str, maker: Maker) -> Item:
    try:
        return maker(records, id, claim)
    except (WorkbookError, KeyError) as error:
        return Item(
            id=id,
            claim=claim,
            verdict="undecided",
            provenance=f"not measured: {error}",
            n=0,
            refuting_experiment="`make evidence`, which computes the study",
        )


def single_factors(records: Records, study: str, measure: str, direction: str) -> list[Item]:
    """One item per arm of `repairs` or `breaks`: what that one switch does to one measure,
    strongest first.
    """
    verb = {"breaks": "breaking", "repairs": "repairing"}[study]
    does = {"increase": "raises", "decrease": "lowers"}[direction]
    found = effects(records[study], against(study), measure)
    return [
        ruling(
            f"{study}_{arm.replace(' ', '_')}_{measure}",
            f"{verb} {arm} alone {does} {measure.replace('_', ' ')}",
            one,
            direction,
            study,
            MORE,
        )
        for arm, one in found.items()
    ]
