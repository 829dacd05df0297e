"""The figures of the rulings show every pair and every run, and say where they come from."""

import math

import numpy as np
import pytest

from tests.tts_workbook.viz.readings import texts_of
from tts_core.errors import WorkbookError
from tts_workbook.viz import plot_arm_curves, plot_doses, plot_effects

PROVENANCE = {"device": "cpu", "date": "2026-11-23", "commit": "abc", "command": "make evidence"}


def rows(**changes):
    row = {
        "differences": (0.1, 0.2, 0.3),
        "groups": ("a", "b", "a"),
        "mean": 0.2,
        "interval": (0.05, 0.35),
        "verdict": "supported",
    }
    return {"memory_norm": row | changes, "dropout": row | {"verdict": "refuted"}}


def test_every_pair_is_a_mark_and_the_interval_a_line():
    axes = plot_effects(rows(), 0.05, "change", provenance=PROVENANCE).axes[0]
    points = [line for line in axes.lines if line.get_marker() in ("o", "s")]
    assert sum(len(line.get_xdata()) for line in points) == 6
    assert any(list(line.get_xdata()) == [0.05, 0.35] for line in axes.lines)
    labels = texts_of(axes.get_yticklabels())
    assert labels == ["memory_norm  ✔", "dropout  ✘"]


@pytest.mark.parametrize("interval", [None, (-math.inf, math.inf)])
def test_too_few_pairs_have_no_interval_line(interval):
    axes = plot_effects({"one": rows(interval=interval)["memory_norm"]}, 0.05, "change").axes[0]
    assert not any(
        line.get_linewidth() == 2.2 and len(line.get_xdata()) == 2 and line.get_marker() == "None"
        for line in axes.lines
    )


def test_a_broken_number_names_its_row():
    with pytest.raises(WorkbookError, match="memory_norm"):
        plot_effects(rows(differences=(0.1, float("nan"), 0.3)), 0.05, "change")


def test_every_run_is_a_curve_and_the_provenance_stands_below():
    picture = plot_arm_curves(
        {"seed": [[1.2, 1.0], [1.3, 0.9, 0.8]], "healthy": [[0.5]]},
        second={"seed": [([1], [0.2])]},
        provenance=PROVENANCE,
    )
    loss, share = picture.axes
    assert sum(line.get_color() != "#6e6e6e" for line in loss.lines) == 3
    assert np.isclose(share.lines[0].get_ydata()[0], 20)
    assert "make evidence" in picture._supxlabel.get_text()


def test_a_run_that_never_left_is_a_triangle_at_the_budget():
    panels = {"lr": {"7e-05": {"leave": [100, None], "plateau": [60, 700], "final": [0.5, 1.0]}}}
    above, below, _ = plot_doses(panels, 800).axes
    marks = {line.get_marker(): float(line.get_ydata()[0]) for line in above.lines}
    assert marks["o"] == 100 and marks["^"] == 800
    assert list(below.lines[0].get_ydata()) == [60, 700]
