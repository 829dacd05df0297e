"""Pictures of batches: bars and dots stand at the numbers given, thin lines have their mean,
origins are named.
"""

import numpy as np
import pytest

from tests.tts_workbook.viz.readings import texts_of
from tts_core.errors import WorkbookError
from tts_workbook.viz import (
    plot_batch_curves,
    plot_duplication,
    plot_gradient_noise,
    plot_matched_outcomes,
)
from tts_workbook.viz.style import ALARM

PANELS = {
    "fp64": {
        "bar": 1e-9,
        "differences": {"loss": {1: 0.0, 8: 3e-16}, "gradient": {1: 0.0, 8: 2e-14}},
    },
    "fp32": {"bar": 1e-5, "differences": {"loss": {1: 0.0, 8: 1e-7}, "gradient": {1: 0.0, 8: 7.0}}},
}
ORIGIN = {
    "date": "2026-11-23",
    "device": "a toaster",
    "commit": "abc123",
    "command": "python benchmarks/evidence.py",
}


def run(n, frames, level=0.0):
    steps = np.arange(1, n + 1)
    return {
        "steps": steps,
        "over_constant": 0.6 + level + 3 * np.exp(-steps / 30),
        "frames_per_step": frames,
    }


def test_bars_reach_their_differences_zeros_are_written_and_the_bar_is_red():
    picture = plot_duplication(PANELS, title="copies")
    for axes, panel in zip(picture.axes, PANELS.values(), strict=True):
        tops = sorted(bar.get_y() + bar.get_height() for bar in axes.patches)
        assert tops[2:] == pytest.approx(
            sorted(values[8] for values in panel["differences"].values()), rel=1e-2
        )
        assert texts_of(axes.texts).count("0") == 2
        line = next(line for line in axes.lines if line.get_color() == ALARM)
        assert line.get_ydata()[0] == panel["bar"]
        assert axes.get_ylim()[1] > 7
    assert picture.png()


def test_a_negative_difference_is_refused():
    with pytest.raises(WorkbookError, match="zero or positive"):
        plot_duplication({"fp64": {"bar": 1e-9, "differences": {"loss": {1: -1.0}}}})
    with pytest.raises(WorkbookError, match="no 'bar'"):
        plot_duplication({"fp64": {"differences": {"loss": {1: 0.0}}}})


def test_the_line_of_the_root_starts_at_the_first_point():
    axes = plot_gradient_noise({"seed": {1: 0.8, 4: 0.5}, "healthy": {1: 0.2, 4: 0.1}}).axes[0]
    lines = [line.get_ydata() for line in axes.lines]
    assert lines[0] == pytest.approx([0.8, 0.4]) and lines[1] == pytest.approx([0.8, 0.5])
    assert lines[2] == pytest.approx([0.2, 0.1]) and axes.get_xscale() == axes.get_yscale() == "log"
    low, high = axes.get_ylim()
    assert low < 0.1 and high > 0.8
    with pytest.raises(WorkbookError, match="above zero"):
        plot_gradient_noise({"seed": {1: 0.0}})


def test_curves_stand_over_steps_and_over_frames_and_many_have_their_mean():
    groups = {
        "single": [run(40, 100, level) for level in (0.0, 0.1, 0.2, 0.3)],
        "batch": [run(20, 3200)],
        "corpus": [run(40, None)],
    }
    picture = plot_batch_curves(groups, "title", ORIGIN)
    by_steps, by_frames = picture.axes
    assert by_steps.lines[0].get_xdata()[-1] == 40
    assert by_frames.lines[0].get_xdata()[-1] == pytest.approx(4)
    assert by_frames.lines[0].get_ydata() == pytest.approx(by_steps.lines[0].get_ydata())
    mean = by_steps.lines[4]
    assert mean.get_linewidth() > by_steps.lines[0].get_linewidth()
    assert mean.get_ydata()[0] == pytest.approx(
        np.mean([one["over_constant"][0] for one in groups["single"]])
    )
    assert len(by_frames.lines) == len(by_steps.lines) - 1  # the corpus has no frames
    low, high = by_frames.get_xlim()
    assert low < 0.1 and high > 20 * 3.2  # thousands
    labels = [text.get_text() for axes in picture.axes for text in axes.get_legend().get_texts()]
    assert "single (4 runs)" in labels
    assert "batch" in labels
    assert "corpus, frames not known" in labels
    assert "recorded 2026-11-23, on a toaster, at commit abc123" in picture.get_supxlabel()
    assert picture.png()


def test_one_step_and_no_frames_are_drawn_and_no_runs_are_refused():
    assert plot_batch_curves({"one": [run(1, 100)]}).png()
    assert plot_batch_curves({"one": [run(3, None)]}).png()
    with pytest.raises(WorkbookError, match=r"groups\['none'\]: there is no run"):
        plot_batch_curves({"none": []})
    with pytest.raises(WorkbookError, match="not finite"):
        plot_batch_curves({"one": [{"steps": [1, 2], "over_constant": [1.0, np.nan]}]})


def test_every_run_is_a_dot_at_its_value_with_the_mean_beside_it():
    panels = {"steps": {"single": [1.0, 2.0], "batch": (1.25,)}, "frames": {"single": [3.0]}}
    picture = plot_matched_outcomes(panels, "t", ORIGIN)
    steps, frames = picture.axes
    dots = [line for line in steps.lines if line.get_marker() == "o"]
    assert dots[0].get_xdata().tolist() == [1.0, 2.0] and dots[1].get_xdata().tolist() == [1.25]
    assert {text.get_text() for text in steps.texts} == {"1.50", "1.25"}
    assert frames.get_title(loc="left") == "frames" and "abc123" in picture.get_supxlabel()
    assert picture.png()
