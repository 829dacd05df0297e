"""Attention maps share a scale and must be attention; entropy is shown against its bound."""

import math

import numpy as np
import pytest

from tests.tts_workbook.viz.readings import texts_of
from tts_core import WorkbookError
from tts_workbook.viz import plot_alignment, plot_attention_entropy
from tts_workbook.viz.picture import UNIFORM_BANNER

PHONEMES, DURATIONS = ["SIL", "HH", "IY"], [10, 5, 15]


def attention(layers=2, heads=None, frames=30):
    shape = (layers, frames, frames) if heads is None else (layers, heads, frames, frames)
    weights = np.random.default_rng(0).random(shape)
    return weights / weights.sum(axis=-1, keepdims=True)


def test_maps_are_means_over_heads_on_one_scale_from_zero():
    weights = attention(layers=3, heads=4)
    picture = plot_alignment(weights, DURATIONS, PHONEMES, "forced", 0.01)
    images = [axes.images[0] for axes in picture.axes[:3]]
    assert np.allclose(images[1].get_array(), weights[1].mean(axis=0))
    assert {image.get_clim() for image in images} == {(0.0, weights.mean(axis=1).max())}
    assert images[0].get_extent() == pytest.approx((0, 0.3, 0, 0.3))
    assert "attention weight" in picture.axes[-1].get_ylabel()
    assert picture.get_supxlabel() == "memory frame (s)"
    assert picture.axes[0].get_ylabel() == "decoder frame (s)"


def test_phoneme_boundaries_and_names_stand_where_the_durations_say():
    axes = plot_alignment(attention(layers=1), DURATIONS, PHONEMES, "forced", 0.01).axes[0]
    lines = axes.collections[0].get_segments()
    assert [segment[0][0] for segment in lines] == pytest.approx([0.10, 0.15])
    places = {text.get_text(): text.xy[0] for text in axes.texts}
    assert places == pytest.approx({"SIL": 0.05, "HH": 0.125, "IY": 0.225})


def test_chosen_layers_keep_their_numbers():
    picture = plot_alignment(
        attention(layers=6), DURATIONS, PHONEMES, "forced", 0.01, layers=[5, 2]
    )
    assert [axes.get_title(loc="left") for axes in picture.axes[:2]] == [
        "decoder layer 5",
        "decoder layer 2",
    ]
    with pytest.raises(WorkbookError, match=r"layers = \[6\], but the attention has layers 0 … 5"):
        plot_alignment(attention(layers=6), DURATIONS, PHONEMES, "forced", 0.01, layers=[6])


@pytest.mark.parametrize("alignment", ["forced", "uniform"])
def test_the_banner_follows_the_alignment(alignment):
    picture = plot_alignment(attention(), DURATIONS, PHONEMES, alignment, 0.01)
    assert (UNIFORM_BANNER in texts_of(picture.texts)) is (alignment == "uniform")


def test_logits_are_not_taken_for_weights():
    with pytest.raises(WorkbookError, match="weights ≥ 0 that sum to 1"):
        plot_alignment(attention() * 3, DURATIONS, PHONEMES, "forced", 0.01)
    with pytest.raises(WorkbookError, match="sum to 30 frames, but the mel has 29"):
        plot_alignment(attention(frames=29), DURATIONS, PHONEMES, "forced", 0.01)


def test_names_over_maps_touch_neither_each_other_nor_the_title():
    durations = [7] * 30
    picture = plot_alignment(
        attention(layers=3, frames=210), durations, ["AH", "M", "EY"] * 10, "forced", 256 / 22050
    )
    picture.canvas.draw()
    for axes in picture.axes[:3]:
        boxes = [text.get_window_extent() for text in axes.texts]
        assert len(boxes) >= 21
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        title = axes._left_title.get_window_extent()
        assert not any(title.overlaps(box) for box in boxes)


def test_entropy_bars_stand_beside_the_bound():
    entropy = {
        "healthy": {"decoder.layers.0": 0.4, "decoder.layers.1": 0.6},
        "seed": {"decoder.layers.0": 0.0},
    }
    picture = plot_attention_entropy(entropy, 284)
    axes = picture.axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.4, 0.6, 0.0])
    assert axes.lines[0].get_ydata()[0] == 1.0
    assert f"{math.log(284):.2f} nats" in axes.get_title(loc="right")
    assert texts_of(axes.get_xticklabels()) == ["0", "1"]
    with pytest.raises(WorkbookError, match="share of ln T"):
        plot_attention_entropy({"healthy": {"decoder.layers.0": 3.2}}, 284)
