"""The one place that makes `import torchaudio` work, beside a CPU-only torch and beside a CUDA
torch.

torchaudio 2.11 is the last release and its wheel carries a CUDA-built extension. Beside a torch
without those libraries (or of another release) `import torchaudio` fails while loading that
extension, though everything we use (resampling, mel spectrograms, Griffin-Lim, `models.Tacotron2`)
is pure torch. So: try the real import; if it fails, clear what it left behind, put an empty
stand-in under the name `torchaudio._extension`, and import again. Nothing in site-packages is
touched. `forced_align` and the other compiled operators then raise when called; nothing here calls
them.

`import tts_core` runs this once. `EXTENSION_ERROR` keeps the reason for `run.json`; it is None when
the real extension loaded.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn


def _stand_in() -> types.ModuleType:
    """What torchaudio asks of its extension, answered with "not available"."""
    module: Any = types.ModuleType("torchaudio._extension")
    module.__doc__ = "Stand-in: the compiled extension does not match the installed torch."
    module._IS_TORCHAUDIO_EXT_AVAILABLE = False
    module._IS_RIR_AVAILABLE = False
    module._IS_ALIGN_AVAILABLE = False
    module.fail_if_no_align = _refusal
    return module  # type: ignore[no-any-return]  # Any, so that attributes may be set on it


def _refusal(function: Callable[..., Any]) -> Callable[..., NoReturn]:
    """In place of a compiled operator: says so when it is called."""

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(
            f"torchaudio.{function.__name__} needs the compiled extension, which does not load here"
        )

    return refuse


def _import() -> Exception | None:
    """Import torchaudio; returns why its real extension did not load, or None where it did."""
    try:
        importlib.import_module("torchaudio")
        return None
    except (OSError, ImportError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torchaudio":
            raise
        half_imported = [name for name in sys.modules if name.split(".")[0] == "torchaudio"]
        for name in half_imported:
            del sys.modules[name]
        sys.modules["torchaudio._extension"] = _stand_in()
        importlib.import_module("torchaudio")
        return error


EXTENSION_ERROR = _import()
