"""What notebook 04 rules from its copies, its padding and the recorded batches: `rule(found)` gives
the answer, the metrics and the items.

The presets rule on the findings' questions about batch size; a model of the user's is ruled on by
itself. Every threshold stands in the item that it decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tts_workbook.measure.duplication import (
    DTYPES,
    MEAN_BAR,
    Duplication,
    GradientNoise,
    noise_exponent,
    standard_errors_apart,
)
from tts_workbook.measure.equivalence import Equivalence
from tts_workbook.runner.notebook_rules.ruling import (
    Ruling,
    metric_name,
    own_id,
    together,
    unmeasured,
)
from tts_workbook.runner.verdicts import Item
from tts_workbook.trials.batch_comparison import (
    LEARNED,
    BatchComparison,
    BatchOfOne,
    BatchRun,
    largest_corpus,
)
from tts_workbook.trials.paired_effects import MARGINS

COPIES_CLAIM = "without dropout, k copies of every clip have the loss and the gradient of one"
PADDING_CLAIM = "padding behind the clips changes neither loss nor gradient"
SAID = {
    "supported": "change nothing beyond rounding",
    "refuted": "CHANGE loss or gradient",
    "undecided": "change loss or gradient by no more than 16-bit sums may",
}
COMPARED = ("difference_batch_size", "difference_batch_size_frames", "question_1")


@dataclass(frozen=True)
class CopiesAndBatches:
    """What was measured, by the name of the subject unless said otherwise."""

    where: str  # clip, profile and seed, for the provenance
    dropout: float  # of the presets, where noise is measured
    # (preset, precision, k)
    copied: Mapping[tuple[str, str, int], Duplication] = field(default_factory=dict)
    noise: Mapping[str, Mapping[int, GradientNoise]] = field(default_factory=dict)
    live: Sequence[BatchRun] = ()  # short runs of this notebook
    n_voice: int = 0  # distinct clips in the live batch
    runs: Sequence[BatchRun] = ()  # recorded
    origin: Mapping[str, str] = field(default_factory=dict)  # of the record
    compared: Mapping[str, BatchComparison | None] = field(default_factory=dict)  # by the item's id
    reasons: Mapping[str, str] = field(default_factory=dict)  # why one is None
    alone: BatchOfOne | None = None
    why_not: str = ""  # there is none
    sound_origin: Mapping[str, str] = field(default_factory=dict)
    # models of the user's, and why one could not be measured
    copies: Mapping[str, Equivalence] = field(default_factory=dict)
    padding: Mapping[str, Equivalence] = field(default_factory=dict)
    no_copies: Mapping[str, str] = field(default_factory=dict)
    no_padding: Mapping[str, str] = field(default_factory=dict)

    @property
    def others(self) -> list[str]:
        """Models of the user's."""
        parts = (self.copies, self.no_copies, self.padding, self.no_padding)
        return list(dict.fromkeys(name for part in parts for name in part))


def rule(found: CopiesAndBatches) -> Ruling:
    """Rule on the findings' claims where presets were measured, and on every other subject."""
    rulings = [_rule_on_presets(found)] if found.copied else []
    rulings += [_rule_on_one(found, name, bool(rulings)) for name in found.others]
    return together(rulings, "no batch could be measured")


# --- a subject by itself --------------------------------------------------------------------------


def _rule_on_one(found: CopiesAndBatches, name: str, beside: bool) -> Ruling:
    prefix = f"{metric_name(name)}_" if beside or len(found.others) > 1 else ""
    where = f"notebook 04, {name}, {found.where.partition(', ')[2]}"
    parts = (
        ("copies", found.copies, found.no_copies, COPIES_CLAIM, "numbers of copies"),
        ("padded frames", found.padding, found.no_padding, PADDING_CLAIM, "amounts of padding"),
    )
    sentences, items = [], []
    metrics: dict[str, float] = {}
    for label, measured, lacking, claim, repeated in parts:
        word = label.partition(" ")[0].replace("padded", "padding")
        id = own_id(f"{word}_change{'s' * (word == 'padding')}_nothing", name, found.others)
        if name not in measured:
            reason = f"not judged: {lacking[name]}"
            sentences.append(f"{label.capitalize()} are {reason}")
            items.append(unmeasured(id, claim, reason))
            continue
        one = measured[name]
        sentences.append(
            f"{label.capitalize()} {SAID[one.verdict]}: {one.largest:.1e} at most, where rounding"
            f" makes up to {one.bar:.1e}"
        )
        items.append(_own_item(id, claim, one, repeated, where))
        metrics |= {f"{prefix}{word}_{key}": value for key, value in _numbers(one).items()}
    return Ruling(f"{name}: {'. '.join(sentences)}.", metrics, items)


def _own_item(id: str, claim: str, one: Equivalence, repeated: str, where: str) -> Item:
    return Item(
        id=id,
        claim=claim,
        verdict=one.verdict,
        effect=one.largest,
        unit="largest relative difference",
        threshold=one.bar,
        n=len(one.changes),
        unit_of_replication=f"{repeated}, one set of weights",
        provenance=where,
        refuting_experiment=(
            "a batch, or weights later in training, at which loss or gradient differ by more than"
            " the bar"
        ),
    )


def _numbers(one: Equivalence) -> dict[str, float]:
    numbers = {
        "bar": one.bar,
        "floor_loss": one.floor.loss,
        "floor_gradient": one.floor.gradient,
    }
    for key, change in one.changes.items():
        numbers |= {f"{key}_loss": change.loss, f"{key}_gradient": change.gradient}
    return numbers


# --- the presets, and the findings' questions -----------------------------------------------------


def _rule_on_presets(found: CopiesAndBatches) -> Ruling:
    exact = {
        wanted: max(one.deciding for (_, dtype, _), one in found.copied.items() if dtype == wanted)
        for wanted in DTYPES
    }
    same = all(one.unchanged for one in found.copied.values())
    return Ruling(
        _presets_answer(found, exact, same),
        _presets_metrics(found, exact),
        _presets_items(found, exact, same),
    )


def _apart(by_k: Mapping[int, GradientNoise]) -> float:
    """Standard errors between the mean gradient of the most copies and that of one."""
    return standard_errors_apart(by_k[max(by_k)], by_k[min(by_k)])


def _presets_answer(found: CopiesAndBatches, exact: Mapping[str, float], same: bool) -> str:
    first = next(iter(found.noise.values()))
    most = max(first)
    mean = "stays" if _apart(first) < MEAN_BAR else "MOVES"
    changed = "change nothing" if same else "CHANGE loss or gradient"
    sentences = [
        f"Without dropout, copies of the clip {changed}:"
        f" {exact['fp64']:.0e} in fp64, {exact['fp32']:.0e} in fp32. With dropout"
        f" {found.dropout:g} the noise of the gradient falls from {first[1].relative:.2f} to"
        f" {first[most].relative:.2f} of its norm at {most} copies, and its mean {mean}.",
        _matched_sentence(found.compared["difference_batch_size"]),
        _corpus_sentence(found),
        _alone_sentence(found.alone),
    ]
    return " ".join(sentences)


def _matched_sentence(matched: BatchComparison | None) -> str:
    words = {
        "supported": "lower the loss",
        "refuted": "do not lower the loss",
        "undecided": "leave it open whether they lower the loss",
    }
    if matched is None:
        return "Distinct clips against single ones: undecided, the study is not recorded."
    return (
        f"At matched steps, batches of 32 distinct clips {words[matched.verdict]} (difference"
        f" {matched.difference:+.3f} of the best constant)."
    )


def _corpus_sentence(found: CopiesAndBatches) -> str:
    words = {
        "supported": "lower the loss",
        "refuted": "do not lower the loss",
        "undecided": "leave it open whether they lower the loss",
    }
    corpus = found.compared["question_1"]
    if corpus is None:
        return (
            "Whether real training's loss goes down where one clip's does not: undecided, no large"
            " corpus is recorded."
        )
    return (
        f"Over {largest_corpus(found.runs)} prompts, real training's batches"
        f" {words[corpus.verdict]} against single clips at matched steps (difference"
        f" {corpus.difference:+.3f})."
    )


def _alone_sentence(alone: BatchOfOne | None) -> str:
    if alone is None:
        return "Whether batch size 1 breaks learning: undecided, the sound runs are not recorded."
    words = {
        "supported": "breaks",
        "refuted": "does not break",
        "undecided": "may or may not break",
    }
    return (
        f"{len(alone.errors)} sound models trained at batch size 1 end at {alone.mean:.2f} of the"
        f" best constant: batch size 1 {words[alone.verdict]} learning."
    )


def _presets_metrics(found: CopiesAndBatches, exact: Mapping[str, float]) -> dict[str, Any]:
    left_out = next(iter(found.copied.values())).left_out
    metrics: dict[str, Any] = {
        "copies_fp64": exact["fp64"],
        "copies_fp32": exact["fp32"],
        "left_out_tensors": len(left_out),
        "distinct_clips_live": found.n_voice,
        "runs_recorded": len(found.runs),
        "largest_corpus": largest_corpus(found.runs),
    }
    for name, by_k in found.noise.items():
        metrics |= {f"{name}_noise_k{k}": one.relative for k, one in by_k.items()}
        metrics[f"{name}_noise_slope"] = noise_exponent(
            {k: one.relative for k, one in by_k.items()}
        )
        metrics[f"{name}_mean_standard_errors"] = _apart(by_k)
    for run in found.live:
        if run.arm not in ("single", "distinct"):
            label = run.arm.replace(", ", "_").replace(" ", "_")
            metrics[f"outcome_{label}"] = run.mean_to_step(run.steps)
    for name, one in found.compared.items():
        if one is not None:
            metrics |= {
                f"{name}_batch": sum(one.batch) / len(one.batch),
                f"{name}_single": sum(one.single) / len(one.single),
                f"{name}_budget": one.budget,
                f"{name}_batch_below": one.batch_below,
                f"{name}_single_below": one.single_below,
            }
    return metrics


def _presets_items(found: CopiesAndBatches, exact: Mapping[str, float], same: bool) -> list[Item]:
    return [
        Item(
            id="duplicates_change_nothing",
            claim="without dropout, k copies of the clip have the loss and the gradient of one",
            verdict="supported" if same else "refuted",
            effect=exact["fp64"],
            unit="largest relative difference, fp64",
            threshold=1e-9,
            n=len(found.copied),
            unit_of_replication="comparisons of k copies with one (2 models, 2 precisions)",
            provenance=f"notebook 04, {found.where}",
            refuting_experiment=(
                "a k at which a tensor differs by more than 1e-9 in fp64 or the gradient by more"
                " than 1e-5 in fp32"
            ),
        ),
        _matched_item(
            found,
            "difference_batch_size",
            "at matched steps, batches of 32 distinct clips lower the mel loss over its best"
            " constant by more than the margin, against single clips of the same voice",
            "more sets of clips and seeds, another voice, or a longer budget, with the other sign",
        ),
        _matched_item(
            found,
            "difference_batch_size_frames",
            "at matched frames seen, batches of 32 distinct clips lower the mel loss over its "
            "best constant by more than the margin, against single clips of the same voice",
            "a learning rate scaled with the batch that wins at matched frames",
        ),
        _matched_item(
            found,
            "question_1",
            "in real training (a corpus, 32 clips a step) the mel loss falls faster than a single"
            " clip's at matched steps",
            "a corpus of 500 prompts or more, trained for as many steps as the single clips, "
            "whose loss does the opposite",
        ),
        _alone_item(found),
    ]


def _matched_item(found: CopiesAndBatches, id: str, claim: str, refuting: str) -> Item:
    one, origin = found.compared[id], found.origin
    common: dict[str, Any] = dict(
        id=id,
        claim=claim,
        unit="of the best constant",
        threshold=-MARGINS["outcome"],
        unit_of_replication="runs, unpaired",
        refuting_experiment=refuting,
    )
    if one is None:
        return Item(**common, verdict="undecided", n=0, provenance=found.reasons[id])
    return Item(
        **common,
        verdict=one.verdict,
        effect=one.difference,
        interval=one.interval,
        n=len(one.batch) + len(one.single),
        provenance=(
            f"benchmarks/results/evidence/batches.json, {origin.get('date', 'absent')}, commit"
            f" {origin.get('commit', 'none')}"
        ),
    )


def _alone_item(found: CopiesAndBatches) -> Item:
    alone = found.alone
    provenance = found.why_not
    if alone is not None:
        commit = found.sound_origin.get("commit", "none")
        provenance = f"benchmarks/results/evidence/breaks.json, commit {commit}"
    return Item(
        id="question_2",
        claim="batch size 1 breaks learning",
        verdict="undecided" if alone is None else alone.verdict,
        effect=None if alone is None else alone.mean,
        interval=None if alone is None else alone.interval,
        n=0 if alone is None else len(alone.errors),
        unit="worse of TF and FR error, of the best constant",
        unit_of_replication="runs of a sound model",
        threshold=LEARNED,
        provenance=provenance,
        refuting_experiment=(
            "a sound model that fails at batch size 1 and learns the same clips at 32"
        ),
    )
