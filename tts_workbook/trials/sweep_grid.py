"""Learning rate x weight decay (x preset x seed): a grid of frozen trials, its tables, and its best
cell.

A cell is one preset, learning rate and weight decay; its value is the mean over the seeds. A cell
in which any seed's training became non-finite has no value: it is shown as failed, and never the
best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from tts_core.config import PRESETS, SEED_LR, preset
from tts_core.errors import WorkbookError
from tts_core.speech.dataset import Clip
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.trials.study_arms import change
from tts_workbook.trials.trial import Trial, make_trial
from tts_workbook.trials.trial_result import TrialResult

READS_TEXT = 1.1  # text use above which the text counts as read, as in the overfit gate
FR_LIMIT = 0.5  # of the best constant: a free-running error above it is no speech
# Theory 3 of the findings: 7e-5, the same for a batch of 32 (7e-5 * sqrt(32) = 4e-4), and 5e-4.
# The last two are what a sound model takes.
SWEPT_LEARNING_RATES = (SEED_LR, 4e-4, 5e-4, 1e-3, 3e-3)
SWEPT_WEIGHT_DECAYS = (0.0, 0.01, 0.1)  # theory 4 compares the first two
SWEEP_STEPS = {"smoke": 6, "quick": 200, "seed": 400}


class SweepCell(NamedTuple):
    """One place of the grid."""

    preset: str
    lr: float
    weight_decay: float

    @property
    def label(self) -> str:
        return f"{self.preset}, lr {self.lr:g}, weight decay {self.weight_decay:g}"


Table = Mapping[SweepCell, Sequence[TrialResult]]  # one result per seed


@dataclass(frozen=True)
class Sweep:
    """What is varied, and the size of every training. Build the usual one with `default_sweep`."""

    presets: tuple[str, ...] = ("healthy", "seed")
    lrs: tuple[float, ...] = SWEPT_LEARNING_RATES
    weight_decays: tuple[float, ...] = SWEPT_WEIGHT_DECAYS
    seeds: tuple[int, ...] = (0,)
    profile: str = "quick"
    steps: int = SWEEP_STEPS["quick"]  # of every training
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name in ("presets", "lrs", "weight_decays", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise WorkbookError(
                    f"Sweep.{name} = {values!r}, but it must hold one value or more, none twice"
                )
        unknown = sorted(set(self.presets) - set(PRESETS))
        if unknown:
            raise WorkbookError(
                f"Sweep.presets: there is no {', '.join(unknown)}; presets are {', '.join(PRESETS)}"
            )

    @property
    def cells(self) -> list[SweepCell]:
        """Preset by preset, learning rate by learning rate."""
        return [SweepCell(*place) for place in product(self.presets, self.lrs, self.weight_decays)]


def default_sweep(
    profile: str,
    seed: int = 0,
    steps: int | None = None,
    precision: str = "auto",
    presets: tuple[str, ...] = ("healthy", "seed"),
) -> Sweep:
    """The grid of a profile, one seed: 5 x 3 for each of the presets, in `smoke` 2 x 2 and a few
    steps.
    """
    if profile not in SWEEP_STEPS:
        raise WorkbookError(
            f"profile = {profile!r}, but it must be one of {', '.join(SWEEP_STEPS)}"
        )
    smoke = profile == "smoke"
    return Sweep(
        presets=presets,
        lrs=(SEED_LR, 1e-3) if smoke else SWEPT_LEARNING_RATES,
        weight_decays=SWEPT_WEIGHT_DECAYS[:2] if smoke else SWEPT_WEIGHT_DECAYS,
        seeds=(seed,),
        profile=profile,
        steps=steps or SWEEP_STEPS[profile],
        precision=precision,
    )


def sweep_trials(sweep: Sweep, clips: Sequence[Clip], vocabulary: Vocabulary) -> list[Trial]:
    """One frozen trial per seed and cell, seed by seed: a run cut short leaves whole grids."""
    trials = []
    for seed in sweep.seeds:
        for cell in sweep.cells:
            experiment = preset(
                cell.preset,
                vocabulary.get_vocab_size(),
                sweep.profile,
                steps=sweep.steps,
                lr=cell.lr,
                seed=seed,
                precision=sweep.precision,
            )
            experiment = change(experiment, {"optimizer.weight_decay": cell.weight_decay})
            trials.append(make_trial(clips, vocabulary, experiment, name=cell.label))
    return trials


def by_cell(sweep: Sweep, results: Sequence[TrialResult]) -> dict[SweepCell, list[TrialResult]]:
    """The results of `sweep_trials`, in its order, by cell. Raises WorkbookError where they are not
    its results.
    """
    cells = sweep.cells * len(sweep.seeds)
    if len(results) != len(cells):
        raise WorkbookError(f"{len(results)} results, but the sweep has {len(cells)} trials")
    table: dict[SweepCell, list[TrialResult]] = {cell: [] for cell in sweep.cells}
    for cell, result in zip(cells, results, strict=True):
        options = result.trial.experiment.optimizer
        if (options.lr, options.weight_decay) != (cell.lr, cell.weight_decay):
            raise WorkbookError(
                f"the result in the place of {cell.label} was trained with lr {options.lr:g},"
                f" weight decay {options.weight_decay:g}; hand over the results in the order of"
                " sweep_trials"
            )
        table[cell].append(result)
    return table


def value(results: Sequence[TrialResult], measure: str) -> float | None:
    """Mean of a measure (see `run.MEASURES`) over the seeds of a cell; None where one of them
    failed or has none.
    """
    values = [result.measures.get(measure) for result in results]
    known = [one for one in values if one is not None]
    failed = any(result.failed for result in results)
    if failed or not values or len(known) < len(values):
        return None
    return sum(known) / len(known)


def grid(table: Table, preset_name: str, measure: str) -> np.ndarray:
    """(learning rates, weight decays) of one preset, both rising; NaN marks a cell that failed.

    Raises WorkbookError for a preset that is not in the table, and where a cell of the grid is
    missing from it.
    """
    lrs, decays = axes_of(table, preset_name)
    found = np.full((len(lrs), len(decays)), math.nan)
    for row, lr in enumerate(lrs):
        for column, decay in enumerate(decays):
            place = SweepCell(preset_name, lr, decay)
            if place not in table:
                raise WorkbookError(
                    f"the grid of {preset_name} is not complete: {place.label} is missing"
                )
            one = value(table[place], measure)
            if one is not None:
                found[row, column] = one
    return found


def axes_of(table: Table, preset_name: str) -> tuple[list[float], list[float]]:
    """The rising learning rates and weight decays of one preset."""
    cells = [cell for cell in table if cell.preset == preset_name]
    if not cells:
        there = ", ".join(dict.fromkeys(cell.preset for cell in table))
        raise WorkbookError(
            f"there is no preset {preset_name!r} in the table; there are {there or 'none'}"
        )
    return sorted({cell.lr for cell in cells}), sorted({cell.weight_decay for cell in cells})


def best(table: Table, by: str = "fr_l1", preset_name: str | None = None) -> SweepCell | None:
    """The cell with the lowest `by`, of one preset or of all; None where every cell failed.

    Equal values: the lower learning rate, then the lower weight decay, then the earlier preset.
    Errors in ln units of two mel recipes do not compare: over presets use one divided by the best
    constant, such as fr_over_constant.
    """
    ranked = []
    for index, (cell, results) in enumerate(table.items()):
        one = value(results, by)
        if one is not None and preset_name in (None, cell.preset):
            ranked.append((one, cell.lr, cell.weight_decay, index, cell))
    return min(ranked)[-1] if ranked else None


def reading(table: Table, preset_name: str, fr_limit: float = FR_LIMIT) -> list[SweepCell]:
    """The cells that read their text (text use above 1.1) and free-run below `fr_limit` of the best
    constant.
    """
    kept = []
    for cell, results in table.items():
        use, error = value(results, "text_use"), value(results, "fr_over_constant")
        if cell.preset != preset_name or use is None or error is None:
            continue
        if use > READS_TEXT and error < fr_limit:
            kept.append(cell)
    return kept


class Spread(NamedTuple):
    """What weight decay alone does to a measure, where it does most."""

    size: float  # largest minus smallest value of the row
    preset: str
    lr: float
    # the values rise, or fall, with the decay; if not, instability cannot be told from an effect
    ordered: bool


def decay_spread(table: Table, measure: str = "outcome") -> Spread | None:
    """The largest difference that weight decay alone makes, over presets and learning rates; None
    without two values.
    """
    rows: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for cell, results in table.items():
        one = value(results, measure)
        if one is not None:
            rows.setdefault((cell.preset, cell.lr), []).append((cell.weight_decay, one))
    spreads = []
    for (name, lr), row in rows.items():
        values = [one for _, one in sorted(row)]
        if len(values) > 1:
            ordered = values in (sorted(values), sorted(values, reverse=True))
            spreads.append(Spread(max(values) - min(values), name, lr, ordered))
    return max(spreads, key=lambda spread: spread.size) if spreads else None


def choice_cost(
    table: Table, preset_name: str, by: str = "tf_over_constant", judged: str = "fr_over_constant"
) -> float | None:
    """How much more `judged` error the cell with the lowest `by` has than the best cell; None if
    every cell failed.
    """
    chosen, wanted = best(table, by, preset_name), best(table, judged, preset_name)
    if chosen is None or wanted is None:
        return None
    has, best_has = value(table[chosen], judged), value(table[wanted], judged)
    return None if has is None or best_has is None else has - best_has


def measured(result: TrialResult) -> str:
    """One line about one training: its name and what it reached, or why it failed."""
    name, steps = result.trial.name, len(result.curves["over_constant"])
    if result.failed:
        return f"{name}: FAILED after {steps} of {result.trial.steps} steps: {result.failed}"
    tf, fr, use = (
        result.measures[measure] for measure in ("tf_over_constant", "fr_over_constant", "text_use")
    )
    if tf is None or fr is None or use is None:
        return f"{name}: FAILED at its last step: what the model says is not finite"
    return f"{name}: TF {tf:.2f}, FR {fr:.2f} of best constant, text use {use:.2f}"


def curves(table: Table) -> dict[str, list[dict]]:
    """Preset -> for `plot_sweep_curves`, per training: learning rate, weight decay, curve, and
    whether it failed.
    """
    found: dict[str, list[dict]] = {}
    for cell, results in table.items():
        of_preset = found.setdefault(cell.preset, [])
        for result in results:
            curve = {
                "lr": cell.lr,
                "weight_decay": cell.weight_decay,
                "over_constant": result.curves["over_constant"],
                "failed": bool(result.failed),
            }
            of_preset.append(curve)
    return found
