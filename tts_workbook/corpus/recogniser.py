"""pocketsphinx, the offline English recogniser (BSD, model included): phone alignment and
recognition.

L samples.
"""

from __future__ import annotations

import functools
import re
import tempfile
from typing import Any

import numpy as np

from tts_core.errors import WorkbookError
from tts_core.speech.audio import resample
from tts_core.speech.phonemes import NO_WORDS, PAUSE, Dictionary
from tts_workbook.corpus.pronunciations import english_pronunciations, english_words

RATE = 16_000  # Hz, what the acoustic model was trained on
FRAME_SECONDS = 0.010  # step of the acoustic frames
WINDOW_SECONDS = 0.0256  # length of one, so frame k is centred at k * 0.010 + 0.0128 s

Span = tuple[str, int, int]  # label, first frame, one past the last


def boundary_seconds(frame: int) -> float:
    """Time of the boundary before acoustic frame `frame`, midway between the centres of the frames
    it separates.

    Without the half window, boundaries lie 7 ms early (mean of 246 between vowel and s or sh,
    English prompts).
    """
    if frame == 0:
        return 0.0
    return round(frame * FRAME_SECONDS + (WINDOW_SECONDS - FRAME_SECONDS) / 2, 4)


def _aligner(words: list[str], user: Dictionary) -> Any:
    """A decoder that knows these words only, the user's pronunciations before the built-in ones."""
    from pocketsphinx import Decoder

    with tempfile.NamedTemporaryFile("w", suffix=".dict", encoding="utf-8") as file:
        for word in sorted(set(words)):
            for number, phones in enumerate(english_pronunciations(word, user), start=1):
                variant = f"({number})" if number > 1 else ""
                file.write(f"{word}{variant} {' '.join(phones)}\n")
        file.flush()
        # bestpath rescoring yields phones of one frame, which the second pass cannot align
        return Decoder(dict=file.name, lm=None, bestpath=False, samprate=RATE, loglevel="FATAL")


@functools.lru_cache(maxsize=1)
def _recogniser() -> Any:
    from pocketsphinx import Decoder

    return Decoder(samprate=RATE, loglevel="FATAL")


def _process(decoder: Any, samples: np.ndarray, sample_rate: int) -> None:
    """One utterance (L,) through the active search, independent of the utterances before it."""
    scaled = (resample(samples, sample_rate, RATE) * 32_768).round()
    audio = scaled.clip(-32_768, 32_767).astype(np.int16)
    decoder.reinit_feat()  # or the noise estimate of the utterance before leaks into this one
    decoder.start_utt()
    decoder.process_raw(audio.tobytes(), full_utt=True)
    decoder.end_utt()


def _word(name: str) -> str:
    """`was(2)` -> `was`; silences and noises -> ''."""
    if name.startswith(("<", "[")) or name == PAUSE:
        return ""
    return re.sub(r"\(\d+\)$", "", name)


def align_words_and_phones(
    samples: np.ndarray, sample_rate: int, text: str, user: Dictionary = NO_WORDS
) -> list[tuple[Span, list[Span]]]:
    """Force-align samples (L,) with an English text: [(word span, [phone spans])], silences as the
    word ''.

    Two passes (words, then phones), as pocketsphinx 5 documents. Raises WorkbookError for unknown
    words and when recording and text do not fit together.
    """
    words = english_words(text, user)
    decoder = _aligner(words, user)
    try:
        decoder.set_align_text(" ".join(words))
        _process(decoder, samples, sample_rate)
        decoder.set_alignment()
        _process(decoder, samples, sample_rate)
        found = _aligned_spans(decoder)
    except RuntimeError as error:
        raise WorkbookError(
            f"forced alignment failed ({error}): does the recording say {text!r}?"
        ) from error
    heard = [word for (word, _, _), _ in found if word]
    if heard != words:
        raise WorkbookError(
            f"forced alignment found only part of {text!r}: does the recording say all of it?"
        )
    return found


def _aligned_spans(decoder: Any) -> list[tuple[Span, list[Span]]]:
    """[(word span, [phone spans])] of what `decoder` has just aligned."""
    found = []
    for word in decoder.get_alignment() or ():
        phones = [(phone.name, phone.start, phone.start + phone.duration) for phone in word]
        found.append(((_word(word.name), word.start, word.start + word.duration), phones))
    return found


def recognise(samples: np.ndarray, sample_rate: int) -> str:
    """What the recogniser hears in samples (L,): lower-case words, variant marks stripped, '' for
    nothing.
    """
    decoder = _recogniser()
    _process(decoder, samples, sample_rate)
    hypothesis = decoder.hyp()
    if not hypothesis:
        return ""
    words = [_word(name) for name in hypothesis.hypstr.split()]
    return " ".join(word for word in words if word)


def recognise_one_of(samples: np.ndarray, sample_rate: int, texts: list[str]) -> str | None:
    """Which of `texts` (English words in the dictionary) samples (L,) say, by a grammar with one
    alternative per text.

    None where the recogniser settles on none. Guessing scores 1 / len(texts).
    """
    words = {text: " ".join(english_words(text)) for text in texts}
    decoder = _recogniser()
    grammar = " | ".join(f"( {spoken} )" for spoken in words.values())
    decoder.add_jsgf_string("one_of", f"#JSGF V1.0; grammar one_of; public <text> = {grammar};")
    decoder.activate_search("one_of")
    try:
        heard = recognise(samples, sample_rate)
    finally:
        decoder.activate_search()
        decoder.remove_search("one_of")
    return next((text for text, spoken in words.items() if spoken == heard), None)
