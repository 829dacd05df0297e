"""What a cause is: one file of `faults/AREA/` holds one `CAUSE`.

    measure(lab) -> numbers     a frozen dataclass, no words
    decide(numbers) -> Decision pure, tested by tables; None where the experiment has nothing to say
    tell(numbers, decision) -> Telling     the sentences, by templates, last

`Experiment` binds the three. Most causes have one experiment; where there are several, the
strongest answer counts. A cause that other causes can make by themselves is decided after them
(`after_others`), with the ids of those that are confirmed as an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tts_workbook.faults.planting import Plant
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import ChangeKey

# A question is no accusation: something may be meant, and only its author knows ("is this meant?
# declare Subject.X", said in `Telling.fix`). It stands below all findings, apart.
Level = Literal["confirmed", "suspected", "question", "undecided", "excluded", "not applicable"]
LEVELS: tuple[Level, ...] = (
    "confirmed",
    "suspected",
    "question",
    "undecided",
    "excluded",
    "not applicable",
)
AREAS = ("data", "model", "loss", "optimizer", "precision", "loop", "generation")


@dataclass(frozen=True)
class Decision:
    """What the numbers say, before any sentence is made of it."""

    level: Level
    where: str = ""  # module or parameter path, or the part of the subject
    strength: float = 0.0  # how much of the trouble it explains; ranks findings of one level
    reason: str = ""  # which of the experiment's ends it is; `tell` chooses its sentence by it


@dataclass(frozen=True)
class Telling:
    """The sentences and the table of one finding."""

    experiment: str  # what was run, or what to run next
    evidence: Mapping[str, float | str] = field(default_factory=dict)  # the numbers behind it
    fix: str = ""  # what to change; the cause's own where it is not said
    mended_by: tuple[ChangeKey, ...] = ()  # the changes whose paired run removes the harm


@dataclass(frozen=True)
class Experiment:
    """One way to decide a cause."""

    # Lab, or Lab and the confirmed causes where the cause is decided `after_others`
    measure: Callable[..., Any]
    decide: Callable[[Any], Decision | None]
    tell: Callable[[Any, Decision], Telling]
    # optional parts of Subject without which it says "not applicable"
    needs: tuple[str, ...] = ()
    finite: bool = False  # whether it compares predictions, which then have to be finite


@dataclass(frozen=True)
class Cause:
    """A fault that keeps a TTS model from learning: what it is, how it is decided and planted."""

    id: str  # area.name, as the file is named
    title: str
    experiment: str  # what decides, in one line
    fix: str
    experiments: tuple[Experiment, ...]
    defect: bool = True  # exposure drift is a property of training, not a mistake
    for_the_ear: bool = False  # it matters once a model has learnt, and is named after what keeps
    # it from learning
    remedy: bool = False  # it mends many faults a little, and is named after the faults
    after_others: bool = False
    explains: tuple[str, ...] = ()  # causes whose signs it makes by itself: judged again once it
    # is mended
    # changes that would undo it, for the selection of paired runs; `upstream` is their place there:
    # what lies upstream is tried first
    propose: Callable[[Lab], Iterable[Suspect]] | None = None
    upstream: int = 0
    plant: Plant | None = None  # in any architecture; None: each architecture has its own
    # fields of Setting that a planted run and its clean twin need for the fault to matter
    plant_needs: Mapping[str, Any] = field(default_factory=dict)
    plant_layers: bool = False  # it can be planted on top of any other plant

    @property
    def area(self) -> str:
        return self.id.partition(".")[0]
