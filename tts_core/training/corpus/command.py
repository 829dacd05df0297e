"""The command behind `python -m tts_core.training.train` and `torchrun ... -m
tts_core.training.train`.

Exit codes: 0 trained, 2 something the user can mend (a message, no traceback), 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from tts_core.errors import WorkbookError
from tts_core.training.corpus.continuation import CHECKPOINT
from tts_core.training.corpus.options import read_flags
from tts_core.training.corpus.processes import joined_processes
from tts_core.training.corpus.train_corpus import train_on_corpus


def _say(line: str) -> None:
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the flags say (default: the process's own); returns the exit status."""
    try:
        train, run = read_flags(arguments)
        with joined_processes(run.device) as place:
            training = train_on_corpus(train, run, place, say=_say)
            if place.leads:
                print(f"trained {training.notes['step']} steps: {run.out / CHECKPOINT}")
        return 0
    except WorkbookError as error:
        print(f"train, process {os.environ.get('RANK', '0')}: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print(
            "train: interrupted; the same command goes on from the last checkpoint", file=sys.stderr
        )
        return 130
