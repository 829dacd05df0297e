"""The workbook's own model on a synthetic batch as an open subject."""

from tests.conftest import make_model
from tts_core.speech.batch import duplicate
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.presets import own_subject


def own(experiment, batch, seed=0, change=lambda model: model, **fields):
    """`experiment` on `batch`; `change(model)` gets every fresh model."""

    def build():
        return change(make_model(experiment, batch, seed))

    def target(batch):
        return normaliser.normalise(batch.mel), batch.mel_lengths

    normaliser = make_model(experiment, batch, seed).normaliser
    subject = own_subject(
        experiment, build, batch=batch, target_mel=target, duplicate=duplicate, **fields
    )
    return OpenSubject(subject, seed)
