"""The workbook's own model on a synthetic batch as an open subject."""

from dataclasses import replace

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


def with_losses(opened, terms):
    """The same subject under other losses: `terms(own, model, batch)`, where `own` are its own."""
    own_losses = opened.subject.losses

    def losses(model, batch):
        return terms(own_losses, model, batch)

    return OpenSubject(replace(opened.subject, losses=losses), opened.seed)
