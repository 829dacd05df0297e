"""Dots stand at their norms, in network order; a gradient of exactly zero cannot be overlooked."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from tests.tts_workbook.viz.readings import texts_of
from tts_core import WorkbookError
from tts_workbook.viz import plot_gradient_norms, plot_module_scales, plot_update_ratios
from tts_workbook.viz.module_plots import network_order
from tts_workbook.viz.style import COLOURS

HEALTHY = {
    "text_embedding": 0.1,
    "encoder.memory_norm": 0.2,
    "decoder.layers.0.cross_attention": 3.0,
    "mel_projection_out": 1e-4,
}
SEED = {"text_embedding": 0.0, "decoder.layers.0.cross_attention": 30.0, "mel_projection_out": 2.0}


def test_dots_stand_at_their_norms_on_a_log_axis_in_network_order():
    picture = plot_gradient_norms({"healthy": HEALTHY, "seed": SEED})
    axes = picture.axes[0]
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "gradient norm"
    assert texts_of(axes.get_yticklabels()) == list(HEALTHY)
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first module is at the top
    healthy, seed, _ = axes.collections
    assert healthy.get_offsets()[:, 0].tolist() == pytest.approx(list(HEALTHY.values()))
    assert np.round(healthy.get_offsets()[:, 1]).tolist() == [0, 1, 2, 3]
    assert seed.get_offsets()[:, 0].tolist() == pytest.approx([30.0, 2.0])
    assert np.round(seed.get_offsets()[:, 1]).tolist() == [2, 3]


def test_exact_zeros_are_marked_and_counted():
    axes = plot_gradient_norms({"healthy": HEALTHY, "seed": SEED}).axes[0]
    assert texts_of(axes.get_legend().get_texts()) == [
        "healthy",
        "seed",
        "seed: exactly zero in 1",
    ]
    cross = axes.collections[2].get_offsets()[0]
    assert axes.get_xlim()[0] < cross[0] < 1e-4 and round(cross[1]) == 0
    assert len(plot_gradient_norms({"healthy": HEALTHY}).axes[0].collections) == 1
    assert plot_gradient_norms({"dead": {"a": 0.0, "b": 0.0}}).png()


def test_update_ratios_show_the_usual_range():
    axes = plot_update_ratios({"healthy": HEALTHY}).axes[0]
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((3e-4, 3e-3))
    assert "update : data ratio" in axes.get_xlabel()


def test_negative_and_non_finite_norms_are_refused_by_module():
    with pytest.raises(
        WorkbookError, match=r"norms\['healthy'\]\['text_embedding'\] = -1, but it must not"
    ):
        plot_gradient_norms({"healthy": {"text_embedding": -1.0}})
    with pytest.raises(
        WorkbookError,
        match=r"ratios\['healthy'\]\['text_embedding'\]: 1 of 1 values are not finite",
    ):
        plot_update_ratios({"healthy": {"text_embedding": np.nan}})


def test_network_order_keeps_what_only_one_arm_has_in_its_place():
    assert network_order([["a", "c"], ["a", "b", "c"]]) == ["a", "b", "c"]
    assert network_order([["b"], ["a", "b"]]) == ["a", "b"]


def scales(memory, layers=2):
    std = {
        "encoder": memory,
        "memory": memory,
        "mel_projection_in": 2.9,
        "encoder.layers.7.self_attention": 99.0,
    }
    for layer in range(layers):
        std |= {
            f"decoder.layers.{layer}": 5.0 + layer,
            f"decoder.layers.{layer}.self_attention": 0.7,
            f"decoder.layers.{layer}.cross_attention": memory * 0.9,
        }
    return std


def test_module_scales_draws_each_stream_at_its_values_on_one_scale():
    picture = plot_module_scales({"healthy": scales(1.0), "seed": scales(24.0, layers=6)})
    healthy, seed = picture.axes
    assert healthy.get_ylim() == seed.get_ylim() and healthy.get_yscale() == "log"
    lines = {line.get_label(): line for line in seed.lines}
    assert lines["cross-attention output"].get_ydata() == pytest.approx([21.6] * 6)
    assert lines["residual stream"].get_ydata() == pytest.approx([5, 6, 7, 8, 9, 10])
    assert lines["memory"].get_ydata()[0] == 24.0 and lines["decoder input"].get_ydata()[0] == 2.9
    # the encoder's 99 is not among them
    assert lines["self-attention output"].get_ydata() == pytest.approx([0.7] * 6)
    assert healthy.get_ylabel() == "standard deviation" and healthy.get_xlabel() == "decoder layer"
    assert healthy.get_title(loc="left") == "healthy"


def test_module_scales_refuses_what_a_log_axis_cannot_hold():
    with pytest.raises(WorkbookError, match=r"scales\['seed'\]\['memory'\] = 0"):
        plot_module_scales({"seed": scales(1.0) | {"memory": 0.0}})
    with pytest.raises(WorkbookError, match="no decoder layer"):
        plot_module_scales({"seed": {"memory": 1.0}})


def test_arms_keep_their_colours():
    axes = plot_gradient_norms({"no_norm": HEALTHY, "healthy": HEALTHY}).axes[0]
    drawn = [to_hex(dots.get_facecolor()[0]).upper() for dots in axes.collections]
    assert drawn == [COLOURS["no_norm"], COLOURS["healthy"]]
