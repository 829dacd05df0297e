"""The core of the Overfit Workbook: why a text-to-speech model does not learn to speak, by
measurement.
"""

from tts_core import (
    torchaudio_import,
)  # noqa: F401  makes `import torchaudio` work beside any torch build
from tts_core.errors import WorkbookError

__all__ = ["WorkbookError"]
