"""data.batch_varies: the "single clip" is another one at every step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from tts_core.speech.dataset import Clip
from tts_workbook.bars import Bar
from tts_workbook.faults.cause import Cause, Decision, Experiment, Level, Telling
from tts_workbook.faults.planting import Build, Setting
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change
from tts_workbook.measure.seen_clips import clips_of, is_variant, seen_batches
from tts_workbook.subject.clip_batch import ClipBatch, gather, trim_clip
from tts_workbook.subject.isolation import private_copy
from tts_workbook.subject.subject import Batch, Subject, SubjectError, supplied

# of the clips of `batches` that are the batch's or variants of them
OWN_SHARE = Bar(0.9, control="the clips that `batches` gives: a corpus has others than the batch's")
# that are variants
VARIANT_SHARE = Bar(0.25, control="the clips that `batches` gives")
VARYING_HARM = Bar(1.15, control="final TF error of the paired run with the batch held fixed")


@dataclass(frozen=True)
class PairedTraining:
    """A course on the batches as they come beside one on the batch held fixed; final TF over the
    best constant.
    """

    varying: float
    held: float
    varying_learnt: bool
    held_learnt: bool


@dataclass(frozen=True)
class Batches:
    """The clips that training sees, against the batch's own."""

    n_clips: int
    same: float  # share of them that are the batch's
    variants: float  # share that was made of the batch's
    training: PairedTraining | None  # None: not asked

    @property
    def hold_still(self) -> bool:
        """Whether they are the batch, or a corpus: other clips, not variants of the batch's."""
        return self.variants < VARIANT_SHARE or self.same + self.variants < OWN_SHARE


def measure(lab: Lab) -> Batches:
    """Hashes of the clips that training sees; where they are variants of the batch's, a paired run
    with the batch held. Raises SubjectError where training sees none.
    """
    own = clips_of(lab, lab.batch)
    known = {clip.hash for clip in own}
    seen = [clip for batch in seen_batches(lab) for clip in clips_of(lab, batch)]
    if not seen:
        raise SubjectError(
            "batches", "an iterator that ends at once", "the batches that training sees"
        )
    others = [clip for clip in seen if clip.hash not in known]
    made_of_own = [clip for clip in others if any(is_variant(clip, mine) for mine in own)]
    numbers = Batches(
        n_clips=len(seen),
        same=(len(seen) - len(others)) / len(seen),
        variants=len(made_of_own) / len(seen),
        training=None,
    )
    return numbers if numbers.hold_still else replace(numbers, training=_trained(lab))


def _trained(lab: Lab) -> PairedTraining:
    endless = _endless(supplied(lab.subject.batches, "batches"))
    as_they_come = Change("the_batches_as_they_come", batch_at=lambda number: next(endless))
    varying, held = lab.course(as_they_come), lab.course()
    return PairedTraining(varying.final, held.final, varying.learnt, held.learnt)


def _endless(batches: Callable[[], Iterator[Batch]]) -> Iterator[Batch]:
    while True:
        empty = True
        for batch in batches():
            empty = False
            yield private_copy(batch)
        if empty:
            return


def decide(numbers: Batches) -> Decision:
    """Pure: which of the ends it is."""
    training = numbers.training
    if training is None:
        reason = "holds still" if numbers.same == 1.0 else "a corpus"
        return Decision("excluded", "batches", reason=reason)
    lost = training.held_learnt and not training.varying_learnt
    worse = training.varying > VARYING_HARM * training.held or lost
    level: Level = "confirmed" if worse else "suspected"
    strength = 1 - training.held / max(training.varying, 1e-9)
    return Decision(level, "batches", min(1.0, max(0.0, strength)), "varies")


HASHED = "hashes of the clips of 12 batches against the batch's own"


def tell(numbers: Batches, decision: Decision) -> Telling:
    evidence: dict[str, float | str] = {
        "clips seen": numbers.n_clips,
        "identical to the batch's": numbers.same,
        "variants of the batch's": numbers.variants,
    }
    if numbers.training is not None:
        evidence |= {
            "TF L1 / best constant, as they come": numbers.training.varying,
            "the batch held fixed": numbers.training.held,
        }
    if decision.reason == "holds still":
        return Telling(f"{HASHED}: it holds still", evidence)
    if decision.reason == "a corpus":
        return Telling(f"{HASHED}: other clips, a corpus", evidence)
    return Telling(
        "training on the batches as they come against the batch held fixed, same seeds", evidence
    )


def plant(build: Build, setting: Setting) -> Subject:
    """What should be one fixed batch changes at every step: random crops to 40 to 80 % of each
    clip, or noise of 1 to 3 ln units on its mel (drawn).
    """
    subject = build(setting)
    share, loudness = setting.random.uniform(0.4, 0.8), setting.log_uniform(1, 3)
    crops = setting.random.random() < 0.5

    def batches() -> Iterator[ClipBatch]:
        draw, noise = random.Random(setting.seed), torch.Generator().manual_seed(setting.seed)

        def changed(clip: Clip) -> Clip:
            spare = round(len(clip.mel) * (1 - share))
            first = draw.randint(0, spare)
            if crops:
                return trim_clip(clip, first, spare - first)
            added = torch.randn(clip.mel.shape, generator=noise)
            return replace(clip, mel=clip.mel + loudness * added)

        while True:
            yield gather([changed(clip) for clip in subject.batch.clips], subject.batch.pad_value)

    return replace(subject, batches=batches)


CAUSE = Cause(
    id="data.batch_varies",
    title='the "single clip" is another one at every step',
    experiment="hash the batches; train on one of them held fixed, same seeds",
    fix="switch random crops, augmentation and shuffling off for the overfit test",
    experiments=(Experiment(measure, decide, tell, needs=("batches",)),),
    plant=plant,
)
