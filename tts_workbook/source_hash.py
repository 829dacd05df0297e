"""The hash of everything that computes a result: the source of both packages."""

import hashlib
from pathlib import Path

import tts_core
from tts_core.file_hashes import hash_package

PACKAGES = (Path(tts_core.__file__).parent, Path(__file__).parent)


def hash_source() -> str:
    """Hash of the source of `tts_core` and `tts_workbook`: every .py and every template."""
    hashes = [hash_package(package) for package in PACKAGES]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()
