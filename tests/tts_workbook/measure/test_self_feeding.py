"""Self-feeding: its two ends are teacher forcing and free-running, whatever the layout; in between
it counts frames.
"""

import pytest
import torch

from tests.conftest import make_batch, make_experiment, make_model
from tests.tts_workbook.measure.own_subjects import own
from tts_core.errors import WorkbookError
from tts_core.metrics.free_running import measure_gap
from tts_core.model.generation import free_run
from tts_core.model.modes import evaluating
from tts_core.training.loop import fit
from tts_core.training.state import start_training
from tts_workbook.measure.headline import generated
from tts_workbook.measure.self_feeding import (
    free_run_from,
    mean_by_span,
    measure_drift,
    measure_self_feeding,
    spans_up_to,
)


@pytest.fixture(scope="module")
def trained():
    """A tiny model half trained on one synthetic clip of 29 frames, so that FR differs from TF."""
    torch.set_num_threads(1)
    batch = make_batch([[4, 6, 3, 7, 4, 5]], seed=3)
    experiment = make_experiment(lr=3e-3, steps=60)
    return fit(start_training(experiment, make_model(experiment, batch)), batch).model, batch


@pytest.mark.parametrize("layout", ["train", "seed"])
def test_start_zero_is_free_running_and_start_t_is_the_true_history(trained, layout):
    model, batch = trained
    own, fed = free_run_from(model, batch, [0, 29], layout)
    assert (own - free_run(model, batch, layout=layout).mel[0]).abs().max() < 1e-4
    assert (
        fed - free_run(model, batch, layout=layout, true_history=True).mel[0]
    ).abs().max() < 1e-4
    assert (own - fed).abs().max() > 0.05


def test_a_run_is_teacher_forced_up_to_and_including_its_first_frame_and_leaves_it_after(trained):
    model, batch = trained
    with evaluating(model):
        forced = model(batch).mel[0]
    (run,) = free_run_from(model, batch, [11])
    assert (run[:12] - forced[:12]).abs().max() < 1e-4
    assert (run[12:] - forced[12:]).abs().max() > 0.01 and model.training


def test_only_the_true_frames_before_the_start_are_heard(trained):
    import dataclasses

    model, batch = trained
    later = dataclasses.replace(
        batch, mel=torch.cat([batch.mel[:, :11], batch.mel[:, 11:] + 3.0], dim=1)
    )
    before = dataclasses.replace(
        batch, mel=torch.cat([batch.mel[:, :10], batch.mel[:, 10:] + 3.0], dim=1)
    )
    run = free_run_from(model, batch, [11])
    assert torch.equal(free_run_from(model, later, [11]), run)
    assert not torch.equal(free_run_from(model, before, [11]), run)


def test_spans_hold_the_frames_they_name(trained):
    model, batch = trained
    assert (
        spans_up_to(29) == [1, 2, 4, 8, 16, 29]
        and spans_up_to(16) == [1, 2, 4, 8, 16]
        and spans_up_to(1) == [1]
    )
    assert spans_up_to(284)[-2:] == [128, 284] and spans_up_to(3) == [1, 2, 3]
    found = measure_self_feeding(model, batch, n_starts=29)
    assert found.n_frames.tolist() == [
        29,
        28,
        27 + 26,
        25 + 24 + 23 + 22,
        sum(range(14, 22)),
        sum(range(1, 14)),
    ]
    gap = measure_gap(model, batch, "train")
    # k = 1 from every frame: teacher forcing
    assert float(found.error[0]) == pytest.approx(gap.tf_l1, rel=1e-4)
    assert float(found.teacher_forced[0]) == pytest.approx(gap.tf_l1, rel=1e-4)
    # one run from frame 0: free-running
    alone = measure_self_feeding(model, batch, n_starts=1)
    assert float((alone.error * alone.n_frames).sum()) / 29 == pytest.approx(gap.fr_l1, rel=1e-4)
    assert float((alone.teacher_forced * alone.n_frames).sum()) / 29 == pytest.approx(
        gap.tf_l1, rel=1e-4
    )


def test_the_first_span_above_a_level(trained):
    model, batch = trained
    found = measure_self_feeding(model, batch, n_starts=8)
    assert found.first_above(-1.0) == 1 and found.first_above(1e9) is None
    level = float(found.error[:3].max())
    above = [int(k) for k, e in zip(found.last, found.error, strict=True) if e > level]
    assert found.first_above(level) == (above[0] if above else None)


def test_starts_outside_the_clip_and_several_clips_are_refused(trained, batch):
    model, one = trained
    for starts in ([], [30], [-1]):
        with pytest.raises(WorkbookError, match="between 0 and its 29 frames"):
            free_run_from(model, one, starts)
    with pytest.raises(WorkbookError, match="2 clips"):
        free_run_from(model, batch, [0])


def test_a_span_averages_the_frames_that_are_in_it():
    error = torch.tensor([[1.0, 2.0, 3.0, 50.0], [5.0, 6.0, 70.0, 90.0]])
    k = torch.tensor([[1, 2, 3, 0], [1, 2, 0, 0]])
    means, counts = mean_by_span(error, k, [1, 3, 4])
    assert means[:2].tolist() == pytest.approx([3.0, 11 / 3]) and bool(means[2].isnan())
    assert counts.tolist() == [2, 3, 0]


def test_the_drift_of_a_subject_counts_the_frames_of_each_clip():
    """Two clips of 20 and 9 frames: spans of 1, 3 and 12 frames, and the last 4."""
    batch = make_batch([[8, 7, 5], [4, 3, 2]])
    opened = own(make_experiment(), batch)
    model = opened.build()
    found = measure_drift(opened, model)
    off = (generated(opened, model) - opened.target).abs().mean(dim=2) / opened.best_constant
    ends = [(0, 1), (1, 4), (4, 16), (16, 20)]
    for start, end in ends:
        frames = [*off[0, start:end].tolist(), *off[1, start : min(end, 9)].tolist()]
        wanted = sum(frames) / len(frames)
        assert found.by_span[start, end - 1] == pytest.approx(wanted, rel=1e-5)
    assert len(found.by_span) == len(ends)
    forced = opened.predict(model, field="mel")
    first = (forced - opened.target)[:, 0].abs().mean() / opened.best_constant
    assert found.by_span[0, 0] == pytest.approx(float(first), rel=1e-4)
    assert found.forced == pytest.approx(opened.error(forced))
    assert found.free == pytest.approx(float(off[opened.mask].mean()), rel=1e-5)


def test_both_designs_agree_on_one_run_from_the_first_frame():
    """The seed preset learns raw ln units, so both have the same unit."""
    batch = make_batch([[4, 6, 3, 7, 4, 5]], seed=3)
    opened = own(make_experiment("seed"), batch)
    fresh = opened.build()
    alone = measure_self_feeding(fresh, batch, n_starts=1, layout="seed")
    found = measure_drift(opened, fresh)
    at_one = float(alone.error[0]) / opened.best_constant
    assert found.by_span[0, 0] == pytest.approx(at_one, rel=1e-4)
    by_hand = float((alone.error * alone.n_frames).sum()) / 29 / opened.best_constant
    assert found.free == pytest.approx(by_hand, rel=1e-4)
