"""Where the bundled voices are: `data_samples/` beside the package."""

from __future__ import annotations

from pathlib import Path

from tts_core.errors import WorkbookError

DATA_SAMPLES = Path(__file__).resolve().parents[2] / "data_samples"
VOICES = ("librivox", "allison", "russian")


def bundled_voice(name: str = "librivox") -> Path:
    """Folder of a bundled voice, in LJSpeech layout. Raises WorkbookError where it is not there."""
    folder = DATA_SAMPLES / name
    if name not in VOICES or not folder.is_dir():
        raise WorkbookError(
            f"there is no bundled voice {name!r} at {folder}; {', '.join(VOICES)} come with the"
            " repository: `pip install -e .` in it, or run scripts/build_data_samples.py"
        )
    return folder
