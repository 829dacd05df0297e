"""The headline of a subject is what training validates by: the same numbers, over the best
constant.
"""

from dataclasses import replace

import pytest
import torch

from tts_core.metrics.baselines import best_constant_l1, copy_previous_l1
from tts_core.metrics.free_running import measure_gap
from tts_core.metrics.text_use import measure_text_use
from tts_workbook.measure.headline import headline, heard
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.presets import preset_subject
from tts_workbook.trials.preset_arm import preset_experiment


def test_the_headline_of_a_preset_in_ln_units_is_what_training_validates_by(librivox):
    experiment = preset_experiment("seed", librivox.vocabulary, "smoke")
    opened = OpenSubject(preset_subject(experiment, librivox.clips, batch_size=2))
    model, batch = opened.build(), opened.batch
    with torch.no_grad():
        model.mel_projection_out.weight.mul_(50.0)  # a fresh model hardly reads
    found = headline(opened, model).named()
    constant = best_constant_l1(batch.mel[batch.mel_mask])
    gap = measure_gap(model, batch)
    use = measure_text_use(model, batch, librivox.vocabulary.pause_id)
    copied = copy_previous_l1(batch.mel, batch.mel_mask)
    assert found == pytest.approx(
        {
            "best constant L1": constant,
            "copy of the previous frame L1 / best constant": copied / constant,
            "TF L1 / best constant": gap.tf_l1 / constant,
            "FR L1 / best constant": gap.fr_l1 / constant,
            "text use": use.ratio,
        },
        rel=1e-5,
    )
    assert abs(use.ratio - 1.0) > 1e-3


def test_the_model_that_is_heard_is_the_one_that_the_subject_judges_by(librivox):
    experiment = preset_experiment("seed", librivox.vocabulary, "smoke")
    other = torch.nn.Linear(1, 1)
    subject = replace(preset_subject(experiment, librivox.clips), judged=lambda model: other)
    opened = OpenSubject(subject)
    model = opened.build()
    assert heard(opened, model) is other
    assert heard(OpenSubject(replace(subject, judged=None)), model) is model
    assert heard(OpenSubject(replace(subject, checkpoint=model.state_dict())), model) is model
