"""What notebook 05 rules from its sweeps: `rule(found)` gives answer, metrics and items.

The presets rule on the findings' theories of learning rate and weight decay; a model of the user's
is ruled on by itself. Every threshold stands in the item that it decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tts_workbook.runner.notebook_rules.ruling import (
    Ruling,
    finite,
    metric_name,
    own_id,
    together,
    unmeasured,
)
from tts_workbook.runner.verdicts import Item
from tts_workbook.trials.lr_range import LrRange
from tts_workbook.trials.paired_effects import MARGINS
from tts_workbook.trials.statistics import Verdict
from tts_workbook.trials.subject_sweep import AS_IT_IS, MEASURES, SubjectSweep
from tts_workbook.trials.sweep_grid import (
    FR_LIMIT,
    READS_TEXT,
    Spread,
    SweepCell,
    Table,
    best,
    choice_cost,
    decay_spread,
    reading,
    value,
)

OWN_CLAIM = (
    "another learning rate or no weight decay brings its {measure} down by more than {margin:g},"
    " against the subject as it is"
)


@dataclass(frozen=True)
class Sweeps:
    """What was trained, by the name of the subject unless said otherwise."""

    where: str  # clip, profile and seed, for the provenance
    table: Table = field(default_factory=dict)  # of the presets
    steps: int = 0  # of their trainings
    n_seeds: int = 1
    ranges: Mapping[str, LrRange] = field(default_factory=dict)
    own: Mapping[str, SubjectSweep] = field(default_factory=dict)  # of models of the user's
    lacking: Mapping[str, str] = field(default_factory=dict)  # why one has no sweep

    @property
    def presets(self) -> list[str]:
        """Those in the table."""
        return list(dict.fromkeys(cell.preset for cell in self.table))

    @property
    def others(self) -> list[str]:
        return list(dict.fromkeys((*self.own, *self.lacking)))


def rule(found: Sweeps) -> Ruling:
    """Rule on the findings' claims where presets were swept, and on every other subject."""
    rulings = [_rule_on_presets(found)] if found.table else []
    rulings += [_rule_on_one(found, name, bool(rulings)) for name in found.others]
    return together(rulings, "nothing could be swept")


# --- a subject by itself --------------------------------------------------------------------------


def _rule_on_one(found: Sweeps, name: str, beside: bool) -> Ruling:
    id = own_id("another_rate_learns_better", name, found.others)
    if name not in found.own:
        reason = f"not judged: {found.lacking[name]}"
        claim = "another learning rate makes it learn better"
        return Ruling(f"{name}: no sweep: {reason}.", {}, [unmeasured(id, claim, reason)])
    sweep = found.own[name]
    margin, measure = MARGINS[sweep.by], MEASURES[sweep.by]
    claim = OWN_CLAIM.format(measure=measure, margin=margin)
    if sweep.best is None:
        reason = "every training of the grid broke"
        item = unmeasured(id, claim, reason)
        return Ruling(f"{name}: {reason}: mend that first (notebook 02).", {}, [item])
    own = sweep.value(AS_IT_IS, sweep.by)
    gain = own - sweep.value(sweep.best, sweep.by)
    better: Verdict = "supported" if math.isnan(own) or gain > margin else "refuted"
    item = Item(
        id=id,
        claim=claim,
        verdict=better,
        effect=gain if math.isfinite(gain) else None,
        unit=measure,
        threshold=margin,
        n=1,
        unit_of_replication="seed",
        provenance=f"notebook 05, {name}, {found.where.partition(', ')[2]}",
        refuting_experiment="the same grid over several seeds and batches, or a longer budget",
    )
    prefix = f"{metric_name(name)}_" if beside or len(found.others) > 1 else ""
    metrics = {f"{prefix}{key}": number for key, number in _own_metrics(sweep).items()}
    return Ruling(_own_answer(name, sweep, better), metrics, [item])


def _own_answer(name: str, sweep: SubjectSweep, better: Verdict) -> str:
    own, best_cell = sweep.value(AS_IT_IS, sweep.by), sweep.best
    as_it_is = "it breaks" if math.isnan(own) else f"{own:.3f}"
    beside = "the best cell is the subject as it is"
    near = ""
    if best_cell is not None and best_cell != AS_IT_IS:
        reached = sweep.value(best_cell, sweep.by)
        beside = f"the best cell, {best_cell.label}, has {reached:.3f}; as it is {as_it_is}"
        if better == "refuted":
            near = f", within the margin of {MARGINS[sweep.by]:g}"
    lost = ""
    if sweep.n_broken:
        lost = f"; {sweep.n_broken} of {len(sweep.results)} trainings broke"
    return (
        f"{name}: By {MEASURES[sweep.by]} after {sweep.steps} steps, {beside}{near}{lost}. "
        "One seed, one batch: this describes the grid and no more."
    )


def _own_metrics(sweep: SubjectSweep) -> dict[str, Any]:
    best_cell = sweep.best or AS_IT_IS
    numbers = {
        "as_it_is": sweep.value(AS_IT_IS, sweep.by),
        "best": sweep.value(best_cell, sweep.by),
        "best_lr_factor": best_cell.learning_rate_times,
    }
    return {
        "trainings": len(sweep.results),
        "broke": sweep.n_broken,
        "steps": sweep.steps,
        "best_without_decay": int(best_cell.weight_decay is not None),
        **finite(numbers),
    }


# --- the presets, and the findings' theories ------------------------------------------------------


@dataclass(frozen=True)
class _Presets:
    """The numbers that the claims about the presets are decided by; `lowest` lacks a preset whose
    trainings all failed.
    """

    reads: Mapping[str, list[SweepCell]]
    by_fr: Mapping[str, SweepCell | None]
    lowest: Mapping[str, float]
    costs: Mapping[str, float | None]
    spread: Spread | None
    n_trainings: int
    n_failed: int


def _presets(found: Sweeps) -> _Presets:
    table = found.table
    results = [result for of_cell in table.values() for result in of_cell]
    by_fr = {name: best(table, "fr_over_constant", name) for name in found.presets}
    lowest = {}
    for name, cell in by_fr.items():
        reached = None if cell is None else value(table[cell], "fr_over_constant")
        if reached is not None:
            lowest[name] = reached
    return _Presets(
        reads={name: reading(table, name) for name in found.presets},
        by_fr=by_fr,
        lowest=lowest,
        costs={name: choice_cost(table, name) for name in found.presets},
        spread=decay_spread(table),
        n_trainings=len(results),
        n_failed=sum(bool(result.failed) for result in results),
    )


def _rule_on_presets(found: Sweeps) -> Ruling:
    numbers = _presets(found)
    common: dict[str, Any] = dict(
        n=found.n_seeds,
        unit_of_replication="seed",
        provenance=(
            f"notebook 05, {found.where}, {found.steps} steps, {numbers.n_trainings} trainings"
        ),
    )
    items = []
    if "seed" in found.presets:
        items.append(_repairs_item(numbers, common))
    if {"healthy", "seed"} <= set(found.presets):
        items.append(_sound_item(numbers, common))
    items.append(_decay_item(numbers, common))
    items += [_choice_item(numbers, name, common) for name in found.presets]
    return Ruling(_presets_answer(found, numbers), _presets_metrics(found, numbers), items)


def _repaired(numbers: _Presets) -> Verdict:
    if numbers.reads["seed"]:
        return "supported"
    return "refuted" if numbers.reads.get("healthy") else "undecided"


def _repairs_item(numbers: _Presets, common: Mapping[str, Any]) -> Item:
    return Item(
        id="learning_rate_repairs_seed",
        claim=(
            "some learning rate or weight decay of the grid makes the failing preset read its"
            f" text (text use above {READS_TEXT}) and free-run below {FR_LIMIT:g} of the best"
            " constant"
        ),
        verdict=_repaired(numbers),
        effect=len(numbers.reads["seed"]),
        unit="cells that do",
        threshold=0,
        **common,
        refuting_experiment=(
            "the same grid over several seeds and clips, a longer budget, or a rate between or"
            " beyond these"
        ),
    )


def _sound_item(numbers: _Presets, common: Mapping[str, Any]) -> Item:
    gap = None
    verdict: Verdict = "undecided"
    if len(numbers.lowest) == len(numbers.by_fr):
        gap = numbers.lowest["seed"] - numbers.lowest["healthy"]
        if numbers.reads["healthy"]:
            verdict = "supported" if gap > MARGINS["fr_over_constant"] else "refuted"
    return Item(
        id="best_cell_by_free_running",
        claim=(
            "the best cell of the sound preset free-runs better than the best cell of the failing"
            " one"
        ),
        verdict=verdict,
        effect=gap,
        unit="FR L1 / best constant, failing minus sound",
        threshold=MARGINS["fr_over_constant"],
        **common,
        refuting_experiment=(
            "a cell of the failing preset that comes within the threshold of the sound one's"
            " best, with more steps or another seed"
        ),
    )


def _decay_item(numbers: _Presets, common: Mapping[str, Any]) -> Item:
    spread = numbers.spread
    verdict: Verdict = "undecided"
    if spread is not None and numbers.reads.get("healthy"):
        verdict = "supported" if spread.ordered else "undecided"
        if spread.size <= MARGINS["outcome"]:
            verdict = "refuted"
    return Item(
        id="weight_decay_matters",
        claim=(
            "at some learning rate of the grid weight decay moves the loss curve, the more the"
            f" stronger it is, by more than {MARGINS['outcome']:g} of the best constant"
        ),
        verdict=verdict,
        effect=None if spread is None else spread.size,
        unit="mean mel L1 / best constant over the steps, largest difference",
        threshold=MARGINS["outcome"],
        **common,
        refuting_experiment=(
            "the same comparison over paired seeds: where a training is unstable, any change of"
            " its last bits moves its curve"
        ),
    )


def _choice_item(numbers: _Presets, name: str, common: Mapping[str, Any]) -> Item:
    cost = numbers.costs[name]
    verdict: Verdict = "undecided"
    if cost is not None and numbers.reads[name]:
        verdict = "supported" if cost > MARGINS["fr_over_constant"] else "refuted"
    return Item(
        id=f"tf_choice_costs_{name}",
        claim=(
            f"{name}: the cell with the lowest teacher-forced error free-runs clearly worse"
            " than the best cell"
        ),
        verdict=verdict,
        effect=cost,
        unit="FR L1 / best constant",
        threshold=MARGINS["fr_over_constant"],
        **common,
        refuting_experiment=(
            "the same choice made on other seeds and clips: the best cells of one run may be luck"
        ),
    )


def moved(spread: Spread) -> str:
    """What weight decay alone moves, in a sentence's half."""
    unstable = "; not in the order of the decay: an unstable training moves as much by itself"
    return (
        f"weight decay alone moves the mean loss by {spread.size:.3f} of best constant at most"
        f" ({spread.preset}, lr {spread.lr:g}{'' if spread.ordered else unstable})"
    )


def _presets_answer(found: Sweeps, numbers: _Presets) -> str:
    leads = {
        "supported": (
            "Yes, here: some learning rate or weight decay of the grid makes seed read its text and"
            " free-run."
        ),
        "refuted": (
            "No: no learning rate or weight decay of the grid makes seed read its text and"
            " free-run."
        ),
        "undecided": "Undecided: healthy does not read its text within these steps either.",
    }
    bests = []
    for name, cell in numbers.by_fr.items():
        if cell is not None:
            use = value(found.table[cell], "text_use")
            bests.append(
                f"{cell.label}: FR {numbers.lowest[name]:.2f} of best constant, text use {use:.2f}"
            )
    parts = [leads[_repaired(numbers)] if "seed" in found.presets else ""]
    parts.append(
        f"Best by free-running error after {found.steps} steps:"
        f" {'; '.join(bests) or 'none, every training failed'}."
    )
    if numbers.spread:
        parts.append(f"Over the grid {moved(numbers.spread)}.")
    if numbers.n_failed:
        parts.append(f"{numbers.n_failed} of {numbers.n_trainings} trainings failed.")
    return " ".join(part for part in parts if part)


def _presets_metrics(found: Sweeps, numbers: _Presets) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "trainings": numbers.n_trainings,
        "failed": numbers.n_failed,
        "steps": found.steps,
    }
    for name in found.presets:
        metrics[f"{name}_reading_cells"] = len(numbers.reads[name])
        measured: dict[str, float | None] = {
            "range_steepest_lr": found.ranges[name].steepest,
            "range_diverged_lr": found.ranges[name].diverged_at,
            "tf_choice_cost": numbers.costs[name],
            "best_fr_over_constant": numbers.lowest.get(name),
        }
        cell = numbers.by_fr[name]
        if cell is not None:
            measured["best_lr"] = cell.lr
            measured["best_weight_decay"] = cell.weight_decay
            measured["best_text_use"] = value(found.table[cell], "text_use")
        metrics |= {f"{name}_{key}": one for key, one in measured.items() if one is not None}
    if numbers.spread:
        metrics["weight_decay_spread"] = numbers.spread.size
        metrics["weight_decay_spread_ordered"] = int(numbers.spread.ordered)
    return metrics
