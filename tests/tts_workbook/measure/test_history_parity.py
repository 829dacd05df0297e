"""Generation on the true history: parity in the layout of training alone, at every frame and in the
numbers of the whole generation loop.
"""

import pytest
import torch

from tests.conftest import make_batch, make_experiment, make_model
from tts_core.metrics.free_running import measure_gap
from tts_core.model.generation import free_run
from tts_core.model.modes import evaluating
from tts_core.training.loop import fit
from tts_core.training.state import start_training
from tts_workbook.measure.history_parity import measure_history_parity
from tts_workbook.subject.opened import OpenSubject
from tts_workbook.subject.presets import in_layout

N_FRAMES = 29


@pytest.fixture(scope="module")
def trained():
    """A tiny model overfitted to one synthetic clip of 29 frames: experiment, model, batch."""
    torch.set_num_threads(1)
    batch = make_batch([[4, 6, 3, 7, 4, 5]], seed=3)
    experiment = make_experiment(lr=3e-3, steps=250)
    model = fit(start_training(experiment, make_model(experiment, batch)), batch).model
    return experiment, model.eval(), batch


def test_parity_holds_in_the_training_layout_and_breaks_in_the_seeds(trained):
    experiment, model, batch = trained
    train, seed = (
        measure_history_parity(OpenSubject(in_layout(experiment, batch, layout)), model)
        for layout in ("train", "seed")
    )
    assert train.judged and train.holds and train.largest < 1e-4
    assert seed.judged and seed.broken and seed.largest > 1e-2
    assert list(train.difference) == [0, 1, 2, 14, 28]


@pytest.mark.parametrize("layout", ("train", "seed"))
def test_over_all_frames_it_is_the_generation_loop_on_the_true_history(trained, layout):
    """In ln units, whatever the preset learns in."""
    experiment, model, batch = trained
    opened = OpenSubject(in_layout(experiment, batch, layout))
    found = measure_history_parity(opened, model, range(N_FRAMES))
    with evaluating(model):
        forced = model(batch).mel
    off = (free_run(model, batch, layout=layout, true_history=True).mel - forced).abs()
    by_frame = off.mean(dim=(0, 2)) / opened.best_constant
    assert list(found.difference.values()) == pytest.approx(by_frame.tolist(), abs=1e-5)
    assert found.largest * opened.best_constant == pytest.approx(float(off.max()), abs=1e-4)


def test_a_subject_in_a_layout_generates_in_it_and_in_ln_units(trained):
    experiment, model, batch = trained
    for layout in ("train", "seed"):
        opened = OpenSubject(in_layout(experiment, batch, layout))
        gap = measure_gap(model, batch, layout)
        assert torch.equal(opened.subject.generate(model, batch), gap.fr_mel)
        off = opened.error(opened.predict(model)) * opened.best_constant
        assert off == pytest.approx(gap.tf_l1, rel=1e-5)


def test_frames_that_are_asked_for_are_compared_with_the_middle(trained):
    experiment, model, batch = trained
    opened = OpenSubject(in_layout(experiment, batch, "train"))
    found = measure_history_parity(opened, model, [3, 5, 400])
    assert list(found.difference) == [3, 5, 14]
