"""Losses for a tiny speaker, and what is found of them."""

from tests.tts_workbook.diagnosis.tiny_speaker import findings, speaker_lab
from tests.tts_workbook.diagnosis.tiny_subject import losses
from tests.tts_workbook.faults.judged import OF_THE_LOSS


def measured(function):
    """The one term of a loss `function(prediction, target)`."""

    def terms(model, batch):
        mel = function(model(batch), batch["mel"])
        return {"mel": mel, "total": mel}

    return terms


def beside(function, weight=1.0, scale=1.0):
    """The mel and another term, `function(model, batch)`, in a total of another scale."""

    def terms(model, batch):
        mel, other = losses(model, batch)["mel"], function(model, batch)
        return {"mel": mel, "other": other, "total": (mel + weight * other) * scale}

    return terms


def loss_of(terms):
    return findings(speaker_lab(losses=terms), *OF_THE_LOSS)
