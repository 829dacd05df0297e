"""What a training on a corpus is handed from outside the core.

The core trains on clips with TextGrids, and writes audio and arrays. Whoever aligns, phonemizes or
draws needs more packages, and so stands in another distribution, which names it as an entry point
of the group `tts_core`:

    [project.entry-points.tts_core]
    aligner = "tts_workbook.corpus.forced_alignment:POCKETSPHINX"
    phonemizer = "tts_workbook.corpus.espeak:ESPEAK"
    draw_sample = "tts_workbook.viz.sample_pictures:draw_sample"

The command `python -m tts_core.training.train` takes what is installed; a caller of
`train_on_corpus` may hand over its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any

from tts_core.errors import WorkbookError
from tts_core.speech.dataset import Aligner, Phonemizer
from tts_core.training.corpus.samples import DrawSample

GROUP = "tts_core"


@dataclass(frozen=True)
class Extensions:
    """Each may be missing: clips that need it are then left out with the reason, and pictures are
    not drawn.
    """

    aligner: Aligner | None = None
    phonemizer: Phonemizer | None = None
    draw_sample: DrawSample | None = None


def installed_extensions(pictures: bool = True) -> Extensions:
    """What the installed distributions offer; nothing that draws is imported without `pictures`.

    Raises WorkbookError where what draws is installed without the packages that it needs.
    """
    return Extensions(
        _installed("aligner"),
        _installed("phonemizer"),
        _installed_drawer() if pictures else None,
    )


def _installed(name: str) -> Any:
    """The object behind the first entry point `name` of the group, or None."""
    for entry in metadata.entry_points(group=GROUP, name=name):
        return entry.load()
    return None


def _installed_drawer() -> DrawSample | None:
    try:
        drawer: DrawSample | None = _installed("draw_sample")
    except ImportError as error:
        raise WorkbookError(
            f"figures need {error.name}: pip install 'tts-overfit-workbook[notebooks]', or give"
            " --no-figures; audio and arrays are written anyway"
        ) from error
    return drawer
