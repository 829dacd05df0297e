"""The data report in pictures, one per check. Rows are those of `DataReport.to_rows()`, limits
those of its warnings.

Where a clip breaks a limit it is vermilion; a corpus with uniform durations has the banner on what
they touch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import FixedLocator

from tts_core.errors import WorkbookError
from tts_workbook.corpus.data_report import MAX_ROBUST_Z, MIN_SNR, WARN
from tts_workbook.viz.axes import legend_above, log_axis
from tts_workbook.viz.data_panels import (
    MOST_BARS,
    ORDINARY,
    Measurement,
    column,
    plot_measurements,
    short_ids,
)
from tts_workbook.viz.inputs import finite_numbers
from tts_workbook.viz.picture import Picture, new_picture, workbook_style
from tts_workbook.viz.style import ALARM, YARDSTICK


def _warned(key: str, label: str, scale: float = 1.0) -> Measurement:
    return Measurement(key, label, limit=scale * WARN[key][0], scale=scale)


def plot_clip_lengths(rows: Sequence[Mapping], title: str = "How long are the clips?") -> Picture:
    """Seconds per clip and the sample rate of its file."""
    return plot_measurements(
        rows,
        [
            Measurement("seconds", "length (s)"),
            Measurement("rate", "sample rate (kHz)", scale=1e-3),
        ],
        title,
    )


def plot_levels(rows: Sequence[Mapping], title: str = "Is the level sound?") -> Picture:
    """Share of clipped samples and constant offset, with the limits of the warnings."""
    return plot_measurements(
        rows,
        [
            _warned("clipped_share", "clipped samples (%)", 100),
            _warned("dc_offset", "constant offset (% of full scale)", 100),
        ],
        title,
    )


def plot_silence(rows: Sequence[Mapping], title: str = "How much silence is there?") -> Picture:
    """Seconds of silence at the start, at the end and the longest inside, with the limits of the
    warnings.
    """
    return plot_measurements(
        rows,
        [
            _warned("silence_start", "silence at the start (s)"),
            _warned("silence_end", "silence at the end (s)"),
            _warned("silence_inside", "longest silence inside (s)"),
        ],
        title,
    )


def plot_noise(rows: Sequence[Mapping], title: str = "Is it recorded in quiet?") -> Picture:
    """Estimated signal-to-noise ratio; below the line, noise is learned too."""
    snr = Measurement("snr_db", "signal to noise, estimated (dB)", MIN_SNR, above=False)
    return plot_measurements(rows, [snr], title)


def plot_pace(rows: Sequence[Mapping], title: str = "Do text and audio fit?") -> Picture:
    """Seconds per phoneme, outliers (robust z beyond 3.5) marked, and the longest phoneme of each
    clip.
    """
    pace = Measurement(
        "seconds_per_phoneme", "seconds per phoneme (s)", outlier="pace_z", most=MAX_ROBUST_Z
    )
    return plot_measurements(
        rows, [pace, _warned("longest_phoneme", "longest phoneme (s)")], title, alignment_of(rows)
    )


def plot_transcript_match(rows: Sequence[Mapping], title: str = "Is it this text?") -> Picture:
    """Words that differ between transcript and TextGrid, and the recogniser's word error rate where
    it was run.
    """
    measurements = [_warned("word_mismatch", "words unlike the TextGrid's (%)", 100)]
    if rows and all(row.get("recogniser_wer") is not None for row in rows):
        measurements.append(_warned("recogniser_wer", "recogniser's word error rate"))
    return plot_measurements(rows, measurements, title, alignment_of(rows))


def plot_clipped_mels(
    rows: Sequence[Mapping], title: str = "How much of the mels is cut off?"
) -> Picture:
    """Share of mel bins at the recipe's floor and at its ceiling, with the limits of the
    warnings.
    """
    return plot_measurements(
        rows,
        [
            _warned("floor_share", "mel bins at the floor (%)", 100),
            _warned("ceiling_share", "mel bins at the ceiling (%)", 100),
        ],
        title,
    )


def plot_mel_range(
    rows: Sequence[Mapping], title: str = "Which values do the mels take?"
) -> Picture:
    """Lowest to highest log-mel of each clip, sorted by the highest."""
    pairs = {"lowest": column(rows, "mel_min"), "highest": column(rows, "mel_max")}
    return _plot_pairs(rows, pairs, ("#0072B2", "#D55E00"), title, "log-mel (ln units)")


def plot_clip_baselines(
    rows: Sequence[Mapping], title: str = "What does no learning at all score?"
) -> Picture:
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
    symbols = [*order, *(str(symbol) for symbol in missing)]
    with workbook_style():
        picture = new_picture(2.5, title)
        axes = picture.subplots()
        counted = [numbers[symbol] for symbol in order]
        bars = axes.bar(range(len(order)), counted, 0.7, color=ORDINARY, label="times seen")
        if len(symbols) <= 48:
            axes.bar_label(
                bars, [_short_count(count) for count in counted], fontsize=6.5, padding=1
            )
        log_axis(axes, "y", 0.6, max(10.0, 1.8 * max(numbers.values())))
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
        axes.xaxis.set_major_locator(FixedLocator(range(len(symbols))))
        crowded = len(symbols) * max(len(symbol) for symbol in symbols) > 130
        axes.set_xticklabels(symbols, fontsize=7, rotation=90 if crowded else 0)
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="x", visible=False)
        axes.set_xlim(-0.7, len(symbols) - 0.3)
        axes.set(xlabel="phoneme", ylabel="occurrences")
        legend_above(axes, [bars, *axes.collections])
    return picture


def plot_data_report(rows: Sequence[Mapping], summary: Mapping) -> dict[str, Picture]:
    """Every picture of the report by name, in reading order: `rows` of `to_rows()`, `summary` its
    `corpus_summary`.
    """
    return {
        "lengths": plot_clip_lengths(rows),
        "levels": plot_levels(rows),
        "silence": plot_silence(rows),
        "noise": plot_noise(rows),
        "pace": plot_pace(rows),
        "transcript": plot_transcript_match(rows),
        "phonemes": plot_phoneme_coverage(summary["phoneme_counts"], summary["missing_phonemes"]),
        "mel_range": plot_mel_range(rows),
        "clipped_mels": plot_clipped_mels(rows),
        "baselines": plot_clip_baselines(rows),
    }


def alignment_of(rows: Sequence[Mapping]) -> str | None:
    """ "uniform" where any clip's durations are, so that the banner is not missed; else that of the
    first clip.
    """
    kinds = [row["alignment"] for row in rows]
    return "uniform" if "uniform" in kinds else next(iter(kinds), None)


def _short_count(count: float) -> str:
    return (
        f"{count:.0f}"
        if count < 1000
        else f"{count / 1000:.1f}k"
        if count < 10_000
        else f"{count / 1000:.0f}k"
    )


def _plot_pairs(
    rows: Sequence[Mapping],
    pairs: Mapping[str, np.ndarray],
    colours: tuple[str, str],
    title: str,
    label: str,
) -> Picture:
    """Two values per clip, a row each, sorted by the second; where there are few clips, joined by a
    line and named.
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
            axes.yaxis.set_major_locator(FixedLocator(places))
            axes.set_yticklabels(np.array(short_ids([str(row["id"]) for row in rows]))[order])
        else:
            axes.set_yticks([])
            axes.set_ylabel(f"{len(rows):,} clips")
        axes.set_xlabel(label)
        legend_above(axes)
    return picture
