"""One clip to look at and to listen to."""

from __future__ import annotations

from tts_core.speech.dataset import Clip
from tts_workbook.viz.mel_plots import plot_clip
from tts_workbook.viz.picture import Picture
from tts_workbook.viz.players import Player, play


def clip_card(clip: Clip, hop_length: int) -> list[Picture | Player]:
    """Waveform, phonemes and mel of a `Clip`, then its player labelled with the text. `hop_length`
    in samples.

    Raises WorkbookError as `plot_clip` and `play` do.
    """
    picture = plot_clip(
        clip.samples,
        clip.sample_rate,
        clip.mel,
        hop_length,
        clip.phonemes,
        clip.durations,
        clip.alignment,
        title=clip.id,
    )
    return [picture, play(clip.samples, clip.sample_rate, clip.text, peak=1.0)]
