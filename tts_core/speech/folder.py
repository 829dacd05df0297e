"""What a corpus folder holds: LJSpeech's metadata.csv and wavs/, MFA's alignments/, and optional
small text files.

    metadata.csv      id|text|normalised text, UTF-8, one clip a line
    wavs/ID.wav       alignments/ID.TextGrid (optional)
    language.txt      a language code, e.g. ru            (optional)
    dictionary.txt    word  P H O N E S, English words that the built-in dictionary lacks (optional)
    default_clip.txt  the id of the clip to begin with    (optional)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tts_core.errors import WorkbookError
from tts_core.speech.phonemes import Dictionary, guess_language, parse_dictionary


@dataclass(frozen=True)
class Rejection:
    """A clip that was left out, and why."""

    id: str
    path: Path
    reason: str


@dataclass(frozen=True)
class Entry:
    """One row of metadata.csv whose wav file exists."""

    id: str
    text: str  # normalised where the row has it
    wav: Path
    textgrid: Path  # need not exist


@dataclass(frozen=True)
class Folder:
    root: Path
    language: str
    entries: list[Entry]
    rejected: list[Rejection]
    warnings: list[str]
    dictionary: Dictionary  # the user's own pronunciations
    default_id: str


def _read_text(path: Path) -> str:
    """The stripped text of an optional file; '' if there is none. Raises WorkbookError unless it is
    UTF-8.
    """
    if not path.is_file():
        return ""
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise WorkbookError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error


def read_id_list(path: Path | str) -> list[str]:
    """Clip ids, one a line (for example train.txt). Raises WorkbookError if the file is missing or
    empty.
    """
    ids = [line.strip() for line in _read_text(Path(path)).splitlines() if line.strip()]
    if not ids:
        raise WorkbookError(
            f"{path}: no such list of clip ids, or it is empty; write one id a line"
        )
    return ids


def match_id(wanted: str, ids: Sequence[str], rejected: Sequence[Rejection], root: Path) -> str:
    """The id that equals `wanted`, or the only one that ends so. Raises WorkbookError that lists
    what there is.
    """
    found = [name for name in ids if name == wanted]
    if not found:
        found = [name for name in ids if name.endswith(wanted)]
    if len(found) == 1:
        return found[0]
    reasons = [left_out.reason for left_out in rejected if left_out.id.endswith(wanted)]
    if reasons and not found:
        explanation = f"it was left out: {reasons[0]}"
    else:
        explanation = f"there are {', '.join((found or ids)[:100])}"
    raise WorkbookError(
        f"{root}: {len(found) or 'no'} clips have an id like {wanted!r}; {explanation}"
    )


def _parse_row(line: bytes) -> tuple[str, str]:
    """(id, text) of one line; a ValueError says what is wrong with it."""
    columns = [column.strip() for column in line.decode("utf-8").split("|")]
    if not 2 <= len(columns) <= 3:
        raise ValueError(
            f"{len(columns)} columns, but a row is `id|text` or `id|text|normalised text`"
        )
    name, text = columns[0], columns[-1] or columns[1]
    if not name or name in (".", "..") or re.search(r"[/\\\0]", name):
        raise ValueError(
            f"the id {name!r} is empty or a path; write the name of the wav file without .wav"
        )
    if not text:
        raise ValueError("the text is empty; write what the recording says")
    return name, text


def _read_metadata(root: Path) -> tuple[list[Entry], list[Rejection]]:
    path, wavs = root / "metadata.csv", root / "wavs"
    entries: dict[str, Entry] = {}
    rejected: list[Rejection] = []
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name = line.split(b"|")[0].decode("utf-8", errors="replace").strip() or f"line {number}"
        try:
            name, text = _parse_row(line)
            if name in entries:
                raise ValueError(
                    f"a second row with the id {name!r}; the first one is used, delete the other"
                )
            entries[name] = _existing_entry(root, name, text)
        # also UnicodeDecodeError, and a name too long for a file
        except (ValueError, OSError) as error:
            rejected.append(Rejection(name, path, f"{path}, line {number}: {error}"))
    known = entries.keys() | {rejection.id for rejection in rejected}
    for wav in sorted(wavs.iterdir()):
        if wav.suffix.lower() == ".wav" and wav.stem not in known:
            reason = f"{wav}: no transcript; add a row `{wav.stem}|text` to {path}"
            rejected.append(Rejection(wav.stem, wav, reason))
    return list(entries.values()), rejected


def _existing_entry(root: Path, name: str, text: str) -> Entry:
    """The entry of a row; a ValueError says that its recording is missing."""
    wav = root / "wavs" / f"{name}.wav"
    if not wav.is_file():
        raise ValueError(f"there is no {wav}; add the recording or delete the row")
    return Entry(name, text, wav, root / "alignments" / f"{name}.TextGrid")


def _choose_language(root: Path, language: str, entries: list[Entry]) -> tuple[str, list[str]]:
    """The language and a warning if it was guessed."""
    chosen = _read_text(root / "language.txt") if language == "auto" else language
    if not chosen:
        guess = guess_language(" ".join(entry.text for entry in entries))
        if guess == "en":
            return guess, []
        warning = (
            f"{root}: the letters look like language {guess!r}; write the code into language.txt to"
            " be sure"
        )
        return guess, [warning]
    if not re.fullmatch(r"[a-z]{2,3}(-[a-z0-9]+)*", chosen):
        raise WorkbookError(
            f"{root}: language {chosen!r} is no language code; give one word such as en, ru, de,"
            " fr-fr"
        )
    return chosen, []


def scan_folder(root: Path | str, language: str = "auto") -> Folder:
    """Read metadata.csv and its neighbours; no audio is opened. Faulty rows are listed in
    `.rejected` with reasons.

    Raises WorkbookError if the folder, metadata.csv or wavs/ is missing or holds nothing.
    """
    root = Path(root)
    if not root.is_dir():
        raise WorkbookError(
            f"{root}: no such data folder; give one with metadata.csv and wavs/ (LJSpeech layout)"
        )
    if not (root / "metadata.csv").is_file() or not (root / "wavs").is_dir():
        missing = "wavs/" if (root / "metadata.csv").is_file() else "metadata.csv"
        raise WorkbookError(
            f"{root}: no {missing} in this folder; a corpus is metadata.csv (`id|text`) beside"
            " wavs/"
        )
    entries, rejected = _read_metadata(root)
    if not entries and not rejected:
        raise WorkbookError(
            f"{root}: metadata.csv and wavs/ are empty; add recordings and their transcripts"
        )
    chosen, warnings = _choose_language(root, language, entries)
    words = root / "dictionary.txt"
    dictionary = parse_dictionary(_read_text(words).splitlines(), str(words))
    default_id = _read_text(root / "default_clip.txt")
    return Folder(root, chosen, entries, rejected, warnings, dictionary, default_id)
