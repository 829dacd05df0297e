"""Bars and lines stand at the numbers given, each beside its yardstick."""

import numpy as np
import pytest

from tests.tts_workbook.viz.readings import texts_of
from tts_core import WorkbookError
from tts_workbook.viz import plot_baselines, plot_text_use, plot_tf_fr
from tts_workbook.viz.style import COLOURS


def test_baselines_are_sorted_with_the_best_on_top_and_values_printed():
    axes = plot_baselines({"zeros": 5.297, "best constant": 1.33, "copy previous": 0.394}).axes[0]
    assert texts_of(axes.get_yticklabels()) == [
        "copy previous",
        "best constant",
        "zeros",
    ]
    assert [bar.get_width() for bar in axes.patches] == [0.394, 1.33, 5.297]
    assert texts_of(axes.texts) == ["0.394", "1.330", "5.297"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1] and axes.get_xlim()[0] == 0
    assert axes.get_xlabel() == "mel L1 (ln units)"


def test_only_measured_bars_are_coloured():
    from matplotlib.colors import to_hex

    axes = plot_baselines({"healthy": 0.06, "best constant": 1.33}, measured=["healthy"]).axes[0]
    assert to_hex(axes.patches[0].get_facecolor()).upper() == COLOURS["healthy"]
    assert to_hex(axes.patches[1].get_facecolor()) == "#9a9a9a"


def test_tf_and_fr_share_axes_and_hold_the_errors_and_the_line_of_each_arm():
    errors = {
        "healthy": {"teacher_forced": np.full(50, 0.06), "free_running": np.full(50, 0.07)},
        "seed": {"teacher_forced": np.full(40, 0.4), "free_running": np.linspace(0, 4, 40)},
    }
    picture = plot_tf_fr(errors, 0.01, {"healthy": 1.33, "seed": 1.9})
    healthy, seed = picture.axes
    assert healthy.get_ylim() == seed.get_ylim()
    assert (
        healthy.get_xlim()
        == seed.get_xlim()
        == (
            0,
            0.5,
        )
    )
    lines = {line.get_label(): line for line in seed.lines}
    assert lines["free-running"].get_ydata() == pytest.approx(np.linspace(0, 4, 40))
    assert lines["free-running"].get_color() == COLOURS["free-running"]
    assert lines["best constant"].get_ydata()[0] == 1.9
    assert (
        seed.get_title(loc="left")
        == "seed: mean 0.400 teacher-forced, 2.000 free-running, 1.900 best constant"
    )
    assert seed.get_xlabel() == "time (s)" and seed.get_ylabel() == "L1 (ln units)"
    with pytest.raises(WorkbookError, match="best_constant: no 'seed'"):
        plot_tf_fr(errors, 0.01, {"healthy": 1.33})


def test_text_use_bars_ratio_and_lines():
    arms = {
        "healthy": {"tf": 0.05, "tf_shuffled": 0.12, "fr": 0.06},
        "no_norm": {"tf": 0.4, "tf_shuffled": 0.4, "fr": 1.66},
    }
    axes = plot_text_use(arms, best_constant=1.33, copy_previous=0.394).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [0.05, 0.4, 0.12, 0.4, 0.06, 1.66]
    labels = texts_of(axes.get_xticklabels())
    assert labels == ["healthy\ntext use 2.40", "no_norm\ntext use 1.00"]
    assert sorted(line.get_ydata()[0] for line in axes.lines) == [0.394, 1.33]
    with pytest.raises(WorkbookError, match=r"arms\['healthy'\]: no 'fr'"):
        plot_text_use({"healthy": {"tf": 0.05, "tf_shuffled": 0.12}}, 1.3, 0.4)
