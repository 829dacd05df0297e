"""What notebook 07 rules of a model of the user's: can it be understood, is its vocoder good
enough, and is generation fed what training fed?
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tts_workbook.faults.generation.layout import nearest_frame, parity_table
from tts_workbook.runner.notebook_rules.overfitting import UNIT
from tts_workbook.runner.notebook_rules.ruling import (
    Ruling,
    finite,
    metric_name,
    own_id,
    unmeasured,
)
from tts_workbook.runner.own_listening import OwnSpeech
from tts_workbook.runner.verdicts import Item
from tts_workbook.trials.statistics import Verdict

# relative, of the teacher-forced error: what threads and libraries may change of the same weights
SAME_MODEL = 0.01
# STOI against copy-synthesis from which on audio counts as intelligible as the vocoder allows
SOUND = 0.9
COPY_BAR = 0.75
COPY_CLAIM = (
    "its vocoder gives the recording back from the target mel: its STOI against the recording is at"
    " least 0.75"
)
HEARD_CLAIM = (
    "free-running, it is as intelligible as its own copy-synthesis (STOI against that of at least"
    " 0.9)"
)
FED_CLAIM = (
    "generation is fed what training fed: on the true history its code gives the teacher-forced"
    " frames"
)


def rule_on_speech(
    speech: Mapping[str, OwnSpeech], lacking: Mapping[str, str], where: str, beside: bool
) -> list[Ruling]:
    """One ruling for each model of the user's; `lacking` says why one could not be heard, `beside`
    whether presets stand beside them.
    """
    others = list(dict.fromkeys((*speech, *lacking)))
    rulings = []
    for name in others:
        prefix = f"{metric_name(name)}_" if beside or len(others) > 1 else ""
        place = f"notebook 07, {name}, {where.partition(', ')[2]}"
        if name in speech:
            rulings.append(_rule_on_one(speech[name], name, others, place, prefix))
        else:
            rulings.append(_silent(name, lacking[name], others))
    return rulings


def _silent(name: str, reason: str, others: Sequence[str]) -> Ruling:
    claims = {"generation_fed_as_training": FED_CLAIM, "understood": HEARD_CLAIM}
    items = [unmeasured(own_id(id, name, others), claim, reason) for id, claim in claims.items()]
    return Ruling(f"{name}: nothing can be heard: {reason}.", {}, items)


def _rule_on_one(
    one: OwnSpeech, name: str, others: Sequence[str], where: str, prefix: str
) -> Ruling:
    common: dict[str, Any] = dict(n=1, unit_of_replication="seed", provenance=where)
    items = []
    if one.trained_error is not None:
        restored = own_id("weights_restored", name, others)
        items.append(_restored_item(one, one.trained_error, restored, common))
    items.append(_fed_item(one, own_id("generation_fed_as_training", name, others), common))
    items.append(_copy_item(one, own_id("copy_synthesis", name, others), common))
    items.append(_heard_item(one, own_id("understood", name, others), common))
    metrics = {f"{prefix}{key}": value for key, value in _metrics(one).items()}
    return Ruling(f"{name}: {_answer(one)}", metrics, items)


def _restored_item(one: OwnSpeech, then: float, id: str, common: Mapping[str, Any]) -> Item:
    """Whether the saved weights are the model that notebook 03 judged: a state dict may lack a part
    of it.
    """
    off = abs(one.found.headline["TF L1 / best constant"] - then) / then
    return Item(
        id=id,
        claim=(
            "the state dict holds the whole model: loaded again, it has the error that notebook 03"
            " measured"
        ),
        verdict="supported" if off <= SAME_MODEL else "refuted",
        effect=off if math.isfinite(off) else None,
        unit="relative difference of the teacher-forced error",
        threshold=SAME_MODEL,
        **common,
        refuting_experiment="loading it in another process, with other threads",
    )


def _fed_item(one: OwnSpeech, id: str, common: Mapping[str, Any]) -> Item:
    if one.fed is None:
        lacking = one.lacking.get("continue_from")
        return unmeasured(id, FED_CLAIM, f"not judged: {lacking}" if lacking else one.not_fed)
    fed = one.fed
    verdict: Verdict = "undecided"
    if fed.holds:
        verdict = "supported"
    elif fed.comparable and math.isfinite(fed.worst):
        verdict = "refuted"
    nearest = "" if fed.nearest is None else f"; nearest: {nearest_frame(fed.nearest)}"
    return Item(
        id=id,
        claim=FED_CLAIM,
        verdict=verdict,
        effect=fed.worst if math.isfinite(fed.worst) else None,
        unit=f"largest difference of a frame, {UNIT}",
        n=len(fed.difference),
        unit_of_replication="frames of one batch",
        provenance=f"{common['provenance']}{nearest}",
        refuting_experiment="a frame, or another batch, at which the two part",
    )


def fed_line(one: OwnSpeech) -> str:
    """Generation on the true history beside teacher forcing, in one line; empty where unknown."""
    if one.fed is None:
        return ""
    numbers = [
        f"{name} {value if isinstance(value, str) else format(value, '.3g')}"
        for name, value in parity_table(one.fed).items()
    ]
    return ", ".join(numbers)


def _copy_item(one: OwnSpeech, id: str, common: Mapping[str, Any]) -> Item:
    if one.copied is None:
        lacking = one.lacking.get("audio,vocode", "a recording and its copy-synthesis")
        return unmeasured(id, COPY_CLAIM, f"not judged: {lacking}")
    score = one.copied.stoi
    return _stoi_item(
        id,
        COPY_CLAIM,
        score,
        COPY_BAR,
        common,
        unit="STOI against the recording",
        refuting="listening to the pair; area data of `tts-workbook diagnose`",
    )


def _heard_item(one: OwnSpeech, id: str, common: Mapping[str, Any]) -> Item:
    lacking = one.lacking.get("generate,vocode")
    if lacking:
        return unmeasured(id, HEARD_CLAIM, f"not judged: {lacking}")
    return _stoi_item(
        id,
        HEARD_CLAIM,
        one.scores.get("free-running", math.nan),
        SOUND,
        common,
        unit="STOI against copy-synthesis",
        refuting="listening; other clips, or a longer training",
    )


def _stoi_item(
    id: str,
    claim: str,
    score: float,
    bar: float,
    common: Mapping[str, Any],
    unit: str,
    refuting: str,
) -> Item:
    verdict: Verdict = "undecided"
    if math.isfinite(score):
        verdict = "supported" if score >= bar else "refuted"
    return Item(
        id=id,
        claim=claim,
        verdict=verdict,
        effect=score if math.isfinite(score) else None,
        unit=unit,
        threshold=bar,
        n=common["n"],
        unit_of_replication="clip",
        provenance=common["provenance"],
        refuting_experiment=refuting,
    )


def _answer(one: OwnSpeech) -> str:
    advice = one.found.advice
    parts = [f"{advice[0].upper()}{advice[1:]}."]
    if one.scores:
        heard = ", ".join(f"{name} {score:.3f}" for name, score in one.scores.items())
        parts.append(f"STOI against its copy-synthesis: {heard}.")
    if one.fed is not None and one.fed.holds:
        parts.append("Generation is fed what training fed.")
    elif one.fed is not None:
        parts.append(
            f"On the true history generation is {one.fed.worst:.2f} {UNIT} away from teacher"
            " forcing."
        )
    reasons = [reason for reason in one.found.missing.values() if "Subject." in reason]
    lacking = sorted({reason.split("Subject.")[1] for reason in reasons})
    if lacking:
        parts.append(f"Not applicable without Subject.{', Subject.'.join(lacking)}.")
    return " ".join(parts)


def _metrics(one: OwnSpeech) -> dict[str, float]:
    metrics = {metric_name(name): value for name, value in one.found.headline.items()}
    metrics |= {metric_name(f"stoi {name}"): score for name, score in one.scores.items()}
    if one.fed is not None:
        metrics["generation_difference"] = one.fed.worst
        metrics["generation_sensitivity"] = one.fed.sensitivity
    return finite(metrics)
