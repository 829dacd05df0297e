"""Which clips a study takes: one clip without loading the others, and several with a vocabulary
that encodes them all.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tts_core.config import AudioConfig
from tts_core.errors import WorkbookError
from tts_core.speech.bundled import bundled_voice
from tts_core.speech.dataset import Clip, Corpus
from tts_core.speech.folder import read_id_list, scan_folder
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.corpus.reading import read_corpus


def open_clip(root: Path | str, clip_id: str = "", language: str = "auto") -> tuple[Corpus, Clip]:
    """One clip of a folder without loading the others: `clip_id` (a unique end will do), else the
    folder's default.

    The corpus returned holds that clip alone. Without an id the first usable clip stands in for an
    unusable default.
    """
    audio = AudioConfig()
    if clip_id:
        corpus = read_corpus(root, audio, language, only=clip_id)
        return corpus, corpus.clips[0]
    folder = scan_folder(root, language)
    ids = [entry.id for entry in folder.entries]
    reasons = []
    # stable: the default first, then as listed
    for name in sorted(ids, key=lambda name: name != folder.default_id):
        try:
            corpus = read_corpus(root, audio, language, only=name)
        except WorkbookError as error:
            reasons.append(str(error))
        else:
            return corpus, corpus.clips[0]
    raise WorkbookError("; ".join([f"{root}: no usable clip", *reasons[-5:]]))


def several_clips(
    root: Path | str, clip: Clip, n: int, language: str = "auto"
) -> tuple[list[Clip], Vocabulary, str]:
    """Up to `n` distinct clips, `clip` first, the vocabulary that encodes them all, and where the
    others come from.

    They come from the clip's own folder; for English with fewer than `n` there, from the bundled
    training voice. Where the vocabulary depends on the clips loaded (other languages), all of them
    are encoded anew.
    """
    folders: list[tuple[Path, list[str] | None]] = [(Path(root), None)]
    if clip.language == "en":
        voice = bundled_voice("allison")
        folders.append((voice, read_id_list(voice / "train.txt")))
    clips: list[Clip] = [clip]
    used: list[str] = []
    for folder, ids in folders:
        if len(clips) >= n:
            break
        # some may be broken or known
        corpus = read_corpus(folder, AudioConfig(), language, ids=ids, limit=2 * n)
        new = _unlike(clips, corpus.clips)[: n - len(clips)]
        clips = clips + new
        if new:
            used.append(corpus.name)
    vocabulary = Vocabulary.arpabet()
    if clip.language != "en":
        symbols = [symbol for member in clips for symbol in member.phonemes]
        vocabulary = Vocabulary.from_symbols(symbols)
        clips = [
            dataclasses.replace(member, phoneme_ids=vocabulary.encode(member.phonemes))
            for member in clips
        ]
    return clips, vocabulary, " and ".join(used) or "nowhere: there are no others"


def _unlike(known: list[Clip], clips: list[Clip]) -> list[Clip]:
    """Those of `clips` whose sound is neither in `known` nor seen twice."""
    seen = {clip.sound for clip in known}
    new = []
    for clip in clips:
        if clip.sound not in seen:
            seen.add(clip.sound)
            new.append(clip)
    return new
