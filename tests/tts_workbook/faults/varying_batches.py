"""Subjects whose single clip is another one at every step, by which of the two plants is drawn."""

from benchmarks.planted.architecture import draw_setting
from benchmarks.planted.ours_twin import build
from tts_workbook.faults.data.batch_varies import plant


def varying(noisy, **changes):
    """The first of 20 settings whose plant adds noise, or crops."""
    for seed in range(20):
        subject = plant(build, draw_setting(seed, **changes))
        whole = next(subject.batches()).mel.shape == subject.batch.mel.shape
        if whole == noisy:
            return subject
    raise AssertionError("none of 20 settings draws it")
