"""The data report in pictures, one per check. Rows are those of `DataReport.to_rows()`, limits
those of its warnings: `LIMITS` of the report.

Where a clip breaks a limit it is vermilion; a corpus with uniform durations has the banner on what
they touch. K clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import FixedLocator

from tts_core.errors import WorkbookError
from tts_workbook.viz.axes import legend_above, log_axis
from tts_workbook.viz.data_panels import (
    MOST_BARS,
    ORDINARY,
    Measurement,
    column,
    plot_measurements,
    short_ids,
)
from tts_workbook.viz.inputs import entry_of, finite_number, finite_numbers
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import ALARM, YARDSTICK

MOST_COUNTED_BARS = 48  # phonemes; over more the counts do not fit
ROOM_FOR_SYMBOLS = 130  # characters side by side under the bars

Rows = Sequence[Mapping]
Limits = Mapping[str, float]  # measurement -> the value beyond which the report warns


def plot_clip_lengths(rows: Rows, title: str = "How long are the clips?") -> Picture:
    """Seconds per clip and the sample rate of its file."""
    seconds = Measurement("seconds", "length (s)")
    rate = Measurement("rate", "sample rate (kHz)", scale=1e-3)
    return plot_measurements(rows, [seconds, rate], title)


def plot_levels(rows: Rows, limits: Limits, title: str = "Is the level sound?") -> Picture:
    """Share of clipped samples and constant offset, with the limits of the warnings."""
    measurements = [
        _limited("clipped_share", "clipped samples (%)", limits, scale=100),
        _limited("dc_offset", "constant offset (% of full scale)", limits, scale=100),
    ]
    return plot_measurements(rows, measurements, title)


def plot_silence(rows: Rows, limits: Limits, title: str = "How much silence is there?") -> Picture:
    """Seconds of silence at the start, at the end and the longest inside, with the limits of the
    warnings.
    """
    measurements = [
        _limited("silence_start", "silence at the start (s)", limits),
        _limited("silence_end", "silence at the end (s)", limits),
        _limited("silence_inside", "longest silence inside (s)", limits),
    ]
    return plot_measurements(rows, measurements, title)


def plot_noise(rows: Rows, limits: Limits, title: str = "Is it recorded in quiet?") -> Picture:
    """Estimated signal-to-noise ratio; below the line, noise is learned too."""
    label = "signal to noise, estimated (dB)"
    snr = Measurement("snr_db", label, _limit_of("snr_db", limits), above=False)
    return plot_measurements(rows, [snr], title)


def plot_pace(rows: Rows, limits: Limits, title: str = "Do text and audio fit?") -> Picture:
    """Seconds per phoneme, outliers (by the robust z score "pace_z") marked, and the longest
    phoneme of each clip.
    """
    pace = Measurement(
        "seconds_per_phoneme",
        "seconds per phoneme (s)",
        outlier="pace_z",
        most=_limit_of("pace_z", limits),
    )
    longest = _limited("longest_phoneme", "longest phoneme (s)", limits)
    return plot_measurements(rows, [pace, longest], title, alignment_of(rows))


def plot_transcript_match(rows: Rows, limits: Limits, title: str = "Is it this text?") -> Picture:
    """Words that differ between transcript and TextGrid, and the recogniser's word error rate where
    it was run.
    """
    measurements = [_limited("word_mismatch", "words unlike the TextGrid's (%)", limits, scale=100)]
    if rows and all(row.get("recogniser_wer") is not None for row in rows):
        measurements.append(_limited("recogniser_wer", "recogniser's word error rate", limits))
    return plot_measurements(rows, measurements, title, alignment_of(rows))


def plot_clipped_mels(
    rows: Rows, limits: Limits, title: str = "How much of the mels is cut off?"
) -> Picture:
    """Share of mel bins at the recipe's floor and at its ceiling, with the limits of the
    warnings.
    """
    measurements = [
        _limited("floor_share", "mel bins at the floor (%)", limits, scale=100),
        _limited("ceiling_share", "mel bins at the ceiling (%)", limits, scale=100),
    ]
    return plot_measurements(rows, measurements, title)


def plot_mel_range(rows: Rows, title: str = "Which values do the mels take?") -> Picture:
    """Lowest to highest log-mel of each clip, sorted by the highest."""
    pairs = {"lowest": column(rows, "mel_min"), "highest": column(rows, "mel_max")}
    return _plot_pairs(rows, pairs, ("#0072B2", "#D55E00"), title, "log-mel (ln units)")


def plot_clip_baselines(rows: Rows, title: str = "What does no learning at all score?") -> Picture:
    """Mel L1 of copying the previous frame and of the best constant, per clip, sorted by the
    latter.
    """
    pairs = {
        "copy previous frame": column(rows, "copy_previous_l1"),
        "best constant": column(rows, "best_constant_l1"),
    }
    picture = _plot_pairs(rows, pairs, ("#CC79A7", "#0072B2"), title, "mel L1 (ln units)")
    picture.axes[0].set_xlim(left=0)
    return picture


def plot_phoneme_coverage(
    counts: Mapping[str, int], missing: Sequence[str] = (), title: str = "Which phonemes are there?"
) -> Picture:
    """How often each phoneme occurs, commonest first, on a log axis; what is `missing` is a red
    cross at the end.

    `counts` as in the summary's "phoneme_counts". Raises WorkbookError where there is none at all.
    """
    numbers = {
        symbol: count for symbol, count in finite_numbers("counts", counts).items() if count > 0
    }
    if not numbers:
        raise WorkbookError("counts: no phoneme occurs at all; is the corpus empty?")
    order = sorted(numbers, key=lambda symbol: (-numbers[symbol], symbol))
    counted = [numbers[symbol] for symbol in order]
    symbols = [*order, *(str(symbol) for symbol in missing)]
    with workbook_style():
        picture = new_picture(2.5, title)
        axes = picture.subplots()
        bars = axes.bar(range(len(order)), counted, 0.7, color=ORDINARY, label="times seen")
        if len(symbols) <= MOST_COUNTED_BARS:
            short = [_short_count(count) for count in counted]
            axes.bar_label(bars, short, fontsize=6.5, padding=1)
        log_axis(axes, "y", 0.6, max(10.0, 1.8 * max(counted)))
        if missing:
            axes.scatter(
                range(len(order), len(symbols)),
                [0.8] * len(missing),
                marker="X",
                s=36,
                color=ALARM,
                zorder=3,
                label=f"never: {len(missing)} of {len(symbols)}",
            )
        longest = max(len(symbol) for symbol in symbols)
        crowded = len(symbols) * longest > ROOM_FOR_SYMBOLS
        axes.xaxis.set_major_locator(FixedLocator(range(len(symbols))))
        axes.set_xticklabels(symbols, fontsize=7, rotation=90 if crowded else 0)
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="x", visible=False)
        axes.set_xlim(-0.7, len(symbols) - 0.3)
        axes.set(xlabel="phoneme", ylabel="occurrences")
        legend_above(axes, [bars, *axes.collections])
    return picture


def plot_data_report(rows: Rows, summary: Mapping, limits: Limits) -> dict[str, Picture]:
    """Every picture of the report by name, in reading order: `rows` of `to_rows()`, `summary` its
    `corpus_summary`, `limits` those of its warnings.
    """
    return {
        "lengths": plot_clip_lengths(rows),
        "levels": plot_levels(rows, limits),
        "silence": plot_silence(rows, limits),
        "noise": plot_noise(rows, limits),
        "pace": plot_pace(rows, limits),
        "transcript": plot_transcript_match(rows, limits),
        "phonemes": plot_phoneme_coverage(summary["phoneme_counts"], summary["missing_phonemes"]),
        "mel_range": plot_mel_range(rows),
        "clipped_mels": plot_clipped_mels(rows, limits),
        "baselines": plot_clip_baselines(rows),
    }


def alignment_of(rows: Rows) -> str | None:
    """ "uniform" where any clip's durations are, so that the banner is not missed; else that of the
    first clip.
    """
    kinds = [row["alignment"] for row in rows]
    return "uniform" if "uniform" in kinds else next(iter(kinds), None)


def _limit_of(key: str, limits: Limits) -> float:
    return finite_number(f"limits[{key!r}]", entry_of("limits", limits, key))


def _limited(key: str, label: str, limits: Limits, scale: float = 1.0) -> Measurement:
    """A measurement with the limit beyond which the report warns."""
    return Measurement(key, label, limit=scale * _limit_of(key, limits), scale=scale)


def _short_count(count: float) -> str:
    """850, 1.2k, 85k."""
    if count < 1000:
        return f"{count:.0f}"
    if count < 10_000:
        return f"{count / 1000:.1f}k"
    return f"{count / 1000:.0f}k"


def _plot_pairs(
    rows: Rows,
    pairs: Mapping[str, np.ndarray],
    colours: tuple[str, str],
    title: str,
    label: str,
) -> Picture:
    """Two values per clip, (K,) each, a row each, sorted by the second; where there are few clips,
    joined by a line and named.
    """
    few = len(rows) <= MOST_BARS
    left, right = pairs.values()
    order = np.argsort(right, kind="stable")
    places = np.arange(len(rows))
    with workbook_style():
        picture = new_picture(0.75 + 0.2 * len(rows) if few else 2.8, title)
        axes = picture.subplots()
        if few:
            axes.hlines(places, left[order], right[order], color=YARDSTICK, linewidth=2.0, zorder=1)
        for (name, values), colour in zip(pairs.items(), colours, strict=True):
            axes.scatter(
                values[order],
                places,
                s=26 if few else 5,
                color=colour,
                label=name,
                linewidth=0,
                zorder=2,
            )
        axes.set_ylim(len(rows) - 0.4, -0.6)
        if few:
            names = short_ids([str(row["id"]) for row in rows])
            axes.yaxis.set_major_locator(FixedLocator(range(len(rows))))
            axes.set_yticklabels([names[place] for place in order])
        else:
            axes.set_yticks([])
            axes.set_ylabel(f"{len(rows):,} clips")
        axes.set_xlabel(label)
        legend_above(axes)
    return picture
