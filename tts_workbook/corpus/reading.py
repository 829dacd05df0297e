"""Reading a corpus with everything in place: TextGrids where they are, else pocketsphinx for
English and espeak-ng for other languages.

The core's reader (`tts_core.speech.dataset`) knows TextGrids alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from tts_core.config import AudioConfig
from tts_core.speech.dataset import Corpus, load_corpus, read_clip
from tts_workbook.corpus.espeak import ESPEAK
from tts_workbook.corpus.forced_alignment import POCKETSPHINX

# `read_clip` with both in place: for `iterate_clips` and whoever reads clip by clip
read_any_clip = functools.partial(read_clip, aligner=POCKETSPHINX, phonemizer=ESPEAK)


def read_corpus(
    root: Path | str,
    audio: AudioConfig,
    language: str = "auto",
    only: str | None = None,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
) -> Corpus:
    """`load_corpus` for a folder with or without TextGrids.

    Durations of a clip without one come from forced alignment (English), else they are uniform,
    which the corpus warns of. Raises WorkbookError as `load_corpus` does.
    """
    return load_corpus(
        root, audio, language, only, ids, limit, aligner=POCKETSPHINX, phonemizer=ESPEAK
    )
