"""generation.stopping fires on a loss that wants another pattern, and not on a head that is not
trained yet.
"""

from dataclasses import replace

import pytest
import torch

from benchmarks.planted import lstm_attention, ours, tacotron
from benchmarks.planted.architecture import draw_setting
from benchmarks.planted.ours_twin import build
from tests.tts_workbook.faults.examined import examined, fresh, level
from tts_workbook.faults.generation.stopping import Stops, decide
from tts_workbook.measure import stop_pattern

CAUSE = "generation.stopping"


def stops(at_last, elsewhere, mel_error=None, **losses):
    """`losses` by pattern; none where no head is found."""
    return Stops(at_last, elsewhere, 0.01, losses, mel_error, None)


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (
            stops(0.5, 0.5, right=2.0, never=1.0, inverted=3.0),
            ("confirmed", "losses", 1.0, "another pattern wanted"),
        ),
        (
            stops(0.9, 0.1, right=2.0, never=3.0, inverted=1.0),
            ("confirmed", "losses", 1.0, "another pattern wanted"),
        ),
        (
            stops(0.9, 0.1, right=1.0, never=2.0, inverted=3.0),
            ("excluded", "stop", 0.0, "tells the last frame"),
        ),
        (
            stops(0.2, 0.1, right=1.0, never=2.0, inverted=3.0),
            ("undecided", "stop", 0.0, "not trained yet"),
        ),
        # no head is found
        (stops(0.9, 0.1), ("excluded", "stop", 0.0, "tells the last frame")),
        (stops(0.9, 0.8, mel_error=0.3), ("confirmed", "stop", 1.0, "fires at once")),
        (stops(0.9, 0.8, mel_error=0.6), ("undecided", "stop", 0.0, "not trained yet")),
        (stops(0.2, 0.1), ("undecided", "stop", 0.0, "not trained yet")),
    ],
)
def test_decide(numbers, wanted):
    decision = decide(numbers)
    assert (decision.level, decision.where, decision.strength, decision.reason) == wanted


@pytest.mark.parametrize("architecture", (ours, tacotron))
@pytest.mark.parametrize("batch_size", (1, 2))
def test_stopping_fires_on_a_loss_that_wants_another_pattern(architecture, batch_size):
    wanted = set()
    for seed in range(4):
        subject = architecture.PLANTS[CAUSE](draw_setting(seed, batch_size=batch_size))
        lab = fresh(subject)
        lab.subject = replace(lab.subject, infer=None)
        entry = examined(subject, CAUSE, lab)
        assert entry.level == "confirmed"
        wanted.add(entry.experiment.rpartition("wants it ")[2])
    assert wanted <= {"never", "everywhere but at the last frame"}


UNTRAINED = {
    "clean": lambda: build(draw_setting(0)),
    "three clips and dropout": lambda: build(draw_setting(1, batch_size=3, dropout=0.3)),
    "Tacotron 2": lambda: tacotron.ARCHITECTURE.clean(draw_setting(0)),
    "another layout": lambda: ours.PLANTS["generation.layout"](draw_setting(2)),
}


@pytest.mark.parametrize("name", UNTRAINED)
def test_stopping_does_not_accuse_a_head_that_is_not_trained_yet(name):
    subject = UNTRAINED[name]()
    entry = examined(subject, CAUSE, fresh(subject))
    assert entry.level == "undecided"
    assert (
        entry.evidence["loss with the stop at the last frame"]
        < entry.evidence["loss with the stop never"]
    )


def test_stopping_is_excluded_once_the_head_tells_the_last_frame():
    assert level(build(draw_setting(0, batch_size=1)), CAUSE) == "excluded"


# --- several frames at a time ---------------------------------------------------------------------


def test_outputs_of_a_step_that_decides_on_two_frames_are_laid_out():
    wanted = torch.arange(10.0).reshape(2, 5)
    padded = torch.nn.functional.pad(wanted, (0, 1))
    steps = [padded[:, start : start + 2] for start in (0, 2, 4)]
    for outputs in (steps, [padded.reshape(2, 3, 2)], [wanted], [wanted[..., None]]):
        assert torch.equal(stop_pattern._laid_out(outputs, (2, 5)), wanted)
    assert stop_pattern._laid_out(steps[:2], (2, 5)) is None
    assert stop_pattern._laid_out([*steps, steps[0]], (2, 5)) is None


def test_stopping_with_a_reduction_factor_of_two():
    architecture = lstm_attention.ARCHITECTURE
    setting = draw_setting(0, max_seconds=architecture.max_seconds)
    faulty = architecture.plants[CAUSE](setting)
    entry = examined(faulty, CAUSE, fresh(faulty))
    assert entry.level == "confirmed" and entry.where == "losses"
    right = entry.evidence["loss with the stop at the last frame"]
    assert right > 0.01 + entry.evidence["loss with the stop never"]
    clean = architecture.clean(setting)
    entry = examined(clean, CAUSE, fresh(clean))
    assert entry.level in ("excluded", "undecided")
    right = entry.evidence["loss with the stop at the last frame"]
    assert right + 0.01 < entry.evidence["loss with the stop never"]
