"""What notebook 03 rules from its trainings: `rule(found)` gives answer, metrics and items.

The presets rule on the findings' claims about one clip; a model of the user's is ruled on by
itself. Every threshold stands in the item that it decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tts_core.metrics.text_use import N_PERMUTATIONS
from tts_workbook.lab.short_run import LEARNT
from tts_workbook.measure.trajectory import Trajectory
from tts_workbook.runner.notebook_rules.ruling import (
    Ruling,
    finite,
    metric_name,
    own_id,
    together,
    unmeasured,
)
from tts_workbook.runner.verdicts import Item
from tts_workbook.trials.preset_arm import ModelJudgement
from tts_workbook.trials.statistics import Verdict

READS = 1.1  # text use above this counts as reading
UNIT = "of the best constant"
WORDS = {"supported": "Yes", "refuted": "No", "undecided": "Undecided"}
PRESETS = ("healthy", "no_norm", "seed")


@dataclass(frozen=True)
class OwnTraining:
    """A model of the user's, trained on its own batch; errors are over the best constant, NaN where
    the training broke, None where the subject lacks the part.
    """

    n_steps: int
    seed: int
    broke: str  # what the step raised, empty where it did not
    best_constant: float  # in the units of its target
    copy_previous: float
    update_ratio: float
    teacher_forced: float
    free_running: float | None
    text_use: float | None
    frames_generated: float | None  # over frames wanted
    lacking: Mapping[str, str]  # part -> what to supply


@dataclass(frozen=True)
class Overfits:
    """What was trained, by the name of the subject unless said otherwise."""

    where: str  # clip, profile and seed, for the provenance
    baselines: Mapping[str, float] = field(default_factory=dict)  # of the clip, standard recipe
    outcomes: Mapping[str, ModelJudgement] = field(default_factory=dict)  # of the presets
    trajectories: Mapping[str, Trajectory] = field(default_factory=dict)
    text_share: Mapping[str, float] = field(default_factory=dict)  # of the mel gradient, after
    stopped: Mapping[str, str] = field(default_factory=dict)  # by hand, in words
    from_previous: float = math.nan  # L1 of no_norm's frames against the frames before
    own: Mapping[str, OwnTraining] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)  # why one was not trained

    @property
    def others(self) -> list[str]:
        return list(dict.fromkeys((*self.own, *self.lacking)))


def rule(found: Overfits) -> Ruling:
    """Rule on the findings' claims where all three presets were trained, on what there is of them
    otherwise, and on every other subject.
    """
    rulings = [_rule_on_presets(found)] if found.outcomes else []
    rulings += [_rule_on_one(found, name, bool(rulings)) for name in found.others]
    return together(rulings, "nothing could be trained")


# --- a subject by itself --------------------------------------------------------------------------


def _rule_on_one(found: Overfits, name: str, beside: bool) -> Ruling:
    ids = {
        id: own_id(id, name, found.others) if not beside else f"{id}_{metric_name(name)}"
        for id in ("overfit_gate", "overfit_free_running", "text_used")
    }
    if name not in found.own:
        reason = f"not judged: {found.lacking[name]}"
        item = unmeasured(ids["overfit_gate"], "it overfits its batch", reason)
        return Ruling(f"{name}: {reason}.", {}, [item])
    one = found.own[name]
    common: dict[str, Any] = dict(
        n=1,
        unit_of_replication="seed",
        provenance=f"notebook 03, {name}, {found.where.partition(', ')[2]}",
    )
    prefix = f"{metric_name(name)}_" if beside or len(found.others) > 1 else ""
    metrics = {f"{prefix}{key}": number for key, number in _own_metrics(one).items()}
    items = [
        _own_gate(one, ids["overfit_gate"], common),
        _own_free_running(one, ids["overfit_free_running"], common),
        _own_reads(one, ids["text_used"], common),
    ]
    return Ruling(f"{name}: {_own_answer(one)}", metrics, items)


def _learnt(one: OwnTraining) -> bool:
    return one.teacher_forced < LEARNT and not one.broke


def _own_answer(one: OwnTraining) -> str:
    others = ""
    if one.free_running is not None:
        others += f", free-running {one.free_running:.3f}"
    if one.text_use is not None:
        others += f", text use {one.text_use:.3f}"
    broke = f" The training broke: {one.broke}." if one.broke else ""
    return (
        f"{'It learns' if _learnt(one) else 'It does not learn'} its batch in {one.n_steps} steps:"
        f" teacher-forced mel L1 {one.teacher_forced:.3f} {UNIT}{others};"
        f" copying the previous frame has {one.copy_previous:.3f}.{broke}"
    )


def _own_gate(one: OwnTraining, id: str, common: Mapping[str, Any]) -> Item:
    return Item(
        id=id,
        claim=f"within {one.n_steps} steps its teacher-forced mel L1 falls below {LEARNT} {UNIT}",
        verdict="supported" if _learnt(one) else "refuted",
        effect=one.teacher_forced if math.isfinite(one.teacher_forced) else None,
        unit=UNIT,
        threshold=LEARNT,
        **common,
        refuting_experiment="a longer run, or another seed, that ends on the other side",
    )


def _own_free_running(one: OwnTraining, id: str, common: Mapping[str, Any]) -> Item:
    claim = (
        "it overfits its batch judged free-running: the error is below that of copying the previous"
        " frame"
    )
    if one.free_running is None:
        return unmeasured(id, claim, _why_not(one, "generate"))
    return Item(
        id=id,
        claim=claim,
        verdict="supported" if one.free_running < one.copy_previous else "refuted",
        effect=one.free_running if math.isfinite(one.free_running) else None,
        unit=f"FR L1, {UNIT}",
        threshold=one.copy_previous,
        **common,
        refuting_experiment=(
            "a longer training, or another seed; an early gap to teacher forcing may close by"
            " itself"
        ),
    )


def _own_reads(one: OwnTraining, id: str, common: Mapping[str, Any]) -> Item:
    claim = (
        f"it reads its text: permuted phonemes raise its teacher-forced error at least {READS}"
        " times"
    )
    if one.text_use is None:
        return unmeasured(id, claim, _why_not(one, "shuffle_text"))
    return Item(
        id=id,
        claim=claim,
        verdict="supported" if one.text_use > READS else "refuted",
        effect=one.text_use if math.isfinite(one.text_use) else None,
        unit="text use (1: ignored)",
        threshold=READS,
        n=N_PERMUTATIONS,
        unit_of_replication="permutations of one batch, one training",
        provenance=common["provenance"],
        refuting_experiment="a longer training; other permutations",
    )


def _why_not(one: OwnTraining, part: str) -> str:
    if part in one.lacking:
        return f"not judged: {one.lacking[part]}"
    return "the training broke: nothing to judge"


def _own_metrics(one: OwnTraining) -> dict[str, float]:
    metrics: dict[str, float] = {
        "best_constant_l1": one.best_constant,
        "copy_previous": one.copy_previous,
        "steps": one.n_steps,
        "seed": one.seed,
        "update_ratio": one.update_ratio,
        "teacher_forced": one.teacher_forced,
    }
    if one.free_running is not None:
        metrics["free_running"] = one.free_running
    if one.frames_generated is not None:
        metrics["frames_generated_over_frames_wanted"] = one.frames_generated
    if one.text_use is not None:
        metrics["text_use"] = one.text_use
        metrics["teacher_forced_text_shuffled"] = one.text_use * one.teacher_forced
    return finite(metrics)


# --- the presets, and the findings' claims --------------------------------------------------------


def _rule_on_presets(found: Overfits) -> Ruling:
    notes = "".join(f"; {note}" for note in found.stopped.values())
    common: dict[str, Any] = dict(
        n=1, unit_of_replication="run", provenance=f"notebook 03, {found.where}{notes}"
    )
    items, there = [], found.outcomes
    if "healthy" in there:
        items.append(_gate_item(found, common))
    if "healthy" in there and "no_norm" in there:
        items.append(_memory_norm_item(found, common))
    if "seed" in there:
        items.append(_plateau_item(found, common))
    return Ruling(_presets_answer(found), _presets_metrics(found), items)


def _passes(found: Overfits) -> bool:
    """Whether healthy overfits the clip, judged free-running."""
    healthy = found.outcomes["healthy"]
    below = healthy.gap.fr_l1 < found.baselines["copy_previous"]
    return below and healthy.text_use.ratio > READS


def _gate(found: Overfits) -> Verdict:
    if "healthy" in found.stopped:
        return "undecided"
    return "supported" if _passes(found) else "refuted"


def _ignored(found: Overfits) -> Verdict:
    # a sound twin first
    if not _passes(found) or found.stopped.keys() & {"healthy", "no_norm"}:
        return "undecided"
    return "supported" if found.outcomes["no_norm"].text_use.ratio < READS else "refuted"


def _plateau(found: Overfits) -> Verdict:
    run = found.trajectories["seed"]
    plateau_steps, _ = run.plateau
    if "seed" in found.stopped:
        return "undecided"
    if plateau_steps:
        return "supported"
    return "refuted" if run.reached_line and len(run.steps) >= 50 else "undecided"


def _gate_item(found: Overfits, common: Mapping[str, Any]) -> Item:
    return Item(
        id="overfit_gate",
        claim="the healthy model overfits this clip, judged free-running",
        effect=found.outcomes["healthy"].gap.fr_l1,
        verdict=_gate(found),
        unit="FR mel L1",
        threshold=found.baselines["copy_previous"],
        **common,
        refuting_experiment=(
            "a free-running L1 above the copy-previous line, or a text use of at most 1.1, with"
            " another seed"
        ),
    )


def _memory_norm_item(found: Overfits, common: Mapping[str, Any]) -> Item:
    return Item(
        id="memory_norm_run",
        claim=(
            "on this clip and seed, removing only the memory norm makes the decoder ignore the text"
        ),
        verdict=_ignored(found),
        effect=found.outcomes["no_norm"].text_use.ratio,
        unit="text use without the norm",
        threshold=READS,
        **common,
        refuting_experiment=(
            "text use of 1.1 or more without the norm, over paired seeds and other clips; or"
            " the norm's absence with the memory scaled to unit size (if scale is the cause,"
            " that repairs it)"
        ),
    )


def _plateau_item(found: Overfits, common: Mapping[str, Any]) -> Item:
    return Item(
        id="seed_plateau_run",
        claim="the seed preset, at this size, sits on the best-constant line for at least 50 steps",
        verdict=_plateau(found),
        effect=found.trajectories["seed"].plateau[0],
        unit="steps",
        threshold=50,
        **common,
        refuting_experiment="the same run at another size, precision, seed or learning rate",
    )


def _presets_answer(found: Overfits) -> str:
    parts = []
    if "healthy" in found.outcomes:
        h = found.outcomes["healthy"]
        parts.append(
            f"{WORDS[_gate(found)]}: healthy reaches TF L1 {h.gap.tf_l1:.3f}, FR L1"
            f" {h.gap.fr_l1:.3f}, text use {h.text_use.ratio:.2f}."
        )
    if "healthy" in found.outcomes and "no_norm" in found.outcomes:
        n = found.outcomes["no_norm"]
        ratio = n.gap.fr_l1 / found.outcomes["healthy"].gap.fr_l1
        parts.append(
            f"With only the memory norm removed: TF {n.gap.tf_l1:.3f}, FR {n.gap.fr_l1:.3f}"
            f" ({ratio:.1f} times), text use {n.text_use.ratio:.3f}."
        )
    if "seed" in found.outcomes:
        run = found.trajectories["seed"]
        plateau_steps, _ = run.plateau
        sits = "shows no plateau on the best-constant line"
        if plateau_steps:
            sits = f"sits on the best-constant line for {plateau_steps} steps"
        ends = found.outcomes["seed"].gap.tf_l1 / run.best_constant
        parts.append(f"seed {sits} and ends at {ends:.2f} of it.")
    parts += [f"{note}." for note in found.stopped.values()]
    return " ".join(parts)


def _presets_metrics(found: Overfits) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        f"{key}_l1": found.baselines[key] for key in ("best_constant", "copy_previous")
    }
    for name, outcome in found.outcomes.items():
        metrics |= {
            f"{name}_tf_l1": outcome.gap.tf_l1,
            f"{name}_fr_l1": outcome.gap.fr_l1,
            f"{name}_text_use": outcome.text_use.ratio,
            f"{name}_text_share": found.text_share[name],
        }
    metrics["stopped_by_hand"] = len(found.stopped)
    if "seed" in found.outcomes:
        run = found.trajectories["seed"]
        metrics |= {
            "seed_tf_over_constant": found.outcomes["seed"].gap.tf_l1 / run.best_constant,
            "seed_time_variance_share": run.at_line[1],
            "seed_time_variance_share_at": run.at_line[0],
            "seed_plateau_steps": run.plateau[0],
        }
    if "no_norm" in found.outcomes:
        metrics["no_norm_from_previous_l1"] = found.from_previous
    return metrics
