"""Train on a corpus: `torchrun --nproc-per-node N -m tts_core.training.train --data DIR`, or
`python -m` for one process.

Only the door: the train step is core, while its corpus, validation and logs
(tts_core/corpus_training) stand above it. They are loaded by name, and when this runs as a program
only, so that the core imports nothing above itself.
"""

from __future__ import annotations

import importlib
import sys

if __name__ == "__main__":
    sys.exit(importlib.import_module("tts_core.training.corpus.command").main())
