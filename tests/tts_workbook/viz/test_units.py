"""A model of the user's own has other units and yardsticks: where a figure is given their names, it
uses no other.
"""

import numpy as np

from tests.tts_workbook.viz.readings import texts_of
from tts_workbook.viz import (
    plot_baselines,
    plot_duplication,
    plot_loss_curves,
    plot_mels,
    plot_sweep,
)


def labels(picture):
    return {text for axes in picture.axes for text in (axes.get_xlabel(), axes.get_ylabel())} | {
        picture.get_supxlabel()
    }


def test_labels_are_those_that_were_given():
    run = {"mine": {"steps": [1, 2], "mel_l1": [2.0, 1.0]}}
    unit = "of the best constant"
    for picture in (
        plot_loss_curves(run, {"best constant": 1.0}, unit=unit),
        plot_baselines({"a": 1.0}, unit=unit),
    ):
        assert "mel L1 (of the best constant)" in labels(picture)
        assert not any("ln units" in label for label in labels(picture))
    seen = labels(
        plot_mels({"target": np.eye(4)}, 1.0, colour_label="target units", x_label="frame")
    )
    assert {"target units", "frame"} <= seen and not {"time (s)", "log-mel (ln units)"} & seen
    panel = {"loss": {"bar": 1e-5, "differences": {"loss": {8: 1e-7}}}}
    assert {"padded frames", "difference"} <= labels(
        plot_duplication(panel, "", "padded frames", "difference")
    )
    picture = plot_sweep(
        {"mine": {"TF": np.ones((1, 1))}}, [1e-3], [0.0], {"mine": (1e-3, 0.0)}, best_by="TF L1"
    )
    assert texts_of(picture.legends[0].get_texts()) == ["best cell by TF L1"]
