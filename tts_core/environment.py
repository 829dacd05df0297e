"""What a result was computed with: versions, device, threads, commit. For run.json and a notebook's
first line.
"""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from tts_core.torchaudio_import import EXTENSION_ERROR

import torch

REPORTED_PACKAGES = (
    "tts-overfit-workbook",
    "torch",
    "torchaudio",
    "numpy",
    "soundfile",
    "librosa",
    "pocketsphinx",
    "papermill",
    "nbclient",
    "ipykernel",
    "ipywidgets",
    "jupyterlab",
    "matplotlib",
    "jinja2",
)


def versions() -> dict[str, str]:
    """Name -> version of Python and of the packages that are installed; an absent one is "not
    installed".
    """
    found = {"python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def device_name() -> str:
    """`cuda (name)`, `mps` or `cpu`: where the workbook trains by default."""
    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()})"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def describe_environment() -> dict[str, Any]:
    """Everything as plain JSON values."""
    extension = "loaded"
    if EXTENSION_ERROR is not None:
        extension = f"not loaded, pure-torch parts only: {EXTENSION_ERROR}"
    return {
        "versions": versions(),
        "torchaudio_extension": extension,
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def git_commit(root: Path) -> str | None:
    """The commit of the checkout at `root`, with ", modified" when files differ from it; None
    without git or commit.
    """
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}, modified" if changes else commit


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()
