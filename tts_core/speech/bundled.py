"""Where the bundled voices are: `data_samples/` beside the package."""

from __future__ import annotations

from pathlib import Path

from tts_core.errors import WorkbookError

FOLDER = Path(__file__).resolve().parents[2] / "data_samples"
VOICES = ("librivox", "allison", "russian")


def bundled_voice(name: str = "librivox") -> Path:
    """Folder of a bundled voice, in LJSpeech layout. Raises WorkbookError where it is not there."""
    folder = FOLDER / name
    if name not in VOICES or not folder.is_dir():
        raise WorkbookError(f"there is no bundled voice {name!r} at {folder}; voices are {', '.join(VOICES)}, and they come with the "
                            "repository (install it with `pip install -e .`, or build them: python scripts/build_data_samples.py)")
    return folder
