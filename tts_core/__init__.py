"""The core: the model, its losses, THE train step, and training on a corpus.

It imports nothing of `tts_workbook`, and needs torch, torchaudio, soundfile, numpy, safetensors,
praatio and filelock alone.
"""

from tts_core import torchaudio_import  # noqa: F401  # first: it makes torchaudio importable
from tts_core.errors import WorkbookError

__all__ = ["WorkbookError"]
