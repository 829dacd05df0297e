"""Alignments kept during a training are those of the model as it was then, and the training does
not notice.
"""

import torch

from tests.conftest import make_experiment, make_model
from tts_core.metrics.attention_maps import cross_attention_maps
from tts_core.training.loop import fit
from tts_core.training.state import start_training
from tts_workbook.measure.alignment_record import record_alignments


def test_the_maps_are_those_of_their_step_and_the_training_is_the_same_bit_for_bit(batch):
    experiment = make_experiment(dropout=0.3, steps=5)
    plain = fit(start_training(experiment, make_model(experiment, batch)), batch)
    model = make_model(experiment, batch)
    untrained = cross_attention_maps(model, batch)
    maps, on_step = record_alignments(model, batch, steps=(1, 3, 5))
    watched = fit(start_training(experiment, model), batch, on_step=on_step)
    assert watched.history == plain.history
    assert list(maps) == [1, 3, 5] and maps[1].shape == untrained.shape == (
        experiment.model.n_decoder_layers,
        9,
        9,
    )
    assert torch.equal(maps[5], cross_attention_maps(model, batch))
    assert not torch.equal(maps[1], maps[5]) and not torch.equal(maps[1], untrained)


def test_whoever_comes_after_decides_whether_to_stop(batch):
    experiment = make_experiment(steps=5)
    model = make_model(experiment, batch)
    maps, on_step = record_alignments(
        model, batch, steps=(2, 4), also=lambda step, report: step == 3
    )
    assert fit(start_training(experiment, model), batch, on_step=on_step).step == 3
    assert list(maps) == [2]
