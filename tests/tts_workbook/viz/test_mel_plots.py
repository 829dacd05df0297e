"""Mels share one scale and one time axis; phonemes stand where they are spoken; uniform durations
are shouted.
"""

import io

import numpy as np
import pytest
from PIL import Image

from tts_core import WorkbookError
from tts_workbook.viz import plot_clip, plot_mel_snapshots, plot_mels
from tts_workbook.viz.phoneme_track import label_rows
from tts_workbook.viz.picture import UNIFORM_BANNER
from tts_workbook.viz.style import ALARM

HOP, RATE = 256, 22_050


def clip(n_frames=100, n_phonemes=10, alignment="forced"):
    generator = np.random.default_rng(0)
    durations = np.full(n_phonemes, n_frames // n_phonemes)
    durations[-1] += n_frames - durations.sum()
    samples = 0.1 * generator.standard_normal((n_frames - 1) * HOP + 1)
    mel, phonemes = generator.normal(-5, 2, (n_frames, 80)), [f"P{i}" for i in range(n_phonemes)]
    return plot_clip(samples, RATE, mel, HOP, phonemes, durations, alignment, "clip")


def images(picture):
    return [image for axes in picture.axes for image in axes.images]


def texts(picture):
    return [text.get_text() for holder in (picture, *picture.axes) for text in holder.texts]


@pytest.mark.parametrize(
    "alignment, shown", [("textgrid", False), ("forced", False), ("uniform", True)]
)
def test_the_banner_is_there_exactly_when_durations_are_uniform(alignment, shown):
    assert (UNIFORM_BANNER in texts(clip(alignment=alignment))) is shown
    mels = {"recording": np.zeros((20, 8))}
    assert (UNIFORM_BANNER in texts(plot_mels(mels, 0.01, alignment=alignment))) is shown


def test_the_banner_covers_nothing():
    picture = clip(alignment="uniform")
    picture.canvas.draw()
    banner = next(
        text for text in picture.texts if text.get_text() == UNIFORM_BANNER
    ).get_window_extent()
    others = [
        text.get_window_extent() for text in picture.texts if text.get_text() != UNIFORM_BANNER
    ]
    others += [axes.get_tightbbox() for axes in picture.axes]
    assert not any(banner.overlaps(other) for other in others)


def test_a_tight_saving_keeps_the_banner():
    target = io.BytesIO()
    clip(alignment="uniform").savefig(target, format="png", bbox_inches="tight", pad_inches=0)
    pixels = np.asarray(Image.open(target).convert("RGB"))
    assert pixels.shape[1] == 902 and "#{:02x}{:02x}{:02x}".format(*pixels[5, 5]) == ALARM


def test_a_clip_has_one_time_axis_in_seconds_and_labelled_units():
    picture = clip()
    wave, track, mel, colours = picture.axes
    assert (
        wave.get_xlim()
        == track.get_xlim()
        == mel.get_xlim()
        == pytest.approx((0, 100 * HOP / RATE))
    )
    assert mel.get_xlabel() == "time (s)"
    assert mel.get_ylabel() == "mel bin"
    assert "full scale" in wave.get_ylabel()
    assert colours.get_ylabel() == "log-mel (ln units)"


def test_phonemes_stand_in_the_middle_of_their_spans():
    track = clip().axes[1]
    places = {text.get_text(): text.get_position()[0] for text in track.texts}
    assert places == {f"P{i}": pytest.approx((10 * i + 5) * HOP / RATE) for i in range(10)}


def test_phoneme_labels_never_touch():
    picture = clip(n_frames=300, n_phonemes=45)
    picture.canvas.draw()
    boxes = [text.get_window_extent() for text in picture.axes[1].texts]
    assert len(boxes) >= 40
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_narrow_neighbours_go_to_other_rows_and_hopeless_ones_are_left_out():
    assert label_rows(np.array([0.0, 1.0, 2.0]), ["AA", "B"], 2.0) == [0, 0]
    assert label_rows(np.linspace(0.9, 1.0, 6), list("ABCDE"), 100.0) == [0, 1, 2, None, None]


def test_a_crowded_track_says_so_instead_of_a_smear():
    picture = clip(n_frames=5000, n_phonemes=600)
    (note,) = picture.axes[1].texts
    assert note.get_text() == "600 phonemes: too many to name on this axis; draw a part of the clip"


def test_a_waveform_keeps_its_peaks_when_drawn_small():
    samples = np.zeros(60 * RATE)
    samples[1_000_003] = 0.8
    picture = plot_clip(samples, RATE, np.zeros((20, 8)), HOP, ["SIL"], [20], "forced")
    envelope = picture.axes[0].collections[0].get_paths()[0].vertices
    assert envelope[:, 1].max() == pytest.approx(0.8)


@pytest.mark.parametrize("n_frames", [1, 10, 5200])
def test_short_and_long_clips_are_drawn(n_frames):
    assert len(clip(n_frames, n_phonemes=1).png()) < 200_000


def test_all_mels_have_the_limits_of_the_first_and_the_bar_points_to_what_lies_beyond():
    first = np.linspace(-11, 1, 80)[None].repeat(10, 0)
    picture = plot_mels({"recording": first, "loud": first + 5, "short": first[:4]}, 0.01)
    assert {image.get_clim() for image in images(picture)[:3]} == {(-11.0, 1.0)}
    assert {axes.get_xlim() for axes in picture.axes[:3]} == {(0, 0.1)}
    assert images(picture)[2].get_extent() == pytest.approx([0, 0.04, 0, 80])
    assert picture.axes[0].images[0].colorbar is None
    assert picture.axes[2].images[0].colorbar.extend == "max"


def test_mel_labels_and_notes_are_printed_in_order():
    mels = {name: np.zeros((10, 8)) for name in ("recording", "copy-synthesis", "teacher-forced")}
    picture = plot_mels(mels, 0.01, notes={"teacher-forced": "L1 0.053"})
    assert [axes.get_title(loc="left") for axes in picture.axes[:3]] == list(mels)
    assert [axes.get_title(loc="right") for axes in picture.axes[:3]] == ["", "", "L1 0.053"]


def test_mels_that_do_not_belong_together_are_refused():
    with pytest.raises(WorkbookError, match="as many bins"):
        plot_mels({"a": np.zeros((10, 80)), "b": np.zeros((10, 40))}, 0.01)
    with pytest.raises(WorkbookError, match=r"notes: .*'c'.* name no mel"):
        plot_mels({"a": np.zeros((10, 80))}, 0.01, notes={"c": "?"})
    with pytest.raises(WorkbookError, match="hop_seconds = 0, but it must be positive"):
        plot_mels({"a": np.zeros((10, 80))}, 0)


def test_snapshots_come_in_step_order_on_the_targets_scale():
    target = np.linspace(-11, 1, 80)[None].repeat(10, 0)
    picture = plot_mel_snapshots(
        {500: target, 1: target * 0, 1000: target}, target, 0.01, notes={1: "L1 5.0"}
    )
    assert [axes.get_title(loc="left") for axes in picture.axes[:4]] == [
        "target",
        "step 1",
        "step 500",
        "step 1,000",
    ]
    assert {image.get_clim() for image in images(picture)[:4]} == {(-11.0, 1.0)}
    assert picture.axes[1].get_title(loc="right") == "L1 5.0"
