"""Batches beside single clips: copies of one clip, distinct clips of one voice, a whole corpus.

Runs are compared at matched steps and at matched frames. They are not paired: a batch has no single
clip of its own. The interval of a difference is the range of all differences between a batch run
and a single run. Under a shift model that is the Mann-Whitney test inverted at its extreme, with
coverage 1 - 2 / C(m + n, n): 99.6 % for 4 and 8 runs, 95.6 % for 2 and 8 (Mann and Whitney 1947;
Lehmann, Nonparametrics, 1975, section 2.4).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tts_core.config import AudioConfig, ExperimentConfig
from tts_core.errors import WorkbookError
from tts_core.speech.bundled import VOICES, bundled_voice
from tts_core.speech.dataset import Clip
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.corpus.reading import read_corpus
from tts_workbook.measure.trajectory import PLATEAU_BAND
from tts_workbook.trials.paired_effects import MARGINS
from tts_workbook.trials.run_preset_trial import outcome
from tts_workbook.trials.statistics import Verdict, decide, sign_flip_interval
from tts_workbook.trials.studies import MIN_CORPUS, N_DISTINCT
from tts_workbook.trials.study_records import STUDY_RECORDS, read_study_record, study_record_path
from tts_workbook.trials.trial import ClipReference, Trial, make_trial
from tts_workbook.trials.trial_result import TrialResult

CONFIDENCE = 0.95
LEARNED = 0.5  # of the best constant: a run whose errors end below it has learned its clip
MIN_RUNS = 8  # fewer rule nothing


@dataclass(frozen=True)
class LivePlan:
    """How much notebook 04 trains live, by profile."""

    copies: tuple[int, ...]  # of the clip, in the failing model
    steps: int  # of each of these runs
    distinct: int  # clips in the live batch
    distinct_steps: int
    single: int  # single clips beside it
    single_steps: int
    draws: int  # of dropout masks, for the gradient's noise
    noise_copies: tuple[int, ...]

    @classmethod
    def of(cls, profile: str) -> LivePlan:
        """Two to three minutes on two idle processors in `quick`, seconds in `smoke`."""
        if profile == "smoke":
            return cls((1, 2), 4, 3, 3, 2, 6, 4, (1, 2, 4))
        return cls((1, 2, 4), 40, N_DISTINCT, 16, 4, 64, 10, (1, 2, 4, 8))


def clips_of_one_voice(clips: Sequence[Clip], n: int) -> list[Clip]:
    """Up to `n` of `clips`: those of the folder that most of them come from, in order."""
    by_folder: dict[Path, list[Clip]] = {}
    for clip in clips:
        by_folder.setdefault(clip.path.parent.parent, []).append(clip)
    return max(by_folder.values(), key=len)[:n]


def copy_trials(
    clip: Clip,
    vocabulary: Vocabulary,
    experiments: Mapping[str, ExperimentConfig],
    copies: Iterable[int],
) -> list[Trial]:
    """One clip trained as k copies of itself, for every experiment (by name) and k, the largest k
    first.
    """
    trials = []
    for k in sorted(copies, reverse=True):
        for name, experiment in experiments.items():
            trial = make_trial([clip], vocabulary, experiment, copies=k, name=copies_name(name, k))
            trials.append(trial)
    return trials


def copies_name(name: str, k: int) -> str:
    """`seed, 1 copy`, `seed, 4 copies`."""
    return f"{name}, {k} {'copy' if k == 1 else 'copies'}"


@dataclass(frozen=True)
class BatchRun:
    """One training, seen as loss against steps and frames."""

    arm: str  # single, distinct, corpus, ...
    label: str  # for people
    clips: int  # that it was trained on
    # mel L1 over the best constant of the frames it was trained on, one per step made
    over_constant: tuple[float, ...]
    steps: int  # of its budget
    frames_per_step: float | None  # None where the clips are not at hand to be counted

    @property
    def frames(self) -> float | None:
        """Seen over the whole budget."""
        return None if self.frames_per_step is None else self.steps * self.frames_per_step

    def mean_to_step(self, steps: float) -> float:
        """Mean of the curve over the first `steps`, the last of which may be made in part only."""
        whole = int(steps)
        if whole < 1:
            return self.over_constant[0] if self.over_constant else 1.0
        mean = outcome(self.over_constant[:whole], whole)
        rest = steps - whole
        mean_with_next = outcome(self.over_constant[: whole + 1], whole + 1)
        following = mean_with_next * (whole + 1) - mean * whole
        return (mean * whole + following * rest) / steps

    def end_at(self, step: int) -> float:
        """Mean of the tenth of the steps that ends at `step`."""
        n_tail = max(1, step // 10)
        tail = self.over_constant[max(0, step - n_tail) : step]
        if tail:
            return sum(tail) / len(tail)
        return max(1.0, *self.over_constant[-1:])


def frames_of(clips: Iterable[Clip]) -> dict[str, int]:
    """Frames by content of the clip; every mel recipe of the workbook has the same."""
    return {ClipReference.of(clip).content: len(clip.mel) for clip in clips}


def bundled_frames(results: Iterable[TrialResult]) -> dict[str, int]:
    """`frames_of` the clips of recorded trials, as far as they are bundled."""
    wanted: dict[str, set[str]] = {}
    used = [clip for result in results for clip in result.trial.clips]
    for clip in used:
        if clip.root in VOICES:
            wanted.setdefault(clip.root, set()).add(clip.id)
    found: dict[str, int] = {}
    for voice, ids in wanted.items():
        found |= frames_of(read_corpus(bundled_voice(voice), AudioConfig(), ids=sorted(ids)).clips)
    return found


def batch_runs(results: Iterable[TrialResult], frames: Mapping[str, int]) -> list[BatchRun]:
    """The results as curves; `frames` by content of the clip."""
    runs = []
    for result in results:
        trial = result.trial
        curve = tuple(result.curves["over_constant"])
        per_step = _frames_per_step(trial, frames)
        runs.append(
            BatchRun(trial.name, run_label(trial), len(trial.clips), curve, trial.steps, per_step)
        )
    return runs


def _frames_per_step(trial: Trial, frames: Mapping[str, int]) -> float | None:
    """Frames that a step of the trial sees on average; None where a clip is not in `frames`."""
    known = [frames[clip.content] for clip in trial.clips if clip.content in frames]
    if len(known) < len(trial.clips):
        return None
    share = 1.0 if trial.batch_size is None else trial.batch_size / len(known)
    return sum(known) * share * trial.copies


def run_curve(run: BatchRun) -> dict[str, Any]:
    """What a figure draws of a run: its steps, its loss over the best constant, frames per step."""
    return {
        "steps": range(1, len(run.over_constant) + 1),
        "over_constant": run.over_constant,
        "frames_per_step": run.frames_per_step,
    }


def first_of(runs: Iterable[BatchRun], arm: str) -> BatchRun:
    """The first run of an arm."""
    return next(run for run in runs if run.arm == arm)


def run_label(trial: Trial) -> str:
    """`single, queue-thankyou, seed 0`; `distinct, 32 clips from agent-alreadyon on, seed 1`."""
    first, n = trial.clips[0].id, len(trial.clips)
    what = first if n == 1 else f"{n} clips from {first} on"
    return f"{trial.name}, {what}, seed {trial.experiment.fit.seed}"


@dataclass(frozen=True)
class BatchComparison:
    """Batches beside single clips over one common budget; all values are mel L1 over the best
    constant.
    """

    by: str  # steps or frames
    budget: float  # that every run has in common, in `by`
    batch: tuple[float, ...]  # mean over the budget, one per run
    single: tuple[float, ...]
    batch_below: int  # runs that end the budget below the band around the best constant
    single_below: int

    @property
    def difference(self) -> float:
        return sum(self.batch) / len(self.batch) - sum(self.single) / len(self.single)

    @property
    def interval(self) -> tuple[float, float]:
        """The range of all differences of a batch run and a single run."""
        return min(self.batch) - max(self.single), max(self.batch) - min(self.single)

    @property
    def coverage(self) -> float:
        """Of that interval, if the runs are independent and a batch shifts the loss."""
        return 1 - 2 / math.comb(len(self.batch) + len(self.single), len(self.batch))

    @property
    def verdict(self) -> Verdict:
        """On "batches lower the loss by more than the margin"; undecided where the runs are too few
        for 95 %.
        """
        if self.coverage < CONFIDENCE:
            return "undecided"
        return decide(self.interval, MARGINS["outcome"], "decrease")


def compare_arms(
    runs: Sequence[BatchRun], arm: str, by: str = "steps", base: str = "single"
) -> BatchComparison:
    """`arm` against `base` over the longest budget that all their runs have.

    Raises WorkbookError where an arm has no run, and by frames where the frames of one are not
    known.
    """
    batch = [run for run in runs if run.arm == arm]
    single = [run for run in runs if run.arm == base]
    if not batch or not single:
        there = ", ".join(sorted({run.arm for run in runs})) or "none at all"
        raise WorkbookError(
            f"no run of {arm if not batch else base!r} to compare; recorded arms: {there}; "
            "`make evidence` computes it"
        )
    budget = min(run.steps * _per_step(run, by) for run in batch + single)
    batch_means, batch_below = _up_to(budget, batch, by)
    single_means, single_below = _up_to(budget, single, by)
    return BatchComparison(by, budget, batch_means, single_means, batch_below, single_below)


def _per_step(run: BatchRun, by: str) -> float:
    """What one step of the run costs of a budget in steps or frames."""
    if by == "steps":
        return 1
    if run.frames_per_step is None:
        raise WorkbookError(
            f"the frames of {run.arm!r} cannot be counted: its clips are not bundled"
        )
    return run.frames_per_step


def _up_to(budget: float, runs: Sequence[BatchRun], by: str) -> tuple[tuple[float, ...], int]:
    """(mean of each run over the budget, how many end it below the band)."""
    steps = [budget / _per_step(run, by) for run in runs]
    means = tuple(run.mean_to_step(at) for run, at in zip(runs, steps, strict=True))
    ends = [run.end_at(max(1, int(at))) for run, at in zip(runs, steps, strict=True)]
    return means, sum(end < 1 - PLATEAU_BAND for end in ends)


def largest_corpus(runs: Iterable[BatchRun]) -> int:
    """Prompts in the largest recorded corpus; 0 without one. Fewer than MIN_CORPUS say nothing
    about real training.
    """
    return max((run.clips for run in runs if run.arm == "corpus"), default=0)


def corpus_comparison(runs: Sequence[BatchRun]) -> BatchComparison:
    """Runs over MIN_CORPUS prompts or more against single clips. Raises WorkbookError where there
    are none.
    """
    largest = largest_corpus(runs)
    if largest < MIN_CORPUS:
        raise WorkbookError(
            f"the largest corpus trained has {largest} prompts, and {MIN_CORPUS} are wanted; "
            "`python benchmarks/evidence.py batches --corpus DIR` trains one"
        )
    return compare_arms(
        [run for run in runs if run.arm != "corpus" or run.clips >= MIN_CORPUS], "corpus"
    )


@dataclass(frozen=True)
class BatchOfOne:
    """Sound models trained on one clip, one at a time."""

    # the worse of TF and FR error over the best constant, per run
    errors: tuple[float, ...]
    mean: float
    interval: tuple[float, float]  # 95 %, by inversion of the sign-flip test
    verdict: Verdict  # on "batch size 1 breaks learning"


def judge_batch_of_one(results: Iterable[TrialResult], arm: str = "base") -> BatchOfOne:
    """Does batch size 1 break learning? Refuted where the interval of the sound runs' worse error
    lies below LEARNED.

    Supported where it lies above. Only runs on one clip without copies count; one that failed is no
    better than the best constant. Raises WorkbookError for fewer than MIN_RUNS runs.
    """
    of_arm = [result for result in results if result.trial.name == arm]
    chosen = [
        result for result in of_arm if len(result.trial.clips) == 1 and result.trial.copies == 1
    ]
    if len(chosen) < MIN_RUNS:
        raise WorkbookError(
            f"{len(chosen)} runs of a sound model at batch size 1, and {MIN_RUNS} are wanted; "
            "`make evidence` makes them"
        )
    errors = tuple(map(_worse_error, chosen))
    low, high = sign_flip_interval(errors)
    verdict: Verdict = "undecided"
    if high < LEARNED:
        verdict = "refuted"
    elif low > LEARNED:
        verdict = "supported"
    return BatchOfOne(errors, sum(errors) / len(errors), (low, high), verdict)


def _worse_error(result: TrialResult) -> float:
    """The worse of TF and FR error over the best constant; 1.0 where the run failed."""
    tf = result.measures.get("tf_over_constant")
    fr = result.measures.get("fr_over_constant")
    if result.failed or tf is None or fr is None:
        return 1.0
    return max(tf, fr)


def recorded_study(study: str, folder: Path = STUDY_RECORDS) -> tuple[list[TrialResult], dict]:
    """(results, provenance) of a recorded study; ([], {}) where there is none. A broken one raises
    WorkbookError.
    """
    return (
        read_study_record(study, folder) if study_record_path(study, folder).exists() else ([], {})
    )
