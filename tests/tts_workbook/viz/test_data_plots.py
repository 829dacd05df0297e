"""Each check has its picture: values and limits where they belong, offenders coloured and named,
few clips or many.
"""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from tests.tts_workbook.viz.readings import texts_of
from tts_core import WorkbookError
from tts_workbook.corpus.data_report import LIMITS, MIN_SNR, WARN, ClipReport
from tts_workbook.viz import (
    plot_data_report,
    plot_levels,
    plot_mel_range,
    plot_noise,
    plot_pace,
    plot_phoneme_coverage,
)
from tts_workbook.viz.data_panels import BEYOND, Measurement, short_ids
from tts_workbook.viz.picture import UNIFORM_BANNER

SUMMARY = {"phoneme_counts": {"AH": 20, "B": 3, "SIL": 0}, "missing_phonemes": ["ZH"]}


def row(name="voice-001", **changes):
    values = dict.fromkeys(ClipReport.__dataclass_fields__, 0.5) | {
        "id": name,
        "rate": 16000,
        "channels": 1,
        "seconds": 3.0,
        "clipped_share": 0.0,
        "dc_offset": 0.002,
        "snr_db": 30.0,
        "alignment": "textgrid",
        "seconds_per_phoneme": 0.08,
        "pace_z": 0.0,
        "longest_phoneme": 0.2,
        "floor_share": 0.01,
        "ceiling_share": 0.0,
        "mel_min": -11.5,
        "mel_max": 1.0,
        "word_mismatch": 0.0,
        "recogniser_wer": None,
        "warnings": (),
    }
    return values | changes


def rows(count, **changes):
    return [row(f"voice-{index:03d}") for index in range(count - 1)] + [
        row(f"voice-{count - 1:03d}", **changes)
    ]


def colours(axes):
    return [to_hex(patch.get_facecolor()).upper() for patch in axes.patches]


def test_few_clips_are_bars_with_names_values_and_the_limit():
    axes = plot_levels(rows(3, clipped_share=0.02), LIMITS).axes[0]
    # per cent
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0, 0, 2.0])
    assert axes.lines[0].get_xdata()[0] == 100 * WARN["clipped_share"][0]
    assert [color == BEYOND for color in colours(axes)] == [False, False, True]
    assert texts_of(axes.get_yticklabels()) == ["…000", "…001", "…002"]
    assert axes.get_title(loc="left") == "1 beyond" and axes.get_xlabel() == "clipped samples (%)"


def test_many_clips_are_a_histogram_that_counts_all_and_names_the_offender():
    axes = plot_noise(rows(200, snr_db=5.0), LIMITS).axes[0]
    assert sum(patch.get_height() for patch in axes.patches if patch.get_y() == 0) == 200
    red = [
        patch.get_height()
        for patch, colour in zip(axes.patches, colours(axes), strict=True)
        if colour == BEYOND
    ]
    assert sum(red) == 1
    assert axes.lines[0].get_xdata()[0] == MIN_SNR
    assert axes.get_title(loc="left") == "1 beyond: …199"
    assert axes.get_yscale() == "log"  # one clip beside 199 would not be seen
    assert axes.get_ylabel() == "clips" and axes.get_xlabel() == "signal to noise, estimated (dB)"


def test_a_note_over_a_histogram_names_as_many_as_fit():
    noisy = [row(f"voice-{index:03d}", snr_db=5.0) for index in range(100)]
    picture = plot_noise(noisy, LIMITS)
    note = picture.axes[0].get_title(loc="left")
    assert note.startswith("100 beyond: …000, …001") and note.endswith(" …") and len(note) <= 102


def test_pace_outliers_are_those_of_the_z_score_not_of_a_limit():
    data = rows(5, pace_z=-4.0, seconds_per_phoneme=0.08)
    axes = plot_pace(data, LIMITS).axes[0]
    assert [colour == BEYOND for colour in colours(axes)] == [False] * 4 + [True]


@pytest.mark.parametrize("alignment", ["forced", "uniform"])
def test_one_clip_with_uniform_durations_puts_the_banner_on_what_they_touch(alignment):
    pictures = plot_data_report(rows(3, alignment=alignment), SUMMARY, LIMITS)
    shouting = {
        name for name, picture in pictures.items() if UNIFORM_BANNER in texts_of(picture.texts)
    }
    assert shouting == ({"pace", "transcript"} if alignment == "uniform" else set())


@pytest.mark.parametrize("count", [1, 2000])
def test_the_whole_report_is_drawn_at_any_size_with_units_on_every_axis(count):
    pictures = plot_data_report(rows(count), SUMMARY, LIMITS)
    assert len(pictures) == 10
    for name, picture in pictures.items():
        assert len(picture.png()) < 60_000
        for axes in picture.axes:
            assert name in ("phonemes", "transcript") or axes.get_xlabel().endswith(")"), (
                name,
                axes.get_xlabel(),
            )


def test_the_recognisers_error_rate_is_drawn_where_every_clip_has_one():
    without = plot_data_report(rows(3), SUMMARY, LIMITS)["transcript"]
    judged = [row(f"voice-{i}", recogniser_wer=0.1 * i) for i in range(3)]
    having = plot_data_report(judged, SUMMARY, LIMITS)["transcript"]
    assert len(without.axes) == 1 and len(having.axes) == 2
    assert [bar.get_width() for bar in having.axes[1].patches] == pytest.approx([0, 0.1, 0.2])


def test_phonemes_are_sorted_and_missing_ones_crossed():
    axes = plot_phoneme_coverage({"B": 3, "AH": 20, "SIL": 7, "OY": 0}, ["ZH", "OY"]).axes[0]
    assert texts_of(axes.get_xticklabels()) == ["AH", "SIL", "B", "ZH", "OY"]
    assert [bar.get_height() for bar in axes.patches] == [20, 7, 3]
    assert axes.collections[0].get_offsets()[:, 0].tolist() == [3, 4]
    assert texts_of(axes.get_legend().get_texts()) == [
        "times seen",
        "never: 2 of 5",
    ]
    with pytest.raises(WorkbookError, match="no phoneme occurs at all"):
        plot_phoneme_coverage({}.fromkeys(["AH"], 0))


def test_mel_ranges_are_sorted_by_their_highest_value():
    data = [row("a", mel_max=2.0), row("b", mel_max=-1.0, mel_min=-9.0)]
    axes = plot_mel_range(data).axes[0]
    assert axes.collections[1].get_offsets().tolist() == [[-9.0, 0], [-11.5, 1]]
    assert axes.collections[2].get_offsets().tolist() == [[-1.0, 0], [2.0, 1]]
    assert texts_of(axes.get_yticklabels()) == ["b", "a"]


def test_bad_rows_are_refused_by_name():
    with pytest.raises(WorkbookError, match="every clip of the corpus was rejected"):
        plot_noise([], LIMITS)
    with pytest.raises(WorkbookError, match="clip 'voice-001' has no 'snr_db'"):
        plot_noise([{"id": "voice-001"}], LIMITS)
    with pytest.raises(WorkbookError, match=r"rows.snr_db: 1 of 2 values are not finite"):
        plot_noise(rows(2, snr_db=np.nan), LIMITS)
    with pytest.raises(WorkbookError, match="limits: no 'snr_db'"):
        plot_noise(rows(2), {"pace_z": 3.5})


def test_ids_lose_what_they_share_at_a_separator_only():
    assert short_ids(["austen_64kb-0870", "austen_64kb-0930"]) == ["…0870", "…0930"]
    assert short_ids(["alone_in_here"]) == ["alone_in_here"]
    assert short_ids(["abc1", "abc2"]) == ["abc1", "abc2"]
    assert [len(name) for name in short_ids(["x" * 80, "y"])] == [26, 1]


def test_a_limit_can_be_a_floor():
    low = Measurement("snr_db", "dB", limit=15.0, above=False)
    assert low.beyond([row(snr_db=14.9), row(snr_db=15.1)]).tolist() == [True, False]
