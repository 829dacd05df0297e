"""A recorded run says where it comes from."""

import numpy as np
import pytest

from tests.tts_workbook.viz.readings import horizontal_lines
from tts_core import WorkbookError
from tts_workbook.viz import plot_recorded_run

RUN = {
    "steps": np.arange(1, 201),
    "over_constant": np.linspace(4, 0.05, 200),
    "gradient_norm": np.linspace(30, 1, 200),
    "time_variance_share": np.linspace(0.02, 0.5, 200),
    "duration_loss": np.linspace(1, 0.01, 200),
}


def test_a_recorded_run_prints_its_provenance_and_the_clip():
    provenance = {
        "device": "2-core x86",
        "date": "2026-11-20",
        "commit": "1a2b3c4",
        "command": "make evidence",
    }
    record = {"provenance": provenance, "clip_norm": 1.0, "runs": {"seed": RUN, "healthy": RUN}}
    picture = plot_recorded_run(record)
    assert (
        picture.get_supxlabel()
        == "recorded 2026-11-20, on 2-core x86, at commit 1a2b3c4\nmake evidence"
    )
    gradient = next(axes for axes in picture.axes if "gradient norm" in axes.get_ylabel())
    assert horizontal_lines(gradient) == [1.0] and gradient.get_yscale() == "log"
    far = plot_recorded_run(record | {"clip_norm": 1e-3})
    assert (
        next(axes for axes in far.axes if "gradient norm" in axes.get_ylabel()).get_ylim()[0] < 1e-3
    )
    with pytest.raises(WorkbookError, match="record: no 'provenance'"):
        plot_recorded_run({"runs": {"seed": RUN}})
    assert (
        "not stated"
        in plot_recorded_run(record | {"provenance": {"python": "3.11"}}).get_supxlabel()
    )
