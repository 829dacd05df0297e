"""The core of the Overfit Workbook: why a text-to-speech model does not learn to speak, by
measurement.
"""

from tts_core import torchaudio_import
from tts_core.errors import WorkbookError

__all__ = ["WorkbookError"]
