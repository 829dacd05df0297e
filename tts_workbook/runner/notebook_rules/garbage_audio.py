"""What notebook 07 rules from what was heard of the presets: `rule(found)` gives answer, metrics
and items. Every threshold stands in the item that it decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tts_core.metrics.free_running import Gap
from tts_core.metrics.full_inference import FullInference
from tts_workbook.measure.history_parity import HistoryParity
from tts_workbook.measure.interaction import TwoByTwo
from tts_workbook.measure.listening import Judged, ranked
from tts_workbook.measure.self_feeding import SelfFeeding
from tts_workbook.measure.stop_head import StopCalibration
from tts_workbook.runner.notebook_rules.ruling import Ruling
from tts_workbook.runner.verdicts import Item
from tts_workbook.trials.statistics import Verdict

COPY, FREE, FREE_NO_NORM = "copy-synthesis", "healthy: free-running", "no_norm: free-running"
SEED_LAYOUT = "healthy: free-running, seed layout"
NO_NORM_SEED_LAYOUT = "no_norm: free-running, seed layout"
UNIFORM, TRAINED_FLAT = "uniform durations", "trained on uniform durations"
WHOLE = "full inference: healthy"
WORD_ERRORS = {  # version -> name of its word error rate
    "recording": "wer_recording",
    COPY: "wer_copy",
    FREE: "wer_fr",
    FREE_NO_NORM: "wer_no_norm_fr",
    SEED_LAYOUT: "wer_seed_layout",
    NO_NORM_SEED_LAYOUT: "wer_no_norm_seed_layout",
}
GARBAGE = 0.1  # STOI below copy-synthesis, or lost


@dataclass(frozen=True)
class Recipe:
    """What the seed's mel recipe costs without any model."""

    loss: float  # STOI, mean over the clips
    loss_without_ceiling: float
    at_ceiling: float  # share of the values
    n_clips: int
    source: str  # where the clips come from


@dataclass(frozen=True)
class Heard:
    """What was heard and measured; versions of the clip by their label, models by their name."""

    clip: str
    profile: str
    english: bool
    n_words: int
    n_phases: int  # of the word error rates that all versions have
    sound: bool  # healthy passed the gate of notebook 03, and no training was stopped by hand
    measured_durations: bool  # those of the clip are not uniform
    stopped: str  # a sentence where a training was stopped, else empty
    trained: Mapping[str, float]  # metrics of notebook 03
    gaps: Mapping[str, Mapping[str, Gap]]  # by layout
    parity: Mapping[str, Mapping[str, HistoryParity]]  # by layout
    judged: Mapping[str, Judged]
    order: Sequence[str]  # versions that are ranked
    wer: Mapping[str, float]
    fed: Mapping[str, SelfFeeding]
    # frames within which a model is worse than the best constant; None: it never is
    crossed: Mapping[str, int | None]
    both: TwoByTwo
    recipe: Recipe
    stops: Mapping[str, StopCalibration]
    inferred: Mapping[str, FullInference]
    flat: Gap | None  # of the model trained on uniform durations

    @property
    def common(self) -> dict[str, Any]:
        return dict(
            n=1,
            unit_of_replication="clip and seed",
            provenance=f"notebook 07, {self.clip}, profile {self.profile}",
        )


def rule(found: Heard) -> Ruling:
    """Rule on what makes the audio garbage, cause by cause."""
    items = [
        _intelligible_item(found),
        _memory_item(found),
        _layout_item(found),
        _interaction_item(found),
        _recipe_item(found),
        _inference_item(found),
        _alignment_item(found),
        *_flat_items(found),
    ]
    return Ruling(_answer(found), _metrics(found), items)


def _decided(found: Heard, holds: bool) -> Verdict:
    """Of a claim that needs a sound model."""
    if not found.sound:
        return "undecided"
    return "supported" if holds else "refuted"


def _stoi(found: Heard, label: str) -> float:
    """Of a version that lies on the time axis of the recording."""
    score = found.judged[label].stoi
    assert score is not None, f"{label} has another length than the recording"
    return score


# --- items ----------------------------------------------------------------------------------------


def _understood(found: Heard) -> tuple[bool, dict[str, Any]]:
    """Whether healthy is as intelligible as its copy-synthesis, and by what that is judged."""
    if found.english:
        extra = (found.wer[FREE] - found.wer[COPY]) * found.n_words
        judged_by = dict(effect=extra, unit="words more wrong than copy-synthesis", threshold=1)
        return extra <= 1, judged_by
    heard = _stoi(found, FREE)
    judged_by = dict(effect=heard, unit="STOI against copy-synthesis", threshold=0.9)
    return heard >= 0.9, judged_by


def _intelligible_item(found: Heard) -> Item:
    understood, judged_by = _understood(found)
    return Item(
        id="intelligible",
        claim="healthy, free-running, is as intelligible as its own copy-synthesis",
        verdict="supported" if understood else "refuted",
        **judged_by,
        **found.common,
        refuting_experiment=(
            "word error rate more than one word above that of copy-synthesis on other clips or"
            " seeds"
        ),
    )


def _memory_item(found: Heard) -> Item:
    trained = found.trained
    looks_fine = trained["no_norm_tf_l1"] < 0.5 * trained["best_constant_l1"]
    worse = _stoi(found, FREE_NO_NORM) < _stoi(found, FREE)
    return Item(
        id="garbage_audio_memory",
        claim=(
            "without the memory norm the audio is garbage while the teacher-forced loss looks "
            "fine (below half the best constant)"
        ),
        verdict=_decided(found, looks_fine and found.both.first_ratio >= 3 and worse),
        effect=found.both.first_ratio,
        unit="times FR L1",
        threshold=3,
        **found.common,
        refuting_experiment="the norm as the one factor, paired over clips and seeds",
    )


def _layout_item(found: Heard) -> Item:
    return Item(
        id="garbage_audio_layout",
        claim=(
            "the seed's generation layout alone multiplies the free-running error of a sound model"
        ),
        verdict=_decided(found, found.both.second_ratio >= 3),
        effect=found.both.second_ratio,
        unit="times FR L1",
        threshold=3,
        **found.common,
        refuting_experiment=(
            "the layout as the one factor, on models with other go frames and seeds"
        ),
    )


def _interaction_item(found: Heard) -> Item:
    return Item(
        id="garbage_audio_interaction",
        claim=(
            "memory norm and layout are independent causes: their factors of FR L1 multiply"
            " (within 1.5)"
        ),
        verdict=_decided(found, 2 / 3 <= found.both.interaction <= 1.5),
        effect=found.both.interaction,
        unit="interaction factor (1 = they multiply)",
        threshold=2 / 3,
        **found.common,
        refuting_experiment="the 2 x 2 over clips and seeds",
    )


def _recipe_item(found: Heard) -> Item:
    recipe = found.recipe
    return Item(
        id="garbage_audio_recipe",
        claim=(
            "the seed's mel recipe alone, without any model, costs 0.1 STOI or more against the"
            " standard recipe"
        ),
        verdict="supported" if recipe.loss >= GARBAGE else "refuted",
        effect=recipe.loss,
        unit="STOI lost, mean over the clips",
        threshold=GARBAGE,
        n=recipe.n_clips,
        unit_of_replication="clip",
        provenance=f"notebook 07, clips from {recipe.source}",
        refuting_experiment=(
            "a vocoder trained on the seed's recipe whose copy-synthesis is as good as the standard"
            " one's"
        ),
    )


def _inference_item(found: Heard) -> Item:
    harm = _harm_of_inference(found)
    verdict: Verdict = "undecided"
    if harm["effect"] is not None:
        verdict = _decided(found, harm["effect"] > harm["threshold"])
    return Item(
        id="garbage_audio_full_inference",
        claim=(
            "predicted durations and the stop head spoil what is sound over true durations (more"
            " than one word, or without a recogniser more than 10 % of the length)"
        ),
        verdict=verdict,
        **harm,
        **found.common,
        refuting_experiment="the same on text that was not trained on",
    )


def _harm_of_inference(found: Heard) -> dict[str, Any]:
    whole, base = found.judged.get(WHOLE), found.judged[FREE]
    if found.english and whole is not None and whole.rates:
        rate, true_rate = whole.wer(found.n_phases), base.wer(found.n_phases)
        assert rate is not None and true_rate is not None, "both were heard with the same phases"
        unit = "words more wrong than over true durations"
        return dict(effect=(rate - true_rate) * found.n_words, unit=unit, threshold=1)
    if "healthy" in found.inferred:
        share = 100 * abs(found.inferred["healthy"].length_error_share)
        return dict(effect=share, unit="% of the length", threshold=10)
    return dict(effect=None, unit="", threshold=None)


def _alignment_item(found: Heard) -> Item:
    warped = found.judged[UNIFORM].stoi_warped
    assert warped is not None, "wrong durations are judged after warping too"
    lost = _stoi(found, FREE) - warped
    known = found.sound and found.measured_durations
    return Item(
        id="garbage_audio_alignment",
        claim=(
            "uniform durations at generation make a sound model's audio garbage (0.1 STOI lost"
            " after time warping)"
        ),
        verdict=_decided(found, lost >= GARBAGE) if known else "undecided",
        effect=lost,
        unit="STOI lost",
        threshold=GARBAGE,
        **found.common,
        refuting_experiment=(
            "the same on a model trained on a corpus, which cannot know a clip's timing by heart"
        ),
    )


def _flat_items(found: Heard) -> list[Item]:
    if found.flat is None:
        return []
    lost = _stoi(found, FREE) - _stoi(found, TRAINED_FLAT)
    item = Item(
        id="garbage_audio_uniform_training",
        claim=(
            "training on uniform durations makes the audio garbage (0.1 STOI below the model"
            " trained on the true ones)"
        ),
        verdict=_decided(found, lost >= GARBAGE),
        effect=lost,
        unit="STOI lost",
        threshold=GARBAGE,
        **found.common,
        refuting_experiment="the same on a corpus, where timing cannot be learned by heart",
    )
    return [item]


# --- answer and metrics ---------------------------------------------------------------------------


def _answer(found: Heard) -> str:
    understood, _ = _understood(found)
    by_words = "no word error rate in this language"
    if found.english:
        by_words = (
            f"WER {found.wer[FREE]:.2f} against {found.wer[COPY]:.2f} for copy-synthesis"
            f" and {found.wer[FREE_NO_NORM]:.2f} for no_norm"
        )
    scores = ranked({label: found.judged[label] for label in found.order})
    garbage = [
        f"{label} ({score:.2f})"
        for label, score in scores.items()
        if score < scores[COPY] - GARBAGE
    ]
    k = found.crossed["no_norm"]
    lost = "stays below the best constant"
    if k:
        lost = f"is worse than the best constant within {k} frame{'s' * (k > 1)}"
    both = found.both
    return (
        f"healthy, free-running, is"
        f" {'as intelligible as' if understood else 'less intelligible than'}"
        f" its copy-synthesis (STOI {found.judged[FREE].stoi:.3f}; {by_words}). Removing only the"
        f" memory norm raises the free-running error {both.first_ratio:.1f} times; hearing itself,"
        f" that model {lost}. The seed's history layout alone raises the error"
        f" {both.second_ratio:.1f} times, and {both.second_given_first:.1f} times once the norm is"
        f" gone. The seed's mel recipe alone costs {found.recipe.loss:.2f} STOI. By STOI, more than"
        f" 0.1 below copy-synthesis, worst first: {', '.join(garbage) or 'nothing'}.{found.stopped}"
    )


def _metrics(found: Heard) -> dict[str, Any]:
    gaps, judged = found.gaps, found.judged
    metrics: dict[str, Any] = {
        "stoi_fr": judged[FREE].stoi,
        "stoi_no_norm_fr": judged[FREE_NO_NORM].stoi,
        "words": found.n_words,
        "fr_l1_train_layout": gaps["healthy"]["train"].fr_l1,
        "fr_l1_seed_layout": gaps["healthy"]["seed"].fr_l1,
        "no_norm_fr_l1_train_layout": gaps["no_norm"]["train"].fr_l1,
        "no_norm_fr_l1_seed_layout": gaps["no_norm"]["seed"].fr_l1,
        "interaction": found.both.interaction,
        "mcd_fr": judged[FREE].mcd,
        "mcd_no_norm_fr": judged[FREE_NO_NORM].mcd,
        "stoi_seed_layout": judged[SEED_LAYOUT].stoi,
        "stoi_no_norm_seed_layout": judged[NO_NORM_SEED_LAYOUT].stoi,
    }
    for name, layouts in found.parity.items():
        prefix = "" if name == "healthy" else f"{name}_"
        for layout, one in layouts.items():
            in_ln_units = one.largest * found.trained["best_constant_l1"]
            metrics[f"{prefix}parity_{layout}_layout"] = in_ln_units
    metrics |= {WORD_ERRORS[label]: rate for label, rate in found.wer.items()}
    return {
        **metrics,
        **_self_feeding_metrics(found),
        **_recipe_metrics(found.recipe),
        **_stop_metrics(found),
        **_length_metrics(found),
        **_judged_metrics(found),
    }


def _self_feeding_metrics(found: Heard) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for name, one in found.fed.items():
        at = dict(zip(one.last.tolist(), one.error.tolist(), strict=True))
        metrics |= {f"{name}_self_fed_{k}": at[k] for k in (1, 2, 8, 64) if k in at}
        if found.crossed[name]:
            metrics[f"{name}_worse_than_constant_from"] = found.crossed[name]
    return metrics


def _recipe_metrics(recipe: Recipe) -> dict[str, Any]:
    return {
        "recipe_clips": recipe.n_clips,
        "recipe_stoi_loss": recipe.loss,
        "recipe_stoi_loss_no_ceiling": recipe.loss_without_ceiling,
        "recipe_at_ceiling": recipe.at_ceiling,
    }


def _stop_metrics(found: Heard) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for label, one in found.stops.items():
        key = label.replace(": ", "_").replace("-", "_")
        metrics |= {
            f"stop_{key}_bce": one.bce,
            f"stop_{key}_at_last": one.at_last,
            f"stop_{key}_elsewhere": one.largest_elsewhere,
        }
    metrics["stop_constant_bce"] = found.stops["healthy: teacher-forced"].constant_bce
    return metrics


def _length_metrics(found: Heard) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for name, one in found.inferred.items():
        metrics[f"{name}_inferred_frames_off"] = one.length_error
        metrics[f"{name}_inferred_share_off"] = one.length_error_share
    if found.flat is not None:
        metrics["uniform_training_tf_l1"] = found.flat.tf_l1
        metrics["uniform_training_fr_l1"] = found.flat.fr_l1
    return metrics


def _judged_metrics(found: Heard) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for label, one in found.judged.items():
        key = label.replace("'", "")
        for old in (": ", ", ", " ", "-"):
            key = key.replace(old, "_")
        numbers = {
            "stoi": one.stoi,
            "stoi_warped": one.stoi_warped,
            "wer_few": one.wer(found.n_phases),
        }
        metrics |= {
            f"{name}_{key}": number for name, number in numbers.items() if number is not None
        }
    return metrics
