"""What cannot be drawn is refused by the name of the argument."""

import numpy as np
import pytest
import torch

from tts_core import WorkbookError
from tts_workbook.viz import plot_baselines, plot_mels
from tts_workbook.viz.inputs import curve, finite_array, spans
from tts_workbook.viz.picture import new_picture


def test_refusals_name_the_argument():
    with pytest.raises(
        WorkbookError, match=r"mels\['free-running'\].*1 of 40 values are not finite.*\(2, 3\)"
    ):
        mel = np.zeros((5, 8))
        mel[2, 3] = np.nan
        plot_mels({"recording": np.zeros((5, 8)), "free-running": mel}, 0.01)
    with pytest.raises(WorkbookError, match="bars: there is nothing to draw"):
        plot_baselines({})
    with pytest.raises(WorkbookError, match=r"bars\['zeros'\]: not an array of numbers"):
        plot_baselines({"zeros": "many"})
    with pytest.raises(WorkbookError, match="alignment = 'guessed'"):
        new_picture(1.0, alignment="guessed")


def test_finite_array_takes_tensors_that_need_gradients_and_half_precision():
    tensor = torch.tensor([1.5, -2.0], dtype=torch.bfloat16, requires_grad=True)
    assert finite_array("mel", tensor, 1).tolist() == [1.5, -2.0]


def test_curves_may_bring_steps_of_their_own():
    run = {"steps": [1, 2, 3], "mel_l1": [3, 2, 1], "share": [0.5, 0.6], "share_steps": [1, 3]}
    assert curve("run", run, "mel_l1")[0].tolist() == [1, 2, 3]
    assert curve("run", run, "share")[0].tolist() == [1, 3]
    with pytest.raises(WorkbookError, match="run: 3 steps but 2 values of 'short'"):
        curve("run", run | {"short": [1, 2]}, "short")
    with pytest.raises(WorkbookError, match=r"run.steps: must rise"):
        curve("run", run | {"steps": [1, 1, 2]}, "mel_l1")


def test_spans_refuse_what_does_not_fill_the_mel():
    assert spans(["a", "b"], [2, 3], 5).tolist() == [0, 2, 5]
    with pytest.raises(WorkbookError, match="sum to 5 frames, but the mel has 6"):
        spans(["a", "b"], [2, 3], 6)
    with pytest.raises(WorkbookError, match="2 for 3 phonemes"):
        spans(["a", "b", "c"], [2, 3], 5)
    with pytest.raises(WorkbookError, match="phoneme 1 is negative"):
        spans(["a", "b"], [6, -1], 5)
