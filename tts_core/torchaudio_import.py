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

import importlib
import sys
import types


def _stand_in() -> types.ModuleType:
    module = types.ModuleType("torchaudio._extension")
    module.__doc__ = "Stand-in: the compiled extension does not match the installed torch."
    module._IS_TORCHAUDIO_EXT_AVAILABLE = False
    module._IS_RIR_AVAILABLE = False
    module._IS_ALIGN_AVAILABLE = False

    def fail_if_no_align(function):
        def refuse(*args, **kwargs):
            raise RuntimeError(
                f"torchaudio.{function.__name__} needs the compiled extension, which does not load"
                " here"
            )

        return refuse

    module.fail_if_no_align = fail_if_no_align
    return module


def _import() -> Exception | None:
    try:
        importlib.import_module("torchaudio")
        return None
    except (OSError, ImportError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torchaudio":
            raise
        for name in [
            name for name in sys.modules if name == "torchaudio" or name.startswith("torchaudio.")
        ]:
            del sys.modules[name]
        sys.modules["torchaudio._extension"] = _stand_in()
        importlib.import_module("torchaudio")
        return error


EXTENSION_ERROR = _import()
