"""Log-mels: one clip with its phonemes, several mels on one scale, and how a mel takes shape during
training.

T frames, M mel bins, N phonemes, L samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from tts_core.errors import WorkbookError
from tts_workbook.viz.inputs import finite_array, finite_number, named, spans
from tts_workbook.viz.phoneme_track import draw_boundaries, draw_phonemes
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import COLOURS, INK, MEL_COLOURS

ENVELOPE_COLUMNS = 1600  # a waveform is drawn as minimum and maximum per column
PANEL_PIXELS = 700  # more frames than this are smoothed down, fewer are drawn as they are
COLOUR_LABEL = "log-mel (ln units)"
ENDED = "#f2f2f2"  # where a shorter mel has ended


def plot_clip(
    samples: Any,
    sample_rate: float,
    mel: Any,
    hop_length: int,
    phonemes: Sequence[str],
    durations: Any,
    alignment: str,
    title: str = "",
) -> Picture:
    """One clip on one time axis: waveform (L,), phonemes (N,) as spoken, log-mel (T, M) with their
    boundaries over it.

    `sample_rate` in Hz, `hop_length` in samples, `durations` (N,) in frames with Σ = T; `alignment`
    "uniform" puts the banner on. Raises WorkbookError for non-finite values and for lengths that do
    not fit.
    """
    samples = finite_array("samples", samples, dimensions=1)
    mel = finite_array("mel", mel, dimensions=2)
    hop = _hop_seconds(hop_length, sample_rate)
    boundaries = spans(phonemes, durations, len(mel)) * hop
    end = max(len(mel) * hop, len(samples) / sample_rate)
    with workbook_style():
        picture = new_picture(4.1, title, alignment)
        wave, track, image = picture.subplots(3, 1, sharex=True, height_ratios=[1.0, 0.42, 2.0])
        _draw_waveform(wave, samples, sample_rate)
        draw_phonemes(track, boundaries, phonemes, end)
        limits = mel_limits(mel)
        drawn = _draw_mel(image, mel, hop, limits)
        draw_boundaries(image, boundaries)
        image.set_ylabel("mel bin")
        image.set_xlim(0, end)
        image.set_xlabel("time (s)")
        picture.colorbar(drawn, ax=image, label=COLOUR_LABEL, pad=0.01, aspect=16)
    return picture


def plot_mels(
    mels: Mapping[str, Any],
    hop_seconds: float,
    title: str = "",
    notes: Mapping[str, str] | None = None,
    columns: int = 1,
    alignment: str | None = None,
    colour_label: str = COLOUR_LABEL,
    x_label: str = "time (s)",
) -> Picture:
    """Log-mels (T, M), one panel per label in the order given, on one time axis and the colour
    scale of the first.

    `notes` puts a text such as "L1 0.053" at the right of a panel's label. Where a mel leaves the
    range of the first, the colour bar ends in a point. Give `alignment` where the mels follow from
    durations, and labels where the mels are in other units, or `hop_seconds` is 1 because it is not
    known. Raises WorkbookError for non-finite values, for mels of different numbers of bins and for
    notes without a mel.
    """
    hop = _positive("hop_seconds", hop_seconds)
    arrays = {
        label: finite_array(f"mels[{label!r}]", mel, dimensions=2)
        for label, mel in named("mels", mels).items()
    }
    notes = notes or {}
    _check_mels(arrays, notes)
    rows = math.ceil(len(arrays) / columns)
    limits = mel_limits(next(iter(arrays.values())))
    end = max(len(mel) for mel in arrays.values()) * hop
    with workbook_style():
        picture = new_picture(0.5 + 1.12 * rows, title, alignment)
        grid = picture.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        panels, spare = list(grid[: len(arrays)]), grid[len(arrays) :]
        for panel, (label, mel) in zip(panels, arrays.items(), strict=True):
            drawn = _draw_mel(panel, mel, hop, limits, columns)
            panel.set_title(str(label), fontweight="bold")
            panel.set_title(str(notes.get(label, "")), loc="right", fontsize=8.5)
        for panel in spare:
            panel.set_visible(False)
        for panel in panels[-columns:]:  # the lowest of each column
            panel.tick_params(labelbottom=True)
        for panel in grid[::columns]:
            panel.set_ylabel("mel bin")
        panels[0].set_xlim(0, end)
        picture.supxlabel(x_label, fontsize=9)
        picture.colorbar(
            drawn,
            ax=panels,
            label=colour_label,
            pad=0.01,
            aspect=14 * rows,
            fraction=0.05,
            extend=_pointed_ends(limits, list(arrays.values())),
            extendfrac=0.02,
        )
    return picture


def plot_mel_snapshots(
    snapshots: Mapping[int, Any],
    target: Any,
    hop_seconds: float,
    title: str = "",
    notes: Mapping[int, str] | None = None,
    columns: int = 1,
) -> Picture:
    """The target (T, M), which sets the colour scale, then the prediction at each training step,
    earliest first.

    `snapshots`: step -> (T, M); `notes`: step -> text. Raises WorkbookError as `plot_mels` does.
    """
    mels = {"target": target}
    for step in sorted(named("snapshots", snapshots)):
        mels[_step_label(step)] = snapshots[step]
    labelled = {_step_label(step): text for step, text in (notes or {}).items()}
    return plot_mels(mels, hop_seconds, title, labelled, columns)


def mel_limits(mel: np.ndarray) -> tuple[float, float]:
    """Lowest and highest value of `mel`, at least 1 ln unit apart so that a constant mel has a
    scale too.
    """
    low, high = float(mel.min()), float(mel.max())
    if high - low >= 1:
        return low, high
    middle = (low + high) / 2
    return middle - 0.5, middle + 0.5


def _check_mels(mels: Mapping[str, np.ndarray], notes: Mapping[str, str]) -> None:
    bins = {label: mel.shape[1] for label, mel in mels.items()}
    if len(set(bins.values())) > 1:
        raise WorkbookError(f"mels: they must have as many bins each, but have {bins}")
    unknown = sorted(set(notes) - set(mels))
    if unknown:
        raise WorkbookError(f"notes: {unknown} name no mel; the mels are {list(mels)}")


def _pointed_ends(
    limits: tuple[float, float], mels: Sequence[np.ndarray]
) -> Literal["neither", "min", "max", "both"]:
    """The ends of the colour bar beyond which some mel goes."""
    below = min(mel.min() for mel in mels) < limits[0]
    above = max(mel.max() for mel in mels) > limits[1]
    if below and above:
        return "both"
    if below:
        return "min"
    return "max" if above else "neither"


def _draw_mel(
    axes: Axes, mel: np.ndarray, hop: float, limits: tuple[float, float], columns: int = 1
) -> AxesImage:
    """The mel (T, M) over seconds, on the colour scale between `limits`."""
    drawn = axes.imshow(
        mel.T,
        cmap=MEL_COLOURS,
        vmin=limits[0],
        vmax=limits[1],
        extent=(0, len(mel) * hop, 0, mel.shape[1]),
        interpolation="nearest" if len(mel) * columns <= PANEL_PIXELS else "auto",
    )
    axes.grid(False)
    axes.set_facecolor(ENDED)
    return drawn


def _draw_waveform(axes: Axes, samples: np.ndarray, sample_rate: float) -> None:
    """The samples (L,) over seconds: a line where they are few, else the range of each column."""
    stride = max(1, len(samples) // ENVELOPE_COLUMNS)
    starts = np.arange(0, len(samples), stride)
    low, high = np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)
    seconds = (starts + 0.5 * (stride - 1)) / sample_rate
    if stride == 1:
        axes.plot(seconds, samples, color=COLOURS["recording"], linewidth=0.8)
    else:
        axes.fill_between(seconds, low, high, color=COLOURS["recording"], linewidth=0.3)
    reach = max(0.05, 1.05 * float(np.abs(samples).max()))
    axes.set_ylim(-reach, reach)
    axes.axhline(0, color=INK, linewidth=0.4)
    axes.set_ylabel("amplitude\n(full scale 1)")


def _hop_seconds(hop_length: float, sample_rate: float) -> float:
    return _positive("hop_length", hop_length) / _positive("sample_rate", sample_rate)


def _positive(name: str, value: Any) -> float:
    number = finite_number(name, value)
    if number <= 0:
        raise WorkbookError(f"{name} = {number:g}, but it must be positive")
    return number


def _step_label(step: int) -> str:
    return f"step {step:,}"
