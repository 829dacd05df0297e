"""espeak-ng: phonemes of a text in any other language, where no TextGrid gives them."""

from __future__ import annotations

import functools
import re
from typing import Any

from tts_core.errors import WorkbookError
from tts_core.speech.phonemes import PAUSE


class EspeakPhonemizer:
    """`espeak_phonemes` as the phonemizer that the core's reader is handed."""

    packages = ("phonemizer-fork", "espeakng-loader")

    def phonemes(self, text: str, language: str) -> tuple[str, ...]:
        return espeak_phonemes(text, language)


ESPEAK = EspeakPhonemizer()


@functools.lru_cache(maxsize=8)
def _backend(language: str) -> Any:
    try:
        import espeakng_loader
        from phonemizer.backend import EspeakBackend
        from phonemizer.backend.espeak.wrapper import EspeakWrapper
    except ImportError as error:
        raise WorkbookError(
            f"phonemes for language {language!r} need espeak-ng ({error}): "
            "pip install 'tts-overfit-workbook[phonemes]', or supply TextGrids"
        ) from error
    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    try:
        return EspeakBackend(language, language_switch="remove-flags", with_stress=False)
    except RuntimeError as error:
        raise WorkbookError(
            f"language {language!r}: {error}; its codes are ru, de, fr-fr, en-us ..."
        ) from error


def espeak_phonemes(text: str, language: str) -> tuple[str, ...]:
    """espeak-ng's symbols for a text, with a pause at both ends and at punctuation. Raises
    WorkbookError.
    """
    backend = _backend(language)
    from phonemizer.separator import Separator

    phrases = [phrase for phrase in re.split(r"[^\w\s'\u2019-]+", text) if re.search(r"\w", phrase)]
    symbols = [PAUSE]
    for phones in backend.phonemize(phrases, separator=Separator(phone=" ", word="|")):
        spoken = phones.replace("|", " ").split()
        if spoken:
            symbols += [*spoken, PAUSE]
    if symbols == [PAUSE]:
        raise WorkbookError(
            f"no phonemes in the text {text!r} (language {language!r}); write what the recording"
            " says"
        )
    return tuple(symbols)
