"""The one place that makes torchaudio importable: beside a matching torch, beside another one, and
without harm.
"""

import subprocess
import sys
from pathlib import Path

import pytest

HELP = "import sys, types\n"
# Replaces the compiled extension's module by one that fails as a CUDA build does beside a CPU-only
# torch, or as one built for another torch does; or by one that loads.
BROKEN = """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torchaudio._extension":
            raise {error}
sys.meta_path.insert(0, Finder())
"""
WORKING = """
from importlib.machinery import ModuleSpec
class Loader:
    def create_module(self, spec): return None
    def exec_module(self, module):
        module._IS_TORCHAUDIO_EXT_AVAILABLE = False
        module.fail_if_no_align = lambda function: function
        module.real = True
class Finder:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, Loader()) if name == "torchaudio._extension" else None
sys.meta_path.insert(0, Finder())
"""
USE = """
import tts_core.torchaudio_import as place
import torch, torchaudio, torchaudio.models
mel = torchaudio.transforms.MelSpectrogram(22050, n_mels=80)(torch.randn(4000))
assert mel.shape[0] == 80 and hasattr(torchaudio.models, "Tacotron2")
print(type(place.EXTENSION_ERROR).__name__)
"""


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", HELP + code], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize(
    "error",
    (
        'OSError("libc10_cuda.so")',
        'ImportError("undefined symbol")',
        'RuntimeError("CUDA versions differ")',
    ),
)
def test_a_broken_extension_is_replaced_and_the_reason_kept(error):
    assert run(BROKEN.format(error=error) + USE) == error.partition("(")[0]


def test_a_working_extension_is_left_in_place():
    assert run(WORKING + USE + "assert sys.modules['torchaudio._extension'].real") == "NoneType"


def test_site_packages_are_not_touched():
    location = Path(
        run("import importlib.util as u; print(u.find_spec('torchaudio').origin)")
    ).parent
    before = {file: file.stat().st_mtime_ns for file in location.rglob("*.py")}
    run(USE)
    assert {file: file.stat().st_mtime_ns for file in location.rglob("*.py")} == before


def test_what_the_extension_would_do_says_so():
    code = (
        BROKEN.format(error='OSError("x")') + "import tts_core, torch, torchaudio.functional as F\n"
        "try: F.forced_align(torch.zeros(1, 4, 3), torch.ones(1, 2, dtype=torch.int32))\n"
        "except RuntimeError as error: print(error)"
    )
    assert "needs the compiled extension" in run(code)
