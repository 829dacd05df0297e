"""Heatmaps hold every number in its place, failed cells are hatched, the best is framed; curves and
ranges as given.
"""

import numpy as np
import pytest
from matplotlib.colors import LogNorm

from tests.tts_workbook.viz.readings import texts_of
from tts_core import WorkbookError
from tts_workbook.viz import plot_lr_range, plot_sweep, plot_sweep_curves
from tts_workbook.viz.style import COLOURS

LRS, DECAYS = [7e-5, 4e-4, 1e-3], [0.0, 0.01]
NUMBERS = np.array([[0.11, 0.12], [0.21, 0.22], [0.31, 0.32]])


def grids(**changes):
    return {
        "healthy": {"teacher-forced": NUMBERS, "free-running": 2 * NUMBERS},
        "seed": {
            "teacher-forced": changes.get("failing", 10 * NUMBERS),
            "free-running": 20 * NUMBERS,
        },
    }


def heatmaps(picture):
    return [axes for axes in picture.axes if axes.images]


def test_numbers_stand_where_their_rate_and_decay_are():
    upper, _, lower, _ = heatmaps(plot_sweep(grids(), LRS, DECAYS, {}))
    assert {tuple(map(round, text.get_position())): text.get_text() for text in upper.texts} == {
        (0, 0): "0.110",
        (1, 0): "0.120",
        (0, 1): "0.210",
        (1, 1): "0.220",
        (0, 2): "0.310",
        (1, 2): "0.320",
    }
    assert texts_of(upper.get_yticklabels()) == ["7e-05", "0.0004", "0.001"]
    assert texts_of(lower.get_xticklabels()) == ["0", "0.01"]
    assert upper.get_ylim()[0] < upper.get_ylim()[1] and upper.get_title(loc="left") == "healthy"


def test_a_measure_has_one_colour_scale_over_the_presets():
    upper, _, lower, _ = heatmaps(plot_sweep(grids(), LRS, DECAYS, {}))
    assert upper.images[0].norm is lower.images[0].norm
    assert isinstance(upper.images[0].norm, LogNorm)
    assert (upper.images[0].norm.vmin, upper.images[0].norm.vmax) == (0.11, 3.2)


def test_a_failed_cell_is_hatched_says_so_and_stays_out_of_the_scale():
    failing = 10 * NUMBERS
    failing[2, 1] = np.nan
    picture = plot_sweep(
        grids(failing=failing), LRS, DECAYS, {"healthy": (1e-3, 0.0), "seed": None}
    )
    healthy, _, seed, _ = heatmaps(picture)
    told = [text for text in seed.texts if text.get_gid() == "failed"]
    assert [(text.get_text(), text.get_position()) for text in told] == [("failed", (1, 2))]
    assert [patch.get_hatch() for patch in seed.patches] == ["////"] and len(seed.texts) == 6
    assert seed.images[0].norm.vmax == 3.1
    frames = [patch for patch in healthy.patches if patch.get_gid() == "best"]
    assert [frame.get_xy() for frame in frames] == [(-0.5, 1.5)]
    keys = texts_of(picture.legends[0].get_texts())
    assert keys == ["best cell by free-running error", "training failed"]
    assert picture.png()


def test_a_sweep_in_which_everything_failed_or_is_equal_can_be_drawn():
    nothing = np.full((3, 2), np.nan)
    assert plot_sweep(
        {"seed": {"teacher-forced": nothing, "text use": np.ones((3, 2))}}, LRS, DECAYS, {}
    ).png()
    assert plot_sweep(
        {"seed": {"teacher-forced": np.array([[0.5]])}}, [1e-3], [0.0], {"seed": (1e-3, 0.0)}
    ).png()


@pytest.mark.parametrize(
    "values, said",
    [(NUMBERS.T, r"shape \(2, 3\), but 3 learning rates x 2"), (NUMBERS * np.inf, "infinities")],
)
def test_a_grid_of_another_shape_or_with_infinities_is_refused_by_name(values, said):
    with pytest.raises(WorkbookError, match=r"grids\['seed'\]\['teacher-forced'\]: .*" + said):
        plot_sweep(grids(failing=values), LRS, DECAYS, {})


def runs(failed=False):
    return [
        {
            "lr": lr,
            "weight_decay": decay,
            "over_constant": np.linspace(1.2, lr * 100 + decay, 20),
            "failed": failed and lr == 1e-3,
        }
        for lr in LRS
        for decay in DECAYS
    ]


def test_every_training_is_a_curve_coloured_by_its_rate_and_dashed_by_its_decay():
    picture = plot_sweep_curves({"healthy": runs(), "seed": runs(failed=True)})
    healthy, seed = picture.axes
    curves = [line for line in healthy.lines if len(line.get_xdata()) == 20]
    assert [line.get_ydata()[-1] for line in curves] == pytest.approx(
        [lr * 100 + d for lr in LRS for d in DECAYS]
    )
    assert curves[0].get_color() == curves[1].get_color() != curves[2].get_color()
    assert (
        curves[0].get_linestyle() == curves[2].get_linestyle() == "-" != curves[1].get_linestyle()
    )
    assert [
        sum(line.get_gid() == "failed" for line in panel.lines) for panel in (healthy, seed)
    ] == [0, 2]
    assert healthy.get_ylabel() == "mel L1 / best constant" and picture.png()


def test_trainings_that_never_made_a_step_are_counted_not_dropped():
    picture = plot_sweep_curves(
        {"seed": [{"lr": 1e-3, "weight_decay": 0.0, "over_constant": [], "failed": True}] * 2}
    )
    assert texts_of(picture.axes[0].texts) == ["2 failed at the first step"]
    assert picture.png()


def a_range(**changes):
    return {
        "lrs": [1e-4, 1e-3, 1e-2],
        "losses": [1.2, 0.6, 3.0],
        "start": 1.3,
        "steepest": 1e-3,
        "diverged_at": None,
    } | changes


def test_the_range_test_is_a_curve_with_its_steepest_fall_and_its_divergence():
    axes = plot_lr_range({"healthy": a_range(), "seed": a_range(diverged_at=1e-2)}).axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    curve = next(
        line
        for line in axes.lines
        if line.get_color() == COLOURS["healthy"] and len(line.get_xdata()) == 3
    )
    assert list(curve.get_ydata()) == [1.2, 0.6, 3.0]
    triangles = [line for line in axes.lines if line.get_marker() == "v"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in triangles] == [(1e-3, 0.6)] * 2
    of_seed = [line.get_xdata() for line in axes.lines if line.get_color() == COLOURS["seed"]]
    assert [places[0] for places in of_seed if len(places) == 2] == [1e-2]
    labels = texts_of(axes.get_legend().get_texts())
    assert labels == [
        "healthy: falls fastest at 0.00100",
        "seed: falls fastest at 0.00100, diverges at 0.0100",
    ]


def test_a_curve_that_cannot_stand_on_log_axes_is_refused():
    with pytest.raises(WorkbookError, match=r"curves\['healthy'\]: 3 learning rates but 2 losses"):
        plot_lr_range({"healthy": a_range(losses=[1.0, 2.0])})
    with pytest.raises(WorkbookError, match="must be above zero"):
        plot_lr_range({"healthy": a_range(losses=[1.0, 0.0, 2.0])})
    flat = plot_lr_range({"healthy": a_range(steepest=None)}).axes[0]
    assert flat.get_legend().get_texts()[0].get_text() == "healthy: never falls"
