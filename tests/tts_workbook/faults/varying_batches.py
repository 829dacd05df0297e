"""Subjects whose single clip is another one at every step, by which of the two plants is drawn."""

from tts_workbook.faults.data.batch_varies import plant
from tts_workbook.planted.cases import draw_setting
from tts_workbook.planted.ours_twin import build


def varying(noisy, **changes):
    """The first of 20 settings whose plant adds noise, or crops."""
    for seed in range(20):
        subject = plant(build, draw_setting(seed, **changes))
        whole = next(subject.batches()).mel.shape == subject.batch.mel.shape
        if whole == noisy:
            return subject
    raise AssertionError("none of 20 settings draws it")
