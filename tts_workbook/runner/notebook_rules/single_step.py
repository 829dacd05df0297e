"""What notebook 02 rules from its measurements of one step: `rule(found)` gives the answer, the
metrics and the items.

`healthy` and `seed` side by side rule on the findings' claims about one step; a model of the user's
is ruled on by itself. Every threshold stands in the item that it decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tts_workbook.faults.finding import Finding
from tts_workbook.faults.registry import CAUSES
from tts_workbook.measure.activations import Scales
from tts_workbook.measure.gradient_spread import share_shift
from tts_workbook.measure.mel_path import dead_tensors
from tts_workbook.measure.memory_response import CrossAttentionState
from tts_workbook.measure.module_audit import ModuleAudit
from tts_workbook.measure.optimizer_parity import StopPrecision
from tts_workbook.measure.scale_pairs import ScalePair, columns
from tts_workbook.measure.step_parity import StepDifference
from tts_workbook.measure.updates_without import UpdateWithout
from tts_workbook.runner.notebook_rules.ruling import (
    Ruling,
    finite,
    metric_name,
    own_id,
    together,
)
from tts_workbook.runner.verdicts import Item
from tts_workbook.trials.statistics import Contrast, Direction, Verdict, contrast

PAIR = ("healthy", "seed")
DECODER = ("mel_projection", "decoder.")  # what the paths of the decoder's modules start with
TEXT_SIDE = ("text_embedding", "encoder.")
# verdict of the claim that a fault is absent
VERDICTS: dict[str, Verdict] = {"confirmed": "refuted", "excluded": "supported"}


@dataclass(frozen=True)
class OneStep:
    """What was measured, by the name of the subject unless said otherwise. What a subject could not
    give is absent.
    """

    audits: Mapping[str, ModuleAudit]  # of a preset on one clip, of others on their batch
    where: str  # clip, profile and seed, for the provenance
    over_batch: Mapping[str, ModuleAudit] = field(default_factory=dict)  # presets, distinct clips
    n_clips: int = 1  # of those
    text_share: Mapping[str, float] = field(default_factory=dict)
    mel_path: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    still: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    without: Mapping[str, Mapping[int, UpdateWithout]] = field(default_factory=dict)
    # run ("no clip", "clip 1.0, nudged") -> largest distance over the progress
    clip_gaps: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    scales: Mapping[str, Scales] = field(default_factory=dict)
    memory: Mapping[str, CrossAttentionState] = field(default_factory=dict)  # as it is
    # (subject, precision) -> the step against fp32, and floors by the place of the rounding
    parity: Mapping[tuple[str, str], StepDifference] = field(default_factory=dict)
    floors: Mapping[tuple[str, str], Mapping[str, StepDifference]] = field(default_factory=dict)
    # (subject, "fresh" or "trained", precision)
    stop: Mapping[tuple[str, str, str], StopPrecision] = field(default_factory=dict)
    ways: Mapping[str, StepDifference] = field(default_factory=dict)  # of healthy
    accumulated: StepDifference | None = None  # micro-batches of healthy against one batch
    n_parts: int = 0  # micro-batches
    cleared: Mapping[str, float] = field(default_factory=dict)  # "zeros", "nothing"
    adamw: Mapping[str, float] = field(default_factory=dict)
    pairs: Sequence[ScalePair] = ()
    findings: Mapping[str, Sequence[Finding]] = field(default_factory=dict)


def rule(found: OneStep) -> Ruling:
    """Rule on the findings' claims where both presets were measured, and on every other subject."""
    rulings = []
    pair = all(name in found.audits and name in found.over_batch for name in PAIR)
    if pair and found.pairs:
        rulings.append(_rule_on_presets(found))
    alone = [name for name in found.audits if not (rulings and name in PAIR)]
    rulings += [_rule_on_one(found, name, alone, bool(rulings)) for name in alone]
    return together(rulings, "no step could be measured")


# --- a subject by itself --------------------------------------------------------------------------


def _rule_on_one(found: OneStep, name: str, alone: Sequence[str], beside: bool) -> Ruling:
    audit, findings = found.audits[name], found.findings.get(name, ())
    prefix = f"{metric_name(name)}_" if beside or len(alone) > 1 else ""
    where = f"notebook 02, {name}, {found.where.partition(', ')[2]}"
    items = [_reached_item(audit, own_id("gradient_reaches_everything", name, alone), where)]
    items += [
        _absence_item(one, own_id(metric_name(one.cause), name, alone), where) for one in findings
    ]
    metrics = {f"{prefix}{key}": value for key, value in _audit_metrics(audit).items()}
    return Ruling(f"{name}: {_audit_answer(audit, findings)}", metrics, items)


def _reached_item(audit: ModuleAudit, id: str, where: str) -> Item:
    verdict: Verdict = "supported" if finite(audit.norm["total"]) else "undecided"
    if audit.unreached:
        verdict = "refuted"
    return Item(
        id=id,
        claim="the loss reaches every trained tensor that is not declared frozen",
        verdict=verdict,
        effect=len(audit.unreached),
        unit="tensors without a gradient",
        threshold=1,
        n=1,
        unit_of_replication="seed",
        provenance=where,
        refuting_experiment="a tensor without a gradient in a later step, or with another batch",
    )


def _absence_item(one: Finding, id: str, where: str) -> Item:
    """The claim that a fault of the catalogue is absent."""
    fault = CAUSES[one.cause]
    place = f" (looked for at {one.where})" if one.where else ""
    # "not applicable" is said by its experiment itself
    level = "" if one.level == "not applicable" else f"{one.level}. "
    fix = f". Fix: {one.fix}" if one.level == "confirmed" else ""
    return Item(
        id=id,
        claim=f"this fault is absent: {fault.title}{place}",
        verdict=VERDICTS.get(one.level, "undecided"),
        n=1,
        unit_of_replication="seed",
        provenance=f"{level}{evidence_of(one)}{fix}",
        refuting_experiment=f"on another batch, or later in training: {fault.experiment}",
    )


def evidence_of(one: Finding) -> str:
    """What was run and the numbers of it, in one line."""
    numbers = [
        f"{name} {value if isinstance(value, str) else format(value, '.4g')}"
        for name, value in one.evidence.items()
    ]
    return f"{one.experiment}: {'; '.join(numbers)}" if numbers else one.experiment


def _audit_answer(audit: ModuleAudit, findings: Sequence[Finding]) -> str:
    n_missed = len(audit.unreached)
    reached = f"the gradient reaches all {audit.n_trained} trained tensors"
    if n_missed:
        first = audit.unreached[0]
        reached = (
            f"the gradient misses {n_missed} of {audit.n_trained} trained tensors, {first} first"
        )
    if not finite(audit.norm["total"]):
        reached = "the gradient is not finite"
    moves = finite(audit.update_ratio).values()
    moved = "no optimiser step was seen"
    if moves:
        moved = (
            f"its first update is {min(moves):.1e} to {max(moves):.1e} of the weights, by module"
        )
    answer = f"At fresh weights {reached}, and {moved}."
    if not findings:
        return answer
    ruled_out = sum(one.level == "excluded" for one in findings)
    answer += f" Of {len(findings)} faults that one step can show, {ruled_out} are ruled out"
    blamed = []
    for level in ("confirmed", "suspected"):
        causes = [one.cause for one in findings if one.level == level]
        if causes:
            blamed.append(f"{level}: {', '.join(causes)}")
    if not blamed:
        return f"{answer} and none is found."
    text = "; ".join(blamed)
    return f"{answer}. {text[0].upper()}{text[1:]}."


def _audit_metrics(audit: ModuleAudit) -> dict[str, float]:
    metrics: dict[str, float] = {
        "trained_tensors": audit.n_trained,
        "unreached_tensors": len(audit.unreached),
        "unexplained_share_of_total": audit.unshown,
    }
    for name, norms in audit.norm.items():
        metrics[f"gradient_norm_{metric_name(name)}"] = math.hypot(*norms.values())
    for term, weight in audit.weights.items():
        metrics[f"weight_{metric_name(term)}"] = weight
    moves = finite(audit.update_ratio).values()
    if moves:
        metrics["smallest_update_ratio"] = min(moves)
        metrics["largest_update_ratio"] = max(moves)
    return finite(metrics)


# --- the presets, and the findings' claims --------------------------------------------------------


@dataclass(frozen=True)
class _Presets:
    """The numbers that the claims about `healthy` and `seed` are decided by."""

    n_unreached: int
    unreached: Mapping[str, Sequence[str]]
    by_batch: Mapping[str, float]
    by_preset: float
    drowned: Mapping[str, float]
    n_dead: int
    n_tensors: int
    least: float
    most: float
    still: float
    duration_share: float
    through_clip: float
    clip_gap: float
    drift: float
    above_floor: Mapping[tuple[str, str], float]
    stop_error: float
    stop_loss_error: float
    bf16_floor: float
    checkpointed: float
    scaled_apart: float
    accumulated: float
    adamw: float
    rulings: Mapping[str, Contrast]


PAIR_TESTS: dict[str, tuple[str, float, Direction]] = {
    "text_gradient_at_start": ("text_beside_sound", 0.1, "decrease"),
    "scale_starves_text": ("text_by_scale", 0.1, "decrease"),
    "suspect_1_first_step": ("thinnest", 1.0, "decrease"),
    "scale_thins_the_mel_path": ("regained", 0.3, "increase"),
    "scale_sharpens_attention": ("sharpened", 0.2, "increase"),
    "values_drown_the_stream": ("drowned", 0.3, "increase"),
    "scale_coarsens_bf16": ("coarsened", 0.5, "increase"),
}
PAIR_CLAIMS = {
    "text_gradient_at_start": (
        "at step 0 a smaller share of the mel gradient lies on the text side in seed than in"
        " healthy",
        -0.1,
    ),
    "scale_starves_text": (
        "the scale of seed's memory takes the mel gradient away from the text, at step 0",
        -0.1,
    ),
    "suspect_1_first_step": (
        "the gradient has a fault of its own on the mel path: in seed some weight matrix of the"
        " decoder gets less than a tenth of the share that it gets in healthy",
        -1.0,
    ),
    "scale_thins_the_mel_path": (
        "what is thin there is thin by the memory's scale: at scale 1, the same weights get"
        " twice the share back",
        0.3,
    ),
    "values_drown_the_stream": (
        "in seed the first cross-attention writes more than twice what the decoder's own stream"
        " holds",
        0.3,
    ),
    "scale_coarsens_bf16": (
        "the memory's scale alone makes bf16 spoil the gradient at mel_projection_in three"
        " times as much",
        0.5,
    ),
    "scale_sharpens_attention": (
        "the memory's scale alone takes cross-attention at least 0.2 of ln T nearer to a single"
        " frame",
        0.2,
    ),
}


def _presets(found: OneStep) -> _Presets:
    audits = [found.audits[name] for name in PAIR] + [found.over_batch[name] for name in PAIR]
    labels = [f"{name}, {n} clips" for n in (1, found.n_clips) for name in PAIR]
    unreached = {
        label: audit.unreached_modules
        for label, audit in zip(labels, audits, strict=True)
        if audit.unreached_modules
    }
    moves = [
        ratio
        for name in PAIR
        for path, ratio in found.audits[name].update_ratio.items()
        if path.startswith(DECODER)
    ]
    duration = [
        found.audits[name].share["duration"][path]
        for name in PAIR
        for path in found.audits[name].shared
        if path.startswith(TEXT_SIDE)
    ]
    measures = columns(found.pairs)
    bf16_stops = [one for (_, _, low), one in found.stop.items() if low == "bf16"]
    own_ways = {
        start: [one.gradient for label, one in found.ways.items() if label.startswith(start)]
        for start in ("checkpointing", "loss scale")
    }
    still = found.still["healthy"]
    return _Presets(
        n_unreached=sum(map(len, unreached.values())),
        unreached=unreached,
        by_batch={
            name: share_shift(
                found.audits[name].norm["total"], found.over_batch[name].norm["total"]
            )
            for name in PAIR
        },
        by_preset=share_shift(*(found.audits[name].norm["total"] for name in PAIR)),
        drowned={
            name: found.scales[name].std["decoder.layers.0.cross_attention"]
            / found.scales[name].std["mel_projection_in"]
            for name in PAIR
        },
        n_dead=sum(len(dead_tensors(found.mel_path[name])) for name in PAIR),
        n_tensors=sum(len(found.mel_path[name]) for name in PAIR),
        least=min(moves),
        most=max(moves),
        still=still[0.0] / still[1.0],
        duration_share=min(duration),
        through_clip=min(
            found.without[name][16].change["duration"]["mel_projection_in"] for name in PAIR
        ),
        clip_gap=max(found.clip_gaps[name]["no clip"] for name in PAIR),
        drift=max(found.clip_gaps[name]["clip 1.0, nudged"] for name in PAIR),
        above_floor={
            (name, low): found.parity[name, low].gradient
            / found.floors[name, low]["weights rounded"].gradient
            for name in PAIR
            for low in ("bf16", "fp16")
        },
        stop_error=max(one.whole_gradient for one in bf16_stops),
        stop_loss_error=max(one.loss_error for one in bf16_stops),
        bf16_floor=min(found.floors[name, "bf16"]["gradient rounded"].gradient for name in PAIR),
        checkpointed=max(own_ways["checkpointing"]),
        scaled_apart=max(own_ways["loss scale"]),
        accumulated=found.accumulated.gradient if found.accumulated else math.nan,
        adamw=max(found.adamw[name] for name in PAIR),
        rulings={
            name: contrast(measures[measure], margin, direction)
            for name, (measure, margin, direction) in PAIR_TESTS.items()
        },
    )


def _rule_on_presets(found: OneStep) -> Ruling:
    numbers, where = _presets(found), f"notebook 02, {found.where}"
    items = [
        *_pair_items(numbers, len(found.pairs), where),
        *_flow_items(found, numbers, where),
        *_loss_and_precision_items(found, numbers, where),
        *_same_step_items(found, numbers, where),
    ]
    return Ruling(_presets_answer(found, numbers), _presets_metrics(found, numbers), items)


def _presets_answer(found: OneStep, numbers: _Presets) -> str:
    reached = "reaches every module in both presets"
    if numbers.unreached:
        reached = f"misses {numbers.unreached}"
    by_batch = max(numbers.by_batch.values())
    more = "moves it at least as much as"
    if by_batch < numbers.by_preset:
        more = "moves the gradient between modules less than"
    starved = numbers.rulings["scale_starves_text"].mean
    direction = "more" if starved > 0 else "less"
    thin = 10 ** numbers.rulings["suspect_1_first_step"].mean
    return (
        f"At step 0 the gradient {reached}, and {numbers.n_dead} tensors of the decoder are without"
        f" one. Going from 1 to {found.n_clips} distinct clips {more} going from healthy to seed"
        f" ({by_batch:.1f} against {numbers.by_preset:.1f} times). The memory's standard"
        f" deviation is {found.memory['seed'].memory_std:.1f} in seed and"
        f" {found.memory['healthy'].memory_std:.1f} in"
        f" healthy. At that scale cross-attention writes {found.memory['seed'].over_stream[0]:.1f}"
        " times what the first decoder layer's stream holds, the thinnest weight matrix of the"
        f" decoder gets {thin:.3f} times its share in healthy, and the share"
        f" of the mel gradient on the text side is {10 ** abs(starved):.1f}"
        f" times {direction} than with the memory at scale 1 ({len(found.pairs)} pairs). The"
        f" duration loss holds {numbers.duration_share:.0%} or more of the gradient on every module"
        f" of the text side. One step in 16 bits is {max(numbers.above_floor.values()):.1f} times"
        " its rounding floor away from fp32, at most; checkpointing changes it by"
        f" {numbers.checkpointed:.1g}."
    )


def _presets_metrics(found: OneStep, numbers: _Presets) -> dict[str, float]:
    metrics: dict[str, float] = {
        "clips_in_batch": found.n_clips,
        "unreached_modules": numbers.n_unreached,
        "share_shift_by_preset": numbers.by_preset,
        "dead_tensors": numbers.n_dead,
        "still_over_moving_gradient": numbers.still,
        "duration_share": numbers.duration_share,
        "duration_through_clip": numbers.through_clip,
        "clip_gap": numbers.clip_gap,
        "clip_gap_control": numbers.drift,
        "stop_bf16_gradient": numbers.stop_error,
        "stop_bf16_loss_error": numbers.stop_loss_error,
        "checkpointing": numbers.checkpointed,
        "loss_scale": numbers.scaled_apart,
        "accumulation": numbers.accumulated,
        "adamw_formula": numbers.adamw,
        "zeros_or_none": found.cleared["zeros"],
        "gradients_not_cleared": found.cleared["nothing"],
        "pairs": len(found.pairs),
    }
    for name, values in columns(found.pairs).items():
        metrics[f"pairs_{name}"] = sum(values) / len(values)
    for (name, low), above in numbers.above_floor.items():
        metrics[f"{name}_{low}_gradient"] = found.parity[name, low].gradient
        metrics[f"{name}_{low}_over_floor"] = above
        metrics[f"{name}_{low}_update"] = found.parity[name, low].update
    for name in PAIR:
        audit = found.audits[name]
        metrics |= {
            f"{name}_gradient_norm": audit.total_norm,
            f"{name}_gradient_norm_batch": found.over_batch[name].total_norm,
            f"{name}_memory_std": found.scales[name].std["memory"],
            f"{name}_cross_over_input": numbers.drowned[name],
            f"{name}_mel_gradient_text": audit.mel_norm["text_embedding"],
            f"{name}_text_share": found.text_share[name],
            f"{name}_share_shift_by_batch": numbers.by_batch[name],
            f"{name}_entropy": min(found.memory[name].entropy),
        }
    return metrics


def _pair_items(numbers: _Presets, n_pairs: int, where: str) -> list[Item]:
    return [
        Item(
            id=name,
            claim=claim,
            verdict=numbers.rulings[name].verdict,
            effect=numbers.rulings[name].mean,
            interval=numbers.rulings[name].finite_interval,
            unit=(
                "share of ln T"
                if name == "scale_sharpens_attention"
                else "orders of magnitude (log10)"
            ),
            n=n_pairs,
            unit_of_replication="clips × sets of weights, one fresh step each",
            threshold=threshold,
            provenance=where,
            refuting_experiment=(
                "the same pairs on other clips; whether it matters for what is learned is a"
                " training's question (notebook 06)"
            ),
        )
        for name, (claim, threshold) in PAIR_CLAIMS.items()
    ]


def _flow_items(found: OneStep, numbers: _Presets, where: str) -> list[Item]:
    by_batch = max(numbers.by_batch.values())
    elsewhere: Verdict = "supported" if by_batch >= numbers.by_preset else "refuted"
    sane = numbers.least > 1e-5 and numbers.most < 0.1
    return [
        Item(
            id="step_3",
            claim=(
                "in one step the gradient reaches encoder, projections, every decoder block and the"
                " stop head"
            ),
            verdict="refuted" if numbers.unreached else "supported",
            effect=numbers.n_unreached,
            unit="modules with zero gradient",
            n=4 if found.n_clips > 1 else 2,
            unit_of_replication="audited steps",
            threshold=1,
            provenance=where,
            refuting_experiment="a module with exactly zero gradient in any of these steps",
        ),
        Item(
            id="question_3",
            claim=(
                "gradients flow through the decoder: each of its tensors has a finite gradient"
                " other than zero, and each module moves by 1e-5 to 1e-1 of itself"
            ),
            verdict="supported" if not numbers.n_dead and sane else "refuted",
            effect=numbers.n_dead,
            unit="tensors without a gradient",
            n=numbers.n_tensors,
            unit_of_replication="tensors, two presets",
            threshold=1,
            provenance=where,
            refuting_experiment="a dead tensor in a later step, or an update outside that range",
        ),
        Item(
            id="step_4",
            claim=(
                "one step on a single clip sends the gradient elsewhere than one step on distinct"
                " clips, more than healthy and seed differ"
            ),
            verdict=elsewhere if found.n_clips >= 8 else "undecided",
            effect=by_batch,
            unit="times, largest change of a module's share",
            n=2,
            unit_of_replication="presets, one seed",
            threshold=numbers.by_preset,
            provenance=where,
            refuting_experiment="the same comparison over other clips and seeds",
        ),
        Item(
            id="tiny_mel_gradient",
            claim=(
                "a mel gradient ten times smaller than at the start needs a fault in the gradient's"
                " way"
            ),
            verdict="refuted" if numbers.still < 0.1 else "undecided",
            effect=numbers.still,
            unit="of the gradient, decoder of healthy held still",
            n=1,
            unit_of_replication="clip and seed",
            threshold=0.1,
            provenance=where,
            refuting_experiment=(
                "a sound model whose output stands still at the medians and still has a large mel"
                " gradient"
            ),
        ),
    ]


def _loss_and_precision_items(found: OneStep, numbers: _Presets, where: str) -> list[Item]:
    two: dict[str, Any] = dict(
        n=2, unit_of_replication="presets, one clip and seed", provenance=where
    )
    above = max(numbers.above_floor.values())
    clipping: Verdict = "supported" if numbers.clip_gap > 0.1 else "refuted"
    return [
        Item(
            id="duration_rules_the_text_side",
            claim=(
                "at step 0 the duration loss holds more than half of the gradient on every module"
                " of the text side"
            ),
            verdict="supported" if numbers.duration_share > 0.5 else "refuted",
            effect=numbers.duration_share,
            unit="smallest share",
            threshold=0.5,
            **two,
            refuting_experiment="shares later in training, where the duration loss has fallen",
        ),
        Item(
            id="duration_through_the_clip",
            claim=(
                "the duration loss changes the decoder's updates, which it does not reach, by way"
                " of the clip"
            ),
            verdict="supported" if numbers.through_clip > 0.1 else "refuted",
            effect=numbers.through_clip,
            unit="of the 16th update, mel_projection_in",
            threshold=0.1,
            **two,
            refuting_experiment=(
                "the same with the clip off, where it must be 0; a run whose gradient norm stays"
                " below the clip"
            ),
        ),
        Item(
            id="fixed_clipping",
            claim=(
                "the clip at 1.0 changes the first 30 steps by more than a tenth of their progress"
            ),
            verdict="undecided" if numbers.drift > 0.1 else clipping,
            effect=numbers.clip_gap,
            unit="of the progress in mel loss",
            threshold=0.1,
            **two,
            refuting_experiment="whole trainings with the clip on and off (notebook 06)",
        ),
        Item(
            id="fixed_mixed_precision",
            claim=(
                "mixed precision changes the gradient of a step by more than its rounding explains"
            ),
            verdict="supported" if above > 3 else "refuted",
            effect=above,
            unit="times the floor: the weights rounded once",
            n=len(numbers.above_floor),
            unit_of_replication="presets × {bf16, fp16}",
            threshold=3,
            provenance=where,
            refuting_experiment="the same later in training, and whole runs in bf16 (notebook 06)",
        ),
        Item(
            id="fixed_loss_fp32",
            claim=(
                "computing the stop loss in bf16 instead of fp32 would change a step's gradient by"
                " more than bf16 rounds it anyway"
            ),
            verdict="supported" if numbers.stop_error > numbers.bf16_floor else "refuted",
            effect=numbers.stop_error,
            unit="of the step's gradient",
            threshold=numbers.bf16_floor,
            n=4,
            unit_of_replication="presets, fresh and after 30 steps",
            provenance=where,
            refuting_experiment="a larger stop weight, a longer clip, a trained stop head",
        ),
    ]


def _same_step_items(found: OneStep, numbers: _Presets, where: str) -> list[Item]:
    zeros, weak = found.cleared["zeros"], found.cleared["nothing"] <= 1e-7
    accumulation: Verdict = "supported" if numbers.accumulated > 1e-5 else "refuted"
    zeroing: Verdict = "supported" if zeros > 1e-7 else "refuted"
    return [
        Item(
            id="fixed_grad_scaler",
            claim="the loss scale changes the step once it is unscaled",
            verdict="supported" if numbers.scaled_apart > 1e-5 else "refuted",
            effect=numbers.scaled_apart,
            unit="relative difference of the gradient, fp32",
            threshold=1e-5,
            n=2,
            unit_of_replication="scales, 2^10 and 2^16",
            provenance=where,
            refuting_experiment="an fp16 step whose small gradients vanish at scale 1",
        ),
        Item(
            id="difference_gradient_checkpointing",
            claim="gradient checkpointing changes the gradient",
            verdict="supported" if numbers.checkpointed > 1e-5 else "refuted",
            effect=numbers.checkpointed,
            unit="relative difference of the gradient",
            threshold=1e-5,
            n=2,
            unit_of_replication="steps, dropout 0 and 0.1",
            provenance=where,
            refuting_experiment=(
                "checkpointing that does not restore the random state, with dropout on"
            ),
        ),
        Item(
            id="accumulation",
            claim="accumulating micro-batches differs from one batch",
            threshold=1e-5,
            effect=numbers.accumulated,
            verdict="undecided" if found.n_parts < 2 else accumulation,
            unit="relative difference of the gradient",
            n=found.n_parts,
            unit_of_replication="clips, one at a time",
            provenance=where,
            refuting_experiment="clips of very different length",
        ),
        Item(
            id="fixed_optimizer_settings",
            claim="the optimiser's steps differ from AdamW with decoupled decay as published",
            verdict="supported" if numbers.adamw > 1e-3 else "refuted",
            effect=numbers.adamw,
            unit="of three updates",
            threshold=1e-3,
            n=2,
            unit_of_replication="presets, one clip and seed",
            provenance=where,
            refuting_experiment="the same formula with coupled decay, which must fail",
        ),
        Item(
            id="fixed_zero_grad",
            claim="setting gradients to None trains otherwise than setting them to zero",
            effect=zeros,
            verdict="undecided" if weak else zeroing,
            unit="relative difference of the weights",
            threshold=1e-7,
            n=1,
            unit_of_replication="run of 3 steps",
            provenance=where,
            refuting_experiment="a loss that skips a module in some steps",
        ),
    ]
