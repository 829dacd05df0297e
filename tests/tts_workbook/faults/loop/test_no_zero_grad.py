"""loop.no_zero_grad: gradients pile up over the steps."""

import pytest

from tests.tts_workbook.diagnosis.test_observe import step_with
from tests.tts_workbook.diagnosis.tiny_subject import lab
from tests.tts_workbook.faults.one_step import only


def never_zeroes(clip=None):
    return step_with(clip=clip, zero="never")


@pytest.mark.parametrize("clip", [None, 0.01])
def test_no_zero_grad(clip):
    """Clipping hides the growth of the gradient, but not a marker."""
    finding = only(lab(train_step=never_zeroes(clip)), "loop.no_zero_grad")
    growth = finding.evidence["growth of the gradient by the second step"]
    assert growth == pytest.approx(2.0, rel=1e-3) if clip is None else growth < 1.2
