"""The door to training on a corpus: `python -m tts_core.training.train --data DIR` for one process,
`torchrun --nproc-per-node N -m tts_core.training.train --data DIR` for several.
"""

from __future__ import annotations

import os
import sys

from torch import distributed

from tts_core.training.corpus.command import main


def leave(code: int) -> None:
    """End with this exit status. A process of a group that gives up does not wait for its orderly
    end: a thread of gloo that is still talking to a process that has left would turn the status
    into an abort (`terminate called without an active exception`, seen under load).
    """
    if code and distributed.is_torchelastic_launched():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    leave(main())
