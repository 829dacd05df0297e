"""Diagnose any text-to-speech model: findings by intervention.

    from tts_core.diagnosis import Subject, diagnose
    report = diagnose(Subject(build_model=..., batch=..., losses=..., make_optimizer=...,
    predict_mel=..., target_mel=...))

the adapter            subject
the ground             isolation, switches, trace, lab (short paired training runs), anatomy (where
text, history and output are),
                       prediction, observe (the train step from outside), seen_clips,
                       copy_synthesis, vectors
the checks             checks/ (data, durations, features, step, parameters, precision, restart,
losses, model, order, activity,
                       learning, generation); suspects and changes are what learning tries
the answer             catalogue, findings, headline, diagnose, triage
the benchmark          cases, faults, plants_*, twin_parts, clip_batch, ours*, tacotron*, harm,
benchmark
"""

from tts_core.diagnosis.diagnose import (
    diagnose,
)
from tts_core.diagnosis.findings import Finding, Report
from tts_core.diagnosis.subject import Subject, SubjectError

__all__ = ["Finding", "Report", "Subject", "SubjectError", "diagnose"]
