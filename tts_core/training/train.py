"""The door to training on a corpus: `python -m tts_core.training.train --data DIR` for one process,
`torchrun --nproc-per-node N -m tts_core.training.train --data DIR` for several.
"""

from __future__ import annotations

import sys

from tts_core.training.corpus.command import main

if __name__ == "__main__":
    sys.exit(main())
