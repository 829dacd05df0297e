"""Curves hold the numbers they were given, baselines stand at their values, collapse is shaded
where it is one.
"""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.text import Text

from tests.tts_workbook.viz.readings import horizontal_lines, texts_of
from tts_core import WorkbookError
from tts_workbook.measure.trajectory import (
    COLLAPSE_SHARE,
    PLATEAU_BAND,
    PLATEAU_MIN_STEPS,
    plateaus,
)
from tts_workbook.viz import constant_line, plot_collapse, plot_loss_curves, plot_loss_over_constant
from tts_workbook.viz.style import COLOURS

STEPS = np.arange(1, 201)


def run(**changes):
    return {
        "steps": STEPS,
        "mel_l1": np.linspace(5, 0.06, 200),
        "over_constant": np.linspace(4, 0.05, 200),
        "time_variance_share": np.linspace(0.02, 0.5, 200),
        "duration_loss": np.linspace(1, 0.01, 200),
        "gradient_norm": np.linspace(30, 1, 200),
    } | changes


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_loss_curves_and_baselines_stand_at_their_values(scale):
    runs, baselines = (
        {"healthy": run(), "no_norm": run()},
        {
            "best constant": 1.33,
            "copy previous": 0.394,
        },
    )
    axes = plot_loss_curves(runs, baselines, scale=scale).axes[0]
    assert axes.get_yscale() == scale
    assert horizontal_lines(axes) == [0.394, 1.33]
    assert axes.lines[0].get_ydata() == pytest.approx(run()["mel_l1"])
    assert axes.lines[0].get_color() == COLOURS["healthy"]
    assert axes.get_ylabel() == "mel L1 (ln units)" and axes.get_xlabel() == "training step"
    assert {text.get_text() for text in axes.texts} == {"best constant 1.33", "copy previous 0.394"}
    assert "healthy: 0.0600 at step 200" in texts_of(axes.get_legend().get_texts())


def test_everything_drawn_lies_within_the_axes():
    axes = plot_loss_curves({"healthy": run()}, {"zeros": 40.0, "tiny": 1e-4}).axes[0]
    low, high = axes.get_ylim()
    assert low < 1e-4 and high > 40


def test_labels_of_close_baselines_do_not_touch_each_other():
    baselines = {"AR(3)": 0.389, "copy previous": 0.394, "AR(2)": 0.399, "AR(1)": 0.4}
    picture = plot_loss_curves({"healthy": run()}, baselines)
    picture.canvas.draw()
    labels = sorted(picture.axes[0].texts, key=lambda text: text.get_position()[1])
    assert [label.get_text().rsplit(" ", 1)[0] for label in labels] == list(baselines)
    # the text alone, without its leader line
    boxes = [Text.get_window_extent(label) for label in labels]
    # pixels
    assert all(lower.y1 <= upper.y0 + 2 for lower, upper in pairwise(boxes))


def test_loss_over_constant_draws_the_line_at_one_and_the_plateau_band():
    axes = plot_loss_over_constant({"seed": run()}).axes[0]
    assert 1.0 in horizontal_lines(axes)
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((0.95, 1.05))


def test_what_is_drawn_of_plateau_and_collapse_is_what_is_measured():
    assert constant_line.DRAWN_BAND == (1 - PLATEAU_BAND, 1 + PLATEAU_BAND)
    assert constant_line.DRAWN_PLATEAU_STEPS == PLATEAU_MIN_STEPS
    assert constant_line.DRAWN_COLLAPSE == 100 * COLLAPSE_SHARE


def test_a_plateau_is_fifty_steps_on_end():
    over = np.full(200, 2.0)
    over[20:69] = 1.04  # 49 steps
    over[100:150] = 0.96  # 50 steps
    assert plateaus(over, STEPS) == [slice(100, 150)]
    sparse = np.array([1, 20, 40, 60, 80])
    assert plateaus(np.array([2.0, 1, 1, 1, 2]), sparse) == []
    assert plateaus(np.array([2.0, 1, 1, 1, 1]), sparse) == [slice(1, 5)]


def collapse(**runs):
    """The picture of the runs with their plateaus."""
    found = {name: plateaus(one["over_constant"], one["steps"]) for name, one in runs.items()}
    return plot_collapse(runs, found)


def shaded(picture):
    return sum(len(collection.get_paths()) for collection in picture.axes[1].collections)


def test_collapse_is_shaded_only_where_plateau_and_low_share_coincide():
    still, moving = np.full(200, 0.04), np.full(200, 0.4)
    plateau, falling = np.full(200, 1.0), np.linspace(2, 0.1, 200)
    pairs = {
        (True, True): (plateau, still),
        (True, False): (plateau, moving),
        (False, True): (falling, still),
    }
    for (on_line, no_motion), (over, share) in pairs.items():
        picture = collapse(seed=run(over_constant=over, time_variance_share=share))
        assert (shaded(picture) > 0) is (on_line and no_motion)
    assert 10.0 in horizontal_lines(picture.axes[1]) and "%" in picture.axes[1].get_ylabel()


def test_a_share_may_be_measured_at_fewer_steps_but_must_be_a_share():
    picture = collapse(
        seed=run(time_variance_share=[0.02, 0.3], time_variance_share_steps=[1, 200])
    )
    assert picture.axes[1].lines[0].get_ydata() == pytest.approx([2, 30])
    with pytest.raises(WorkbookError, match="it is a share"):
        collapse(seed=run(time_variance_share=np.full(200, 44.0)))
    with pytest.raises(WorkbookError, match="plateaus: no 'seed'"):
        plot_collapse({"seed": run()}, {"healthy": []})


def test_a_diverged_run_is_refused_by_name():
    with pytest.raises(
        WorkbookError, match=r"runs\['no_norm'\].mel_l1: 1 of 200 values are not finite.*\(7,\)"
    ):
        values = np.ones(200)
        values[7] = np.inf
        plot_loss_curves({"healthy": run(), "no_norm": run(mel_l1=values)}, {"best constant": 1.3})
    with pytest.raises(WorkbookError, match="no 'mel_l1'; it holds 'steps'"):
        plot_loss_curves({"healthy": {"steps": STEPS}}, {})
    with pytest.raises(WorkbookError, match="scale = 'cubic'"):
        plot_loss_curves({"healthy": run()}, {}, scale="cubic")


def test_one_step_is_drawn_too():
    one = {key: np.asarray(value)[:1] for key, value in run().items()}
    assert plot_loss_curves({"healthy": one}, {"best constant": 1.3}).png()
    assert collapse(healthy=one).png()
